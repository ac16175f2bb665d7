//! Delta nets, in every way that a host may cut sequences, and with every way to their gates and decays.

use herald_api::{Activation, DeltaDecay, DeltaGate, DeltaHeads, DeltaNet, LayerParams, WeightRole};
use ndarray::{Array1, Array2, s};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::delta::DeltaHead;
use super::super::reference::Approx;
use super::super::{Subject, property};
use super::order::{Weights, desc};
use super::recurrent::{Reference, compare, runs};

fn params() -> impl Strategy<Value = (DeltaNet, bool)> {
    let heads = (1_usize..4, 1_usize..4, select(&[DeltaHeads::Grouped, DeltaHeads::Tiled][..]));
    let dims = (select(&[1_usize, 6, 16, 32][..]), select(&[1_usize, 5, 16, 40][..]), 1_usize..5);
    let kinds = (
        select(&[DeltaDecay::Head, DeltaDecay::Channel][..]),
        select(&[DeltaGate::Silu, DeltaGate::Sigmoid][..]),
    );
    let ranks = (select(&[None, Some(1_usize), Some(8)][..]), select(&[None, Some(1_usize), Some(8)][..]));
    (heads, dims, kinds, ranks, any::<bool>()).prop_map(
        |((n_key_heads, shared, heads), (key_dim, value_dim, taps), (decay, gate), ranks, joined)| {
            let joined = joined && decay == DeltaDecay::Head && ranks.0.is_none();
            let params = DeltaNet {
                n_key_heads,
                n_value_heads: n_key_heads * shared,
                key_dim,
                value_dim,
                taps,
                heads,
                decay,
                gate,
                decay_rank: ranks.0,
                gate_rank: ranks.1,
            };
            (params, joined)
        },
    )
}

pub(super) fn check(plugin: &Subject<'_>) {
    property(&format!("{}: delta net", plugin.name()), 100, (runs(), params()), |(run, (params, joined))| {
        compare(plugin, &run, |weights| reference(run.hidden(), &params, joined, weights))
    });
}

/// Makes betas before their sigmoid, and decays before their softplus, of normed activations.
type Controls = Box<dyn Fn(&Approx) -> [Approx; 2]>;

/// What gives betas and decays from the normed activations.
fn controls(hidden: usize, params: &DeltaNet, joined: bool, weights: &mut Weights) -> Controls {
    let DeltaNet { n_key_heads, n_value_heads, decay_rank, .. } = *params;
    if joined {
        let both = weights.matrix(WeightRole::BetaAndDecay, 2 * n_value_heads, hidden);
        let shared = n_value_heads / n_key_heads;
        return Box::new(move |x| {
            let both = x.multiply(&both, None);
            // By key heads: the betas of the value heads that share it, then their decays.
            let of = |which: usize| {
                let column = |head: usize| head / shared * 2 * shared + which * shared + head % shared;
                both.pick(&(0..n_value_heads).map(column).collect::<Vec<_>>())
            };
            [of(0), of(1)]
        });
    }
    let beta = weights.matrix(WeightRole::Beta, n_value_heads, hidden);
    let decays = params.n_decays();
    let decay = weights.matrix(WeightRole::Decay, decay_rank.unwrap_or(decays), hidden);
    let up = decay_rank.map(|rank| weights.matrix(WeightRole::DecayUp, decays, rank));
    Box::new(move |x| {
        let low = x.multiply(&decay, None);
        [x.multiply(&beta, None), up.iter().fold(low, |low, up| low.multiply(up, None))]
    })
}

