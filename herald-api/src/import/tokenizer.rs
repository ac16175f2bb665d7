//! Tokenizers of a plugin.

use std::ptr::NonNull;
use std::sync::Arc;

use super::{Inner, Plugin, refused};
use crate::abi::{self, AbiStruct, HeraldTokenizer, HeraldVocabulary};
use crate::marshal::try_call;
use crate::{DecodeOptions, EncodeOptions, Error, Result, Status, Tokenizer, Vocabulary};

/// A tokenizer that a plugin made.
pub struct TokenizerHandle {
    raw: NonNull<HeraldTokenizer>,
    plugin: Arc<Inner>,
    n_tokens: usize,
    /// Bytes of the longest token.
    longest: usize,
}

// SAFETY: the ABI's contract: any thread may call encode and decode, many at once.
unsafe impl Send for TokenizerHandle {}
// SAFETY: as for Send.
unsafe impl Sync for TokenizerHandle {}

impl Plugin {
    /// Has the plugin make a tokenizer.
    ///
    /// # Errors
    /// [`Status::Unsupported`] where it doesn't offer this one, [`Status::Corrupt`] where the vocabulary contradicts
    /// itself; otherwise as the plugin failed.
    pub fn create_tokenizer(&self, vocabulary: &Vocabulary<'_>) -> Result<TokenizerHandle> {
        let create = self.0.tokenizers.as_ref().and_then(|table| table.create);
        let create =
            create.ok_or_else(|| Error::unsupported(format!("{} offers no tokenizers", self.name())))?;
        let n = vocabulary.tokens.len();
        let lists = [
            (vocabulary.types.len(), "types"),
            (vocabulary.scores.len(), "scores"),
            (vocabulary.strips.len(), "strips"),
        ];
        for (len, what) in lists {
            if len != 0 && len != n {
                return Err(Error::new(
                    Status::Corrupt,
                    format!("the vocabulary has {n} tokens and {len} {what}, where as many were expected"),
                ));
            }
        }
        let (token_bytes, token_offsets) = joined(&vocabulary.tokens);
        let (merge_bytes, merge_offsets) = joined(&vocabulary.merges);
        let flag = |there: bool, bit: u32| if there { bit } else { 0 };
        let raw = HeraldVocabulary {
            model: vocabulary.model.as_ptr().cast(),
            model_len: vocabulary.model.len(),
            pre: vocabulary.pre.as_ptr().cast(),
            pre_len: vocabulary.pre.len(),
            n_tokens: n,
            token_bytes: token_bytes.as_ptr(),
            token_offsets: token_offsets.as_ptr(),
            token_types: if vocabulary.types.is_empty() {
                std::ptr::null()
            } else {
                vocabulary.types.as_ptr()
            },
            token_scores: if vocabulary.scores.is_empty() {
                std::ptr::null()
            } else {
                vocabulary.scores.as_ptr()
            },
            n_merges: vocabulary.merges.len(),
            merge_bytes: merge_bytes.as_ptr(),
            merge_offsets: merge_offsets.as_ptr(),
            unknown: vocabulary.unknown.unwrap_or(abi::HERALD_NO_TOKEN),
            flags: flag(vocabulary.add_space_prefix, abi::HERALD_VOCABULARY_ADD_SPACE_PREFIX)
                | flag(vocabulary.remove_extra_whitespace, abi::HERALD_VOCABULARY_REMOVE_EXTRA_WHITESPACE)
                | flag(vocabulary.lowercase, abi::HERALD_VOCABULARY_LOWERCASE)
                | flag(vocabulary.strip_accents, abi::HERALD_VOCABULARY_STRIP_ACCENTS)
                | flag(!vocabulary.charsmap.is_empty(), abi::HERALD_VOCABULARY_CHARSMAP)
                | flag(!vocabulary.strips.is_empty(), abi::HERALD_VOCABULARY_STRIPS),
            charsmap: vocabulary.charsmap.as_ptr(),
            charsmap_len: vocabulary.charsmap.len(),
            token_strips: vocabulary.strips.as_ptr(),
            ..AbiStruct::empty()
        };
        let mut made = std::ptr::null_mut();
        // SAFETY: the ABI's contract; all that the vocabulary points to lives for the call.
        try_call(|error| unsafe { create(&raw, &mut made, error) })?;
        let made = NonNull::new(made);
        let raw =
            made.ok_or_else(|| refused("its tokenizer_create succeeded without a tokenizer".to_owned()))?;
        let longest = vocabulary.tokens.iter().map(|token| token.len()).max().unwrap_or(0);
        Ok(TokenizerHandle { raw, plugin: Arc::clone(&self.0), n_tokens: n, longest })
    }
}

