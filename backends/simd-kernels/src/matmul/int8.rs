//! Matmuls of int8 activations, multiplied in quads. The fast precision: see [`crate::activations::int8`].
//!
//! Where the instructions want one side's bytes without a sign, weights' codes are: what they are more than the format's own is
//! taken out again by where a token's sum begins. A token's outliers are multiplied apart, after its groups.
//!
//! Where there are tile registers, those sum the groups of sixteen tokens, and vectors do the rest, in the same order.

use std::array;
use std::marker::PhantomData;

use super::{DIRECT, PanelTask, Precision, Sums, Tile, load_scales, panel_len, store_scales};
use crate::activations::int8::{self, Outlier, QUADS};
use crate::packed::{Format, Scales, quad_run};
use crate::prefetch::Stream;
use crate::simd::{LANES, Simd, Task, Tiles};

/// Activations of 8 bits.
pub(crate) struct Int8;

/// Tokens up to which codes are unpacked as they are multiplied, on wide vectors: twice for two tiles of 8 takes less than to a panel.
const WIDE_DIRECT: usize = 16;

/// Vectors of a group's panel: quads, then scales (and minima) of both halves.
const fn panel_vectors<L: Sums>() -> usize {
    QUADS + L::SCALE_VECTORS
}

impl Precision for Int8 {
    const OF_SIXTEEN: usize = 8;

    fn token_len<F: Format>(columns: usize) -> usize {
        int8::len::<F::Sums>(columns)
    }

    fn panel_vectors<S: Simd, F: Format>() -> usize {
        panel_vectors::<F::Sums>()
    }

    fn direct_tokens<S: Simd>() -> usize {
        if S::WIDE { WIDE_DIRECT } else { DIRECT }
    }

    fn is_direct<S: Simd, F: Format>(n_tokens: usize) -> bool {
        n_tokens <= Self::direct_tokens::<S>()
    }

    /// For sixteen alone it takes as long to unpack a panel as tile registers save.
    fn in_tiles<S: Simd, F: Format>(n_tokens: usize) -> bool {
        const { assert!(WIDE_DIRECT <= int8::TILE, "more tokens have room for panels") }
        n_tokens > int8::TILE && int8::is_for_registers::<S, F::Sums>(int8::TILE)
    }

    #[inline(always)]
    fn direct<S: Simd, F: Format, const N: usize>(
        s: S,
        tile: &mut Tile<'_, '_, '_>,
        rows: &[u8],
        stream: Stream,
    ) -> usize {
        let x = int8::split::<F::Sums, N>(tile.x, tile.run.columns);
        let mut acc = [s.zero(); N];
        let blocks = rows.chunks_exact(F::BLOCK_BYTES);
        for (block, x) in blocks.zip(x.groups.chunks_exact(F::GROUPS * int8::group_len::<F::Sums>())) {
            let (header, groups) = F::split(block);
            let x = x.chunks_exact(int8::group_len::<F::Sums>());
            for (group, x) in groups.chunks_exact(F::GROUP_BYTES).zip(x) {
                stream.read(group.as_ptr(), F::BLOCK_BYTES.div_ceil(F::GROUPS));
                let Some((codes, numbers)) = x.split_first_chunk::<QUADS>() else { break };
                let mut sums = both_first_sums::<S, F::Sums, N>(s, numbers);
                add_code_quads::<S, F, N, 0>(s, &mut sums, group, codes);
                add_code_quads::<S, F, N, 1>(s, &mut sums, group, codes);
                add_code_quads::<S, F, N, 2>(s, &mut sums, group, codes);
                add_code_quads::<S, F, N, 3>(s, &mut sums, group, codes);
                add_group::<S, F::Sums, N>(s, &mut acc, &sums, &F::scales(s, header, group), numbers);
            }
        }
        for outlier in x.outliers {
            for (token, acc) in acc.iter_mut().enumerate() {
                let quad = Outlier::quad(outlier, token);
                let (group, within) = (quad / QUADS, quad % QUADS);
                let (header, groups) =
                    F::split(&rows[group / F::GROUPS * F::BLOCK_BYTES..][..F::BLOCK_BYTES]);
                let group = &groups[group % F::GROUPS * F::GROUP_BYTES..][..F::GROUP_BYTES];
                let halves = match within % (QUADS / 2) {
                    0 => F::code_quads::<S, 0>(s, group),
                    1 => F::code_quads::<S, 1>(s, group),
                    2 => F::code_quads::<S, 2>(s, group),
                    _ => F::code_quads::<S, 3>(s, group),
                };
                let half = within / (QUADS / 2);
                let scale = F::scales(s, header, group).scale[half];
                let run = const { quad_run::<S, F>() };
                *acc = add_outlier::<S, F::Sums, N>(s, *acc, halves[half], scale, outlier, token, run);
            }
        }
        tile.store(s, &acc, [x.powers]);
        N
    }

