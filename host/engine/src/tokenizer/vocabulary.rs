//! What a model file says of its vocabulary.

use herald_api::{STRIP_LEFT, STRIP_RIGHT, TokenType, Vocabulary};

use super::ends::Ends;
use crate::error::Result;
use crate::gguf::{Gguf, GgufError, Metadata, Value};

/// A model file's vocabulary, as views of the file where it can be.
pub(crate) struct VocabularyOf<'g> {
    pub(super) model: &'g str,
    pub(super) pre: &'g str,
    pub(super) tokens: Vec<&'g [u8]>,
    pub(super) types: Vec<u32>,
    scores: Vec<f32>,
    merges: Vec<&'g [u8]>,
    unknown: Option<u32>,
    add_space_prefix: bool,
    remove_extra_whitespace: bool,
    lowercase: bool,
    strip_accents: bool,
    charsmap: Vec<u8>,
    strips: Vec<u8>,
    pub(super) ends: Ends,
}

impl VocabularyOf<'_> {
    pub(crate) fn view(&self) -> Vocabulary<'_> {
        Vocabulary {
            model: self.model,
            pre: self.pre,
            tokens: self.tokens.clone(),
            types: &self.types,
            scores: &self.scores,
            merges: self.merges.clone(),
            unknown: self.unknown,
            add_space_prefix: self.add_space_prefix,
            remove_extra_whitespace: self.remove_extra_whitespace,
            lowercase: self.lowercase,
            strip_accents: self.strip_accents,
            charsmap: &self.charsmap,
            strips: &self.strips,
        }
    }

    /// The id of a token by its spelling.
    pub(super) fn find(&self, token: &str) -> Option<u32> {
        find(&self.tokens, token)
    }

    /// The most bytes of text that a token stands for; `None` where a text may have more than its tokens have. In the file's
    /// spelling a byte takes one byte or more.
    pub(super) fn longest(&self) -> Option<usize> {
        let keeps_all = matches!(self.model, "gpt2" | "gemma4" | "llama")
            && self.strips.iter().all(|strip| *strip == 0)
            && !self.remove_extra_whitespace;
        // A character that isn't in the vocabulary may become one unknown token.
        let longest = self.tokens.iter().map(|token| token.len()).max().unwrap_or(0).max(char::MAX_LEN_UTF8);
        keeps_all.then_some(longest)
    }

    /// The type of a token.
    pub(super) fn kind(&self, id: u32) -> TokenType {
        self.types.get(id as usize).map_or(TokenType::Normal, |code| TokenType::from_code(*code))
    }
}

fn find(tokens: &[&[u8]], token: &str) -> Option<u32> {
    tokens.iter().position(|other| *other == token.as_bytes()).map(|id| id as u32)
}

/// Reads a model file's vocabulary.
pub(crate) fn vocabulary(gguf: &Gguf) -> Result<VocabularyOf<'_>> {
    let metadata = gguf.metadata();
    let key = "tokenizer.ggml.tokens";
    let tokens = strings(metadata, key)?.ok_or_else(|| metadata.fault(key, "the vocabulary"))?;
    let model: &str = metadata.require("tokenizer.ggml.model")?;
    let mut types = metadata.get::<Vec<u32>>("tokenizer.ggml.token_type")?.unwrap_or_default();
    let ends = Ends::find(&tokens, &mut types);
    // WPM files say nothing where the model is BERT's own kind: all in lower case, without accents.
    let lowercase = metadata.get("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let strip_accents = metadata.get("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
    Ok(VocabularyOf {
        model,
        pre: metadata.get("tokenizer.ggml.pre")?.unwrap_or(""),
        scores: metadata.get::<Vec<f32>>("tokenizer.ggml.scores")?.unwrap_or_default(),
        merges: strings(metadata, "tokenizer.ggml.merges")?.unwrap_or_default(),
        unknown: match metadata.get("tokenizer.ggml.unknown_token_id")? {
            None => usual_unknown(model, &tokens, &types),
            given => given,
        },
        add_space_prefix: metadata.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(model != "t5"),
        remove_extra_whitespace: metadata.get("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
        lowercase: lowercase && model == "bert",
        strip_accents: strip_accents && model == "bert",
        charsmap: if model == "t5" { charsmap(metadata)? } else { Vec::new() },
        strips: strips(metadata, model, &tokens, &types)?,
        tokens,
        types,
        ends,
    })
}

fn strings<'g>(metadata: &'g Metadata, key: &str) -> Result<Option<Vec<&'g [u8]>>, GgufError> {
    let Some(value) = metadata.value(key) else { return Ok(None) };
    let Value::Array(array) = value else { return Err(metadata.fault(key, "an array of strings")) };
    let bytes = |value| match value {
        Value::String(bytes) => Some(bytes),
        _ => None,
    };
    let all: Option<Vec<&[u8]>> = array.elements().map(bytes).collect();
    all.map(Some).ok_or_else(|| metadata.fault(key, "an array of strings"))
}

