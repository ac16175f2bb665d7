//! Grouped-query self-attention (arXiv 2305.13245) over keys and values kept in pages.
//!
//! For each token `t` of a sequence, with `x` its activations and `h` a query head of the KV head `g`:
//!
//! ```text
//! q, k, v = Wq n(x), Wk n(x), Wv n(x)          n: RMS norm; q and k normed by head where the model has QK-norm
//! a_h     = softmax_s(scale * rope(q_h, t) . rope(k_g, s)) v_g      over the slots s <= t within the window
//! x      += residual_scale * n'(Wo a)          n': a norm of its own, where the model has one
//! ```

mod blocks;
mod segments;

use std::ops::Range;

use herald_api::{
    Attention as Params, Call, EngineLayer, Error, LayerDesc, LayerRequest, Page, Parallel, Q4_GROUP, Q4Rows,
    Result, RopeKind, Sequences, WeightRole, abi,
};

use blocks::{Block, Items, Slot, TOKEN_BLOCK};
use segments::{Segment, segments};

use crate::arena::{Arena, cut, lines, padded};
use crate::factory::Layer;
use crate::far::{self, Far};
use crate::kernels::{Kernels, OnlineSoftmax, Q4Tile, Tile, Upcoming};
use crate::linear::{Linear, Product, matmul};
use crate::norm::{add_branch, enter};
use crate::rope::Rope;
use crate::shared::Shared;
use crate::weights::Weights;

/// Items (blocks and KV heads) for each worker from which on they are not cut into segments to be shared out.
const FEW: usize = 4;

/// Tokens of segments for which there is room when they are shared out.
const MOST_SEGMENTS: usize = 512;

/// Elements of segments' results up to which merging them takes less time than waking the workers.
const MERGE_ALONE: usize = 1 << 13;

/// Bytes of one layer's keys and values up to which the last cache may still have them when the next token comes.
const CACHED: usize = 2 << 20;

pub(crate) struct Attention<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Option<Vec<f32>>,
    post_norm: Option<Vec<f32>>,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    query: Linear<'w>,
    key: Linear<'w>,
    value: Linear<'w>,
    output: Linear<'w>,
    rope: Rope,
    max_tokens: usize,
    max_workers: usize,
    page_tokens: usize,
    far: Far,
}

/// The buffers of one forward call, all float32.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// `[n_tokens, n_heads, key_dim]`.
    q: &'s mut [f32],
    /// `[n_tokens, n_kv_heads, key_dim]`.
    k: &'s mut [f32],
    /// `[n_tokens, n_kv_heads, value_dim]`.
    v: &'s mut [f32],
    /// `[n_tokens, n_heads, value_dim]`.
    attended: &'s mut [f32],
    /// Softmaxes of segments, `[segments, n_kv_heads, group * (value_dim + 2)]` in whole cache lines.
    partials: &'s mut [f32],
    /// Means of queries, for scoring far pages.
    far: &'s mut [f32],
    /// A share for each worker.
    work: &'s mut [f32],
}

