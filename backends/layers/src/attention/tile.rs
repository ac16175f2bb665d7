//! One page: one kernel call attends from the queries of a block of tokens, for one KV head, to the page's keys and values.

use herald_api::{Attention as Params, Page, Q4_GROUP, Q4Rows, abi};

use super::Attention;
use super::schedule::WorkItem;
use crate::kernels::{OnlineSoftmax, Q4Tile, Tile, Upcoming};
use crate::page_selection::position_shift;
use crate::scratch::Scratch;

/// A work item's queries.
#[derive(Clone, Copy)]
pub(super) struct Queries<'q> {
    /// `[tokens, group, key_dim]`, for pages of 4-bit codes.
    unpacked: &'q [f32],
    /// As [`crate::Kernels::pack_queries`] lays them out, for pages of 16-bit integers.
    packed: &'q [f32],
}

/// A worker's buffers for queries as they are, or with their positions shifted.
pub(super) struct QueryBuffers<'s> {
    unpacked: &'s mut [f32],
    packed: &'s mut [f32],
}

/// A worker's buffers for a page.
pub(super) struct PageBuffers<'s> {
    /// For pages beyond the maximum distance.
    shifted: QueryBuffers<'s>,
    /// What shifts the queries.
    rotation: &'s mut [[f32; 2]],
    /// The slots that each row sees.
    visible: &'s mut [[u32; 2]],
    /// The kernel's own memory.
    kernel: &'s mut [f32],
}

