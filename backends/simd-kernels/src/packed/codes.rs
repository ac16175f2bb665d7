//! How a group's 32 codes of each of sixteen rows are packed: words of 32 bits, a row in each lane.

use herald_layers::quant::iq4::LEVELS;

use super::GROUP;
use crate::simd::{LANES, Simd};

/// Int8 of one word of every row.
const WORD: usize = 4 * LANES;

/// The low half byte of each of a pair's int16.
const NIBBLES: i32 = 0x000f_000f;

/// A way of packing.
pub(crate) trait Codes: 'static {
    /// Int8 of a group.
    const BYTES: usize;

    /// Packs one row's codes into its lane.
    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]);

    /// As [`super::Format::code_pairs`].
    ///
    /// # Safety
    /// As there.
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4];
}

fn put(packed: &mut [u8], word: usize, lane: usize, bits: u32) {
    let at = word * WORD + 4 * lane;
    packed[at..at + 4].copy_from_slice(&bits.to_le_bytes());
}

/// Puts the words of one row's group in its lane, as they are.
pub(super) fn put_all(words: &[u8], lane: usize, packed: &mut [u8]) {
    for (bits, word) in words.chunks_exact(4).zip(packed.chunks_exact_mut(WORD)) {
        word[4 * lane..4 * lane + 4].copy_from_slice(bits);
    }
}

/// Four neighbouring codes as one word.
fn four(codes: &[u8; GROUP], first: usize) -> u32 {
    u32::from_le_bytes([codes[first], codes[first + 1], codes[first + 2], codes[first + 3]])
}

/// Of four neighbouring codes, each of `bits` bits: where pair 0's and pair 1's stand for `q`, within 16 bits a side.
fn spread(codes: &[u8; GROUP], first: usize, shift: usize, bits: usize) -> u32 {
    let at = |offset: usize| u32::from(codes[first + offset]);
    at(0) << shift | at(2) << (16 + shift) | at(1) << (shift + bits) | at(3) << (16 + shift + bits)
}

fn map(codes: &[u8; GROUP], each: impl Fn(u8) -> u8) -> [u8; GROUP] {
    codes.map(each)
}

/// Codes of 4 bits: word `w` has columns `4w` and on in the low halves of its bytes, `16 + 4w` and on in the high halves.
pub(crate) struct Bits4;

impl Codes for Bits4 {
    const BYTES: usize = 4 * WORD;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        for word in 0..4 {
            let low = four(codes, 4 * word) & 0x0f0f_0f0f;
            let high = four(codes, 16 + 4 * word) & 0x0f0f_0f0f;
            put(packed, word, lane, low | high << 4);
        }
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group, which has four words.
        unsafe {
            let word = L::load_i(codes.add(Q * WORD));
            let mask = L::splat_i(NIBBLES);
            [
                L::and(word, mask),
                L::and(L::shr(word, 8), mask),
                L::and(L::shr(word, 4), mask),
                L::and(L::shr(word, 12), mask),
            ]
        }
    }
}

/// One bit more for each code: bit `j` of the word is pair `j`'s first, bit `16 + j` its second.
struct HighBit;

impl HighBit {
    fn pack(bits: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let word = (0..8).fold(0, |word, quarter| word | spread(bits, 4 * quarter, 2 * quarter, 1));
        put(packed, 0, lane, word);
    }

    /// The bits of four pairs, each in place `to` of its code.
    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(word: *const u8, to: u32) -> [L::I; 4] {
        // SAFETY: the caller vouches for the word.
        unsafe {
            let word = L::load_i(word);
            let mask = L::splat_i(0x0001_0001);
            let pair = |j: usize| L::shl(L::and(L::shr(word, j as u32), mask), to);
            [pair(2 * Q), pair(2 * Q + 1), pair(8 + 2 * Q), pair(9 + 2 * Q)]
        }
    }
}

/// Codes of 2 bits: bits `2j` and on of word 0 are pair `j`'s first, bits `16 + 2j` and on its second; word 1 has pairs 8
/// and on.
pub(crate) struct Bits2;

