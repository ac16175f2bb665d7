//! Vocabularies: from the files of a checkpoint's tokenizer to the keys `tokenizer.*`.

mod bytes;
mod characters;
mod files;
mod pre;
mod sentencepiece;
mod special;

use std::path::Path;

use serde_json::Value;

use super::config::Config;
use super::error::{Result, bad_file};
use super::families::Model;
use super::meta::{Item, Meta};
use bytes::Tokens;
use files::Files;
use special::Special;

/// What families have of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Nothing.
    Usual,
    /// Llama: some have a space before texts, or not.
    Llama,
    /// Models that embed say how they pool.
    Pooled,
    /// No space before texts.
    NoSpaceBefore,
    /// The same, and a token that ends turns.
    Gemma,
    /// Added tokens are those of `tokenizer.json`.
    Phi3,
    /// Some tokens that steer are called otherwise.
    Glm4,
    /// Pieces of words.
    WordPieces,
}

/// Kinds of tokens in GGUF.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// What Hugging Face has for a space at the beginning of a word.
const SPACE: &str = "\u{2581}";

/// The metadata of a checkpoint's vocabulary. `pre` is the pre-tokenizer's name, where the user gives it.
pub(super) fn vocabulary(folder: &Path, config: &Config, model: &Model, pre: Option<&str>) -> Result<Meta> {
    let files = Files::open(folder)?;
    let mut meta = Meta::default();
    if model.style == Style::Llama
        && let Some(Value::Bool(space)) = files.settings.get("add_prefix_space")
    {
        meta.set("tokenizer.ggml.add_space_prefix", *space);
    }
    let pieces = folder.join("tokenizer.model");
    let may_be_pieces = model.style != Style::Glm4 && model.style != Style::WordPieces;
    let mut special = if may_be_pieces && pieces.is_file() {
        sentencepiece::write(&mut meta, &pieces, &files, model)?;
        Special::of(&files, config, Some(model.tokens))?
    } else {
        of_tokenizer_json(&mut meta, &files, config, model, pre)?
    };
    own(&mut special, &files, model)?;
    special.write(&mut meta);
    own_after(&mut meta, model);
    if model.style == Style::Pooled || model.style == Style::WordPieces {
        pooling(&mut meta, folder, model)?;
    }
    Ok(meta)
}

fn of_tokenizer_json(
    meta: &mut Meta,
    files: &Files,
    config: &Config,
    model: &Model,
    pre: Option<&str>,
) -> Result<Special> {
    let Some(tokenizer) = &files.tokenizer else {
        return Err(bad_file(
            &files.folder,
            "there is no tokenizer.json and no tokenizer.model, one of which was expected",
        ));
    };
    let of_model = |key: &str| tokenizer.get("model").and_then(|model| model.get(key));
    let kind = of_model("type").and_then(Value::as_str).unwrap_or("BPE");
    let falls_back = of_model("byte_fallback").and_then(Value::as_bool).unwrap_or(false);
    let expected = if model.style == Style::WordPieces { "WordPiece" } else { "BPE" };
    if kind != expected {
        return Err(files.bad(format_args!("its model is of type {kind:?}, where {expected:?} was expected")));
    }
    if kind == "WordPiece" {
        let tokens = Tokens::of(files, model.tokens)?;
        meta.set("tokenizer.ggml.token_type_count", config.count(&["type_vocab_size"])?.unwrap_or(1));
        meta.set("tokenizer.ggml.model", "bert");
        meta.set("tokenizer.ggml.pre", pre.unwrap_or("jina-v2-en"));
        tokens.with_phantom_spaces().write(meta);
        return Special::of(files, config, Some(model.tokens));
    }
    if falls_back {
        characters::write(meta, files, model)?;
        return Special::of(files, config, Some(model.tokens));
    }
    let tokens = Tokens::of(files, model.tokens)?;
    meta.set("tokenizer.ggml.model", "gpt2");
    let name = match pre {
        Some(name) => name.to_owned(),
        None => pre::name(files, model)?.to_owned(),
    };
    meta.set("tokenizer.ggml.pre", name.as_str());
    tokens.write(meta);
    let merges = bytes::merges(files)?;
    meta.set(
        "tokenizer.ggml.merges",
        Item::Texts(merges.into_iter().map(|(left, right)| format!("{left} {right}")).collect()),
    );
    Special::of(files, config, None)
}

