//! On Windows.

use std::fs::File;
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::windows::io::AsHandle;
use std::process::ExitStatus;

use windows_sys::Win32::Foundation::{
    EXCEPTION_ACCESS_VIOLATION, EXCEPTION_BREAKPOINT, EXCEPTION_ILLEGAL_INSTRUCTION,
    EXCEPTION_INT_DIVIDE_BY_ZERO, EXCEPTION_STACK_OVERFLOW, NTSTATUS, STATUS_FATAL_APP_EXIT,
    STATUS_STACK_BUFFER_OVERRUN,
};
use windows_sys::Win32::Globalization::CP_UTF8;
use windows_sys::Win32::System::Console::{
    ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, GetStdHandle, STD_ERROR_HANDLE, STD_HANDLE,
    STD_OUTPUT_HANDLE, SetConsoleMode, SetConsoleOutputCP,
};
use windows_sys::Win32::System::Diagnostics::Debug::{
    SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_PROCESS_MEMORY,
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobObjectExtendedLimitInformation, SetInformationJobObject,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, TerminateProcess};

/// What the program does first: colours and UTF-8 on the console, of plugins written in C too. Rust's own output is right in any
/// case.
pub(crate) fn prepare() {
    for stream in [STD_OUTPUT_HANDLE, STD_ERROR_HANDLE] {
        colours(stream);
    }
    // SAFETY: the call takes a number only. Where there is no console, nothing changes.
    unsafe { SetConsoleOutputCP(CP_UTF8) };
}

fn colours(stream: STD_HANDLE) {
    let mut mode = 0;
    // SAFETY: calls about this process's own console, the second only where the first has answered; a stream that is none refuses.
    unsafe {
        let console = GetStdHandle(stream);
        if GetConsoleMode(console, &raw mut mode) != 0 {
            SetConsoleMode(console, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
        }
    }
}

/// Ends the program though a call is running: nothing of it may be waited for, so no library's destructors run.
pub(crate) fn end_at_once() -> ! {
    // SAFETY: it only ends the process.
    unsafe { TerminateProcess(GetCurrentProcess(), 1) };
    std::process::abort()
}

/// What this process was given as stdout, and stderr in its place: a plugin that prints something disturbs nobody.
pub(crate) fn take_stdout() -> io::Result<File> {
    let to = io::stdout().as_handle().try_clone_to_owned()?;
    // SAFETY: both numbers are open for as long as the process runs. The C library sets the system's handle too.
    if unsafe { libc::dup2(2, 1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(to.into())
}

/// Writes to a file from a handler of faults, which may take no lock and no memory.
pub(crate) fn write_from_handler(mut file: &File, bytes: &[u8]) {
    // It calls the system at once. Nobody reads where it fails.
    let _ = file.write_all(bytes);
}

/// No process is handed a socket here.
///
/// # Errors
/// None.
pub(crate) fn inherited_socket() -> Result<Option<TcpListener>, String> {
    Ok(None)
}

/// Bounds what a process that checks a plugin may take of the machine, to so many bytes of memory, and has it end silently where it
/// faults.
pub(crate) fn bound_process(memory_bytes: u64) {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_PROCESS_MEMORY;
    limits.ProcessMemoryLimit = usize::try_from(memory_bytes).unwrap_or(usize::MAX);
    let bytes = size_of::<JOBOBJECT_EXTENDED_LIMIT_INFORMATION>() as u32;
    // SAFETY: the struct is our own, and as long as stated; the job is of this process alone and lives as long. Where one call
    // fails, the checks run without the limit.
    unsafe {
        SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX);
        let job = CreateJobObjectW(std::ptr::null(), std::ptr::null());
        if !job.is_null()
            && SetInformationJobObject(
                job,
                JobObjectExtendedLimitInformation,
                (&raw const limits).cast(),
                bytes,
            ) != 0
        {
            AssignProcessToJobObject(job, GetCurrentProcess());
        }
    }
}

/// What ended a process, where it was an exception.
pub(crate) fn cause(status: ExitStatus) -> Option<String> {
    /// The exit code of the C library's `abort`.
    const ABORTED: NTSTATUS = 3;

    let name = match status.code()? {
        EXCEPTION_ACCESS_VIOLATION => "an access violation (it touched memory that isn't there)",
        EXCEPTION_STACK_OVERFLOW => "a stack overflow",
        EXCEPTION_ILLEGAL_INSTRUCTION => "an illegal instruction (one that this CPU doesn't have, or a trap)",
        EXCEPTION_INT_DIVIDE_BY_ZERO => "an integer division by zero",
        EXCEPTION_BREAKPOINT => "a breakpoint (a trap)",
        STATUS_STACK_BUFFER_OVERRUN | STATUS_FATAL_APP_EXIT | ABORTED => {
            "an abort (a failed assertion, a panic, or an exception that nobody caught)"
        }
        other if other < 0 => return Some(format!("exception {other:#010x}")),
        _ => return None,
    };
    Some(name.to_owned())
}
