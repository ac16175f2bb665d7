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
//! A sequence with few tokens goes token by token, one with many in chunks (module `chunk`). Heads are shared out over the
//! workers.

mod chunk;

use std::ops::Range;

use herald_api::{
    Activation, Call, EngineLayer, Error, LayerDesc, LayerRequest, Mamba2 as Params, Result, Sequence,
    WeightRole,
};

use crate::conv::{CONV_BLOCK, Conv, Inputs};
use crate::disjoint_slice::DisjointSlice;
use crate::kernels::{Kernels, SsdStep};
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::norm::{add_branch, norm_groups, norm_rows};
use crate::parallel::ParallelExt;
use crate::recurrent_state::recurrent_state;
use crate::scratch::{PerWorker, Scratch};
use crate::weights::Weights;

use chunk::{CHUNK, GroupBuffers, HeadBuffers};

/// A sequence with at least this many tokens in the batch goes in chunks.
const CHUNKS_FROM_TOKENS: usize = 16;

/// Tokens from which on it pays off to wake the workers for a batch's convolutions.
const SHARE_FROM_TOKENS: usize = 8;

/// Whether a sequence's tokens go in chunks.
fn in_chunks(sequence: &Sequence<'_>) -> bool {
    sequence.batch().len() >= CHUNKS_FROM_TOKENS
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

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// The input projection: `[n_tokens, 2 * inner + 2 * n_groups * state + n_heads]`.
    projected: &'s mut [f32],
    /// u, B and C after the convolution: `[n_tokens, channels]`; later the normed output `[n_tokens, inner]`.
    ubc: &'s mut [f32],
    /// The gated output: `[n_tokens, inner]`.
    y: &'s mut [f32],
    /// `C_t . B_s` within each chunk, for each group: `[n_groups, n_tokens, CHUNK]`.
    products: &'s mut [f32],
    /// B of each chunk transposed, `[state, tokens]`, for each group: `[n_groups, n_tokens, state]`.
    b_columns: &'s mut [f32],
    /// For products, the preparation of chunks, and the recurrence, one after the other.
    work: &'s mut [u8],
}

