//! Mamba-2's recurrence over many tokens, a chunk of them at a time (arXiv 2405.21060, section 6). Within a chunk of `l`
//! tokens, with `s_t` the sum of `dt A` up to its token `t`, and `h` the state before it:
//!
//! ```text
//! M[t, s] = C_t . B_s  exp(s_t - s_s) dt_s          for s <= t, else 0
//! y_t     = sum over s of M[t, s] u_s  +  exp(s_t) h C_t
//! h'      = exp(s_l) h  +  sum over s of exp(s_l - s_s) dt_s u_s B_s^T
//! ```
//!
//! All sums are matrix products. `C_t . B_s` is the same for all heads of a group, so it is computed first. The two terms
//! of `y` are one product: of the rows `[M_t, exp(s_t) C_t]` with `[u^T, h]`.

use herald_api::{Call, Sequence};

use super::{Buffers, Mamba2, Recurrence, in_chunks};
use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Gemm;
use crate::parallel::ParallelExt;
use crate::scratch::Scratch;

/// Tokens of a chunk.
pub(super) const CHUNK: usize = 64;

/// A worker's buffers for preparing a chunk of a group of heads.
pub(super) struct GroupBuffers<'s> {
    /// B, `[tokens, state]`.
    b_rows: &'s mut [f32],
    /// C, likewise.
    c_rows: &'s mut [f32],
}

impl<'s> GroupBuffers<'s> {
    pub(super) fn of(scratch: &mut Scratch<'s>, len: usize, state: usize) -> Self {
        Self { b_rows: scratch.take(len * state), c_rows: scratch.take(len * state) }
    }
}

/// A worker's buffers for a chunk of `l` tokens of a head.
pub(super) struct HeadBuffers<'s> {
    /// `[l]`.
    dt: &'s mut [f32],
    /// `s_t`: `[l]`.
    sums: &'s mut [f32],
    /// What is left of each token at the end of the chunk, `exp(s_l - s_t) dt_t`: `[l]`.
    left: &'s mut [f32],
    /// `[M_t, exp(s_t) C_t]`: `[l, l + state]`; then `left * u`, transposed: `[head_dim, l]`.
    rows: &'s mut [f32],
    /// `[u^T, h]`: `[head_dim, l + state]`.
    panel: &'s mut [f32],
    /// Results of the products: `[l, head_dim]`, and `[head_dim, state]`.
    out: &'s mut [f32],
}

impl<'s> HeadBuffers<'s> {
    pub(super) fn of(scratch: &mut Scratch<'s>, len: usize, dim: usize, state: usize) -> Self {
        Self {
            dt: scratch.take(len),
            sums: scratch.take(len),
            left: scratch.take(len),
            rows: scratch.take(len * (len + state).max(dim)),
            panel: scratch.take(dim * (len + state)),
            out: scratch.take(dim * len.max(state)),
        }
    }
}

/// The chunks of a sequence: each one's first token in the batch, and its number of tokens.
fn chunks<'s>(sequence: &Sequence<'s>) -> impl Iterator<Item = (usize, usize)> + use<'s> {
    let tokens = if in_chunks(sequence) { sequence.batch() } else { 0..0 };
    let end = tokens.end;
    tokens.step_by(CHUNK).map(move |first| (first, CHUNK.min(end - first)))
}

