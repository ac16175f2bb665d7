//! The plugin's table, and what host and plugin hand each other besides the three interfaces.

use std::ffi::{c_char, c_void};

use super::{HeraldLayerTable, HeraldTierTable, HeraldTokenizerTable};

/// The version of this ABI. A plugin states the version that it was built for in HeraldPlugin.abi_version.
pub const HERALD_ABI_VERSION: u32 = 1;

/// The call succeeded.
pub const HERALD_STATUS_OK: u32 = 0;
/// An argument contradicts the call's contract: a shape, a range, a missing pointer.
pub const HERALD_STATUS_INVALID_ARGUMENT: u32 = 1;
/// The request is well formed, and this plugin doesn't offer it: the host asks the next one.
pub const HERALD_STATUS_UNSUPPORTED: u32 = 2;
/// Memory for the request could not be had.
pub const HERALD_STATUS_OUT_OF_MEMORY: u32 = 3;
/// The operating system refused a read or a write.
pub const HERALD_STATUS_IO: u32 = 4;
/// Data failed a check: it is damaged, or was never what it claims to be.
pub const HERALD_STATUS_CORRUPT: u32 = 5;
/// The caller's buffer is too small; the needed size was reported.
pub const HERALD_STATUS_BUFFER_TOO_SMALL: u32 = 6;
/// What the request names isn't there.
pub const HERALD_STATUS_NOT_FOUND: u32 = 7;
/// The caller asked for the work to stop.
pub const HERALD_STATUS_CANCELLED: u32 = 8;
/// A fault of the callee itself: a panic, a broken invariant.
pub const HERALD_STATUS_INTERNAL: u32 = 9;

/// Something failed and the user should know.
pub const HERALD_LOG_ERROR: u32 = 1;
/// Something is not as it should be, and work goes on.
pub const HERALD_LOG_WARN: u32 = 2;
/// Worth a line to an interested user.
pub const HERALD_LOG_INFO: u32 = 3;
/// Worth a line to a developer.
pub const HERALD_LOG_DEBUG: u32 = 4;

/// An architecture that this header has no number for.
pub const HERALD_ARCH_OTHER: u32 = 0;
/// x86-64.
pub const HERALD_ARCH_X86_64: u32 = 1;
/// AArch64.
pub const HERALD_ARCH_AARCH64: u32 = 2;

/// x86: AVX2.
pub const HERALD_CPU_AVX2: u64 = 1 << 0;
/// x86: FMA3.
pub const HERALD_CPU_FMA: u64 = 1 << 1;
/// x86: F16C.
pub const HERALD_CPU_F16C: u64 = 1 << 2;
/// x86: AVX-VNNI (256-bit integer dot products).
pub const HERALD_CPU_AVX_VNNI: u64 = 1 << 3;
/// x86: AVX-512 F, BW, DQ and VL, all four.
pub const HERALD_CPU_AVX512: u64 = 1 << 4;
/// x86: AVX-512 VNNI.
pub const HERALD_CPU_AVX512_VNNI: u64 = 1 << 5;
/// x86: AVX-512 BF16.
pub const HERALD_CPU_AVX512_BF16: u64 = 1 << 6;
/// x86: AMX-INT8, and the system saves its tile registers. Linux must be asked by arch_prctl(ARCH_REQ_XCOMP_PERM, 18)
/// before a process uses them (Rust: Hardware::request_tiles); until then they are illegal instructions.
pub const HERALD_CPU_AMX_INT8: u64 = 1 << 7;
/// AArch64: NEON.
pub const HERALD_CPU_NEON: u64 = 1 << 16;
/// AArch64: integer dot products (FEAT_DotProd).
pub const HERALD_CPU_DOTPROD: u64 = 1 << 17;
/// AArch64: 8-bit integer matrix products (FEAT_I8MM).
pub const HERALD_CPU_I8MM: u64 = 1 << 18;

/// The caller's own buffer for one sentence that says what failed, where, and what was expected.
///
/// The caller sets struct_size and message[0] = 0; a callee that fails fills message with NUL-terminated UTF-8, cut at
/// a character where it is too long. A null pointer in its place means that the caller doesn't want the sentence.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldError {
    /// sizeof(HeraldError).
    pub struct_size: usize,
    /// The sentence, NUL-terminated UTF-8.
    pub message: [c_char; 504],
}

