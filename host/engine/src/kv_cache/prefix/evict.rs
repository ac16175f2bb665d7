//! What the cache gives up first: what costs least to compute again for each byte, and was not used for long.
//!
//! Greedy-Dual-Size (Cao and Irani, USENIX 1997): a part is worth the level at which it was last used plus its cost for each
//! byte; the least of these goes, and the level rises to it. A page costs the tokens that it holds; states cost the tokens since
//! the states before them, so that what is left of them gets thinner evenly, and more so the longer ago they were used. What
//! a file has too costs a fraction of that. A page goes after those that are found through it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::key::PageKey;
use super::tree::{Gone, Node, OnDisk, Tree};

/// How many times cheaper it is to read a part from a file than to compute it.
const READ: f64 = 16.0;

/// The part of a page's worth that its exact form is where another form stays.
const SPARE: f64 = 1.0 / 16.0;

/// Where parts are to go from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Ram,
    Disk,
}

/// What can go by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Spare,
    State,
    Page,
}

impl Node {
    /// Bytes that a store has of its page and of its states; `None`: it has no such part.
    fn held(&self, store: Store) -> [Option<u64>; 2] {
        let stored = |disk| if let OnDisk::Stored(bytes) = disk { Some(bytes) } else { None };
        match store {
            Store::Ram => [
                self.page.ram.as_ref().map(|_| self.page.bytes as u64),
                self.state.ram.as_ref().map(|_| self.state.bytes as u64),
            ],
            Store::Disk => [stored(self.page.disk), stored(self.state.disk)],
        }
    }
}

impl Tree {
    /// Drops parts until the store has at most `max_bytes`, or nothing is left in it. Returns how many went.
    pub(super) fn shrink(&mut self, store: Store, max_bytes: u64, with_states: bool, gone: &mut Gone) -> u64 {
        let mut n_gone = 0;
        if self.held_bytes(store) <= max_bytes {
            return n_gone;
        }
        let mut heap = BinaryHeap::new();
        for key in self.nodes.keys() {
            self.offer(*key, store, with_states, &mut heap);
        }
        while self.held_bytes(store) > max_bytes
            && let Some(Reverse((worth, what, key))) = heap.pop()
        {
            // What was worth less when it was offered may be worth more now that others are gone.
            match self.worth(key, what, store, with_states) {
                None => continue,
                Some(now) if now > worth => {
                    heap.push(Reverse((now, what, key)));
                    continue;
                }
                Some(_) => {}
            }
            self.level = self.level.max(f64::from_bits(worth));
            let parent = self.nodes.get(&key).and_then(|node| node.parent);
            match (what, store) {
                (What::Spare, _) => self.drop_spare(key, gone),
                (What::State, Store::Ram) => self.drop_state(key, gone),
                (What::Page, Store::Ram) => self.drop_page(key, gone),
                (_, Store::Disk) => self.drop_file(key, what == What::State, gone),
            }
            n_gone += 1;
            self.offer(key, store, with_states, &mut heap);
            parent.into_iter().for_each(|parent| self.offer(parent, store, with_states, &mut heap));
        }
        n_gone
    }

    fn held_bytes(&self, store: Store) -> u64 {
        match store {
            Store::Ram => self.bytes as u64,
            Store::Disk => self.file_bytes,
        }
    }

    /// Puts what could go of a node into the heap.
    fn offer(
        &self,
        key: PageKey,
        store: Store,
        with_states: bool,
        heap: &mut BinaryHeap<Reverse<(u64, What, PageKey)>>,
    ) {
        for what in [What::Spare, What::State, What::Page] {
            if let Some(worth) = self.worth(key, what, store, with_states) {
                heap.push(Reverse((worth, what, key)));
            }
        }
    }

    /// What a part is worth, as the bits of a number that isn't negative, which sort like it; `None` where it can't go (yet).
    fn worth(&self, key: PageKey, what: What, store: Store, with_states: bool) -> Option<u64> {
        let node = self.nodes.get(&key)?;
        let [page, state] = node.held(store);
        let tokens = node.tokens.len() as f64;
        let (part, bytes, cost) = match what {
            What::Spare if store == Store::Ram => {
                let spare = node.page.ram.as_ref()?.spare_bytes();
                (&node.page.level, Some(spare as u64).filter(|bytes| *bytes > 0)?, tokens * SPARE)
            }
            What::Spare => return None,
            What::State => (&node.state.level, state?, (node.end - self.state_before(node)) as f64),
            What::Page => {
                node.parent?;
                let holds = |key| self.nodes.get(key).is_some_and(|node| node.held(store) != [None, None]);
                if state.is_some() || node.children.iter().any(holds) {
                    return None;
                }
                // Pages of a model with states are of no use without any.
                (&node.page.level, page?, if with_states { 0.0 } else { tokens })
            }
        };
        let is_stored = match what {
            What::State => node.state.disk,
            _ => node.page.disk,
        };
        let read = store == Store::Ram && matches!(is_stored, OnDisk::Stored(_));
        let cost = if read { cost / READ } else { cost };
        Some((part + cost / bytes.max(1) as f64).to_bits())
    }

    /// The end of the last node before `node` that has states anywhere; 0 where none has.
    fn state_before(&self, node: &Node) -> usize {
        let mut parent = node.parent;
        while let Some(node) = parent.and_then(|key| self.nodes.get(&key)) {
            if node.state.exists() {
                return node.end;
            }
            parent = node.parent;
        }
        0
    }
}
