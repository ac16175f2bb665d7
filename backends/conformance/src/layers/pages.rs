//! Pages of keys and values as checks lend them.

use herald_api::abi::{AbiStruct, HERALD_PAGE_I16, HERALD_PAGE_Q4, HeraldPage};
use herald_api::{Attention, Q4_GROUP, q4_page_bytes};

use crate::guard::{Guarded, Place};
use crate::{Fault, Outcome};

/// The alignment that the ABI promises for pages, states and scratch memory.
pub(super) const ALIGN: usize = 64;

/// What a new page is filled with: its scales are then about -3e-13, and no slot looks as if it had been written.
const UNWRITTEN: u8 = 0xa9;

/// A page: in [`HERALD_PAGE_I16`] one that tokens are written to.
pub(super) struct Page {
    pub(super) start: usize,
    pub(super) capacity: usize,
    format: u32,
    keys: Guarded,
    values: Guarded,
    /// Heads, and elements of a key's and of a value's.
    heads: usize,
    dims: [usize; 2],
}

impl Page {
    /// An empty page for tokens from `start` on.
    pub(super) fn new(
        params: &Attention,
        start: usize,
        capacity: usize,
        place: Place,
    ) -> Result<Self, Outcome> {
        let (heads, dims) = (params.n_kv_heads, [params.key_dim, params.value_dim]);
        let bytes = |dim: usize| heads * capacity * (4 + 2 * dim);
        let keys = Guarded::new("a page's keys", bytes(dims[0]), ALIGN, place, UNWRITTEN)?;
        let values = Guarded::new("a page's values", bytes(dims[1]), ALIGN, place, UNWRITTEN)?;
        Ok(Self { start, capacity, format: HERALD_PAGE_I16, keys, values, heads, dims })
    }

    /// The page for C, in a sequence that has `end` tokens after the call.
    pub(super) fn raw(&self, end: usize) -> HeraldPage {
        HeraldPage {
            start: self.start as u64,
            n_tokens: (end - self.start).min(self.capacity) as u32,
            capacity: self.capacity as u32,
            format: self.format,
            keys: self.keys.pointer().cast(),
            values: self.values.pointer().cast(),
            key_bytes: self.keys.len() as u64,
            value_bytes: self.values.len() as u64,
            ..AbiStruct::empty()
        }
    }

    /// It holds only earlier tokens from now on: writing to it ends the process.
    pub(super) fn read_only(&self) {
        self.keys.read_only();
        self.values.read_only();
    }

    /// Its keys and its values as numbers, each `[heads * capacity, dim]`.
    pub(super) fn numbers(&self) -> [Vec<f32>; 2] {
        [(&self.keys, self.dims[0]), (&self.values, self.dims[1])].map(|(kept, dim)| {
            let (scales, codes) = kept.bytes().split_at(4 * self.heads * self.capacity);
            let scale = |row: usize| {
                let bytes = &scales[4 * row..4 * row + 4];
                f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            };
            let code = |bytes: &[u8]| f32::from(i16::from_ne_bytes([bytes[0], bytes[1]]));
            codes.chunks_exact(2).enumerate().map(|(at, bytes)| scale(at / dim) * code(bytes)).collect()
        })
    }

    /// Replaces its contents: keys and values `[heads * capacity, dim]`, each row rounded to multiples of its largest
    /// element over 32767.
    pub(super) fn fill(&mut self, numbers: &[Vec<f32>; 2]) {
        let rows = self.heads * self.capacity;
        for ((kept, dim), numbers) in
            [(&mut self.keys, self.dims[0]), (&mut self.values, self.dims[1])].into_iter().zip(numbers)
        {
            let (scales, codes) = kept.bytes_mut().split_at_mut(4 * rows);
            for (row, numbers) in numbers.chunks_exact(dim).enumerate() {
                let largest = numbers.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
                let scale = largest / 32767.0;
                scales[4 * row..4 * row + 4].copy_from_slice(&scale.to_ne_bytes());
                for (code, number) in codes[2 * row * dim..].chunks_exact_mut(2).zip(numbers) {
                    let rounded = if scale > 0.0 { (number / scale).round() as i16 } else { 0 };
                    code.copy_from_slice(&rounded.to_ne_bytes());
                }
            }
        }
    }

