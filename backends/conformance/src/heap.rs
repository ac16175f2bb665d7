//! How much memory this process holds.

/// Bytes that the C library's allocator has handed out; `None` where it can't say. The allocators of C, C++ and Rust
/// plugins are this one unless they bring their own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn allocated() -> Option<u64> {
    // glibc's, since 2.33; looked up so that the program runs with an older one too.
    type Mallinfo2 = unsafe extern "C" fn() -> Statistics;
    // SAFETY: the name is a C string; looking it up has no other effect.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: glibc's function of that name has this type.
    let info = unsafe { std::mem::transmute::<*mut libc::c_void, Mallinfo2>(symbol)() };
    Some(info.in_use as u64 + info.mapped as u64)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn allocated() -> Option<u64> {
    None
}

/// glibc's `struct mallinfo2`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[repr(C)]
struct Statistics {
    _heap: [usize; 4],
    /// Bytes of blocks that were mapped on their own.
    mapped: usize,
    _high: [usize; 2],
    /// Bytes of blocks in use on the heap.
    in_use: usize,
    _free: [usize; 2],
}

/// Bytes of RAM that the process takes; 0 where the system can't say.
pub(crate) fn resident() -> u64 {
    #[cfg(target_os = "linux")]
    {
        let field = |text: String| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
        let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(field);
        pages.map_or(0, |pages| pages * crate::system::page_bytes() as u64)
    }
    #[cfg(windows)]
    {
        use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
        use windows_sys::Win32::System::Threading::GetCurrentProcess;

        let mut counters = PROCESS_MEMORY_COUNTERS::default();
        let bytes = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
        // SAFETY: the struct is our own to be filled, and as long as stated; where the call fails it stays zero.
        unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &raw mut counters, bytes) };
        counters.WorkingSetSize as u64
    }
    #[cfg(target_vendor = "apple")]
    {
        memory_stats::memory_stats().map_or(0, |memory| memory.physical_mem as u64)
    }
    #[cfg(not(any(target_os = "linux", target_vendor = "apple", windows)))]
    0
}
