//! The hub: names of models, and what its API says of a repository.

use herald_hub::{Source, Wanted, choose, listed_files, offers};

use super::{DEFAULT, Target, parts};

pub(super) const TARGET: Target = Target { name: "hub", run, seeds, words: WORDS, ..DEFAULT };

const WORDS: &[&str] = &[
    "https://",
    "hf.co/",
    "hf:",
    "/blob/main/",
    "/resolve/",
    "%2F",
    "..",
    "-00001-of-00002",
    ".gguf",
    ":",
    "UD-",
    "Q4_K_M",
    "IQ3_XXS",
    "mmproj",
    "\"rfilename\":",
    "\"siblings\":[",
    "\"lfs\":{",
    "\"size\":",
];

fn seeds() -> Vec<Vec<u8>> {
    let answer = r#"{"sha": "1111", "gated": false, "cardData": {"license": "mit"}, "tags": [], "siblings": [
        {"rfilename": "Q8_0/m-Q8_0-00001-of-00002.gguf", "size": 5, "lfs": {"sha256": "00", "size": 5}},
        {"rfilename": "Q8_0/m-Q8_0-00002-of-00002.gguf", "size": 5}, {"rfilename": "m-UD-Q4_K_XL.gguf", "size": 9}]}"#;
    let names = [
        "u/r:Q4_K_M",
        "qwen3:0.6b-q8_0",
        "https://hf.co/u/r/blob/main/a%20b.gguf?x",
        "https://x.net/m.gguf",
        "./m.gguf",
    ];
    names.iter().map(|name| format!("{name}\n--\n{answer}").into_bytes()).collect()
}

/// A name, and a repository that it may mean something in.
fn run(input: &[u8]) -> String {
    let parts = parts(input);
    let (name, answer) = (parts.first().map_or("", String::as_str), parts.get(1).map_or("", String::as_str));
    let source = Source::parse(name);
    let files = match listed_files(answer.as_bytes()) {
        Ok(files) => files,
        Err(error) => return error.to_string(),
    };
    // Whatever they are called, none leaves the folder that it is put in.
    let leaves =
        |path: &str| path.split('/').any(|part| matches!(part, "" | "." | "..") || part.contains('\\'));
    assert!(!files.iter().any(|file| leaves(&file.path)), "{files:?}");
    let wanted = match source {
        Ok(Source::Hub(model)) => model.wanted,
        _ => Wanted::Any,
    };
    match choose("u/r", &offers(&files), &wanted, 1 << 30) {
        Ok(offer) => format!("{} of {} files", offer.path(), offer.files.len()),
        Err(error) => error.to_string(),
    }
}
