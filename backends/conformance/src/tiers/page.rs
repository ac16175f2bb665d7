//! Pages to put into tiers, and how near to them what comes back must be.

use herald_api::abi::{self, AbiStruct, HeraldPage};
use herald_api::{AlignedBytes, Page, Q4_GROUP, Q4Rows};

use super::made::Shape;
use crate::values::Values;

/// A page's contents: as attention writes it, or a state.
pub(super) struct Contents {
    pub(super) format: u32,
    pub(super) n_tokens: usize,
    pub(super) capacity: usize,
    pub(super) keys: AlignedBytes,
    pub(super) values: AlignedBytes,
}

fn zeroed(len: usize) -> AlignedBytes {
    AlignedBytes::zeroed(len).unwrap_or_else(|error| panic!("the checks' own pages: {error}"))
}

/// The bytes of a slice, aligned.
pub(super) fn aligned(bytes: &[u8]) -> AlignedBytes {
    let mut made = zeroed(bytes.len());
    made.copy_from_slice(bytes);
    made
}

impl Contents {
    /// A page that a tier of this shape takes, of numbers that look random and differ by `seed`. Slots beyond `n_tokens` hold
    /// numbers too.
    pub(super) fn random(shape: &Shape, n_tokens: usize, seed: u64) -> Self {
        let mut random = Values::new(seed.wrapping_mul(0x0123_4567_89ab_cdef));
        let (key_bytes, value_bytes) = shape.page_bytes();
        let (mut keys, mut values) = (zeroed(key_bytes), zeroed(value_bytes));
        if shape.state_bytes > 0 {
            keys.iter_mut().for_each(|byte| *byte = random.bits() as u8);
            return Self { format: abi::HERALD_PAGE_OPAQUE, n_tokens: 1, capacity: 1, keys, values };
        }
        for (bytes, dim) in [(&mut keys, shape.key_dim), (&mut values, shape.value_dim)] {
            let (scales, codes) = bytes.split_at_mut(4 * shape.slots());
            for (row, scale) in codes.chunks_exact_mut(2 * dim).zip(scales.chunks_exact_mut(4)) {
                let size = (0.1 + random.between(-1.0, 1.0).abs()) * 3.0;
                scale.copy_from_slice(&(size / 32767.0).to_ne_bytes());
                // Some channels are larger than others, as those of keys are.
                for (channel, code) in row.chunks_exact_mut(2).enumerate() {
                    let large = if channel % 16 == 5 { 1.0 } else { 0.4 };
                    code.copy_from_slice(
                        &((random.between(-1.0, 1.0) * large * 32766.0) as i16).to_ne_bytes(),
                    );
                }
            }
        }
        Self { format: abi::HERALD_PAGE_I16, n_tokens, capacity: shape.page_tokens, keys, values }
    }

    /// As C sees it.
    pub(super) fn raw(&self) -> HeraldPage {
        HeraldPage {
            n_tokens: self.n_tokens as u32,
            capacity: self.capacity as u32,
            format: self.format,
            keys: self.keys.as_ptr().cast(),
            key_bytes: self.keys.len() as u64,
            values: self.values.as_ptr().cast(),
            value_bytes: self.values.len() as u64,
            ..AbiStruct::empty()
        }
    }

    /// The elements of keys `[n_kv_heads, page_tokens, key_dim]` and of values, those beyond `n_tokens` as 0; `None` for a
    /// state, and for a page that isn't of this shape.
    pub(super) fn elements(&self, shape: &Shape) -> Option<[Vec<f32>; 2]> {
        let parts = [(&self.keys, shape.key_dim, true), (&self.values, shape.value_dim, false)];
        let page = Page::new(self.format, self.n_tokens, self.capacity, &self.keys, &self.values)?;
        let of_shape = match self.format {
            abi::HERALD_PAGE_I16 => shape.page_bytes(),
            abi::HERALD_PAGE_Q4 => shape.config(None).q4_page_bytes()?,
            _ => return None,
        };
        if of_shape != (self.keys.len(), self.values.len()) || self.capacity != shape.page_tokens {
            return None;
        }
        let heads = shape.n_kv_heads;
        let quantised = page.quantised(heads, shape.key_dim, shape.value_dim);
        Some(parts.map(|(_, dim, is_key)| {
            let rows = if is_key { page.keys(heads) } else { page.values(heads) };
            let mut elements = vec![0.0; shape.slots() * dim];
            for (row, to) in elements.chunks_exact_mut(dim).enumerate() {
                if row % self.capacity >= self.n_tokens {
                    continue;
                }
                for (channel, to) in to.iter_mut().enumerate() {
                    *to = if self.format == abi::HERALD_PAGE_I16 {
                        rows.scales[row] * f32::from(rows.codes[row * dim + channel])
                    } else {
                        let rows = &quantised[usize::from(!is_key)];
                        q4_element(rows, shape, dim, is_key, row, channel)
                    };
                }
            }
            elements
        }))
    }
}

/// An element of a page of 4-bit codes, as the header lays it out.
fn q4_element(rows: &Q4Rows<'_>, shape: &Shape, dim: usize, is_key: bool, row: usize, channel: usize) -> f32 {
    let (head, slot) = (row / shape.page_tokens, row % shape.page_tokens);
    let pair = if is_key {
        (head * shape.page_tokens.div_ceil(Q4_GROUP) + slot / Q4_GROUP) * dim + channel
    } else {
        row * dim.div_ceil(Q4_GROUP) + channel / Q4_GROUP
    };
    let half = dim.div_ceil(2);
    let code = if channel < half {
        rows.codes[row * half + channel] & 15
    } else {
        rows.codes[row * half + channel - half] >> 4
    };
    let [step, offset] = rows.pairs[pair].map(half_to_float);
    offset + step * f32::from(code)
}

/// The number that a float16's bits stand for.
fn half_to_float(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2.0_f32.powi(exponent - 15),
    }
}

/// How far elements are from what they were.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Distance {
    /// The root of the mean square, over that of the elements.
    pub(super) relative: f64,
    /// The greatest, over the greatest element.
    pub(super) greatest: f64,
}

impl Distance {
    pub(super) fn between(expected: &[f32], found: &[f32]) -> Self {
        let mut sums = [0.0_f64; 2];
        let mut greatest = [0.0_f64; 2];
        for (expected, found) in expected.iter().zip(found) {
            let off = (f64::from(*expected) - f64::from(*found)).abs();
            // NaN counts as endlessly far.
            let off = if off.is_nan() { f64::INFINITY } else { off };
            sums[0] += off * off;
            sums[1] += f64::from(*expected).powi(2);
            greatest[0] = greatest[0].max(off);
            greatest[1] = greatest[1].max(f64::from(*expected).abs());
        }
        if sums[0] == 0.0 {
            return Self::default();
        }
        Self { relative: (sums[0] / sums[1]).sqrt(), greatest: greatest[0] / greatest[1] }
    }

    pub(super) fn max(self, other: Self) -> Self {
        Self { relative: self.relative.max(other.relative), greatest: self.greatest.max(other.greatest) }
    }
}
