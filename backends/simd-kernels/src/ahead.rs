//! Memory that is asked for before it is read.
//!
//! Weights that a token reads once go to the first cache and no further: they shouldn't drive from the others what the next
//! token needs again, such as recurrent states; nor should keys and values of so many tokens that none would still be there.
//! Those of fewer go to the second: a core waits for more lines of that one at a time than of the first.

use std::arch::x86_64::{_MM_HINT_NTA, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
use std::slice::Chunks;

/// Bytes of a cache line.
const LINE: usize = 64;

/// How far before their use weights are asked for: what comes from there while a core computes, and well within its first
/// cache.
const DISTANCE: usize = 8192;

/// Asks for a line of memory, to be brought as near as `HINT` says.
#[inline(always)]
fn ask<const HINT: i32>(line: *const u8) {
    // SAFETY: asking for memory has no effect that a program could see, wherever it lies.
    unsafe { _mm_prefetch::<HINT>(line.cast()) }
}

/// Asks for all of some memory, which is read again and again.
#[inline(always)]
pub(crate) fn ask_for(memory: &[u8]) {
    memory.chunks(LINE).for_each(|line| ask::<_MM_HINT_T0>(line.as_ptr()));
}

/// Memory that is asked for little by little as other work goes on: pages lie apart, and the CPU doesn't see by itself where
/// it will read on; but of many lines at once it makes the work wait.
pub(crate) struct Ahead<'a> {
    lines: Chunks<'a, u8>,
    /// Lines of a step.
    each: usize,
    once: bool,
}

impl<'a> Ahead<'a> {
    /// All of it in so many steps. `once` where no shared cache needs to have it.
    #[inline(always)]
    pub(crate) fn new(memory: &'a [u8], steps: usize, once: bool) -> Self {
        let lines = memory.chunks(LINE);
        Self { each: lines.len().div_ceil(steps.max(1)), lines, once }
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for line in self.lines.by_ref().take(self.each) {
            if self.once { ask::<_MM_HINT_NTA>(line.as_ptr()) } else { ask::<_MM_HINT_T1>(line.as_ptr()) }
        }
    }
}

/// Weights that are read from one end to the other: a CPU's own prefetcher stops at each page and begins slowly.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    end: *const u8,
    once: bool,
}

impl Stream {
    /// These weights, whose beginning is asked for at once. `once` where they are read through a single time.
    #[inline(always)]
    pub(crate) fn new(weights: &[u8], once: bool) -> Self {
        let stream = Self { end: weights.as_ptr_range().end, once };
        weights[..weights.len().min(DISTANCE)].chunks(LINE).for_each(|line| stream.ask(line.as_ptr()));
        stream
    }

    /// Asks for what comes [`DISTANCE`] after these bytes, which are about to be read.
    #[inline(always)]
    pub(crate) fn read(self, at: *const u8, bytes: usize) {
        let from = at.wrapping_add(DISTANCE);
        if from < self.end {
            (0..bytes).step_by(LINE).for_each(|line| self.ask(from.wrapping_add(line)));
        }
    }

    #[inline(always)]
    fn ask(self, line: *const u8) {
        if self.once { ask::<_MM_HINT_NTA>(line) } else { ask::<_MM_HINT_T0>(line) }
    }
}
