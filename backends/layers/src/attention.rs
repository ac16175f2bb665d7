//! Grouped-query self-attention (arXiv 2305.13245) over keys and values kept in pages.
//!
//! For each token `t` of a sequence, with `x` its activations and `h` a query head of the KV head `g`:
//!
//! ```text
//! q, k, v = Wq n(x), Wk n(x), Wv n(x)          n: RMS norm; q and k normed by head where the model has QK-norm
//! a_h     = softmax_s(scale * rope(q_h, t) . rope(k_g, s)) v_g      over the slots s <= t within the window
//! x      += residual_scale * n'(Wo a)          n': a norm of its own, where the model has one
//! ```

use std::ops::Range;

use herald_api::{
    Attention as Params, Call, EngineLayer, Error, LayerDesc, LayerRequest, Parallel, Result, RopeKind,
    Sequence, Sequences, WeightRole,
};

use crate::arena::{Arena, padded};
use crate::factory::Layer;
use crate::kernels::{Kernels, Running, Tile};
use crate::linear::{Linear, Product, multiply};
use crate::norm::{add_branch, norm_rows};
use crate::rope::Rope;
use crate::shared::Shared;
use crate::weights::Weights;

/// Tokens of a sequence whose queries go over a page together.
const TOKEN_BLOCK: usize = 16;

pub(crate) struct Attention<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Vec<f32>,
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
    /// A share for each worker.
    work: &'s mut [f32],
}

