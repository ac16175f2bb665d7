//! Layers with recurrent states, in every way that a host may cut sequences: Mamba, Mamba-2 and short convolutions.

use herald_api::import::{BatchBuffers, Forward, Lent};
use herald_api::{
    Activation, AlignedBytes, LayerDesc, LayerParams, Mamba1, Mamba2, Result, ShortConv, WeightRole,
};
use ndarray::{Array1, Array2, s};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::bounds::check_all;
use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::response::Channel;
use super::super::weights::Matrix;
use super::super::{Case, Subject, property};
use super::order::{Limits, Weights, activations, create, desc, order, scratch};

/// How sequences are run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    hidden: usize,
    /// Tokens of each sequence.
    lens: Vec<usize>,
    /// The most tokens of a sequence in a batch.
    piece: usize,
    workers: usize,
    in_place: bool,
    seed: u64,
}

impl Run {
    /// Elements of a token's activations.
    pub(super) fn hidden(&self) -> usize {
        self.hidden
    }
}

pub(super) fn runs() -> impl Strategy<Value = Run> + Clone {
    let lens = prop_oneof![
        3 => prop::collection::vec(1_usize..24, 1..4),
        1 => prop::collection::vec(50_usize..90, 1..3),
    ];
    let pieces = prop_oneof![Just(usize::MAX), Just(1_usize), 2_usize..40];
    let hidden = select(&[5_usize, 24, 32][..]);
    (hidden, lens, pieces, 1_usize..4, any::<bool>(), any::<u64>()).prop_map(
        |(hidden, lens, piece, workers, in_place, seed)| Run { hidden, lens, piece, workers, in_place, seed },
    )
}

/// A layer in float64: its description, and what its branch makes of a sequence.
pub(super) struct Reference {
    pub(super) desc: LayerDesc,
    pub(super) branch: Box<dyn Fn(&Approx) -> Approx>,
}

pub(super) fn check_mamba1(plugin: &Subject<'_>) {
    let sizes = (select(&[1_usize, 16, 72][..]), 1_usize..9, 1_usize..5, 1_usize..7, any::<bool>());
    property(&format!("{}: mamba1", plugin.name()), 60, (runs(), sizes), |(run, sizes)| {
        let (inner, state, taps, dt_rank, plain_norms) = sizes;
        let params = Mamba1 { inner, state, taps, dt_rank, plain_norms };
        compare(plugin, &run, |weights| mamba1(run.hidden, &params, weights))
    });
}

pub(super) fn check_mamba2(plugin: &Subject<'_>) {
    let sizes = (1_usize..3, 1_usize..3, select(&[1_usize, 6, 16][..]), 1_usize..17, 1_usize..5);
    property(&format!("{}: mamba2", plugin.name()), 60, (runs(), sizes), |(run, sizes)| {
        let (n_groups, heads, dim, state, taps) = sizes;
        let n_heads = n_groups * heads;
        let params = Mamba2 { inner: n_heads * dim, state, taps, n_heads, n_groups };
        compare(plugin, &run, |weights| mamba2(run.hidden, &params, weights))
    });
}

pub(super) fn check_short_conv(plugin: &Subject<'_>) {
    property(&format!("{}: short_conv", plugin.name()), 60, (runs(), 1_usize..5), |(run, taps)| {
        compare(plugin, &run, |weights| short_conv(run.hidden, &ShortConv { taps }, weights))
    });
}

