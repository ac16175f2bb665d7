//! The prefix cache: pages of earlier prompts, so that the beginning of a prompt that one of them had is not computed again.
//!
//! A node is a page's tokens after those of its parent, with that page of every layer. Nodes are found by a hash of their own
//! tokens and all before them; the tokens are compared too, so equal hashes do no harm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::threads::locked;
use herald_api::import::PageHandle;

/// A page of every layer that keeps pages, in the layers' order.
pub(crate) type PageRow = Vec<Arc<PageHandle>>;

/// Pages of earlier prompts, at most `max_bytes` of them. The least recently used are dropped first.
pub(crate) struct PrefixCache {
    max_bytes: usize,
    hasher: RandomState,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    nodes: HashMap<u64, Node>,
    bytes: usize,
    clock: u64,
}

struct Node {
    /// The node before; `None` at the beginning of a sequence.
    parent: Option<u64>,
    tokens: Box<[u32]>,
    pages: PageRow,
    bytes: usize,
    /// When it was last used.
    used: u64,
    /// How many nodes have it as their parent. It stays while it has any, since they are found through it.
    children: usize,
}

impl PrefixCache {
    /// An empty cache of at most `max_bytes` of pages; 0: it keeps none.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, hasher: RandomState::new(), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        locked(&self.kept)
    }

    /// Bytes that it keeps.
    pub(crate) fn bytes(&self) -> usize {
        self.kept().bytes
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        // Pages are freed after the lock is released.
        let nodes = {
            let mut kept = self.kept();
            kept.bytes = 0;
            std::mem::take(&mut kept.nodes)
        };
        drop(nodes);
    }

    /// Shows each page that it keeps.
    pub(crate) fn each_page(&self, each: &mut dyn FnMut(&Arc<PageHandle>)) {
        self.kept().nodes.values().flat_map(|node| &node.pages).for_each(each);
    }

    /// Drops the pages that nobody else holds; returns how many they were, and their bytes.
    pub(crate) fn forget_unheld(&self) -> (usize, usize) {
        let mut gone = Vec::new();
        let mut kept = self.kept();
        // A node is found through its parents, so those without children go first.
        loop {
            let unheld = |node: &Node| {
                node.children == 0 && node.pages.iter().all(|page| Arc::strong_count(page) == 1)
            };
            let keys: Vec<u64> =
                kept.nodes.iter().filter(|(_, node)| unheld(node)).map(|(key, _)| *key).collect();
            if keys.is_empty() {
                break;
            }
            gone.extend(keys.into_iter().filter_map(|key| kept.remove(key)));
        }
        drop(kept);
        (gone.iter().map(|node| node.pages.len()).sum(), gone.iter().map(|node| node.bytes).sum())
    }

    /// Drops the least recently used pages, at least `bytes` of them where there are as many.
    pub(crate) fn give_up(&self, bytes: usize) {
        let mut gone = Vec::new();
        let mut kept = self.kept();
        let max_bytes = kept.bytes.saturating_sub(bytes);
        kept.shrink_to(max_bytes, 0, &mut gone);
        drop(kept);
        drop(gone);
    }

    /// The cached pages of the beginning of `ids`, each of `page_tokens` tokens, one row after another.
    pub(crate) fn find(&self, ids: &[u32], page_tokens: usize) -> Vec<PageRow> {
        let mut kept = self.kept();
        kept.clock += 1;
        let clock = kept.clock;
        let (mut rows, mut parent) = (Vec::new(), None);
        for tokens in ids.chunks_exact(page_tokens) {
            let key = self.hasher.hash_one((parent, tokens));
            let Some(node) = kept.nodes.get_mut(&key) else { break };
            if node.parent != parent || *node.tokens != *tokens {
                break;
            }
            node.used = clock;
            rows.push(node.pages.clone());
            parent = Some(key);
        }
        rows
    }

    /// Keeps the pages of the beginning of `ids`. `row` gives the pages of the `n`-th run of tokens and their bytes, or `None`
    /// where they can't be shared: the rest is then not kept.
    pub(crate) fn keep(
        &self,
        ids: &[u32],
        page_tokens: usize,
        mut row: impl FnMut(usize) -> Option<(PageRow, usize)>,
    ) {
        if self.max_bytes == 0 {
            return;
        }
        let mut gone = Vec::new();
        let mut kept = self.kept();
        kept.clock += 1;
        let clock = kept.clock;
        let mut parent = None;
        for (index, tokens) in ids.chunks_exact(page_tokens).enumerate() {
            let key = self.hasher.hash_one((parent, tokens));
            match kept.nodes.entry(key) {
                Entry::Occupied(mut entry) => {
                    let node = entry.get_mut();
                    if node.parent != parent || *node.tokens != *tokens {
                        break;
                    }
                    node.used = clock;
                }
                Entry::Vacant(entry) => {
                    let Some((pages, bytes)) = row(index) else { break };
                    entry.insert(Node {
                        parent,
                        tokens: tokens.into(),
                        pages,
                        bytes,
                        used: clock,
                        children: 0,
                    });
                    kept.bytes += bytes;
                    if let Some(parent) = parent.and_then(|parent| kept.nodes.get_mut(&parent)) {
                        parent.children += 1;
                    }
                    // This prompt's own nodes were just used. Where one of them had to go, the rest would not fit either.
                    if !kept.shrink_to(self.max_bytes, clock, &mut gone) {
                        break;
                    }
                }
            }
            parent = Some(key);
        }
        drop(kept);
        drop(gone);
    }
}

