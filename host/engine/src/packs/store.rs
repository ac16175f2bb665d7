//! What gives a plugin the memory for packed weights: a pack that is there, or one in the making.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use herald_api::{Error, KeptPack, PackKeeper, Result};

use super::file::{self, Entry, HEADER_BYTES, Identity, Key, Mapped};
use super::region::Region;
use crate::files::{self, Lock, Readers, Unfinished};
use crate::system;
use crate::threads::locked;

/// Whether packs are kept on this system: where private memory can become a file's where it is.
pub(super) const OFFERED: bool = cfg!(unix);

/// The end of the name of the file whose lock a process holds that makes a pack.
const LOCK: &str = "lock";

/// How long a process waits for another one that makes a pack, before it packs into its own memory.
const PATIENCE: Duration = Duration::from_secs(60);

/// After so long it says what it waits for.
const SILENCE: Duration = Duration::from_secs(2);

/// Address space for a pack, over the model's bytes. Codebooks take up to two and a half times as many when they are packed.
const MOST_OVER_MODEL: usize = 3;

/// A packed weight takes at most so many times the bytes of the file's.
const MOST_OVER_SOURCE: usize = 16;

/// Weights begin at multiples of this in pages of their own. Some systems' pages have 64 KiB.
const PAGE: usize = 1 << 16;

/// What is left free on the disk for others.
const SPARE_BYTES: u64 = 1 << 30;

/// The packed weights of one model and one plugin.
pub(super) struct Store {
    path: PathBuf,
    identity: Identity,
    /// The addresses of the model's files.
    mapped: Vec<Range<usize>>,
    state: Mutex<State>,
}

enum State {
    /// No weight was asked for yet.
    New,
    /// There is a pack, and whether a weight was asked for that it lacks.
    There { pack: Mapped, lacks: bool },
    /// One is being made.
    Making(Making),
    /// One was made, or can't be: only what it has is given.
    Done(Option<Made>),
}

/// A pack in the making.
struct Making {
    /// `None` once it could not be written to.
    file: Option<Unfinished>,
    made: Made,
    /// What is given away and not filled yet, by the address of its memory.
    open: HashMap<usize, Key>,
    /// Bytes that are given away, the header's counted.
    end: usize,
    /// Held while it is made.
    _lock: Lock,
}

/// What was packed here.
struct Made {
    /// As the file is, from its header on. Written only through what `take` gave away, until that is filled.
    region: Region,
    /// Where each weight lies, and the sum of its bytes once they are filled.
    entries: HashMap<Key, (Range<usize>, Option<u64>)>,
}

impl Made {
    fn filled(&self, key: Key, bytes: usize) -> Option<KeptPack> {
        let (range, sum) = self.entries.get(&key)?;
        let is_filled = sum.is_some() && range.len() == bytes;
        is_filled.then(|| KeptPack { memory: self.region.at(range.start), is_filled })
    }
}

impl Store {
    pub(super) fn new(path: PathBuf, identity: Identity, mapped: Vec<Range<usize>>) -> Self {
        Self { path, identity, mapped, state: Mutex::new(State::New) }
    }

    /// Whether there is a pack that can be used.
    pub(super) fn is_there(&self) -> bool {
        let mut state = locked(&self.state);
        // A plugin that packs nothing gets no file.
        if matches!(*state, State::New) && self.path.exists() {
            *state = self.begin();
        }
        matches!(*state, State::There { .. })
    }

    /// Whether weights lie in a pack.
    pub(super) fn is_used(&self) -> bool {
        !matches!(*locked(&self.state), State::New | State::Done(None))
    }

    /// The place in the model's files of bytes at an address.
    fn key(&self, source: usize, bytes: usize, form: u64) -> Option<Key> {
        let end = source.checked_add(bytes)?;
        let is_within = |mapped: &Range<usize>| mapped.start <= source && end <= mapped.end;
        let file = self.mapped.iter().position(is_within)?;
        Some(Key { file, offset: (source - self.mapped[file].start) as u64, bytes: bytes as u64, form })
    }

