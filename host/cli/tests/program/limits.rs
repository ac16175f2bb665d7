//! Little address space: each command ends with a result or one sentence.

use std::process::Command;

use herald_testing::{blas_plugin, cpu_plugin, folder, tiny};

use super::home;

/// With OpenBLAS installed too, which waits for ever where it gets no memory.
#[test]
fn little_address_space_is_a_result_or_a_sentence() {
    let (home, folder) = (home(), folder());
    std::os::unix::fs::symlink(cpu_plugin(), folder.path().join("libherald_cpu.so")).expect("a link");
    if cfg!(target_arch = "x86_64") {
        std::os::unix::fs::symlink(blas_plugin(), folder.path().join("libherald_blas.so")).expect("a link");
    }
    let mut results = 0;
    for mebibytes in [50, 90, 130, 170, 210, 250, 300, 400, 600, 1000, 2000] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -v {}; exec \"$0\" \"$@\"", mebibytes << 10)]);
        command.arg(env!("CARGO_BIN_EXE_host")).args([
            "--allow-insecure-plugins",
            "--threads",
            "2",
            "--model",
        ]);
        command.arg(tiny("llama")).args(["generate", "once", "-n", "4"]);
        for variable in ["HERALD_MODEL", "HERALD_BACKEND", "HERALD_BLAS"] {
            command.env_remove(variable);
        }
        command.env("HERALD_PLUGIN_PATH", folder.path()).env("HOME", home.path());
        command.env("XDG_CACHE_HOME", home.path().join("cache"));
        let output = command.output().expect("it can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => results += 1,
            // The system's loader needs more than the least.
            Some(1 | 127) => {
                assert!(said.lines().any(|line| line.contains("error")), "{mebibytes} MiB: {said:?}");
            }
            _ => panic!("{mebibytes} MiB: {:?}: {said}", output.status),
        }
    }
    assert!(results > 0, "2000 MiB are enough");
}
