//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values of all heads are products of one latent vector of
//! each token, which is what the cache keeps. With `c` the normed latent, `r` the part of the key that carries the position:
//!
//! ```text
//! c, r       = n'(W_c n(x)), rope(W_r n(x), t)
//! q_h, p_h   = the head's query, rope(the rest of it, t)            Wq n(x), or Wqup n''(Wqdown n(x))
//! score(s)   = scale (q_h . (K_h c_s)  +  p_h . r_s)
//! a_h        = V_h sum over s of softmax(score)(s) c_s
//! ```
//!
//! `q_h . (K_h c)` is `(K_h^T q_h) . c`. So with queries `[p_h, K_h^T q_h]`, keys `[r, c]` and values `c` this is attention of
//! many query heads over one KV head, and no key is ever made of a latent.

use herald_api::{Call, Parallel, WeightRole};

use super::project::{HeadBuffers, KvSlot};
use super::{Attention, Buffers};
use crate::disjoint_slice::DisjointSlice;
use crate::linear::{Linear, Product, matmul, matmul_bytes, matmul_one};
use crate::norm::norm_rows;
use crate::parallel::ParallelExt;
use crate::scratch::{PerWorker, Scratch};
use crate::weights::Weights;

/// What is particular to latent attention.
pub(super) struct Latent<'w> {
    /// The first of two query projections, and the norm after it; the second is the layer's `query`.
    query_down: Option<(Linear<'w>, Vec<f32>)>,
    /// The norm of the latent.
    norm: Vec<f32>,
    /// `K_h^T` of each head: `[latent, key_dim]`.
    key_up: Vec<Linear<'w>>,
    /// `V_h` of each head: `[value_dim, latent]`.
    value_up: Vec<Linear<'w>>,
}

/// The buffers that latent attention has besides the others.
pub(super) struct LatentBuffers<'s> {
    /// What the first of two query projections gives, and that normed: `[n_tokens, query_rank]`.
    low: [&'s mut [f32]; 2],
    /// Queries as they are projected: `[n_tokens, n_heads, key_dim + position part]`.
    q: &'s mut [f32],
    /// The latent and the position part as they are projected: `[n_tokens, latent + position part]`.
    key: &'s mut [f32],
    /// What each head's value is: `[n_tokens, n_heads, value_dim]`.
    values: &'s mut [f32],
}

/// A worker's buffers for a head's part of a product.
struct ProductBuffers<'s> {
    x: &'s mut [f32],
    out: &'s mut [f32],
    work: &'s mut [u8],
}

/// A product that each head makes by itself, of its part of each row.
struct HeadProduct<'p, 'w> {
    linears: &'p [Linear<'w>],
    x: &'p [f32],
    /// Elements of a token in `x`, and the first of a head's part in it.
    x_stride: usize,
    x_first: &'p (dyn Fn(usize) -> usize + Sync),
    /// The same of the result.
    out_stride: usize,
    out_first: &'p (dyn Fn(usize) -> usize + Sync),
}

impl<'w> Latent<'w> {
    /// Takes the weights that only latent attention has; `None` where the layer isn't one.
    pub(super) fn new(
        weights: &mut Weights<'_, 'w>,
        params: &herald_api::Attention,
    ) -> herald_api::Result<Option<Self>> {
        if params.latent.is_none() {
            return Ok(None);
        }
        let query_down = match weights.optional_matrix(WeightRole::QueryDown)? {
            Some(down) => Some((down, weights.vector(WeightRole::QueryDownNorm)?)),
            None => None,
        };
        Ok(Some(Self {
            query_down,
            norm: weights.vector(WeightRole::LatentNorm)?,
            key_up: weights.matrices(WeightRole::KeyUp, params.n_heads)?,
            value_up: weights.matrices(WeightRole::ValueUp, params.n_heads)?,
        }))
    }

