//! From a job to requests for the scheduler.

use std::sync::Arc;

use herald::schedule::Request;
use herald::{Constraint, GenerateOptions, LoraScale, NeuroEngine, ThinkingBudget};

use crate::conversation::{ChatModel, Prompt};
use crate::error::ApiError;
use crate::job::{Job, Source};
use crate::models::Model;
use crate::tools::{Choice, Form, Tool, ToolUse, answer_in, calls};

/// A token with its log-probability.
#[derive(Clone, Debug)]
pub(crate) struct TokenInfo {
    pub(crate) id: u32,
    pub(crate) bytes: Vec<u8>,
    /// `None` for a prompt's first.
    pub(crate) logprob: Option<f32>,
    /// The likeliest tokens there, best first.
    pub(crate) top: Vec<(u32, Vec<u8>, f32)>,
}

/// A prompt that is ready.
pub(crate) struct Ready {
    pub(super) prompt: Prompt,
    /// The log-probabilities of its tokens, where they are wanted.
    pub(super) tokens: Vec<TokenInfo>,
    pub(super) options: GenerateOptions,
    /// What to do without, where the engine can't follow a form that isn't needed.
    pub(super) is_form_optional: bool,
    pub(super) form: Option<Arc<Form>>,
    pub(super) tools: Arc<[Tool]>,
}

/// The bytes of a token, special ones written out.
pub(super) fn bytes_of(engine: &NeuroEngine, token: u32) -> Vec<u8> {
    engine.tokenizer().token_bytes(token, true).unwrap_or_default()
}

/// Makes a job's prompts ready. `trusts`: special tokens that the texts of messages spell are meant.
///
/// # Errors
/// Where the template, the tokenizer or a field's value won't do.
pub(crate) fn prepare(model: &Model, job: &Job, trusts: bool) -> Result<Vec<Ready>, ApiError> {
    job.sources.iter().map(|source| one(model, job, source, trusts)).collect()
}

fn one(model: &Model, job: &Job, source: &Source, trusts: bool) -> Result<Ready, ApiError> {
    let engine = model.scheduler.engine();
    let mut options = GenerateOptions {
        max_tokens: job.max_tokens,
        min_tokens: job.min_tokens,
        sampler: job.sampling.config(engine)?,
        stop: job.stop.clone(),
        stop_tokens: job.stop_tokens.clone(),
        ignore_eos: job.ignore_eos,
        special: job.special,
        constraint: job.constraint.clone(),
        cache_key: job.cache_key.clone(),
        loras: model.loras_for(job.loras.as_deref(), job.model.as_deref()),
        ..GenerateOptions::default()
    };
    options.sampler.top_logprobs = job.logprobs.unwrap_or(0);
    let plain = |ids: Vec<u32>, text: String| Prompt { text, ids, thinks: false };
    let (prompt, chat) = match source {
        Source::Ids(ids) => {
            // The scheduler says which ids are outside the vocabulary.
            let known = ids.iter().all(|id| (*id as usize) < engine.tokenizer().vocabulary());
            let text = if job.echo && known { engine.tokenizer().decode(ids, true)? } else { String::new() };
            (plain(ids.clone(), text), None)
        }
        Source::Text { text, special, around } => {
            engine.check_text(text)?;
            let tokenizer = engine.tokenizer();
            let encode = if *around {
                tokenizer.encode_prompt(text, *special)
            } else {
                tokenizer.encode(text, *special)
            };
            (plain(encode?, text.clone()), None)
        }
        Source::Fill { prefix, suffix, others } => {
            (plain(fill(engine, prefix, suffix, others)?, prefix.clone()), None)
        }
        Source::Chat(conversation) => {
            let chat = model.chat()?;
            (chat.prompt(engine, conversation, trusts)?, Some((chat, &conversation.uses)))
        }
    };
    let (mut form, mut tools, mut is_form_optional): (_, Arc<[Tool]>, _) = (None, Arc::from([]), false);
    if let Some((chat, uses)) = chat {
        is_form_optional = constrain(engine, &chat, uses, prompt.thinks, &mut options)?;
        let thinking = |max_tokens| {
            let [begin, end] = chat.form.around_thoughts()?;
            Some(ThinkingBudget { begin, end, max_tokens, has_begun: prompt.thinks })
        };
        options.thinking = job.max_thoughts.and_then(thinking);
        if job.reads_thoughts || job.reads_calls {
            options.markers = chat.has_special_marks(engine);
            form = Some(Arc::clone(&chat.form)).filter(|form| {
                form.thoughts.is_some()
                    || !uses.tools.is_empty()
                    || matches!(form.syntax, crate::tools::Syntax::Harmony)
            });
        }
        if job.reads_calls {
            tools = uses.callable().into_iter().cloned().collect();
        }
    }
    let tokens = if job.echo && job.logprobs.is_some() {
        let top = job.logprobs.unwrap_or(0) as usize;
        prompt_logprobs(engine, &prompt.ids, top, options.loras.as_deref())?
    } else {
        Vec::new()
    };
    Ok(Ready { prompt, tokens, options, is_form_optional, form, tools })
}

