//! Page selection: which of a sequence's older pages attention would find most in, told from a summary of each page's keys.
//! The host keeps such pages out of attention and brings back those with the best scores (InfLLM, arXiv 2402.04617).
//!
//! A page's summary is, channel by channel, the middle and the half width of the box that its keys lie in. No key `k` of
//! the page has a product with the query `q` above
//!
//! ```text
//! bound(q) = sum_i max(q_i min_i, q_i max_i) = q . middle + |q| . half        (Quest, arXiv 2406.10774)
//! ```
//!
//! The batch is represented by a few mean queries. For each of them and each head, the bounds of all candidate pages go
//! through a softmax: the share of the attention that each page could have. A page's score is the sum of its shares.
//!
//! Keys are stored after RoPE. Attention sees no page from farther than a maximum distance: beyond it the queries' positions
//! are shifted (see [`position_shift`]). A summary is of keys turned back by the position of the page's first token, so that
//! all pages at the maximum distance are scored by the same query, wherever they lie.

use std::ops::Range;

use half::f16;
use herald_api::{Attention as Params, Page, Parallel, RopeKind, Sequence, Sequences};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::{HeadMatmul, Kernels};
use crate::parallel::ParallelExt;
use crate::rope::Rope;
use crate::scratch::{PerWorker, Scratch};

/// Mean queries that represent a batch, at most.
const MAX_MEANS: usize = 4;

/// Tokens that share a mean query, at least.
const MIN_TOKENS_PER_MEAN: usize = 32;

/// With more bounds than this it pays off to wake the workers for their softmax.
const SOFTMAX_ALONE_BOUNDS: usize = 1 << 13;

/// Pages whose bounds are made at once.
const PANEL_PAGES: usize = 128;

/// Offset subtracted from the positions of a sequence's queries for the page that begins at `start`, so that the page's
/// first token is never farther from the batch's last than the sequence's maximum distance (InfLLM).
pub(crate) fn position_shift(sequence: &Sequence<'_>, start: usize) -> usize {
    let end = sequence.past() + sequence.batch().len();
    sequence.max_distance().map_or(0, |max_distance| (end - start).saturating_sub(max_distance.max(1)))
}

/// Summarises and scores the pages of one attention layer.
pub(crate) struct PageScorer {
    kernels: &'static Kernels,
    rope: RopeKind,
    n_kv_heads: usize,
    /// Query heads of a KV head.
    group: usize,
    key_dim: usize,
    scale: f32,
}

/// The buffers of scoring.
struct Buffers<'s> {
    /// Mean queries, scaled: `[MAX_MEANS, n_heads, key_dim]`.
    means: &'s mut [f32],
    /// See [`WorkerBuffers`].
    workers: PerWorker<'s>,
}

/// A worker's buffers for the bounds of a panel of pages.
struct WorkerBuffers<'s> {
    /// The mean queries as they lie for these pages, and their magnitudes: `[n_kv_heads, queries, 2, key_dim]`.
    queries: &'s mut [f32],
    /// `[n_kv_heads, queries, pages]`.
    bounds: &'s mut [f32],
    rotation: &'s mut [[f32; 2]],
}

/// One sequence's candidate pages and the queries that they are scored by.
struct Candidates<'c> {
    sequence: &'c Sequence<'c>,
    rope: &'c Rope,
    /// `[means, n_heads, key_dim]`.
    means: &'c [f32],
    /// Where each page begins.
    starts: &'c [u64],
    /// The pages' summaries, float16.
    summaries: &'c [u16],
}

impl Candidates<'_> {
    /// From how far the batch's last token sees a page; the same for all where positions turn nothing.
    fn distance(&self, page: usize) -> usize {
        let start = self.starts[page] as usize;
        if self.rope.pairs() == 0 { 0 } else { self.end() - start - position_shift(self.sequence, start) }
    }

    /// Index after the batch's last token.
    fn end(&self) -> usize {
        self.sequence.past() + self.sequence.batch().len()
    }
}

impl PageScorer {
    pub(crate) fn new(kernels: &'static Kernels, params: &Params) -> Self {
        Self {
            kernels,
            rope: params.rope,
            n_kv_heads: params.n_kv_heads,
            group: params.n_heads / params.n_kv_heads,
            key_dim: params.key_dim,
            scale: params.scale,
        }
    }

    /// Bytes of a summary: float16 `[n_kv_heads, 2, key_dim]`, rounded up to a multiple of eight.
    pub(crate) fn summary_bytes(&self) -> usize {
        (self.n_kv_heads * 2 * self.key_dim * size_of::<u16>()).next_multiple_of(8)
    }

