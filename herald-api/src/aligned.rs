//! Memory at the alignment that the ABI promises for pages, states and scratch.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::{Error, Result, Status};

/// A zeroed run of bytes aligned to 64: a cache line, and the widest vector.
#[derive(Debug)]
pub struct AlignedBytes {
    /// The first byte, aligned.
    pointer: NonNull<u8>,
    len: usize,
    /// Bytes before it, within what was allocated.
    before: usize,
}

// SAFETY: it owns its bytes, like a Box<[u8]>.
unsafe impl Send for AlignedBytes {}
// SAFETY: as for Send.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// The alignment, in bytes.
    pub const ALIGN: usize = 64;

    /// `len` zeros.
    ///
    /// # Errors
    /// [`Status::OutOfMemory`] where the system has no room for them.
    pub fn zeroed(len: usize) -> Result<Self> {
        let full = || Error::new(Status::OutOfMemory, format!("there is no memory for {len} bytes"));
        if len == 0 {
            return Ok(Self { pointer: NonNull::<CacheLine>::dangling().cast(), len, before: 0 });
        }
        let layout = Self::layout(len).ok_or_else(full)?;
        // SAFETY: the layout's size is not 0.
        let allocated = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(full)?;
        let before = allocated.align_offset(Self::ALIGN);
        // SAFETY: less than the alignment, which the layout has room for beside `len`.
        let pointer = unsafe { allocated.add(before) };
        Ok(Self { pointer, len, before })
    }

    /// What is allocated for `len` bytes. Asking the allocator for more alignment than its own would make it write the
    /// zeros itself; so much more memory lets it hand out pages that the system has zeroed, untouched.
    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_add(Self::ALIGN)?, align_of::<usize>()).ok()
    }

    /// Where the bytes are.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }
}

#[repr(align(64))]
struct CacheLine;

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if let (1.., Some(layout)) = (self.len, Self::layout(self.len)) {
            // SAFETY: `zeroed` allocated this with the same layout, `before` bytes before the first.
            unsafe { dealloc(self.pointer.sub(self.before).as_ptr(), layout) };
        }
    }
}

impl Deref for AlignedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: it owns `len` initialised bytes there.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for deref, and it is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}
