//! Memory that is asked for before it is read.

use std::arch::x86_64::{_MM_HINT_NTA, _MM_HINT_T0, _mm_prefetch};

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far before its use memory is asked for: what comes from there while a core computes, and well within its first
/// cache.
const DISTANCE: usize = 8192;

/// Memory that is asked for little by little, as other work goes on: pages lie apart, and the CPU doesn't see by itself
/// where it will read on.
pub(crate) struct Ahead<'a> {
    lines: std::slice::Chunks<'a, u8>,
    each: usize,
}

impl<'a> Ahead<'a> {
    /// All of it in so many steps.
    #[inline(always)]
    pub(crate) fn new(memory: &'a [u8], steps: usize) -> Self {
        Self { lines: memory.chunks(LINE), each: memory.len().div_ceil(LINE).div_ceil(steps.max(1)) }
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for line in self.lines.by_ref().take(self.each) {
            // SAFETY: asking for memory has no effect that a program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) }
        }
    }
}

/// Weights that are read from one end to the other. A CPU's own prefetcher stops at each page and begins slowly; and what is
/// read once a token shouldn't drive from the shared caches what the next token needs again: recurrent states, keys and
/// values.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    end: *const u8,
    once: bool,
}

impl Stream {
    /// These weights, whose beginning is asked for at once. `once` where they are read through a single time, so that
    /// they needn't be in more than the first cache.
    #[inline(always)]
    pub(crate) fn new(weights: &[u8], once: bool) -> Self {
        let stream = Self { end: weights.as_ptr_range().end, once };
        for line in weights[..weights.len().min(DISTANCE)].chunks(LINE) {
            stream.ask(line.as_ptr());
        }
        stream
    }

    /// Asks for what comes [`DISTANCE`] after these bytes, which are about to be read.
    #[inline(always)]
    pub(crate) fn read(self, at: *const u8, bytes: usize) {
        let from = at.wrapping_add(DISTANCE);
        if from < self.end {
            for line in (0..bytes).step_by(LINE) {
                self.ask(from.wrapping_add(line));
            }
        }
    }

    #[inline(always)]
    fn ask(self, line: *const u8) {
        // SAFETY: asking for memory has no effect that a program could see, wherever it lies.
        unsafe {
            if self.once {
                _mm_prefetch::<_MM_HINT_NTA>(line.cast());
            } else {
                _mm_prefetch::<_MM_HINT_T0>(line.cast());
            }
        }
    }
}