impl Attention<'_> {
    /// Buffers for the queries of `rows` (tokens times the group).
    pub(super) fn query_buffers<'s>(&self, scratch: &mut Scratch<'s>, rows: usize) -> QueryBuffers<'s> {
        let key_dim = self.params.key_dim;
        QueryBuffers {
            unpacked: scratch.take(rows * key_dim),
            packed: scratch.take(Tile::<i16>::packed_queries_len(rows, key_dim)),
        }
    }

    /// Buffers for a page and `rows` queries.
    pub(super) fn page_buffers<'s>(&self, scratch: &mut Scratch<'s>, rows: usize) -> PageBuffers<'s> {
        let Params { key_dim, value_dim, .. } = self.params;
        PageBuffers {
            shifted: self.query_buffers(scratch, rows),
            rotation: scratch.take(self.rope.pairs()),
            visible: scratch.take(rows),
            kernel: scratch.take(Q4Tile::scratch_len(rows, self.page_tokens, key_dim, value_dim)),
        }
    }

    /// Gathers and packs a work item's queries from `q` `[n_tokens, n_heads, key_dim]`.
    pub(super) fn queries<'b>(
        &self,
        item: &WorkItem<'_>,
        q: &[f32],
        buffers: QueryBuffers<'b>,
    ) -> Queries<'b> {
        let QueryBuffers { unpacked, packed } = buffers;
        let width = self.group() * self.params.key_dim;
        for (queries, token) in unpacked.chunks_exact_mut(width).zip(item.block.tokens.clone()) {
            queries.copy_from_slice(&q[token * self.query_width() + item.kv_head * width..][..width]);
        }
        (self.kernels.pack_queries)(unpacked, self.params.key_dim, packed);
        Queries { unpacked, packed }
    }

    /// Attends from a work item's queries to one page. `next`: the memory of the page after it.
    ///
    /// The tile is the same whichever of the page's slots are visible, so that a token's result doesn't depend on the
    /// others in its block.
    pub(super) fn attend_page(
        &self,
        item: &WorkItem<'_>,
        queries: Queries<'_>,
        page: &Page<'_>,
        next: Upcoming<'_>,
        softmax: &mut OnlineSoftmax<'_>,
        buffers: &mut PageBuffers<'_>,
    ) {
        let PageBuffers { shifted, rotation, visible, kernel } = buffers;
        self.mark_visible(item, page, visible);
        let quantised = page.format() == abi::HERALD_PAGE_Q4;
        let shift = position_shift(&item.block.sequence, page.start());
        let queries = if shift == 0 {
            queries
        } else {
            shifted.unpacked.copy_from_slice(queries.unpacked);
            self.rope.turned_back(self.kernels, shift, rotation);
            for query in shifted.unpacked.chunks_exact_mut(self.params.key_dim) {
                (self.kernels.rope)(self.params.rope, query, rotation);
            }
            if !quantised {
                (self.kernels.pack_queries)(shifted.unpacked, self.params.key_dim, shifted.packed);
            }
            Queries { unpacked: shifted.unpacked, packed: shifted.packed }
        };
        if quantised {
            let tile = self.q4_tile(page, item.kv_head, queries.unpacked, visible, next);
            (self.kernels.attend_q4)(&tile, softmax, kernel);
        } else {
            let tile = self.tile(page, item.kv_head, queries.packed, visible, next);
            (self.kernels.attend)(&tile, softmax, kernel);
        }
    }

    /// The slots of a page that each of a work item's rows sees.
    fn mark_visible(&self, item: &WorkItem<'_>, page: &Page<'_>, visible: &mut [[u32; 2]]) {
        let (begin, end) = (page.start(), page.start() + page.n_tokens());
        for (rows, token) in visible.chunks_exact_mut(self.group()).zip(item.block.tokens.clone()) {
            let seen = self.visible_to(&item.block, token);
            let from = seen.start.clamp(begin, end) - begin;
            let to = seen.end.clamp(begin, end) - begin;
            rows.fill([from as u32, to.max(from) as u32]);
        }
    }

    /// A KV head's part of a page of 16-bit integers.
    fn tile<'t>(
        &self,
        page: &Page<'t>,
        kv_head: usize,
        queries: &'t [f32],
        visible: &'t [[u32; 2]],
        next: Upcoming<'t>,
    ) -> Tile<'t> {
        let Params { n_kv_heads, key_dim, value_dim, scale, softcap, .. } = self.params;
        let slots = kv_head * page.capacity()..kv_head * page.capacity() + page.n_tokens();
        let (keys, values) = (page.keys(n_kv_heads), page.values(n_kv_heads));
        Tile {
            queries,
            keys: &keys.codes[slots.start * key_dim..slots.end * key_dim],
            key_scales: &keys.scales[slots.clone()],
            values: &values.codes[slots.start * value_dim..slots.end * value_dim],
            value_scales: &values.scales[slots],
            visible,
            key_dim,
            value_dim,
            scale,
            softcap,
            next,
        }
    }

    /// A KV head's part of a page of 4-bit codes.
    fn q4_tile<'t>(
        &self,
        page: &Page<'t>,
        kv_head: usize,
        queries: &'t [f32],
        visible: &'t [[u32; 2]],
        next: Upcoming<'t>,
    ) -> Q4Tile<'t> {
        let Params { n_kv_heads, key_dim, value_dim, scale, softcap, .. } = self.params;
        let slots = page.capacity();
        let [keys, values] = page.quantised(n_kv_heads, key_dim, value_dim);
        Q4Tile {
            queries,
            keys: head_rows(keys, kv_head, slots.div_ceil(Q4_GROUP) * key_dim, slots * key_dim.div_ceil(2)),
            values: head_rows(
                values,
                kv_head,
                slots * value_dim.div_ceil(Q4_GROUP),
                slots * value_dim.div_ceil(2),
            ),
            slots,
            visible,
            key_dim,
            value_dim,
            scale,
            softcap,
            next,
        }
    }

    /// The bytes of a page that a KV head reads, to be prefetched.
    pub(super) fn upcoming<'p>(&self, page: &Page<'p>, kv_head: usize) -> Upcoming<'p> {
        let n_kv_heads = self.params.n_kv_heads;
        let [[key_scales, keys], [value_scales, values]] = if page.format() == abi::HERALD_PAGE_Q4 {
            let rows = page.quantised(n_kv_heads, self.params.key_dim, self.params.value_dim);
            rows.map(|rows| [bytemuck::cast_slice(rows.pairs), rows.codes])
        } else {
            let rows = [page.keys(n_kv_heads), page.values(n_kv_heads)];
            rows.map(|rows| [bytemuck::cast_slice(rows.scales), bytemuck::cast_slice(rows.codes)])
        };
        let of_head = |bytes: &'p [u8]| {
            let len = bytes.len() / n_kv_heads;
            &bytes[kv_head * len..(kv_head + 1) * len]
        };
        Upcoming {
            keys: of_head(keys),
            values: of_head(values),
            scales: [of_head(key_scales), of_head(value_scales)],
            streaming: false,
        }
    }
}

/// One head's part of a page's rows, where each head has `pairs` pairs and `codes` bytes of codes.
fn head_rows(rows: Q4Rows<'_>, head: usize, pairs: usize, codes: usize) -> Q4Rows<'_> {
    Q4Rows {
        pairs: &rows.pairs[head * pairs..(head + 1) * pairs],
        codes: &rows.codes[head * codes..(head + 1) * codes],
    }
}
