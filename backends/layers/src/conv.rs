//! Causal convolutions of channels by themselves, over a sequence that goes on from call to call.

use std::ops::Range;

use herald_api::{Error, LayerRequest, Result, WeightRole};

use crate::kernels::{Kernels, Tap};
use crate::shared::Shared;
use crate::weights::Weights;

/// The most taps that a convolution may have; models have 3 or 4.
const MOST_TAPS: usize = 16;

/// Channels that a worker takes at a time where a convolution is shared out.
pub(crate) const CONV_BLOCK: usize = 256;

/// The filters of a convolution.
pub(crate) struct Conv {
    pub(crate) channels: usize,
    taps: usize,
    /// `[taps, channels]`, the newest token's tap last.
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// What one sequence brings in a call: rows of tokens, of which the convolution reads some columns.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'x> {
    /// The first token's first channel; each next token's lies `stride` further.
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
        if taps == 0 || taps > MOST_TAPS {
            return Err(Error::invalid(format!(
                "the convolution of block {} has {taps} taps, where 1 to {MOST_TAPS} were expected",
                request.desc.block
            )));
        }
        let filters = weights.vector(WeightRole::Conv)?;
        let bias = weights.optional_vector(WeightRole::ConvBias)?;
        let mut weight = vec![0.0; taps * channels];
        for (channel, filter) in filters.chunks_exact(taps).enumerate() {
            for (tap, value) in filter.iter().enumerate() {
                weight[tap * channels + channel] = *value;
            }
        }
        Ok(Self { channels, taps, weight, bias: bias.unwrap_or_else(|| vec![0.0; channels]) })
    }

    /// Float32 elements of a sequence's state: the inputs of its last tokens, `[taps - 1, channels]`.
    pub(crate) fn state_len(&self) -> usize {
        (self.taps - 1) * self.channels
    }

    /// Convolves the channels `channels` of all of a sequence's tokens: the results go to the same columns of `out`, whose
    /// rows are `out_stride` apart, the first at `out_first`. Then keeps the last tokens' inputs in the state.
    ///
    /// # Safety
    /// Nobody else uses these channels of the state or of those rows meanwhile.
    pub(crate) unsafe fn run(
        &self,
        kernels: &Kernels,
        inputs: Inputs<'_>,
        channels: Range<usize>,
        state: &Shared<'_, f32>,
        (out, out_first, out_stride): (&Shared<'_, f32>, usize, usize),
    ) {
        let Inputs { x, stride, n_tokens } = inputs;
        let kept = self.taps - 1;
        // SAFETY: the caller vouches; each row is borrowed once, for this call.
        let past = |row: usize| unsafe {
            state.part(row * self.channels + channels.start..row * self.channels + channels.end)
        };
        let input = |token: usize| &x[token * stride + channels.start..token * stride + channels.end];
        let empty = Tap { weight: &[], input: &[] };
        for token in 0..n_tokens {
            let mut taps = [empty; MOST_TAPS];
            for (tap, slot) in taps[..self.taps].iter_mut().enumerate() {
                let first = tap * self.channels;
                // The tap falls on the token `kept - tap` places back, which may be of an earlier call.
                let place = token + tap;
                *slot = Tap {
                    weight: &self.weight[first + channels.start..first + channels.end],
                    input: if place >= kept { input(place - kept) } else { past(place) },
                };
            }
            let first = out_first + token * out_stride;
            // SAFETY: the caller vouches.
            let out = unsafe { out.part(first + channels.start..first + channels.end) };
            (kernels.conv)(&taps[..self.taps], &self.bias[channels.clone()], out);
        }
        for row in 0..kept {
            let place = row + n_tokens;
            if place >= kept {
                past(row).copy_from_slice(input(place - kept));
            } else {
                past(row).copy_from_slice(past(place));
            }
        }
    }
}
