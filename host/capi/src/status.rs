//! How a call ends: with a status and a sentence about a failure, but never with a panic.

use std::any::Any;
use std::ffi::c_char;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use herald_api::abi::{
    AbiStruct, HERALD_STATUS_BUFFER_TOO_SMALL, HERALD_STATUS_CANCELLED, HERALD_STATUS_CORRUPT,
    HERALD_STATUS_INTERNAL, HERALD_STATUS_INVALID_ARGUMENT, HERALD_STATUS_IO, HERALD_STATUS_NOT_FOUND,
    HERALD_STATUS_OK, HERALD_STATUS_OUT_OF_MEMORY, HERALD_STATUS_UNSUPPORTED, HeraldError,
};

use super::arguments::{Call, Handle};
use herald_engine::Error;
use herald_engine::gguf::GgufError;
use herald_engine::model::ModelError;
use herald_engine::sampler::SamplerError;
use herald_engine::threads::ThreadPoolError;

/// The sequence's context has no room for the tokens. (Statuses from 100 are the engine's, not plugins'.)
pub const HERALD_STATUS_CONTEXT_FULL: u32 = 100;
/// The scheduler's queue has no room for the request: try again later.
pub const HERALD_STATUS_QUEUE_FULL: u32 = 101;
/// The deadline has passed.
pub const HERALD_STATUS_DEADLINE: u32 = 102;

/// Why a call failed, for the caller.
#[derive(Clone)]
pub(super) struct Failure {
    status: u32,
    message: String,
}

impl Failure {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { status: HERALD_STATUS_INVALID_ARGUMENT, message: message.into() }
    }

    pub(super) fn unsupported(message: impl Display) -> Self {
        Self { status: HERALD_STATUS_UNSUPPORTED, message: message.to_string() }
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self { status: HERALD_STATUS_INTERNAL, message: message.into() }
    }

    /// The failure with the index of an array's element before it.
    pub(super) fn in_element(self, index: usize) -> Self {
        Self { message: format!("element {index}: {}", self.message), ..self }
    }

    pub(super) fn late() -> Self {
        Self { status: HERALD_STATUS_DEADLINE, message: "the work was ended at its deadline".to_owned() }
    }

    pub(super) fn too_small(what: &str, capacity: usize, needed: impl Display) -> Self {
        let message = format!("{what} has room for {capacity}, where {needed} is needed");
        Self { status: HERALD_STATUS_BUFFER_TOO_SMALL, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: status(&error), message: error.to_string() }
    }
}

/// The result of a function of this interface.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

fn status(error: &Error) -> u32 {
    match error {
        Error::Gguf(error) => status_of_file(error),
        Error::Model { source, .. } => match &**source {
            ModelError::Gguf(error) => status_of_file(error),
            ModelError::UnknownArchitecture { .. } | ModelError::UnknownTensor { .. } => {
                HERALD_STATUS_UNSUPPORTED
            }
            _ => HERALD_STATUS_CORRUPT,
        },
        Error::Plugins(_) => HERALD_STATUS_NOT_FOUND,
        Error::Unbuilt { .. } => HERALD_STATUS_UNSUPPORTED,
        Error::Plugin { source, .. } => source.status().code(),
        Error::File { source, .. } if source.kind() == io::ErrorKind::NotFound => HERALD_STATUS_NOT_FOUND,
        Error::File { .. } => HERALD_STATUS_IO,
        Error::Damaged { .. } => HERALD_STATUS_CORRUPT,
        Error::ContextFull { .. } => HERALD_STATUS_CONTEXT_FULL,
        Error::Invalid(_) | Error::Chat(_) | Error::Constraint(_) => HERALD_STATUS_INVALID_ARGUMENT,
        Error::Sampler(error) => match error {
            SamplerError::InvalidParameter { .. } | SamplerError::UnknownToken { .. } => {
                HERALD_STATUS_INVALID_ARGUMENT
            }
            SamplerError::NoEntropy(_) => HERALD_STATUS_IO,
            _ => HERALD_STATUS_CORRUPT,
        },
        Error::Threads(ThreadPoolError::TooMany(_)) => HERALD_STATUS_INVALID_ARGUMENT,
        Error::Threads(ThreadPoolError::Spawn { .. }) => HERALD_STATUS_OUT_OF_MEMORY,
        Error::Cancelled => HERALD_STATUS_CANCELLED,
        Error::Busy { .. } => HERALD_STATUS_QUEUE_FULL,
        Error::Budget { .. } => HERALD_STATUS_OUT_OF_MEMORY,
        Error::Forked { .. } => HERALD_STATUS_UNSUPPORTED,
        // An error of a newer engine, for which this interface has no status yet.
        _ => HERALD_STATUS_INTERNAL,
    }
}

