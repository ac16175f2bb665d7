//! How residual branches begin and end: RMS norms over batches, and the addition to the residual stream.

use herald_api::{LayerDesc, Parallel};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;
use crate::parallel::ParallelExt;
use crate::scratch::{PerWorker, Scratch};

/// Tokens from which on it pays off to wake the workers for a batch's norms.
const SHARE_FROM_TOKENS: usize = 8;

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
    let out = &mut out[..n_tokens * width];
    parallel.when(n_tokens >= SHARE_FROM_TOKENS).for_chunks(out, width, &|token, out, _| {
        (kernels.rms_norm)(&x[token * width..(token + 1) * width], weight, eps, out);
    });
}

/// Norms each group of each row of `x` into `out`, both `[n_tokens, weight.len()]`.
pub(crate) fn norm_groups(
    kernels: &Kernels,
    parallel: &Parallel<'_>,
    x: &[f32],
    (weight, group): (&[f32], usize),
    eps: f32,
    out: &mut [f32],
) {
    let width = weight.len();
    let n_tokens = x.len() / width;
    let out = &mut out[..n_tokens * width];
    parallel.when(n_tokens >= SHARE_FROM_TOKENS).for_chunks(out, width, &|token, out, _| {
        let groups = x[token * width..(token + 1) * width].chunks_exact(group);
        for ((x, weight), out) in groups.zip(weight.chunks_exact(group)).zip(out.chunks_exact_mut(group)) {
            (kernels.rms_norm)(x, weight, eps, out);
        }
    });
}

/// Begins a residual branch: norms each row of `x` into `out`, or copies it where the branch has no entry norm.
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

/// What some models do at the end of a block: `output *= scale`.
pub(crate) fn scale_output(parallel: &Parallel<'_>, scale: Option<f32>, output: &mut [f32]) {
    if let Some(scale) = scale {
        parallel.run_elements(output, |_, output| output.iter_mut().for_each(|value| *value *= scale));
    }
}

/// Each worker's row for the norm of a branch.
fn normed_rows<'s>(scratch: &mut Scratch<'s>, hidden: usize, workers: usize) -> PerWorker<'s> {
    scratch.per_worker(workers, |scratch| scratch.take::<f32>(hidden))
}

/// Bytes of scratch memory that [`add_branch`] needs.
pub(crate) fn add_branch_bytes(desc: &LayerDesc, post_norm: Option<&[f32]>, workers: usize) -> usize {
    post_norm.map_or(0, |_| Scratch::measure(|scratch| normed_rows(scratch, desc.hidden, workers)))
}

/// Ends a residual branch: `output += residual_scale * norm(branch)`, the norm where there is one. `work` has the bytes
/// that [`add_branch_bytes`] tells.
pub(crate) fn add_branch(
    kernels: &Kernels,
    parallel: &Parallel<'_>,
    desc: &LayerDesc,
    branch: &[f32],
    post_norm: Option<&[f32]>,
    work: &mut [u8],
    output: &mut [f32],
) {
    let Some(norm) = post_norm else {
        return parallel.run_elements(&mut output[..branch.len()], |range, output| {
            (kernels.add_scaled)(output, desc.residual_scale, &branch[range]);
        });
    };
    let width = desc.hidden;
    let n_tokens = branch.len() / width;
    let mut rows = normed_rows(&mut Scratch::new(work), width, parallel.workers());
    let output = DisjointSlice::new(output);
    parallel.when(n_tokens >= SHARE_FROM_TOKENS).run_with(n_tokens, &mut rows, |tokens, mut scratch| {
        let normed = scratch.take(width);
        for token in tokens {
            let row = token * width..(token + 1) * width;
            (kernels.rms_norm)(&branch[row.clone()], norm, desc.norm_eps, normed);
            // SAFETY: each token is one worker's.
            (kernels.add_scaled)(unsafe { output.part(row) }, desc.residual_scale, normed);
        }
    });
}
