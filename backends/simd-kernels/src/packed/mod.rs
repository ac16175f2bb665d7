//! Packed weights: quantised rows in the order that the micro-kernels read, sixteen side by side, one in each lane.
//!
//! A row tile is sixteen rows. Its columns go in groups of 32, and a file's block of 32 or 256 columns is packed as
//!
//! ```text
//! header                        a float16 scale of each row, [16], and a second number of each, [16], in formats with minima
//! each of the block's groups    codes, then the group's small integer scales: see `codes` and `scales`
//! ```
//!
//! That takes about as many bytes as in the file, except for formats with codebooks: a gather for every four or eight weights
//! of each row would take longer than it takes to read their points' coordinates, so those are packed, in 3 or 4 bits. Codes are multiplied in pairs, as two int16 in one lane. A pair is every
//! other column of four, because unpacking is then a shift and a mask of the bytes as files have them; activations are
//! quantised into the same order once. For 4-bit codes, whose word `w` of a row has columns `4w` to `4w + 3` in the low
//! halves of its bytes and `16 + 4w` to `16 + 4w + 3` in the high halves:
//!
//! ```text
//! a row's word w                 byte 0            byte 1            byte 2            byte 3
//!
//! word & 0x000f000f              [ column 4w          ,  column 4w + 2      ]          pair 2w
//! word >> 8 & 0x000f000f         [ column 4w + 1      ,  column 4w + 3      ]          pair 2w + 1
//! word >> 4 & 0x000f000f         [ column 16 + 4w     ,  column 16 + 4w + 2 ]          pair 8 + 2w
//! word >> 12 & 0x000f000f        [ column 16 + 4w + 1 ,  column 16 + 4w + 3 ]          pair 9 + 2w
//!
//! a token's int16 codes          x[4w]   x[4w + 1]   x[4w + 2]   x[4w + 3]
//! with the middle two swapped    x[4w]   x[4w + 2] | x[4w + 1]   x[4w + 3]             pairs 2w and 2w + 1
//!
//! multiply-add of pair 2w, the token's broadcast to all lanes:
//! sum[row] += code[row][4w] * x[4w] + code[row][4w + 2] * x[4w + 2]
//! ```
//!
//! int8 activations are multiplied in quads, four neighbouring columns in one lane, so that their codes are a mask alone of
//! the same bytes: `word & 0x0f0f0f0f` has columns `4w` to `4w + 3`.

mod codes;
mod scales;

use std::marker::PhantomData;

use herald_formats::iq1::{Iq1M, Iq1S};
use herald_formats::iq2::{Iq2S, Iq2Xs, Iq2Xxs};
use herald_formats::iq3::{Iq3S, Iq3Xxs};
use herald_formats::iq4::{Iq4Nl, Iq4Xs};
use herald_formats::k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
use herald_formats::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use herald_formats::mxfp4::Mxfp4;
use herald_formats::nvfp4::Nvfp4;
use herald_formats::ternary::{Tq1_0, Tq2_0};
use herald_formats::{Affine, Block, Symmetric, codebooks, floats::F16};

use crate::matmul::Sums;
use crate::simd::{LANES, Simd, quads};
use codes::{Bits2, Bits3, Bits4, Bits5, Bits6, Codes, EightLevels, Int8, LevelTable, Levels};
pub(crate) use scales::Scales;
use scales::{BlockExponent, BlockScale, GroupScales, Scaling, SmallFloats};

/// Columns of a group.
pub(crate) const GROUP: usize = 32;

/// Pairs of a group's columns.
pub(crate) const PAIRS: usize = GROUP / 2;

/// The largest block's groups.
const MAX_GROUPS: usize = 8;

