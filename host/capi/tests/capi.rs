//! The C interface from a C or C++ program's side: programs are compiled, linked with the library, and run.

#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use herald_engine::{GenerateOptions, NeuroEngine};
use herald_testing::{c_library, cpu_plugin, load_tiny, repository, tiny, tiny_with};

/// A folder with the library and a plugin, where programs are built.
struct Workshop(tempfile::TempDir);

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for library in [c_library(), cpu_plugin()] {
            let copy = folder.path().join(library.file_name().expect("a library's path"));
            fs::copy(&library, &copy).expect("a library can be copied");
            // As if installed: cargo may have made it writable for others, and such a plugin is refused.
            fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("one's own file");
        }
        // Programs look for the library's soname.
        std::os::unix::fs::symlink("libherald.so", folder.path().join("libherald.so.0")).expect("a link");
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Builds an example with its Makefile.
    fn example(&self, folder: &str, program: &str) -> PathBuf {
        let output = run(Command::new("make")
            .current_dir(repository().join("examples").join(folder))
            .arg(format!("BUILD={}", self.path().display()))
            .arg(format!("HERALD_LIB={}", self.path().display()))
            .args(["HERALD_INCLUDE=../../include", "CPPFLAGS=-Werror"]));
        assert!(output.status.success(), "{}", shown(&output));
        self.path().join(program)
    }

    /// Builds a test program in C.
    fn program(&self, name: &str) -> PathBuf {
        let options = ["-std=c11", "-D_DEFAULT_SOURCE", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"];
        self.compiled("cc", &options, &format!("{name}.c"), name)
    }

    /// Compiles a test program from this source.
    fn compiled(&self, compiler: &str, options: &[&str], source: &str, name: &str) -> PathBuf {
        let program = self.path().join(name);
        let output = run(Command::new(compiler)
            .current_dir(repository().join("host/capi/tests/c"))
            .args(options)
            .args(["-pthread", "-I../../../../include"])
            .arg(source)
            .arg("-o")
            .arg(&program)
            .arg(format!("-L{0}", self.path().display()))
            .arg(format!("-Wl,-rpath,{}", self.path().display()))
            .args(["-lherald", "-lm"]));
        assert!(output.status.success(), "{}", shown(&output));
        program
    }
}

fn run(command: &mut Command) -> Output {
    // Cargo sets a library path for tests, which would override the program's.
    command.env_remove("LD_LIBRARY_PATH").env_remove("HERALD_PLUGIN_PATH");
    command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"))
}

fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}: {}{}", output.status, text(&output.stdout), text(&output.stderr))
}

fn succeeds(command: &mut Command) -> (String, String) {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", shown(&output));
    (
        String::from_utf8(output.stdout).expect("text on stdout"),
        String::from_utf8(output.stderr).expect("text on stderr"),
    )
}

/// The program under valgrind, or `None` and a note if valgrind isn't installed.
fn valgrind(program: &Path, options: &[&str]) -> Option<Command> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not installed: no check for leaks and memory errors");
        return None;
    }
    let mut command = Command::new("valgrind");
    // A plugin stays loaded until the process ends: its memory is reachable, not lost.
    command.args(["--quiet", "--leak-check=full", "--error-exitcode=99"]).args(options).arg(program);
    Some(command)
}

/// The engine's own greedy generation: ids and text.
fn greedy(engine: &NeuroEngine, prompt: &str, max_tokens: usize) -> (Vec<u32>, String) {
    let ids = engine.tokenizer().encode_prompt(prompt, false).expect("a prompt");
    let options = GenerateOptions { max_tokens: Some(max_tokens), ..GenerateOptions::default() };
    let mut sequence = engine.sequence().expect("a sequence");
    let generated = engine.generate(&mut sequence, &ids, &options, &mut || true, &mut |_| true);
    let generated = generated.expect("a generation");
    (generated.tokens, generated.text)
}

fn ids(line: &str) -> Vec<u32> {
    line.split_whitespace().map(|id| id.parse().expect("an id")).collect()
}

const PROMPT: &str = "The capital";

#[test]
fn the_c_example_generates_the_engines_text() {
    let workshop = Workshop::new();
    let program = workshop.example("c", "generate");
    let engine = load_tiny("llama");
    let (_, text) = greedy(&engine, PROMPT, 24);

    let (out, log) = succeeds(Command::new(&program).arg(tiny("llama")).args([PROMPT, "24"]));
    assert_eq!(out, format!("{text}\n"));
    let line = log.lines().find_map(|line| line.strip_prefix("prompt ids:")).expect("the prompt's ids");
    assert_eq!(ids(line), engine.tokenizer().encode_prompt(PROMPT, false).expect("a prompt"));

    let output = run(Command::new(&program).args(["/nowhere/model.gguf", PROMPT]));
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("/nowhere/model.gguf"), "{}", shown(&output));
    assert_eq!(run(&mut Command::new(&program)).status.code(), Some(2));

    if let Some(mut command) = valgrind(&program, &[]) {
        let (out, log) = succeeds(command.arg(tiny("llama")).args([PROMPT, "24"]));
        assert_eq!(out, format!("{text}\n"));
        assert!(!log.contains("=="), "{log}");
    }
}

