//! Low-rank updates of weights (LoRA, arXiv 2106.09685), in float32 beside the product with the weights themselves, which stay as
//! they are:
//!
//! ```text
//! y = W x + sum over updates of scale * B (A x)
//! ```
//!
//! A sequence's tokens have its own updates, and each token's sums come in the same order whatever is beside it.

use herald_api::{Lora, Parallel, Sequences, WeightRole};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;
use crate::parallel::ParallelExt;

/// Results of a token that a worker makes at once.
const ROWS: usize = 512;

/// Multiplications from which on waking the workers pays off.
const SHARE_FROM: usize = 1 << 15;

/// The updates of a call, and what adding them works with.
pub(crate) struct Loras<'c> {
    pub(crate) kernels: &'static Kernels,
    pub(crate) parallel: &'c Parallel<'c>,
    pub(crate) sequences: &'c Sequences<'c>,
    /// `A x` of one update: `[n_tokens, max_lora_rank]`.
    pub(crate) work: &'c mut [f32],
}

impl Loras<'_> {
    /// Adds the updates of the weight of this role to its products `y` `[n_tokens, rows]` with the activations `x`
    /// `[n_tokens, columns]`.
    pub(crate) fn add(&mut self, role: WeightRole, x: &[f32], y: &mut [f32]) {
        for sequence in self.sequences.iter() {
            for lora in sequence.loras().filter(|lora| lora.role == role) {
                let tokens = sequence.batch();
                let x = &x[tokens.start * lora.columns..tokens.end * lora.columns];
                let y = &mut y[tokens.start * lora.rows..tokens.end * lora.rows];
                self.add_one(&lora, x, y, tokens.len());
            }
        }
    }

    fn add_one(&mut self, lora: &Lora<'_>, x: &[f32], y: &mut [f32], n_tokens: usize) {
        let Lora { rank, columns, rows, .. } = *lora;
        let work = &mut self.work[..n_tokens * rank];
        let parallel = self.parallel.when(n_tokens * rank * columns.max(rows) >= SHARE_FROM);
        parallel.for_chunks(work, 1, &|item, work, _| {
            let (token, index) = (item / rank, item % rank);
            let row = &lora.down[index * columns..(index + 1) * columns];
            work[0] = lora.scale * (self.kernels.dot)(&x[token * columns..(token + 1) * columns], row);
        });
        // The same cuts for every token, since a kernel may add the last elements of a run in another way.
        let cuts = rows.div_ceil(ROWS);
        let (work, y) = (&*work, DisjointSlice::new(y));
        parallel.run(n_tokens * cuts, &|items, _| {
            for item in items {
                let (token, first) = (item / cuts, item % cuts * ROWS);
                let part = first..rows.min(first + ROWS);
                // SAFETY: each item is one worker's, and its part of `y` no other's.
                let y = unsafe { y.part(token * rows + part.start..token * rows + part.end) };
                for (index, by) in work[token * rank..(token + 1) * rank].iter().enumerate() {
                    (self.kernels.add_scaled)(y, *by, &lora.up[index * rows..][part.clone()]);
                }
            }
        });
    }
}
