//! BPE by ranked merges, of bytes or of characters.
//!
//! Byte-level BPE (Radford et al., 2019): every text is a sequence of bytes, so with all 256 of them in the vocabulary
//! there is nothing that it can't express, and what is encoded decodes to the same bytes. Gemma 4 and a few others
//! merge characters instead, spell spaces as SentencePiece does, and fall back to bytes.

use crate::byte_alphabet;
use crate::merge::{Merger, NEVER, Symbol, check_size};
use crate::pieces::{ByteTokens, Index, NO_TOKEN, Pieces, corrupt, parse_byte};
use crate::pretokenize::PreTokenizer;
use crate::spaces::{BeforeSpace, SPACE, unescape};
use crate::specials::{Part, Specials};
use crate::whole_words::WholeWords;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use herald_api::{DecodeOptions, EncodeOptions, Error, Result, TokenType, Tokenizer, Vocabulary};
use std::borrow::Cow;
use std::hash::BuildHasher;

/// What merges begin with.
enum Symbols {
    /// Bytes: the token of each, or [`NO_TOKEN`].
    Bytes(Box<[u32; 256]>),
    /// Characters, with spaces as SentencePiece has them; those that have no token are spelt in bytes.
    Characters { bytes: ByteTokens, before_space: BeforeSpace },
}

/// A BPE vocabulary, ready to encode and decode.
pub(crate) struct Bpe {
    pieces: Pieces,
    index: Index,
    specials: Specials,
    pre_tokenizer: PreTokenizer,
    symbols: Symbols,
    /// The rank of each pair of tokens that merges (the left one in the upper half), and the token that it makes.
    merges: HashMap<u64, (u32, u32)>,
    whole: WholeWords,
    unknown: Option<u32>,
}

impl Bpe {
    /// The BPE that a vocabulary's pre-tokenizer goes with.
    pub(crate) fn new(vocabulary: &Vocabulary<'_>) -> Result<Self> {
        Self::with(vocabulary, PreTokenizer::named(vocabulary.pre)?)
    }

    /// Gemma 4's, whatever pre-tokenizer the file names.
    pub(crate) fn gemma4(vocabulary: &Vocabulary<'_>) -> Result<Self> {
        Self::with(vocabulary, PreTokenizer::named("gemma4")?)
    }

    fn with(vocabulary: &Vocabulary<'_>, pre_tokenizer: PreTokenizer) -> Result<Self> {
        let characters = pre_tokenizer.characters();
        let pieces = Pieces::new(vocabulary, |token, kind, bytes| match kind {
            TokenType::Normal | TokenType::Unused if characters => unescape(token, bytes),
            TokenType::Normal | TokenType::Unused => byte_alphabet::decode_into(token, bytes),
            TokenType::Byte => match parse_byte(token) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(token),
            },
            TokenType::UserDefined if characters => unescape(token, bytes),
            TokenType::Unknown | TokenType::Control | TokenType::UserDefined => {
                bytes.extend_from_slice(token)
            }
        })?;
        let index = Index::new(&pieces);
        let merges = merges(vocabulary, &pieces, characters)?;
        let byte = |byte: usize| index.get(&pieces, &[byte as u8]).unwrap_or(NO_TOKEN);
        let symbols = if characters {
            Symbols::Characters { bytes: ByteTokens::new(&pieces), before_space: BeforeSpace::new(&pieces) }
        } else {
            Symbols::Bytes(Box::new(std::array::from_fn(byte)))
        };
        // A special token in the place of a byte would let plain text end the text or a turn.
        let unknown = vocabulary.unknown.filter(|&id| pieces.kind(id) != Some(TokenType::Control));
        Ok(Self {
            symbols,
            specials: Specials::new(&pieces, vocabulary.strips)?,
            whole: WholeWords::new(if pre_tokenizer.whole_words { 0 } else { pieces.len() }),
            pre_tokenizer,
            merges,
            unknown,
            index,
            pieces,
        })
    }

    /// Appends the tokens of a stretch of plain text.
    fn encode_text(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        let mut result = Ok(());
        match &self.symbols {
            Symbols::Bytes(_) => self.pre_tokenizer.split(text, |word| {
                if result.is_ok() {
                    result = self.encode_word(word, merger, ids);
                }
            }),
            Symbols::Characters { before_space, .. } => {
                let text = if text.contains(SPACE) {
                    Cow::Owned(text.replace(SPACE, " "))
                } else {
                    Cow::Borrowed(text)
                };
                self.pre_tokenizer.split(&text, |part| {
                    if result.is_ok() {
                        result = before_space.split(part, |word| self.encode_word(word, merger, ids));
                    }
                });
            }
        }
        result
    }

    /// Appends the tokens of one word.
    #[inline]
    fn encode_word(&self, word: &str, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        let whole = self.index.get(&self.pieces, word.as_bytes());
        match whole.map(|id| (id, self.whole.get(id))) {
            Some((id, Some(true))) => {
                ids.push(id);
                Ok(())
            }
            Some((id, None)) => {
                let first = ids.len();
                self.merge_word(word, merger, ids)?;
                self.whole.set(id, ids[first..] == [id]);
                Ok(())
            }
            _ => self.merge_word(word, merger, ids),
        }
    }

    /// Appends the tokens of one word by merging its bytes.
    fn merge_word(&self, word: &str, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        merger.clear();
        match &self.symbols {
            Symbols::Bytes(bytes) => {
                for (start, byte) in (0..).zip(word.bytes()) {
                    merger.push(Symbol { start, end: start + 1, token: bytes[usize::from(byte)] });
                }
            }
            Symbols::Characters { .. } => {
                for (start, character) in word.char_indices() {
                    let end = start + character.len_utf8();
                    let token = self.index.get(&self.pieces, &word.as_bytes()[start..end]);
                    let token = token.unwrap_or(NO_TOKEN);
                    merger.push(Symbol { start: start as u32, end: end as u32, token });
                }
            }
        }
        merger.merge(|left, right| {
            let pair = pair(left.token, right.token);
            self.merges.get(&pair).copied().unwrap_or((NEVER, NO_TOKEN))
        });
        for symbol in merger.symbols() {
            if symbol.token == NO_TOKEN {
                self.push_unknown(&word.as_bytes()[symbol.start as usize..symbol.end as usize], word, ids)?;
            } else {
                ids.push(symbol.token);
            }
        }
        Ok(())
    }

    /// Appends what stands for a byte, or for the bytes of a character, that has no token.
    #[cold]
    fn push_unknown(&self, lacking: &[u8], word: &str, ids: &mut Vec<u32>) -> Result<()> {
        if let Symbols::Characters { bytes, .. } = &self.symbols
            && let Some(spelt) = bytes.spell(lacking)
        {
            ids.extend(spelt);
            return Ok(());
        }
        let unknown = self.unknown.ok_or_else(|| {
            let lacking: Vec<String> = lacking.iter().map(|byte| format!("0x{byte:02X}")).collect();
            Error::unsupported(format!(
                "the vocabulary has no token for the byte {} of \"{}\", and no unknown token that text may become",
                lacking.join(" "),
                word.chars().take(40).collect::<String>().escape_debug()
            ))
        })?;
        ids.push(unknown);
        Ok(())
    }
}

