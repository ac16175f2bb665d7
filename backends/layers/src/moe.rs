//! Mixtures of experts (arXiv 1701.06538): feed-forward networks of which each token uses a few, and in some models a shared
//! network that every token uses. With `x` a token's activations, `e` one of its `n_used` experts:
//!
//! ```text
//! s    = Wrouter n(x) (+ bias)                     n: RMS norm
//! p    = softmax(s)  or  sigmoid(s)                the experts of the greatest p (+ bias) are used, of all experts or of
//!                                                  those of the best groups
//! w_e  = weight_scale * p_e  (/ sum of p over the token's experts)
//! x   += residual_scale * (sum of w_e expert_e(n(x)) + sigmoid(g . n(x)) shared(n(x)))
//! ```
//!
//! In Gemma 4 the shared network has an entry norm of its own, both sums are normed before they are added, and so is the router's
//! entry; each expert has a scale.
//! In Llama 4 the weight is the input's: `expert_e(w_e n(x))`.
//!
//! Tokens are gathered by expert, so that each expert's weights are read once for all of its tokens.

use herald_api::{
    Activation, Call, EngineLayer, Error, LayerDesc, LayerRequest, Moe as Params, Parallel, Result, Routing,
    WeightRole,
};

use crate::feed_forward::{FeedForward, check_gate};
use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::norm::{ExitNorm, add_branch, add_branch_bytes, norm_rows, scale_output};
use crate::scratch::Scratch;
use crate::weights::Weights;

/// Tokens of a batch whose experts are asked for before they are read.
const ASKED_TOKENS: usize = 8;

/// Groups of experts of a layer at most; models have 8.
const MAX_GROUPS: usize = 256;

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
    /// Of the router's own entry, divided by the root of the hidden size.
    router_norm: Option<Vec<f32>>,
    expert_scales: Option<Vec<f32>>,
    shared_norm: Option<Vec<f32>>,
    shared_post_norm: Option<Vec<f32>>,
    experts_post_norm: Option<Vec<f32>>,
    post_norm: Option<ExitNorm>,
    output_scale: Option<f32>,
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
    /// What all experts make of each token, where that is normed: `[n_tokens, hidden]`.
    together: &'s mut [f32],
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
        check_groups(&request.desc, params)?;
        check_gate(&request.desc, activation, gated)?;
        if activation == Activation::Xielu {
            return Err(Error::unsupported(format!(
                "the mixture of experts of block {} has xIELU, which this backend knows of MLPs alone",
                request.desc.block
            )));
        }
        let mut weights = Weights::new(kernels, request);
        let (gates, ups) = gates_and_ups(&mut weights, n_experts, gated)?;
        let downs =
            weights.biased_matrices(WeightRole::ExpertsDown, WeightRole::ExpertsDownBias, n_experts)?;
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
            router: weights.biased(WeightRole::Router, WeightRole::RouterScoreBias)?,
            router_bias: weights.optional_vector(WeightRole::RouterBias)?,
            experts,
            shared_router: weights.optional_vector(WeightRole::SharedRouter)?,
            router_norm: weights.optional_vector(WeightRole::RouterNorm)?.map(|norm| {
                let root = (norm.len() as f32).sqrt();
                norm.into_iter().map(|weight| weight / root).collect()
            }),
            expert_scales: weights.optional_vector(WeightRole::ExpertScales)?,
            shared_norm: weights.optional_vector(WeightRole::SharedNorm)?,
            shared_post_norm: weights.optional_vector(WeightRole::SharedPostNorm)?,
            experts_post_norm: weights.optional_vector(WeightRole::ExpertsPostNorm)?,
            post_norm: weights.exit_norm()?,
            output_scale: weights.optional_number(WeightRole::OutputScale)?,
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
            together: scratch.take(if self.experts_post_norm.is_some() { n_tokens * hidden } else { 0 }),
            memory: scratch.for_steps([
                matmul_bytes([&self.router], n_tokens, workers),
                self.experts.first().map_or(0, bytes),
                self.shared.as_ref().map_or(0, bytes),
                add_branch_bytes(&self.desc, self.post_norm.as_ref(), workers),
            ]),
        }
    }

    /// The groups that a token's experts are chosen from: those whose best two together, or whose best, have the greatest merit.
    fn best_groups(&self, n_experts: usize, merit: &dyn Fn(usize) -> f32) -> Groups {
        let Some([n_groups, used]) = self.params.groups else {
            return Groups { size: n_experts, chosen: [u64::MAX; MAX_GROUPS / 64] };
        };
        let mut groups = Groups { size: n_experts / n_groups, chosen: [0; MAX_GROUPS / 64] };
        let of_group = |group: usize| {
            let [mut best, mut second] = [f32::NEG_INFINITY; 2];
            for expert in group * groups.size..(group + 1) * groups.size {
                let merit = merit(expert);
                if merit > best {
                    (best, second) = (merit, best);
                } else if merit > second {
                    second = merit;
                }
            }
            if self.params.routing == Routing::SigmoidGroups && groups.size > 1 {
                best + second
            } else {
                best
            }
        };
        let mut merits = [0.0; MAX_GROUPS];
        for (group, merit) in merits[..n_groups].iter_mut().enumerate() {
            *merit = of_group(group);
        }
        for _ in 0..used {
            let free = (0..n_groups).filter(|group| groups.chosen[group / 64] >> (group % 64) & 1 == 0);
            // The first of equals; any where merits are NaN.
            let best = free.reduce(|best, group| if merits[group] > merits[best] { group } else { best });
            let Some(best) = best else { break };
            groups.chosen[best / 64] |= 1 << (best % 64);
        }
        groups
    }

    /// Chooses a token's experts by its scores, which become probabilities.
    fn choose(&self, scores: &mut [f32], choices: &mut [Choice]) {
        match self.params.routing {
            Routing::Sigmoid | Routing::SigmoidGroups | Routing::SigmoidOfInput => {
                scores.iter_mut().for_each(|score| *score = sigmoid(*score))
            }
            _ => router_softmax(scores),
        }
        let merit =
            |expert: usize| scores[expert] + self.router_bias.as_ref().map_or(0.0, |bias| bias[expert]);
        let groups = self.best_groups(scores.len(), &merit);
        for place in 0..choices.len() {
            let (chosen, left) = choices.split_at_mut(place);
            let free = |expert: &usize| {
                groups.has(*expert) && chosen.iter().all(|choice| choice.expert != *expert as u32)
            };
            // The first of equals; any where scores are NaN.
            let best = (0..scores.len())
                .filter(free)
                .reduce(|best, expert| if merit(expert) > merit(best) { expert } else { best });
            let best = best.unwrap_or(0);
            left[0] = Choice { expert: best as u32, weight: scores[best] };
        }
        let sum: f32 = choices.iter().map(|choice| choice.weight).sum();
        let scale = self.params.weight_scale / if self.params.normalize { sum } else { 1.0 };
        for choice in choices {
            let own = self.expert_scales.as_ref().map_or(1.0, |scales| scales[choice.expert as usize]);
            choice.weight *= scale * own;
        }
    }
}