fn mamba1(hidden: usize, params: &Mamba1, weights: &mut Weights) -> Reference {
    let Mamba1 { inner, state, taps, dt_rank, plain_norms } = *params;
    let desc = desc(hidden, LayerParams::Mamba1(params.clone()), &mut weights.values);
    let eps = f64::from(desc.norm_eps);
    let norm = weights.norm(WeightRole::Norm, hidden);
    let input = weights.matrix(WeightRole::InProjection, 2 * inner, hidden);
    let filters = weights.plain(WeightRole::Conv, [inner, taps], [-1.0, 1.0]);
    let bias = weights.perhaps(|weights| weights.vector(WeightRole::ConvBias, inner, [-0.5, 0.5]));
    let x = weights.matrix(WeightRole::SsmX, dt_rank + 2 * state, inner);
    let mut norm_of = |role, len| {
        let norm = if plain_norms { None } else { weights.perhaps(|weights| weights.norm(role, len)) };
        norm.or_else(|| plain_norms.then(|| Array1::ones(len)))
    };
    let norms = [
        norm_of(WeightRole::SsmDtNorm, dt_rank),
        norm_of(WeightRole::SsmBNorm, state),
        norm_of(WeightRole::SsmCNorm, state),
    ];
    let dt = weights.matrix(WeightRole::SsmDt, inner, dt_rank);
    let dt_bias = weights.perhaps(|weights| weights.vector(WeightRole::SsmDtBias, inner, [-5.0, 0.0]));
    let a = weights.plain(WeightRole::SsmA, [inner, state], [-8.0, -0.1]);
    let d = weights.vector(WeightRole::SsmD, inner, [-1.0, 1.0]);
    let output = weights.matrix(WeightRole::OutProjection, hidden, inner);
    let branch = move |rows: &Approx| {
        let uz = rows.rms_norm(&norm, eps).multiply(&input, None);
        let (u, z) = (uz.columns(0..inner), uz.columns(inner..2 * inner));
        let u = u.convolve(&filters, bias.as_ref()).activate(Activation::Silu);
        let dbc = u.multiply(&x, None);
        let parts = [0..dt_rank, dt_rank..dt_rank + state, dt_rank + state..dt_rank + 2 * state]
            .map(|part| dbc.columns(part));
        let [low, b, c] = std::array::from_fn(|index| {
            let part: &Approx = &parts[index];
            norms[index].iter().fold(part.clone(), |part, norm| part.rms_norm(norm, eps))
        });
        let dt = low.multiply(&dt, dt_bias.as_ref()).softplus();
        let y = respond(&u, &dt, &|_| (&b, &c, 0), &|channel| channel, state, &|channel, n| a[[channel, n]]);
        let y = y.plus(&skip(&u, &|channel| d[channel]));
        y.times(&z.activate(Activation::Silu)).multiply(&output, None)
    };
    Reference { desc, branch: Box::new(branch) }
}

