//! The archived tier: pages of 4-bit codes in a file, read where they are mapped.
//!
//! A thread writes pages behind; until a page is in the file, it is served from memory. The queue is bounded: `put` blocks
//! while it is full. Each page has a checksum, compared whenever the page is viewed.

mod file;
mod format;
mod queue;
mod space;
mod system;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use herald_api::export::{Level, log};
use herald_api::{
    AlignedBytes, Error, Found, MemoryTier, Page, RawPage, Result, Status, TierConfig, TierStats,
};

use super::codes::Codes;
use super::{best, not_found};
use file::ArchiveFile;
use format::{Entry, checksum};
use queue::{Job, Kept, Queue, State};

/// Bytes that may be viewed before the maps' memory is given back to the system.
const MAX_VIEWED_BYTES: u64 = 64 << 20;

pub(super) struct ArchiveTier {
    config: TierConfig,
    codes: Codes,
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
    hits: AtomicU64,
    misses: AtomicU64,
    viewed: AtomicU64,
}

impl ArchiveTier {
    /// Opens the file of a configuration.
    pub(super) fn open(config: &TierConfig) -> Result<Self> {
        let codes = Codes::new(config)?;
        let Some(path) = config.path.as_deref() else {
            return Err(Error::invalid(
                "an archived memory tier was to have no file, where a path was expected",
            ));
        };
        let page_bytes = codes.page_bytes() as u64;
        if u32::try_from(page_bytes).is_err() {
            return Err(Error::invalid(format!("a page of {page_bytes} bytes is too large for an archive")));
        }
        let mut state = State::default();
        if !path.is_dir() {
            let (file, found) = ArchiveFile::open(path, config, page_bytes)?;
            state.damaged = found.damaged;
            for (offset, entry) in found.pages {
                let Entry { id, n_tokens, .. } = entry;
                let kept =
                    Kept { n_tokens: n_tokens as usize, at: entry, entry: Some(offset), ..Kept::default() };
                if n_tokens as usize > config.page_tokens || state.pages.insert(id, kept).is_some() {
                    return Err(Error::new(
                        Status::Corrupt,
                        format!("the archive {} has a page {id} that can't be: {entry:?}", path.display()),
                    ));
                }
            }
            for what in found.damage {
                log(Level::Warn, &format!("the archive {}: {what}", path.display()));
            }
            state.file = Some(file);
        }
        let queue = Arc::new(Queue::new(state));
        let writer = Arc::clone(&queue);
        let thread = std::thread::Builder::new()
            .name("herald archive".to_owned())
            .spawn(move || writer.write_all())
            .map_err(|error| Error::new(Status::Io, format!("no thread for the archive: {error}")))?;
        Ok(Self {
            config: config.clone(),
            codes,
            queue,
            thread: Some(thread),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            viewed: AtomicU64::new(0),
        })
    }

    fn unnamed(&self) -> Result<ArchiveFile> {
        let folder = self.config.path.as_deref().unwrap_or(Path::new("."));
        ArchiveFile::unnamed(folder, self.codes.page_bytes() as u64)
    }

    /// Pins a page: it stays where it is until it has been released as often as pinned.
    fn pin(&self, id: u64) -> Result<Pinned> {
        let (at, n_tokens, stored) = {
            let mut state = self.queue.state();
            let State { pages, file, .. } = &mut *state;
            let Some(page) = pages.get_mut(&id) else {
                self.misses.fetch_add(1, Ordering::Relaxed);
                return Err(not_found(id));
            };
            page.pins += 1;
            self.hits.fetch_add(1, Ordering::Relaxed);
            if let Some(bytes) = &page.bytes {
                return Ok(Pinned::in_memory(bytes, page.n_tokens));
            }
            let stored: *const [u8] =
                file.as_ref().map_or(&[], |file| file.bytes(page.at.start, page.at.len as usize));
            (page.at, page.n_tokens, stored)
        };
        // SAFETY: maps stay where they are as long as the tier lives. Whoever drops the page meanwhile may have its space
        // written anew, as any file's may be that is mapped: nothing here relies on bytes being the same when read again.
        let stored = unsafe { &*stored };
        let viewed = self.viewed.fetch_add(stored.len() as u64, Ordering::Relaxed);
        if viewed >= MAX_VIEWED_BYTES {
            self.viewed.store(0, Ordering::Relaxed);
            if let Some(file) = &self.queue.state().file {
                file.give_memory_back();
            }
        }
        let checked = self.check(id, &at, stored).and_then(|()| {
            if !at.lz4 {
                return Ok(Pinned { bytes: stored.as_ptr().cast_mut(), n_tokens, _kept: None });
            }
            let mut bytes = AlignedBytes::zeroed(self.codes.page_bytes())?;
            lz4_flex::block::decompress_into(stored, &mut bytes)
                .ok()
                .filter(|len| *len == bytes.len())
                .ok_or_else(|| self.damaged(id, &at, "LZ4 can't decompress it"))?;
            Ok(Pinned::in_memory(&self.queue.state().in_memory(id, bytes)?, n_tokens))
        });
        if checked.is_err() {
            self.queue.state().unpin(id)?;
        }
        checked
    }

    fn check(&self, id: u64, at: &Entry, stored: &[u8]) -> Result<()> {
        if stored.len() == at.len as usize && checksum(stored) == at.sum {
            return Ok(());
        }
        self.queue.state().damaged += 1;
        Err(self.damaged(id, at, "its checksum is another"))
    }