/// Tokens that steer and that some families call otherwise.
fn own(special: &mut Special, files: &Files, model: &Model) -> Result<()> {
    match model.style {
        Style::Glm4 => {
            for (kind, token) in [
                ("eos", "<|endoftext|>"),
                ("eot", "<|user|>"),
                ("unk", "<|endoftext|>"),
                ("bos", "<|endoftext|>"),
            ] {
                let Some(id) = files.added_id(token) else {
                    return Err(files.bad(format_args!("it has no token {token:?}, which was expected")));
                };
                special.set(kind, id);
            }
        }
        Style::Gemma => special.set("eot", 107),
        Style::Llama if model.tokens == CODE_LLAMA_TOKENS => special.set("eot", 32010),
        _ => {}
    }
    Ok(())
}

/// How many tokens CodeLlama has, whose fillings of a middle end otherwise; and small Granites and SmolLM2, without a token before texts.
const CODE_LLAMA_TOKENS: usize = 32016;
const NO_BOS_TOKENS: usize = 49152;

fn own_after(meta: &mut Meta, model: &Model) {
    if matches!(model.style, Style::Gemma | Style::NoSpaceBefore) {
        meta.set("tokenizer.ggml.add_space_prefix", false);
    }
    if model.style == Style::Llama && model.tokens == NO_BOS_TOKENS {
        meta.set("tokenizer.ggml.add_bos_token", false);
    }
}

/// How sentence-transformers pools a model's hidden states: `ARCH.pooling_type`.
fn pooling(meta: &mut Meta, folder: &Path, model: &Model) -> Result<()> {
    const NAMES: [(&str, &str, u32); 3] = [
        ("pooling_mode_mean_tokens", "mean", 1),
        ("pooling_mode_cls_token", "cls", 2),
        ("pooling_mode_lasttoken", "lasttoken", 3),
    ];
    let path = folder.join("modules.json");
    let Some(modules) = super::json::value(&path)? else { return Ok(()) };
    let modules = modules.as_array().map(Vec::as_slice).unwrap_or_default();
    let kind = |module: &&Value| {
        module.get("type").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("Pooling"))
    };
    let Some(module) = modules.iter().find(kind) else { return Ok(()) };
    let part = module.get("path").and_then(Value::as_str).unwrap_or_default();
    let plain =
        |part: &str| !part.is_empty() && !part.contains(['/', '\\', '\0']) && part != "." && part != "..";
    if !plain(part) {
        return Err(bad_file(
            &path,
            format!("the pooling's path is {part:?}, where a folder's name was expected"),
        ));
    }
    let path = folder.join(part).join("config.json");
    let Some(settings) = super::json::object(&path)? else {
        return Err(bad_file(&path, "there is no such file, where the pooling's settings were expected"));
    };
    let is_on = |flag: &str| settings.get(flag).and_then(Value::as_bool).unwrap_or(false);
    let mode = settings.get("pooling_mode").and_then(Value::as_str);
    let found =
        NAMES.iter().find(|(flag, ..)| is_on(flag)).or(NAMES.iter().find(|(_, name, _)| mode == Some(name)));
    let Some((.., number)) = found else {
        return Err(bad_file(
            &path,
            "it pools by none of mean, cls and lasttoken, one of which was expected",
        ));
    };
    meta.set(&format!("{}.pooling_type", model.meta.architecture()), *number);
    Ok(())
}
