//! Passes the engine's log to a function of the caller.

use std::ffi::{c_char, c_void};
use std::fmt::{self, Write};
use std::sync::{OnceLock, PoisonError, RwLock};

use herald_api::abi::{HERALD_LOG_DEBUG, HERALD_LOG_ERROR, HERALD_LOG_INFO, HERALD_LOG_WARN, HeraldError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use super::status::Failure;

type Log = unsafe extern "C" fn(user_data: *mut c_void, level: u32, text: *const c_char, text_len: usize);

/// The function that gets the lines.
struct Sink {
    log: Log,
    user_data: *mut c_void,
    level: u32,
}

// SAFETY: herald.h requires of `herald_log`'s caller a function that any thread may call with this `user_data`.
unsafe impl Send for Sink {}
// SAFETY: herald.h requires that it may be called many times at once.
unsafe impl Sync for Sink {}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Whether this process's events come here; set by the first attempt.
static STARTED: OnceLock<bool> = OnceLock::new();

/// Hands log lines to the sink.
struct ToSink;

impl<S: Subscriber> Layer<S> for ToSink {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            Level::ERROR => HERALD_LOG_ERROR,
            Level::WARN => HERALD_LOG_WARN,
            Level::INFO => HERALD_LOG_INFO,
            Level::DEBUG => HERALD_LOG_DEBUG,
            Level::TRACE => return,
        };
        // The lock is held during the call, so that the previous function has ended when herald_log returns.
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Sink { log, user_data, .. }) = sink.as_ref().filter(|sink| level <= sink.level) {
            let mut line = Line(String::new());
            event.record(&mut line);
            let len = line.0.len();
            line.0.push('\0');
            // SAFETY: `herald_log`'s caller set a function with herald.h's contract; the line outlives the call.
            unsafe { log(*user_data, level, line.0.as_ptr().cast(), len) };
        }
    }
}

/// An event's message, followed by its other fields.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String can't fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

/// Sets the function that gets the engine's log, for the whole process; null for none, the default. It gets lines of this
/// level (HERALD_LOG_*) and of more severe ones: UTF-8 without a newline at the end, NUL-terminated, text_len bytes without
/// the NUL, valid during the call. It is called with user_data, from any thread, many at once; it must not throw, longjmp,
/// or call herald_log. When herald_log returns, the previous function is not called any more.
/// Any thread. Statuses: OK; INVALID_ARGUMENT (no such level); UNSUPPORTED (a Rust program with its own log).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_log(
    level: u32,
    log: Option<
        unsafe extern "C" fn(user_data: *mut c_void, level: u32, text: *const c_char, text_len: usize),
    >,
    user_data: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |_| {
        if !(HERALD_LOG_ERROR..=HERALD_LOG_DEBUG).contains(&level) {
            return Err(Failure::invalid(format!(
                "the level is {level}, where {HERALD_LOG_ERROR} to {HERALD_LOG_DEBUG} were expected"
            )));
        }
        if !*STARTED.get_or_init(|| tracing::subscriber::set_global_default(registry().with(ToSink)).is_ok())
        {
            return Err(Failure::unsupported(
                "this program has its own log, set with the Rust crate tracing",
            ));
        }
        *SINK.write().unwrap_or_else(PoisonError::into_inner) = log.map(|log| Sink { log, user_data, level });
        Ok(())
    })
}
