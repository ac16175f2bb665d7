//! Memory tiers in RAM: pages as attention writes them (active), and as 4-bit codes (compressed).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use herald_api::{
    AlignedBytes, Error, Found, MemoryTier, Page, Q4_GROUP, Q4Rows, RawPage, Result, Status, TierConfig,
    TierFactory, TierKind, TierStats, abi,
};

use crate::q4::{self, Shape};

/// The tiers that every backend offers.
pub struct RamTiers;

impl TierFactory for RamTiers {
    const KINDS: &'static [TierKind] = &[TierKind::Active, TierKind::Compressed];

    fn create(config: &TierConfig) -> Result<Box<dyn MemoryTier>> {
        let bytes = match config.kind {
            TierKind::Active => config.page_bytes(),
            TierKind::Compressed if config.state_bytes == 0 => config.q4_page_bytes(),
            kind => {
                return Err(Error::unsupported(format!("there is no {} memory tier here", kind.name())));
            }
        };
        let (keys, values) = bytes
            .filter(|(keys, values)| keys.checked_add(*values).is_some())
            .ok_or_else(|| Error::invalid(format!("a page of {config:?} overflows")))?;
        Ok(Box::new(RamTier {
            config: config.clone(),
            key_bytes: keys,
            value_bytes: values,
            pages: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }))
    }
}

struct RamTier {
    config: TierConfig,
    key_bytes: usize,
    value_bytes: usize,
    pages: Mutex<HashMap<u64, Kept>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// A page: keys, then values at the next aligned place.
struct Kept {
    bytes: AlignedBytes,
    n_tokens: usize,
}

impl RamTier {
    fn pages(&self) -> MutexGuard<'_, HashMap<u64, Kept>> {
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

    fn shape(&self) -> Shape {
        let TierConfig { n_kv_heads, key_dim, value_dim, page_tokens, .. } = self.config;
        Shape { n_kv_heads, key_dim, value_dim, capacity: page_tokens }
    }

    /// A page's keys and values as 4-bit codes.
    fn quantised<'k>(&self, page: &'k Kept) -> [Q4Rows<'k>; 2] {
        let Shape { n_kv_heads, key_dim, value_dim, capacity } = self.shape();
        let (keys, values) = page.bytes.split_at(self.value_start());
        let view = Page::new(abi::HERALD_PAGE_Q4, page.n_tokens, capacity, &keys[..self.key_bytes], values);
        let none = Q4Rows { pairs: &[], codes: &[] };
        view.map_or([none; 2], |page| page.quantised(n_kv_heads, key_dim, value_dim))
    }

    /// Codes a page of 16-bit integers.
    fn encode(&self, page: &Page<'_>, bytes: &mut AlignedBytes) {
        let (shape, n_tokens) = (self.shape(), page.n_tokens());
        let Shape { n_kv_heads, key_dim, value_dim, capacity } = shape;
        let key_pairs = n_kv_heads * capacity.div_ceil(Q4_GROUP) * key_dim;
        let value_pairs = n_kv_heads * capacity * value_dim.div_ceil(Q4_GROUP);
        let (keys, values) = bytes.split_at_mut(self.value_start());
        let (pairs, codes) = keys[..self.key_bytes].split_at_mut(4 * key_pairs);
        q4::encode_keys(shape, n_tokens, page.keys(n_kv_heads), bytemuck::cast_slice_mut(pairs), codes);
        let (pairs, codes) = values.split_at_mut(4 * value_pairs);
        q4::encode_values(shape, n_tokens, page.values(n_kv_heads), bytemuck::cast_slice_mut(pairs), codes);
    }

    /// Writes a page of 4-bit codes as 16-bit integers.
    fn decode(&self, page: &Kept, keys: &mut [u8], values: &mut [u8]) {
        let shape = self.shape();
        let Shape { n_kv_heads, key_dim, value_dim, capacity } = shape;
        let rows = self.quantised(page);
        for (to, dim, is_key) in [(keys, key_dim, true), (values, value_dim, false)] {
            let (scales, codes) = to.split_at_mut(n_kv_heads * capacity * size_of::<f32>());
            let mut row = vec![0.0_f32; dim];
            // The caller's buffers are at no particular alignment.
            for (slot, (scale, codes)) in
                scales.chunks_exact_mut(4).zip(codes.chunks_exact_mut(2 * dim)).enumerate()
            {
                let (head, slot) = (slot / capacity, slot % capacity);
                if is_key {
                    row.iter_mut().zip(q4::key(shape, rows[0], head, slot)).for_each(|(to, key)| *to = key);
                } else {
                    row.iter_mut().zip(q4::value(shape, rows[1], head, slot)).for_each(|(to, x)| *to = x);
                }
                let most =
                    row.iter().fold(0.0_f32, |most, x| if x.is_nan() { *x } else { most.max(x.abs()) });
                let step = most / f32::from(i16::MAX);
                scale.copy_from_slice(&step.to_ne_bytes());
                for (to, x) in codes.chunks_exact_mut(2).zip(&row) {
                    let code = if most > 0.0 { (x / step).round_ties_even() as i16 } else { 0 };
                    to.copy_from_slice(&code.to_ne_bytes());
                }
            }
        }
    }

