//! Tokenizers: a [`TokenizerFactory`] as a `HeraldTokenizerTable`.

use std::ffi::c_char;

use crate::abi::{self, HeraldError, HeraldTokenizer, HeraldTokenizerTable, HeraldVocabulary};
use crate::marshal::{catch, guard, known_flags, slice, text};
use crate::{DecodeOptions, EncodeOptions, Error, Result, Status, Tokenizer, TokenizerFactory, Vocabulary};

const TEXT_FLAGS: u32 = abi::HERALD_TEXT_SPECIAL | abi::HERALD_TEXT_CONTINUES;
const VOCABULARY_FLAGS: u32 = abi::HERALD_VOCABULARY_ADD_SPACE_PREFIX
    | abi::HERALD_VOCABULARY_REMOVE_EXTRA_WHITESPACE
    | abi::HERALD_VOCABULARY_LOWERCASE
    | abi::HERALD_VOCABULARY_STRIP_ACCENTS
    | abi::HERALD_VOCABULARY_CHARSMAP
    | abi::HERALD_VOCABULARY_STRIPS;

struct Tables<F>(F);

impl<F: TokenizerFactory> Tables<F> {
    const STATIC: &'static HeraldTokenizerTable = &HeraldTokenizerTable {
        struct_size: size_of::<HeraldTokenizerTable>(),
        create: Some(create::<F>),
        encode: Some(encode),
        decode: Some(decode),
        destroy: Some(destroy),
    };
}

/// The C table of a factory's tokenizers.
#[must_use]
pub fn tokenizer_table<F: TokenizerFactory>() -> *const HeraldTokenizerTable {
    Tables::<F>::STATIC
}

