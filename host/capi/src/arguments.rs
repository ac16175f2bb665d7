//! Reads a C call's arguments, as far as they can be checked, and writes its answers.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use herald_api::abi::{self, AbiStruct};

use super::status::{Failure, Outcome};
use herald_engine::NeuroEngine;

/// What a C program holds of this library: everything belongs to an engine.
pub(super) trait Handle {
    /// The engine that it belongs to.
    fn engine(&self) -> &NeuroEngine;
}

/// A running call, whose C caller keeps herald.h's rules. It carries that promise, so that its methods are safe.
///
/// They check what they can: null, alignment and lengths. They must only get pointers that the call was given, as an
/// argument or in a struct of one; what they return lives no longer than the call.
pub(super) struct Call(());

impl Call {
    /// # Safety
    /// For as long as this lives, every pointer that the call was given follows herald.h's rules: unless it is null or
    /// misaligned it points to as many initialised values as herald.h says, which nobody changes meanwhile; those to
    /// answers are writable; a handle came from its `herald_X_new`, `_load` or `_open`, and was not freed.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    /// The value that a pointer points to.
    pub(super) fn value<T>(&self, pointer: *const T, what: &str) -> Outcome<&T> {
        if pointer.is_null() || !pointer.is_aligned() {
            return Err(Failure::invalid(format!(
                "{what} is {}, where a pointer to one was expected",
                shown(pointer)
            )));
        }
        // SAFETY: not null and aligned; by `Call::new`'s contract it points to a value for as long as the call runs.
        Ok(unsafe { &*pointer })
    }

    /// What a handle points to, unless it was made before a fork(): its engine's threads are then in another process.
    pub(super) fn handle<T: Handle>(&self, pointer: *const T, what: &str) -> Outcome<&T> {
        let handle = self.value(pointer, what)?;
        handle.engine().in_its_process()?;
        Ok(handle)
    }

    /// An array of `len` values.
    pub(super) fn slice<T>(&self, pointer: *const T, len: usize, what: &str) -> Outcome<&[T]> {
        if len == 0 {
            return Ok(&[]);
        }
        check_array(pointer, len, what)?;
        // SAFETY: `check_array` has checked pointer and size; by `Call::new`'s contract there are `len` values.
        Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
    }

    /// A struct that begins with its size; fields that the caller's version lacks are zero.
    pub(super) fn read<T: AbiStruct>(&self, pointer: *const T) -> Outcome<T> {
        // SAFETY: by `Call::new`'s contract a pointer that is neither null nor misaligned points to such a struct.
        unsafe { abi::read(pointer) }.map_err(Failure::invalid)
    }

