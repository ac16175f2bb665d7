//! `packaging/install.sh`: what it installs, that programs compile against it and run, and that it can be removed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use herald_testing::{c_library, cpu_plugin, repository, tiny};
use tempfile::TempDir;

/// A folder as `cargo build` fills it: the tests' plugins are elsewhere.
fn build() -> &'static Path {
    static BUILD: OnceLock<TempDir> = OnceLock::new();
    let build = BUILD.get_or_init(|| {
        let build = tempfile::tempdir().expect("a temporary folder");
        let library = c_library();
        let files =
            [PathBuf::from(env!("CARGO_BIN_EXE_host")), library.with_extension("a"), library, cpu_plugin()];
        for file in files {
            let name = file.file_name().expect("a file's path");
            std::os::unix::fs::symlink(&file, build.path().join(name)).expect("a link");
        }
        // What needs cargo is made once.
        succeeds(script(build.path()).arg("--prepare"));
        build
    });
    build.path()
}

fn script(build: &Path) -> Command {
    let mut command = Command::new(repository().join("packaging/install.sh"));
    // The nested cargo must not join the outer one's job server.
    for variable in ["PREFIX", "DESTDIR", "CARGO_MAKEFLAGS", "MAKEFLAGS"] {
        command.env_remove(variable);
    }
    command.env("BUILD", build);
    command
}

fn output(command: &mut Command) -> Output {
    // Cargo sets a library path for tests, which would override the program's.
    command.env_remove("LD_LIBRARY_PATH").env_remove("HERALD_PLUGIN_PATH");
    command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"))
}

fn succeeds(command: &mut Command) -> String {
    let output = output(command);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The files and links below a folder, with their contents.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.symlink_metadata().expect("its kind") {
                kind if kind.is_dir() => folders.push(path),
                kind if kind.is_symlink() => {
                    let target = fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes();
                    found.insert(path, target);
                }
                _ => drop(found.insert(path.clone(), fs::read(&path).expect("a file"))),
            }
        }
    }
    found
}

/// The C program of the README.
fn readme_program() -> String {
    let readme = fs::read_to_string(repository().join("README.md")).expect("the README");
    let (_, program) = readme.split_once("```c\n").expect("a C program in the README");
    program.split_once("```").expect("its end").0.to_owned()
}

/// Runs a program on a tiny model; it has to find the library and the plugins by itself.
fn runs(program: &Path) -> String {
    // The README's program takes the model only, the examples a prompt too.
    let text = succeeds(Command::new(program).arg(tiny("llama")).args(["The capital", "8"]));
    assert!(!text.is_empty(), "{} generates something", program.display());
    text
}

/// An installation in a packager's folder, both with spaces in their names; it is complete, can be used where it is, and
/// is removed without a trace.
#[test]
fn an_installation_works_and_goes_without_a_trace() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let destination = folder.path().join("a package");
    let prefix = destination.join("opt/my herald");
    let install = || {
        let mut command = script(build());
        command.env("DESTDIR", &destination).args(["--prefix", "/opt/my herald"]);
        command
    };
    let said = succeeds(install().arg("--debug-info"));
    assert!(said.contains("installed HERALD") && said.contains("MB"), "{said}");
    let first = tree(&prefix);
    succeeds(install().arg("--debug-info"));
    let second = tree(&prefix);
    assert!(first.keys().eq(second.keys()), "{:?}", second.keys());
    for (path, content) in &first {
        assert!(content == &second[path], "{} is the same the second time", path.display());
    }
    is_complete(&prefix);
    exports_only_heralds_functions(&prefix);
    let by_pkg_config = with_pkg_config(&prefix, folder.path());
    with_cmake(&prefix, folder.path(), &by_pkg_config);
    plugins_can_be_written(&prefix, folder.path());
    bash_completes_values(&prefix);

    // It may be moved.
    let moved = folder.path().join("moved");
    fs::rename(&prefix, &moved).expect("a new place");
    assert_eq!(with_pkg_config(&moved, folder.path()), by_pkg_config);
    fs::rename(&moved, &prefix).expect("its own place");

    // Without debug information, that of before goes.
    succeeds(&mut install());
    assert!(!prefix.join("lib/debug").exists());
    succeeds(install().arg("--uninstall"));
    assert!(!prefix.exists() && !destination.exists(), "{:?}", tree(folder.path()).keys());
}

