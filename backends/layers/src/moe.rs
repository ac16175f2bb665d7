//! Mixtures of experts (arXiv 1701.06538): feed-forward networks of which each token uses a few, and in some models a shared
//! network that every token uses. With `x` a token's activations, `e` one of its `n_used` experts:
//!
//! ```text
//! s    = Wrouter n(x)                              n: RMS norm
//! p    = softmax(s)  or  sigmoid(s)                the experts of the greatest p (+ bias) are used
//! w_e  = weight_scale * p_e  (/ sum of p over the token's experts)
//! x   += residual_scale * (sum of w_e expert_e(n(x)) + sigmoid(g . n(x)) shared(n(x)))
//! ```
//!
//! In Llama 4 the weight is the input's: `expert_e(w_e n(x))`.
//!
//! Tokens are gathered by expert, so that each expert's weights are read once for all of its tokens.

use herald_api::{
    Activation, Call, EngineLayer, Error, LayerDesc, LayerRequest, Moe as Params, Result, Routing, WeightRole,
};

use crate::feed_forward::FeedForward;
use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::norm::{add_branch, norm_rows};
use crate::scratch::Scratch;
use crate::weights::Weights;

pub(crate) struct Moe<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Vec<f32>,
    router: Linear<'w>,
    router_bias: Option<Vec<f32>>,
    /// All of one shape and element type.
    experts: Vec<FeedForward<'w>>,
    shared: Option<FeedForward<'w>>,
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

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Normed activations `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// The branch's output `[n_tokens, hidden]`.
    branch: &'s mut [f32],
    /// The router's scores `[n_tokens, n_experts]`.
    scores: &'s mut [f32],
    /// Each token's experts `[n_tokens, n_used]`.
    choices: &'s mut [Choice],
    /// An expert's tokens, and what it makes of them: `[n_tokens, hidden]`.
    gathered: &'s mut [f32],
    /// For the router and one network at a time.
    memory: &'s mut [u8],
}

impl<'w> Moe<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        let Params { n_experts, n_used, width, shared_width, gated, activation, .. } = *params;
        if width == 0 || n_used == 0 || n_used > n_experts || n_experts > u32::MAX as usize {
            return Err(Error::invalid(format!(
                "the mixture of experts of block {} uses {n_used} of {n_experts} experts of width {width}, where at least one \
                 and no more than there are was expected, and nothing empty",
                request.desc.block
            )));
        }
        if activation == Activation::Xielu {
            return Err(Error::unsupported(format!(
                "the mixture of experts of block {} has xIELU, which this backend knows of MLPs alone",
                request.desc.block
            )));
        }
        let mut weights = Weights::new(kernels, request);
        let gates = if gated { weights.matrices(WeightRole::ExpertsGate, n_experts)? } else { Vec::new() };
        let ups = weights.matrices(WeightRole::ExpertsUp, n_experts)?;
        let downs = weights.matrices(WeightRole::ExpertsDown, n_experts)?;
        let gates = gates.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let experts = ups.into_iter().zip(downs).zip(gates);
        let experts = experts.map(|((up, down), gate)| FeedForward {
            kernels,
            activation,
            xielu: None,
            gate,
            up,
            down,
        });
        let experts = experts.collect();
        let shared = match shared_width {
            Some(_) => Some(FeedForward {
                kernels,
                activation,
                xielu: None,
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

    fn networks(&self) -> impl Iterator<Item = &FeedForward<'w>> {
        self.experts.iter().chain(&self.shared)
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        let Params { n_experts, n_used, .. } = self.params;
        let hidden = self.desc.hidden;
        let bytes = |network: &FeedForward<'_>| network.scratch_bytes(n_tokens, workers);
        Buffers {
            hidden: scratch.take(n_tokens * hidden),
            branch: scratch.take(n_tokens * hidden),
            scores: scratch.take(n_tokens * n_experts),
            choices: scratch.take(n_tokens * n_used),
            gathered: scratch.take(n_tokens * hidden),
            memory: scratch.for_steps([
                matmul_bytes([&self.router], n_tokens, workers),
                self.experts.first().map_or(0, bytes),
                self.shared.as_ref().map_or(0, bytes),
            ]),
        }
    }

    /// Chooses a token's experts by its scores, which become probabilities.
    fn choose(&self, scores: &mut [f32], choices: &mut [Choice]) {
        match self.params.routing {
            Routing::Sigmoid | Routing::SigmoidOfInput => {
                scores.iter_mut().for_each(|score| *score = sigmoid(*score))
            }
            _ => router_softmax(scores),
        }
        let merit =
            |expert: usize| scores[expert] + self.router_bias.as_ref().map_or(0.0, |bias| bias[expert]);
        for place in 0..choices.len() {
            let (chosen, left) = choices.split_at_mut(place);
            let free = |expert: &usize| chosen.iter().all(|choice| choice.expert != *expert as u32);
            // The first of equals; any where scores are NaN.
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
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The softmax of the router's scores. Not the kernels': that rounds `exp` differently from one instruction set to another,
/// and a token's experts and their weights are to follow from its scores alone.
fn router_softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

impl<'w> Layer<'w> for Moe<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        let networks = self.experts.iter_mut().chain(&mut self.shared);
        std::iter::once(&mut self.router).chain(networks.flat_map(FeedForward::linears_mut)).collect()
    }
}

impl EngineLayer for Moe<'_> {
    fn weight_bytes(&self) -> usize {
        let linears = std::iter::once(&self.router).chain(self.networks().flat_map(FeedForward::linears));
        linears.map(Linear::packed_bytes).sum()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let (n_tokens, width) = (call.n_tokens, self.desc.hidden);
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let Buffers { hidden, branch, scores, choices, gathered, memory } =
            self.buffers(&mut scratch, n_tokens, parallel.workers());
        let Params { n_experts, n_used, routing, .. } = self.params;
        let weighs_input = routing == Routing::SigmoidOfInput;
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, hidden);
        matmul_one(parallel, &self.router, hidden, n_tokens, memory, scores);
        for (scores, choices) in scores.chunks_exact_mut(n_experts).zip(choices.chunks_exact_mut(n_used)) {
            self.choose(scores, choices);
        }
        match &self.shared {
            Some(shared) => {
                branch.copy_from_slice(hidden);
                shared.forward(parallel, branch, memory);
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
            for ((token, weight), row) in users.clone().zip(gathered.chunks_exact_mut(width)) {
                row.copy_from_slice(&hidden[token * width..(token + 1) * width]);
                if weighs_input {
                    row.iter_mut().for_each(|value| *value *= weight);
                }
                count += 1;
            }
            if count == 0 {
                continue;
            }
            let gathered = &mut gathered[..count * width];
            expert.forward(parallel, gathered, memory);
            for ((token, weight), row) in users.zip(gathered.chunks_exact(width)) {
                let weight = if weighs_input { 1.0 } else { weight };
                (kernels.add_scaled)(&mut branch[token * width..(token + 1) * width], weight, row);
            }
        }
        add_branch(kernels, parallel, &self.desc, branch, None, memory, call.output);
        Ok(())
    }
}
