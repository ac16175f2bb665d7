//! Generating text: prompt in, tokens out one by one, until something says stop.

use std::time::{Duration, Instant};

use super::generation::Generation;
use super::interrupt::Leave;
use super::pass::WantedLogits;
use super::thinking::ThinkingBudget;
use super::{NeuroEngine, Sequence};
use crate::constrain::Constraint;
use crate::error::{Error, Result};
use crate::lora::LoraScale;
use crate::sampler::{Sampled, SamplerConfig, SamplerState};
use crate::speculation::Ahead;
use crate::tokenizer::AscTokenizer;

/// How to generate.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// The most tokens to generate; `None`: until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// The random numbers to go on with; `None`: those of the sampler's seed, from the beginning.
    pub random: Option<SamplerState>,
    /// Texts that end the generation; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the generation beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Go on past the model's own end-of-generation tokens.
    pub ignore_eos: bool,
    /// Write special tokens out as text.
    pub special: bool,
    /// Write special tokens out as text, but for the one that ends the answer: they mark the parts of it (calls of tools,
    /// thoughts) in many models.
    pub markers: bool,
    /// Tokens that come before any that ends the answer.
    pub min_tokens: usize,
    /// The form that the answer must have.
    pub constraint: Option<Constraint>,
    /// How long the model may think; `None`: as long as it wants.
    pub thinking: Option<ThinkingBudget>,
    /// When it ends at the latest, as if it were cancelled; `None`: at any time.
    pub deadline: Option<Instant>,
    /// Who shares what the sequence computes, as [`Sequence::set_cache_key`]; `None`: as the sequence says.
    pub cache_key: Option<String>,
    /// The adapters that the sequence is computed with, as [`NeuroEngine::set_loras`]; `None`: as the sequence says.
    pub loras: Option<Vec<LoraScale>>,
}

/// What the callback is given: a token, and the text that it makes certain.
#[derive(Debug)]
pub struct TokenOutput<'p> {
    /// The token, with its log-probability and, where the sampler is set so, the likeliest others.
    pub sampled: &'p Sampled,
    /// Whole characters that can't be part of a stop text any more; may be empty.
    pub text: &'p str,
    /// Whether this is only text that was held back until the end, whose token was given before.
    pub tail: bool,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or one of the stop tokens came: the token.
    EndToken(u32),
    /// A stop text came: its index in the options.
    StopText(usize),
    /// The answer is complete in the constraint's form, and nothing more may (or can) come.
    Complete,
    /// The token limit was reached.
    Length,
    /// The context is full.
    ContextFull,
    /// The callback or the sequence's [`Stop`](crate::Stop) stopped it.
    Cancelled,
}

/// A generation that has ended.
#[derive(Clone, Debug)]
pub struct Generated {
    /// All of its text.
    pub text: String,
    /// Its tokens, including the one that ended it, where there was one.
    pub tokens: Vec<u32>,
    /// The log-probability of each.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// The seed that was used.
    pub seed: u64,
    /// The random numbers that would come next.
    pub random: SamplerState,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them earlier sequences had computed, and were not run.
    pub shared_tokens: usize,
    /// Tokens that were drafted (speculative decoding).
    pub drafted_tokens: usize,
    /// How many of them came.
    pub accepted_tokens: usize,
    /// How many of those that were drafted are the draft model's guesses.
    pub guessed_tokens: usize,
    /// How many of these came.
    pub accepted_guesses: usize,
    /// Time for the prompt.
    pub prompt_time: Duration,
    /// Time for the tokens after it.
    pub decode_time: Duration,
}

