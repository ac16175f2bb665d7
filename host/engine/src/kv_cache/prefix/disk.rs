//! The cache's files: one for each page and one for each node's recurrent states, in a folder that several processes may share.
//!
//! A file is named by the scope and the page's key, so that whoever computes the same page finds it. It is written by a thread, beside
//! its place, and then takes it as a whole. It has checksums as a saved sequence has (`saved_file`), so nobody waits for the disk: a
//! file that a power cut left in pieces is a miss, as any damaged one is.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use herald_api::AlignedBytes;
use safetensors::tensor::SafeTensors;

use super::Shared;
use super::evict::Store;
use super::key::PageKey;
use super::row::{CachedPage, CodedPage, PageRow, States, Summary};
use super::tree::{Gone, Node, OnDisk, Tree};
use crate::files::{self, Readers, Unfinished};
use crate::kv_cache::pages::{PagesNeeds, compressed_page};
use crate::kv_cache::selectable::SelectablePage;
use crate::kv_cache::{LayerNeeds, Ledger};
use crate::saved_file::{self, Unusable};

/// The format's version, which a change of a file's meaning raises.
const VERSION: &str = "1";

/// Jobs that wait at most: what they hold stays in RAM until it is written.
const WAITING: usize = 64;

/// Digits of a scope in a file's name.
const SCOPE_DIGITS: usize = 12;

/// What the thread has to do.
pub(super) enum Job {
    /// Write a page.
    Page { key: PageKey, parent: PageKey, end: usize, tokens: Box<[u32]>, row: PageRow },
    /// Write the states after a page.
    States { key: PageKey, states: Arc<States> },
    /// Remove files of pages, or of states.
    Remove(Vec<(PageKey, bool)>),
    /// Say that all before this is done.
    Flush(SyncSender<()>),
}

/// The folder, and the thread that writes to it.
pub(super) struct Files {
    place: Place,
    shared: Arc<Shared>,
    /// `None` once it is to end.
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

/// Where the files of a scope lie.
#[derive(Clone)]
struct Place {
    folder: PathBuf,
    scope: String,
}

/// A file of another scope: of another model, or one that is run otherwise.
struct Foreign {
    written: SystemTime,
    path: PathBuf,
    bytes: u64,
}

impl Place {
    fn path(&self, key: PageKey, is_state: bool) -> PathBuf {
        let kind = if is_state { "state" } else { "page" };
        self.folder.join(format!("{}-{key}.{kind}", &self.scope[..SCOPE_DIGITS]))
    }

    /// The key of a file of this scope, and whether it has states; `None`: of another scope.
    fn parse(&self, name: &str) -> Option<Option<(PageKey, bool)>> {
        let (stem, kind) = name.rsplit_once('.')?;
        let is_state = match kind {
            "page" => false,
            "state" => true,
            _ => return None,
        };
        let (scope, key) = stem.split_once('-').filter(|(scope, _)| scope.len() == SCOPE_DIGITS)?;
        let key = PageKey::parse(key)?;
        Some((scope == &self.scope[..SCOPE_DIGITS]).then_some((key, is_state)))
    }
}

impl Files {
    /// Opens a folder, which is made where there is none, and finds what is in it.
    pub(super) fn open(
        folder: &Path,
        scope: PageKey,
        max_bytes: u64,
        with_states: bool,
        shared: &Arc<Shared>,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        files::tidy(folder)?;
        let place = Place { folder: folder.to_owned(), scope: scope.to_string() };
        let foreign = find_files(&place, &mut shared.tree(), shared)?;
        let (jobs, waiting) = sync_channel(WAITING);
        let mut writer =
            Writer { place: place.clone(), shared: Arc::clone(shared), max_bytes, with_states, foreign };
        writer.make_room();
        let thread = std::thread::Builder::new().name("herald-cache".to_owned()).spawn(move || {
            waiting.into_iter().for_each(|job| writer.work(job));
        })?;
        let (jobs, thread) = (Some(jobs), Some(thread));
        Ok(Self { place, shared: Arc::clone(shared), jobs, thread, process: std::process::id() })
    }

    /// Has the thread do something, once there is room for it.
    pub(super) fn send(&self, job: Job) {
        // A thread that is gone writes nothing: what it would have written stays in RAM.
        if let Some(jobs) = &self.jobs {
            drop(jobs.send(job));
        }
    }

    /// Waits until all is done.
    pub(super) fn flush(&self) {
        let (done, wait) = sync_channel(1);
        self.send(Job::Flush(done));
        let _ = wait.recv();
    }

