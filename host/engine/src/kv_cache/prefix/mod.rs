//! The prefix cache: everything that sequences have computed, prompts and answers, so that no beginning is computed twice.
//!
//! It is a tree of pages (`tree`). A page is named by a hash of all tokens up to its end and of what else changes its content, the
//! same in every process (`key`). Beside a page's keys and values (`row`) a node may have the recurrent states after its last
//! token: a model that keeps such goes on from the last of them that fits. The cache holds as many bytes as it may, gives up
//! what costs least to compute again (`evict`), and has a copy in files where a folder is named (`disk`).

mod disk;
mod evict;
mod key;
mod report;
mod row;
mod tree;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::copies::copied;
use super::{Census, LayerNeeds, Ledger, SequenceMemory};
use crate::threads::locked;
use disk::{Files, Job};
use evict::Store;
pub(crate) use key::PageKey;
pub use report::CacheReport;
use report::Counts;
pub(crate) use row::{PageRow, States};
use tree::{Gone, OnDisk, Tree};

/// What the cache may take.
#[derive(Clone, Debug, Default)]
pub(crate) struct CacheLimits {
    /// Bytes of RAM; 0: there is no cache.
    pub(crate) bytes: usize,
    /// The folder of its files; `None`: it has none.
    pub(crate) folder: Option<PathBuf>,
    /// Bytes of files.
    pub(crate) file_bytes: u64,
}

/// Everything that sequences have computed, as far as there is room.
pub(crate) struct PrefixCache {
    limits: CacheLimits,
    page_tokens: usize,
    with_states: bool,
    /// Where sequences begin.
    scope: OnceLock<PageKey>,
    shared: Arc<Shared>,
    files: OnceLock<Files>,
}

/// What the thread that writes files sees too.
#[derive(Default)]
struct Shared {
    tree: Mutex<Tree>,
    counts: Counts,
}

/// The beginning of a prompt, out of the cache.
#[derive(Default)]
pub(crate) struct Hit {
    pub(crate) rows: Vec<PageRow>,
    pub(crate) states: Option<Arc<States>>,
    pub(crate) tokens: usize,
    /// Tokens of whole pages that are known, of which states may be missing.
    pub(crate) known: usize,
}

impl Shared {
    fn tree(&self) -> MutexGuard<'_, Tree> {
        locked(&self.tree)
    }
}

impl PrefixCache {
    /// An empty cache for pages of `page_tokens` tokens.
    pub(crate) fn new(limits: CacheLimits, page_tokens: usize, needs: &[LayerNeeds]) -> Self {
        Self {
            limits,
            page_tokens,
            with_states: needs.iter().any(|needs| matches!(needs, LayerNeeds::State(_))),
            scope: OnceLock::new(),
            shared: Arc::default(),
            files: OnceLock::new(),
        }
    }

    /// Whether it keeps anything.
    pub(crate) fn is_on(&self) -> bool {
        self.limits.bytes > 0
    }

    /// Whether the model keeps recurrent states.
    pub(crate) fn with_states(&self) -> bool {
        self.with_states
    }

    /// Where the sequences of a namespace begin. `facts` gives what changes pages' content.
    pub(crate) fn root(&self, facts: impl FnOnce() -> PageKey, namespace: Option<&str>) -> PageKey {
        let scope = *self.scope.get_or_init(facts);
        namespace.map_or(scope, |namespace| scope.of_namespace(namespace))
    }

    /// Opens the folder of its files, where one is named.
    pub(crate) fn open(&self, facts: impl FnOnce() -> PageKey) -> std::io::Result<()> {
        if let Some(folder) = self.limits.folder.as_ref().filter(|_| self.is_on()) {
            let scope = self.root(facts, None);
            let files = Files::open(folder, scope, self.limits.file_bytes, self.with_states, &self.shared)?;
            let _ = self.files.set(files);
        }
        Ok(())
    }