    fn damaged(&self, id: u64, at: &Entry, what: &str) -> Error {
        let state = self.queue.state();
        let path = state.file.as_ref().map_or_else(|| Path::new(""), ArchiveFile::path).display();
        Error::new(
            Status::Corrupt,
            format!("the page {id} at {} of the archive {path} is damaged: {what}", at.start),
        )
    }

    /// Lets `read` read a page's codes.
    fn with<T>(&self, id: u64, read: impl FnOnce(&[u8], usize) -> T) -> Result<T> {
        let pinned = self.pin(id)?;
        // SAFETY: a page has that many bytes, and they stay where they are, in a map or in memory that `pinned` keeps.
        let bytes = unsafe { std::slice::from_raw_parts(pinned.bytes, self.codes.page_bytes()) };
        let result = read(bytes, pinned.n_tokens);
        self.release(id)?;
        Ok(result)
    }
}

/// A page that is read.
struct Pinned {
    /// Where its codes begin.
    bytes: *mut u8,
    n_tokens: usize,
    /// Codes in memory, which another thread may drop with the page.
    _kept: Option<Arc<AlignedBytes>>,
}

impl Pinned {
    fn in_memory(bytes: &Arc<AlignedBytes>, n_tokens: usize) -> Self {
        Self { bytes: bytes.as_ptr(), n_tokens, _kept: Some(Arc::clone(bytes)) }
    }
}

impl MemoryTier for ArchiveTier {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        let Some(page) = page.filter(|page| page.n_tokens() > 0) else {
            return Err(Error::unsupported("an archived memory tier has no empty pages to be written"));
        };
        if page.n_tokens() > self.config.page_tokens {
            return Err(Error::invalid(format!(
                "page {id} holds {} tokens, where at most {} have room",
                page.n_tokens(),
                self.config.page_tokens
            )));
        }
        let mut bytes = AlignedBytes::zeroed(self.codes.page_bytes())?;
        self.codes.fill(page, &mut bytes);
        let packed = if self.config.lz4 { lz4_flex::block::compress(&bytes) } else { Vec::new() };
        let packed = (self.config.lz4 && packed.len() < bytes.len()).then_some(packed);
        let stored = packed.as_deref().unwrap_or(&bytes);
        let (len, sum) = (stored.len() as u32, checksum(stored));

        let mut state = self.queue.when_there_is_room(bytes.len())?;
        if state.pages.contains_key(&id) {
            return Err(Error::invalid(format!(
                "the memory tier holds a page {id} already, where a new id was expected"
            )));
        }
        let held = state.stored_bytes + u64::from(len);
        if let Some(capacity) = self.config.capacity_bytes.filter(|capacity| held > *capacity) {
            return Err(Error::new(
                Status::OutOfMemory,
                format!("the memory tier is full: page {id} would make {held} bytes of at most {capacity}"),
            ));
        }
        if state.file.is_none() {
            state.file = Some(self.unnamed()?);
        }
        let Some(file) = &mut state.file else { return Err(Error::invalid("the archive has no file")) };
        let (start, entry) = file.take(u64::from(len))?;
        let at = Entry { id, start, len, n_tokens: page.n_tokens() as u32, lz4: packed.is_some(), sum };
        let bytes = Arc::new(bytes);
        let kept = Kept {
            n_tokens: page.n_tokens(),
            at,
            entry,
            bytes: Some(Arc::clone(&bytes)),
            queued: true,
            pins: 0,
        };
        state.pages.insert(id, kept);
        self.queue.push(state, Job { id, at, entry, bytes, packed });
        Ok(())
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        self.with(id, |bytes, n_tokens| {
            self.codes.decode(bytes, n_tokens, keys, values);
            n_tokens
        })
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        let pinned = self.pin(id)?;
        // SAFETY: a page has that many bytes, which stay there until it is dropped or released.
        Ok(unsafe { self.codes.raw(pinned.bytes, pinned.n_tokens) })
    }

    fn release(&self, id: u64) -> Result<()> {
        self.queue.state().unpin(id)
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        let held = self.queue.state().pages.get(&id).ok_or_else(|| not_found(id))?.n_tokens;
        if held != n_tokens {
            return Err(Error::invalid(format!(
                "the archived page {id} was to hold {n_tokens} tokens, where it holds {held} for good"
            )));
        }
        Ok(())
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        self.queue.drop_page(id)
    }

    fn stats(&self) -> TierStats {
        let state = self.queue.state();
        TierStats {
            pages: state.pages.len() as u64,
            tokens: state.tokens,
            bytes: state.stored_bytes,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            memory_bytes: state.memory_bytes(self.codes.page_bytes()),
            damaged: state.damaged,
        }
    }

    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        let found = ids
            .iter()
            .map(|id| {
                let score = self.with(*id, |bytes, n_tokens| self.codes.score(bytes, n_tokens, query))?;
                Ok(Found { id: *id, score })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(best(found, k))
    }

    fn list(&self) -> Result<Vec<u64>> {
        Ok(self.queue.state().pages.keys().copied().collect())
    }

    fn flush(&self) -> Result<()> {
        self.queue.flush()
    }
}

impl Drop for ArchiveTier {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of its was told when it happened.
            let _ = thread.join();
        }
    }
}
