//! @NAME@: a HERALD plugin that offers a tokenizer, for vocabularies whose model (`tokenizer.ggml.model` in a GGUF file) is
//! `longest-match`: the longest token that the rest of the text begins with, again and again.
//!
//! To grow it: answer another model in `create`, or split the text before `encode` looks for tokens. HERALD's docs/PLUGINS.md has the
//! rules.

use std::collections::HashMap;

use herald_api::{
    DecodeOptions, EncodeOptions, Error, Hardware, Probe, Result, Status, TokenType, Tokenizer, TokenizerFactory,
    Vocabulary,
};

const MODEL: &str = "longest-match";

struct Tokenizers;

impl TokenizerFactory for Tokenizers {
    fn create(vocabulary: &Vocabulary<'_>) -> Result<Box<dyn Tokenizer>> {
        let Vocabulary { model, pre, tokens, unknown, .. } = vocabulary;
        // Never guess: the host asks the next plugin.
        if *model != MODEL || !pre.is_empty() || vocabulary.add_space_prefix || vocabulary.remove_extra_whitespace {
            return Err(Error::unsupported(format!(
                "only the tokenizer model {MODEL} without a pre-tokenizer is offered"
            )));
        }
        if let Some(id) = unknown.filter(|id| *id as usize >= tokens.len()) {
            let sentence = format!("the unknown token is {id} of {}", tokens.len());
            return Err(Error::new(Status::Corrupt, sentence));
        }
        let type_of = |id: usize| vocabulary.types.get(id).map_or(TokenType::Normal, |code| TokenType::from_code(*code));
        let token = |(id, bytes): (usize, &&[u8])| match type_of(id) {
            TokenType::Byte => Ok((vec![byte_of(bytes)?], TokenType::Byte)),
            kind => Ok((bytes.to_vec(), kind)),
        };
        let mut made = LongestMatch {
            tokens: tokens.iter().enumerate().map(token).collect::<Result<_>>()?,
            plain: HashMap::new(),
            special: HashMap::new(),
            longest: 0,
            longest_special: 0,
            unknown: *unknown,
        };
        for (id, (bytes, kind)) in made.tokens.iter().enumerate() {
            let map = match kind {
                TokenType::Normal | TokenType::UserDefined | TokenType::Byte => &mut made.plain,
                TokenType::Control => &mut made.special,
                _ => continue,
            };
            made.longest = made.longest.max(bytes.len());
            if *kind == TokenType::Control {
                made.longest_special = made.longest_special.max(bytes.len());
            }
            // Of tokens with the same bytes the first.
            map.entry(bytes.clone()).or_insert(id as u32);
        }
        Ok(Box::new(made))
    }
}

/// The byte of a token that is spelt `<0x0A>`.
fn byte_of(spelt: &[u8]) -> Result<u8> {
    let digits = spelt.strip_prefix(b"<0x").and_then(|rest| rest.strip_suffix(b">")).filter(|digits| digits.len() == 2);
    let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    byte.ok_or_else(|| Error::new(Status::Corrupt, "a token is a byte, but is not spelt <0x00> to <0xFF>"))
}

struct LongestMatch {
    tokens: Vec<(Vec<u8>, TokenType)>,
    /// Tokens that text may always spell.
    plain: HashMap<Vec<u8>, u32>,
    /// Those that it may only spell where the caller says so.
    special: HashMap<Vec<u8>, u32>,
    longest: usize,
    longest_special: usize,
    unknown: Option<u32>,
}

impl LongestMatch {
    /// The token of the longest run of bytes that `text` begins with, and its length.
    fn first(&self, text: &[u8], special: bool) -> Option<(u32, usize)> {
        let find = |bytes: &[u8]| {
            self.special.get(bytes).filter(|_| special).or_else(|| self.plain.get(bytes)).copied()
        };
        let mut most = self.longest.min(text.len());
        if special {
            // Not into a control token.
            most = (1..most).find(|at| self.begins_special(&text[*at..])).unwrap_or(most);
        }
        (1..=most).rev().find_map(|len| Some((find(&text[..len])?, len)))
    }

    fn begins_special(&self, text: &[u8]) -> bool {
        (1..=self.longest_special.min(text.len())).any(|len| self.special.contains_key(&text[..len]))
    }
}

impl Tokenizer for LongestMatch {
    fn encode(&self, text: &str, options: EncodeOptions, ids: &mut Vec<u32>) -> Result<()> {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let at = text.len() - rest.len();
            let (id, len) = match (self.first(rest, options.special), self.unknown) {
                (Some(found), _) => found,
                // A whole character of UTF-8.
                (None, Some(unknown)) => {
                    (unknown, rest.iter().skip(1).take_while(|byte| **byte & 0xC0 == 0x80).count() + 1)
                }
                (None, None) => {
                    return Err(Error::unsupported(format!("no token begins with byte 0x{:02X} at {at}", rest[0])));
                }
            };
            ids.push(id);
            rest = &rest[len..];
        }
        Ok(())
    }

    fn decode(&self, ids: &[u32], options: DecodeOptions, bytes: &mut Vec<u8>) -> Result<()> {
        for id in ids {
            let Some((token, kind)) = self.tokens.get(*id as usize) else {
                return Err(Error::invalid(format!("token {id} is outside a vocabulary of {}", self.tokens.len())));
            };
            if *kind != TokenType::Control || options.special {
                bytes.extend_from_slice(token);
            }
        }
        Ok(())
    }
}

/// Below the plugin `cpu`, which is asked first and knows no such model.
fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: 50, variant: "plain".to_owned() })
}

herald_api::export_plugin! {
    name: "@NAME@",
    version: env!("CARGO_PKG_VERSION"),
    description: "A tokenizer: the longest match",
    probe: probe,
    tokenizers: Tokenizers,
}