    /// The pack that is there, or the beginning of a new one.
    fn begin(&self) -> State {
        let found = match file::open(&self.path, &self.identity) {
            Ok(pack) => return State::There { pack, lacks: false },
            Err(error) => error,
        };
        if found.kind() != io::ErrorKind::NotFound {
            tracing::info!("{}: weights are packed anew: {found}", self.path.display());
        }
        self.make().unwrap_or_else(|error| {
            not_kept(&self.path, &error);
            State::Done(None)
        })
    }

    fn make(&self) -> io::Result<State> {
        let folder = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(folder)?;
        let lock = wait_for(&self.path.with_extension(LOCK))?;
        // Another process may have made it meanwhile.
        if let Ok(pack) = file::open(&self.path, &self.identity) {
            return Ok(State::There { pack, lacks: false });
        }
        sweep(folder);
        let model: u64 = self.mapped.iter().map(|file| file.len() as u64).sum();
        let needed = model + model / 8 + SPARE_BYTES;
        if let Some(free) = system::free_bytes(folder).filter(|free| *free < needed) {
            return Err(io::Error::other(format!("{free} bytes are free, where {needed} were expected")));
        }
        let len = usize::try_from(model).map_err(io::Error::other)?;
        let len = len.saturating_mul(MOST_OVER_MODEL).next_multiple_of(PAGE) + PAGE;
        let made = Made { region: Region::new(len)?, entries: HashMap::new() };
        let file = Some(Unfinished::create_in(folder, Readers::Owner)?);
        Ok(State::Making(Making { file, made, open: HashMap::new(), end: HEADER_BYTES, _lock: lock }))
    }

    /// Has the pack that was made take its place. Where it can't, this process goes on with what it has. A pack that lacks weights,
    /// since it was made while fewer were asked for, goes: the next process makes a whole one.
    pub(super) fn keep(&self) {
        let mut state = locked(&self.state);
        *state = match std::mem::replace(&mut *state, State::New) {
            State::Making(making) => State::Done(Some(self.finish(making))),
            State::There { pack, lacks: true } => {
                tracing::info!(
                    "{}: weights are packed anew next time: some are missing",
                    self.path.display()
                );
                // Another process may have removed it.
                let _ = fs::remove_file(&self.path);
                State::There { pack, lacks: false }
            }
            other => other,
        };
    }

    fn finish(&self, making: Making) -> Made {
        let Making { file, made, end, open: _, _lock } = making;
        let Some(file) = file else { return made };
        // A file that has changed meanwhile may have other weights than these.
        if !self.identity.is_current() {
            not_kept(&self.path, &io::Error::other("the model's file or the plugin's has changed meanwhile"));
            return made;
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(made.entries.len());
        for (of, (range, sum)) in &made.entries {
            entries.extend(sum.map(|sum| Entry { of: *of, offset: range.start, bytes: range.len(), sum }));
        }
        entries.sort_by_key(|entry| entry.offset);
        let kept = file.file().try_clone().and_then(|mut handle| {
            file::finish(&mut handle, &self.identity, entries, end.next_multiple_of(PAGE))?;
            match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            file.keep_unsynced(&self.path)
        });
        match kept {
            Ok(()) => {
                tracing::info!("{}: keeps {} MB of packed weights", self.path.display(), end / 1_000_000)
            }
            Err(error) => not_kept(&self.path, &error),
        }
        made
    }
}

fn not_kept(path: &Path, error: &io::Error) {
    tracing::info!("{}: packed weights can't be kept: {error}", path.display());
}

impl Making {
    /// Memory for a weight, where there is address space for it.
    fn take(&mut self, key: Key, bytes: usize) -> Option<KeptPack> {
        let start = self.end.next_multiple_of(PAGE);
        let end = start.checked_add(bytes)?;
        if end.checked_next_multiple_of(PAGE)? > self.made.region.len() {
            return None;
        }
        self.end = end;
        self.made.entries.insert(key, (start..end, None));
        let memory = self.made.region.at(start);
        self.open.insert(memory.as_ptr() as usize, key);
        Some(KeptPack { memory, is_filled: false })
    }

    /// Notes that memory is filled, which lies there.
    fn fill(&mut self, memory: usize) -> Option<Range<usize>> {
        let key = self.open.remove(&memory)?;
        let Made { region, entries } = &mut self.made;
        // What was taken twice is where it was taken last.
        let (range, sum) =
            entries.get_mut(&key).filter(|(range, _)| region.at(range.start).as_ptr() as usize == memory)?;
        // SAFETY: whoever took it says that it is filled, and so writes to it no more.
        *sum = Some(file::sum(unsafe { region.bytes(range.clone()) }));
        Some(range.clone())
    }

