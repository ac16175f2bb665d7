//! The tables of kernels, one for each instruction set: the generic kernels, compiled with its features.

use herald_api::{ActivationPrecision, DType, Hardware, abi};
use herald_formats::dispatch;
use herald_layers::Kernels;
use herald_layers::kernels::{OnlineSoftmax, Q4Tile};
use herald_layers::matmul::{ActivationFormat, MatmulCall, MatmulKernel, OutputTile, Packing};

use crate::activations::{int8, int16};
use crate::floats::Float;
use crate::matmul::Precision;
use crate::matmul::int8::Int8;
use crate::matmul::int16::Int16;
use crate::packed::{Format, Packed};
use crate::panels::Unpack;
use crate::simd::{LANES, Simd};

/// A variant: an instruction set and the kernels for it.
pub struct Variant {
    /// Its name, as `HERALD_SIMD` takes it.
    pub name: &'static str,
    /// The `HERALD_CPU_*` features that it needs.
    pub features: u64,
    /// Its rank; scalar code scores 100.
    pub score: u32,
    /// Its kernels, for where [`Variant::runs_on`] says so alone.
    pub kernels: &'static Kernels,
}

impl Variant {
    /// Whether a machine has what it needs, and the system lets this process use it: one with tile registers asks for them
    /// ([`Hardware::request_tiles`]).
    #[must_use]
    pub fn runs_on(&self, hardware: &Hardware) -> bool {
        let has_tiles = self.features & abi::HERALD_CPU_AMX_INT8 != 0;
        hardware.has(self.features) && (!has_tiles || hardware.request_tiles())
    }

    /// How its packed weights of a type are dequantised, for CPUs with the features alone. Not in the table, so that a plugin
    /// that never does it is without the code.
    #[must_use]
    pub fn unpack(&self, dtype: DType) -> Unpack {
        #[cfg(target_arch = "x86_64")]
        if self.features & abi::HERALD_CPU_AVX512 != 0 {
            avx512::unpack(dtype)
        } else {
            avx2::unpack(dtype)
        }
        #[cfg(target_arch = "aarch64")]
        neon::unpack(dtype)
    }
}

/// All variants, the best first.
#[cfg(target_arch = "x86_64")]
pub static VARIANTS: [Variant; 5] = [
    Variant {
        name: "amx",
        features: abi::HERALD_CPU_AMX_INT8 | abi::HERALD_CPU_AVX512 | abi::HERALD_CPU_AVX512_VNNI | AVX2,
        score: 600,
        kernels: &amx::KERNELS,
    },
    Variant {
        name: "avx512-vnni",
        features: abi::HERALD_CPU_AVX512 | abi::HERALD_CPU_AVX512_VNNI | AVX2,
        score: 500,
        kernels: &avx512_vnni::KERNELS,
    },
    Variant {
        name: "avx512",
        features: abi::HERALD_CPU_AVX512 | AVX2,
        score: 400,
        kernels: &avx512::KERNELS,
    },
    Variant {
        name: "avx-vnni",
        features: abi::HERALD_CPU_AVX_VNNI | AVX2,
        score: 350,
        kernels: &avx_vnni::KERNELS,
    },
    Variant { name: "avx2", features: AVX2, score: 300, kernels: &avx2::KERNELS },
];

#[cfg(target_arch = "x86_64")]
const AVX2: u64 = abi::HERALD_CPU_AVX2 | abi::HERALD_CPU_FMA | abi::HERALD_CPU_F16C;

/// All variants, the best first.
#[cfg(target_arch = "aarch64")]
pub static VARIANTS: [Variant; 3] = [
    Variant {
        name: "i8mm",
        features: abi::HERALD_CPU_NEON | abi::HERALD_CPU_DOTPROD | abi::HERALD_CPU_I8MM,
        score: 400,
        kernels: &i8mm::KERNELS,
    },
    Variant {
        name: "dotprod",
        features: abi::HERALD_CPU_NEON | abi::HERALD_CPU_DOTPROD,
        score: 350,
        kernels: &dotprod::KERNELS,
    },
    Variant { name: "neon", features: abi::HERALD_CPU_NEON, score: 300, kernels: &neon::KERNELS },
];

