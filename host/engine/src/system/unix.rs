//! What Linux, macOS and their like have in common.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// CPU time that this process has taken, on all its threads.
pub(crate) fn cpu_time() -> Option<Duration> {
    // How wide the second number is differs by system.
    let time = |time: libc::timeval| {
        let micros = u64::try_from(time.tv_usec).unwrap_or(0);
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(micros)
    };
    usage().map(|usage| time(usage.ru_utime) + time(usage.ru_stime))
}

/// What this process has used.
pub(super) fn usage() -> Option<libc::rusage> {
    // SAFETY: zeros are a value of this struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is our own to be filled.
    (unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } == 0).then_some(usage)
}

/// The file of the library or the executable that holds an address, where its absolute path is known.
pub(crate) fn library_of(address: *const u8) -> Option<PathBuf> {
    // SAFETY: dladdr only fills the struct that it is given, which all zeros is a value of.
    let info = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        (libc::dladdr(address.cast(), &raw mut info) != 0).then_some(info)?
    };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr gave a NUL-terminated path that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    // For an executable the name may be relative to where it was started: then the executable's own path serves.
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    path.is_absolute().then(|| path.to_owned())
}
