//! The output head, where logits go out: `logits[t] = cap(scale * W n(x[t]))`, with `n` an RMS norm.

use herald_api::{Call, EngineLayer, Error, Head as HeadParams, LayerDesc, LayerRequest, Result, WeightRole};

use crate::arena::{Arena, padded};
use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, Product, matmul};
use crate::norm::norm_rows;
use crate::weights::Weights;

pub(crate) struct Head<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: HeadParams,
    norm: Vec<f32>,
    matrix: Linear<'w>,
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
            norm: weights.vector(WeightRole::Norm, request.desc.hidden)?,
            matrix: weights.matrix(WeightRole::Embedding, params.vocabulary, request.desc.hidden)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 2] {
        [n_tokens * self.desc.hidden, workers * self.matrix.scratch_len(self.max_tokens)]
    }
}

impl<'w> Layer<'w> for Head<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        vec![&mut self.matrix]
    }
}

impl EngineLayer for Head<'_> {
    fn weight_bytes(&self) -> usize {
        self.matrix.packed_bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.lens(self.max_tokens, self.max_workers).into_iter().map(padded).sum()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let Some(input) = call.input else {
            return Err(Error::invalid("the head needs activations beside the room for logits"));
        };
        let lens = self.lens(call.n_tokens, call.parallel.workers());
        let mut arena = Arena::new(std::mem::take(&mut call.scratch));
        let (hidden, work) = (arena.take(lens[0])?, arena.take(lens[1])?);
        let parallel = &call.parallel;
        norm_rows(self.kernels, parallel, input, &self.norm, self.desc.norm_eps, hidden);
        let products = &mut [Product { linear: &self.matrix, out: &mut *call.output }];
        matmul(parallel, hidden, call.n_tokens, work, products);
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
