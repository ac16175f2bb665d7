//! The suite that every backend runs, where the system has a BLAS; and what is said where it has none.

use std::process::Command;

use herald_api::Hardware;
use herald_api::import::Plugin;

fn plugin() -> Plugin {
    // SAFETY: it is this crate's own entry, linked into the test.
    let plugin = unsafe { Plugin::load(herald_blas::herald_plugin_v1, Box::new(()), |_, _| {}) };
    plugin.expect("the plugin loads")
}

#[test]
fn kernels() {
    let Ok(kernels) = herald_blas::kernels() else { return };
    herald_layers::suite::kernels(kernels);
}

#[test]
fn layers() {
    let Ok(kernels) = herald_blas::kernels() else { return };
    herald_layers::suite::layers(&plugin(), kernels);
}

#[test]
fn tiers() {
    herald_layers::suite::tiers(&plugin());
}

/// Runs this very test in a process whose `HERALD_BLAS` names no library, and one that is none.
#[test]
fn without_a_library_it_says_so() {
    let here = std::env::current_exe().expect("a test knows its own path");
    match std::env::var("HERALD_BLAS_EXPECTED") {
        Ok(expected) => {
            let sentence = plugin().probe(&Hardware::features_only()).expect_err("no BLAS").to_string();
            assert!(sentence.contains(&expected), "{sentence:?} does not say {expected:?}");
        }
        Err(_) => {
            for (name, expected) in [("libnone.so.9", "can't be loaded"), ("libc.so.6", "has no cblas_sgemm")]
            {
                let mut command = Command::new(&here);
                command.args(["--exact", "without_a_library_it_says_so"]).env("HERALD_BLAS", name);
                let output = command.env("HERALD_BLAS_EXPECTED", expected).output().expect("it can be run");
                assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
            }
        }
    }
}