impl Kept {
    fn remove(&mut self, key: u64) -> Option<Node> {
        let node = self.nodes.remove(&key)?;
        if let Some(parent) = node.parent.and_then(|parent| self.nodes.get_mut(&parent)) {
            parent.children -= 1;
        }
        self.bytes -= node.bytes;
        Some(node)
    }

    /// Drops the least recently used nodes until at most `max_bytes` are left; `false` where that took one that was used at
    /// `now`.
    fn shrink_to(&mut self, max_bytes: usize, now: u64, gone: &mut Vec<Node>) -> bool {
        let mut older = true;
        while self.bytes > max_bytes {
            let leaves = self.nodes.iter().filter(|(_, node)| node.children == 0);
            let Some(oldest) = leaves.min_by_key(|(_, node)| node.used).map(|(key, _)| *key) else { break };
            let Some(node) = self.remove(oldest) else { break };
            older &= node.used != now;
            gone.push(node);
        }
        older
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(cache: &PrefixCache, ids: &[u32]) {
        cache.keep(ids, 2, |_| Some((Vec::new(), 10)));
    }

    #[test]
    fn finds_the_longest_beginning_in_whole_pages() {
        let cache = PrefixCache::new(1000);
        keep(&cache, &[1, 2, 3, 4, 5]);
        assert_eq!(cache.find(&[1, 2, 3, 4, 5, 6], 2).len(), 2);
        assert_eq!(cache.find(&[1, 2, 3, 9], 2).len(), 1);
        assert_eq!(cache.find(&[3, 4], 2).len(), 0, "the same tokens at another place");
        assert_eq!(cache.find(&[1], 2).len(), 0);
        assert_eq!(cache.bytes(), 20);
    }

    #[test]
    fn the_least_recently_used_go_first_and_from_the_end() {
        let cache = PrefixCache::new(40);
        keep(&cache, &[1, 2, 3, 4]);
        keep(&cache, &[5, 6, 7, 8]);
        cache.find(&[1, 2, 3, 4], 2);
        keep(&cache, &[9, 9]);
        assert_eq!(cache.bytes(), 40);
        assert_eq!(cache.find(&[5, 6, 7, 8], 2).len(), 1, "its end went");
        assert_eq!(cache.find(&[1, 2, 3, 4], 2).len(), 2);
        cache.clear();
        assert_eq!((cache.bytes(), cache.find(&[1, 2], 2).len()), (0, 0));
    }

    #[test]
    fn what_nobody_holds_is_forgotten_from_the_end() {
        let cache = PrefixCache::new(1000);
        keep(&cache, &[1, 2, 3, 4, 5, 6]);
        keep(&cache, &[1, 2, 7, 8]);
        assert_eq!(cache.forget_unheld(), (0, 40), "nodes without pages are held by nobody");
        assert_eq!((cache.bytes(), cache.find(&[1, 2], 2).len()), (0, 0));
    }

    #[test]
    fn no_more_than_the_bound_is_kept() {
        let cache = PrefixCache::new(25);
        keep(&cache, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(cache.bytes(), 20);
        assert_eq!(cache.find(&[1, 2, 3, 4, 5, 6, 7, 8], 2).len(), 2);
        let off = PrefixCache::new(0);
        keep(&off, &[1, 2]);
        assert_eq!(off.bytes(), 0);
    }
}
