//! `config.json`: the settings of a checkpoint, and which of them the conversion has asked for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{CheckpointError, Result, bad_file, refused};
use super::json;

/// Settings that say nothing of what the model computes, or what other files and the tensors themselves say too.
const HARMLESS: &[&str] = &[
    "_attn_implementation_autoset",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "attn_pdrop",
    "auto_map",
    "bos_token_id",
    "boi_token_index",
    "boa_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "dtype",
    "embd_pdrop",
    "eoi_token_index",
    "eos_token_id",
    "for_causal_lm",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "id2label",
    "image_token_id",
    "image_token_index",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "language_model_only",
    "max_length",
    "mm_tokens_per_image",
    "model_type",
    "num_labels",
    "num_logits_to_keep",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pad_token_id",
    "pretraining_tp",
    "problem_type",
    "rescale_prenorm_residual",
    "resid_pdrop",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "task_specific_params",
    "text_config",
    "tie_embedding",
    "tie_word_embeddings",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
    "video_token_id",
    "vision_config",
    "vision_end_token_id",
    "vision_start_token_id",
];

/// The settings, with what `transformers` takes for those that the file leaves out.
#[derive(Debug)]
pub(super) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
    defaults: Map<String, Value>,
    asked: RefCell<HashSet<String>>,
    /// Settings that the user has it convert without.
    ignored: Vec<String>,
}

impl Config {
    /// Reads a checkpoint's settings. Those of a language model within another model count as the checkpoint's own.
    pub(super) fn open(folder: &Path, ignored: &[String]) -> Result<Self> {
        let path = folder.join("config.json");
        let mut values = json::object(&path)?.ok_or_else(|| {
            bad_file(&path, "there is no such file, where a checkpoint's settings were expected")
        })?;
        if let Some(Value::Object(inner)) = values.get("text_config").cloned() {
            let outer = values.get("architectures").cloned();
            values.extend(inner);
            // The whole model's class says more than that of a part, which often is none of a causal model.
            if let Some(outer) = outer {
                values.insert("architectures".to_owned(), outer);
            }
        }
        Ok(Self { path, values, defaults: Map::new(), asked: RefCell::default(), ignored: ignored.to_vec() })
    }

    /// The class that the checkpoint is of.
    pub(super) fn class(&self) -> Result<&str> {
        let first = self.values.get("architectures").and_then(|names| names.get(0));
        first.and_then(Value::as_str).ok_or_else(|| {
            let held = self.values.get("architectures").map_or("nothing".to_owned(), json::shown);
            bad_file(
                &self.path,
                format!("architectures holds {held}, where a list with a class was expected"),
            )
        })
    }

    /// Takes these values for settings that the file leaves out.
    pub(super) fn set_defaults(&mut self, defaults: &str) -> Result<()> {
        let parsed = serde_json::from_str(defaults);
        self.defaults = parsed.map_err(|error| bad_file(&self.path, format!("its defaults: {error}")))?;
        Ok(())
    }

    /// Takes a value for a setting that the file leaves out or has as `null`.
    pub(super) fn fill(&mut self, key: &str, value: impl Into<Value>) {
        self.defaults.insert(key.to_owned(), value.into());
        if self.values.get(key).is_some_and(Value::is_null) {
            self.values.remove(key);
        }
    }

    /// Forgets a setting.
    pub(super) fn remove(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// Whether the user has it convert without this setting.
    pub(super) fn is_ignored(&self, key: &str) -> bool {
        self.ignored.iter().any(|other| other == key)
    }

    /// A setting of the file as it is there, whether or not a conversion asks for it.
    pub(super) fn raw(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// The first of these settings that the file has, or else that has a default. `null` is no value, but keeps defaults out.
    pub(super) fn find(&self, keys: &[&str]) -> Option<(String, &Value)> {
        self.asked.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
        let of = |map: &'_ Map<String, Value>| keys.iter().find(|key| map.contains_key(**key)).copied();
        let (key, map) = of(&self.values)
            .map(|key| (key, &self.values))
            .or_else(|| of(&self.defaults).map(|key| (key, &self.defaults)))?;
        map.get(key).filter(|value| !value.is_null()).map(|value| (key.to_owned(), value))
    }

    /// A setting's value.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.find(&[key]).map(|(_, value)| value)
    }

    /// A refusal of a setting's value.
    pub(super) fn bad(&self, key: &str, value: &Value, expected: &str) -> CheckpointError {
        bad_file(&self.path, format!("{key} is {}, where {expected} was expected", json::shown(value)))
    }

    fn missing(&self, keys: &[&str]) -> CheckpointError {
        bad_file(&self.path, format!("there is no {}, which was expected", keys.join(" and no ")))
    }

    /// An integer, if there is one.
    pub(super) fn count(&self, keys: &[&str]) -> Result<Option<u32>> {
        let Some((key, value)) = self.find(keys) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| u32::try_from(count).ok());
        let count = count.filter(|count| *count <= MAX_COUNT);
        count.map(Some).ok_or_else(|| self.bad(&key, value, &format!("an integer from 0 to {MAX_COUNT}")))
    }

