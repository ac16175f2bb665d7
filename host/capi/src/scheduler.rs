//! Many requests at once over one engine: submitted by any thread, answered piece by piece.

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

use herald_api::abi::{AbiStruct, HERALD_NO_TOKEN, HERALD_TEXT_SPECIAL, HeraldError};

use super::arguments::{self, Call, Handle};
use super::chat::render;
use super::generate::{PieceBuffers, answer, generate_options};
use super::status::{Failure, Outcome, free};
use super::text::encode;
use super::{
    HERALD_FINISH_CANCELLED, HERALD_FINISH_DEADLINE, HERALD_TEXT_PROMPT, HeraldEngine, HeraldGenerateOptions,
    HeraldGenerated, HeraldMessage, HeraldPiece,
};
use herald_engine::schedule::{self, Event, Request, Scheduler, SchedulerOptions};
use herald_engine::{Finish, NeuroEngine};

/// HeraldEvent.kind: nothing has come in time.
pub const HERALD_EVENT_NONE: u32 = 0;
/// HeraldEvent.kind: a token, in HeraldEvent.piece.
pub const HERALD_EVENT_PIECE: u32 = 1;
/// HeraldEvent.kind: the generation has ended; HeraldEvent.generated says how.
pub const HERALD_EVENT_FINISHED: u32 = 2;

/// herald_request_next: wait for as long as it takes.
pub const HERALD_WAIT_FOREVER: u32 = 0xffff_ffff;

/// How long a cancelled request's reader waits for the scheduler's own word.
const GRACE: Duration = Duration::from_millis(100);

/// Serves many requests over one engine, on a thread of its own: continuous batching. Each step is one pass over a token of every
/// request that decodes and pieces of the prompts of the others, so the model's weights are read once for all. Requests get
/// the same answers as alone. Any thread may use it, many at once.
pub struct HeraldScheduler {
    pub(super) scheduler: Scheduler,
    engine: HeraldEngine,
}

impl Handle for HeraldScheduler {
    fn engine(&self) -> &NeuroEngine {
        &self.engine.engine
    }
}

/// A request to a scheduler.
pub struct HeraldRequest {
    engine: Arc<NeuroEngine>,
    handle: schedule::Handle,
    messages: Sender<Message>,
    cancelled: AtomicBool,
    deadline: Option<Instant>,
    reader: Mutex<Reader>,
}

impl Handle for HeraldRequest {
    fn engine(&self) -> &NeuroEngine {
        &self.engine
    }
}

/// What comes to a request's reader.
enum Message {
    Event(Event),
    /// It was cancelled: from now on, the reader doesn't wait long.
    Cancelled(Instant),
    /// Its scheduler is gone.
    Gone,
}

/// Sends a request's events, and tells when no more can come.
struct Postman(Sender<Message>);

impl Drop for Postman {
    fn drop(&mut self) {
        // Nobody receives it where the request was freed.
        let _ = self.0.send(Message::Gone);
    }
}

/// A request's events as far as they were read.
struct Reader {
    messages: Receiver<Message>,
    buffers: PieceBuffers,
    piece: HeraldPiece,
    generated: HeraldGenerated,
    /// How it ended, once it has.
    ended: Option<Outcome>,
    /// When the reader stops waiting for the scheduler's word on a cancel or a deadline.
    over: Option<Instant>,
}

/// How a scheduler shares an engine out. Zero is every field's default.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldSchedulerOptions {
    /// sizeof(HeraldSchedulerOptions).
    pub struct_size: usize,
    /// Requests that run together at most, up to HeraldEngineOptions.max_batch; 0: 32.
    pub max_running: u32,
    /// Requests that wait at most; one more gets the status QUEUE_FULL. 0: 256.
    pub max_waiting: u32,
    /// The most prompt tokens of a step while other requests decode, which wait for them; 0: 512.
    pub prompt_piece: u32,
    /// About how many milliseconds a step with prompts may take: so long others wait at most. 0: 200.
    pub step_ms: u32,
}

