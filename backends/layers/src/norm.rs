//! How residual branches begin and end: norms over batches, and the addition to the residual stream.

use herald_api::{LayerDesc, Parallel};

use crate::disjoint_slice::DisjointSlice;
use crate::kernels::Kernels;
use crate::parallel::ParallelExt;
use crate::scratch::{PerWorker, Scratch};

/// Tokens from which on it pays off to wake the workers for a batch's norms.
const SHARE_FROM_TOKENS: usize = 8;

/// A norm of whole rows.
pub(crate) enum Norm {
    /// RMSNorm (arXiv 1910.07467), of a weight.
    Rms(Vec<f32>),
    /// LayerNorm (arXiv 1607.06450).
    Layer { weight: Vec<f32>, bias: Vec<f32> },
    /// No norm: elements are multiplied by the weight.
    Scale(Vec<f32>),
}

impl Norm {
    /// Norms a row.
    pub(crate) fn row(&self, kernels: &Kernels, x: &[f32], eps: f32, out: &mut [f32]) {
        match self {
            Self::Rms(weight) => (kernels.rms_norm)(x, weight, eps, out),
            Self::Layer { weight, bias } => (kernels.layer_norm)(x, weight, bias, eps, out),
            Self::Scale(weight) => {
                out.copy_from_slice(x);
                (kernels.mul)(out, weight);
            }
        }
    }

    /// Norms each row of `x` into `out`, both `[n_tokens, width]`.
    pub(crate) fn rows(
        &self,
        kernels: &Kernels,
        parallel: &Parallel<'_>,
        x: &[f32],
        eps: f32,
        out: &mut [f32],
    ) {
        let (Self::Rms(weight) | Self::Layer { weight, .. } | Self::Scale(weight)) = self;
        let width = weight.len();
        let n_tokens = x.len() / width;
        let out = &mut out[..n_tokens * width];
        parallel.when(n_tokens >= SHARE_FROM_TOKENS).for_chunks(out, width, &|token, out, _| {
            self.row(kernels, &x[token * width..(token + 1) * width], eps, out);
        });
    }
}

/// The norm at a branch's end.
pub(crate) enum ExitNorm {
    /// Of the branch, before it is added: an RMS norm.
    Branch(Norm),
    /// Of the sum of residual and branch.
    Sum(Norm),
}

/// Norms each row of `x` into `out`, both `[n_tokens, weight.len()]`, with an RMS norm.
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
    norm: Option<&Norm>,
    out: &mut [f32],
) {
    match norm {
        Some(norm) => norm.rows(kernels, parallel, x, desc.norm_eps, out),
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
pub(crate) fn add_branch_bytes(desc: &LayerDesc, norm: Option<&ExitNorm>, workers: usize) -> usize {
    norm.map_or(0, |_| Scratch::measure(|scratch| normed_rows(scratch, desc.hidden, workers)))
}

/// Ends a residual branch: `output += residual_scale * norm(branch)`, or `output = norm(output + residual_scale * branch)`, the
/// norm where there is one. `work` has the bytes that [`add_branch_bytes`] tells.
pub(crate) fn add_branch(
    kernels: &Kernels,
    parallel: &Parallel<'_>,
    desc: &LayerDesc,
    branch: &[f32],
    norm: Option<&ExitNorm>,
    work: &mut [u8],
    output: &mut [f32],
) {
    let Some(norm) = norm else {
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
            let branch = &branch[row.clone()];
            // SAFETY: each token is one worker's.
            let output = unsafe { output.part(row) };
            match norm {
                ExitNorm::Branch(norm) => {
                    norm.row(kernels, branch, desc.norm_eps, normed);
                    (kernels.add_scaled)(output, desc.residual_scale, normed);
                }
                ExitNorm::Sum(norm) => {
                    (kernels.add_scaled)(output, desc.residual_scale, branch);
                    norm.row(kernels, output, desc.norm_eps, normed);
                    output.copy_from_slice(normed);
                }
            }
        }
    });
}
