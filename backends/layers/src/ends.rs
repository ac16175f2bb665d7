//! Where tokens come in and logits go out: the embedding and the output head.

use herald_api::{
    Call, Embedding as EmbeddingParams, EngineLayer, Error, Head as HeadParams, LayerDesc, LayerRequest,
    Result, WeightRole,
};

use crate::arena::{Arena, padded};
use crate::factory::Layer;
use crate::kernels::Kernels;
use crate::linear::{Linear, Product, Rows, matmul};
use crate::norm::norm_rows;
use crate::weights::Weights;

/// `output[t] = scale * E[tokens[t]]`.
pub(crate) struct Embedding<'w> {
    desc: LayerDesc,
    params: EmbeddingParams,
    matrix: Rows<'w>,
}

impl<'w> Embedding<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &EmbeddingParams,
    ) -> Result<Self> {
        let mut weights = Weights::new(kernels, request);
        let matrix = weights.rows(WeightRole::Embedding)?;
        weights.finish()?;
        Ok(Self { desc: request.desc.clone(), params: params.clone(), matrix })
    }
}

impl<'w> Layer<'w> for Embedding<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        Vec::new()
    }
}

impl EngineLayer for Embedding<'_> {
    fn scratch_bytes(&self) -> usize {
        0
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        if call.tokens.len() != call.n_tokens {
            return Err(Error::invalid("the embedding needs each token's id"));
        }
        for (token, out) in call.tokens.iter().zip(call.output.chunks_exact_mut(self.desc.hidden)) {
            if *token as usize >= self.params.vocabulary {
                return Err(Error::invalid(format!(
                    "the token {token} is outside the vocabulary of {} tokens",
                    self.params.vocabulary
                )));
            }
            self.matrix.row(*token as usize, out);
            if self.params.scale != 1.0 {
                out.iter_mut().for_each(|value| *value *= self.params.scale);
            }
        }
        Ok(())
    }
}

/// `logits[t] = cap(scale * W n(x[t]))`.
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
            norm: weights.vector(WeightRole::Norm)?,
            matrix: weights.matrix(WeightRole::Embedding)?,
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