/// Pieces one after another, and where each begins and the last ends.
fn joined(pieces: &[&[u8]]) -> (Vec<u8>, Vec<u64>) {
    let mut bytes = Vec::with_capacity(pieces.iter().map(|piece| piece.len()).sum());
    let mut offsets = Vec::with_capacity(pieces.len() + 1);
    offsets.push(0);
    for piece in pieces {
        bytes.extend_from_slice(piece);
        offsets.push(bytes.len() as u64);
    }
    (bytes, offsets)
}

/// Fills a vector through a C function that reports the room it needs: `function(buffer, room, &mut len)`. It may ask
/// for more once; `most` is more than any honest answer needs.
fn collect<T: Copy + Default>(
    out: &mut Vec<T>,
    guess: usize,
    most: usize,
    function: impl Fn(*mut T, usize, &mut usize) -> Result<()>,
) -> Result<()> {
    let start = out.len();
    let (mut room, mut asked) = (guess, false);
    let failure = loop {
        if out.try_reserve(room).is_err() {
            break Error::new(Status::OutOfMemory, format!("there is no memory for {room} elements"));
        }
        out.resize(start + room, T::default());
        let mut len = 0;
        match function(out[start..].as_mut_ptr(), room, &mut len) {
            Ok(()) if len <= room => {
                out.truncate(start + len);
                return Ok(());
            }
            Ok(()) => {
                break refused(format!("it says that it wrote {len} elements where {room} had room"));
            }
            Err(error) if error.status() != Status::BufferTooSmall => break error,
            Err(_) if asked || len <= room || len > most => {
                break refused(format!(
                    "it asks for room for {len} elements after it was given {room}, where it may ask once, for more than \
                     that and at most {most}"
                ));
            }
            Err(_) => (room, asked) = (len, true),
        }
    };
    out.truncate(start);
    Err(failure)
}

impl TokenizerHandle {
    /// The name of the plugin that made it.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.plugin.name
    }
}

impl Tokenizer for TokenizerHandle {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        let encode = self.plugin.tokenizers.as_ref().and_then(|table| table.encode);
        let encode = encode.ok_or_else(|| Error::unsupported("the plugin has no encode function"))?;
        let flags = flags(options.special, options.continues);
        let start = ids.len();
        // A token is hardly ever shorter than a byte; the longest expansion of normal forms (U+FDFA in NFKC) is elevenfold.
        let guess = text.len() + 8;
        collect(ids, guess, 16 * guess, |buffer, room, len| {
            // SAFETY: the ABI's contract; text and buffer have the sizes that are said.
            try_call(|error| unsafe {
                encode(self.raw.as_ptr(), text.as_ptr().cast(), text.len(), flags, buffer, room, len, error)
            })
        })?;
        if let Some(id) = ids[start..].iter().find(|id| **id as usize >= self.n_tokens).copied() {
            ids.truncate(start);
            return Err(refused(format!(
                "its tokenizer gave the id {id}, where ids below {} were expected",
                self.n_tokens
            )));
        }
        Ok(())
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        let decode = self.plugin.tokenizers.as_ref().and_then(|table| table.decode);
        let decode = decode.ok_or_else(|| Error::unsupported("the plugin has no decode function"))?;
        let flags = flags(options.special, options.continues);
        if let Some(id) = ids.iter().find(|id| **id as usize >= self.n_tokens) {
            return Err(Error::invalid(format!(
                "the token id {id} is outside the vocabulary, where ids below {} were expected",
                self.n_tokens
            )));
        }
        let most = ids.len().saturating_mul(self.longest.max(16));
        collect(bytes, ids.len() * 16, most, |buffer, room, len| {
            // SAFETY: the ABI's contract; ids and buffer have the sizes that are said.
            try_call(|error| unsafe {
                decode(self.raw.as_ptr(), ids.as_ptr(), ids.len(), flags, buffer, room, len, error)
            })
        })
    }
}

fn flags(special: bool, continues: bool) -> u32 {
    (if special { abi::HERALD_TEXT_SPECIAL } else { 0 })
        | (if continues { abi::HERALD_TEXT_CONTINUES } else { 0 })
}

impl Drop for TokenizerHandle {
    fn drop(&mut self) {
        if let Some(destroy) = self.plugin.tokenizers.as_ref().and_then(|table| table.destroy) {
            // SAFETY: the tokenizer came from this plugin, and `self` is the only handle to it.
            unsafe { destroy(self.raw.as_ptr()) };
        }
    }
}
