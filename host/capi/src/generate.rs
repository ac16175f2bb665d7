//! Generates text, and passes it to a callback token by token.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use herald_api::abi::{AbiStruct, HERALD_NO_TOKEN, HeraldError};

use super::arguments::{self, Call};
use super::run::HERALD_GO_ON;
use super::sequence::{Ended, deadline_in};
use super::status::{Failure, Outcome};
use super::text::encode;
use super::{HeraldEngine, HeraldEngineSequence};
use herald_engine::Constraint;
use herald_engine::Error;
use herald_engine::sampler::{Sampled, SamplerConfig};
use herald_engine::{Finish, GenerateOptions, Generated, LoraScale, TokenOutput};

/// Use HeraldGenerateOptions.seed, not a seed from the operating system.
pub const HERALD_GENERATE_SEEDED: u32 = 1 << 0;
/// Continue past the model's end-of-generation tokens.
pub const HERALD_GENERATE_IGNORE_EOS: u32 = 1 << 1;
/// Write special tokens out as text.
pub const HERALD_GENERATE_SPECIAL: u32 = 1 << 2;
/// The repetition penalty applies to all tokens, whatever repeat_last_n says.
pub const HERALD_GENERATE_REPEAT_ALL: u32 = 1 << 3;

/// The model ended it, or one of stop_tokens was generated: HeraldGenerated.end_token.
pub const HERALD_FINISH_END_TOKEN: u32 = 1;
/// One of the stop texts was generated: HeraldGenerated.stop.
pub const HERALD_FINISH_STOP_TEXT: u32 = 2;
/// max_tokens were generated.
pub const HERALD_FINISH_LENGTH: u32 = 3;
/// The context is full.
pub const HERALD_FINISH_CONTEXT_FULL: u32 = 4;
/// The callback, herald_sequence_cancel, herald_memory_cancel or herald_request_cancel stopped it.
pub const HERALD_FINISH_CANCELLED: u32 = 5;
/// The answer matches json_schema, regex or grammar, and nothing may (or can) follow.
pub const HERALD_FINISH_COMPLETE: u32 = 6;
/// Its deadline has passed.
pub const HERALD_FINISH_DEADLINE: u32 = 7;

/// What a generation's callback gets: a token, and the text that is certain with it. Valid during the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldPiece {
    /// sizeof(HeraldPiece) of the library.
    pub struct_size: usize,
    /// Whole UTF-8 characters that can't be part of a stop text, NUL-terminated; may be empty.
    pub text: *const c_char,
    /// Bytes of text, without the NUL.
    pub text_len: usize,
    /// The token; HERALD_NO_TOKEN if this is text that was held back until the end.
    pub token: u32,
    /// The token's natural log-probability under the model's own distribution, before bias, penalties, filters and
    /// temperature.
    pub logprob: f32,
    /// The most probable tokens under that distribution, best first: n_top ids.
    pub top_tokens: *const u32,
    /// Their log-probabilities.
    pub top_logprobs: *const f32,
    /// Their number; at most HeraldGenerateOptions.top_logprobs.
    pub n_top: usize,
}

