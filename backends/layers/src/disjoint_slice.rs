//! One buffer that several workers write at once, in places that don't overlap.

use std::marker::PhantomData;
use std::ops::Range;

use crate::matmul::OutputTile;

/// A mutable slice that workers share, each writing its own parts.
pub(crate) struct DisjointSlice<'a, T> {
    pointer: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose parts may go to other threads; by `part`'s contract they don't overlap.
unsafe impl<T: Send> Send for DisjointSlice<'_, T> {}
// SAFETY: as for Send: a shared reference only hands out parts, under the same promise.
unsafe impl<T: Send> Sync for DisjointSlice<'_, T> {}

impl<'a, T> DisjointSlice<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// Memory that isn't borrowed as a slice: a sequence's recurrent state.
    ///
    /// # Safety
    /// `pointer` is aligned and good for reading and writing `len` initialised elements for the lifetime `'a`, and nobody
    /// uses them but through parts that don't overlap.
    pub(crate) unsafe fn from_raw(pointer: *mut T, len: usize) -> Self {
        Self { pointer, len, borrowed: PhantomData }
    }

    /// The elements from `first` on. Parts of both count as parts of one slice.
    ///
    /// # Panics
    /// Where there are fewer.
    pub(crate) fn after(&self, first: usize) -> Self {
        assert!(first <= self.len, "{first} of {}", self.len);
        // SAFETY: within the slice, or one past its end.
        let pointer = unsafe { self.pointer.add(first) };
        Self { pointer, len: self.len - first, borrowed: PhantomData }
    }

    /// The elements `range`.
    ///
    /// # Panics
    /// Where the range is not within the slice.
    ///
    /// # Safety
    /// While the part lives, no other part overlaps it.
    #[allow(clippy::mut_from_ref)] // Handing out disjoint parts is the point, which its contract asks for.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: within the slice, and by this function's contract no other part overlaps it.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// The elements `range`, for reading.
    ///
    /// # Panics
    /// Where the range is not within the slice.
    ///
    /// # Safety
    /// While the part lives, nobody writes it.
    pub(crate) unsafe fn read(&self, range: Range<usize>) -> &'a [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: within the slice, and by this function's contract nobody writes it.
        unsafe { std::slice::from_raw_parts(self.pointer.add(range.start), range.len()) }
    }
}

impl<'a> DisjointSlice<'a, f32> {
    /// `n_rows` results of each of `n_tokens` tokens: the first token's begin at `first`, each next token's `stride`
    /// elements later.
    ///
    /// # Panics
    /// Where they are not within the slice.
    ///
    /// # Safety
    /// While the tile lives, no part overlaps it.
    pub(crate) unsafe fn output_tile(
        &self,
        first: usize,
        stride: usize,
        n_tokens: usize,
        n_rows: usize,
    ) -> OutputTile<'a> {
        let end = first + n_tokens.saturating_sub(1) * stride + n_rows;
        assert!(n_rows <= stride && end <= self.len, "{end} of {}", self.len);
        // SAFETY: within the slice, and by this function's contract no part overlaps it.
        unsafe { OutputTile::strided(self.pointer.add(first), stride, n_tokens, n_rows) }
    }
}
