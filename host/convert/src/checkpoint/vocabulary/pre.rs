//! The name of a pre-tokenizer, by what it does: its expressions as `tokenizer.json` has them.

use serde_json::Value;

use super::super::error::Result;
use super::super::families::Model;
use super::Style;
use super::files::Files;

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const KANA: &str = "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+";

/// The name for these expressions: of a word that is a token as a whole, merges are asked, or aren't (`ignore_merges`).
struct Known {
    steps: &'static [&'static str],
    merged: &'static str,
    whole: &'static str,
}

const fn known(steps: &'static [&'static str], merged: &'static str, whole: &'static str) -> Known {
    Known { steps, merged, whole }
}

const KNOWN: &[Known] = &[
    known(&[GPT2], "gpt-2", ""),
    known(&[r"\p{N}", GPT2], "smollm", ""),
    known(&[LLAMA3], "dbrx", "llama-bpe"),
    known(&[QWEN2], "qwen2", ""),
    known(&[QWEN35], "qwen35", ""),
    known(&[O200K], "gpt-4o", "granite-embed-multi-97m"),
    known(&[TEKKEN], "", "tekken"),
    known(&[r"\p{N}{1,3}", KANA, DEEPSEEK3], "deepseek-v3", ""),
];

/// The name that GGUF has for the pre-tokenizer.
pub(super) fn name(files: &Files, model: &Model) -> Result<&'static str> {
    let tokenizer = files.tokenizer.as_ref();
    if let Some(normalizer) = tokenizer.and_then(|tokenizer| tokenizer.get("normalizer"))
        && !is_harmless(normalizer)
    {
        let shown = super::super::json::shown(normalizer);
        return Err(files.bad(format_args!(
            "the normalizer is {shown}, where none or NFC was expected (--pre NAME goes without)"
        )));
    }
    let mut steps = Vec::new();
    if let Some(pre) = tokenizer.and_then(|tokenizer| tokenizer.get("pre_tokenizer")) {
        flatten(pre, &mut steps).map_err(|step| unknown(files, &[step]))?;
    }
    let whole = tokenizer
        .and_then(|tokenizer| tokenizer.get("model")?.get("ignore_merges")?.as_bool())
        .unwrap_or(false);
    let found =
        KNOWN.iter().find(|known| known.steps == steps.iter().map(String::as_str).collect::<Vec<_>>());
    // Names that say the same, and that other engines may know such a model by.
    let name = match found.map(|known| if whole { known.whole } else { known.merged }) {
        Some("llama-bpe" | "dbrx") if model.style == Style::Glm4 => "glm4",
        Some("llama-bpe") if model.called.starts_with("Lfm2") => "lfm2",
        Some("llama-bpe") if model.called.starts_with("FalconH1") => "falcon-h1",
        Some("smollm") if model.called.starts_with("Granite") => "refact",
        // Words that are tokens were made by merges in nearly all vocabularies, so that asking makes no difference.
        Some("") => found.map_or("", |known| if whole { known.merged } else { known.whole }),
        Some(name) => name,
        None => return Err(unknown(files, &steps)),
    };
    Ok(name)
}

fn unknown(files: &Files, steps: &[String]) -> super::super::error::CheckpointError {
    let shown: Vec<String> = steps.iter().map(|step| step.chars().take(80).collect()).collect();
    files.bad(format_args!(
        "its pre-tokenizer ({}) is none that is known by what it does; --pre NAME says which of GGUF's names it is",
        shown.join("; ")
    ))
}

/// Normalizers that engines do without: none at all, and the composition of accents, which most texts have.
fn is_harmless(normalizer: &Value) -> bool {
    match normalizer.get("type").and_then(Value::as_str) {
        Some("Sequence") => normalizer
            .get("normalizers")
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().all(is_harmless)),
        kind => normalizer.is_null() || kind == Some("NFC"),
    }
}

/// The expressions of a pre-tokenizer, or the step that has none.
fn flatten(pre: &Value, steps: &mut Vec<String>) -> std::result::Result<(), String> {
    let flag = |key: &str| pre.get(key).and_then(Value::as_bool);
    match pre.get("type").and_then(Value::as_str) {
        Some("Sequence") => {
            let all = pre.get("pretokenizers").and_then(Value::as_array);
            all.into_iter().flatten().try_for_each(|pre| flatten(pre, steps))
        }
        Some("ByteLevel") if flag("add_prefix_space") != Some(true) => {
            if flag("use_regex") != Some(false) {
                steps.push(GPT2.to_owned());
            }
            Ok(())
        }
        Some("Digits") if flag("individual_digits") == Some(true) => {
            steps.push(r"\p{N}".to_owned());
            Ok(())
        }
        Some("Split") if pre.get("behavior").and_then(Value::as_str) != Some("Removed") => {
            match pre.get("pattern").and_then(|pattern| pattern.get("Regex")?.as_str()) {
                Some(expression) => {
                    steps.push(expression.to_owned());
                    Ok(())
                }
                None => Err(super::super::json::shown(pre)),
            }
        }
        None if pre.is_null() => Ok(()),
        _ => Err(super::super::json::shown(pre)),
    }
}
