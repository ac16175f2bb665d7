//! SentencePiece's BPE as `tokenizer.json` has it: merges of characters, with bytes for those that are no tokens.

use std::collections::HashMap;

use serde_json::Value;

use super::super::error::Result;
use super::super::families::Model;
use super::super::meta::{Item, Meta};
use super::bytes::{looks_special, merges};
use super::files::{Added, Files};
use super::{BYTE, CONTROL, NORMAL, SPACE, UNKNOWN, UNUSED, USER_DEFINED};

/// The score of tokens that no merge makes.
const NO_MERGE: f32 = -1000.0;

/// Writes the vocabulary as one of SentencePiece. A token's score is the rank of the merge that makes it, which has the same words
/// merged in the same order; llama.cpp's converter gives all the same score.
pub(super) fn write(meta: &mut Meta, files: &Files, model: &Model) -> Result<()> {
    let count = model.tokens;
    let mut ranks: HashMap<String, usize> = HashMap::new();
    for (rank, (left, right)) in merges(files)?.into_iter().enumerate() {
        ranks.entry(left + &right).or_insert(rank);
    }
    let added: HashMap<usize, &Added> =
        files.added_by_settings.iter().chain(&files.added).map(|token| (token.id, token)).collect();
    let unknown =
        files.tokenizer.as_ref().and_then(|tokenizer| tokenizer.get("model")?.get("unk_token")?.as_str());
    let mut texts: Vec<String> = (0..count).map(|id| format!("[PAD{id}]")).collect();
    let mut scores = vec![NO_MERGE; count];
    let mut kinds = vec![UNUSED; count];
    let vocabulary = files.vocabulary()?;
    let of_added = added.iter().map(|(id, token)| (token.content.as_str(), *id));
    for (text, id) in vocabulary.into_iter().chain(of_added) {
        let places = texts.get_mut(id).zip(scores.get_mut(id)).zip(kinds.get_mut(id));
        let Some(((place, score), kind)) = places else {
            return Err(
                files.bad(format_args!("{text:?} has the id {id}, where the model has {count} tokens"))
            );
        };
        *kind = match added.get(&id) {
            _ if Some(text) == unknown => UNKNOWN,
            Some(token) if token.special || looks_special(text) => CONTROL,
            Some(_) => USER_DEFINED,
            None if is_byte(text) => BYTE,
            None => NORMAL,
        };
        *place = if *kind == USER_DEFINED { text.replace(SPACE, " ") } else { text.to_owned() };
        *score = ranks.get(text).map_or(NO_MERGE.min(-(ranks.len() as f32)), |rank| -(*rank as f32));
    }
    meta.set("tokenizer.ggml.model", "llama");
    meta.set("tokenizer.ggml.pre", "default");
    meta.set("tokenizer.ggml.tokens", Item::Texts(texts));
    meta.set("tokenizer.ggml.scores", Item::F32s(scores));
    meta.set("tokenizer.ggml.token_type", Item::I32s(kinds));
    if !has_prefix(files) {
        meta.set("tokenizer.ggml.add_space_prefix", false);
    }
    Ok(())
}

fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether texts get a space before them: by the normalizer, or by the pre-tokenizer.
fn has_prefix(files: &Files) -> bool {
    let part = |key: &str| files.tokenizer.as_ref().and_then(|tokenizer| tokenizer.get(key)).cloned();
    let steps = |value: Value, inner: &str| match value.get(inner) {
        Some(Value::Array(list)) => list.clone(),
        _ => vec![value],
    };
    let kind = |step: &Value, wanted: &str| step.get("type").and_then(Value::as_str) == Some(wanted);
    let prepends = part("normalizer")
        .is_some_and(|normalizer| steps(normalizer, "normalizers").iter().any(|step| kind(step, "Prepend")));
    let scheme = |step: &Value| {
        step.get("prepend_scheme").and_then(Value::as_str).is_none_or(|scheme| scheme != "never")
    };
    let metaspace = part("pre_tokenizer").is_some_and(|pre| {
        steps(pre, "pretokenizers").iter().any(|step| kind(step, "Metaspace") && scheme(step))
    });
    prepends || metaspace
}
