//! Mixtures of experts (arXiv 1701.06538): feed-forward networks of which each token uses a few, and where the model has
//! one, a network that all use. With `x` a token's activations, `e` one of its `n_used` experts:
//!
//! ```text
//! s    = Wrouter n(x)                              n: RMS norm
//! p    = softmax(s)  or  sigmoid(s)                the experts of the greatest p (+ bias) are used
//! w_e  = weight_scale * p_e  (/ sum of p over the token's experts)
//! x   += residual_scale * (sum of w_e expert_e(n(x)) + sigmoid(g . n(x)) shared(n(x)))
//! ```
//!
//! Tokens are gathered by expert, so that each expert's weights are read once for all of its tokens.

use herald_api::{
    Call, EngineLayer, Error, LayerDesc, LayerRequest, Moe as Params, Parallel, Result, Routing, WeightRole,
};

use crate::arena::{Arena, padded};
use crate::factory::Layer;
use crate::kernels::Kernels;
use crate::linear::{Linear, Product, matmul, multiply_one};
use crate::norm::{add_branch, norm_rows};
use crate::shared::Shared;
use crate::weights::Weights;

/// One network: `down(act(gate(x)) * up(x))`, or without a gate `down(act(up(x)))`.
struct Expert<'w> {
    gate: Option<Linear<'w>>,
    up: Linear<'w>,
    down: Linear<'w>,
}

pub(crate) struct Moe<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Vec<f32>,
    router: Linear<'w>,
    router_bias: Option<Vec<f32>>,
    experts: Vec<Expert<'w>>,
    shared: Option<Expert<'w>>,
    shared_router: Option<Vec<f32>>,
    max_tokens: usize,
    max_workers: usize,
}

/// A token's use of an expert.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Choice {
    expert: u32,
    weight: f32,
}

/// The buffers of one forward call, all float32.
struct Buffers<'s> {
    /// Normed activations `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// The branch's output `[n_tokens, hidden]`.
    branch: &'s mut [f32],
    /// The router's scores `[n_tokens, n_experts]`.
    scores: &'s mut [f32],
    /// Each token's experts `[n_tokens, n_used]`.
    choices: &'s mut [Choice],
    /// An expert's tokens: `[n_tokens, hidden]`.
    gathered: &'s mut [f32],
    /// What it makes of them: `[n_tokens, hidden]`.
    made: &'s mut [f32],
    /// `[n_tokens, width]`.
    gate: &'s mut [f32],
    /// `[n_tokens, width]`.
    up: &'s mut [f32],
    /// A share for each worker.
    work: &'s mut [f32],
}

