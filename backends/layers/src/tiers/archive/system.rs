//! What an archive asks of the system: reads and writes at an offset, room on disk, and memory back.

use std::fs::File;
use std::io;

use memmap2::Mmap;

#[cfg(unix)]
mod on_unix {
    use std::os::unix::fs::FileExt;

    use super::{File, Mmap, io};
    use memmap2::UncheckedAdvice;

    /// Fills `bytes` from an offset on.
    pub(in crate::tiers::archive) fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(bytes, offset)
    }

    /// Writes all of `bytes` from an offset on.
    pub(in crate::tiers::archive) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Makes a file of `start` bytes longer by `len`, for which the disk has the room.
    #[cfg(not(target_vendor = "apple"))]
    pub(in crate::tiers::archive) fn reserve(file: &File, start: u64, len: u64) -> io::Result<()> {
        use rustix::fs::FallocateFlags;
        use rustix::io::Errno;

        loop {
            match rustix::fs::fallocate(file, FallocateFlags::empty(), start, len) {
                Err(Errno::INTR) => {}
                // Some file systems can't; on them a full disk shows when a page is written.
                Err(Errno::OPNOTSUPP) => return file.set_len(start + len),
                reserved => return reserved.map_err(io::Error::from),
            }
        }
    }

    /// The same: this system reserves room behind a file's end, and the file grows into it.
    #[cfg(target_vendor = "apple")]
    pub(in crate::tiers::archive) fn reserve(file: &File, start: u64, len: u64) -> io::Result<()> {
        use std::os::fd::AsRawFd;

        let mut wanted = libc::fstore_t {
            fst_flags: libc::F_ALLOCATEALL,
            fst_posmode: libc::F_PEOFPOSMODE,
            fst_offset: 0,
            fst_length: libc::off_t::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?,
            fst_bytesalloc: 0,
        };
        // SAFETY: a call on a file that is open, which reads and writes the struct, which is ours.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_PREALLOCATE, &raw mut wanted) } == -1 {
            let error = io::Error::last_os_error();
            // Some file systems can't; on them a full disk shows when a page is written.
            if !matches!(error.raw_os_error(), Some(libc::ENOTSUP | libc::EOPNOTSUPP)) {
                return Err(error);
            }
        }
        file.set_len(start + len)
    }

    /// Gives a map's memory back; what is read again is read from disk.
    pub(in crate::tiers::archive) fn give_back(map: &Mmap) {
        // SAFETY: the map is shared and only read: bytes that are read afterwards are the file's, as before.
        let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
    }
}

#[cfg(windows)]
mod on_windows {
    use std::os::windows::fs::FileExt;

    use super::{File, Mmap, io};

    /// Fills `bytes` from an offset on.
    pub(in crate::tiers::archive) fn read_at(
        file: &File,
        mut bytes: &mut [u8],
        mut offset: u64,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match file.seek_read(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => (bytes, offset) = (&mut bytes[n..], offset + n as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` from an offset on.
    pub(in crate::tiers::archive) fn write_at(
        file: &File,
        mut bytes: &[u8],
        mut offset: u64,
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            match file.seek_write(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes a file of `start` bytes longer by `len`: a file that isn't sparse gets the room on disk with its length.
    pub(in crate::tiers::archive) fn reserve(file: &File, start: u64, len: u64) -> io::Result<()> {
        file.set_len(start + len)
    }

    /// The system takes a map's memory by itself where it is short of it.
    pub(in crate::tiers::archive) fn give_back(_: &Mmap) {}
}

#[cfg(unix)]
pub(super) use on_unix::{give_back, read_at, reserve, write_at};
#[cfg(windows)]
pub(super) use on_windows::{give_back, read_at, reserve, write_at};
