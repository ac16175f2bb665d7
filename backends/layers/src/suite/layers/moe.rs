//! Mixtures of experts.

use herald_api::import::{Forward, Lent};
use herald_api::{Activation, LayerDesc, LayerParams, Moe, Result, Routing, WeightRole};
use ndarray::{Array1, Array2};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::bounds::{Expected, U, check_all, gamma};
use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::weights::Matrix;
use super::super::{Case, Subject, property};
use super::order::{Limits, Weights, activations, create, desc, order, scratch};

#[derive(Clone, Debug)]
struct Shape {
    hidden: usize,
    params: Moe,
    n_tokens: usize,
    workers: usize,
    in_place: bool,
    seed: u64,
}

const ROUTINGS: [Routing; 5] = [
    Routing::Softmax,
    Routing::Sigmoid,
    Routing::SigmoidOfInput,
    Routing::SigmoidGroups,
    Routing::SoftmaxGroups,
];

fn shapes() -> impl Strategy<Value = Shape> {
    let widths = select(&[1_usize, 7, 32][..]);
    let experts = (1_usize..9, any::<prop::sample::Index>(), widths.clone(), any::<bool>());
    let kinds = (
        select(&[Activation::Silu, Activation::SquaredRelu, Activation::ClampedSwiglu][..]),
        any::<bool>(),
        select(&ROUTINGS[..]),
        any::<bool>(),
        select(&[1.0_f32, 2.5][..]),
    );
    let run = (1_usize..24, 1_usize..4, any::<bool>(), any::<u64>());
    (widths, experts, kinds, run).prop_map(|(hidden, experts, kinds, run)| {
        let (n_experts, used, width, shared) = experts;
        let (activation, gated, routing, normalize, weight_scale) = kinds;
        let (n_tokens, workers, in_place, seed) = run;
        let by_groups = matches!(routing, Routing::SigmoidGroups | Routing::SoftmaxGroups);
        // Up to four groups of that many experts, of which some are looked at.
        let groups = by_groups.then(|| [1 + used.index(4), 1 + used.index(1 + used.index(4))]);
        let n_experts = n_experts * groups.map_or(1, |[groups, _]| groups);
        let choice = groups.map_or(n_experts, |[groups, used]| n_experts / groups * used);
        let params = Moe {
            n_experts,
            n_used: 1 + used.index(choice),
            width,
            shared_width: shared.then_some(width + 3),
            activation,
            gated: gated || activation.needs_gate(),
            routing,
            normalize,
            weight_scale,
            groups,
        };
        Shape { hidden, params, n_tokens, workers, in_place, seed }
    })
}

/// One network in float64.
struct Network {
    gate: Option<Biased>,
    up: Biased,
    down: Biased,
}

type Biased = (Matrix, Option<Array1<f64>>);

impl Network {
    fn forward(&self, x: &Approx, activation: Activation) -> Approx {
        let product = |x: &Approx, (matrix, bias): &Biased| x.multiply(matrix, bias.as_ref());
        let up = product(x, &self.up);
        let inner = match &self.gate {
            Some(gate) => product(x, gate).gate(activation, &up),
            None => up.activate(activation),
        };
        product(&inner, &self.down)
    }
}

/// The layer in float64.
struct Reference {
    desc: LayerDesc,
    params: Moe,
    norm: Array1<f64>,
    router: Biased,
    router_bias: Option<Array1<f64>>,
    experts: Vec<Network>,
    shared: Option<Network>,
    shared_router: Option<Array1<f64>>,
    router_norm: Option<Array1<f64>>,
    expert_scales: Option<Array1<f64>>,
    shared_norm: Option<Array1<f64>>,
    shared_post_norm: Option<Array1<f64>>,
    experts_post_norm: Option<Array1<f64>>,
    post_norm: Option<Array1<f64>>,
    output_scale: Option<Array1<f64>>,
}

