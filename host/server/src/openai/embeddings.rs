//! `/v1/embeddings`, and what Ollama's API asks of the same.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Json;
use serde_json::{Value, json};

use herald::{EmbedOptions, Stop};

use crate::error::ApiError;
use crate::fields::{Body, EMBEDDINGS, wrong};
use crate::job::{Source, sources};
use crate::models::Model;
use crate::{App, Shared, checked};

/// The most texts in a request.
pub(super) const MAX_TEXTS: usize = 2048;

/// Embeddings of texts, and how many tokens they have.
pub(crate) struct Embedded {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) n_tokens: usize,
}

/// Ends the work when the client leaves.
pub(super) struct Leaving(pub(super) Stop);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Makes embeddings of length 1, or of their first `dimensions`.
///
/// # Errors
/// Where a text has no tokens or doesn't fit, or the model has fewer dimensions.
pub(crate) async fn embed(
    shared: &Shared,
    model: Arc<Model>,
    texts: Vec<Source>,
    dimensions: Option<usize>,
) -> Result<Embedded, ApiError> {
    if texts.len() > MAX_TEXTS {
        return Err(wrong("input", &format!("{} texts", texts.len()), &format!("at most {MAX_TEXTS}")));
    }
    let stop = Stop::default();
    let _leaving = Leaving(stop.clone());
    let work = move || {
        let engine = model.scheduler.engine();
        let most = engine.embedding_len();
        if let Some(dimensions) = dimensions.filter(|dimensions| *dimensions == 0 || *dimensions > most) {
            let expected = format!("a number from 1 to {most}, which the model has");
            return Err(wrong("dimensions", &dimensions.to_string(), &expected));
        }
        let options = EmbedOptions { pooling: None, normalize: true, stop: Some(stop) };
        let mut embedded = Embedded { vectors: Vec::new(), n_tokens: 0 };
        for source in &texts {
            let ids = match source {
                Source::Ids(ids) => ids.clone(),
                Source::Text { text, .. } => engine.encode_prompt(text, false)?,
                Source::Chat(_) | Source::Fill { .. } => Vec::new(),
            };
            embedded.n_tokens += ids.len();
            let mut made = match source {
                Source::Text { text, .. } => engine.embed_texts(&[text.as_str()], &options)?,
                _ => engine.embed_ids(&[ids.as_slice()], &options)?,
            };
            embedded.vectors.append(&mut made);
        }
        if let Some(dimensions) = dimensions {
            embedded.vectors.iter_mut().for_each(|vector| shorten(vector, dimensions));
        }
        Ok(embedded)
    };
    shared.preparing.embedding(work).await
}

/// Keeps the first dimensions, at length 1.
fn shorten(vector: &mut Vec<f32>, dimensions: usize) {
    vector.truncate(dimensions);
    let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}

/// Bytes in base64 ([RFC 4648](https://www.rfc-editor.org/rfc/rfc4648#section-4)).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let part = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

pub(crate) async fn embeddings(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut body = Body::read(&EMBEDDINGS, &checked(&shared, &headers, body)?)?;
    let input = body.any("input");
    let texts = sources("input", &body.needed("input", input)?, false, true)?;
    let as_base64 = match body.text("encoding_format").as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => return Err(wrong("encoding_format", &format!("{other:?}"), "float or base64")),
    };
    let dimensions = body.count("dimensions")?;
    let model = body.text("model");
    body.done()?;
    let model = shared.models.get(model.as_deref()).await?;
    let Embedded { vectors, n_tokens } = embed(&shared, Arc::clone(&model), texts, dimensions).await?;
    let shown = |vector: Vec<f32>| -> Value {
        if as_base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            base64(&bytes).into()
        } else {
            vector.into()
        }
    };
    let data = vectors.into_iter().enumerate();
    let data: Vec<Value> = data
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": shown(vector)}))
        .collect();
    let usage = json!({"prompt_tokens": n_tokens, "total_tokens": n_tokens});
    Ok(Json(json!({"object": "list", "data": data, "model": model.name, "usage": usage})))
}

#[cfg(test)]
mod tests {
    use super::base64;

    /// The examples of RFC 4648, section 10.
    #[test]
    fn base64_as_the_rfc_has_it() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }
}
