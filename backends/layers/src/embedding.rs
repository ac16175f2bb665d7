//! The embedding, where tokens come in: `output[t] = n(scale * E[tokens[t]] + P[positions[t]] + y)`, with learned positions `P`, BERT's token
//! type `y` and the layer norm `n` where a model has them.

use herald_api::{
    Call, Embedding as EmbeddingParams, EngineLayer, Error, LayerDesc, LayerRequest, Result, WeightRole,
};

use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, Rows};
use crate::norm::Norm;
use crate::scratch::Scratch;
use crate::weights::Weights;

pub(crate) struct Embedding<'w> {
    desc: LayerDesc,
    params: EmbeddingParams,
    matrix: Rows<'w>,
    positions: Option<Rows<'w>>,
    token_type: Option<Vec<f32>>,
    norm: Option<Norm>,
    kernels: &'static Kernels,
}

impl<'w> Embedding<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &EmbeddingParams,
    ) -> Result<Self> {
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            desc: request.desc.clone(),
            params: params.clone(),
            matrix: weights.rows(WeightRole::Embedding)?,
            positions: weights.optional_rows(WeightRole::PositionEmbedding)?,
            token_type: weights.optional_vector(WeightRole::TypeEmbedding)?,
            norm: weights.layer_norm(WeightRole::LayerNorm, WeightRole::LayerNormBias)?,
            kernels,
        };
        weights.finish()?;
        Ok(layer)
    }

    /// A row for what is added to a token, or for its norm.
    fn row<'s>(&self, scratch: &mut Scratch<'s>) -> &'s mut [f32] {
        // A call without scratch memory has none that is aligned.
        if self.positions.is_none() && self.norm.is_none() {
            return &mut [];
        }
        scratch.take(self.desc.hidden)
    }

    /// Adds the embedding of a position.
    fn add_position(&self, position: Option<u32>, row: &mut [f32], out: &mut [f32]) -> Result<()> {
        let (Some(rows), Some(known)) = (&self.positions, self.params.positions) else { return Ok(()) };
        match position.map(|position| position as usize).filter(|position| *position < known) {
            Some(position) => rows.row(position, row),
            None => {
                return Err(Error::invalid(format!(
                    "a token is at position {}, where the model knows {known} positions, from 0 on",
                    position.map_or("none".to_owned(), |position| position.to_string())
                )));
            }
        }
        (self.kernels.add_scaled)(out, 1.0, row);
        Ok(())
    }
}

impl<'w> Layer<'w> for Embedding<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        Vec::new()
    }
}

impl EngineLayer for Embedding<'_> {
    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.row(scratch))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        if call.tokens.len() != call.n_tokens {
            return Err(Error::invalid("the embedding needs each token's id"));
        }
        let row = self.row(&mut Scratch::new(std::mem::take(&mut call.scratch)));
        let rows = call.output.chunks_exact_mut(self.desc.hidden);
        for (index, (token, out)) in call.tokens.iter().zip(rows).enumerate() {
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
            self.add_position(call.positions.get(index).copied(), row, out)?;
            if let Some(token_type) = &self.token_type {
                (self.kernels.add_scaled)(out, 1.0, token_type);
            }
            if let Some(norm) = &self.norm {
                norm.row(self.kernels, out, self.desc.norm_eps, row);
                out.copy_from_slice(row);
            }
        }
        Ok(())
    }
}