impl<'w> Attention<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        check(params)?;
        let rope_dims = if params.rope == RopeKind::None { 0 } else { params.rope_dims };
        let mut weights = Weights::new(kernels, request);
        let factors = weights.optional_vector(WeightRole::RopeFactors)?;
        let layer = Self {
            kernels,
            norm: weights.optional_vector(WeightRole::Norm)?,
            post_norm: weights.optional_vector(WeightRole::PostNorm)?,
            query_norm: weights.optional_vector(WeightRole::QueryNorm)?,
            key_norm: weights.optional_vector(WeightRole::KeyNorm)?,
            query: weights.biased(WeightRole::Query, WeightRole::QueryBias)?,
            key: weights.biased(WeightRole::Key, WeightRole::KeyBias)?,
            value: weights.biased(WeightRole::Value, WeightRole::ValueBias)?,
            output: weights.biased(WeightRole::AttentionOutput, WeightRole::AttentionOutputBias)?,
            far: Far::new(kernels, params),
            rope: Rope::new(rope_dims, params.rope_base, params.rope_scaling, factors.as_deref()),
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
            page_tokens: request.page_tokens,
        };
        weights.finish()?;
        Ok(layer)
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.params.n_heads / self.params.n_kv_heads
    }

    /// Float32 elements that a worker needs: for products, for preparing heads, or for attention over a block of tokens.
    fn worker_len(&self) -> usize {
        let Params { key_dim, value_dim, .. } = self.params;
        let linears = [&self.query, &self.key, &self.value, &self.output];
        let products = linears.iter().map(|linear| linear.scratch_len(self.max_tokens)).max().unwrap_or(0);
        let norms = self.query_norm.iter().chain(&self.key_norm).map(Vec::len);
        let prepare = 2 * self.rope.pairs() + norms.max().unwrap_or(0);
        let rows = TOKEN_BLOCK * self.group();
        // Of each row: its query (as it is and seen from nearer, and both arranged), the softmax of a segment and of all so
        // far, and what it sees (two numbers).
        let attend = 2 * lines(rows * key_dim)
            + 2 * lines(Tile::<i16>::packed_queries_len(rows, key_dim))
            + 2 * lines(rows * self.partial_len())
            + lines(2 * self.rope.pairs())
            + lines(2 * rows)
            + Q4Tile::scratch_len(rows, self.page_tokens, key_dim, value_dim);
        lines(products.max(prepare).max(attend).max(self.far.worker_len(&self.rope)))
    }

    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 8] {
        [
            n_tokens * self.desc.hidden,
            n_tokens * self.query.rows,
            n_tokens * self.key.rows,
            n_tokens * self.value.rows,
            n_tokens * self.output.columns,
            MOST_SEGMENTS * self.params.n_kv_heads * lines(self.group() * self.partial_len()),
            self.far.shared_len(),
            // At the end it holds a row for the norm of the branch.
            (workers * self.worker_len()).max(self.desc.hidden),
        ]
    }

    fn buffers<'s>(&self, call: &mut Call<'s>) -> Result<Buffers<'s>> {
        let lens = self.lens(call.n_tokens, call.parallel.workers());
        let mut arena = Arena::new(std::mem::take(&mut call.scratch));
        Ok(Buffers {
            hidden: arena.take(lens[0])?,
            q: arena.take(lens[1])?,
            k: arena.take(lens[2])?,
            v: arena.take(lens[3])?,
            attended: arena.take(lens[4])?,
            partials: arena.take(lens[5])?,
            far: arena.take(lens[6])?,
            work: arena.take(lens[7])?,
        })
    }

    /// Norms and rotates queries and keys, and writes keys and values to their slots. Tokens are shared out.
    fn prepare_and_store(
        &self,
        parallel: &Parallel<'_>,
        positions: &[u32],
        sequences: &Sequences<'_>,
        buffers: &mut Buffers<'_>,
    ) {
        let Params { n_kv_heads, key_dim, value_dim, .. } = self.params;
        let (q_width, k_width, v_width) = (self.query.rows, self.key.rows, self.value.rows);
        let share = self.worker_len();
        let (q, k, work) = (Shared::new(buffers.q), Shared::new(buffers.k), Shared::new(buffers.work));
        let v = &*buffers.v;
        parallel.run(positions.len(), &|tokens, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            let (rotation, work) = work.split_at_mut(2 * self.rope.pairs());
            let rotation: &mut [[f32; 2]] = bytemuck::cast_slice_mut(rotation);
            for token in tokens {
                self.rope.rotation(self.kernels, positions[token], rotation);
                // SAFETY: each token is one worker's.
                let (q, k) = unsafe {
                    (
                        q.part(token * q_width..(token + 1) * q_width),
                        k.part(token * k_width..(token + 1) * k_width),
                    )
                };
                for (heads, norm) in [(q, &self.query_norm), (&mut *k, &self.key_norm)] {
                    // Of each head by itself, or of all as one.
                    if let Some(norm) = norm {
                        let normed = &mut work[..norm.len()];
                        for part in heads.chunks_exact_mut(norm.len()) {
                            (self.kernels.rms_norm)(part, norm, self.desc.norm_eps, normed);
                            part.copy_from_slice(normed);
                        }
                    }
                    for head in heads.chunks_exact_mut(key_dim) {
                        (self.kernels.rope)(self.params.rope, head, rotation);
                    }
                }
                let Some(slot) = Slot::of(sequences, token) else { continue };
                let keys = k.chunks_exact(key_dim);
                let values = v[token * v_width..(token + 1) * v_width].chunks_exact(value_dim);
                for (head, (key, value)) in keys.zip(values).enumerate() {
                    // SAFETY: the boundary has checked that the page has this shape and room for the slot; each slot is
                    // one token's, and nobody reads pages before all of this batch's slots are written.
                    let ((key_scale, key_codes), (value_scale, value_codes)) = unsafe {
                        (
                            slot.page.key_slot(n_kv_heads, head, slot.index),
                            slot.page.value_slot(n_kv_heads, head, slot.index),
                        )
                    };
                    *key_scale = (self.kernels.quantize_i16)(key, key_codes);
                    *value_scale = (self.kernels.quantize_i16)(value, value_codes);
                }
            }
        });
    }

    /// Attends from each token to what it sees.
    ///
    /// A token's slots go in segments, each with a softmax of its own, which are merged in order; so where one token sees
    /// much, its segments can be shared out over the workers without any difference to its result.
    fn attend(&self, parallel: &Parallel<'_>, sequences: &Sequences<'_>, buffers: &mut Buffers<'_>) {
        let items = Items::new(sequences, self.params.n_kv_heads);
        let mut list = [Segment::default(); MOST_SEGMENTS];
        let listed = if items.len < FEW * parallel.workers() && parallel.workers() > 1 {
            self.list_segments(&items, sequences, &mut list)
        } else {
            None
        };
        match listed {
            Some(list) => self.attend_by_segments(parallel, sequences, &items, list, buffers),
            None => self.attend_by_blocks(parallel, sequences, &items, buffers),
        }
    }

    /// The segments of all blocks, in order; `None` where their softmaxes have no room.
    fn list_segments<'l>(
        &self,
        items: &Items,
        sequences: &Sequences<'_>,
        list: &'l mut [Segment; MOST_SEGMENTS],
    ) -> Option<&'l [Segment]> {
        let (mut len, mut rows) = (0, 0);
        for (index, block) in items.blocks(sequences).enumerate() {
            for segment in segments(&block.sequence, self.seen(&block)) {
                rows += block.tokens.len();
                if rows > MOST_SEGMENTS {
                    return None;
                }
                list[len] = Segment { block: index, first: segment.start, end: segment.end };
                len += 1;
            }
        }
        Some(&list[..len])
    }

    /// Blocks of tokens and KV heads are shared out. The last tokens see the most, so the order goes from both ends.
    fn attend_by_blocks(
        &self,
        parallel: &Parallel<'_>,
        sequences: &Sequences<'_>,
        items: &Items,
        buffers: &mut Buffers<'_>,
    ) {
        let share = self.worker_len();
        let (attended, work) = (Shared::new(buffers.attended), Shared::new(buffers.work));
        let q = &*buffers.q;
        parallel.run(items.len, &|range, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            for place in range {
                let item = if place % 2 == 0 { place / 2 } else { items.len - 1 - place / 2 };
                let Some((block, kv_head)) = items.item(sequences, item) else { continue };
                let rows = block.tokens.len() * self.group();
                let (queries, work) = self.queries(&block, kv_head, q, work);
                let (total, work) = cut(work, rows * self.partial_len());
                let (part, work) = cut(work, rows * self.partial_len());
                let mut total = OnlineSoftmax::of(total, rows);
                total.begin();
                for segment in segments(&block.sequence, self.seen(&block)) {
                    let mut part = OnlineSoftmax::of(&mut *part, rows);
                    self.attend_segment(&block, kv_head, segment, queries, &mut part, work);
                    (self.kernels.merge)(&mut total, &part);
                }
                self.finish(&block, kv_head, total, &attended);
            }
        });
    }

    /// Segments are shared out by their pages, and merged when all are done.
    fn attend_by_segments(
        &self,
        parallel: &Parallel<'_>,
        sequences: &Sequences<'_>,
        items: &Items,
        list: &[Segment],
        buffers: &mut Buffers<'_>,
    ) {
        let share = self.worker_len();
        let attended = Shared::new(buffers.attended);
        let (work, partials) = (Shared::new(buffers.work), Shared::new(buffers.partials));
        let q = &*buffers.q;
        let walk = |each: &mut EachItem<'_>| {
            let (mut first, mut place, mut rest) = (0, 0, list);
            for (index, block) in items.blocks(sequences).enumerate() {
                let (segments, after) = rest.split_at(rest.partition_point(|segment| segment.block <= index));
                rest = after;
                let rows = block.tokens.len() * self.group();
                let pages: usize = segments.iter().map(|segment| segment.pages().len()).sum();
                for kv_head in 0..self.params.n_kv_heads {
                    each(&block, kv_head, segments, first, place);
                    first += pages;
                    place += segments.len() * lines(rows * self.partial_len());
                }
            }
            (first, place)
        };
        let (total, units) = walk(&mut |_, _, _, _, _| {});
        parallel.run(total, &|range, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            walk(&mut |block, kv_head, segments, first, place| {
                let rows = block.tokens.len() * self.group();
                let (len, step) = (rows * self.partial_len(), lines(rows * self.partial_len()));
                // A segment is whose share its first page falls in.
                let from = segments.first().map_or(0, |segment| segment.first);
                let before =
                    |end: usize| segments.partition_point(|segment| first + segment.first - from < end);
                let (begin, end) = (before(range.start), before(range.end));
                if begin == end {
                    return;
                }
                let (queries, work) = self.queries(block, kv_head, q, work);
                for (index, segment) in segments.iter().enumerate().take(end).skip(begin) {
                    // SAFETY: each segment of each item is one worker's, and has a place of its own.
                    let part = unsafe { partials.part(place + index * step..place + index * step + len) };
                    let mut part = OnlineSoftmax::of(part, rows);
                    self.attend_segment(block, kv_head, segment.pages(), queries, &mut part, work);
                }
            });
        });
        let merge = |range: Range<usize>, worker: usize| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            let mut item = 0;
            walk(&mut |block, kv_head, segments, _, place| {
                item += 1;
                if !range.contains(&(item - 1)) {
                    return;
                }
                let rows = block.tokens.len() * self.group();
                let (len, step) = (rows * self.partial_len(), lines(rows * self.partial_len()));
                let mut total = OnlineSoftmax::of(&mut work[..len], rows);
                total.begin();
                for index in 0..segments.len() {
                    // SAFETY: all segments are done, and only this task reads those of this item.
                    let part = unsafe { partials.part(place + index * step..place + index * step + len) };
                    (self.kernels.merge)(&mut total, &OnlineSoftmax::of(part, rows));
                }
                self.finish(block, kv_head, total, &attended);
            });
        };
        if units <= MERGE_ALONE { merge(0..items.len, 0) } else { parallel.run(items.len, &merge) }
    }

    /// Float32 elements of the state of an online softmax, for each row.
    fn partial_len(&self) -> usize {
        self.params.value_dim + 2
    }

    /// A token's place in its sequence.
    fn place(block: &Block<'_>, token: usize) -> usize {
        block.sequence.past() + token - block.sequence.batch().start
    }

    /// The places of the slots that a token sees.
    fn sees(&self, block: &Block<'_>, token: usize) -> Range<usize> {
        let place = Self::place(block, token);
        self.params.window.map_or(0, |window| (place + 1).saturating_sub(window))..place + 1
    }

    /// The places of the slots that any token of a block sees.
    fn seen(&self, block: &Block<'_>) -> Range<usize> {
        self.sees(block, block.tokens.start).start..self.sees(block, block.tokens.end - 1).end
    }

    /// The queries of a block's tokens for one KV head, and the rest of `work`.
    fn queries<'b>(
        &self,
        block: &Block<'_>,
        kv_head: usize,
        q: &[f32],
        work: &'b mut [f32],
    ) -> (Queries<'b>, &'b mut [f32]) {
        let (rows, width) = (block.tokens.len() * self.group(), self.group() * self.params.key_dim);
        let (plain, work) = cut(work, block.tokens.len() * width);
        let (arranged, work) = cut(work, Tile::<i16>::packed_queries_len(rows, self.params.key_dim));
        for (queries, token) in plain.chunks_exact_mut(width).zip(block.tokens.clone()) {
            queries.copy_from_slice(&q[token * self.query.rows + kv_head * width..][..width]);
        }
        (self.kernels.pack_queries)(plain, self.params.key_dim, arranged);
        (Queries { plain, arranged }, work)
    }

    /// Attends from a block to the slots of a segment's pages.
    fn attend_segment(
        &self,
        block: &Block<'_>,
        kv_head: usize,
        segment: Range<usize>,
        queries: Queries<'_>,
        running: &mut OnlineSoftmax<'_>,
        work: &mut [f32],
    ) {
        let Params { n_kv_heads, key_dim, value_dim, scale, softcap, .. } = self.params;
        let group = self.group();
        let rows = block.tokens.len() * group;
        let (near, work) = cut(work, rows * key_dim);
        let (near_arranged, work) = cut(work, Tile::<i16>::packed_queries_len(rows, key_dim));
        let (rotation, work) = cut(work, 2 * self.rope.pairs());
        let rotation: &mut [[f32; 2]] = bytemuck::cast_slice_mut(rotation);
        let (visible, scratch) = cut(work, 2 * rows);
        let visible: &mut [[u32; 2]] = bytemuck::cast_slice_mut(visible);
        running.begin();
        let seen = self.seen(block);
        let once = seen.len() * n_kv_heads * (key_dim + value_dim) * size_of::<i16>() > CACHED;
        let mut pages = (segment.start..block.sequence.n_pages()).map(|index| block.sequence.page(index));
        let mut upcoming = pages.next();
        for _ in segment {
            let Some(page) = std::mem::replace(&mut upcoming, pages.next()) else { break };
            // Tiles are the same whatever the block sees of a page, so that a token's result does not depend on the others.
            let (begin, end) = (page.start(), page.start() + page.n_tokens());
            if begin >= seen.end || end <= seen.start {
                continue;
            }
            for (visible, token) in visible.chunks_exact_mut(group).zip(block.tokens.clone()) {
                let sees = self.sees(block, token);
                let from = sees.start.clamp(begin, end) - begin;
                let to = sees.end.clamp(begin, end) - begin;
                visible.fill([from as u32, to.max(from) as u32]);
            }
            // A page beyond the reach is seen from nearer: the queries are turned back.
            let back = far::moved(&block.sequence, begin);
            let plain: &[f32] = if back == 0 {
                queries.plain
            } else {
                near.copy_from_slice(queries.plain);
                self.rope.turned_back(self.kernels, back, rotation);
                near.chunks_exact_mut(key_dim)
                    .for_each(|query| (self.kernels.rope)(self.params.rope, query, rotation));
                near
            };
            let next = upcoming.as_ref().map_or(Upcoming::default(), |page| self.of_head(page, kv_head));
            let next = Upcoming { streaming: once, ..next };
            if page.format() == abi::HERALD_PAGE_Q4 {
                let capacity = page.capacity();
                let [keys, values] = page.quantised(n_kv_heads, key_dim, value_dim);
                let tile = Q4Tile {
                    queries: plain,
                    keys: head_rows(
                        keys,
                        kv_head,
                        capacity.div_ceil(Q4_GROUP) * key_dim,
                        capacity * key_dim.div_ceil(2),
                    ),
                    values: head_rows(
                        values,
                        kv_head,
                        capacity * value_dim.div_ceil(Q4_GROUP),
                        capacity * value_dim.div_ceil(2),
                    ),
                    slots: capacity,
                    visible,
                    key_dim,
                    value_dim,
                    scale,
                    softcap,
                    next,
                };
                (self.kernels.attend_q4)(&tile, running, scratch);
                continue;
            }
            let queries: &[f32] = if back == 0 {
                queries.arranged
            } else {
                (self.kernels.pack_queries)(plain, key_dim, near_arranged);
                near_arranged
            };
            let slots = kv_head * page.capacity()..kv_head * page.capacity() + page.n_tokens();
            let (keys, values) = (page.keys(n_kv_heads), page.values(n_kv_heads));
            let tile = Tile {
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
            };
            (self.kernels.attend)(&tile, running, scratch);
        }
    }

    /// The bytes of a page that a head reads.
    fn of_head<'p>(&self, page: &Page<'p>, kv_head: usize) -> Upcoming<'p> {
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

    /// Ends the softmax of a block's rows and puts them where they belong.
    fn finish(
        &self,
        block: &Block<'_>,
        kv_head: usize,
        mut total: OnlineSoftmax<'_>,
        attended: &Shared<'_, f32>,
    ) {
        total.finish();
        let width = self.group() * self.params.value_dim;
        for (row, token) in total.out.chunks_exact(width).zip(block.tokens.clone()) {
            let first = token * self.output.columns + kv_head * width;
            // SAFETY: each token and KV head is one worker's.
            unsafe { attended.part(first..first + width) }.copy_from_slice(row);
        }
    }
}