/// How a format is packed.
pub(crate) trait Format: 'static {
    /// The file's block.
    type Source: Source;
    /// How codes are packed.
    type Codes: Codes;
    /// How scales are packed.
    type Scaling: Scaling;

    /// Groups of a block.
    const GROUPS: usize;
    /// Added to codes as they are packed.
    const OFFSET: i32;
    /// How groups are summed.
    type Sums: Sums;
    /// Whether each half of a group has its own scale.
    const HALVES: bool = Self::Sums::HALVES;
    /// Whether there are minima.
    const MINS: bool = Self::Sums::MINS;
    /// Bytes of a group's codes, of sixteen rows.
    const CODE_BYTES: usize = size_of::<<Self::Codes as Codes>::Words>();
    /// Bytes of a group of sixteen rows.
    const GROUP_BYTES: usize = Self::CODE_BYTES + Self::Scaling::GROUP_BYTES;
    /// Bytes of a block of sixteen rows.
    const BLOCK_BYTES: usize = Self::Scaling::HEADER_BYTES + Self::GROUPS * Self::GROUP_BYTES;

    /// Packs one row's block into its lane.
    fn pack(block: &Self::Source, lane: usize, packed: &mut [u8]) {
        Self::Scaling::pack_header(block.numbers(), lane, packed);
        if let Some(words) = block.words() {
            let (_, packed) = packed.split_at_mut(Self::Scaling::HEADER_BYTES);
            return codes::put_all(words, lane, packed);
        }
        let source = block.parts();
        let groups = packed[Self::Scaling::HEADER_BYTES..].chunks_exact_mut(Self::GROUP_BYTES);
        for (group, packed) in groups.enumerate().take(Self::GROUPS) {
            let mut codes = [0; GROUP];
            for (to, from) in codes.iter_mut().zip(&source.codes[group * GROUP..]) {
                *to = (i32::from(*from) + Self::OFFSET) as u8;
            }
            let (packed_codes, packed_scales) = packed.split_at_mut(Self::CODE_BYTES);
            Self::Codes::pack(&codes, lane, packed_codes);
            Self::Scaling::pack_group(&source, group, lane, packed_scales);
        }
    }

    /// The header of a packed block, and its groups.
    #[inline(always)]
    fn split(block: &[u8]) -> (&[u8], &[u8]) {
        block.split_at(Self::Scaling::HEADER_BYTES)
    }

    /// The codes of four pairs of a packed group: pairs `2 Q`, `2 Q + 1`, `8 + 2 Q` and `9 + 2 Q`, with the offset, where
    /// `Q < 4`. `Q` is a constant since bits are shifted by it: shifting by a variable takes several times as long.
    #[inline(always)]
    fn code_pairs<S: Simd, const Q: usize>(s: S, group: &[u8]) -> [S::I; 4] {
        Self::Codes::code_pairs::<S, Q>(s, bytemuck::from_bytes(&group[..Self::CODE_BYTES]))
    }

    /// The codes of two quads of a packed group, with [`quad_offset`]: columns `4 Q` to `4 Q + 3`, and as many from column
    /// `16 + 4 Q` on, where `Q < 4`. Each lane is four bytes, without a sign unless quads are [`Simd::SIGNED`].
    #[inline(always)]
    fn code_quads<S: Simd, const Q: usize>(s: S, group: &[u8]) -> [S::I; 2] {
        Self::Codes::code_quads::<S, Q>(s, bytemuck::from_bytes(&group[..Self::CODE_BYTES]))
    }

    /// A packed group's scales, with its block's header.
    #[inline(always)]
    fn scales<S: Simd>(s: S, header: &[u8], group: &[u8]) -> Scales<S> {
        Self::Scaling::load(s, header, &group[Self::CODE_BYTES..])
    }
}

/// What the bytes of [`Format::code_quads`] are more than codes.
pub(crate) const fn quad_offset<S: Simd, F: Format>() -> i32 {
    F::OFFSET + if S::SIGNED { 0 } else { F::Codes::BIAS }
}

/// Quads of a format whose products are added up at a time: see [`quads::run`].
pub(crate) const fn quad_run<S: Simd, F: Format>() -> usize {
    if S::BYTES_FIT { 8 } else { quads::run(if S::SIGNED { F::Codes::MAX_SIGNED } else { F::Codes::MAX }) }
}

/// A file's block, unpacked to its codes and integer scales.
pub(crate) struct Parts {
    /// The codes, as the format's formula has them.
    codes: [i8; MAX_GROUPS * GROUP],
    /// The scales in units of the block's first number, by runs of [`Parts::run`] codes.
    scales: [f32; 16],
    /// The offsets in units of its second.
    offsets: [f32; 16],
    /// Codes to a scale.
    run: usize,
}

impl Parts {
    /// Those of a block whose own scales are 1.
    fn of(block: &impl Flat) -> Self {
        let (codes, floats) = ([0; MAX_GROUPS * GROUP], [0.0; 16]);
        let mut parts = Self { codes, scales: floats, offsets: floats, run: GROUP };
        block.flat(&mut parts);
        parts
    }