/// What the recurrence of all heads reads and fills.
struct Recurrence<'r> {
    /// Tokens of the batch.
    n_tokens: usize,
    projected: &'r [f32],
    /// A head's part of u is its own, and so is its part of `y`; B and C are only read.
    ubc: DisjointSlice<'r, f32>,
    y: DisjointSlice<'r, f32>,
    products: &'r [f32],
    b_columns: &'r [f32],
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

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        let Params { inner, state, n_groups, .. } = self.params;
        let in_chunks = if n_tokens < CHUNKS_FROM_TOKENS { 0 } else { n_tokens };
        Buffers {
            hidden: scratch.take(n_tokens * self.desc.hidden),
            projected: scratch.take(n_tokens * self.input.rows),
            ubc: scratch.take(n_tokens * self.conv.channels),
            y: scratch.take(n_tokens * inner),
            products: scratch.take(n_groups * in_chunks * CHUNK),
            b_columns: scratch.take(n_groups * in_chunks * state),
            work: scratch.for_steps([
                matmul_bytes([&self.input, &self.output], n_tokens, workers),
                Scratch::measure(|scratch| self.for_groups(scratch, workers)),
                Scratch::measure(|scratch| self.for_heads(scratch, workers)),
            ]),
        }
    }

    /// Each worker's memory for preparing the chunks of a group of heads.
    fn for_groups<'s>(&self, scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        scratch.per_worker(workers, |scratch| GroupBuffers::of(scratch, CHUNK, self.params.state))
    }

    /// Each worker's memory for the recurrence of a head, in chunks or token by token.
    fn for_heads<'s>(&self, scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        let (dim, state) = (self.head_dim(), self.params.state);
        scratch.per_worker(workers, |scratch| {
            scratch.for_steps([
                Scratch::measure(|scratch| HeadBuffers::of(scratch, CHUNK, dim, state)),
                Scratch::measure(|scratch| self.step_output(scratch)),
            ]);
        })
    }

    /// A head's output of one token.
    fn step_output<'s>(&self, scratch: &mut Scratch<'s>) -> &'s mut [f32] {
        scratch.take(self.head_dim())
    }

    /// Convolves some of a sequence's channels.
    ///
    /// # Safety
    /// During the call nobody else uses these channels of the state or of `ubc`.
    unsafe fn convolve(
        &self,
        sequence: &Sequence<'_>,
        channels: Range<usize>,
        projected: &[f32],
        ubc: &DisjointSlice<'_, f32>,
    ) {
        let (stride, width, batch) = (self.input.rows, self.conv.channels, sequence.batch());
        let inputs = Inputs {
            x: &projected[batch.start * stride + self.params.inner..],
            stride,
            n_tokens: batch.len(),
        };
        // SAFETY: the layer asked for a state of this length, and these channels are the caller's alone.
        unsafe {
            let state = recurrent_state(sequence, self.state_len());
            self.conv.run(self.kernels, inputs, channels.clone(), &state, (ubc, batch.start * width, width));
            for token in batch {
                let row = ubc.part(token * width + channels.start..token * width + channels.end);
                (self.kernels.activate)(Activation::Silu, row);
            }
        }
    }

    /// Convolves B and C, which heads share, of all sequences, and u of those that go in chunks. (Token by token, each head
    /// convolves its own u.)
    fn convolve_shared(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let channels = self.conv.channels;
        let blocks = channels.div_ceil(CONV_BLOCK);
        let ubc = DisjointSlice::new(&mut *buffers.ubc);
        let projected = &*buffers.projected;
        let sequences = &call.sequences;
        let items = sequences.len() * blocks;
        call.parallel.when(call.n_tokens >= SHARE_FROM_TOKENS).run(items, &|items, _| {
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
        });
    }

    /// Takes all heads of all sequences through the recurrence, and gates the results: `y`.
    fn heads(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let n_heads = self.params.n_heads;
        let Buffers { ubc, y, work, projected, products, b_columns, .. } = buffers;
        let mut workers = self.for_heads(&mut Scratch::new(work), call.parallel.workers());
        let recurrence = Recurrence {
            n_tokens: call.n_tokens,
            projected,
            ubc: DisjointSlice::new(ubc),
            y: DisjointSlice::new(y),
            products,
            b_columns,
        };
        let sequences = &call.sequences;
        call.parallel.run_with(sequences.len() * n_heads, &mut workers, |items, mut scratch| {
            for item in items {
                let scratch = scratch.reborrow();
                let (sequence, head) = (sequences.get(item / n_heads), item % n_heads);
                let channels = head * self.head_dim()..(head + 1) * self.head_dim();
                // SAFETY: each sequence's head is one worker's, and nobody writes B and C any more.
                unsafe {
                    if in_chunks(&sequence) {
                        self.chunks(&sequence, head, &recurrence, scratch);
                    } else {
                        self.convolve(&sequence, channels, projected, &recurrence.ubc);
                        self.steps(&sequence, head, &recurrence, scratch);
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
        // SAFETY: the layer asked for a state of this length, and the head's part is the caller's alone.
        unsafe { recurrent_state(sequence, self.state_len()).part(first..first + len) }
    }

    /// A head's tokens one by one.
    ///
    /// # Safety
    /// Nobody else uses the head's part of the state, of `ubc` and of `y`, and nobody writes B and C.
    unsafe fn steps(
        &self,
        sequence: &Sequence<'_>,
        head: usize,
        recurrence: &Recurrence<'_>,
        mut scratch: Scratch<'_>,
    ) {
        let (n, dim) = (self.params.state, self.head_dim());
        // SAFETY: the head's state is the caller's alone.
        let h = unsafe { self.head_state(sequence, head) };
        let out = self.step_output(&mut scratch);
        for token in sequence.batch() {
            let dt = &mut [self.dt(recurrence.projected, token, head)];
            (self.kernels.softplus)(dt);
            // SAFETY: u is the head's own, and nobody writes B and C.
            let [u, b, c] = unsafe { self.ubc(&recurrence.ubc, token, head) };
            let step = SsdStep { x: u, b, c, decay: libm::expf(dt[0] * self.a[head]), dt: dt[0] };
            debug_assert_eq!(h.len(), dim * n);
            (self.kernels.ssd_step)(&step, h, out);
            // SAFETY: the head's part of `y` is the caller's alone.
            unsafe { self.gate(token, head, u, out, recurrence) };
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
    unsafe fn ubc<'a>(&self, ubc: &DisjointSlice<'a, f32>, token: usize, head: usize) -> [&'a [f32]; 3] {
        let Params { inner, state: n, n_heads, n_groups, .. } = self.params;
        let (first, dim) = (token * self.conv.channels, self.head_dim());
        let group = head / (n_heads / n_groups);
        let b = first + inner + group * n;
        let c = b + n_groups * n;
        // SAFETY: nobody writes them, by this function's contract.
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
        u: &[f32],
        out: &mut [f32],
        recurrence: &Recurrence<'_>,
    ) {
        let (inner, dim) = (self.params.inner, self.head_dim());
        let channels = head * dim..(head + 1) * dim;
        (self.kernels.add_scaled)(out, self.d[head], u);
        // SAFETY: the head's part of `y` is the caller's alone.
        let y = unsafe { recurrence.y.part(token * inner + channels.start..token * inner + channels.end) };
        y.copy_from_slice(&recurrence.projected[token * self.input.rows..][channels]);
        (self.kernels.glu)(Activation::Silu, y, out);
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
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        // Chunks add in another order than steps.
        self.kernels.batch_invariant_tokens().min(CHUNKS_FROM_TOKENS - 1)
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
        matmul_one(parallel, &self.input, buffers.hidden, n_tokens, buffers.work, buffers.projected);
        self.convolve_shared(call, &mut buffers);
        self.prepare_chunks(call, &mut buffers);
        self.heads(call, &mut buffers);
        let Buffers { hidden, ubc, y, work, .. } = buffers;
        let gated: &[f32] = match &self.gated_norm {
            Some(weight) => {
                let groups = (&weight[..], self.params.inner / self.params.n_groups);
                norm_groups(kernels, parallel, y, groups, self.desc.norm_eps, ubc);
                &ubc[..n_tokens * self.params.inner]
            }
            None => y,
        };
        matmul_one(parallel, &self.output, gated, n_tokens, work, hidden);
        add_branch(kernels, parallel, &self.desc, hidden, None, work, call.output);
        Ok(())
    }
}
