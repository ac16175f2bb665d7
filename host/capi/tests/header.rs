//! `include/herald.h` is generated from the library's C interface, and compiles as C11 and C++17, alone and together with
//! `include/herald_plugin.h`.
//!
//! `HERALD_BLESS=1 cargo test -p herald-capi --test header` writes it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PREAMBLE: &str = "\
/*
 * Embed HERALD: load a language model, run it on the CPU, generate text. Link with -lherald (pkg-config herald).
 *
 *     static int32_t show(void *user_data, const HeraldPiece *piece) {
 *         (void)user_data;
 *         fwrite(piece->text, 1, piece->text_len, stdout);
 *         return HERALD_GO_ON;
 *     }
 *
 *     HeraldError error = {.struct_size = sizeof error};
 *     HeraldEngineOptions options = {.struct_size = sizeof options, .model_path = \"model.gguf\"};
 *     HeraldEngine *engine = NULL;
 *     HeraldEngineSequence *sequence = NULL;
 *     HeraldGenerateOptions how = {.struct_size = sizeof how, .on_piece = show, .max_tokens = 100};
 *
 *     if (herald_engine_load(&options, &engine, &error) != HERALD_STATUS_OK ||
 *         herald_sequence_new(engine, &sequence, &error) != HERALD_STATUS_OK ||
 *         herald_generate(engine, sequence, \"Hello\", 5, HERALD_TEXT_PROMPT, &how, NULL, &error) != HERALD_STATUS_OK)
 *         fprintf(stderr, \"%s\\n\", error.message);
 *     herald_sequence_free(sequence);
 *     herald_engine_free(engine);
 *
 * The rules of this interface:
 *  - An engine is a loaded model; a sequence is one context of it. herald_generate does everything from prompt to text;
 *    herald_tokenize, herald_prefill, herald_decode and herald_detokenize are its steps, for your own sampler. A scheduler
 *    serves many requests at once: herald_submit, herald_request_next.
 *  - Every struct begins with struct_size: set it to sizeof. Set all other fields to zero, which is their default, then
 *    those that you need. Fields are only ever appended, so what you build today runs with every later 1.x library.
 *  - A call that can fail returns a HERALD_STATUS_* and fills your HeraldError with one sentence that says what failed,
 *    where, and what was expected. error may be null. A status that you don't know is a failure.
 *  - herald_X_free frees what herald_X_new, _load or _open created. Buffers are yours; the library keeps none of your
 *    pointers after a call. Texts are UTF-8; a text with a length needs no NUL.
 *  - A call with a buffer that is too small returns HERALD_STATUS_BUFFER_TOO_SMALL and the needed length: call it with
 *    capacity 0 first.
 *  - Each function says which threads may call it. In short: any number of threads may use an engine, a scheduler, contexts
 *    and documents at once, and one call at a time may use a sequence or a request. herald_*_cancel may come at any time.
 *  - Long contexts are lossy unless you say otherwise: of each sequence, only the latest 3,072 tokens (and the first page) keep
 *    their keys and values at 16 bits. Older ones are compressed to 4 bits, each pass attends to the best 64 of their pages,
 *    and from 32,768 of them on the oldest go to a file. HERALD_LOAD_EXACT turns all of this off; the other fields of
 *    HeraldEngineOptions set it.
 *  - Nothing is computed twice: a prompt of an empty sequence that begins as an earlier prompt and its answer did takes over what
 *    these computed, to the same result. HeraldGenerated.n_cached_tokens says how many tokens that saved; cache_key keeps
 *    users apart, cache_dir keeps it all for the next process, HERALD_LOAD_NO_PREFIX_CACHE turns it off, and
 *    herald_engine_forget_prefixes empties its RAM.
 *  - After fork() a child has none of the engine's threads. There, calls with handles that were made before return UNSUPPORTED at
 *    once, and freeing such handles does nothing, safely. A child may load its own engine, if no call was running when it
 *    was forked. exec() is not affected.
 *  - Where memory for a model, a context, a batch or a buffer of their size can't be had, a call returns OUT_OF_MEMORY and nothing
 *    is lost. What is small beside these (a vocabulary, texts, lists) ends the process where even that can't be had, as in any
 *    Rust program; on Linux the system is more likely to end it itself, so set memory_budget well below what there is.
 *  - Pointers must be valid for as long as the call runs, and handles must not be freed: the library can't check that.
 *    No exception, panic or longjmp may cross it, in either direction.
 *
 * docs/EMBEDDING.md goes through all of it, herald.hpp wraps it for C++, and examples/c and examples/cpp are programs to start
 * from. Generated from host/capi/src; do not edit.
 */";

/// Prefixes of the plugin ABI's constants that are part of this header too.
const SHARED: [&str; 4] = ["HERALD_STATUS_", "HERALD_LOG_", "HERALD_TEXT_", "HERALD_NO_TOKEN"];

/// The files of `host/capi/src` with declarations, in the header's order.
const TOPICS: [&str; 13] = [
    "status",
    "engine",
    "sequence",
    "text",
    "chat",
    "generate",
    "run",
    "embed",
    "scheduler",
    "contexts",
    "documents",
    "metrics",
    "log",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("host/capi is in the repository")
        .to_owned()
}