impl<'w> Attention<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let hidden = request.desc.hidden;
        check(params)?;
        let (q_rows, k_rows) = (params.n_heads * params.key_dim, params.n_kv_heads * params.key_dim);
        let (v_rows, o_columns) = (params.n_kv_heads * params.value_dim, params.n_heads * params.value_dim);
        let rope_dims = if params.rope == RopeKind::None { 0 } else { params.rope_dims };
        let mut weights = Weights::new(kernels, request);
        let factors = weights.optional_vector(WeightRole::RopeFactors, rope_dims / 2)?;
        let layer = Self {
            kernels,
            norm: weights.vector(WeightRole::Norm, hidden)?,
            post_norm: weights.optional_vector(WeightRole::PostNorm, hidden)?,
            query_norm: weights.optional_vector(WeightRole::QueryNorm, params.key_dim)?,
            key_norm: weights.optional_vector(WeightRole::KeyNorm, params.key_dim)?,
            query: weights.biased(WeightRole::Query, WeightRole::QueryBias, q_rows, hidden)?,
            key: weights.biased(WeightRole::Key, WeightRole::KeyBias, k_rows, hidden)?,
            value: weights.biased(WeightRole::Value, WeightRole::ValueBias, v_rows, hidden)?,
            output: weights.biased(
                WeightRole::AttentionOutput,
                WeightRole::AttentionOutputBias,
                hidden,
                o_columns,
            )?,
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
        let prepare = 2 * self.rope.pairs() + key_dim;
        let rows = TOKEN_BLOCK * self.group();
        // Of each row: query, output, what it sees (two numbers), maximum and sum.
        let attend =
            rows * (key_dim + value_dim + 4) + Tile::scratch_len(rows, self.page_tokens, key_dim, value_dim);
        products.max(prepare).max(attend)
    }

    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 6] {
        [
            n_tokens * self.desc.hidden,
            n_tokens * self.query.rows,
            n_tokens * self.key.rows,
            n_tokens * self.value.rows,
            n_tokens * self.output.columns,
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
            work: arena.take(lens[5])?,
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
        let share = buffers.work.len() / parallel.workers();
        let (q, k, work) = (Shared::new(buffers.q), Shared::new(buffers.k), Shared::new(buffers.work));
        let v = &*buffers.v;
        parallel.run(positions.len(), &|tokens, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            let (rotation, work) = work.split_at_mut(2 * self.rope.pairs());
            let rotation: &mut [[f32; 2]] = bytemuck::cast_slice_mut(rotation);
            let normed = &mut work[..key_dim];
            for token in tokens {
                self.rope.rotation(positions[token], rotation);
                // SAFETY: each token is one worker's.
                let (q, k) = unsafe {
                    (
                        q.part(token * q_width..(token + 1) * q_width),
                        k.part(token * k_width..(token + 1) * k_width),
                    )
                };
                for (heads, norm) in [(q, &self.query_norm), (&mut *k, &self.key_norm)] {
                    for head in heads.chunks_exact_mut(key_dim) {
                        if let Some(norm) = norm {
                            (self.kernels.rms_norm)(head, norm, self.desc.norm_eps, normed);
                            head.copy_from_slice(normed);
                        }
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
                    *key_scale = (self.kernels.narrow)(key, key_codes);
                    *value_scale = (self.kernels.narrow)(value, value_codes);
                }
            }
        });
    }

    /// Attends from each token to what it sees. Blocks of tokens and KV heads are shared out.
    fn attend(&self, parallel: &Parallel<'_>, sequences: &Sequences<'_>, buffers: &mut Buffers<'_>) {
        let n_kv_heads = self.params.n_kv_heads;
        let share = buffers.work.len() / parallel.workers();
        let (attended, work) = (Shared::new(buffers.attended), Shared::new(buffers.work));
        let q = &*buffers.q;
        let blocks = |sequence: &Sequence<'_>| sequence.batch().len().div_ceil(TOKEN_BLOCK);
        let items: usize = sequences.iter().map(|sequence| blocks(&sequence) * n_kv_heads).sum();
        parallel.run(items, &|range, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            let mut first = 0;
            for sequence in sequences.iter() {
                let items = blocks(&sequence) * n_kv_heads;
                let begin = range.start.max(first);
                let end = range.end.min(first + items);
                for item in begin..end {
                    let (block, kv_head) = ((item - first) / n_kv_heads, (item - first) % n_kv_heads);
                    let start = sequence.batch().start + block * TOKEN_BLOCK;
                    let tokens = start..sequence.batch().end.min(start + TOKEN_BLOCK);
                    self.attend_block(&sequence, tokens, kv_head, q, work, &attended);
                }
                first += items;
            }
        });
    }

    /// Attends from a block of a sequence's tokens, with the query heads of one KV head.
    fn attend_block(
        &self,
        sequence: &Sequence<'_>,
        tokens: Range<usize>,
        kv_head: usize,
        q: &[f32],
        work: &mut [f32],
        attended: &Shared<'_, f32>,
    ) {
        let Params { n_kv_heads, key_dim, value_dim, window, scale, softcap, .. } = self.params;
        let group = self.group();
        let rows = tokens.len() * group;
        let (queries, work) = work.split_at_mut(rows * key_dim);
        let (out, work) = work.split_at_mut(rows * value_dim);
        let (max, work) = work.split_at_mut(rows);
        let (sum, work) = work.split_at_mut(rows);
        let (visible, scratch) = work.split_at_mut(2 * rows);
        let visible: &mut [[u32; 2]] = bytemuck::cast_slice_mut(visible);
        let heads = kv_head * group * key_dim..(kv_head + 1) * group * key_dim;
        for (queries, token) in queries.chunks_exact_mut(group * key_dim).zip(tokens.clone()) {
            queries.copy_from_slice(&q[token * self.query.rows..][heads.clone()]);
        }
        let mut running = Running { max, sum, out };
        running.begin();
        // A token's place in its sequence; it sees the slots `place + 1 - window ..= place`.
        let place = |token: usize| sequence.past() + token - sequence.batch().start;
        let sees = |token: usize| {
            window.map_or(0, |window| (place(token) + 1).saturating_sub(window))..place(token) + 1
        };
        let block = sees(tokens.start).start..sees(tokens.end - 1).end;
        for page in sequence.pages() {
            // Tiles are the same whatever the block sees of a page, so that a token's result does not depend on the others.
            let (begin, end) = (page.start(), page.start() + page.n_tokens());
            if begin >= block.end || end <= block.start {
                continue;
            }
            for (visible, token) in visible.chunks_exact_mut(group).zip(tokens.clone()) {
                let sees = sees(token);
                let from = sees.start.clamp(begin, end) - begin;
                let to = sees.end.clamp(begin, end) - begin;
                visible.fill([from as u32, to.max(from) as u32]);
            }
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
            };
            (self.kernels.attend)(&tile, &mut running, scratch);
        }
        running.finish();
        let width = group * value_dim;
        for (row, token) in running.out.chunks_exact(width).zip(tokens) {
            let first = token * self.output.columns + kv_head * width;
            // SAFETY: each token and KV head is one worker's.
            unsafe { attended.part(first..first + width) }.copy_from_slice(row);
        }
    }
}

/// Where a token's keys and values go.
struct Slot<'a> {
    page: herald_api::Page<'a>,
    index: usize,
}

impl<'a> Slot<'a> {
    fn of(sequences: &Sequences<'a>, token: usize) -> Option<Self> {
        let sequence = sequences.iter().find(|sequence| sequence.batch().contains(&token))?;
        let place = sequence.past() + token - sequence.batch().start;
        // Pages rise, so the token's is the last one that begins no later.
        let (mut low, mut high) = (0, sequence.n_pages());
        while low < high {
            let middle = low.midpoint(high);
            if sequence.page(middle).start() <= place { low = middle + 1 } else { high = middle }
        }
        let page = sequence.page(low.checked_sub(1)?);
        Some(Self { page, index: place - page.start() })
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
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, buffers.hidden);
        multiply(
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
        self.attend(parallel, &call.sequences, &mut buffers);
        let Buffers { hidden, attended, work, .. } = buffers;
        let branch = hidden;
        multiply(parallel, attended, n_tokens, work, &mut [Product { linear: &self.output, out: branch }]);
        add_branch(kernels, &self.desc, branch, self.post_norm.as_deref(), work, call.output);
        Ok(())
    }
}