fn reference(hidden: usize, params: &DeltaNet, joined: bool, weights: &mut Weights) -> Reference {
    let DeltaNet { n_key_heads, n_value_heads, key_dim, value_dim, taps, gate_rank, .. } = *params;
    let (keys, values) = (n_key_heads * key_dim, n_value_heads * value_dim);
    let desc = desc(hidden, LayerParams::DeltaNet(params.clone()), &mut weights.values);
    let eps = f64::from(desc.norm_eps);
    let norm = weights.norm(WeightRole::Norm, hidden);
    let mut convolved = |role, conv, channels| {
        let matrix = weights.matrix(role, channels, hidden);
        let filters = weights.plain(conv, [channels, taps], [-1.0, 1.0]);
        move |x: &Approx| x.multiply(&matrix, None).convolve(&filters, None).activate(Activation::Silu)
    };
    let q = convolved(WeightRole::Query, WeightRole::QueryConv, keys);
    let k = convolved(WeightRole::Key, WeightRole::KeyConv, keys);
    let v = convolved(WeightRole::Value, WeightRole::ValueConv, values);
    let controls = controls(hidden, params, joined, weights);
    let dt_bias = weights.vector(WeightRole::SsmDtBias, params.n_decays(), [-4.0, 0.0]);
    let a = if weights.values.coin() {
        weights.vector(WeightRole::SsmA, n_value_heads, [-6.0, -0.1])
    } else {
        weights.plain(WeightRole::SsmA, [n_value_heads, 1], [-6.0, -0.1]).column(0).to_owned()
    };
    let head_norm = weights.norm(WeightRole::SsmNorm, value_dim);
    let gate = weights.matrix(WeightRole::OutputGate, gate_rank.unwrap_or(values), hidden);
    let gate_up = gate_rank.map(|rank| weights.matrix(WeightRole::OutputGateUp, values, rank));
    let output = weights.matrix(WeightRole::OutProjection, hidden, values);
    let params = params.clone();
    let branch = move |rows: &Approx| {
        let x = rows.rms_norm(&norm, eps);
        let [beta, dt] = controls(&x);
        let beta = beta.sigmoid();
        let bias = Array2::from_shape_fn(dt.value.dim(), |(_, column)| dt_bias[column]);
        let dt = dt.plus(&Approx::exact(bias)).softplus();
        let per_head = params.n_decays() / n_value_heads;
        let a = Array2::from_shape_fn(dt.value.dim(), |(_, column)| a[column / per_head]);
        let decay = dt.times(&Approx::exact(a)).exp();
        let length = |x: &Approx, size: f64| {
            let weight = Array1::from_elem(key_dim, size);
            x.rows_of(key_dim).rms_norm(&weight, 1e-6 / key_dim as f64).rows_of(keys)
        };
        let (q, k) = (length(&q(&x), 1.0 / key_dim as f64), length(&k(&x), 1.0 / (key_dim as f64).sqrt()));
        let mut y = v(&x);
        for head in 0..n_value_heads {
            let at = params.key_head(head) * key_dim;
            let (keys, values) = (s![.., at..at + key_dim], s![.., head * value_dim..(head + 1) * value_dim]);
            let decays = s![.., head * per_head..(head + 1) * per_head];
            let given = DeltaHead {
                q: [q.value.slice(keys), q.error.slice(keys)],
                k: [k.value.slice(keys), k.error.slice(keys)],
                v: [y.value.slice(values), y.error.slice(values)],
                beta: [beta.value.column(head), beta.error.column(head)],
                decay: [decay.value.slice(decays), decay.error.slice(decays)],
            };
            let (given, _) = given.respond(&mut Array2::zeros((key_dim, value_dim)));
            y.value.slice_mut(values).assign(&given.value);
            y.error.slice_mut(values).assign(&given.error);
        }
        let normed = y.rows_of(value_dim).rms_norm(&head_norm, eps).rows_of(values);
        let gate = x.multiply(&gate, None);
        let gate = gate_up.iter().fold(gate, |gate, up| gate.multiply(up, None));
        let gate = match params.gate {
            DeltaGate::Sigmoid => gate.sigmoid(),
            _ => gate.activate(Activation::Silu),
        };
        normed.times(&gate).multiply(&output, None)
    };
    Reference { desc, branch: Box::new(branch) }
}
