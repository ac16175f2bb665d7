//! What both sides of the boundary work with: slices and texts of the other side, calls with their sentences, and panics, of
//! which none gets out.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::{self, AbiStruct, HeraldError};
use crate::{Error, Result, Status};

/// Calls a function of the other side with a buffer for its sentence, and turns its status into a result.
pub(crate) fn try_call(function: impl FnOnce(*mut HeraldError) -> u32) -> Result<()> {
    let mut error: HeraldError = AbiStruct::empty();
    let code = function(&mut error);
    if code == abi::HERALD_STATUS_OK {
        return Ok(());
    }
    let message = c_text(&error.message);
    Err(match (Status::from_code(code), message.is_empty()) {
        (Some(status), false) => Error::new(status, message),
        (Some(status), true) => {
            Error::new(status, format!("it failed with status {status:?} and said nothing"))
        }
        (None, quiet) => Error::new(
            Status::Internal,
            format!(
                "it returned {code}, which is no status of this ABI, and said {}",
                if quiet { "nothing" } else { &message }
            ),
        ),
    })
}

/// Runs a call's body: its status, and on failure the sentence in the caller's buffer. No panic gets out.
///
/// # Safety
/// `error` is null or a caller's `HeraldError`.
pub(crate) unsafe fn guard(error: *mut HeraldError, body: impl FnOnce() -> Result<()>) -> u32 {
    let failure = match catch(body) {
        Ok(Ok(())) => return abi::HERALD_STATUS_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            Error::new(Status::Internal, format!("the plugin panicked: {}", panic_message(&*panic)))
        }
    };
    if !error.is_null() {
        let mut answer: HeraldError = AbiStruct::empty();
        fill_text(&mut answer.message, failure.message());
        // SAFETY: the host's contract: null, or its own HeraldError. A buffer that can't be read gets no sentence.
        let _ = unsafe { abi::write(error, &answer) };
    }
    failure.status().code()
}

thread_local! {
    /// How many of this thread's callers catch what it panics with.
    static CAUGHT: Cell<usize> = const { Cell::new(0) };
}

/// Runs code whose panic the caller will tell of.
pub(crate) fn catch<T>(body: impl FnOnce() -> T) -> std::thread::Result<T> {
    CAUGHT.set(CAUGHT.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(body));
    CAUGHT.set(CAUGHT.get() - 1);
    done
}

/// Whether a caller on this thread catches what it panics with.
pub(crate) fn is_caught() -> bool {
    CAUGHT.get() > 0
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Copies text into a C array, cut at a character where it is too long, NUL-terminated.
pub(crate) fn fill_text(array: &mut [c_char], text: &str) {
    let room = array.len() - 1;
    let mut len = text.len().min(room);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    for (to, from) in array.iter_mut().zip(&text.as_bytes()[..len]) {
        *to = (*from).cast_signed() as c_char;
    }
    array[len] = 0;
}

/// A slice that the other side gave as pointer and length.
///
/// # Safety
/// A pointer that is not null and is aligned must point to `len` values that hold for the lifetime `'a`.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, len: usize, what: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    if pointer.is_null() || !pointer.is_aligned() || bytes.is_none() {
        return Err(Error::invalid(format!(
            "{what} is {len} elements at {pointer:p}, where aligned memory was expected"
        )));
    }
    // SAFETY: not null, aligned and of a possible size; the other side's contract: it holds this many values.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// A text that the other side gave as pointer and length.
///
/// # Safety
/// As for [`slice`].
pub(crate) unsafe fn text<'a>(pointer: *const c_char, len: usize, what: &str) -> Result<&'a str> {
    // SAFETY: this function's contract is the same.
    let bytes = unsafe { slice(pointer.cast::<u8>(), len, what)? };
    std::str::from_utf8(bytes).map_err(|error| {
        Error::invalid(format!("{what} is not UTF-8: byte {} begins no character", error.valid_up_to()))
    })
}

/// A flag that this version doesn't know asks for something that it wouldn't do.
pub(crate) fn known_flags(flags: u64, known: u64) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Error::unsupported(format!("the flags {unknown:#x} are not known to this plugin"))),
    }
}

/// The text of a C array, up to its NUL, or all of it where there is none.
pub(crate) fn c_text(array: &[c_char]) -> String {
    let bytes: Vec<u8> =
        array.iter().take_while(|byte| **byte != 0).flat_map(|byte| byte.to_ne_bytes()).collect();
    one_line(&String::from_utf8_lossy(&bytes))
}

/// The other side's text as people see it: a line break or a terminal's escape in it would pass for the host's own words.
pub(crate) fn one_line(text: &str) -> String {
    text.trim().replace(char::is_control, " ")
}
