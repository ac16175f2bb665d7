//! `tokenizer.model`: SentencePiece's own file, a message of Protocol Buffers.

use std::path::Path;

use serde_json::Value;

use super::super::error::{Result, bad_file};
use super::super::families::Model;
use super::super::json;
use super::super::meta::{Item, Meta};
use super::bytes::looks_special;
use super::files::{Added, Files};
use super::{CONTROL, NORMAL, SPACE, Style, UNUSED, USER_DEFINED};

/// Scores of tokens that are unused, and of those that were added.
const UNUSED_SCORE: f32 = -10000.0;
const ADDED_SCORE: f32 = -1000.0;

/// Numbers of fields: of the model, of a piece, of the trainer's and of the normalizer's settings.
const PIECES: u64 = 1;
const TRAINER: u64 = 2;
const NORMALIZER: u64 = 3;
const PIECE: u64 = 1;
const SCORE: u64 = 2;
const KIND: u64 = 3;
const MODEL_TYPE: u64 = 3;
const DUMMY_PREFIX: u64 = 3;

/// The trainer's number for BPE.
const BPE: u64 = 2;

/// A vocabulary in the making.
struct Vocabulary {
    texts: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i32>,
}

/// Writes SentencePiece's vocabulary, with the tokens that other files add.
pub(super) fn write(meta: &mut Meta, path: &Path, files: &Files, model: &Model) -> Result<()> {
    let bytes = json::bytes(path)?.unwrap_or_default();
    let count = model.tokens;
    let mut vocabulary = Vocabulary {
        texts: (0..count).map(|id| format!("[PAD{id}]")).collect(),
        scores: vec![UNUSED_SCORE; count],
        kinds: vec![UNUSED; count],
    };
    let damaged = |what: &str| bad_file(path, format!("no model of SentencePiece: {what}"));
    let parsed = parse(&bytes).map_err(damaged)?;
    if parsed.model_type != BPE {
        let kind = parsed.model_type;
        return Err(bad_file(
            path,
            format!("its model is of type {kind}, where {BPE}, which is BPE, was expected"),
        ));
    }
    for (id, piece) in parsed.pieces.into_iter().enumerate().take(count) {
        let kind = if piece.kind == USER_DEFINED { NORMAL } else { piece.kind };
        vocabulary.put(id, piece.text, piece.score, kind);
    }
    let beside = json::object(&files.folder.join("added_tokens.json"))?.unwrap_or_default();
    for (text, id) in beside {
        let id = id.as_u64().map(|id| id as usize).filter(|id| *id < count);
        if let Some(id) = id {
            vocabulary.put(id, text, ADDED_SCORE, USER_DEFINED);
        }
    }
    vocabulary.add(&files.added_by_settings, model.style);
    if model.style == Style::Phi3 {
        vocabulary.add(&files.added, model.style);
    }
    meta.set("tokenizer.ggml.model", "llama");
    meta.set("tokenizer.ggml.pre", "default");
    meta.set("tokenizer.ggml.tokens", Item::Texts(vocabulary.texts));
    meta.set("tokenizer.ggml.scores", Item::F32s(vocabulary.scores));
    meta.set("tokenizer.ggml.token_type", Item::I32s(vocabulary.kinds));
    let says = matches!(files.settings.get("add_prefix_space"), Some(Value::Bool(_)));
    if !parsed.dummy_prefix && !says {
        meta.set("tokenizer.ggml.add_space_prefix", false);
    }
    Ok(())
}

impl Vocabulary {
    fn put(&mut self, id: usize, text: String, score: f32, kind: i32) {
        let places = self.texts.get_mut(id).zip(self.scores.get_mut(id)).zip(self.kinds.get_mut(id));
        if let Some(((old_text, old_score), old_kind)) = places {
            (*old_text, *old_score, *old_kind) = (text, score, kind);
        }
    }