    pub(super) fn linears(&self) -> impl Iterator<Item = &Linear<'w>> + Clone {
        self.query_down.iter().map(|(down, _)| down).chain(&self.key_up).chain(&self.value_up)
    }

    pub(super) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<'w>> {
        self.query_down.iter_mut().map(|(down, _)| down).chain(&mut self.key_up).chain(&mut self.value_up)
    }

    /// Bytes of scratch memory for the products of heads by themselves.
    pub(super) fn work_bytes(&self, n_tokens: usize, workers: usize) -> usize {
        let bytes =
            |linears| Scratch::measure(|scratch| product_workers(scratch, linears, n_tokens, workers));
        bytes(&self.key_up).max(bytes(&self.value_up))
    }
}

fn product_buffers<'s>(
    scratch: &mut Scratch<'s>,
    linears: &[Linear<'_>],
    n_tokens: usize,
) -> ProductBuffers<'s> {
    let most = |of: fn(&Linear<'_>) -> usize| linears.iter().map(of).max().unwrap_or(0);
    ProductBuffers {
        x: scratch.take(n_tokens * most(|linear| linear.columns)),
        out: scratch.take(n_tokens * most(|linear| linear.rows)),
        work: scratch.take(matmul_bytes(linears, n_tokens, 1)),
    }
}

fn product_workers<'s>(
    scratch: &mut Scratch<'s>,
    linears: &[Linear<'_>],
    n_tokens: usize,
    workers: usize,
) -> PerWorker<'s> {
    scratch.per_worker(workers, |scratch| product_buffers(scratch, linears, n_tokens))
}

impl HeadProduct<'_, '_> {
    /// Heads are shared out over the workers.
    fn run(&self, parallel: &Parallel<'_>, n_tokens: usize, memory: &mut [u8], out: &mut [f32]) {
        let mut workers =
            product_workers(&mut Scratch::new(memory), self.linears, n_tokens, parallel.workers());
        let out = DisjointSlice::new(out);
        parallel.run_with(self.linears.len(), &mut workers, |heads, mut scratch| {
            for head in heads {
                let linear = &self.linears[head];
                let buffers = product_buffers(&mut scratch.reborrow(), self.linears, n_tokens);
                let x = &mut buffers.x[..n_tokens * linear.columns];
                let result = &mut buffers.out[..n_tokens * linear.rows];
                for (token, row) in x.chunks_exact_mut(linear.columns).enumerate() {
                    let first = token * self.x_stride + (self.x_first)(head);
                    row.copy_from_slice(&self.x[first..first + linear.columns]);
                }
                matmul_one(&Parallel::serial(), linear, x, n_tokens, buffers.work, result);
                for (token, row) in result.chunks_exact(linear.rows).enumerate() {
                    let first = token * self.out_stride + (self.out_first)(head);
                    // SAFETY: each head's part of each token is one worker's.
                    unsafe { out.part(first..first + linear.rows) }.copy_from_slice(row);
                }
            }
        });
    }
}

