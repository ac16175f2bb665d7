//! Loops over the host's threads, as layers write them.

use std::ops::Range;

use herald_api::Parallel;

use crate::disjoint_slice::DisjointSlice;
use crate::scratch::{PerWorker, Scratch};

/// Elements of simple arithmetic (an activation, an addition) from which on waking the workers pays off.
const SHARE_FROM_ELEMENTS: usize = 1 << 13;

/// What layers add to [`Parallel`].
pub(crate) trait ParallelExt: Sized {
    /// These threads where waking them pays off, else the calling thread alone.
    fn when(&self, pays_off: bool) -> Self;

    /// Items `0..n`, as [`Parallel::run`], each task with its worker's own memory.
    fn run_with(&self, n: usize, memory: &mut PerWorker<'_>, task: impl Fn(Range<usize>, Scratch<'_>) + Sync);

    /// The elements of `data` in runs: `task` gets which they are, and the elements. The calling thread does few alone.
    fn run_elements(&self, data: &mut [f32], task: impl Fn(Range<usize>, &mut [f32]) + Sync);
}

impl ParallelExt for Parallel<'_> {
    fn when(&self, pays_off: bool) -> Self {
        if pays_off { *self } else { Self::serial() }
    }

    fn run_with(
        &self,
        n: usize,
        memory: &mut PerWorker<'_>,
        task: impl Fn(Range<usize>, Scratch<'_>) + Sync,
    ) {
        let (parts, share) = (DisjointSlice::new(&mut *memory.memory), memory.share);
        self.run(n, &|range, worker| {
            // SAFETY: by the host's contract no two tasks that run at once have the same worker.
            let part = unsafe { parts.part(worker * share..(worker + 1) * share) };
            task(range, Scratch::new(part));
        });
    }

    fn run_elements(&self, data: &mut [f32], task: impl Fn(Range<usize>, &mut [f32]) + Sync) {
        let len = data.len();
        let parts = DisjointSlice::new(data);
        self.when(len >= SHARE_FROM_ELEMENTS).run(len, &|range, _| {
            // SAFETY: by the host's contract ranges of items don't overlap.
            task(range.clone(), unsafe { parts.part(range) });
        });
    }
}
