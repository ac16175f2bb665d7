//! Mamba's selective state space (arXiv 2312.00752, algorithm 2 and section 3.4). With `x` a token's activations:
//!
//! ```text
//! u, z     = Win n(x)                              n: RMS norm
//! u        = silu(conv(u))
//! dt, B, C = n'(Wx u)                              n': a norm for each, where the model has them
//! dt       = softplus(Wdt dt + bias)
//! h        = exp(dt A) h + dt B u                  the recurrent state, by channel
//! y        = C h + D u
//! x       += residual_scale * Wout (y * silu(z))
//! ```
//!
//! The scan goes over blocks of channels, shared out over the workers, and over blocks of tokens that stay in the cache.

use std::ops::Range;

use herald_api::{
    Activation, Call, EngineLayer, Error, LayerDesc, LayerRequest, Mamba1 as Params, Result, Sequence,
    WeightRole,
};

use crate::conv::{CONV_BLOCK, Conv, Inputs};
use crate::disjoint_slice::DisjointSlice;
use crate::kernels::{Kernels, SelectiveScan};
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::norm::{add_branch, norm_rows};
use crate::parallel::ParallelExt;
use crate::recurrent_state::recurrent_state;
use crate::scratch::{PerWorker, Scratch};
use crate::weights::Weights;

/// Channels that a worker scans at a time; states are laid out in blocks of them.
const CHANNEL_BLOCK: usize = 64;

/// Tokens that a worker scans at a time.
const TOKEN_BLOCK: usize = 64;

pub(crate) struct Mamba1<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Vec<f32>,
    input: Linear<'w>,
    conv: Conv,
    /// To dt, B and C.
    x: Linear<'w>,
    dt_norm: Option<Vec<f32>>,
    b_norm: Option<Vec<f32>>,
    c_norm: Option<Vec<f32>>,
    dt: Linear<'w>,
    /// The decay, laid out as states are: for each block of channels `[state, channels of the block]`.
    a: Vec<f32>,
    d: Vec<f32>,
    output: Linear<'w>,
    max_tokens: usize,
    max_workers: usize,
}

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// `u` before the convolution, and `z`: `[n_tokens, 2 * inner]`.
    uz: &'s mut [f32],
    /// `u`: `[n_tokens, inner]`.
    u: &'s mut [f32],
    /// dt, B and C: `[n_tokens, dt_rank + 2 * state]`.
    dbc: &'s mut [f32],
    /// dt before its projection: `[n_tokens, dt_rank]`.
    low: &'s mut [f32],
    /// dt: `[n_tokens, inner]`.
    dt: &'s mut [f32],
    /// The gated output: `[n_tokens, inner]`.
    y: &'s mut [f32],
    /// For products, norms and the scan, one after the other.
    work: &'s mut [u8],
}

/// A worker's buffers for the scan of a block of tokens and channels.
struct ScanBuffers<'s> {
    /// dt after softplus: `[tokens, channels]`.
    dt: &'s mut [f32],
    /// The scan's output: `[tokens, channels]`.
    y: &'s mut [f32],
}

impl<'s> ScanBuffers<'s> {
    fn of(scratch: &mut Scratch<'s>) -> Self {
        Self { dt: scratch.take(TOKEN_BLOCK * CHANNEL_BLOCK), y: scratch.take(TOKEN_BLOCK * CHANNEL_BLOCK) }
    }

    fn for_workers(scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        scratch.per_worker(workers, ScanBuffers::of)
    }
}

