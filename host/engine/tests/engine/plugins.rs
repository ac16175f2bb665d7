//! Plugins of third parties: sound ones run beside the cpu backend, faulty ones cost one line and the next is tried.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use herald::plugin::{Plugins, Search};
use herald::sampler::SamplerConfig;
use herald::{GenerateOptions, LoadOptions, NeuroEngine};
use herald_api::Hardware;
use herald_testing::{compile, cpu_plugin, folder, search, third_party, tiny};

fn faulty(fault: &str, folder: &Path) -> PathBuf {
    compile("host/tests/plugins/faulty.c", fault, folder)
}

fn discover(search: &Search) -> Plugins {
    Plugins::discover(search, &Hardware::features_only())
}

/// The one line that a refused file costs.
#[track_caller]
fn refusal(file: &Path) -> String {
    let found = discover(&search(&[file]));
    assert!(found.usable.is_empty(), "{} was accepted", file.display());
    assert_eq!(found.refused.len(), 1);
    let reason = found.refused[0].reason.clone();
    assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?} is no single line");
    reason
}

#[track_caller]
fn says(reason: &str, words: &[&str]) {
    for word in words {
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
    }
}

fn greedy(search: Search, backend: Option<&str>) -> (Vec<u32>, Vec<(String, usize)>) {
    let options = LoadOptions { search, backend: backend.map(str::to_owned), ..LoadOptions::default() };
    let engine = NeuroEngine::load(&tiny("llama"), &options).expect("the model loads");
    let mut sequence = engine.sequence().expect("a sequence");
    let options = GenerateOptions {
        max_tokens: Some(16),
        sampler: SamplerConfig { temperature: 0.0, ..SamplerConfig::default() },
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    let generated = engine.generate(&mut sequence, &[10, 20, 30], &options, &mut || true, &mut |_| true);
    (generated.expect("tokens").tokens, engine.backends())
}

#[test]
fn files_that_are_no_plugins_are_refused() {
    let folder = folder();
    let text = folder.path().join("libherald_text.so");
    fs::write(&text, "not a library\n").expect("a file");
    says(&refusal(&text), &["no library that this system can load"]);
    says(&refusal(&folder.path().join("libherald_gone.so")), &["can't be opened"]);
    let inner = folder.path().join("libherald_folder.so");
    fs::create_dir(&inner).expect("a folder");
    says(&refusal(&inner), &["no file"]);
    says(&refusal(&faulty("MISSING_SYMBOL", folder.path())), &["exports no herald_plugin_v1"]);
}

#[test]
fn tables_that_are_wrong_are_refused() {
    let folder = folder();
    for (fault, words) in [
        ("NULL_TABLE", "null"),
        ("WRONG_VERSION", "version 2 of the ABI, where version 1 was expected"),
        ("GARBAGE_SIZE", "1099511627776 bytes"),
        ("TINY_SIZE", "7 bytes"),
        ("BAD_NAME", "letters, digits"),
        ("NO_FORWARD", "lacks a required function"),
        ("NO_START", "no licence"),
        ("NO_HARDWARE", "a machine that nobody has built"),
        ("ZERO_SCORE", "score 0"),
    ] {
        says(&refusal(&faulty(fault, folder.path())), &[words]);
    }
}

/// Each is preferred by its score, fails at the first layer, and is left out: the cpu backend does the work.
#[test]
fn plugins_that_fail_at_work_are_left_out() {
    let folder = folder();
    let cpu = cpu_plugin();
    let (expected, _) = greedy(search(&[&cpu]), None);
    let mut files: Vec<PathBuf> = ["CREATE_FAILS", "CREATE_NULL", "UNKNOWN_STATUS", "GARBAGE_INFO"]
        .map(|fault| faulty(fault, folder.path()))
        .into();
    files.push(third_party("host/tests/plugins/panics", "herald_panics"));
    for file in &files {
        let search = Search { allow_insecure: true, ..search(&[file, &cpu]) };
        assert_eq!(discover(&search).usable.len(), 2, "{} and cpu", file.display());
        let (tokens, backends) = greedy(search, None);
        assert_eq!(tokens, expected, "beside {}", file.display());
        assert!(backends.iter().all(|(name, _)| name == "cpu"), "{backends:?} beside {}", file.display());
    }
}

/// Plugins built with a header whose tables are shorter or longer run as the example itself does.
#[test]
fn plugins_of_other_header_versions_run() {
    let folder = folder();
    let cpu = cpu_plugin();
    let (expected, _) = greedy(search(&[&cpu]), None);
    for version in ["OLDER", "NEWER"] {
        let file = faulty(version, folder.path());
        let found = discover(&search(&[&file]));
        assert!(found.refused.is_empty(), "{version}: {:?}", found.refused);
        let name = found.usable[0].plugin.name().to_owned();
        let (tokens, backends) =
            greedy(Search { allow_insecure: true, ..search(&[&file, &cpu]) }, Some(&name));
        assert_eq!(tokens, expected, "{version}");
        assert!(backends.contains(&(name, 3)), "{version}: {backends:?}");
    }
}

/// The examples, as a third party would ship them: they do the layers that they offer, and cpu does the rest.
#[test]
fn example_plugins_compute_their_layers_beside_cpu() {
    let folder = folder();
    let cpu = cpu_plugin();
    let (expected, _) = greedy(search(&[&cpu]), None);
    let in_c = compile("examples/plugin-c/example.c", "EXAMPLE", folder.path());
    let in_rust = third_party("examples/plugin-rust", "herald_example_rust");
    for file in [&in_c, &in_rust] {
        let search = Search { allow_insecure: true, ..search(&[file, &cpu]) };
        let name = discover(&search)
            .usable
            .iter()
            .map(|found| found.plugin.name().to_owned())
            .find(|name| name != "cpu");
        let name = name.expect("the example is usable");
        let (tokens, backends) = greedy(search.clone(), Some(&name));
        assert_eq!(tokens, expected, "{name}");
        assert_eq!(backends, [("cpu".to_owned(), 5), (name.clone(), 3)], "{name}");
        // It scores less than cpu, so nobody gets it who didn't ask.
        assert_eq!(greedy(search, None).1, [("cpu".to_owned(), 8)]);
    }
}

#[test]
fn files_that_others_may_write_to_are_refused_unless_insisted() {
    let folder = folder();
    let file = faulty("NEWER", folder.path());
    mode(&file, 0o666);
    says(&refusal(&file), &["the file has mode 666", "--allow-insecure-plugins"]);
    // A link to it doesn't make it safer.
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let link = elsewhere.path().join("libherald_link.so");
    symlink(&file, &link).expect("a link");
    says(&refusal(&link), &["the file has mode 666"]);
    mode(&file, 0o644);
    mode(folder.path(), 0o777);
    says(&refusal(&file), &["its folder has mode 777"]);
    let insisted = Search { allow_insecure: true, ..search(&[&file]) };
    assert_eq!(discover(&insisted).usable.len(), 1);
}

/// Who may write to a folder above may swap what is below, unless all that they may do is add to it, as in `/tmp`.
#[test]
fn folders_above_count_too() {
    let home = folder();
    let inner = home.path().join("shared/mine");
    fs::create_dir_all(&inner).expect("folders");
    fs::set_permissions(&inner, fs::Permissions::from_mode(0o755)).expect("permissions");
    let file = faulty("NEWER", &inner);
    let shared = |mode: u32| {
        fs::set_permissions(home.path().join("shared"), fs::Permissions::from_mode(mode))
            .expect("permissions");
    };
    shared(0o777);
    says(&refusal(&file), &["the folder", "/shared above it has mode 777", "--allow-insecure-plugins"]);
    for mode in [0o1777, 0o755] {
        shared(mode);
        assert_eq!(discover(&search(&[&file])).usable.len(), 1, "{mode:o}");
    }
}

/// A plugin finds what lies beside it: by its run path, and by the name that the loader knows it by.
#[test]
fn a_plugin_finds_what_lies_beside_it() {
    let folder = folder();
    let (source, helper) = (folder.path().join("beside.c"), folder.path().join("libbeside_helper.so"));
    let plugin = folder.path().join("libherald_beside.so");
    fs::write(
        &source,
        r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdio.h>
        #include <string.h>
        #include <herald_plugin.h>
        #ifdef HELPER
        int helper(void) { return 1; }
        #else
        int helper(void);
        static uint32_t probe(const HeraldHardware *hardware, HeraldProbe *out, HeraldError *error) {
            (void)hardware; (void)error;
            Dl_info info;
            char path[4096];
            if (dladdr((void *)probe, &info) == 0) return HERALD_STATUS_INTERNAL;
            snprintf(path, sizeof path - 16, "%s", info.dli_fname);
            strcpy(strrchr(path, '/') + 1, "beside.c");
            FILE *beside = fopen(path, "r");
            if (beside == NULL) return HERALD_STATUS_NOT_FOUND;
            fclose(beside);
            out->score = (uint32_t)helper();
            return HERALD_STATUS_OK;
        }
        HERALD_EXPORT const HeraldPlugin *herald_plugin_v1(void) {
            static HeraldPlugin plugin = {.struct_size = sizeof plugin, .abi_version = HERALD_ABI_VERSION,
                .name = "beside", .name_len = 6, .version = "1", .version_len = 1, .probe = probe};
            return &plugin;
        }
        #endif
        "#,
    )
    .expect("a source");
    let cc = |out: &Path| {
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-I"]).arg(herald_testing::repository().join("include"));
        cc.arg("-o").arg(out).arg(&source);
        cc
    };
    herald_testing::run(cc(&helper).arg("-DHELPER"));
    herald_testing::run(cc(&plugin).arg("-L").arg(folder.path()).args([
        "-lbeside_helper",
        "-Wl,-rpath,$ORIGIN",
        "-ldl",
    ]));
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("permissions");
    let found = discover(&search(&[&plugin]));
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    // By another name it is the same library, which is loaded once.
    let link = folder.path().join("libherald_again.so");
    symlink(&plugin, &link).expect("a link");
    let again = discover(&search(&[&plugin, &link]));
    assert!(again.usable.len() == 1 && again.refused.is_empty(), "{:?}", again.refused);
    assert_eq!(again.usable[0].path, plugin.canonicalize().expect("a path"));
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
}

/// A library in `own`, which links one in `shared/inner`, and plugins that link it.
struct Linked(tempfile::TempDir);

impl Linked {
    fn new() -> Self {
        let made = Self(folder());
        for name in ["own", "shared", "shared/inner"] {
            fs::create_dir(made.at(name)).expect("a folder");
            mode(&made.at(name), 0o755);
        }
        let source = made.text("library.c");
        let code = "int inner(void);\nint outer(void) { return inner(); }\n#ifdef INNER\nint inner(void) { return 7; }\n#endif\n";
        fs::write(&source, code).expect("a source");
        made.library("shared/inner/libinner.so", &["-DINNER", &source]);
        let inner = made.text("shared/inner");
        let options: [&str; 4] = [&source, &format!("-L{inner}"), "-linner", &format!("-Wl,-rpath,{inner}")];
        made.library("own/libouter.so", &options);
        made
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).to_str().expect("UTF-8").to_owned()
    }

    fn library(&self, name: &str, options: &[&str]) {
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(self.at(name)).args(options);
        herald_testing::run(&mut cc);
        mode(&self.at(name), 0o755);
    }

    /// A plugin with a run path.
    fn plugin(&self, name: &str, run_path: &str) -> PathBuf {
        let root = herald_testing::repository();
        let include = format!("-I{}", root.join("include").display());
        let source = root.join("host/tests/plugins/faulty.c").display().to_string();
        let (folder, run_path) = (format!("-L{}", self.text("own")), format!("-Wl,{run_path}"));
        let name = format!("libherald_{name}.so");
        self.library(&name, &["-DNEWER", &include, &source, &folder, "-louter", &run_path, "-lm"]);
        self.at(&name)
    }
}

