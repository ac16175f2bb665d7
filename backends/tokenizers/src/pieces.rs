//! What every tokenizer keeps of its vocabulary: the bytes and type of each token, and the way back from bytes to id.

use hashbrown::{DefaultHashBuilder, HashTable};
use herald_api::{DecodeOptions, Error, Result, Status, TokenType, Vocabulary};
use std::hash::BuildHasher;

/// Stands for "no token" where an id is kept; [`Pieces::new`] sees to it that no token has it.
pub(crate) const NO_TOKEN: u32 = u32::MAX;

/// The tokens of a vocabulary as the bytes that they stand for in text.
pub(crate) struct Pieces {
    /// The bytes of all tokens, one after another.
    bytes: Vec<u8>,
    /// Where in `bytes` each token ends.
    ends: Vec<u32>,
    types: Vec<TokenType>,
}

impl Pieces {
    /// Takes over the tokens of `vocabulary`; `spell` appends the bytes that one token stands for in text.
    pub(crate) fn new(
        vocabulary: &Vocabulary<'_>,
        spell: impl Fn(&[u8], TokenType, &mut Vec<u8>),
    ) -> Result<Self> {
        let tokens = vocabulary.tokens.len();
        if tokens == 0 {
            return Err(corrupt("the vocabulary has no tokens"));
        }
        if tokens >= NO_TOKEN as usize {
            return Err(corrupt(format!(
                "the vocabulary has {tokens} tokens, and at most {NO_TOKEN} are allowed"
            )));
        }
        check_length("token types", vocabulary.types.len(), tokens)?;
        check_length("scores", vocabulary.scores.len(), tokens)?;
        check_length("strips", vocabulary.strips.len(), tokens)?;
        if let Some(unknown) = vocabulary.unknown.filter(|&id| id as usize >= tokens) {
            return Err(corrupt(format!(
                "the vocabulary's unknown token is {unknown}, and its tokens are numbered from 0 to {}",
                tokens - 1
            )));
        }
        let types: Vec<TokenType> = match vocabulary.types {
            [] => vec![TokenType::Normal; tokens],
            types => types.iter().map(|&code| TokenType::from_code(code)).collect(),
        };
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(tokens));
        for (token, &kind) in vocabulary.tokens.iter().zip(&types) {
            spell(token, kind, &mut bytes);
            let end = u32::try_from(bytes.len()).map_err(|_| {
                corrupt("the vocabulary's tokens take more than 4 GiB, which is the most allowed")
            })?;
            ends.push(end);
        }
        Ok(Self { bytes, ends, types })
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes that a token stands for; none where `id` is outside the vocabulary.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends.get(id - 1).copied().unwrap_or(0) };
        let end = self.ends.get(id).copied().unwrap_or(start);
        self.bytes.get(start as usize..end as usize).unwrap_or_default()
    }

    /// Every token's id, type and bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, TokenType, &[u8])> {
        (0..).zip(&self.types).map(|(id, &kind)| (id, kind, self.get(id)))
    }

    /// The type of a token in the vocabulary.
    pub(crate) fn kind(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    /// Appends the bytes of `ids`, as [`herald_api::Tokenizer::decode`] says. `space_prefix`: text was encoded with a
    /// space before it, which goes again where these tokens begin a text.
    ///
    /// Only the first token decides on that space: whether a later one follows something visible is not known where a
    /// text is decoded in parts.
    pub(crate) fn decode(
        &self,
        ids: &[u32],
        options: DecodeOptions,
        space_prefix: bool,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let mut strip = space_prefix && !options.continues;
        for (position, &id) in ids.iter().enumerate() {
            let kind = self.kind(id).ok_or_else(|| {
                Error::invalid(format!(
                    "token {id} at position {position} is outside the vocabulary, whose tokens are numbered from 0 to {}",
                    self.len() - 1
                ))
            })?;
            let special = matches!(kind, TokenType::Control | TokenType::Unknown);
            let mut piece = self.get(id);
            if strip && !special && kind != TokenType::UserDefined {
                piece = piece.strip_prefix(b" ").unwrap_or(piece);
            }
            strip = false;
            if !special || options.special {
                bytes.extend_from_slice(piece);
            }
        }
        Ok(())
    }
}

/// From the bytes of a word to the token that stands for all of it: normal tokens only, since no other kind comes from
/// plain text. Of tokens that stand for the same bytes the first wins.
pub(crate) struct Index {
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    longest: usize,
}

impl Index {
    /// Indexes the normal tokens of `pieces`; those that stand for nothing are left out.
    pub(crate) fn new(pieces: &Pieces) -> Self {
        let hasher = DefaultHashBuilder::default();
        let mut table = HashTable::with_capacity(pieces.len());
        let mut longest = 0;
        for (id, _, piece) in
            pieces.iter().filter(|(_, kind, piece)| *kind == TokenType::Normal && !piece.is_empty())
        {
            longest = longest.max(piece.len());
            table
                .entry(
                    hasher.hash_one(piece),
                    |&other| pieces.get(other) == piece,
                    |&other| hasher.hash_one(pieces.get(other)),
                )
                .or_insert(id);
        }
        Self { table, hasher, longest }
    }

    /// The token that stands for exactly these bytes.
    #[inline]
    pub(crate) fn get(&self, pieces: &Pieces, word: &[u8]) -> Option<u32> {
        if word.len() > self.longest {
            return None;
        }
        self.table.find(self.hasher.hash_one(word), |&id| pieces.get(id) == word).copied()
    }
}

/// The tokens that stand for single bytes, which spell what the vocabulary has no other token for.
pub(crate) struct ByteTokens(Box<[u32; 256]>);

impl ByteTokens {
    /// Of several tokens of the same byte the first wins.
    pub(crate) fn new(pieces: &Pieces) -> Self {
        let mut tokens = Box::new([NO_TOKEN; 256]);
        for (id, _, piece) in pieces.iter().filter(|(_, kind, _)| *kind == TokenType::Byte) {
            if let &[byte] = piece
                && tokens[usize::from(byte)] == NO_TOKEN
            {
                tokens[usize::from(byte)] = id;
            }
        }
        Self(tokens)
    }

    /// The tokens of these bytes; none where one of them has no token.
    #[inline]
    pub(crate) fn spell<'a>(&'a self, text: &'a [u8]) -> Option<impl Iterator<Item = u32> + 'a> {
        let tokens = text.iter().map(|&byte| self.0[usize::from(byte)]);
        tokens.clone().all(|token| token != NO_TOKEN).then_some(tokens)
    }
}

/// The byte that a token such as `<0x0A>` stands for.
pub(crate) fn parse_byte(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok()
}

/// A vocabulary that contradicts itself.
pub(crate) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Status::Corrupt, message)
}

/// Checks that a list that goes with the tokens, where it is given at all, has an entry for each of them.
fn check_length(what: &str, length: usize, tokens: usize) -> Result<()> {
    if length == 0 || length == tokens {
        return Ok(());
    }
    Err(corrupt(format!(
        "the vocabulary has {length} {what}, and one for each of its {tokens} tokens was expected"
    )))
}