unsafe extern "C" fn create<F: TokenizerFactory>(
    vocabulary: *const HeraldVocabulary,
    out: *mut *mut HeraldTokenizer,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract for all three.
    unsafe {
        guard(error, || {
            if out.is_null() {
                return Err(Error::invalid(
                    "tokenizer_create was given nowhere to put the tokenizer (out is null)",
                ));
            }
            let made = F::create(&read_vocabulary(vocabulary)?)?;
            out.write(Box::into_raw(Box::new(made)).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn encode(
    tokenizer: *const HeraldTokenizer,
    source: *const c_char,
    source_len: usize,
    flags: u32,
    ids: *mut u32,
    capacity: usize,
    n_ids: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the tokenizer came from `create`, the buffers are as the table says.
    unsafe {
        guard(error, || {
            known_flags(flags.into(), TEXT_FLAGS.into())?;
            let source = text(source, source_len, "the text")?;
            let options = EncodeOptions {
                special: flags & abi::HERALD_TEXT_SPECIAL != 0,
                continues: flags & abi::HERALD_TEXT_CONTINUES != 0,
            };
            let mut found = Vec::new();
            made(tokenizer)?.encode(source, options, &mut found)?;
            hand_over(&found, ids, capacity, n_ids)
        })
    }
}

unsafe extern "C" fn decode(
    tokenizer: *const HeraldTokenizer,
    ids: *const u32,
    n_ids: usize,
    flags: u32,
    bytes: *mut u8,
    capacity: usize,
    n_bytes: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: as for `encode`.
    unsafe {
        guard(error, || {
            known_flags(flags.into(), TEXT_FLAGS.into())?;
            let ids = slice(ids, n_ids, "the token ids")?;
            let options = DecodeOptions {
                special: flags & abi::HERALD_TEXT_SPECIAL != 0,
                continues: flags & abi::HERALD_TEXT_CONTINUES != 0,
            };
            let mut found = Vec::new();
            made(tokenizer)?.decode(ids, options, &mut found)?;
            hand_over(&found, bytes, capacity, n_bytes)
        })
    }
}

unsafe extern "C" fn destroy(tokenizer: *mut HeraldTokenizer) {
    if !tokenizer.is_null() {
        // SAFETY: the host's contract: it came from `create`, and no call is running on it.
        let dropped = catch(|| unsafe { drop(Box::from_raw(tokenizer.cast::<Box<dyn Tokenizer>>())) });
        if dropped.is_err() {
            super::log(super::Level::Error, "a tokenizer panicked while it was destroyed");
        }
    }
}

/// # Safety
/// `tokenizer` is null or came from `create`.
unsafe fn made<'a>(tokenizer: *const HeraldTokenizer) -> Result<&'a dyn Tokenizer> {
    // SAFETY: the host's contract: null, or what `create` gave and `destroy` hasn't had.
    unsafe { tokenizer.cast::<Box<dyn Tokenizer>>().as_ref() }
        .map(Box::as_ref)
        .ok_or_else(|| Error::invalid("the tokenizer is null"))
}

/// # Safety
/// `to` has room for `capacity` values, and `len` is null or writable.
unsafe fn hand_over<T: Copy>(found: &[T], to: *mut T, capacity: usize, len: *mut usize) -> Result<()> {
    if len.is_null() || (to.is_null() && capacity > 0) {
        return Err(Error::invalid("the buffer for the result, or the pointer for its length, is null"));
    }
    // SAFETY: checked for null; the host's contract: `to` has room for `capacity`.
    unsafe {
        len.write(found.len());
        if found.len() > capacity {
            return Err(Error::new(
                Status::BufferTooSmall,
                format!("the result has {} elements, where the buffer has room for {capacity}", found.len()),
            ));
        }
        if !found.is_empty() {
            std::ptr::copy_nonoverlapping(found.as_ptr(), to, found.len());
        }
    }
    Ok(())
}

/// # Safety
/// As `HeraldVocabulary` says, for the lifetime `'a`.
unsafe fn read_vocabulary<'a>(vocabulary: *const HeraldVocabulary) -> Result<Vocabulary<'a>> {
    // SAFETY: the host's contract for HeraldVocabulary; slices and pieces are checked as they are read.
    unsafe {
        let raw = abi::read(vocabulary).map_err(Error::invalid)?;
        known_flags(raw.flags.into(), VOCABULARY_FLAGS.into())?;
        let n = raw.n_tokens;
        let optional = |null: bool| if null { 0 } else { n };
        let flag = |bit: u32| raw.flags & bit != 0;
        let charsmap = if flag(abi::HERALD_VOCABULARY_CHARSMAP) { raw.charsmap_len } else { 0 };
        let strips = if flag(abi::HERALD_VOCABULARY_STRIPS) { n } else { 0 };
        Ok(Vocabulary {
            model: text(raw.model, raw.model_len, "the tokenizer's model")?,
            pre: text(raw.pre, raw.pre_len, "the pre-tokenizer's name")?,
            tokens: pieces(raw.token_bytes, raw.token_offsets, n, "token")?,
            types: slice(raw.token_types, optional(raw.token_types.is_null()), "the token types")?,
            scores: slice(raw.token_scores, optional(raw.token_scores.is_null()), "the token scores")?,
            merges: pieces(raw.merge_bytes, raw.merge_offsets, raw.n_merges, "merge")?,
            unknown: (raw.unknown != abi::HERALD_NO_TOKEN).then_some(raw.unknown),
            add_space_prefix: flag(abi::HERALD_VOCABULARY_ADD_SPACE_PREFIX),
            remove_extra_whitespace: flag(abi::HERALD_VOCABULARY_REMOVE_EXTRA_WHITESPACE),
            lowercase: flag(abi::HERALD_VOCABULARY_LOWERCASE),
            strip_accents: flag(abi::HERALD_VOCABULARY_STRIP_ACCENTS),
            charsmap: slice(raw.charsmap, charsmap, "the charsmap")?,
            strips: slice(raw.token_strips, strips, "what tokens strip")?,
        })
    }
}

/// # Safety
/// `offsets` has `n + 1` values (where `n` is not 0), and `bytes` as many bytes as the last one says.
unsafe fn pieces<'a>(bytes: *const u8, offsets: *const u64, n: usize, what: &str) -> Result<Vec<&'a [u8]>> {
    if n == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the host's contract: one offset more than there are pieces.
    let offsets = unsafe { slice(offsets, n.saturating_add(1), what)? };
    // SAFETY: the host's contract: the bytes reach the last offset.
    let bytes = unsafe { slice(bytes, offsets[n] as usize, what)? };
    offsets
        .windows(2)
        .enumerate()
        .map(|(index, ends)| {
            bytes.get(ends[0] as usize..ends[1] as usize).ok_or_else(|| {
                Error::new(
                    Status::Corrupt,
                    format!("{what} {index} is bytes {} to {} of {}", ends[0], ends[1], bytes.len()),
                )
            })
        })
        .collect()
}