    /// The integer scales and offsets of a group: its two halves', which are the same where a group has one.
    fn of_group(&self, group: usize) -> [[f32; 2]; 2] {
        let at = |half: usize| (group * GROUP + half * GROUP / 2) / self.run;
        [[self.scales[at(0)], self.scales[at(1)]], [self.offsets[at(0)], self.offsets[at(1)]]]
    }
}

/// A file's block, which unpacks to its parts.
pub(crate) trait Source: Block<Unpacked: Flat> {
    /// The bits of its own scales.
    fn numbers(&self) -> [[u8; 2]; 2];

    /// Its other numbers.
    fn parts(&self) -> Parts {
        // Own scales of 1 leave the integers that they multiply.
        let mut unit = *self;
        unit.set_scales([1.0; 2]);
        Parts::of(&unit.unpack())
    }

    /// The codes of its only group, where the file has them in the order that they are packed in.
    fn words(&self) -> Option<&[u8]> {
        None
    }
}

/// What a block of either kind unpacks to.
pub(crate) trait Flat {
    /// Writes codes, scales and offsets.
    fn flat(&self, parts: &mut Parts);
}

impl<const SIZE: usize, const GROUPS: usize> Flat for Symmetric<SIZE, GROUPS> {
    fn flat(&self, parts: &mut Parts) {
        parts.codes[..SIZE * GROUPS].copy_from_slice(self.codes.as_flattened());
        parts.scales[..GROUPS].copy_from_slice(&self.scales);
        parts.run = SIZE;
    }
}

impl<const SIZE: usize, const GROUPS: usize> Flat for Affine<SIZE, GROUPS> {
    fn flat(&self, parts: &mut Parts) {
        parts.codes[..SIZE * GROUPS].copy_from_slice(self.codes.as_flattened());
        parts.scales[..GROUPS].copy_from_slice(&self.scales);
        parts.offsets[..GROUPS].copy_from_slice(&self.offsets);
        parts.run = SIZE;
    }
}

/// The packed form of a block.
pub(crate) struct Packed<B>(PhantomData<B>);

/// One row for each format: the block's own scales, whether its codes are packed as they lie in the file, and how.
macro_rules! formats {
    ($($block:ident { $first:ident $(($($call:tt)*))? $(, $second:ident)? } $([$words:ident])?:
        $groups:literal groups, codes + $offset:literal as $codes:ty, $scaling:ty;)*) => {$(
        impl Source for $block {
            fn numbers(&self) -> [[u8; 2]; 2] {
                let numbers = [self.$first$(($($call)*))?.bits(), [0; 2]];
                $(let numbers = [numbers[0], self.$second.bits()];)?
                numbers
            }

            $(fn $words(&self) -> Option<&[u8]> {
                Some(bytemuck::bytes_of(&self.codes))
            })?
        }

        impl Format for Packed<$block> {
            type Source = $block;
            type Codes = $codes;
            type Scaling = $scaling;
            type Sums = <$scaling as Scaling>::Sums;

            const GROUPS: usize = $groups;
            const OFFSET: i32 = $offset;
        }
    )*};
}

formats! {
    Q4_0 { d } [words]: 1 groups, codes + 8 as Bits4, BlockScale<false>;
    Q4_1 { d, m } [words]: 1 groups, codes + 0 as Bits4, BlockScale<true>;
    Q5_0 { d }: 1 groups, codes + 16 as Bits5, BlockScale<false>;
    Q5_1 { d, m }: 1 groups, codes + 0 as Bits5, BlockScale<true>;
    Q8_0 { d } [words]: 1 groups, codes + 0 as Int8, BlockScale<false>;
    Q2K { d, dmin }: 8 groups, codes + 0 as Bits2, GroupScales<true, true>;
    Q3K { d }: 8 groups, codes + 4 as Bits3, GroupScales<true, false>;
    Q4K { d, dmin }: 8 groups, codes + 0 as Bits4, GroupScales<false, true>;
    Q5K { d, dmin }: 8 groups, codes + 0 as Bits5, GroupScales<false, true>;
    Q6K { d }: 8 groups, codes + 32 as Bits6, GroupScales<true, false>;
    Iq4Nl { d } [words]: 1 groups, codes + 0 as Levels<Iq4Nl>, BlockScale<false>;
    Iq4Xs { d }: 8 groups, codes + 0 as Levels<Iq4Nl>, GroupScales<false, false>;
    Mxfp4 { e } [words]: 1 groups, codes + 0 as Levels<Mxfp4>, BlockExponent;
    Iq1S { d }: 8 groups, codes + 0 as EightLevels<Iq1S>, GroupScales<false, false, 3>;
    Iq1M { d() }: 8 groups, codes + 0 as EightLevels<Iq1S>, GroupScales<true, false, 3>;
    Iq2Xxs { d }: 8 groups, codes + 0 as EightLevels<Iq2S>, GroupScales<false, false, 3>;
    Iq2Xs { d }: 8 groups, codes + 0 as EightLevels<Iq2S>, GroupScales<true, false, 3>;
    Iq2S { d }: 8 groups, codes + 0 as EightLevels<Iq2S>, GroupScales<true, false, 3>;
    Iq3Xxs { d }: 8 groups, codes + 0 as Levels<Iq3Xxs>, GroupScales<false, false, 2>;
    Iq3S { d }: 8 groups, codes + 0 as Levels<Iq3S>, GroupScales<false, false>;
    Tq1_0 { d }: 8 groups, codes + 1 as Bits2, BlockScale<false>;
    Tq2_0 { d }: 8 groups, codes + 1 as Bits2, BlockScale<false>;
}