/// The macros of the version, which is that of the crate.
fn version() -> String {
    let [major, minor, patch]: [u32; 3] =
        [env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"), env!("CARGO_PKG_VERSION_PATCH")]
            .map(|part| part.parse().expect("a number"));
    format!(
        "\n// The version of this header; herald_version() is the library's.\n\
         #define HERALD_VERSION \"{version}\"\n\
         #define HERALD_VERSION_MAJOR {major}\n\
         #define HERALD_VERSION_MINOR {minor}\n\
         #define HERALD_VERSION_PATCH {patch}\n\
         // One number that grows with the version: MAJOR * 1000000 + MINOR * 1000 + PATCH.\n\
         #define HERALD_VERSION_NUMBER {number}",
        version = env!("CARGO_PKG_VERSION"),
        number = major * 1_000_000 + minor * 1000 + patch,
    )
}

fn generated() -> String {
    let abi = ["plugin.rs", "tokenizer.rs"].map(|name| repository().join("herald-api/src/abi").join(name));
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(PREAMBLE.to_owned()),
        include_guard: Some("HERALD_H".to_owned()),
        cpp_compat: true,
        documentation_style: cbindgen::DocumentationStyle::C99,
        style: cbindgen::Style::Both,
        usize_is_size_t: true,
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        after_includes: Some(version()),
        ..cbindgen::Config::default()
    };
    for source in &abi {
        let text = fs::read_to_string(source).expect("the ABI's sources are there");
        let constants = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
        let others = constants.filter(|name| !SHARED.iter().any(|shared| name.starts_with(shared)));
        config.export.exclude.extend(others.map(str::to_owned));
    }
    let sources = TOPICS.map(|topic| repository().join(format!("host/capi/src/{topic}.rs")));
    let builder = cbindgen::Builder::new().with_config(config);
    let bindings =
        abi.iter().chain(&sources).fold(builder, |builder, source| builder.with_src(source)).generate();
    let mut text = Vec::new();
    bindings.expect("cbindgen reads the sources").write(&mut text);
    guard_error(&String::from_utf8(text).expect("cbindgen writes UTF-8"))
}

/// Both headers define `HeraldError`, so each one guards its definition.
fn guard_error(header: &str) -> String {
    let begin = header.find("// The caller's own buffer").expect("HeraldError's comment");
    let end = "} HeraldError;\n";
    let end = header.find(end).expect("HeraldError's end") + end.len();
    let (before, definition, after) = (&header[..begin], &header[begin..end], &header[end..]);
    format!("{before}#ifndef HERALD_ERROR_DEFINED\n#define HERALD_ERROR_DEFINED\n{definition}#endif\n{after}")
}

#[test]
fn the_header_is_up_to_date() {
    let path = repository().join("include/herald.h");
    let fresh = generated();
    if std::env::var_os("HERALD_BLESS").is_some() {
        // As a whole, since other tests read it meanwhile.
        let new = path.with_extension("h.new");
        fs::write(&new, &fresh).and_then(|()| fs::rename(&new, &path)).expect("the header can be written");
    }
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == fresh,
        "{} is stale: run HERALD_BLESS=1 cargo test -p herald-capi --test header",
        path.display()
    );
}

fn compiles(compiler: &str, standard: &str, extension: &str, source: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join(format!("check.{extension}"));
    fs::write(&file, source).expect("the source can be written");
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I"])
        .arg(repository().join("include"))
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("{compiler} can't be run: {error}"));
    assert!(output.status.success(), "{standard}:\n{source}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_header_compiles_as_c11_and_cpp17_alone_and_with_the_plugin_header() {
    let main = "int main(void) { return sizeof(HeraldError) == 0 || herald_version() == 0; }\n";
    for headers in [&["herald.h"][..], &["herald.h", "herald_plugin.h"], &["herald_plugin.h", "herald.h"]] {
        let includes: String = headers.iter().map(|header| format!("#include <{header}>\n")).collect();
        compiles("cc", "-std=c11", "c", &(includes.clone() + main));
        compiles("c++", "-std=c++17", "cpp", &(includes + main));
    }
}

/// The program in the header's first comment compiles.
#[test]
fn the_preamble_is_a_program() {
    let code: Vec<&str> = PREAMBLE.lines().filter_map(|line| line.strip_prefix(" *     ")).collect();
    let (callback, body) =
        code.split_at(code.iter().position(|line| *line == "}").expect("the callback's end") + 1);
    let source = format!(
        "#include <stdio.h>\n#include <herald.h>\n{}\nint main(void) {{\n{}\nreturn 0;\n}}\n",
        callback.join("\n"),
        body.join("\n")
    );
    compiles("cc", "-std=c11", "c", &source);
}

/// The pieces of code in the guide, each language's put together, are a program.
#[test]
fn the_guide_is_a_program() {
    let guide = fs::read_to_string(repository().join("docs/EMBEDDING.md")).expect("the guide");
    let program = |language: &str, start: &str| {
        let fence = format!("```{language}\n");
        let blocks = guide.split(&fence).skip(1).filter_map(|block| block.split("```").next());
        let (mut functions, mut body) = (String::new(), String::new());
        let mut in_function = false;
        for line in blocks.flat_map(str::lines) {
            in_function |= line.starts_with("static ");
            let part = if in_function { &mut functions } else { &mut body };
            part.push_str(line);
            part.push('\n');
            in_function &= line != "}";
        }
        assert!(!body.is_empty(), "the guide has no {language}");
        format!("{start}{functions}int main(void) {{\n{body}return 0;\n}}\n")
    };
    let own = "#include <stdio.h>\n#include <herald.h>\nstatic int try_again_later(void) { return 1; }\n\
               static void send_to_client(const char *text, size_t len) { fwrite(text, 1, len, stdout); }\n";
    compiles("cc", "-std=c11", "c", &program("c", own));
    let includes =
        ["iostream", "string_view", "vector", "herald.hpp"].map(|name| format!("#include <{name}>\n"));
    compiles("c++", "-std=c++17", "cpp", &program("cpp", &includes.concat()));
}
