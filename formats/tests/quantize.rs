//! Weights made into blocks and read back: no further off than ggml's quantisers leave them (`data/
//! make_quantize_vectors.py` writes how far that is), nor than the formats' steps allow, whatever the weights are.

use herald_api::DType;
use herald_formats::{dequantize_row, is_writable, largest, quantize_row, quantize_row_for};
use proptest::collection::vec;
use proptest::prelude::*;
use safetensors::SafeTensors;

static VECTORS: &[u8] = include_bytes!("data/quantize_vectors.safetensors");

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// The types that can be written.
fn written() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|&dtype| is_writable(dtype))
}

/// What is left of the weights.
fn round_trip(dtype: DType, weights: &[f32]) -> Vec<f32> {
    let mut row = vec![0; dtype.row_bytes(weights.len()).unwrap()];
    quantize_row(dtype, weights, &mut row).unwrap();
    let mut kept = vec![f32::NAN; weights.len()];
    dequantize_row(dtype, &row, &mut kept);
    kept
}

fn squares(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum()
}

/// The share of the weights' size that is lost, where squares count by their column.
fn lost(dtype: DType, weights: &[f32], importance: Option<&[f32]>) -> f64 {
    let columns = importance.map_or(weights.len(), <[f32]>::len);
    let (mut off, mut size) = (0.0, 0.0);
    for weights in weights.chunks(columns) {
        let mut row = vec![0; dtype.row_bytes(columns).unwrap()];
        quantize_row_for(dtype, weights, importance, &mut row).unwrap();
        let mut kept = vec![f32::NAN; columns];
        dequantize_row(dtype, &row, &mut kept);
        for (column, (&kept, &weight)) in kept.iter().zip(weights).enumerate() {
            let (kept, weight) = (f64::from(kept), f64::from(weight));
            let counts = importance.map_or(1.0, |importance| f64::from(importance[column]));
            off += counts * (kept - weight).powi(2);
            size += counts * weight.powi(2);
        }
    }
    (off / size).sqrt()
}

#[test]
fn errors_are_no_larger_than_those_of_ggml() {
    let vectors = SafeTensors::deserialize(VECTORS).unwrap();
    let tensor = |name: &str| floats(vectors.tensor(name).unwrap().data());
    let importance = tensor("importance");
    for set in ["normal", "heavy_tails", "one_sided"] {
        let weights = tensor(set);
        for dtype in written().filter(|&dtype| dtype != DType::F32) {
            for (suffix, importance) in [("", None), (".weighted", Some(&importance[..]))] {
                let theirs = tensor(&format!("{set}.{dtype}{suffix}"))[0];
                let ours = lost(dtype, &weights, importance);
                println!("{set} {dtype}{suffix} {ours:.5} {theirs:.5} {:.4}", ours as f32 / theirs);
                assert!(ours as f32 <= theirs, "{set} in {dtype}{suffix}: {ours}, and ggml's {theirs}");
            }
        }
    }
}

#[test]
fn floats_are_rounded_as_half_does() {
    for bits in (0..=u32::MAX).step_by(65_537) {
        let weight = f32::from_bits(bits);
        if weight.abs() <= largest(DType::F16) {
            let kept = round_trip(DType::F16, &[weight])[0];
            assert_eq!(kept.to_bits(), half::f16::from_f32(weight).to_f32().to_bits(), "{weight}");
        }
        if weight.abs() <= largest(DType::Bf16) {
            let kept = round_trip(DType::Bf16, &[weight])[0];
            assert_eq!(kept.to_bits(), half::bf16::from_f32(weight).to_f32().to_bits(), "{weight}");
        }
        if weight.is_finite() {
            assert_eq!(round_trip(DType::F32, &[weight])[0].to_bits(), bits);
        }
    }
}

