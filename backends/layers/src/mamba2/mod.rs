//! Mamba-2's state space duality (arXiv 2405.21060, section 7). With `x` a token's activations, and for each head a number
//! `dt` and a state `h` of `[head_dim, state]`:
//!
//! ```text
//! z, u, B, C, dt = Win n(x)                        n: RMS norm
//! u, B, C        = silu(conv(u, B, C))             B and C belong to a group of heads
//! dt             = softplus(dt + bias)
//! h              = exp(dt A) h + dt u B^T          the recurrent state, by head
//! y              = h C + D u
//! x             += residual_scale * Wout n'(y * silu(z))      n': RMS norm by groups, where the model has one
//! ```
//!
//! Few tokens of a sequence go one by one, many in chunks (module `chunk`). Workers share out the heads.

mod chunk;

use std::ops::Range;

use herald_api::{
    Activation, Call, EngineLayer, Error, LayerDesc, LayerRequest, Mamba2 as Params, Parallel, Result,
    Sequence, WeightRole,
};

use crate::arena::{Arena, padded};
use crate::conv::{CONV_BLOCK, Conv, Inputs};
use crate::factory::Layer;
use crate::kernels::{Kernels, SsdStep};
use crate::linear::{Linear, multiply_one};
use crate::norm::{add_branch, norm_rows};
use crate::shared::Shared;
use crate::state::state;
use crate::weights::Weights;

use chunk::CHUNK;

/// Tokens of a sequence from which on they go in chunks.
const CHUNKS_FROM: usize = 16;

/// Tokens from which on a batch's convolutions are shared out over the workers.
const SHARE_FROM: usize = 8;

/// Whether a sequence's tokens go in chunks.
fn in_chunks(sequence: &Sequence<'_>) -> bool {
    sequence.batch().len() >= CHUNKS_FROM
}

pub(crate) struct Mamba2<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Vec<f32>,
    input: Linear<'w>,
    conv: Conv,
    dt_bias: Vec<f32>,
    a: Vec<f32>,
    d: Vec<f32>,
    gated_norm: Option<Vec<f32>>,
    output: Linear<'w>,
    max_tokens: usize,
    max_workers: usize,
}

/// The buffers of one forward call, all float32.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// The input projection: `[n_tokens, 2 * inner + 2 * n_groups * state + n_heads]`.
    projected: &'s mut [f32],
    /// u, B and C after the convolution: `[n_tokens, channels]`; later the normed output `[n_tokens, inner]`.
    ubc: &'s mut [f32],
    /// The gated output: `[n_tokens, inner]`.
    y: &'s mut [f32],
    /// Of each group, for each token its products with its chunk's tokens: `[n_groups, n_tokens, CHUNK]`.
    products: &'s mut [f32],
    /// Of each group, for each chunk its B as `[state, tokens]`: `[n_groups, n_tokens, state]`.
    b_columns: &'s mut [f32],
    /// A share for each worker.
    work: &'s mut [f32],
}

