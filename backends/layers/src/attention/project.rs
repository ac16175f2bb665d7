//! Projections: a batch's queries, keys and values, normed and rotated, and keys and values into the KV cache.

use herald_api::{Attention as Params, Call, Page, Parallel, Sequences, WeightRole};

use super::{Attention, Buffers, HeadNorms, first_page};
use crate::disjoint_slice::DisjointSlice;
use crate::linear::{Product, matmul};
use crate::lora::Loras;
use crate::parallel::ParallelExt;
use crate::scratch::{PerWorker, Scratch};

/// Tokens from which on it pays off to wake the workers for gates.
const SHARE_FROM_TOKENS: usize = 8;

/// A worker's buffers for a token's heads.
pub(super) struct HeadBuffers<'s> {
    /// Cosines and sines of the token's position.
    pub(super) rotation: &'s mut [[f32; 2]],
    /// A normed head, or all heads where the model norms them as one.
    normed: &'s mut [f32],
}

/// Where a token's keys and values go in the cache.
pub(super) struct KvSlot<'a> {
    page: Page<'a>,
    /// The slot's index in the page.
    index: usize,
}

impl<'a> KvSlot<'a> {
    /// The slot of a token of the batch; `None` where its sequence has no page for it.
    pub(super) fn of(sequences: &Sequences<'a>, token: usize) -> Option<Self> {
        let sequence = sequences.iter().find(|sequence| sequence.batch().contains(&token))?;
        let index = sequence.past() + token - sequence.batch().start;
        // Pages' starts rise, so the token's page is the last one that begins no later.
        let page = sequence.page(first_page(&sequence, index + 1).checked_sub(1)?);
        Some(Self { page, index: index - page.start() })
    }
}