impl Reference {
    fn random(shape: &Shape, weights: &mut Weights) -> Self {
        let (hidden, params) = (shape.hidden, shape.params.clone());
        let Moe { n_experts, width, shared_width, gated, .. } = params;
        let desc = desc(hidden, LayerParams::Moe(params.clone()), &mut weights.values);
        let norm = weights.norm(WeightRole::Norm, hidden);
        let router = (
            weights.matrix(WeightRole::Router, n_experts, hidden),
            weights.perhaps(|weights| weights.vector(WeightRole::RouterScoreBias, n_experts, [-0.5, 0.5])),
        );
        let router_bias =
            weights.perhaps(|weights| weights.vector(WeightRole::RouterBias, n_experts, [-0.5, 0.5]));
        let joined = (gated && weights.values.coin())
            .then(|| weights.matrix(WeightRole::ExpertsGateAndUp, n_experts * 2 * width, hidden));
        // Of each expert the rows of its gate, then those of its up projection.
        let of_joined = |both: &Matrix, index: usize| (both.rows(index * width..(index + 1) * width), None);
        let (both, joined) = (joined.as_ref(), joined.is_some());
        let mut stacked = |role, bias, rows: usize, columns: usize| {
            let matrix = weights.matrix(role, n_experts * rows, columns);
            let biases = weights.perhaps(|weights| weights.plain(bias, [n_experts, rows], [-0.5, 0.5]));
            (matrix, biases)
        };
        let gates = (gated && !joined)
            .then(|| stacked(WeightRole::ExpertsGate, WeightRole::ExpertsGateBias, width, hidden));
        let ups = (!joined).then(|| stacked(WeightRole::ExpertsUp, WeightRole::ExpertsUpBias, width, hidden));
        let downs = stacked(WeightRole::ExpertsDown, WeightRole::ExpertsDownBias, hidden, width);
        let part = |(matrix, biases): &(Matrix, Option<Array2<f64>>), index: usize, rows: usize| {
            let matrix = matrix.rows(index * rows..(index + 1) * rows);
            (matrix, biases.as_ref().map(|biases| biases.row(index).to_owned()))
        };
        let experts = (0..n_experts)
            .map(|index| Network {
                gate: match both {
                    Some(both) => Some(of_joined(both, 2 * index)),
                    None => gates.as_ref().map(|gates| part(gates, index, width)),
                },
                up: match (both, &ups) {
                    (Some(both), _) => of_joined(both, 2 * index + 1),
                    (None, Some(ups)) => part(ups, index, width),
                    (None, None) => unreachable!("up projections are apart or joined with the gates"),
                },
                down: part(&downs, index, hidden),
            })
            .collect();
        let shared = shared_width.map(|width| Network {
            gate: gated.then(|| (weights.matrix(WeightRole::SharedGate, width, hidden), None)),
            up: (weights.matrix(WeightRole::SharedUp, width, hidden), None),
            down: (weights.matrix(WeightRole::SharedDown, hidden, width), None),
        });
        let shared_router = match shared {
            Some(_) => {
                weights.perhaps(|weights| weights.vector(WeightRole::SharedRouter, hidden, [-0.5, 0.5]))
            }
            None => None,
        };
        let has_shared = shared.is_some();
        let mut norm_of = |role, there: bool| {
            let there = there && weights.values.below(4) == 0;
            there.then(|| weights.norm(role, hidden))
        };
        Self {
            router_norm: norm_of(WeightRole::RouterNorm, true),
            shared_norm: norm_of(WeightRole::SharedNorm, has_shared),
            shared_post_norm: norm_of(WeightRole::SharedPostNorm, has_shared),
            experts_post_norm: norm_of(WeightRole::ExpertsPostNorm, true),
            post_norm: norm_of(WeightRole::PostNorm, true),
            expert_scales: weights
                .perhaps(|weights| weights.vector(WeightRole::ExpertScales, n_experts, [0.5, 1.5])),
            output_scale: weights.perhaps(|weights| weights.vector(WeightRole::OutputScale, 1, [0.2, 1.5])),
            desc,
            params,
            norm,
            router,
            router_bias,
            experts,
            shared,
            shared_router,
        }
    }

