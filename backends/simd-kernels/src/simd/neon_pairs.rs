//! Products of pairs on AArch64: two int16 of weights in each lane, with two of a token.

use std::arch::aarch64::*;

type I = [int32x4_t; 4];

/// Tokens whose pairs a register holds.
const FOUR: usize = 4;

/// `sums += firsts * x[FIRST] + seconds * x[SECOND]`: the products of sixteen rows' pairs with one of the tokens' pairs in `x`.
#[inline]
#[target_feature(enable = "neon")]
fn add_pair<const FIRST: i32, const SECOND: i32>(
    sums: &mut I,
    [firsts, seconds]: &[[int16x8_t; 2]; 2],
    x: int16x8_t,
) {
    for half in 0..2 {
        let (first, second) = (firsts[half], seconds[half]);
        let [low, high] = &mut sums.as_chunks_mut::<2>().0[half];
        *low = vmlal_laneq_s16::<FIRST>(*low, vget_low_s16(first), x);
        *high = vmlal_high_laneq_s16::<FIRST>(*high, first, x);
        *low = vmlal_laneq_s16::<SECOND>(*low, vget_low_s16(second), x);
        *high = vmlal_high_laneq_s16::<SECOND>(*high, second, x);
    }
}

/// The first int16 of each pair, and the second.
#[inline]
#[target_feature(enable = "neon")]
fn split_pairs(pairs: I) -> [[int16x8_t; 2]; 2] {
    let apart = |a, b| {
        let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
        [vuzp1q_s16(a, b), vuzp2q_s16(a, b)]
    };
    let ([first, second], [third, fourth]) = (apart(pairs[0], pairs[1]), apart(pairs[2], pairs[3]));
    [[first, third], [second, fourth]]
}

/// See [`super::Simd::dot_add`].
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn add_pairs<const N: usize>(sums: &mut [I; N], a: I, x: &[f32; N]) {
    let a = split_pairs(a);
    if let (Some(sums), Some(x)) = (sums.first_chunk_mut::<FOUR>(), x.first_chunk::<FOUR>())
        && N == FOUR
    {
        // SAFETY: four elements are there.
        let x = vreinterpretq_s16_f32(unsafe { vld1q_f32(x.as_ptr()) });
        add_pair::<0, 1>(&mut sums[0], &a, x);
        add_pair::<2, 3>(&mut sums[1], &a, x);
        add_pair::<4, 5>(&mut sums[2], &a, x);
        add_pair::<6, 7>(&mut sums[3], &a, x);
        return;
    }
    for (sums, x) in sums.iter_mut().zip(x) {
        add_pair::<0, 1>(sums, &a, vreinterpretq_s16_f32(vdupq_n_f32(*x)));
    }
}
