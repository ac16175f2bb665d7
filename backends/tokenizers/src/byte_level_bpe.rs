//! Byte-level BPE (Radford et al., 2019): every text is a sequence of bytes, so with all 256 of them in the vocabulary
//! there is nothing that it can't express, and what is encoded decodes to the same bytes.

use crate::byte_alphabet;
use crate::merge::{Merger, NEVER, Symbol, check_size};
use crate::pieces::{Index, NO_TOKEN, Pieces, corrupt, parse_byte};
use crate::pretokenize::PreTokenizer;
use crate::specials::{Part, Specials};
use crate::whole_words::WholeWords;
use hashbrown::HashMap;
use herald_api::{DecodeOptions, EncodeOptions, Error, Result, TokenType, Tokenizer, Vocabulary};

/// A byte-level BPE vocabulary, ready to encode and decode.
pub(crate) struct ByteLevelBpe {
    pieces: Pieces,
    index: Index,
    specials: Specials,
    pre_tokenizer: PreTokenizer,
    /// The token of each byte, or [`NO_TOKEN`].
    bytes: [u32; 256],
    /// The rank of each pair of tokens that merges (the left one in the upper half), and the token that it makes.
    merges: HashMap<u64, (u32, u32)>,
    whole: WholeWords,
    unknown: Option<u32>,
}

impl ByteLevelBpe {
    pub(crate) fn new(vocabulary: &Vocabulary<'_>) -> Result<Self> {
        let pre_tokenizer = PreTokenizer::named(vocabulary.pre)?;
        let pieces = Pieces::new(vocabulary, |token, kind, bytes| match kind {
            TokenType::Normal | TokenType::Unused => byte_alphabet::decode_into(token, bytes),
            TokenType::Byte => match parse_byte(token) {
                Some(byte) => bytes.push(byte),
                None => bytes.extend_from_slice(token),
            },
            TokenType::Unknown | TokenType::Control | TokenType::UserDefined => {
                bytes.extend_from_slice(token)
            }
        })?;
        let index = Index::new(&pieces);
        let merges = merges(vocabulary, &pieces)?;
        let byte = |byte: usize| index.get(&pieces, &[byte as u8]).unwrap_or(NO_TOKEN);
        // A special token in the place of a byte would let plain text end the text or a turn.
        let unknown = vocabulary.unknown.filter(|&id| pieces.kind(id) != Some(TokenType::Control));
        Ok(Self {
            bytes: std::array::from_fn(byte),
            specials: Specials::new(&pieces)?,
            whole: WholeWords::new(if pre_tokenizer.whole_words { 0 } else { pieces.len() }),
            pre_tokenizer,
            merges,
            unknown,
            index,
            pieces,
        })
    }

    /// Appends the tokens of one word, which isn't empty.
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
        for (position, byte) in (0..).zip(word.bytes()) {
            let token = self.bytes[usize::from(byte)];
            merger.push(Symbol { start: position, end: position + 1, token });
        }
        merger.merge(|left, right| {
            let pair = pair(left.token, right.token);
            self.merges.get(&pair).copied().unwrap_or((NEVER, NO_TOKEN))
        });
        for symbol in merger.symbols() {
            match (symbol.token, self.unknown) {
                (NO_TOKEN, Some(unknown)) => ids.push(unknown),
                (NO_TOKEN, None) => {
                    return Err(Error::unsupported(format!(
                        "the vocabulary has no token for the byte 0x{:02X} of \"{}\", and no unknown token \
                         that text may become",
                        word.as_bytes()[symbol.start as usize],
                        word.chars().take(40).collect::<String>().escape_debug()
                    )));
                }
                (token, _) => ids.push(token),
            }
        }
        Ok(())
    }
}

impl Tokenizer for ByteLevelBpe {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        check_size(text)?;
        let mut merger = Merger::default();
        self.specials.partition(text, options.special, |part| match part {
            Part::Token(id) => {
                ids.push(id);
                Ok(())
            }
            Part::Text(text) => {
                let mut result = Ok(());
                self.pre_tokenizer.split(text, |word| {
                    if result.is_ok() {
                        result = self.encode_word(word, &mut merger, ids);
                    }
                });
                result
            }
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

/// Reads the merges of a vocabulary: for each pair of tokens its rank and the token that it makes.
fn merges(vocabulary: &Vocabulary<'_>, pieces: &Pieces) -> Result<HashMap<u64, (u32, u32)>> {
    if vocabulary.merges.is_empty() {
        let longer =
            pieces.iter().filter(|(_, kind, piece)| *kind == TokenType::Normal && piece.len() > 1).count();
        if longer > 0 {
            return Err(corrupt(format!(
                "the vocabulary has no merges, and {longer} of its tokens are longer than the byte that text is made of \
                 without them"
            )));
        }
    }
    let mut ids = HashMap::with_capacity(vocabulary.tokens.len());
    for (id, &token) in (0..).zip(&vocabulary.tokens) {
        ids.entry(token).or_insert(id);
    }
    let mut merges = HashMap::with_capacity(vocabulary.merges.len());
    let mut whole = Vec::new();
    for (rank, &merge) in (0..NEVER).zip(&vocabulary.merges) {
        let fault = |what: String| {
            corrupt(format!("merge {rank} of the vocabulary, \"{}\", {what}", String::from_utf8_lossy(merge)))
        };
        // The left token has at least one byte, which may itself be a space.
        let space = merge.iter().skip(1).position(|&byte| byte == b' ').map(|position| position + 1);
        let Some((left, right)) = space.map(|space| (&merge[..space], &merge[space + 1..])) else {
            return Err(fault("isn't two tokens with a space between them".to_owned()));
        };
        whole.clear();
        whole.extend_from_slice(left);
        whole.extend_from_slice(right);
        let id = |token: &[u8]| {
            ids.get(token).copied().ok_or_else(|| {
                fault(format!("names \"{}\", which is not among its tokens", String::from_utf8_lossy(token)))
            })
        };
        let (left, right, made) = (id(left)?, id(right)?, id(&whole)?);
        // Plain text never becomes a special token, even where merges could spell it.
        if matches!(pieces.kind(made), Some(TokenType::Normal | TokenType::UserDefined)) {
            merges.entry(pair(left, right)).or_insert((rank, made));
        }
    }
    Ok(merges)
}