    /// Writes a weight's pages to the file, and has them be the file's where they are. Where that fails, the memory stays as it is.
    fn write(&mut self, range: Range<usize>) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let pages = range.start..range.end.next_multiple_of(PAGE);
        let mut handle = file.file();
        handle.seek(SeekFrom::Start(pages.start as u64))?;
        // SAFETY: they are filled, so nobody writes to them any more.
        handle.write_all(unsafe { self.made.region.bytes(pages.clone()) })?;
        // SAFETY: the file holds what was just written, and is this process's alone until it is whole; then it is only read.
        unsafe { self.made.region.replace(pages.clone(), handle, pages.start) }
    }
}

// SAFETY: memory lies in a mapping that the state keeps for as long as the store lives, at offsets that are multiples of 64 from a page's
// beginning. A pack that is there was filled by the process that made it, which then gave it a name, and is mapped read-only. One in
// the making gives every byte away once, zeros of private memory, and again only once it is filled; what is filled stays the same when it
// becomes the file's.
unsafe impl PackKeeper for Store {
    fn take(&self, source: usize, source_bytes: usize, form: u64, bytes: usize) -> Result<KeptPack> {
        let key = self.key(source, source_bytes, form);
        let key =
            key.ok_or_else(|| Error::unsupported("a weight that isn't the model file's is not kept"))?;
        if bytes > source_bytes.saturating_mul(MOST_OVER_SOURCE) {
            return Err(Error::invalid(format!(
                "memory for {bytes} bytes of a packed weight of {source_bytes} was asked for, where at most {MOST_OVER_SOURCE} times \
                 as many were expected"
            )));
        }
        let mut state = locked(&self.state);
        if matches!(*state, State::New) {
            *state = self.begin();
        }
        let lacks = || Error::unsupported("the packed weights that are kept lack this one");
        match &mut *state {
            State::There { pack: Mapped { map, entries }, lacks: lacks_some } => {
                let found = entries.get(&key).filter(|(_, len)| *len == bytes);
                let memory =
                    found.and_then(|(offset, _)| NonNull::new(map.as_ptr().wrapping_add(*offset).cast_mut()));
                *lacks_some |= memory.is_none();
                Ok(KeptPack { memory: memory.ok_or_else(lacks)?, is_filled: true })
            }
            State::Making(making) => match making.made.filled(key, bytes) {
                Some(filled) => Ok(filled),
                None => making.take(key, bytes).ok_or_else(lacks),
            },
            State::Done(Some(made)) => made.filled(key, bytes).ok_or_else(lacks),
            State::Done(None) | State::New => Err(lacks()),
        }
    }

    fn filled(&self, memory: usize) -> Result<()> {
        let mut state = locked(&self.state);
        let State::Making(making) = &mut *state else {
            return Err(Error::invalid("no memory for packed weights was given to be filled"));
        };
        let range = making.fill(memory).ok_or_else(|| {
            Error::invalid(format!(
                "the memory at {memory:#x} was said to be filled, which was not given for packed weights"
            ))
        })?;
        if let Err(error) = making.write(range) {
            not_kept(&self.path, &error);
            making.file = None;
        }
        Ok(())
    }
}

/// The lock of those who make packs, once nobody else holds it.
fn wait_for(lock: &Path) -> io::Result<Lock> {
    let (start, mut is_silent) = (Instant::now(), true);
    loop {
        if let Some(lock) = files::lock(lock)? {
            return Ok(lock);
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other("another process has been making packed weights for a minute"));
        }
        if is_silent && start.elapsed() > SILENCE {
            tracing::warn!(
                "{}: another process packs this model's weights, which is waited for",
                lock.display()
            );
            is_silent = false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the packs of models or plugins that are gone or have changed, and those that can't be read.
fn sweep(folder: &Path) {
    for path in super::files(folder) {
        if !file::identity(&path).is_ok_and(|identity| identity.is_current())
            && fs::remove_file(&path).is_ok()
        {
            tracing::info!(
                "{}: removed, since its model or its plugin is gone or has changed",
                path.display()
            );
        }
    }
}
