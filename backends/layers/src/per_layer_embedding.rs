//! Per-layer embeddings (Gemma 3n and 4). With `x` a token's activations, `E` the embedding, and `T` a table of which each block has
//! columns of its own:
//!
//! ```text
//! p  = (n(a Wprojection b E[token]) + c T[token]) / sqrt(2)           n: RMS norm; a, b, c: scales
//! x += residual_scale * n'(Wdown (act(Wgate x) * p))
//! x *= output_scale                                                   where the model has one
//! ```
//!
//! `p` follows from the token alone: what other engines compute for all blocks at the beginning and keep, each block computes when
//! it is there, of the same rows.

use herald_api::{
    Call, EngineLayer, Error, LayerDesc, LayerRequest, PerLayerEmbedding as Params, Result, WeightRole,
};

use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, Rows, matmul_bytes, matmul_one};
use crate::norm::{ExitNorm, add_branch, add_branch_bytes, scale_output};
use crate::parallel::ParallelExt;
use crate::scratch::Scratch;
use crate::weights::Weights;

pub(crate) struct PerLayerEmbedding<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    embedding: Rows<'w>,
    table: Rows<'w>,
    projection: Linear<'w>,
    norm: Vec<f32>,
    gate: Linear<'w>,
    down: Linear<'w>,
    post_norm: Option<ExitNorm>,
    output_scale: Option<f32>,
    max_tokens: usize,
    max_workers: usize,
}

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Embeddings, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// Projected embeddings: `[n_tokens, width]`.
    projected: &'s mut [f32],
    /// `p`: `[n_tokens, width]`.
    own: &'s mut [f32],
    /// `[n_tokens, width]`.
    gate: &'s mut [f32],
    /// A part of a row of the table, in whole blocks of its type.
    row: &'s mut [f32],
    work: &'s mut [u8],
}

impl<'w> PerLayerEmbedding<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let Params { width, table_width, first, vocabulary, .. } = *params;
        if width == 0 || vocabulary == 0 || first.checked_add(width).is_none_or(|end| end > table_width) {
            return Err(Error::invalid(format!(
                "the per-layer embedding of block {} has the elements {first} to {first} + {width} of {table_width} of \
                 {vocabulary} tokens, where some within a row were expected, and nothing empty",
                request.desc.block
            )));
        }
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            kernels,
            embedding: weights.rows(WeightRole::Embedding)?,
            table: weights.rows(WeightRole::PerLayerTable)?,
            projection: weights.matrix(WeightRole::PerLayerProjection)?,
            norm: weights.vector(WeightRole::PerLayerNorm)?,
            gate: weights.matrix(WeightRole::Gate)?,
            down: weights.matrix(WeightRole::Down)?,
            post_norm: weights.exit_norm()?,
            output_scale: weights.optional_number(WeightRole::OutputScale)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    fn linears(&self) -> [&Linear<'w>; 3] {
        [&self.projection, &self.gate, &self.down]
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        let width = self.params.width;
        Buffers {
            hidden: scratch.take(n_tokens * self.desc.hidden),
            projected: scratch.take(n_tokens * width),
            own: scratch.take(n_tokens * width),
            gate: scratch.take(n_tokens * width),
            row: scratch.take(self.table.part_len(self.params.first, width)),
            work: scratch.for_steps([
                matmul_bytes(self.linears(), n_tokens, workers),
                add_branch_bytes(&self.desc, self.post_norm.as_ref(), workers),
            ]),
        }
    }

    /// `p` of each token.
    fn of_tokens(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { hidden, projected, own, row, work, .. } = buffers;
        let Params { width, first, embedding_scale, table_scale, projection_scale, .. } = self.params;
        for (token, out) in call.tokens.iter().zip(hidden.chunks_exact_mut(self.desc.hidden)) {
            self.embedding.row(*token as usize, out);
            out.iter_mut().for_each(|value| *value *= embedding_scale);
        }
        matmul_one(&call.parallel, &self.projection, hidden, call.n_tokens, work, projected);
        let rows = projected.chunks_exact_mut(width).zip(own.chunks_exact_mut(width));
        for (token, (projected, own)) in call.tokens.iter().zip(rows) {
            projected.iter_mut().for_each(|value| *value *= projection_scale);
            (self.kernels.rms_norm)(projected, &self.norm, self.desc.norm_eps, own);
            let part = self.table.part(*token as usize, first, width, row);
            for (own, part) in own.iter_mut().zip(part) {
                *own = (*own + table_scale * part) * std::f32::consts::FRAC_1_SQRT_2;
            }
        }
    }
}

impl<'w> Layer<'w> for PerLayerEmbedding<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        vec![&mut self.projection, &mut self.gate, &mut self.down]
    }
}

impl EngineLayer for PerLayerEmbedding<'_> {
    fn weight_bytes(&self) -> usize {
        self.linears().map(Linear::packed_bytes).iter().sum()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        if let Some(token) = call.tokens.iter().find(|token| **token as usize >= self.params.vocabulary) {
            return Err(Error::invalid(format!(
                "the token {token} is outside the vocabulary of {} tokens",
                self.params.vocabulary
            )));
        }
        if call.tokens.len() != n_tokens {
            return Err(Error::invalid("the per-layer embedding needs each token's id"));
        }
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let mut buffers = self.buffers(&mut scratch, n_tokens, call.parallel.workers());
        self.of_tokens(call, &mut buffers);
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let Buffers { hidden, own, gate, work, .. } = buffers;
        let input = call.input.unwrap_or(call.output);
        matmul_one(parallel, &self.gate, &input[..n_tokens * self.desc.hidden], n_tokens, work, gate);
        let activation = self.params.activation;
        parallel.run_elements(gate, |range, gate| (kernels.glu)(activation, gate, &own[range]));
        matmul_one(parallel, &self.down, gate, n_tokens, work, hidden);
        add_branch(kernels, parallel, &self.desc, hidden, self.post_norm.as_ref(), work, call.output);
        scale_output(parallel, self.output_scale, call.output);
        Ok(())
    }
}
