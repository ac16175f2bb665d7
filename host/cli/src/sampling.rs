//! How tokens are chosen, as flags.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use herald::files;
use herald::sampler::SamplerConfig;
use herald::{Constraint, GenerateOptions};

use super::failure::Failure;

/// How tokens are chosen. Without any of these flags, always the likeliest (greedy).
#[derive(Debug, Args)]
#[command(next_help_heading = "Choosing tokens")]
pub(super) struct Sampling {
    /// Randomness: 0 always takes the likeliest token, 1 samples the model's own distribution
    #[arg(long, visible_alias = "temp", value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among the K likeliest tokens; 0: all
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Leave out tokens less likely than this fraction of the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Choose among the most typical tokens that together have this probability
    #[arg(long, alias = "typical-p", value_name = "P", allow_negative_numbers = true)]
    typical: Option<f32>,
    /// Make tokens of the recent text less likely if above 1
    #[arg(long, alias = "repetition-penalty", value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// How many recent tokens the repeat penalty looks at
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<u32>,
    /// Lower the logits of tokens that were generated before
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Lower the logits of tokens by how often they were generated before
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Add to a token's logit (ID=BIAS; -inf bans it); may be given more than once
    #[arg(long, value_name = "ID=BIAS", value_parser = bias, allow_hyphen_values = true)]
    logit_bias: Vec<(u32, f32)>,
    /// Choose among the tokens whose logit is within N standard deviations of the best
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n_sigma: Option<f32>,
    /// How often to leave out the likely tokens but the last of them (XTC)
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_probability: Option<f32>,
    /// From which probability on a token is likely for XTC
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_threshold: Option<f32>,
    /// Lower the logits of tokens that would go on with a repetition (DRY); 0.8 is usual
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f32>,
    /// How much more DRY takes for each further token of a repetition
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f32>,
    /// The shortest repetition that DRY sees, in tokens
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<u32>,
    /// How many recent tokens DRY looks at [default: all]
    #[arg(long, value_name = "N")]
    dry_penalty_last_n: Option<u32>,
    /// Keep the text's surprise at a target (mirostat), in place of the other filters: its version, 1 or 2; 0 is off
    #[arg(long, value_name = "VERSION")]
    mirostat: Option<u32>,
    /// Mirostat's target of surprise, in bits
    #[arg(long, value_name = "BITS", allow_negative_numbers = true)]
    mirostat_tau: Option<f32>,
    /// How fast mirostat learns
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    mirostat_eta: Option<f32>,
    /// Seed of the random numbers, for repeatable results
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Maximum tokens to generate; 0 or -1: no limit, until the model ends or the context is full [default: 0]
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true, value_parser = limit)]
    max_tokens: Option<usize>,
    /// Minimum tokens to generate before an end
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_tokens: usize,
    /// Stop at this text, which is left out; may be given more than once
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new(), allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Stop at this token; may be given more than once
    #[arg(long, value_name = "ID")]
    stop_token: Vec<u32>,
    /// Continue past the model's end token
    #[arg(long)]
    ignore_eos: bool,
    /// Write special tokens out as text
    #[arg(long)]
    special: bool,
    /// Answer with JSON of the schema in this file, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["regex", "grammar"])]
    json_schema: Option<PathBuf>,
    /// Answer with text that the whole of this regular expression matches, and nothing else
    #[arg(long, value_name = "REGEX", conflicts_with = "grammar")]
    regex: Option<String>,
    /// Answer with text of the grammar in this file (GBNF, or Lark's form), and nothing else
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,
}

impl Sampling {
    /// Whether the user gave a seed.
    pub(super) fn has_seed(&self) -> bool {
        self.seed.is_some()
    }

