//! Choosing among far pages: what attention would find in a page, told from a summary of its keys.
//!
//! A page's summary is, channel by channel, the middle and the half width of the box that its keys lie in. No key `k` of
//! the page has a product with the query `q` above
//!
//! ```text
//! bound(q) = sum_i max(q_i min_i, q_i max_i) = q . middle + |q| . half        (Quest, arXiv 2406.10774)
//! ```
//!
//! For each of a few queries of the batch and each head the bounds of all far pages go through a softmax: the part of the
//! attention that each page could have. A page's score is the sum of its parts.
//!
//! Keys are stored as RoPE turned them. A summary is of keys turned back by the position of the page's first token, so
//! that a page that is seen from as far as the layer's reach (see [`moved`]) meets the same query wherever it lies.

use std::ops::Range;

use half::f16;
use herald_api::{Attention as Params, Page, Parallel, RopeKind, Sequence, Sequences};

use crate::kernels::{HeadMatmul, Kernels};
use crate::rope::Rope;
use crate::shared::Shared;

/// Means of queries that a batch's tokens are represented by, at most.
const MOST_QUERIES: usize = 4;

/// Fewest tokens that share a mean.
const FEWEST_TOKENS: usize = 32;

/// Bounds up to which their softmax takes less time than waking the workers.
const ALONE: usize = 1 << 13;

/// Pages whose bounds are made at once.
const PANEL: usize = 128;

/// How many positions a sequence's queries are moved back for a page that begins at `start`: so many that between its
/// first token and the batch's last there are no more than the reach.
pub(crate) fn moved(sequence: &Sequence<'_>, start: usize) -> usize {
    let end = sequence.past() + sequence.batch().len();
    sequence.max_distance().map_or(0, |reach| (end - start).saturating_sub(reach.max(1)))
}

/// Scores of far pages for one attention layer.
pub(crate) struct Far {
    kernels: &'static Kernels,
    rope: RopeKind,
    n_kv_heads: usize,
    group: usize,
    key_dim: usize,
    scale: f32,
}

impl Far {
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

    /// Bytes of a summary: float16 `[n_kv_heads, 2, key_dim]`, in whole eights.
    pub(crate) fn summary_bytes(&self) -> usize {
        (self.n_kv_heads * 2 * self.key_dim * size_of::<u16>()).next_multiple_of(8)
    }

    /// Rows of bounds: for each query its heads.
    pub(crate) fn score_width(&self) -> usize {
        MOST_QUERIES * self.n_kv_heads * self.group
    }

    /// Float32 elements that a worker needs: queries as they meet a page, bounds of a panel of pages, a rotation.
    pub(crate) fn worker_len(&self, rope: &Rope) -> usize {
        self.score_width() * (2 * self.key_dim + PANEL) + 2 * rope.pairs()
    }

    /// Elements that all workers share: the means of queries, `[queries, n_heads, key_dim]`.
    pub(crate) fn shared_len(&self) -> usize {
        self.score_width() * self.key_dim
    }

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

    /// Scores the far pages of every sequence. `q`: rotated queries `[n_tokens, n_heads, key_dim]`; `means`: memory of
    /// `shared_len`; `work`: `worker_len` for each worker; `scores`: `score_width` for each far page.
    pub(crate) fn score(
        &self,
        parallel: &Parallel<'_>,
        sequences: &Sequences<'_>,
        rope: &Rope,
        q: &[f32],
        [means, work]: [&mut [f32]; 2],
        scores: &mut [f32],
    ) {
        // The scores of one sequence are made in memory that those of the ones before it don't need.
        let mut done = 0;
        for sequence in sequences.iter() {
            let n_far = sequence.selectable_starts().len();
            if n_far > 0 {
                let queries = self.means(&sequence, q, means);
                self.score_sequence(
                    parallel,
                    &sequence,
                    rope,
                    &means[..queries * self.row_len()],
                    work,
                    &mut scores[done..],
                );
            }
            done += n_far;
        }
    }

    /// Elements of a token's queries.
    fn row_len(&self) -> usize {
        self.n_kv_heads * self.group * self.key_dim
    }

