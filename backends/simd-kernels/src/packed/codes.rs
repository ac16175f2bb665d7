//! How a group's 32 codes of each of sixteen rows are packed: words of 32 bits, each lane a row.

use bytemuck::Pod;
use std::marker::PhantomData;

use super::GROUP;
use crate::simd::{LANES, Simd};

/// One word of every row.
pub(crate) type Word = [u8; 4 * LANES];

/// The low half byte of each int16 of a pair.
const LOW_HALVES: i32 = 0x000f_000f;

/// The low half of each byte.
const LOW_HALVES_OF_BYTES: i32 = 0x0f0f_0f0f;

/// A way of packing codes.
pub(crate) trait Codes: 'static {
    /// A packed group: an array of [`Word`].
    type Words: Pod;

    /// Packs one row's codes into its lane of a group's bytes.
    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]);

    /// Added to codes as they are packed, to have their [`Codes::code_quads`] where those have no sign.
    const BIAS: i32 = 0;
    /// The greatest byte of [`Codes::code_quads`] where those have no sign.
    const MAX: i32;
    /// The greatest magnitude of a byte of [`Codes::code_quads`] where those have a sign.
    const MAX_SIGNED: i32 = Self::MAX;

    /// See [`super::Format::code_pairs`].
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &Self::Words) -> [S::I; 4];

    /// See [`super::Format::code_quads`].
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &Self::Words) -> [S::I; 2];
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

#[inline(always)]
fn or_quads<S: Simd>(s: S, a: [S::I; 2], b: [S::I; 2]) -> [S::I; 2] {
    [s.or(a[0], b[0]), s.or(a[1], b[1])]
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

/// The half bytes of a word as two quads.
#[inline(always)]
fn half_byte_quads<S: Simd>(s: S, word: &Word) -> [S::I; 2] {
    let word = s.load_i(word);
    let mask = s.splat_i(LOW_HALVES_OF_BYTES);
    [s.and(word, mask), s.and(s.shr(word, 4), mask)]
}

/// Codes of 4 bits: word `w` has columns `4w` and on in the low halves of its bytes, `16 + 4w` and on in the high halves.
pub(crate) struct Bits4;

impl Codes for Bits4 {
    type Words = [Word; 4];

    const MAX: i32 = 15;

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

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &[Word; 4]) -> [S::I; 2] {
        half_byte_quads(s, &words[Q])
    }
}

/// Packs one more bit for each code: bit `j` of byte `b` is that of column `4j + b`.
fn pack_bits(bits: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
    let word = (0..8).fold(0, |word, quad| word | four(bits, 4 * quad) << quad);
    put(packed, 0, lane, word);
}

/// The bits of four pairs, each moved to bit `to` of its code.
#[inline(always)]
fn high_bits<S: Simd, const Q: usize>(s: S, word: &Word, to: u32) -> [S::I; 4] {
    let word = s.load_i(word);
    let mask = s.splat_i(0x0001_0001);
    let pair = |from: usize| s.shl(s.and(s.shr(word, from as u32), mask), to);
    [pair(Q), pair(8 + Q), pair(4 + Q), pair(12 + Q)]
}

/// The bits of two quads, each moved to bit `to` of its code.
#[inline(always)]
fn high_bit_quads<S: Simd, const Q: usize>(s: S, word: &Word, to: u32) -> [S::I; 2] {
    let word = s.load_i(word);
    let mask = s.splat_i(0x0101_0101);
    let quad = |from: usize| s.shl(s.and(s.shr(word, from as u32), mask), to);
    [quad(Q), quad(4 + Q)]
}

/// Packs codes of 2 bits: bits `2j` and on of byte `b` of word `w` are those of column `16w + 4j + b`.
fn pack_two_bits(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
    for word in 0..2 {
        let bits = (0..4).fold(0, |bits, quad| bits | four(codes, 16 * word + 4 * quad) << (2 * quad));
        put(packed, word, lane, bits);
    }
}

