//! MLP layers: one feed-forward network, with a gate (GLU variants, arXiv 2002.05202) or without.
//!
//! ```text
//! x += residual_scale * n'(Wdown (act(Wgate n(x)) * Wup n(x)))      or without a gate  Wdown act(Wup n(x))
//! ```
//!
//! `n` is an RMS norm or a layer norm, `n'` an RMS norm; a model may leave either out. BERT's has a layer norm over the sum. Products
//! may have biases. In the end some models scale `x` (Gemma 4).

use herald_api::{
    Activation, Call, EngineLayer, Error, LayerDesc, LayerRequest, Mlp as Params, Result, WeightRole,
};

use crate::feed_forward::{FeedForward, check_gate};
use crate::kernels::{Kernels, Xielu};
use crate::layer::Layer;
use crate::linear::Linear;
use crate::lora::Loras;
use crate::norm::{ExitNorm, Norm, add_branch, add_branch_bytes, enter, scale_output};
use crate::scratch::Scratch;
use crate::weights::Weights;

pub(crate) struct Mlp<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    norm: Option<Norm>,
    exit_norm: Option<ExitNorm>,
    output_scale: Option<f32>,
    network: FeedForward<'w>,
    max_tokens: usize,
    max_workers: usize,
    max_lora_rank: usize,
}

impl<'w> Mlp<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        check_gate(&request.desc, params.activation, params.gated)?;
        if params.gated && params.activation == Activation::Xielu {
            return Err(Error::unsupported(format!(
                "the MLP of block {} has a gate and xIELU, which this backend doesn't know together",
                request.desc.block
            )));
        }
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            kernels,
            norm: weights.entry_norm()?,
            exit_norm: weights.exit_norm()?,
            output_scale: weights.optional_number(WeightRole::OutputScale)?,
            network: FeedForward {
                kernels,
                activation: params.activation,
                xielu: weights.optional_vector(WeightRole::Xielu)?.map(|numbers| Xielu {
                    square: numbers[0],
                    exponential: numbers[1],
                    slope: numbers[2],
                    most: numbers[3],
                }),
                gate: weights.optional_biased(WeightRole::Gate, WeightRole::GateBias)?,
                up: weights.biased(WeightRole::Up, WeightRole::UpBias)?,
                down: weights.biased(WeightRole::Down, WeightRole::DownBias)?,
            },
            desc: request.desc.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
            max_lora_rank: request.max_lora_rank,
        };
        weights.finish()?;
        Ok(layer)
    }

    /// Normed activations, later the branch's output: `[n_tokens, hidden]`; what adding low-rank updates works in; and memory for
    /// the network and the branch's norm, one after the other.
    fn buffers<'s>(
        &self,
        scratch: &mut Scratch<'s>,
        n_tokens: usize,
        workers: usize,
    ) -> (&'s mut [f32], &'s mut [f32], &'s mut [u8]) {
        (
            scratch.take(n_tokens * self.desc.hidden),
            scratch.take(n_tokens * self.max_lora_rank),
            scratch.for_steps([
                self.network.scratch_bytes(n_tokens, workers),
                add_branch_bytes(&self.desc, self.exit_norm.as_ref(), workers),
            ]),
        )
    }
}

impl<'w> Layer<'w> for Mlp<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        self.network.linears_mut().collect()
    }
}

impl EngineLayer for Mlp<'_> {
    fn weight_bytes(&self) -> usize {
        self.network.linears().map(Linear::packed_bytes).sum()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn max_lora_rank(&self) -> usize {
        self.max_lora_rank
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let (branch, work, memory) = self.buffers(&mut scratch, call.n_tokens, parallel.workers());
        let input = call.input.unwrap_or(call.output);
        enter(kernels, parallel, &self.desc, input, self.norm.as_ref(), branch);
        let loras = Loras { kernels, parallel, sequences: &call.sequences, work };
        self.network.forward(parallel, branch, memory, Some(loras));
        add_branch(kernels, parallel, &self.desc, branch, self.exit_norm.as_ref(), memory, call.output);
        scale_output(parallel, self.output_scale, call.output);
        Ok(())
    }
}
