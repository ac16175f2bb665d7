//! One buffer, written by several workers at once in places that don't overlap.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice that workers share, each writing parts of its own.
pub(crate) struct Shared<'a, T> {
    pointer: *mut T,
    len: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]`, whose parts `part` hands out under its caller's word that they don't overlap.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as for Send.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), borrowed: PhantomData }
    }

    /// The elements `range`.
    ///
    /// # Panics
    /// Where the range is not within the slice.
    ///
    /// # Safety
    /// While the part lives, no other part overlaps it.
    #[allow(clippy::mut_from_ref)] // That is what it is for; the caller vouches.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: within the slice, and the caller vouches that it is alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// Writes one element.
    ///
    /// # Panics
    /// Where the index is not within the slice.
    ///
    /// # Safety
    /// No part that lives holds it, and nobody else writes it at the same time.
    pub(crate) unsafe fn write(&self, index: usize, value: T) {
        assert!(index < self.len, "{index} of {}", self.len);
        // SAFETY: within the slice, and the caller vouches that it is alone.
        unsafe { self.pointer.add(index).write(value) };
    }
}
