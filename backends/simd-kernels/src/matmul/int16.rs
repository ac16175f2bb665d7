//! Matmuls of int16 activations, multiplied in pairs, or as two bytes each. The exact precision: see
//! [`crate::activations::int16`].

mod bytewise;

use std::marker::PhantomData;

use super::{DIRECT, PanelTask, Precision, Sums, Tile, load_scales, panel_len, store_scales};
use crate::activations::int16::{self, Group};
use crate::packed::{Format, PAIRS, Scales};
use crate::prefetch::Stream;
use crate::simd::{LANES, Simd, Task};

/// Activations of 16 bits.
pub(crate) struct Int16;

/// Vectors of a group's panel: pairs (or what there is in place of them), then scales (and minima) of both halves.
const fn panel_vectors<S: Simd, L: Sums>() -> usize {
    L::SCALE_VECTORS + if S::BYTEWISE { bytewise::code_vectors::<L>() } else { PAIRS }
}

impl Precision for Int16 {
    const OF_SIXTEEN: usize = 16;

    fn token_len<F: Format>(columns: usize) -> usize {
        int16::len(columns)
    }

    fn panel_vectors<S: Simd, F: Format>() -> usize {
        panel_vectors::<S, F::Sums>()
    }

    fn direct_tokens<S: Simd>() -> usize {
        if S::BYTEWISE { bytewise::DIRECT } else { DIRECT }
    }

    /// For few tokens, and also where one tile holds all of them and a group has one sum.
    fn is_direct<S: Simd, F: Format>(n_tokens: usize) -> bool {
        n_tokens <= Self::direct_tokens::<S>()
            || !S::BYTEWISE && n_tokens == Self::tile_of::<S, F>(n_tokens, n_tokens) && !F::HALVES
    }

    #[inline(always)]
    fn direct<S: Simd, F: Format, const N: usize>(
        s: S,
        tile: &mut Tile<'_, '_, '_>,
        rows: &[u8],
        stream: Stream,
    ) -> usize {
        let (x, factors) = int16::split::<N>(tile.x, tile.run.columns);
        let mut acc = [s.zero(); N];
        for (block, x) in rows.chunks_exact(F::BLOCK_BYTES).zip(x.chunks_exact(F::GROUPS)) {
            let (header, groups) = F::split(block);
            for index in 0..F::GROUPS {
                let (group, x) = (&groups[index * F::GROUP_BYTES..][..F::GROUP_BYTES], &x[index]);
                stream.read(group.as_ptr(), F::BLOCK_BYTES.div_ceil(F::GROUPS));
                let scales = F::scales(s, header, group);
                let sums = if S::BYTEWISE {
                    bytewise::group_sums::<S, F, N>(s, group, x)
                } else {
                    group_sums::<S, F, N>(s, group, x)
                };
                add_group::<S, F::Sums, N>(s, &mut acc, &sums, &scales, x);
            }
        }
        tile.store(s, &acc, factors);
        N
    }

    #[inline(always)]
    fn panel<S: Simd, F: Format, const N: usize>(s: S, tile: Tile<'_, '_, '_>, panels: &[f32]) -> usize {
        let panel = &panels[..panel_len::<S, F, Self>(tile.run.columns)];
        s.apart(PanelTask::<Self, F::Sums, N> { tile, panel, kinds: PhantomData });
        1
    }

    #[inline(always)]
    fn unpack<S: Simd, F: Format>(s: S, rows: &[u8], stream: Stream, panel: &mut [f32]) {
        let (panel, _) = panel.as_chunks_mut::<LANES>();
        let mut panel = panel.chunks_exact_mut(panel_vectors::<S, F::Sums>());
        let offset = s.splat_i(F::OFFSET << 16 | F::OFFSET);
        for block in rows.chunks_exact(F::BLOCK_BYTES) {
            let (header, groups) = F::split(block);
            for (group, to) in groups.chunks_exact(F::GROUP_BYTES).zip(&mut panel) {
                stream.read(group.as_ptr(), F::BLOCK_BYTES.div_ceil(F::GROUPS));
                if S::BYTEWISE {
                    bytewise::unpack::<S, F>(s, group, to);
                    store_scales::<S, F>(s, header, group, &mut to[bytewise::code_vectors::<F::Sums>()..]);
                    continue;
                }
                unpack_code_pairs::<S, F, 0>(s, group, offset, to);
                unpack_code_pairs::<S, F, 1>(s, group, offset, to);
                unpack_code_pairs::<S, F, 2>(s, group, offset, to);
                unpack_code_pairs::<S, F, 3>(s, group, offset, to);
                store_scales::<S, F>(s, header, group, &mut to[PAIRS..]);
            }
        }
    }
}