fn is_complete(prefix: &Path) {
    let version = env!("CARGO_PKG_VERSION");
    let library = format!("lib/libherald.so.{version}");
    let headers: Vec<String> = fs::read_dir(repository().join("include"))
        .expect("the headers")
        .map(|header| format!("include/{}", header.expect("a header").file_name().to_string_lossy()))
        .collect();
    let expected = [
        "bin/herald",
        &library,
        "lib/libherald.a",
        "lib/herald/plugins/libherald_cpu.so",
        "share/herald/herald-api/Cargo.toml",
        "share/herald/herald-api/src/lib.rs",
        "share/doc/herald/README.md",
        "share/doc/herald/LICENSE-MIT",
        "share/doc/herald/LICENSE-APACHE",
        "share/doc/herald/docs/PLUGINS.md",
        "share/man/man1/herald.1",
        "share/man/man1/herald-generate.1",
        "share/man/man1/host.1",
        "share/man/man1/host-generate.1",
        "share/man/man1/host-docs-add.1",
    ];
    for file in expected.into_iter().chain(headers.iter().map(String::as_str)) {
        assert!(prefix.join(file).is_file(), "{file}");
    }
    let link = |name: &str| fs::read_link(prefix.join("lib").join(name)).expect("a link");
    assert_eq!(fs::read_link(prefix.join("bin/host")).expect("the alias"), Path::new("herald"));
    assert_eq!(link("libherald.so"), Path::new("libherald.so.0"));
    assert_eq!(link("libherald.so.0"), Path::new(&format!("libherald.so.{version}")));
    let notice = fs::read_to_string(prefix.join("share/doc/herald/THIRD-PARTY")).expect("the notice");
    for words in [
        "\nserde ",
        "\nclap ",
        "\nllguidance ",
        "\npreact ",
        "Permission is hereby granted",
        "Apache License",
    ] {
        assert!(notice.contains(words), "the notice has {words:?}");
    }
    assert!(!notice.contains("\nherald "), "HERALD is no third party");
    for (name, other) in [("herald", "host"), ("host", "herald")] {
        let page = prefix.join(format!("share/man/man1/{name}-generate.1"));
        let page = fs::read_to_string(page).expect("a manual page");
        assert!(page.contains("json") && page.starts_with(".ie"), "{}", &page[..200]);
        let example = |name: &str| page.contains(&format!("{name} generate "));
        assert!(example(name) && !example(other), "{page}");
        let said = succeeds(Command::new(prefix.join("bin").join(name)).arg("--help"));
        assert!(
            said.contains(&format!("Usage: {name} ")) && said.contains(&format!("\n  {name} chat ")),
            "{said}"
        );
        assert!(!said.contains(&format!("\n  {other} ")), "{said}");
    }
    let said = succeeds(Command::new(prefix.join("bin/herald")).arg("self-check"));
    for words in ["bin/herald", "library: ", "header: ", "computing: cpu: 8 tokens"] {
        assert!(said.contains(words), "{words}: {said}");
    }

    // Debug information is apart from what runs.
    let sections = |file: &str| succeeds(Command::new("objdump").arg("-h").arg(prefix.join(file)));
    for file in ["bin/herald", library.as_str(), "lib/herald/plugins/libherald_cpu.so"] {
        let sections = sections(file);
        assert!(sections.contains(".gnu_debuglink") && !sections.contains(".debug_info"), "{file}");
    }
    let debug: Vec<PathBuf> = tree(&prefix.join("lib/debug")).into_keys().collect();
    assert_eq!(debug.len(), 3, "{debug:?}");
    for file in debug {
        assert!(
            succeeds(Command::new("objdump").arg("-h").arg(&file)).contains(".debug_"),
            "{}",
            file.display()
        );
    }
}

/// The soname, and no symbol but the header's in the shared library; in the static one, none that could clash.
fn exports_only_heralds_functions(prefix: &Path) {
    let headers = succeeds(Command::new("objdump").arg("-p").arg(prefix.join("lib/libherald.so")));
    assert!(
        headers.lines().any(|line| line.split_whitespace().eq(["SONAME", "libherald.so.0"])),
        "{headers}"
    );
    for (options, file) in
        [(&["-D", "--defined-only"][..], "libherald.so"), (&["-g", "--defined-only"], "libherald.a")]
    {
        let symbols = succeeds(Command::new("nm").args(options).arg(prefix.join("lib").join(file)));
        // DW.ref symbols are shared by whoever unwinds.
        let names: Vec<&str> = symbols
            .lines()
            .filter_map(|line| line.split_whitespace().nth(2))
            .filter(|name| !name.starts_with("DW.ref."))
            .collect();
        assert!(
            names.len() > 20 && names.iter().all(|name| name.starts_with("herald_")),
            "{file}: {names:?}"
        );
    }
}

