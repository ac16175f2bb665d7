//! The model tokenizers that HERALD's backends offer, so that a model's own vocabulary needs no other library.
//!
//! [`create`] makes a [`Tokenizer`] out of what a GGUF file says of its vocabulary. `tokenizer.ggml.model` names the kind:
//!
//! - `gpt2`, byte-level BPE: splits text into words as the file's `tokenizer.ggml.pre` says and merges the bytes of each
//!   by rank;
//! - `gemma4`: merges characters by rank, and falls back to single bytes;
//! - `llama`, SentencePiece's BPE: merges the characters of the text by score, and falls back to single bytes;
//! - `t5`, UGM: the tokens of the greatest probability;
//! - `bert`, WPM: the longest token that each word begins with, and so on.
//!
//! All take the text apart in the same three steps: special tokens are cut out whole, the text between them is cut
//! into words that no token can straddle, and each word is taken on its own, in at most O(n log n) of its length.

mod bpe;
mod byte_alphabet;
mod charsmap;
mod merge;
mod pieces;
mod pretokenize;
mod sentencepiece;
mod spaces;
mod specials;
mod trie;
mod unigram;
mod whole_words;
mod wordpiece;

use herald_api::{Error, Result, Tokenizer, TokenizerFactory, Vocabulary};

/// These tokenizers as a backend exports them: [`create`] under the trait that `export_plugin!` takes.
pub struct Tokenizers;

impl TokenizerFactory for Tokenizers {
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        create(vocabulary)
    }
}

/// Makes the tokenizer that `vocabulary.model` names.
///
/// # Errors
/// [`herald_api::Status::Unsupported`] where the model or its pre-tokenizer is not one of those known (the sentence
/// lists them); [`herald_api::Status::Corrupt`] where the vocabulary contradicts itself.
pub fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
    match vocabulary.model {
        "gpt2" => Ok(Box::new(bpe::Bpe::new(vocabulary)?)),
        "gemma4" => Ok(Box::new(bpe::Bpe::gemma4(vocabulary)?)),
        "llama" => Ok(Box::new(sentencepiece::SentencePiece::new(vocabulary)?)),
        "t5" => Ok(Box::new(unigram::Unigram::new(vocabulary)?)),
        "bert" => Ok(Box::new(wordpiece::WordPiece::new(vocabulary)?)),
        other => Err(Error::unsupported(format!(
            "the tokenizer model is \"{other}\", and the known ones are \"gpt2\" (byte-level BPE), \"gemma4\" (BPE of \
             characters), \"llama\" (SentencePiece), \"t5\" (UGM) and \"bert\" (WPM)"
        ))),
    }
}
