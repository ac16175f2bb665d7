//! What the cache holds and has done.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::Hit;
use super::key::PageKey;
use super::tree::{Found, Tree};

/// What the prefix cache holds and has done since the engine was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CacheReport {
    /// Bytes of RAM. What a sequence holds too counts whole.
    pub bytes: u64,
    /// Bytes of files.
    pub file_bytes: u64,
    /// Pages that it knows, over all layers together.
    pub pages: u64,
    /// Tokens after which it has the recurrent states.
    pub states: u64,
    /// Tokens of prompts that were looked up.
    pub asked_tokens: u64,
    /// Those of them that were found in RAM as attention wrote them.
    pub active_tokens: u64,
    /// Those that were found in RAM in a tier below.
    pub compressed_tokens: u64,
    /// Those that were read from files.
    pub archived_tokens: u64,
    /// Parts (pages, forms of pages, and states) that left RAM for want of room.
    pub evicted: u64,
    /// Their bytes.
    pub evicted_bytes: u64,
    /// Files that were removed for want of room.
    pub evicted_files: u64,
    /// Files that were damaged, and so were misses.
    pub damaged_files: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    asked: AtomicU64,
    /// Active, compressed, archived.
    found: [AtomicU64; 3],
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    evicted_files: AtomicU64,
    damaged: AtomicU64,
}

impl Counts {
    pub(super) fn asked(&self, tokens: usize) {
        self.asked.fetch_add(tokens as u64, Ordering::Relaxed);
    }

    /// Counts a hit's tokens by where they were.
    pub(super) fn hit(&self, hit: &Hit, read: &[(usize, PageKey)], found: &Found, page_tokens: usize) {
        let mut read = read.iter().map(|(index, _)| *index).peekable();
        for (index, row) in hit.rows.iter().enumerate() {
            let tokens = (found.tokens - index * page_tokens).min(page_tokens);
            let tier = match read.next_if_eq(&index) {
                Some(_) => 2,
                None => usize::from(row.0.iter().any(|page| page.exact.is_none())),
            };
            self.found[tier].fetch_add(tokens as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn evicted(&self, parts: u64, bytes: usize) {
        if parts > 0 {
            self.evicted.fetch_add(parts, Ordering::Relaxed);
            self.evicted_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    pub(super) fn evicted_files(&self, files: u64) {
        self.evicted_files.fetch_add(files, Ordering::Relaxed);
    }

    pub(super) fn damaged(&self) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn report(&self, tree: &Tree) -> CacheReport {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CacheReport {
            bytes: tree.bytes as u64,
            file_bytes: tree.file_bytes,
            pages: tree.nodes.values().filter(|node| node.page.exists()).count() as u64,
            states: tree.nodes.values().filter(|node| node.state.exists()).count() as u64,
            asked_tokens: of(&self.asked),
            active_tokens: of(&self.found[0]),
            compressed_tokens: of(&self.found[1]),
            archived_tokens: of(&self.found[2]),
            evicted: of(&self.evicted),
            evicted_bytes: of(&self.evicted_bytes),
            evicted_files: of(&self.evicted_files),
            damaged_files: of(&self.damaged),
        }
    }
}