    #[inline(always)]
    fn panel<S: Simd, F: Format, const N: usize>(s: S, tile: Tile<'_, '_, '_>, panels: &[f32]) -> usize {
        let panel_len = panel_len::<S, F, Self>(tile.run.columns);
        if const { int8::is_for_registers::<S, F::Sums>(N) } {
            s.apart(PanelTask::<InTiles, F::Sums, N> { tile, panel: panels, kinds: PhantomData });
            return panels.len() / panel_len;
        }
        if S::TWICE && panels.len() > panel_len {
            let panel = &panels[..2 * panel_len];
            match N {
                12 => s.apart(PanelTask::<Twice<6, 2>, F::Sums, N> { tile, panel, kinds: PhantomData }),
                8 => s.apart(PanelTask::<Twice<4, 2>, F::Sums, N> { tile, panel, kinds: PhantomData }),
                _ => s.apart(PanelTask::<Twice<N, 1>, F::Sums, N> { tile, panel, kinds: PhantomData }),
            }
            return 2;
        }
        let panel = &panels[..panel_len];
        // Where bytes' products don't fit an int16, the products depend on how many of them do.
        match const { quad_run::<S, F>() } {
            8 => s.apart(PanelTask::<Run<8>, F::Sums, N> { tile, panel, kinds: PhantomData }),
            4 => s.apart(PanelTask::<Run<4>, F::Sums, N> { tile, panel, kinds: PhantomData }),
            2 | 3 => s.apart(PanelTask::<Run<2>, F::Sums, N> { tile, panel, kinds: PhantomData }),
            1 => s.apart(PanelTask::<Run<1>, F::Sums, N> { tile, panel, kinds: PhantomData }),
            _ => s.apart(PanelTask::<Run<0>, F::Sums, N> { tile, panel, kinds: PhantomData }),
        }
        1
    }

    #[inline(always)]
    fn unpack<S: Simd, F: Format>(s: S, rows: &[u8], stream: Stream, panel: &mut [f32]) {
        let (panel, _) = panel.as_chunks_mut::<LANES>();
        let mut panel = panel.chunks_exact_mut(panel_vectors::<F::Sums>());
        for block in rows.chunks_exact(F::BLOCK_BYTES) {
            let (header, groups) = F::split(block);
            for (group, to) in groups.chunks_exact(F::GROUP_BYTES).zip(&mut panel) {
                stream.read(group.as_ptr(), F::BLOCK_BYTES.div_ceil(F::GROUPS));
                store_code_quads::<S, F, 0>(s, group, to);
                store_code_quads::<S, F, 1>(s, group, to);
                store_code_quads::<S, F, 2>(s, group, to);
                store_code_quads::<S, F, 3>(s, group, to);
                to_blocks(s, to);
                store_scales::<S, F>(s, header, group, &mut to[QUADS..]);
            }
        }
    }
}

/// All row tiles, one after the other, by tile registers. They sum a group while vectors scale the sums of the one before it.
struct InTiles;

/// The bits of each token's sums with sixteen rows, a cache line for each.
#[repr(align(64))]
struct TileSums<const N: usize>([[f32; LANES]; N]);

