//! The files of the plugins that `host plugin new` writes.

use std::path::Path;

use super::new::{Kind, Language};

const HEADER: &str = include_str!("../../../../include/herald_plugin.h");
const MAKEFILE: &str = include_str!("templates/Makefile.txt");
const MANIFEST: &str = include_str!("templates/Cargo.toml.txt");

/// What the manifest says where nobody knows where the crate is.
const API_UNKNOWN: &str = "\
# Say where the crate is: in an installation of HERALD, in a checkout, or in its repository (git = \"...\", tag = \"...\").
herald-api = { path = \"../herald-api\" }";

/// A plugin to be written.
pub(super) struct Template<'n> {
    pub(super) name: &'n str,
    pub(super) language: Language,
    pub(super) kind: Kind,
}

impl Template<'_> {
    /// The part of the library's file name that is the plugin's own. In lower case, as names of Rust crates are.
    fn file(&self) -> String {
        self.name.to_ascii_lowercase().replace('-', "_")
    }

    /// The name of the library's file.
    pub(super) fn library(&self) -> String {
        format!("{}herald_{}{}", std::env::consts::DLL_PREFIX, self.file(), std::env::consts::DLL_SUFFIX)
    }

    /// Where the library lies once it is built, from the plugin's folder on.
    pub(super) fn build_folder(&self) -> &'static str {
        if self.language == Language::Rust { "target/release" } else { "" }
    }

    pub(super) fn build_command(&self) -> &'static str {
        if self.language == Language::Rust { "cargo build --release" } else { "make" }
    }

    /// Its files: where each goes in the plugin's folder, and what is in it. `api`: the folder of the crate herald-api.
    pub(super) fn files(&self, api: Option<&Path>) -> Vec<(&'static str, String)> {
        let fill = |text: &str| text.replace("@NAME@", self.name).replace("@FILE@", &self.file());
        let source = fill(self.source());
        let made = |name: &'static str, words: [&str; 5]| {
            let [cc, flags, compiler, standard, libraries] = words;
            let makefile = fill(MAKEFILE)
                .replace("@CC@", cc)
                .replace("@FLAGS@", flags)
                .replace("@COMPILER@", compiler)
                .replace("@STANDARD@", standard)
                .replace("@LIBRARIES@", libraries)
                .replace("@SOURCE@", name)
                .replace("@LIBRARY@", &self.library());
            vec![
                (name, source.clone()),
                ("Makefile", makefile),
                ("herald_plugin.h", HEADER.to_owned()),
                (".gitignore", format!("*{}\n", std::env::consts::DLL_SUFFIX)),
            ]
        };
        match self.language {
            Language::C => made("plugin.c", ["CC", "CFLAGS", "cc", "c11", "-lm -lpthread"]),
            Language::Cpp => made("plugin.cpp", ["CXX", "CXXFLAGS", "c++", "c++17", "-lpthread"]),
            Language::Rust => {
                let dependency = api.map_or_else(
                    || API_UNKNOWN.to_owned(),
                    |path| {
                        let path = toml::Value::String(path.display().to_string());
                        format!("herald-api = {{ path = {path} }}")
                    },
                );
                vec![
                    ("Cargo.toml", self.manifest(&dependency)),
                    ("src/lib.rs", source),
                    (".gitignore", "/target\n".to_owned()),
                ]
            }
        }
    }

    fn manifest(&self, api: &str) -> String {
        let other = if self.kind == Kind::Layers { "bytemuck = \"1\"\n" } else { "" };
        let text = MANIFEST.replace("@NAME@", self.name).replace("@FILE@", &self.file());
        text.replace("@API@", api).replace("@OTHERS@\n", other)
    }

    fn source(&self) -> &'static str {
        match (self.kind, self.language) {
            (Kind::Layers, Language::C) => include_str!("templates/layers.c"),
            (Kind::Layers, Language::Cpp) => include_str!("templates/layers.cpp"),
            (Kind::Layers, Language::Rust) => include_str!("templates/layers.rs"),
            (Kind::Tokenizer, Language::C) => include_str!("templates/tokenizer.c"),
            (Kind::Tokenizer, Language::Cpp) => include_str!("templates/tokenizer.cpp"),
            (Kind::Tokenizer, Language::Rust) => include_str!("templates/tokenizer.rs"),
            (Kind::Tier, Language::C) => include_str!("templates/tier.c"),
            (Kind::Tier, Language::Cpp) => include_str!("templates/tier.cpp"),
            (Kind::Tier, Language::Rust) => include_str!("templates/tier.rs"),
        }
    }
}

/// A word as a shell reads it back.
pub(super) fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