/// What a request asks to be continued: exactly one of text, ids and messages.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldPrompt {
    /// sizeof(HeraldPrompt).
    pub struct_size: usize,
    /// A text: text_len bytes of UTF-8; or null.
    pub text: *const c_char,
    /// Bytes of text.
    pub text_len: usize,
    /// Tokens: n_ids ids; or null.
    pub ids: *const u32,
    /// Number of ids.
    pub n_ids: usize,
    /// A conversation that the model's chat template formats: n_messages messages; or null.
    pub messages: *const HeraldMessage,
    /// Number of messages.
    pub n_messages: usize,
    /// Whose request it is, NUL-terminated UTF-8: where places are short, all clients are served equally. Null: nobody's in
    /// particular.
    pub client: *const c_char,
    /// For a text: HERALD_TEXT_SPECIAL, HERALD_TEXT_PROMPT.
    pub flags: u32,
    /// Unused; 0.
    pub reserved: u32,
}

/// What herald_request_next fills.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldEvent {
    /// sizeof(HeraldEvent).
    pub struct_size: usize,
    /// HERALD_EVENT_*.
    pub kind: u32,
    /// Unused; 0.
    pub reserved: u32,
    /// The token; null unless kind is HERALD_EVENT_PIECE. Valid until the next call with this request.
    pub piece: *const HeraldPiece,
    /// The end; null unless kind is HERALD_EVENT_FINISHED. Valid until the request is freed.
    pub generated: *const HeraldGenerated,
}

/// Starts a scheduler on an engine and writes it to *out; the caller frees it with herald_scheduler_free. On failure *out is null.
/// options: null for the defaults. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT;
/// OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_scheduler_new(
    engine: *const HeraldEngine,
    options: *const HeraldSchedulerOptions,
    out: *mut *mut HeraldScheduler,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let engine = call.handle(engine, "engine")?.clone();
            let raw = match options.is_null() {
                true => AbiStruct::empty(),
                false => call.read(options)?,
            };
            let usual = SchedulerOptions::default();
            let or = |value: u32, usual: usize| if value == 0 { usual } else { value as usize };
            let options = SchedulerOptions {
                max_running: or(raw.max_running, usual.max_running.min(engine.engine.max_batch())),
                queue: or(raw.max_waiting, usual.queue),
                prompt_piece: or(raw.prompt_piece, usual.prompt_piece),
                step_time: match raw.step_ms {
                    0 => usual.step_time,
                    ms => Duration::from_millis(u64::from(ms)),
                },
            };
            let scheduler = Scheduler::start(Arc::clone(&engine.engine), options)?;
            Ok(HeraldScheduler { scheduler, engine })
        })
    })
}

/// Frees a scheduler: cancels its requests and waits for the running layer. Its requests may be freed before or after it. No call
/// may be running on it, except on its requests. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_scheduler_free(scheduler: *mut HeraldScheduler) {
    // SAFETY: by herald.h's rules it is null or came from `herald_scheduler_new`, and the caller doesn't use it again.
    unsafe { free(scheduler) };
}

