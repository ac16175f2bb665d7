//! The cache's tree: a node is a page's tokens after those of its parent, with what all layers keep of them.
//!
//! A node of fewer tokens than a page has is the end of a sequence. It has no children.

use std::collections::HashMap;
use std::sync::Arc;

use super::disk::Job;
use super::key::PageKey;
use super::row::{PageRow, States};

/// Where a part of a node lies on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// Nowhere.
    #[default]
    No,
    /// It waits to be written.
    Pending,
    /// In a file of this many bytes.
    Stored(u64),
}

/// A part of a node, in RAM, on disk, or in both.
pub(super) struct Part<T> {
    pub(super) ram: Option<T>,
    /// Bytes of RAM.
    pub(super) bytes: usize,
    pub(super) disk: OnDisk,
    /// The level of [`super::evict`] when it was last used.
    pub(super) level: f64,
}

impl<T> Default for Part<T> {
    fn default() -> Self {
        Self { ram: None, bytes: 0, disk: OnDisk::No, level: 0.0 }
    }
}

impl<T> Part<T> {
    /// Whether it is anywhere.
    pub(super) fn exists(&self) -> bool {
        self.ram.is_some() || self.disk != OnDisk::No
    }
}

/// A page of tokens.
#[derive(Default)]
pub(super) struct Node {
    /// The node before; `None` where sequences begin.
    pub(super) parent: Option<PageKey>,
    pub(super) tokens: Box<[u32]>,
    /// Tokens up to its end.
    pub(super) end: usize,
    pub(super) children: Vec<PageKey>,
    pub(super) page: Part<PageRow>,
    /// The recurrent states after its last token.
    pub(super) state: Part<Arc<States>>,
}

/// All nodes.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) nodes: HashMap<PageKey, Node>,
    /// Bytes of RAM.
    pub(super) bytes: usize,
    /// Bytes of files.
    pub(super) file_bytes: u64,
    /// Rises as parts are evicted, so that those that were used long ago go first.
    pub(super) level: f64,
}

/// What was taken out of the tree. It is freed once the lock is released.
#[derive(Default)]
pub(super) struct Gone {
    pub(super) rows: Vec<PageRow>,
    pub(super) states: Vec<Arc<States>>,
    /// Files that are to be removed: of a page, or of states.
    pub(super) files: Vec<(PageKey, bool)>,
    /// Bytes of RAM.
    pub(super) bytes: usize,
}

