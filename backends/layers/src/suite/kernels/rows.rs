//! Kernels over rows of weights, of every element type.

use herald_api::DType;
use proptest::prelude::*;

use super::super::bounds::{Expected, TINY, check_all, gamma};
use super::super::values::{Spread, Values};
use super::super::weights::{finite_row, sizes};
use super::super::{Case, ensure, property};
use super::CASES;
use crate::Kernels;
use herald_formats::dequantize_row;

/// Elements of a row: any number of plain floats, whole blocks otherwise.
fn row_len(dtype: DType, blocks: usize) -> usize {
    if dtype.block_len() == 1 { blocks * 13 } else { blocks * dtype.block_len() }
}

pub(in super::super) fn check(kernels: &'static Kernels) {
    // Any bytes, at any alignment; the output only as aligned as float32 is.
    let inputs = (0_usize..8, 0_usize..4, 0_usize..4, any::<u64>());
    for dtype in DType::ALL {
        property(
            &format!("{}: dequantize {dtype}", kernels.name),
            CASES / 4,
            inputs.clone(),
            |(blocks, before, x_before, seed)| dequantize(kernels, dtype, blocks, [before, x_before], seed),
        );
        property(
            &format!("{}: dot {dtype}", kernels.name),
            CASES / 4,
            (inputs.clone(), Spread::any()),
            |((blocks, before, x_before, seed), spread)| {
                dot(kernels, dtype, blocks, [before, x_before], seed, spread)
            },
        );
    }
}

/// To the bit what the formats' own arithmetic gives, infinities and NaN too.
fn dequantize(
    kernels: &Kernels,
    dtype: DType,
    blocks: usize,
    [before, out_before]: [usize; 2],
    seed: u64,
) -> Case {
    let len = row_len(dtype, blocks);
    let bytes = Values::new(seed).bytes(before + len / dtype.block_len() * dtype.block_bytes());
    let row = &bytes[before..];
    let mut expected = vec![0.0; len];
    dequantize_row(dtype, row, &mut expected);
    let mut out = vec![f32::NAN; out_before + len];
    ((kernels.rows)(dtype).dequantize)(row, &mut out[out_before..]);
    for (index, (got, expected)) in out[out_before..].iter().zip(&expected).enumerate() {
        let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        ensure(same, || format!("weight {index} is {got:e}, where {expected:e} was expected"))?;
    }
    Ok(())
}

fn dot(
    kernels: &Kernels,
    dtype: DType,
    blocks: usize,
    [before, x_before]: [usize; 2],
    seed: u64,
    spread: Spread,
) -> Case {
    let len = row_len(dtype, blocks);
    let mut values = Values::new(seed);
    let mut bytes = values.bytes(before);
    bytes.extend(finite_row(dtype, len, &mut values));
    let row = &bytes[before..];
    let x = values.floats(x_before + len, spread);
    let x = &x[x_before..];

    let mut weights = vec![0.0; len];
    dequantize_row(dtype, row, &mut weights);
    let value: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
    // A term is a product of at most four numbers (code, two scales, activation), in any order; the weights compared with
    // add three roundings; and n terms are summed.
    let size: f64 = sizes(dtype, row, len).iter().zip(x).map(|(size, x)| size * f64::from(x.abs())).sum();
    let bound = gamma(len + 8) * size + (len + 8) as f64 * TINY;
    check_all("the dot product", &[((kernels.rows)(dtype).dot)(row, x)], [Expected { value, bound }])
}
