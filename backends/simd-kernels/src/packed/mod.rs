//! Quantised weights in the order that the kernels read: sixteen rows side by side, one in each lane.
//!
//! A row tile is sixteen rows. Its columns go in groups of 32, and a file's block of 32 or 256 columns is packed as
//!
//! ```text
//! float16 scales [16] (and a second number each [16], where the format has one)     the block's own, one for each row
//! for each of the block's groups:  the codes, and the group's small integer scales  as `codes` and `scales` say
//! ```
//!
//! It takes about as many bytes as the file's form. Codes go in pairs, which are multiplied and added as two int16 in one
//! lane: pair `2i` of a group is columns `4i` and `4i + 2`, pair `2i + 1` is columns `4i + 1` and `4i + 3`. That order
//! makes unpacking a shift and a mask of the bytes as files have them, and activations are prepared in it once.

mod codes;
mod scales;

use std::marker::PhantomData;

use bytemuck::Zeroable;
use herald_layers::quant::iq4::{Iq4Nl, Iq4Xs};
use herald_layers::quant::k_quants::{Q2K, Q3K, Q4K, Q5K, Q6K};
use herald_layers::quant::legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use herald_layers::quant::{Affine, Block, Symmetric, floats::F16};

use crate::simd::{LANES, Simd};
use codes::{Bits2, Bits3, Bits4, Bits5, Bits6, Codes, Int8, Iq4Indices};
pub(crate) use scales::Scales;
use scales::{
    BlockScale, BlockScaleAndMin, ScaledHalves, ScaledHalvesAndMins, ScaledMins, ScaledSigned, Scaling,
};

/// Columns of a group.
pub(crate) const GROUP: usize = 32;

/// Pairs of a group's columns.
pub(crate) const PAIRS: usize = GROUP / 2;

/// The most groups that a block has.
const MOST_GROUPS: usize = 8;

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
    /// What is taken from codes as they are packed.
    const OFFSET: i32;
    /// Whether the halves of a group have scales of their own.
    const HALVES: bool = Self::Scaling::HALVES;
    /// Whether there are minima.
    const MINS: bool = Self::Scaling::MINS;
    /// Int8 of a group of sixteen rows.
    const GROUP_BYTES: usize = Self::Codes::BYTES + Self::Scaling::GROUP_BYTES;
    /// Int8 of a block of sixteen rows.
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
            let (packed_codes, packed_scales) = packed.split_at_mut(Self::Codes::BYTES);
            Self::Codes::pack(&codes, lane, packed_codes);
            Self::Scaling::pack_group(&source, group, lane, packed_scales);
        }
    }

    /// A group of a packed block.
    ///
    /// # Safety
    /// `block` points to a packed block.
    #[inline(always)]
    unsafe fn group_at(block: *const u8, group: usize) -> *const u8 {
        // SAFETY: the caller vouches for the block.
        unsafe { block.add(Self::Scaling::HEADER_BYTES + group * Self::GROUP_BYTES) }
    }

    /// The codes of four pairs of a group: pairs `2 Q`, `2 Q + 1`, `8 + 2 Q` and `9 + 2 Q`, as they are packed. `Q` is part of
    /// the type since bits are shifted by it: by a number that the compiler doesn't know, that takes several times as long.
    ///
    /// # Safety
    /// As for [`Simd`]; `group` points to a packed group, and `Q < 4`.
    #[inline(always)]
    unsafe fn code_pairs<L: Simd, const Q: usize>(group: *const u8) -> [L::I; 4] {
        // SAFETY: the group's codes come first in it.
        unsafe { Self::Codes::code_pairs::<L, Q>(group) }
    }

    /// A group's scales.
    ///
    /// # Safety
    /// As for [`Simd`]; `block` points to a packed block, and `group` to a group of it.
    #[inline(always)]
    unsafe fn scales<L: Simd>(block: *const u8, group: *const u8) -> Scales<L> {
        // SAFETY: the header comes first in the block, and the group's scales after its codes.
        unsafe { Self::Scaling::load::<L>(block, group.add(Self::Codes::BYTES)) }
    }
}