impl<'w> Mamba2<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let Params { inner, state, taps, n_heads, n_groups } = *params;
        let divides = |n: usize, of: usize| n > 0 && of > 0 && of.is_multiple_of(n);
        if state == 0
            || !divides(n_heads, inner)
            || !divides(n_groups, n_heads)
            || n_groups.checked_mul(state).is_none()
        {
            return Err(Error::invalid(format!(
                "the Mamba-2 layer of block {} has {inner} channels in {n_heads} heads in {n_groups} groups with states of \
                 {state}, where a multiple each was expected, and nothing empty",
                request.desc.block
            )));
        }
        let channels = inner + 2 * n_groups * state;
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            kernels,
            norm: weights.vector(WeightRole::Norm)?,
            input: weights.matrix(WeightRole::InProjection)?,
            conv: Conv::new(&mut weights, request, channels, taps)?,
            dt_bias: weights.vector(WeightRole::SsmDtBias)?,
            a: weights.vector(WeightRole::SsmA)?,
            d: weights.vector(WeightRole::SsmD)?,
            gated_norm: weights.optional_vector(WeightRole::SsmNorm)?,
            output: weights.matrix(WeightRole::OutProjection)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    /// Channels of a head.
    fn head_dim(&self) -> usize {
        self.params.inner / self.params.n_heads
    }

    /// Elements of a sequence's state: the convolution's, then for each head `[head_dim, state]`.
    fn state_len(&self) -> usize {
        self.conv.state_len() + self.params.inner * self.params.state
    }

    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 7] {
        let Params { inner, state, n_groups, .. } = self.params;
        let products = [&self.input, &self.output].map(|linear| linear.scratch_len(self.max_tokens));
        let in_chunks = if n_tokens < CHUNKS_FROM { 0 } else { n_tokens };
        let worker = products[0].max(products[1]).max(chunk::scratch_len(self.head_dim(), state));
        [
            n_tokens * self.desc.hidden,
            n_tokens * self.input.rows,
            n_tokens * self.conv.channels,
            n_tokens * inner,
            n_groups * in_chunks * CHUNK,
            n_groups * in_chunks * state,
            workers * worker,
        ]
    }

    fn buffers<'s>(&self, call: &mut Call<'s>) -> Result<Buffers<'s>> {
        let lens = self.lens(call.n_tokens, call.parallel.workers());
        let mut arena = Arena::new(std::mem::take(&mut call.scratch));
        Ok(Buffers {
            hidden: arena.take(lens[0])?,
            projected: arena.take(lens[1])?,
            ubc: arena.take(lens[2])?,
            y: arena.take(lens[3])?,
            products: arena.take(lens[4])?,
            b_columns: arena.take(lens[5])?,
            work: arena.take(lens[6])?,
        })
    }

    /// Convolves some of a sequence's channels.
    ///
    /// # Safety
    /// Nobody else uses these channels of the state or of `ubc` meanwhile.
    unsafe fn convolve(
        &self,
        sequence: &Sequence<'_>,
        channels: Range<usize>,
        projected: &[f32],
        ubc: &Shared<'_, f32>,
    ) {
        let (stride, width, batch) = (self.input.rows, self.conv.channels, sequence.batch());
        let inputs = Inputs {
            x: &projected[batch.start * stride + self.params.inner..],
            stride,
            n_tokens: batch.len(),
        };
        // SAFETY: the layer asked for a state of this length; the caller vouches for the channels.
        unsafe {
            let state = state(sequence, self.state_len());
            self.conv.run(self.kernels, inputs, channels.clone(), &state, (ubc, batch.start * width, width));
            for token in batch {
                let row = ubc.part(token * width + channels.start..token * width + channels.end);
                (self.kernels.activate)(Activation::Silu, row);
            }
        }
    }

    /// Convolves what heads share, B and C, of all sequences, and of those that go in chunks u too. (In steps a head
    /// convolves its own u.)
    fn convolve_shared(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let channels = self.conv.channels;
        let blocks = channels.div_ceil(CONV_BLOCK);
        let ubc = Shared::new(&mut *buffers.ubc);
        let projected = &*buffers.projected;
        let sequences = &call.sequences;
        let convolve = |items: Range<usize>, _: usize| {
            for item in items {
                let sequence = sequences.get(item / blocks);
                let from = if in_chunks(&sequence) { 0 } else { self.params.inner };
                let block = item % blocks * CONV_BLOCK;
                let block = block.max(from)..channels.min(block + CONV_BLOCK);
                if !block.is_empty() {
                    // SAFETY: each sequence's block of channels is one worker's.
                    unsafe { self.convolve(&sequence, block, projected, &ubc) };
                }
            }
        };
        let items = sequences.len() * blocks;
        if call.n_tokens < SHARE_FROM { convolve(0..items, 0) } else { call.parallel.run(items, &convolve) }
    }

    /// Takes all heads of all sequences through the recurrence, and gates the results: `y`.
    fn heads(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let n_heads = self.params.n_heads;
        let share = buffers.work.len() / call.parallel.workers();
        let Buffers { ubc, y, work, projected, products, b_columns, .. } = buffers;
        let (ubc, y, work) = (Shared::new(ubc), Shared::new(y), Shared::new(work));
        let (projected, products, b_columns) = (&**projected, &**products, &**b_columns);
        let (sequences, n_tokens) = (&call.sequences, call.n_tokens);
        call.parallel.run(sequences.len() * n_heads, &|items, worker| {
            // SAFETY: no two tasks that run at once have the same worker.
            let work = unsafe { work.part(worker * share..(worker + 1) * share) };
            for item in items {
                let (sequence, head) = (sequences.get(item / n_heads), item % n_heads);
                let channels = head * self.head_dim()..(head + 1) * self.head_dim();
                // SAFETY: each sequence's head is one worker's, and B and C nobody writes any more.
                unsafe {
                    if in_chunks(&sequence) {
                        let chunks = [products, b_columns];
                        self.chunks(&sequence, n_tokens, head, projected, &ubc, chunks, work, &y);
                    } else {
                        self.convolve(&sequence, channels, projected, &ubc);
                        self.steps(&sequence, head, projected, &ubc, work, &y);
                    }
                }
            }
        });
    }

    /// The head's part of a sequence's state.
    ///
    /// # Safety
    /// Nobody else uses it while the result lives.
    unsafe fn head_state<'a>(&self, sequence: &Sequence<'a>, head: usize) -> &'a mut [f32] {
        let len = self.head_dim() * self.params.state;
        let first = self.conv.state_len() + head * len;
        // SAFETY: the layer asked for a state of this length; the caller vouches for the head's part.
        unsafe { state(sequence, self.state_len()).part(first..first + len) }
    }

    /// A head's tokens one by one.
    ///
    /// # Safety
    /// Nobody else uses the head's part of the state, of `ubc` and of `y`, and nobody writes B and C.
    unsafe fn steps(
        &self,
        sequence: &Sequence<'_>,
        head: usize,
        projected: &[f32],
        ubc: &Shared<'_, f32>,
        work: &mut [f32],
        y: &Shared<'_, f32>,
    ) {
        let (n, dim) = (self.params.state, self.head_dim());
        // SAFETY: the caller vouches.
        let h = unsafe { self.head_state(sequence, head) };
        let out = &mut work[..dim];
        for token in sequence.batch() {
            let dt = &mut [self.dt(projected, token, head)];
            (self.kernels.softplus)(dt);
            // SAFETY: the caller vouches: u is the head's own, B and C are only read.
            let [u, b, c] = unsafe { self.ubc(ubc, token, head) };
            let step = SsdStep { x: u, b, c, decay: (dt[0] * self.a[head]).exp(), dt: dt[0] };
            debug_assert_eq!(h.len(), dim * n);
            (self.kernels.ssd_step)(&step, h, out);
            // SAFETY: the caller vouches.
            unsafe { self.gate(token, head, projected, u, out, y) };
        }
    }

    /// A head's dt of a token before softplus.
    fn dt(&self, projected: &[f32], token: usize, head: usize) -> f32 {
        projected[(token + 1) * self.input.rows - self.params.n_heads + head] + self.dt_bias[head]
    }

    /// A token's u of a head, and B and C of its group.
    ///
    /// # Safety
    /// Nobody writes them while the result lives.
    unsafe fn ubc<'a>(&self, ubc: &Shared<'a, f32>, token: usize, head: usize) -> [&'a [f32]; 3] {
        let Params { inner, state: n, n_heads, n_groups, .. } = self.params;
        let (first, dim) = (token * self.conv.channels, self.head_dim());
        let group = head / (n_heads / n_groups);
        let b = first + inner + group * n;
        let c = b + n_groups * n;
        // SAFETY: the caller vouches.
        unsafe {
            [ubc.read(first + head * dim..first + (head + 1) * dim), ubc.read(b..b + n), ubc.read(c..c + n)]
        }
    }

    /// Adds the skip to a head's output of one token and gates it: into `y`.
    ///
    /// # Safety
    /// Nobody else uses the head's part of `y`.
    unsafe fn gate(
        &self,
        token: usize,
        head: usize,
        projected: &[f32],
        u: &[f32],
        out: &mut [f32],
        y: &Shared<'_, f32>,
    ) {
        let (inner, dim) = (self.params.inner, self.head_dim());
        let channels = head * dim..(head + 1) * dim;
        (self.kernels.add_scaled)(out, self.d[head], u);
        // SAFETY: the caller vouches.
        let y = unsafe { y.part(token * inner + channels.start..token * inner + channels.end) };
        y.copy_from_slice(&projected[token * self.input.rows..][channels]);
        (self.kernels.glu)(Activation::Silu, y, out);
    }

    /// Norms the gated output by groups: the first `[n_tokens, inner]` elements of `normed`.
    fn norm_groups(&self, parallel: &Parallel<'_>, weight: &[f32], y: &[f32], normed: &mut [f32]) {
        let inner = self.params.inner;
        let group = inner / self.params.n_groups;
        let n_tokens = y.len() / inner;
        let normed = Shared::new(normed);
        let norm = |tokens: Range<usize>, _: usize| {
            for token in tokens {
                for (index, weight) in weight.chunks_exact(group).enumerate() {
                    let part = token * inner + index * group..token * inner + (index + 1) * group;
                    // SAFETY: each token is one worker's.
                    let normed = unsafe { normed.part(part.clone()) };
                    (self.kernels.rms_norm)(&y[part], weight, self.desc.norm_eps, normed);
                }
            }
        };
        if n_tokens < SHARE_FROM { norm(0..n_tokens, 0) } else { parallel.run(n_tokens, &norm) }
    }
}

impl<'w> Layer<'w> for Mamba2<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        vec![&mut self.input, &mut self.output]
    }
}

impl EngineLayer for Mamba2<'_> {
    fn weight_bytes(&self) -> usize {
        self.input.packed_bytes() + self.output.packed_bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.lens(self.max_tokens, self.max_workers).into_iter().map(padded).sum()
    }

    fn state_bytes(&self) -> usize {
        self.state_len() * size_of::<f32>()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        let mut buffers = self.buffers(call)?;
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, buffers.hidden);
        multiply_one(parallel, &self.input, buffers.hidden, n_tokens, buffers.work, buffers.projected);
        self.convolve_shared(call, &mut buffers);
        self.prepare_chunks(call, &mut buffers);
        self.heads(call, &mut buffers);
        let Buffers { hidden, ubc, y, work, .. } = buffers;
        let gated: &[f32] = match &self.gated_norm {
            Some(weight) => {
                self.norm_groups(parallel, weight, y, ubc);
                &ubc[..n_tokens * self.params.inner]
            }
            None => y,
        };
        multiply_one(parallel, &self.output, gated, n_tokens, work, hidden);
        add_branch(kernels, parallel, &self.desc, hidden, None, work, call.output);
        Ok(())
    }
}
