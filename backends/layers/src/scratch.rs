//! Scratch memory, laid out by declaring each buffer once.
//!
//! A layer, or a step of one, has one function that declares its buffers. Under [`Scratch::measure`] the function tells how
//! many bytes they take; over a call's memory it yields them. So what a layer asks for and what it uses can't disagree.
//!
//! Buffers begin at cache lines: a vector that straddles two cache lines costs two loads.

use bytemuck::Pod;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Float32 elements that a buffer of `len` takes, in whole cache lines.
pub(crate) fn padded_len(len: usize) -> usize {
    len.next_multiple_of(LINE / size_of::<f32>())
}

/// Memory that buffers are taken of, one after another.
pub(crate) struct Scratch<'s> {
    /// What is left; `None` while buffers are only measured.
    left: Option<&'s mut [u8]>,
    /// Bytes of the buffers taken so far.
    taken: usize,
}

/// An equal part of scratch memory for each worker; see [`crate::parallel::ParallelExt::run_with`].
pub(crate) struct PerWorker<'s> {
    pub(crate) memory: &'s mut [u8],
    /// Bytes of a worker's part.
    pub(crate) share: usize,
}

impl Scratch<'static> {
    /// Bytes that the buffers take which `declare` takes. They are all empty here.
    pub(crate) fn measure<R>(declare: impl FnOnce(&mut Self) -> R) -> usize {
        let mut scratch = Self { left: None, taken: 0 };
        declare(&mut scratch);
        scratch.taken
    }
}

impl<'s> Scratch<'s> {
    /// Memory that begins at a cache line.
    pub(crate) fn new(memory: &'s mut [u8]) -> Self {
        Self { left: Some(memory), taken: 0 }
    }

    /// What is left, to be laid out and given back: for a loop that lays out each round anew.
    pub(crate) fn reborrow(&mut self) -> Scratch<'_> {
        Scratch { left: self.left.as_deref_mut(), taken: 0 }
    }

    /// A buffer of `len` elements, which hold anything; an empty one while measuring.
    ///
    /// # Panics
    /// Where there is less memory than was measured: the layer's own fault, since the boundary has checked the call's.
    pub(crate) fn take<T: Pod>(&mut self, len: usize) -> &'s mut [T] {
        let bytes = len * size_of::<T>();
        let padded = bytes.next_multiple_of(LINE);
        self.taken += padded;
        let Some(left) = &mut self.left else { return &mut [] };
        let Some((buffer, rest)) = std::mem::take(left).split_at_mut_checked(padded) else {
            panic!(
                "a layer asked for less scratch memory than it uses: {padded} bytes for {len} elements are missing"
            );
        };
        *left = rest;
        bytemuck::cast_slice_mut(&mut buffer[..bytes])
    }

    /// Memory for steps that come one after another, each of which needs some number of bytes.
    pub(crate) fn for_steps(&mut self, bytes: impl IntoIterator<Item = usize>) -> &'s mut [u8] {
        self.take(bytes.into_iter().max().unwrap_or(0))
    }

    /// Memory for each worker's own buffers, which `declare` takes.
    pub(crate) fn per_worker<R>(
        &mut self,
        workers: usize,
        declare: impl FnOnce(&mut Scratch<'static>) -> R,
    ) -> PerWorker<'s> {
        let share = Scratch::measure(declare);
        PerWorker { memory: self.take(workers * share), share }
    }
}

#[cfg(test)]
mod tests {
    use herald_api::AlignedBytes;

    use super::*;

    fn buffers<'s>(
        scratch: &mut Scratch<'s>,
        n: usize,
    ) -> (&'s mut [f32], &'s mut [[u32; 2]], PerWorker<'s>) {
        (scratch.take(n), scratch.take(3), scratch.per_worker(2, |scratch| scratch.take::<f32>(n + 1)))
    }

    #[test]
    fn what_is_measured_is_enough_and_no_more() {
        let bytes = Scratch::measure(|scratch| buffers(scratch, 16));
        assert_eq!(bytes, 64 + 64 + 2 * 128);
        let mut memory = AlignedBytes::zeroed(bytes).expect("memory");
        let mut scratch = Scratch::new(&mut memory);
        let (floats, pairs, workers) = buffers(&mut scratch, 16);
        assert_eq!((floats.len(), pairs.len(), workers.memory.len(), workers.share), (16, 3, 256, 128));
        assert_eq!(scratch.left.map(|left| left.len()), Some(0));
    }

    #[test]
    fn buffers_begin_at_cache_lines() {
        let mut memory = AlignedBytes::zeroed(256).expect("memory");
        let mut scratch = Scratch::new(&mut memory);
        let _ = scratch.take::<f32>(1);
        assert_eq!(scratch.reborrow().take::<u8>(1).as_ptr() as usize % LINE, 0);
        assert_eq!(scratch.take::<f32>(17).as_ptr() as usize % LINE, 0);
        assert_eq!(scratch.left.map(|left| left.len()), Some(64));
    }

    #[test]
    #[should_panic(expected = "less scratch memory than it uses")]
    fn too_little_memory_is_a_panic_that_says_so() {
        let mut memory = AlignedBytes::zeroed(64).expect("memory");
        Scratch::new(&mut memory).take::<f32>(17);
    }
}
