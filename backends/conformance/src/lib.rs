//! The conformance suite: whether a plugin computes what it claims to, keeps the ABI's rules, and survives bad input.
//!
//! `host plugin check FILE` runs it in a child process; plugin authors who write Rust run it from `cargo test`. Each check
//! says what it is about before it begins ([`Observer::begins`]) and gives one [`Finding`] when it ends, so that of a plugin
//! that crashes or hangs it is known what it was asked last.

mod answer;
#[cfg(feature = "reference")]
mod assert;
mod check;
mod fault;
mod guard;
mod heap;
mod hooks;
pub mod layers;
mod pool;
mod probe;
mod sink;
mod system;
pub mod tiers;
pub mod tokenizers;
mod values;

#[cfg(feature = "reference")]
pub use assert::{assert_conforms, assert_conforms_in_processes, assert_parts_conform};
pub use fault::Fault;
pub use guard::{Violation, report_faults};
pub use probe::check_probe;
pub use sink::{Observer, Sink};

use herald_api::import::Plugin;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, such as `attention, Q4_1, hidden 64`: the part before the first comma is its group.
    pub subject: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; with the figure that shows it, such as `off by 2.1e-6 of the largest`, which may be empty.
    Passed(String),
    /// It doesn't: which fault, and a sentence with where it was, what came and what was expected.
    Failed(Fault, String),
    /// The plugin doesn't offer it, or this machine can't check it: why.
    Skipped(String),
}

/// What a plugin may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Engine layers.
    Layers,
    /// Tokenizers.
    Tokenizers,
    /// Memory tiers.
    Tiers,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Layers, Self::Tokenizers, Self::Tiers];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::Tokenizers => "tokenizers",
            Self::Tiers => "tiers",
        }
    }
}

/// Checks these parts of a plugin, beside those of `reference`; a part that it doesn't offer is skipped.
pub fn check(plugin: &Plugin, reference: &Plugin, parts: &[Part], sink: &mut Sink<'_>) {
    for part in parts {
        let offered = match part {
            Part::Layers => plugin.layer_table().is_some(),
            Part::Tokenizers => plugin.offers_tokenizers(),
            Part::Tiers => plugin.tier_table().is_some(),
        };
        if !offered {
            sink.found(part.name(), Outcome::Skipped("not offered".to_owned()));
            continue;
        }
        match part {
            Part::Layers => layers::check(plugin, reference, sink),
            Part::Tokenizers => tokenizers::check(plugin, reference, sink),
            Part::Tiers => tiers::check(plugin, reference, sink),
        }
    }
}