    /// The same tokens as [`HERALD_PAGE_Q4`].
    pub(super) fn to_q4(&self, place: Place) -> Result<Self, Outcome> {
        let (heads, capacity, dims) = (self.heads, self.capacity, self.dims);
        let bytes = q4_page_bytes(heads, dims[0], dims[1], capacity);
        let bytes = bytes.ok_or_else(|| Outcome::Skipped("a page is too large".to_owned()))?;
        let numbers = self.numbers();
        let mut keys = Guarded::new("a 4-bit page's keys", bytes.0, ALIGN, place, 0)?;
        let mut values = Guarded::new("a 4-bit page's values", bytes.1, ALIGN, place, 0)?;
        // A pair of step and offset for each channel over 64 tokens, and for each token over 64 channels.
        let key = |row: usize, at: usize| {
            (row / capacity * capacity.div_ceil(Q4_GROUP) + row % capacity / Q4_GROUP) * dims[0] + at
        };
        let value = |row: usize, at: usize| row * dims[1].div_ceil(Q4_GROUP) + at / Q4_GROUP;
        quantise(keys.bytes_mut(), &numbers[0], dims[0], heads * capacity.div_ceil(Q4_GROUP) * dims[0], &key);
        quantise(
            values.bytes_mut(),
            &numbers[1],
            dims[1],
            heads * capacity * dims[1].div_ceil(Q4_GROUP),
            &value,
        );
        keys.read_only();
        values.read_only();
        Ok(Self { start: self.start, capacity, format: HERALD_PAGE_Q4, keys, values, heads, dims })
    }

    /// What is in it, to be compared with what is in it after a call.
    pub(super) fn snapshot(&self) -> [Vec<u8>; 2] {
        [self.keys.bytes().to_vec(), self.values.bytes().to_vec()]
    }

    /// Fails where anything but the slots of these tokens (positions in the sequence) has changed since the snapshot, or
    /// where one of them hasn't.
    pub(super) fn check_written(
        &self,
        before: &[Vec<u8>; 2],
        tokens: std::ops::Range<usize>,
    ) -> Result<(), Outcome> {
        self.keys.check_beside()?;
        self.values.check_beside()?;
        for (index, what) in ["keys", "values"].into_iter().enumerate() {
            let (now, dim) = ([&self.keys, &self.values][index].bytes(), self.dims[index]);
            let before = &before[index];
            for row in 0..self.heads * self.capacity {
                let (head, token) = (row / self.capacity, self.start + row % self.capacity);
                let codes = 4 * self.heads * self.capacity + 2 * row * dim;
                let changed = |range: std::ops::Range<usize>| now[range.clone()] != before[range];
                let (scale, codes) = (changed(4 * row..4 * row + 4), changed(codes..codes + 2 * dim));
                if tokens.contains(&token) {
                    if !scale && !codes {
                        let sentence = format!(
                            "it left the {what} of token {token}, head {head}, unwritten in its page"
                        );
                        return Err(Outcome::Failed(Fault::NotWritten, sentence));
                    }
                } else if scale || codes {
                    let when = if token < tokens.start { "an earlier" } else { "a later" };
                    let sentence = format!(
                        "it changed the {what} of {when} token's slot ({token}, head {head}), where only those of this \
                         batch's tokens {}..{} are its own",
                        tokens.start, tokens.end
                    );
                    return Err(Outcome::Failed(Fault::WritesOutside, sentence));
                }
            }
        }
        Ok(())
    }
}

/// Fills `bytes` with `n_pairs` pairs of float16 (step, offset) and codes of 4 bits; `pair_of` is the pair of a row's element.
fn quantise(
    bytes: &mut [u8],
    numbers: &[f32],
    dim: usize,
    n_pairs: usize,
    pair_of: &dyn Fn(usize, usize) -> usize,
) {
    let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; n_pairs];
    for (at, number) in numbers.iter().enumerate() {
        let [least, most] = &mut ranges[pair_of(at / dim, at % dim)];
        (*least, *most) = (least.min(*number), most.max(*number));
    }
    let (pairs, codes) = bytes.split_at_mut(4 * n_pairs);
    let mut kept = Vec::with_capacity(n_pairs);
    for (pair, [least, most]) in pairs.chunks_exact_mut(4).zip(ranges) {
        let (step, offset) = (half::f16::from_f32((most - least) / 15.0), half::f16::from_f32(least));
        pair[..2].copy_from_slice(&step.to_bits().to_ne_bytes());
        pair[2..].copy_from_slice(&offset.to_bits().to_ne_bytes());
        kept.push((step.to_f32(), offset.to_f32()));
    }
    let half = dim.div_ceil(2);
    for (at, number) in numbers.iter().enumerate() {
        let (row, column) = (at / dim, at % dim);
        let (step, offset) = kept[pair_of(row, column)];
        let code = if step > 0.0 { ((number - offset) / step).round().clamp(0.0, 15.0) as u8 } else { 0 };
        let byte = &mut codes[row * half + column % half];
        *byte |= if column < half { code } else { code << 4 };
    }
}