/// Each expert's gate, where there are gates, and its up projection.
fn gates_and_ups<'w>(
    weights: &mut Weights<'_, 'w>,
    n_experts: usize,
    gated: bool,
) -> Result<(Vec<Linear<'w>>, Vec<Linear<'w>>)> {
    if let Some(joined) = weights.optional_matrices(WeightRole::ExpertsGateAndUp, 2 * n_experts)? {
        // Of each expert its gate, then its up projection.
        let (mut gates, mut ups) = (Vec::with_capacity(n_experts), Vec::with_capacity(n_experts));
        for (index, linear) in joined.into_iter().enumerate() {
            if index % 2 == 0 { gates.push(linear) } else { ups.push(linear) }
        }
        return Ok((gates, ups));
    }
    let mut of_experts = |role, bias| weights.biased_matrices(role, bias, n_experts);
    let gates = match gated {
        true => of_experts(WeightRole::ExpertsGate, WeightRole::ExpertsGateBias)?,
        false => Vec::new(),
    };
    Ok((gates, of_experts(WeightRole::ExpertsUp, WeightRole::ExpertsUpBias)?))
}

/// The groups that a token's experts are chosen from.
struct Groups {
    /// Experts of a group.
    size: usize,
    /// A bit for each group.
    chosen: [u64; MAX_GROUPS / 64],
}

