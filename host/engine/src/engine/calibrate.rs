//! Measuring how fast each plugin computes a model's own shapes.
//!
//! Of a large model only so many blocks are built that no cache holds them; the time of the rest follows from the bytes of their
//! weights. The plugins take turns, so that a machine that slows down affects all of them. A plugin is measured only if its
//! logits are those of the reference ([`Sample`]).

use std::path::Path;
use std::time::{Duration, Instant};

use herald_api::LayerParams;

use super::NeuroEngine;
use crate::agreement::{self, REFERENCE, Sample};
use crate::backend_choice::{Choice, Machine, Measured, PluginId, Record, Shapes, Speeds};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::{self, LayerPlan, ModelPlan};
use crate::options::LoadOptions;
use crate::packs::Packs;
use crate::plugin::{Loaded, Plugins, this_machine};

/// More bytes of weights than any cache holds.
const ENOUGH_BYTES: usize = 128 << 20;

/// Rounds, of which the median counts: as many in each order.
const ROUNDS: usize = 4;

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

/// How long each plugin may compute in all.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Measures on a model's shapes every plugin that offers layers, each asked first in turn. One whose results aren't those of the
/// reference, or that takes more than a minute, is not measured, and the record says why. `progress` is called with what is
/// being done, and stops it by returning `false`.
///
/// # Errors
/// As [`NeuroEngine::load`]; [`Error::Cancelled`].
pub fn calibrate(
    path: &Path,
    options: &LoadOptions,
    progress: &mut dyn FnMut(&str) -> bool,
) -> Result<Record> {
    calibrate_within(path, options, TIME_LIMIT, progress)
}

/// As [`calibrate`], with another limit of each plugin's time.
///
/// # Errors
/// As [`calibrate`].
pub fn calibrate_within(
    path: &Path,
    options: &LoadOptions,
    limit: Duration,
    progress: &mut dyn FnMut(&str) -> bool,
) -> Result<Record> {
    let gguf = super::open(path, options)?;
    let plan = plan(&gguf, path)?;
    let shapes = Shapes::of(&gguf, &plan);
    let (cut, times) = cut(&gguf, &plan);
    let plugins = Plugins::discover(&options.search, &this_machine());
    // Says what is missing where there is none.
    plugins.ranked(None, &options.search)?;
    let pool = crate::threads::shared(options.threads)?;
    let machine = Machine::of(&this_machine(), pool.threads().get());
    let mut figures = Vec::new();
    let mut candidates = Candidates { runs: Vec::new(), reference: None, limit, progress };
    let mut offering: Vec<&Loaded> =
        plugins.usable.iter().filter(|loaded| !loaded.plugin.layer_kinds().is_empty()).collect();
    // The reference goes first, so that the others can be compared with it.
    offering.sort_by_key(|loaded| loaded.plugin.name() != REFERENCE);
    for loaded in offering {
        let name = loaded.plugin.name();
        candidates.go_on(&format!("loading {name}"))?;
        let (gguf, choice) = (super::open(path, options)?, Choice::named(name));
        let packs = Packs::new(options.packs.as_deref(), &gguf);
        let model = (path, gguf, cut.clone());
        let engine = NeuroEngine::assemble(model, &plugins, choice, pool.clone(), options, (&packs, None));
        packs.keep();
        let refused = match engine {
            Ok(engine) if engine.layers.iter().any(|layer| layer.plugin() == name) => {
                candidates.admit(engine, figures.len(), times)?.err()
            }
            Ok(_) => Some(format!("it has no layers for {}", shapes.name)),
            Err(error) => Some(error.to_string()),
        };
        figures.push(Measured { plugin: identity(loaded)?, speeds: None, refused });
    }
    candidates.measure(&mut figures)?;
    Ok(Record::new(machine, shapes, figures))
}

/// The plugins that compute rightly, and are measured.
struct Candidates<'p> {
    runs: Vec<Run>,
    /// What the reference computes.
    reference: Option<Sample>,
    limit: Duration,
    progress: &'p mut dyn FnMut(&str) -> bool,
}

impl Candidates<'_> {
    fn go_on(&mut self, what: &str) -> Result<()> {
        if (self.progress)(what) { Ok(()) } else { Err(Error::Cancelled) }
    }

    /// Takes a plugin among those that are measured, or says why not.
    fn admit(
        &mut self,
        engine: NeuroEngine,
        index: usize,
        times: f64,
    ) -> Result<std::result::Result<(), String>> {
        let name = engine.choice.decode.clone();
        let what = format!("checking {name}");
        let is_reference = name == REFERENCE;
        // The reference may take as long as it takes.
        let limit = if is_reference { Duration::MAX } else { self.limit };
        let sample = match Sample::of(&engine, limit, &mut || (self.progress)(&what)) {
            Ok(Some(sample)) => sample,
            Ok(None) => return Ok(Err(too_slow(self.limit))),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => return Ok(Err(error.to_string())),
        };
        if is_reference {
            self.reference = Some(sample);
        } else if let Some(Err(wrong)) = self.reference.as_ref().map(|reference| sample.check(reference)) {
            return Ok(Err(wrong));
        }
        match Run::new(engine, index, times) {
            Ok(run) => self.runs.push(run),
            Err(error) => return Ok(Err(error.to_string())),
        }
        Ok(Ok(()))
    }

    /// Measures in rounds. In every second one the plugins come in the opposite order, so that none is always measured while the
    /// machine is still, or already, busy with something else.
    fn measure(&mut self, figures: &mut [Measured]) -> Result<()> {
        let fastest = self.runs.iter().map(|run| run.first).min().unwrap_or_default();
        self.runs.iter_mut().for_each(|run| run.choose_prompt(fastest));
        for round in 0..ROUNDS {
            let best = |of: fn(&Run) -> f64| self.runs.iter().map(of).fold(0.0, f64::max);
            let (prefill, decode) = (best(|run| run.speeds().prefill), best(|run| run.speeds().decode));
            let count = self.runs.len();
            for turn in 0..count {
                let index = if round % 2 == 0 { turn } else { count - 1 - turn };
                let run = &self.runs[index];
                let speeds = run.speeds();
                let beaten = speeds.prefill * BEATEN < prefill && speeds.decode * BEATEN < decode;
                if figures[run.index].refused.is_some() || (round > 0 && (beaten || run.spent > self.limit)) {
                    continue;
                }
                let (figure, name) = (run.index, run.engine.choice.decode.clone());
                self.go_on(&format!("measuring {name}"))?;
                if let Err(error) = self.runs[index].round() {
                    figures[figure].refused = Some(error.to_string());
                }
            }
        }
        for run in &self.runs {
            let figure = &mut figures[run.index];
            // A context without room for a token leaves nothing to measure.
            let measured = Some(run.speeds()).filter(|speeds| speeds.decode > 0.0);
            figure.speeds = measured.filter(|_| figure.refused.is_none());
        }
        Ok(())
    }
}

