//! Views of tensors' data, which can outlive the file's description.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use memmap2::Mmap;

/// A tensor's bytes in the mapped file, which stays mapped while any view of it lives. Copying the bytes is never
/// needed, and cloning the view is cheap.
#[derive(Clone)]
pub struct TensorView {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl TensorView {
    pub(super) fn new(map: Arc<Mmap>, range: Range<usize>) -> Self {
        Self { map, range }
    }

    /// The file that the bytes are in.
    #[must_use]
    pub fn map(&self) -> &Arc<Mmap> {
        &self.map
    }

    /// Tells the system that the bytes won't be read soon, so that their pages count as this process's no longer. They are
    /// read from the file again where they are. Only for bytes that are a file's: others would be lost.
    pub(super) fn give_back(&self) {
        #[cfg(unix)]
        {
            // SAFETY: the mapping is of a file and never written, so pages that are dropped come back as they were.
            let given = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
            if let Err(error) = given {
                tracing::debug!("pages of a weight were not given back: {error}");
            }
        }
    }

    /// Where in the file the bytes are.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl Deref for TensorView {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

impl fmt::Debug for TensorView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorView").field("range", &self.range).finish_non_exhaustive()
    }
}