/// What the host offers a plugin for as long as it is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldHost {
    /// sizeof(HeraldHost) of the host.
    pub struct_size: usize,
    /// The host's own; passed back in every call.
    pub context: *mut c_void,
    /// Writes one line (UTF-8, no newline at its end, text_len bytes) to the host's log at a HERALD_LOG_* level.
    /// Any thread.
    pub log:
        Option<unsafe extern "C" fn(context: *mut c_void, level: u32, text: *const c_char, text_len: usize)>,
}

/// The machine that the plugin is to run on, as the host sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldHardware {
    /// sizeof(HeraldHardware) of the host.
    pub struct_size: usize,
    /// HERALD_ARCH_*.
    pub arch: u32,
    /// Logical CPUs that this process may use (affinity and cgroup limits counted).
    pub cpus: u32,
    /// HERALD_CPU_* bits that the CPU and the operating system both support.
    pub features: u64,
    /// Bytes of RAM; 0 where unknown.
    pub memory_bytes: u64,
}

/// How well a plugin suits a machine.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldProbe {
    /// sizeof(HeraldProbe) of the host.
    pub struct_size: usize,
    /// Higher is preferred. Scalar code scores 100; each plugin's author ranks it against that. 0 is not a score: a plugin
    /// that can't run here returns HERALD_STATUS_UNSUPPORTED.
    pub score: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Which of the plugin's code paths was chosen ("scalar", "avx2"), NUL-terminated UTF-8.
    pub variant: [c_char; 64],
}

/// One piece of parallel work, made by the plugin on its own stack.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTask {
    /// sizeof(HeraldTask) of the plugin.
    pub struct_size: usize,
    /// The plugin's own; passed back in every call.
    pub argument: *mut c_void,
    /// Does items begin..end; a worker may get several such ranges. No two calls of one task share an item, and no two that
    /// run at the same time share a worker; worker is less than HeraldParallel.workers. Must not throw, unwind or longjmp.
    pub run: Option<unsafe extern "C" fn(argument: *mut c_void, begin: u64, end: u64, worker: u32)>,
}

/// The host's threads, lent for one call. A plugin starts no compute threads itself.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldParallel {
    /// sizeof(HeraldParallel) of the host.
    pub struct_size: usize,
    /// The host's own; passed back in run.
    pub context: *mut c_void,
    /// How many workers may run at once, the calling thread counted; at least 1.
    pub workers: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Does all of items 0..items by calling the task with ranges that don't overlap, on this thread and the workers',
    /// and returns when every one is done. What a task wrote before its end is visible to the caller afterwards.
    /// To be called only by the thread that was handed this struct, during the call that handed it, and not from within
    /// a task.
    pub run: Option<unsafe extern "C" fn(context: *mut c_void, items: u64, task: *const HeraldTask)>,
}

/// A plugin. herald_plugin_v1 returns a pointer to one that lives as long as the library is loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldPlugin {
    /// sizeof(HeraldPlugin) of the plugin.
    pub struct_size: usize,
    /// HERALD_ABI_VERSION of the header that it was built with.
    pub abi_version: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// A short name, unique among plugins: letters, digits, '-' and '_', at most 64 bytes. What --backend takes.
    pub name: *const c_char,
    /// Bytes of name.
    pub name_len: usize,
    /// The plugin's own version, such as "1.2.0", at most 64 bytes of UTF-8.
    pub version: *const c_char,
    /// Bytes of version.
    pub version_len: usize,
    /// One line for people, at most 256 bytes of UTF-8; may be null.
    pub description: *const c_char,
    /// Bytes of description.
    pub description_len: usize,
    /// The layouts of this ABI's structs as the plugin was built with them, or null: Rust plugins carry it by
    /// themselves (see herald-api's layout module), and C plugins leave it null.
    pub layout: *const c_char,
    /// Bytes of layout.
    pub layout_len: usize,
    /// Called once, after the checks and before anything else; host stays valid until the process ends. May be null.
    /// Statuses: OK, or any failure, which refuses the plugin.
    pub start: Option<unsafe extern "C" fn(host: *const HeraldHost, error: *mut HeraldError) -> u32>,
    /// Says how well the plugin suits the hardware: fills out. Any thread, at any time after start, cheaply.
    /// Statuses: OK; UNSUPPORTED with the reason where it can't run here.
    pub probe: Option<
        unsafe extern "C" fn(
            hardware: *const HeraldHardware,
            out: *mut HeraldProbe,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Engine layers, or null where the plugin offers none.
    pub layers: *const HeraldLayerTable,
    /// Tokenizers, or null where the plugin offers none.
    pub tokenizers: *const HeraldTokenizerTable,
    /// Memory tiers, or null where the plugin offers none.
    pub tiers: *const HeraldTierTable,
}
