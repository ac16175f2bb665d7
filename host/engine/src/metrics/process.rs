//! What the operating system says about this process's memory.

use std::fs;
use std::time::Duration;

use serde::Serialize;

/// Memory of this process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// What it has in RAM now (RSS), mapped files included.
    pub rss_bytes: u64,
    /// The most that it has had in RAM (since [`reset_peak`]).
    pub peak_bytes: u64,
    /// The part of `rss_bytes` that comes from files, as a mapped model does: the system can take it back.
    pub file_bytes: u64,
}

/// Memory of this process now; `None` where the system doesn't say.
#[must_use]
pub fn process_memory() -> Option<ProcessMemory> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Sets the peak back to the current use. `false` where the system can't.
pub fn reset_peak() -> bool {
    // proc(5): 5 resets the peak resident set size.
    fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// CPU time that this process has taken, on all its threads; `None` where the system doesn't say.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    // SAFETY: zeros are a value of this struct of integers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the struct is our own to be filled.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) } != 0 {
        return None;
    }
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs()) + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Some(time(usage.ru_utime) + time(usage.ru_stime))
}

fn parse(status: &str) -> Option<ProcessMemory> {
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(ProcessMemory {
        rss_bytes: bytes("VmRSS")?,
        peak_bytes: bytes("VmHWM")?,
        file_bytes: bytes("RssFile").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = "Name:\thost\nVmHWM:\t  2048 kB\nVmRSS:\t    1024 kB\nRssFile:\t     512 kB\n";
        let expected =
            ProcessMemory { rss_bytes: 1024 * 1024, peak_bytes: 2048 * 1024, file_bytes: 512 * 1024 };
        assert_eq!(parse(status), Some(expected));
        assert_eq!(parse("Name:\thost\n"), None);
    }
}
