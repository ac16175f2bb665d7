//! Kernels of layers with recurrent states.

use herald_layers::kernels::{SelectiveScan, SsdStep, Tap};

use crate::math::{exp, softplus as softplus_of};
use crate::simd::{LANES, Simd};
use crate::vectors::{map, map_with};

/// `x *= y`.
#[inline(always)]
pub(crate) fn mul<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    map_with(
        s,
        x,
        y,
        #[inline(always)]
        |x, y| s.mul(x, y),
    );
}

/// `x = ln(1 + e^x)`.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: &mut [f32]) {
    map(
        s,
        x,
        #[inline(always)]
        |x| softplus_of(s, x),
    );
}

/// `x *= exp(to - from) * weight`.
#[inline(always)]
pub(crate) fn decay_weights<S: Simd>(s: S, to: f32, from: &[f32], weight: &[f32], x: &mut [f32]) {
    let len = x.len().min(from.len()).min(weight.len());
    let ((froms, from_rest), (weights, weight_rest)) = (from[..len].as_chunks(), weight[..len].as_chunks());
    let (xs, x_rest) = x[..len].as_chunks_mut();
    let to = s.splat(to);
    for ((x, from), weight) in xs.iter_mut().zip(froms).zip(weights) {
        let decay = s.mul(exp(s, s.sub(to, s.load(from))), s.load(weight));
        s.store(x, s.mul(s.load(x), decay));
    }
    if !x_rest.is_empty() {
        let decay = s.mul(exp(s, s.sub(to, s.load_first(from_rest))), s.load_first(weight_rest));
        s.store_first(x_rest, s.mul(s.load_first(x_rest), decay));
    }
}