/// Submits a request and writes it to *out; the caller frees it with herald_request_free. On failure *out is null. options: null
/// for the defaults; on_piece must be null, since pieces come from herald_request_next. A deadline counts from here, and so
/// includes the time in the queue. Returns at once, after tokenizing the prompt and compiling a form of the answer. Any
/// thread, many at once. Statuses: OK; QUEUE_FULL; INVALID_ARGUMENT (also a prompt without tokens); CONTEXT_FULL (the prompt is
/// too long); UNSUPPORTED (no chat template); DEADLINE; OUT_OF_MEMORY; IO (no random seed); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_submit(
    scheduler: *const HeraldScheduler,
    prompt: *const HeraldPrompt,
    options: *const HeraldGenerateOptions,
    out: *mut *mut HeraldRequest,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let HeraldScheduler { scheduler, engine } = call.handle(scheduler, "scheduler")?;
            let raw: HeraldPrompt = call.read(prompt)?;
            let how: HeraldGenerateOptions = match options.is_null() {
                true => AbiStruct::empty(),
                false => call.read(options)?,
            };
            if how.on_piece.is_some() {
                return Err(Failure::invalid(
                    "on_piece is set, where null was expected: a request's pieces come from herald_request_next",
                ));
            }
            let options = generate_options(call, &how)?;
            let deadline = options.deadline;
            let client = call.c_text(raw.client, "client")?.unwrap_or("").to_owned();
            let request = Request { prompt: prompt_ids(call, engine, &raw)?, options, client };
            let (sender, messages) = channel();
            let postman = Postman(sender.clone());
            let sink = Box::new(move |event| postman.0.send(Message::Event(event)).is_ok());
            let handle = scheduler.submit_to(request, sink).map_err(|error| match error {
                // Nothing else ends a request that isn't submitted yet.
                herald_engine::Error::Cancelled => Failure::late(),
                error => error.into(),
            })?;
            let reader = Reader {
                messages,
                buffers: PieceBuffers::default(),
                piece: AbiStruct::empty(),
                generated: HeraldGenerated { end_token: HERALD_NO_TOKEN, seed: how.seed, ..AbiStruct::empty() },
                ended: None,
                over: deadline.map(|deadline| deadline + GRACE),
            };
            Ok(HeraldRequest {
                engine: Arc::clone(&engine.engine),
                handle,
                messages: sender,
                cancelled: AtomicBool::new(false),
                deadline,
                reader: Mutex::new(reader),
            })
        })
    })
}

fn prompt_ids(call: &Call, engine: &HeraldEngine, raw: &HeraldPrompt) -> Outcome<Vec<u32>> {
    let given = [raw.text.is_null(), raw.ids.is_null(), raw.messages.is_null()];
    match given {
        [false, true, true] => encode(&engine.engine, call.text(raw.text, raw.text_len, "text")?, raw.flags),
        [true, false, true] => {
            arguments::flags(raw.flags, 0)?;
            Ok(call.slice(raw.ids, raw.n_ids, "ids")?.to_vec())
        }
        [true, true, false] => {
            arguments::flags(raw.flags, 0)?;
            let text = render(call, engine, raw.messages, raw.n_messages, true)?;
            encode(&engine.engine, &text, HERALD_TEXT_SPECIAL | HERALD_TEXT_PROMPT)
        }
        _ => {
            let n = given.iter().filter(|is_null| !**is_null).count();
            Err(Failure::invalid(format!(
                "{n} of text, ids and messages are set, where exactly one was expected"
            )))
        }
    }
}

/// Waits up to timeout_ms milliseconds (0: not at all; HERALD_WAIT_FOREVER) for what comes next of a request, and fills event, whose
/// struct_size the caller must set: HERALD_EVENT_PIECE for each token, in order, at last HERALD_EVENT_FINISHED, then and from
/// then on; HERALD_EVENT_NONE if nothing came in time. A request that failed gets its failure's status and sentence, also from
/// then on. Any thread, one call at a time on a request. Statuses: OK; INVALID_ARGUMENT; those of herald_generate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_request_next(
    request: *mut HeraldRequest,
    timeout_ms: u32,
    event: *mut HeraldEvent,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let request = call.handle(request.cast_const(), "request")?;
        call.read(event.cast_const())?;
        let mut reader = match request.reader.try_lock() {
            Ok(reader) => reader,
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::invalid(
                    "the request is in use by another call, where one call at a time was expected",
                ));
            }
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let wait = (timeout_ms != HERALD_WAIT_FOREVER).then(|| Duration::from_millis(timeout_ms.into()));
        let kind = reader.next(request, wait)?;
        let (piece, generated) = (&raw const reader.piece, &raw const reader.generated);
        let answer = HeraldEvent {
            kind,
            piece: if kind == HERALD_EVENT_PIECE { piece } else { std::ptr::null() },
            generated: if kind == HERALD_EVENT_FINISHED { generated } else { std::ptr::null() },
            ..AbiStruct::empty()
        };
        call.fill(event, &answer)
    })
}