impl Mamba2<'_> {
    /// The products of C and B within each chunk, and B by columns, for each group.
    pub(super) fn prepare_chunks(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let (n, n_groups, n_tokens) = (self.params.state, self.params.n_groups, call.n_tokens);
        let total: usize = call.sequences.iter().map(|sequence| chunks(&sequence).count()).sum();
        if total == 0 {
            return;
        }
        let heads = self.params.n_heads / n_groups;
        let Buffers { ubc, products, b_columns, work, .. } = buffers;
        let mut workers = self.for_groups(&mut Scratch::new(work), call.parallel.workers());
        let ubc = DisjointSlice::new(ubc);
        let (products, b_columns) = (DisjointSlice::new(products), DisjointSlice::new(b_columns));
        let sequences = &call.sequences;
        call.parallel.run_with(total * n_groups, &mut workers, |items, mut scratch| {
            let all = sequences.iter().flat_map(|sequence| chunks(&sequence));
            let all = all.flat_map(|chunk| (0..n_groups).map(move |group| (chunk, group)));
            for ((first, len), group) in all.skip(items.start).take(items.len()) {
                let GroupBuffers { b_rows, c_rows } = GroupBuffers::of(&mut scratch.reborrow(), len, n);
                let at = group * n_tokens + first;
                // SAFETY: each chunk of a group is one worker's.
                let (products, columns) = unsafe {
                    (
                        products.part(at * CHUNK..at * CHUNK + len * len),
                        b_columns.part(at * n..(at + len) * n),
                    )
                };
                for (index, (b_row, c_row)) in
                    b_rows.chunks_exact_mut(n).zip(c_rows.chunks_exact_mut(n)).enumerate()
                {
                    // SAFETY: the convolution has written B and C; from now on they are only read.
                    let [_, b, c] = unsafe { self.ubc(&ubc, first + index, group * heads) };
                    b_row.copy_from_slice(b);
                    c_row.copy_from_slice(c);
                }
                transpose(b_rows, n, columns, len);
                let gemm = Gemm { x: c_rows, panel: b_rows, n_tokens: len, rows: len, columns: n };
                (self.kernels.gemm)(&gemm, products);
            }
        });
    }

    /// Takes a head's tokens through the recurrence, chunk by chunk.
    ///
    /// # Safety
    /// Nobody else uses the head's part of the state, of `ubc` and of `y`, and nobody writes B and C.
    pub(super) unsafe fn chunks(
        &self,
        sequence: &Sequence<'_>,
        head: usize,
        recurrence: &Recurrence<'_>,
        mut scratch: Scratch<'_>,
    ) {
        let (n, dim, kernels) = (self.params.state, self.head_dim(), self.kernels);
        let group = head / (self.params.n_heads / self.params.n_groups);
        // SAFETY: the head's state is the caller's alone.
        let h = unsafe { self.head_state(sequence, head) };
        for (first, len) in chunks(sequence) {
            let mut buffers = HeadBuffers::of(&mut scratch.reborrow(), len, dim, n);
            let (width, at) = (len + n, group * recurrence.n_tokens + first);
            self.decays(first, head, recurrence.projected, &mut buffers);
            // SAFETY: u is the head's own, and nobody writes C, by this function's contract.
            unsafe { self.fill_operands(first, head, at, h, recurrence, &mut buffers) };
            let HeadBuffers { dt, sums, left, rows, panel, out: results } = buffers;
            let out = &mut results[..len * dim];
            let gemm = Gemm { x: &rows[..len * width], panel, n_tokens: len, rows: dim, columns: width };
            (kernels.gemm)(&gemm, out);
            for (token, out) in (first..).zip(out.chunks_exact_mut(dim)) {
                // SAFETY: the head's part of `y` is the caller's alone, and its u is only read.
                unsafe {
                    let [u, ..] = self.ubc(&recurrence.ubc, token, head);
                    self.gate(token, head, u, out, recurrence);
                }
            }
            left.fill(1.0);
            (kernels.decay_weights)(sums[len - 1], sums, dt, left);
            // Each token's u, decayed to the end of the chunk, by channel; the rows are no longer needed.
            let weighted = &mut rows[..dim * len];
            for (to, row) in weighted.chunks_exact_mut(len).zip(panel.chunks_exact(width)) {
                to.copy_from_slice(&row[..len]);
                (kernels.mul)(to, left);
            }
            let added = &mut results[..dim * n];
            let columns = &recurrence.b_columns[at * n..][..len * n];
            let gemm = Gemm { x: weighted, panel: columns, n_tokens: dim, rows: n, columns: len };
            (kernels.gemm)(&gemm, added);
            let kept = libm::expf(sums[len - 1]);
            (kernels.add_scaled)(added, kept, h);
            h.copy_from_slice(added);
        }
    }

    /// Fills `dt` and the sums `s_t` of a chunk that begins at the token `first`.
    fn decays(&self, first: usize, head: usize, projected: &[f32], buffers: &mut HeadBuffers<'_>) {
        for (dt, token) in buffers.dt.iter_mut().zip(first..) {
            *dt = self.dt(projected, token, head);
        }
        (self.kernels.softplus)(buffers.dt);
        let mut sum = 0.0;
        for (dt, to) in buffers.dt.iter().zip(&mut *buffers.sums) {
            // In float64: differences of large sums follow.
            sum += f64::from(*dt) * f64::from(self.a[head]);
            *to = sum as f32;
        }
    }

    /// Fills the operands of the product that yields a chunk's `y`: the rows `[M_t, exp(s_t) C_t]` and the panel `[u^T, h]`.
    /// `at`: where the chunk's products begin, in tokens.
    ///
    /// # Safety
    /// Nobody writes the head's part of `ubc`, nor B and C.
    unsafe fn fill_operands(
        &self,
        first: usize,
        head: usize,
        at: usize,
        h: &[f32],
        recurrence: &Recurrence<'_>,
        buffers: &mut HeadBuffers<'_>,
    ) {
        let HeadBuffers { dt, sums, rows, panel, .. } = buffers;
        let (n, len) = (self.params.state, dt.len());
        let width = len + n;
        let products = recurrence.products[at * CHUNK..][..len * len].chunks_exact(len);
        for (t, (row, products)) in rows.chunks_exact_mut(width).zip(products).enumerate() {
            let (mixed, of_state) = row.split_at_mut(len);
            let (past, future) = mixed.split_at_mut(t + 1);
            past.copy_from_slice(&products[..=t]);
            (self.kernels.decay_weights)(sums[t], &sums[..=t], &dt[..=t], past);
            future.fill(0.0);
            // SAFETY: nobody writes C, by this function's contract.
            let [_, _, c] = unsafe { self.ubc(&recurrence.ubc, first + t, head) };
            of_state.fill(0.0);
            (self.kernels.add_scaled)(of_state, libm::expf(sums[t]), c);
        }
        for s in 0..len {
            // SAFETY: nobody writes the head's u, by this function's contract.
            let [u, ..] = unsafe { self.ubc(&recurrence.ubc, first + s, head) };
            for (row, u) in panel.chunks_exact_mut(width).zip(u) {
                row[s] = *u;
            }
        }
        for (row, h) in panel.chunks_exact_mut(width).zip(h.chunks_exact(n)) {
            row[len..].copy_from_slice(h);
        }
    }
}

/// The rows `[len, n]` as columns `[n, len]`.
fn transpose(rows: &[f32], n: usize, columns: &mut [f32], len: usize) {
    for (column, index) in columns.chunks_exact_mut(len).zip(0..n) {
        for (to, row) in column.iter_mut().zip(rows.chunks_exact(n)) {
            *to = row[index];
        }
    }
}
