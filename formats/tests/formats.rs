//! The block formats, against other implementations of them: numpy's in the `gguf` package (`data/make_vectors.py`
//! writes its answers), the `half` crate's floats, and dot products in float64.

use std::collections::HashSet;

use herald_api::DType;
use herald_formats::{
    Block, Unpacked, codebooks, dequantize_row, dispatch, dot_row, dtype_for_rows, file_type, floats::Float,
    is_writable, row_kernels,
};
use ndarray::Array1;
use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::SafeTensors;

static VECTORS: &[u8] = include_bytes!("data/quant_vectors.safetensors");

/// Makes every float in a row finite, and smaller than 2.
fn make_finite(dtype: DType, row: &mut [u8]) {
    /// The number itself or, where it is too large, its reciprocal.
    fn small(value: f32) -> f32 {
        if value.is_nan() {
            return 1.0;
        }
        if value.abs() < 2.0 { value } else { 1.0 / value }
    }
    dispatch!(dtype,
        float F => for float in bytemuck::cast_slice_mut::<u8, F>(row) {
            *float = F::from_f32(small(float.to_f32()));
        },
        block B => for block in bytemuck::cast_slice_mut::<u8, B>(row) {
            block.set_scales(block.scales().map(small));
        },
    );
}

#[test]
fn blocks_are_as_large_as_their_dtypes_say() {
    fn check<T>(of: DType, dtype: DType, len: usize) {
        assert_eq!(of, dtype);
        assert_eq!(size_of::<T>(), dtype.block_bytes(), "bytes of {dtype}");
        assert_eq!(align_of::<T>(), 1, "alignment of {dtype}");
        assert_eq!(len, dtype.block_len(), "weights of {dtype}");
    }
    for dtype in DType::ALL {
        dispatch!(dtype,
            float F => check::<F>(F::DTYPE, dtype, 1),
            block B => check::<B>(B::DTYPE, dtype, <B as Block>::Unpacked::LEN),
        );
    }
}

#[test]
fn rows_that_blocks_do_not_divide_have_a_type_that_can_be_written() {
    for dtype in DType::ALL {
        for columns in [1, 31, 32, 96, 128, 256, 4096] {
            let fitting = dtype_for_rows(dtype, columns);
            assert!(fitting.row_bytes(columns).is_some(), "{dtype}: {fitting} for {columns}");
            assert_eq!(
                fitting == dtype,
                dtype.row_bytes(columns).is_some(),
                "{dtype}: {fitting} for {columns}"
            );
            if fitting != dtype {
                assert!(is_writable(fitting), "{dtype}: {fitting} for {columns}");
                assert!(fitting.bits_per_weight() >= dtype.bits_per_weight(), "{dtype}: {fitting}");
            }
        }
    }
}

#[test]
fn file_types_differ() {
    let numbers: HashSet<u32> = DType::ALL.into_iter().map(file_type).collect();
    assert_eq!(numbers.len(), DType::ALL.len());
}

#[test]
fn the_readme_lists_the_types() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let (_, list) = readme.split_once("Tensor types: ").expect("the list of types");
    let (list, _) = list.split_once('.').expect("the list's end");
    let listed: HashSet<&str> = list.split(',').map(str::trim).collect();
    assert_eq!(listed, DType::ALL.map(DType::name).into());
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
fn codebooks_are_those_of_numpy() {
    fn check<const DIM: usize>(of: &str, points: &[[i8; DIM]]) {
        let vectors = SafeTensors::deserialize(VECTORS).unwrap();
        let tensor = vectors.tensor(&format!("{of}.codebook")).unwrap();
        assert_eq!(tensor.shape(), [points.len(), DIM], "{of}");
        for (point, expected) in points.iter().zip(tensor.data().chunks(DIM)) {
            assert_eq!(point.map(|coordinate| coordinate as u8), expected, "{of}");
        }
    }
    check("IQ1_S", &codebooks::TERNARY_2048);
    check("IQ2_XXS", &codebooks::EIGHT_256);
    check("IQ2_XS", &codebooks::EIGHT_512);
    check("IQ2_S", &codebooks::EIGHT_1024);
    check("IQ3_XXS", &codebooks::FOUR_256);
    check("IQ3_S", &codebooks::FOUR_512);
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
