//! What the program asks of the operating system where systems differ.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{bound_process, cause, end_at_once, prepare, take_stdout, write_from_handler};
#[cfg(windows)]
pub(crate) use windows::{bound_process, cause, end_at_once, prepare, take_stdout, write_from_handler};
