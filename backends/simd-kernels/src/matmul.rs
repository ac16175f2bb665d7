//! Matmuls of quantised activations with packed rows.
//!
//! Each lane is a row, so nothing is ever added across lanes: for each group of 32 columns a lane sums its products as
//! integers, exactly, and then `acc = fma(sum, scale, acc)`, group after group. For few tokens, codes are unpacked as they
//! are multiplied; for many, rows are first unpacked into a panel of int16 pairs that stays in the cache. Both do the same
//! float operations in the same order, so a token's results do not depend on the tokens beside it.

use herald_layers::matmul::{MatmulCall, OutputTile};

use crate::activations::{self, Group};
use crate::packed::{Format, GROUP, PAIRS, Scales};
use crate::prefetch::Stream;
use crate::simd::{LANES, Simd};

/// Tokens up to which codes are unpacked as they are multiplied.
const DIRECT: usize = 8;

/// Whether codes are unpacked as they are multiplied with `n_tokens`: for few tokens, and also where one tile holds all of
/// them and a group has one sum.
fn direct<S: Simd, F: Format>(n_tokens: usize) -> bool {
    n_tokens <= DIRECT || n_tokens == activations::tile::<S>(n_tokens) && !F::HALVES
}

/// Row tiles whose panels are in the cache together.
const PANELS: usize = 4;

/// Vectors of a group's panel: pairs, then scales (and minima) of both halves.
const fn panel_vectors<F: Format>() -> usize {
    let halves = if F::HALVES { 2 } else { 1 };
    let kinds = if F::MINS { 2 } else { 1 };
    PAIRS + halves * kinds
}

/// Float32 elements of a row tile's panel.
const fn panel_len<F: Format>(columns: usize) -> usize {
    columns / GROUP * panel_vectors::<F>() * LANES
}

/// Float32 elements of scratch memory that [`matmul`] uses.
pub(crate) fn scratch_len<F: Format>(columns: usize, max_tokens: usize) -> usize {
    if max_tokens <= DIRECT { 0 } else { PANELS * panel_len::<F>(columns) }
}

/// Multiplies a run of packed rows with quantised tokens.
#[inline(always)]
pub(crate) fn matmul<S: Simd, F: Format>(
    s: S,
    run: &MatmulCall<'_>,
    scratch: &mut [f32],
    out: &mut OutputTile<'_>,
) {
    let row_tile_bytes = run.columns / (GROUP * F::GROUPS) * F::BLOCK_BYTES;
    let row_tiles = run.n_rows.div_ceil(LANES);
    let token_len = activations::len(run.columns);
    assert!(
        run.rows.len() >= row_tiles * row_tile_bytes
            && run.x.len() >= run.n_tokens * token_len
            && run.bias.is_none_or(|bias| bias.len() >= run.n_rows)
            && out.n_rows() >= run.n_rows,
        "a product of {} tokens with {} rows of {} has slices too short",
        run.n_tokens,
        run.n_rows,
        run.columns
    );
    // More than one tile of tokens reads a row tile again.
    let once = !direct::<S, F>(run.n_tokens) || run.n_tokens == activations::tile::<S>(run.n_tokens);
    let stream = Stream::new(&run.rows[..row_tiles * row_tile_bytes], once);
    let job = Job { run, stream };
    let rows_of = |row_tile: usize| &run.rows[row_tile * row_tile_bytes..][..row_tile_bytes];
    if direct::<S, F>(run.n_tokens) {
        for row_tile in 0..row_tiles {
            let rows = rows_of(row_tile);
            let mut first = 0;
            while first < run.n_tokens {
                let x = &run.x[first * token_len..];
                // Only wide vectors have the wider tiles: the others' kernels aren't compiled for those.
                first += match activations::tile::<S>(run.n_tokens - first) {
                    16 if S::WIDE => job.direct::<S, F, 16>(s, rows, x, out, row_tile, first),
                    12 if S::WIDE => job.direct::<S, F, 12>(s, rows, x, out, row_tile, first),
                    8 if S::WIDE => job.direct::<S, F, 8>(s, rows, x, out, row_tile, first),
                    4 => job.direct::<S, F, 4>(s, rows, x, out, row_tile, first),
                    2 => job.direct::<S, F, 2>(s, rows, x, out, row_tile, first),
                    _ => job.direct::<S, F, 1>(s, rows, x, out, row_tile, first),
                };
            }
        }
        return;
    }
    let panel_len = panel_len::<F>(run.columns);
    let panels = &mut scratch[..PANELS * panel_len];
    for begin in (0..row_tiles).step_by(PANELS) {
        let end = row_tiles.min(begin + PANELS);
        for (row_tile, panel) in (begin..end).zip(panels.chunks_exact_mut(panel_len)) {
            unpack::<S, F>(s, rows_of(row_tile), stream, panel);
        }
        let mut first = 0;
        while first < run.n_tokens {
            let tile = activations::tile::<S>(run.n_tokens - first);
            let x = &run.x[first * token_len..];
            for (row_tile, panel) in (begin..end).zip(panels.chunks_exact(panel_len)) {
                match tile {
                    16 if S::WIDE => job.panel::<S, F, 16>(s, panel, x, out, row_tile, first),
                    12 if S::WIDE => job.panel::<S, F, 12>(s, panel, x, out, row_tile, first),
                    8 if S::WIDE => job.panel::<S, F, 8>(s, panel, x, out, row_tile, first),
                    4 => job.panel::<S, F, 4>(s, panel, x, out, row_tile, first),
                    2 => job.panel::<S, F, 2>(s, panel, x, out, row_tile, first),
                    _ => job.panel::<S, F, 1>(s, panel, x, out, row_tile, first),
                }
            }
            first += tile;
        }
    }
}

