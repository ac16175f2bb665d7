//! A generation's state: the tokens and text so far, and the text that is held back.

use std::time::Duration;

use super::NeuroEngine;
use super::generate::{Finish, GenerateOptions, Generated};
use super::thinking::Thoughts;
use crate::constrain::{Guide, Next};
use crate::error::{Error, Result};
use crate::sampler::{Sampled, Sampler, SamplerState};
use crate::speculation::{Chances, Draft, DraftCounts, Drafter, Guesser};
use crate::stop::Stop;
use crate::stream_text::{StopMatcher, Utf8Stream};
use crate::tokenizer::AscTokenizer;

/// Over what DRY sees no repetition, by default: as its author has it.
const DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// One sequence's generation, fed with logits from outside: the same whether the sequence runs alone or shares its passes.
pub(crate) struct Generation {
    options: GenerateOptions,
    sampler: Sampler,
    stops: StopMatcher,
    utf8: Utf8Stream,
    guide: Option<Guide>,
    thoughts: Option<Thoughts>,
    drafter: Drafter,
    text: String,
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
}

/// A token that was chosen.
pub(crate) struct ChosenToken {
    pub(crate) sampled: Sampled,
    /// Text that it makes certain.
    pub(crate) text: String,
    /// The random numbers that would come next.
    pub(crate) random: SamplerState,
    /// Why the generation ends here, where it does. The callback's wish to stop counts before `Length` and `ContextFull`.
    pub(crate) finish: Option<Finish>,
}

impl Generation {
    /// `stop` ends the work on the answer's form, which may take a while.
    pub(crate) fn new(engine: &NeuroEngine, options: &GenerateOptions, stop: Option<&Stop>) -> Result<Self> {
        let guide = |constraint| Guide::new(engine.forms()?, constraint, options.ignore_eos, stop);
        let thoughts = |budget| Thoughts::new(budget, engine.tokenizer());
        options.loras.as_deref().map_or(Ok(()), |loras| engine.check_loras(loras))?;
        let mut config = options.sampler.clone();
        if config.dry_multiplier > 0.0 && config.dry_breakers.is_none() {
            config.dry_breakers = Some(engine.tokens_with(&DRY_BREAKERS)?);
        }
        let mut sampler = Sampler::new(config, engine.plan().vocabulary)?;
        if let Some(state) = options.random {
            sampler.go_on_from(state);
        }
        Ok(Self {
            sampler,
            guide: options.constraint.as_ref().map(guide).transpose()?,
            thoughts: options.thinking.clone().map(thoughts).transpose()?,
            stops: StopMatcher::new(options.stop.iter().cloned())
                .map_err(|error| Error::Invalid(error.to_string()))?,
            options: options.clone(),
            utf8: Utf8Stream::default(),
            drafter: Drafter::new(),
            text: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
        })
    }

    /// Records the tokens that come before, for the penalties.
    pub(crate) fn accept(&mut self, ids: &[u32]) -> Result<()> {
        ids.iter().try_for_each(|id| self.sampler.accept(*id).map_err(Error::from))
    }

    /// How it is generated.
    pub(crate) fn options(&self) -> &GenerateOptions {
        &self.options
    }

    /// Whether the token limit is reached.
    pub(crate) fn is_long_enough(&self) -> bool {
        self.options.max_tokens.is_some_and(|most| self.tokens.len() >= most)
    }

    /// A draft of what follows the text `seen` and `chosen`, whose sequence has room for `room` tokens more. `guess` asks the draft model.
    pub(crate) fn draft(
        &mut self,
        [seen, chosen]: [&[u32]; 2],
        room: usize,
        chances: Chances,
        guess: &mut Guesser<'_>,
    ) -> Draft {
        // After a draft's last token another is chosen.
        let most = self.left(room).saturating_sub(1);
        if most == 0 {
            return Draft::default();
        }
        let forced = self.guide.as_mut().map(Guide::forced).unwrap_or_default();
        let chances = Chances { room: chances.room.min(most), ..chances };
        self.drafter.draft(seen, chosen, forced, chances, guess)
    }