/// The 2-bit codes of four pairs.
#[inline(always)]
fn two_bits<S: Simd, const Q: usize>(s: S, low: &Word, high: &Word) -> [S::I; 4] {
    let mask = s.splat_i(0x0003_0003);
    let (low, high) = (s.load_i(low), s.load_i(high));
    let pair = |word: S::I, shift: usize| s.and(s.shr(word, shift as u32), mask);
    [pair(low, 2 * Q), pair(low, 8 + 2 * Q), pair(high, 2 * Q), pair(high, 8 + 2 * Q)]
}

/// The 2-bit codes of two quads.
#[inline(always)]
fn two_bit_quads<S: Simd, const Q: usize>(s: S, words: [&Word; 2]) -> [S::I; 2] {
    words.map(|word| s.and(s.shr(s.load_i(word), 2 * Q as u32), s.splat_i(0x0303_0303)))
}

/// Codes of 2 bits.
pub(crate) struct Bits2;

impl Codes for Bits2 {
    type Words = [Word; 2];

    const MAX: i32 = 3;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        pack_two_bits(&codes.map(|code| code & 3), lane, packed);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, [low, high]: &[Word; 2]) -> [S::I; 4] {
        two_bits::<S, Q>(s, low, high)
    }

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, [low, high]: &[Word; 2]) -> [S::I; 2] {
        two_bit_quads::<S, Q>(s, [low, high])
    }
}

/// Codes of 3 bits: the low two, then the third.
pub(crate) struct Bits3;

impl Codes for Bits3 {
    type Words = [Word; 3];

    const MAX: i32 = 7;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(2 * size_of::<Word>());
        Bits2::pack(codes, lane, low);
        pack_bits(&codes.map(|code| code >> 2), lane, high);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, [low, high, third]: &[Word; 3]) -> [S::I; 4] {
        or(s, two_bits::<S, Q>(s, low, high), high_bits::<S, Q>(s, third, 2))
    }

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, [low, high, third]: &[Word; 3]) -> [S::I; 2] {
        or_quads(s, two_bit_quads::<S, Q>(s, [low, high]), high_bit_quads::<S, Q>(s, third, 2))
    }
}

/// Codes of 5 bits: the low four as [`Bits4`], then the fifth.
pub(crate) struct Bits5;

impl Codes for Bits5 {
    type Words = [Word; 5];

    const MAX: i32 = 31;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        let (low, high) = packed.split_at_mut(4 * size_of::<Word>());
        Bits4::pack(codes, lane, low);
        pack_bits(&codes.map(|code| code >> 4), lane, high);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 5]) -> [S::I; 4] {
        or(s, half_bytes(s, &words[Q]), high_bits::<S, Q>(s, &words[4], 4))
    }

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &[Word; 5]) -> [S::I; 2] {
        or_quads(s, half_byte_quads(s, &words[Q]), high_bit_quads::<S, Q>(s, &words[4], 4))
    }
}

/// Codes of 6 bits: the low four as [`Bits4`], then the other two as [`Bits2`].
pub(crate) struct Bits6;

impl Codes for Bits6 {
    type Words = [Word; 6];