/// The libraries that a plugin links are code too, which runs before its own.
#[test]
fn what_a_plugin_links_is_checked_as_it_is() {
    let linked = Linked::new();
    let outer = linked.at("own/libouter.so");
    for (name, run_path) in
        [("late", "-rpath,$ORIGIN/own"), ("early", "--disable-new-dtags,-rpath,${ORIGIN}/own")]
    {
        mode(&linked.at("shared"), 0o777);
        let file = linked.plugin(name, run_path);
        let words = ["libinner.so", "/shared above it has mode 777", "--allow-insecure-plugins"];
        says(&refusal(&file), &words);
        mode(&linked.at("shared"), 0o755);
        mode(&outer, 0o666);
        says(&refusal(&file), &["it links libouter.so, found as", "own/libouter.so: the file has mode 666"]);
        mode(&outer, 0o755);
        assert_eq!(discover(&search(&[&file])).usable.len(), 1);
    }
    mode(&outer, 0o666);
    let file = linked.plugin("insisted", "-rpath,$ORIGIN/own");
    refusal(&file);
    let insisted = Search { allow_insecure: true, ..search(&[&file]) };
    assert_eq!(discover(&insisted).usable.len(), 1);
    // A library that is cut off would end the process as a plugin would.
    mode(&outer, 0o755);
    let bytes = fs::read(&outer).expect("the library");
    let file = linked.plugin("cut", "-rpath,$ORIGIN/own");
    fs::remove_file(&outer).expect("the library");
    fs::write(&outer, &bytes[..1000]).expect("a cut library");
    mode(&outer, 0o755);
    says(&refusal(&file), &["libouter.so", "was cut off"]);
}

