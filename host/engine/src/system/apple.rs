//! macOS and its like.

use std::ffi::CStr;

use crate::metrics::ProcessMemory;

/// Memory of this process now; what comes from files isn't told apart.
pub(crate) fn memory() -> Option<ProcessMemory> {
    let rss_bytes = memory_stats::memory_stats()?.physical_mem as u64;
    // getrusage(2): in bytes here, where other systems have kilobytes.
    let peak_bytes = super::unix::usage().map_or(0, |usage| usage.ru_maxrss.unsigned_abs());
    Some(ProcessMemory { rss_bytes, peak_bytes: peak_bytes.max(rss_bytes), file_bytes: 0 })
}

/// Bytes of RAM.
pub(crate) fn ram_bytes() -> Option<u64> {
    let mut bytes = [0; 8];
    (value(c"hw.memsize", &mut bytes)? == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

/// The CPU's name.
pub(crate) fn cpu_name() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    if let Some(name) = super::brand() {
        return Some(name);
    }
    let mut bytes = [0; 128];
    value(c"machdep.cpu.brand_string", &mut bytes)?;
    let name = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Writes what sysctl(3) has by a name, and returns its length.
fn value(name: &CStr, bytes: &mut [u8]) -> Option<usize> {
    let mut len = bytes.len();
    // SAFETY: the name ends in NUL, and the buffer has as many bytes as stated.
    let status = unsafe {
        libc::sysctlbyname(name.as_ptr(), bytes.as_mut_ptr().cast(), &raw mut len, std::ptr::null_mut(), 0)
    };
    (status == 0).then_some(len)
}

/// Has the calling thread run where and when it computes fastest: on performance cores, as what a user waits for.
pub(crate) fn be_interactive() {
    be(libc::qos_class_t::QOS_CLASS_USER_INITIATED);
}

/// Lets threads that compute tokens go first.
pub(crate) fn be_background() {
    be(libc::qos_class_t::QOS_CLASS_UTILITY);
}

fn be(class: libc::qos_class_t) {
    // SAFETY: the call takes numbers only, about the calling thread. Where it fails, nothing changes.
    unsafe { libc::pthread_set_qos_class_self_np(class, 0) };
}