    const MAX: i32 = 63;

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

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &[Word; 6]) -> [S::I; 2] {
        let high = two_bit_quads::<S, Q>(s, [&words[4], &words[5]]).map(|bits| s.shl(bits, 4));
        or_quads(s, half_byte_quads(s, &words[Q]), high)
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

    const BIAS: i32 = 128;
    const MAX: i32 = 255;
    const MAX_SIGNED: i32 = 128;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        for word in 0..8 {
            put(packed, word, lane, four(codes, 4 * word));
        }
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 8]) -> [S::I; 4] {
        bytes(s, s.load_i(&words[Q]), s.load_i(&words[4 + Q]))
    }

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &[Word; 8]) -> [S::I; 2] {
        let words = [&words[Q], &words[4 + Q]].map(|word| s.load_i(word));
        if S::SIGNED {
            return words;
        }
        // Adding 128 turns the top bit over.
        words.map(|word| s.xor(word, s.splat_i(0x8080_8080_u32 as i32)))
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

    /// The least level, with its sign turned: added to all, it leaves none below zero.
    const BIAS: i32 = {
        let (mut least, mut index) = (0, 0);
        while index < Self::LEVELS.len() {
            least = if Self::LEVELS[index] < least { Self::LEVELS[index] } else { least };
            index += 1;
        }
        -(least as i32)
    };

    /// The levels with [`LevelTable::BIAS`], as bytes' bits.
    const BIASED: [i8; 16] = {
        let (mut biased, mut index) = ([0; 16], 0);
        while index < Self::LEVELS.len() {
            biased[index] = (Self::LEVELS[index] as i32 + Self::BIAS) as u8 as i8;
            index += 1;
        }
        biased
    };

    /// The greatest of the levels with [`LevelTable::BIAS`].
    const MAX: i32 = {
        let (mut greatest, mut index) = (0, 0);
        while index < Self::BIASED.len() {
            let level = Self::BIASED[index] as u8 as i32;
            greatest = if level > greatest { level } else { greatest };
            index += 1;
        }
        greatest
    };

    /// The greatest magnitude of a level.
    const MAX_SIGNED: i32 = {
        let greatest = Self::MAX - Self::BIAS;
        if greatest > Self::BIAS { greatest } else { Self::BIAS }
    };

    /// The levels as quads have them, which are [`Simd::SIGNED`] or not.
    #[inline(always)]
    fn quad_levels<S: Simd>() -> &'static [i8; 16] {
        if S::SIGNED { &Self::LEVELS } else { &Self::BIASED }
    }
}

/// Levels of a table, packed as their indices in the order of [`Bits4`].
pub(crate) struct Levels<T>(PhantomData<T>);

impl<T: LevelTable> Codes for Levels<T> {
    type Words = [Word; 4];

    const BIAS: i32 = T::BIAS;
    const MAX: i32 = T::MAX;
    const MAX_SIGNED: i32 = T::MAX_SIGNED;

    fn pack(codes: &[u8; GROUP], lane: usize, packed: &mut [u8]) {
        Bits4::pack(&codes.map(|level| T::INDICES[level as usize]), lane, packed);
    }

    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, words: &[Word; 4]) -> [S::I; 4] {
        let [low, high] = half_byte_quads(s, &words[Q]).map(|codes| s.look_up(&T::LEVELS, codes));
        bytes(s, low, high)
    }

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &[Word; 4]) -> [S::I; 2] {
        half_byte_quads(s, &words[Q]).map(|codes| s.look_up(T::quad_levels::<S>(), codes))
    }
}

/// Levels of a table of which only the first eight are used, packed as their 3-bit indices: byte `b` of word 0 has, from bit
/// `2w` on, the low two bits of column `4w + b`, that of word 1 those of column `16 + 4w + b`, and byte `b` of word 2 the
/// third bits of the first at bit `w` and of the second at bit `4 + w`. So one lookup is for four columns.
pub(crate) struct EightLevels<T>(PhantomData<T>);

impl<T: LevelTable> Codes for EightLevels<T> {
    type Words = [Word; 3];

    const BIAS: i32 = T::BIAS;
    const MAX: i32 = T::MAX;
    const MAX_SIGNED: i32 = T::MAX_SIGNED;

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
        let [low, high] = Self::indices::<S, Q>(s, words).map(|indices| s.look_up(&T::LEVELS, indices));
        bytes(s, low, high)
    }

    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, words: &[Word; 3]) -> [S::I; 2] {
        Self::indices::<S, Q>(s, words).map(|indices| s.look_up(T::quad_levels::<S>(), indices))
    }
}

impl<T> EightLevels<T> {
    /// The indices of two quads.
    #[inline(always)]
    fn indices<S: Simd, const Q: usize>(s: S, words: &[Word; 3]) -> [S::I; 2] {
        let [first, second, third] = words.each_ref().map(|word| s.load_i(word));
        let index = |low: S::I, third: S::I| {
            let low = s.and(s.shr(low, 2 * Q as u32), s.splat_i(0x0303_0303));
            s.or(low, s.and(third, s.splat_i(0x0404_0404)))
        };
        let to_third = if Q <= 2 { s.shl(third, 2 - Q as u32) } else { s.shr(third, Q as u32 - 2) };
        [index(first, to_third), index(second, s.shr(third, 2 + Q as u32))]
    }
}