    /// An integer.
    pub(super) fn need(&self, keys: &[&str]) -> Result<u32> {
        self.count(keys)?.ok_or_else(|| self.missing(keys))
    }

    /// An integer that is a size: not zero.
    pub(super) fn size(&self, keys: &[&str]) -> Result<usize> {
        match self.need(keys)? {
            0 => Err(self.bad(keys.first().unwrap_or(&""), &Value::from(0), "at least 1")),
            size => Ok(size as usize),
        }
    }

    /// A finite number, if there is one.
    pub(super) fn number(&self, keys: &[&str]) -> Result<Option<f64>> {
        let Some((key, value)) = self.find(keys) else { return Ok(None) };
        let number = value.as_f64().filter(|number| (*number as f32).is_finite());
        number.map(Some).ok_or_else(|| self.bad(&key, value, "a number"))
    }

    /// A finite number.
    pub(super) fn need_number(&self, keys: &[&str]) -> Result<f64> {
        self.number(keys)?.ok_or_else(|| self.missing(keys))
    }

    /// A flag, if there is one.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.bad(key, value, "true or false"))
    }

    /// A text, if there is one.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.bad(key, value, "a text"))
    }

    /// A list of texts, if there is one.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.bad(key, value, "a list of texts"))
    }

    /// A list of finite numbers, if there is one.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = |value: &Value| value.as_f64().filter(|number| (*number as f32).is_finite());
        let numbers = value.as_array().and_then(|list| list.iter().map(number).collect());
        numbers.map(Some).ok_or_else(|| self.bad(key, value, "a list of numbers"))
    }

    /// Refuses a setting that isn't one of these values; the first is what the architecture computes.
    pub(super) fn expect(&self, key: &str, allowed: &[&str]) -> Result<()> {
        match self.text(key)? {
            Some(value) if !allowed.contains(&value) => {
                Err(self.bad(key, &Value::from(value), &allowed.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a flag that isn't as the architecture computes.
    pub(super) fn expect_flag(&self, key: &str, expected: bool) -> Result<()> {
        match self.flag(key)? {
            Some(value) if value != expected => {
                Err(self.bad(key, &Value::from(value), &expected.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Counts settings as known: they repeat others, or the tensors say the same.
    pub(super) fn disregard(&self, keys: &[&str]) {
        self.asked.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// Whether a head of its own is expected: embeddings aren't tied.
    pub(super) fn is_tied(&self) -> Result<bool> {
        Ok(self.flag("tie_word_embeddings")?.or(self.flag("tie_embedding")?).unwrap_or(false))
    }

    /// The file, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses settings that nothing asked for, but for those that the user has it convert without.
    pub(super) fn check_all_known(&self) -> Result<()> {
        let asked = self.asked.borrow();
        let known = |key: &str| asked.contains(key) || HARMLESS.contains(&key) || self.is_ignored(key);
        let unknown: Vec<&str> = self
            .values
            .iter()
            .filter(|(key, value)| !value.is_null() && !known(key))
            .map(|(key, _)| key.as_str())
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let verb = if unknown.len() == 1 { "is no setting" } else { "are no settings" };
        refused(format!(
            "{}: {} {verb} that is known for {}: the model may compute something else; --ignore NAME converts without",
            self.path.display(),
            unknown.join(", "),
            self.class()?
        ))
    }
}

/// The largest count of a setting.
const MAX_COUNT: u32 = i32::MAX as u32;

/// The settings of RoPE, wherever a checkpoint has them.
#[derive(Debug)]
pub(super) struct Rope<'c> {
    config: &'c Config,
    /// Those of all blocks, or of the blocks that attend to everything.
    full: Map<String, Value>,
    /// The base of blocks with a window, where that is another.
    pub(super) window_base: Option<f64>,
}

/// What settings of RoPE there may be.
const ROPE: &[&str] = &[
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "extrapolation_factor",
    "attention_factor",
    "attn_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "low_freq_factor",
    "high_freq_factor",
    "short_factor",
    "long_factor",
    "short_mscale",
    "long_mscale",
    "mrope_section",
    "mrope_interleaved",
    "truncate",
];

impl Config {
    /// The settings of RoPE, from `rope_parameters`, `rope_scaling`, or beside them.
    pub(super) fn rope(&self) -> Result<Rope<'_>> {
        let theta = self.find(&["rope_theta"]).map(|(_, value)| value.clone());
        let local = self.find(&["rope_local_base_freq", "local_rope_theta"]).map(|(_, value)| value.clone());
        let beside = ["partial_rotary_factor", "original_max_position_embeddings"];
        let mut window = None;
        let mut full = match self.find(&["rope_parameters", "rope_scaling"]) {
            None => Map::new(),
            Some((key, value)) => {
                value.as_object().cloned().ok_or_else(|| self.bad(&key, value, "an object"))?
            }
        };
        if full.contains_key("full_attention") || full.contains_key("sliding_attention") {
            window = full.get("sliding_attention").and_then(|of| of.get("rope_theta")).cloned();
            full = full.get("full_attention").and_then(Value::as_object).cloned().unwrap_or_default();
        } else {
            window = window.or(local);
            if let Some(theta) = theta {
                full.entry("rope_theta").or_insert(theta);
            }
            for key in beside {
                if let Some(value) = self.get(key) {
                    full.entry(key).or_insert(value.clone());
                }
            }
        }
        if let Some(kind) = full.get("type").cloned() {
            full.entry("rope_type").or_insert(kind);
        }
        // Where both are there, they must say the same.
        if let Some(Value::Object(former)) = self.get("rope_scaling") {
            let of = |key: &str| full.get(if key == "type" { "rope_type" } else { key });
            let is_same = |one: &Value, other: &Value| {
                one == other || one.as_f64().zip(other.as_f64()).is_some_and(|(one, other)| one == other)
            };
            let differs = |key: &str, value: &Value| {
                !value.is_null() && !of(key).is_some_and(|said| is_same(said, value))
            };
            if let Some((key, value)) = former.iter().find(|(key, value)| differs(key, value)) {
                return refused(format!(
                    "{}: rope_scaling.{key} is {value}, where what rope_parameters says was expected",
                    self.path.display()
                ));
            }
        }
        if let Some(key) = full.keys().find(|key| !ROPE.contains(&key.as_str())) {
            return refused(format!("{}: RoPE has no setting {key} that is known", self.path.display()));
        }
        let mut rope = Rope { config: self, full, window_base: None };
        if let Some(base) = window {
            rope.full.insert("window_base".to_owned(), base);
            rope.window_base = rope.number("window_base")?;
        }
        Ok(rope)
    }
}

impl Rope<'_> {
    /// How positions are scaled: `default` if not at all.
    pub(super) fn kind(&self) -> Result<&str> {
        match self.full.get("rope_type") {
            None | Some(Value::Null) => Ok("default"),
            Some(Value::String(kind)) => Ok(kind),
            Some(other) => Err(self.config.bad("rope_type", other, "a text")),
        }
    }

    /// A number, if there is one.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.full.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_f64().filter(|number| (*number as f32).is_finite());
                number.map(Some).ok_or_else(|| self.config.bad(key, value, "a number"))
            }
        }
    }

    /// A list of numbers, if there is one.
    pub(super) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        match self.full.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = |value: &Value| value.as_f64().filter(|number| (*number as f32).is_finite());
                let numbers = value.as_array().and_then(|list| list.iter().map(number).collect());
                numbers.map(Some).ok_or_else(|| self.config.bad(key, value, "a list of numbers"))
            }
        }
    }

    /// An integer, if there is one.
    pub(super) fn count(&self, key: &str) -> Result<Option<u32>> {
        match self.full.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                // Python's integers may be written as floats.
                let whole =
                    value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=1e9).contains(number));
                whole
                    .map(|number| Some(number as u32))
                    .ok_or_else(|| self.config.bad(key, value, "an integer"))
            }
        }
    }
}