    /// Means of the queries of runs of a sequence's tokens, scaled; returns how many.
    fn means(&self, sequence: &Sequence<'_>, q: &[f32], means: &mut [f32]) -> usize {
        let (batch, len) = (sequence.batch(), self.row_len());
        let count = batch.len().div_ceil(FEWEST_TOKENS).min(MOST_QUERIES);
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

    fn score_sequence(
        &self,
        parallel: &Parallel<'_>,
        sequence: &Sequence<'_>,
        rope: &Rope,
        means: &[f32],
        work: &mut [f32],
        scores: &mut [f32],
    ) {
        let starts = sequence.selectable_starts();
        let summaries: &[u16] = bytemuck::cast_slice(sequence.selectable_summaries(self.summary_bytes()));
        let (n_far, share) = (starts.len(), work.len() / parallel.workers());
        let n_rows = means.len() / self.key_dim;
        // Bounds `[n_rows, n_far]`, beginning where the result goes: a row's bounds are used before the result is written.
        let bounds = Shared::new(&mut scores[..n_rows * n_far]);
        let work = Shared::new(work);
        parallel.run(n_far, &|pages, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            self.bounds(sequence, rope, means, summaries, pages, work, &bounds);
        });
        // Each row's softmax, in place.
        let softmax = |rows: Range<usize>, _| {
            for row in rows {
                // SAFETY: each row is one worker's.
                let row = unsafe { bounds.part(row * n_far..(row + 1) * n_far) };
                (self.kernels.softmax)(row);
            }
        };
        if n_rows * n_far <= ALONE {
            softmax(0..n_rows, 0)
        } else {
            parallel.run(n_rows, &softmax)
        }
        let (total, rest) = scores[..n_rows * n_far].split_at_mut(n_far);
        for row in rest.chunks_exact(n_far) {
            (self.kernels.add_scaled)(total, 1.0, row);
        }
    }

    /// The bounds of a run of far pages, for all rows of `means`.
    #[expect(clippy::too_many_arguments, reason = "the state of one loop")]
    fn bounds(
        &self,
        sequence: &Sequence<'_>,
        rope: &Rope,
        means: &[f32],
        summaries: &[u16],
        pages: Range<usize>,
        work: &mut [f32],
        bounds: &Shared<'_, f32>,
    ) {
        let (key_dim, group, n_kv_heads, width) =
            (self.key_dim, self.group, self.n_kv_heads, 2 * self.key_dim);
        let (queries, work) = work.split_at_mut(self.score_width() * width);
        let (out, work) = work.split_at_mut(self.score_width() * PANEL);
        let rotation: &mut [[f32; 2]] = bytemuck::cast_slice_mut(&mut work[..2 * rope.pairs()]);
        let end = sequence.past() + sequence.batch().len();
        let starts = sequence.selectable_starts();
        let n_heads = n_kv_heads * group;
        let n_queries = means.len() / (n_heads * key_dim) * group;
        // Of a KV head's queries, which mean's they are and of which of its query heads.
        let row_of = |kv_head: usize, query: usize| query / group * n_heads + kv_head * group + query % group;
        let stride = self.summary_bytes() / size_of::<u16>();
        // Pages that are seen from as far as the reach meet the same queries; a nearer one has its own, where positions turn
        // them at all.
        let distance = |page: usize| {
            let start = starts[page] as usize;
            if rope.pairs() == 0 { 0 } else { (end - start) - moved(sequence, start) }
        };
        let mut met = None;
        let mut first = pages.start;
        while first < pages.end {
            let farthest = distance(first);
            let rest = first + 1..pages.end.min(first + PANEL);
            let same = 1 + rest.take_while(|page| distance(*page) == farthest).count();
            if met.replace(farthest) != Some(farthest) {
                // From the batch's last token so far back that the page's first token is where RoPE begins to count.
                rope.turned_back(self.kernels, end - farthest, rotation);
                for (index, query) in queries.chunks_exact_mut(width).take(n_kv_heads * n_queries).enumerate()
                {
                    let row = row_of(index / n_queries, index % n_queries);
                    let (query, sizes) = query.split_at_mut(key_dim);
                    query.copy_from_slice(&means[row * key_dim..(row + 1) * key_dim]);
                    if rope.pairs() > 0 {
                        (self.kernels.rope)(self.rope, query, rotation);
                    }
                    for (size, query) in sizes.iter_mut().zip(query) {
                        *size = query.abs();
                    }
                }
            }
            let call = HeadMatmul {
                queries,
                rows: &summaries[first * stride..(first + same) * stride],
                n_heads: n_kv_heads,
                n_queries,
                width,
                stride,
            };
            (self.kernels.head_matmul)(&call, out);
            for (index, out) in out.chunks_exact(same).take(n_kv_heads * n_queries).enumerate() {
                let at = row_of(index / n_queries, index % n_queries) * starts.len() + first;
                // SAFETY: each page's place in each row is one worker's.
                unsafe { bounds.part(at..at + same) }.copy_from_slice(out);
            }
            first += same;
        }
    }
}