impl<S: Simd, L: Sums, const N: usize> Task<S> for PanelTask<'_, '_, '_, '_, InTiles, L, N> {
    #[inline(always)]
    fn run(mut self, s: S) {
        let x = int8::split::<L, N>(self.tile.x, self.tile.run.columns);
        let of_x = x.groups.chunks_exact(int8::group_len::<L>());
        let (panels, _) = self.panel.as_chunks::<LANES>();
        // SAFETY: no others are opened until these are dropped.
        let tiles = unsafe { Tiles::<S, N, QUADS>::open(s) };
        let dot = |set: usize, sums: &mut TileSums<N>, (group, x): (&[[f32; LANES]], &[[f32; N]])| {
            let (Some(quads), Some(x)) = (group.first_chunk::<QUADS>(), x.first_chunk::<QUADS>()) else {
                unreachable!("groups begin with their quads");
            };
            tiles.dot(set, &mut sums.0, quads, x);
        };
        let mut ahead = panels.chunks_exact(panel_vectors::<L>()).zip(of_x.clone().cycle());
        let [mut now, mut next] = [const { TileSums([[0.0; LANES]; N]) }; 2];
        let (mut now, mut next, mut set) = (&mut now, &mut next, 0);
        if let Some(group) = ahead.next() {
            dot(set, now, group);
        }
        for panel in panels.chunks_exact(of_x.len() * panel_vectors::<L>()) {
            let mut acc = [s.zero(); N];
            for (group, x) in panel.chunks_exact(panel_vectors::<L>()).zip(of_x.clone()) {
                set ^= 1;
                if let Some(group) = ahead.next() {
                    dot(set, next, group);
                }
                let (numbers, scales) = (&x[QUADS..], load_scales::<S, L>(s, &group[QUADS..]));
                for (token, (acc, sum)) in acc.iter_mut().zip(&now.0).enumerate() {
                    let [first] = first_sums::<S, L, 1>(s, array::from_ref(&x[int8::SUMS][token]));
                    let sum = s.add_i(s.load_bits(sum), first);
                    add_token::<S, L, N>(s, acc, [sum, sum], &scales, numbers, token);
                }
                (now, next) = (next, now);
            }
            let mut accs = [acc];
            add_outliers::<S, L, N, N, 1, 8>(s, &mut accs, [panel], x.outliers, 0);
            self.tile.store(s, &accs[0], [x.powers]);
            self.tile.row_tile += 1;
        }
    }
}

/// Quads whose products fit an int16: see [`quad_run`].
struct Run<const RUN: usize>;

impl<S: Simd, L: Sums, const RUN: usize, const N: usize> Task<S>
    for PanelTask<'_, '_, '_, '_, Run<RUN>, L, N>
{
    #[inline(always)]
    fn run(mut self, s: S) {
        let x = int8::split::<L, N>(self.tile.x, self.tile.run.columns);
        let (panel, _) = self.panel.as_chunks::<LANES>();
        let mut acc = [s.zero(); N];
        let groups = panel.chunks_exact(panel_vectors::<L>());
        for (group, x) in groups.zip(x.groups.chunks_exact(int8::group_len::<L>())) {
            let (Some((codes, scales)), Some((x, numbers))) =
                (group.split_first_chunk::<QUADS>(), x.split_first_chunk::<QUADS>())
            else {
                break;
            };
            let mut sums = both_first_sums::<S, L, N>(s, numbers);
            if L::HALVES {
                let ([first, second], [x_first, x_second]) = (halves(codes), halves(x));
                s.dot_panel(&mut sums[0], first, x_first, RUN);
                s.dot_panel(&mut sums[1], second, x_second, RUN);
            } else {
                s.dot_panel(&mut sums[0], codes, x, RUN);
            }
            add_group::<S, L, N>(s, &mut acc, &sums, &load_scales::<S, L>(s, scales), numbers);
        }
        let mut accs = [acc];
        add_outliers::<S, L, N, N, 1, RUN>(s, &mut accs, [panel], x.outliers, 0);
        self.tile.store(s, &accs[0], [x.powers]);
    }
}

/// Two row tiles at once, `PART` tokens of the tile's `PARTS * PART` at a time: a token's bytes are read once for both.
struct Twice<const PART: usize, const PARTS: usize>;

/// Groups of a panel that stay in the first cache while all parts of a tile are multiplied with them.
const CHUNK: usize = 8;

impl<S: Simd, L: Sums, const PART: usize, const PARTS: usize, const N: usize> Task<S>
    for PanelTask<'_, '_, '_, '_, Twice<PART, PARTS>, L, N>
{
    #[inline(always)]
    fn run(mut self, s: S) {
        let x = int8::split::<L, N>(self.tile.x, self.tile.run.columns);
        let (panels, _) = self.panel.as_chunks::<LANES>();
        let (first, second) = panels.split_at(panels.len() / 2);
        let chunk = |panel| <[[f32; LANES]]>::chunks(panel, CHUNK * panel_vectors::<L>());
        let chunks = chunk(first).zip(chunk(second)).zip(x.groups.chunks(CHUNK * int8::group_len::<L>()));
        // Nothing before the first chunk: storing zeros for it to read would take as long as some groups do.
        let mut accs: [Option<[[S::F; PART]; 2]>; PARTS] = [None; PARTS];
        for ((of_first, of_second), of_x) in chunks {
            for (part, accs) in accs.iter_mut().enumerate() {
                let mut local = accs.unwrap_or([[s.zero(); PART]; 2]);
                add_chunk::<S, L, PART, N>(s, &mut local, [of_first, of_second], of_x, part);
                *accs = Some(local);
            }
        }
        let tokens = self.tile.first;
        for (part, accs) in accs.iter().enumerate() {
            // A copy, which stays in registers.
            let Some(mut accs) = *accs else { break };
            add_outliers::<S, L, PART, N, 2, 8>(s, &mut accs, [first, second], x.outliers, part * PART);
            self.tile.first = tokens + part * PART;
            for acc in &accs {
                self.tile.store(s, acc, [&x.powers.as_chunks().0[part]]);
                self.tile.row_tile += 1;
            }
            self.tile.row_tile -= 2;
        }
    }
}

