//! The configuration file: engine options that were not given on the command line.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use herald::files;
use serde::Deserialize;

use super::failure::Failure;
use super::options::{self, EngineOptions};

/// The file's keys: each an option of the same name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    model: Option<String>,
    backend: Option<String>,
    threads: Option<Value>,
    activations: Option<String>,
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
        let given = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        let path = match given.clone().or_else(usual) {
            Some(path) => path,
            None => return Ok(self),
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Nobody named it, and it isn't there; or it can't be: a system account's home may be /dev/null.
            Err(error)
                if given.is_none()
                    && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Ok(self);
            }
            Err(error) => return Err(Failure::file(&path, "the configuration can't be read", &error)),
        };
        let text = files::without_bom(&text);
        let config: Config = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = 1 + before.matches('\n').count();
            wrong(&path, &format!("line {line}: {}", error.message().replace('\n', " ")))
        })?;
        self.fill(config).map_err(|what| wrong(&path, &what))?;
        Ok(self)
    }

    fn fill(&mut self, config: Config) -> Result<(), String> {
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
        // An empty environment variable counts as unset.
        self.model = self.model.take().filter(|model| !model.is_empty());
        self.model = self.model.take().or(config.model.map(OsString::from));
        self.backend = self.backend.take().filter(|backend| !backend.is_empty()).or(config.backend);
        self.threads = of(self.threads, "threads", config.threads.as_ref(), options::threads)?;
        let activations = config.activations.map(Value::Text);
        self.activations = of(self.activations, "activations", activations.as_ref(), options::activations)?;
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
        self.cache_dir = self.cache_dir.take().or(config.cache_dir);
        self.archive = self.archive.take().or(config.archive);
        self.archive_lz4 |= config.archive_lz4.unwrap_or(false);
        Ok(())
    }
}

fn wrong(path: &Path, what: &str) -> Failure {
    Failure::Failed(format!("{}: the configuration is wrong: {what}", path.display()))
}

fn usual() -> Option<PathBuf> {
    Some(choose_base_strategy().ok()?.config_dir().join("herald").join("config.toml"))
}