fn mamba2(hidden: usize, params: &Mamba2, weights: &mut Weights) -> Reference {
    let Mamba2 { inner, state, taps, n_heads, n_groups } = *params;
    let (dim, channels) = (inner / n_heads, inner + 2 * n_groups * state);
    let desc = desc(hidden, LayerParams::Mamba2(params.clone()), &mut weights.values);
    let eps = f64::from(desc.norm_eps);
    let norm = weights.norm(WeightRole::Norm, hidden);
    let input = weights.matrix(WeightRole::InProjection, inner + channels + n_heads, hidden);
    let filters = weights.plain(WeightRole::Conv, [channels, taps], [-1.0, 1.0]);
    let bias = weights.perhaps(|weights| weights.vector(WeightRole::ConvBias, channels, [-0.5, 0.5]));
    let dt_bias = weights.vector(WeightRole::SsmDtBias, n_heads, [-4.0, 0.0]);
    // Files keep these as columns, or as they are.
    let mut by_head = |role, range| {
        if weights.values.coin() {
            weights.vector(role, n_heads, range)
        } else {
            weights.plain(role, [n_heads, 1], range).column(0).to_owned()
        }
    };
    let a = by_head(WeightRole::SsmA, [-6.0, -0.1]);
    let d = by_head(WeightRole::SsmD, [-1.0, 1.0]);
    let group = inner / n_groups;
    let gated_norm: Option<Array2<f64>> =
        weights.perhaps(|weights| weights.plain(WeightRole::SsmNorm, [n_groups, group], [0.5, 1.5]));
    let output = weights.matrix(WeightRole::OutProjection, hidden, inner);
    let branch = move |rows: &Approx| {
        let projected = rows.rms_norm(&norm, eps).multiply(&input, None);
        let z = projected.columns(0..inner);
        let ubc = projected.columns(inner..inner + channels);
        let ubc = ubc.convolve(&filters, bias.as_ref()).activate(Activation::Silu);
        let (u, b, c) = (
            ubc.columns(0..inner),
            ubc.columns(inner..inner + n_groups * state),
            ubc.columns(inner + n_groups * state..channels),
        );
        let bias = Array2::from_shape_fn((rows.value.nrows(), n_heads), |(_, head)| dt_bias[head]);
        let dt = projected.columns(inner + channels..inner + channels + n_heads);
        let dt = dt.plus(&Approx::exact(bias)).softplus();
        let group_of = |channel: usize| channel / dim / (n_heads / n_groups);
        let shared = |channel: usize| (&b, &c, group_of(channel) * state);
        let y = respond(&u, &dt, &shared, &|channel| channel / dim, state, &|channel, _| a[channel / dim]);
        let y = y.plus(&skip(&u, &|channel| d[channel / dim]));
        let gated = y.times(&z.activate(Activation::Silu));
        let normed = match &gated_norm {
            Some(weight) => {
                let mut normed = gated.clone();
                for (index, weight) in weight.rows().into_iter().enumerate() {
                    let columns = index * group..(index + 1) * group;
                    let part = gated.columns(columns.clone()).rms_norm(&weight.to_owned(), eps);
                    normed.value.slice_mut(s![.., columns.clone()]).assign(&part.value);
                    normed.error.slice_mut(s![.., columns]).assign(&part.error);
                }
                normed
            }
            None => gated,
        };
        normed.multiply(&output, None)
    };
    Reference { desc, branch: Box::new(branch) }
}

fn short_conv(hidden: usize, params: &ShortConv, weights: &mut Weights) -> Reference {
    let desc = desc(hidden, LayerParams::ShortConv(params.clone()), &mut weights.values);
    let eps = f64::from(desc.norm_eps);
    let norm = weights.norm(WeightRole::Norm, hidden);
    let input: Matrix = weights.matrix(WeightRole::InProjection, 3 * hidden, hidden);
    let filters = weights.plain(WeightRole::Conv, [hidden, params.taps], [-1.0, 1.0]);
    let bias = weights.perhaps(|weights| weights.vector(WeightRole::ConvBias, hidden, [-0.5, 0.5]));
    let output = weights.matrix(WeightRole::OutProjection, hidden, hidden);
    let branch = move |rows: &Approx| {
        let bcu = rows.rms_norm(&norm, eps).multiply(&input, None);
        let [b, c, u] = [0, 1, 2].map(|part| bcu.columns(part * hidden..(part + 1) * hidden));
        c.times(&b.times(&u).convolve(&filters, bias.as_ref())).multiply(&output, None)
    };
    Reference { desc, branch: Box::new(branch) }
}

/// What all channels of a state space answer: `shared` gives a channel's B and C and the first of their columns, `dt_of` its
/// column of `dt`.
fn respond<'m>(
    u: &Approx,
    dt: &Approx,
    shared: &dyn Fn(usize) -> (&'m Approx, &'m Approx, usize),
    dt_of: &dyn Fn(usize) -> usize,
    state: usize,
    a: &dyn Fn(usize, usize) -> f64,
) -> Approx {
    let mut y = u.clone();
    for channel in 0..u.value.ncols() {
        let (b, c, first) = shared(channel);
        let rows = s![.., first..first + state];
        let (step, a) = (dt_of(channel), |n| a(channel, n));
        let response = Channel {
            b: [b.value.slice(rows), b.error.slice(rows)],
            c: [c.value.slice(rows), c.error.slice(rows)],
            u: [u.value.column(channel), u.error.column(channel)],
            dt: [dt.value.column(step), dt.error.column(step)],
            a: &a,
        }
        .response();
        for (token, sum) in response.into_iter().enumerate() {
            y.value[[token, channel]] = sum.value;
            y.error[[token, channel]] = sum.bound;
        }
    }
    y
}