    /// An array of structs that begin with their size, which must be the same for all.
    pub(super) fn structs<T: AbiStruct>(&self, pointer: *const T, len: usize) -> Outcome<Vec<T>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        check_array(pointer, len, T::NAME)?;
        let mut all = Vec::new();
        // SAFETY: by `Call::new`'s contract there is at least one struct, and it begins with its size.
        let stride = unsafe { pointer.cast::<usize>().read() };
        for index in 0..len {
            // The first `read` refuses an implausible stride.
            let at = pointer.wrapping_byte_add(index.wrapping_mul(stride));
            let one = self.read(at).map_err(|failure| failure.in_element(index))?;
            // SAFETY: `read` has checked the pointer, and read the size there.
            let size = unsafe { at.cast::<usize>().read() };
            if size != stride {
                return Err(Failure::invalid(format!(
                    "element {index}: {} says that it has {size} bytes, where the {stride} of the first were expected",
                    T::NAME
                )));
            }
            all.push(one);
        }
        Ok(all)
    }

    /// A text of `len` bytes.
    pub(super) fn text(&self, pointer: *const c_char, len: usize, what: &str) -> Outcome<&str> {
        utf8(self.slice(pointer.cast::<u8>(), len, what)?, what)
    }

    /// A NUL-terminated text, or `None` for null.
    pub(super) fn c_text(&self, pointer: *const c_char, what: &str) -> Outcome<Option<&str>> {
        self.bytes(pointer).map(|bytes| utf8(bytes, what)).transpose()
    }

    /// A NUL-terminated text that must not be null.
    pub(super) fn required_text(&self, pointer: *const c_char, what: &str) -> Outcome<&str> {
        self.c_text(pointer, what)?
            .ok_or_else(|| Failure::invalid(format!("{what} is null, where a text was expected")))
    }

    /// A file's NUL-terminated path: any bytes if the system's paths are bytes, UTF-8 otherwise.
    pub(super) fn path(&self, pointer: *const c_char, what: &str) -> Outcome<PathBuf> {
        let bytes = self
            .bytes(pointer)
            .ok_or_else(|| Failure::invalid(format!("{what} is null, where a path was expected")))?;
        #[cfg(unix)]
        {
            use std::os::unix::ffi::OsStrExt;
            Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
        }
        #[cfg(not(unix))]
        utf8(bytes, what).map(PathBuf::from)
    }

    /// The bytes of a NUL-terminated text, or `None` for null.
    fn bytes(&self, pointer: *const c_char) -> Option<&[u8]> {
        // SAFETY: by `Call::new`'s contract a text that is not null ends with a NUL.
        (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_bytes())
    }

    /// Writes an answer; `pointer` must not be null.
    pub(super) fn write<T>(&self, pointer: *mut T, value: T, what: &str) -> Outcome {
        let pointer = check_answer(pointer, what)?;
        // SAFETY: not null and aligned; by `Call::new`'s contract there is room for a `T`.
        unsafe { pointer.write(value) };
        Ok(())
    }

    /// Writes an answer, unless `pointer` is null: the caller doesn't want it.
    pub(super) fn write_if_wanted<T>(&self, pointer: *mut T, value: T, what: &str) -> Outcome {
        if pointer.is_null() { Ok(()) } else { self.write(pointer, value, what) }
    }

    /// Writes a new handle of what `make` returns; null if it fails.
    pub(super) fn write_handle<T>(&self, out: *mut *mut T, make: impl FnOnce() -> Outcome<T>) -> Outcome {
        self.write(out, std::ptr::null_mut(), "out")?;
        self.write(out, Box::into_raw(Box::new(make()?)), "out")
    }

    /// Fills the caller's struct, as far as its `struct_size` goes.
    pub(super) fn fill<T: AbiStruct>(&self, pointer: *mut T, answer: &T) -> Outcome {
        // SAFETY: by `Call::new`'s contract a pointer that is neither null nor misaligned points to such a struct, which
        // is the call's to write.
        unsafe { abi::write(pointer, answer) }.map_err(Failure::invalid)
    }

    /// Writes an array of answers to the caller's buffer, and its length to `len`, even if the buffer is too small.
    pub(super) fn write_array<T: Copy>(
        &self,
        values: &[T],
        buffer: *mut T,
        capacity: usize,
        len: *mut usize,
        what: &str,
    ) -> Outcome {
        self.write(len, values.len(), &format!("the number of {what}"))?;
        self.copy(values, buffer, capacity, &format!("the buffer for the {what}"))
    }

    /// Writes a text like [`Call::write_array`], with a NUL after it, which needs room but doesn't count.
    pub(super) fn write_text(
        &self,
        bytes: &[u8],
        buffer: *mut c_char,
        capacity: usize,
        len: *mut usize,
    ) -> Outcome {
        self.write(len, bytes.len(), "the length of the text")?;
        let what = "the buffer for the text";
        if capacity <= bytes.len() {
            return Err(Failure::too_small(what, capacity, format!("{} and a NUL", bytes.len())));
        }
        self.copy(&[bytes, &[0]].concat(), buffer.cast::<u8>(), capacity, what)
    }

    /// Copies values to the caller's buffer for `capacity` of them.
    pub(super) fn copy<T: Copy>(&self, values: &[T], buffer: *mut T, capacity: usize, what: &str) -> Outcome {
        if capacity < values.len() {
            return Err(Failure::too_small(what, capacity, values.len()));
        }
        if !values.is_empty() {
            let buffer = check_answer(buffer, what)?;
            // SAFETY: not null and aligned; by `Call::new`'s contract there is room for `capacity` values, at least as
            // many as these. They are the library's own, so the buffer doesn't overlap them.
            unsafe { buffer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        }
        Ok(())
    }
}

/// Checks a pointer to an answer.
pub(super) fn check_answer<T>(pointer: *mut T, what: &str) -> Outcome<*mut T> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::invalid(format!(
            "{what} is {}, where a pointer to it was expected",
            shown(pointer)
        )));
    }
    Ok(pointer)
}

fn check_array<T>(pointer: *const T, len: usize, what: &str) -> Outcome {
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    if pointer.is_null() || !pointer.is_aligned() || bytes.is_none() {
        let at = if pointer.is_null() { "null".to_owned() } else { format!("{pointer:p}") };
        return Err(Failure::invalid(format!("{what}: {len} elements at {at}, where an array was expected")));
    }
    Ok(())
}

fn shown<T>(pointer: *const T) -> String {
    if pointer.is_null() { "null".to_owned() } else { format!("{pointer:p}, which is not aligned") }
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Outcome<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = error.valid_up_to();
        Failure::invalid(format!("{what} is not UTF-8: byte {valid} doesn't start a character"))
    })
}

/// Refuses unknown flags.
pub(super) fn flags(flags: u32, known: u32) -> Outcome {
    if flags & !known == 0 {
        return Ok(());
    }
    Err(Failure::invalid(format!("flags is {flags:#x}, where only bits of {known:#x} were expected")))
}
