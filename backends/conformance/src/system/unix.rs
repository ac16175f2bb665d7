//! On Linux, macOS and their like.

use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Access, Handler};

/// Bytes of a page of memory.
pub(crate) fn page_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    // SAFETY: sysconf only returns a number.
    *BYTES.get_or_init(|| usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096))
}

/// New pages, so many bytes, which nobody may touch yet; `None` where there is no room for them.
pub(crate) fn reserve(bytes: usize) -> Option<*mut u8> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new private mapping, of memory that nothing else knows of.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    (base != libc::MAP_FAILED).then_some(base.cast())
}

/// Says what may be done with pages. `false`: it is as it was.
///
/// # Safety
/// They are of [`reserve`], and nobody does with them what is taken away.
pub(crate) unsafe fn protect(start: *mut u8, bytes: usize, access: Access) -> bool {
    let protection = match access {
        Access::Read => libc::PROT_READ,
        Access::Write => libc::PROT_READ | libc::PROT_WRITE,
    };
    // SAFETY: the caller's contract.
    unsafe { libc::mprotect(start.cast(), bytes, protection) == 0 }
}

/// Gives pages back.
///
/// # Safety
/// They are all that one call of [`reserve`] gave, and nobody uses them any more.
pub(crate) unsafe fn release(base: *mut u8, bytes: usize) {
    // SAFETY: the caller's contract.
    unsafe { libc::munmap(base.cast(), bytes) };
}

static HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Has `handler` called where the process touches memory that it mustn't, in a signal handler, so it may do only what those may.
/// The process ends by the signal afterwards.
pub(crate) fn report_to(handler: Handler) {
    HANDLER.store(handler as usize, Ordering::SeqCst);
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        // SAFETY: the handler does only what a signal handler may; all zeros is a value of sigaction.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
            libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut());
        }
    });
}

extern "C" fn on_fault(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system calls a handler with both pointers good. Setting a signal back to its default is allowed here; the
    // instruction then runs again, and ends the process. Only `report_to` stores handlers, and it did before this could run.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let handler = std::mem::transmute::<usize, Handler>(HANDLER.load(Ordering::SeqCst));
        handler((*info).si_addr() as usize, wrote(context));
    }
}

/// Whether the access that failed was a write.
///
/// # Safety
/// `context` is what the system gave a signal handler.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn wrote(context: *mut c_void) -> Option<bool> {
    // SAFETY: the caller's contract. Bit 1 of the page fault's error code is set for writes (Intel SDM, volume 3, 4.7).
    let code = unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs[libc::REG_ERR as usize] };
    Some(code & 2 != 0)
}

/// Whether the access that failed was a write: this system doesn't say it in a way that is used here.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
unsafe fn wrote(_: *mut c_void) -> Option<bool> {
    None
}

/// The least time that [`thread_time`] tells from none.
pub(crate) const THREAD_CLOCK: Duration = Duration::from_nanos(1);

/// CPU time of this thread.
pub(crate) fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is our own.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// No file of this process grows beyond a limit until this is dropped; writing past it is an error, as on a full disk.
pub(crate) struct FullDisk {
    before: libc::rlimit,
    handler: libc::sighandler_t,
}

impl FullDisk {
    /// Sets the limit, in bytes of a file; `None` where the system has none.
    pub(crate) fn begin(bytes: u64) -> Option<Self> {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: calls about this process's own limit, and about what becomes of the signal that tells of it.
        unsafe {
            if libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut before) != 0 {
                return None;
            }
            let handler = libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            let limit = libc::rlimit { rlim_cur: bytes.min(before.rlim_max), ..before };
            let made = Self { before, handler };
            (libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) == 0).then_some(made)
        }
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        // SAFETY: as in `begin`; the limit may be raised again as far as it was.
        unsafe {
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const self.before);
            libc::signal(libc::SIGXFSZ, self.handler);
        }
    }
}
