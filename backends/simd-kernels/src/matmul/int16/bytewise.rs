//! int16 activations as two bytes each, multiplied in quads.
//!
//! With a token's int16 as `256 high + low + 128`, a row's products with it are
//!
//! ```text
//! sum(code * x) = 256 sum(code * high) + sum(code * low) + 128 sum(code)
//! ```
//!
//! The last of these depends on the row alone. All are exact in int32, as the sums of pairs are.

use super::subtract_offsets;
use crate::activations::int8::QUADS;
use crate::activations::int16::{self, Group};
use crate::matmul::Sums;
use crate::matmul::int8::{halves, store_code_quads, to_blocks};
use crate::packed::Format;
use crate::simd::{LANES, Simd};

/// Tokens up to which codes are unpacked as they are multiplied: as many as the registers hold both sums of.
pub(super) const DIRECT: usize = 3;

/// Four bytes of 64: the largest power of two that has a sign. Half of what codes' sums are multiplied by.
const HALF_OF_128: f32 = f32::from_bits(0x4040_4040);

/// All quads' products fit.
const RUN: usize = QUADS;

/// Vectors of a group's panel before its scales: quads, and for each half or the group, 128 times the sum of its codes.
pub(super) const fn code_vectors<L: Sums>() -> usize {
    QUADS + L::COUNT
}

/// Adds 64 times the sum of each quad's codes.
#[inline(always)]
fn add_rows<S: Simd>(s: S, sums: &mut [S::I; 1], codes: S::I) {
    s.dot_quads(sums, &[codes], &[[HALF_OF_128]], RUN);
}

/// Stores a group's quads, less the format's offset, and what else there is before its scales.
#[inline(always)]
pub(super) fn unpack<S: Simd, F: Format>(s: S, group: &[u8], to: &mut [[f32; LANES]]) {
    store_code_quads::<S, F, 0>(s, group, to);
    store_code_quads::<S, F, 1>(s, group, to);
    store_code_quads::<S, F, 2>(s, group, to);
    store_code_quads::<S, F, 3>(s, group, to);
    let Some((quads, sums)) = to.split_first_chunk_mut::<QUADS>() else { return };
    if F::OFFSET != 0 {
        // Bytes with an offset are below 128: what makes 128 of them carries nothing, and then the top bit is turned over.
        let offset = s.splat_i((128 - F::OFFSET) * 0x0101_0101);
        for quad in &mut *quads {
            let codes = s.xor(s.add_i(s.load_bits(quad), offset), s.splat_i(0x8080_8080_u32 as i32));
            s.store_bits(quad, codes);
        }
    }
    for (sum, quads) in sums.iter_mut().zip(parts::<F::Sums, _>(quads)) {
        let mut rows = [s.splat_i(0)];
        for codes in quads {
            add_rows(s, &mut rows, s.load_bits(codes));
        }
        s.store_bits(sum, s.shl(rows[0], 1));
    }
    to_blocks(s, quads);
}

/// The quads of each sum: both halves', or all.
#[inline(always)]
fn parts<L: Sums, T>(quads: &[T; QUADS]) -> std::slice::ChunksExact<'_, T> {
    quads.chunks_exact(QUADS / L::COUNT)
}

/// The sums of a panel's group, whose [`code_vectors`] these are: of both halves, or the first.
#[inline(always)]
pub(super) fn panel_sums<S: Simd, L: Sums, const N: usize>(
    s: S,
    codes: &[[f32; LANES]],
    x: &Group<N>,
) -> [[S::I; N]; 2] {
    let mut sums = [[s.splat_i(0); N]; 2];
    let Some((quads, offsets)) = codes.split_first_chunk::<QUADS>() else { return sums };
    let [high, low] = int16::bytes(x);
    if L::HALVES {
        let (quads, high, low) = (halves(quads), halves(high), halves(low));
        for half in 0..2 {
            sums[half] = sums_of(s, quads[half], [high[half], low[half]], s.load_bits(&offsets[half]));
        }
    } else {
        sums[0] = sums_of(s, quads, [high, low], s.load_bits(&offsets[0]));
    }
    sums
}

/// The sums of some quads' products with both bytes, and of the offsets.
#[inline(always)]
fn sums_of<S: Simd, const N: usize, const Q: usize>(
    s: S,
    quads: &[[f32; LANES]; Q],
    [high, low]: [&[[f32; N]; Q]; 2],
    offsets: S::I,
) -> [S::I; N] {
    let mut sums = [s.splat_i(0); N];
    s.dot_panel(&mut sums, quads, high, RUN);
    for sum in &mut sums {
        *sum = s.add_i(s.shl(*sum, 8), offsets);
    }
    if S::BLOCKS {
        // Their sums begin with the same in all lanes.
        let mut lows = [s.splat_i(0); N];
        s.dot_panel(&mut lows, quads, low, RUN);
        for (sum, low) in sums.iter_mut().zip(lows) {
            *sum = s.add_i(*sum, low);
        }
    } else {
        s.dot_panel(&mut sums, quads, low, RUN);
    }
    sums
}

/// The sums of a group as it is packed: of both halves, or the first.
#[inline(always)]
pub(super) fn group_sums<S: Simd, F: Format, const N: usize>(
    s: S,
    group: &[u8],
    x: &Group<N>,
) -> [[S::I; N]; 2] {
    let zeros = [[s.splat_i(0); N]; 2];
    let mut sums = Bytes::<S, N> { high: zeros, low: zeros, rows: [[s.splat_i(0)]; 2] };
    sums.add::<F, 0>(s, group, x);
    sums.add::<F, 1>(s, group, x);
    sums.add::<F, 2>(s, group, x);
    sums.add::<F, 3>(s, group, x);
    let Bytes { mut high, low, rows } = sums;
    for ((high, low), rows) in high.iter_mut().zip(low).zip(rows) {
        let rows = s.shl(rows[0], 1);
        for (sum, low) in high.iter_mut().zip(low) {
            *sum = s.add_i(s.add_i(s.shl(*sum, 8), rows), low);
        }
    }
    if F::OFFSET != 0 {
        subtract_offsets::<S, F, N>(s, &mut high, x, F::HALVES);
    }
    high
}

/// The sums of both halves, where the format has a scale for each; otherwise all are in the first.
struct Bytes<S: Simd, const N: usize> {
    high: [[S::I; N]; 2],
    low: [[S::I; N]; 2],
    rows: [[S::I; 1]; 2],
}

impl<S: Simd, const N: usize> Bytes<S, N> {
    /// Adds the products of two quads.
    #[inline(always)]
    fn add<F: Format, const Q: usize>(&mut self, s: S, group: &[u8], x: &Group<N>) {
        let [high, low] = int16::bytes(x);
        for (half, codes) in F::code_quads::<S, Q>(s, group).into_iter().enumerate() {
            let (sum, quad) = (if F::HALVES { half } else { 0 }, half * QUADS / 2 + Q);
            s.dot_quads(&mut self.high[sum], &[codes], &[high[quad]], RUN);
            s.dot_quads(&mut self.low[sum], &[codes], &[low[quad]], RUN);
            add_rows(s, &mut self.rows[sum], codes);
        }
    }
}
