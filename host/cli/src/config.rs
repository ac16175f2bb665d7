//! The configuration file: engine options that were not given on the command line.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use herald::files;
use herald::gguf::Override;
use herald::sampler::SamplerConfig;
use indexmap::IndexMap;
use serde::Deserialize;

use super::failure::Failure;
use super::options::{self, EngineOptions};
use super::serve::ServeConfig;

/// The file's keys: each an option of the same name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    model: Option<String>,
    backend: Option<String>,
    threads: Option<Value>,
    activations: Option<String>,
    max_draft: Option<usize>,
    draft: Option<String>,
    context: Option<NonZeroUsize>,
    batch: Option<NonZeroUsize>,
    active_tokens: Option<Value>,
    compressed_tokens: Option<Value>,
    selected_pages: Option<Value>,
    archive: Option<PathBuf>,
    archive_lz4: Option<bool>,
    memory_budget: Option<Value>,
    cache_bytes: Option<Value>,
    cache_dir: Option<PathBuf>,
    cache_dir_bytes: Option<Value>,
    no_pack_cache: Option<bool>,
    chat_template: Option<String>,
    #[serde(default)]
    lora: Vec<String>,
    sampling: Option<Sampling>,
    /// By name, in the file's order.
    #[serde(default)]
    models: IndexMap<String, Config>,
    serve: Option<ServeConfig>,
}

/// How tokens are chosen where nothing else says so: in place of what the model's file recommends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sampling {
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    repeat_penalty: Option<f32>,
    repeat_last_n: Option<u32>,
    mirostat: Option<u32>,
    mirostat_tau: Option<f32>,
    mirostat_eta: Option<f32>,
}

impl Sampling {
    /// The same as metadata of a model's file, which holds what its makers recommend.
    fn overrides(&self) -> Result<Vec<Override>, String> {
        let default = SamplerConfig::default();
        let config = SamplerConfig {
            temperature: self.temperature.unwrap_or(default.temperature),
            top_k: self.top_k.unwrap_or(default.top_k),
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            xtc_probability: self.xtc_probability.unwrap_or(default.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(default.xtc_threshold),
            repetition_penalty: self.repeat_penalty.unwrap_or(default.repetition_penalty),
            mirostat: self.mirostat.unwrap_or(default.mirostat),
            mirostat_tau: self.mirostat_tau.unwrap_or(default.mirostat_tau),
            mirostat_eta: self.mirostat_eta.unwrap_or(default.mirostat_eta),
            ..default
        };
        config.validate(u32::MAX as usize).map_err(|error| error.to_string())?;
        let numbers = [
            ("temp", self.temperature),
            ("top_p", self.top_p),
            ("min_p", self.min_p),
            ("xtc_probability", self.xtc_probability),
            ("xtc_threshold", self.xtc_threshold),
            ("penalty_repeat", self.repeat_penalty),
            ("mirostat_tau", self.mirostat_tau),
            ("mirostat_eta", self.mirostat_eta),
        ];
        let counts =
            [("top_k", self.top_k), ("penalty_last_n", self.repeat_last_n), ("mirostat", self.mirostat)];
        let numbers = numbers.into_iter().filter_map(|(key, value)| Some((key, format!("float:{}", value?))));
        let counts = counts.into_iter().filter_map(|(key, value)| Some((key, format!("int:{}", value?))));
        numbers.chain(counts).map(|(key, value)| format!("general.sampling.{key}={value}").parse()).collect()
    }
}

/// A number, or a text such as "2GiB" or "all".
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Text(String),
}

impl Value {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

impl EngineOptions {
    /// These options, with the configuration file's values for those that were not given.
    pub(super) fn configured(mut self) -> Result<Self, Failure> {
        // An empty name counts as none.
        self.models.retain(|model| !model.is_empty());
        let Some((path, mut config)) = self.configuration()? else {
            let each = self.models.iter().map(|name| self.naming(name)).collect();
            return Ok(Self { each, ..self });
        };
        self.serve = config.serve.take().unwrap_or_default();
        let given = self.clone();
        if self.models.is_empty() {
            self.models.extend(config.model.clone().map(OsString::from));
        }
        let names = match self.models.is_empty() {
            true => config.models.keys().map(OsString::from).collect(),
            false => self.models.clone(),
        };
        let whole = |mut options: Self, name: Option<&OsStr>| -> Result<Self, Failure> {
            let table = name.and_then(OsStr::to_str).and_then(|name| config.models.get_key_value(name));
            if let Some((name, table)) = table {
                let in_table = |what: &str| wrong(&path, &format!("models.{name}: {what}"));
                options.fill(table).map_err(|what| in_table(&what))?;
                let model = table.model.as_ref();
                let model =
                    model.ok_or_else(|| in_table("there is no `model`, where its file was expected"))?;
                options.models = vec![model.into()];
            }
            options.fill(&config).map_err(|what| wrong(&path, &what))?;
            Ok(options)
        };
        let mut each = Vec::with_capacity(names.len());
        for name in names {
            let named = whole(given.naming(&name).1, Some(&name))?;
            each.push((name, named));
        }
        let only = match self.models.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        };
        Ok(Self { each, ..whole(self, only.as_deref())? })
    }

