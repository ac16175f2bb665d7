//! What benchmarks run in: a model, how much time there is, and what several of them need.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::measurement::Check;
use super::model::Scaling;
use super::sanity;
use super::serving::Served;
use herald::Result;
use herald::{LoadOptions, NeuroEngine};

/// How much time there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// One round of each, and less of what takes long: for a first look.
    Quick,
    /// As many rounds as give a steady median in some minutes.
    #[default]
    Usual,
    /// All that there is, however long it takes.
    Full,
}

impl Effort {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Usual => "usual",
            Self::Full => "full",
        }
    }

    /// One of three, by effort.
    pub(super) fn pick<T>(self, quick: T, usual: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Usual => usual,
            Self::Full => full,
        }
    }
}

/// What benchmarks run in. One process's benchmarks share one, and the engine in it.
pub struct Context {
    /// The model's file.
    pub model: PathBuf,
    /// Whether its weights are random, so that its text means nothing.
    pub synthetic: bool,
    /// How much time there is.
    pub effort: Effort,
    options: LoadOptions,
    engine: OnceCell<Arc<NeuroEngine>>,
    sound: OnceCell<Vec<Check>>,
    pub(super) scaling: OnceCell<Scaling>,
    /// What became of so many requests at once.
    pub(super) served: RefCell<Vec<(usize, Served)>>,
    /// The answers that prompts of loads have alone.
    pub(super) alone: RefCell<HashMap<Vec<u32>, Vec<u32>>>,
}

impl Context {
    /// A context whose engine is loaded when it is first needed. Prompts that begin alike are always computed anew:
    /// otherwise a second round would not be what the first was.
    #[must_use]
    pub fn new(model: PathBuf, options: &LoadOptions, effort: Effort, synthetic: bool) -> Self {
        Self {
            model,
            synthetic,
            effort,
            options: LoadOptions { prefix_bytes: 0, ..options.clone() },
            engine: OnceCell::new(),
            sound: OnceCell::new(),
            scaling: OnceCell::new(),
            served: RefCell::default(),
            alone: RefCell::default(),
        }
    }

    /// How engines are loaded.
    pub(super) fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// An engine of its own.
    pub(super) fn load(&self) -> Result<NeuroEngine> {
        NeuroEngine::load(&self.model, &self.options)
    }

    /// The engine that benchmarks share.
    ///
    /// # Errors
    /// Where it can't be loaded.
    pub fn engine(&self) -> Result<&Arc<NeuroEngine>> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Arc::new(self.load()?);
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Whether that engine predicts text as a model does.
    pub(super) fn sound(&self) -> Result<&[Check]> {
        if let Some(checks) = self.sound.get() {
            return Ok(checks);
        }
        let checks = sanity::check(self.engine()?, self.synthetic)?;
        Ok(self.sound.get_or_init(|| checks))
    }

    /// Values of some rounds: at most so many, and no new one begins once they have taken eight seconds.
    pub(super) fn rounds(&self, most: usize, mut round: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
        let most = self.effort.pick(1, most, most * 3);
        let start = Instant::now();
        let room = self.effort.pick(Duration::ZERO, Duration::from_secs(8), Duration::from_secs(60));
        let mut values = Vec::new();
        while values.is_empty() || (values.len() < most && start.elapsed() < room) {
            values.push(round()?);
        }
        Ok(values)
    }
}
