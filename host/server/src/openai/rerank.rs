//! `/v1/rerank`: documents by how well they answer a query, in the form that Cohere's and Jina's APIs share.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Json;
use serde_json::{Value, json};

use herald::Stop;

use super::embeddings::{Leaving, MAX_TEXTS};
use crate::error::ApiError;
use crate::fields::{Body, RERANK, wrong};
use crate::{App, checked};

/// What is asked.
#[derive(Debug)]
struct Asked {
    model: Option<String>,
    query: String,
    documents: Vec<String>,
    /// How many of the best are given.
    top: usize,
    gives_documents: bool,
}

pub(crate) async fn rerank(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked = read(&checked(&shared, &headers, body)?)?;
    let model = shared.models.get(asked.model.as_deref()).await?;
    let stop = Stop::default();
    let _leaving = Leaving(stop.clone());
    let of_work = Arc::clone(&model);
    let work = move || {
        let engine = of_work.scheduler.engine();
        let texts = || std::iter::once(&asked.query).chain(&asked.documents);
        texts().try_for_each(|text| engine.check_text(text))?;
        let pairs = asked.documents.iter().map(|document| engine.rank_ids(&asked.query, document));
        let pairs = pairs.collect::<Result<Vec<Vec<u32>>, _>>()?;
        let ids: Vec<&[u32]> = pairs.iter().map(Vec::as_slice).collect();
        let scores = engine.rank_pairs(&ids, Some(&stop))?;
        Ok((asked, scores, pairs.iter().map(Vec::len).sum::<usize>()))
    };
    let (asked, scores, n_tokens) = shared.preparing.embedding(work).await?;
    let results: Vec<Value> = best(&scores, asked.top)
        .into_iter()
        .map(|index| {
            let mut result = json!({"index": index, "relevance_score": scores[index]});
            if asked.gives_documents {
                result["document"] = json!({"text": asked.documents[index]});
            }
            result
        })
        .collect();
    let usage = json!({"prompt_tokens": n_tokens, "total_tokens": n_tokens});
    Ok(Json(json!({"object": "list", "model": model.name, "results": results, "usage": usage})))
}

/// Reads a body.
///
/// # Errors
/// Where a field won't do.
fn read(bytes: &[u8]) -> Result<Asked, ApiError> {
    let mut body = Body::read(&RERANK, bytes)?;
    let query = body.text("query");
    let query = body.needed("query", query)?;
    let list = body.list("documents").or(body.list("texts"));
    let documents = body.needed("documents", list)?;
    if documents.is_empty() || documents.len() > MAX_TEXTS {
        let expected = format!("1 to {MAX_TEXTS} documents");
        return Err(wrong("documents", &format!("a list of {}", documents.len()), &expected));
    }
    let documents = documents.iter().enumerate().map(|(index, document)| {
        let text = document.as_str().or_else(|| document.get("text").and_then(Value::as_str));
        text.map(str::to_owned).ok_or_else(|| {
            let shown: String = document.to_string().chars().take(60).collect();
            wrong(&format!("documents[{index}]"), &shown, "a text, or an object with a text")
        })
    });
    let documents = documents.collect::<Result<Vec<String>, ApiError>>()?;
    let top = body.count("top_n")?;
    if top == Some(0) {
        return Err(wrong("top_n", "0", "a number from 1 on"));
    }
    let model = body.text("model");
    let gives_documents = body.flag("return_documents").unwrap_or(false);
    body.done()?;
    Ok(Asked { model, query, top: top.unwrap_or(documents.len()), documents, gives_documents })
}

/// The documents with the highest scores, by their indices; equal ones in their order.
fn best(scores: &[f32], top: usize) -> Vec<usize> {
    let mut ranked: Vec<usize> = (0..scores.len()).collect();
    ranked.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    ranked.truncate(top);
    ranked
}

/// Checks a body, and forgets it.
///
/// # Errors
/// As for a request.
pub(crate) fn check(bytes: &[u8]) -> Result<(), ApiError> {
    read(bytes).map(drop)
}