impl Groups {
    fn has(&self, expert: usize) -> bool {
        let group = expert / self.size;
        self.chosen[group / 64] >> (group % 64) & 1 == 1
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

/// The softmax of the router's scores. Not the kernels': that rounds `exp` differently from one instruction set to another,
/// and a token's experts and their weights are to follow from its scores alone.
fn router_softmax(scores: &mut [f32]) {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    scores.iter_mut().for_each(|score| *score = libm::expf(*score - max));
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// Refuses groups that don't divide the experts, or that are too few for a token's experts.
fn check_groups(desc: &LayerDesc, params: &Params) -> Result<()> {
    let by_groups = matches!(params.routing, Routing::SigmoidGroups | Routing::SoftmaxGroups);
    let Params { n_experts, n_used, .. } = *params;
    let fits = match params.groups {
        None => !by_groups,
        Some([groups, used]) => {
            by_groups
                && (1..=MAX_GROUPS).contains(&groups)
                && n_experts.is_multiple_of(groups)
                && (1..=groups).contains(&used)
                && used * (n_experts / groups) >= n_used
        }
    };
    if fits {
        return Ok(());
    }
    let [groups, used] = params.groups.unwrap_or_default();
    Err(Error::invalid(format!(
        "the mixture of experts of block {} chooses {n_used} of {n_experts} experts from {used} of {groups} groups by {:?}, where \
         a divisor of the experts up to {MAX_GROUPS} was expected, as many groups as these experts need, and a routing by groups",
        desc.block, params.routing
    )))
}

impl Moe<'_> {
    /// Each token's experts, and their weights: `choices`.
    fn route(&self, parallel: &Parallel<'_>, input: &[f32], buffers: &mut Buffers<'_>) {
        let Buffers { hidden, scores, choices, gathered, memory, .. } = buffers;
        let Params { n_experts, n_used, .. } = self.params;
        let n_tokens = choices.len() / n_used;
        let x = match &self.router_norm {
            Some(norm) => {
                norm_rows(self.kernels, parallel, input, norm, self.desc.norm_eps, gathered);
                &**gathered
            }
            None => &**hidden,
        };
        matmul_one(parallel, &self.router, x, n_tokens, memory, scores);
        for (scores, choices) in scores.chunks_exact_mut(n_experts).zip(choices.chunks_exact_mut(n_used)) {
            self.choose(scores, choices);
        }
    }

    /// Asks for the experts of few tokens before the first of them is read, so that those which aren't in memory are all on their way.
    fn ask_ahead(&self, choices: &[Choice]) {
        // The experts of many tokens are all of them, which may be more than there is memory for.
        if choices.len() > ASKED_TOKENS * self.params.n_used {
            return;
        }
        for (index, choice) in choices.iter().enumerate() {
            let is_first = choices[..index].iter().all(|earlier| earlier.expert != choice.expert);
            if let Some(expert) = self.experts.get(choice.expert as usize).filter(|_| is_first) {
                expert.linears().for_each(Linear::ask_ahead);
            }
        }
    }

    /// What the expert that all tokens use makes of them, or nothing: `branch`.
    fn run_shared(&self, parallel: &Parallel<'_>, input: &[f32], buffers: &mut Buffers<'_>) {
        let Buffers { hidden, branch, gathered, memory, .. } = buffers;
        let (kernels, width) = (self.kernels, self.desc.hidden);
        let Some(shared) = &self.shared else { return branch.fill(0.0) };
        match &self.shared_norm {
            Some(norm) => norm_rows(kernels, parallel, input, norm, self.desc.norm_eps, branch),
            None => branch.copy_from_slice(hidden),
        }
        shared.forward(parallel, branch, memory, None);
        if let Some(norm) = &self.shared_post_norm {
            norm_rows(kernels, parallel, branch, norm, self.desc.norm_eps, gathered);
            branch.copy_from_slice(gathered);
        }
        if let Some(router) = &self.shared_router {
            for (row, x) in branch.chunks_exact_mut(width).zip(hidden.chunks_exact(width)) {
                let weight = sigmoid((kernels.dot)(router, x));
                row.iter_mut().for_each(|value| *value *= weight);
            }
        }
    }

    /// Adds what each token's experts make of it to `branch`.
    fn run_experts(&self, parallel: &Parallel<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { hidden, branch, choices, gathered, together, memory, .. } = buffers;
        let (kernels, width, n_used) = (self.kernels, self.desc.hidden, self.params.n_used);
        let weighs_input = self.params.routing == Routing::SigmoidOfInput;
        let sums = if self.experts_post_norm.is_some() { &mut **together } else { &mut **branch };
        if self.experts_post_norm.is_some() {
            sums.fill(0.0);
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
            expert.forward(parallel, gathered, memory, None);
            for ((token, weight), row) in users.zip(gathered.chunks_exact(width)) {
                let weight = if weighs_input { 1.0 } else { weight };
                (kernels.add_scaled)(&mut sums[token * width..(token + 1) * width], weight, row);
            }
        }
        if let Some(norm) = &self.experts_post_norm {
            norm_rows(kernels, parallel, together, norm, self.desc.norm_eps, gathered);
            (kernels.add_scaled)(branch, 1.0, gathered);
        }
    }
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

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let mut buffers = self.buffers(&mut scratch, call.n_tokens, parallel.workers());
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, buffers.hidden);
        self.route(parallel, input, &mut buffers);
        self.ask_ahead(buffers.choices);
        self.run_shared(parallel, input, &mut buffers);
        self.run_experts(parallel, &mut buffers);
        let Buffers { branch, memory, .. } = buffers;
        add_branch(kernels, parallel, &self.desc, branch, self.post_norm.as_ref(), memory, call.output);
        scale_output(parallel, self.output_scale, call.output);
        Ok(())
    }
}