/// The names of the tokens around a gap, as models' makers spell them: before the text before it, before the text behind it, and at
/// its place.
const GAPS: [[&str; 3]; 6] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
    ["<PRE>", "<SUF>", "<MID>"],
];

/// The tokens before a file's name.
const FILES: [&str; 4] = ["<|file_sep|>", "<file_sep>", "<|file_separator|>", "<filename>"];

/// The tokens of a gap to fill.
fn fill(
    engine: &NeuroEngine,
    prefix: &str,
    suffix: &str,
    others: &[(String, String)],
) -> Result<Vec<u32>, ApiError> {
    let texts = [prefix, suffix].into_iter().chain(others.iter().map(|(_, text)| text.as_str()));
    texts.into_iter().try_for_each(|text| engine.check_text(text))?;
    let tokenizer = engine.tokenizer();
    let token = |text: &str| match tokenizer.encode(text, true).as_deref() {
        Ok([token]) => Some(*token),
        _ => None,
    };
    let gap = |names: &[&str; 3]| Some([token(names[0])?, token(names[1])?, token(names[2])?]);
    let [before, behind, middle] = GAPS.iter().find_map(gap).ok_or_else(|| {
        ApiError::invalid(
            "the model can't fill in: it has no tokens such as <|fim_prefix|>, which were expected",
        )
    })?;
    let mut ids = Vec::new();
    if let Some(file) = FILES.iter().find_map(|name| token(name)).filter(|_| !others.is_empty()) {
        for (name, text) in others {
            ids.push(file);
            ids.extend(tokenizer.encode(&format!("{name}\n{text}\n"), false)?);
        }
        ids.push(file);
        ids.extend(tokenizer.encode("filename\n", false)?);
    }
    // DeepSeek's hole stands at the gap, and its end behind all.
    ids.push(before);
    ids.extend(tokenizer.encode(prefix, false)?);
    ids.push(behind);
    ids.extend(tokenizer.encode(suffix, false)?);
    ids.push(middle);
    Ok(tokenizer.prompt_bos().into_iter().chain(ids).collect())
}

/// Adds what tools and thoughts ask of the answer's form. Returns whether the answer may do without.
fn constrain(
    engine: &NeuroEngine,
    chat: &ChatModel,
    uses: &ToolUse,
    thinks: bool,
    options: &mut GenerateOptions,
) -> Result<bool, ApiError> {
    let special = |text: &str| engine.tokenizer().control_token(text);
    let must_call = matches!(uses.choice, Choice::Required | Choice::Named(_));
    match options.constraint.take() {
        Some(_) if must_call => {
            let what = "tool_choice asks for a call and response_format for a form of the text, where one of the two was expected";
            Err(ApiError::invalid(what).at("tool_choice"))
        }
        Some(constraint) => {
            options.constraint = Some(answer_in(&chat.form, constraint, uses, thinks, &special));
            Ok(false)
        }
        None => {
            options.constraint = calls(&chat.form, uses, thinks, &special);
            Ok(!must_call)
        }
    }
}

/// The log-probabilities of a prompt's own tokens.
fn prompt_logprobs(
    engine: &NeuroEngine,
    ids: &[u32],
    top: usize,
    loras: Option<&[LoraScale]>,
) -> Result<Vec<TokenInfo>, ApiError> {
    let mut sequence = engine.sequence()?;
    loras.map_or(Ok(()), |loras| engine.set_loras(&mut sequence, loras))?;
    let mut tokens = Vec::with_capacity(ids.len());
    let info = |id: u32, logprob, top: Vec<(u32, f32)>| TokenInfo {
        id,
        bytes: bytes_of(engine, id),
        logprob,
        top: top.into_iter().map(|(id, logprob)| (id, bytes_of(engine, id), logprob)).collect(),
    };
    tokens.extend(ids.first().map(|id| info(*id, None, Vec::new())));
    let mut failure = None;
    engine.logits(&mut sequence, ids, &mut |logits| {
        if let Some(next) = ids.get(tokens.len()) {
            match herald::sampler::logprobs(logits, *next, top) {
                Ok((logprob, top)) => tokens.push(info(*next, Some(logprob), top)),
                Err(error) => failure = Some(error),
            }
        }
    })?;
    failure.map_or(Ok(tokens), |error| Err(herald::Error::from(error).into()))
}

impl Ready {
    /// Whether a form has to be compiled for it.
    pub(crate) fn has_form(&self) -> bool {
        self.options.constraint.is_some()
    }

    /// The request for one of its answers: the first has the client's seed, each other the next.
    pub(super) fn request(&self, client: &str, answer: usize) -> Request {
        let mut options = self.options.clone();
        options.sampler.seed = options.sampler.seed.map(|seed| seed.wrapping_add(answer as u64));
        Request { prompt: self.prompt.ids.clone(), options, client: client.to_owned() }
    }

    /// The same without its form.
    pub(super) fn without_form(&mut self) -> Option<Constraint> {
        self.options.constraint.take().filter(|_| self.is_form_optional)
    }
}
