//! The model tokenizers that HERALD's backends offer, so that a model's own vocabulary needs no other library.
//!
//! [`create`] makes a [`Tokenizer`] out of what a GGUF file says of its vocabulary. Two kinds are known: byte-level BPE
//! (`tokenizer.ggml.model` is `gpt2`), which splits text into words as the file's `tokenizer.ggml.pre` says and merges
//! the bytes of each by rank, and SentencePiece's BPE (`llama`), which merges the characters of the text by score and
//! falls back to single bytes.
//!
//! Both take the text apart in the same three steps: special tokens are cut out whole, the text between them is cut
//! into words that no token can straddle, and each word is merged on its own in O(n log n) of its length.

mod byte_alphabet;
mod byte_level_bpe;
mod merge;
mod pieces;
mod pretokenize;
mod sentencepiece;
mod specials;
mod whole_words;

use herald_api::{Error, Result, Tokenizer, TokenizerFactory, Vocabulary};

/// These tokenizers as a backend exports them: [`create`] under the trait that `export_plugin!` takes.
pub struct Tokenizers;

impl TokenizerFactory for Tokenizers {
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        create(vocabulary)
    }
}

/// Makes the tokenizer that `vocabulary.model` names: `gpt2` is byte-level BPE, `llama` is SentencePiece.
///
/// # Errors
/// [`herald_api::Status::Unsupported`] where the model or its pre-tokenizer is not one of those known (the sentence
/// lists them); [`herald_api::Status::Corrupt`] where the vocabulary contradicts itself.
pub fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
    match vocabulary.model {
        "gpt2" => Ok(Box::new(byte_level_bpe::ByteLevelBpe::new(vocabulary)?)),
        "llama" => Ok(Box::new(sentencepiece::SentencePiece::new(vocabulary)?)),
        other => Err(Error::unsupported(format!(
            "the tokenizer model is \"{other}\", and the known ones are \"gpt2\" (byte-level BPE) and \"llama\" \
             (SentencePiece)"
        ))),
    }
}
