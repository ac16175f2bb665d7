//! Packed rows as float32, for matmuls that another library does: a panel `[columns, rows]`, the sixteen rows of a row tile
//! side by side as they are packed.

use crate::floats::Float;
use crate::packed::{Format, GROUP, Scales};
use crate::simd::{LANES, Simd};

/// Dequantises rows: the packed bytes of whole row tiles, elements of a row, and room for `[columns, rows]` float32, where
/// each row tile counts as sixteen rows. Rows that the last row tile has beyond the matrix's come out as zeros.
pub type Unpack = fn(packed: &[u8], columns: usize, panel: &mut [f32]);

/// `2^-16`: brings an int16 in the upper half of an int32 back to its size.
const FROM_UPPER_HALF: f32 = 1.0 / 65536.0;

/// The upper int16 of each pair.
const UPPER_HALF: i32 = 0xffff_0000_u32 as i32;

/// The vectors `[columns, row tiles]` of a panel of as many row tiles of `bytes` as are packed.
fn vectors<'a>(
    packed: &[u8],
    bytes: usize,
    columns: usize,
    panel: &'a mut [f32],
) -> (usize, &'a mut [[f32; LANES]]) {
    let count = packed.len() / bytes.max(1);
    assert!(
        panel.len() >= count * LANES * columns,
        "room for a panel of {count} row tiles of {columns} columns"
    );
    (count, panel.as_chunks_mut().0)
}

/// Dequantises quantised rows.
#[inline(always)]
pub(crate) fn quantised<S: Simd, F: Format>(s: S, packed: &[u8], columns: usize, panel: &mut [f32]) {
    let blocks = columns / (F::GROUPS * GROUP);
    let bytes = blocks * F::BLOCK_BYTES;
    let (count, panel) = vectors(packed, bytes, columns, panel);
    for row_tile in 0..count {
        let rows = &packed[row_tile * bytes..][..bytes];
        let mut column = 0;
        for block in rows.chunks_exact(F::BLOCK_BYTES) {
            let (header, groups) = F::split(block);
            for group in groups.chunks_exact(F::GROUP_BYTES) {
                let scales = F::scales(s, header, group);
                let to = &mut panel[column * count + row_tile..][..(GROUP - 1) * count + 1];
                code_pairs::<S, F, 0>(s, group, &scales, to, count);
                code_pairs::<S, F, 1>(s, group, &scales, to, count);
                code_pairs::<S, F, 2>(s, group, &scales, to, count);
                code_pairs::<S, F, 3>(s, group, &scales, to, count);
                column += GROUP;
            }
        }
    }
}

/// Dequantises four pairs of a group, whose 32 columns go to `to`, `stride` vectors apart.
#[inline(always)]
fn code_pairs<S: Simd, F: Format, const Q: usize>(
    s: S,
    group: &[u8],
    scales: &Scales<S>,
    to: &mut [[f32; LANES]],
    stride: usize,
) {
    let offset = s.splat_i(F::OFFSET << 16 | F::OFFSET);
    let (upper, size) = (s.splat_i(UPPER_HALF), s.splat(FROM_UPPER_HALF));
    for (index, codes) in F::code_pairs::<S, Q>(s, group).into_iter().enumerate() {
        let codes = if F::OFFSET != 0 { s.sub_i16(codes, offset) } else { codes };
        let half = index / 2;
        let scale = s.mul(scales.scale[half], size);
        let min = if F::MINS { scales.min[half] } else { s.zero() };
        // The pair's columns, in the order of `packed`.
        let column = 16 * half + 4 * Q + index % 2;
        let (first, second) = (s.shl(codes, 16), s.and(codes, upper));
        s.store(&mut to[column * stride], s.fma(s.to_float(first), scale, min));
        s.store(&mut to[(column + 2) * stride], s.fma(s.to_float(second), scale, min));
    }
}

/// Widens rows of plain floats.
#[inline(always)]
pub(crate) fn floats<S: Simd, T: Float>(s: S, packed: &[u8], columns: usize, panel: &mut [f32]) {
    let bytes = columns * size_of::<T::Column>();
    let (count, panel) = vectors(packed, bytes, columns, panel);
    for row_tile in 0..count {
        let rows: &[T::Column] = bytemuck::cast_slice(&packed[row_tile * bytes..][..bytes]);
        for (weights, to) in rows.iter().zip(panel[row_tile..].iter_mut().step_by(count)) {
            s.store(to, T::load(s, weights));
        }
    }
}
