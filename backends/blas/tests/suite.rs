//! The suite that every backend runs, where the system has a BLAS; and what is said where it has none.

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

/// Runs this very test in a process whose `HERALD_BLAS` names no library, one that is none, and one that anybody may write to; and
/// in one whose memory is limited, where OpenBLAS would hang.
#[cfg(unix)]
#[test]
fn without_a_library_it_says_so() {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    if let Ok(expected) = std::env::var("HERALD_BLAS_EXPECTED") {
        let sentence =
            plugin().probe(&herald_api::Hardware::features_only()).expect_err("no BLAS").to_string();
        assert!(sentence.contains(&expected), "{sentence:?} does not say {expected:?}");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = folder.path().join("libopen.so");
    std::fs::write(&open, "anybody's code").expect("a file");
    std::fs::set_permissions(&open, PermissionsExt::from_mode(0o666)).expect("permissions");
    let path = open.to_str().expect("UTF-8");
    let untrusted = "isn't to be trusted";
    let cases = [
        ("libnone.so.9", "", "can't be loaded"),
        ("libc.so.6", "", "has no cblas_sgemm"),
        (path, "", untrusted),
        // Where the loader would find it.
        ("libopen.so", "", untrusted),
        // Who insists gets the loader's word.
        (path, "export HERALD_BLAS_INSECURE=1;", "can't be loaded"),
        ("", "ulimit -v 8000000;", "may have 7812 MiB of address space (ulimit -v)"),
        ("", "ulimit -d 8000000;", "may have 7812 MiB of data (ulimit -d)"),
    ];
    for (name, before, expected) in cases {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$0\" --exact without_a_library_it_says_so")]);
        command.arg(std::env::current_exe().expect("a test knows its own path"));
        command.env("HERALD_BLAS", name).env("HERALD_BLAS_EXPECTED", expected);
        let paths = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let paths = std::env::split_paths(&paths).chain([folder.path().to_owned()]);
        command.env("LD_LIBRARY_PATH", std::env::join_paths(paths).expect("no colon in a path"));
        let output = command.output().expect("it can be run");
        assert!(output.status.success(), "{name} {before}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