/// One token of a causal convolution.
#[inline(always)]
pub(crate) fn conv<S: Simd>(s: S, taps: &[Tap<'_>], bias: &[f32], out: &mut [f32]) {
    let len = out.len();
    assert!(
        bias.len() == len && taps.iter().all(|tap| tap.weight.len() == len && tap.input.len() == len),
        "a convolution of {len} channels has slices of other lengths"
    );
    let ((outs, out_rest), (biases, bias_rest)) = (out.as_chunks_mut::<LANES>(), bias.as_chunks::<LANES>());
    for (at, (out, bias)) in outs.iter_mut().zip(biases).enumerate() {
        let mut sum = s.load(bias);
        for tap in taps {
            let ((weights, _), (inputs, _)) = (tap.weight.as_chunks(), tap.input.as_chunks());
            sum = s.fma(s.load(&weights[at]), s.load(&inputs[at]), sum);
        }
        s.store(out, sum);
    }
    if !out_rest.is_empty() {
        let mut sum = s.load_first(bias_rest);
        for tap in taps {
            let (weight, input) = (&tap.weight[len - out_rest.len()..], &tap.input[len - out_rest.len()..]);
            sum = s.fma(s.load_first(weight), s.load_first(input), sum);
        }
        s.store_first(out_rest, sum);
    }
}

/// One token of a head through Mamba-2's recurrence.
#[inline(always)]
pub(crate) fn ssd_step<S: Simd>(s: S, step: &SsdStep<'_>, h: &mut [f32], out: &mut [f32]) {
    let n = step.b.len();
    assert!(
        step.c.len() == n && step.x.len() == out.len() && h.len() == n * out.len(),
        "a step of {} channels with states of {n} has slices of other lengths",
        out.len()
    );
    let ((bs, b_rest), (cs, c_rest)) = (step.b.as_chunks(), step.c.as_chunks());
    let decay = s.splat(step.decay);
    for (channel, (y, x)) in out.iter_mut().zip(step.x).enumerate() {
        let (hs, h_rest) = h[channel * n..(channel + 1) * n].as_chunks_mut();
        let scaled = s.splat(step.dt * x);
        let mut sum = s.zero();
        for ((h, b), c) in hs.iter_mut().zip(bs).zip(cs) {
            let fresh = s.fma(decay, s.load(h), s.mul(scaled, s.load(b)));
            s.store(h, fresh);
            sum = s.fma(fresh, s.load(c), sum);
        }
        if !h_rest.is_empty() {
            let fresh = s.fma(decay, s.load_first(h_rest), s.mul(scaled, s.load_first(b_rest)));
            s.store_first(h_rest, fresh);
            sum = s.fma(fresh, s.load_first(c_rest), sum);
        }
        *y = s.sum(sum);
    }
}

/// A run of tokens of a block of channels through Mamba's selective scan, sixteen channels at a time.
#[inline(always)]
pub(crate) fn selective_scan<S: Simd>(s: S, scan: &SelectiveScan<'_>, h: &mut [f32], out: &mut [f32]) {
    let SelectiveScan { x_stride, bc_stride, n_tokens, channels, state, .. } = *scan;
    if n_tokens == 0 || channels == 0 || state == 0 {
        out.fill(0.0);
        return;
    }
    let last = n_tokens - 1;
    assert!(
        scan.x.len() >= last * x_stride + channels
            && scan.dt.len() >= n_tokens * channels
            && scan.b.len().min(scan.c.len()) >= last * bc_stride + state
            && scan.a.len() >= state * channels
            && scan.d.len() >= channels
            && h.len() >= state * channels
            && out.len() >= n_tokens * channels,
        "a scan of {n_tokens} tokens of {channels} channels with states of {state} has slices too short"
    );
    for at in (0..channels).step_by(LANES) {
        if channels - at >= LANES {
            scan_lanes::<S, true>(s, scan, at, h, out);
        } else {
            scan_lanes::<S, false>(s, scan, at, h, out);
        }
    }
}

/// The channels of a row from `at` on: sixteen, or where not `FULL` those that are left and zeros.
#[inline(always)]
fn load_lanes<S: Simd, const FULL: bool>(s: S, row: &[f32], at: usize) -> S::F {
    if FULL { s.load(&row[at..].as_chunks().0[0]) } else { s.load_first(&row[at..]) }
}

/// Stores what [`load_lanes`] would load.
#[inline(always)]
fn store_lanes<S: Simd, const FULL: bool>(s: S, row: &mut [f32], at: usize, x: S::F) {
    if FULL { s.store(&mut row[at..].as_chunks_mut().0[0], x) } else { s.store_first(&mut row[at..], x) }
}

/// The channels from `at` on: sixteen, or where not `FULL` those that are left.
#[inline(always)]
fn scan_lanes<S: Simd, const FULL: bool>(
    s: S,
    scan: &SelectiveScan<'_>,
    at: usize,
    h: &mut [f32],
    out: &mut [f32],
) {
    let SelectiveScan { x_stride, bc_stride, n_tokens, channels, state, .. } = *scan;
    let d = load_lanes::<S, FULL>(s, &scan.d[..channels], at);
    for token in 0..n_tokens {
        let x = load_lanes::<S, FULL>(s, &scan.x[token * x_stride..][..channels], at);
        let row = token * channels..(token + 1) * channels;
        let dt = load_lanes::<S, FULL>(s, &scan.dt[row.clone()], at);
        let (b, c) = (&scan.b[token * bc_stride..][..state], &scan.c[token * bc_stride..][..state]);
        let dtx = s.mul(dt, x);
        let mut y = s.mul(d, x);
        let states = h.chunks_exact_mut(channels).zip(scan.a.chunks_exact(channels));
        for ((h, a), (b, c)) in states.zip(b.iter().zip(c)) {
            let decay = exp(s, s.mul(dt, load_lanes::<S, FULL>(s, a, at)));
            let added = s.mul(dtx, s.splat(*b));
            let fresh = s.fma(decay, load_lanes::<S, FULL>(s, h, at), added);
            store_lanes::<S, FULL>(s, h, at, fresh);
            y = s.fma(s.splat(*c), fresh, y);
        }
        store_lanes::<S, FULL>(s, &mut out[row], at, y);
    }
}