/// How to generate. Zero is every field's default: a struct of zeros (but for struct_size) takes the most probable token
/// each time until the model ends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldGenerateOptions {
    /// sizeof(HeraldGenerateOptions).
    pub struct_size: usize,
    /// Gets every token as soon as it is generated, and returns HERALD_GO_ON, or HERALD_STOP to end the generation. Runs on
    /// the calling thread; must not throw or longjmp; may call anything that doesn't use the sequence. Null: no callback.
    pub on_piece: Option<unsafe extern "C" fn(user_data: *mut c_void, piece: *const HeraldPiece) -> i32>,
    /// The caller's data; passed to on_piece.
    pub user_data: *mut c_void,
    /// HERALD_GENERATE_* bits.
    pub flags: u32,
    /// Maximum number of tokens to generate; 0: until the model ends or the context is full.
    pub max_tokens: u32,
    /// With HERALD_GENERATE_SEEDED: the same seed, settings and logits give the same tokens on every platform.
    pub seed: u64,
    /// Divides the logits before sampling; 0: greedy, the best logit after bias and penalties.
    pub temperature: f32,
    /// Keep the best top_k logits; 0: no limit.
    pub top_k: u32,
    /// Keep the best tokens that together have this probability, up to 1; 0 or 1: off.
    pub top_p: f32,
    /// Keep the tokens at least this probable relative to the best, up to 1; 0: off.
    pub min_p: f32,
    /// Locally typical sampling: keep the tokens whose surprise is closest to the entropy, up to this total probability;
    /// 0 or 1: off.
    pub typical_p: f32,
    /// The logit of each of the last repeat_last_n tokens, prompt included, is divided by this if positive, otherwise
    /// multiplied; 0 or 1: off.
    pub repetition_penalty: f32,
    /// Number of tokens that the repetition penalty applies to; 0: 64.
    pub repeat_last_n: u32,
    /// Subtracted from the logit of each token that was already generated; 0: off.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for each time that it was generated; 0: off.
    pub frequency_penalty: f32,
    /// How many of the most probable tokens to report with each token; 0: none.
    pub top_logprobs: u32,
    /// Texts that end the generation and are not part of it: n_stops, each NUL-terminated UTF-8; null for none.
    pub stops: *const *const c_char,
    /// Number of stops.
    pub n_stops: usize,
    /// Tokens that end the generation in addition to the model's own: n_stop_tokens; null for none.
    pub stop_tokens: *const u32,
    /// Number of stop_tokens.
    pub n_stop_tokens: usize,
    /// Tokens whose logits are changed: n_biases; null for none.
    pub bias_tokens: *const u32,
    /// Added to their logits; -INFINITY bans a token.
    pub biases: *const f32,
    /// Number of biases.
    pub n_biases: usize,
    /// A JSON schema that the answer must match (NUL-terminated UTF-8); null: none.
    pub json_schema: *const c_char,
    /// A regular expression that the whole answer must match (NUL-terminated UTF-8); null: none. At most one of json_schema,
    /// regex and grammar may be set.
    pub regex: *const c_char,
    /// When it ends at the latest, in milliseconds from the call's beginning, with HERALD_FINISH_DEADLINE; 0: never.
    pub deadline_ms: u64,
    /// Who shares what this computes in the prefix cache, such as a user's name (NUL-terminated UTF-8): only generations with the
    /// same key take it over. Null: those with none.
    pub cache_key: *const c_char,
    /// A grammar that the answer must match, in GBNF (llama.cpp's form, where a rule is defined by `::=`) or Lark's form
    /// (NUL-terminated UTF-8); null: none.
    pub grammar: *const c_char,
    /// The adapters that this is computed with: n_loras indices into HeraldEngineOptions.loras. Those that aren't among them are off, and
    /// so is one whose scale is 0. Null: as the sequence has them. Tokens that the sequence has must have been computed with the same.
    pub loras: *const u32,
    /// What each one's updates are multiplied by: n_loras numbers.
    pub lora_scales: *const f32,
    /// Number of loras.
    pub n_loras: usize,
}

/// A finished generation.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldGenerated {
    /// sizeof(HeraldGenerated).
    pub struct_size: usize,
    /// Number of generated tokens, including the one that ended it, if any.
    pub n_tokens: usize,
    /// Number of the prompt's tokens.
    pub n_prompt_tokens: usize,
    /// HERALD_FINISH_*.
    pub finish: u32,
    /// The token that ended it, or HERALD_NO_TOKEN.
    pub end_token: u32,
    /// The index of the stop that ended it.
    pub stop: usize,
    /// The seed that was used.
    pub seed: u64,
    /// Seconds that the prompt took.
    pub prompt_seconds: f64,
    /// Seconds that the tokens after it took.
    pub decode_seconds: f64,
    /// How many of the prompt's tokens were taken from the prefix cache, and not run.
    pub n_cached_tokens: usize,
}

