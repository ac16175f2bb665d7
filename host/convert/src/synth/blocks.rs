//! Random weights of each element type.

use herald_api::DType;
use herald_formats::floats::Float;
use herald_formats::{Block, Unpacked, dispatch};
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

/// A number from 0 to 1.
fn unit(random: &mut Pcg64Mcg) -> f32 {
    (random.next_u32() >> 8) as f32 / (1 << 24) as f32
}

/// Float32 numbers, each computed from a random one between 0 and 1.
pub(super) fn floats(elements: usize, random: &mut Pcg64Mcg, make: impl Fn(f32) -> f32) -> Vec<u8> {
    (0..elements).flat_map(|_| make(unit(random)).to_le_bytes()).collect()
}

/// Float32 divisors of frequencies: 1 in the first quarter, then 1e30, as Gemma 4's converter writes them.
pub(super) fn first_quarter(elements: usize) -> Vec<u8> {
    (0..elements).flat_map(|index| if index < elements / 4 { 1.0_f32 } else { 1e30 }.to_le_bytes()).collect()
}

/// Weights around 0 with this standard deviation: blocks of random codes with matching scales.
pub(super) fn random(dtype: DType, elements: usize, deviation: f32, random: &mut Pcg64Mcg) -> Vec<u8> {
    let mut bytes = vec![0; elements / dtype.block_len() * dtype.block_bytes()];
    dispatch!(dtype,
        float F => random_floats::<F>(bytemuck::cast_slice_mut(&mut bytes), deviation, random),
        block B => {
            random.fill_bytes(&mut bytes);
            bytemuck::cast_slice_mut::<u8, B>(&mut bytes).iter_mut().for_each(|block| spread(block, deviation));
        },
    );
    bytes
}

fn random_floats<F: Float>(weights: &mut [F], deviation: f32, random: &mut Pcg64Mcg) {
    // Uniform numbers between -limit and limit.
    let limit = deviation * 3.0_f32.sqrt();
    weights.fill_with(|| F::from_f32((2.0 * unit(random) - 1.0) * limit));
}

/// Gives a block scales with which its weights are around 0 with a standard deviation.
fn spread<B: Block>(block: &mut B, deviation: f32) {
    let mut weights = vec![0.0; B::Unpacked::LEN];
    let mut mean = |block: &B, power: i32| {
        block.unpack().dequantize(&mut weights);
        weights.iter().map(|weight| weight.powi(power)).sum::<f32>() / weights.len() as f32
    };
    // The offsets cancel the codes' mean, in units of the scale.
    let mut shift = 0.0;
    if B::Unpacked::OFFSETS {
        block.set_scales([0.0, 1.0]);
        let of_offset = mean(block, 1);
        block.set_scales([1.0, 0.0]);
        shift = if of_offset == 0.0 { 0.0 } else { -mean(block, 1) / of_offset };
    }
    block.set_scales([1.0, shift]);
    let size = mean(block, 2).sqrt().max(f32::MIN_POSITIVE);
    block.set_scales([deviation / size, shift * deviation / size]);
}
