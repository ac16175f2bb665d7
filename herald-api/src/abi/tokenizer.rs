//! Tokenizers: text to token ids and back.

use std::ffi::c_char;

use super::{HeraldError, HeraldTokenizer};

/// An ordinary piece of text.
pub const HERALD_TOKEN_NORMAL: u32 = 1;
/// Stands for what the vocabulary can't express.
pub const HERALD_TOKEN_UNKNOWN: u32 = 2;
/// A special token: recognised in text, and written, only when the caller asks.
pub const HERALD_TOKEN_CONTROL: u32 = 3;
/// Added by the model's makers: matched whole in text before anything else.
pub const HERALD_TOKEN_USER_DEFINED: u32 = 4;
/// A reserved entry that text never produces.
pub const HERALD_TOKEN_UNUSED: u32 = 5;
/// One raw byte, spelt <0x0A>.
pub const HERALD_TOKEN_BYTE: u32 = 6;

/// Encoding recognises special tokens that the text spells out, and decoding spells them out; without it they are read as
/// plain text, and left out.
pub const HERALD_TEXT_SPECIAL: u32 = 1 << 0;
/// The text goes on from an earlier one: encoding puts no space before it, and decoding takes none away.
pub const HERALD_TEXT_CONTINUES: u32 = 1 << 1;

/// SentencePiece: a space is put before the text.
pub const HERALD_VOCABULARY_ADD_SPACE_PREFIX: u32 = 1 << 0;
/// SentencePiece: runs of spaces are collapsed.
pub const HERALD_VOCABULARY_REMOVE_EXTRA_WHITESPACE: u32 = 1 << 1;

/// WPM: the text is put into lower case.
pub const HERALD_VOCABULARY_LOWERCASE: u32 = 1 << 2;
/// WPM: accents are taken off (canonical decomposition, without nonspacing marks).
pub const HERALD_VOCABULARY_STRIP_ACCENTS: u32 = 1 << 3;
/// UGM: charsmap has rules by which the text is normalised.
pub const HERALD_VOCABULARY_CHARSMAP: u32 = 1 << 4;
/// Some tokens take the white space beside them with them, as token_strips says.
pub const HERALD_VOCABULARY_STRIPS: u32 = 1 << 5;

/// A token that is found whole in a text takes the white space on its left with it.
pub const HERALD_STRIP_LEFT: u32 = 1 << 0;
/// A token that is found whole in a text takes the white space on its right with it.
pub const HERALD_STRIP_RIGHT: u32 = 1 << 1;

/// The id that stands for "no such token".
pub const HERALD_NO_TOKEN: u32 = 4294967295;

/// What a model file says of its vocabulary. Everything is valid during the call only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldVocabulary {
    /// sizeof(HeraldVocabulary) of the host.
    pub struct_size: usize,
    /// The kind of tokenizer, as GGUF's tokenizer.ggml.model names it: "gpt2" (byte-level BPE), "llama" (SentencePiece's BPE),
    /// "gemma4" (BPE of characters), "bert" (WPM), "t5" (UGM). UTF-8.
    pub model: *const c_char,
    /// Bytes of model.
    pub model_len: usize,
    /// The pre-tokenizer, as GGUF's tokenizer.ggml.pre names it; empty where the file names none. UTF-8.
    pub pre: *const c_char,
    /// Bytes of pre.
    pub pre_len: usize,
    /// Tokens of the vocabulary; ids are 0 to n_tokens - 1.
    pub n_tokens: usize,
    /// All tokens' bytes, one after another.
    pub token_bytes: *const u8,
    /// [n_tokens + 1], rising from 0: token i is bytes token_offsets[i] to token_offsets[i + 1].
    pub token_offsets: *const u64,
    /// HERALD_TOKEN_* [n_tokens], or null: all normal.
    pub token_types: *const u32,
    /// SentencePiece's scores [n_tokens], or null.
    pub token_scores: *const f32,
    /// BPE's merges in order of rank, each "left right", or 0.
    pub n_merges: usize,
    /// All merges' bytes, one after another.
    pub merge_bytes: *const u8,
    /// [n_merges + 1], as token_offsets.
    pub merge_offsets: *const u64,
    /// The token that stands for what can't be expressed, or HERALD_NO_TOKEN.
    pub unknown: u32,
    /// HERALD_VOCABULARY_* bits.
    pub flags: u32,
    /// UGM's rules, as SentencePiece's precompiled_charsmap has them: how many bytes of a double array follow (uint32_t,
    /// little endian), these, and the replacements, each with a NUL behind it. Null without HERALD_VOCABULARY_CHARSMAP.
    pub charsmap: *const u8,
    /// Bytes of charsmap.
    pub charsmap_len: usize,
    /// HERALD_STRIP_* bits [n_tokens] of control, user-defined and unknown tokens. Null without HERALD_VOCABULARY_STRIPS.
    pub token_strips: *const u8,
}

/// Tokenizers of a plugin.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTokenizerTable {
    /// sizeof(HeraldTokenizerTable) of the plugin.
    pub struct_size: usize,
    /// Makes a tokenizer of the vocabulary and puts it in *out, for the caller to give to destroy; what it needs of the
    /// vocabulary it copies. Any thread. On failure *out is untouched. Statuses: OK; UNSUPPORTED (an unknown model or
    /// pre-tokenizer: the host asks the next plugin); CORRUPT (a vocabulary that contradicts itself); OUT_OF_MEMORY;
    /// INTERNAL.
    pub create: Option<
        unsafe extern "C" fn(
            vocabulary: *const HeraldVocabulary,
            out: *mut *mut HeraldTokenizer,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Writes the ids of text (UTF-8, text_len bytes) to ids, which has room for capacity, and their number to *n_ids.
    /// No BOS or EOS is added. flags: HERALD_TEXT_*. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with
    /// *n_ids the number needed; INVALID_ARGUMENT (not UTF-8); UNSUPPORTED (text that the vocabulary can't express).
    pub encode: Option<
        unsafe extern "C" fn(
            tokenizer: *const HeraldTokenizer,
            text: *const c_char,
            text_len: usize,
            flags: u32,
            ids: *mut u32,
            capacity: usize,
            n_ids: *mut usize,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Writes the bytes of n_ids ids to bytes, which has room for capacity, and their number to *n_bytes; a token may
    /// hold part of a UTF-8 character. Decoding two runs of tokens, the second with HERALD_TEXT_CONTINUES, gives the
    /// bytes of decoding both at once. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *n_bytes the number
    /// needed; INVALID_ARGUMENT (an id outside the vocabulary).
    pub decode: Option<
        unsafe extern "C" fn(
            tokenizer: *const HeraldTokenizer,
            ids: *const u32,
            n_ids: usize,
            flags: u32,
            bytes: *mut u8,
            capacity: usize,
            n_bytes: *mut usize,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Destroys a tokenizer that no call is running on. Any thread. Null is allowed.
    pub destroy: Option<unsafe extern "C" fn(tokenizer: *mut HeraldTokenizer)>,
}