/// A block's numbers, apart.
pub(crate) struct Parts {
    /// The codes, as the format's formula has them.
    codes: [i8; MOST_GROUPS * GROUP],
    /// The scales in units of the block's first number, by runs of [`Parts::run`] codes.
    scales: [f32; 16],
    /// The offsets in units of its second.
    offsets: [f32; 16],
    /// Codes to a scale.
    run: usize,
}

impl Parts {
    /// The integer scales and offsets of a group: its two halves', which are the same where a group has one.
    fn of_group(&self, group: usize) -> [[f32; 2]; 2] {
        let at = |half: usize| (group * GROUP + half * GROUP / 2) / self.run;
        [[self.scales[at(0)], self.scales[at(1)]], [self.offsets[at(0)], self.offsets[at(1)]]]
    }
}

/// A file's block whose numbers can be had apart.
pub(crate) trait Source: Block {
    /// Its float16 numbers, as bits.
    fn numbers(&self) -> [[u8; 2]; 2];

    /// The others.
    fn parts(&self) -> Parts;

    /// Its only group's codes, where they are in the order that they are packed in.
    fn words(&self) -> Option<&[u8]> {
        None
    }
}

/// What blocks unpack to, without regard to the kind.
trait Flat {
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

/// Float16's 1: in place of a block's own numbers it leaves the integers that they scale.
const ONE: F16 = F16([0x00, 0x3c]);

macro_rules! sources {
    ($($block:ident { $first:ident $(, $second:ident)? } $([$words:ident])?)*) => {$(
        impl Source for $block {
            fn numbers(&self) -> [[u8; 2]; 2] {
                let numbers = [self.$first.0, F16::zeroed().0];
                $(let numbers = [numbers[0], self.$second.0];)?
                numbers
            }

            fn parts(&self) -> Parts {
                let mut unit = *self;
                unit.$first = ONE;
                $(unit.$second = ONE;)?
                let (codes, floats) = ([0; MOST_GROUPS * GROUP], [0.0; 16]);
                let mut parts = Parts { codes, scales: floats, offsets: floats, run: GROUP };
                unit.unpack().flat(&mut parts);
                parts
            }

            $(fn $words(&self) -> Option<&[u8]> {
                Some(bytemuck::bytes_of(&self.codes))
            })?
        }
    )*};
}

sources! {
    Q4_0 { d } [words]
    Q4_1 { d, m } [words]
    Q5_0 { d }
    Q5_1 { d, m }
    Q8_0 { d } [words]
    Q2K { d, dmin }
    Q3K { d }
    Q4K { d, dmin }
    Q5K { d, dmin }
    Q6K { d }
    Iq4Nl { d } [words]
    Iq4Xs { d }
}

/// The packed form of a block.
pub(crate) struct Packed<B>(PhantomData<B>);

macro_rules! formats {
    ($($block:ident: $groups:literal groups, codes + $offset:literal as $codes:ident, $scaling:ident;)*) => {$(
        impl Format for Packed<$block> {
            type Source = $block;
            type Codes = $codes;
            type Scaling = $scaling;

            const GROUPS: usize = $groups;
            const OFFSET: i32 = $offset;
        }
    )*};
}

formats! {
    Q4_0: 1 groups, codes + 8 as Bits4, BlockScale;
    Q4_1: 1 groups, codes + 0 as Bits4, BlockScaleAndMin;
    Q5_0: 1 groups, codes + 16 as Bits5, BlockScale;
    Q5_1: 1 groups, codes + 0 as Bits5, BlockScaleAndMin;
    Q8_0: 1 groups, codes + 0 as Int8, BlockScale;
    Q2K: 8 groups, codes + 0 as Bits2, ScaledHalvesAndMins;
    Q3K: 8 groups, codes + 4 as Bits3, ScaledHalves;
    Q4K: 8 groups, codes + 0 as Bits4, ScaledMins;
    Q5K: 8 groups, codes + 0 as Bits5, ScaledMins;
    Q6K: 8 groups, codes + 32 as Bits6, ScaledHalves;
    Iq4Nl: 1 groups, codes + 0 as Iq4Indices, BlockScale;
    Iq4Xs: 8 groups, codes + 0 as Iq4Indices, ScaledSigned;
}

/// Int8 of a packed matrix.
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
