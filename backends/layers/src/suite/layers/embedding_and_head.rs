//! The embedding and the output head.

use herald_api::import::{Forward, Lent};
use herald_api::{Embedding, Head, LayerDesc, LayerParams, Result, WeightRole};
use ndarray::{Array2, Axis};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::Subject;
use super::super::bounds::check_all;
use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::{Case, property};
use super::norms::RowNorm;
use super::order::{Limits, Weights, activations, create, desc, order, scratch};

/// The first token's position.
const POSITION: usize = 2;

#[derive(Clone, Debug)]
struct Shape {
    hidden: usize,
    vocabulary: usize,
    scale: f32,
    softcap: Option<f32>,
    n_tokens: usize,
    workers: usize,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        select(&[1_usize, 7, 32, 96, 256][..]),
        1_usize..200,
        select(&[1.0_f32, 16.0, 0.25][..]),
        select(&[None, Some(30.0_f32), Some(0.5)][..]),
        1_usize..20,
        1_usize..4,
        any::<u64>(),
    )
        .prop_map(|(hidden, vocabulary, scale, softcap, n_tokens, workers, seed)| Shape {
            hidden,
            vocabulary,
            scale,
            softcap,
            n_tokens,
            workers,
            seed,
        })
}

/// Runs a layer of these weights over one batch of token ids or activations; returns rows of `width`.
fn forward(
    plugin: &Subject<'_>,
    shape: &Shape,
    desc: &LayerDesc,
    weights: &Weights,
    tokens: &[u32],
    input: Option<&[f32]>,
    width: usize,
) -> Result<Vec<f32>> {
    let limits = Limits { max_tokens: shape.n_tokens, max_workers: shape.workers, page_tokens: 4 };
    let layer = create(plugin, order(desc, &weights.shared, limits))?;
    let threads = Scoped(shape.workers);
    let lent = Lent::new(&threads);
    let mut output = vec![f32::NAN; shape.n_tokens * width];
    let positions: Vec<u32> = (POSITION as u32..).take(shape.n_tokens).collect();
    let request = Forward {
        n_tokens: shape.n_tokens,
        tokens,
        positions: &positions,
        input,
        output: &mut output,
        parallel: lent.parallel(),
    };
    layer.forward(request, None, &mut scratch(&layer)?)?;
    Ok(output)
}

fn compare(output: Result<Vec<f32>>, width: usize, expected: &Approx) -> Case {
    let output = output.map_err(|error| TestCaseError::fail(format!("the layer failed: {error}")))?;
    for (token, output) in output.chunks_exact(width).enumerate() {
        check_all(&format!("token {token}"), output, expected.row(token))?;
    }
    Ok(())
}

pub(super) fn check_embedding(plugin: &Subject<'_>) {
    property(&format!("{}: embedding", plugin.name()), 120, shapes(), |shape| {
        let Shape { hidden, vocabulary, scale, .. } = shape;
        let mut weights = Weights::new(plugin.kernels, shape.seed);
        let matrix = weights.matrix(WeightRole::Embedding, vocabulary, hidden);
        let known = weights.values.pick(&[None, Some(shape.n_tokens + 3)]);
        let positions = known.map(|known| weights.matrix(WeightRole::PositionEmbedding, known, hidden).value);
        let token_type =
            weights.perhaps(|weights| weights.vector(WeightRole::TypeEmbedding, hidden, [-1.0, 1.0]));
        let [role, bias] = [WeightRole::LayerNorm, WeightRole::LayerNormBias];
        let norm = weights.perhaps(|weights| RowNorm::layer(weights, role, bias, hidden));
        let params = Embedding { vocabulary, scale, positions: known };
        let desc = desc(hidden, LayerParams::Embedding(params), &mut weights.values);
        let tokens: Vec<u32> = (0..shape.n_tokens).map(|_| weights.values.below(vocabulary) as u32).collect();
        let output = forward(plugin, &shape, &desc, &weights, &tokens, None, hidden);
        let rows: Vec<usize> = tokens.iter().map(|token| *token as usize).collect();
        let rows = Approx::exact(matrix.value.select(Axis(0), &rows));
        // Without a scale the weights themselves, to the bit.
        let mut expected = if scale == 1.0 { rows } else { rows.scale(f64::from(scale)) };
        if let Some(positions) = positions {
            let at: Vec<usize> = (POSITION..POSITION + shape.n_tokens).collect();
            expected = expected.plus(&Approx::exact(positions.select(Axis(0), &at)));
        }
        if let Some(token_type) = token_type {
            let all = Array2::from_shape_fn((shape.n_tokens, hidden), |(_, column)| token_type[column]);
            expected = expected.plus(&Approx::exact(all));
        }
        let eps = f64::from(desc.norm_eps);
        compare(output, hidden, &norm.map_or(expected.clone(), |norm| norm.apply(&expected, eps)))
    });
}

pub(super) fn check_head(plugin: &Subject<'_>) {
    property(&format!("{}: head", plugin.name()), 120, shapes(), |shape| {
        let Shape { hidden, vocabulary, scale, softcap, .. } = shape;
        let mut weights = Weights::new(plugin.kernels, shape.seed);
        let norm = RowNorm::of_head(&mut weights, hidden);
        // One in four is a norm alone.
        let is_norm = weights.values.below(4) == 0;
        let vocabulary = if is_norm { hidden } else { vocabulary };
        let matrix = (!is_norm).then(|| weights.matrix(WeightRole::Embedding, vocabulary, hidden));
        let bias = match is_norm {
            true => None,
            false => {
                weights.perhaps(|weights| weights.vector(WeightRole::OutputBias, vocabulary, [-0.5, 0.5]))
            }
        };
        let params = LayerParams::Head(Head { vocabulary, scale, softcap });
        let desc = desc(hidden, params, &mut weights.values);
        let (x, exact) = activations(shape.n_tokens, hidden, &mut weights.values);
        let output = forward(plugin, &shape, &desc, &weights, &[], Some(&x), vocabulary);
        let normed = norm.apply(&exact, f64::from(desc.norm_eps));
        let logits = matrix.map_or(normed.clone(), |matrix| normed.multiply(&matrix, bias.as_ref()));
        let logits = logits.scale(f64::from(scale));
        compare(output, vocabulary, &softcap.map_or(logits.clone(), |cap| logits.softcap(f64::from(cap))))
    });
}