/// SentencePiece's rules of normalising: an array of bytes, signed or not.
fn charsmap(metadata: &Metadata) -> Result<Vec<u8>, GgufError> {
    let key = "tokenizer.ggml.precompiled_charsmap";
    let Some(value) = metadata.value(key) else { return Ok(Vec::new()) };
    let Value::Array(array) = value else { return Err(metadata.fault(key, "an array of bytes")) };
    let byte = |value| match value {
        Value::U8(byte) => Some(byte),
        Value::I8(byte) => Some(byte.cast_unsigned()),
        _ => None,
    };
    let all: Option<Vec<u8>> = array.elements().map(byte).collect();
    all.ok_or_else(|| metadata.fault(key, "an array of bytes"))
}

/// The unknown token where the file names none, as llama.cpp takes it: by its place, or in WPM by its name.
fn usual_unknown(model: &str, tokens: &[&[u8]], types: &[u32]) -> Option<u32> {
    let usual = match model {
        "llama" => 0,
        "t5" => 2,
        "bert" => return find(tokens, "[UNK]"),
        _ => return None,
    };
    types.get(usual).filter(|code| **code == TokenType::Unknown as u32).map(|_| usual as u32)
}

/// Which tokens take the white space beside them with them. No key says so: as in llama.cpp it is known of some families
/// from what their own tokenizer files say.
fn strips(metadata: &Metadata, model: &str, tokens: &[&[u8]], types: &[u32]) -> Result<Vec<u8>, GgufError> {
    let architecture: &str = metadata.get("general.architecture")?.unwrap_or("");
    let name = metadata.get::<&str>("general.name")?.unwrap_or("").to_lowercase();
    let pre: &str = metadata.get("tokenizer.ggml.pre")?.unwrap_or("");
    let mut strips = Vec::new();
    let mut set = |id: usize, strip: u8| {
        strips.resize(tokens.len(), 0);
        strips[id] = strip;
    };
    // Phi-3 and 3.5: what follows a marker begins with its first visible character.
    let phi3 = ["phi3", "phimoe"].contains(&architecture) || name.contains("phi-3") || name.contains("phi3");
    if phi3 && model == "llama" {
        for (id, token) in tokens.iter().enumerate() {
            let kind = types.get(id).map_or(TokenType::Normal, |code| TokenType::from_code(*code));
            let special = matches!(kind, TokenType::Control | TokenType::UserDefined | TokenType::Unknown);
            let alone: [&[u8]; 3] = [b"<unk>", b"<s>", b"<|endoftext|>"];
            if special && !alone.contains(token) {
                set(id, STRIP_RIGHT);
            }
        }
    }
    // Masks of the RoBERTa kind stand for a word with the space before it.
    let roberta = ["roberta-bpe", "jina-v1-en", "jina-v2-code", "jina-v2-de", "jina-v2-es"].contains(&pre);
    let mask = match architecture {
        "modern-bert" => find(tokens, "[MASK]"),
        _ if model == "t5" || roberta => find(tokens, "<mask>"),
        _ => None,
    };
    if let Some(mask) = mask {
        set(mask as usize, STRIP_LEFT);
    }
    Ok(strips)
}