/// The matmul kernel of a quantised type, for activations of a precision.
macro_rules! quantised {
    ($block:ident, $dtype:ident, $precision:ident) => {
        match $precision {
            ActivationPrecision::Int8 => quantised!(
                $block,
                $dtype,
                Int8,
                matmul_int8,
                ActivationFormat {
                    id: int8::id::<Token, Packed<$block>>(),
                    len: int8::len::<<Packed<$block> as Format>::Sums>,
                    tile: Int8::tile_of::<Token, Packed<$block>>,
                    quantize: quantize_int8::<Packed<$block>>,
                    rounding: int8::STEP,
                }
            ),
            _ => quantised!(
                $block,
                $dtype,
                Int16,
                matmul_int16,
                ActivationFormat {
                    id: int16::ID,
                    len: int16::len,
                    tile: Int16::tile_of::<Token, Packed<$block>>,
                    quantize: quantize_int16,
                    rounding: int16::STEP,
                }
            ),
        }
    };
    ($block:ident, $dtype:ident, $type:ident, $matmul:ident, $activations:expr) => {
        MatmulKernel {
            dtype: $dtype,
            row_tile: LANES,
            packing: Some(Packing {
                bytes: crate::packed::packed_bytes::<Packed<$block>>,
                pack: crate::packed::pack::<Packed<$block>>,
            }),
            activations: Some($activations),
            scratch_len: crate::matmul::scratch_len::<Token, Packed<$block>, $type>,
            matmul: $matmul::<Packed<$block>>,
        }
    };
}

/// The matmul kernel of a plain float type.
macro_rules! plain {
    ($float:ident, $dtype:ident) => {
        MatmulKernel {
            dtype: $dtype,
            row_tile: LANES,
            packing: Some(Packing {
                bytes: crate::floats::packed_bytes::<$float>,
                pack: crate::floats::pack::<$float>,
            }),
            activations: None,
            scratch_len: |_, _| 0,
            matmul: matmul_floats::<$float>,
        }
    };
}

/// Compiles a generic kernel, which takes a token first, with an instruction set's features, and gives it a safe face.
macro_rules! kernel {
    ($features:literal, $visible:vis $kernel:ident $(<$parameter:ident: $bound:path>)?, $generic:expr, ($($argument:ident: $type:ty),*) $(-> $result:ty)?) => {
        $visible fn $kernel $(<$parameter: $bound>)? ($($argument: $type),*) $(-> $result)? {
            #[target_feature(enable = $features)]
            fn compiled $(<$parameter: $bound>)? ($($argument: $type),*) $(-> $result)? {
                // SAFETY: this function only runs on CPUs that have its features, which are the token's.
                let token = unsafe { Token::new_unchecked() };
                $generic(token, $($argument),*)
            }
            // SAFETY: a variant's table is only handed out where it runs.
            unsafe { compiled $(::<$parameter>)? ($($argument),*) }
        }
    };
}

/// The kernels that multiply integers.
macro_rules! integer_kernels {
    ($token:ty, $features:literal) => {
        type Token = $token;

        fn matmul(dtype: DType, precision: ActivationPrecision) -> MatmulKernel {
            dispatch!(dtype, float F => plain!(F, dtype), block B => quantised!(B, dtype, precision))
        }

        kernel!($features, attend_q4, crate::attend::attend_q4, (tile: &Q4Tile<'_>, running: &mut OnlineSoftmax<'_>, scratch: &mut [f32]));
        kernel!($features, pub(super) quantize_int16, int16::quantize, (x: &[f32], columns: usize, quantized: &mut [f32]));
        kernel!($features, pub(super) quantize_int8<F: Format>, int8::quantize::<Token, F>, (x: &[f32], columns: usize, quantized: &mut [f32]));
        kernel!($features, pub(super) matmul_int16<F: Format>, crate::matmul::matmul::<Token, F, Int16>, (run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>));
        kernel!($features, pub(super) matmul_int8<F: Format>, crate::matmul::matmul::<Token, F, Int8>, (run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>));
    };
}

