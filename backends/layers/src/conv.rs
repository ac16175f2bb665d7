//! Causal depthwise convolutions over a sequence that continues from call to call.

use std::ops::Range;

use herald_api::{Error, LayerRequest, Result, WeightRole};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::{Kernels, Tap};
use crate::weights::Weights;

/// A convolution has at most this many taps; models have 3 or 4.
const MAX_TAPS: usize = 16;

/// Channels of a worker's item of a convolution.
pub(crate) const CONV_BLOCK: usize = 256;

/// The filters of a convolution.
pub(crate) struct Conv {
    pub(crate) channels: usize,
    taps: usize,
    /// `[taps, channels]`, the newest token's tap last.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// One sequence's tokens in a call: rows of which the convolution reads some columns.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'x> {
    /// The first token's first channel; each next token's is `stride` elements later.
    pub(crate) x: &'x [f32],
    pub(crate) stride: usize,
    pub(crate) n_tokens: usize,
}

impl Conv {
    /// Takes the filters `[channels, taps]` and the bias.
    pub(crate) fn new(
        weights: &mut Weights<'_, '_>,
        request: &LayerRequest<'_, '_>,
        channels: usize,
        taps: usize,
    ) -> Result<Self> {
        let mut conv = Self::of_role(weights, request, WeightRole::Conv, channels, taps)?;
        if let Some(bias) = weights.optional_vector(WeightRole::ConvBias)? {
            conv.bias = bias;
        }
        Ok(conv)
    }

    /// Takes the filters `[channels, taps]` of a role; there is no bias.
    pub(crate) fn of_role(
        weights: &mut Weights<'_, '_>,
        request: &LayerRequest<'_, '_>,
        role: WeightRole,
        channels: usize,
        taps: usize,
    ) -> Result<Self> {
        if taps == 0 || taps > MAX_TAPS {
            return Err(Error::invalid(format!(
                "the convolution of block {} has {taps} taps, where 1 to {MAX_TAPS} were expected",
                request.desc.block
            )));
        }
        let filters = weights.vector(role)?;
        let mut weight = vec![0.0; taps * channels];
        for (channel, filter) in filters.chunks_exact(taps).enumerate() {
            for (tap, value) in filter.iter().enumerate() {
                weight[tap * channels + channel] = *value;
            }
        }
        Ok(Self { channels, taps, weight, bias: vec![0.0; channels] })
    }

    /// Float32 elements of a sequence's state: the inputs of its last tokens, `[taps - 1, channels]`.
    pub(crate) fn state_len(&self) -> usize {
        (self.taps - 1) * self.channels
    }

    /// Convolves the channels `channels` of all of a sequence's tokens into the same columns of `out`, whose rows are
    /// `out_stride` apart, the first at `out_first`. Then keeps the last tokens' inputs in the state.
    ///
    /// # Safety
    /// During the call nobody else uses these channels of the state or of those rows.
    pub(crate) unsafe fn run(
        &self,
        kernels: &Kernels,
        inputs: Inputs<'_>,
        channels: Range<usize>,
        state: &DisjointSlice<'_, f32>,
        (out, out_first, out_stride): (&DisjointSlice<'_, f32>, usize, usize),
    ) {
        let Inputs { x, stride, n_tokens } = inputs;
        let kept = self.taps - 1;
        // SAFETY: nobody else uses these channels of the state, by this function's contract; rows don't overlap.
        let past = |row: usize| unsafe {
            state.part(row * self.channels + channels.start..row * self.channels + channels.end)
        };
        let input = |token: usize| &x[token * stride + channels.start..token * stride + channels.end];
        let empty = Tap { weight: &[], input: &[] };
        for token in 0..n_tokens {
            let mut taps = [empty; MAX_TAPS];
            for (tap, slot) in taps[..self.taps].iter_mut().enumerate() {
                let first = tap * self.channels;
                // The tap falls on the token `kept - tap` before this one, which may be of an earlier call.
                let row = token + tap;
                *slot = Tap {
                    weight: &self.weight[first + channels.start..first + channels.end],
                    input: if row >= kept { input(row - kept) } else { past(row) },
                };
            }
            let first = out_first + token * out_stride;
            // SAFETY: nobody else uses these channels of `out`, by this function's contract.
            let out = unsafe { out.part(first + channels.start..first + channels.end) };
            (kernels.conv)(&taps[..self.taps], &self.bias[channels.clone()], out);
        }
        for row in 0..kept {
            let from = row + n_tokens;
            if from >= kept {
                past(row).copy_from_slice(input(from - kept));
            } else {
                past(row).copy_from_slice(past(from));
            }
        }
    }
}
