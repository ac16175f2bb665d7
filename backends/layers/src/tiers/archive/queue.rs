//! An archive's pages: those on their way to its file, and those in it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use herald_api::{AlignedBytes, Result};

use super::file::{ArchiveFile, Offset};
use super::format::Entry;
use crate::tiers::not_found;

/// Bytes of pages that may wait to be written.
const MAX_QUEUED_BYTES: usize = 32 << 20;

/// A page of the tier.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) n_tokens: usize,
    pub(super) at: Entry,
    /// Where its entry is, in a file that has entries.
    pub(super) entry: Option<Offset>,
    /// Its codes in memory: while it is queued, and after that for as long as it is pinned.
    pub(super) bytes: Option<Arc<AlignedBytes>>,
    /// Whether it is still to be written.
    pub(super) queued: bool,
    /// Views that were not released.
    pub(super) pins: usize,
}

/// A page to be written.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) at: Entry,
    pub(super) entry: Option<Offset>,
    pub(super) bytes: Arc<AlignedBytes>,
    /// Its LZ4 form, written instead where that is smaller.
    pub(super) packed: Option<Vec<u8>>,
}

#[derive(Default)]
pub(super) struct State {
    /// `None` until the first page comes.
    pub(super) file: Option<ArchiveFile>,
    pub(super) pages: HashMap<u64, Kept>,
    /// Tokens of the pages.
    pub(super) tokens: u64,
    /// Bytes of the pages in the file.
    pub(super) stored_bytes: u64,
    /// Pages found to be damaged.
    pub(super) damaged: u64,
    /// Pages that are in memory.
    in_memory: usize,
    jobs: VecDeque<Job>,
    /// Bytes of pages that wait or are being written.
    queued_bytes: usize,
    /// The page that is being written.
    in_flight: Option<Entry>,
    /// Why the last write failed; `None` once one succeeds again.
    failure: Option<herald_api::Error>,
    closing: bool,
}

impl State {
    pub(super) fn unpin(&mut self, id: u64) -> Result<()> {
        let page = self.pages.get_mut(&id).ok_or_else(|| not_found(id))?;
        page.pins = page.pins.saturating_sub(1);
        if page.pins == 0 && !page.queued && page.bytes.take().is_some() {
            self.in_memory -= 1;
        }
        Ok(())
    }

    /// A page's bytes in memory: those that are there, or these.
    pub(super) fn in_memory(&mut self, id: u64, bytes: AlignedBytes) -> Result<Arc<AlignedBytes>> {
        let page = self.pages.get_mut(&id).ok_or_else(|| not_found(id))?;
        if page.bytes.is_none() {
            self.in_memory += 1;
        }
        // Another thread may have put them there first.
        Ok(Arc::clone(page.bytes.get_or_insert_with(|| Arc::new(bytes))))
    }

    /// Bytes of RAM, where a page in memory takes `page_bytes`.
    pub(super) fn memory_bytes(&self, page_bytes: usize) -> u64 {
        (self.in_memory * page_bytes + self.pages.capacity() * size_of::<(u64, Kept)>()) as u64
    }
}

pub(super) struct Queue {
    state: Mutex<State>,
    /// Signalled when there is something to write, or nothing more will come.
    work: Condvar,
    /// Signalled when something was written.
    room: Condvar,
}

