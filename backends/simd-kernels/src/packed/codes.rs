//! How a group's 32 codes of each of sixteen rows are packed: words of 32 bits, each lane a row.

use bytemuck::Pod;
use std::marker::PhantomData;

use super::GROUP;
use crate::simd::{LANES, Simd};

/// One word of every row.
pub(crate) type Word = [u8; 4 * LANES];

/// The low half byte of each int16 of a pair.
const LOW_HALVES: i32 = 0x000f_000f;

/// A way of packing codes.
pub(crate) trait Codes: 'static {
    /// A packed group: an array of [`Word`].
    type Words: Pod;

    /// Packs one row's codes into its lane of a group's bytes.
    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]);

    /// See [`super::Format::code_pairs`].
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &Self::Words) -> [S::I; 4];
}

fn put(packed: &mut [u8], word: usize, lane: usize, bits: u32) {
    let at = word * size_of::<Word>() + 4 * lane;
    packed[at..at + 4].copy_from_slice(&bits.to_le_bytes());
}

/// Puts the words of one row's group in its lane as they are.
pub(super) fn put_all(words: &[u8], lane: usize, packed: &mut [u8]) {
    for (bits, word) in words.chunks_exact(4).zip(packed.chunks_exact_mut(size_of::<Word>())) {
        word[4 * lane..4 * lane + 4].copy_from_slice(bits);
    }
}

/// Four neighbouring codes as one word.
fn four(codes: &[u8; GROUP], first: usize) -> u32 {
    u32::from_le_bytes([codes[first], codes[first + 1], codes[first + 2], codes[first + 3]])
}

/// Four neighbouring codes of `bits` bits as two pairs, each int16 with its codes from bit `shift` on.
fn spread(codes: &[u8; GROUP], first: usize, shift: usize, bits: usize) -> u32 {
    let at = |offset: usize| u32::from(codes[first + offset]);
    at(0) << shift | at(2) << (16 + shift) | at(1) << (shift + bits) | at(3) << (16 + shift + bits)
}

#[inline(always)]
fn or<S: Simd>(s: S, a: [S::I; 4], b: [S::I; 4]) -> [S::I; 4] {
    [s.or(a[0], b[0]), s.or(a[1], b[1]), s.or(a[2], b[2]), s.or(a[3], b[3])]
}

/// The half bytes of a word as four pairs.
#[inline(always)]
fn half_bytes<S: Simd>(s: S, word: &Word) -> [S::I; 4] {
    let word = s.load_i(word);
    let mask = s.splat_i(LOW_HALVES);
    [
        s.and(word, mask),
        s.and(s.shr(word, 8), mask),
        s.and(s.shr(word, 4), mask),
        s.and(s.shr(word, 12), mask),
    ]
}

/// Codes of 4 bits: word `w` has columns `4w` and on in the low halves of its bytes, `16 + 4w` and on in the high halves.
pub(crate) struct Bits4;

impl Codes for Bits4 {
    type Words = [Word; 4];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        for word in 0..4 {
            let low = four(codes, 4 * word) & 0x0f0f_0f0f;
            let high = four(codes, 16 + 4 * word) & 0x0f0f_0f0f;
            put(packed, word, lane, low | high << 4);
        }
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 4]) -> [S::I; 4] {
        half_bytes(s, &words[Q])
    }
}

/// Packs one more bit for each code: bit `j` of the word is pair `j`'s first, bit `16 + j` its second.
fn pack_bits(bits: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
    let word = (0..8).fold(0, |word, quarter| word | spread(bits, 4 * quarter, 2 * quarter, 1));
    put(packed, 0, lane, word);
}

/// The bits of four pairs, each moved to bit `to` of its code.
#[inline(always)]
fn high_bits<S: Simd, const Q: usize>(s: S, word: &Word, to: u32) -> [S::I; 4] {
    let word = s.load_i(word);
    let mask = s.splat_i(0x0001_0001);
    let pair = |j: usize| s.shl(s.and(s.shr(word, j as u32), mask), to);
    [pair(2 * Q), pair(2 * Q + 1), pair(8 + 2 * Q), pair(9 + 2 * Q)]
}

/// Packs codes of 2 bits: bits `2j` and on of word 0 are pair `j`'s first, bits `16 + 2j` and on its second; word 1 has
/// pairs 8 and on.
fn pack_two_bits(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
    for word in 0..2 {
        let bits =
            (0..4).fold(0, |bits, quarter| bits | spread(codes, 16 * word + 4 * quarter, 4 * quarter, 2));
        put(packed, word, lane, bits);
    }
}

/// The 2-bit codes of four pairs.
#[inline(always)]
fn two_bits<S: Simd, const Q: usize>(s: S, low: &Word, high: &Word) -> [S::I; 4] {
    let mask = s.splat_i(0x0003_0003);
    let (low, high) = (s.load_i(low), s.load_i(high));
    let pair = |word: S::I, shift: usize| s.and(s.shr(word, shift as u32), mask);
    [pair(low, 4 * Q), pair(low, 4 * Q + 2), pair(high, 4 * Q), pair(high, 4 * Q + 2)]
}

/// Codes of 2 bits.
pub(crate) struct Bits2;

impl Codes for Bits2 {
    type Words = [Word; 2];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        pack_two_bits(&codes.map(|code| code & 3), lane, packed);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, [low, high]: &[Word; 2]) -> [S::I; 4] {
        two_bits::<S, Q>(s, low, high)
    }
}

