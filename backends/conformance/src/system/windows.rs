//! On Windows.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use windows_sys::Win32::Foundation::{EXCEPTION_ACCESS_VIOLATION, FILETIME};
use windows_sys::Win32::System::Diagnostics::Debug::{
    AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS,
};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE, VirtualAlloc,
    VirtualFree, VirtualProtect,
};
use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};
use windows_sys::Win32::System::Threading::{GetCurrentThread, GetThreadTimes};

use super::{Access, Handler};

/// Bytes of a page of memory.
pub(crate) fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let mut info = SYSTEM_INFO::default();
        // SAFETY: the struct is our own to be filled.
        unsafe { GetSystemInfo(&raw mut info) };
        info.dwPageSize as usize
    })
}

/// New pages, so many bytes, which nobody may touch yet; `None` where there is no room for them.
pub(crate) fn reserve(bytes: usize) -> Option<*mut u8> {
    // SAFETY: new memory, which nothing else knows of.
    let base = unsafe { VirtualAlloc(std::ptr::null(), bytes, MEM_RESERVE | MEM_COMMIT, PAGE_NOACCESS) };
    (!base.is_null()).then_some(base.cast())
}

/// Says what may be done with pages. `false`: it is as it was.
///
/// # Safety
/// They are of [`reserve`], and nobody does with them what is taken away.
pub(crate) unsafe fn protect(start: *mut u8, bytes: usize, access: Access) -> bool {
    let protection = match access {
        Access::Read => PAGE_READONLY,
        Access::Write => PAGE_READWRITE,
    };
    let mut before = 0;
    // SAFETY: the caller's contract.
    unsafe { VirtualProtect(start.cast(), bytes, protection, &raw mut before) != 0 }
}

/// Gives pages back.
///
/// # Safety
/// They are all that one call of [`reserve`] gave, and nobody uses them any more.
pub(crate) unsafe fn release(base: *mut u8, _: usize) {
    // SAFETY: the caller's contract.
    unsafe { VirtualFree(base.cast(), 0, MEM_RELEASE) };
}

static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Has `handler` called where the process touches memory that it mustn't. What did so may have held any lock, so the handler may
/// take none. The process ends by the exception afterwards.
pub(crate) fn report_to(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::SeqCst);
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // SAFETY: the handler lives as long as the process, and hands every exception on.
        unsafe { AddVectoredExceptionHandler(1, Some(on_exception)) };
    });
}

unsafe extern "system" fn on_exception(pointers: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: the system calls a handler with good pointers.
    let record = unsafe { &*(*pointers).ExceptionRecord };
    if record.ExceptionCode == EXCEPTION_ACCESS_VIOLATION && record.NumberParameters >= 2 {
        // SAFETY: only `report_to` stores handlers, and it did before this could run.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(HANDLER.load(Ordering::SeqCst)) };
        // 0: it read; 1: it wrote; 8: it ran what isn't code.
        let wrote = record.ExceptionInformation[0] == 1;
        handler(record.ExceptionInformation[1], Some(wrote));
    }
    EXCEPTION_CONTINUE_SEARCH
}

/// The least time that [`thread_time`] tells from none: a tick of the system's clock, 64 of which are a second.
pub(crate) const THREAD_CLOCK: Duration = Duration::from_nanos(1_000_000_000 / 64);

/// CPU time of this thread.
pub(crate) fn thread_time() -> Duration {
    let [mut begin, mut end, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: the structs are our own to be filled; where the call fails they stay zero.
    unsafe {
        GetThreadTimes(GetCurrentThread(), &raw mut begin, &raw mut end, &raw mut kernel, &raw mut user)
    };
    // In units of 100 ns.
    let time = |time: FILETIME| {
        Duration::from_nanos((u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime)) * 100)
    };
    time(kernel) + time(user)
}

/// A limit on the length of this process's files, which Windows doesn't have.
pub(crate) enum FullDisk {}

impl FullDisk {
    /// There is none.
    pub(crate) fn begin(_: u64) -> Option<Self> {
        None
    }
}
