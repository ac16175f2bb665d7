//! Matrix multiplication where there are no simd kernels: a large batch through BLAS, over rows dequantised to float32; a small
//! one, and all else, through the cpu backend's scalar kernels. Weights stay as they lie in the file.

use herald_api::{ActivationPrecision, DType};
use herald_formats::row_kernels;
use herald_layers::Kernels;
use herald_layers::fallback;
use herald_layers::kernels::Gemm;
use herald_layers::matmul::MatmulKernel;

use crate::library::Form;
use crate::{Chosen, chosen};

/// What computes all but large products.
pub(crate) struct Beside {
    pub(crate) name: &'static str,
    pub(crate) kernels: &'static Kernels,
}

/// The scalar kernels, which run everywhere.
///
/// # Errors
/// None; other architectures' have some.
pub(crate) fn beside() -> herald_api::Result<&'static Beside> {
    static SCALAR: Beside = Beside { name: "scalar", kernels: &herald_cpu::KERNELS };
    Ok(&SCALAR)
}

/// The library and kernels, once the probe has found that the backend runs.
fn in_use() -> &'static Chosen {
    chosen()
        .as_ref()
        .unwrap_or_else(|error| panic!("the blas backend was used where it doesn't run: {error}"))
}

pub(crate) fn matmul(dtype: DType, precision: ActivationPrecision) -> MatmulKernel {
    MatmulKernel {
        matmul: |run, scratch, out| fallback::matmul(row_kernels(run.dtype), gemm, run, scratch, out),
        ..(in_use().beside.kernels.matmul)(dtype, precision)
    }
}

pub(crate) fn gemm(call: &Gemm<'_>, out: &mut [f32]) {
    let Gemm { x, panel, n_tokens, rows, columns } = *call;
    in_use().library.multiply(x, panel, Form::Rows, [n_tokens, rows, columns], out);
}
