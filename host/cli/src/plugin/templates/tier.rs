//! @NAME@: a HERALD plugin that offers a memory tier: the active one, pages in RAM as attention writes them.
//!
//! To grow it: take pages from an arena instead of the heap, bind them to the node of the processor that reads them, or offer the
//! compressed or the archived tier in `KINDS`, whose pages are 4-bit codes. HERALD's docs/PLUGINS.md has the rules.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use herald_api::{
    AlignedBytes, Error, Found, Hardware, MemoryTier, Page, Probe, RawPage, Result, Status, TierConfig, TierFactory,
    TierKind, TierStats, abi,
};

struct Tiers;

impl TierFactory for Tiers {
    const KINDS: &'static [TierKind] = &[TierKind::Active];

    fn create(config: &TierConfig) -> Result<Box<dyn MemoryTier>> {
        if config.kind != TierKind::Active || config.state_bytes > 0 {
            return Err(Error::unsupported("only the active tier of keys and values is offered"));
        }
        let (key_bytes, value_bytes) =
            config.page_bytes().ok_or_else(|| Error::invalid(format!("a page of {config:?} overflows")))?;
        Ok(Box::new(ActiveTier {
            key_bytes,
            // Keys and values are each aligned.
            value_start: key_bytes.next_multiple_of(AlignedBytes::ALIGN),
            value_bytes,
            config: config.clone(),
            held: Mutex::default(),
        }))
    }
}

struct ActiveTier {
    config: TierConfig,
    key_bytes: usize,
    value_start: usize,
    value_bytes: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    pages: HashMap<u64, Kept>,
    hits: u64,
    misses: u64,
}

/// A page: keys, then values. Its bytes stay where they are until it is dropped.
struct Kept {
    bytes: AlignedBytes,
    n_tokens: usize,
}

impl ActiveTier {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page_bytes(&self) -> usize {
        self.value_start + self.value_bytes
    }
}

impl Held {
    /// A page that `get` or `view` asks for, which is counted.
    fn find(&mut self, id: u64) -> Result<&Kept> {
        match self.pages.get(&id) {
            Some(page) => {
                self.hits += 1;
                Ok(page)
            }
            None => {
                self.misses += 1;
                Err(not_found(id))
            }
        }
    }
}

fn not_found(id: u64) -> Error {
    Error::new(Status::NotFound, format!("the memory tier holds no page {id}"))
}

impl MemoryTier for ActiveTier {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        let mut kept = Kept { bytes: AlignedBytes::zeroed(self.page_bytes())?, n_tokens: 0 };
        if let Some(page) = page {
            let (keys, values) = (page.key_bytes(), page.value_bytes());
            if page.format() != abi::HERALD_PAGE_I16 || (keys.len(), values.len()) != (self.key_bytes, self.value_bytes) {
                return Err(Error::invalid(format!("page {id} has another format or shape than the tier's")));
            }
            kept.bytes[..keys.len()].copy_from_slice(keys);
            kept.bytes[self.value_start..].copy_from_slice(values);
            kept.n_tokens = page.n_tokens();
        }
        let mut held = self.held();
        if held.pages.contains_key(&id) {
            return Err(Error::invalid(format!("there is a page {id} already")));
        }
        let bytes = (held.pages.len() as u64 + 1).saturating_mul(self.page_bytes() as u64);
        if self.config.capacity_bytes.is_some_and(|most| bytes > most) {
            return Err(Error::new(Status::OutOfMemory, "the memory tier is full"));
        }
        held.pages.insert(id, kept);
        Ok(())
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        let mut held = self.held();
        let page = held.find(id)?;
        keys.copy_from_slice(&page.bytes[..self.key_bytes]);
        values.copy_from_slice(&page.bytes[self.value_start..]);
        Ok(page.n_tokens)
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        let mut held = self.held();
        let page = held.find(id)?;
        let keys = page.bytes.as_ptr();
        let values = keys.wrapping_add(self.value_start);
        // SAFETY: the page's bytes are allocated for it alone and stay where they are until it is dropped.
        Ok(unsafe {
            RawPage::new(page.n_tokens, abi::HERALD_PAGE_I16, (keys, self.key_bytes), (values, self.value_bytes))
        })
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        if n_tokens > self.config.page_tokens {
            return Err(Error::invalid(format!("page {id} has no room for {n_tokens} tokens")));
        }
        let mut held = self.held();
        held.pages.get_mut(&id).ok_or_else(|| not_found(id))?.n_tokens = n_tokens;
        Ok(())
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        self.held().pages.remove(&id).map(drop).ok_or_else(|| not_found(id))
    }

    /// Pages stay where they are until they are dropped.
    fn release(&self, id: u64) -> Result<()> {
        if self.held().pages.contains_key(&id) { Ok(()) } else { Err(not_found(id)) }
    }

    fn stats(&self) -> TierStats {
        let held = self.held();
        let bytes = (held.pages.len() * self.page_bytes()) as u64;
        TierStats {
            pages: held.pages.len() as u64,
            tokens: held.pages.values().map(|page| page.n_tokens as u64).sum(),
            bytes,
            memory_bytes: bytes,
            hits: held.hits,
            misses: held.misses,
            damaged: 0,
        }
    }

    /// A page's score is the greatest product of a query and a key, over its tokens and heads.
    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        let TierConfig { n_kv_heads, key_dim, page_tokens, .. } = self.config;
        let held = self.held();
        let score = |id: &u64| {
            let kept = held.pages.get(id).ok_or_else(|| not_found(*id))?;
            let (keys, values) = (&kept.bytes[..self.key_bytes], &kept.bytes[self.value_start..]);
            let page = Page::new(abi::HERALD_PAGE_I16, kept.n_tokens, page_tokens, keys, values)
                .ok_or_else(|| Error::invalid(format!("page {id} can't be read")))?;
            let keys = page.keys(n_kv_heads);
            let mut score = f32::NEG_INFINITY;
            for row in (0..n_kv_heads * page_tokens).filter(|row| row % page_tokens < kept.n_tokens) {
                let (head, codes) = (row / page_tokens, &keys.codes[row * key_dim..][..key_dim]);
                for query in query.chunks_exact(n_kv_heads * key_dim) {
                    let query = &query[head * key_dim..][..key_dim];
                    let product: f32 = query.iter().zip(codes).map(|(q, code)| q * f32::from(*code)).sum();
                    score = score.max(keys.scales[row] * product);
                }
            }
            Ok(Found { id: *id, score })
        };
        let mut found = ids.iter().map(score).collect::<Result<Vec<_>>>()?;
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(k);
        Ok(found)
    }
}

/// Below the plugin `cpu`: with 50 this is used only with `--backend @NAME@`.
fn probe(_: &Hardware) -> Result<Probe> {
    Ok(Probe { score: 50, variant: "plain".to_owned() })
}

herald_api::export_plugin! {
    name: "@NAME@",
    version: env!("CARGO_PKG_VERSION"),
    description: "A memory tier: pages in RAM",
    probe: probe,
    tiers: Tiers,
}
