//! Windows.

use std::ffi::OsString;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::AsRawHandle;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use windows_sys::Win32::Foundation::FILETIME;
use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
use windows_sys::Win32::System::Diagnostics::Debug::{
    SEM_FAILCRITICALERRORS, SEM_NOGPFAULTERRORBOX, SetErrorMode,
};
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, GetModuleFileNameW,
    GetModuleHandleExW,
};
use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::{
    GetCurrentProcess, GetCurrentThread, GetProcessTimes, GetThreadTimes, SetThreadPriority,
    THREAD_PRIORITY_BELOW_NORMAL,
};

use crate::metrics::ProcessMemory;

/// The longest path that Windows has, in its 16-bit units.
const MAX_PATH_UNITS: usize = 32_768;

/// Memory of this process now; what comes from files isn't told apart.
pub(crate) fn memory() -> Option<ProcessMemory> {
    let mut counters = PROCESS_MEMORY_COUNTERS::default();
    let bytes = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    // SAFETY: the struct is our own to be filled, and as long as stated; the handle is this process's.
    let known = unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &raw mut counters, bytes) } != 0;
    known.then_some(ProcessMemory {
        rss_bytes: counters.WorkingSetSize as u64,
        peak_bytes: counters.PeakWorkingSetSize as u64,
        file_bytes: 0,
    })
}

/// Bytes of RAM.
pub(crate) fn ram_bytes() -> Option<u64> {
    let mut status =
        MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..MEMORYSTATUSEX::default() };
    // SAFETY: the struct is our own to be filled, and says how long it is.
    (unsafe { GlobalMemoryStatusEx(&raw mut status) } != 0).then_some(status.ullTotalPhys)
}

/// The CPU's name.
pub(crate) fn cpu_name() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        super::brand()
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// CPU time that this process has taken, on all its threads.
pub(crate) fn cpu_time() -> Option<Duration> {
    let [mut begin, mut end, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: the structs are our own to be filled; the handle is this process's.
    let known = unsafe {
        GetProcessTimes(GetCurrentProcess(), &raw mut begin, &raw mut end, &raw mut kernel, &raw mut user)
    } != 0;
    known.then(|| duration(kernel) + duration(user))
}

/// A time in units of 100 ns.
fn duration(time: FILETIME) -> Duration {
    let units = u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    Duration::from_nanos(units.saturating_mul(100))
}

/// CPU time that a thread has taken.
pub(crate) fn cpu_time_of<T>(thread: &JoinHandle<T>) -> Option<Duration> {
    let [mut begin, mut end, mut kernel, mut user] = [FILETIME::default(); 4];
    // SAFETY: the structs are our own to be filled; the handle is the thread's, which is not closed before it is joined.
    let known = unsafe {
        GetThreadTimes(thread.as_raw_handle(), &raw mut begin, &raw mut end, &raw mut kernel, &raw mut user)
    } != 0;
    known.then(|| duration(kernel) + duration(user))
}

/// The file of the library or the executable that holds an address.
pub(crate) fn library_of(address: *const u8) -> Option<PathBuf> {
    let flags = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    let mut module = std::ptr::null_mut();
    // SAFETY: with this flag the name is an address in the library; the handle is our own to be filled.
    if unsafe { GetModuleHandleExW(flags, address.cast(), &raw mut module) } == 0 {
        return None;
    }
    let mut name = vec![0; MAX_PATH_UNITS];
    // SAFETY: the buffer has as many units as stated, and the library stays loaded while its code runs.
    let len = unsafe { GetModuleFileNameW(module, name.as_mut_ptr(), MAX_PATH_UNITS as u32) } as usize;
    // A name that is cut fills the buffer.
    (1..MAX_PATH_UNITS).contains(&len).then(|| OsString::from_wide(&name[..len]).into())
}

/// Has the calling thread run where and when it computes fastest: the scheduler sees to that by itself.
pub(crate) fn be_interactive() {}

/// Lets threads that compute tokens go first.
pub(crate) fn be_background() {
    // SAFETY: the call takes numbers only, about the calling thread. Where it fails, nothing changes.
    unsafe { SetThreadPriority(GetCurrentThread(), THREAD_PRIORITY_BELOW_NORMAL) };
}

/// Has this process end silently where it faults or a library is missing: no window asks a user about it.
pub(crate) fn quiet_faults() {
    // SAFETY: the call takes numbers only.
    unsafe { SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX) };
}

/// Bytes that this user may still write to the disk that a folder is on; `None` where the system doesn't tell.
#[must_use]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let path: Vec<u16> = folder.as_os_str().encode_wide().chain([0]).collect();
    let mut bytes = 0;
    // SAFETY: the path ends in a zero, and the number is this function's own; the other two may be null.
    let known = unsafe {
        GetDiskFreeSpaceExW(path.as_ptr(), &raw mut bytes, std::ptr::null_mut(), std::ptr::null_mut())
    };
    (known != 0).then_some(bytes)
}
