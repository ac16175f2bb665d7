//! The suite that every backend runs, over the cpu backend.

use herald_api::import::Plugin;

fn plugin() -> Plugin {
    // SAFETY: it is this crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_cpu::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

#[test]
fn kernels() {
    herald_layers::suite::kernels(&herald_cpu::KERNELS);
}

#[test]
fn layers() {
    herald_layers::suite::layers(&plugin(), &herald_cpu::KERNELS);
}

#[test]
fn tiers() {
    herald_layers::suite::tiers(&plugin());
}