    /// Reads a page; `None` where there is none, or a damaged one.
    pub(super) fn read_page(
        &self,
        key: PageKey,
        needs: &[LayerNeeds],
        ledger: &Arc<Ledger>,
    ) -> Option<PageRow> {
        self.read(key, false, |facts, tensors| {
            let tokens = parsed_tokens(facts)?;
            let forms = facts.get("forms").map_or("", String::as_str);
            let layers = needs.iter().filter_map(|needs| match needs {
                LayerNeeds::Pages(needs) => Some(needs),
                _ => None,
            });
            let mut pages = Vec::new();
            for (index, (needs, form)) in layers.zip(forms.chars().chain(std::iter::repeat(' '))).enumerate()
            {
                pages.push(read_layer(tensors, index, form, tokens.len(), needs, ledger)?);
            }
            Ok(PageRow(pages))
        })
    }

    /// Reads the states after a page; `None` where there are none, or damaged ones.
    pub(super) fn read_states(
        &self,
        key: PageKey,
        needs: &[LayerNeeds],
        ledger: &Arc<Ledger>,
    ) -> Option<States> {
        self.read(key, true, |_, tensors| {
            let mut parts = Vec::new();
            let sizes = needs.iter().filter_map(|needs| match needs {
                LayerNeeds::State(bytes) => Some(*bytes),
                _ => None,
            });
            for (index, bytes) in sizes.enumerate() {
                let found = part(tensors, index, 's')?;
                if found.len() != bytes {
                    return Err(format!("a state has {} bytes, where {bytes} were expected", found.len()));
                }
                let mut copy = AlignedBytes::zeroed(bytes).map_err(|error| error.to_string())?;
                copy.copy_from_slice(found);
                parts.push(copy);
            }
            Ok(States::new(parts, ledger))
        })
    }

    fn read<T>(
        &self,
        key: PageKey,
        is_state: bool,
        take: impl FnOnce(&HashMap<String, String>, &SafeTensors<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let path = self.place.path(key, is_state);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => {
                // Another process may have removed it.
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("{}: the kept page can't be read: {error}", path.display());
                }
                return None;
            }
        };
        let taken = saved_file::read(&bytes).map_err(unusable).and_then(|saved| {
            check_facts(&saved.facts, &self.place.scope, key)?;
            take(&saved.facts, &saved.tensors)
        });
        taken.map_err(|what| self.shared.give_up_file(&path, &what)).ok()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            if self.process == std::process::id() {
                let _ = thread.join();
            } else {
                // A fork lacks the thread, and would wait for it for ever.
                std::mem::forget(thread);
            }
        }
    }
}

impl Shared {
    /// A file that can't be used: it is removed, and its page a miss.
    fn give_up_file(&self, path: &Path, what: &str) {
        self.counts.damaged();
        tracing::warn!("{}: the kept page is left out: {what}", path.display());
        let _ = fs::remove_file(path);
    }
}

/// What the thread knows.
struct Writer {
    place: Place,
    shared: Arc<Shared>,
    max_bytes: u64,
    with_states: bool,
    /// Files of other scopes, the latest first.
    foreign: Vec<Foreign>,
}

impl Writer {
    fn work(&mut self, job: Job) {
        match job {
            Job::Page { key, parent, end, tokens, row } => {
                let written = self.write_page(key, parent, end, &tokens, &row);
                drop(row);
                self.written(key, false, written);
            }
            Job::States { key, states } => {
                let facts = self.facts(key);
                let names = (0..).map(|index| format!("{index}.s"));
                let parts: Vec<(String, &[u8])> =
                    names.zip(states.parts.iter().map(|part| &**part)).collect();
                let written = self.write(key, true, &facts, &parts);
                drop(parts);
                drop(states);
                self.written(key, true, written);
            }
            Job::Remove(files) => files.iter().for_each(|(key, is_state)| self.remove(*key, *is_state)),
            Job::Flush(done) => drop(done.send(())),
        }
    }

    fn facts(&self, key: PageKey) -> BTreeMap<String, String> {
        let facts = [
            ("herald.cache", VERSION.to_owned()),
            ("scope", self.place.scope.clone()),
            ("key", key.to_string()),
        ];
        facts.map(|(name, value)| (name.to_owned(), value)).into()
    }

