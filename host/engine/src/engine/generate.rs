//! Generating text: prompt in, tokens out one by one, until something says stop.

use std::time::{Duration, Instant};

use super::generation::Generation;
use super::thinking::ThinkingBudget;
use super::{NeuroEngine, Sequence};
use crate::constrain::Constraint;
use crate::error::{Error, Result};
use crate::sampler::{Sampled, SamplerConfig, SamplerState};

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
        let mut generation = Generation::new(self, options, sequence.stop.as_ref())?;
        let start = Instant::now();
        let (mut logits, shared_tokens) = self.prefill_shared(sequence, prompt, &mut |_| proceed())?;
        let prompt_time = start.elapsed();
        generation.accept(sequence.tokens())?;
        let start = Instant::now();
        let finish = loop {
            if generation.is_long_enough() {
                break Finish::Length;
            }
            let room = self.context - sequence.tokens.len();
            let chosen = generation.choose(&self.tokenizer, &logits, room)?;
            let go_on = each(&TokenOutput { sampled: &chosen.sampled, text: &chosen.text, tail: false });
            match chosen.finish {
                Some(finish @ (Finish::StopText(_) | Finish::EndToken(_) | Finish::Complete)) => {
                    break finish;
                }
                _ if !go_on => break Finish::Cancelled,
                Some(finish) => break finish,
                None => match self.decode(&mut [(sequence, chosen.sampled.token)]) {
                    Ok(next) => logits = next,
                    Err(Error::Cancelled) => break Finish::Cancelled,
                    Err(error) => return Err(error),
                },
            }
        };
        self.keep_all(sequence);
        let (generated, tail) = generation.end(finish);
        if let Some((sampled, text)) = tail {
            each(&TokenOutput { sampled: &sampled, text: &text, tail: true });
        }
        let (prompt_tokens, decode_time) = (prompt.len(), start.elapsed());
        Ok(Generated { prompt_tokens, shared_tokens, prompt_time, decode_time, ..generated })
    }
}