    /// These options for one model.
    fn naming(&self, name: &OsStr) -> (OsString, Self) {
        (name.to_owned(), Self { models: vec![name.to_owned()], each: Vec::new(), ..self.clone() })
    }

    /// The configuration, with its file, where there is one.
    fn configuration(&self) -> Result<Option<(PathBuf, Config)>, Failure> {
        let given = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        let path = match given.clone().or_else(usual) {
            Some(path) => path,
            None => return Ok(None),
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Nobody named it, and it isn't there; or it can't be: a system account's home may be /dev/null.
            Err(error)
                if given.is_none()
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Failure::file(&path, "the configuration can't be read", &error)),
        };
        let text = files::without_bom(&text);
        let config: Config = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            wrong(&path, &format!("line {line}: {}", error.message().replace('\n', " ")))
        })?;
        let nested = |(_, table): &(&String, &Config)| table.serve.is_some() || !table.models.is_empty();
        if let Some((name, _)) = config.models.iter().find(nested) {
            let what = format!(
                "models.{name}: it has `serve` or `models`, where a model's own options were expected"
            );
            return Err(wrong(&path, &what));
        }
        Ok(Some((path, config)))
    }

    fn fill(&mut self, config: &Config) -> Result<(), String> {
        /// The given value, or else the file's.
        fn of<T>(
            given: Option<T>,
            key: &str,
            value: Option<&Value>,
            parse: impl Fn(&str) -> Result<T, String>,
        ) -> Result<Option<T>, String> {
            match (given, value) {
                (None, Some(value)) => {
                    parse(&value.text()).map(Some).map_err(|what| format!("{key}: {what}"))
                }
                (given, _) => Ok(given),
            }
        }
        self.backend = self.backend.take().filter(|backend| !backend.is_empty());
        self.backend = self.backend.take().or_else(|| config.backend.clone());
        self.threads = of(self.threads, "threads", config.threads.as_ref(), options::threads)?;
        let activations = config.activations.clone().map(Value::Text);
        self.activations = of(self.activations, "activations", activations.as_ref(), options::activations)?;
        self.max_draft = self.max_draft.or(config.max_draft);
        self.draft = self.draft.take().filter(|name| !name.is_empty());
        self.draft = self.draft.take().or_else(|| config.draft.clone().map(OsString::from));
        self.context = self.context.or(config.context);
        self.batch = self.batch.or(config.batch);
        let (active, compressed) = (config.active_tokens.as_ref(), config.compressed_tokens.as_ref());
        self.active_tokens = of(self.active_tokens, "active-tokens", active, str::parse)?;
        self.compressed_tokens = of(self.compressed_tokens, "compressed-tokens", compressed, str::parse)?;
        self.selected_pages = of(
            self.selected_pages,
            "selected-pages",
            config.selected_pages.as_ref(),
            options::selected_pages,
        )?;
        let budget = config.memory_budget.as_ref();
        self.memory_budget = of(self.memory_budget, "memory-budget", budget, options::bytes)?;
        let (cache, files) = (config.cache_bytes.as_ref(), config.cache_dir_bytes.as_ref());
        self.cache_bytes = of(self.cache_bytes, "cache-bytes", cache, options::bytes)?;
        self.cache_dir_bytes = of(self.cache_dir_bytes, "cache-dir-bytes", files, options::bytes)?;
        self.cache_dir = self.cache_dir.take().or_else(|| config.cache_dir.clone());
        self.archive = self.archive.take().or_else(|| config.archive.clone());
        self.archive_lz4 |= config.archive_lz4.unwrap_or(false);
        self.no_pack_cache |= config.no_pack_cache.unwrap_or(false);
        if let (None, Some(template)) = (&self.chat_template, &config.chat_template) {
            let read = options::ChosenTemplate::read(template.clone());
            self.chat_template = Some(read.map_err(|what| format!("chat-template: {what}"))?);
        }
        if self.loras.is_empty() {
            self.loras.clone_from(&config.lora);
        }
        if let Some(sampling) = &config.sampling {
            let said = sampling.overrides().map_err(|what| format!("sampling: {what}"))?;
            // What is said more closely is set later, and holds.
            self.set.splice(0..0, said);
            self.has_sampling = true;
        }
        Ok(())
    }
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::Failed(format!("{}: the configuration is wrong: {what}", path.display()))
}

fn usual() -> Option<PathBuf> {
    Some(choose_base_strategy().ok()?.config_dir().join("herald").join("config.toml"))
}