/// A module with the kernels for one instruction set. One `beside` another only adds instructions that multiply integers: it has
/// the other's kernels where there are none of those.
macro_rules! variant {
    ($module:ident, $name:literal, $token:ty, $features:literal) => {
        mod $module {
            use herald_api::{Activation, RopeKind};
            use herald_layers::kernels::{DeltaRule, Gemm, HeadMatmul, SelectiveScan, SsdStep, Tap, Tile, Xielu};
            use herald_formats::row_kernels;

            use super::*;

            /// The table.
            pub(super) const KERNELS: Kernels = Kernels {
                name: $name,
                is_batch_invariant: true,
                rows: row_kernels,
                matmul,
                gemm,
                head_matmul,
                dot,
                add_scaled,
                rms_norm,
                layer_norm,
                rope,
                rope_angles,
                softmax,
                glu,
                activate,
                xielu,
                pack_queries,
                attend,
                attend_q4,
                attend_q4_rounding: crate::attend::STEP,
                merge,
                quantize_i16,
                mul,
                softplus,
                conv,
                selective_scan,
                ssd_step,
                delta_rule,
                mul_sigmoid,
                decay_weights,
            };

            pub(super) fn unpack(dtype: DType) -> Unpack {
                dispatch!(dtype, float F => unpack_floats::<F>, block B => unpack_quantised::<Packed<B>>)
            }

            kernel!($features, gemm, crate::vectors::gemm, (call: &Gemm<'_>, out: &mut [f32]));
            kernel!($features, head_matmul, crate::vectors::head_matmul, (call: &HeadMatmul<'_>, out: &mut [f32]));
            kernel!($features, dot, crate::vectors::dot, (a: &[f32], b: &[f32]) -> f32);
            kernel!($features, add_scaled, crate::vectors::add_scaled, (y: &mut [f32], a: f32, x: &[f32]));
            kernel!($features, rms_norm, crate::vectors::rms_norm, (x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]));
            kernel!($features, layer_norm, crate::vectors::layer_norm, (x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]));
            kernel!($features, rope, crate::vectors::rope, (kind: RopeKind, head: &mut [f32], rotation: &[[f32; 2]]));
            kernel!($features, rope_angles, crate::math::rope_angles, (frequencies: &[f64], position: f64, magnitude: f64, out: &mut [[f32; 2]]));
            kernel!($features, softmax, crate::vectors::softmax, (x: &mut [f32]));
            kernel!($features, glu, crate::vectors::glu, (kind: Activation, gate: &mut [f32], up: &[f32]));
            kernel!($features, activate, crate::vectors::activate, (kind: Activation, x: &mut [f32]));
            kernel!($features, xielu, crate::vectors::xielu, (xielu: &Xielu, x: &mut [f32]));
            kernel!($features, quantize_i16, crate::vectors::quantize_i16, (x: &[f32], codes: &mut [i16]) -> f32);
            kernel!($features, pack_queries, crate::attend::pack_queries, (queries: &[f32], key_dim: usize, out: &mut [f32]));
            kernel!($features, attend, crate::attend::attend, (tile: &Tile<'_>, running: &mut OnlineSoftmax<'_>, scratch: &mut [f32]));
            kernel!($features, merge, crate::attend::merge, (into: &mut OnlineSoftmax<'_>, other: &OnlineSoftmax<'_>));
            kernel!($features, mul, crate::recurrent::mul, (x: &mut [f32], y: &[f32]));
            kernel!($features, softplus, crate::recurrent::softplus, (x: &mut [f32]));
            kernel!($features, conv, crate::recurrent::conv, (taps: &[Tap<'_>], bias: &[f32], out: &mut [f32]));
            kernel!($features, selective_scan, crate::recurrent::selective_scan, (call: &SelectiveScan<'_>, h: &mut [f32], out: &mut [f32]));
            kernel!($features, ssd_step, crate::recurrent::ssd_step, (call: &SsdStep<'_>, h: &mut [f32], out: &mut [f32]));
            kernel!($features, delta_rule, crate::delta::delta_rule, (call: &DeltaRule<'_>, state: &mut [f32], out: &mut [f32]));
            kernel!($features, mul_sigmoid, crate::delta::mul_sigmoid, (x: &mut [f32], gate: &[f32]));
            kernel!($features, decay_weights, crate::recurrent::decay_weights, (to: f32, from: &[f32], weight: &[f32], x: &mut [f32]));

            kernel!($features, pub(super) matmul_floats<T: Float>, crate::floats::matmul::<Token, T>, (run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>));
            kernel!($features, unpack_quantised<F: Format>, crate::panels::quantised::<Token, F>, (packed: &[u8], columns: usize, panel: &mut [f32]));
            kernel!($features, unpack_floats<T: Float>, crate::panels::floats::<Token, T>, (packed: &[u8], columns: usize, panel: &mut [f32]));

            integer_kernels!($token, $features);
        }
    };
    ($module:ident, $name:literal, $token:ty, $features:literal, beside $floats:ident) => {
        mod $module {
            use super::$floats::matmul_floats;
            use super::*;

            /// The table.
            pub(super) const KERNELS: Kernels = Kernels { name: $name, matmul, attend_q4, ..super::$floats::KERNELS };

            integer_kernels!($token, $features);
        }
    };
}

#[cfg(target_arch = "x86_64")]
variant!(avx2, "simd (avx2)", crate::simd::avx2::Avx2<crate::simd::avx2::MultiplyAdd>, "avx2,fma,f16c");
#[cfg(target_arch = "x86_64")]
variant!(avx_vnni, "simd (avx-vnni)", crate::simd::avx2::Avx2<crate::simd::avx2::Vnni>, "avx2,fma,f16c", beside avx2);
#[cfg(target_arch = "x86_64")]
variant!(
    avx512,
    "simd (avx512)",
    crate::simd::avx512::Avx512<crate::simd::avx512::MultiplyAdd>,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"
);
#[cfg(target_arch = "x86_64")]
variant!(
    avx512_vnni,
    "simd (avx512-vnni)",
    crate::simd::avx512::Avx512<crate::simd::avx512::Vnni>,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c",
    beside avx512
);

/// Tile registers multiply the int8 activations of more than sixteen tokens; everything else is that of AVX-512 VNNI.
#[cfg(target_arch = "x86_64")]
mod amx {
    use super::avx512::matmul_floats;
    use super::avx512_vnni::{matmul_int16, quantize_int16};
    use super::*;

    type Token = crate::simd::avx512::Avx512<crate::simd::amx::Amx>;

    /// The table.
    pub(super) const KERNELS: Kernels = Kernels { name: "simd (amx)", matmul, ..super::avx512_vnni::KERNELS };

    fn matmul(dtype: DType, precision: ActivationPrecision) -> MatmulKernel {
        dispatch!(dtype, float F => plain!(F, dtype), block B => quantised!(B, dtype, precision))
    }

    kernel!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", quantize_int8<F: Format>, int8::quantize::<Token, F>, (x: &[f32], columns: usize, quantized: &mut [f32]));
    kernel!("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", matmul_tiles<F: Format>, crate::matmul::matmul::<Token, F, Int8>, (run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>));

    fn matmul_int8<F: Format>(run: &MatmulCall<'_>, scratch: &mut [f32], out: &mut OutputTile<'_>) {
        if const { int8::is_for_registers::<Token, F::Sums>(int8::TILE) } && run.n_tokens > int8::TILE {
            matmul_tiles::<F>(run, scratch, out);
        } else {
            super::avx512_vnni::matmul_int8::<F>(run, scratch, out);
        }
    }
}

#[cfg(target_arch = "aarch64")]
variant!(neon, "simd (neon)", crate::simd::neon::Neon<crate::simd::neon_quads::Widening>, "neon");
#[cfg(target_arch = "aarch64")]
variant!(dotprod, "simd (dotprod)", crate::simd::neon::Neon<crate::simd::neon_quads::DotProduct>, "neon", beside neon);
#[cfg(target_arch = "aarch64")]
variant!(i8mm, "simd (i8mm)", crate::simd::neon::Neon<crate::simd::neon_quads::Matrix>, "neon", beside neon);
