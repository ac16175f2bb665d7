//! The native API of llama.cpp's server.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{Json, Response};
use serde_json::{Value, json};

use herald::Finish;

use crate::answer::{Choice, Format, Frame, Piece, Reason, Run, TokenInfo, answer};
use crate::error::ApiError;
use crate::fields::{APPLY_TEMPLATE, Body, COMPLETION, DETOKENIZE, INFILL, TOKENIZE, wrong};
use crate::job::{Job, Source, sources, take_form};
use crate::openai::chat::conversation;
use crate::{App, OfModel, checked};

pub(crate) async fn completion(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let (job, format) = read(&checked(&shared, &headers, body)?)?;
    answer(Arc::clone(&shared), &headers, job, format).await
}

pub(crate) async fn infill(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let mut body = Body::read(&INFILL, &checked(&shared, &headers, body)?)?;
    let prefix = body.text("input_prefix").unwrap_or_default() + &body.text("prompt").unwrap_or_default();
    let suffix = body.text("input_suffix").unwrap_or_default();
    let mut others = Vec::new();
    for (index, other) in body.list("input_extra").unwrap_or_default().into_iter().enumerate() {
        let field = |name: &str| other[name].as_str().map(str::to_owned);
        let text =
            field("text").ok_or_else(|| wrong(&format!("input_extra[{index}].text"), "missing", "a text"))?;
        others.push((field("filename").unwrap_or_default(), text));
    }
    let (job, format) = common(body, vec![Source::Fill { prefix, suffix, others }])?;
    answer(Arc::clone(&shared), &headers, job, format).await
}

/// Reads a body of `/completion`.
///
/// # Errors
/// Where a field won't do.
pub(crate) fn read(bytes: &[u8]) -> Result<(Job, Completion), ApiError> {
    let mut body = Body::read(&COMPLETION, bytes)?;
    let prompt = body.any("prompt");
    let sources = sources("prompt", &body.needed("prompt", prompt)?, true, true)?;
    common(body, sources)
}

fn common(mut body: Body, sources: Vec<Source>) -> Result<(Job, Completion), ApiError> {
    let mut job = Job::new(sources);
    job.stream = body.flag("stream").unwrap_or(false);
    job.model = body.text("model");
    job.take_sampling(&mut body)?;
    job.take_max_tokens(&mut body, &["n_predict", "max_tokens"], None);
    job.constraint = take_form(&mut body)?;
    (job.reads_thoughts, job.reads_calls) = (false, false);
    if body.flag("post_sampling_probs") == Some(true) {
        let what = "post_sampling_probs is true, where false was expected: probabilities are the model's own";
        return Err(ApiError::invalid(what).at("post_sampling_probs"));
    }
    let top = body.count("n_probs")?.filter(|top| *top > 0);
    job.logprobs = top.map(|top| u32::try_from(top).unwrap_or(u32::MAX));
    let wants_tokens = body.flag("return_tokens").unwrap_or(false);
    let fields = body.texts("response_fields").unwrap_or_default();
    body.done()?;
    Ok((job, Completion { wants_tokens, fields }))
}

/// `/completion`'s form.
pub(crate) struct Completion {
    wants_tokens: bool,
    /// Which fields are given at the end; none: all.
    fields: Vec<String>,
}

/// These fields of an object alone, each under its path; those that it lacks are left out.
fn only_fields(value: &Value, paths: &[String]) -> Value {
    let of = |path: &String| {
        Some((path.clone(), path.split('/').try_fold(value, |value, key| value.get(key))?.clone()))
    };
    Value::Object(paths.iter().filter_map(of).collect())
}

fn probabilities(tokens: &[TokenInfo]) -> Value {
    let entry = |id: u32, bytes: &[u8], logprob: f32| json!({"id": id, "token": String::from_utf8_lossy(bytes), "bytes": bytes, "logprob": logprob.max(-9999.0)});
    tokens
        .iter()
        .map(|token| {
            let mut value = entry(token.id, &token.bytes, token.logprob.unwrap_or(0.0));
            value["top_logprobs"] =
                token.top.iter().map(|(id, bytes, logprob)| entry(*id, bytes, *logprob)).collect();
            value
        })
        .collect()
}