/// The README's program, built with pkg-config's flags as a shell takes them. Returns what it prints.
fn with_pkg_config(prefix: &Path, folder: &Path) -> String {
    let build = folder.join("with pkg-config");
    fs::create_dir_all(&build).expect("a folder");
    fs::write(build.join("hello.c"), readme_program()).expect("a file");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        command.current_dir(&build).args(["-c", line]).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
        succeeds(&mut command)
    };
    assert_eq!(shell("pkg-config --modversion herald").trim(), env!("CARGO_PKG_VERSION"));
    let plugins = shell("eval cd \"$(pkg-config --variable=plugindir herald)\" && pwd -P");
    let expected = prefix.join("lib/herald/plugins").canonicalize().expect("the folder of plugins");
    assert_eq!(Path::new(plugins.trim()), expected, "the folder for third-party plugins");
    shell("eval cc -std=c11 -Wall -Werror hello.c -o hello \"$(pkg-config --cflags --libs herald)\"");
    let text = runs(&build.join("hello"));

    // The examples' Makefile takes the same flags.
    let examples = folder.join("examples-of-c");
    succeeds(
        Command::new("make")
            .current_dir(repository().join("examples/c"))
            .arg(format!("BUILD={}", examples.display()))
            .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")),
    );
    runs(&examples.join("generate"));
    fs::remove_dir_all(&examples).expect("its own folder");

    // With the static library: plugins are searched in the program's own folder, and beside it.
    let program = prefix.join("bin/hello");
    let libraries = "$(pkg-config --cflags herald) $(pkg-config --variable=static_libs herald)";
    shell(&format!("eval cc hello.c -o \"'{}'\" \"{libraries}\"", program.display()));
    assert_eq!(runs(&program), text);
    fs::remove_file(&program).expect("one's own file");
    text
}

/// The same program with CMake, where there is one, against both libraries.
fn with_cmake(prefix: &Path, folder: &Path, expected: &str) {
    if Command::new("cmake").arg("--version").output().is_err() {
        println!("CMake is not installed: its package is not tested");
        return;
    }
    let source = folder.join("with CMake");
    fs::create_dir_all(&source).expect("a folder");
    fs::write(source.join("hello.c"), readme_program()).expect("a file");
    let lists = "cmake_minimum_required(VERSION 3.13)\nproject(hello C)\n\
        find_package(herald 0.1 REQUIRED)\n\
        find_package(herald 1.0 QUIET)\nif(herald_FOUND)\n  message(FATAL_ERROR \"0.1 is no 1.0\")\nendif()\n\
        find_package(herald 0.1 REQUIRED)\n\
        add_executable(hello hello.c)\ntarget_link_libraries(hello herald::herald)\n\
        add_executable(hello_static hello.c)\ntarget_link_libraries(hello_static herald::herald_static)\n\
        file(WRITE \"${CMAKE_BINARY_DIR}/plugins\" \"${herald_PLUGIN_DIR}\")\n";
    fs::write(source.join("CMakeLists.txt"), lists).expect("a file");
    let build = source.join("build");
    let mut prefix_option = std::ffi::OsString::from("-DCMAKE_PREFIX_PATH=");
    prefix_option.push(prefix);
    succeeds(Command::new("cmake").arg("-S").arg(&source).arg("-B").arg(&build).arg(&prefix_option));
    succeeds(Command::new("cmake").arg("--build").arg(&build));
    assert_eq!(runs(&build.join("hello")), expected);
    let plugins = fs::read_to_string(build.join("plugins")).expect("the folder of plugins");
    let text = succeeds(
        Command::new("env")
            .arg(format!("HERALD_PLUGIN_PATH={plugins}"))
            .arg(build.join("hello_static"))
            .arg(tiny("llama")),
    );
    assert_eq!(text, expected);
}

/// The installed crate builds on its own, as a dependency of a plugin's.
fn plugins_can_be_written(prefix: &Path, folder: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["check", "--quiet", "--offline"]).env_remove("CARGO_MAKEFLAGS").env_remove("MAKEFLAGS");
    cargo.arg("--manifest-path").arg(prefix.join("share/herald/herald-api/Cargo.toml"));
    succeeds(cargo.arg("--target-dir").arg(folder.join("target of a plugin")));
}

