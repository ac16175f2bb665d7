//! What a user may set, and within which ranges.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Top-n-sigma ([Tang et al. 2024](https://arxiv.org/abs/2411.07641)): keep the tokens whose logit is at most this many standard
    /// deviations of all logits below the best. 0, the default, or less: off.
    pub top_n_sigma: f32,
    /// XTC, "exclude top choices" ([its author's description](https://github.com/oobabooga/text-generation-webui/pull/6335)): how
    /// probable it is that a choice leaves out the likely tokens but the last of them. In [0, 1]; 0, the default: off.
    pub xtc_probability: f32,
    /// From which probability on a token counts as likely for XTC. In [0, 1]; default 0.1; above 0.5: off.
    pub xtc_threshold: f32,
    /// DRY, "don't repeat yourself" ([its author's description](https://github.com/oobabooga/text-generation-webui/pull/5677)): a
    /// token that would go on with a repetition of n tokens loses `dry_multiplier * dry_base^(n - dry_allowed_length)` of its
    /// logit. At least 0; 0, the default: off.
    pub dry_multiplier: f32,
    /// DRY's base. At least 1; default 1.75.
    pub dry_base: f32,
    /// The shortest repetition that DRY sees, in tokens. Default 2.
    pub dry_allowed_length: u32,
    /// How many of the last tokens, prompt included, DRY looks at. `None`, the default: all of them.
    pub dry_penalty_last_n: Option<u32>,
    /// Tokens over which DRY sees no repetition. `None`, the default: those that hold a line's end, a colon, a quote or an
    /// asterisk, where a model's tokenizer is known, and else none.
    pub dry_breakers: Option<BTreeSet<u32>>,
    /// Mirostat ([Basu et al. 2020](https://arxiv.org/abs/2007.14966)), which keeps the text's surprise at a target and takes the
    /// filters' place: 1 or 2 is its version; 0, the default: off.
    pub mirostat: u32,
    /// Mirostat's target of surprise, in bits. Above 0; default 5.
    pub mirostat_tau: f32,
    /// How fast mirostat learns. Above 0; default 0.1.
    pub mirostat_eta: f32,
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
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_penalty_last_n: None,
            dry_breakers: None,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
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
        self.validate_rarer()?;
        if self.top_logprobs as usize > vocab_size {
            let expected = format!("at most {vocab_size}, the tokens of the vocabulary");
            return Err(invalid("top_logprobs", self.top_logprobs, expected));
        }
        Ok(())
    }
}

impl SamplerConfig {
    /// Checks what few set.
    fn validate_rarer(&self) -> Result<(), SamplerError> {
        let unit = "a number from 0 to 1";
        check("top_n_sigma", self.top_n_sigma, true, "a finite number (0 is off)")?;
        check("xtc_probability", self.xtc_probability, (0.0..=1.0).contains(&self.xtc_probability), unit)?;
        check("xtc_threshold", self.xtc_threshold, (0.0..=1.0).contains(&self.xtc_threshold), unit)?;
        let multiplier = self.dry_multiplier;
        check("dry_multiplier", multiplier, multiplier >= 0.0, "a finite number of at least 0 (0 is off)")?;
        check("dry_base", self.dry_base, self.dry_base >= 1.0, "a finite number of at least 1")?;
        check("mirostat_tau", self.mirostat_tau, self.mirostat_tau > 0.0, "a finite number above 0")?;
        check("mirostat_eta", self.mirostat_eta, self.mirostat_eta > 0.0, "a finite number above 0")?;
        if self.mirostat > 2 {
            return Err(invalid("mirostat", self.mirostat, "0 (off), 1 or 2"));
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
