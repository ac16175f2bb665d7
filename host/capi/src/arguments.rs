//! Arguments as C gives them, checked as far as they can be, and answers as C takes them.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use herald_api::abi::{self, AbiStruct};

use super::status::{Failure, Outcome};

/// What a pointer points to.
///
/// # Safety
/// A pointer that is not null and is aligned must point to a value that holds for the lifetime `'a`.
pub(super) unsafe fn value<'a, T>(pointer: *const T, what: &str) -> Outcome<&'a T> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::invalid(format!(
            "{what} is {}, where a pointer to one was expected",
            shown(pointer)
        )));
    }
    // SAFETY: not null, aligned, and the caller vouches for the rest.
    Ok(unsafe { &*pointer })
}

/// Checks a place for an answer.
pub(super) fn place<T>(pointer: *mut T, what: &str) -> Outcome<*mut T> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::invalid(format!(
            "{what} is {}, where a place for it was expected",
            shown(pointer)
        )));
    }
    Ok(pointer)
}

fn shown<T>(pointer: *const T) -> String {
    if pointer.is_null() { "null".to_owned() } else { format!("{pointer:p}, which is not aligned") }
}

/// An array.
///
/// # Safety
/// A pointer that is not null and is aligned must point to `len` values that hold for the lifetime `'a`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, what: &str) -> Outcome<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_array(pointer, len, what)?;
    // SAFETY: checked, and the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

fn check_array<T>(pointer: *const T, len: usize, what: &str) -> Outcome {
    let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    if pointer.is_null() || !pointer.is_aligned() || bytes.is_none() {
        let at = if pointer.is_null() { "null".to_owned() } else { format!("{pointer:p}") };
        return Err(Failure::invalid(format!("{what}: {len} elements at {at}, where an array was expected")));
    }
    Ok(())
}

/// An array of structs, each as long as its own `struct_size` says, which must be the same for all.
///
/// # Safety
/// A pointer that is not null and is aligned must point to `len` such structs.
pub(super) unsafe fn structs<T: AbiStruct>(pointer: *const T, len: usize) -> Outcome<Vec<T>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    check_array(pointer, len, T::NAME)?;
    let mut all = Vec::new();
    // SAFETY: there is at least one struct, and it begins with its size.
    let stride = unsafe { pointer.cast::<usize>().read() };
    for index in 0..len {
        // A stride past belief is refused by the first read.
        let at = pointer.wrapping_byte_add(index.wrapping_mul(stride));
        // SAFETY: the caller vouches for `len` structs of this size.
        let one = unsafe { abi::read(at) }
            .map_err(|message| Failure::invalid(format!("element {index}: {message}")))?;
        // SAFETY: `read` has checked the pointer.
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

/// A text of so many bytes.
///
/// # Safety
/// As for [`slice`].
pub(super) unsafe fn text<'a>(pointer: *const c_char, len: usize, what: &str) -> Outcome<&'a str> {
    // SAFETY: the caller vouches.
    let bytes = unsafe { slice(pointer.cast::<u8>(), len, what)? };
    utf8(bytes, what)
}

/// A NUL-terminated text, or `None` for null.
///
/// # Safety
/// A pointer that is not null must point to a NUL-terminated text that holds for the lifetime `'a`.
pub(super) unsafe fn c_text<'a>(pointer: *const c_char, what: &str) -> Outcome<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller vouches.
    utf8(unsafe { CStr::from_ptr(pointer) }.to_bytes(), what).map(Some)
}

/// A NUL-terminated text that must be there.
///
/// # Safety
/// As for [`c_text`].
pub(super) unsafe fn required_text<'a>(pointer: *const c_char, what: &str) -> Outcome<&'a str> {
    // SAFETY: the caller vouches.
    unsafe { c_text(pointer, what)? }
        .ok_or_else(|| Failure::invalid(format!("{what} is null, where a text was expected")))
}

fn utf8<'a>(bytes: &'a [u8], what: &str) -> Outcome<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        Failure::invalid(format!("{what} is not UTF-8: byte {} begins no character", error.valid_up_to()))
    })
}

/// A file's path, NUL-terminated: any bytes where the system's paths are bytes, UTF-8 elsewhere.
///
/// # Safety
/// As for [`c_text`].
pub(super) unsafe fn path(pointer: *const c_char, what: &str) -> Outcome<PathBuf> {
    if pointer.is_null() {
        return Err(Failure::invalid(format!("{what} is null, where a path was expected")));
    }
    // SAFETY: the caller vouches.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    utf8(bytes, what).map(PathBuf::from)
}

/// Refuses bits that mean nothing.
pub(super) fn flags(flags: u32, known: u32) -> Outcome {
    if flags & !known == 0 {
        return Ok(());
    }
    Err(Failure::invalid(format!("flags is {flags:#x}, where only bits of {known:#x} were expected")))
}

/// Writes an array of answers to the caller's buffer and its length to `len`, also where the buffer is too small.
///
/// # Safety
/// `buffer` is null or has room for `capacity` values; `len` is null or a place for a number.
pub(super) unsafe fn answer<T: Copy>(
    values: &[T],
    buffer: *mut T,
    capacity: usize,
    len: *mut usize,
    what: &str,
) -> Outcome {
    let len = place(len, &format!("the number of {what}"))?;
    // SAFETY: the caller vouches.
    unsafe { len.write(values.len()) };
    if capacity < values.len() {
        return Err(Failure::too_small(&format!("the buffer for the {what}"), capacity, values.len()));
    }
    if !values.is_empty() {
        let buffer = place(buffer, &format!("the buffer for the {what}"))?;
        // SAFETY: there is room, as checked; the values are ours, so nothing overlaps.
        unsafe { buffer.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    }
    Ok(())
}

/// As [`answer`] for text: a NUL follows it, for which there must be room, and which is not counted.
///
/// # Safety
/// As for [`answer`].
pub(super) unsafe fn answer_text(
    bytes: &[u8],
    buffer: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> Outcome {
    let len = place(len, "the length of the text")?;
    // SAFETY: the caller vouches.
    unsafe { len.write(bytes.len()) };
    if capacity <= bytes.len() {
        return Err(Failure::too_small(
            "the buffer for the text",
            capacity,
            format!("{} and a NUL", bytes.len()),
        ));
    }
    let buffer = place(buffer, "the buffer for the text")?.cast::<u8>();
    // SAFETY: there is room for the text and a NUL, as checked; the text is ours, so nothing overlaps.
    unsafe {
        buffer.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        buffer.add(bytes.len()).write(0);
    }
    Ok(())
}