    /// The weights of a token's experts, `None` where they may differ: where two scores are too close to tell.
    fn choose(&self, scores: &Approx, token: usize) -> Option<Vec<(usize, Expected)>> {
        let (values, errors) = (scores.value.row(token), scores.error.row(token));
        let most = errors.iter().fold(0.0, |most: f64, e| most.max(*e));
        let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = values.iter().map(|score| (score - max).exp()).sum();
        let spread = values.iter().fold(0.0, |spread: f64, score| spread.max(max - score));
        let probabilities: Vec<Expected> = values
            .iter()
            .zip(errors)
            .map(|(score, e)| match self.params.routing {
                Routing::Sigmoid | Routing::SigmoidGroups | Routing::SigmoidOfInput => {
                    let value = 1.0 / (1.0 + (-score).exp());
                    Expected { value, bound: e / 4.0 + 8.0 * U + 2.0_f64.powi(-100) }
                }
                // A score and the sum of all are each off by no more than the scores' greatest error makes them.
                _ => {
                    let value = (score - max).exp() / sum;
                    let roundings = U * (values.len() as f64 + 12.0 + 2.0 * spread);
                    Expected { value, bound: value * (2.0 * most + roundings).exp_m1() + 2.0_f64.powi(-100) }
                }
            })
            .collect();
        let merit = |index: usize| {
            probabilities[index].value + self.router_bias.as_ref().map_or(0.0, |bias| bias[index])
        };
        let error = |index: &usize| probabilities[*index].bound + 2.0 * U;
        let mut ranked = self.candidates(&merit, &error)?;
        ranked.sort_by(|a, b| merit(*b).total_cmp(&merit(*a)));
        let (chosen, left) = ranked.split_at(self.params.n_used);
        if let (Some(last), Some(next)) = (chosen.last(), left.first())
            && merit(*last) - merit(*next) <= error(last) + error(next)
        {
            return None;
        }
        let sum: f64 = chosen.iter().map(|index| probabilities[*index].value).sum();
        let sum_bound: f64 = chosen.iter().map(|index| probabilities[*index].bound).sum();
        let scale = f64::from(self.params.weight_scale);
        let weight = |index: &usize| {
            let Expected { value, bound } = probabilities[*index];
            let (value, bound) = if self.params.normalize {
                let least = (sum - sum_bound).max(0.0);
                let weight = value / sum;
                (weight, ((value + bound) / least - weight).max(weight - (value - bound) / (sum + sum_bound)))
            } else {
                (value, bound)
            };
            let roundings = gamma(chosen.len() + 5) * (value + bound);
            let scale = scale * self.expert_scales.as_ref().map_or(1.0, |scales| scales[*index]);
            (*index, Expected { value: scale * value, bound: scale * (bound + roundings) })
        };
        Some(chosen.iter().map(weight).collect())
    }

    /// The experts of the groups that are looked at; `None` where two groups are too close to tell.
    fn candidates(&self, merit: &dyn Fn(usize) -> f64, error: &dyn Fn(&usize) -> f64) -> Option<Vec<usize>> {
        let n_experts = self.params.n_experts;
        let Some([n_groups, used]) = self.params.groups else { return Some((0..n_experts).collect()) };
        let size = n_experts / n_groups;
        // A group is as good as its best, or as its best two together.
        let of = |group: usize| {
            let mut experts: Vec<usize> = (group * size..(group + 1) * size).collect();
            let most = experts.iter().map(error).fold(0.0, f64::max);
            experts.sort_by(|a, b| merit(*b).total_cmp(&merit(*a)));
            let best = if self.params.routing == Routing::SigmoidGroups { 2 } else { 1 };
            (experts.iter().take(best).map(|expert| merit(*expert)).sum::<f64>(), 2.0 * most + 2.0 * U)
        };
        let mut groups: Vec<(usize, (f64, f64))> = (0..n_groups).map(|group| (group, of(group))).collect();
        groups.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
        if let (Some((_, last)), Some((_, next))) = (groups.get(used - 1), groups.get(used))
            && last.0 - next.0 <= last.1 + next.1
        {
            return None;
        }
        let experts = groups[..used].iter().flat_map(|(group, _)| group * size..(group + 1) * size);
        Some(experts.collect())
    }

    /// What the residual branch makes of `rows`; `None` for tokens whose experts can't be told.
    fn branch(&self, rows: &Approx) -> (Approx, Vec<bool>) {
        let eps = f64::from(self.desc.norm_eps);
        let x = rows.rms_norm(&self.norm, eps);
        let (sums, told) = self.sums(rows, &x);
        let fold =
            |x: Approx, norm: &Option<Array1<f64>>| norm.iter().fold(x, |x, norm| x.rms_norm(norm, eps));
        let mut branch = fold(sums, &self.experts_post_norm);
        if let Some(shared) = &self.shared {
            let entry = match &self.shared_norm {
                Some(norm) => rows.rms_norm(norm, eps),
                None => x.clone(),
            };
            let mut made = fold(shared.forward(&entry, self.params.activation), &self.shared_post_norm);
            if let Some(router) = &self.shared_router {
                made = made.times(&shared_weights(router, &x));
            }
            branch = made.plus(&branch);
        }
        (fold(branch, &self.post_norm).scale(f64::from(self.desc.residual_scale)), told)
    }