#[test]
fn the_c_example_manages_memory() {
    let workshop = Workshop::new();
    let program = workshop.example("c", "memory");
    let check = |(out, log): (String, String)| {
        let lines: Vec<&str> = out.lines().collect();
        assert!(
            lines[0].starts_with("added: ")
                && lines[0].ends_with(" 0 compressed, 0 archived, 1.00 times smaller")
        );
        assert!(lines[1].starts_with("compressed: ") && !lines[1].contains(" 0 compressed"), "{out}");
        assert!(lines[2].ends_with(" 8 tokens generated; 0 pages are left, 0 without an owner"), "{out}");
        assert_eq!(lines[3], "note 2: The bank raised its interest rates again in autumn.");
        assert!(out.contains("Question: What do bees do?"), "{out}");
        log
    };
    check(succeeds(Command::new(&program).arg(tiny("llama"))));
    assert_eq!(run(&mut Command::new(&program)).status.code(), Some(2));
    // The template engine keeps memory until the process ends that counts as "possibly lost": see below.
    let lost = ["--errors-for-leak-kinds=definite,indirect", "--show-leak-kinds=definite,indirect"];
    if let Some(mut command) = valgrind(&program, &lost) {
        let log = check(succeeds(command.arg(tiny("llama"))));
        assert!(!log.contains("=="), "{log}");
    }
}

#[test]
fn the_cpp_example_generates_the_engines_text() {
    let workshop = Workshop::new();
    let program = workshop.example("cpp", "two_sequences");
    let engine = load_tiny("llama");
    let prompts = [PROMPT, "Water is in the kettle"];
    let expected = prompts.map(|prompt| greedy(&engine, prompt, 12));

    let check = |(out, log): (String, String)| {
        for (index, (tokens, text)) in expected.iter().enumerate() {
            let line = log.lines().find_map(|line| line.strip_prefix(&format!("ids {index}:")));
            assert_eq!(&ids(line.expect("the ids")), tokens);
            assert!(out.contains(&format!("{}{text}\n", prompts[index])), "{text:?} in {out:?}");
        }
        log
    };
    check(succeeds(Command::new(&program).arg(tiny("llama")).args(prompts).arg("12")));
    let output = run(Command::new(&program).arg("/nowhere/model.gguf").args(prompts));
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("/nowhere/model.gguf"), "{}", shown(&output));

    if let Some(mut command) = valgrind(&program, &[]) {
        let log = check(succeeds(command.arg(tiny("llama")).args(prompts).arg("12")));
        assert!(!log.contains("=="), "{log}");
    }
}

#[test]
fn misuse_gets_a_status_and_a_sentence() {
    let workshop = Workshop::new();
    let program = workshop.program("misuse");
    let (sentences, _) = succeeds(Command::new(&program).arg(tiny("llama")));
    assert!(sentences.lines().count() > 50 && sentences.lines().all(|line| line.len() > 20), "{sentences}");
    if let Some(mut command) = valgrind(&program, &[]) {
        succeeds(command.arg(tiny("llama")));
    }
}

/// A copy of the test model with a chat template, which the model lacks.
fn chat_model(folder: &Path) -> PathBuf {
    const TEMPLATE: &str = "{% if not messages %}{{ raise_exception('one message at least') }}{% endif %}\
         {% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}\
         {% if add_generation_prompt %}<assistant>{% endif %}";
    tiny_with(folder, &[("tokenizer.chat_template", TEMPLATE)])
}

#[test]
fn all_functions_work() {
    let workshop = Workshop::new();
    let program = workshop.program("works");
    let chat = chat_model(workshop.path());
    succeeds(Command::new(&program).arg(tiny("llama")).arg(&chat));
    // The template engine and the standard library keep some memory until the process ends through interior pointers,
    // which counts as "possibly lost". Definite losses are errors here too.
    if let Some(mut command) = valgrind(&program, &["--errors-for-leak-kinds=definite,indirect"]) {
        succeeds(command.arg(tiny("llama")).arg(&chat));
    }
}

/// Every function of the header is in the program that runs under valgrind and ASan, and in herald.hpp, but for those that C++ has
/// no need of.
#[test]
fn no_function_is_left_out() {
    let header = fs::read_to_string(repository().join("include/herald.h")).expect("the header");
    let read = |path: &str| fs::read_to_string(repository().join(path)).expect("a source");
    let (c, cpp) = (read("host/capi/tests/c/every.c"), read("include/herald.hpp"));
    for function in functions(&header) {
        assert!(c.contains(&format!("{function}(")), "every.c doesn't use {function}");
        let is_used = cpp.contains(&format!("{function}(")) || cpp.contains(&format!("{function},"));
        let c_only = ["herald_version", "herald_log"];
        assert!(
            is_used || cpp.contains(&format!("{function}>")) || c_only.contains(&function),
            "herald.hpp lacks {function}"
        );
    }
}

