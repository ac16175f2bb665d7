//! What a calibration measured, and what it is valid for: a machine, plugins' files, a model's shapes.

use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use herald_api::Hardware;
use serde::{Deserialize, Serialize};

use crate::gguf::Gguf;
use crate::model::ModelPlan;
use crate::plugin::Loaded;

/// The format that a calibration's file names.
pub(super) const FORMAT: &str = "herald-calibration";

/// The version of that format.
pub(super) const VERSION: u32 = 3;

/// What a calibration measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub(super) format: String,
    pub(super) version: u32,
    /// Where it was measured.
    pub machine: Machine,
    /// With which model.
    pub model: Shapes,
    /// Each plugin's speeds.
    pub backends: Vec<Measured>,
}

/// What a machine's speed depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The CPU's name.
    pub cpu: String,
    /// `HERALD_ARCH_*`.
    pub arch: u32,
    /// `HERALD_CPU_*` bits.
    pub features: u64,
    /// Threads that compute.
    pub threads: usize,
}

/// What the speed of computing a model depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shapes {
    /// Its name, for people.
    pub name: String,
    /// Its architecture.
    pub architecture: String,
    /// Elements of a token's activations.
    pub hidden: usize,
    /// Tokens of its vocabulary.
    pub vocabulary: usize,
    /// Its blocks.
    pub blocks: usize,
    /// The element type that most of its bytes have.
    pub dtype: String,
    /// Bytes of its tensors.
    pub bytes: u64,
    /// Whether layers keep recurrent states, which only the plugin that wrote them can read.
    pub keeps_states: bool,
}

/// A plugin's file: another build of it is another plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginId {
    /// The plugin's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Which of its code paths is used.
    pub variant: String,
    /// Its file.
    #[serde(with = "crate::files::any_path")]
    pub path: PathBuf,
    /// The file's length.
    pub bytes: u64,
    /// When the file was last changed, in nanoseconds since 1970.
    pub modified: u64,
}

/// What was measured of one plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// The plugin.
    pub plugin: PluginId,
    /// Its speeds when it is asked first for each layer.
    pub speeds: Option<Speeds>,
    /// Why it has none: it computes wrongly, or too slowly, or none of the layers.
    pub refused: Option<String>,
}

/// Tokens per second.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speeds {
    /// Of a prompt.
    pub prefill: f64,
    /// One by one.
    pub decode: f64,
    /// How many tokens the prompt had.
    pub prompt_tokens: usize,
    /// How far the rounds lay apart, as a share of their median: the prompts', and the single tokens'.
    pub spread: [f64; 2],
}

impl Record {
    /// A record of this version.
    #[must_use]
    pub fn new(machine: Machine, model: Shapes, backends: Vec<Measured>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, machine, model, backends }
    }

    /// Whether its speeds can have been measured.
    pub(super) fn is_sound(&self) -> bool {
        let sound = |speed: f64| speed.is_finite() && speed > 0.0;
        self.backends.iter().filter_map(|measured| measured.speeds).all(
            |Speeds { prefill, decode, spread, .. }| {
                sound(prefill)
                    && sound(decode)
                    && spread.iter().all(|share| share.is_finite() && *share >= 0.0)
            },
        )
    }
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn of(hardware: &Hardware, threads: usize) -> Self {
        Self { cpu: cpu_name(), arch: hardware.arch, features: hardware.features, threads }
    }
}

/// The CPU's name as the system has it, or its architecture's.
fn cpu_name() -> String {
    crate::system::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

impl Shapes {
    /// A model's.
    #[must_use]
    pub fn of(gguf: &Gguf, plan: &ModelPlan) -> Self {
        let mut types: Vec<(&str, u64)> = Vec::new();
        for tensor in gguf.tensors() {
            let name = tensor.dtype().name();
            match types.iter_mut().find(|(known, _)| *known == name) {
                Some((_, bytes)) => *bytes += tensor.bytes() as u64,
                None => types.push((name, tensor.bytes() as u64)),
            }
        }
        let name = gguf.metadata().get::<&str>("general.name").ok().flatten().unwrap_or("a nameless model");
        Self {
            name: name.to_owned(),
            architecture: plan.architecture.clone(),
            hidden: plan.hidden,
            vocabulary: plan.vocabulary,
            blocks: plan.blocks,
            dtype: types.iter().max_by_key(|(_, bytes)| *bytes).map_or("", |(name, _)| *name).to_owned(),
            bytes: types.iter().map(|(_, bytes)| bytes).sum(),
            keeps_states: plan.layers.iter().any(|layer| layer.desc.params.is_recurrent()),
        }
    }

    /// Whether another model has the same shapes, whatever its name.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        *self == Self { name: self.name.clone(), ..other.clone() }
    }

    /// How different another model is; `None` where the speeds of one say nothing about the other.
    pub(super) fn distance(&self, other: &Self) -> Option<f64> {
        if self.same(other) {
            return Some(0.0);
        }
        if self.dtype != other.dtype || self.keeps_states != other.keeps_states {
            return None;
        }
        let size = (self.bytes.max(1) as f64 / other.bytes.max(1) as f64).ln().abs();
        // Another architecture counts like a size ten times as large.
        let architecture =
            if self.architecture == other.architecture { 0.0 } else { std::f64::consts::LN_10 };
        Some(f64::MIN_POSITIVE + size + architecture)
    }
}

impl PluginId {
    /// A plugin's; `None` where its file can't be inspected.
    #[must_use]
    pub fn of(loaded: &Loaded) -> Option<Self> {
        let metadata = loaded.path.metadata().ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some(Self {
            name: loaded.plugin.name().to_owned(),
            version: loaded.plugin.version().to_owned(),
            variant: loaded.probe.variant.clone(),
            path: loaded.path.clone(),
            bytes: metadata.len(),
            modified: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::backend_choice) fn shapes(architecture: &str, dtype: &str, bytes: u64) -> Shapes {
        Shapes {
            name: format!("a {architecture}"),
            architecture: architecture.to_owned(),
            hidden: 64,
            vocabulary: 512,
            blocks: 2,
            dtype: dtype.to_owned(),
            bytes,
            keeps_states: false,
        }
    }

    #[test]
    fn a_models_name_makes_it_no_other_model() {
        let (one, other) = (shapes("llama", "F32", 1000), shapes("llama", "F32", 1000));
        assert!(one.same(&Shapes { name: "another".to_owned(), ..other.clone() }));
        assert!(!one.same(&Shapes { hidden: 65, ..other }));
    }

    #[test]
    fn nearer_is_the_same_architecture_and_a_like_size() {
        let model = shapes("llama", "Q4_1", 1000);
        let to = |architecture, dtype, bytes| model.distance(&shapes(architecture, dtype, bytes));
        assert_eq!(to("llama", "Q4_1", 1000), Some(0.0));
        assert_eq!(to("llama", "Q8_0", 1000), None);
        assert!(to("llama", "Q4_1", 2000) < to("llama", "Q4_1", 4000));
        assert!(to("llama", "Q4_1", 4000) < to("qwen3", "Q4_1", 1000));
        assert!(to("qwen3", "Q4_1", 1000) < to("llama", "Q4_1", 20_000));
        let hybrid = Shapes { keeps_states: true, ..shapes("llama", "Q4_1", 1000) };
        assert_eq!(model.distance(&hybrid), None);
    }
}
