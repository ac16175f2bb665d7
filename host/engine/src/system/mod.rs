//! What the engine asks of the operating system where systems differ: one file for each that is known, and one for what Unix
//! systems share.

#[cfg(target_vendor = "apple")]
mod apple;
#[cfg(not(any(target_vendor = "apple", windows)))]
mod proc;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(target_vendor = "apple")]
pub(crate) use apple::{be_background, be_interactive, cpu_name, memory, ram_bytes};
#[cfg(not(any(target_vendor = "apple", windows)))]
pub(crate) use proc::{be_background, be_interactive, cpu_name, memory, ram_bytes};
#[cfg(unix)]
pub use unix::free_bytes;
#[cfg(unix)]
pub(crate) use unix::{cpu_time, cpu_time_of, library_of};
#[cfg(windows)]
pub use windows::free_bytes;
#[cfg(windows)]
pub(crate) use windows::{
    be_background, be_interactive, cpu_name, cpu_time, cpu_time_of, library_of, memory, quiet_faults,
    ram_bytes,
};

/// The CPU's own name for itself (Intel's and AMD's manuals: `cpuid`, leaves 0x80000002 to 0x80000004).
#[cfg(all(target_arch = "x86_64", any(target_vendor = "apple", windows)))]
fn brand() -> Option<String> {
    use std::arch::x86_64::__cpuid;

    const NAME: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
    if __cpuid(0x8000_0000).eax < *NAME.end() {
        return None;
    }
    let registers = NAME.map(__cpuid).flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let bytes: Vec<u8> = registers.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
    let name = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!name.is_empty()).then_some(name)
}
