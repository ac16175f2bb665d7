//! How much memory this process holds.

use std::fs;

/// Bytes that the C library's allocator has handed out; `None` where it can't say. The allocators of C, C++ and Rust
/// plugins are this one unless they bring their own.
pub(crate) fn allocated() -> Option<u64> {
    // glibc's, since 2.33; looked up so that the program runs with an older one too.
    type Mallinfo2 = unsafe extern "C" fn() -> Statistics;
    if !cfg!(target_env = "gnu") {
        return None;
    }
    // SAFETY: the name is a C string; looking it up has no other effect.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    if symbol.is_null() {
        return None;
    }
    // SAFETY: glibc's function of that name has this type.
    let info = unsafe { std::mem::transmute::<*mut libc::c_void, Mallinfo2>(symbol)() };
    Some(info.in_use as u64 + info.mapped as u64)
}

/// glibc's `struct mallinfo2`.
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
    let field = |text: String| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    fs::read_to_string("/proc/self/statm").ok().and_then(field).map_or(0, |pages| pages * page_size())
}

fn page_size() -> u64 {
    // SAFETY: a question about the system.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}
