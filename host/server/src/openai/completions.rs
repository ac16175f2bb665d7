//! `/v1/completions`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value, json};

use super::{UsageWanted, head, logprobs, usage};
use crate::answer::{Choice, Format, Frame, Piece, Run, TokenInfo, answer};
use crate::error::ApiError;
use crate::fields::{Body, COMPLETIONS, wrong};
use crate::job::{Job, Source, sources, take_form};
use crate::{App, checked};

/// Tokens of a completion if the client doesn't say, as in OpenAI's API.
const DEFAULT_TOKENS: usize = 16;

/// The most log-probabilities beside a token's own.
const MAX_TOP: i64 = 100;

pub(crate) async fn completions(
    State(shared): App,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let (job, usage) = read(&checked(&shared, &headers, body)?)?;
    answer(
        Arc::clone(&shared),
        &headers,
        job,
        Completions { usage, has_echoed: Vec::new(), n_chars: Vec::new() },
    )
    .await
}

/// Reads a body.
///
/// # Errors
/// Where a field won't do.
pub(crate) fn read(bytes: &[u8]) -> Result<(Job, UsageOf), ApiError> {
    let mut body = Body::read(&COMPLETIONS, bytes)?;
    let prompt = body.any("prompt");
    let prompt = body.needed("prompt", prompt)?;
    let special = body.flag("parse_special").unwrap_or(true);
    let around = body.flag("add_special_tokens").unwrap_or(true);
    let mut sources = sources("prompt", &prompt, special, around)?;
    if let Some(suffix) = body.text("suffix").filter(|suffix| !suffix.is_empty()) {
        for source in &mut sources {
            if let Source::Text { text, .. } = source {
                *source =
                    Source::Fill { prefix: std::mem::take(text), suffix: suffix.clone(), others: Vec::new() };
            }
        }
    }
    let mut job = Job::new(sources);
    job.take_client(&mut body);
    job.take_n(&mut body)?;
    job.take_sampling(&mut body)?;
    job.take_max_tokens(&mut body, &["max_tokens", "n_predict"], Some(DEFAULT_TOKENS));
    job.constraint = take_form(&mut body)?;
    job.echo = body.flag("echo").unwrap_or(false);
    (job.reads_thoughts, job.reads_calls) = (false, false);
    job.logprobs = match body.any("logprobs") {
        None | Some(Value::Bool(false)) => None,
        Some(Value::Bool(true)) => Some(0),
        Some(value) => {
            let number = crate::fields::integer_of("logprobs", &value)?;
            let in_range = u32::try_from(number).ok().filter(|_| number <= MAX_TOP);
            Some(in_range.ok_or_else(|| wrong("logprobs", &number.to_string(), "a number from 0 to 100"))?)
        }
    };
    let usage = UsageWanted::take(&mut body)?;
    body.done()?;
    Ok((job, UsageOf(usage)))
}

/// What the stream says of its token counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsageOf(UsageWanted);

struct Completions {
    usage: UsageOf,
    /// Choices whose prompt was given.
    has_echoed: Vec<usize>,
    /// Characters of each choice that were given.
    n_chars: Vec<usize>,
}

impl Completions {
    fn chunk(&self, run: &Run, choice: Value) -> Frame {
        let mut chunk = head(run, "cmpl", "text_completion", vec![choice]);
        if self.usage.0.always {
            chunk.insert("usage".to_owned(), usage(run));
        }
        Frame::Data(Value::Object(chunk))
    }

    /// Characters of a choice before its tokens, to which these are added.
    fn offset(&mut self, choice: usize, more: usize) -> usize {
        if self.n_chars.len() <= choice {
            self.n_chars.resize(choice + 1, 0);
        }
        let before = self.n_chars[choice];
        self.n_chars[choice] += more;
        before
    }

    /// The prompt, the first time.
    fn echo(&mut self, run: &Run, choice: &Choice) -> Option<Frame> {
        if !run.job.echo || self.has_echoed.contains(&choice.index) {
            return None;
        }
        self.has_echoed.push(choice.index);
        let (text, tokens) = &run.prompts[choice.prompt];
        let tokens: Vec<&TokenInfo> = tokens.iter().collect();
        let offset = self.offset(choice.index, text.chars().count());
        let logprobs = run.job.logprobs.map(|_| logprobs::completions(&tokens, offset));
        let value = json!({"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": null});
        Some(self.chunk(run, value))
    }
}

impl Format for Completions {
    fn whole(&mut self, run: &Run) -> Value {
        let choice = |choice: &Choice| {
            let (prompt, before) = &run.prompts[choice.prompt];
            let text = if run.job.echo { format!("{prompt}{}", choice.text) } else { choice.text.clone() };
            let before = before.iter().filter(|_| run.job.echo);
            let tokens: Vec<&TokenInfo> = before.chain(&choice.tokens).collect();
            let logprobs = run.job.logprobs.map(|_| logprobs::completions(&tokens, 0));
            let finish = choice.reason().openai();
            json!({"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": finish})
        };
        let choices = run.choices.iter().map(choice).collect();
        let mut answer = head(run, "cmpl", "text_completion", choices);
        answer.insert("usage".to_owned(), usage(run));
        Value::Object(answer)
    }

    fn piece(&mut self, run: &Run, choice: &Choice, piece: &Piece) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.echo(run, choice).into_iter().collect();
        let text: String = piece
            .deltas
            .iter()
            .filter_map(|delta| match delta {
                crate::tools::Delta::Text(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if text.is_empty() && piece.tokens.is_empty() {
            return frames;
        }
        let offset = self.offset(choice.index, text.chars().count());
        let tokens: Vec<&TokenInfo> = piece.tokens.iter().collect();
        let logprobs = run.job.logprobs.map(|_| logprobs::completions(&tokens, offset));
        let value = json!({"index": choice.index, "text": text, "logprobs": logprobs, "finish_reason": null});
        frames.push(self.chunk(run, value));
        frames
    }

    fn ended(&mut self, run: &Run, choice: &Choice) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.echo(run, choice).into_iter().collect();
        let finish = choice.reason().openai();
        let value = json!({"index": choice.index, "text": "", "logprobs": null, "finish_reason": finish});
        frames.push(self.chunk(run, value));
        frames
    }

    fn end(&mut self, run: &Run) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.usage.0.at_end {
            let mut chunk = head(run, "cmpl", "text_completion", Vec::new());
            chunk.insert("usage".to_owned(), usage(run));
            frames.push(Frame::Data(Value::Object(chunk)));
        }
        frames.push(Frame::End);
        frames
    }
}