impl Codes for Bits2 {
    const BYTES: usize = 2 * WORD;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let codes = map(codes, |code| code & 3);
        for word in 0..2 {
            let bits = (0..4)
                .fold(0, |bits, quarter| bits | spread(&codes, 16 * word + 4 * quarter, 4 * quarter, 2));
            put(packed, word, lane, bits);
        }
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group, which has two words.
        unsafe {
            let mask = L::splat_i(0x0003_0003);
            let (low, high) = (L::load_i(codes), L::load_i(codes.add(WORD)));
            let pair = |word: L::I, shift: usize| L::and(L::shr(word, shift as u32), mask);
            [pair(low, 4 * Q), pair(low, 4 * Q + 2), pair(high, 4 * Q), pair(high, 4 * Q + 2)]
        }
    }
}

#[inline(always)]
unsafe fn or<L: Simd>(a: [L::I; 4], b: [L::I; 4]) -> [L::I; 4] {
    // SAFETY: the caller vouches for the instruction set.
    unsafe { [L::or(a[0], b[0]), L::or(a[1], b[1]), L::or(a[2], b[2]), L::or(a[3], b[3])] }
}

/// Codes of 3 bits: the low two as [`Bits2`], the third as [`HighBit`].
pub(crate) struct Bits3;

impl Codes for Bits3 {
    const BYTES: usize = Bits2::BYTES + WORD;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(Bits2::BYTES);
        Bits2::pack(codes, lane, low);
        HighBit::pack(&map(codes, |code| code >> 2), lane, high);
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group.
        unsafe {
            or::<L>(Bits2::code_pairs::<L, Q>(codes), HighBit::code_pairs::<L, Q>(codes.add(Bits2::BYTES), 2))
        }
    }
}

/// Codes of 5 bits: the low four as [`Bits4`], the fifth as [`HighBit`].
pub(crate) struct Bits5;

impl Codes for Bits5 {
    const BYTES: usize = Bits4::BYTES + WORD;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(Bits4::BYTES);
        Bits4::pack(codes, lane, low);
        HighBit::pack(&map(codes, |code| code >> 4), lane, high);
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group.
        unsafe {
            or::<L>(Bits4::code_pairs::<L, Q>(codes), HighBit::code_pairs::<L, Q>(codes.add(Bits4::BYTES), 4))
        }
    }
}

/// Codes of 6 bits: the low four as [`Bits4`], the others as [`Bits2`].
pub(crate) struct Bits6;

impl Codes for Bits6 {
    const BYTES: usize = Bits4::BYTES + Bits2::BYTES;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(Bits4::BYTES);
        Bits4::pack(codes, lane, low);
        Bits2::pack(&map(codes, |code| code >> 4), lane, high);
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group.
        unsafe {
            let high = Bits2::code_pairs::<L, Q>(codes.add(Bits4::BYTES));
            let high = [L::shl(high[0], 4), L::shl(high[1], 4), L::shl(high[2], 4), L::shl(high[3], 4)];
            or::<L>(Bits4::code_pairs::<L, Q>(codes), high)
        }
    }
}

/// Signed bytes: word `w` has columns `4w` and on.
pub(crate) struct Int8;

impl Codes for Int8 {
    const BYTES: usize = 8 * WORD;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        for word in 0..8 {
            put(packed, word, lane, four(codes, 4 * word));
        }
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group, which has eight words.
        unsafe {
            let (low, high) = (L::load_i(codes.add(Q * WORD)), L::load_i(codes.add((4 + Q) * WORD)));
            [L::even_bytes(low), L::odd_bytes(low), L::even_bytes(high), L::odd_bytes(high)]
        }
    }
}

/// The 4-bit index of each level.
const INDICES: [u8; 256] = {
    let mut indices = [0; 256];
    let mut index = 0;
    while index < LEVELS.len() {
        indices[LEVELS[index] as u8 as usize] = index as u8;
        index += 1;
    }
    indices
};

/// Iq4Indices of the IQ4 formats, as their indices, in the order of [`Bits4`].
pub(crate) struct Iq4Indices;

impl Codes for Iq4Indices {
    const BYTES: usize = Bits4::BYTES;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        Bits4::pack(&map(codes, |level| INDICES[level as usize]), lane, packed);
    }

    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(codes: *const u8) -> [L::I; 4] {
        // SAFETY: the caller vouches for the group, which has four words.
        unsafe {
            let word = L::load_i(codes.add(Q * WORD));
            let mask = L::splat_i(0x0f0f_0f0f);
            let low = L::look_up(&LEVELS, L::and(word, mask));
            let high = L::look_up(&LEVELS, L::and(L::shr(word, 4), mask));
            [L::even_bytes(low), L::odd_bytes(low), L::even_bytes(high), L::odd_bytes(high)]
        }
    }
}