impl<'w> Mamba1<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let Params { inner, state, taps, dt_rank, plain_norms } = *params;
        if inner == 0 || state == 0 || dt_rank == 0 {
            return Err(Error::invalid(format!(
                "the Mamba layer of block {} has {inner} channels with states of {state} and a dt of rank {dt_rank}, where \
                 nothing empty was expected",
                request.desc.block
            )));
        }
        let mut weights = Weights::new(kernels, request);
        let mut norm = |role, len| {
            let weight = weights.optional_vector(role)?;
            Ok::<_, Error>(weight.or_else(|| plain_norms.then(|| vec![1.0; len])))
        };
        let dt_norm = norm(WeightRole::SsmDtNorm, dt_rank)?;
        let b_norm = norm(WeightRole::SsmBNorm, state)?;
        let c_norm = norm(WeightRole::SsmCNorm, state)?;
        let a = weights.vector(WeightRole::SsmA)?;
        let layer = Self {
            kernels,
            norm: weights.vector(WeightRole::Norm)?,
            input: weights.matrix(WeightRole::InProjection)?,
            conv: Conv::new(&mut weights, request, inner, taps)?,
            x: weights.matrix(WeightRole::SsmX)?,
            dt_norm,
            b_norm,
            c_norm,
            dt: weights.biased(WeightRole::SsmDt, WeightRole::SsmDtBias)?,
            a: by_blocks(&a, state),
            d: weights.vector(WeightRole::SsmD)?,
            output: weights.matrix(WeightRole::OutProjection)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    fn linears(&self) -> [&Linear<'w>; 4] {
        [&self.input, &self.x, &self.dt, &self.output]
    }

    /// Elements of a sequence's state: the convolution's, then for each block of channels `[state, channels]`.
    fn state_len(&self) -> usize {
        self.conv.state_len() + self.params.inner * self.params.state
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        let Params { inner, dt_rank, .. } = self.params;
        Buffers {
            hidden: scratch.take(n_tokens * self.desc.hidden),
            uz: scratch.take(n_tokens * self.input.rows),
            u: scratch.take(n_tokens * inner),
            dbc: scratch.take(n_tokens * self.x.rows),
            low: scratch.take(n_tokens * dt_rank),
            dt: scratch.take(n_tokens * inner),
            y: scratch.take(n_tokens * inner),
            work: scratch.for_steps([
                matmul_bytes(self.linears(), n_tokens, workers),
                Scratch::measure(|scratch| self.normed(scratch)),
                Scratch::measure(|scratch| ScanBuffers::for_workers(scratch, workers)),
            ]),
        }
    }

    /// A row for the norm of dt, B or C.
    fn normed<'s>(&self, scratch: &mut Scratch<'s>) -> &'s mut [f32] {
        scratch.take(self.params.dt_rank.max(self.params.state))
    }

    fn blocks(&self) -> usize {
        self.params.inner.div_ceil(CHANNEL_BLOCK)
    }

    fn block(&self, index: usize) -> Range<usize> {
        index * CHANNEL_BLOCK..self.params.inner.min((index + 1) * CHANNEL_BLOCK)
    }

    /// Convolves `u` of all sequences.
    fn convolve(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let inner = self.params.inner;
        let blocks = inner.div_ceil(CONV_BLOCK);
        let u = DisjointSlice::new(&mut *buffers.u);
        let uz = &*buffers.uz;
        let sequences = &call.sequences;
        call.parallel.run(sequences.len() * blocks, &|items, _| {
            for item in items {
                let sequence = sequences.get(item / blocks);
                let first = item % blocks * CONV_BLOCK;
                let channels = first..inner.min(first + CONV_BLOCK);
                let batch = sequence.batch();
                let inputs =
                    Inputs { x: &uz[batch.start * 2 * inner..], stride: 2 * inner, n_tokens: batch.len() };
                // SAFETY: each sequence's block of channels is one worker's, in its state and in `u`.
                unsafe {
                    let state = recurrent_state(&sequence, self.state_len());
                    let out = (&u, batch.start * inner, inner);
                    self.conv.run(self.kernels, inputs, channels.clone(), &state, out);
                    for token in batch {
                        let row = u.part(token * inner + channels.start..token * inner + channels.end);
                        (self.kernels.activate)(Activation::Silu, row);
                    }
                }
            }
        });
    }

    /// Norms dt, B and C where the model does, and copies dt out.
    fn split(&self, buffers: &mut Buffers<'_>) {
        let Params { state, dt_rank, .. } = self.params;
        let normed = self.normed(&mut Scratch::new(buffers.work));
        let rows = buffers.dbc.chunks_exact_mut(self.x.rows).zip(buffers.low.chunks_exact_mut(dt_rank));
        for (row, low) in rows {
            let (dt, bc) = row.split_at_mut(dt_rank);
            let (b, c) = bc.split_at_mut(state);
            for (part, norm) in [(&mut *dt, &self.dt_norm), (b, &self.b_norm), (c, &self.c_norm)] {
                if let Some(norm) = norm {
                    let normed = &mut normed[..part.len()];
                    (self.kernels.rms_norm)(part, norm, self.desc.norm_eps, normed);
                    part.copy_from_slice(normed);
                }
            }
            low.copy_from_slice(dt);
        }
    }

    /// Scans all sequences and gates the results: `y`.
    fn scan(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let blocks = self.blocks();
        let mut workers = ScanBuffers::for_workers(&mut Scratch::new(buffers.work), call.parallel.workers());
        let y = DisjointSlice::new(&mut *buffers.y);
        let (uz, u, dbc, dt) = (&*buffers.uz, &*buffers.u, &*buffers.dbc, &*buffers.dt);
        let sequences = &call.sequences;
        call.parallel.run_with(sequences.len() * blocks, &mut workers, |items, mut scratch| {
            let mut local = ScanBuffers::of(&mut scratch);
            for item in items {
                let (sequence, channels) = (sequences.get(item / blocks), self.block(item % blocks));
                // SAFETY: each sequence's block of channels is one worker's, in its state and in `y`.
                unsafe { self.scan_block(&sequence, channels, [uz, u, dbc, dt], &mut local, &y) };
            }
        });
    }

    /// Scans one sequence's block of channels.
    ///
    /// # Safety
    /// During the call nobody else uses these channels of the state or of `y`.
    unsafe fn scan_block(
        &self,
        sequence: &Sequence<'_>,
        channels: Range<usize>,
        [uz, u, dbc, dt]: [&[f32]; 4],
        local: &mut ScanBuffers<'_>,
        y: &DisjointSlice<'_, f32>,
    ) {
        let Params { inner, state: n, dt_rank, .. } = self.params;
        let width = channels.len();
        let of_block = channels.start * n..channels.end * n;
        let first = self.conv.state_len();
        // SAFETY: the layer asked for a state of this length, and these channels are the caller's alone.
        let h = unsafe {
            recurrent_state(sequence, self.state_len()).part(first + of_block.start..first + of_block.end)
        };
        let batch = sequence.batch();
        for start in batch.clone().step_by(TOKEN_BLOCK) {
            let tokens = start..batch.end.min(start + TOKEN_BLOCK);
            let local_dt = &mut local.dt[..tokens.len() * width];
            let local_y = &mut local.y[..tokens.len() * width];
            for (local, token) in local_dt.chunks_exact_mut(width).zip(tokens.clone()) {
                local.copy_from_slice(&dt[token * inner..][channels.clone()]);
            }
            (self.kernels.softplus)(local_dt);
            let bc = &dbc[start * self.x.rows + dt_rank..];
            let scan = SelectiveScan {
                x: &u[start * inner + channels.start..],
                x_stride: inner,
                dt: local_dt,
                b: bc,
                c: &bc[n..],
                bc_stride: self.x.rows,
                a: &self.a[of_block.clone()],
                d: &self.d[channels.clone()],
                n_tokens: tokens.len(),
                channels: width,
                state: n,
            };
            (self.kernels.selective_scan)(&scan, h, local_y);
            for (local, token) in local_y.chunks_exact(width).zip(tokens) {
                // SAFETY: these channels of `y` are the caller's alone.
                let y = unsafe { y.part(token * inner + channels.start..token * inner + channels.end) };
                y.copy_from_slice(&uz[token * 2 * inner + inner..][channels.clone()]);
                (self.kernels.glu)(Activation::Silu, y, local);
            }
        }
    }
}

