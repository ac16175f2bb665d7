//! The engine's log, to a function of the caller's.

use std::ffi::{c_char, c_void};
use std::fmt::{self, Write};
use std::sync::{OnceLock, PoisonError, RwLock};

use herald_api::abi::{HERALD_LOG_DEBUG, HERALD_LOG_ERROR, HERALD_LOG_INFO, HERALD_LOG_WARN, HeraldError};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

use super::status::{Failure, guard};

type Log = unsafe extern "C" fn(user_data: *mut c_void, level: u32, text: *const c_char, text_len: usize);

/// Where lines go.
struct Sink {
    log: Log,
    user_data: *mut c_void,
    level: u32,
}

// SAFETY: the header asks for a function that any thread may call, with this user_data.
unsafe impl Send for Sink {}
// SAFETY: as for Send.
unsafe impl Sync for Sink {}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Whether this process's events come here, once that has been tried.
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
        // Held during the call: when herald_log returns, the function that was set before is running no more.
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Sink { log, user_data, .. }) = sink.as_ref().filter(|sink| level <= sink.level) {
            let mut line = Line(String::new());
            event.record(&mut line);
            let len = line.0.len();
            line.0.push('\0');
            // SAFETY: the header's contract of the function; the line outlives the call.
            unsafe { log(*user_data, level, line.0.as_ptr().cast(), len) };
        }
    }
}

/// An event's message, with its other fields after it.
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

/// Sets the function that the engine's log goes to, for the whole process; null for none, as at the start. It is handed
/// lines of this level (HERALD_LOG_*) and graver ones: UTF-8 without a newline at its end, NUL-terminated, text_len bytes
/// without the NUL, valid during the call. It may be called from any thread, many at once, with user_data; it must not
/// throw, longjmp, or call herald_log. When herald_log returns, the function that was set before is called no more.
/// Any thread. Statuses: OK; INVALID_ARGUMENT (no such level); UNSUPPORTED (a Rust program that has a log of its own).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_log(
    level: u32,
    log: Option<
        unsafe extern "C" fn(user_data: *mut c_void, level: u32, text: *const c_char, text_len: usize),
    >,
    user_data: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            if !(HERALD_LOG_ERROR..=HERALD_LOG_DEBUG).contains(&level) {
                return Err(Failure::invalid(format!(
                    "the level is {level}, where {HERALD_LOG_ERROR} to {HERALD_LOG_DEBUG} were expected"
                )));
            }
            if !*STARTED
                .get_or_init(|| tracing::subscriber::set_global_default(registry().with(ToSink)).is_ok())
            {
                return Err(Failure::unsupported(
                    "this program has a log of its own, by the Rust crate tracing",
                ));
            }
            *SINK.write().unwrap_or_else(PoisonError::into_inner) =
                log.map(|log| Sink { log, user_data, level });
            Ok(())
        })
    }
}