/// The queries of a block's tokens for one KV head.
#[derive(Clone, Copy)]
struct Queries<'q> {
    /// `[tokens, group, key_dim]`.
    plain: &'q [f32],
    /// The same as the kernels want them.
    arranged: &'q [f32],
}

/// Called with an item's block and KV head, its segments, how many pages all items before it have, and where its first
/// partial lies.
type EachItem<'e> = dyn FnMut(&Block<'_>, usize, &[Segment], usize, usize) + 'e;

/// One head's part of a page's rows, of which each head has so many pairs and so many bytes of codes.
fn head_rows(rows: Q4Rows<'_>, head: usize, pairs: usize, codes: usize) -> Q4Rows<'_> {
    Q4Rows {
        pairs: &rows.pairs[head * pairs..(head + 1) * pairs],
        codes: &rows.codes[head * codes..(head + 1) * codes],
    }
}

fn check(params: &Params) -> Result<()> {
    let Params { n_heads, n_kv_heads, key_dim, value_dim, rope_dims, .. } = *params;
    if n_kv_heads == 0
        || n_heads == 0
        || !n_heads.is_multiple_of(n_kv_heads)
        || key_dim == 0
        || value_dim == 0
    {
        return Err(Error::invalid(format!(
            "attention has {n_heads} query heads of {key_dim} over {n_kv_heads} KV heads of {value_dim}, where a multiple \
             was expected, and nothing empty"
        )));
    }
    if params.rope != RopeKind::None && (rope_dims > key_dim || !rope_dims.is_multiple_of(2)) {
        return Err(Error::invalid(format!(
            "RoPE is to rotate {rope_dims} elements of heads of {key_dim}, where an even number of at most those was \
             expected"
        )));
    }
    Ok(())
}

impl<'w> Layer<'w> for Attention<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        vec![&mut self.query, &mut self.key, &mut self.value, &mut self.output]
    }
}

