//! Mixtures of experts.

use herald_api::import::{Forward, Lent};
use herald_api::{Activation, LayerDesc, LayerParams, Moe, Result, Routing, WeightRole};
use ndarray::{Array1, Array2, Axis};
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

fn shapes() -> impl Strategy<Value = Shape> {
    let widths = select(&[1_usize, 7, 32][..]);
    let experts = (1_usize..9, any::<prop::sample::Index>(), widths.clone(), any::<bool>());
    let kinds = (
        select(&[Activation::Silu, Activation::SquaredRelu][..]),
        any::<bool>(),
        select(&[Routing::Softmax, Routing::Sigmoid, Routing::SigmoidOfInput][..]),
        any::<bool>(),
        select(&[1.0_f32, 2.5][..]),
    );
    let run = (1_usize..24, 1_usize..4, any::<bool>(), any::<u64>());
    (widths, experts, kinds, run).prop_map(|(hidden, experts, kinds, run)| {
        let (n_experts, used, width, shared) = experts;
        let (activation, gated, routing, normalize, weight_scale) = kinds;
        let (n_tokens, workers, in_place, seed) = run;
        let params = Moe {
            n_experts,
            n_used: 1 + used.index(n_experts),
            width,
            shared_width: shared.then_some(width + 3),
            activation,
            gated,
            routing,
            normalize,
            weight_scale,
        };
        Shape { hidden, params, n_tokens, workers, in_place, seed }
    })
}

/// One network in float64.
struct Network {
    gate: Option<Matrix>,
    up: Matrix,
    down: Matrix,
}

impl Network {
    fn forward(&self, x: &Approx, activation: Activation) -> Approx {
        let up = x.multiply(&self.up, None);
        let inner = match &self.gate {
            Some(gate) => x.multiply(gate, None).activate(activation).times(&up),
            None => up.activate(activation),
        };
        inner.multiply(&self.down, None)
    }
}

/// The layer in float64.
struct Reference {
    desc: LayerDesc,
    params: Moe,
    norm: Array1<f64>,
    router: Matrix,
    router_bias: Option<Array1<f64>>,
    experts: Vec<Network>,
    shared: Option<Network>,
    shared_router: Option<Array1<f64>>,
}

