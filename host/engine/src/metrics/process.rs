//! What the operating system says about this process's memory.

use std::time::Duration;

use serde::Serialize;

use crate::system;

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
    system::memory()
}

/// Sets the peak back to the current use. `false` where the system can't.
pub fn reset_peak() -> bool {
    // proc(5): 5 resets the peak resident set size.
    cfg!(target_os = "linux") && std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

/// CPU time that this process has taken, on all its threads; `None` where the system doesn't say.
#[must_use]
pub fn cpu_time() -> Option<Duration> {
    system::cpu_time()
}
