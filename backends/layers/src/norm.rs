//! RMS norms over batches, and the addition that ends every residual branch.

use std::ops::Range;

use herald_api::{LayerDesc, Parallel};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;

/// Tokens from which on a batch's norms are shared out over the workers.
const SHARE_FROM: usize = 8;

/// Norms each row of `x` into `out`, both `[n_tokens, weight.len()]`.
pub(crate) fn norm_rows(
    kernels: &Kernels,
    parallel: &Parallel<'_>,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    let n_tokens = x.len() / width;
    let out = DisjointSlice::new(out);
    let norm = |tokens: Range<usize>, _: usize| {
        for token in tokens {
            let row = token * width..(token + 1) * width;
            // SAFETY: each token is one worker's.
            (kernels.rms_norm)(&x[row.clone()], weight, eps, unsafe { out.part(row) });
        }
    };
    if n_tokens < SHARE_FROM { norm(0..n_tokens, 0) } else { parallel.run(n_tokens, &norm) }
}

/// Begins a residual branch: norms each row of `x` into `out`, or copies it where the branch has no norm of its own.
pub(crate) fn enter(
    kernels: &Kernels,
    parallel: &Parallel<'_>,
    desc: &LayerDesc,
    x: &[f32],
    norm: Option<&[f32]>,
    out: &mut [f32],
) {
    match norm {
        Some(norm) => norm_rows(kernels, parallel, x, norm, desc.norm_eps, out),
        None => out.copy_from_slice(x),
    }
}

/// Ends a residual branch: `output += residual_scale * norm(branch)`, the norm where there is one. `work` holds at least
/// a row where there is a norm.
pub(crate) fn add_branch(
    kernels: &Kernels,
    parallel: &Parallel<'_>,
    desc: &LayerDesc,
    branch: &[f32],
    post_norm: Option<&[f32]>,
    work: &mut [f32],
    output: &mut [f32],
) {
    let Some(norm) = post_norm else {
        let output = DisjointSlice::new(output);
        return share_elements(parallel, branch.len(), &|range| {
            // SAFETY: ranges of elements don't overlap.
            let output = unsafe { output.part(range.clone()) };
            (kernels.add_scaled)(output, desc.residual_scale, &branch[range]);
        });
    };
    let width = desc.hidden;
    let n_tokens = branch.len() / width;
    let share = work.len() / parallel.workers();
    let (work, output) = (DisjointSlice::new(work), DisjointSlice::new(output));
    let add = |tokens: Range<usize>, worker: usize| {
        // SAFETY: no two tasks that run at once have the same worker, and each token is one worker's.
        let normed = unsafe { work.part(worker * share..worker * share + width) };
        for token in tokens {
            let row = token * width..(token + 1) * width;
            (kernels.rms_norm)(&branch[row.clone()], norm, desc.norm_eps, normed);
            // SAFETY: as above.
            (kernels.add_scaled)(unsafe { output.part(row) }, desc.residual_scale, normed);
        }
    };
    if n_tokens < SHARE_FROM || share < width { add(0..n_tokens, 0) } else { parallel.run(n_tokens, &add) }
}

/// Does elements `0..len`, shared out over the workers where that takes less time than waking them.
pub(crate) fn share_elements(parallel: &Parallel<'_>, len: usize, each: &(dyn Fn(Range<usize>) + Sync)) {
    const SHARE_FROM: usize = 1 << 13;
    if len < SHARE_FROM { each(0..len) } else { parallel.run(len, &|range, _| each(range)) }
}