impl Reader {
    /// Waits for the next event; `None`: for as long as it takes.
    fn next(&mut self, request: &HeraldRequest, wait: Option<Duration>) -> Outcome<u32> {
        let until = wait.and_then(|wait| Instant::now().checked_add(wait));
        loop {
            if let Some(ended) = &self.ended {
                return ended.clone().map(|()| HERALD_EVENT_FINISHED);
            }
            match self.receive(until.into_iter().chain(self.over).min()) {
                Ok(Message::Event(Event::Token { sampled, text, tail })) => {
                    self.generated.n_tokens += usize::from(!tail);
                    self.piece = self.buffers.piece(&sampled, &text, tail);
                    return Ok(HERALD_EVENT_PIECE);
                }
                Ok(Message::Event(Event::Done(done))) => {
                    let cancelled = matches!(done.generated.finish, Finish::Cancelled);
                    let finish = if cancelled { request.finish() } else { HERALD_FINISH_CANCELLED };
                    self.generated = answer(&done.generated, finish);
                    self.ended = Some(Ok(()));
                }
                Ok(Message::Event(Event::Failed(error))) => self.ended = Some(Err(error.into())),
                Ok(Message::Cancelled(at)) => self.over = self.over.into_iter().chain([at + GRACE]).min(),
                Ok(Message::Gone) | Err(RecvTimeoutError::Disconnected) => {
                    self.ended =
                        Some(Err(Failure::internal("the scheduler has ended, and the request with it")));
                }
                // The step that the request was part of goes on for others.
                Err(RecvTimeoutError::Timeout) if self.over.is_some_and(|over| Instant::now() >= over) => {
                    self.generated.finish = request.finish();
                    self.ended = Some(Ok(()));
                }
                Err(RecvTimeoutError::Timeout) => return Ok(HERALD_EVENT_NONE),
            }
        }
    }

    fn receive(&self, until: Option<Instant>) -> Result<Message, RecvTimeoutError> {
        match until {
            Some(until) => self.messages.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => self.messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }
}

impl HeraldRequest {
    /// Why it ended, where it was ended from outside.
    fn finish(&self) -> u32 {
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let cancelled = self.cancelled.load(Ordering::Relaxed);
        if late && !cancelled { HERALD_FINISH_DEADLINE } else { HERALD_FINISH_CANCELLED }
    }

    fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::Relaxed) {
            // The receiver lives as long as this.
            let _ = self.messages.send(Message::Cancelled(Instant::now()));
        }
        self.handle.cancel();
    }
}

/// Ends a request: herald_request_next gives the pieces that have come, then HERALD_EVENT_FINISHED with HERALD_FINISH_CANCELLED,
/// within a fifth of a second. Its memory is freed after the running layer or, where other requests share the pass, after
/// the pass. Does nothing if it has ended. Any thread, at any time until the request is freed. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_request_cancel(request: *const HeraldRequest) {
    // SAFETY: by herald.h's rules the request is null, or a handle that the caller has not freed.
    if let Some(request) = unsafe { request.as_ref() }
        && request.engine.in_its_process().is_ok()
    {
        request.cancel();
    }
}

/// Cancels a request that has not ended, and frees it. No call may be running on it. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_request_free(request: *mut HeraldRequest) {
    // SAFETY: by herald.h's rules it is null or came from `herald_submit`, and the caller doesn't use it again.
    unsafe {
        herald_request_cancel(request);
        free(request);
    }
}
