//! The output head, where logits go out: `logits[t] = cap(scale * (W n(x[t]) + b))`, with `n` an RMS norm or a layer norm, and `b` where
//! the model has it. Without `W` the normed activations themselves.

use herald_api::{Call, EngineLayer, Error, Head as HeadParams, LayerDesc, LayerRequest, Result, WeightRole};

use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::norm::Norm;
use crate::scratch::Scratch;
use crate::weights::Weights;

pub(crate) struct Head<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: HeadParams,
    norm: Norm,
    /// None where the norm alone is wanted.
    matrix: Option<Linear<'w>>,
    max_tokens: usize,
    max_workers: usize,
}

impl<'w> Head<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &HeadParams,
    ) -> Result<Self> {
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            kernels,
            norm: weights.entry_norm()?.ok_or_else(|| Error::invalid("the head has no norm"))?,
            matrix: weights.optional_biased(WeightRole::Embedding, WeightRole::OutputBias)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    /// Normed activations `[n_tokens, hidden]`, and memory for the product.
    fn buffers<'s>(
        &self,
        scratch: &mut Scratch<'s>,
        n_tokens: usize,
        workers: usize,
    ) -> (&'s mut [f32], &'s mut [u8]) {
        (
            scratch.take(n_tokens * self.desc.hidden),
            scratch.take(matmul_bytes(&self.matrix, n_tokens, workers)),
        )
    }
}

impl<'w> Layer<'w> for Head<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        self.matrix.iter_mut().collect()
    }
}

impl EngineLayer for Head<'_> {
    fn weight_bytes(&self) -> usize {
        self.matrix.as_ref().map_or(0, Linear::packed_bytes)
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let Some(input) = call.input else {
            return Err(Error::invalid("the head needs activations beside the room for logits"));
        };
        let parallel = &call.parallel;
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let (hidden, work) = self.buffers(&mut scratch, call.n_tokens, parallel.workers());
        self.norm.rows(self.kernels, parallel, input, self.desc.norm_eps, hidden);
        match &self.matrix {
            Some(matrix) => matmul_one(parallel, matrix, hidden, call.n_tokens, work, call.output),
            None => call.output.copy_from_slice(hidden),
        }
        let HeadParams { scale, softcap, .. } = self.params;
        if scale != 1.0 {
            call.output.iter_mut().for_each(|logit| *logit *= scale);
        }
        if let Some(cap) = softcap {
            call.output.iter_mut().for_each(|logit| *logit = cap * (*logit / cap).tanh());
        }
        Ok(())
    }
}