/// Adds the products of `PART` tokens with some groups of two panels.
#[inline(always)]
fn add_chunk<S: Simd, L: Sums, const PART: usize, const N: usize>(
    s: S,
    accs: &mut [[S::F; PART]; 2],
    [first, second]: [&[[f32; LANES]]; 2],
    x: &[[f32; N]],
    part: usize,
) {
    let group = |panel| <[[f32; LANES]]>::chunks_exact(panel, panel_vectors::<L>());
    for ((first, second), x) in group(first).zip(group(second)).zip(x.chunks_exact(int8::group_len::<L>())) {
        let of = |index: usize| -> &[f32; PART] { &x[index].as_chunks().0[part] };
        let scales = [first, second].map(|group| load_scales::<S, L>(s, &group[QUADS..]));
        for half in 0..L::COUNT {
            let mut sums = [first_sums::<S, L, PART>(s, of(int8::SUMS + half)); 2];
            let quads = QUADS / L::COUNT;
            for quad in half * quads..(half + 1) * quads {
                s.dot_quad_twice(
                    &mut sums,
                    [s.load_bits(&first[quad]), s.load_bits(&second[quad])],
                    of(quad),
                );
            }
            for ((acc, sums), scales) in accs.iter_mut().zip(&sums).zip(&scales) {
                for (token, (acc, sum)) in acc.iter_mut().zip(sums).enumerate() {
                    let scaled = scaled(s, *sum, of(int8::SCALE)[token], of(int8::SHIFT)[token]);
                    *acc = s.fma(scaled, scales.scale[half], *acc);
                    if L::MINS {
                        *acc = s.fma(s.splat(of(int8::SUMS + half)[token]), scales.min[half], *acc);
                    }
                }
            }
        }
    }
}

/// Adds the products of the outliers of `PART` of a tile's `N` tokens, from `first` on, with some panels.
#[inline(always)]
fn add_outliers<
    S: Simd,
    L: Sums,
    const PART: usize,
    const N: usize,
    const PANELS: usize,
    const RUN: usize,
>(
    s: S,
    accs: &mut [[S::F; PART]; PANELS],
    panels: [&[[f32; LANES]]; PANELS],
    outliers: &[[[f32; N]; Outlier::LEN]],
    first: usize,
) {
    for outlier in outliers {
        for part_token in 0..PART {
            let token = first + part_token;
            let quad = Outlier::quad(outlier, token);
            let place = quad / QUADS * panel_vectors::<L>();
            let half = usize::from(L::HALVES && quad % QUADS >= QUADS / 2);
            for (acc, panel) in accs.iter_mut().zip(panels) {
                let group = &panel[place..place + panel_vectors::<L>()];
                let scale = load_scales::<S, L>(s, &group[QUADS..]).scale[half];
                let codes = if S::BLOCKS {
                    let first = quad % QUADS / 2 * 2;
                    s.quads_of([s.load_bits(&group[first]), s.load_bits(&group[first + 1])])[quad % 2]
                } else {
                    s.load_bits(&group[quad % QUADS])
                };
                let acc = &mut acc[part_token];
                *acc = add_outlier::<S, L, N>(s, *acc, codes, scale, outlier, token, RUN);
            }
        }
    }
}

/// Both halves of a group's quads.
#[inline(always)]
pub(super) fn halves<T>(quads: &[T; QUADS]) -> [&[T; QUADS / 2]; 2] {
    let (halves, _) = quads.as_chunks();
    [&halves[0], &halves[1]]
}

/// What the sums of a group or its half begin with, which takes the offset of weights' codes out. Formats with minima have no
/// offset, and the number there is their tokens' sum.
#[inline(always)]
fn first_sums<S: Simd, L: Sums, const N: usize>(s: S, numbers: &[f32; N]) -> [S::I; N] {
    let mut sums = [s.splat_i(int8::zero_bits::<S>()); N];
    if !L::MINS {
        for (sum, first) in sums.iter_mut().zip(numbers) {
            *sum = s.splat_i(first.to_bits() as i32);
        }
    }
    sums
}