impl<S: Simd, L: Sums, const N: usize> Task<S> for PanelTask<'_, '_, '_, '_, Int16, L, N> {
    #[inline(always)]
    fn run(mut self, s: S) {
        let (x, factors) = int16::split::<N>(self.tile.x, self.tile.run.columns);
        let (panel, _) = self.panel.as_chunks::<LANES>();
        let mut acc = [s.zero(); N];
        for (group, x) in panel.chunks_exact(panel_vectors::<S, L>()).zip(x) {
            if S::BYTEWISE {
                let (codes, scales) = group.split_at(bytewise::code_vectors::<L>());
                let sums = bytewise::panel_sums::<S, L, N>(s, codes, x);
                add_group::<S, L, N>(s, &mut acc, &sums, &load_scales::<S, L>(s, scales), x);
                continue;
            }
            let mut sums = [[s.splat_i(0); N]; 2];
            let Some((pairs, scales)) = group.split_first_chunk::<PAIRS>() else { break };
            let second = usize::from(L::HALVES);
            add_pairs::<S, N, 0>(s, &mut sums[0], pairs, x);
            add_pairs::<S, N, { PAIRS / 2 }>(s, &mut sums[second], pairs, x);
            let scales = load_scales::<S, L>(s, scales);
            add_group::<S, L, N>(s, &mut acc, &sums, &scales, x);
        }
        self.tile.store(s, &acc, factors);
    }
}

/// Whether the halves of a group are summed separately: where the format has a scale for each, and for so few tokens that
/// one sum's additions would wait for each other.
const fn second_sums<F: Format, const N: usize>() -> bool {
    F::HALVES || N <= DIRECT
}

/// The sums of a packed group's products, of both halves where the format has a scale for each, or else the first.
#[inline(always)]
fn group_sums<S: Simd, F: Format, const N: usize>(s: S, group: &[u8], x: &Group<N>) -> [[S::I; N]; 2] {
    let mut sums = [[s.splat_i(0); N]; 2];
    add_code_pairs::<S, F, N, 0>(s, &mut sums, group, x);
    add_code_pairs::<S, F, N, 1>(s, &mut sums, group, x);
    add_code_pairs::<S, F, N, 2>(s, &mut sums, group, x);
    add_code_pairs::<S, F, N, 3>(s, &mut sums, group, x);
    if F::OFFSET != 0 {
        subtract_offsets::<S, F, N>(s, &mut sums, x, second_sums::<F, N>());
    }
    if !F::HALVES && second_sums::<F, N>() {
        let [all, second] = &mut sums;
        for (sum, second) in all.iter_mut().zip(second) {
            *sum = s.add_i(*sum, *second);
        }
    }
    sums
}

/// The pairs that [`Format::code_pairs`] gives for `q`.
const fn pairs_of(q: usize) -> [usize; 4] {
    [2 * q, 2 * q + 1, 8 + 2 * q, 9 + 2 * q]
}

/// Adds the products of half a group's unpacked pairs, from `FIRST` on, to their sums.
#[inline(always)]
fn add_pairs<S: Simd, const N: usize, const FIRST: usize>(
    s: S,
    sums: &mut [S::I; N],
    pairs: &[[f32; LANES]; PAIRS],
    x: &Group<N>,
) {
    for pair in FIRST..FIRST + PAIRS / 2 {
        s.dot_add(sums, s.load_bits(&pairs[pair]), &x[pair]);
    }
}

/// Adds the products of four pairs to the sums of the group's halves.
#[inline(always)]
fn add_code_pairs<S: Simd, F: Format, const N: usize, const Q: usize>(
    s: S,
    sums: &mut [[S::I; N]; 2],
    group: &[u8],
    x: &Group<N>,
) {
    let codes = F::code_pairs::<S, Q>(s, group);
    for (index, pair) in pairs_of(Q).into_iter().enumerate() {
        let half = if second_sums::<F, N>() { index / 2 } else { 0 };
        s.dot_add(&mut sums[half], codes[index], &x[pair]);
    }
}

/// Takes the format's offset out of the sums, which are of each half or of all: its products with the tokens' codes.
#[inline(always)]
fn subtract_offsets<S: Simd, F: Format, const N: usize>(
    s: S,
    sums: &mut [[S::I; N]; 2],
    x: &Group<N>,
    of_halves: bool,
) {
    let used = if of_halves { 2 } else { 1 };
    for (half, sums) in sums.iter_mut().enumerate().take(used) {
        // The sum of all the token's codes, or of each half's.
        let x_sums = &x[PAIRS + if used == 2 { 1 + half } else { 0 }];
        for (sum, x_sum) in sums.iter_mut().zip(x_sums) {
            *sum = s.add_i(*sum, s.splat_i(-F::OFFSET * *x_sum as i32));
        }
    }
}

/// Stores four pairs, less the format's offset.
#[inline(always)]
fn unpack_code_pairs<S: Simd, F: Format, const Q: usize>(
    s: S,
    group: &[u8],
    offset: S::I,
    to: &mut [[f32; LANES]],
) {
    for (codes, pair) in F::code_pairs::<S, Q>(s, group).into_iter().zip(pairs_of(Q)) {
        let codes = if F::OFFSET != 0 { s.sub_i16(codes, offset) } else { codes };
        s.store_bits(&mut to[pair], codes);
    }
}

/// Adds a group's integer sums, scaled, and its minima.
#[inline(always)]
fn add_group<S: Simd, L: Sums, const N: usize>(
    s: S,
    acc: &mut [S::F; N],
    sums: &[[S::I; N]; 2],
    scales: &Scales<S>,
    x: &Group<N>,
) {
    for (token, acc) in acc.iter_mut().enumerate() {
        for (half, sums) in sums.iter().enumerate().take(L::COUNT) {
            *acc = s.fma(s.to_float(sums[token]), scales.scale[half], *acc);
            if L::MINS {
                let x_sum = x[PAIRS + if L::HALVES { 1 + half } else { 0 }][token];
                *acc = s.fma(s.splat(x_sum), scales.min[half], *acc);
            }
        }
    }
}
