//! What the checks ask of the operating system.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    FullDisk, THREAD_CLOCK, page_bytes, protect, release, report_to, reserve, thread_time,
};
#[cfg(windows)]
pub(crate) use windows::{
    FullDisk, THREAD_CLOCK, page_bytes, protect, release, report_to, reserve, thread_time,
};

/// What may be done with pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// They may be read.
    Read,
    /// They may be read and written.
    Write,
}

/// Called where the process touches memory that it mustn't: with the address, and whether it wrote; `None` where the system
/// doesn't say.
pub(crate) type Handler = fn(address: usize, wrote: Option<bool>);