/// A folder that anybody could make is as bad as one that anybody can write to, and so is the working directory.
#[test]
fn folders_of_a_run_path_are_ones_that_nobody_else_can_make() {
    let linked = Linked::new();
    let missing = format!("-rpath,{}:$ORIGIN/own", linked.text("shared/nobodys/lib"));
    let file = linked.plugin("missing", &missing);
    mode(&linked.at("shared"), 0o1777);
    says(&refusal(&file), &["its run path has", "/shared, where it would be made, has mode 777"]);
    mode(&linked.at("shared"), 0o755);
    assert_eq!(discover(&search(&[&file])).usable.len(), 1, "only we can make it now");
    for (name, run_path, words) in [
        ("relative", "-rpath,own:$ORIGIN/own", "within the working directory"),
        ("nothing", "-rpath,:$ORIGIN/own", "within the working directory"),
        ("variable", "-rpath,$ORIGIN/$LIB:$ORIGIN/own", "without variables but $ORIGIN"),
    ] {
        says(&refusal(&linked.plugin(name, run_path)), &[words]);
    }
}

#[test]
fn a_model_is_not_loaded_without_a_plugin_that_was_named() {
    let folder = folder();
    let (cpu, bad) = (cpu_plugin(), faulty("NO_HARDWARE", folder.path()));
    let search = Search { allow_insecure: true, ..search(&[&cpu, &bad]) };
    let options = LoadOptions { search, ..LoadOptions::default() };
    let error = NeuroEngine::load(&tiny("llama"), &options).err().expect("it is refused").to_string();
    says(
        &error,
        &["libherald_no_hardware.so", "the plugin can't be used", "a machine that nobody has built"],
    );
}

