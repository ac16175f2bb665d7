//! Scalar kernels of layers with recurrent states.

use herald_layers::kernels::{SelectiveScan, SsdStep, Tap};

use crate::vectors::dot;

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

pub(crate) fn decay_weights(to: f32, from: &[f32], weight: &[f32], x: &mut [f32]) {
    for ((x, from), weight) in x.iter_mut().zip(from).zip(weight) {
        *x *= (to - from).exp() * weight;
    }
}
