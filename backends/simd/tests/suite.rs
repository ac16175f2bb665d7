//! The suite that every backend runs, over each variant that this CPU has.

use herald_api::Hardware;
use herald_api::import::Plugin;
use herald_simd::VARIANTS;

fn plugin() -> Plugin {
    // SAFETY: it is this crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_simd::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

#[test]
fn kernels() {
    let hardware = Hardware::features_only();
    for variant in VARIANTS.iter().filter(|variant| variant.runs_on(&hardware)) {
        println!("{}", variant.name);
        herald_layers::suite::kernels(variant.kernels);
    }
}

#[test]
fn layers() {
    let hardware = Hardware::features_only();
    let Some(variant) = VARIANTS.iter().find(|variant| variant.runs_on(&hardware)) else { return };
    herald_layers::suite::layers(&plugin(), variant.kernels);
}

#[test]
fn tiers() {
    herald_layers::suite::tiers(&plugin());
}
