//! The embedding, where tokens come in: `output[t] = scale * E[tokens[t]]`.

use herald_api::{
    Call, Embedding as EmbeddingParams, EngineLayer, Error, LayerDesc, LayerRequest, Result, WeightRole,
};

use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, Rows};
use crate::weights::Weights;

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
