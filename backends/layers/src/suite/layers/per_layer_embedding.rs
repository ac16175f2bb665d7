//! Per-layer embeddings.

use herald_api::import::{Forward, Lent};
use herald_api::{Activation, LayerDesc, LayerParams, PerLayerEmbedding, Result, WeightRole};
use ndarray::{Array1, Axis};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::bounds::check_all;
use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::weights::Matrix;
use super::super::{Case, Subject, property};
use super::order::{Limits, Weights, activations, create, desc, order, scratch};

#[derive(Clone, Debug)]
struct Shape {
    hidden: usize,
    params: PerLayerEmbedding,
    n_tokens: usize,
    workers: usize,
    in_place: bool,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = (select(&[5_usize, 32, 96][..]), select(&[1_usize, 7, 32, 48][..]), 1_usize..4, 1_usize..40);
    let scales = [0.5_f32..8.0, 0.5_f32..8.0, 0.1_f32..1.0];
    let run = (1_usize..24, 1_usize..4, any::<bool>(), any::<prop::sample::Index>(), any::<u64>());
    (sizes, scales, select(&[Activation::Silu, Activation::GeluTanh][..]), run).prop_map(
        |((hidden, width, blocks, vocabulary), scales, activation, run)| {
            let (n_tokens, workers, in_place, block, seed) = run;
            let [embedding_scale, table_scale, projection_scale] = scales;
            let params = PerLayerEmbedding {
                vocabulary,
                width,
                table_width: blocks * width,
                first: block.index(blocks) * width,
                activation,
                embedding_scale,
                table_scale,
                projection_scale,
            };
            Shape { hidden, params, n_tokens, workers, in_place, seed }
        },
    )
}

/// The layer in float64.
struct Reference {
    desc: LayerDesc,
    params: PerLayerEmbedding,
    embedding: Matrix,
    table: Matrix,
    projection: Matrix,
    norm: Array1<f64>,
    gate: Matrix,
    down: Matrix,
    post_norm: Array1<f64>,
    output_scale: Option<Array1<f64>>,
}

impl Reference {
    fn random(shape: &Shape, weights: &mut Weights) -> Self {
        let (hidden, params) = (shape.hidden, shape.params.clone());
        let PerLayerEmbedding { vocabulary, width, table_width, .. } = params;
        Self {
            desc: desc(hidden, LayerParams::PerLayerEmbedding(params.clone()), &mut weights.values),
            embedding: weights.matrix(WeightRole::Embedding, vocabulary, hidden),
            table: weights.matrix(WeightRole::PerLayerTable, vocabulary, table_width),
            projection: weights.matrix(WeightRole::PerLayerProjection, width, hidden),
            norm: weights.norm(WeightRole::PerLayerNorm, width),
            gate: weights.matrix(WeightRole::Gate, width, hidden),
            down: weights.matrix(WeightRole::Down, hidden, width),
            post_norm: weights.norm(WeightRole::PostNorm, hidden),
            output_scale: weights.perhaps(|weights| weights.vector(WeightRole::OutputScale, 1, [0.2, 1.5])),
            params,
        }
    }

    /// What the branch makes of `x`.
    fn branch(&self, x: &Approx, tokens: &[u32]) -> Approx {
        let eps = f64::from(self.desc.norm_eps);
        let rows: Vec<usize> = tokens.iter().map(|token| *token as usize).collect();
        let of = |matrix: &Matrix| Approx::exact(matrix.value.select(Axis(0), &rows));
        let params = &self.params;
        let embedding = of(&self.embedding).scale(f64::from(params.embedding_scale));
        let projected = embedding.multiply(&self.projection, None).scale(f64::from(params.projection_scale));
        let table = of(&self.table).columns(params.first..params.first + params.width);
        let own = projected.rms_norm(&self.norm, eps).plus(&table.scale(f64::from(params.table_scale)));
        let own = own.scale(std::f64::consts::FRAC_1_SQRT_2);
        let gate = x.multiply(&self.gate, None).activate(params.activation).times(&own);
        let branch = gate.multiply(&self.down, None).rms_norm(&self.post_norm, eps);
        branch.scale(f64::from(self.desc.residual_scale))
    }
}

pub(super) fn check(plugin: &Subject<'_>) {
    property(&format!("{}: per-layer embedding", plugin.name()), 100, shapes(), |shape| {
        compare(plugin, &shape)
    });
}

fn compare(plugin: &Subject<'_>, shape: &Shape) -> Case {
    let mut weights = Weights::new(plugin.kernels, shape.seed);
    let reference = Reference::random(shape, &mut weights);
    let below = shape.params.vocabulary;
    let tokens: Vec<u32> = (0..shape.n_tokens).map(|_| weights.values.below(below) as u32).collect();
    let (x, exact) = activations(shape.n_tokens, shape.hidden, &mut weights.values);
    let (residual, before) = if shape.in_place {
        (x.clone(), exact.clone())
    } else {
        activations(shape.n_tokens, shape.hidden, &mut weights.values)
    };
    let output = forward(plugin, shape, &reference.desc, &weights, &tokens, &x, residual)
        .map_err(|error| TestCaseError::fail(format!("the layer failed: {error}")))?;
    let expected = before.plus(&reference.branch(&exact, &tokens));
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
    tokens: &[u32],
    x: &[f32],
    mut output: Vec<f32>,
) -> Result<Vec<f32>> {
    let limits = Limits { max_tokens: shape.n_tokens, max_workers: shape.workers, page_tokens: 4 };
    let layer = create(plugin, order(desc, &weights.shared, limits))?;
    let threads = Scoped(shape.workers);
    let lent = Lent::new(&threads);
    let request = Forward {
        n_tokens: shape.n_tokens,
        tokens,
        positions: &[],
        input: (!shape.in_place).then_some(x),
        output: &mut output,
        parallel: lent.parallel(),
    };
    layer.forward(request, None, &mut scratch(&layer)?)?;
    Ok(output)
}
