//! What a user may set, and within which ranges.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SamplerError;

/// How tokens are chosen. The default takes the most probable token each time, with no penalty: the one setting
/// whose output a model's makers and users can compare. Any field absent from a serialised form has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplerConfig {
    /// Divides the logits before the draw: below 1 sharpens, above 1 flattens. 0, the default, is greedy: the best
    /// logit after bias and penalties, the lowest id among equals, and the filters below have no effect.
    pub temperature: f32,
    /// Keep the `top_k` best logits. 0, the default: no limit.
    pub top_k: u32,
    /// Locally typical sampling ([Meister et al. 2022](https://arxiv.org/abs/2202.00666)): keep the tokens whose
    /// surprise is nearest to the entropy, up to this much probability. In (0, 1]; 1, the default: off.
    pub typical_p: f32,
    /// Nucleus sampling ([Holtzman et al. 2019](https://arxiv.org/abs/1904.09751)): keep the best tokens until they
    /// have at least this much probability together. In [0, 1]; 1, the default: off; 0 keeps one token.
    pub top_p: f32,
    /// Keep the tokens at least this probable relative to the best
    /// ([Nguyen et al. 2024](https://arxiv.org/abs/2407.01082)). In [0, 1]; 0, the default: off.
    pub min_p: f32,
    /// Repetition penalty ([CTRL, Keskar et al. 2019](https://arxiv.org/abs/1909.05858)): a token among the last
    /// `repeat_last_n`, prompt included, has its logit divided by this if positive, multiplied if not. Above 0; 1,
    /// the default: off.
    pub repetition_penalty: f32,
    /// How many of the last tokens, prompt included, the repetition penalty sees. `None` (`null`): all of them; 0:
    /// none. Default 64.
    pub repeat_last_n: Option<u32>,
    /// As in OpenAI's API: subtracted from the logit of each token that was generated already (the prompt doesn't
    /// count). Default 0.
    pub presence_penalty: f32,
    /// As in OpenAI's API: subtracted from a token's logit once for each time that it was generated (the prompt
    /// doesn't count). Default 0.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens. `-inf` bans a token; it is serialised as `null`, since JSON has no
    /// infinity.
    #[serde(with = "bias")]
    pub logit_bias: BTreeMap<u32, f32>,
    /// Seed of the draws: the same seed, settings and logits give the same tokens on every platform. `None`, the
    /// default: from the operating system; [`Sampler::seed`](super::Sampler::seed) says which.
    pub seed: Option<u64>,
    /// How many of the most probable tokens to report with each choice. Default 0.
    pub top_logprobs: u32,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            typical_p: 1.0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repeat_last_n: Some(64),
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            seed: None,
            top_logprobs: 0,
        }
    }
}

impl SamplerConfig {
    /// Checks every field for a model with this many tokens.
    ///
    /// # Errors
    /// The first field outside its range.
    pub fn validate(&self, vocab_size: usize) -> Result<(), SamplerError> {
        if vocab_size == 0 || u32::try_from(vocab_size).is_err() {
            return Err(invalid("vocab_size", vocab_size, "between 1 and 4294967295 tokens"));
        }
        let temperature = self.temperature;
        check("temperature", temperature, temperature >= 0.0, "a finite number of at least 0 (0 is greedy)")?;
        let typical = self.typical_p;
        check(
            "typical_p",
            typical,
            typical > 0.0 && typical <= 1.0,
            "a number above 0 and at most 1 (1 is off)",
        )?;
        check("top_p", self.top_p, (0.0..=1.0).contains(&self.top_p), "a number from 0 to 1 (1 is off)")?;
        check("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "a number from 0 to 1 (0 is off)")?;
        let penalty = self.repetition_penalty;
        check("repetition_penalty", penalty, penalty > 0.0, "a finite number above 0 (1 is off)")?;
        check("presence_penalty", self.presence_penalty, true, "a finite number (0 is off)")?;
        check("frequency_penalty", self.frequency_penalty, true, "a finite number (0 is off)")?;
        for (&token, &bias) in &self.logit_bias {
            if token as usize >= vocab_size {
                return Err(SamplerError::UnknownToken { token, vocab_size });
            }
            if bias.is_nan() || bias == f32::INFINITY {
                let value = format!("{bias} for token {token}");
                return Err(invalid("logit_bias", value, "a finite number, or -inf to ban the token"));
            }
        }
        if self.top_logprobs as usize > vocab_size {
            let expected = format!("at most {vocab_size}, the tokens of the vocabulary");
            return Err(invalid("top_logprobs", self.top_logprobs, expected));
        }
        Ok(())
    }
}

fn check(name: &'static str, value: f32, in_range: bool, expected: &str) -> Result<(), SamplerError> {
    if value.is_finite() && in_range { Ok(()) } else { Err(invalid(name, value, expected)) }
}

fn invalid(name: &'static str, value: impl ToString, expected: impl Into<String>) -> SamplerError {
    SamplerError::InvalidParameter { name, value: value.to_string(), expected: expected.into() }
}

/// Writes a ban (`-inf`) as `null`, and reads it back.
mod bias {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bias: &BTreeMap<u32, f32>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(bias.iter().map(|(token, &bias)| (token, (bias != f32::NEG_INFINITY).then_some(bias))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<u32, f32>, D::Error> {
        let read = BTreeMap::<u32, Option<f32>>::deserialize(from)?;
        Ok(read.into_iter().map(|(token, bias)| (token, bias.unwrap_or(f32::NEG_INFINITY))).collect())
    }
}
