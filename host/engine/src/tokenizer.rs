//! `AscTokenizer`: a model's tokenizer, made by a plugin, with what the model file says of its special tokens.

use std::collections::HashSet;

use herald_api::import::TokenizerHandle;
use herald_api::{DecodeOptions, EncodeOptions, TokenType, Tokenizer, Vocabulary};

use crate::error::{Error, Result};
use crate::gguf::{Gguf, GgufError, Value};

/// A model file's vocabulary, as views of the file where it can be.
pub(crate) struct VocabularyOf<'g> {
    model: &'g str,
    pre: &'g str,
    tokens: Vec<&'g [u8]>,
    types: Vec<u32>,
    scores: Vec<f32>,
    merges: Vec<&'g [u8]>,
    unknown: Option<u32>,
    add_space_prefix: bool,
    remove_extra_whitespace: bool,
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
        }
    }
}

/// Reads a model file's vocabulary.
pub(crate) fn vocabulary(gguf: &Gguf) -> Result<VocabularyOf<'_>> {
    let metadata = gguf.metadata();
    let strings = |key: &str| -> Result<Option<Vec<&[u8]>>, GgufError> {
        let Some(value) = metadata.value(key) else { return Ok(None) };
        let Value::Array(array) = value else { return Err(metadata.fault(key, "an array of strings")) };
        let bytes = |value| match value {
            Value::String(bytes) => Some(bytes),
            _ => None,
        };
        let all: Option<Vec<&[u8]>> = array.elements().map(bytes).collect();
        all.map(Some).ok_or_else(|| metadata.fault(key, "an array of strings"))
    };
    let tokens = "tokenizer.ggml.tokens";
    Ok(VocabularyOf {
        model: metadata.require("tokenizer.ggml.model")?,
        pre: metadata.get("tokenizer.ggml.pre")?.unwrap_or(""),
        tokens: strings(tokens)?.ok_or_else(|| metadata.fault(tokens, "the vocabulary"))?,
        types: metadata.get::<Vec<u32>>("tokenizer.ggml.token_type")?.unwrap_or_default(),
        scores: metadata.get::<Vec<f32>>("tokenizer.ggml.scores")?.unwrap_or_default(),
        merges: strings("tokenizer.ggml.merges")?.unwrap_or_default(),
        unknown: metadata.get("tokenizer.ggml.unknown_token_id")?,
        add_space_prefix: metadata.get("tokenizer.ggml.add_space_prefix")?.unwrap_or(true),
        remove_extra_whitespace: metadata.get("tokenizer.ggml.remove_extra_whitespaces")?.unwrap_or(false),
    })
}

/// Pre-tokenizers of models that begin every text with BOS although their files may not say so.
const BOS_BY_PRE: [&str; 4] = ["llama3", "llama-v3", "llama-bpe", "falcon3"];

/// Control tokens that end a turn, as models' makers spell them.
const END_OF_TURN: [&[u8]; 9] = [
    b"<|eot_id|>",
    b"<|im_end|>",
    b"<|end|>",
    b"<end_of_turn>",
    b"<|endoftext|>",
    b"<|eom_id|>",
    b"<|end_of_text|>",
    b"</s>",
    b"<|return|>",
];

/// A model's tokenizer.
pub struct AscTokenizer {
    handle: TokenizerHandle,
    n_tokens: usize,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    add_eos: bool,
    ends: HashSet<u32>,
}

impl AscTokenizer {
    pub(crate) fn new(gguf: &Gguf, handle: TokenizerHandle, n_tokens: usize) -> Result<Self> {
        let metadata = gguf.metadata();
        let of_file = vocabulary(gguf)?;
        if of_file.tokens.len() > n_tokens {
            return Err(Error::Invalid(format!(
                "{}: the tokenizer has {} tokens, where at most the {n_tokens} of the embedding were expected",
                gguf.paths().next().unwrap_or(std::path::Path::new("the model")).display(),
                of_file.tokens.len()
            )));
        }
        let special = |name: &str| -> Result<Option<u32>> {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match metadata.get::<u32>(&key)? {
                Some(id) if id as usize >= of_file.tokens.len() => {
                    Err(metadata.fault(&key, format!("an id below {}", of_file.tokens.len())).into())
                }
                id => Ok(id),
            }
        };
        let (bos, eos) = (special("bos")?, special("eos")?);
        let mut ends: HashSet<u32> = [eos, special("eot")?, special("eom")?].into_iter().flatten().collect();
        for (id, kind) in of_file.types.iter().enumerate() {
            if TokenType::from_code(*kind) == TokenType::Control && END_OF_TURN.contains(&of_file.tokens[id])
            {
                ends.insert(id as u32);
            }
        }
        let usual_bos = of_file.model == "llama" || BOS_BY_PRE.contains(&of_file.pre);
        Ok(Self {
            handle,
            n_tokens: of_file.tokens.len(),
            bos,
            eos,
            add_bos: metadata.get("tokenizer.ggml.add_bos_token")?.unwrap_or(usual_bos),
            add_eos: metadata.get("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            ends,
        })
    }

    /// Tokens of the vocabulary.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.n_tokens
    }

    /// The token that begins a text, where the model has one.
    #[must_use]
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, where the model has one.
    #[must_use]
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that the model wants before every prompt, where it wants one.
    #[must_use]
    pub fn prompt_bos(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// Whether this token ends a generation: the end of the text or of a turn.
    #[must_use]
    pub fn ends_generation(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The ids of a text, without BOS and EOS. `special`: special tokens that are spelt out in it are recognised.
    ///
    /// # Errors
    /// Where the vocabulary can't express the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let options = EncodeOptions { special, continues: false };
        self.handle
            .encode(text, options, &mut ids)
            .map_err(|source| Error::Plugin { what: "tokenizing".to_owned(), source })?;
        Ok(ids)
    }

    /// The ids of a prompt: as [`AscTokenizer::encode`], with the BOS and EOS that the model wants. A BOS that the text itself
    /// spells out, as chat templates do, is not doubled.
    ///
    /// # Errors
    /// As [`AscTokenizer::encode`].
    pub fn encode_prompt(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let mut ids = self.encode(text, special)?;
        if let Some(bos) = self.prompt_bos().filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        if let Some(eos) = self.eos.filter(|_| self.add_eos) {
            ids.push(eos);
        }
        Ok(ids)
    }

    /// The text of tokens; bytes that are no UTF-8 become U+FFFD. `special`: special tokens are written out.
    ///
    /// # Errors
    /// Where an id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String> {
        let bytes = self.bytes(ids, DecodeOptions { special, continues: false })?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The bytes of a token that continues a text; they may be part of a UTF-8 character.
    ///
    /// # Errors
    /// Where the id is outside the vocabulary.
    pub fn token_bytes(&self, token: u32, special: bool) -> Result<Vec<u8>> {
        // A model may have rows that its tokenizer has no token for; they stand for nothing.
        if token as usize >= self.n_tokens {
            return Ok(Vec::new());
        }
        self.bytes(&[token], DecodeOptions { special, continues: true })
    }

    fn bytes(&self, ids: &[u32], options: DecodeOptions) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.handle
            .decode(ids, options, &mut bytes)
            .map_err(|source| Error::Plugin { what: "detokenizing".to_owned(), source })?;
        Ok(bytes)
    }

    pub(crate) fn bos_text(&self) -> String {
        self.special_text(self.bos)
    }

    pub(crate) fn eos_text(&self) -> String {
        self.special_text(self.eos)
    }

    fn special_text(&self, token: Option<u32>) -> String {
        token.and_then(|token| self.decode(&[token], true).ok()).unwrap_or_default()
    }
}
