//! Byte-level BPE, and pieces of words: a list of tokens as `tokenizer.json` has them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::error::Result;
use super::super::meta::{Item, Meta};
use super::files::{Added, Files};
use super::{CONTROL, NORMAL, SPACE, UNUSED, USER_DEFINED};

/// Tokens with their kinds.
pub(super) struct Tokens {
    texts: Vec<String>,
    kinds: Vec<i32>,
}

impl Tokens {
    /// As many tokens as the model has; ids that the tokenizer leaves out become unused ones.
    pub(super) fn of(files: &Files, count: usize) -> Result<Self> {
        let mut texts: Vec<Option<&str>> = vec![None; count];
        let mut put = |id: usize, text| match texts.get_mut(id) {
            Some(place) => {
                *place = Some(text);
                Ok(())
            }
            None => {
                Err(files.bad(format_args!("{text:?} has the id {id}, where the model has {count} tokens")))
            }
        };
        for (text, id) in files.vocabulary()? {
            put(id, text)?;
        }
        let added: BTreeMap<usize, &Added> =
            files.added_by_settings.iter().chain(&files.added).map(|token| (token.id, token)).collect();
        for token in added.values() {
            put(token.id, &token.content)?;
        }
        let mut tokens = Self { texts: Vec::with_capacity(count), kinds: Vec::with_capacity(count) };
        for (id, text) in texts.into_iter().enumerate() {
            let (text, kind) = match (text, added.get(&id)) {
                (None, _) => (format!("[PAD{id}]"), UNUSED),
                (Some(text), None) => (text.to_owned(), NORMAL),
                (Some(text), Some(token)) if token.special || looks_special(text) => {
                    (text.to_owned(), CONTROL)
                }
                // Text as it is before it is cut into tokens.
                (Some(text), Some(_)) => (text.replace(SPACE, " "), USER_DEFINED),
            };
            tokens.texts.push(text);
            tokens.kinds.push(kind);
        }
        Ok(tokens)
    }

    /// Pieces of words with a mark on those that begin one, where BERT marks those that don't.
    pub(super) fn with_phantom_spaces(mut self) -> Self {
        for (text, kind) in self.texts.iter_mut().zip(&self.kinds) {
            if *kind != CONTROL {
                *text = match text.strip_prefix("##") {
                    Some(inner) => inner.to_owned(),
                    None => format!("{SPACE}{text}"),
                };
            }
        }
        self
    }

    pub(super) fn write(self, meta: &mut Meta) {
        meta.set("tokenizer.ggml.tokens", Item::Texts(self.texts));
        meta.set("tokenizer.ggml.token_type", Item::I32s(self.kinds));
    }
}

/// Whether a token steers by its looks: some checkpoints don't say so.
pub(super) fn looks_special(text: &str) -> bool {
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || text.starts_with("<|") && text.ends_with("|>")
        || text.starts_with("<\u{ff5c}") && text.ends_with("\u{ff5c}>")
        || text.starts_with("<unused") && text.ends_with('>')
}

/// The merges in order, of `tokenizer.json` or else of `merges.txt`. A space within a part is written as byte-level BPE has it.
pub(super) fn merges(files: &Files) -> Result<Vec<(String, String)>> {
    let list =
        files.tokenizer.as_ref().and_then(|tokenizer| tokenizer.get("model")?.get("merges")?.as_array());
    let list = list.map(Vec::as_slice).unwrap_or_default();
    let pair = |merge: &Value| match merge {
        Value::String(text) => text.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned())),
        Value::Array(parts) => match parts.as_slice() {
            [Value::String(left), Value::String(right)] => {
                Some((left.replace(' ', "\u{120}"), right.replace(' ', "\u{120}")))
            }
            _ => None,
        },
        _ => None,
    };
    let pairs = list.iter().map(|merge| {
        pair(merge).ok_or_else(|| {
            files.bad(format_args!(
                "a merge is {}, where two parts were expected",
                super::super::json::shown(merge)
            ))
        })
    });
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    if !pairs.is_empty() {
        return Ok(pairs);
    }
    let text = super::super::json::text(&files.folder.join("merges.txt"))?.unwrap_or_default();
    let lines = text.lines().enumerate().filter(|(number, line)| !(*number == 0 && line.starts_with('#')));
    let pairs: Vec<_> = lines
        .filter_map(|(_, line)| {
            let mut parts = line.split_whitespace();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(left), Some(right), None) => Some((left.to_owned(), right.to_owned())),
                _ => None,
            }
        })
        .collect();
    if pairs.is_empty() {
        return Err(files.bad("its model has no merges, which were expected"));
    }
    Ok(pairs)
}
