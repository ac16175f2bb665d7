//! Feed-forward networks, gated and not.

use std::sync::Arc;

use herald_api::import::{Forward, LayerSpec, Lent};
use herald_api::{Activation, LayerDesc, LayerParams, Mlp, PackKeeper, Result, WeightRole};
use ndarray::Array1;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::Subject;
use super::super::bounds::check_all;
use super::super::executor::Scoped;
use super::super::keeper::Keeper;
use super::super::reference::Approx;
use super::super::weights::Matrix;
use super::super::{Case, property};
use super::norms::BranchNorms;
use super::order::{Limits, Weights, activations, create, desc, order, scratch};
use crate::kernels::Xielu;

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
        select(
            &[
                Activation::Silu,
                Activation::GeluTanh,
                Activation::SquaredRelu,
                Activation::Gelu,
                Activation::Xielu,
            ][..],
        ),
        1_usize..40,
        1_usize..4,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(hidden, width, gated, activation, n_tokens, workers, in_place, seed)| Shape {
            hidden,
            width,
            gated: gated && activation != Activation::Xielu,
            activation,
            n_tokens,
            workers,
            in_place,
            seed,
        })
}

/// A matrix with its bias, where it has one.
type Biased = (Matrix, Option<Array1<f64>>);

fn multiply(x: &Approx, (matrix, bias): &Biased) -> Approx {
    x.multiply(matrix, bias.as_ref())
}

/// The network in float64.
struct Reference {
    desc: LayerDesc,
    norms: BranchNorms,
    gate: Option<Biased>,
    up: Biased,
    down: Biased,
    xielu: Option<Xielu>,
    output_scale: Option<Array1<f64>>,
}

impl Reference {
    fn random(shape: &Shape, weights: &mut Weights) -> Self {
        let Shape { hidden, width, gated, activation, .. } = *shape;
        let params = LayerParams::Mlp(Mlp { width, activation, gated });
        let norms = BranchNorms::random(weights, hidden);
        let mut biased = |role, bias, rows, columns| {
            let matrix = weights.matrix(role, rows, columns);
            (matrix, weights.perhaps(|weights| weights.vector(bias, rows, [-0.5, 0.5])))
        };
        let gate = gated.then(|| biased(WeightRole::Gate, WeightRole::GateBias, width, hidden));
        let up = biased(WeightRole::Up, WeightRole::UpBias, width, hidden);
        let down = biased(WeightRole::Down, WeightRole::DownBias, hidden, width);
        let xielu = (activation == Activation::Xielu).then(|| {
            let numbers = weights.vector(WeightRole::Xielu, 4, [0.3, 1.0]);
            let [square, exponential, slope, most] = [0, 1, 2, 3].map(|index| numbers[index] as f32);
            Xielu { square, exponential, slope, most }
        });
        let output_scale = weights.perhaps(|weights| weights.vector(WeightRole::OutputScale, 1, [0.2, 1.5]));
        let desc = desc(hidden, params, &mut weights.values);
        Self { desc, norms, gate, up, down, xielu, output_scale }
    }

    /// What the layer makes of `before` and its input `x`.
    fn forward(&self, before: &Approx, x: &Approx, activation: Activation) -> Approx {
        let eps = f64::from(self.desc.norm_eps);
        let x = &self.norms.enter(x, eps);
        let up = multiply(x, &self.up);
        let inner = match (&self.gate, &self.xielu) {
            (Some(gate), _) => multiply(x, gate).activate(activation).times(&up),
            (None, Some(numbers)) => up.xielu(numbers),
            (None, None) => up.activate(activation),
        };
        let branch = multiply(&inner, &self.down);
        self.norms.leave(before, &branch, f64::from(self.desc.residual_scale), eps)
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
    let run = |packs: Option<Arc<Keeper>>| {
        forward(plugin, shape, (&reference.desc, &weights), &x, residual.clone(), packs)
            .map_err(|error| TestCaseError::fail(format!("the layer failed: {error}")))
    };
    let output = run(None)?;
    check_packs(&output, run)?;
    let expected = reference.forward(&before, &exact, shape.activation);
    let expected = reference.output_scale.iter().fold(expected, |x, scale| x.scale(scale[0]));
    for (token, output) in output.chunks_exact(shape.hidden).enumerate() {
        check_all(&format!("token {token}"), output, expected.row(token))?;
    }
    Ok(())
}

/// Where a host keeps packed weights, results are the same to the bit: of the layer that packs them, and of one that finds them.
fn check_packs(
    output: &[f32],
    run: impl Fn(Option<Arc<Keeper>>) -> std::result::Result<Vec<f32>, TestCaseError>,
) -> Case {
    let keeper = Arc::new(Keeper::default());
    let bits = |output: &[f32]| output.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    let mut taken = None;
    for time in ["packed", "found packed"] {
        let kept = run(Some(Arc::clone(&keeper)))?;
        prop_assert_eq!(bits(&kept), bits(output), "weights were {}", time);
        let (filled, all) = keeper.filled();
        prop_assert!(all, "memory that was taken for packed weights was not filled");
        prop_assert_eq!(*taken.get_or_insert(filled), filled, "weights that were packed were packed again");
    }
    Ok(())
}

fn forward(
    plugin: &Subject<'_>,
    shape: &Shape,
    (desc, weights): (&LayerDesc, &Weights),
    x: &[f32],
    mut output: Vec<f32>,
    packs: Option<Arc<Keeper>>,
) -> Result<Vec<f32>> {
    let limits = Limits { max_tokens: shape.n_tokens, max_workers: shape.workers, page_tokens: 4 };
    let packs = packs.map(|keeper| keeper as Arc<dyn PackKeeper>);
    let layer = create(plugin, LayerSpec { packs, ..order(desc, &weights.shared, limits) })?;
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
