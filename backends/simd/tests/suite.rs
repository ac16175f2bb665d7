//! The suite that every backend runs, over each variant that this CPU has, or the one that `HERALD_SIMD` names.

use herald_api::Hardware;
use herald_api::import::Plugin;
use herald_simd::{VARIANTS, Variant};

fn plugin() -> Plugin {
    // SAFETY: it is this crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_simd::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

fn variants() -> Vec<&'static Variant> {
    let hardware = Hardware::features_only();
    let named = std::env::var("HERALD_SIMD").ok().filter(|name| !name.is_empty());
    let asked = |variant: &&Variant| named.as_deref().is_none_or(|name| name == variant.name);
    let found: Vec<_> = VARIANTS.iter().filter(asked).filter(|variant| variant.runs_on(&hardware)).collect();
    assert!(named.is_none() || !found.is_empty(), "HERALD_SIMD is {named:?}, which this CPU doesn't run");
    found
}

/// Each variant on a thread of its own, whose name a panic says: this takes longer than all other tests.
#[test]
fn kernels() {
    std::thread::scope(|scope| {
        for variant in variants() {
            let thread = std::thread::Builder::new().name(variant.name.to_owned());
            let check = || herald_layers::suite::kernels(variant.kernels);
            thread.spawn_scoped(scope, check).expect("a thread");
        }
    });
}

#[test]
fn layers() {
    let variants = variants();
    let Some(variant) = variants.first() else { return };
    herald_layers::suite::layers(&plugin(), variant.kernels);
}

#[test]
fn tiers() {
    herald_layers::suite::tiers(&plugin());
}