impl Completion {
    fn last(&self, run: &Run, choice: &Choice, content: &str) -> Value {
        let generated = choice.generated.as_ref();
        let stop_type = match choice.reason() {
            Reason::Length => "limit",
            Reason::StopText(_) => "word",
            Reason::Stop | Reason::Calls | Reason::Cancelled => "eos",
        };
        let word = match generated.map(|generated| &generated.finish) {
            Some(Finish::StopText(index)) => run.job.stop.get(*index).cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let cached = generated.map_or(0, |generated| generated.shared_tokens);
        let evaluated = run.prompt_tokens[choice.prompt];
        let ms = |time: Option<std::time::Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
        let (prompt_ms, decode_ms) = (
            ms(generated.map(|generated| generated.prompt_time)),
            ms(generated.map(|generated| generated.decode_time)),
        );
        let per_second = |n: usize, ms: f64| if ms > 0.0 { n as f64 * 1e3 / ms } else { 0.0 };
        let computed = evaluated - cached.min(evaluated);
        let tokens = generated.filter(|_| self.wants_tokens).map(|generated| generated.tokens.clone());
        let mut value = json!({
            "index": choice.prompt,
            "content": content,
            "tokens": tokens.unwrap_or_default(),
            "id_slot": 0,
            "stop": true,
            "model": run.model.name,
            "tokens_predicted": choice.n_tokens,
            "tokens_evaluated": evaluated,
            "tokens_cached": cached,
            "prompt": run.prompts[choice.prompt].0,
            "has_new_line": choice.text.contains('\n'),
            "truncated": false,
            "stop_type": stop_type,
            "stopping_word": word,
            "generation_settings": {"seed": generated.map(|generated| generated.seed), "n_predict": run.job.max_tokens,
                "stop": run.job.stop, "stream": run.job.stream},
            "timings": {
                "cache_n": cached,
                "prompt_n": computed,
                "prompt_ms": prompt_ms,
                "prompt_per_second": per_second(computed, prompt_ms),
                "predicted_n": choice.n_tokens,
                "predicted_ms": decode_ms,
                "predicted_per_second": per_second(choice.n_tokens, decode_ms),
            },
        });
        if run.job.logprobs.is_some() && !run.job.stream {
            value["completion_probabilities"] = probabilities(&choice.tokens);
        }
        if self.fields.is_empty() { value } else { only_fields(&value, &self.fields) }
    }
}

impl Format for Completion {
    fn whole(&mut self, run: &Run) -> Value {
        let all: Vec<Value> = run.choices.iter().map(|choice| self.last(run, choice, &choice.text)).collect();
        // One prompt gets one object, and several a list.
        if let [one] = &all[..] { one.clone() } else { all.into() }
    }