impl<'w> Attention<'w> {
    pub(super) fn latent_buffers<'s>(
        &self,
        latent: &Latent<'w>,
        scratch: &mut Scratch<'s>,
        n_tokens: usize,
    ) -> LatentBuffers<'s> {
        let rank = latent.query_down.as_ref().map_or(0, |(down, _)| down.rows);
        LatentBuffers {
            low: [scratch.take(n_tokens * rank), scratch.take(n_tokens * rank)],
            q: scratch.take(n_tokens * self.query.rows),
            key: scratch.take(n_tokens * self.params.key_dim),
            values: scratch.take(n_tokens * self.output.columns),
        }
    }

    /// Queries, latents and position parts of what `hidden` holds; latents and position parts into the tokens' slots.
    pub(super) fn project_latent(&self, latent: &Latent<'w>, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { hidden, q, k, v, work, latent: Some(own), .. } = buffers else { return };
        let (parallel, n_tokens) = (&call.parallel, call.n_tokens);
        let eps = self.desc.norm_eps;
        let Some(key) = &self.key else { return };
        let key = Product { linear: key, out: own.key };
        match &latent.query_down {
            Some((down, norm)) => {
                let [low, normed] = &mut own.low;
                matmul(parallel, hidden, n_tokens, work, &mut [key, Product { linear: down, out: low }]);
                norm_rows(self.kernels, parallel, low, norm, eps, normed);
                matmul_one(parallel, &self.query, normed, n_tokens, work, own.q);
            }
            None => {
                let query = Product { linear: &self.query, out: own.q };
                matmul(parallel, hidden, n_tokens, work, &mut [key, query]);
            }
        }
        self.place_positions(latent, call, [q, k, v], own, work);
        let (key_dim, width) = (self.params.key_dim, self.query_width());
        let own_width = self.query.rows / self.params.n_heads;
        let product = HeadProduct {
            linears: &latent.key_up,
            x: own.q,
            x_stride: self.query.rows,
            x_first: &|head| head * own_width,
            out_stride: width,
            out_first: &|head| (head + 1) * key_dim - self.params.value_dim,
        };
        product.run(parallel, n_tokens, work, q);
    }

    /// Rotates the parts of queries and keys that carry positions, norms latents, and fills the tokens' slots.
    fn place_positions(
        &self,
        latent: &Latent<'w>,
        call: &Call<'_>,
        [q, k, v]: [&mut [f32]; 3],
        own: &LatentBuffers<'_>,
        work: &mut [u8],
    ) {
        let (positions, sequences) = (call.positions, &call.sequences);
        let mut workers = self.head_workers(&mut Scratch::new(work), call.parallel.workers());
        let (key_dim, rank, width) = (self.params.key_dim, self.params.value_dim, self.query_width());
        let (own_q, own_key) = (&*own.q, &*own.key);
        let [q, k, v] = [q, k, v].map(DisjointSlice::new);
        call.parallel.run_with(positions.len(), &mut workers, |tokens, mut scratch| {
            let HeadBuffers { rotation, .. } = self.head_buffers(&mut scratch);
            for token in tokens {
                self.rope.rotation(self.kernels, positions[token], rotation);
                // SAFETY: each token is one worker's.
                let (q, k, v) = unsafe {
                    (
                        q.part(token * width..(token + 1) * width),
                        k.part(token * key_dim..(token + 1) * key_dim),
                        v.part(token * rank..(token + 1) * rank),
                    )
                };
                let key = &own_key[token * key_dim..(token + 1) * key_dim];
                k[..key_dim - rank].copy_from_slice(&key[rank..]);
                (self.kernels.rms_norm)(&key[..rank], &latent.norm, self.desc.norm_eps, v);
                k[key_dim - rank..].copy_from_slice(v);
                (self.kernels.rope)(self.params.rope, k, rotation);
                let own_q = &own_q[token * self.query.rows..(token + 1) * self.query.rows];
                let heads = own_q.chunks_exact(self.query.rows / self.params.n_heads);
                for (q, own) in q.chunks_exact_mut(key_dim).zip(heads) {
                    q[..key_dim - rank].copy_from_slice(&own[own.len() - (key_dim - rank)..]);
                    (self.kernels.rope)(self.params.rope, q, rotation);
                }
                if let Some(slot) = KvSlot::of(sequences, token) {
                    self.store(&slot, k, v);
                }
            }
        });
    }

    /// Makes each head's value of the latents that it attended to, in the place of `attended`.
    pub(super) fn latent_values<'b>(
        &self,
        latent: &Latent<'w>,
        parallel: &Parallel<'_>,
        attended: &[f32],
        own: &'b mut LatentBuffers<'_>,
        work: &mut [u8],
    ) -> &'b [f32] {
        let (rank, value_dim) = (self.params.value_dim, self.output.columns / self.params.n_heads);
        let product = HeadProduct {
            linears: &latent.value_up,
            x: attended,
            x_stride: self.params.n_heads * rank,
            x_first: &|head| head * rank,
            out_stride: self.output.columns,
            out_first: &|head| head * value_dim,
        };
        let n_tokens = attended.len() / product.x_stride;
        product.run(parallel, n_tokens, work, own.values);
        own.values
    }
}