    /// Adds tokens, of which those beyond the model's are left out. Phi-3's are taken as they are called.
    fn add(&mut self, tokens: &[Added], style: Style) {
        for token in tokens {
            let is_control = token.special || style != Style::Phi3 && looks_special(&token.content);
            let (text, kind) = match is_control {
                true => (token.content.clone(), CONTROL),
                false if style == Style::Phi3 => (token.content.clone(), USER_DEFINED),
                false => (token.content.replace(SPACE, " "), USER_DEFINED),
            };
            self.put(token.id, text, ADDED_SCORE, kind);
        }
    }
}

struct Piece {
    text: String,
    score: f32,
    kind: i32,
}

struct Parsed {
    pieces: Vec<Piece>,
    model_type: u64,
    dummy_prefix: bool,
}

type Parse<T> = std::result::Result<T, &'static str>;

fn parse(bytes: &[u8]) -> Parse<Parsed> {
    // What isn't written has the default of SentencePiece's definition.
    let mut parsed = Parsed { pieces: Vec::new(), model_type: 1, dummy_prefix: true };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (PIECES, Field::Bytes(bytes)) => parsed.pieces.push(piece(bytes)?),
            (TRAINER, Field::Bytes(bytes)) => {
                let mut fields = Fields(bytes);
                while let Some((number, value)) = fields.next()? {
                    if let (MODEL_TYPE, Field::Number(kind)) = (number, value) {
                        parsed.model_type = kind;
                    }
                }
            }
            (NORMALIZER, Field::Bytes(bytes)) => {
                let mut fields = Fields(bytes);
                while let Some((number, value)) = fields.next()? {
                    if let (DUMMY_PREFIX, Field::Number(flag)) = (number, value) {
                        parsed.dummy_prefix = flag != 0;
                    }
                }
            }
            _ => {}
        }
    }
    if parsed.pieces.is_empty() {
        return Err("it has no pieces");
    }
    Ok(parsed)
}

fn piece(bytes: &[u8]) -> Parse<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: NORMAL };
    let mut fields = Fields(bytes);
    while let Some((number, value)) = fields.next()? {
        match (number, value) {
            (PIECE, Field::Bytes(text)) => {
                piece.text = str::from_utf8(text).map_err(|_| "a piece is no UTF-8")?.to_owned();
            }
            (SCORE, Field::Four(bytes)) => piece.score = f32::from_le_bytes(bytes),
            (KIND, Field::Number(kind)) => {
                piece.kind = i32::try_from(kind)
                    .ok()
                    .filter(|kind| (1..=6).contains(kind))
                    .ok_or("a piece is of no known kind")?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

/// A field of a message.
enum Field<'b> {
    Number(u64),
    Four([u8; 4]),
    Bytes(&'b [u8]),
    Other,
}

/// The fields of a message of Protocol Buffers (<https://protobuf.dev/programming-guides/encoding>).
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn next(&mut self) -> Parse<Option<(u64, Field<'b>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let field = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = usize::try_from(self.number()?).map_err(|_| "a length is too large")?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Four(self.take(4)?.try_into().map_err(|_| "it is cut short")?),
            _ => return Err("a field is of no known type"),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn number(&mut self) -> Parse<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?.first().copied().unwrap_or_default();
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                return Ok(number);
            }
        }
        Err("a number is too long")
    }

    fn take(&mut self, count: usize) -> Parse<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or("it is cut short")?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_models_are_refused() {
        // A piece "a" with score 1 and kind 1, and a trainer of BPE.
        let whole = [&[10, 10, 10, 1, b'a', 21, 0, 0, 128, 63, 24, 1][..], &[18, 2, 24, 2]].concat();
        let parsed = parse(&whole).unwrap();
        assert_eq!(
            (parsed.pieces[0].text.as_str(), parsed.pieces[0].score, parsed.model_type),
            ("a", 1.0, 2)
        );
        for cut in 1..whole.len() {
            assert!(cut == 12 || parse(&whole[..cut]).is_err(), "{cut}");
        }
        for wrong in [&[10, 2, 24, 9][..], &[7], &[10, 3, 10, 1, 0xff], &[255; 11], b""] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