    fn piece(&mut self, run: &Run, choice: &Choice, piece: &Piece) -> Vec<Frame> {
        let text: String = piece
            .deltas
            .iter()
            .filter_map(|delta| match delta {
                crate::tools::Delta::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if text.is_empty() && piece.tokens.is_empty() {
            return Vec::new();
        }
        let mut value = json!({
            "index": choice.prompt,
            "content": text,
            "tokens": [],
            "stop": false,
            "id_slot": 0,
            "tokens_predicted": choice.n_tokens,
            "tokens_evaluated": run.prompt_tokens[choice.prompt],
        });
        if !piece.tokens.is_empty() {
            value["completion_probabilities"] = probabilities(&piece.tokens);
        }
        vec![Frame::Data(value)]
    }

    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame> {
        vec![Frame::Data(self.last(run, choice, ""))]
    }

    fn end(&mut self, _run: &Run) -> Vec<Frame> {
        Vec::new()
    }
}

pub(crate) async fn tokenize(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut body = Body::read(&TOKENIZE, &checked(&shared, &headers, body)?)?;
    let text = body.text("content").or(body.text("prompt"));
    body.text("prompt");
    let text = body.needed("content", text)?;
    let around = body.flag("add_special").unwrap_or(false);
    let special = body.flag("parse_special").unwrap_or(true);
    let with_pieces = body.flag("with_pieces").unwrap_or(false);
    let model = body.text("model");
    body.done()?;
    let model = shared.models.get(model.as_deref()).await?;
    let work = move || {
        let tokenizer = model.scheduler.engine().tokenizer();
        let ids =
            if around { tokenizer.encode_prompt(&text, special) } else { tokenizer.encode(&text, special) }?;
        if !with_pieces {
            return Ok(Json(json!({"tokens": ids, "count": ids.len()})));
        }
        let mut pieces = Vec::with_capacity(ids.len());
        for id in ids {
            let bytes = tokenizer.token_bytes(id, true)?;
            // A part of a character is given by its bytes.
            let piece = String::from_utf8(bytes).map_or_else(|error| json!(error.into_bytes()), Value::from);
            pieces.push(json!({"id": id, "piece": piece}));
        }
        Ok(Json(json!({"tokens": pieces, "count": pieces.len()})))
    };
    shared.preparing.text(work).await
}

pub(crate) async fn detokenize(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut body = Body::read(&DETOKENIZE, &checked(&shared, &headers, body)?)?;
    let tokens = body.list("tokens");
    let tokens = body.needed("tokens", tokens)?;
    let model = body.text("model");
    body.done()?;
    let model = shared.models.get(model.as_deref()).await?;
    let work = move || {
        let tokenizer = model.scheduler.engine().tokenizer();
        let most = tokenizer.vocabulary();
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < most);
            id.ok_or_else(|| {
                wrong("tokens", &format!("a list with {value}"), &format!("a list of ids below {most}"))
            })
        };
        let ids = tokens.iter().map(id).collect::<Result<Vec<u32>, _>>()?;
        let text = tokenizer.decode(&ids, true)?;
        Ok(Json(json!({"content": text, "prompt": text})))
    };
    shared.preparing.text(work).await
}

pub(crate) async fn apply_template(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut body = Body::read(&APPLY_TEMPLATE, &checked(&shared, &headers, body)?)?;
    let conversation = conversation(&mut body)?;
    let model = body.text("model");
    body.done()?;
    let model = shared.models.get(model.as_deref()).await?;
    let trusts = shared.options.trust_content;
    let work = move || {
        let prompt = model.chat()?.prompt(model.scheduler.engine(), &conversation, trusts)?;
        Ok(Json(json!({"prompt": prompt.text})))
    };
    shared.preparing.text(work).await
}

pub(crate) async fn props(State(shared): App, Query(of): Query<OfModel>) -> Result<Json<Value>, ApiError> {
    let model = shared.models.get(of.model.as_deref()).await?;
    let engine = model.scheduler.engine();
    let tokenizer = engine.tokenizer();
    let spelt = |token: Option<u32>| {
        token.and_then(|token| tokenizer.decode(&[token], true).ok()).unwrap_or_default()
    };
    let defaults = serde_json::to_value(engine.recommended_sampling()).unwrap_or_default();
    Ok(Json(json!({
        "default_generation_settings": {"n_ctx": engine.context(), "params": defaults},
        "total_slots": shared.options.slots,
        "model_alias": model.name,
        "model_path": engine.path().display().to_string(),
        "modalities": {"vision": false, "audio": false},
        "chat_template": engine.chat_template_source().unwrap_or_default(),
        "bos_token": spelt(tokenizer.bos()),
        "eos_token": spelt(tokenizer.eos()),
        "build_info": format!("herald {}", env!("CARGO_PKG_VERSION")),
        "is_sleeping": false,
    })))
}

pub(crate) async fn slots(State(shared): App, Query(of): Query<OfModel>) -> Result<Json<Value>, ApiError> {
    let Some(model) = shared.models.watched(of.model.as_deref())? else { return Ok(Json(json!([]))) };
    let (_, running) = model.scheduler.load();
    let n_ctx = model.scheduler.engine().context();
    let slot =
        |id: usize| json!({"id": id, "n_ctx": n_ctx, "speculative": false, "is_processing": id < running});
    Ok(Json((0..shared.options.slots).map(slot).collect()))
}

pub(crate) async fn loras(State(shared): App, Query(of): Query<OfModel>) -> Result<Json<Value>, ApiError> {
    let model = shared.models.get(of.model.as_deref()).await?;
    let adapters = model.scheduler.engine().loras().iter().enumerate().map(|(id, lora)| {
        json!({"id": id, "name": lora.name(), "path": lora.path().display().to_string(), "scale": lora.scale()})
    });
    Ok(Json(adapters.collect()))
}