impl NeuroEngine {
    /// Runs a prompt after what the sequence has seen, then generates. `each` is given every token as it comes, and ends
    /// the generation by returning `false`. `proceed` is called between the pieces of the prompt, and stops that by returning
    /// `false`; the sequence's [`Stop`](crate::Stop) ends the prompt sooner, and what comes after it.
    ///
    /// Afterwards the sequence holds the prompt and the generated tokens but the last, which has not been run. The prefix cache
    /// has all of them too: a prompt that begins with them goes on from there.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; a sampler parameter out of range; an empty stop text; a constraint that can't be used.
    pub fn generate(
        &self,
        sequence: &mut Sequence,
        prompt: &[u32],
        options: &GenerateOptions,
        proceed: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(&TokenOutput<'_>) -> bool,
    ) -> Result<Generated> {
        let stop = sequence.stop.clone();
        if options.deadline.is_some() {
            sequence.stop = Some(stop.clone().unwrap_or_default().or_at(options.deadline));
        }
        let done = self.generate_until(sequence, prompt, options, proceed, each);
        sequence.stop = stop;
        done
    }

    fn generate_until(
        &self,
        sequence: &mut Sequence,
        prompt: &[u32],
        options: &GenerateOptions,
        proceed: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(&TokenOutput<'_>) -> bool,
    ) -> Result<Generated> {
        sequence.go_on()?;
        if let Some(key) = &options.cache_key {
            sequence.set_cache_key(Some(key));
        }
        if let Some(loras) = &options.loras {
            self.set_loras(sequence, loras)?;
        }
        let mut generation = Generation::new(self, options, sequence.stop.as_ref())?;
        let start = Instant::now();
        let (logits, shared_tokens) = self.prefill_shared(sequence, prompt, &mut |_| proceed())?;
        let prompt_time = start.elapsed();
        generation.accept(sequence.tokens())?;
        let start = Instant::now();
        let mut ahead = Ahead::default();
        let finish = if generation.is_long_enough() {
            Finish::Length
        } else {
            self.choose_on(sequence, &mut generation, &mut ahead, &logits, each)?
        };
        self.catch_up(sequence, &mut ahead)?;
        self.keep_all(sequence);
        let (generated, tail) = generation.end(finish);
        if let Some((sampled, text)) = tail {
            each(&TokenOutput { sampled: &sampled, text: &text, tail: true });
        }
        let (prompt_tokens, decode_time) = (prompt.len(), start.elapsed());
        Ok(Generated { prompt_tokens, shared_tokens, prompt_time, decode_time, ..generated })
    }

    /// Chooses tokens from a prompt's logits on, and runs them, until the generation ends.
    fn choose_on(
        &self,
        sequence: &mut Sequence,
        generation: &mut Generation,
        ahead: &mut Ahead,
        logits: &[f32],
        each: &mut dyn FnMut(&TokenOutput<'_>) -> bool,
    ) -> Result<Finish> {
        let room = |tokens: usize| self.context - tokens;
        let mut chosen = Chosen { room: room(sequence.tokens.len()), ..Chosen::default() };
        chosen.take(logits, &self.tokenizer, generation, &[], each);
        loop {
            self.settle(sequence, ahead, generation, &chosen.tokens);
            if let Some(end) = chosen.end {
                return end;
            }
            let spare = self.max_batch.min(self.most_decoded()).saturating_sub(ahead.len());
            self.draft(ahead, sequence, generation, 1, spare);
            let ids = ahead.ids();
            self.check(sequence, &ids)?;
            let before = sequence.tokens.len() + ahead.chosen.len();
            chosen = Chosen { room: room(before), ..Chosen::default() };
            let (wanted, start) = ([ahead.wanted()], Instant::now());
            let rows = &mut |rows: &[f32]| {
                for row in rows.chunks_exact(self.plan.vocabulary) {
                    chosen.take(row, &self.tokenizer, generation, &ahead.draft.tokens, each);
                }
            };
            match self.pass(&mut [(sequence, &ids)], WantedLogits::LastOf(&wanted), Leave::Any, rows) {
                Ok(()) => self.observe_pass(ids.len(), start.elapsed()),
                Err(Error::Cancelled) => return Ok(Finish::Cancelled),
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was chosen from one pass's logits.
#[derive(Default)]
struct Chosen {
    /// Tokens that the sequence has room for after the next row's.
    room: usize,
    tokens: Vec<u32>,
    /// Whether what follows the last of them wasn't run.
    is_last: bool,
    /// How the generation ends, where it does.
    end: Option<Result<Finish>>,
}

impl Chosen {
    /// Chooses from the next row of logits, unless the generation has left the draft or ended before.
    fn take(
        &mut self,
        row: &[f32],
        tokenizer: &AscTokenizer,
        generation: &mut Generation,
        draft: &[u32],
        each: &mut dyn FnMut(&TokenOutput<'_>) -> bool,
    ) {
        if self.is_last || self.end.is_some() {
            return;
        }
        let chosen = match generation.choose(tokenizer, row, self.room) {
            Ok(chosen) => chosen,
            Err(error) => {
                self.end = Some(Err(error));
                return;
            }
        };
        let token = chosen.sampled.token;
        self.is_last = draft.get(self.tokens.len()) != Some(&token);
        self.tokens.push(token);
        self.room = self.room.saturating_sub(1);
        let go_on = each(&TokenOutput { sampled: &chosen.sampled, text: &chosen.text, tail: false });
        self.end = match chosen.finish {
            Some(finish @ (Finish::StopText(_) | Finish::EndToken(_) | Finish::Complete)) => Some(Ok(finish)),
            _ if !go_on => Some(Ok(Finish::Cancelled)),
            finish => finish.map(Ok),
        };
    }
}