impl Reference {
    fn random(shape: &Shape, weights: &mut Weights) -> Self {
        let (hidden, params) = (shape.hidden, shape.params.clone());
        let Moe { n_experts, width, shared_width, gated, .. } = params;
        let desc = desc(hidden, LayerParams::Moe(params.clone()), &mut weights.values);
        let norm = weights.norm(WeightRole::Norm, hidden);
        let router = weights.matrix(WeightRole::Router, n_experts, hidden);
        let router_bias =
            weights.perhaps(|weights| weights.vector(WeightRole::RouterBias, n_experts, [-0.5, 0.5]));
        let gates = gated.then(|| weights.matrix(WeightRole::ExpertsGate, n_experts * width, hidden));
        let ups = weights.matrix(WeightRole::ExpertsUp, n_experts * width, hidden);
        let downs = weights.matrix(WeightRole::ExpertsDown, n_experts * hidden, width);
        let part = |matrix: &Matrix, index: usize, rows: usize| Matrix {
            value: matrix.value.slice_axis(Axis(0), (index * rows..(index + 1) * rows).into()).to_owned(),
            size: matrix.size.slice_axis(Axis(0), (index * rows..(index + 1) * rows).into()).to_owned(),
            step: matrix.step,
        };
        let experts = (0..n_experts)
            .map(|index| Network {
                gate: gates.as_ref().map(|gates| part(gates, index, width)),
                up: part(&ups, index, width),
                down: part(&downs, index, hidden),
            })
            .collect();
        let shared = shared_width.map(|width| Network {
            gate: gated.then(|| weights.matrix(WeightRole::SharedGate, width, hidden)),
            up: weights.matrix(WeightRole::SharedUp, width, hidden),
            down: weights.matrix(WeightRole::SharedDown, hidden, width),
        });
        let shared_router = match shared {
            Some(_) => {
                weights.perhaps(|weights| weights.vector(WeightRole::SharedRouter, hidden, [-0.5, 0.5]))
            }
            None => None,
        };
        Self { desc, params, norm, router, router_bias, experts, shared, shared_router }
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
                Routing::Sigmoid | Routing::SigmoidOfInput => {
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
        let mut ranked: Vec<usize> = (0..values.len()).collect();
        ranked.sort_by(|a, b| merit(*b).total_cmp(&merit(*a)));
        let (chosen, left) = ranked.split_at(self.params.n_used);
        if let (Some(last), Some(next)) = (chosen.last(), left.first()) {
            let error = |index: &usize| probabilities[*index].bound + 2.0 * U;
            if merit(*last) - merit(*next) <= error(last) + error(next) {
                return None;
            }
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
            let roundings = gamma(chosen.len() + 4) * (value + bound);
            (*index, Expected { value: scale * value, bound: scale * (bound + roundings) })
        };
        Some(chosen.iter().map(weight).collect())
    }

    /// What the residual branch makes of `x`; `None` for tokens whose experts can't be told.
    fn branch(&self, x: &Approx) -> (Approx, Vec<bool>) {
        let x = x.rms_norm(&self.norm, f64::from(self.desc.norm_eps));
        let scores = x.multiply(&self.router, None);
        let activation = self.params.activation;
        let made: Vec<Approx> = self.experts.iter().map(|expert| expert.forward(&x, activation)).collect();
        let shared = self.shared.as_ref().map(|shared| shared.forward(&x, activation));
        let mut branch = Approx::exact(Array2::zeros(x.value.dim()));
        let mut told = Vec::new();
        for token in 0..x.value.nrows() {
            let weights = self.choose(&scores, token);
            told.push(weights.is_some());
            let one = Expected { value: 1.0, bound: 0.0 };
            let of_shared =
                shared.as_ref().map(|shared| (shared, self.shared_weight(&x, token).unwrap_or(one)));
            let weights = weights.unwrap_or_default();
            let parts = weights.iter().map(|(index, weight)| (&made[*index], *weight)).chain(of_shared);
            let mut parts: Vec<_> = parts.map(|(made, weight)| (made.rows(token), weight)).collect();
            if self.params.routing == Routing::SigmoidOfInput {
                // The expert reads the weighted token, and what it makes of it is added as it is.
                for ((made, weight), (index, _)) in parts.iter_mut().zip(&weights) {
                    let scaled = x.rows(token).weigh(*weight);
                    (*made, *weight) = (self.experts[*index].forward(&scaled, activation), one);
                }
            }
            for column in 0..x.value.ncols() {
                let (mut value, mut bound, mut size) = (0.0, 0.0, 0.0);
                for (made, weight) in &parts {
                    let (f, e) = (made.value[[0, column]], made.error[[0, column]]);
                    value += weight.value * f;
                    bound += weight.value.abs() * e + weight.bound * (f.abs() + e);
                    size += (weight.value.abs() + weight.bound) * (f.abs() + e);
                }
                branch.value[[token, column]] = value;
                branch.error[[token, column]] = bound + gamma(parts.len() + 3) * size + 1e-30;
            }
        }
        (branch.scale(f64::from(self.desc.residual_scale)), told)
    }

    /// The weight of the shared expert, where it has one.
    fn shared_weight(&self, x: &Approx, token: usize) -> Option<Expected> {
        let router = self.shared_router.as_ref()?;
        let (x, e) = (x.value.row(token), x.error.row(token));
        let score = x.dot(router);
        let weights = router.mapv(f64::abs);
        let error = e.dot(&weights) + gamma(x.len() + 2) * (x.mapv(f64::abs) + e).dot(&weights);
        Some(Expected { value: 1.0 / (1.0 + (-score).exp()), bound: error / 4.0 + 8.0 * U })
    }
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
