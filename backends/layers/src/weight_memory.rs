//! Memory for packed weights, in huge pages where the system has them.
//!
//! Decode reads every weight once a token. At 4 KiB pages a CPU looks up an address every 64 cache lines and stops
//! fetching ahead at each page's end; in pages of 2 MiB one core was measured to read 1.4 times as fast, two 1.2 times. Most
//! matrices are smaller than such a page, so they lie side by side in chunks that many of them share.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, Weak};

use herald_api::{AlignedBytes, Error, Result, Status};
use memmap2::{MmapMut, MmapRaw};

/// Bytes of a chunk. What of it no matrix fills is never touched, so it takes no memory.
const CHUNK: usize = 64 << 20;

/// Bytes of a huge page: a chunk's first matrix begins at a multiple of it.
const HUGE_PAGE: usize = 2 << 20;

/// The chunk that the next matrix goes to; it lasts as long as any matrix in it.
static CURRENT: Mutex<Current> = Mutex::new(Current { chunk: Weak::new(), used: 0 });

struct Current {
    chunk: Weak<MmapRaw>,
    /// Bytes of it that are taken.
    used: usize,
}

/// Zeroed bytes, aligned as [`AlignedBytes`] are.
pub(crate) struct WeightMemory {
    chunk: Arc<MmapRaw>,
    start: usize,
    len: usize,
}

impl WeightMemory {
    /// `len` zeros.
    ///
    /// # Errors
    /// [`Status::OutOfMemory`] where the system has no room for them.
    pub(crate) fn zeroed(len: usize) -> Result<Self> {
        if len > CHUNK / 2 {
            let (chunk, start) = map(len)?;
            return Ok(Self { chunk, start, len });
        }
        // Nothing that holds the lock leaves the two fields at odds.
        let mut current = CURRENT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let room = current.chunk.upgrade().filter(|chunk| current.used + len <= chunk.len());
        let (chunk, start) = match room {
            Some(chunk) => (chunk, current.used),
            None => map(CHUNK)?,
        };
        *current = Current {
            chunk: Arc::downgrade(&chunk),
            used: (start + len).next_multiple_of(AlignedBytes::ALIGN),
        };
        Ok(Self { chunk, start, len })
    }
}

/// A mapping with `len` zeros from the place that is returned with it.
fn map(len: usize) -> Result<(Arc<MmapRaw>, usize)> {
    let full = || Error::new(Status::OutOfMemory, format!("there is no memory for {len} bytes of weights"));
    let bytes = len.checked_add(HUGE_PAGE).ok_or_else(full)?;
    let map = MmapRaw::from(MmapMut::map_anon(bytes).map_err(|_| full())?);
    // Where the system has no huge pages, ordinary ones do.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let start = map.as_ptr().align_offset(HUGE_PAGE);
    Ok((Arc::new(map), start))
}

impl Deref for WeightMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: these bytes lie within the mapping, which lasts as long as this, and are this one's alone: `zeroed` gives
        // none twice.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start), self.len) }
    }
}

impl DerefMut for WeightMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for deref, and it is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_mut_ptr().add(self.start), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_zeros_of_their_own() {
        let mut pieces: Vec<_> = [1, 100, CHUNK / 2, CHUNK / 2 + 1, 7, CHUNK / 2]
            .map(|len| (len, WeightMemory::zeroed(len).unwrap()))
            .into_iter()
            .collect();
        for (index, (len, piece)) in pieces.iter_mut().enumerate() {
            assert_eq!((piece.len(), piece.as_ptr().align_offset(AlignedBytes::ALIGN)), (*len, 0));
            assert!(piece[0] == 0 && piece[*len - 1] == 0);
            piece[0] = index as u8 + 1;
            piece[*len - 1] = index as u8 + 1;
        }
        for (index, (len, piece)) in pieces.iter().enumerate() {
            assert_eq!([piece[0], piece[*len - 1]], [index as u8 + 1; 2]);
        }
        assert_eq!(
            WeightMemory::zeroed(usize::MAX).err().map(|error| error.status()),
            Some(Status::OutOfMemory)
        );
    }
}
