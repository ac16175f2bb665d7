//! What a channel of a state space answers, in float64 and without a state: each token's input, decayed, in each later
//! token's output (arXiv 2405.21060, equation 3).

use ndarray::{ArrayView1, ArrayView2};

use super::bounds::{Expected, FUNCTION, TINY, U, bound, gamma};

/// A channel's inputs over a sequence, each with how far it may be off.
pub(super) struct Channel<'a> {
    /// `[n_tokens, state]`.
    pub(super) b: [ArrayView2<'a, f64>; 2],
    /// `[n_tokens, state]`.
    pub(super) c: [ArrayView2<'a, f64>; 2],
    /// `[n_tokens]`.
    pub(super) u: [ArrayView1<'a, f64>; 2],
    /// `[n_tokens]`.
    pub(super) dt: [ArrayView1<'a, f64>; 2],
    /// The decay of each element of the state.
    pub(super) a: &'a dyn Fn(usize) -> f64,
}

impl Channel<'_> {
    /// `y[t] = sum over s <= t and n of c[t, n] b[s, n] exp(a[n] (dt[s+1] + ... + dt[t])) dt[s] u[s]`, and how far float32's
    /// may be off, whether token by token or in chunks.
    ///
    /// A term with factors `x_i` that are off by `e_i` is off by at most `prod(|x_i| + e_i) - prod(|x_i|)`, and the latter
    /// product also bounds what roundings are relative to. A term has at most two roundings for each token of its decay
    /// and each summand, in whatever order.
    pub(super) fn response(&self) -> Vec<Expected> {
        let (n_tokens, state) = self.b[0].dim();
        let roundings = gamma(4 * n_tokens + 2 * state + 64);
        let mut sums = vec![Expected { value: 0.0, bound: 0.0 }; n_tokens];
        for n in 0..state {
            let a = (self.a)(n);
            // What differences of sums of `dt a` over the whole sequence are rounded by.
            let whole: f64 = self.dt[0].iter().zip(self.dt[1]).map(|(dt, e)| (dt.abs() + e) * a.abs()).sum();
            for s in 0..n_tokens {
                let (mut log, mut log_error) = (0.0, gamma(8) * whole);
                let [b, dt, u] = [
                    [self.b[0][[s, n]], self.b[1][[s, n]]],
                    [self.dt[0][s], self.dt[1][s]],
                    [self.u[0][s], self.u[1][s]],
                ];
                for (t, sum) in sums.iter_mut().enumerate().skip(s) {
                    if t > s {
                        log += self.dt[0][t] * a;
                        log_error += self.dt[1][t] * a.abs() + FUNCTION + U;
                    }
                    let decay = [f64::exp(log), bound(f64::exp(log) * log_error.exp_m1())];
                    let c = [self.c[0][[t, n]], self.c[1][[t, n]]];
                    let factors = [b, c, dt, u, decay];
                    let size: f64 = factors.iter().map(|[x, _]| x.abs()).product();
                    let most: f64 = factors.iter().map(|[x, e]| x.abs() + e).product();
                    sum.value += factors.iter().map(|[x, _]| x).product::<f64>();
                    // What underflows is multiplied by what remains.
                    let rounded = (most - size) + roundings * most;
                    sum.bound += bound(rounded) + 1e3 * TINY * (1.0 + c[0].abs() + c[1]);
                }
            }
        }
        sums
    }
}
