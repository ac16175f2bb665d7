//! The gated short convolution of LFM2 (arXiv 2511.23404, section 2). With `x` a token's activations:
//!
//! ```text
//! B, C, u = Win n(x)                               n: RMS norm
//! x      += residual_scale * Wout (C * conv(B * u))
//! ```

use herald_api::{Call, EngineLayer, LayerDesc, LayerRequest, Result, ShortConv as Params, WeightRole};

use crate::conv::{CONV_BLOCK, Conv, Inputs};
use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::norm::{add_branch, norm_rows};
use crate::recurrent_state::recurrent_state;
use crate::scratch::Scratch;
use crate::weights::Weights;

pub(crate) struct ShortConv<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    norm: Vec<f32>,
    input: Linear<'w>,
    conv: Conv,
    output: Linear<'w>,
    max_tokens: usize,
    max_workers: usize,
}

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// B, C and u: `[n_tokens, 3 * hidden]`.
    bcu: &'s mut [f32],
    /// The gated output: `[n_tokens, hidden]`.
    y: &'s mut [f32],
    /// For products.
    work: &'s mut [u8],
}

impl<'w> ShortConv<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let hidden = request.desc.hidden;
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            kernels,
            norm: weights.vector(WeightRole::Norm)?,
            input: weights.matrix(WeightRole::InProjection)?,
            conv: Conv::new(&mut weights, request, hidden, params.taps)?,
            output: weights.matrix(WeightRole::OutProjection)?,
            desc: request.desc.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        let hidden = self.desc.hidden;
        Buffers {
            hidden: scratch.take(n_tokens * hidden),
            bcu: scratch.take(n_tokens * self.input.rows),
            y: scratch.take(n_tokens * hidden),
            work: scratch.take(matmul_bytes([&self.input, &self.output], n_tokens, workers)),
        }
    }

    /// `C * conv(B * u)` of all sequences.
    fn convolve(&self, call: &Call<'_>, bcu: &mut [f32], y: &mut [f32]) {
        let hidden = self.desc.hidden;
        for row in bcu.chunks_exact_mut(3 * hidden) {
            let (bc, u) = row.split_at_mut(2 * hidden);
            (self.kernels.mul)(u, &bc[..hidden]);
        }
        let blocks = hidden.div_ceil(CONV_BLOCK);
        let y = DisjointSlice::new(y);
        let bcu = &*bcu;
        let sequences = &call.sequences;
        call.parallel.run(sequences.len() * blocks, &|items, _| {
            for item in items {
                let (sequence, block) = (sequences.get(item / blocks), item % blocks);
                let channels = block * CONV_BLOCK..hidden.min((block + 1) * CONV_BLOCK);
                let batch = sequence.batch();
                let inputs = Inputs {
                    x: &bcu[batch.start * 3 * hidden + 2 * hidden..],
                    stride: 3 * hidden,
                    n_tokens: batch.len(),
                };
                // SAFETY: each sequence's block of channels is one worker's, in its state and in `y`.
                unsafe {
                    let state = recurrent_state(&sequence, self.conv.state_len());
                    let out = (&y, batch.start * hidden, hidden);
                    self.conv.run(self.kernels, inputs, channels.clone(), &state, out);
                    for token in batch {
                        let y = y.part(token * hidden + channels.start..token * hidden + channels.end);
                        (self.kernels.mul)(y, &bcu[token * 3 * hidden + hidden..][channels.clone()]);
                    }
                }
            }
        });
    }
}

impl<'w> Layer<'w> for ShortConv<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        vec![&mut self.input, &mut self.output]
    }
}

impl EngineLayer for ShortConv<'_> {
    fn weight_bytes(&self) -> usize {
        self.input.packed_bytes() + self.output.packed_bytes()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn state_bytes(&self) -> usize {
        self.conv.state_len() * size_of::<f32>()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let Buffers { hidden, bcu, y, work } = self.buffers(&mut scratch, n_tokens, parallel.workers());
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, hidden);
        matmul_one(parallel, &self.input, hidden, n_tokens, work, bcu);
        self.convolve(call, bcu, y);
        matmul_one(parallel, &self.output, y, n_tokens, work, hidden);
        add_branch(kernels, parallel, &self.desc, hidden, None, work, call.output);
        Ok(())
    }
}
