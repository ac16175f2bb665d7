//! The gated delta rule (arXiv 2412.06464), a run of tokens at a time.
//!
//! Columns of the state don't depend on each other, so it is taken block of columns by block of columns: one that stays in the
//! nearest cache for all tokens of the run. A token needs all rows of its block before it can write to any. What it writes
//! therefore waits for the next token's pass over the rows: one pass a token reads and writes the state.

use herald_layers::kernels::DeltaRule;

use crate::math::times_sigmoid;
use crate::simd::{LANES, Simd};
use crate::vectors::{dot, map_with};

/// `x *= sigmoid(gate)`.
#[inline(always)]
pub(crate) fn mul_sigmoid<S: Simd>(s: S, x: &mut [f32], gate: &[f32]) {
    map_with(
        s,
        x,
        gate,
        #[inline(always)]
        |x, gate| times_sigmoid(s, x, gate),
    );
}

/// A run of tokens of a value head.
#[inline(always)]
pub(crate) fn delta_rule<S: Simd>(s: S, rule: &DeltaRule<'_>, state: &mut [f32], out: &mut [f32]) {
    let n_decays = rule.token_decays(state, out);
    let mut at = 0;
    // Sums, what waits to be written, and a row of the state: what 32 registers hold of two vectors, 16 of one.
    while S::WIDE && rule.value_dim - at >= 2 * LANES {
        columns::<S, 2, true>(s, rule, n_decays, at, state, out);
        at += 2 * LANES;
    }
    while rule.value_dim - at >= LANES {
        columns::<S, 1, true>(s, rule, n_decays, at, state, out);
        at += LANES;
    }
    if at < rule.value_dim {
        columns::<S, 1, false>(s, rule, n_decays, at, state, out);
    }
}

/// `N` vectors from `at` on: of sixteen elements each, or where not `FULL` of those that are left and zeros.
#[inline(always)]
fn load<S: Simd, const N: usize, const FULL: bool>(s: S, row: &[f32], at: usize) -> [S::F; N] {
    let mut vectors = [s.zero(); N];
    if FULL {
        let (chunks, _) = row[at..at + N * LANES].as_chunks();
        for (vector, chunk) in vectors.iter_mut().zip(chunks) {
            *vector = s.load(chunk);
        }
    } else {
        vectors[0] = s.load_first(&row[at..]);
    }
    vectors
}

/// Stores what [`load`] would load.
#[inline(always)]
fn store<S: Simd, const N: usize, const FULL: bool>(s: S, row: &mut [f32], at: usize, vectors: [S::F; N]) {
    if FULL {
        let (chunks, _) = row[at..at + N * LANES].as_chunks_mut();
        for (vector, chunk) in vectors.into_iter().zip(chunks) {
            s.store(chunk, vector);
        }
    } else {
        s.store_first(&mut row[at..], vectors[0]);
    }
}

/// The columns from `at` on.
#[inline(always)]
fn columns<S: Simd, const N: usize, const FULL: bool>(
    s: S,
    rule: &DeltaRule<'_>,
    n_decays: usize,
    at: usize,
    state: &mut [f32],
    out: &mut [f32],
) {
    let DeltaRule { key_dim, value_dim, .. } = *rule;
    // What the token before writes, and where: nothing before the first.
    let mut waiting = [s.zero(); N];
    let mut waiting_key = &rule.keys[..key_dim];
    let tokens =
        rule.betas.iter().zip(rule.decays.chunks_exact(n_decays)).zip(out.chunks_exact_mut(value_dim));
    for (token, ((beta, decays), out)) in tokens.enumerate() {
        let query = &rule.queries[token * rule.key_stride..][..key_dim];
        let key = &rule.keys[token * rule.key_stride..][..key_dim];
        let (mut of_key, mut of_query) = ([s.zero(); N], [s.zero(); N]);
        let rows = state.chunks_exact_mut(value_dim).zip(waiting_key).zip(key.iter().zip(query));
        for (row, ((state, waiting_key), (key, query))) in rows.enumerate() {
            let decay = s.splat(if n_decays == 1 { decays[0] } else { decays[row] });
            let (before, key, query) = (s.splat(*waiting_key), s.splat(*key), s.splat(*query));
            let mut h = load::<S, N, FULL>(s, state, at);
            for n in 0..N {
                h[n] = s.mul(s.fma(before, waiting[n], h[n]), decay);
                of_key[n] = s.fma(key, h[n], of_key[n]);
                of_query[n] = s.fma(query, h[n], of_query[n]);
            }
            store::<S, N, FULL>(s, state, at, h);
        }
        let value = &rule.values[token * rule.value_stride..][..value_dim];
        let value = load::<S, N, FULL>(s, value, at);
        let (beta, meeting) = (s.splat(*beta), s.splat(dot(s, query, key)));
        for n in 0..N {
            waiting[n] = s.mul(beta, s.sub(value[n], of_key[n]));
            // S^T q with what is yet to be written: (S + k w^T)^T q = S^T q + (k . q) w.
            of_query[n] = s.fma(meeting, waiting[n], of_query[n]);
        }
        store::<S, N, FULL>(s, out, at, of_query);
        waiting_key = key;
    }
    for (state, key) in state.chunks_exact_mut(value_dim).zip(waiting_key) {
        let key = s.splat(*key);
        let mut h = load::<S, N, FULL>(s, state, at);
        for n in 0..N {
            h[n] = s.fma(key, waiting[n], h[n]);
        }
        store::<S, N, FULL>(s, state, at, h);
    }
}
