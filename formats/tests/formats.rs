//! The block formats, against other implementations of them: numpy's in the `gguf` package (`data/make_vectors.py`
//! writes its answers), the `half` crate's floats, and dot products in float64.

use herald_api::DType;
use herald_formats::{
    Block, Unpacked, dequantize_row, dot_row,
    floats::{Bf16, F16, F32, Float},
    iq4::{Iq4Nl, Iq4Xs},
    k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K},
    legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
    row_kernels,
};
use ndarray::Array1;
use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::SafeTensors;

static VECTORS: &[u8] = include_bytes!("data/quant_vectors.safetensors");

/// Where a block of each type keeps the upper bytes of its floats, whose second-highest bit is the exponent's top one.
fn upper_bytes_of_floats(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 => &[3],
        DType::F16 | DType::Bf16 | DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::Iq4Nl | DType::Iq4Xs => {
            &[1]
        }
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => &[1, 3],
        DType::Q2K => &[81, 83],
        DType::Q3K => &[109],
        DType::Q6K => &[209],
    }
}

/// Makes every float in a row finite, and smaller than 2, by clearing the exponent's top bit.
fn make_finite(dtype: DType, row: &mut [u8]) {
    for block in row.chunks_exact_mut(dtype.block_bytes()) {
        for &byte in upper_bytes_of_floats(dtype) {
            block[byte] &= 0xbf;
        }
    }
}

#[test]
fn blocks_are_as_large_as_their_dtypes_say() {
    fn check<B: Block>() {
        assert_eq!(size_of::<B>(), B::DTYPE.block_bytes(), "bytes of {}", B::DTYPE);
        assert_eq!(align_of::<B>(), 1, "alignment of {}", B::DTYPE);
        assert_eq!(B::Unpacked::LEN, B::DTYPE.block_len(), "weights of {}", B::DTYPE);
    }
    fn check_float<F: Float>() {
        assert_eq!(size_of::<F>(), F::DTYPE.block_bytes(), "bytes of {}", F::DTYPE);
        assert_eq!(align_of::<F>(), 1, "alignment of {}", F::DTYPE);
    }
    check::<Q4_0>();
    check::<Q4_1>();
    check::<Q5_0>();
    check::<Q5_1>();
    check::<Q8_0>();
    check::<Q2K>();
    check::<Q3K>();
    check::<Q4K>();
    check::<Q5K>();
    check::<Q6K>();
    check::<Iq4Nl>();
    check::<Iq4Xs>();
    check_float::<F32>();
    check_float::<F16>();
    check_float::<Bf16>();
}

#[test]
fn weights_are_those_of_numpy_to_the_bit() {
    let vectors = SafeTensors::deserialize(VECTORS).unwrap();
    for dtype in DType::ALL {
        let row = vectors.tensor(&format!("{dtype}.row")).unwrap().data();
        let expected = vectors.tensor(&format!("{dtype}.weights")).unwrap().data();
        let expected: Vec<f32> =
            expected.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();

        let mut weights = vec![f32::NAN; expected.len()];
        dequantize_row(dtype, row, &mut weights);

        for (i, (weight, expected)) in weights.iter().zip(&expected).enumerate() {
            assert_eq!(weight.to_bits(), expected.to_bits(), "{dtype} weight {i}: {weight}, not {expected}");
        }
    }
}

#[test]
fn every_f16_is_that_of_half() {
    check_all_halves(DType::F16, |bits| half::f16::from_bits(bits).to_f32());
}

#[test]
fn every_bf16_is_that_of_half() {
    check_all_halves(DType::Bf16, |bits| half::bf16::from_bits(bits).to_f32());
}

fn check_all_halves(dtype: DType, expected: impl Fn(u16) -> f32) {
    let row: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut weights = vec![0.0; 1 << 16];
    dequantize_row(dtype, &row, &mut weights);
    for (bits, weight) in (0..=u16::MAX).zip(weights) {
        let expected = expected(bits);
        // A NaN's other bits are free: `half` makes it a quiet one.
        let same = weight.to_bits() == expected.to_bits() || weight.is_nan() && expected.is_nan();
        assert!(same, "{dtype} {bits:#06x}: {weight}, not {expected}");
    }
}

/// A type, a row of whole blocks of it that starts at any alignment, and as many activations.
fn rows_and_activations() -> impl Strategy<Value = (DType, usize, Vec<u8>, Vec<f32>)> {
    (prop::sample::select(&DType::ALL[..]), 0_usize..12, 0_usize..4).prop_flat_map(
        |(dtype, blocks, misalignment)| {
            // Plain floats have no blocks: any length, so any tail.
            let blocks = if dtype.block_len() == 1 { blocks * 13 } else { blocks };
            let bytes = vec(any::<u8>(), misalignment + blocks * dtype.block_bytes());
            let x = vec(-8.0_f32..8.0, blocks * dtype.block_len());
            (Just(dtype), Just(misalignment), bytes, x)
        },
    )
}

proptest! {
    #[test]
    fn dot_products_are_those_of_float64((dtype, misalignment, mut bytes, x) in rows_and_activations()) {
        let row = &mut bytes[misalignment..];
        make_finite(dtype, row);

        let mut weights = vec![0.0; x.len()];
        dequantize_row(dtype, row, &mut weights);
        let weights: Array1<f64> = weights.into_iter().map(f64::from).collect();
        let activations: Array1<f64> = x.iter().copied().map(f64::from).collect();
        let expected = weights.dot(&activations);

        // A product is rounded once, joins one of 32 running sums, and these join in 5 levels: each rounding is
        // within 2^-24 of its result, and each underflow within 2^-149.
        let roundings = x.len() as f64 / 32.0 + 7.0;
        let sizes = weights.abs().dot(&activations.abs());
        let bound = roundings * 2_f64.powi(-24) * sizes + x.len() as f64 * 2_f64.powi(-149);

        let dot = f64::from(dot_row(dtype, row, &x));
        prop_assert!((dot - expected).abs() <= bound, "{dtype}: {dot}, not {expected} within {bound}");
    }
}

#[test]
fn rows_of_another_length_are_refused() {
    for dtype in DType::ALL {
        let kernels = row_kernels(dtype);
        let len = 2 * dtype.block_len();
        let row = vec![0; dtype.row_bytes(len).unwrap()];
        for (row_bytes, len) in [(row.len() - 1, len), (row.len(), len - 1), (row.len() / 2, len), (0, len)] {
            let row = &row[..row_bytes];
            let dot = std::panic::catch_unwind(|| (kernels.dot)(row, &vec![0.0; len]));
            let dequantize = std::panic::catch_unwind(|| (kernels.dequantize)(row, &mut vec![0.0; len]));
            assert!(dot.is_err() && dequantize.is_err(), "{dtype}: {row_bytes} bytes for {len} weights");
        }
    }
}