    fn n_heads(&self) -> usize {
        self.n_kv_heads * self.group
    }

    /// Bounds of a page: one for each mean query and head.
    pub(crate) fn score_width(&self) -> usize {
        MAX_MEANS * self.n_heads()
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, rope: &Rope, workers: usize) -> Buffers<'s> {
        Buffers {
            means: scratch.take(self.score_width() * self.key_dim),
            workers: scratch.per_worker(workers, |scratch| self.worker_buffers(scratch, rope)),
        }
    }

    fn worker_buffers<'s>(&self, scratch: &mut Scratch<'s>, rope: &Rope) -> WorkerBuffers<'s> {
        WorkerBuffers {
            queries: scratch.take(self.score_width() * 2 * self.key_dim),
            bounds: scratch.take(self.score_width() * PANEL_PAGES),
            rotation: scratch.take(rope.pairs()),
        }
    }

    /// Bytes of scratch memory that [`PageScorer::score`] needs.
    pub(crate) fn scratch_bytes(&self, rope: &Rope, workers: usize) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, rope, workers))
    }

    /// Summarises a page's keys.
    pub(crate) fn summarise(&self, rope: &Rope, page: &Page<'_>, summary: &mut [u8]) {
        let (key_dim, capacity) = (self.key_dim, page.capacity());
        let keys = page.keys(self.n_kv_heads);
        let summary: &mut [u16] = bytemuck::cast_slice_mut(summary);
        let mut rotation = vec![[0.0; 2]; rope.pairs()];
        rope.turned_back(self.kernels, page.start(), &mut rotation);
        let mut key = vec![0.0_f32; key_dim];
        for (head, summary) in summary.chunks_exact_mut(2 * key_dim).take(self.n_kv_heads).enumerate() {
            let mut range = vec![[f32::INFINITY, f32::NEG_INFINITY]; key_dim];
            for slot in head * capacity..head * capacity + page.n_tokens() {
                let codes = &keys.codes[slot * key_dim..(slot + 1) * key_dim];
                for (key, code) in key.iter_mut().zip(codes) {
                    *key = keys.scales[slot] * f32::from(*code);
                }
                (self.kernels.rope)(self.rope, &mut key, &rotation);
                for ([min, max], key) in range.iter_mut().zip(&key) {
                    (*min, *max) = (min.min(*key), max.max(*key));
                }
            }
            let (middles, halves) = summary.split_at_mut(key_dim);
            for ((middle, half), [min, max]) in middles.iter_mut().zip(halves).zip(range) {
                *middle = f16::from_f32(f32::midpoint(min, max)).to_bits();
                *half = f16::from_f32((max - min) / 2.0).to_bits();
            }
        }
    }

    /// Scores the candidate pages of every sequence. `q`: rotated queries `[n_tokens, n_heads, key_dim]`; `work`: the bytes
    /// that [`PageScorer::scratch_bytes`] tells; `scores`: `score_width` elements for each page, of which the first of a
    /// sequence's become its pages' scores.
    pub(crate) fn score(
        &self,
        parallel: &Parallel<'_>,
        sequences: &Sequences<'_>,
        rope: &Rope,
        q: &[f32],
        work: &mut [u8],
        scores: &mut [f32],
    ) {
        let Buffers { means, mut workers } = self.buffers(&mut Scratch::new(work), rope, parallel.workers());
        // A sequence's bounds begin after the scores of those before it, over bounds that are done with.
        let mut done = 0;
        for sequence in sequences.iter() {
            let starts = sequence.selectable_starts();
            if !starts.is_empty() {
                let n_means = self.mean_queries(&sequence, q, means);
                let candidates = Candidates {
                    sequence: &sequence,
                    rope,
                    means: &means[..n_means * self.n_heads() * self.key_dim],
                    starts,
                    summaries: bytemuck::cast_slice(sequence.selectable_summaries()),
                };
                self.score_candidates(parallel, &candidates, &mut workers, &mut scores[done..]);
            }
            done += starts.len();
        }
    }

    /// Means of the queries of runs of a sequence's tokens, scaled; returns how many.
    fn mean_queries(&self, sequence: &Sequence<'_>, q: &[f32], means: &mut [f32]) -> usize {
        let (batch, len) = (sequence.batch(), self.n_heads() * self.key_dim);
        let count = batch.len().div_ceil(MIN_TOKENS_PER_MEAN).min(MAX_MEANS);
        for (index, mean) in means.chunks_exact_mut(len).take(count).enumerate() {
            let tokens =
                batch.start + index * batch.len() / count..batch.start + (index + 1) * batch.len() / count;
            mean.fill(0.0);
            let part = self.scale / tokens.len() as f32;
            for token in tokens {
                (self.kernels.add_scaled)(mean, part, &q[token * len..(token + 1) * len]);
            }
        }
        count
    }

    /// Scores one sequence's candidates: the first elements of `scores`.
    fn score_candidates(
        &self,
        parallel: &Parallel<'_>,
        candidates: &Candidates<'_>,
        workers: &mut PerWorker<'_>,
        scores: &mut [f32],
    ) {
        let n_pages = candidates.starts.len();
        let n_rows = candidates.means.len() / self.key_dim;
        // Bounds `[n_rows, n_pages]`, beginning where the result goes: a row's are used before the result is written.
        let bounds = &mut scores[..n_rows * n_pages];
        let parts = DisjointSlice::new(&mut *bounds);
        parallel.run_with(n_pages, workers, |pages, mut scratch| {
            let buffers = self.worker_buffers(&mut scratch, candidates.rope);
            self.bounds(candidates, pages, buffers, &parts);
        });
        let pays_off = n_rows * n_pages > SOFTMAX_ALONE_BOUNDS;
        parallel.when(pays_off).for_chunks(bounds, n_pages, &|_, row, _| (self.kernels.softmax)(row));
        let (total, rest) = bounds.split_at_mut(n_pages);
        for row in rest.chunks_exact(n_pages) {
            (self.kernels.add_scaled)(total, 1.0, row);
        }
    }

    /// The bounds of a run of candidates, for all rows of the mean queries.
    fn bounds(
        &self,
        candidates: &Candidates<'_>,
        pages: Range<usize>,
        buffers: WorkerBuffers<'_>,
        bounds: &DisjointSlice<'_, f32>,
    ) {
        let WorkerBuffers { queries, bounds: panel, rotation } = buffers;
        let (n_kv_heads, group, n_heads) = (self.n_kv_heads, self.group, self.n_heads());
        let n_queries = candidates.means.len() / (n_heads * self.key_dim) * group;
        // The row of a KV head's query: which mean's it is, and of which of the KV head's query heads.
        let row_of = |kv_head: usize, query: usize| query / group * n_heads + kv_head * group + query % group;
        let stride = self.summary_bytes() / size_of::<u16>();
        let mut queries_at = None;
        let mut first = pages.start;
        while first < pages.end {
            // Pages at the maximum distance share their queries; nearer ones have each their own.
            let distance = candidates.distance(first);
            let rest = first + 1..pages.end.min(first + PANEL_PAGES);
            let same = 1 + rest.take_while(|page| candidates.distance(*page) == distance).count();
            if queries_at.replace(distance) != Some(distance) {
                // So that the page's first token is where RoPE begins to count.
                candidates.rope.turned_back(self.kernels, candidates.end() - distance, rotation);
                let queries = queries.chunks_exact_mut(2 * self.key_dim).take(n_kv_heads * n_queries);
                for (index, query) in queries.enumerate() {
                    let row = row_of(index / n_queries, index % n_queries);
                    let mean = &candidates.means[row * self.key_dim..(row + 1) * self.key_dim];
                    self.turn_query(mean, rotation, query);
                }
            }
            let call = HeadMatmul {
                queries,
                rows: &candidates.summaries[first * stride..(first + same) * stride],
                n_heads: n_kv_heads,
                n_queries,
                width: 2 * self.key_dim,
                stride,
            };
            (self.kernels.head_matmul)(&call, panel);
            for (index, row) in panel.chunks_exact(same).take(n_kv_heads * n_queries).enumerate() {
                let at = row_of(index / n_queries, index % n_queries) * candidates.starts.len() + first;
                // SAFETY: each page is one worker's, and so its element of each row.
                unsafe { bounds.part(at..at + same) }.copy_from_slice(row);
            }
            first += same;
        }
    }

    /// Fills `query` with a mean query, turned, and its magnitudes: what a summary's middles and half widths multiply.
    fn turn_query(&self, mean: &[f32], rotation: &[[f32; 2]], query: &mut [f32]) {
        let (query, magnitudes) = query.split_at_mut(self.key_dim);
        query.copy_from_slice(mean);
        if !rotation.is_empty() {
            (self.kernels.rope)(self.rope, query, rotation);
        }
        for (magnitude, query) in magnitudes.iter_mut().zip(query) {
            *magnitude = query.abs();
        }
    }
}