    fn write_page(
        &self,
        key: PageKey,
        parent: PageKey,
        end: usize,
        tokens: &[u32],
        row: &PageRow,
    ) -> io::Result<u64> {
        let mut facts = self.facts(key);
        facts.insert("parent".to_owned(), parent.to_string());
        facts.insert("end".to_owned(), end.to_string());
        let ids: Vec<String> = tokens.iter().map(u32::to_string).collect();
        facts.insert("tokens".to_owned(), ids.join(" "));
        let mut forms = String::new();
        let mut opened = Vec::new();
        for page in &row.0 {
            match (&page.exact, &page.coded) {
                (Some(exact), _) => {
                    forms.push('e');
                    opened.push((Arc::clone(exact), None));
                }
                (None, Some(coded)) => {
                    forms.push('c');
                    let page = coded.page.open().map_err(io::Error::other)?;
                    opened.push((page, Some(bytemuck::cast_slice::<u64, u8>(&coded.summary.words))));
                }
                (None, None) => return Err(io::Error::other("a page of the cache has no form at all")),
            }
        }
        facts.insert("forms".to_owned(), forms);
        let mut parts: Vec<(String, &[u8])> = Vec::new();
        for (index, (page, summary)) in opened.iter().enumerate() {
            let (keys, values) = page.bytes();
            parts.push((format!("{index}.k"), keys));
            parts.push((format!("{index}.v"), values));
            parts.extend(summary.map(|summary| (format!("{index}.m"), summary)));
        }
        self.write(key, false, &facts, &parts)
    }

    fn write(
        &self,
        key: PageKey,
        is_state: bool,
        facts: &BTreeMap<String, String>,
        parts: &[(String, &[u8])],
    ) -> io::Result<u64> {
        let mut file = BufWriter::new(Unfinished::begin(&self.place.folder, Readers::Owner)?);
        saved_file::write(&mut file, facts, parts)?;
        file.flush()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let bytes = file.file().metadata()?.len();
        file.keep_unsynced(&self.place.path(key, is_state))?;
        Ok(bytes)
    }

    /// Tells the tree that a file is there, or that it could not be written, and makes room for the next one.
    fn written(&mut self, key: PageKey, is_state: bool, written: io::Result<u64>) {
        let disk = match written {
            Ok(bytes) => OnDisk::Stored(bytes),
            Err(error) => {
                tracing::warn!("{}: a page can't be kept: {error}", self.place.folder.display());
                OnDisk::No
            }
        };
        let mut gone = Gone::default();
        let mut tree = self.shared.tree();
        let is_known = tree.set_disk(key, is_state, disk, &mut gone);
        drop(tree);
        if !is_known && disk != OnDisk::No {
            self.remove(key, is_state);
        }
        self.make_room();
    }

    /// Removes files until there are no more than may be: those of other scopes first, then what costs least to compute again.
    fn make_room(&mut self) {
        let others: u64 = self.foreign.iter().map(|foreign| foreign.bytes).sum();
        let mut over = (self.shared.tree().file_bytes + others).saturating_sub(self.max_bytes);
        while over > 0
            && let Some(foreign) = self.foreign.pop()
        {
            over = over.saturating_sub(foreign.bytes);
            let _ = fs::remove_file(&foreign.path);
        }
        if over == 0 {
            return;
        }
        let mut gone = Gone::default();
        self.shared.tree().shrink(Store::Disk, self.max_bytes, self.with_states, &mut gone);
        self.shared.counts.evicted_files(gone.files.len() as u64);
        gone.files.iter().for_each(|(key, is_state)| self.remove(*key, *is_state));
    }

    fn remove(&self, key: PageKey, is_state: bool) {
        let _ = fs::remove_file(self.place.path(key, is_state));
    }
}

/// Puts the files of a scope into the tree; returns those of others, the latest first.
fn find_files(place: &Place, tree: &mut Tree, shared: &Shared) -> io::Result<Vec<Foreign>> {
    let (mut foreign, mut pages, mut states) = (Vec::new(), Vec::new(), Vec::new());
    for entry in fs::read_dir(&place.folder)? {
        let entry = entry?;
        let Some(found) = entry.file_name().to_str().and_then(|name| place.parse(name)) else { continue };
        // Another process may remove a file meanwhile.
        let Ok(about) = entry.metadata() else { continue };
        let written = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        match found {
            None => foreign.push(Foreign { written, path: entry.path(), bytes: about.len() }),
            Some((key, true)) => states.push((key, about.len())),
            Some((key, false)) => match read_header(&entry.path(), about.len(), &place.scope, key) {
                Ok((parent, end, tokens)) => pages.push((end, key, parent, tokens, about.len())),
                Err(what) => shared.give_up_file(&entry.path(), &what),
            },
        }
    }
    foreign.sort_by_key(|file| std::cmp::Reverse(file.written));
    pages.sort_by_key(|(end, key, ..)| (*end, *key));
    for (end, key, parent, tokens, bytes) in pages {
        let begins = end == tokens.len();
        if parent.child(&tokens) != key || !(begins || tree.nodes.contains_key(&parent)) {
            // Its beginning is gone, so nobody finds it.
            let _ = fs::remove_file(place.path(key, false));
            continue;
        }
        tree.child(parent, &tokens);
        tree.set_disk(key, false, OnDisk::Stored(bytes), &mut Gone::default());
    }
    for (key, bytes) in states {
        if !tree.set_disk(key, true, OnDisk::Stored(bytes), &mut Gone::default()) {
            let _ = fs::remove_file(place.path(key, true));
        }
    }
    Ok(foreign)
}

