//! An archive's file: it grows in large preallocated steps, is written with system calls and read through memory maps.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use herald_api::{Error, Result, Status, TierConfig};
use memmap2::{Mmap, MmapOptions};

use super::format::{self, ENTRY_BYTES, Entry, HEADER_BYTES, TABLE_BYTES, TABLE_ENTRIES};
use super::space::{Space, UNIT};
use super::system;

/// A file grows by at least the first and at most the second of these, in bytes, where the disk has room.
const STEP: [u64; 2] = [4 << 20, 1 << 30];

/// Maps begin and end at multiples of this, whatever the machine's page size.
const MAP_UNIT: u64 = 64 << 10;

/// Where an entry or a page begins in the file.
pub(super) type Offset = u64;

pub(super) struct ArchiveFile {
    out: Arc<Writer>,
    /// Whether it has a name and so outlives the process: then it has entries.
    named: bool,
    len: u64,
    space: Space,
    /// Each with the offset where it begins, rising. Every page lies within one map.
    maps: Vec<(u64, Mmap)>,
    free_entries: Vec<Offset>,
    last_table: Offset,
}

/// What was found in a file when it was opened.
pub(super) struct Found {
    /// Pages, each with the offset of its entry.
    pub(super) pages: Vec<(Offset, Entry)>,
    /// A sentence about each damage.
    pub(super) damage: Vec<String>,
    /// Entries that were damaged.
    pub(super) damaged: u64,
}