fn too_slow(limit: Duration) -> String {
    format!("it is too slow: a prompt of 72 tokens would take more than {} s", limit.as_secs_f32())
}

fn plan(gguf: &Gguf, path: &Path) -> Result<ModelPlan> {
    model::plan(gguf).map_err(|source| Error::Model { path: path.to_owned(), source: Box::new(source) })
}

fn identity(loaded: &Loaded) -> Result<PluginId> {
    let gone = || Error::Invalid(format!("{}: the plugin's file can't be looked at", loaded.path.display()));
    PluginId::of(loaded).ok_or_else(gone)
}

/// The model with only its first blocks, and how many times as large the weights of all blocks are as theirs. Those of its last layers
/// ([`ModelPlan::tail`]) count in neither: a token without logits doesn't run them.
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
    let (mut kept, mut last) = (0, 0);
    for layer in &plan.layers {
        // A block is kept whole, and of the first one no MLP is among the last layers where there is another.
        if is_end(layer) || kept < ENOUGH_BYTES || layer.desc.block <= last.max(1) {
            kept += if is_end(layer) { 0 } else { bytes(layer) };
            last = layer.desc.block;
            cut.layers.push(layer.clone());
        }
    }
    let before_tail = |plan: &ModelPlan| -> usize {
        plan.layers[..plan.tail()].iter().filter(|layer| !is_end(layer)).map(bytes).sum()
    };
    let times = before_tail(plan) as f64 / before_tail(&cut).max(1) as f64;
    (cut, times)
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
    /// Single tokens without logits, and with them: with the last layers and the head.
    tokens: [Vec<f64>; 2],
    /// Of each round, the time of single tokens of both sorts.
    rounds: Vec<f64>,
    /// How long it has computed.
    spent: Duration,
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
            rounds: Vec::new(),
            spent: Duration::ZERO,
        };
        // The first run allocates scratch memory, fills the caches and wakes the threads.
        run.first_prompt()?;
        run.first = run.first_prompt()?;
        Ok(run)
    }

    fn ids(&self, count: usize) -> Vec<u32> {
        let most = count.min(self.engine.max_batch).min(self.engine.context - 1).max(1);
        agreement::ids(most, self.engine.plan.vocabulary)
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
        let began = Instant::now();
        let done = self.run_round();
        self.spent += began.elapsed();
        done
    }

    fn run_round(&mut self) -> Result<()> {
        let mut sequence = self.engine.sequence()?;
        let ids = self.ids(self.prompt);
        let start = Instant::now();
        self.engine.run(&mut sequence, &ids)?;
        self.prompts.push(start.elapsed().as_secs_f64() / ids.len() as f64);
        self.prompt = ids.len();
        let room = self.engine.context - ids.len();
        let begun = Instant::now();
        let before = [self.tokens[0].len(), self.tokens[1].len()];
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
        let of_round = [0, 1].map(|sort| median(&self.tokens[sort][before[sort]..]));
        self.rounds.extend(of_round.iter().flatten().copied().reduce(|sum, time| sum + time));
        Ok(())
    }

    /// The whole model's speeds; 0 where they have not been measured.
    fn speeds(&self) -> Speeds {
        let [blocks, all] = [&self.tokens[0], &self.tokens[1]].map(|times| median(times));
        let (Some(prompt), Some(blocks)) = (median(&self.prompts), blocks) else {
            return Speeds { prefill: 0.0, decode: 0.0, prompt_tokens: self.prompt, spread: [0.0; 2] };
        };
        let head = all.map_or(0.0, |all| (all - blocks).max(0.0));
        Speeds {
            prefill: 1.0 / (prompt * self.times + head / self.prompt as f64),
            decode: 1.0 / (blocks * self.times + head),
            prompt_tokens: self.prompt,
            spread: [spread(&self.prompts), spread(&self.rounds)],
        }
    }
}

/// How far the values lie apart, as a share of the median.
fn spread(values: &[f64]) -> f64 {
    let Some(median) = median(values).filter(|median| *median > 0.0) else { return 0.0 };
    let (least, most) = values
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(*value), most.max(*value)));
    (most - least) / median
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, upper) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
    Some(f64::midpoint(sorted[middle], sorted[upper]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_value_is_the_median() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 3.0, 1.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_spread_is_a_share_of_the_median() {
        assert_eq!(spread(&[1.0, 2.0, 2.5]), 0.75);
        assert_eq!(spread(&[3.0]), 0.0);
        assert_eq!(spread(&[]), 0.0);
    }
}
