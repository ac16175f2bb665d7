//! The tokenizer interface: text to token ids and back.

use crate::Result;

/// What a vocabulary entry is, as GGUF numbers it (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TokenType {
    /// An ordinary piece of text.
    Normal = 1,
    /// Stands for what the vocabulary can't express.
    Unknown = 2,
    /// A special token (control): recognised in text only when the caller asks, and decoded only when the caller asks.
    Control = 3,
    /// Added by the model's makers: matched whole in text before the model's own splitting.
    UserDefined = 4,
    /// A reserved entry that text never produces.
    Unused = 5,
    /// One raw byte (`<0x0A>`).
    Byte = 6,
}

impl TokenType {
    /// The type with this GGUF number; unknown numbers read as [`TokenType::Normal`], as GGUF readers do.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match code {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// What a model file says of its vocabulary: everything that a tokenizer is made from.
///
/// Token ids are positions in `tokens`.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary<'a> {
    /// The kind of tokenizer (`tokenizer.ggml.model`): `gpt2` for byte-level BPE, `llama` for SentencePiece's BPE,
    /// `gemma4` for BPE of characters, `bert` for WPM, `t5` for UGM.
    pub model: &'a str,
    /// The pre-tokenizer of byte-level BPE (`tokenizer.ggml.pre`); empty where the file names none.
    pub pre: &'a str,
    /// Each token as the file spells it.
    pub tokens: Vec<&'a [u8]>,
    /// The type of each token (GGUF's number); empty where the file gives none, which makes all of them normal.
    pub types: &'a [u32],
    /// SentencePiece's and UGM's score of each token; empty where the file gives none.
    pub scores: &'a [f32],
    /// BPE's merges in order of rank, each as `left right` with one space between; empty where there are none.
    pub merges: Vec<&'a [u8]>,
    /// The token that stands for what can't be expressed.
    pub unknown: Option<u32>,
    /// SentencePiece and UGM: put a space before the text (`tokenizer.ggml.add_space_prefix`).
    pub add_space_prefix: bool,
    /// SentencePiece and UGM: collapse runs of spaces (`tokenizer.ggml.remove_extra_whitespaces`).
    pub remove_extra_whitespace: bool,
    /// WPM: put the text into lower case.
    pub lowercase: bool,
    /// WPM: take accents off.
    pub strip_accents: bool,
    /// UGM: the rules by which text is normalised (SentencePiece's `precompiled_charsmap`); empty where there are none.
    pub charsmap: &'a [u8],
    /// For each token found whole in a text, whether it takes the white space beside it with it: bits of
    /// [`STRIP_LEFT`] and [`STRIP_RIGHT`]; empty where none does.
    pub strips: &'a [u8],
}

/// A token that takes the white space on its left with it.
pub const STRIP_LEFT: u8 = crate::abi::HERALD_STRIP_LEFT as u8;
/// A token that takes the white space on its right with it.
pub const STRIP_RIGHT: u8 = crate::abi::HERALD_STRIP_RIGHT as u8;

/// How to read a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Recognise special (control) tokens spelt out in the text; otherwise they are read as plain text.
    pub special: bool,
    /// The text goes on from an earlier one: no space prefix before it.
    pub continues: bool,
}

/// How to write tokens as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOptions {
    /// Write special (control) tokens as they are spelt; otherwise they are left out.
    pub special: bool,
    /// The tokens go on from earlier ones: a leading space belongs to the text and stays.
    pub continues: bool,
}

/// A tokenizer of one vocabulary. Calls may come from many threads at once.
pub trait Tokenizer: Send + Sync {
    /// Appends the ids of `text` to `ids`. No BOS or EOS is added: that is the host's part. Takes time linear in the
    /// text's length (times a logarithm).
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] where the vocabulary can't express the text and has no unknown token.
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()>;

    /// Appends the bytes of `ids` to `bytes`. A token may hold part of a UTF-8 character; what is appended for two runs
    /// of tokens, the second with `continues` set, is what is appended for both at once.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where an id is outside the vocabulary.
    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()>;
}

/// A backend's tokenizers. The implementing type carries no data: it names the functions of a table.
pub trait TokenizerFactory: 'static {
    /// Makes a tokenizer, which copies what it needs of the vocabulary.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] for an unknown model or pre-tokenizer, [`crate::Status::Corrupt`] for a vocabulary
    /// that contradicts itself.
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>>;
}
