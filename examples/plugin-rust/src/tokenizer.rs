//! The tokenizer: at each position, the longest token of the vocabulary that matches the text.

use herald_api::{
    DecodeOptions, EncodeOptions, Error, Result, Status, TokenType, Tokenizer, TokenizerFactory, Vocabulary,
};

/// The plugin's tokenizers.
pub struct Tokenizers;

const MODEL: &str = "longest-match";

impl TokenizerFactory for Tokenizers {
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        let corrupt = |what: String| Error::new(Status::Corrupt, what);
        if vocabulary.model != MODEL {
            let model = vocabulary.model;
            return Err(Error::unsupported(format!(
                "the tokenizer model {model:?} is not offered, only {MODEL:?}"
            )));
        }
        if !vocabulary.pre.is_empty() || vocabulary.add_space_prefix || vocabulary.remove_extra_whitespace {
            return Err(Error::unsupported("pre-tokenizers and SentencePiece's flags are not offered"));
        }
        let n = vocabulary.tokens.len();
        if let Some(unknown) = vocabulary.unknown.filter(|id| *id as usize >= n) {
            return Err(corrupt(format!("the unknown token is {unknown} of a vocabulary of {n}")));
        }
        let mut tokens = Vec::with_capacity(n);
        for (id, spelt) in vocabulary.tokens.iter().enumerate() {
            let kind = vocabulary.types.get(id).map_or(TokenType::Normal, |code| TokenType::from_code(*code));
            let bytes = match kind {
                TokenType::Byte => vec![byte(spelt).ok_or_else(|| {
                    corrupt(format!("token {id} is a byte, but is not spelt <0x00> to <0xFF>"))
                })?],
                _ => spelt.to_vec(),
            };
            tokens.push(Token { bytes, kind });
        }
        let produced = |token: &Token| {
            !token.bytes.is_empty() && !matches!(token.kind, TokenType::Unknown | TokenType::Unused)
        };
        let mut matched: Vec<u32> =
            (0_u32..).zip(&tokens).filter(|(_, token)| produced(token)).map(|(id, _)| id).collect();
        // By bytes; among equals special tokens last, then by id.
        matched.sort_by(|a, b| {
            let (left, right) = (&tokens[*a as usize], &tokens[*b as usize]);
            (&left.bytes, left.special(), a).cmp(&(&right.bytes, right.special(), b))
        });
        Ok(Box::new(LongestMatch { tokens, matched, unknown: vocabulary.unknown }))
    }
}

/// The byte that a token like `<0x0A>` stands for.
fn byte(spelt: &[u8]) -> Option<u8> {
    let digits = spelt.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let [high, low] = digits else { return None };
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

struct Token {
    bytes: Vec<u8>,
    kind: TokenType,
}

impl Token {
    fn special(&self) -> bool {
        self.kind == TokenType::Control
    }
}

struct LongestMatch {
    tokens: Vec<Token>,
    /// The ids of the tokens that text can produce, sorted by bytes.
    matched: Vec<u32>,
    unknown: Option<u32>,
}

impl LongestMatch {
    /// The longest token that the text begins with. Tokens with the same first bytes are adjacent, so each further byte
    /// narrows a range of the table.
    fn longest(&self, text: &[u8], special: bool) -> Option<u32> {
        let token = |id: &u32| &self.tokens[*id as usize];
        let (mut range, mut found) = (&self.matched[..], None);
        for (depth, byte) in text.iter().enumerate() {
            // A token that ends here has no byte at this depth: `None` is less than any byte.
            let low = range.partition_point(|id| token(id).bytes.get(depth) < Some(byte));
            let high = range.partition_point(|id| token(id).bytes.get(depth) <= Some(byte));
            range = &range[low..high];
            let Some(first) = range.first() else { break };
            // The first token that ends here is not special, unless all are.
            if token(first).bytes.len() == depth + 1 && (special || !token(first).special()) {
                found = Some(*first);
            }
        }
        found
    }
}

impl Tokenizer for LongestMatch {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        let mut rest = text.as_bytes();
        while let Some(byte) = rest.first() {
            let (id, len) = match self.longest(rest, options.special) {
                Some(id) => (id, self.tokens[id as usize].bytes.len()),
                None => {
                    let unknown = self.unknown.ok_or_else(|| {
                        let at = text.len() - rest.len();
                        Error::unsupported(format!(
                            "byte {at} of the text, {byte:#04x}, is in no token, and the vocabulary has no unknown token"
                        ))
                    })?;
                    (unknown, 1)
                }
            };
            ids.push(id);
            rest = &rest[len..];
        }
        Ok(())
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        for id in ids {
            let token = self.tokens.get(*id as usize).ok_or_else(|| {
                let n = self.tokens.len();
                Error::invalid(format!("the id {id} is outside the vocabulary of {n} tokens"))
            })?;
            if options.special || !token.special() {
                bytes.extend_from_slice(&token.bytes);
            }
        }
        Ok(())
    }
}
