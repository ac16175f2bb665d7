//! Today's date, which some templates tell the model.

use std::ffi::CString;
use std::mem::MaybeUninit;

/// Bytes of a formatted time; no template needs more, and a format may ask for any width.
const MAX_LENGTH: usize = 512;

/// The local time by a format of C's and Python's `strftime`.
pub(super) fn strftime_now(format: &str) -> Result<String, String> {
    // SAFETY: with a null pointer, time(2) writes nothing and only returns.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    strftime(format, now)
}

fn strftime(format: &str, time: libc::time_t) -> Result<String, String> {
    let failed = |why: &str| {
        let begin: String = format.chars().take(60).collect();
        format!("strftime_now({begin:?}) {why}")
    };
    // The leading mark tells an empty result (0 bytes written) from a failure (also 0).
    let marked = CString::new(format!(".{format}")).map_err(|_| failed("has a NUL in its format"))?;
    let mut local = MaybeUninit::<libc::tm>::uninit();
    // SAFETY: both pointers are to live values of the right types; the call only writes to the second.
    if unsafe { libc::localtime_r(&raw const time, local.as_mut_ptr()) }.is_null() {
        return Err(failed("found no local time"));
    }
    // SAFETY: localtime_r did not return null, so it has filled the value.
    let local = unsafe { local.assume_init() };
    let mut buffer = [0u8; MAX_LENGTH];
    // SAFETY: the buffer has as many bytes as stated, the format ends in NUL, and the time is valid.
    let length = unsafe {
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), marked.as_ptr(), &raw const local)
    };
    let written =
        buffer.get(1..length).ok_or_else(|| failed("gives too long a text, expected under 512 bytes"))?;
    Ok(String::from_utf8_lossy(written).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_c_does() {
        // 15 July 2024, 12:00 UTC: the same day in nearly all time zones, the same month in all.
        let time = 1_721_044_800;
        assert_eq!(strftime("%b %Y, %m %B é%%", time).unwrap(), "Jul 2024, 07 July é%");
        assert_eq!(strftime("", time).unwrap(), "");
        assert_eq!(strftime_now("%Y").unwrap().len(), 4);
    }

    #[test]
    fn refuses_what_cannot_be_formatted() {
        assert!(strftime("%999999999d", 0).is_err());
        assert!(strftime("a\0b", 0).is_err());
        assert!(strftime(&"x".repeat(1000), 0).is_err());
    }
}
