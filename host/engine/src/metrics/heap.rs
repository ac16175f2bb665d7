//! The heap that this process allocates from.

/// Has the C library give the system back what it holds of freed memory; `false` where it offers no such call.
///
/// Pages of keys and values are too small for allocators to return one by one, so freed ones stay with the process until
/// something else is allocated there, or this is called.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn trim_heap() -> bool {
    // SAFETY: malloc_trim(3) may be called at any time from any thread. Its answer says whether there was anything.
    unsafe { libc::malloc_trim(0) };
    true
}

/// Has the C library give the system back what it holds of freed memory; `false` where it offers no such call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim_heap() -> bool {
    false
}
