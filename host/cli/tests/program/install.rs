//! `packaging/install.sh`: pkg-config finds the installed library, programs link with it, and it finds its plugins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use herald_testing::{c_library, cpu_plugin, repository, tiny};

fn install(prefix: &str, destination: &str) {
    // The script takes a folder that `cargo build` fills, but the tests' plugins are elsewhere.
    let build = tempfile::tempdir().expect("a temporary folder");
    let library = c_library();
    let files =
        [PathBuf::from(env!("CARGO_BIN_EXE_host")), library.with_extension("a"), library, cpu_plugin()];
    for file in files {
        let name = file.file_name().expect("a file's path");
        std::os::unix::fs::symlink(&file, build.path().join(name)).expect("a link");
    }
    succeeds(
        Command::new(repository().join("packaging/install.sh"))
            .env("PREFIX", prefix)
            .env("DESTDIR", destination)
            .env("BUILD", build.path()),
    );
}

fn succeeds(command: &mut Command) -> String {
    // Cargo sets a library path for tests, which would override the program's.
    command.env_remove("LD_LIBRARY_PATH").env_remove("HERALD_PLUGIN_PATH");
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn an_installed_library_is_found_and_finds_its_plugins() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = folder.path().join("usr");
    install(prefix.to_str().expect("a path of ASCII"), "");

    let pkg_config = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.args(arguments).arg("herald").env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        succeeds(&mut command)
    };
    assert_eq!(pkg_config(&["--modversion"]).trim(), env!("CARGO_PKG_VERSION"));
    assert_eq!(
        Path::new(pkg_config(&["--variable=plugindir"]).trim()),
        prefix.join("lib/herald/plugins"),
        "the folder for third-party plugins"
    );

    // With the Makefile, as in the example's README.
    let build = folder.path().join("build");
    succeeds(
        Command::new("make")
            .current_dir(repository().join("examples/c"))
            .arg(format!("BUILD={}", build.display()))
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")),
    );
    let text = succeeds(Command::new(build.join("generate")).arg(tiny("llama")).args(["The capital", "8"]));
    assert!(!text.trim().is_empty());

    // With the static library: plugins are searched in the program's own folder.
    let program = prefix.join("bin/generate");
    succeeds(
        Command::new("cc")
            .arg(repository().join("examples/c/generate.c"))
            .arg("-o")
            .arg(&program)
            .args(pkg_config(&["--cflags"]).split_whitespace())
            .args(pkg_config(&["--variable=static_libs"]).split_whitespace()),
    );
    let same = succeeds(Command::new(&program).arg(tiny("llama")).args(["The capital", "8"]));
    assert_eq!(text, same);
}

#[test]
fn a_packager_installs_into_a_folder_of_its_own() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    install("/usr", folder.path().to_str().expect("a path of ASCII"));
    let config = fs::read_to_string(folder.path().join("usr/lib/pkgconfig/herald.pc")).expect("the config");
    assert!(config.starts_with("prefix=/usr\n") && !config.contains('@'), "{config}");
    for file in ["bin/host", "lib/libherald.a", "include/herald.h", "include/herald_plugin.h"] {
        assert!(folder.path().join("usr").join(file).is_file(), "{file}");
    }
}

#[test]
fn a_wrong_prefix_is_refused() {
    for prefix in ["relative", "/with|bar"] {
        let mut command = Command::new(repository().join("packaging/install.sh"));
        let output =
            command.env("PREFIX", prefix).env("DESTDIR", "/nowhere").output().expect("the script runs");
        assert_eq!(output.status.code(), Some(1));
        let sentence = String::from_utf8(output.stderr).expect("a text");
        assert!(sentence.contains(prefix) && sentence.lines().count() == 1, "{sentence}");
    }
}