impl LevelTable for Iq4Nl {
    const LEVELS: [i8; 16] = herald_formats::iq4::LEVELS;
}

impl LevelTable for Mxfp4 {
    const LEVELS: [i8; 16] = herald_formats::mxfp4::LEVELS;
}

impl LevelTable for Iq1S {
    const LEVELS: [i8; 16] = with_negatives(&[1, 7, 9]);
}

impl LevelTable for Iq2S {
    const LEVELS: [i8; 16] = with_negatives(&codebooks::THREE_LEVELS);
}

impl LevelTable for Iq3Xxs {
    const LEVELS: [i8; 16] = with_negatives(&codebooks::EIGHT_LEVELS);
}

impl LevelTable for Iq3S {
    const LEVELS: [i8; 16] = with_negatives(&codebooks::ODD_LEVELS);
}

/// A table of these levels, each with its negative after it.
const fn with_negatives(levels: &[i8]) -> [i8; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < levels.len() {
        table[2 * i] = levels[i];
        table[2 * i + 1] = -levels[i];
        i += 1;
    }
    table
}

impl Source for Nvfp4 {
    /// A block has no scale but its groups'.
    fn numbers(&self) -> [[u8; 2]; 2] {
        [[0; 2]; 2]
    }

    /// Scales are the bits of the groups' floats, as [`SmallFloats`] takes them: those of zero for what is no number.
    fn parts(&self) -> Parts {
        let mut parts = Parts::of(&self.unpack());
        for (scale, bits) in parts.scales.iter_mut().zip(self.scales) {
            *scale = f32::from(if bits == 0x7f { 0 } else { bits & 0x7f });
        }
        parts
    }
}

impl Format for Packed<Nvfp4> {
    type Source = Nvfp4;
    type Codes = Levels<Mxfp4>;
    type Scaling = SmallFloats;
    type Sums = <SmallFloats as Scaling>::Sums;

    const GROUPS: usize = 2;
    const OFFSET: i32 = 0;
}

/// A block's own scale, as files have it.
trait Number {
    /// Its bits.
    fn bits(self) -> [u8; 2];
}

impl Number for F16 {
    fn bits(self) -> [u8; 2] {
        self.0
    }
}

impl Number for u8 {
    fn bits(self) -> [u8; 2] {
        [self, 0]
    }
}

/// Bytes of a packed matrix.
pub(crate) fn packed_bytes<F: Format>(rows: usize, columns: usize) -> usize {
    rows.div_ceil(LANES) * (columns / (F::GROUPS * GROUP)) * F::BLOCK_BYTES
}

/// Packs rows `run` (a row tile, or its first rows) of a matrix as it lies in the file.
pub(crate) fn pack<F: Format>(rows: &[u8], columns: usize, run: std::ops::Range<usize>, packed: &mut [u8]) {
    let n_blocks = columns / (F::GROUPS * GROUP);
    let row_bytes = n_blocks * size_of::<F::Source>();
    for (lane, row) in run.enumerate() {
        let blocks: &[F::Source] = bytemuck::cast_slice(&rows[row * row_bytes..(row + 1) * row_bytes]);
        for (block, packed) in blocks.iter().zip(packed.chunks_exact_mut(F::BLOCK_BYTES)) {
            F::pack(block, lane, packed);
        }
    }
}