/// The beginning of a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Its nodes, the first one first.
    pub(super) path: Vec<PageKey>,
    /// Tokens that can be taken over. Of the last node it may be only a part.
    pub(super) tokens: usize,
    /// Tokens of whole pages that are there, whether or not there are states to go on from.
    pub(super) known: usize,
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Tree {
    /// The longest beginning of `ids` that can be taken over. A model that keeps states goes on only from where there is one.
    pub(super) fn find(&self, root: PageKey, ids: &[u32], page_tokens: usize, with_states: bool) -> Found {
        let (mut best, mut path, mut at) = (Found::default(), Vec::new(), 0);
        let mut here = root;
        while let Some(node) = self.nodes.get(&here) {
            let rest = &ids[at..];
            let next =
                rest.get(..page_tokens).map(|tokens| (here.child(tokens), tokens)).filter(|(key, tokens)| {
                    self.nodes.get(key).is_some_and(|next| next.page.exists() && *next.tokens == **tokens)
                });
            // Where a whole page follows, only states could be a reason to end before its end.
            if next.is_none() || with_states {
                for (key, child) in node.children.iter().filter_map(|key| Some((key, self.nodes.get(key)?))) {
                    let shared = common(&child.tokens, rest);
                    let usable = if with_states {
                        shared == child.tokens.len() && child.state.exists()
                    } else {
                        shared > 0
                    };
                    if usable && child.page.exists() && at + shared > best.tokens {
                        best.tokens = at + shared;
                        best.path = path.iter().copied().chain([*key]).collect();
                    }
                }
            }
            let Some((key, _)) = next else { break };
            at += page_tokens;
            path.push(key);
            here = key;
        }
        if !with_states && at >= best.tokens {
            best = Found { path, tokens: at, known: 0 };
        }
        best.known = at;
        best
    }

    /// Says that these nodes are used now, and the states of the last.
    pub(super) fn touch(&mut self, path: &[PageKey]) {
        let level = self.level;
        for (index, key) in path.iter().enumerate() {
            let Some(node) = self.nodes.get_mut(key) else { continue };
            node.page.level = level;
            if index + 1 == path.len() {
                node.state.level = level;
            }
        }
    }

    /// The node of these tokens after another one, made if it isn't there.
    pub(super) fn child(&mut self, parent: PageKey, tokens: &[u32]) -> PageKey {
        let key = parent.child(tokens);
        if !self.nodes.contains_key(&key) {
            let above = self.nodes.entry(parent).or_default();
            above.children.push(key);
            let end = above.end + tokens.len();
            let node = Node { parent: Some(parent), tokens: tokens.into(), end, ..Node::default() };
            self.nodes.insert(key, node);
        }
        key
    }

    /// Puts a page into RAM.
    pub(super) fn set_page(&mut self, key: PageKey, row: PageRow) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        self.bytes -= node.page.bytes;
        node.page.bytes = row.bytes();
        self.bytes += node.page.bytes;
        node.page.ram = Some(row);
        node.page.level = self.level;
    }

    /// Puts states into RAM.
    pub(super) fn set_state(&mut self, key: PageKey, states: Arc<States>) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        self.bytes -= node.state.bytes;
        node.state.bytes = states.bytes();
        self.bytes += node.state.bytes;
        node.state.ram = Some(states);
        node.state.level = self.level;
    }

    /// Takes a page out of RAM.
    pub(super) fn drop_page(&mut self, key: PageKey, gone: &mut Gone) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        self.bytes -= node.page.bytes;
        gone.bytes += node.page.bytes;
        node.page.bytes = 0;
        gone.rows.extend(node.page.ram.take());
        if !node.page.exists() {
            self.remove(key, gone);
        }
    }

    /// Takes the exact forms of pages that have another one out of RAM.
    pub(super) fn drop_spare(&mut self, key: PageKey, gone: &mut Gone) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        let Some(row) = &mut node.page.ram else { return };
        gone.rows.push(row.take_spare());
        let freed = node.page.bytes - row.bytes();
        node.page.bytes -= freed;
        self.bytes -= freed;
        gone.bytes += freed;
    }

    /// Takes states out of RAM.
    pub(super) fn drop_state(&mut self, key: PageKey, gone: &mut Gone) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        self.bytes -= node.state.bytes;
        gone.bytes += node.state.bytes;
        node.state.bytes = 0;
        gone.states.extend(node.state.ram.take());
    }

    /// Forgets a page's file, or that of its states.
    pub(super) fn drop_file(&mut self, key: PageKey, is_state: bool, gone: &mut Gone) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        let disk = if is_state { &mut node.state.disk } else { &mut node.page.disk };
        if let OnDisk::Stored(bytes) = std::mem::take(disk) {
            self.file_bytes -= bytes;
            gone.files.push((key, is_state));
        }
        if !node.page.exists() {
            self.remove(key, gone);
        }
    }

    /// Removes a node, and all that is found through it.
    pub(super) fn remove(&mut self, key: PageKey, gone: &mut Gone) {
        let mut left = vec![key];
        let above = self.nodes.get(&key).and_then(|node| node.parent);
        if let Some(above) = above.and_then(|above| self.nodes.get_mut(&above)) {
            above.children.retain(|child| *child != key);
        }
        while let Some(key) = left.pop() {
            let Some(node) = self.nodes.remove(&key) else { continue };
            left.extend(node.children);
            let bytes = node.page.bytes + node.state.bytes;
            self.bytes -= bytes;
            gone.bytes += bytes;
            gone.rows.extend(node.page.ram);
            gone.states.extend(node.state.ram);
            for (disk, is_state) in [(node.page.disk, false), (node.state.disk, true)] {
                if let OnDisk::Stored(bytes) = disk {
                    self.file_bytes -= bytes;
                    gone.files.push((key, is_state));
                }
            }
        }
        // A beginning that nothing follows is nothing.
        if let Some(above) = above
            && self.nodes.get(&above).is_some_and(|node| node.parent.is_none() && node.children.is_empty())
        {
            self.nodes.remove(&above);
        }
    }

    /// Removes a node that holds nothing.
    pub(super) fn remove_if_empty(&mut self, key: PageKey, gone: &mut Gone) {
        if self.nodes.get(&key).is_some_and(|node| !node.page.exists()) {
            self.remove(key, gone);
        }
    }

    /// Whether a node after `parent` begins with these tokens.
    pub(super) fn has_longer(&self, parent: PageKey, tokens: &[u32]) -> bool {
        let begins = |key| self.nodes.get(key).is_some_and(|node: &Node| node.tokens.starts_with(tokens));
        self.nodes.get(&parent).is_some_and(|node| node.children.iter().any(begins))
    }

    /// Removes the nodes after `parent` whose tokens `longer` begins with.
    pub(super) fn drop_shorter(&mut self, parent: PageKey, longer: PageKey, gone: &mut Gone) {
        let (Some(above), Some(node)) = (self.nodes.get(&parent), self.nodes.get(&longer)) else { return };
        let is_shorter = |key: &&PageKey| {
            **key != longer && self.nodes.get(key).is_some_and(|other| node.tokens.starts_with(&other.tokens))
        };
        let shorter: Vec<PageKey> = above.children.iter().filter(is_shorter).copied().collect();
        shorter.into_iter().for_each(|key| self.remove(key, gone));
    }

    /// Forgets a part that its file doesn't have.
    pub(super) fn lose(&mut self, key: PageKey, is_state: bool, gone: &mut Gone) {
        let Some(node) = self.nodes.get_mut(&key) else { return };
        let disk = if is_state { &mut node.state.disk } else { &mut node.page.disk };
        if *disk == OnDisk::Pending {
            *disk = OnDisk::No;
        }
        self.drop_file(key, is_state, gone);
    }

    /// What of these nodes is on no disk yet; it then counts as waiting for it.
    pub(super) fn unwritten(&mut self, path: &[PageKey]) -> Vec<Job> {
        let mut jobs = Vec::new();
        for key in path {
            let Some(node) = self.nodes.get_mut(key) else { continue };
            if let (OnDisk::No, Some(row), Some(parent)) = (node.page.disk, &node.page.ram, node.parent) {
                node.page.disk = OnDisk::Pending;
                let (tokens, row) = (node.tokens.clone(), row.clone());
                jobs.push(Job::Page { key: *key, parent, end: node.end, tokens, row });
            }
            if let (OnDisk::No, Some(states)) = (node.state.disk, &node.state.ram) {
                node.state.disk = OnDisk::Pending;
                jobs.push(Job::States { key: *key, states: Arc::clone(states) });
            }
        }
        jobs
    }
}
