//! Random weights of each element type.

use herald_api::DType;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

/// The offsets of a block's float16 numbers: its scale, and in types with offsets theirs.
fn halves(dtype: DType) -> (&'static [usize], Option<usize>) {
    match dtype {
        DType::F32 | DType::F16 | DType::Bf16 => (&[], None),
        DType::Q4_0 | DType::Q5_0 | DType::Q8_0 | DType::Iq4Nl | DType::Iq4Xs => (&[0], None),
        DType::Q4_1 | DType::Q5_1 | DType::Q4K | DType::Q5K => (&[0], Some(2)),
        DType::Q2K => (&[80], Some(82)),
        DType::Q3K => (&[108], None),
        DType::Q6K => (&[208], None),
    }
}

/// A number from 0 to 1.
fn unit(random: &mut Pcg64Mcg) -> f32 {
    (random.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// Float32 numbers, each computed from a random one between 0 and 1.
pub(super) fn floats(elements: usize, random: &mut Pcg64Mcg, make: impl Fn(f32) -> f32) -> Vec<u8> {
    (0..elements).flat_map(|_| make(unit(random)).to_le_bytes()).collect()
}

/// Weights around 0 with this standard deviation: blocks of random codes with matching scales.
pub(super) fn random(dtype: DType, elements: usize, deviation: f32, random: &mut Pcg64Mcg) -> Vec<u8> {
    // Uniform numbers between -limit and limit.
    let limit = deviation * 3.0_f32.sqrt();
    let mut even = || (2.0 * unit(random) - 1.0) * limit;
    match dtype {
        DType::F32 => return (0..elements).flat_map(|_| even().to_le_bytes()).collect(),
        DType::F16 => return (0..elements).flat_map(|_| half::f16::from_f32(even()).to_le_bytes()).collect(),
        DType::Bf16 => {
            return (0..elements).flat_map(|_| half::bf16::from_f32(even()).to_le_bytes()).collect();
        }
        _ => {}
    }
    let mut bytes = vec![0; elements / dtype.block_len() * dtype.block_bytes()];
    random.fill_bytes(&mut bytes);
    let (scales, offset) = halves(dtype);
    let set = |block: &mut [u8], at: usize, value: f32| {
        block[at..at + 2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes());
    };
    let mut weights = vec![0.0_f32; dtype.block_len()];
    let mut mean = |block: &[u8], power: i32| {
        herald_formats::dequantize_row(dtype, block, &mut weights);
        weights.iter().map(|weight| weight.powi(power)).sum::<f32>() / weights.len() as f32
    };
    for block in bytes.chunks_exact_mut(dtype.block_bytes()) {
        let [scale, offset] = [Some(scales[0]), offset];
        for at in [scale, offset].into_iter().flatten() {
            set(block, at, 0.0);
        }
        // The offsets cancel the codes' mean, in units of the scale.
        let mut shift = 0.0;
        if let Some(at) = offset {
            set(block, at, 1.0);
            let of_offset = mean(block, 1);
            set(block, at, 0.0);
            set(block, scales[0], 1.0);
            shift = if of_offset == 0.0 { 0.0 } else { -mean(block, 1) / of_offset };
            set(block, at, shift);
        }
        set(block, scales[0], 1.0);
        let size = mean(block, 2).sqrt().max(f32::MIN_POSITIVE);
        set(block, scales[0], deviation / size);
        if let Some(at) = offset {
            set(block, at, shift * deviation / size);
        }
    }
    bytes
}
