//! Asking the system for bytes of a mapped file before they are read.

/// Has the system begin to read these bytes of a mapped file, where it hasn't them in memory: all at once, which takes a disk less
/// time than page after page. It doesn't wait for them. Their first page stands for all, so that it takes one system call where they
/// are in memory. Linux says of files that the process neither owns nor may write to that they always are; other systems are not asked.
pub(crate) fn ask_for(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    on_linux::ask_for(bytes);
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

#[cfg(target_os = "linux")]
mod on_linux {
    use std::ffi::c_void;
    use std::sync::OnceLock;

    fn page_bytes() -> usize {
        static BYTES: OnceLock<usize> = OnceLock::new();
        *BYTES.get_or_init(|| {
            // SAFETY: it only answers a question.
            let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            usize::try_from(bytes).unwrap_or(4096)
        })
    }

    /// Whether the page that an address is in is in memory. `None`: the system doesn't say.
    fn is_in_memory(address: *const u8) -> Option<bool> {
        let page = address.map_addr(|address| address - address % page_bytes());
        let mut state = 0_u8;
        // SAFETY: nothing is read there, and for one page the system writes one byte, to `state`.
        let done = unsafe { libc::mincore(page.cast_mut().cast::<c_void>(), 1, &raw mut state) };
        (done == 0).then_some(state & 1 == 1)
    }

    pub(super) fn ask_for(bytes: &[u8]) {
        if bytes.is_empty() || is_in_memory(bytes.as_ptr()) != Some(false) {
            return;
        }
        let before = bytes.as_ptr().addr() % page_bytes();
        let start = bytes.as_ptr().wrapping_sub(before).cast_mut().cast::<c_void>();
        // SAFETY: this changes no byte of the pages, which a slice of them shows to be mapped. Where the system can't read ahead, the
        // bytes are read when they are used.
        let _ = unsafe { libc::madvise(start, before + bytes.len(), libc::MADV_WILLNEED) };
    }

    #[cfg(test)]
    mod tests {
        use std::fs::File;
        use std::os::fd::AsRawFd;
        use std::time::{Duration, Instant};

        use memmap2::Mmap;

        #[test]
        fn what_was_asked_for_is_in_memory_soon() {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            std::io::Write::write_all(&mut file, &vec![7; 3 << 20]).expect("room on the disk");
            file.as_file().sync_all().expect("written");
            let file = File::open(file.path()).expect("the file");
            // SAFETY: nobody changes the file while it is mapped.
            let map = unsafe { Mmap::map(&file) }.expect("a map");
            // SAFETY: it only drops what the system has of the file, which is on the disk; in memory alone it stays.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            let asked = &map[5000..];
            super::ask_for(asked);
            let start = Instant::now();
            let pages = || asked.iter().step_by(super::page_bytes());
            while !pages().all(|byte| super::is_in_memory(byte) == Some(true)) {
                assert!(start.elapsed() < Duration::from_secs(60), "not in memory yet");
                std::thread::sleep(Duration::from_millis(1));
            }
            super::ask_for(asked);
            super::ask_for(&[]);
            assert!(map.iter().all(|byte| *byte == 7));
        }
    }
}