/// A matmul in progress.
struct Job<'j, 'a> {
    run: &'j MatmulCall<'a>,
    stream: Stream,
}

impl Job<'_, '_> {
    /// The micro-kernel on a row tile as it is packed, with a tile of `N` tokens. Returns `N`.
    #[inline(always)]
    fn direct<S: Simd, F: Format, const N: usize>(
        &self,
        s: S,
        rows: &[u8],
        x: &[f32],
        out: &mut OutputTile<'_>,
        row_tile: usize,
        first: usize,
    ) -> usize {
        let (x, scales) = activations::split::<N>(x, self.run.columns);
        let mut acc = [s.zero(); N];
        for (block, x) in rows.chunks_exact(F::BLOCK_BYTES).zip(x.chunks_exact(F::GROUPS)) {
            let (header, groups) = F::split(block);
            for index in 0..F::GROUPS {
                let (group, x) = (&groups[index * F::GROUP_BYTES..][..F::GROUP_BYTES], &x[index]);
                self.stream.read(group.as_ptr(), F::BLOCK_BYTES.div_ceil(F::GROUPS));
                let scales = F::scales(s, header, group);
                let mut sums = [[s.splat_i(0); N]; 2];
                add_code_pairs::<S, F, N, 0>(s, &mut sums, group, x);
                add_code_pairs::<S, F, N, 1>(s, &mut sums, group, x);
                add_code_pairs::<S, F, N, 2>(s, &mut sums, group, x);
                add_code_pairs::<S, F, N, 3>(s, &mut sums, group, x);
                if F::OFFSET != 0 {
                    subtract_offsets::<S, F, N>(s, &mut sums, x);
                }
                if !F::HALVES && second_sums::<F, N>() {
                    let [all, second] = &mut sums;
                    for (sum, second) in all.iter_mut().zip(second) {
                        *sum = s.add_i(*sum, *second);
                    }
                }
                add_group::<S, F, N>(s, &mut acc, &sums, &scales, x);
            }
        }
        self.store(s, &acc, scales, out, row_tile, first);
        N
    }

    /// The micro-kernel on a row tile's panel, with a tile of `N` tokens.
    #[inline(always)]
    fn panel<S: Simd, F: Format, const N: usize>(
        &self,
        s: S,
        panel: &[f32],
        x: &[f32],
        out: &mut OutputTile<'_>,
        row_tile: usize,
        first: usize,
    ) {
        let (x, scales) = activations::split::<N>(x, self.run.columns);
        let (panel, _) = panel.as_chunks::<LANES>();
        let mut acc = [s.zero(); N];
        for (group, x) in panel.chunks_exact(panel_vectors::<F>()).zip(x) {
            let mut sums = [[s.splat_i(0); N]; 2];
            let Some((pairs, scales)) = group.split_first_chunk::<PAIRS>() else { break };
            let second = if F::HALVES { 1 } else { 0 };
            add_pairs::<S, N, 0>(s, &mut sums[0], pairs, x);
            add_pairs::<S, N, { PAIRS / 2 }>(s, &mut sums[second], pairs, x);
            let scales = unpacked_scales::<S, F>(s, scales);
            add_group::<S, F, N>(s, &mut acc, &sums, &scales, x);
        }
        self.store(s, &acc, scales, out, row_tile, first);
    }