/// Types, backends and models are completed, and files where they fit too.
fn bash_completes_values(prefix: &Path) {
    let completed = |words: &[&str]| {
        let name = words[0];
        let script = prefix.join("share/bash-completion/completions").join(name);
        let last = words.len() - 1;
        let previous = words[last - 1];
        let mut command = Command::new("bash");
        command.current_dir(repository()).arg("-c").arg(format!(
            "source \"$0\"; COMP_WORDS=({}); COMP_CWORD={last}; _{name} {name} '{}' '{previous}'; echo \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words[last],
        ));
        succeeds(command.arg(script))
    };
    let of = |words: &[&str], expected: &[&str], others: &[&str]| {
        let completed = completed(words);
        let all: Vec<&str> = completed.split_whitespace().collect();
        assert!(expected.iter().all(|word| all.contains(word)), "{words:?}: {completed}");
        assert!(others.iter().all(|word| !all.contains(word)), "{words:?}: {completed}");
    };
    of(&["host", "quantize", "--type", "q4_"], &["q4_k", "q4_1"], &["q8_0"]);
    of(&["host", "synth", "--type", ""], &["q4_k_m", "f16"], &["README.md"]);
    of(&["host", "synth", "--arch", "mam"], &["mamba2"], &[]);
    of(&["host", "generate", "--backend", ""], &["auto", "simd", "blas", "cpu"], &["README.md"]);
    of(&["host", "generate", "--model", ""], &["smollm2-135m-instruct", "README.md"], &[]);
    of(&["host", "synth", "--"], &["--arch"], &["--backend", "--model"]);
    of(&["herald", "synth", "--arch", "mam"], &["mamba2"], &[]);
}

/// Where another package has a program `host`, none of its files is touched.
#[test]
fn the_alias_can_be_left_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = folder.path().join("local");
    succeeds(script(build()).arg("--no-alias").arg("--prefix").arg(&prefix));
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().contains("host"));
    let of_alias: Vec<PathBuf> = ["bin", "share/man", "share/bash-completion", "share/zsh", "share/fish"]
        .iter()
        .flat_map(|part| tree(&prefix.join(part)).into_keys())
        .filter(named)
        .collect();
    assert!(of_alias.is_empty(), "{of_alias:?}");
    assert!(prefix.join("share/man/man1/herald.1").is_file());
    succeeds(script(build()).arg("--uninstall").arg("--prefix").arg(&prefix));
    assert!(!prefix.exists());
}

/// Without `DESTDIR`, as a user into a folder of their own: what they put there stays.
#[test]
fn what_was_not_installed_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = folder.path().join("local");
    fs::create_dir_all(prefix.join("bin")).expect("a folder");
    fs::write(prefix.join("bin/mine"), "mine").expect("a file");
    let mut option = std::ffi::OsString::from("--prefix=");
    option.push(&prefix);
    let option: &OsStr = &option;
    succeeds(script(build()).arg(option));
    let plugin = prefix.join("lib/herald/plugins/libherald_mine.so");
    fs::write(&plugin, "a plugin of the user's").expect("a file");
    let listed = succeeds(
        Command::new(prefix.join("bin/host")).args(["backends", "--json"]).env("HOME", folder.path()),
    );
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let cpu = prefix.join("lib/herald/plugins/libherald_cpu.so");
    assert_eq!(listed["backends"][0]["path"], cpu.to_str().expect("UTF-8"), "{listed}");
    // An interrupted installation leaves a list too, with lines twice.
    let manifest = prefix.join("share/herald/manifest");
    let list = fs::read_to_string(&manifest).expect("the manifest");
    fs::write(&manifest, format!("{list}{list}")).expect("the manifest");
    succeeds(script(build()).arg(option).arg("--uninstall"));
    let left: Vec<PathBuf> = tree(&prefix).into_keys().collect();
    assert_eq!(left, [prefix.join("bin/mine"), plugin]);
    let again = output(script(build()).arg(option).arg("--uninstall"));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(1) && said.contains("nothing of HERALD is installed"), "{said}");
}

#[test]
fn help_installs_nothing_and_mistakes_get_a_sentence() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prefix = folder.path().join("prefix");
    let mut help = script(folder.path());
    let said = succeeds(help.env("PREFIX", &prefix).arg("--help"));
    assert!(said.contains("--uninstall") && said.contains("DESTDIR") && !prefix.exists(), "{said}");
    for (arguments, words, code) in [
        (&["--prefix", "relative"][..], "absolute path", 1),
        (&["--prefix", "/two\nlines"], "line break", 1),
        (&["--prefix"], "needs a folder", 2),
        (&["--nonsense"], "--nonsense", 2),
        (&["install"], "\"install\"", 2),
        (&["--debug-info", "--no-strip"], "exclude", 2),
        (&[], "is missing: build it", 1),
    ] {
        let output = output(script(folder.path()).env("PREFIX", &prefix).args(arguments));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let sentence = String::from_utf8(output.stderr).expect("a text");
        assert!(sentence.contains(words) && sentence.lines().count() == 1, "{arguments:?}: {sentence}");
    }
    assert!(!prefix.exists());
}
