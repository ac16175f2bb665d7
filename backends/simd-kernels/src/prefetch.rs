//! Memory that is asked for before it is read.
//!
//! Weights that a token reads once go to the first cache and no further: they shouldn't drive from the others what the next
//! token needs again, such as recurrent states; nor should keys and values of so many tokens that none would still be there.
//! Those of fewer go to the second: a core waits for more lines of that one at a time than of the first. Intel's cores wait
//! for so few of the first that there everything goes to the second: on a Xeon (Sapphire Rapids) that decodes up to twice as fast.

use std::arch::x86_64::{__cpuid, _MM_HINT_NTA, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
use std::slice::Chunks;
use std::sync::LazyLock;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far before their use weights are asked for: what comes from there while a core computes, and well within its first
/// cache.
const DISTANCE: usize = 8192;

/// The caches that memory is brought to.
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
    #[inline(always)]
    fn once() -> Self {
        static ONCE: LazyLock<CacheHint> = LazyLock::new(|| {
            let vendor = __cpuid(0);
            let intel =
                [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel";
            if intel { CacheHint::Second } else { CacheHint::First }
        });
        *ONCE
    }

    /// Asks for a line of memory.
    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        // SAFETY: asking for memory has no effect that a program could see, wherever it lies.
        unsafe {
            match self {
                Self::All => _mm_prefetch::<_MM_HINT_T0>(line.cast()),
                Self::Second => _mm_prefetch::<_MM_HINT_T1>(line.cast()),
                Self::First => _mm_prefetch::<_MM_HINT_NTA>(line.cast()),
            }
        }
    }
}

/// Asks for all of some memory, which is read again and again.
#[inline(always)]
pub(crate) fn prefetch(memory: &[u8]) {
    memory.chunks(LINE).for_each(|line| CacheHint::All.prefetch(line.as_ptr()));
}

/// Memory that is asked for little by little as other work goes on: pages lie apart, and the CPU doesn't see by itself where
/// it will read on; but of many lines at once it makes the work wait.
pub(crate) struct Prefetcher<'a> {
    lines: Chunks<'a, u8>,
    /// Lines of a step.
    each: usize,
    hint: CacheHint,
}

impl<'a> Prefetcher<'a> {
    /// All of it in so many steps. `once` where no shared cache needs to have it.
    #[inline(always)]
    pub(crate) fn new(memory: &'a [u8], steps: usize, once: bool) -> Self {
        let lines = memory.chunks(LINE);
        let hint = if once { CacheHint::once() } else { CacheHint::Second };
        Self { each: lines.len().div_ceil(steps.max(1)), lines, hint }
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for line in self.lines.by_ref().take(self.each) {
            self.hint.prefetch(line.as_ptr());
        }
    }
}

/// Weights that are read from one end to the other: a CPU's own prefetcher stops at each page and begins slowly.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    end: *const u8,
    hint: CacheHint,
}

impl Stream {
    /// These weights, whose beginning is asked for at once. `once` where they are read through a single time.
    #[inline(always)]
    pub(crate) fn new(weights: &[u8], once: bool) -> Self {
        let hint = if once { CacheHint::once() } else { CacheHint::All };
        let stream = Self { end: weights.as_ptr_range().end, hint };
        weights[..weights.len().min(DISTANCE)].chunks(LINE).for_each(|line| hint.prefetch(line.as_ptr()));
        stream
    }

    /// Asks for what comes [`DISTANCE`] after these bytes, which are about to be read.
    #[inline(always)]
    pub(crate) fn read(self, at: *const u8, bytes: usize) {
        let from = at.wrapping_add(DISTANCE);
        if from < self.end {
            (0..bytes).step_by(LINE).for_each(|line| self.hint.prefetch(from.wrapping_add(line)));
        }
    }
}
