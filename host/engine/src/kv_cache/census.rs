//! Which pages sequences hold, and how many different ones these are.

use std::collections::HashSet;
use std::sync::Arc;

use herald_api::import::{PageHandle, StoredPage};

use super::pages::page_bytes;
use super::{LayerMemory, MemoryUsage, SequenceMemory};

/// Given a layer, a page's index and the page, returns one of the same content to hold instead, where there is one.
pub(crate) type Same<'s> = dyn FnMut(usize, usize, &Arc<PageHandle>) -> Option<Arc<PageHandle>> + 's;

/// Pages that were seen, each counted once.
#[derive(Default)]
pub(crate) struct Census {
    seen: HashSet<*const PageHandle>,
    bytes: u64,
    archived: HashSet<*const StoredPage>,
}

/// How many different pages were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// In RAM.
    pub(crate) pages: u64,
    /// Bytes that these take.
    pub(crate) bytes: u64,
    /// In archives.
    pub(crate) archived: u64,
}

impl Census {
    /// Counts a page, unless it was counted before.
    pub(crate) fn see(&mut self, page: &Arc<PageHandle>) {
        if self.seen.insert(Arc::as_ptr(page)) {
            self.bytes += bytes_of(page);
        }
    }

    /// Counts a page of an archive, unless it was counted before.
    pub(crate) fn see_archived(&mut self, page: &Arc<StoredPage>) {
        self.archived.insert(Arc::as_ptr(page));
    }

    pub(crate) fn count(&self) -> Seen {
        Seen { pages: self.seen.len() as u64, bytes: self.bytes, archived: self.archived.len() as u64 }
    }
}

fn bytes_of(page: &PageHandle) -> u64 {
    let (keys, values) = page.bytes();
    page_bytes(Some((keys.len(), values.len())))
}

impl SequenceMemory {
    /// What it holds of `tokens` tokens. Pages that it shares with other sequences count whole, and those in archives by their
    /// size before LZ4.
    pub(crate) fn usage(&self, tokens: usize) -> MemoryUsage {
        let mut usage =
            MemoryUsage { state_bytes: super::state_bytes(&self.layers) as u64, ..MemoryUsage::default() };
        for layer in &self.layers {
            if let LayerMemory::Pages(pages) = layer {
                pages.tally(tokens, &mut usage);
            }
        }
        usage
    }

    /// Shows each page that it holds to `census`.
    pub(crate) fn count(&self, census: &mut Census) {
        for layer in &self.layers {
            if let LayerMemory::Pages(pages) = layer {
                pages.count(census);
            }
        }
    }

    /// Gives back room that was reserved and not used: pages beyond the first `tokens` tokens.
    pub(crate) fn give_back_room(&mut self, tokens: usize) {
        self.pages().for_each(|pages| pages.truncate(tokens));
    }

    /// Offers `same` each whole page in RAM of the first `tokens` tokens. Returns how many pages that freed, and their bytes.
    pub(crate) fn merge(&mut self, tokens: usize, same: &mut Same<'_>) -> (u64, u64) {
        let mut freed = (0, 0);
        for (layer_index, layer) in self.layers.iter_mut().enumerate() {
            let LayerMemory::Pages(pages) = layer else { continue };
            pages.each_whole_page(tokens, &mut |index, page| {
                let Some(same) = same(layer_index, index, page).filter(|same| !Arc::ptr_eq(same, page))
                else {
                    return;
                };
                if Arc::strong_count(page) == 1 {
                    freed = (freed.0 + 1, freed.1 + bytes_of(page));
                }
                *page = same;
            });
        }
        freed
    }
}
