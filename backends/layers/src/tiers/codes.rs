//! A page of 4-bit codes ([`herald_api::abi::HERALD_PAGE_Q4`]) as tiers keep it: keys, then values at the next aligned
//! place, in one run of bytes.

use herald_api::{AlignedBytes, Page, Q4_GROUP, Q4Rows, RawPage, Result, TierConfig, abi};

use super::overflows;
use super::q4::{self, Shape};

/// Pages of one shape.
pub(super) struct Codes {
    shape: Shape,
    pub(super) key_bytes: usize,
    pub(super) value_bytes: usize,
}

impl Codes {
    pub(super) fn new(config: &TierConfig) -> Result<Self> {
        let TierConfig { n_kv_heads, key_dim, value_dim, page_tokens, .. } = *config;
        let (key_bytes, value_bytes) = config
            .q4_page_bytes()
            .filter(|(keys, values)| keys.checked_add(*values).is_some_and(|sum| sum < usize::MAX / 2))
            .ok_or_else(|| overflows(config))?;
        let shape = Shape { n_kv_heads, key_dim, value_dim, capacity: page_tokens };
        Ok(Self { shape, key_bytes, value_bytes })
    }

    fn value_start(&self) -> usize {
        self.key_bytes.next_multiple_of(AlignedBytes::ALIGN)
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.value_start() + self.value_bytes
    }

    /// Fills zeros with a page, which holds either such codes or 16-bit integers.
    pub(super) fn fill(&self, page: &Page<'_>, bytes: &mut [u8]) {
        let (keys, values) = bytes.split_at_mut(self.value_start());
        let keys = &mut keys[..self.key_bytes];
        if page.format() == abi::HERALD_PAGE_Q4 {
            keys.copy_from_slice(page.key_bytes());
            values.copy_from_slice(page.value_bytes());
            return;
        }
        let (shape, n_tokens) = (self.shape, page.n_tokens());
        let Shape { n_kv_heads, key_dim, value_dim, capacity } = shape;
        let key_pairs = n_kv_heads * capacity.div_ceil(Q4_GROUP) * key_dim;
        let value_pairs = n_kv_heads * capacity * value_dim.div_ceil(Q4_GROUP);
        let (pairs, codes) = keys.split_at_mut(4 * key_pairs);
        q4::encode_keys(shape, n_tokens, page.keys(n_kv_heads), bytemuck::cast_slice_mut(pairs), codes);
        let (pairs, codes) = values.split_at_mut(4 * value_pairs);
        q4::encode_values(shape, n_tokens, page.values(n_kv_heads), bytemuck::cast_slice_mut(pairs), codes);
    }

    /// Where a page's keys and values lie, which begins at `bytes`.
    ///
    /// # Safety
    /// As for [`RawPage::new`], of all [`Codes::page_bytes`] there.
    pub(super) unsafe fn raw(&self, bytes: *mut u8, n_tokens: usize) -> RawPage {
        let values = bytes.wrapping_add(self.value_start());
        // SAFETY: this function's contract is the same, and a page's bytes are its keys and values.
        unsafe {
            RawPage::new(n_tokens, abi::HERALD_PAGE_Q4, (bytes, self.key_bytes), (values, self.value_bytes))
        }
    }

    /// A page's keys and values.
    fn rows<'k>(&self, bytes: &'k [u8], n_tokens: usize) -> [Q4Rows<'k>; 2] {
        let Shape { n_kv_heads, key_dim, value_dim, capacity } = self.shape;
        let (keys, values) = bytes.split_at(self.value_start());
        let view = Page::new(abi::HERALD_PAGE_Q4, n_tokens, capacity, &keys[..self.key_bytes], values);
        let none = Q4Rows { pairs: &[], codes: &[] };
        view.map_or([none; 2], |page| page.quantised(n_kv_heads, key_dim, value_dim))
    }

    /// Writes a page as 16-bit integers into buffers of any alignment.
    pub(super) fn decode(&self, page: &[u8], n_tokens: usize, keys: &mut [u8], values: &mut [u8]) {
        let shape = self.shape;
        let Shape { n_kv_heads, key_dim, value_dim, capacity } = shape;
        let rows = self.rows(page, n_tokens);
        for (to, dim, is_key) in [(keys, key_dim, true), (values, value_dim, false)] {
            let (scales, codes) = to.split_at_mut(n_kv_heads * capacity * size_of::<f32>());
            let mut row = vec![0.0_f32; dim];
            for (slot, (scale, codes)) in
                scales.chunks_exact_mut(4).zip(codes.chunks_exact_mut(2 * dim)).enumerate()
            {
                let (head, slot) = (slot / capacity, slot % capacity);
                if is_key {
                    row.iter_mut().zip(q4::key(shape, rows[0], head, slot)).for_each(|(to, key)| *to = key);
                } else {
                    row.iter_mut().zip(q4::value(shape, rows[1], head, slot)).for_each(|(to, x)| *to = x);
                }
                let max = row.iter().fold(0.0_f32, |max, x| if x.is_nan() { *x } else { max.max(x.abs()) });
                let step = max / f32::from(i16::MAX);
                scale.copy_from_slice(&step.to_ne_bytes());
                for (to, x) in codes.chunks_exact_mut(2).zip(&row) {
                    let code = if max > 0.0 { (x / step).round_ties_even() as i16 } else { 0 };
                    to.copy_from_slice(&code.to_ne_bytes());
                }
            }
        }
    }

    /// The greatest product of a query with a page's keys, over heads and tokens.
    pub(super) fn score(&self, page: &[u8], n_tokens: usize, queries: &[f32]) -> f32 {
        let shape = self.shape;
        let [rows, _] = self.rows(page, n_tokens);
        let mut best = f32::NEG_INFINITY;
        for (head, slot) in (0..shape.n_kv_heads).flat_map(|head| (0..n_tokens).map(move |slot| (head, slot)))
        {
            let key: Vec<f32> = q4::key(shape, rows, head, slot).collect();
            for query in queries.chunks_exact(shape.n_kv_heads * shape.key_dim) {
                let query = &query[head * shape.key_dim..(head + 1) * shape.key_dim];
                best = best.max(query.iter().zip(&key).map(|(q, k)| q * k).sum());
            }
        }
        best
    }
}
