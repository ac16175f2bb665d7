//! What benchmarks run in: a model, the effort, and results that several of them share.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::measurement::Check;
use super::sanity;
use super::scaling::Scaling;
use super::serving::Served;
use herald::Result;
use herald::{LoadOptions, NeuroEngine};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// One round of each, and smaller sizes: for a first look.
    Quick,
    /// Enough rounds for a steady median within some minutes.
    #[default]
    Usual,
    /// More rounds and larger sizes, however long they take.
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

    /// One of three values, by effort.
    pub(super) fn pick<T>(self, quick: T, usual: T, full: T) -> T {
        match self {
            Self::Quick => quick,
            Self::Usual => usual,
            Self::Full => full,
        }
    }
}

/// What benchmarks run in. All benchmarks of a process share one context and its engine.
pub struct Context {
    /// The model's file.
    pub model: PathBuf,
    /// Whether its weights are random, so that its text means nothing.
    pub synthetic: bool,
    /// How thoroughly to measure.
    pub effort: Effort,
    options: LoadOptions,
    engine: OnceCell<Arc<NeuroEngine>>,
    sanity: OnceCell<Vec<Check>>,
    pub(super) scaling: OnceCell<Scaling>,
    /// Results of serving, by the number of simultaneous requests.
    pub(super) served: RefCell<Vec<(usize, Served)>>,
    /// Each prompt's answer when it runs alone.
    pub(super) alone: RefCell<HashMap<Vec<u32>, Vec<u32>>>,
}

impl Context {
    /// A context that loads its engine when it is first needed. The engine has no prefix cache, so that every round does
    /// the same work.
    #[must_use]
    pub fn new(model: PathBuf, options: &LoadOptions, effort: Effort, synthetic: bool) -> Self {
        Self {
            model,
            synthetic,
            effort,
            options: LoadOptions { prefix_bytes: 0, ..options.clone() },
            engine: OnceCell::new(),
            sanity: OnceCell::new(),
            scaling: OnceCell::new(),
            served: RefCell::default(),
            alone: RefCell::default(),
        }
    }

    /// The options that engines are loaded with.
    pub(super) fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// Loads a separate engine.
    pub(super) fn load(&self) -> Result<NeuroEngine> {
        NeuroEngine::load(&self.model, &self.options)
    }

    /// The engine that benchmarks share.
    ///
    /// # Errors
    /// If it can't be loaded.
    pub fn engine(&self) -> Result<&Arc<NeuroEngine>> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Arc::new(self.load()?);
        Ok(self.engine.get_or_init(|| engine))
    }

    /// Checks that the shared engine predicts text like a model.
    pub(super) fn sanity(&self) -> Result<&[Check]> {
        if let Some(checks) = self.sanity.get() {
            return Ok(checks);
        }
        let checks = sanity::check(self.engine()?, self.synthetic)?;
        Ok(self.sanity.get_or_init(|| checks))
    }

    /// The values of up to `max_rounds` rounds (one if quick, three times as many if full), within a time limit.
    pub(super) fn rounds(
        &self,
        max_rounds: usize,
        mut round: impl FnMut() -> Result<f64>,
    ) -> Result<Vec<f64>> {
        let max_rounds = self.effort.pick(1, max_rounds, max_rounds * 3);
        let start = Instant::now();
        let time_limit = self.effort.pick(Duration::ZERO, Duration::from_secs(8), Duration::from_secs(60));
        let mut values = Vec::new();
        while values.is_empty() || (values.len() < max_rounds && start.elapsed() < time_limit) {
            values.push(round()?);
        }
        Ok(values)
    }
}
