//! Feed-forward networks: with a gate (GLU variants, arXiv 2002.05202) or without.
//!
//! ```text
//! x += residual_scale * n'(Wdown (act(Wgate n(x)) * Wup n(x)))      or without a gate  Wdown act(Wup n(x))
//! ```

use herald_api::{Call, EngineLayer, LayerDesc, LayerRequest, Mlp as Params, Result, WeightRole};

use crate::arena::{Arena, padded};
use crate::factory::Layer;
use crate::kernels::Kernels;
use crate::linear::{Linear, Product, matmul};
use crate::norm::{add_branch, enter, share_elements};
use crate::shared::Shared;
use crate::weights::Weights;

pub(crate) struct Mlp<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Option<Vec<f32>>,
    post_norm: Option<Vec<f32>>,
    gate: Option<Linear<'w>>,
    up: Linear<'w>,
    down: Linear<'w>,
    max_tokens: usize,
    max_workers: usize,
}

impl<'w> Mlp<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let mut weights = Weights::new(kernels, request);
        let layer = Self {
            kernels,
            norm: weights.optional_vector(WeightRole::Norm)?,
            post_norm: weights.optional_vector(WeightRole::PostNorm)?,
            gate: weights.optional_matrix(WeightRole::Gate)?,
            up: weights.matrix(WeightRole::Up)?,
            down: weights.matrix(WeightRole::Down)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    /// Normed activations (and later the branch), gate, up, and a share of work for each worker.
    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 4] {
        let matrices = self.gate.iter().chain([&self.up, &self.down]);
        let worker = matrices.map(|matrix| matrix.scratch_len(self.max_tokens)).max().unwrap_or(0);
        let gate = if self.gate.is_some() { n_tokens * self.params.width } else { 0 };
        [
            n_tokens * self.desc.hidden,
            gate,
            (n_tokens * self.params.width).max(self.desc.hidden),
            workers * worker,
        ]
    }
}

impl<'w> Layer<'w> for Mlp<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        self.gate.iter_mut().chain([&mut self.up, &mut self.down]).collect()
    }
}

impl EngineLayer for Mlp<'_> {
    fn weight_bytes(&self) -> usize {
        self.gate.iter().chain([&self.up, &self.down]).map(Linear::packed_bytes).sum()
    }

    fn scratch_bytes(&self) -> usize {
        self.lens(self.max_tokens, self.max_workers).into_iter().map(padded).sum()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        let lens = self.lens(n_tokens, call.parallel.workers());
        let mut arena = Arena::new(std::mem::take(&mut call.scratch));
        let (hidden, gate) = (arena.take(lens[0])?, arena.take(lens[1])?);
        let (up, work) = (arena.take(lens[2])?, arena.take(lens[3])?);
        let (kernels, parallel, width) = (self.kernels, &call.parallel, self.params.width);
        let active = n_tokens * width;
        let input = call.input.unwrap_or(call.output);
        enter(kernels, parallel, &self.desc, input, self.norm.as_deref(), hidden);
        let activation = self.params.activation;
        let inner: &[f32] = if let Some(linear) = &self.gate {
            let products = &mut [
                Product { linear, out: &mut *gate },
                Product { linear: &self.up, out: &mut up[..active] },
            ];
            matmul(parallel, hidden, n_tokens, work, products);
            let shared = Shared::new(&mut *gate);
            let up = &up[..active];
            share_elements(parallel, active, &|range| {
                // SAFETY: ranges of items don't overlap.
                (kernels.glu)(activation, unsafe { shared.part(range.clone()) }, &up[range]);
            });
            gate
        } else {
            let products = &mut [Product { linear: &self.up, out: &mut up[..active] }];
            matmul(parallel, hidden, n_tokens, work, products);
            let shared = Shared::new(&mut up[..active]);
            share_elements(parallel, active, &|range| {
                // SAFETY: ranges of items don't overlap.
                (kernels.activate)(activation, unsafe { shared.part(range) });
            });
            &up[..active]
        };
        matmul(parallel, inner, n_tokens, work, &mut [Product { linear: &self.down, out: &mut *hidden }]);
        add_branch(kernels, parallel, &self.desc, hidden, self.post_norm.as_deref(), up, call.output);
        Ok(())
    }
}
