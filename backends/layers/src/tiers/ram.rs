//! Memory tiers in RAM: pages as attention writes them (active), and as 4-bit codes (compressed).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use herald_api::{
    AlignedBytes, Error, Found, MemoryTier, Page, RawPage, Result, Status, TierConfig, TierKind, TierStats,
    abi,
};

use super::codes::Codes;
use super::{best, not_found, overflows};

pub(super) struct RamTier {
    config: TierConfig,
    /// How pages become 4-bit codes; `None` in the active tier.
    codes: Option<Codes>,
    key_bytes: usize,
    value_bytes: usize,
    pages: Mutex<Pages>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
struct Pages {
    by_id: HashMap<u64, Kept>,
    /// Tokens of all.
    tokens: u64,
}

/// A page: keys, then values at the next aligned place.
struct Kept {
    bytes: AlignedBytes,
    n_tokens: usize,
}

impl RamTier {
    pub(super) fn new(config: &TierConfig) -> Result<Self> {
        let codes = match config.kind {
            TierKind::Compressed => Some(Codes::new(config)?),
            _ => None,
        };
        let (key_bytes, value_bytes) = match &codes {
            Some(codes) => (codes.key_bytes, codes.value_bytes),
            None => config
                .page_bytes()
                .filter(|(keys, values)| keys.checked_add(*values).is_some())
                .ok_or_else(|| overflows(config))?,
        };
        Ok(Self {
            config: config.clone(),
            codes,
            key_bytes,
            value_bytes,
            pages: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Nothing that holds the lock leaves the map half-changed, so a panic elsewhere does it no harm.
        self.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn value_start(&self) -> usize {
        self.key_bytes.next_multiple_of(AlignedBytes::ALIGN)
    }

    fn page_bytes(&self) -> usize {
        self.value_start() + self.value_bytes
    }

    fn found<T>(&self, id: u64, found: Option<T>) -> Result<T> {
        let count = if found.is_some() { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
        found.ok_or_else(|| not_found(id))
    }

    fn format(&self) -> u32 {
        match self.config.kind {
            TierKind::Compressed => abi::HERALD_PAGE_Q4,
            _ if self.config.state_bytes > 0 => abi::HERALD_PAGE_OPAQUE,
            _ => abi::HERALD_PAGE_I16,
        }
    }

    /// The greatest product of a query with a page's keys, over heads and tokens.
    fn score(&self, page: &Kept, queries: &[f32]) -> f32 {
        if let Some(codes) = &self.codes {
            return codes.score(&page.bytes, page.n_tokens, queries);
        }
        let TierConfig { n_kv_heads, key_dim, page_tokens, .. } = self.config;
        let slots = n_kv_heads * page_tokens;
        let (scales, codes) = page.bytes[..self.key_bytes].split_at(slots * size_of::<f32>());
        let (scales, codes): (&[f32], &[i16]) = (bytemuck::cast_slice(scales), bytemuck::cast_slice(codes));
        let mut best = f32::NEG_INFINITY;
        for (slot, (scale, codes)) in scales.iter().zip(codes.chunks_exact(key_dim)).enumerate() {
            let (head, index) = (slot / page_tokens, slot % page_tokens);
            if index >= page.n_tokens {
                continue;
            }
            for query in queries.chunks_exact(n_kv_heads * key_dim) {
                let query = &query[head * key_dim..(head + 1) * key_dim];
                let product: f32 = query.iter().zip(codes).map(|(q, code)| q * f32::from(*code)).sum();
                best = best.max(product * scale);
            }
        }
        best
    }
}

impl MemoryTier for RamTier {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        if page.is_none() && self.codes.is_some() {
            return Err(Error::unsupported("a compressed memory tier has no empty pages to be written"));
        }
        let mut bytes = AlignedBytes::zeroed(self.page_bytes())?;
        let mut n_tokens = 0;
        if let Some(page) = page {
            if page.n_tokens() > self.config.page_tokens {
                return Err(Error::invalid(format!(
                    "page {id} holds {} tokens, where at most {} have room",
                    page.n_tokens(),
                    self.config.page_tokens
                )));
            }
            match &self.codes {
                Some(codes) => codes.fill(page, &mut bytes),
                None => {
                    bytes[..self.key_bytes].copy_from_slice(page.key_bytes());
                    let start = self.value_start();
                    bytes[start..].copy_from_slice(page.value_bytes());
                }
            }
            n_tokens = page.n_tokens();
        }
        let mut pages = self.pages();
        if pages.by_id.contains_key(&id) {
            return Err(Error::invalid(format!(
                "the memory tier holds a page {id} already, where a new id was expected"
            )));
        }
        let held = (pages.by_id.len() as u64 + 1).saturating_mul(self.page_bytes() as u64);
        if let Some(capacity) = self.config.capacity_bytes.filter(|capacity| held > *capacity) {
            return Err(Error::new(
                Status::OutOfMemory,
                format!("the memory tier is full: page {id} would make {held} bytes of at most {capacity}"),
            ));
        }
        pages.tokens += n_tokens as u64;
        pages.by_id.insert(id, Kept { bytes, n_tokens });
        Ok(())
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        let pages = self.pages();
        let page = self.found(id, pages.by_id.get(&id))?;
        if let Some(codes) = &self.codes {
            codes.decode(&page.bytes, page.n_tokens, keys, values);
            return Ok(page.n_tokens);
        }
        keys.copy_from_slice(&page.bytes[..self.key_bytes]);
        values.copy_from_slice(&page.bytes[self.value_start()..]);
        Ok(page.n_tokens)
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        let pages = self.pages();
        let page = self.found(id, pages.by_id.get(&id))?;
        let keys = page.bytes.as_ptr();
        let values = match self.value_bytes {
            0 => std::ptr::null_mut(),
            _ => keys.wrapping_add(self.value_start()),
        };
        // SAFETY: the page's bytes are allocated for it alone, as long as it is in the map, and hold keys and values.
        Ok(unsafe {
            RawPage::new(page.n_tokens, self.format(), (keys, self.key_bytes), (values, self.value_bytes))
        })
    }

    fn release(&self, id: u64) -> Result<()> {
        // Pages stay where they are, viewed or not.
        if self.pages().by_id.contains_key(&id) { Ok(()) } else { Err(not_found(id)) }
    }

    fn list(&self) -> Result<Vec<u64>> {
        Ok(self.pages().by_id.keys().copied().collect())
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        let mut pages = self.pages();
        let page = pages.by_id.get_mut(&id).ok_or_else(|| not_found(id))?;
        let before = std::mem::replace(&mut page.n_tokens, n_tokens);
        pages.tokens = pages.tokens - before as u64 + n_tokens as u64;
        Ok(())
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        // Freed after the lock is given back.
        let page = {
            let mut pages = self.pages();
            let page = pages.by_id.remove(&id).ok_or_else(|| not_found(id))?;
            pages.tokens -= page.n_tokens as u64;
            page
        };
        drop(page);
        Ok(())
    }

    fn stats(&self) -> TierStats {
        let pages = self.pages();
        TierStats {
            pages: pages.by_id.len() as u64,
            tokens: pages.tokens,
            bytes: pages.by_id.len() as u64 * self.page_bytes() as u64,
            memory_bytes: pages.by_id.len() as u64 * self.page_bytes() as u64,
            damaged: 0,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        if self.config.state_bytes > 0 {
            return Err(Error::invalid("the memory tier keeps recurrent states, where a search needs keys"));
        }
        let pages = self.pages();
        let found = ids
            .iter()
            .map(|id| {
                pages
                    .by_id
                    .get(id)
                    .map(|page| Found { id: *id, score: self.score(page, query) })
                    .ok_or_else(|| not_found(*id))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(best(found, k))
    }
}
