//! Measuring how fast each plugin computes a model's own shapes.
//!
//! Of a large model only so many blocks are built that no cache holds them; the time of the rest follows from the bytes of their
//! weights. The plugins take turns, so that a machine that slows down affects all of them.

use std::path::Path;
use std::time::{Duration, Instant};

use herald_api::LayerParams;

use super::NeuroEngine;
use crate::backend_choice::{Choice, Machine, Measured, PluginId, Record, Shapes, Speeds};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::{self, LayerPlan, ModelPlan};
use crate::options::LoadOptions;
use crate::plugin::{Loaded, Plugins, this_machine};

/// More bytes of weights than any cache holds.
const ENOUGH_BYTES: usize = 128 << 20;

/// Rounds, of which the median counts.
const ROUNDS: usize = 3;

/// Tokens of the prompts that are measured.
const PROMPTS: [usize; 5] = [512, 256, 128, 64, 32];

/// Tokens of the first prompt, whose time decides how long the measured prompts are.
const FIRST: usize = 32;

/// About how long a plugin's prompt may take.
const PROMPT_TIME: Duration = Duration::from_millis(250);

/// How long a round of single tokens takes, and the fewest and the most of them.
const DECODE_TIME: Duration = Duration::from_millis(100);
const DECODED: std::ops::RangeInclusive<usize> = 2..=32;

/// A plugin that is this many times slower than the fastest is measured only once.
const BEATEN: f64 = 2.0;

/// Measures on a model's shapes every plugin that offers layers, each asked first in turn. `progress` is called with what is
/// being done, and stops it by returning `false`.
///
/// # Errors
/// As [`NeuroEngine::load`]; [`Error::Cancelled`].
pub fn calibrate(
    path: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(&str) -> bool,
) -> Result<Record> {
    let gguf = Gguf::open(path)?;
    let plan = plan(&gguf, path)?;
    let shapes = Shapes::of(&gguf, &plan);
    let (cut, times) = cut(&gguf, &plan);
    let plugins = Plugins::discover(&options.search, &this_machine());
    // Says what is missing where there is none.
    plugins.ranked(None, &options.search)?;
    let pool = crate::threads::shared(options.threads)?;
    let machine = Machine::of(&this_machine(), pool.threads().get());
    let mut go_on = |what: &str| if progress(what) { Ok(()) } else { Err(Error::Cancelled) };
    let (mut runs, mut figures) = (Vec::new(), Vec::new());
    for loaded in plugins.usable.iter().filter(|loaded| !loaded.plugin.layer_kinds().is_empty()) {
        let name = loaded.plugin.name();
        go_on(&format!("loading {name}"))?;
        figures.push(Measured { plugin: identity(loaded)?, speeds: None });
        let (gguf, choice) = (Gguf::open(path)?, Choice::named(name));
        let engine =
            NeuroEngine::assemble((path, gguf, cut.clone()), &plugins, choice, pool.clone(), options);
        match engine {
            Ok(engine) if engine.layers.iter().any(|layer| layer.plugin() == name) => {
                runs.push(Run::new(engine, figures.len() - 1, times)?);
            }
            Ok(_) => tracing::info!("{name} has no layers for {}", shapes.name),
            Err(error) => tracing::warn!("{name} can't be measured: {error}"),
        }
    }
    let fastest = runs.iter().map(|run| run.first).min().unwrap_or_default();
    for run in &mut runs {
        run.choose_prompt(fastest);
    }
    for round in 0..ROUNDS {
        let best = |of: fn(&Run) -> f64| runs.iter().map(of).fold(0.0, f64::max);
        let (prefill, decode) = (best(|run| run.speeds().prefill), best(|run| run.speeds().decode));
        for run in &mut runs {
            let speeds = run.speeds();
            if round > 0 && speeds.prefill * BEATEN < prefill && speeds.decode * BEATEN < decode {
                continue;
            }
            go_on(&format!("measuring {}", run.engine.choice.decode))?;
            run.round()?;
        }
    }
    for run in &runs {
        // A context without room for a token leaves nothing to measure.
        figures[run.index].speeds = Some(run.speeds()).filter(|speeds| speeds.decode > 0.0);
    }
    Ok(Record::new(machine, shapes, figures))
}

fn plan(gguf: &Gguf, path: &Path) -> Result<ModelPlan> {
    model::plan(gguf).map_err(|source| Error::Model { path: path.to_owned(), source: Box::new(source) })
}

fn identity(loaded: &Loaded) -> Result<PluginId> {
    let gone = || Error::Invalid(format!("{}: the plugin's file can't be looked at", loaded.path.display()));
    PluginId::of(loaded).ok_or_else(gone)
}

