//! Scalar kernels of layers with recurrent states.

use herald_layers::kernels::{DeltaRule, SelectiveScan, SsdStep, Tap};

use crate::vectors::{add_scaled, dot};

pub(crate) fn conv(taps: &[Tap<'_>], bias: &[f32], out: &mut [f32]) {
    out.copy_from_slice(bias);
    for tap in taps {
        for ((out, weight), input) in out.iter_mut().zip(tap.weight).zip(tap.input) {
            *out += weight * input;
        }
    }
}

pub(crate) fn selective_scan(scan: &SelectiveScan<'_>, h: &mut [f32], out: &mut [f32]) {
    let width = scan.channels;
    for (token, (dt, y)) in scan.dt.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
        let x = &scan.x[token * scan.x_stride..][..width];
        let b = &scan.b[token * scan.bc_stride..][..scan.state];
        let c = &scan.c[token * scan.bc_stride..][..scan.state];
        for ((y, x), d) in y.iter_mut().zip(x).zip(scan.d) {
            *y = d * x;
        }
        let rows = h.chunks_exact_mut(width).zip(scan.a.chunks_exact(width));
        for ((h, a), (b, c)) in rows.zip(b.iter().zip(c)) {
            for (channel, h) in h.iter_mut().enumerate() {
                *h = (dt[channel] * a[channel]).exp() * *h + dt[channel] * x[channel] * b;
                y[channel] += c * *h;
            }
        }
    }
}

pub(crate) fn ssd_step(step: &SsdStep<'_>, h: &mut [f32], out: &mut [f32]) {
    for ((y, x), h) in out.iter_mut().zip(step.x).zip(h.chunks_exact_mut(step.b.len())) {
        let scaled = step.dt * x;
        for (h, b) in h.iter_mut().zip(step.b) {
            *h = step.decay * *h + scaled * b;
        }
        *y = dot(h, step.c);
    }
}

pub(crate) fn delta_rule(rule: &DeltaRule<'_>, state: &mut [f32], out: &mut [f32]) {
    let DeltaRule { key_dim, value_dim, .. } = *rule;
    let n_decays = rule.token_decays(state, out);
    let tokens = out.chunks_exact_mut(value_dim).zip(rule.decays.chunks_exact(n_decays)).zip(rule.betas);
    for (token, ((out, decays), beta)) in tokens.enumerate() {
        let query = &rule.queries[token * rule.key_stride..][..key_dim];
        let key = &rule.keys[token * rule.key_stride..][..key_dim];
        let value = &rule.values[token * rule.value_stride..][..value_dim];
        // What the decayed state answers to the key; then what is written.
        out.fill(0.0);
        for ((row, state), key) in state.chunks_exact_mut(value_dim).enumerate().zip(key) {
            let decay = decays[row % n_decays];
            state.iter_mut().for_each(|state| *state *= decay);
            add_scaled(out, *key, state);
        }
        out.iter_mut().zip(value).for_each(|(out, value)| *out = beta * (value - *out));
        for (state, key) in state.chunks_exact_mut(value_dim).zip(key) {
            add_scaled(state, *key, out);
        }
        out.fill(0.0);
        for (state, query) in state.chunks_exact(value_dim).zip(query) {
            add_scaled(out, *query, state);
        }
    }
}

pub(crate) fn mul_sigmoid(x: &mut [f32], gate: &[f32]) {
    x.iter_mut().zip(gate).for_each(|(x, gate)| *x /= 1.0 + (-gate).exp());
}

pub(crate) fn decay_weights(to: f32, from: &[f32], weight: &[f32], x: &mut [f32]) {
    for ((x, from), weight) in x.iter_mut().zip(from).zip(weight) {
        *x *= (to - from).exp() * weight;
    }
}
