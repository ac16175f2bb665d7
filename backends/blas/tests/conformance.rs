//! The checks that any plugin must pass, where the system has a BLAS.

use herald_api::import::Plugin;

#[test]
fn the_plugin_conforms() {
    if herald_blas::kernels().is_err() {
        return;
    }
    herald_conformance::assert_conforms_in_processes("the_plugin_conforms", &[&[]], || {
        // SAFETY: it is this crate's own entry, linked into the test.
        let plugin = unsafe { Plugin::load(herald_blas::herald_plugin_v1, Box::new(()), |_, _| {}) };
        plugin.expect("the plugin loads")
    });
}