    /// Counts what became of a draft: `accepted` of its tokens came.
    pub(crate) fn learn(&mut self, draft: &Draft, accepted: usize) {
        self.drafter.learn(draft, accepted);
    }

    /// Takes back the last `n` tokens, which nobody will see; `random` comes after those before them.
    pub(crate) fn take_back(
        &mut self,
        tokenizer: &AscTokenizer,
        n: usize,
        random: SamplerState,
    ) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        self.tokens.truncate(self.tokens.len() - n);
        self.logprobs.truncate(self.tokens.len());
        self.sampler.go_on_from(random);
        // None of the tokens that are left ends the text, since others came after them.
        self.utf8 = Utf8Stream::default();
        self.stops = StopMatcher::new(self.options.stop.iter().cloned())
            .map_err(|error| Error::Invalid(error.to_string()))?;
        self.text.clear();
        for token in &self.tokens {
            let (mut fresh, special) = (String::new(), self.options.special || self.options.markers);
            self.utf8.push(&tokenizer.token_bytes(*token, special)?, &mut fresh);
            self.stops.push(&fresh, &mut self.text);
        }
        Ok(())
    }

    /// How many tokens were generated.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Chooses the next token from logits `[vocabulary]`. `room`: tokens that the sequence has room for.
    pub(crate) fn choose(
        &mut self,
        tokenizer: &AscTokenizer,
        logits: &[f32],
        room: usize,
    ) -> Result<ChosenToken> {
        let sampled = self.sample(tokenizer, logits, room)?;
        let token = sampled.token;
        self.tokens.push(token);
        self.logprobs.push(sampled.logprob);
        if let Some(thoughts) = &mut self.thoughts {
            thoughts.push(&tokenizer.token_bytes(token, true)?, tokenizer)?;
        }
        let ends = self.options.stop_tokens.contains(&token)
            || (!self.options.ignore_eos && tokenizer.ends_generation(token));
        let (mut fresh, mut text) = (String::new(), String::new());
        if !ends || self.options.special {
            let special = self.options.special || self.options.markers;
            self.utf8.push(&tokenizer.token_bytes(token, special)?, &mut fresh);
        }
        let stopped = self.stops.push(&fresh, &mut text);
        self.text.push_str(&text);
        let finish = if let Some(stop) = stopped {
            Some(Finish::StopText(stop))
        } else if ends {
            Some(Finish::EndToken(token))
        } else if self.is_whole(room)? {
            Some(Finish::Complete)
        } else if self.is_long_enough() {
            Some(Finish::Length)
        } else if room == 0 {
            Some(Finish::ContextFull)
        } else {
            None
        };
        Ok(ChosenToken { sampled, text, random: self.sampler.state(), finish })
    }

    /// Tokens that there is still room for, where the sequence has room for `room` more to be run.
    pub(super) fn left(&self, room: usize) -> usize {
        // The last token need not be run.
        let left = room.saturating_add(1);
        self.options.max_tokens.map_or(left, |most| left.min(most - self.tokens.len()))
    }

    /// The tokens that may come while an end is too early, as bits, among `allowed`.
    fn without_ends(options: &GenerateOptions, tokenizer: &AscTokenizer, allowed: &mut [u32]) {
        let is_end = |token: &u32| {
            options.stop_tokens.contains(token) || (!options.ignore_eos && tokenizer.ends_generation(*token))
        };
        for token in (0..tokenizer.vocabulary() as u32).filter(is_end) {
            if let Some(word) = allowed.get_mut(token as usize / 32) {
                *word &= !(1 << (token % 32));
            }
        }
    }

    fn sample(&mut self, tokenizer: &AscTokenizer, logits: &[f32], room: usize) -> Result<Sampled> {
        let left = self.left(room);
        let is_too_early = self.tokens.len() < self.options.min_tokens;
        let end_of_thoughts = self.thoughts.as_ref().and_then(Thoughts::next);
        let Some(guide) = &mut self.guide else {
            if let Some(token) = end_of_thoughts {
                return Ok(self.sampler.sample_allowed(logits, &only(token, logits.len()))?);
            }
            if is_too_early {
                let mut allowed = vec![u32::MAX; logits.len().div_ceil(32)];
                Self::without_ends(&self.options, tokenizer, &mut allowed);
                return Ok(self.sampler.sample_allowed(logits, &allowed)?);
            }
            return Ok(self.sampler.sample(logits)?);
        };
        let Next::Tokens(allowed) = guide.next(left)? else {
            return Err(Error::Constraint("nothing may come next in the answer's form".to_owned()));
        };
        let mut later = allowed.as_slice().to_vec();
        if is_too_early {
            Self::without_ends(&self.options, tokenizer, &mut later);
        }
        if let Some(token) = end_of_thoughts {
            if later.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1) {
                later = only(token, logits.len());
            } else if let Some(thoughts) = &mut self.thoughts {
                thoughts.give_up();
            }
        }
        // Where the form allows nothing but its end, the end comes.
        let later = if later.iter().all(|word| *word == 0) { allowed.as_slice() } else { &later };
        let mut sampled = self.sampler.draw(logits, Some(later))?;
        if let Some(instead) = guide.take(sampled.token, left - 1)? {
            sampled = self.sampler.draw(logits, Some(&only(instead, logits.len())))?;
        }
        self.sampler.record(&sampled);
        Ok(sampled)
    }

    /// Whether a constrained answer is whole, and nothing more may come or has room.
    fn is_whole(&mut self, room: usize) -> Result<bool> {
        // One token has come since `room` was counted.
        let left = if room == 0 { 0 } else { self.left(room - 1) };
        let Some(guide) = &mut self.guide else { return Ok(false) };
        if left == 0 { guide.is_whole() } else { Ok(matches!(guide.next(left)?, Next::End)) }
    }

    /// Ends it. Returns the result, in which the caller fills in the times and the prompt's length, and any text that was held
    /// back as the beginning of a character or of a stop text, with the token that it belongs to.
    pub(crate) fn end(mut self, finish: Finish) -> (Generated, Option<(Sampled, String)>) {
        let DraftCounts { all, guessed } = self.drafter.counts();
        let (mut finish, mut fresh, mut held) = (finish, String::new(), String::new());
        if !matches!(finish, Finish::StopText(_)) {
            self.utf8.finish(&mut fresh);
            if let Some(stop) = self.stops.push(&fresh, &mut held).or_else(|| self.stops.finish(&mut held)) {
                finish = Finish::StopText(stop);
            }
        }
        self.text.push_str(&held);
        let last = self.tokens.last().zip(self.logprobs.last()).filter(|_| !held.is_empty());
        let tail = last
            .map(|(token, logprob)| (Sampled { token: *token, logprob: *logprob, top: Vec::new() }, held));
        let generated = Generated {
            text: self.text,
            tokens: self.tokens,
            logprobs: self.logprobs,
            finish,
            seed: self.sampler.seed(),
            random: self.sampler.state(),
            prompt_tokens: 0,
            shared_tokens: 0,
            drafted_tokens: all[0],
            accepted_tokens: all[1],
            guessed_tokens: guessed[0],
            accepted_guesses: guessed[1],
            prompt_time: Duration::ZERO,
            decode_time: Duration::ZERO,
        };
        (generated, tail)
    }
}

/// One token of a vocabulary, as bits.
fn only(token: u32, vocabulary: usize) -> Vec<u32> {
    let mut bits = vec![0; vocabulary.div_ceil(32)];
    if let Some(word) = bits.get_mut(token as usize / 32) {
        *word = 1 << (token % 32);
    }
    bits
}