/// `d * u`, by channel.
fn skip(u: &Approx, d: &dyn Fn(usize) -> f64) -> Approx {
    let d = Array2::from_shape_fn(u.value.dim(), |(_, channel)| d(channel));
    u.times(&Approx::exact(d))
}

pub(super) fn compare(plugin: &Subject<'_>, run: &Run, make: impl FnOnce(&mut Weights) -> Reference) -> Case {
    let mut weights = Weights::new(plugin.kernels, run.seed);
    let reference = make(&mut weights);
    let mut inputs = |n_tokens| activations(n_tokens, run.hidden, &mut weights.values);
    let sequences: Vec<[(Vec<f32>, Approx); 2]> =
        run.lens.iter().map(|len| [inputs(*len), inputs(*len)]).collect();
    let results = forward(plugin, run, &reference.desc, &weights, &sequences)
        .map_err(|error| TestCaseError::fail(format!("the layer failed: {error}")))?;
    for (index, ([(_, x), (_, residual)], results)) in sequences.iter().zip(results).enumerate() {
        let branch = (reference.branch)(x).scale(f64::from(reference.desc.residual_scale));
        let expected = if run.in_place { x } else { residual }.plus(&branch);
        for (token, results) in results.chunks_exact(run.hidden).enumerate() {
            check_all(&format!("sequence {index}, token {token}"), results, expected.row(token))?;
        }
    }
    Ok(())
}

/// Runs the sequences side by side, a piece of each at a time; returns each one's results.
fn forward(
    plugin: &Subject<'_>,
    run: &Run,
    desc: &LayerDesc,
    weights: &Weights,
    sequences: &[[(Vec<f32>, Approx); 2]],
) -> Result<Vec<Vec<f32>>> {
    let hidden = run.hidden;
    let max_tokens = run.lens.iter().map(|len| (*len).min(run.piece)).sum();
    let limits = Limits { max_tokens, max_workers: run.workers, page_tokens: 4 };
    let layer = create(plugin, order(desc, &weights.shared, limits))?;
    let mut scratch = scratch(&layer)?;
    let threads = Scoped(run.workers);
    let lent = Lent::new(&threads);
    let mut buffers = BatchBuffers::default();
    let mut states =
        sequences.iter().map(|_| AlignedBytes::zeroed(layer.state_bytes())).collect::<Result<Vec<_>>>()?;
    let mut results = vec![Vec::new(); sequences.len()];
    while results.iter().zip(&run.lens).any(|(result, len)| result.len() < len * hidden) {
        let (mut x, mut output, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        let mut batch = buffers.begin();
        for (index, state) in states.iter_mut().enumerate() {
            let done = results[index].len() / hidden;
            let n_tokens = run.piece.min(run.lens[index] - done);
            if n_tokens == 0 {
                continue;
            }
            let [(own, _), (residual, _)] = &sequences[index];
            let new = done * hidden..(done + n_tokens) * hidden;
            x.extend_from_slice(&own[new.clone()]);
            output.extend_from_slice(&if run.in_place { own } else { residual }[new]);
            batch.push(n_tokens, done, Some(state), [])?;
            parts.push((index, n_tokens));
        }
        let request = Forward {
            n_tokens: x.len() / hidden,
            tokens: &[],
            positions: &[],
            input: (!run.in_place).then_some(&x[..]),
            output: &mut output,
            parallel: lent.parallel(),
        };
        layer.forward(request, Some(&mut batch), &mut scratch)?;
        let mut output = output.as_slice();
        for (index, n_tokens) in parts {
            let (these, rest) = output.split_at(n_tokens * hidden);
            results[index].extend_from_slice(these);
            output = rest;
        }
    }
    Ok(results)
}
