//! Linux, and systems with a `/proc` like its own (proc(5)). Elsewhere nothing is known.

use std::fs;

use crate::metrics::ProcessMemory;

/// Memory of this process now.
pub(crate) fn memory() -> Option<ProcessMemory> {
    parse(&fs::read_to_string("/proc/self/status").ok()?)
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

/// Bytes of RAM.
pub(crate) fn ram_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok());
    kilobytes.map(|kilobytes: u64| kilobytes * 1024)
}

/// The CPU's name.
pub(crate) fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |wanted: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().to_owned())
    };
    // Arm's CPUs have numbers for names.
    let numbers = || Some(format!("CPU {} of implementer {}", field("CPU part")?, field("CPU implementer")?));
    field("model name").or_else(numbers)
}

/// Has the calling thread run where and when it computes fastest: the scheduler sees to that by itself.
pub(crate) fn be_interactive() {}

/// Lets threads that compute tokens go first: on Linux each thread has a priority of its own.
pub(crate) fn be_background() {
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes numbers only, of which 0 is the calling thread. Where it fails, nothing changes.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
    }
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
