//! Scratch memory, cut into float32 buffers that begin at cache lines: of vectors that lie across two, each takes two reads.

use herald_api::{Error, Result};

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes that a buffer takes in an [`Arena`]: a whole number of cache lines.
pub(crate) fn padded(len: usize) -> usize {
    (len * size_of::<f32>()).next_multiple_of(LINE)
}

/// Elements that a buffer of `len` takes of a buffer that is cut up.
pub(crate) fn lines(len: usize) -> usize {
    padded(len) / size_of::<f32>()
}

/// The first `len` elements, and what is left from the next cache line on.
pub(crate) fn cut(memory: &mut [f32], len: usize) -> (&mut [f32], &mut [f32]) {
    let (taken, rest) = memory.split_at_mut(lines(len));
    (&mut taken[..len], rest)
}

/// What is left of a call's scratch memory.
pub(crate) struct Arena<'s>(&'s mut [u8]);

impl<'s> Arena<'s> {
    pub(crate) fn new(scratch: &'s mut [u8]) -> Self {
        Self(scratch)
    }

    /// The next `len` elements; they hold anything.
    ///
    /// # Errors
    /// Where a layer asked for less scratch memory than it uses: its own fault.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'s mut [f32]> {
        let bytes = padded(len);
        let rest = std::mem::take(&mut self.0);
        let Some((taken, rest)) = rest.split_at_mut_checked(bytes) else {
            return Err(Error::invalid(format!("the scratch memory lacks {bytes} bytes for {len} elements")));
        };
        self.0 = rest;
        let buffer: &'s mut [f32] = bytemuck::try_cast_slice_mut(taken)
            .map_err(|error| Error::invalid(format!("the scratch memory is not aligned: {error}")))?;
        Ok(&mut buffer[..len])
    }
}
