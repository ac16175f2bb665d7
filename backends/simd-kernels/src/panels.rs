//! Packed rows as float32, for products that another library does: a panel `[columns, rows]`, sixteen rows a row tile side
//! by side as they are packed.

use crate::floats::Float;
use crate::packed::{Format, GROUP, Scales};
use crate::simd::{LANES, Simd};

/// Unpacks rows: the packed bytes of whole granules, elements of a row, and room for `[columns, rows]` float32, where a
/// row tile counts as sixteen rows. Those that a last row tile has beyond the matrix's come out as zeros.
pub type Unpack = fn(packed: &[u8], columns: usize, panel: &mut [f32]);

/// Two to the sixteenth's inverse: brings an int16 in the upper half of an int32 back to its size.
const FROM_UPPER_HALF: f32 = 1.0 / 65536.0;

/// The upper of each of a pair's int16.
const UPPER_HALF: i32 = 0xffff_0000_u32 as i32;

/// How many granules of so many bytes there are, for which there must be room.
fn granules(packed: &[u8], bytes: usize, columns: usize, panel: &[f32]) -> usize {
    let count = packed.len() / bytes.max(1);
    assert!(
        panel.len() >= count * LANES * columns,
        "room for a panel of {count} granules of {columns} columns"
    );
    count
}

/// Unpacks quantised rows.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn quantised<L: Simd, F: Format>(packed: &[u8], columns: usize, panel: &mut [f32]) {
    let blocks = columns / (F::GROUPS * GROUP);
    let bytes = blocks * F::BLOCK_BYTES;
    let count = granules(packed, bytes, columns, panel);
    let stride = count * LANES;
    // SAFETY: blocks and groups stay within their row tile, and columns within the panel, whose length is checked; the
    // caller vouches for the instruction set.
    unsafe {
        for row_tile in 0..count {
            let rows = packed.as_ptr().add(row_tile * bytes);
            let mut to = panel.as_mut_ptr().add(row_tile * LANES);
            for block in 0..blocks {
                let block_at = rows.add(block * F::BLOCK_BYTES);
                for group in 0..F::GROUPS {
                    let at = F::group_at(block_at, group);
                    let scales = F::scales::<L>(block_at, at);
                    code_pairs::<L, F, 0>(at, &scales, to, stride);
                    code_pairs::<L, F, 1>(at, &scales, to, stride);
                    code_pairs::<L, F, 2>(at, &scales, to, stride);
                    code_pairs::<L, F, 3>(at, &scales, to, stride);
                    to = to.add(GROUP * stride);
                }
            }
        }
    }
}

/// Unpacks four pairs of a group's columns, the first of which goes to `to`.
///
/// # Safety
/// As for [`Simd`]; `group` points to a packed group, and there is room for its 32 columns, `stride` elements apart.
#[inline(always)]
unsafe fn code_pairs<L: Simd, F: Format, const Q: usize>(
    group: *const u8,
    scales: &Scales<L>,
    to: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller vouches.
    unsafe {
        let offset = L::splat_i(F::OFFSET << 16 | F::OFFSET);
        let (upper, size) = (L::splat_i(UPPER_HALF), L::splat(FROM_UPPER_HALF));
        for (index, codes) in F::code_pairs::<L, Q>(group).into_iter().enumerate() {
            let codes = if F::OFFSET != 0 { L::sub_i16(codes, offset) } else { codes };
            let half = index / 2;
            let scale = L::mul(scales.scale[half], size);
            let min = if F::MINS { scales.min[half] } else { L::zero() };
            // The pair's columns, as `packed` orders them.
            let column = 16 * half + 4 * Q + index % 2;
            let (first, second) = (L::shl(codes, 16), L::and(codes, upper));
            L::store(to.add(column * stride), L::fma(L::to_float(first), scale, min));
            L::store(to.add((column + 2) * stride), L::fma(L::to_float(second), scale, min));
        }
    }
}

/// Unpacks rows of plain floats.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn floats<L: Simd, T: Float>(packed: &[u8], columns: usize, panel: &mut [f32]) {
    let bytes = columns * LANES * T::BYTES;
    let count = granules(packed, bytes, columns, panel);
    let stride = count * LANES;
    // SAFETY: columns stay within their row tile and the panel, whose length is checked; the caller vouches for the
    // instruction set.
    unsafe {
        for row_tile in 0..count {
            let rows = packed.as_ptr().add(row_tile * bytes);
            let to = panel.as_mut_ptr().add(row_tile * LANES);
            for column in 0..columns {
                L::store(to.add(column * stride), T::load::<L>(rows.add(column * LANES * T::BYTES)));
            }
        }
    }
}
