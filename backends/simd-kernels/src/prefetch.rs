//! Prefetching: memory is brought to a cache before it is read.
//!
//! Weights that a token reads once are prefetched to the first cache and no further: they shouldn't evict from the others
//! what the next token needs again, such as recurrent states. The same goes for the keys and values of a context so long
//! that none of them would still be cached for the next token. Those of a shorter one are prefetched to the second: a core
//! can wait for more lines of the second cache at a time than of the first. On Intel's cores that is so few for the first
//! that everything is prefetched to the second: a Xeon (Sapphire Rapids) decodes up to twice as fast that way.

use std::slice::Chunks;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far ahead of their use weights are prefetched: far enough to arrive while a core computes, and well within its first
/// cache.
const DISTANCE: usize = 8192;

/// The caches that memory is prefetched to.
#[derive(Clone, Copy)]
enum CacheHint {
    /// All of them.
    All,
    /// All but the first.
    Second,
    /// The first alone.
    First,
}

impl CacheHint {
    /// For what is read a single time.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn once() -> Self {
        use std::arch::x86_64::__cpuid;
        use std::sync::LazyLock;

        static ONCE: LazyLock<CacheHint> = LazyLock::new(|| {
            let vendor = __cpuid(0);
            let intel =
                [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel";
            if intel { CacheHint::Second } else { CacheHint::First }
        });
        *ONCE
    }

    /// For what is read a single time.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn once() -> Self {
        Self::First
    }

    /// Prefetches a line of memory.
    #[cfg(target_arch = "aarch64")]
    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        use std::arch::asm;

        // By the instructions themselves: compilers offer no function for them yet.
        // SAFETY: a prefetch has no effect that a program could see, whatever the address.
        unsafe {
            match self {
                Self::All => {
                    asm!("prfm pldl1keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags))
                }
                Self::Second => {
                    asm!("prfm pldl2keep, [{}]", in(reg) line, options(readonly, nostack, preserves_flags))
                }
                Self::First => {
                    asm!("prfm pldl1strm, [{}]", in(reg) line, options(readonly, nostack, preserves_flags))
                }
            }
        }
    }

    /// Prefetches a line of memory.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        use std::arch::x86_64::{_MM_HINT_NTA, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

        // SAFETY: a prefetch has no effect that a program could see, whatever the address.
        unsafe {
            match self {
                Self::All => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                Self::Second => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
                Self::First => _mm_prefetch::<_MM_HINT_NTA>(line.cast()),
            }
        }
    }
}

/// Prefetches all of some memory that is read again and again.
#[inline(always)]
pub(crate) fn prefetch(memory: &[u8]) {
    memory.chunks(LINE).for_each(|line| CacheHint::All.prefetch(line.as_ptr()));
}

/// Prefetches memory little by little while other work goes on: pages lie apart, so the CPU's own prefetcher can't foresee
/// the next one; but prefetching many lines at once would stall the work.
pub(crate) struct Prefetcher<'a> {
    lines: Chunks<'a, u8>,
    lines_per_step: usize,
    hint: CacheHint,
}

impl<'a> Prefetcher<'a> {
    /// All of `memory` within `steps` steps. `once` where no shared cache needs to have it.
    #[inline(always)]
    pub(crate) fn new(memory: &'a [u8], steps: usize, once: bool) -> Self {
        let lines = memory.chunks(LINE);
        let hint = if once { CacheHint::once() } else { CacheHint::Second };
        Self { lines_per_step: lines.len().div_ceil(steps.max(1)), lines, hint }
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for line in self.lines.by_ref().take(self.lines_per_step) {
            self.hint.prefetch(line.as_ptr());
        }
    }
}

/// Prefetches weights that are read from one end to the other: a CPU's own prefetcher stops at each page and starts slowly.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    end: *const u8,
    hint: CacheHint,
}

impl Stream {
    /// Prefetches the beginning of these weights. `once` where they are read through a single time.
    #[inline(always)]
    pub(crate) fn new(weights: &[u8], once: bool) -> Self {
        let hint = if once { CacheHint::once() } else { CacheHint::All };
        let stream = Self { end: weights.as_ptr_range().end, hint };
        weights[..weights.len().min(DISTANCE)].chunks(LINE).for_each(|line| hint.prefetch(line.as_ptr()));
        stream
    }

    /// Prefetches what lies [`DISTANCE`] after these `bytes`, which are about to be read.
    #[inline(always)]
    pub(crate) fn read(self, at: *const u8, bytes: usize) {
        let from = at.wrapping_add(DISTANCE);
        if from < self.end {
            (0..bytes).step_by(LINE).for_each(|line| self.hint.prefetch(from.wrapping_add(line)));
        }
    }
}
