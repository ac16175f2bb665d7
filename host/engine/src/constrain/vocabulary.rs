//! The model's tokens as `llguidance` wants them, and the forms made over them.

use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};

use super::Constraint;
use super::compile::Compiler;
use super::gbnf;
use super::schema::normalised;
use super::way::Pathfinder;
use crate::error::{Error, Result};
use crate::stop::Stop;
use crate::tokenizer::AscTokenizer;

/// The longest regular expression, in bytes: parsed, it takes a hundred times as much.
const MAX_REGEX: usize = 256 << 10;

/// The longest JSON schema, in bytes.
const MAX_SCHEMA: usize = 1 << 20;

/// The tokens' bytes, in a tree.
struct Tokens(TokTrie);

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.0
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.0.greedy_tokenize(text)
    }

    /// The model chooses how a text is divided into tokens.
    fn tokenize_is_canonical(&self) -> bool {
        false
    }
}

/// Makes forms for a model.
pub(crate) struct Forms {
    compiler: Compiler,
}

impl Forms {
    /// For logits of `vocabulary` tokens.
    pub(crate) fn new(tokenizer: &AscTokenizer, vocabulary: usize) -> Result<Self> {
        let ends: Vec<TokenId> =
            (0..vocabulary as u32).filter(|token| tokenizer.ends_generation(*token)).collect();
        // One id more, which no logit belongs to, stands for the end in models that have no token for it.
        let nothing = vocabulary as u32;
        let mut words = Vec::with_capacity(vocabulary + 1);
        for token in 0..vocabulary as u32 {
            words.push(word(tokenizer, token)?);
        }
        words.push(special(b"<end>"));
        let info = TokRxInfo::new(nothing + 1, ends.first().copied().unwrap_or(nothing));
        let trie = TokTrie::from(&info, &words);
        let trie = if ends.is_empty() { trie } else { trie.with_eos_tokens(&ends) };
        let tokens: Arc<dyn TokenizerEnv + Sync> = Arc::new(Tokens(trie));
        let mut factory = ParserFactory::new_simple(&tokens)
            .map_err(|error| Error::Constraint(format!("the vocabulary can't be constrained: {error}")))?;
        // It would write warnings to stderr by itself.
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Self { compiler: Compiler::new(factory) })
    }

    /// The state of a form at its beginning.
    pub(super) fn matcher(
        &self,
        constraint: &Constraint,
        stop: Option<&Stop>,
    ) -> Result<(Matcher, Option<Pathfinder>)> {
        let (what, size, most) = match constraint {
            Constraint::JsonSchema(schema) => ("JSON schema", schema.to_string().len(), MAX_SCHEMA),
            Constraint::Regex(regex) => ("regular expression", regex.len(), MAX_REGEX),
            Constraint::Lark(text) | Constraint::Gbnf(text) => ("grammar", text.len(), MAX_SCHEMA),
        };
        if size > most {
            return Err(Error::Constraint(format!(
                "the {what} has {size} bytes, where at most {most} were expected"
            )));
        }
        let (what, grammar) = match constraint {
            Constraint::JsonSchema(schema) => {
                ("JSON schema", TopLevelGrammar::from_json_schema(with_spaces(&normalised(schema)?)))
            }
            Constraint::Regex(regex) => ("regular expression", TopLevelGrammar::from_regex(regex)),
            Constraint::Lark(lark) => ("grammar", TopLevelGrammar::from_lark(lark.clone())),
            Constraint::Gbnf(text) => {
                let lark = gbnf::to_lark(text)
                    .map_err(|what| Error::Constraint(format!("the grammar can't be used: {what}")))?;
                ("grammar", TopLevelGrammar::from_lark(lark))
            }
        };
        self.compiler.compile(what, grammar, stop)
    }
}

/// A token's bytes; special tokens are set apart, so that none of them is mistaken for its text.
fn word(tokenizer: &AscTokenizer, token: u32) -> Result<Vec<u8>> {
    let text = tokenizer.token_bytes(token, true)?;
    if tokenizer.token_bytes(token, false)? != text || tokenizer.ends_generation(token) {
        return Ok(special(&text));
    }
    // This byte begins special tokens, and is none of UTF-8, so no form allows it.
    Ok(if text.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) { Vec::new() } else { text })
}

fn special(text: &[u8]) -> Vec<u8> {
    [&[TokTrie::SPECIAL_TOKEN_MARKER], text].concat()
}

/// The schema, with what it leaves open of JSON's white space decided as models have read it most. (With any white space
/// allowed, a small model may write nothing else.)
fn with_spaces(schema: &Value) -> Value {
    let mut schema = if schema.is_object() { schema.clone() } else { json!({}) };
    if schema.get("x-guidance").is_none() {
        schema["x-guidance"] =
            json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    }
    schema
}