    /// What each token's experts make of it together.
    fn sums(&self, rows: &Approx, x: &Approx) -> (Approx, Vec<bool>) {
        let entry = match &self.router_norm {
            // The division, and what the norm's weights lose when they are divided in its place.
            Some(norm) => rows
                .rms_norm(norm, f64::from(self.desc.norm_eps))
                .scale(1.0 / (norm.len() as f64).sqrt())
                .scale(1.0)
                .scale(1.0),
            None => x.clone(),
        };
        let scores = entry.multiply(&self.router.0, self.router.1.as_ref());
        let activation = self.params.activation;
        let made: Vec<Approx> = self.experts.iter().map(|expert| expert.forward(x, activation)).collect();
        let mut sums = Approx::exact(Array2::zeros(x.value.dim()));
        let mut told = Vec::new();
        for token in 0..x.value.nrows() {
            let weights = self.choose(&scores, token);
            told.push(weights.is_some());
            let weights = weights.unwrap_or_default();
            let one = Expected { value: 1.0, bound: 0.0 };
            let parts = weights.iter().map(|(index, weight)| match self.params.routing {
                // The expert reads the weighted token, and what it makes of it is added as it is.
                Routing::SigmoidOfInput => {
                    (self.experts[*index].forward(&x.rows(token).weigh(*weight), activation), one)
                }
                _ => (made[*index].rows(token), *weight),
            });
            let parts: Vec<(Approx, Expected)> = parts.collect();
            for column in 0..x.value.ncols() {
                let (mut value, mut bound, mut size) = (0.0, 0.0, 0.0);
                for (made, weight) in &parts {
                    let (f, e) = (made.value[[0, column]], made.error[[0, column]]);
                    value += weight.value * f;
                    bound += weight.value.abs() * e + weight.bound * (f.abs() + e);
                    size += (weight.value.abs() + weight.bound) * (f.abs() + e);
                }
                sums.value[[token, column]] = value;
                // Where the shared expert comes first, its own size is in what `plus` adds.
                sums.error[[token, column]] = bound + gamma(weights.len() + 4) * size + 1e-30;
            }
        }
        (sums, told)
    }
}

/// The weight of the shared expert for each token, in each column.
fn shared_weights(router: &Array1<f64>, x: &Approx) -> Approx {
    let mut weights = x.clone();
    for token in 0..x.value.nrows() {
        let (row, e) = (x.value.row(token), x.error.row(token));
        let score = row.dot(router);
        let sizes = router.mapv(f64::abs);
        let error = e.dot(&sizes) + gamma(row.len() + 2) * (row.mapv(f64::abs) + e).dot(&sizes);
        weights.value.row_mut(token).fill(1.0 / (1.0 + (-score).exp()));
        weights.error.row_mut(token).fill(error / 4.0 + 8.0 * U);
    }
    weights
}

pub(super) fn check(plugin: &Subject<'_>) {
    property(&format!("{}: mixture of experts", plugin.name()), 120, shapes(), |shape| moe(plugin, &shape));
}

fn moe(plugin: &Subject<'_>, shape: &Shape) -> Case {
    let mut weights = Weights::new(plugin.kernels, shape.seed);
    let reference = Reference::random(shape, &mut weights);
    let (x, exact) = activations(shape.n_tokens, shape.hidden, &mut weights.values);
    let (residual, before) = if shape.in_place {
        (x.clone(), exact.clone())
    } else {
        activations(shape.n_tokens, shape.hidden, &mut weights.values)
    };
    let output = forward(plugin, shape, &reference.desc, &weights, &x, residual)
        .map_err(|error| TestCaseError::fail(format!("the layer failed: {error}")))?;
    let (branch, told) = reference.branch(&exact);
    let expected = before.plus(&branch);
    let expected = reference.output_scale.iter().fold(expected, |x, scale| x.scale(scale[0]));
    for (token, output) in output.chunks_exact(shape.hidden).enumerate().filter(|(token, _)| told[*token]) {
        check_all(&format!("token {token}"), output, expected.row(token))?;
    }
    Ok(())
}

fn forward(
    plugin: &Subject<'_>,
    shape: &Shape,
    desc: &LayerDesc,
    weights: &Weights,
    x: &[f32],
    mut output: Vec<f32>,
) -> Result<Vec<f32>> {
    let limits = Limits { max_tokens: shape.n_tokens, max_workers: shape.workers, page_tokens: 4 };
    let layer = create(plugin, order(desc, &weights.shared, limits))?;
    let threads = Scoped(shape.workers);
    let lent = Lent::new(&threads);
    let request = Forward {
        n_tokens: shape.n_tokens,
        tokens: &[],
        positions: &[],
        input: (!shape.in_place).then_some(x),
        output: &mut output,
        parallel: lent.parallel(),
    };
    layer.forward(request, None, &mut scratch(&layer)?)?;
    Ok(output)
}
