//! Calls of a plugin's functions, and what they may touch.

use std::fmt::Debug;

use herald_api::Status;
use herald_api::abi::{AbiStruct, HERALD_STATUS_OK, HeraldError};

use crate::check::{Verdict, ensure};

/// What a call returned: its status, and the sentence of one that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// `HERALD_STATUS_*`.
    pub(crate) code: u32,
    pub(crate) message: String,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        self.code == HERALD_STATUS_OK
    }

    /// The status by its name, with the sentence.
    pub(crate) fn say(&self) -> String {
        match Status::from_code(self.code) {
            None => "OK".to_owned(),
            Some(status) => format!("{status:?} ({})", self.message),
        }
    }

    /// Whether the call succeeded or failed in one of the ways that the ABI allows here.
    pub(crate) fn is_one_of(&self, allowed: &[Status]) -> bool {
        allowed.iter().any(|status| status.code() == self.code)
    }

    /// Fails the check unless the call succeeded.
    pub(crate) fn ok(&self, what: &str) -> Verdict<()> {
        ensure!(self.is_ok(), WrongStatus, "{what} gave {}, where OK was expected", self.say());
        Ok(())
    }

    /// Fails the check unless the call failed in one of these ways.
    pub(crate) fn refused(&self, what: &str, allowed: &[Status]) -> Verdict<()> {
        ensure!(
            self.is_one_of(allowed),
            WrongStatus,
            "{what} gave {}, where {} was expected",
            self.say(),
            allowed.iter().map(|status| format!("{status:?}")).collect::<Vec<_>>().join(" or ")
        );
        Ok(())
    }
}

/// The caller's buffer for a sentence, and bytes after it that nobody may write.
#[repr(C)]
struct Watched {
    error: HeraldError,
    after: [u8; 64],
}

/// Calls a function of the plugin. `what`: the function's name, for sentences.
pub(crate) fn call(what: &str, function: impl FnOnce(*mut HeraldError) -> u32) -> Verdict<Answer> {
    let mut watched = Watched { error: AbiStruct::empty(), after: [CANARY; 64] };
    let code = function(&raw mut watched.error);
    ensure!(
        watched.after == [CANARY; 64] && watched.error.struct_size == size_of::<HeraldError>(),
        WritesOutside,
        "{what} wrote beside the message of its HeraldError"
    );
    if code == HERALD_STATUS_OK {
        return Ok(Answer { code, message: String::new() });
    }
    ensure!(
        Status::from_code(code).is_some(),
        WrongStatus,
        "{what} returned {code}, which is no status of the ABI"
    );
    let bytes: Vec<u8> = watched.error.message.iter().flat_map(|byte| byte.to_ne_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0);
    ensure!(end.is_some(), BadMessage, "the sentence of {what} has no NUL at its end");
    let bytes = &bytes[..end.unwrap_or(0)];
    let sentence = std::str::from_utf8(bytes);
    ensure!(sentence.is_ok(), BadMessage, "the sentence of {what} is not UTF-8: {bytes:?}");
    let message = sentence.unwrap_or_default().trim().replace(char::is_control, " ");
    ensure!(
        !message.is_empty(),
        BadMessage,
        "{what} returned {:?} and no sentence that says why",
        Status::from_code(code)
    );
    Ok(Answer { code, message })
}

/// Asks a plugin to create a `noun`, which it writes to the place that `function` gets; what it made, or how that failed.
pub(crate) fn created<T>(
    noun: &str,
    function: impl FnOnce(*mut *mut T, *mut HeraldError) -> u32,
) -> Verdict<Result<*mut T, Answer>> {
    let untouched = std::ptr::dangling_mut::<T>();
    let mut out = untouched;
    let answer = call(&format!("{noun} create"), |error| function(&raw mut out, error))?;
    if !answer.is_ok() {
        ensure!(
            out == untouched,
            WrongStatus,
            "create gave {} and yet put something in *out, which was to stay as it was",
            answer.say()
        );
        return Ok(Err(answer));
    }
    ensure!(out != untouched && !out.is_null(), NotWritten, "create gave OK and no {noun}");
    Ok(Ok(out))
}

const CANARY: u8 = 0xc5;

/// How many elements before and after a buffer are watched.
const MARGIN: usize = 64;

/// A buffer for a plugin to fill, between elements that it may not write.
pub(crate) struct Buffer<T> {
    elements: Vec<T>,
    canary: T,
}

impl<T: Copy + PartialEq + Debug> Buffer<T> {
    /// Room for `len` elements, each `fill` at first.
    pub(crate) fn new(len: usize, fill: T, canary: T) -> Self {
        let mut elements = vec![canary; len + 2 * MARGIN];
        elements[MARGIN..MARGIN + len].fill(fill);
        Self { elements, canary }
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.elements[MARGIN..].as_mut_ptr()
    }

    /// What the plugin left in it. Fails the check if it wrote beside it.
    pub(crate) fn filled(&self, what: &str) -> Verdict<&[T]> {
        let len = self.elements.len() - 2 * MARGIN;
        let written = |margin: &[T]| margin.iter().position(|element| *element != self.canary);
        if let Some(after) = written(&self.elements[MARGIN + len..]) {
            ensure!(false, WritesOutside, "{what} wrote element {} of a buffer of {len}", len + after);
        }
        let before = written(&self.elements[..MARGIN]).map(|at| MARGIN - at);
        if let Some(before) = before {
            ensure!(false, WritesOutside, "{what} wrote {before} elements before its buffer");
        }
        Ok(&self.elements[MARGIN..MARGIN + len])
    }
}