    /// The greatest product of a query with a compressed page's keys, over heads and tokens.
    fn score_quantised(&self, page: &Kept, queries: &[f32]) -> f32 {
        let shape = self.shape();
        let [rows, _] = self.quantised(page);
        let mut best = f32::NEG_INFINITY;
        for (head, slot) in
            (0..shape.n_kv_heads).flat_map(|head| (0..page.n_tokens).map(move |slot| (head, slot)))
        {
            let key: Vec<f32> = q4::key(shape, rows, head, slot).collect();
            for query in queries.chunks_exact(shape.n_kv_heads * shape.key_dim) {
                let query = &query[head * shape.key_dim..(head + 1) * shape.key_dim];
                best = best.max(query.iter().zip(&key).map(|(q, k)| q * k).sum());
            }
        }
        best
    }

    /// The greatest product of a query with a page's keys, over heads and tokens.
    fn score(&self, page: &Kept, queries: &[f32]) -> f32 {
        if self.format() == abi::HERALD_PAGE_Q4 {
            return self.score_quantised(page, queries);
        }
        let TierConfig { n_kv_heads, key_dim, page_tokens, .. } = self.config;
        let slots = n_kv_heads * page_tokens;
        let (scales, codes) = page.bytes[..self.key_bytes].split_at(slots * size_of::<f32>());
        let (scales, codes): (&[f32], &[i16]) = (bytemuck::cast_slice(scales), bytemuck::cast_slice(codes));
        let mut best = f32::NEG_INFINITY;
        for (slot, (scale, codes)) in scales.iter().zip(codes.chunks_exact(key_dim)).enumerate() {
            let (head, place) = (slot / page_tokens, slot % page_tokens);
            if place >= page.n_tokens {
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

fn not_found(id: u64) -> Error {
    Error::new(Status::NotFound, format!("the memory tier holds no page {id}"))
}

impl MemoryTier for RamTier {
    fn put(&self, id: u64, page: Option<&Page<'_>>) -> Result<()> {
        if page.is_none() && self.format() == abi::HERALD_PAGE_Q4 {
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
            if page.format() == self.format() {
                bytes[..self.key_bytes].copy_from_slice(page.key_bytes());
                let start = self.value_start();
                bytes[start..].copy_from_slice(page.value_bytes());
            } else {
                self.encode(page, &mut bytes);
            }
            n_tokens = page.n_tokens();
        }
        let mut pages = self.pages();
        if pages.contains_key(&id) {
            return Err(Error::invalid(format!(
                "the memory tier holds a page {id} already, where a new id was expected"
            )));
        }
        let held = (pages.len() as u64 + 1).saturating_mul(self.page_bytes() as u64);
        if let Some(capacity) = self.config.capacity_bytes.filter(|capacity| held > *capacity) {
            return Err(Error::new(
                Status::OutOfMemory,
                format!("the memory tier is full: page {id} would make {held} bytes of at most {capacity}"),
            ));
        }
        pages.insert(id, Kept { bytes, n_tokens });
        Ok(())
    }

    fn get(&self, id: u64, keys: &mut [u8], values: &mut [u8]) -> Result<usize> {
        let pages = self.pages();
        let page = self.found(id, pages.get(&id))?;
        if self.format() == abi::HERALD_PAGE_Q4 {
            self.decode(page, keys, values);
            return Ok(page.n_tokens);
        }
        keys.copy_from_slice(&page.bytes[..self.key_bytes]);
        values.copy_from_slice(&page.bytes[self.value_start()..]);
        Ok(page.n_tokens)
    }

    fn view(&self, id: u64) -> Result<RawPage> {
        let pages = self.pages();
        let page = self.found(id, pages.get(&id))?;
        let keys = page.bytes.as_ptr();
        Ok(RawPage {
            n_tokens: page.n_tokens,
            format: self.format(),
            keys,
            key_bytes: self.key_bytes,
            values: if self.value_bytes == 0 {
                std::ptr::null_mut()
            } else {
                keys.wrapping_add(self.value_start())
            },
            value_bytes: self.value_bytes,
        })
    }

    fn commit(&self, id: u64, n_tokens: usize) -> Result<()> {
        let mut pages = self.pages();
        pages.get_mut(&id).ok_or_else(|| not_found(id))?.n_tokens = n_tokens;
        Ok(())
    }

    fn drop_page(&self, id: u64) -> Result<()> {
        // Freed after the lock is given back.
        let page = self.pages().remove(&id);
        page.map(drop).ok_or_else(|| not_found(id))
    }

    fn stats(&self) -> TierStats {
        let pages = self.pages();
        TierStats {
            pages: pages.len() as u64,
            tokens: pages.values().map(|page| page.n_tokens as u64).sum(),
            bytes: pages.len() as u64 * self.page_bytes() as u64,
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn search(&self, query: &[f32], ids: &[u64], k: usize) -> Result<Vec<Found>> {
        if self.config.state_bytes > 0 {
            return Err(Error::invalid("the memory tier keeps recurrent states, where a search needs keys"));
        }
        let pages = self.pages();
        let mut found = ids
            .iter()
            .map(|id| {
                pages
                    .get(id)
                    .map(|page| Found { id: *id, score: self.score(page, query) })
                    .ok_or_else(|| not_found(*id))
            })
            .collect::<Result<Vec<_>>>()?;
        found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        found.truncate(k);
        Ok(found)
    }
}
