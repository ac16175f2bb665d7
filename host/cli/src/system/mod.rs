//! What the program asks of the operating system where systems differ.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::{
    bound_process, cause, end_at_once, inherited_socket, prepare, take_stdout, write_from_handler,
};
#[cfg(windows)]
pub(crate) use windows::{
    bound_process, cause, end_at_once, inherited_socket, prepare, take_stdout, write_from_handler,
};

/// RAM that programs may still take, in bytes, where the system says so in `/proc/meminfo`.
pub(crate) fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