/// Codes of 3 bits: the low two, then the third.
pub(crate) struct Bits3;

impl Codes for Bits3 {
    type Words = [Word; 3];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(2 * size_of::<Word>());
        Bits2::pack(codes, lane, low);
        pack_bits(&codes.map(|code| code >> 2), lane, high);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, [low, high, third]: &[Word; 3]) -> [S::I; 4] {
        or(s, two_bits::<S, Q>(s, low, high), high_bits::<S, Q>(s, third, 2))
    }
}

/// Codes of 5 bits: the low four as [`Bits4`], then the fifth.
pub(crate) struct Bits5;

impl Codes for Bits5 {
    type Words = [Word; 5];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(4 * size_of::<Word>());
        Bits4::pack(codes, lane, low);
        pack_bits(&codes.map(|code| code >> 4), lane, high);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 5]) -> [S::I; 4] {
        or(s, half_bytes(s, &words[Q]), high_bits::<S, Q>(s, &words[4], 4))
    }
}

/// Codes of 6 bits: the low four as [`Bits4`], then the other two as [`Bits2`].
pub(crate) struct Bits6;

impl Codes for Bits6 {
    type Words = [Word; 6];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(4 * size_of::<Word>());
        Bits4::pack(codes, lane, low);
        Bits2::pack(&codes.map(|code| code >> 4), lane, high);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 6]) -> [S::I; 4] {
        let high = two_bits::<S, Q>(s, &words[4], &words[5]);
        let high = [s.shl(high[0], 4), s.shl(high[1], 4), s.shl(high[2], 4), s.shl(high[3], 4)];
        or(s, half_bytes(s, &words[Q]), high)
    }
}

/// Sign-extended bytes of two words as four pairs.
#[inline(always)]
fn bytes<S: Simd>(s: S, low: S::I, high: S::I) -> [S::I; 4] {
    [s.even_bytes(low), s.odd_bytes(low), s.even_bytes(high), s.odd_bytes(high)]
}

/// Signed bytes: word `w` has columns `4w` and on.
pub(crate) struct Int8;

impl Codes for Int8 {
    type Words = [Word; 8];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        for word in 0..8 {
            put(packed, word, lane, four(codes, 4 * word));
        }
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 8]) -> [S::I; 4] {
        bytes(s, s.load_i(&words[Q]), s.load_i(&words[4 + Q]))
    }
}

/// What the codes of a format stand for, where that isn't evenly spaced.
pub(crate) trait LevelTable: 'static {
    /// The level of each 4-bit code.
    const LEVELS: [i8; 16];

    /// The code of each level.
    const INDICES: [u8; 256] = {
        let mut indices = [0; 256];
        let mut index = 0;
        while index < Self::LEVELS.len() {
            indices[Self::LEVELS[index] as u8 as usize] = index as u8;
            index += 1;
        }
        indices
    };
}

/// Levels of a table, packed as their indices in the order of [`Bits4`].
pub(crate) struct Levels<T>(PhantomData<T>);

impl<T: LevelTable> Codes for Levels<T> {
    type Words = [Word; 4];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        Bits4::pack(&codes.map(|level| T::INDICES[level as usize]), lane, packed);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 4]) -> [S::I; 4] {
        let word = s.load_i(&words[Q]);
        let mask = s.splat_i(0x0f0f_0f0f);
        let low = s.look_up(&T::LEVELS, s.and(word, mask));
        let high = s.look_up(&T::LEVELS, s.and(s.shr(word, 4), mask));
        bytes(s, low, high)
    }
}

/// Levels of a table of which only the first eight are used, packed as their 3-bit indices: byte `b` of word 0 has, from bit
/// `2w` on, the low two bits of column `4w + b`, that of word 1 those of column `16 + 4w + b`, and byte `b` of word 2 the
/// third bits of the first at bit `w` and of the second at bit `4 + w`. So one lookup is for four columns.
pub(crate) struct EightLevels<T>(PhantomData<T>);

impl<T: LevelTable> Codes for EightLevels<T> {
    type Words = [Word; 3];

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let mut words = [0; 3];
        for w in 0..4 {
            let of = |first: usize| four(&codes.map(|level| T::INDICES[level as usize]), first + 4 * w);
            for (half, indices) in [of(0), of(16)].into_iter().enumerate() {
                words[half] |= (indices & 0x0303_0303) << (2 * w);
                words[2] |= (indices >> 2 & 0x0101_0101) << (4 * half + w);
            }
        }
        for (word, bits) in words.into_iter().enumerate() {
            put(packed, word, lane, bits);
        }
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 3]) -> [S::I; 4] {
        let [first, second, third] = words.each_ref().map(|word| s.load_i(word));
        let look_up = |low: S::I, third: S::I| {
            let low = s.and(s.shr(low, 2 * Q as u32), s.splat_i(0x0303_0303));
            s.look_up(&T::LEVELS, s.or(low, s.and(third, s.splat_i(0x0404_0404))))
        };
        let to_third = if Q <= 2 { s.shl(third, 2 - Q as u32) } else { s.shr(third, Q as u32 - 2) };
        bytes(s, look_up(first, to_third), look_up(second, s.shr(third, 2 + Q as u32)))
    }
}
