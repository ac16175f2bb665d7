//! The conformance suite: whether a plugin computes what it claims to, keeps the ABI's rules, and survives bad input.
//!
//! `host plugin check FILE` runs it in a child process; plugin authors who write Rust run it from `cargo test`. Each check
//! gives one [`Finding`], as soon as it is known, so that a plugin that crashes has said what it was asked last.

mod fault;
pub mod layers;
pub mod tiers;
pub mod tokenizers;

pub use fault::Fault;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, such as `attention, Q4_1, hidden 64, 7 tokens in pieces`.
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

/// Gets each finding as soon as it is known.
pub type Sink<'s> = &'s mut dyn FnMut(Finding);