impl Queue {
    pub(super) fn new(mut state: State) -> Self {
        state.tokens = state.pages.values().map(|page| page.n_tokens as u64).sum();
        state.stored_bytes = state.pages.values().map(|page| u64::from(page.at.len)).sum();
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock leaves it half-changed.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until there is room in the queue for `bytes` more.
    pub(super) fn when_there_is_room(&self, bytes: usize) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        loop {
            if let Some(failure) = &state.failure {
                let failure = failure.clone();
                // The queue is tried again, in case there is room now.
                self.work.notify_one();
                return Err(failure);
            }
            if state.queued_bytes == 0 || state.queued_bytes + bytes <= MAX_QUEUED_BYTES {
                return Ok(state);
            }
            state = self.room.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    pub(super) fn push(&self, mut state: MutexGuard<'_, State>, job: Job) {
        state.tokens += u64::from(job.at.n_tokens);
        state.stored_bytes += u64::from(job.at.len);
        state.queued_bytes += job.bytes.len();
        state.in_memory += 1;
        state.jobs.push_back(job);
        drop(state);
        self.work.notify_one();
    }

    pub(super) fn drop_page(&self, id: u64) -> Result<()> {
        // Freed after the lock is given back.
        let _gone;
        let mut state = self.state();
        let page = state.pages.remove(&id).ok_or_else(|| not_found(id))?;
        state.tokens -= page.n_tokens as u64;
        state.stored_bytes -= u64::from(page.at.len);
        state.in_memory -= usize::from(page.bytes.is_some());
        // The space of a page that is being written is given back when the write is done.
        let done = if state.in_flight == Some(page.at) {
            Ok(())
        } else {
            if page.queued
                && let Some(index) = state.jobs.iter().position(|job| job.at == page.at)
            {
                let job = state.jobs.remove(index);
                state.queued_bytes -= job.map_or(0, |job| job.bytes.len());
                if state.jobs.is_empty() {
                    state.failure = None;
                }
                self.room.notify_all();
                self.work.notify_one();
            }
            let len = u64::from(page.at.len);
            state.file.as_mut().map_or(Ok(()), |file| file.give(page.at.start, len, page.entry))
        };
        _gone = page;
        done
    }

    /// Returns when everything is in the file.
    pub(super) fn flush(&self) -> Result<()> {
        let mut state = self.state();
        while state.queued_bytes > 0 {
            if let Some(failure) = &state.failure {
                let failure = failure.clone();
                self.work.notify_one();
                return Err(failure);
            }
            state = self.room.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        let writer = state.file.as_ref().map(|file| Arc::clone(file.writer()));
        drop(state);
        writer.map_or(Ok(()), |writer| writer.sync())
    }

    /// Has the thread end when everything is written.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.work.notify_one();
    }

    /// The thread: writes what comes, until there is nothing more.
    pub(super) fn write_all(&self) {
        let mut state = self.state();
        loop {
            let Some(job) = state.jobs.pop_front() else {
                if state.closing {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            let Some(writer) = state.file.as_ref().map(|file| Arc::clone(file.writer())) else { continue };
            state.in_flight = Some(job.at);
            drop(state);
            let bytes = job.packed.as_deref().unwrap_or(&job.bytes);
            let written = writer.write(bytes, job.at.start).and_then(|()| match job.entry {
                // After its page, so that no entry ever describes half a page.
                Some(entry) => writer.write(&job.at.bytes(), entry),
                None => Ok(()),
            });
            state = self.state();
            state.in_flight = None;
            let kept = state.pages.get_mut(&job.id).filter(|page| page.at == job.at);
            match (kept, written) {
                (Some(page), Ok(())) => {
                    page.queued = false;
                    if page.pins == 0 && page.bytes.take().is_some() {
                        state.in_memory -= 1;
                    }
                    state.queued_bytes -= job.bytes.len();
                    state.failure = None;
                }
                (Some(_), Err(error)) => {
                    state.failure = Some(error);
                    state.jobs.push_front(job);
                    self.room.notify_all();
                    if state.closing {
                        return;
                    }
                    // Tried again when somebody puts another page or drops one.
                    state = self.work.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                    continue;
                }
                (None, _) => {
                    state.queued_bytes -= job.bytes.len();
                    let len = u64::from(job.at.len);
                    if let Some(file) = &mut state.file
                        && let Err(error) = file.give(job.at.start, len, job.entry)
                    {
                        state.failure = Some(error);
                    }
                    if state.jobs.is_empty() {
                        state.failure = None;
                    }
                }
            }
            self.room.notify_all();
        }
    }
}