/// A page's parent, the tokens up to its end, and its own.
fn read_header(
    path: &Path,
    len: u64,
    scope: &str,
    key: PageKey,
) -> Result<(PageKey, usize, Vec<u32>), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let facts = saved_file::read_facts(file, len).map_err(unusable)?;
    check_facts(&facts, scope, key)?;
    let parent = facts.get("parent").and_then(|parent| PageKey::parse(parent));
    let end = facts.get("end").and_then(|end| end.parse().ok());
    let (Some(parent), Some(end)) = (parent, end) else {
        return Err("it doesn't say what comes before it".to_owned());
    };
    Ok((parent, end, parsed_tokens(&facts)?))
}

fn parsed_tokens(facts: &HashMap<String, String>) -> Result<Vec<u32>, String> {
    let ids = facts.get("tokens").map(|ids| ids.split(' ').map(str::parse).collect::<Result<Vec<u32>, _>>());
    ids.and_then(Result::ok).ok_or_else(|| "it doesn't say which tokens it is of".to_owned())
}

fn check_facts(facts: &HashMap<String, String>, scope: &str, key: PageKey) -> Result<(), String> {
    for (name, expected) in [("herald.cache", VERSION), ("scope", scope), ("key", &key.to_string())] {
        let found = facts.get(name).map_or("nothing", String::as_str);
        if found != expected {
            return Err(format!("it was kept with {name} {found}, where {expected} was expected"));
        }
    }
    Ok(())
}

fn unusable(unusable: Unusable) -> String {
    match unusable {
        Unusable::Damaged(what) | Unusable::Earlier(what) => what,
    }
}

fn part<'b>(tensors: &SafeTensors<'b>, layer: usize, name: char) -> Result<&'b [u8], String> {
    let name = format!("{layer}.{name}");
    tensors.tensor(&name).map(|tensor| tensor.data()).map_err(|_| format!("it lacks its part {name}"))
}

fn read_layer(
    tensors: &SafeTensors<'_>,
    layer: usize,
    form: char,
    tokens: usize,
    needs: &PagesNeeds,
    ledger: &Arc<Ledger>,
) -> Result<CachedPage, String> {
    let (keys, values) = (part(tensors, layer, 'k')?, part(tensors, layer, 'v')?);
    let failed = |error: herald_api::Error| error.to_string();
    match (form, &needs.compressed) {
        ('e', _) => {
            let mut page = needs.tier.reserve().map_err(failed)?;
            page.overwrite(keys, values).map_err(failed)?;
            page.commit(tokens).map_err(failed)?;
            Ok(CachedPage { exact: Some(Arc::new(page)), coded: None })
        }
        ('c', Some(tier)) => {
            let summary = part(tensors, layer, 'm')?;
            if summary.len() != needs.summary_bytes {
                return Err(format!("a summary has {} bytes", summary.len()));
            }
            let words: Vec<u64> =
                summary.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
            let page = compressed_page(tier.config(), keys, values).map_err(failed)?;
            let page = SelectablePage::Compressed(Arc::new(tier.keep(&page).map_err(failed)?));
            let coded = CodedPage { page, summary: Arc::new(Summary::new(&words, ledger)) };
            Ok(CachedPage { exact: None, coded: Some(coded) })
        }
        _ => Err(format!("its layer {layer} is in the form {form:?}, which the model has no place for")),
    }
}

impl Tree {
    /// Says where a part lies; `false` where it is no part of the tree.
    fn set_disk(&mut self, key: PageKey, is_state: bool, disk: OnDisk, gone: &mut Gone) -> bool {
        let Some(node) = self.nodes.get_mut(&key) else { return false };
        let Node { page, state, .. } = node;
        let place = if is_state { &mut state.disk } else { &mut page.disk };
        if let OnDisk::Stored(bytes) = std::mem::replace(place, disk) {
            self.file_bytes -= bytes;
        }
        if let OnDisk::Stored(bytes) = disk {
            self.file_bytes += bytes;
        }
        self.remove_if_empty(key, gone);
        true
    }
}
