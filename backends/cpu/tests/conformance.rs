//! The checks that any plugin must pass.

use herald_api::import::Plugin;

#[test]
fn the_plugin_conforms() {
    herald_conformance::assert_conforms_in_processes("the_plugin_conforms", &[&[]], || {
        // SAFETY: it is this crate's own entry, linked into the test.
        let plugin = unsafe { Plugin::load(herald_cpu::herald_plugin_v1, Box::new(()), |_, _| {}) };
        plugin.expect("the plugin loads")
    });
}