    /// Multiplies the accumulators by the tokens' scales and powers, and stores them.
    #[inline(always)]
    fn store<S: Simd, const N: usize>(
        &self,
        s: S,
        acc: &[S::F; N],
        [scales, powers]: [&[f32; N]; 2],
        out: &mut OutputTile<'_>,
        row_tile: usize,
        first: usize,
    ) {
        let rows = row_tile * LANES..self.run.n_rows.min((row_tile + 1) * LANES);
        for (token, acc) in acc.iter().enumerate() {
            let mut result = s.mul(s.mul(*acc, s.splat(scales[token])), s.splat(powers[token]));
            if let Some(bias) = self.run.bias {
                result = s.add(result, s.load_first(&bias[rows.clone()]));
            }
            s.store_first(&mut out.token(first + token)[rows.clone()], result);
        }
    }
}

/// Whether the halves of a group are summed separately: where the format has a scale for each, and for so few tokens that
/// one sum's additions would wait for each other.
const fn second_sums<F: Format, const N: usize>() -> bool {
    F::HALVES || N <= DIRECT
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

/// Takes the format's offset out of the sums: its products with the tokens' codes.
#[inline(always)]
fn subtract_offsets<S: Simd, F: Format, const N: usize>(s: S, sums: &mut [[S::I; N]; 2], x: &Group<N>) {
    let used = if second_sums::<F, N>() { 2 } else { 1 };
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
fn add_group<S: Simd, F: Format, const N: usize>(
    s: S,
    acc: &mut [S::F; N],
    sums: &[[S::I; N]; 2],
    scales: &Scales<S>,
    x: &Group<N>,
) {
    for (token, acc) in acc.iter_mut().enumerate() {
        for (half, sums) in sums.iter().enumerate().take(if F::HALVES { 2 } else { 1 }) {
            *acc = s.fma(s.to_float(sums[token]), scales.scale[half], *acc);
            if F::MINS {
                let x_sum = x[PAIRS + if F::HALVES { 1 + half } else { 0 }][token];
                *acc = s.fma(s.splat(x_sum), scales.min[half], *acc);
            }
        }
    }
}

/// Unpacks a row tile into a panel.
#[inline(always)]
fn unpack<S: Simd, F: Format>(s: S, rows: &[u8], stream: Stream, panel: &mut [f32]) {
    let (panel, _) = panel.as_chunks_mut::<LANES>();
    let mut panel = panel.chunks_exact_mut(panel_vectors::<F>());
    let offset = s.splat_i(F::OFFSET << 16 | F::OFFSET);
    for block in rows.chunks_exact(F::BLOCK_BYTES) {
        let (header, groups) = F::split(block);
        for (group, to) in groups.chunks_exact(F::GROUP_BYTES).zip(&mut panel) {
            stream.read(group.as_ptr(), F::BLOCK_BYTES.div_ceil(F::GROUPS));
            unpack_code_pairs::<S, F, 0>(s, group, offset, to);
            unpack_code_pairs::<S, F, 1>(s, group, offset, to);
            unpack_code_pairs::<S, F, 2>(s, group, offset, to);
            unpack_code_pairs::<S, F, 3>(s, group, offset, to);
            let scales = F::scales(s, header, group);
            let step = if F::MINS { 2 } else { 1 };
            for half in 0..if F::HALVES { 2 } else { 1 } {
                s.store(&mut to[PAIRS + half * step], scales.scale[half]);
                if F::MINS {
                    s.store(&mut to[PAIRS + half * step + 1], scales.min[half]);
                }
            }
        }
    }
}

/// The scales that [`unpack`] put in a panel.
#[inline(always)]
fn unpacked_scales<S: Simd, F: Format>(s: S, vectors: &[[f32; LANES]]) -> Scales<S> {
    let step = if F::MINS { 2 } else { 1 };
    let half = |half: usize| {
        let at = if F::HALVES { half * step } else { 0 };
        (s.load(&vectors[at]), if F::MINS { s.load(&vectors[at + 1]) } else { s.zero() })
    };
    let (first, second) = (half(0), half(1));
    Scales { scale: [first.0, second.0], min: [first.1, second.1] }
}
