//! The tests that every backend inherits, so that a new kernel or backend needs no new test: only for tests of backends
//! (feature `suite`).
//!
//! A backend's own test is three calls: [`kernels`] over its table, [`layers`] and [`tiers`] over its plugin, loaded
//! through the C boundary. Each compares with references written from the formulas in float64 (ndarray) and with bounds
//! that follow from float32's error analysis (in `bounds`): a result within them is one that float32 can give, in
//! whatever order it is summed; one outside them is wrong.
//!
//! Every function here panics with what failed, its input and its bound.

mod bounds;
mod delta;
mod executor;
mod keeper;
mod kernels;
mod layers;
mod reference;
mod response;
mod softmax;
mod tiers;
mod values;
mod weights;

use std::fmt::Debug;
use std::ops::Deref;

use herald_api::import::Plugin;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::Kernels;

/// The result of one case of a property.
type Case = Result<(), TestCaseError>;

/// Checks every entry of a table of kernels.
///
/// # Panics
/// Where an entry is wrong.
pub fn kernels(kernels: &'static Kernels) {
    kernels::rows::check(kernels);
    kernels::matmul::check(kernels);
    kernels::matrices::check(kernels);
    kernels::vectors::check(kernels);
    kernels::activations::check(kernels);
    kernels::quantize_i16::check(kernels);
    kernels::attend::check(kernels);
    kernels::recurrent::check(kernels);
    kernels::delta::check(kernels);
}

/// Checks the layers of a plugin, of each kind that it offers: what they compute, and what they refuse. `kernels` is the
/// table that they are over.
///
/// # Panics
/// Where a layer is wrong, and where the plugin offers no layers.
pub fn layers(plugin: &Plugin, kernels: &'static Kernels) {
    layers::check(&Subject { plugin, kernels });
}

/// A plugin whose layers are checked, with the table of kernels that they are over.
struct Subject<'p> {
    plugin: &'p Plugin,
    kernels: &'static Kernels,
}

impl Deref for Subject<'_> {
    type Target = Plugin;

    fn deref(&self) -> &Plugin {
        self.plugin
    }
}

/// Checks a plugin's memory tiers: the active one, and the compressed and archived ones where it offers them.
///
/// # Panics
/// Where a tier is wrong, and where the plugin offers no active one.
pub fn tiers(plugin: &Plugin) {
    tiers::check(plugin);
}

/// Runs `test` over `cases` inputs; panics with the smallest one found that it fails on.
fn property<S: Strategy>(name: &str, cases: u32, inputs: S, test: impl Fn(S::Value) -> Case)
where
    S::Value: Debug,
{
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(&inputs, test) {
        panic!("{name}: {failure}");
    }
}

/// The case fails where the condition doesn't hold.
fn ensure(holds: bool, message: impl FnOnce() -> String) -> Case {
    if holds { Ok(()) } else { Err(TestCaseError::fail(message())) }
}
