//! Feed-forward networks, gated and not.

use herald_api::import::{Forward, Lent};
use herald_api::{Activation, LayerDesc, LayerParams, Mlp, Result, WeightRole};
use ndarray::Array1;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::Subject;
use super::super::bounds::check_all;
use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::weights::Matrix;
use super::super::{Case, property};
use super::order::{Limits, Weights, activations, create, desc, order, scratch};

#[derive(Clone, Debug)]
struct Shape {
    hidden: usize,
    width: usize,
    gated: bool,
    activation: Activation,
    n_tokens: usize,
    workers: usize,
    in_place: bool,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let widths = select(&[1_usize, 7, 32, 96, 256, 288][..]);
    (
        widths.clone(),
        widths,
        any::<bool>(),
        select(&[Activation::Silu, Activation::GeluTanh, Activation::SquaredRelu][..]),
        1_usize..40,
        1_usize..4,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(hidden, width, gated, activation, n_tokens, workers, in_place, seed)| Shape {
            hidden,
            width,
            gated,
            activation,
            n_tokens,
            workers,
            in_place,
            seed,
        })
}

/// The network in float64.
struct Reference {
    desc: LayerDesc,
    norm: Option<Array1<f64>>,
    post_norm: Option<Array1<f64>>,
    gate: Option<Matrix>,
    up: Matrix,
    down: Matrix,
    output_scale: Option<Array1<f64>>,
}

impl Reference {
    fn random(shape: &Shape, weights: &mut Weights) -> Self {
        let Shape { hidden, width, gated, activation, .. } = *shape;
        let params = LayerParams::Mlp(Mlp { width, activation, gated });
        let post_norm = weights.perhaps(|weights| weights.norm(WeightRole::PostNorm, hidden));
        Self {
            desc: desc(hidden, params, &mut weights.values),
            norm: weights.entry_norm(hidden, post_norm.is_some()),
            post_norm,
            gate: gated.then(|| weights.matrix(WeightRole::Gate, width, hidden)),
            up: weights.matrix(WeightRole::Up, width, hidden),
            down: weights.matrix(WeightRole::Down, hidden, width),
            output_scale: weights.perhaps(|weights| weights.vector(WeightRole::OutputScale, 1, [0.2, 1.5])),
        }
    }

    /// What the residual branch makes of `x`.
    fn branch(&self, x: &Approx, activation: Activation) -> Approx {
        let eps = f64::from(self.desc.norm_eps);
        let x = &self.norm.iter().fold(x.clone(), |x, norm| x.rms_norm(norm, eps));
        let up = x.multiply(&self.up, None);
        let inner = match &self.gate {
            Some(gate) => x.multiply(gate, None).activate(activation).times(&up),
            None => up.activate(activation),
        };
        let branch = inner.multiply(&self.down, None);
        let branch = self.post_norm.iter().fold(branch, |branch, norm| branch.rms_norm(norm, eps));
        branch.scale(f64::from(self.desc.residual_scale))
    }
}

pub(super) fn check(plugin: &Subject<'_>) {
    property(&format!("{}: mlp", plugin.name()), 120, shapes(), |shape| mlp(plugin, &shape));
}

fn mlp(plugin: &Subject<'_>, shape: &Shape) -> Case {
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
    let expected = before.plus(&reference.branch(&exact, shape.activation));
    let expected = reference.output_scale.iter().fold(expected, |x, scale| x.scale(scale[0]));
    for (token, output) in output.chunks_exact(shape.hidden).enumerate() {
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
