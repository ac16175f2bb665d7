//! Memory that the user limited (`ulimit -v`): running out of it ends the program with a sentence.
//!
//! Large pieces of memory are asked for where a refusal can be reported. Small ones aren't, here and in libraries: there, a
//! refusal aborts the process, and a stack that can't grow is a segmentation fault. Without a limit the system never refuses, and
//! both stay what they are: a fault, with its core file.

#[cfg(unix)]
mod on_unix {
    use std::ffi::c_int;
    use std::sync::OnceLock;

    static SENTENCE: OnceLock<String> = OnceLock::new();

    /// Sees to it that the end is a sentence, where there is a limit.
    pub(crate) fn prepare() {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: it writes to the struct, which is ours.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
        if !known || limit.rlim_cur == libc::RLIM_INFINITY {
            return;
        }
        SENTENCE.get_or_init(|| {
            format!(
                "error: the memory is used up, of which this process may have {} MiB (ulimit -v), or a backend failed\n",
                limit.rlim_cur >> 20
            )
        });
        for signal in [libc::SIGABRT, libc::SIGSEGV] {
            // SAFETY: all zeros is a value of this struct of numbers and pointers.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            action.sa_sigaction = end as *const () as libc::sighandler_t;
            // The stack may be what is used up: the standard library made another one for signals.
            action.sa_flags = libc::SA_ONSTACK;
            // SAFETY: the handler calls only what a signal handler may.
            unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
        }
    }

    extern "C" fn end(_: c_int) {
        let sentence = SENTENCE.get().map_or("", String::as_str);
        // SAFETY: both may be called in a signal handler, and the text lives as long as the program.
        unsafe {
            libc::write(libc::STDERR_FILENO, sentence.as_ptr().cast(), sentence.len());
            libc::_exit(1)
        }
    }
}

#[cfg(unix)]
pub(super) use on_unix::prepare;

#[cfg(not(unix))]
pub(super) fn prepare() {}