/// The most that the root of the mean squared error of a block can be, for weights of magnitudes up to `largest`.
///
/// The plain scale, which reaches the largest weight, leaves each weight within half a step. The search only lowers
/// the weighted sum of squares, whose importances are at least 1 and sum up to twice the count at most: so the root
/// of the mean is within the square root of 2 of half a step. Rounding a group's scale (and minimum) to a multiple of the
/// block's moves a weight by a further part of the largest one. A float16 scale is off by 2^-11 of itself, or by 2^-25.
fn bound(dtype: DType, largest: f64) -> f64 {
    let root = 2_f64.sqrt();
    // Half a step, and what rounding scales moves, both as parts of the largest weight; and the largest code.
    let (half_step, moved, code) = match dtype {
        DType::Q4_0 => (0.5 / 7.0, 0.0, 8.0),
        DType::Q4_1 => (1.0 / 15.0, 0.0, 15.0),
        DType::Q5_0 => (0.5 / 15.0, 0.0, 16.0),
        DType::Q5_1 => (1.0 / 31.0, 0.0, 31.0),
        DType::Q8_0 => (0.5 / 127.0, 0.0, 127.0),
        // Levels are up to 24 apart.
        DType::Iq4Nl => (12.0 / 113.0, 0.0, 127.0),
        // A scale is at most twice the plain one, and off by one of 32, of 128, of 15 or of 63.
        DType::Iq4Xs => (12.0 / 113.0, 127.0 / 113.0 * 2.0 / 32.0, 127.0 * 32.0),
        DType::Q3K => (0.5 / 3.0, 4.0 / 3.0 * 2.0 / 32.0, 4.0 * 32.0),
        DType::Q6K => (0.5 / 31.0, 32.0 / 31.0 * 2.0 / 128.0, 32.0 * 128.0),
        DType::Q2K => (1.0 / 3.0, 4.0 / 15.0, 3.0 * 15.0 + 15.0),
        DType::Q4K => (1.0 / 15.0, 4.0 / 63.0, 15.0 * 63.0 + 63.0),
        DType::Q5K => (1.0 / 31.0, 4.0 / 63.0, 31.0 * 63.0 + 63.0),
        DType::F16 => (2_f64.powi(-12), 0.0, 1.0),
        DType::Bf16 => (2_f64.powi(-9), 0.0, 1.0),
        DType::F32 => (0.0, 0.0, 0.0),
        // Of the exponents whose levels reach the largest weight, it is beyond half of what the least can hold: there levels
        // are up to 4 of 12 apart.
        DType::Mxfp4 => (2.0 / 6.0, 0.0, 0.0),
        // At worst the smallest of its scales stands for a group, whose weights are lost.
        DType::Iq3S => (1.0, 15.0 / 31.0, 15.0 * 31.0),
        DType::Iq2S => (1.0, 43.0 / 31.0, 43.0 * 31.0 / 8.0),
        _ => unreachable!("{dtype} is only read"),
    };
    root * (half_step + moved + 4.0 * 2_f64.powi(-11)) * largest + code * 2_f64.powi(-24)
}

/// Blocks of weights: of all sizes that float16 has, equal ones, one-sided ones, and mostly zeros.
fn weights() -> impl Strategy<Value = Vec<f32>> {
    let size = prop_oneof![Just(1.0), Just(0.02), Just(1e-6), Just(65_504.0), Just(1e-30)];
    let shape = prop_oneof![
        vec(-1.0_f32..=1.0, 512),
        vec(0.3_f32..=1.0, 512),
        vec(prop_oneof![20 => Just(0.0), 1 => -1.0_f32..=1.0], 512),
        (-1.0_f32..=1.0).prop_map(|same| vec![same; 512]),
    ];
    (size, shape).prop_map(|(size, shape)| shape.into_iter().map(|x| x * size).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn errors_are_within_the_formats_steps(weights in weights()) {
        for dtype in written() {
            let kept = round_trip(dtype, &weights);
            let len = dtype.block_len().max(32);
            for (kept, weights) in kept.chunks(len).zip(weights.chunks(len)) {
                let largest = weights.iter().fold(0.0_f64, |most, &weight| most.max(f64::from(weight.abs())));
                let off = kept.iter().zip(weights).map(|(&kept, &weight)| f64::from(kept) - f64::from(weight));
                let error = (squares(off) / len as f64).sqrt();
                let bound = bound(dtype, largest);
                prop_assert!(error <= bound, "{dtype}: {error}, not within {bound}, of {weights:?}");
            }
        }
    }
}

#[test]
fn what_a_type_has_no_room_for_is_refused() {
    for dtype in written() {
        let len = 2 * dtype.block_len();
        for (weight, refused) in [
            (f32::NAN, true),
            (f32::INFINITY, true),
            (f32::NEG_INFINITY, true),
            (-70_000.0, largest(dtype) < 70_000.0),
            (65_504.0, false),
        ] {
            let mut weights = vec![0.5; len];
            weights[len - 1] = weight;
            let before = vec![0xa5; dtype.row_bytes(len).unwrap()];
            let mut row = before.clone();
            match quantize_row(dtype, &weights, &mut row) {
                Ok(()) => assert!(!refused, "{dtype} took {weight}"),
                Err(error) => {
                    assert!(refused, "{dtype}: {error}");
                    assert_eq!((error.index, error.dtype), (len - 1, dtype));
                    assert!(
                        error.to_string().starts_with(&format!("weight {} is {weight}; expected", len - 1))
                    );
                    assert_eq!(row, before, "{dtype}");
                }
            }
        }
    }
}

#[test]
fn rows_of_another_length_are_refused() {
    for dtype in written() {
        let len = 2 * dtype.block_len();
        let mut row = vec![0; dtype.row_bytes(len).unwrap() - 1];
        let outcome = std::panic::catch_unwind(move || quantize_row(dtype, &vec![0.0; len], &mut row));
        assert!(outcome.is_err(), "{dtype}");
    }
}

#[test]
fn types_that_are_only_read_are_refused() {
    for dtype in DType::ALL.into_iter().filter(|&dtype| !is_writable(dtype)) {
        let len = 2 * dtype.block_len();
        let mut row = vec![0; dtype.row_bytes(len).unwrap()];
        let outcome = std::panic::catch_unwind(move || quantize_row(dtype, &vec![0.0; len], &mut row));
        assert!(outcome.is_err(), "{dtype}");
    }
}