/// Appends a prompt (UTF-8, prompt_len bytes) to the sequence and runs it, then generates: options->on_piece gets each token
/// as soon as it is generated. flags: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT, for the prompt. options: null for the
/// defaults. generated: filled at the end, its struct_size must be set; null if it isn't wanted. Afterwards the sequence
/// holds the prompt and the generated tokens except the last, which has not been run; after a stop during the prompt, the
/// pieces that were run.
/// Any thread, many at once on one engine, one at a time on a sequence. Statuses: OK (also if it was stopped: see
/// HERALD_FINISH_CANCELLED); INVALID_ARGUMENT (an empty prompt, an option outside its range); CONTEXT_FULL (the prompt is
/// too long); UNSUPPORTED; OUT_OF_MEMORY; CORRUPT (logits that are not numbers); IO (no random seed); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_generate(
    engine: *const HeraldEngine,
    sequence: *mut HeraldEngineSequence,
    prompt: *const c_char,
    prompt_len: usize,
    flags: u32,
    options: *const HeraldGenerateOptions,
    generated: *mut HeraldGenerated,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let engine = call.handle(engine, "engine")?;
        let prompt = call.text(prompt, prompt_len, "prompt")?;
        run(call, engine, sequence, &encode(&engine.engine, prompt, flags)?, options, generated)
    })
}

/// Like herald_generate, with n_ids ids as the prompt.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_generate_ids(
    engine: *const HeraldEngine,
    sequence: *mut HeraldEngineSequence,
    ids: *const u32,
    n_ids: usize,
    options: *const HeraldGenerateOptions,
    generated: *mut HeraldGenerated,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let engine = call.handle(engine, "engine")?;
        run(call, engine, sequence, call.slice(ids, n_ids, "ids")?, options, generated)
    })
}

fn run(
    call: &Call,
    handle: &HeraldEngine,
    sequence: *mut HeraldEngineSequence,
    ids: &[u32],
    options: *const HeraldGenerateOptions,
    generated: *mut HeraldGenerated,
) -> Outcome {
    let sequence = call.handle(sequence, "sequence")?;
    let work = |options: &GenerateOptions, each: &mut dyn FnMut(&TokenOutput<'_>) -> bool| {
        let mut locked = sequence.begin(handle)?;
        let mut cancelled = false;
        let each = &mut |piece: &TokenOutput<'_>| {
            cancelled = cancelled || !each(piece) || sequence.is_cancelled();
            !cancelled
        };
        let done = handle.engine.generate(&mut locked, ids, options, &mut || true, each);
        let ended = if is_cancelled(&done) { sequence.ended(options.deadline) } else { Ended::No };
        Ok((done, ended))
    };
    generate_with(call, options, generated, ids.len(), work)
}

/// Whether a generation was ended from outside.
pub(super) fn is_cancelled(done: &herald_engine::Result<Generated>) -> bool {
    matches!(done, Err(Error::Cancelled) | Ok(Generated { finish: Finish::Cancelled, .. }))
}