impl Tokenizer for Bpe {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        check_size(text)?;
        let mut merger = Merger::default();
        self.specials.partition(text, options.special, |part| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => self.encode_text(text, &mut merger, ids),
        })
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        self.pieces.decode(ids, options, false, bytes)
    }
}

/// The key of a pair of tokens.
#[inline]
fn pair(left: u32, right: u32) -> u64 {
    (u64::from(left) << 32) | u64::from(right)
}

/// From a token as the file spells it to its id: of several that are spelt alike, the first.
struct Spellings<'v> {
    tokens: &'v [&'v [u8]],
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl<'v> Spellings<'v> {
    fn new(tokens: &'v [&'v [u8]]) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut ids = HashTable::with_capacity(tokens.len());
        for (id, token) in (0..).zip(tokens) {
            let is_same = |other: &u32| tokens[*other as usize] == *token;
            let hash_of = |other: &u32| hasher.hash_one(tokens[*other as usize]);
            ids.entry(hasher.hash_one(*token), is_same, hash_of).or_insert(id);
        }
        Self { tokens, ids, hasher }
    }

    fn get(&self, token: &[u8]) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(token), |id| self.tokens[*id as usize] == token).copied()
    }

    /// Whether a token is spelt as these two together are, and it is certain without a search that no earlier one is.
    fn is_only(&self, id: u32, left: &[u8], right: &[u8]) -> bool {
        let all_differ = self.ids.len() == self.tokens.len();
        let token = self.tokens.get(id as usize).filter(|_| all_differ);
        token.is_some_and(|token| token.strip_prefix(left) == Some(right))
    }
}

/// Reads the merges of a vocabulary: for each pair of tokens its rank and the token that it makes.
/// `characters`: merges begin with characters in place of bytes.
fn merges(
    vocabulary: &Vocabulary<'_>,
    pieces: &Pieces,
    characters: bool,
) -> Result<HashMap<u64, (u32, u32)>> {
    if vocabulary.merges.is_empty() {
        let symbols = |piece: &[u8]| {
            if characters { String::from_utf8_lossy(piece).chars().count() } else { piece.len() }
        };
        let longer =
            pieces.iter().filter(|(_, kind, piece)| *kind == TokenType::Normal && symbols(piece) > 1).count();
        if longer > 0 {
            let symbol = if characters { "character" } else { "byte" };
            return Err(corrupt(format!(
                "the vocabulary has no merges, and {longer} of its tokens are longer than the {symbol} that text is made \
                 of without them"
            )));
        }
    }
    let ids = Spellings::new(&vocabulary.tokens);
    let mut merges = HashMap::with_capacity(vocabulary.merges.len());
    let mut whole = Vec::new();
    let mut last_made = 0;
    for (rank, &merge) in (0..NEVER).zip(&vocabulary.merges) {
        let fault = |what: String| {
            corrupt(format!("merge {rank} of the vocabulary, \"{}\", {what}", String::from_utf8_lossy(merge)))
        };
        // The left token has at least one byte, which may itself be a space.
        let space = merge.iter().skip(1).position(|&byte| byte == b' ').map(|position| position + 1);
        let Some((left, right)) = space.map(|space| (&merge[..space], &merge[space + 1..])) else {
            return Err(fault("isn't two tokens with a space between them".to_owned()));
        };
        let id = |token: &[u8]| {
            ids.get(token).ok_or_else(|| {
                fault(format!("names \"{}\", which is not among its tokens", String::from_utf8_lossy(token)))
            })
        };
        let pair = pair(id(left)?, id(right)?);
        // Most vocabularies have the tokens that merges make in the merges' order.
        let made = if ids.is_only(last_made + 1, left, right) {
            last_made + 1
        } else {
            whole.clear();
            whole.extend_from_slice(left);
            whole.extend_from_slice(right);
            id(&whole)?
        };
        last_made = made;
        // Plain text never becomes a special token, even where merges could spell it.
        if matches!(pieces.kind(made), Some(TokenType::Normal | TokenType::UserDefined)) {
            merges.entry(pair).or_insert((rank, made));
        }
    }
    Ok(merges)
}