fn status_of_file(error: &GgufError) -> u32 {
    match error {
        GgufError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => HERALD_STATUS_NOT_FOUND,
        GgufError::Io { .. } => HERALD_STATUS_IO,
        _ => HERALD_STATUS_CORRUPT,
    }
}

/// Runs the body of an exported function: `c_call!(error, |call| ...)`. The closure gets the [`Call`] and returns an
/// [`Outcome`]; the macro returns the status, and writes the sentence about a failure to `error`.
macro_rules! c_call {
    ($error:expr, $body:expr) => {{
        let (error, body) = ($error, $crate::status::body($body));
        // SAFETY: `Call::new`'s contract is herald.h's rules. They are the contract of every exported function, and the C
        // program that calls it keeps them.
        unsafe { $crate::status::guard(error, body) }
    }};
}

/// Gives a closure the type of a call's body.
pub(super) fn body<F: FnOnce(&Call) -> Outcome>(body: F) -> F {
    body
}

/// Runs a call's body: returns its status, and on failure writes the sentence to the caller's buffer. No panic gets out.
///
/// # Safety
/// As for [`Call::new`]; `error` is one of the call's pointers.
pub(super) unsafe fn guard(error: *mut HeraldError, body: impl FnOnce(&Call) -> Outcome) -> u32 {
    // SAFETY: this function's contract is that of `Call::new`.
    let call = unsafe { Call::new() };
    let failure = match catch_unwind(AssertUnwindSafe(|| body(&call))) {
        Ok(Ok(())) => return HERALD_STATUS_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::internal(format!("the engine panicked: {}", panic_message(&*panic))),
    };
    if !error.is_null() {
        let mut answer: HeraldError = AbiStruct::empty();
        fill(&mut answer.message, &failure.message);
        // A `HeraldError` with an impossible size gets no sentence.
        let _ = call.fill(error, &answer);
    }
    failure.status
}

/// Frees a handle. A panic of its destructor is caught, and can't be reported. In a fork of the process that made it, nothing is
/// freed: its destructor might wait for threads or locks that are not there.
///
/// # Safety
/// `handle` is null, or came from [`Call::write_handle`] and is not used again.
pub(super) unsafe fn free<T: Handle>(handle: *mut T) {
    // SAFETY: by this function's contract it is null or a live handle.
    let is_here = unsafe { handle.as_ref() }.is_some_and(|handle| handle.engine().in_its_process().is_ok());
    if is_here {
        // SAFETY: `Call::write_handle` made it with `Box::into_raw`, and by this function's contract it is freed once.
        let owned = unsafe { Box::from_raw(handle) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Copies a sentence into a C array: NUL-terminated, without NULs inside, and cut between characters if it is too long.
fn fill(array: &mut [c_char], text: &str) {
    let len = text.floor_char_boundary(array.len() - 1);
    for (to, from) in array.iter_mut().zip(&text.as_bytes()[..len]) {
        *to = if *from == 0 { b' ' } else { *from }.cast_signed() as c_char;
    }
    array[len] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_sentence() {
        let mut error: HeraldError = AbiStruct::empty();
        // SAFETY: the only pointer of the call is the test's own `error`.
        let status = unsafe { guard(&raw mut error, |_| panic!("a broken invariant")) };
        assert_eq!(status, HERALD_STATUS_INTERNAL);
        let bytes: Vec<u8> =
            error.message.iter().map(|c| (*c).cast_unsigned()).take_while(|b| *b != 0).collect();
        assert_eq!(bytes, b"the engine panicked: a broken invariant");
    }

    #[test]
    fn a_long_sentence_is_cut_at_a_character() {
        let mut array = [1; 6];
        fill(&mut array, "abcdé");
        assert_eq!(array.map(|c| c as u8), *b"abcd\0\x01");
    }
}