    /// Bytes of RAM that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.shared.tree().bytes
    }

    /// What it holds and has done.
    pub(crate) fn report(&self) -> CacheReport {
        let tree = self.shared.tree();
        self.shared.counts.report(&tree)
    }

    /// Forgets all that is in RAM.
    pub(crate) fn clear(&self) {
        self.drop_where(|_| true);
    }

    /// Returns once its files hold all that was kept so far.
    pub(crate) fn flush(&self) {
        self.files.get().iter().for_each(|files| files.flush());
    }

    /// Shows each page that it keeps.
    pub(crate) fn count(&self, census: &mut Census) {
        let tree = self.shared.tree();
        tree.nodes.values().filter_map(|node| node.page.ram.as_ref()).for_each(|row| row.count(census));
    }

    /// Drops the pages that nobody else holds, with their states; returns how many they were, and their bytes.
    pub(crate) fn forget_unheld(&self) -> (usize, usize) {
        let gone = self.drop_where(PageRow::is_unheld);
        (gone.rows.iter().map(PageRow::len).sum(), gone.bytes)
    }

    /// Drops such pages from RAM, with their states, as far as no others are found through them.
    fn drop_where(&self, may: impl Fn(&PageRow) -> bool) -> Gone {
        let mut gone = Gone::default();
        let mut tree = self.shared.tree();
        // A node is found through its parents, so the last go first.
        let mut keys: Vec<_> = tree.nodes.iter().map(|(key, node)| (node.end, *key)).collect();
        keys.sort_unstable();
        for (_, key) in keys.into_iter().rev() {
            let Some(node) = tree.nodes.get(&key).filter(|node| node.parent.is_some()) else { continue };
            let in_ram = |key| tree.nodes.get(key).is_some_and(|node| node.page.ram.is_some());
            if node.page.ram.as_ref().is_none_or(&may) && !node.children.iter().any(in_ram) {
                tree.drop_state(key, &mut gone);
                tree.drop_page(key, &mut gone);
            }
        }
        drop(tree);
        self.remove_files(&gone);
        gone
    }

    /// Drops at least `bytes` of RAM, where there are as many.
    pub(crate) fn give_up(&self, bytes: usize) {
        let mut gone = Gone::default();
        let mut tree = self.shared.tree();
        let max_bytes = tree.bytes.saturating_sub(bytes);
        let n = tree.shrink(Store::Ram, max_bytes as u64, self.with_states, &mut gone);
        drop(tree);
        self.shared.counts.evicted(n, gone.bytes);
        self.remove_files(&gone);
    }

    fn remove_files(&self, gone: &Gone) {
        if let Some(files) = self.files.get().filter(|_| !gone.files.is_empty()) {
            files.send(Job::Remove(gone.files.clone()));
        }
    }

    /// The longest beginning of `ids` that is there, with everything a sequence needs to go on from it. At most `room` bytes
    /// are read from files.
    pub(crate) fn find(
        &self,
        root: PageKey,
        ids: &[u32],
        needs: &[LayerNeeds],
        ledger: &Arc<Ledger>,
        room: usize,
    ) -> Hit {
        self.shared.counts.asked(ids.len());
        loop {
            let mut tree = self.shared.tree();
            let found = tree.find(root, ids, self.page_tokens, self.with_states);
            tree.touch(&found.path);
            let mut rows = Vec::with_capacity(found.path.len());
            let mut missing = Vec::new();
            for (index, key) in found.path.iter().enumerate() {
                let node = &tree.nodes[key];
                rows.push(node.page.ram.clone().unwrap_or_default());
                if node.page.ram.is_none() {
                    missing.push((index, *key));
                }
            }
            let last = found.path.last().filter(|_| self.with_states);
            let states = last.and_then(|key| tree.nodes[key].state.ram.clone());
            let from_file = last.copied().filter(|_| states.is_none());
            let pages = missing.iter().map(|(_, key)| tree.nodes[key].page.disk);
            let of_states = from_file.map(|key| tree.nodes[&key].state.disk);
            let is_pending = pages.chain(of_states).any(|disk| disk == OnDisk::Pending);
            drop(tree);
            // Waiting for the disk is sooner done than computing.
            if let Some(files) = self.files.get().filter(|_| is_pending) {
                files.flush();
            }
            let hit = Hit { rows, states, tokens: found.tokens, known: found.known };
            let read = self.read(hit, &missing, from_file, (needs, ledger), room);
            // What can't be read is forgotten, so that the next look ends sooner.
            if let Some(hit) = read {
                self.shared.counts.hit(&hit, &missing, &found, self.page_tokens);
                return hit;
            }
        }
    }

    /// Fills in what only files have. `None` where one of them has it no more: it is then forgotten.
    fn read(
        &self,
        mut hit: Hit,
        missing: &[(usize, PageKey)],
        state: Option<PageKey>,
        (needs, ledger): (&[LayerNeeds], &Arc<Ledger>),
        mut room: usize,
    ) -> Option<Hit> {
        if missing.is_empty() && state.is_none() {
            return Some(hit);
        }
        let Some(files) = self.files.get() else {
            return Some(Hit { known: hit.known, ..Hit::default() });
        };
        let mut read_rows = Vec::new();
        let mut lost = None;
        for (index, key) in missing {
            match files.read_page(*key, needs, ledger) {
                Some(row) if row.bytes() <= room => {
                    room -= row.bytes();
                    hit.rows[*index] = row.clone();
                    read_rows.push((*key, row));
                }
                Some(_) => return Some(Hit { known: hit.known, ..Hit::default() }),
                None => {
                    lost = Some((*key, false));
                    break;
                }
            }
        }
        if let Some(key) = state.filter(|_| lost.is_none()) {
            match files.read_states(key, needs, ledger) {
                Some(states) => hit.states = Some(Arc::new(states)),
                None => lost = Some((key, true)),
            }
        }
        let mut gone = Gone::default();
        let mut tree = self.shared.tree();
        for (key, row) in read_rows {
            if tree.nodes.get(&key).is_some_and(|node| node.page.ram.is_none()) {
                tree.set_page(key, row);
            }
        }
        if let (Some(key), Some(states)) = (state, &hit.states) {
            tree.set_state(key, Arc::clone(states));
        }
        if let Some((key, is_state)) = lost {
            tree.lose(key, is_state, &mut gone);
        }
        let n = tree.shrink(Store::Ram, self.limits.bytes as u64, self.with_states, &mut gone);
        drop(tree);
        self.shared.counts.evicted(n, gone.bytes);
        self.remove_files(&gone);
        lost.is_none().then_some(hit)
    }

    /// Keeps what a sequence has computed: the whole pages of `ids`, its tokens, and with `tail` those of the last page too. `states`
    /// are those after the last of these.
    pub(crate) fn keep(
        &self,
        root: PageKey,
        ids: &[u32],
        memory: &SequenceMemory,
        tail: bool,
        states: Option<Arc<States>>,
    ) {
        let mut gone = Gone::default();
        let mut tree = self.shared.tree();
        let mut path = Vec::new();
        let mut here = root;
        for (index, tokens) in ids.chunks(self.page_tokens).enumerate() {
            let is_whole = tokens.len() == self.page_tokens;
            if !is_whole && !(tail && (states.is_some() || !self.with_states)) {
                break;
            }
            // States belong to just these tokens; pages are found by any longer beginning too.
            if !is_whole && !self.with_states && tree.has_longer(here, tokens) {
                break;
            }
            let key = tree.child(here, tokens);
            if tree.nodes[&key].tokens[..] != *tokens || !self.keep_page(&mut tree, key, index, memory) {
                tree.remove_if_empty(key, &mut gone);
                break;
            }
            if is_whole && !self.with_states {
                tree.drop_shorter(here, key, &mut gone);
            }
            path.push(key);
            here = key;
        }
        tree.touch(&path);
        let ends = tree.nodes.get(&here).is_some_and(|node| node.end == ids.len() && node.parent.is_some());
        if let Some(states) = states.filter(|_| ends) {
            tree.set_state(here, states);
        }
        let jobs = if self.files.get().is_some() { tree.unwritten(&path) } else { Vec::new() };
        let n = tree.shrink(Store::Ram, self.limits.bytes as u64, self.with_states, &mut gone);
        drop(tree);
        self.shared.counts.evicted(n, gone.bytes);
        self.remove_files(&gone);
        // Where the disk doesn't keep up, this waits for it.
        if let Some(files) = self.files.get() {
            jobs.into_iter().for_each(|job| files.send(job));
        }
    }

    /// Whether states after the first `tokens` of `ids` are kept.
    pub(crate) fn has_states(&self, root: PageKey, ids: &[u32]) -> bool {
        let mut key = root;
        ids.chunks(self.page_tokens).for_each(|tokens| key = key.child(tokens));
        self.shared.tree().nodes.get(&key).is_some_and(|node| node.state.exists())
    }

    /// Puts a page of a sequence into RAM, in the forms that it lacks there; `false` where the sequence has none.
    fn keep_page(&self, tree: &mut Tree, key: PageKey, index: usize, memory: &SequenceMemory) -> bool {
        let lacks = match &tree.nodes[&key].page.ram {
            Some(row) => row.lacks(index, memory),
            None => true,
        };
        if !lacks {
            return true;
        }
        let Some(mut row) = memory.page_row(index) else { return false };
        if let Some(kept) = &tree.nodes[&key].page.ram {
            let mut both = kept.clone();
            both.add(row);
            row = both;
        }
        tree.set_page(key, row);
        true
    }
}

#[cfg(test)]
mod tests;