    /// The library's options.
    ///
    /// # Errors
    /// If a value suits no model.
    pub(super) fn options(&self, top_logprobs: u32) -> Result<GenerateOptions, Failure> {
        let sampler = self.sampler(SamplerConfig::default(), top_logprobs)?;
        let constraint = self.constraint()?;
        Ok(GenerateOptions {
            max_tokens: self.max_tokens.filter(|most| *most > 0),
            sampler,
            random: None,
            stop: self.stop.clone(),
            stop_tokens: self.stop_token.clone(),
            ignore_eos: self.ignore_eos,
            special: self.special,
            markers: false,
            min_tokens: self.min_tokens,
            thinking: None,
            constraint,
            deadline: None,
            cache_key: None,
            loras: None,
        })
    }

    /// How tokens are chosen: by what was given, and else by `default`.
    ///
    /// # Errors
    /// If a value suits no model.
    pub(super) fn sampler(
        &self,
        default: SamplerConfig,
        top_logprobs: u32,
    ) -> Result<SamplerConfig, Failure> {
        // A filter or a seed implies sampling, by default from the model's own distribution.
        let filtered = self.top_k.is_some()
            || [self.top_p, self.min_p, self.typical, self.top_n_sigma, self.xtc_probability]
                .iter()
                .any(Option::is_some)
            || self.mirostat.is_some_and(|version| version > 0);
        let is_drawn = (filtered || self.seed.is_some()) && default.temperature == 0.0;
        let default_temperature = if is_drawn { 1.0 } else { default.temperature };
        let sampler = SamplerConfig {
            temperature: self.temperature.unwrap_or(default_temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            typical_p: self.typical.unwrap_or(default.typical_p),
            repetition_penalty: self.repeat_penalty.unwrap_or(default.repetition_penalty),
            repeat_last_n: self.repeat_last_n.or(default.repeat_last_n),
            presence_penalty: self.presence_penalty.unwrap_or(default.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(default.frequency_penalty),
            logit_bias: self.logit_bias.iter().copied().collect(),
            seed: self.seed,
            top_logprobs,
            top_n_sigma: self.top_n_sigma.unwrap_or(default.top_n_sigma),
            xtc_probability: self.xtc_probability.unwrap_or(default.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(default.xtc_threshold),
            dry_multiplier: self.dry_multiplier.unwrap_or(default.dry_multiplier),
            dry_base: self.dry_base.unwrap_or(default.dry_base),
            dry_allowed_length: self.dry_allowed_length.unwrap_or(default.dry_allowed_length),
            dry_penalty_last_n: self.dry_penalty_last_n.or(default.dry_penalty_last_n),
            dry_breakers: None,
            mirostat: self.mirostat.unwrap_or(default.mirostat),
            mirostat_tau: self.mirostat_tau.unwrap_or(default.mirostat_tau),
            mirostat_eta: self.mirostat_eta.unwrap_or(default.mirostat_eta),
        };
        // A value that suits no model is a usage error, reported before anything is loaded.
        sampler.validate(u32::MAX as usize).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(sampler)
    }

    /// The form of the answer.
    fn constraint(&self) -> Result<Option<Constraint>, Failure> {
        Ok(match (&self.json_schema, &self.regex, &self.grammar) {
            (Some(path), ..) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| Failure::file(path, "the JSON schema can't be read", &error))?;
                let schema = Constraint::json_schema(files::without_bom(&text));
                Some(schema.map_err(|what| Failure::Failed(format!("{}: {what}", path.display())))?)
            }
            (None, Some(regex), _) => Some(Constraint::Regex(regex.clone())),
            (None, None, Some(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| Failure::file(path, "the grammar can't be read", &error))?;
                Some(Constraint::grammar(files::without_bom(&text)))
            }
            (None, None, None) => None,
        })
    }
}

fn bias(text: &str) -> Result<(u32, f32), String> {
    let pair = text.split_once('=').and_then(|(id, bias)| Some((id.parse().ok()?, bias.parse().ok()?)));
    pair.ok_or_else(|| "a token's id, '=' and a number were expected, such as 42=-1.5 or 42=-inf".to_owned())
}
/// A number of tokens, or no limit as llama.cpp's users write it.
fn limit(text: &str) -> Result<usize, String> {
    match text {
        "-1" => Ok(0),
        text => text.parse().map_err(|_| "a number of tokens, or -1 for no limit, was expected".to_owned()),
    }
}