impl<'w> Moe<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let Params { n_experts, n_used, width, shared_width, gated, .. } = *params;
        if width == 0 || n_used == 0 || n_used > n_experts || n_experts > u32::MAX as usize {
            return Err(Error::invalid(format!(
                "the mixture of experts of block {} uses {n_used} of {n_experts} experts of width {width}, where at least one \
                 and no more than there are was expected, and nothing empty",
                request.desc.block
            )));
        }
        let mut weights = Weights::new(kernels, request);
        let gates = if gated { weights.matrices(WeightRole::ExpertsGate, n_experts)? } else { Vec::new() };
        let ups = weights.matrices(WeightRole::ExpertsUp, n_experts)?;
        let downs = weights.matrices(WeightRole::ExpertsDown, n_experts)?;
        let gates = gates.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let experts =
            ups.into_iter().zip(downs).zip(gates).map(|((up, down), gate)| Expert { gate, up, down });
        let experts = experts.collect();
        let shared = match shared_width {
            Some(_) => Some(Expert {
                gate: weights.optional_matrix(WeightRole::SharedGate)?,
                up: weights.matrix(WeightRole::SharedUp)?,
                down: weights.matrix(WeightRole::SharedDown)?,
            }),
            None => None,
        };
        let layer = Self {
            kernels,
            norm: weights.vector(WeightRole::Norm)?,
            router: weights.matrix(WeightRole::Router)?,
            router_bias: weights.optional_vector(WeightRole::RouterBias)?,
            experts,
            shared_router: weights.optional_vector(WeightRole::SharedRouter)?,
            shared,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear<'w>> {
        let networks = self.experts.iter().chain(&self.shared);
        let networks = networks.flat_map(|expert| expert.gate.iter().chain([&expert.up, &expert.down]));
        std::iter::once(&self.router).chain(networks)
    }

    fn lens(&self, n_tokens: usize, workers: usize) -> [usize; 9] {
        let Params { n_experts, n_used, width, shared_width, gated, .. } = self.params;
        let width = width.max(shared_width.unwrap_or(0));
        let worker = self.linears().map(|linear| linear.scratch_len(self.max_tokens)).max().unwrap_or(0);
        let row = n_tokens * self.desc.hidden;
        [
            row,
            row,
            n_tokens * n_experts,
            n_tokens * n_used * size_of::<Choice>() / size_of::<f32>(),
            row,
            row,
            if gated { n_tokens * width } else { 0 },
            n_tokens * width,
            workers * worker,
        ]
    }

    fn buffers<'s>(&self, call: &mut Call<'s>) -> Result<Buffers<'s>> {
        let lens = self.lens(call.n_tokens, call.parallel.workers());
        let mut arena = Arena::new(std::mem::take(&mut call.scratch));
        Ok(Buffers {
            hidden: arena.take(lens[0])?,
            branch: arena.take(lens[1])?,
            scores: arena.take(lens[2])?,
            choices: bytemuck::cast_slice_mut(arena.take(lens[3])?),
            gathered: arena.take(lens[4])?,
            made: arena.take(lens[5])?,
            gate: arena.take(lens[6])?,
            up: arena.take(lens[7])?,
            work: arena.take(lens[8])?,
        })
    }

    /// Chooses a token's experts by its scores, which become probabilities.
    fn choose(&self, scores: &mut [f32], choices: &mut [Choice]) {
        match self.params.routing {
            Routing::Sigmoid => scores.iter_mut().for_each(|score| *score = sigmoid(*score)),
            _ => softmax(scores),
        }
        let merit =
            |expert: usize| scores[expert] + self.router_bias.as_ref().map_or(0.0, |bias| bias[expert]);
        for place in 0..choices.len() {
            let (chosen, left) = choices.split_at_mut(place);
            let free = |expert: &usize| chosen.iter().all(|choice| choice.expert != *expert as u32);
            // Of equal ones the first, and where nothing compares, any.
            let best = (0..scores.len())
                .filter(free)
                .reduce(|best, expert| if merit(expert) > merit(best) { expert } else { best });
            let best = best.unwrap_or(0);
            left[0] = Choice { expert: best as u32, weight: scores[best] };
        }
        let sum: f32 = choices.iter().map(|choice| choice.weight).sum();
        let scale = self.params.weight_scale / if self.params.normalize { sum } else { 1.0 };
        choices.iter_mut().for_each(|choice| choice.weight *= scale);
    }

    /// What a network makes of `n_tokens` rows of `x`: `out`.
    fn network(
        &self,
        parallel: &Parallel<'_>,
        expert: &Expert<'_>,
        x: &[f32],
        [gate, up, work]: [&mut [f32]; 3],
        out: &mut [f32],
    ) {
        let n_tokens = x.len() / self.desc.hidden;
        let active = n_tokens * expert.up.rows;
        let (activation, kernels) = (self.params.activation, self.kernels);
        let up = &mut up[..active];
        let inner: &[f32] = if let Some(linear) = &expert.gate {
            let gate = &mut gate[..active];
            let products =
                &mut [Product { linear, out: &mut *gate }, Product { linear: &expert.up, out: &mut *up }];
            matmul(parallel, x, n_tokens, work, products);
            let shared = Shared::new(&mut *gate);
            parallel.run(active, &|range, _| {
                // SAFETY: ranges of items don't overlap.
                (kernels.glu)(activation, unsafe { shared.part(range.clone()) }, &up[range]);
            });
            gate
        } else {
            multiply_one(parallel, &expert.up, x, n_tokens, work, up);
            let shared = Shared::new(&mut *up);
            parallel.run(active, &|range, _| {
                // SAFETY: ranges of items don't overlap.
                (kernels.activate)(activation, unsafe { shared.part(range) });
            });
            up
        };
        multiply_one(parallel, &expert.down, inner, n_tokens, work, out);
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

impl<'w> Layer<'w> for Moe<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        let networks = self.experts.iter_mut().chain(&mut self.shared);
        let networks =
            networks.flat_map(|expert| expert.gate.iter_mut().chain([&mut expert.up, &mut expert.down]));
        std::iter::once(&mut self.router).chain(networks).collect()
    }
}

impl EngineLayer for Moe<'_> {
    fn weight_bytes(&self) -> usize {
        self.linears().map(Linear::packed_bytes).sum()
    }

    fn scratch_bytes(&self) -> usize {
        self.lens(self.max_tokens, self.max_workers).into_iter().map(padded).sum()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let (n_tokens, width) = (call.n_tokens, self.desc.hidden);
        let Buffers { hidden, branch, scores, choices, gathered, made, gate, up, work } =
            self.buffers(call)?;
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let Params { n_experts, n_used, .. } = self.params;
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, hidden);
        multiply_one(parallel, &self.router, hidden, n_tokens, work, scores);
        for (scores, choices) in scores.chunks_exact_mut(n_experts).zip(choices.chunks_exact_mut(n_used)) {
            self.choose(scores, choices);
        }
        match &self.shared {
            Some(shared) => {
                self.network(parallel, shared, hidden, [&mut *gate, &mut *up, &mut *work], branch);
                if let Some(router) = &self.shared_router {
                    for (row, x) in branch.chunks_exact_mut(width).zip(hidden.chunks_exact(width)) {
                        let weight = sigmoid((kernels.dot)(router, x));
                        row.iter_mut().for_each(|value| *value *= weight);
                    }
                }
            }
            None => branch.fill(0.0),
        }
        for (index, expert) in self.experts.iter().enumerate() {
            // The tokens that use it, with their weights.
            let users = choices.chunks_exact(n_used).enumerate().filter_map(|(token, choices)| {
                let choice = choices.iter().find(|choice| choice.expert as usize == index)?;
                Some((token, choice.weight))
            });
            let mut count = 0;
            for ((token, _), row) in users.clone().zip(gathered.chunks_exact_mut(width)) {
                row.copy_from_slice(&hidden[token * width..(token + 1) * width]);
                count += 1;
            }
            if count == 0 {
                continue;
            }
            let made = &mut made[..count * width];
            let x = &gathered[..count * width];
            self.network(parallel, expert, x, [&mut *gate, &mut *up, &mut *work], made);
            for ((token, weight), row) in users.zip(made.chunks_exact(width)) {
                (kernels.add_scaled)(&mut branch[token * width..(token + 1) * width], weight, row);
            }
        }
        add_branch(kernels, parallel, &self.desc, branch, None, work, call.output);
        Ok(())
    }
}
