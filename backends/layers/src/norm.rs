//! RMS norms over batches, and the addition that ends every residual branch.

use herald_api::{LayerDesc, Parallel};

use crate::kernels::Kernels;
use crate::shared::Shared;

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
    let out = Shared::new(out);
    let norm = |tokens: std::ops::Range<usize>, _: usize| {
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
    desc: &LayerDesc,
    branch: &[f32],
    post_norm: Option<&[f32]>,
    work: &mut [f32],
    output: &mut [f32],
) {
    let Some(norm) = post_norm else {
        (kernels.add_scaled)(output, desc.residual_scale, branch);
        return;
    };
    let width = desc.hidden;
    for (output, branch) in output.chunks_exact_mut(width).zip(branch.chunks_exact(width)) {
        (kernels.rms_norm)(branch, norm, desc.norm_eps, &mut work[..width]);
        (kernels.add_scaled)(output, desc.residual_scale, &work[..width]);
    }
}