#[test]
fn every_function_is_clean_under_valgrind_and_asan() {
    let workshop = Workshop::new();
    let program = workshop.program("every");
    let chat = chat_model(workshop.path());
    let arguments = |command: &mut Command| {
        let [file, archive] = ["state", "archive"].map(|name| workshop.path().join(name));
        let adapter = repository().join("host/tests/data/lora/llama_lora.gguf");
        succeeds(command.arg(&chat).arg(file).arg(archive).arg(adapter));
    };
    arguments(&mut Command::new(&program));
    // As in `all_functions_work`.
    if let Some(mut command) = valgrind(&program, &["--errors-for-leak-kinds=definite,indirect"]) {
        arguments(&mut command);
    }
    let options = ["-std=c11", "-D_DEFAULT_SOURCE", "-g", "-O1", "-fsanitize=address,undefined"];
    let program = workshop.compiled("cc", &options, "every.c", "every_asan");
    // What the loader keeps of plugins, which are never unloaded, is reachable only from their own data.
    let suppressed = workshop.path().join("suppressed");
    fs::write(&suppressed, "leak:_dl_\nleak:call_init\n").expect("a new file");
    arguments(
        Command::new(&program)
            .env("ASAN_OPTIONS", "detect_leaks=1:halt_on_error=1")
            .env("LSAN_OPTIONS", format!("suppressions={}:print_suppressions=0", suppressed.display())),
    );
}

/// Each large allocation fails once: of a model, of what sequences have seen, of a pass.
#[test]
#[cfg(target_env = "gnu")]
fn calls_tell_that_memory_is_used_up() {
    let workshop = Workshop::new();
    let program = workshop.program("exhausted");
    let of_all = ["prefill", "logits", "restore"];
    let of_states = ["sequence_new", "fork"];
    for (model, calls) in [("llama", of_all.to_vec()), ("falcon_h1", [&of_all[..], &of_states].concat())] {
        let mut command = Command::new(&program);
        command.arg(tiny(model)).arg(workshop.path().join("state"));
        let (lines, _) = succeeds(&mut command);
        for call in calls {
            let call = format!("{call}: ");
            let failed = lines
                .lines()
                .any(|line| line.strip_prefix(&call).is_some_and(|rest| !rest.starts_with("0 ")));
            assert!(failed, "{model}: {call}nothing large was asked for: {lines}");
        }
    }
}

#[test]
fn a_fork_gets_a_sentence() {
    let workshop = Workshop::new();
    let program = workshop.program("fork");
    let (sentences, _) = succeeds(Command::new(&program).arg(tiny("llama")));
    assert!(sentences.lines().count() >= 10, "{sentences}");
}

#[test]
fn a_scheduler_stands_stress_from_many_threads() {
    let workshop = Workshop::new();
    let program = workshop.program("stress");
    for model in ["llama", "falcon_h1"] {
        succeeds(Command::new(&program).arg(tiny(model)));
    }
}

#[test]
fn cpp_has_everything() {
    let workshop = Workshop::new();
    let chat = chat_model(workshop.path());
    for compiler in ["c++", "clang++"] {
        if Command::new(compiler).arg("--version").output().is_err() {
            println!("{compiler} is not installed");
            continue;
        }
        for standard in ["-std=c++17", "-std=c++20"] {
            let options =
                [standard, "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-g"];
            let program = workshop.compiled(compiler, &options, "every.cpp", "every_cpp");
            let run = |command: &mut Command| {
                succeeds(command.arg(&chat).arg(workshop.path().join("state")));
            };
            run(&mut Command::new(&program));
            if standard == "-std=c++17"
                && let Some(mut command) = valgrind(&program, &["--errors-for-leak-kinds=definite,indirect"])
            {
                run(&mut command);
            }
        }
    }
}

/// The functions that the header declares.
fn functions(header: &str) -> BTreeSet<&str> {
    let (_, functions) = header.split_once("extern \"C\" {").expect("the header's functions");
    functions
        .lines()
        .filter(|line| !line.starts_with(['/', ' ', '#']))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .collect()
}

/// The library exports exactly what the header declares: no C symbol of any crate in it.
#[test]
fn the_library_exports_the_header() {
    let header = fs::read_to_string(repository().join("include/herald.h")).expect("the header");
    let declared = functions(&header);
    let (symbols, _) = succeeds(Command::new("nm").args(["-D", "--defined-only"]).arg(c_library()));
    let exported: BTreeSet<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(declared, exported);
}
