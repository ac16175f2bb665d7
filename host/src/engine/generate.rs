//! Generating text: prompt in, tokens out one by one, until something says stop.

use std::time::{Duration, Instant};

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::sampler::{Sampled, Sampler, SamplerConfig};
use crate::text::{StopMatcher, Utf8Stream};

/// How to generate.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// The most tokens to generate; `None`: until the model ends or the context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampler: SamplerConfig,
    /// Texts that end the generation; they are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the generation beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// Go on past the model's own end-of-generation tokens.
    pub ignore_eos: bool,
    /// Write special tokens out as text.
    pub special: bool,
}

/// What the callback is given: a token, and the text that is certain with it.
#[derive(Debug)]
pub struct Piece<'p> {
    /// The token, with its log-probability and the likeliest others where they were asked for.
    pub sampled: &'p Sampled,
    /// Whole characters that can't be part of a stop text any more; may be empty.
    pub text: &'p str,
    /// Whether this is nothing but text that was held back until the end: its token was given before.
    pub tail: bool,
}

/// Why a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or one of the stop tokens came: the token.
    EndToken(u32),
    /// This stop text came: its place in the options.
    StopText(usize),
    /// The most tokens were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// The callback asked for it.
    Cancelled,
}

/// A generation that has ended.
#[derive(Clone, Debug)]
pub struct Generated {
    /// All of its text.
    pub text: String,
    /// Its tokens, the ending one included where there was one.
    pub tokens: Vec<u32>,
    /// The log-probability of each.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
    /// The seed that was used.
    pub seed: u64,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// How many of them were at hand from an earlier prompt.
    pub shared_tokens: usize,
    /// Time for the prompt.
    pub prompt_time: Duration,
    /// Time for the tokens after it.
    pub decode_time: Duration,
}

impl NeuroEngine {
    /// Runs a prompt after what the sequence has seen, then generates. `each` is given every token as it comes, and ends
    /// the generation by returning `false`; during the prompt it is not called, so a long one is stopped through
    /// `proceed`, which is asked between pieces.
    ///
    /// Afterwards the sequence holds the prompt and the generated tokens but the last, which has not been run.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; a sampler whose parameters make no sense; an empty stop text.
    pub fn generate(
        &self,
        sequence: &mut Sequence,
        prompt: &[u32],
        options: &GenerateOptions,
        proceed: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(&Piece<'_>) -> bool,
    ) -> Result<Generated> {
        let mut sampler = Sampler::new(options.sampler.clone(), self.plan.vocabulary)?;
        let mut stops = StopMatcher::new(options.stop.iter().cloned())
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let start = Instant::now();
        let (mut logits, shared_tokens) = self.prefill_shared(sequence, prompt, &mut |_| proceed())?;
        let prompt_time = start.elapsed();
        for token in sequence.tokens() {
            sampler.accept(*token)?;
        }
        let start = Instant::now();
        let mut utf8 = Utf8Stream::default();
        let mut generated = Generated {
            text: String::new(),
            tokens: Vec::new(),
            logprobs: Vec::new(),
            finish: Finish::Length,
            seed: sampler.seed(),
            prompt_tokens: prompt.len(),
            shared_tokens,
            prompt_time,
            decode_time: Duration::ZERO,
        };
        generated.finish = loop {
            if options.max_tokens.is_some_and(|most| generated.tokens.len() >= most) {
                break Finish::Length;
            }
            let sampled = sampler.sample(&logits)?;
            let token = sampled.token;
            generated.tokens.push(token);
            generated.logprobs.push(sampled.logprob);
            let ends = options.stop_tokens.contains(&token)
                || (!options.ignore_eos && self.tokenizer.ends_generation(token));
            let (mut fresh, mut certain) = (String::new(), String::new());
            if !ends || options.special {
                utf8.push(&self.tokenizer.token_bytes(token, options.special)?, &mut fresh);
            }
            let stopped = stops.push(&fresh, &mut certain);
            generated.text.push_str(&certain);
            let go_on = each(&Piece { sampled: &sampled, text: &certain, tail: false });
            if let Some(stop) = stopped {
                break Finish::StopText(stop);
            }
            if ends {
                break Finish::EndToken(token);
            }
            if !go_on {
                break Finish::Cancelled;
            }
            if options.max_tokens.is_some_and(|most| generated.tokens.len() >= most) {
                break Finish::Length;
            }
            if sequence.tokens.len() >= self.context {
                break Finish::ContextFull;
            }
            logits = self.decode(&mut [(sequence, token)])?;
        };
        // What was held back as the beginning of a character or of a stop text.
        let (mut fresh, mut certain) = (String::new(), String::new());
        if !matches!(generated.finish, Finish::StopText(_)) {
            utf8.finish(&mut fresh);
            if let Some(stop) = stops.push(&fresh, &mut certain).or_else(|| stops.finish(&mut certain)) {
                generated.finish = Finish::StopText(stop);
            }
        }
        if !certain.is_empty()
            && let (Some(token), Some(logprob)) = (generated.tokens.last(), generated.logprobs.last())
        {
            generated.text.push_str(&certain);
            let sampled = Sampled { token: *token, logprob: *logprob, top: Vec::new() };
            each(&Piece { sampled: &sampled, text: &certain, tail: true });
        }
        generated.decode_time = start.elapsed();
        Ok(generated)
    }
}