#[test]
fn folders_are_searched_for_files_named_so() {
    let folder = folder();
    let file = faulty("NEWER", folder.path());
    fs::copy(&file, folder.path().join("other.so")).expect("a copy");
    let search = Search { folders: vec![folder.path().to_owned(), "relative".into()], ..Search::default() };
    let found = discover(&search);
    assert_eq!(found.usable.len(), 1);
    assert_eq!(found.usable[0].path, file.canonicalize().expect("a path"));
    says(&found.refused[0].reason, &["relative folder", "absolute"]);
}

#[test]
fn a_second_plugin_of_the_same_name_is_refused() {
    let folder = folder();
    let (older, newer) = (faulty("OLDER", folder.path()), faulty("NEWER", folder.path()));
    let found = discover(&search(&[&older, &newer]));
    assert_eq!(found.usable.len(), 1);
    says(&found.refused[0].reason, &["libherald_older.so", "already"]);
}

#[test]
fn without_plugins_one_sentence_says_what_is_missing() {
    let search = Search { folders: vec!["/nonexistent/plugins".into()], ..Search::default() };
    let options = LoadOptions { search, ..LoadOptions::default() };
    let error = NeuroEngine::load(&tiny("llama"), &options).err().expect("there is no plugin").to_string();
    says(&error, &["no backend plugin was found in /nonexistent/plugins", "libherald_cpu"]);
}

#[test]
fn an_unknown_backend_is_named_beside_the_known_ones() {
    let cpu = cpu_plugin();
    let options = LoadOptions {
        search: Search { allow_insecure: true, ..search(&[&cpu]) },
        backend: Some("gpu".to_owned()),
        ..LoadOptions::default()
    };
    let error =
        NeuroEngine::load(&tiny("llama"), &options).err().expect("there is no such backend").to_string();
    says(&error, &["no backend \"gpu\"", "cpu"]);
}