impl ArchiveFile {
    /// A file without a name in a folder.
    pub(super) fn unnamed(folder: &Path, page_bytes: u64) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|error| {
            io_error(&format!("no archive can be made in the folder {}", folder.display()), &error)
        })?;
        let mut made = Self::of(file, folder, false);
        made.grow(page_bytes)?;
        Ok(made)
    }

    fn of(file: File, path: &Path, named: bool) -> Self {
        Self {
            out: Arc::new(Writer { file, path: path.to_owned() }),
            named,
            len: 0,
            space: Space::default(),
            maps: Vec::new(),
            free_entries: Vec::new(),
            last_table: 0,
        }
    }

    /// Opens a file with its pages, or makes one. `page_bytes`: the largest that a page may be.
    pub(super) fn open(path: &Path, config: &TierConfig, page_bytes: u64) -> Result<(Self, Found)> {
        let failed =
            |error: &io::Error| io_error(&format!("the archive {} can't be opened", path.display()), error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::new(
                    Status::Io,
                    format!("the archive {} is in use by another engine", path.display()),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(failed(&error)),
        }
        let len = file.metadata().map_err(|error| failed(&error))?.len();
        let mut archive = Self::of(file, path, true);
        let mut found = Found { pages: Vec::new(), damage: Vec::new(), damaged: 0 };
        // Only an empty file is new: whatever else is there is somebody's.
        if len == 0 {
            archive.begin(config, page_bytes)?;
            return Ok((archive, found));
        }
        let mut header = vec![0; HEADER_BYTES.min(len) as usize];
        archive.read(&mut header, 0)?;
        format::check_header(&header, config).map_err(|what| {
            Error::new(Status::Corrupt, format!("the archive {} can't be used: {what}", path.display()))
        })?;
        if archive.was_left_at_its_beginning(len)? {
            archive.begin(config, page_bytes)?;
            return Ok((archive, found));
        }
        let mapped = len - len % MAP_UNIT;
        if mapped < HEADER_BYTES + TABLE_BYTES {
            return Err(Error::new(
                Status::Corrupt,
                format!(
                    "the archive {} is cut: it has {len} bytes, where {} or more were expected",
                    path.display(),
                    (HEADER_BYTES + TABLE_BYTES).next_multiple_of(MAP_UNIT)
                ),
            ));
        }
        archive.map_to(mapped)?;
        archive.space.take_at(0, HEADER_BYTES);
        archive.read_tables(page_bytes, &mut found)?;
        Ok((archive, found))
    }

    /// Makes a new file: its header and the first table at once, then room for pages.
    fn begin(&mut self, config: &TierConfig, page_bytes: u64) -> Result<()> {
        self.write(&[format::header(config), format::empty_table()].concat(), 0)?;
        self.grow(page_bytes)?;
        self.space.take_at(0, HEADER_BYTES);
        self.space.take_at(HEADER_BYTES, TABLE_BYTES);
        self.use_table(HEADER_BYTES);
        Ok(())
    }

    /// Whether a file with a sound header was being made when its process ended: it has an empty table, and no room for pages.
    fn was_left_at_its_beginning(&self, len: u64) -> Result<bool> {
        if len != HEADER_BYTES + TABLE_BYTES {
            return Ok(false);
        }
        let mut table = vec![0; TABLE_BYTES as usize];
        self.read(&mut table, HEADER_BYTES)?;
        Ok(table == format::empty_table())
    }

    fn read_tables(&mut self, page_bytes: u64, found: &mut Found) -> Result<()> {
        let mut table = HEADER_BYTES;
        let mut bytes = vec![0; TABLE_BYTES as usize];
        loop {
            if !self.space.take_at(table, TABLE_BYTES) {
                found.damage.push(format!("the table of pages at {table} lies where there is none"));
                found.damaged += 1;
                break;
            }
            self.read(&mut bytes, table)?;
            self.last_table = table;
            for (index, entry) in bytes.chunks_exact(ENTRY_BYTES).enumerate().skip(1) {
                let offset = table + (index * ENTRY_BYTES) as u64;
                match Entry::read(entry) {
                    Ok(None) => self.free_entries.push(offset),
                    Ok(Some(entry)) => {
                        let sound = u64::from(entry.len) <= page_bytes
                            && entry.len > 0
                            && entry.start % UNIT == 0
                            && entry.n_tokens > 0
                            && self.space.take_at(entry.start, u64::from(entry.len));
                        if sound {
                            found.pages.push((offset, entry));
                        } else {
                            found.damage.push(format!(
                                "the page {} is said to lie at {}, where no page can be",
                                entry.id, entry.start
                            ));
                            found.damaged += 1;
                            self.wipe(offset)?;
                        }
                    }
                    Err(()) => {
                        found.damage.push(format!("the entry at {offset} is damaged, and its page lost"));
                        found.damaged += 1;
                        self.wipe(offset)?;
                    }
                }
            }
            match format::linked(&bytes[..ENTRY_BYTES]) {
                Some(0) => break,
                Some(next) => table = next,
                None => {
                    found
                        .damage
                        .push(format!("the table of pages at {table} is damaged, and those after it lost"));
                    found.damaged += 1;
                    self.write(&format::link(0), table)?;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Makes a table at a free offset.
    fn new_table(&mut self, offset: Offset) -> Result<()> {
        self.space.take_at(offset, TABLE_BYTES);
        self.write(&format::empty_table(), offset)?;
        self.write(&format::link(offset), self.last_table)?;
        self.use_table(offset);
        Ok(())
    }

    /// Takes the entries of the last table, which is empty, as free.
    fn use_table(&mut self, offset: Offset) {
        self.last_table = offset;
        self.free_entries.extend((1..TABLE_ENTRIES).rev().map(|index| offset + index * ENTRY_BYTES as u64));
    }

    pub(super) fn path(&self) -> &Path {
        &self.out.path
    }

    /// Makes room for a page of `len` bytes. Returns where it goes, and where its entry goes, if it gets one.
    pub(super) fn take(&mut self, len: u64) -> Result<(Offset, Option<Offset>)> {
        if self.named && self.free_entries.is_empty() {
            let offset = self.room(TABLE_BYTES)?;
            self.space.give(offset, TABLE_BYTES);
            self.new_table(offset)?;
        }
        let start = self.room(len)?;
        Ok((start, if self.named { self.free_entries.pop() } else { None }))
    }

    /// Gives back what `take` gave. The entry is wiped first.
    pub(super) fn give(&mut self, start: Offset, len: u64, entry: Option<Offset>) -> Result<()> {
        if let Some(entry) = entry {
            self.wipe(entry)?;
        }
        self.space.give(start, len);
        Ok(())
    }

    /// Makes an entry empty.
    fn wipe(&mut self, entry: Offset) -> Result<()> {
        self.write(&[0; ENTRY_BYTES], entry)?;
        self.free_entries.push(entry);
        Ok(())
    }

    fn room(&mut self, len: u64) -> Result<Offset> {
        if let Some(offset) = self.space.take(len) {
            return Ok(offset);
        }
        self.grow(len)?;
        self.space.take(len).ok_or_else(|| {
            Error::new(Status::Io, format!("the archive {} grew in vain", self.path().display()))
        })
    }

    /// Grows the file by a large step, or if that fails by what `len` bytes need.
    fn grow(&mut self, len: u64) -> Result<()> {
        let need = (Space::rounded(len) + UNIT + if self.len == 0 { HEADER_BYTES + TABLE_BYTES } else { 0 })
            .next_multiple_of(MAP_UNIT);
        let large = (self.len / 4).clamp(STEP[0], STEP[1]).max(need).next_multiple_of(MAP_UNIT);
        let mut grown = self.allocate(large).map(|()| large);
        if grown.is_err() && large > need {
            grown = self.allocate(need).map(|()| need);
        }
        let by = grown.map_err(|error| {
            io_error(
                &format!("the archive {} has no room for {len} more bytes", self.path().display()),
                &error,
            )
        })?;
        self.map_to(self.len + by)
    }

    /// Reserves `by` more bytes on disk.
    fn allocate(&self, by: u64) -> io::Result<()> {
        // Systems count a file's bytes with a sign.
        if self.len.checked_add(by).is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        system::reserve(&self.out.file, self.len, by)
    }

    /// Maps the file from its old length to `len`, and counts that as free.
    fn map_to(&mut self, len: u64) -> Result<()> {
        let size = usize::try_from(len - self.len).map_err(|_| Error::invalid("the archive is too large"))?;
        // SAFETY: the file is this process's alone (it has no name, or is locked), which only ever makes it longer; pages
        // that somebody reads are not written.
        let map = unsafe { MmapOptions::new().offset(self.len).len(size).map(&self.out.file) };
        let map = map.map_err(|error| {
            io_error(&format!("the archive {} can't be mapped", self.path().display()), &error)
        })?;
        // The first bytes of a map stay unused, so that no page straddles two maps.
        self.space.give(self.len + UNIT, size as u64 - UNIT);
        if self.len == 0 {
            self.space.give(0, UNIT);
        }
        self.maps.push((self.len, map));
        self.len = len;
        Ok(())
    }

    /// The bytes of a written page.
    pub(super) fn bytes(&self, start: Offset, len: usize) -> &[u8] {
        let index = self.maps.partition_point(|(first, _)| *first <= start);
        let Some((first, map)) = index.checked_sub(1).map(|index| &self.maps[index]) else { return &[] };
        let at = (start - first) as usize;
        map.get(at..at + len).unwrap_or(&[])
    }

    /// Gives the maps' memory back to the system; pages that are read again are read from disk.
    pub(super) fn give_memory_back(&self) {
        self.maps.iter().for_each(|(_, map)| system::give_back(map));
    }

    fn read(&self, bytes: &mut [u8], offset: Offset) -> Result<()> {
        system::read_at(&self.out.file, bytes, offset).map_err(|error| {
            io_error(&format!("the archive {} can't be read", self.path().display()), &error)
        })
    }

    fn write(&self, bytes: &[u8], offset: Offset) -> Result<()> {
        self.out.write(bytes, offset)
    }

    /// Writes to it while it is in use.
    pub(super) fn writer(&self) -> &Arc<Writer> {
        &self.out
    }
}

/// Writes to an archive's file.
pub(super) struct Writer {
    file: File,
    /// For messages: the file, or the folder that it was made in.
    path: PathBuf,
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing isn't enough: a program that is just being started has a copy of the file until it runs, and with it the lock.
        let _ = self.file.unlock();
    }
}

impl Writer {
    pub(super) fn write(&self, bytes: &[u8], offset: Offset) -> Result<()> {
        system::write_at(&self.file, bytes, offset).map_err(|error| {
            io_error(&format!("the archive {} can't be written", self.path.display()), &error)
        })
    }

    /// Waits until the disk holds what was written.
    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| {
            io_error(&format!("the archive {} can't be written", self.path.display()), &error)
        })
    }
}

fn io_error(what: &str, error: &io::Error) -> Error {
    Error::new(Status::Io, format!("{what}: {error}"))
}