/// The rows `[inner, state]` as `[state, channels]` for each block of channels.
fn by_blocks(rows: &[f32], state: usize) -> Vec<f32> {
    let blocks = rows.chunks(CHANNEL_BLOCK * state);
    blocks
        .flat_map(|block| (0..state).flat_map(move |n| block.iter().skip(n).step_by(state).copied()))
        .collect()
}

impl<'w> Layer<'w> for Mamba1<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        vec![&mut self.input, &mut self.x, &mut self.dt, &mut self.output]
    }
}

impl EngineLayer for Mamba1<'_> {
    fn weight_bytes(&self) -> usize {
        self.linears().map(Linear::packed_bytes).iter().sum()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn state_bytes(&self) -> usize {
        self.state_len() * size_of::<f32>()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let mut buffers = self.buffers(&mut scratch, n_tokens, parallel.workers());
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, buffers.hidden);
        matmul_one(parallel, &self.input, buffers.hidden, n_tokens, buffers.work, buffers.uz);
        self.convolve(call, &mut buffers);
        matmul_one(parallel, &self.x, buffers.u, n_tokens, buffers.work, buffers.dbc);
        self.split(&mut buffers);
        matmul_one(parallel, &self.dt, buffers.low, n_tokens, buffers.work, buffers.dt);
        self.scan(call, &mut buffers);
        matmul_one(parallel, &self.output, buffers.y, n_tokens, buffers.work, buffers.hidden);
        add_branch(kernels, parallel, &self.desc, buffers.hidden, None, buffers.work, call.output);
        Ok(())
    }
}
