//! The gated short convolution of LFM2 (arXiv 2511.23404, section 2). With `x` a token's activations:
//!
//! ```text
//! B, C, u = Win n(x)                               n: RMS norm
//! x      += residual_scale * Wout (C * conv(B * u))
//! ```

use herald_api::{Call, EngineLayer, LayerDesc, LayerRequest, Result, ShortConv as Params, WeightRole};

use crate::arena::{Arena, padded};
use crate::conv::{CONV_BLOCK, Conv, Inputs};
use crate::factory::Layer;
use crate::kernels::Kernels;
use crate::linear::{Linear, multiply_one};
use crate::norm::{add_branch, norm_rows};
use crate::shared::Shared;
use crate::state::state;
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

    /// Normed activations (and later the branch), B, C and u, the convolution's results, and a share for each worker.
    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 4] {
        let hidden = self.desc.hidden;
        let worker = self.input.scratch_len(self.max_tokens).max(self.output.scratch_len(self.max_tokens));
        [n_tokens * hidden, n_tokens * 3 * hidden, n_tokens * hidden, workers * worker]
    }

    /// `C * conv(B * u)` of all sequences.
    fn convolve(&self, call: &Call<'_>, bcu: &mut [f32], y: &mut [f32]) {
        let hidden = self.desc.hidden;
        for row in bcu.chunks_exact_mut(3 * hidden) {
            let (bc, u) = row.split_at_mut(2 * hidden);
            (self.kernels.mul)(u, &bc[..hidden]);
        }
        let blocks = hidden.div_ceil(CONV_BLOCK);
        let y = Shared::new(y);
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
                    let state = state(&sequence, self.conv.state_len());
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
        self.lens(self.max_tokens, self.max_workers).into_iter().map(padded).sum()
    }

    fn state_bytes(&self) -> usize {
        self.conv.state_len() * size_of::<f32>()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        let lens = self.lens(n_tokens, call.parallel.workers());
        let mut arena = Arena::new(std::mem::take(&mut call.scratch));
        let (hidden, bcu) = (arena.take(lens[0])?, arena.take(lens[1])?);
        let (y, work) = (arena.take(lens[2])?, arena.take(lens[3])?);
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, hidden);
        multiply_one(parallel, &self.input, hidden, n_tokens, work, bcu);
        self.convolve(call, bcu, y);
        multiply_one(parallel, &self.output, y, n_tokens, work, hidden);
        add_branch(kernels, parallel, &self.desc, hidden, None, work, call.output);
        Ok(())
    }
}
