//! The checks that any plugin must pass, with each variant that this CPU has.

use std::process::{Child, Command, Stdio};

use herald_api::Hardware;
use herald_api::import::Plugin;
use herald_simd::VARIANTS;

/// Runs this very test in a process for each variant, all at once: the plugin chooses its variant once.
#[test]
fn every_variant_conforms() {
    if std::env::var_os("HERALD_SIMD").is_some() {
        // SAFETY: it is this crate's own entry, linked into the test.
        let plugin = unsafe { Plugin::load(herald_simd::herald_plugin_v1, Box::new(()), |_, _| {}) };
        herald_conformance::assert_conforms(&plugin.expect("the plugin loads"));
        return;
    }
    let hardware = Hardware::features_only();
    let variants = VARIANTS.iter().filter(|variant| variant.runs_on(&hardware));
    let running: Vec<(&str, Child)> = variants
        .map(|variant| {
            let mut command = Command::new(std::env::current_exe().expect("a test knows its own path"));
            command.args(["--exact", "every_variant_conforms"]).env("HERALD_SIMD", variant.name);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            (variant.name, command.spawn().expect("it can be run"))
        })
        .collect();
    for (name, child) in running {
        let output = child.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {text}");
    }
}