impl Attention<'_> {
    pub(super) fn head_buffers<'s>(&self, scratch: &mut Scratch<'s>) -> HeadBuffers<'s> {
        let norms = [&self.query_norms, &self.key_norms]
            .into_iter()
            .flat_map(|norms| norms.before.iter().chain(&norms.after))
            .chain(&self.value_norm);
        HeadBuffers {
            rotation: scratch.take(self.rope.pairs()),
            normed: scratch.take(norms.map(Vec::len).max().unwrap_or(0)),
        }
    }

    pub(super) fn head_workers<'s>(&self, scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        scratch.per_worker(workers, |scratch| self.head_buffers(scratch))
    }

    /// `q, k, v = Wq x, Wk x, Wv x` with `x` what `hidden` holds; norms and rotates q and k, and writes k and v to the
    /// tokens' slots.
    pub(super) fn project(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { hidden, q, gated_q, k, v, work, lora, .. } = buffers;
        let (parallel, positions, sequences) = (&call.parallel, call.positions, &call.sequences);
        let query = Product { linear: &self.query, out: if self.is_gated { gated_q } else { q } };
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => {
                let (key, value) = (Product { linear: key, out: k }, Product { linear: value, out: v });
                matmul(parallel, hidden, call.n_tokens, work, &mut [query, key, value]);
            }
            _ => matmul(parallel, hidden, call.n_tokens, work, &mut [query]),
        }
        let mut loras = Loras { kernels: self.kernels, parallel, sequences, work: lora };
        if self.is_gated {
            loras.add(WeightRole::QueryAndGate, hidden, gated_q);
        } else {
            loras.add(WeightRole::Query, hidden, q);
        }
        loras.add(WeightRole::Key, hidden, k);
        loras.add(WeightRole::Value, hidden, v);
        let mut workers = self.head_workers(&mut Scratch::new(work), parallel.workers());
        let Params { n_kv_heads, key_dim, value_dim, .. } = self.params;
        let (q_width, k_width, v_width) = (self.query_width(), n_kv_heads * key_dim, n_kv_heads * value_dim);
        let [q, k, v] = [q, k, v].map(|part| DisjointSlice::new(part));
        let gated_q = &**gated_q;
        parallel.run_with(positions.len(), &mut workers, |tokens, mut scratch| {
            let mut buffers = self.head_buffers(&mut scratch);
            for token in tokens {
                self.rope.rotation(self.kernels, positions[token], buffers.rotation);
                // SAFETY: each token is one worker's.
                let (q, k, v) = unsafe {
                    (
                        q.part(token * q_width..(token + 1) * q_width),
                        k.part(token * k_width..(token + 1) * k_width),
                        v.part(token * v_width..(token + 1) * v_width),
                    )
                };
                if self.is_gated {
                    self.take_queries(&gated_q[token * 2 * q_width..(token + 1) * 2 * q_width], q);
                }
                self.norm_and_rotate(q, &self.query_norms, &mut buffers);
                if let Some(temperature) = &self.temperature {
                    let factor = temperature.at(positions[token]);
                    q.iter_mut().for_each(|x| *x *= factor);
                }
                if self.key.is_none() {
                    continue;
                }
                self.norm_and_rotate(k, &self.key_norms, &mut buffers);
                self.norm(v, self.value_norm.as_deref(), &mut buffers);
                if let Some(slot) = KvSlot::of(sequences, token) {
                    self.store(&slot, k, v);
                }
            }
        });
    }

    /// Takes a token's queries from between its gates.
    fn take_queries(&self, gated: &[f32], queries: &mut [f32]) {
        let dim = self.params.key_dim;
        for (query, gated) in queries.chunks_exact_mut(dim).zip(gated.chunks_exact(2 * dim)) {
            query.copy_from_slice(&gated[..dim]);
        }
    }

    /// Multiplies what each head attended to by the sigmoid of its gate.
    pub(super) fn apply_gates(&self, parallel: &Parallel<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { gated_q, attended, .. } = buffers;
        let (dim, width) = (self.params.key_dim, self.query_width());
        let gated_q = &**gated_q;
        let tokens = attended.len() / width;
        parallel.when(tokens >= SHARE_FROM_TOKENS).for_chunks(attended, width, &|token, attended, _| {
            let gated = &gated_q[token * 2 * width..(token + 1) * 2 * width];
            for (attended, gated) in attended.chunks_exact_mut(dim).zip(gated.chunks_exact(2 * dim)) {
                (self.kernels.mul_sigmoid)(attended, &gated[dim..]);
            }
        });
    }

    /// Norms a token's heads, where the model does.
    fn norm(&self, heads: &mut [f32], norm: Option<&[f32]>, buffers: &mut HeadBuffers<'_>) {
        // The norm is as long as a head, or as all of them.
        if let Some(norm) = norm {
            let normed = &mut buffers.normed[..norm.len()];
            for part in heads.chunks_exact_mut(norm.len()) {
                (self.kernels.rms_norm)(part, norm, self.desc.norm_eps, normed);
                part.copy_from_slice(normed);
            }
        }
    }

    /// Rotates a token's heads, and norms them before or after, where the model does.
    fn norm_and_rotate(&self, heads: &mut [f32], norms: &HeadNorms, buffers: &mut HeadBuffers<'_>) {
        self.norm(heads, norms.before.as_deref(), buffers);
        for head in heads.chunks_exact_mut(self.params.key_dim) {
            (self.kernels.rope)(self.params.rope, head, buffers.rotation);
        }
        self.norm(heads, norms.after.as_deref(), buffers);
    }

    /// Writes a token's keys and values to its slot.
    pub(super) fn store(&self, slot: &KvSlot<'_>, keys: &[f32], values: &[f32]) {
        let n_kv_heads = self.params.n_kv_heads;
        let keys = keys.chunks_exact(self.params.key_dim);
        let values = values.chunks_exact(self.params.value_dim);
        for (head, (key, value)) in keys.zip(values).enumerate() {
            // SAFETY: the boundary has checked that the page has this shape and room for the slot; each slot is one
            // token's, and nobody reads pages before all of the batch's slots are written.
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
}
