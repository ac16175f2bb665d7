//! Which pages the sequences of an engine hold, and giving back what nobody needs.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use herald_api::import::PageHandle;

use super::{NeuroEngine, Sequence};
use crate::kv_cache::{Census, Seen};

/// Pages that several sequences could share: by a hash of the tokens up to their end, the layer, and the index.
#[derive(Default)]
pub(crate) struct SharedPages(HashMap<(u64, usize, usize), Arc<PageHandle>>);

impl NeuroEngine {
    /// How many sequences are open, whoever owns them.
    #[must_use]
    pub fn open_sequences(&self) -> u64 {
        self.memory.ledger.sequences()
    }

    /// Forgets the pages of earlier prompts that no sequence holds; returns how many they were, and their bytes.
    pub fn forget_unheld_prefixes(&self) -> (u64, u64) {
        let (pages, bytes) = self.memory.prefixes.forget_unheld();
        (pages as u64, bytes as u64)
    }

    /// How many different pages these sequences and the earlier prompts that are kept hold.
    pub(crate) fn reachable<'s>(&self, sequences: impl Iterator<Item = &'s Sequence>) -> Seen {
        let mut census = Census::default();
        sequences.for_each(|sequence| sequence.memory.count(&mut census));
        self.memory.prefixes.count(&mut census);
        census.count()
    }
}

impl Sequence {
    /// Gives back the room that was reserved and not used.
    pub(crate) fn give_back_room(&mut self) {
        self.memory.give_back_room(self.tokens.len());
    }

    /// Shares whole pages with the sequences that were merged with `shared` before, where the pages are equal to the byte.
    /// Returns how many pages that freed, and their bytes.
    pub(crate) fn merge(&mut self, shared: &mut SharedPages, page_tokens: usize) -> (u64, u64) {
        let mut hasher = DefaultHasher::new();
        let hashes: Vec<u64> = self
            .tokens
            .chunks_exact(page_tokens)
            .map(|tokens| {
                tokens.hash(&mut hasher);
                hasher.finish()
            })
            .collect();
        self.memory.merge(self.tokens.len(), &mut |layer, index, page| {
            let key = (*hashes.get(index)?, layer, index);
            let other = shared.0.entry(key).or_insert_with(|| Arc::clone(page));
            let equal = other.format() == page.format() && other.bytes() == page.bytes();
            equal.then(|| Arc::clone(other))
        })
    }
}
