//! Address space in which private memory becomes that of a file, piece by piece, where it is.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;

/// A run of address space. It begins as zeros that only this process has; what [`Region::replace`] is told lies in a file is mapped from
/// there.
pub(super) struct Region {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it owns its mapping, like a Box<[u8]>.
unsafe impl Send for Region {}
// SAFETY: as for Send: through a shared reference only an address is given.
unsafe impl Sync for Region {}

#[cfg(unix)]
impl Region {
    /// A region of `len` bytes, not 0. Memory is taken as it is written.
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the system chooses.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Maps whole pages of a file, read-only, in place of the same bytes of the region; `offset` is where they lie in the file.
    ///
    /// # Safety
    /// The file holds the very bytes that are there, to the end of the last page, and nobody writes to either from then on.
    pub(super) unsafe fn replace(
        &mut self,
        pages: Range<usize>,
        file: &File,
        offset: usize,
    ) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        assert!(pages.start <= pages.end && pages.end <= self.len, "pages {pages:?} of {}", self.len);
        let (access, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_FIXED);
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let at = self.at(pages.start).as_ptr().cast();
        // SAFETY: the pages are the region's own, which the new mapping replaces at once with the same bytes, as the caller
        // promises; what isn't aligned to pages is refused.
        match unsafe { libc::mmap(at, pages.len(), access, flags, file.as_raw_fd(), offset) } {
            libc::MAP_FAILED => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[cfg(not(unix))]
impl Region {
    /// Not here.
    pub(super) fn new(_: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Not here.
    ///
    /// # Safety
    /// There is no region to call it on.
    pub(super) unsafe fn replace(&mut self, _: Range<usize>, _: &File, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Region {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The address of a byte.
    pub(super) fn at(&self, offset: usize) -> NonNull<u8> {
        assert!(offset < self.len, "byte {offset} of {}", self.len);
        // SAFETY: it is within the mapping, whose addresses don't wrap.
        unsafe { self.start.add(offset) }
    }

    /// Bytes that lie there.
    ///
    /// # Safety
    /// Nobody writes to them for as long as the slice is used.
    pub(super) unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.len, "bytes {range:?} of {}", self.len);
        // SAFETY: they are mapped, and begin as zeros; the caller's promise for the rest.
        unsafe { std::slice::from_raw_parts(self.start.add(range.start).as_ptr(), range.len()) }
    }
}

#[cfg(unix)]
impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is the region's own, whatever lies in its pages, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
