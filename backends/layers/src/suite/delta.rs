//! The gated delta rule in float64 (arXiv 2412.06464, section 3.1), with how far float32 may be from it.
//!
//! Bounds by elements would double with every token: they can't see that what is read from the state and what is written to it
//! belong together. A column of the state goes from token to token through `(I - beta k k^T) diag(decay)`, whose 2-norm is at most
//! 1 where keys are no longer than 1. So each column's error is bounded by its norm, which decays as the state does.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::bounds::{Expected, TINY, U, bound, gamma};
use super::reference::Approx;

/// A value head's inputs over a sequence, each with how far it may be off.
pub(super) struct DeltaHead<'a> {
    /// `[n_tokens, key_dim]`.
    pub(super) q: [ArrayView2<'a, f64>; 2],
    /// `[n_tokens, key_dim]`, none longer than 1.
    pub(super) k: [ArrayView2<'a, f64>; 2],
    /// `[n_tokens, value_dim]`.
    pub(super) v: [ArrayView2<'a, f64>; 2],
    /// `[n_tokens]`, from 0 to 1.
    pub(super) beta: [ArrayView1<'a, f64>; 2],
    /// `[n_tokens, 1]` or `[n_tokens, key_dim]`, from 0 to 1.
    pub(super) decay: [ArrayView2<'a, f64>; 2],
}

/// A vector, as long as it is and as far off as it may be, in the 2-norm.
#[derive(Clone, Copy)]
struct Norm {
    size: f64,
    error: f64,
}

impl Norm {
    fn of([value, error]: [ArrayView1<'_, f64>; 2]) -> Self {
        let norm = |x: ArrayView1<'_, f64>| x.dot(&x).sqrt();
        Self { size: norm(value), error: norm(error) }
    }

    /// As long as float32's may be.
    fn most(self) -> f64 {
        self.size + self.error
    }
}

impl DeltaHead<'_> {
    /// What the rule gives, `[n_tokens, value_dim]`, from the state `state` `[key_dim, value_dim]`, which is left as it is after
    /// the last token; and how far each column of that may be off.
    pub(super) fn respond(&self, state: &mut Array2<f64>) -> (Approx, Array1<f64>) {
        let (n_tokens, value_dim) = self.v[0].dim();
        let mut out = Approx::exact(Array2::zeros((n_tokens, value_dim)));
        let mut errors = Array1::zeros(value_dim);
        for token in 0..n_tokens {
            for column in 0..value_dim {
                let mut old = state.column_mut(column);
                let (expected, fresh, error) = self.step(token, column, old.to_owned(), errors[column]);
                (out.value[[token, column]], out.error[[token, column]]) = (expected.value, expected.bound);
                old.assign(&fresh);
                errors[column] = error;
            }
        }
        (out, errors)
    }

    /// Takes a column of the state through a token: what it gives, the column after it, and how far that may be off.
    fn step(
        &self,
        token: usize,
        column: usize,
        mut state: Array1<f64>,
        error: f64,
    ) -> (Expected, Array1<f64>, f64) {
        let row = |[value, error]: [ArrayView2<'_, f64>; 2]| {
            [value.row(token).to_owned(), error.row(token).to_owned()]
        };
        let ([q, q_error], [k, k_error], [decay, decay_error]) = (row(self.q), row(self.k), row(self.decay));
        let ([beta, beta_error], [v, v_error]) =
            (self.beta.map(|part| part[token]), self.v.map(|part| part[[token, column]]));
        let (keys, queries) = (Norm::of([k.view(), k_error.view()]), Norm::of([q.view(), q_error.view()]));
        let dim = k.len();
        // A sum of products of `dim` elements, in any order, and a few operations around it.
        let roundings = gamma(dim + 8);
        let tiny = (dim + 8) as f64 * TINY;

        let before = Norm::of([state.view(), state.view()]).size;
        for (index, state) in state.iter_mut().enumerate() {
            *state *= decay[index % decay.len()];
        }
        let greatest = |x: &Array1<f64>| x.fold(0.0_f64, |most, x| most.max(x.abs()));
        let decayed = Norm {
            size: state.dot(&state).sqrt(),
            error: greatest(&decay) * error
                + (greatest(&decay_error) + U * (1.0 + greatest(&decay_error))) * (before + error)
                + tiny,
        };
        let answer = state.dot(&k);
        // Apart from what the state's own error makes of it, which is bounded with what is written.
        let answer_error = decayed.most() * (keys.error + roundings * keys.most()) + tiny;
        let written = beta * (v - answer);
        let inputs = v.abs() + v_error + answer.abs() + answer_error + decayed.error * keys.most();
        let written_error =
            beta * (v_error + answer_error) + (beta_error + gamma(4) * (beta + beta_error)) * inputs + tiny;
        let most = written.abs() + written_error + beta * decayed.error * keys.most();

        state.scaled_add(written, &k);
        let after = state.dot(&state).sqrt();
        let contraction = (1.0 - beta * keys.size * keys.size).abs().max(1.0);
        let error = contraction * decayed.error
            + keys.most() * written_error
            + keys.error * (most + beta * decayed.most() * keys.most())
            + 2.0 * U * (decayed.most() + keys.most() * most)
            + tiny;
        let sizes = decayed.most() + keys.most() * most;
        let given = Expected {
            value: state.dot(&q),
            bound: bound(
                error * queries.most()
                    + (after + error) * queries.error
                    + gamma(2 * dim + 16) * sizes * queries.most()
                    + 2.0 * tiny * (1.0 + queries.most()),
            ),
        };
        (given, state, bound(error))
    }
}
