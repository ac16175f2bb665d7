//! The limits of a machine with a model. The suites and `benches/` share this measurement.

mod arithmetic;
mod bandwidth;

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use herald::NeuroEngine;
use herald::threads::ThreadPool;

/// This machine's limits, measured with the engine's number of threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Threads.
    pub threads: usize,
    /// Bytes per second that they read from memory.
    pub read_bytes_per_s: f64,
    /// Float32 multiply-adds per second.
    pub float_macs_per_s: f64,
    /// Int8 multiply-adds per second with the CPU's widest vector instruction. (AMX's tile registers do more, and with a scale for each 32
    /// columns come to no more: docs/BENCHMARKS.md.)
    #[serde(alias = "int_macs_per_s")]
    pub int8_macs_per_s: f64,
    /// Int16 multiply-adds per second: the peak of HERALD's kernels with int16 activations.
    #[serde(default)]
    pub int16_macs_per_s: f64,
}

/// Bytes per second that one thread reads from the second-level cache.
#[must_use]
pub fn cache_bytes_per_s() -> f64 {
    bandwidth::read_cached()
}

impl Machine {
    /// Measures this machine, which takes about a second.
    #[must_use]
    pub fn measure(pool: &ThreadPool) -> Self {
        Self {
            threads: pool.threads().get(),
            read_bytes_per_s: bandwidth::read(pool),
            float_macs_per_s: arithmetic::float(pool),
            int8_macs_per_s: arithmetic::int8(pool),
            int16_macs_per_s: arithmetic::int16(pool),
        }
    }
}

/// What a model costs a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Its file's name, without its folder.
    pub name: String,
    /// The file's size.
    pub file_bytes: u64,
    /// Bytes of weights that a token reads, counting only the experts that it uses.
    pub weight_bytes: u64,
    /// Multiply-adds of a token.
    pub macs: u64,
    /// Those of the output head and the layers before it that only tokens with requested logits need.
    pub head_macs: u64,
    /// Whether its weights are random, so that its text means nothing.
    pub synthetic: bool,
}

impl ModelFacts {
    /// The facts of a loaded model.
    #[must_use]
    pub fn of(engine: &NeuroEngine, synthetic: bool) -> Self {
        let gguf = engine.gguf();
        let metadata = gguf.metadata();
        let architecture = &engine.plan().architecture;
        let number =
            |key: &str| metadata.get::<u32>(&format!("{architecture}.{key}")).ok().flatten().map(f64::from);
        let experts = match (number("expert_used_count"), number("expert_count")) {
            (Some(used), Some(all)) if all > 0.0 => used / all,
            _ => 1.0,
        };
        let tied = gguf.tensor("output.weight").is_none();
        let plan = engine.plan();
        let last: HashSet<&str> = plan.layers[plan.tail()..]
            .iter()
            .flat_map(|layer| &layer.weights)
            .map(|weight| &*weight.tensor)
            .collect();
        let (mut bytes, mut macs, mut head) = (0.0, 0.0, 0.0);
        for tensor in gguf.tensors().filter(|tensor| tensor.dims().len() > 1) {
            let name = tensor.name();
            if name == "token_embd.weight" && !tied {
                continue;
            }
            let part = if name.contains("_exps.") { experts } else { 1.0 };
            bytes += tensor.bytes() as f64 * part;
            macs += tensor.elements() as f64 * part;
            head += if last.contains(name) { tensor.elements() as f64 * part } else { 0.0 };
        }
        let name = engine.path().file_name().map(|name| name.to_string_lossy().into_owned());
        Self {
            name: name.unwrap_or_default(),
            file_bytes: gguf.file_bytes(),
            weight_bytes: bytes as u64,
            macs: macs as u64,
            head_macs: head as u64,
            synthetic,
        }
    }
}

/// The speeds that no engine can exceed on this machine with this model.
#[derive(Clone, Copy)]
pub struct Limits<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The model.
    pub model: &'a ModelFacts,
}

impl Limits<'_> {
    fn macs_per_s(&self) -> f64 {
        self.machine.int8_macs_per_s.max(self.machine.float_macs_per_s)
    }

    /// Seconds of a step that decodes one token for each of `batch` sequences: weights are read once and multiplied with
    /// each.
    #[must_use]
    pub fn step(&self, batch: f64) -> f64 {
        let read = self.model.weight_bytes as f64 / self.machine.read_bytes_per_s;
        read.max(batch * self.model.macs as f64 / self.macs_per_s())
    }

    /// Tokens per second of `batch` sequences that decode together.
    #[must_use]
    pub fn decode(&self, batch: f64) -> f64 {
        batch / self.step(batch)
    }

    /// Seconds for a prompt.
    #[must_use]
    pub fn prompt(&self, tokens: f64) -> f64 {
        tokens * (self.model.macs - self.model.head_macs) as f64 / self.macs_per_s()
    }

    /// Generated tokens per second of requests with `prompt` and `generated` tokens, `batch` at a time.
    #[must_use]
    pub fn serve(&self, prompt: f64, generated: f64, batch: f64) -> f64 {
        generated / (self.prompt(prompt) + generated / self.decode(batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_bound_by_memory_and_then_by_arithmetic() {
        let machine = Machine { read_bytes_per_s: 1000.0, int8_macs_per_s: 1000.0, ..Machine::default() };
        let model = ModelFacts { weight_bytes: 100, macs: 20, head_macs: 10, ..ModelFacts::default() };
        let limits = Limits { machine: &machine, model: &model };
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} is not {b}");
        near(limits.decode(1.0), 10.0);
        near(limits.decode(5.0), 50.0);
        near(limits.decode(100.0), 50.0);
        near(limits.prompt(100.0), 1.0);
        near(limits.serve(100.0, 10.0, 1.0), 5.0);
    }
}