/// [`first_sums`] of both halves of a group; the second are not used where it has one sum. `numbers` are those after its quads.
#[inline(always)]
fn both_first_sums<S: Simd, L: Sums, const N: usize>(s: S, numbers: &[[f32; N]]) -> [[S::I; N]; 2] {
    let of = |half: usize| &numbers[int8::SUMS - QUADS + if L::HALVES { half } else { 0 }];
    [first_sums::<S, L, N>(s, of(0)), first_sums::<S, L, N>(s, of(1))]
}

/// A group's sum, times a token's scale: the same to the bit either way.
#[inline(always)]
fn scaled<S: Simd>(s: S, sum: S::I, scale: f32, shift: f32) -> S::F {
    if S::FLOAT_SUMS {
        s.fma(s.of_bits(sum), s.splat(scale), s.splat(shift))
    } else {
        s.mul(s.to_float(sum), s.splat(scale))
    }
}

/// Adds the products of two quads to the sums of the group's halves.
#[inline(always)]
fn add_code_quads<S: Simd, F: Format, const N: usize, const Q: usize>(
    s: S,
    sums: &mut [[S::I; N]; 2],
    group: &[u8],
    x: &[[f32; N]; QUADS],
) {
    let [first, second] = F::code_quads::<S, Q>(s, group);
    let run = const { quad_run::<S, F>() };
    if F::HALVES {
        s.dot_quads(&mut sums[0], &[first], &[x[Q]], run);
        s.dot_quads(&mut sums[1], &[second], &[x[QUADS / 2 + Q]], run);
    } else {
        s.dot_quads(&mut sums[0], &[first, second], &[x[Q], x[QUADS / 2 + Q]], run);
    }
}

/// Stores two quads.
#[inline(always)]
pub(super) fn store_code_quads<S: Simd, F: Format, const Q: usize>(
    s: S,
    group: &[u8],
    to: &mut [[f32; LANES]],
) {
    let [first, second] = F::code_quads::<S, Q>(s, group);
    s.store_bits(&mut to[Q], first);
    s.store_bits(&mut to[QUADS / 2 + Q], second);
}

/// Makes blocks of a panel's group of quads, where those are multiplied.
#[inline(always)]
pub(super) fn to_blocks<S: Simd>(s: S, group: &mut [[f32; LANES]]) {
    if S::BLOCKS {
        for [first, second] in group[..QUADS].as_chunks_mut().0 {
            let blocks = s.blocks_of([s.load_bits(first), s.load_bits(second)]);
            s.store_bits(first, blocks[0]);
            s.store_bits(second, blocks[1]);
        }
    }
}

/// Adds a group's integer sums, scaled, and its minima. `numbers` are the tokens', after their quads.
#[inline(always)]
fn add_group<S: Simd, L: Sums, const N: usize>(
    s: S,
    acc: &mut [S::F; N],
    sums: &[[S::I; N]; 2],
    scales: &Scales<S>,
    numbers: &[[f32; N]],
) {
    for (token, acc) in acc.iter_mut().enumerate() {
        add_token::<S, L, N>(s, acc, [sums[0][token], sums[1][token]], scales, numbers, token);
    }
}

/// [`add_group`] for one token, whose sums these are.
#[inline(always)]
fn add_token<S: Simd, L: Sums, const N: usize>(
    s: S,
    acc: &mut S::F,
    sums: [S::I; 2],
    scales: &Scales<S>,
    numbers: &[[f32; N]],
    token: usize,
) {
    let of = |index: usize| numbers[index - QUADS][token];
    for (half, sum) in sums.into_iter().enumerate().take(L::COUNT) {
        let scaled = scaled(s, sum, of(int8::SCALE), of(int8::SHIFT));
        *acc = s.fma(scaled, scales.scale[half], *acc);
        if L::MINS {
            *acc = s.fma(s.splat(of(int8::SUMS + half)), scales.min[half], *acc);
        }
    }
}

/// Adds the product of a token's outlier with the quad of codes that it meets.
#[inline(always)]
fn add_outlier<S: Simd, L: Sums, const N: usize>(
    s: S,
    acc: S::F,
    codes: S::I,
    scale: S::F,
    outlier: &[[f32; N]; Outlier::LEN],
    token: usize,
    run: usize,
) -> S::F {
    // As references: a copy of the codes would go through memory before it is in all lanes.
    let of = |number: usize| array::from_ref(&outlier[number][token]);
    let mut sum = first_sums::<S, L, 1>(s, of(Outlier::FIRST_SUM));
    s.dot_quads(&mut sum, &[codes], array::from_ref(of(Outlier::CODES)), run);
    let scaled = scaled(s, sum[0], of(Outlier::SCALE)[0], of(Outlier::SHIFT)[0]);
    s.fma(scaled, scale, acc)
}
