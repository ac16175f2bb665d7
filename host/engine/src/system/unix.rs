//! What Linux, macOS and their like have in common.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
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

/// CPU time that a thread has taken, where the system tells it.
pub(crate) fn cpu_time_of<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
    {
        use std::os::unix::thread::JoinHandleExt;

        let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: a thread that is neither joined nor detached has its id, even when it has ended; both structs are our own.
        let known = unsafe {
            libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut time) == 0
        };
        known.then(|| Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32))
    }
    #[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
    {
        let _ = thread;
        None
    }
}

/// Bytes that this user may still write to the disk that a folder is on; `None` where the system doesn't tell.
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path ends in a zero, and the struct of plain numbers is this function's own.
    let facts = unsafe {
        let mut facts: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &raw mut facts) == 0).then_some(facts)
    }?;
    // The numbers' types differ by system.
    #[allow(clippy::unnecessary_cast)]
    Some((facts.f_bavail as u64).saturating_mul(facts.f_frsize as u64))
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
