//! The checks that any plugin must pass, with each variant that this CPU has.

use herald_api::Hardware;
use herald_api::import::Plugin;
use herald_simd::VARIANTS;

/// The plugin chooses its variant once, so each has processes of its own.
#[test]
fn every_variant_conforms() {
    let hardware = Hardware::features_only();
    let variants = VARIANTS.iter().filter(|variant| variant.runs_on(&hardware));
    let chosen: Vec<_> = variants.map(|variant| [("HERALD_SIMD", variant.name)]).collect();
    let environments: Vec<&[(&str, &str)]> = chosen.iter().map(|variable| &variable[..]).collect();
    herald_conformance::assert_conforms_in_processes("every_variant_conforms", &environments, || {
        // SAFETY: it is this crate's own entry, linked into the test.
        let plugin = unsafe { Plugin::load(herald_simd::herald_plugin_v1, Box::new(()), |_, _| {}) };
        plugin.expect("the plugin loads")
    });
}
