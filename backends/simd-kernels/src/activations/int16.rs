//! Activations of 16 bits, with one scale for each token.
//!
//! Sixteen bits lose so little (less than a 65,000th of the token's largest activation) that results are as good as
//! float32's, whatever the shape of the matmul. Tokens are quantised in tiles of `N`, side by side:
//!
//! ```text
//! for each group of 32 columns    codes [16 pairs, N, 2 int16] · float32 sums of the codes: of the group [N], and of its
//!                                 first and second half [2, N]
//! at the end                      scales [N] · powers [N]
//! ```
//!
//! where an activation is about `code * scale * power`. The power is 1, except for tokens so small that a scale alone would
//! be subnormal, and for very large ones.
//!
//! Where instructions multiply bytes several times as fast as int16, each code is two bytes, `256 high + low + 128`, both
//! with a sign; in place of the pairs there are
//!
//! ```text
//! high bytes [8 quads, N, 4 int8] · low bytes [8 quads, N, 4 int8]
//! ```

use super::Extent;
use super::int8::QUADS;
use crate::packed::{GROUP, PAIRS};
use crate::simd::{LANES, Simd};

/// The largest code.
const MAX_CODE: f32 = i16::MAX as f32;

/// The number of this activation format.
pub(crate) const ID: u32 = 1;

/// The largest rounding error of an activation, as a share of the token's largest: half a step of the codes, and what the
/// quotient may be off before it is rounded.
pub(crate) const STEP: f32 = 0.51 / MAX_CODE;

/// Elements of a group for each token.
pub(crate) const GROUP_LEN: usize = PAIRS + 3;

/// A group of `N` tokens: the bits of each pair's codes (or of each quad's high bytes, and then low bytes), the sum of all codes,
/// and the sums of both halves.
pub(crate) type Group<const N: usize> = [[f32; N]; GROUP_LEN];

/// Float32 elements of a quantised token.
pub(crate) fn len(columns: usize) -> usize {
    columns / GROUP * GROUP_LEN + 2
}

/// The groups of a tile of `N` tokens, and its scales and powers.
///
/// # Panics
/// Where the tile is too short.
#[inline(always)]
pub(crate) fn split<const N: usize>(tile: &[f32], columns: usize) -> (&[Group<N>], [&[f32; N]; 2]) {
    let (numbers, _) = tile.as_chunks::<N>();
    let (groups, ends) = numbers.split_at(columns / GROUP * GROUP_LEN);
    (groups.as_chunks().0, [&ends[0], &ends[1]])
}

/// Quantises a tile of tokens, whose rows in `x` are whole groups.
#[inline(always)]
pub(crate) fn quantize<S: Simd>(s: S, x: &[f32], columns: usize, prepared: &mut [f32]) {
    let n = x.len() / columns;
    assert!(
        columns.is_multiple_of(GROUP) && x.len() == n * columns && prepared.len() >= n * len(columns),
        "room for a quantised tile"
    );
    let (groups, scales) = prepared.split_at_mut(columns / GROUP * GROUP_LEN * n);
    for (token, x) in x.chunks_exact(columns).enumerate() {
        let (scale, power) = quantize_token(s, x, n, token, groups);
        scales[token] = scale;
        scales[n + token] = power;
    }
}

/// Quantises one token of a tile of `n`; returns its scale and power.
#[inline(always)]
fn quantize_token<S: Simd>(s: S, x: &[f32], n: usize, token: usize, groups: &mut [f32]) -> (f32, f32) {
    let (vectors, _) = x.as_chunks::<LANES>();
    let Extent { max, finite, power, inverse_power } = Extent::of(s, vectors);
    let inverse = if finite && max > f32::MIN_POSITIVE { MAX_CODE / max } else { 0.0 };
    let (power, inverse) = (s.splat(power), s.splat(inverse));
    let (halves, _) = vectors.as_chunks::<2>();
    for (x, group) in halves.iter().zip(groups.chunks_exact_mut(GROUP_LEN * n)) {
        let mut codes = [[0_i16; LANES]; 2];
        let mut sums = [0.0; 2];
        for ((x, codes), sum) in x.iter().zip(&mut codes).zip(&mut sums) {
            let code = s.round(s.mul(s.mul(s.load(x), power), inverse));
            if S::BYTEWISE {
                s.store_i16(codes, code);
            } else {
                s.store_i16_swapped(codes, code);
            }
            *sum = s.sum(code);
        }
        let pairs: [u32; PAIRS] =
            if S::BYTEWISE { split_bytes(codes.as_flattened()) } else { bytemuck::must_cast(codes) };
        for (pair, to) in pairs.iter().zip(group.chunks_exact_mut(n)) {
            to[token] = f32::from_bits(*pair);
        }
        let to = PAIRS * n + token;
        (group[to], group[to + n], group[to + 2 * n]) = (sums[0] + sums[1], sums[0], sums[1]);
    }
    (if finite { max / MAX_CODE } else { f32::NAN }, inverse_power)
}

/// The quads of the codes' high bytes, and then of their low bytes less 128.
#[inline(always)]
fn split_bytes(codes: &[i16]) -> [u32; PAIRS] {
    let mut bytes = [0_u8; 2 * GROUP];
    let (high, low) = bytes.split_at_mut(GROUP);
    for ((code, high), low) in codes.iter().zip(high).zip(low) {
        *high = (code >> 8) as u8;
        *low = *code as u8 ^ 0x80;
    }
    bytemuck::must_cast(bytes)
}

/// The high bytes' quads of a group, and the low bytes'.
#[inline(always)]
pub(crate) fn bytes<const N: usize>(group: &Group<N>) -> [&[[f32; N]; QUADS]; 2] {
    let (quads, _) = group.as_chunks();
    [&quads[0], &quads[1]]
}
