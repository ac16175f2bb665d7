//! On Linux, macOS and their like.

use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What the program does first.
pub(crate) fn prepare() {
    // A file that would exceed the user's size limit should fail like a full disk, not kill the program.
    // SAFETY: `SIG_IGN` installs no handler, so no code runs in signal context.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Ends the program though a call is running: nothing of it may be waited for, so no library's destructors run.
pub(crate) fn end_at_once() -> ! {
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(1) }
}

/// What this process was given as stdout, and stderr in its place: a plugin that prints something disturbs nobody.
pub(crate) fn take_stdout() -> io::Result<File> {
    // SAFETY: both numbers are open for as long as the process runs, and the new one is this function's own.
    unsafe {
        let to = libc::dup(1);
        if to < 0 || libc::dup2(2, 1) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(to))
    }
}

/// Writes to a file from a handler of faults, which may take no lock and no memory.
pub(crate) fn write_from_handler(file: &File, bytes: &[u8]) {
    // SAFETY: the bytes live for the call, and the file is open.
    unsafe { libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
}

/// The socket that whoever started this process listens on for it (sd_listen_fds(3)), where there is one.
///
/// # Errors
/// One sentence: several sockets, or what is no listening TCP socket.
pub(crate) fn inherited_socket() -> Result<Option<TcpListener>, String> {
    /// The first descriptor of those that are handed over.
    const FIRST: libc::c_int = 3;

    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(None);
    }
    match number("LISTEN_FDS") {
        Some(1) => {}
        None | Some(0) => return Ok(None),
        Some(many) => {
            return Err(format!("{many} sockets were handed over (LISTEN_FDS), where one was expected"));
        }
    }
    let listens = |descriptor| {
        let (mut listens, mut len) = (0 as libc::c_int, size_of::<libc::c_int>() as libc::socklen_t);
        // SAFETY: the number and its length are this function's own. A descriptor that is none refuses.
        let asked = unsafe {
            let to = (&raw mut listens).cast();
            libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, to, &raw mut len)
        };
        asked == 0 && listens != 0
    };
    let wrong = || "descriptor 3, which was handed over (LISTEN_FDS), is no listening TCP socket".to_owned();
    if !listens(FIRST) {
        return Err(wrong());
    }
    // SAFETY: the descriptor is open, and by the protocol this process's own; nothing else here has taken it.
    let listener = unsafe {
        // Children that the program starts have no use for it.
        libc::fcntl(FIRST, libc::F_SETFD, libc::FD_CLOEXEC);
        TcpListener::from_raw_fd(FIRST)
    };
    listener.local_addr().map_err(|_| wrong())?;
    Ok(Some(listener))
}

/// Bounds what a process that checks a plugin may take of the machine, to so many bytes of memory, and has it end with its parent.
pub(crate) fn bound_process(memory_bytes: u64) {
    // SAFETY: these only set limits of this process. Where one can't be set, the checks run without it.
    unsafe {
        for (resource, bytes) in [(libc::RLIMIT_AS, memory_bytes), (libc::RLIMIT_CORE, 0)] {
            let mut limit: libc::rlimit = std::mem::zeroed();
            if libc::getrlimit(resource, &raw mut limit) == 0 {
                limit.rlim_cur = limit.rlim_max.min(bytes as libc::rlim_t);
                libc::setrlimit(resource, &raw const limit);
            }
        }
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
    }
}

/// What ended a process, where it was a signal.
pub(crate) fn cause(status: ExitStatus) -> Option<String> {
    let name = match status.signal()? {
        libc::SIGABRT => {
            "SIGABRT (an abort: a failed assertion, a panic, or an exception that nobody caught)"
        }
        libc::SIGSEGV => "SIGSEGV (it touched memory that isn't there)",
        libc::SIGBUS => "SIGBUS (it touched memory that isn't there)",
        libc::SIGFPE => "SIGFPE (an integer division by zero)",
        libc::SIGILL => "SIGILL (an instruction that this CPU doesn't have, or a trap)",
        libc::SIGKILL => "SIGKILL (killed, perhaps for its memory)",
        libc::SIGTRAP => "SIGTRAP (a trap)",
        other => return Some(format!("signal {other}")),
    };
    Some(name.to_owned())
}