impl EngineLayer for Attention<'_> {
    fn weight_bytes(&self) -> usize {
        [&self.query, &self.key, &self.value, &self.output].map(Linear::packed_bytes).iter().sum()
    }

    fn scratch_bytes(&self) -> usize {
        self.lens(self.max_tokens, self.max_workers).into_iter().map(padded).sum()
    }

    fn page_formats(&self) -> u32 {
        1 << abi::HERALD_PAGE_Q4
    }

    fn score_width(&self) -> usize {
        self.far.score_width()
    }

    fn summary_bytes(&self) -> usize {
        self.far.summary_bytes()
    }

    fn summarise(&self, page: &Page<'_>, summary: &mut [u8]) -> Result<()> {
        self.far.summarise(&self.rope, page, summary);
        Ok(())
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        // The boundary has checked the pages' shape; how much scratch memory a page takes is this layer's own.
        let largest =
            call.sequences.iter().flat_map(|sequence| sequence.pages()).map(|page| page.capacity()).max();
        if let Some(largest) = largest.filter(|largest| *largest > self.page_tokens) {
            return Err(Error::invalid(format!(
                "a KV page has room for {largest} tokens, where at most {} were expected",
                self.page_tokens
            )));
        }
        let mut buffers = self.buffers(call)?;
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let input = call.input.unwrap_or(call.output);
        enter(kernels, parallel, &self.desc, input, self.norm.as_deref(), buffers.hidden);
        matmul(
            parallel,
            buffers.hidden,
            n_tokens,
            buffers.work,
            &mut [
                Product { linear: &self.query, out: buffers.q },
                Product { linear: &self.key, out: buffers.k },
                Product { linear: &self.value, out: buffers.v },
            ],
        );
        self.prepare_and_store(parallel, call.positions, &call.sequences, &mut buffers);
        if let Some(mut fetch) = call.fetch.take() {
            let memory = [&mut *buffers.far, &mut *buffers.work];
            self.far.score(parallel, &call.sequences, &self.rope, buffers.q, memory, fetch.scores());
            call.sequences = fetch.run()?;
        }
        self.attend(parallel, &call.sequences, &mut buffers);
        let Buffers { hidden, attended, work, .. } = buffers;
        let branch = hidden;
        matmul(parallel, attended, n_tokens, work, &mut [Product { linear: &self.output, out: branch }]);
        add_branch(kernels, parallel, &self.desc, branch, self.post_norm.as_deref(), work, call.output);
        Ok(())
    }
}
