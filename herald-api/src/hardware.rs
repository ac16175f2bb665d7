//! The machine as the host sees it, and a plugin's word on how well it suits it.

use crate::abi;

/// The machine that a plugin is to run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// `HERALD_ARCH_*`.
    pub arch: u32,
    /// Logical CPUs that this process may use (affinity and cgroup limits counted).
    pub cpus: u32,
    /// `HERALD_CPU_*` bits.
    pub features: u64,
    /// Bytes of RAM; 0 where unknown.
    pub memory_bytes: u64,
}

impl Hardware {
    /// Detects the CPU's architecture and features; `cpus` and `memory_bytes` are the caller's to know.
    #[must_use]
    pub fn detect(cpus: u32, memory_bytes: u64) -> Self {
        Self { arch: arch(), cpus, features: features(), memory_bytes }
    }

    /// Detects the CPU's architecture and features alone: one CPU, and RAM of unknown size.
    #[must_use]
    pub fn features_only() -> Self {
        Self::detect(1, 0)
    }

    /// Whether all of these `HERALD_CPU_*` bits are there.
    #[must_use]
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }

    /// The names of those of some `HERALD_CPU_*` bits that are there, where the CPU's architecture has them.
    #[must_use]
    pub fn names_of(&self, features: u64) -> Vec<&'static str> {
        self.named(features & self.features)
    }

    /// The names of those of some `HERALD_CPU_*` bits that are missing, where the CPU's architecture has them.
    #[must_use]
    pub fn names_of_missing(&self, features: u64) -> Vec<&'static str> {
        self.named(features & !self.features)
    }

    /// Asks the system to let this process use AMX's tile registers, and says whether it may: before that they are illegal instructions.
    ///
    /// That is for the whole process and can't be taken back: from then on signal stacks (`sigaltstack`) below AT_MINSIGSTKSZ are refused,
    /// and where a thread has such a stack already the answer is no. On systems other than Linux it is always no.
    #[must_use]
    pub fn request_tiles(&self) -> bool {
        self.has(abi::HERALD_CPU_AMX_INT8) && tiles_are_granted()
    }

    fn named(&self, features: u64) -> Vec<&'static str> {
        let there = |(bit, arch, _): &&(u64, u32, &str)| *arch == self.arch && features & bit != 0;
        FEATURES.iter().filter(there).map(|(_, _, name)| *name).collect()
    }
}

/// A `HERALD_CPU_*` bit, the architecture that has it, and its name.
const FEATURES: [(u64, u32, &str); 11] = [
    (abi::HERALD_CPU_AVX2, abi::HERALD_ARCH_X86_64, "avx2"),
    (abi::HERALD_CPU_FMA, abi::HERALD_ARCH_X86_64, "fma"),
    (abi::HERALD_CPU_F16C, abi::HERALD_ARCH_X86_64, "f16c"),
    (abi::HERALD_CPU_AVX_VNNI, abi::HERALD_ARCH_X86_64, "avx-vnni"),
    (abi::HERALD_CPU_AVX512, abi::HERALD_ARCH_X86_64, "avx512"),
    (abi::HERALD_CPU_AVX512_VNNI, abi::HERALD_ARCH_X86_64, "avx512-vnni"),
    (abi::HERALD_CPU_AVX512_BF16, abi::HERALD_ARCH_X86_64, "avx512-bf16"),
    (abi::HERALD_CPU_AMX_INT8, abi::HERALD_ARCH_X86_64, "amx-int8"),
    (abi::HERALD_CPU_NEON, abi::HERALD_ARCH_AARCH64, "neon"),
    (abi::HERALD_CPU_DOTPROD, abi::HERALD_ARCH_AARCH64, "dotprod"),
    (abi::HERALD_CPU_I8MM, abi::HERALD_ARCH_AARCH64, "i8mm"),
];

fn arch() -> u32 {
    if cfg!(target_arch = "x86_64") {
        abi::HERALD_ARCH_X86_64
    } else if cfg!(target_arch = "aarch64") {
        abi::HERALD_ARCH_AARCH64
    } else {
        abi::HERALD_ARCH_OTHER
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> u64 {
    use std::arch::is_x86_feature_detected as has;
    let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
    [
        (abi::HERALD_CPU_AVX2, has!("avx2")),
        (abi::HERALD_CPU_FMA, has!("fma")),
        (abi::HERALD_CPU_F16C, has!("f16c")),
        (abi::HERALD_CPU_AVX_VNNI, has!("avxvnni")),
        (abi::HERALD_CPU_AVX512, avx512),
        (abi::HERALD_CPU_AVX512_VNNI, avx512 && has!("avx512vnni")),
        (abi::HERALD_CPU_AVX512_BF16, avx512 && has!("avx512bf16")),
        (abi::HERALD_CPU_AMX_INT8, has_amx_int8()),
    ]
    .into_iter()
    .filter(|(_, there)| *there)
    .fold(0, |bits, (bit, _)| bits | bit)
}

/// Whether the CPU has AMX-INT8 and the system keeps what is in tile registers: the standard library doesn't tell yet.
/// (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, 18.2.)
#[cfg(target_arch = "x86_64")]
fn has_amx_int8() -> bool {
    use std::arch::x86_64::{__cpuid_count, __get_cpuid_max, _xgetbv};

    const TILE_AND_INT8: u32 = 0b11 << 24;
    const TILE_STATES: u64 = 0b11 << 17;
    let there = std::arch::is_x86_feature_detected!("xsave")
        && __get_cpuid_max(0).0 >= 7
        && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8;
    // SAFETY: where the system uses XSAVE, which was seen, there is XGETBV.
    there && unsafe { _xgetbv(0) } & TILE_STATES == TILE_STATES
}

/// Asks the kernel for the state of tile registers (its documentation: arch/x86/xstate.rst). It may be asked again.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tiles_are_granted() -> bool {
    const ARCH_PRCTL: usize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XFEATURE_XTILEDATA: usize = 18;
    let result: isize;
    // SAFETY: a call of Linux, which takes two numbers and changes no memory of this process.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL as isize => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result == 0
}

/// How other systems let a process use tile registers was never tried.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn tiles_are_granted() -> bool {
    false
}

#[cfg(target_arch = "aarch64")]
fn features() -> u64 {
    use std::arch::is_aarch64_feature_detected as has;
    [
        (abi::HERALD_CPU_NEON, has!("neon")),
        (abi::HERALD_CPU_DOTPROD, has!("dotprod")),
        (abi::HERALD_CPU_I8MM, has!("i8mm")),
    ]
    .into_iter()
    .filter(|(_, there)| *there)
    .fold(0, |bits, (bit, _)| bits | bit)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> u64 {
    0
}

/// How well a plugin suits a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Higher is preferred; scalar code scores 100. Never 0.
    pub score: u32,
    /// Which of the plugin's code paths was chosen: at most 63 bytes.
    pub variant: String,
}