/// The model with only its first blocks, and how many times as large the weights of all blocks are as theirs.
fn cut(gguf: &Gguf, plan: &ModelPlan) -> (ModelPlan, f64) {
    let is_end =
        |layer: &LayerPlan| matches!(layer.desc.params, LayerParams::Embedding(_) | LayerParams::Head(_));
    let bytes = |layer: &LayerPlan| -> usize {
        let of = layer.weights.iter().filter_map(|weight| {
            let tensor = gguf.tensor(&weight.tensor)?;
            let rows: usize = tensor.dims().iter().skip(1).product();
            let part = weight.rows.as_ref().map_or(1.0, |run| run.len() as f64 / rows.max(1) as f64);
            Some((tensor.bytes() as f64 * part) as usize)
        });
        of.sum()
    };
    let mut cut = ModelPlan { layers: Vec::new(), ..plan.clone() };
    let (mut all, mut kept, mut last) = (0, 0, 0);
    for layer in &plan.layers {
        if is_end(layer) {
            cut.layers.push(layer.clone());
            continue;
        }
        let bytes = bytes(layer);
        all += bytes;
        // A block is kept whole.
        if kept < ENOUGH_BYTES || layer.desc.block == last {
            kept += bytes;
            last = layer.desc.block;
            cut.layers.push(layer.clone());
        }
    }
    (cut, all as f64 / kept.max(1) as f64)
}

/// A plugin that is being measured. All times are for the blocks that were built, unless noted otherwise.
struct Run {
    engine: NeuroEngine,
    /// Its index among the measured plugins.
    index: usize,
    /// The whole model's time over that of the built blocks.
    times: f64,
    /// The prompt of [`FIRST`] tokens.
    first: Duration,
    prompt: usize,
    prompts: Vec<f64>,
    /// Single tokens without logits, and with them.
    tokens: [Vec<f64>; 2],
}

impl Run {
    fn new(engine: NeuroEngine, index: usize, times: f64) -> Result<Self> {
        let mut run = Self {
            engine,
            index,
            times,
            first: Duration::ZERO,
            prompt: FIRST,
            prompts: Vec::new(),
            tokens: [Vec::new(), Vec::new()],
        };
        // The first run allocates scratch memory, fills the caches and wakes the threads.
        run.first_prompt()?;
        run.first = run.first_prompt()?;
        Ok(run)
    }

    fn ids(&self, count: usize) -> Vec<u32> {
        let most = count.min(self.engine.max_batch).min(self.engine.context - 1).max(1);
        (0..most).map(|index| (index * 7919 % self.engine.plan.vocabulary) as u32).collect()
    }

    fn first_prompt(&self) -> Result<Duration> {
        let mut sequence = self.engine.sequence()?;
        let ids = self.ids(FIRST);
        let start = Instant::now();
        self.engine.run(&mut sequence, &ids)?;
        Ok(start.elapsed())
    }

    /// Picks the longest prompt for which the fastest plugin has time, or a shorter one where this plugin is a lot slower.
    fn choose_prompt(&mut self, fastest: Duration) {
        let longest = |first: Duration| {
            let fits = |tokens: &&usize| first * (**tokens / FIRST) as u32 <= PROMPT_TIME;
            PROMPTS.iter().find(fits).copied().unwrap_or(FIRST)
        };
        let slow = self.first > fastest * 4;
        self.prompt = longest(if slow { self.first } else { fastest });
    }

    fn round(&mut self) -> Result<()> {
        let mut sequence = self.engine.sequence()?;
        let ids = self.ids(self.prompt);
        let start = Instant::now();
        self.engine.run(&mut sequence, &ids)?;
        self.prompts.push(start.elapsed().as_secs_f64() / ids.len() as f64);
        self.prompt = ids.len();
        let room = self.engine.context - ids.len();
        let begun = Instant::now();
        for done in 0..room.min(*DECODED.end()) {
            if done >= *DECODED.start() && begun.elapsed() >= DECODE_TIME {
                break;
            }
            let id = ids[done % ids.len()];
            let start = Instant::now();
            match done % 2 {
                0 => self.engine.run(&mut sequence, &[id])?,
                _ => drop(self.engine.decode(&mut [(&mut sequence, id)])?),
            }
            self.tokens[done % 2].push(start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// The whole model's speeds; 0 where they have not been measured.
    fn speeds(&self) -> Speeds {
        let [blocks, all] = [&self.tokens[0], &self.tokens[1]].map(|times| median(times));
        let (Some(prompt), Some(blocks)) = (median(&self.prompts), blocks) else {
            return Speeds { prefill: 0.0, decode: 0.0, prompt_tokens: self.prompt };
        };
        let head = all.map_or(0.0, |all| (all - blocks).max(0.0));
        Speeds {
            prefill: 1.0 / (prompt * self.times + head / self.prompt as f64),
            decode: 1.0 / (blocks * self.times + head),
            prompt_tokens: self.prompt,
        }
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_value_is_the_median() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
    }
}
