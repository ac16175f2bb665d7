//! Pages of 4-bit codes ([`herald_api::abi::HERALD_PAGE_Q4`]): made from pages of 16-bit integers, and read back.
//!
//! As in KIVI (arXiv 2402.02750), keys share a step along tokens, channel by channel, since some channels of keys are always
//! large; values share one along channels, token by token. Keys are quantised as stored, after RoPE.

use herald_api::{I16Rows, Q4_GROUP, Q4Rows};

use herald_formats::f16_value;

fn f16_bits(x: f32) -> u16 {
    half::f16::from_f32(x).to_bits()
}

/// The greatest code.
const MAX_CODE: f32 = 15.0;

/// Shapes of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) n_kv_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    pub(super) capacity: usize,
}

/// A group's step and offset, which cover all of `x`.
fn pair_of(x: impl Iterator<Item = f32> + Clone) -> [u16; 2] {
    let (min, max) = x.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), x| {
        // NaN wins, so that it shows downstream.
        let min = if x < min || x.is_nan() { x } else { min };
        (min, if x > max || x.is_nan() { x } else { max })
    });
    if min > max {
        return [0, 0];
    }
    let offset = f16_bits(min);
    // From the offset as it will be read back: rounding may have put it above the minimum.
    [f16_bits((max - f16_value(offset)) / MAX_CODE), offset]
}

/// The code of `x` under a step and an offset.
fn code(x: f32, [step, offset]: [f32; 2]) -> u8 {
    if step == 0.0 { 0 } else { ((x - offset) / step).round_ties_even().clamp(0.0, MAX_CODE) as u8 }
}

fn values_of([step, offset]: [u16; 2]) -> [f32; 2] {
    [f16_value(step), f16_value(offset)]
}

/// Puts a code into its half byte of a row of zeros of `dim` elements.
fn put(row: &mut [u8], dim: usize, index: usize, code: u8) {
    let half = dim.div_ceil(2);
    if index < half { row[index] |= code } else { row[index - half] |= code << 4 }
}

fn get(row: &[u8], dim: usize, index: usize) -> u8 {
    let half = dim.div_ceil(2);
    if index < half { row[index] & 15 } else { row[index - half] >> 4 }
}

/// Codes the keys of a page's first `n_tokens` slots into bytes of zeros.
pub(super) fn encode_keys(
    shape: Shape,
    n_tokens: usize,
    rows: I16Rows<'_>,
    pairs: &mut [[u16; 2]],
    codes: &mut [u8],
) {
    let Shape { key_dim, capacity, .. } = shape;
    let (groups, width) = (capacity.div_ceil(Q4_GROUP), key_dim.div_ceil(2));
    for head in 0..shape.n_kv_heads {
        for group in 0..groups {
            let slots = group * Q4_GROUP..((group + 1) * Q4_GROUP).min(n_tokens);
            for channel in 0..key_dim {
                let element = |slot: usize| {
                    let row = head * capacity + slot;
                    rows.scales[row] * f32::from(rows.codes[row * key_dim + channel])
                };
                let pair = pair_of(slots.clone().map(element));
                pairs[(head * groups + group) * key_dim + channel] = pair;
                let pair = values_of(pair);
                for slot in slots.clone() {
                    let row = (head * capacity + slot) * width;
                    put(&mut codes[row..row + width], key_dim, channel, code(element(slot), pair));
                }
            }
        }
    }
}

/// Codes the values of a page's first `n_tokens` slots into bytes of zeros.
pub(super) fn encode_values(
    shape: Shape,
    n_tokens: usize,
    rows: I16Rows<'_>,
    pairs: &mut [[u16; 2]],
    codes: &mut [u8],
) {
    let Shape { value_dim, capacity, .. } = shape;
    let (groups, width) = (value_dim.div_ceil(Q4_GROUP), value_dim.div_ceil(2));
    for row in (0..shape.n_kv_heads * capacity).filter(|row| row % capacity < n_tokens) {
        let elements = &rows.codes[row * value_dim..(row + 1) * value_dim];
        let to = &mut codes[row * width..(row + 1) * width];
        for (group, elements) in elements.chunks(Q4_GROUP).enumerate() {
            let element = |code: &i16| rows.scales[row] * f32::from(*code);
            let pair = pair_of(elements.iter().map(element));
            pairs[row * groups + group] = pair;
            let pair = values_of(pair);
            for (channel, element) in elements.iter().map(element).enumerate() {
                put(to, value_dim, group * Q4_GROUP + channel, code(element, pair));
            }
        }
    }
}

/// The key of a head in a slot, element by element.
pub(super) fn key(shape: Shape, rows: Q4Rows<'_>, head: usize, slot: usize) -> impl Iterator<Item = f32> {
    let Shape { key_dim, capacity, .. } = shape;
    let width = key_dim.div_ceil(2);
    let pairs = (head * capacity.div_ceil(Q4_GROUP) + slot / Q4_GROUP) * key_dim;
    let row = (head * capacity + slot) * width;
    (0..key_dim).map(move |channel| {
        let [step, offset] = values_of(rows.pairs[pairs + channel]);
        offset + step * f32::from(get(&rows.codes[row..row + width], key_dim, channel))
    })
}

/// The value of a head in a slot, element by element.
pub(super) fn value(shape: Shape, rows: Q4Rows<'_>, head: usize, slot: usize) -> impl Iterator<Item = f32> {
    let Shape { value_dim, capacity, .. } = shape;
    let (groups, width) = (value_dim.div_ceil(Q4_GROUP), value_dim.div_ceil(2));
    let row = head * capacity + slot;
    (0..value_dim).map(move |channel| {
        let [step, offset] = values_of(rows.pairs[row * groups + channel / Q4_GROUP]);
        offset + step * f32::from(get(&rows.codes[row * width..(row + 1) * width], value_dim, channel))
    })
}