/// Runs `work`, which generates, with the caller's options and callback, and fills the caller's `generated`.
/// `n_prompt_tokens` is the answer's if it is stopped during the prompt.
pub(super) fn generate_with(
    call: &Call,
    options: *const HeraldGenerateOptions,
    generated: *mut HeraldGenerated,
    n_prompt_tokens: usize,
    work: impl FnOnce(
        &GenerateOptions,
        &mut dyn FnMut(&TokenOutput<'_>) -> bool,
    ) -> Outcome<(herald_engine::Result<Generated>, Ended)>,
) -> Outcome {
    let raw = match options.is_null() {
        true => AbiStruct::empty(),
        false => call.read(options)?,
    };
    let options = generate_options(call, &raw)?;
    if !generated.is_null() {
        // Refuse a wrong size before the work, not after it.
        call.read(generated.cast_const())?;
    }
    let (mut callback, mut stopped) = (Callback::new(&raw), false);
    let (done, ended) = work(&options, &mut |piece| {
        // A callback that said stop doesn't get text that was held back.
        if stopped {
            return false;
        }
        stopped = !callback.call(piece);
        !stopped
    })?;
    let cancelled =
        if ended == Ended::Late && !stopped { HERALD_FINISH_DEADLINE } else { HERALD_FINISH_CANCELLED };
    let answer = match done {
        Ok(done) => answer(&done, cancelled),
        Err(Error::Cancelled) => HeraldGenerated {
            n_prompt_tokens,
            finish: cancelled,
            end_token: HERALD_NO_TOKEN,
            seed: raw.seed,
            ..AbiStruct::empty()
        },
        Err(error) => return Err(error.into()),
    };
    if generated.is_null() { Ok(()) } else { call.fill(generated, &answer) }
}

/// A generation as C sees it; `cancelled` stands for [`Finish::Cancelled`].
pub(super) fn answer(done: &Generated, cancelled: u32) -> HeraldGenerated {
    let (finish, end_token, stop) = match done.finish {
        Finish::EndToken(token) => (HERALD_FINISH_END_TOKEN, token, 0),
        Finish::StopText(stop) => (HERALD_FINISH_STOP_TEXT, HERALD_NO_TOKEN, stop),
        Finish::Complete => (HERALD_FINISH_COMPLETE, HERALD_NO_TOKEN, 0),
        Finish::Length => (HERALD_FINISH_LENGTH, HERALD_NO_TOKEN, 0),
        Finish::ContextFull => (HERALD_FINISH_CONTEXT_FULL, HERALD_NO_TOKEN, 0),
        Finish::Cancelled => (cancelled, HERALD_NO_TOKEN, 0),
    };
    HeraldGenerated {
        n_tokens: done.tokens.len(),
        n_prompt_tokens: done.prompt_tokens,
        finish,
        end_token,
        stop,
        seed: done.seed,
        prompt_seconds: done.prompt_time.as_secs_f64(),
        decode_seconds: done.decode_time.as_secs_f64(),
        n_cached_tokens: done.shared_tokens,
        ..AbiStruct::empty()
    }
}

/// A piece, and the buffers that it points to.
#[derive(Default)]
pub(super) struct PieceBuffers {
    text: Vec<u8>,
    top_tokens: Vec<u32>,
    top_logprobs: Vec<f32>,
}

impl PieceBuffers {
    /// A token as C sees it, valid until the next.
    pub(super) fn piece(&mut self, sampled: &Sampled, text: &str, tail: bool) -> HeraldPiece {
        self.text.clear();
        self.text.extend_from_slice(text.as_bytes());
        self.text.push(0);
        (self.top_tokens, self.top_logprobs) = sampled.top.iter().copied().unzip();
        HeraldPiece {
            text: self.text.as_ptr().cast(),
            text_len: text.len(),
            token: if tail { HERALD_NO_TOKEN } else { sampled.token },
            logprob: sampled.logprob,
            top_tokens: or_null(&self.top_tokens),
            top_logprobs: or_null(&self.top_logprobs),
            n_top: self.top_tokens.len(),
            ..AbiStruct::empty()
        }
    }
}

/// The caller's callback.
struct Callback {
    on_piece: Option<unsafe extern "C" fn(*mut c_void, *const HeraldPiece) -> i32>,
    user_data: *mut c_void,
    buffers: PieceBuffers,
}

impl Callback {
    fn new(raw: &HeraldGenerateOptions) -> Self {
        Self { on_piece: raw.on_piece, user_data: raw.user_data, buffers: PieceBuffers::default() }
    }

    /// Passes a piece to the callback; returns whether to continue.
    fn call(&mut self, piece: &TokenOutput<'_>) -> bool {
        let Some(on_piece) = self.on_piece else { return true };
        let raw = self.buffers.piece(piece.sampled, piece.text, piece.tail);
        // SAFETY: the caller set a function with herald.h's contract; everything that the piece points to outlives the call.
        unsafe { on_piece(self.user_data, &raw const raw) == HERALD_GO_ON }
    }
}

/// Null for no values: an empty vector's pointer dangles, and C should not see it.
fn or_null<T>(values: &[T]) -> *const T {
    if values.is_empty() { std::ptr::null() } else { values.as_ptr() }
}

pub(super) fn generate_options(call: &Call, raw: &HeraldGenerateOptions) -> Outcome<GenerateOptions> {
    let known = HERALD_GENERATE_SEEDED
        | HERALD_GENERATE_IGNORE_EOS
        | HERALD_GENERATE_SPECIAL
        | HERALD_GENERATE_REPEAT_ALL;
    arguments::flags(raw.flags, known)?;
    let has = |flag: u32| raw.flags & flag != 0;
    let stop_tokens = call.slice(raw.stop_tokens, raw.n_stop_tokens, "stop_tokens")?;
    let bias_tokens = call.slice(raw.bias_tokens, raw.n_biases, "bias_tokens")?;
    let biases = call.slice(raw.biases, raw.n_biases, "biases")?;
    let mut stop = Vec::new();
    for (index, text) in call.slice(raw.stops, raw.n_stops, "stops")?.iter().enumerate() {
        stop.push(call.required_text(*text, &format!("stops[{index}]"))?.to_owned());
    }
    let or_off = |value: f32| if value == 0.0 { 1.0 } else { value };
    let sampler = SamplerConfig {
        temperature: raw.temperature,
        top_k: raw.top_k,
        typical_p: or_off(raw.typical_p),
        top_p: or_off(raw.top_p),
        min_p: raw.min_p,
        repetition_penalty: or_off(raw.repetition_penalty),
        repeat_last_n: match raw.repeat_last_n {
            _ if has(HERALD_GENERATE_REPEAT_ALL) => None,
            0 => SamplerConfig::default().repeat_last_n,
            n => Some(n),
        },
        presence_penalty: raw.presence_penalty,
        frequency_penalty: raw.frequency_penalty,
        logit_bias: bias_tokens.iter().copied().zip(biases.iter().copied()).collect::<BTreeMap<_, _>>(),
        seed: has(HERALD_GENERATE_SEEDED).then_some(raw.seed),
        top_logprobs: raw.top_logprobs,
        ..SamplerConfig::default()
    };
    Ok(GenerateOptions {
        max_tokens: (raw.max_tokens != 0).then_some(raw.max_tokens as usize),
        sampler,
        stop,
        stop_tokens: stop_tokens.to_vec(),
        ignore_eos: has(HERALD_GENERATE_IGNORE_EOS),
        special: has(HERALD_GENERATE_SPECIAL),
        constraint: constraint(call, raw)?,
        deadline: deadline_in(raw.deadline_ms),
        cache_key: call.c_text(raw.cache_key, "cache_key")?.map(str::to_owned),
        loras: (!raw.loras.is_null())
            .then(|| loras(call, raw.loras, raw.lora_scales, raw.n_loras))
            .transpose()?,
        ..GenerateOptions::default()
    })
}

/// Adapters with their scales.
pub(super) fn loras(
    call: &Call,
    loras: *const u32,
    scales: *const f32,
    n_loras: usize,
) -> Outcome<Vec<LoraScale>> {
    let scales = call.slice(scales, n_loras, "lora_scales")?;
    let loras = call.slice(loras, n_loras, "loras")?.iter().zip(scales);
    Ok(loras.map(|(index, scale)| LoraScale { index: *index as usize, scale: *scale }).collect())
}

/// The form of the answer, if one is set.
fn constraint(call: &Call, raw: &HeraldGenerateOptions) -> Outcome<Option<Constraint>> {
    let schema = call.c_text(raw.json_schema, "json_schema")?;
    let regex = call.c_text(raw.regex, "regex")?;
    let grammar = call.c_text(raw.grammar, "grammar")?;
    let given = [("json_schema", schema), ("regex", regex), ("grammar", grammar)];
    let mut given = given.into_iter().filter_map(|(name, text)| Some((name, text?)));
    let Some((name, text)) = given.next() else { return Ok(None) };
    if let Some((other, _)) = given.next() {
        let both = format!("{name} and {other} are both set, where at most one was expected");
        return Err(Failure::invalid(both));
    }
    Ok(Some(match name {
        "json_schema" => Constraint::json_schema(text).map_err(Failure::invalid)?,
        "regex" => Constraint::Regex(text.to_owned()),
        _ => Constraint::grammar(text),
    }))
}
