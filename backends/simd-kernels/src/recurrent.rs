//! Kernels of layers with recurrent states.

use herald_layers::kernels::{SelectiveScan, SsdStep, Tap};

use crate::math::{exp, softplus as softplus_of};
use crate::simd::{LANES, Simd};
use crate::vectors::{load, store};

/// `x *= y`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn mul<L: Simd>(x: &mut [f32], y: &[f32]) {
    let len = x.len().min(y.len());
    let (x, y) = (&mut x[..len], &y[..len]);
    // SAFETY: the caller vouches; places are within both.
    unsafe {
        for at in (0..len).step_by(LANES) {
            let product = L::mul(load::<L>(x, at), load::<L>(y, at));
            store::<L>(x, at, product);
        }
    }
}

/// `x = ln(1 + e^x)`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn softplus<L: Simd>(x: &mut [f32]) {
    // SAFETY: the caller vouches; places are within the slice.
    unsafe {
        for at in (0..x.len()).step_by(LANES) {
            let soft = softplus_of::<L>(load::<L>(x, at));
            store::<L>(x, at, soft);
        }
    }
}

/// `x *= exp(to - from) * weight`.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn decay_weights<L: Simd>(to: f32, from: &[f32], weight: &[f32], x: &mut [f32]) {
    let len = x.len().min(from.len()).min(weight.len());
    let (from, weight, x) = (&from[..len], &weight[..len], &mut x[..len]);
    // SAFETY: the caller vouches; places are within all three.
    unsafe {
        let to = L::splat(to);
        for at in (0..len).step_by(LANES) {
            let left = exp::<L>(L::sub(to, load::<L>(from, at)));
            let left = L::mul(left, load::<L>(weight, at));
            let kept = L::mul(load::<L>(x, at), left);
            store::<L>(x, at, kept);
        }
    }
}

/// One token of a causal convolution.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn conv<L: Simd>(taps: &[Tap<'_>], bias: &[f32], out: &mut [f32]) {
    let len = out.len();
    assert!(
        bias.len() == len && taps.iter().all(|tap| tap.weight.len() == len && tap.input.len() == len),
        "a convolution of {len} channels has slices of other lengths"
    );
    // SAFETY: the caller vouches; places are within all slices, whose lengths are checked.
    unsafe {
        for at in (0..len).step_by(LANES) {
            let mut sum = load::<L>(bias, at);
            for tap in taps {
                sum = L::fma(load::<L>(tap.weight, at), load::<L>(tap.input, at), sum);
            }
            store::<L>(out, at, sum);
        }
    }
}

/// One token of a head through Mamba-2's recurrence.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn ssd_step<L: Simd>(step: &SsdStep<'_>, h: &mut [f32], out: &mut [f32]) {
    let n = step.b.len();
    assert!(
        step.c.len() == n && step.x.len() == out.len() && h.len() == n * out.len(),
        "a step of {} channels with states of {n} has slices of other lengths",
        out.len()
    );
    // SAFETY: the caller vouches; places are within all slices, whose lengths are checked.
    unsafe {
        let decay = L::splat(step.decay);
        for (channel, (y, x)) in out.iter_mut().zip(step.x).enumerate() {
            let h = &mut h[channel * n..(channel + 1) * n];
            let scaled = L::splat(step.dt * x);
            let mut sum = L::zero();
            for at in (0..n).step_by(LANES) {
                let added = L::mul(scaled, load::<L>(step.b, at));
                let fresh = L::fma(decay, load::<L>(h, at), added);
                store::<L>(h, at, fresh);
                sum = L::fma(fresh, load::<L>(step.c, at), sum);
            }
            *y = L::sum(sum);
        }
    }
}

/// A run of tokens of a block of channels through Mamba's selective scan, sixteen channels at a time.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn selective_scan<L: Simd>(scan: &SelectiveScan<'_>, h: &mut [f32], out: &mut [f32]) {
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
        // SAFETY: the caller vouches; the lengths are checked above, and lanes stay within the channels.
        unsafe {
            if channels - at >= LANES {
                scan_lanes::<L, true>(scan, at, h, out);
            } else {
                scan_lanes::<L, false>(scan, at, h, out);
            }
        }
    }
}

/// The channels from `at` on: sixteen, or where not `FULL` those that are left.
///
/// # Safety
/// As for [`Simd`]; all slices are as long as [`scan`] asks.
#[inline(always)]
unsafe fn scan_lanes<L: Simd, const FULL: bool>(
    scan: &SelectiveScan<'_>,
    at: usize,
    h: &mut [f32],
    out: &mut [f32],
) {
    let SelectiveScan { x_stride, bc_stride, n_tokens, channels, state, .. } = *scan;
    let left = channels - at;
    // SAFETY: the caller vouches: each pointer is to `left` channels or more, of which no more are touched.
    unsafe {
        let load = |from: *const f32| if FULL { L::load(from) } else { L::load_first(from, left) };
        let store = |to: *mut f32, x| if FULL { L::store(to, x) } else { L::store_first(to, x, left) };
        let d = load(scan.d.as_ptr().add(at));
        for token in 0..n_tokens {
            let x = load(scan.x.as_ptr().add(token * x_stride + at));
            let dt = load(scan.dt.as_ptr().add(token * channels + at));
            let (b, c) = (scan.b.as_ptr().add(token * bc_stride), scan.c.as_ptr().add(token * bc_stride));
            let dtx = L::mul(dt, x);
            let mut y = L::mul(d, x);
            for n in 0..state {
                let place = n * channels + at;
                let kept = exp::<L>(L::mul(dt, load(scan.a.as_ptr().add(place))));
                let added = L::mul(dtx, L::splat(*b.add(n)));
                let fresh = L::fma(kept, load(h.as_ptr().add(place)), added);
                store(h.as_mut_ptr().add(place), fresh);
                y = L::fma(L::splat(*c.add(n)), fresh, y);
            }
            store(out.as_mut_ptr().add(token * channels + at), y);
        }
    }
}
