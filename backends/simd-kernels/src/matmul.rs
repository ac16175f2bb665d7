//! Products of prepared activations with packed rows.
//!
//! Each lane is a row, so a product never adds across lanes: for each group of 32 columns a lane sums its products as
//! integers, exactly, and then `acc = fma(sum, scale, acc)`, group after group. Few tokens unpack codes as they go; for
//! many, rows are unpacked once into a panel of int16 pairs that stays in the cache. Both do the same float operations
//! in the same order, so a token's results do not depend on the tokens beside it.

use herald_layers::matmul::{MatmulCall, OutputTile};

use crate::activations;
use crate::packed::{Format, GROUP, PAIRS, Scales};
use crate::prefetch::Stream;
use crate::simd::{LANES, Simd};

/// Tokens up to which codes are unpacked for each product.
const DIRECT: usize = 8;

/// Whether codes are unpacked for each product of so many tokens: where one tile has all of them, too, and each of them one
/// sum.
fn direct<L: Simd, F: Format>(n_tokens: usize) -> bool {
    n_tokens <= DIRECT || n_tokens == activations::tile::<L>(n_tokens) && !F::HALVES
}

/// Granules whose panels are in the cache together.
const PANELS: usize = 4;

/// Float32 elements of a group's panel: pairs, then scales (and minima) of both halves.
const fn panel_group<F: Format>() -> usize {
    PAIRS * LANES + scales_len::<F>()
}

const fn scales_len<F: Format>() -> usize {
    let halves = if F::HALVES { 2 } else { 1 };
    let kinds = if F::MINS { 2 } else { 1 };
    halves * kinds * LANES
}

/// Float32 elements of scratch memory that [`multiply`] uses.
pub(crate) fn scratch_len<F: Format>(columns: usize, max_tokens: usize) -> usize {
    if max_tokens <= DIRECT { 0 } else { PANELS * (columns / GROUP) * panel_group::<F>() }
}

/// Multiplies a run of packed rows with prepared tokens.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(crate) unsafe fn matmul<L: Simd, F: Format>(
    run: &MatmulCall<'_>,
    scratch: &mut [f32],
    out: &mut OutputTile<'_>,
) {
    let blocks = run.columns / (GROUP * F::GROUPS);
    let row_tile_bytes = blocks * F::BLOCK_BYTES;
    let granules = run.n_rows.div_ceil(LANES);
    let token_len = activations::len(run.columns);
    assert!(
        run.rows.len() >= granules * row_tile_bytes
            && run.x.len() >= run.n_tokens * token_len
            && run.bias.is_none_or(|bias| bias.len() >= run.n_rows)
            && out.n_rows() >= run.n_rows,
        "a product of {} tokens with {} rows of {} has slices too short",
        run.n_tokens,
        run.n_rows,
        run.columns
    );
    // Tokens that aren't one tile read a row tile again.
    let once = !direct::<L, F>(run.n_tokens) || run.n_tokens == activations::tile::<L>(run.n_tokens);
    let stream = Stream::new(&run.rows[..granules * row_tile_bytes], once);
    let job = Job { run, blocks, columns: run.columns / GROUP, stream };
    if direct::<L, F>(run.n_tokens) {
        for row_tile in 0..granules {
            let rows = run.rows[row_tile * row_tile_bytes..].as_ptr();
            let mut first = 0;
            while first < run.n_tokens {
                let x = &run.x[first * token_len..];
                // SAFETY: the row tile's bytes are there, and the tile; the caller vouches for the instruction set.
                first += unsafe {
                    match activations::tile::<L>(run.n_tokens - first) {
                        16 => job.direct::<L, F, 16>(rows, x, out, row_tile, first),
                        12 => job.direct::<L, F, 12>(rows, x, out, row_tile, first),
                        8 => job.direct::<L, F, 8>(rows, x, out, row_tile, first),
                        4 => job.direct::<L, F, 4>(rows, x, out, row_tile, first),
                        2 => job.direct::<L, F, 2>(rows, x, out, row_tile, first),
                        _ => job.direct::<L, F, 1>(rows, x, out, row_tile, first),
                    }
                };
            }
        }
        return;
    }
    let panel_len = job.columns * panel_group::<F>();
    let panels = &mut scratch[..PANELS * panel_len];
    for begin in (0..granules).step_by(PANELS) {
        let end = granules.min(begin + PANELS);
        for (row_tile, panel) in (begin..end).zip(panels.chunks_exact_mut(panel_len)) {
            let rows = run.rows[row_tile * row_tile_bytes..].as_ptr();
            // SAFETY: the row tile's bytes are there, and the panel has room; the caller vouches for the instruction set.
            unsafe { unpack::<L, F>(rows, blocks, stream, panel) };
        }
        let mut first = 0;
        while first < run.n_tokens {
            let tile = activations::tile::<L>(run.n_tokens - first);
            let x = &run.x[first * token_len..];
            for (row_tile, panel) in (begin..end).zip(panels.chunks_exact(panel_len)) {
                // SAFETY: the panels are unpacked, and the tile is there; the caller vouches for the instruction set.
                unsafe {
                    match tile {
                        16 => job.panel::<L, F, 16>(panel, x, out, row_tile, first),
                        12 => job.panel::<L, F, 12>(panel, x, out, row_tile, first),
                        8 => job.panel::<L, F, 8>(panel, x, out, row_tile, first),
                        4 => job.panel::<L, F, 4>(panel, x, out, row_tile, first),
                        2 => job.panel::<L, F, 2>(panel, x, out, row_tile, first),
                        _ => job.panel::<L, F, 1>(panel, x, out, row_tile, first),
                    }
                };
            }
            first += tile;
        }
    }
}

/// A product under way.
struct Job<'j, 'a> {
    run: &'j MatmulCall<'a>,
    /// Blocks of a row.
    blocks: usize,
    /// Groups of a row.
    columns: usize,
    stream: Stream,
}

impl Job<'_, '_> {
    /// A row tile, as it is packed, with a tile of `N` tokens. Returns `N`.
    ///
    /// # Safety
    /// As for [`Simd`]; `rows` points to the row tile.
    #[inline(always)]
    unsafe fn direct<L: Simd, F: Format, const N: usize>(
        &self,
        rows: *const u8,
        x: &[f32],
        out: &mut OutputTile<'_>,
        row_tile: usize,
        first: usize,
    ) -> usize {
        assert!(x.len() >= N * activations::len(self.run.columns));
        // SAFETY: blocks and groups stay within the row tile and the tile, whose length is checked; the caller vouches.
        unsafe {
            let mut acc = [L::zero(); N];
            let mut x_at = x.as_ptr();
            for block in 0..self.blocks {
                let block_at = rows.add(block * F::BLOCK_BYTES);
                for group in 0..F::GROUPS {
                    let at = F::group_at(block_at, group);
                    self.stream.read(at, F::BLOCK_BYTES.div_ceil(F::GROUPS));
                    let scales = F::scales::<L>(block_at, at);
                    let mut sums = [[L::splat_i(0); N]; 2];
                    add_code_pairs::<L, F, N, 0>(&mut sums, at, x_at);
                    add_code_pairs::<L, F, N, 1>(&mut sums, at, x_at);
                    add_code_pairs::<L, F, N, 2>(&mut sums, at, x_at);
                    add_code_pairs::<L, F, N, 3>(&mut sums, at, x_at);
                    if F::OFFSET != 0 {
                        let used = if second_sums::<F, N>() { 2 } else { 1 };
                        for (half, sums) in sums.iter_mut().enumerate().take(used) {
                            // The sum of all codes, or of each half's.
                            let at = if used == 2 { 1 + half } else { 0 };
                            for (token, sum) in sums.iter_mut().enumerate() {
                                let x_sum = *x_at.add((PAIRS + at) * N + token) as i32;
                                *sum = L::add_i(*sum, L::splat_i(-F::OFFSET * x_sum));
                            }
                        }
                    }
                    if !F::HALVES && second_sums::<F, N>() {
                        let [whole, second] = &mut sums;
                        for (sum, second) in whole.iter_mut().zip(second) {
                            *sum = L::add_i(*sum, *second);
                        }
                    }
                    add_group::<L, F, N>(&mut acc, &sums, &scales, x_at.add(PAIRS * N));
                    x_at = x_at.add(activations::GROUP_LEN * N);
                }
            }
            self.store::<L, N>(&acc, x_at, out, row_tile, first);
        }
        N
    }

    /// A row tile's panel with a tile of `N` tokens.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    unsafe fn panel<L: Simd, F: Format, const N: usize>(
        &self,
        panel: &[f32],
        x: &[f32],
        out: &mut OutputTile<'_>,
        row_tile: usize,
        first: usize,
    ) {
        assert!(x.len() >= N * activations::len(self.run.columns));
        assert!(panel.len() >= self.columns * panel_group::<F>());
        // SAFETY: groups stay within the panel and the tile, whose lengths are checked; the caller vouches.
        unsafe {
            let mut acc = [L::zero(); N];
            let (mut at, mut x_at) = (panel.as_ptr(), x.as_ptr());
            for _ in 0..self.columns {
                let mut sums = [[L::splat_i(0); N]; 2];
                for pair in 0..PAIRS / 2 {
                    let codes = L::load_i(at.add(pair * LANES).cast());
                    add_pair::<L, N>(&mut sums[0], codes, x_at.add(pair * N));
                }
                let second = if F::HALVES { 1 } else { 0 };
                for pair in PAIRS / 2..PAIRS {
                    let codes = L::load_i(at.add(pair * LANES).cast());
                    add_pair::<L, N>(&mut sums[second], codes, x_at.add(pair * N));
                }
                let scales = unpacked_scales::<L, F>(at.add(PAIRS * LANES));
                add_group::<L, F, N>(&mut acc, &sums, &scales, x_at.add(PAIRS * N));
                at = at.add(panel_group::<F>());
                x_at = x_at.add(activations::GROUP_LEN * N);
            }
            self.store::<L, N>(&acc, x_at, out, row_tile, first);
        }
    }

    /// Scales the sums and stores them.
    ///
    /// # Safety
    /// As for [`Simd`]; `scales` points to the tile's scales and powers.
    #[inline(always)]
    unsafe fn store<L: Simd, const N: usize>(
        &self,
        acc: &[L::F; N],
        scales: *const f32,
        out: &mut OutputTile<'_>,
        row_tile: usize,
        first: usize,
    ) {
        let rows = row_tile * LANES..self.run.n_rows.min((row_tile + 1) * LANES);
        for (token, acc) in acc.iter().enumerate() {
            let out = &mut out.token(first + token)[rows.clone()];
            // SAFETY: only as many lanes as there are rows are read and stored; the caller vouches for the rest.
            unsafe {
                let (scale, power) = (L::splat(*scales.add(token)), L::splat(*scales.add(N + token)));
                let mut result = L::mul(L::mul(*acc, scale), power);
                if let Some(bias) = self.run.bias {
                    result = L::add(result, L::load_first(bias[rows.clone()].as_ptr(), rows.len()));
                }
                L::store_first(out.as_mut_ptr(), result, rows.len());
            }
        }
    }
}

/// Adds the products of a pair of sixteen rows' columns with each token's.
///
/// # Safety
/// As for [`Simd`]; `x` points to the tokens' pairs.
#[inline(always)]
unsafe fn add_pair<L: Simd, const N: usize>(sums: &mut [L::I; N], codes: L::I, x: *const f32) {
    // SAFETY: the caller vouches.
    unsafe { L::dot_add(sums, codes, x.cast()) }
}

/// Whether each half of a group has sums of its own: where the format wants them, and where fewer tokens than fill the
/// registers would leave additions waiting for each other.
const fn second_sums<F: Format, const N: usize>() -> bool {
    F::HALVES || N <= DIRECT
}

/// The pairs of quad `q`.
const fn pairs_of(q: usize) -> [usize; 4] {
    [2 * q, 2 * q + 1, 8 + 2 * q, 9 + 2 * q]
}

/// Adds the products of a quad's pairs to the sums of the group's halves.
///
/// # Safety
/// As for [`Simd`]; `group` points to a packed group, `x` to the tokens' pairs of it.
#[inline(always)]
unsafe fn add_code_pairs<L: Simd, F: Format, const N: usize, const Q: usize>(
    sums: &mut [[L::I; N]; 2],
    group: *const u8,
    x: *const f32,
) {
    // SAFETY: the caller vouches.
    unsafe {
        let quad = F::code_pairs::<L, Q>(group);
        for (index, pair) in pairs_of(Q).into_iter().enumerate() {
            let half = if second_sums::<F, N>() { index / 2 } else { 0 };
            add_pair::<L, N>(&mut sums[half], quad[index], x.add(pair * N));
        }
    }
}

/// Stores a quad's pairs, less the format's offset.
///
/// # Safety
/// As for [`Simd`]; `group` points to a packed group, `to` to room for the group's pairs.
#[inline(always)]
unsafe fn unpack_code_pairs<L: Simd, F: Format, const Q: usize>(
    group: *const u8,
    offset: L::I,
    to: *mut f32,
) {
    // SAFETY: the caller vouches.
    unsafe {
        for (codes, pair) in F::code_pairs::<L, Q>(group).into_iter().zip(pairs_of(Q)) {
            let codes = if F::OFFSET != 0 { L::sub_i16(codes, offset) } else { codes };
            L::store_i(to.add(pair * LANES).cast(), codes);
        }
    }
}

/// Adds a group's integer sums, scaled, and its minima.
///
/// # Safety
/// As for [`Simd`]; `x_sums` points to the sums of the tokens' codes.
#[inline(always)]
unsafe fn add_group<L: Simd, F: Format, const N: usize>(
    acc: &mut [L::F; N],
    sums: &[[L::I; N]; 2],
    scales: &Scales<L>,
    x_sums: *const f32,
) {
    // SAFETY: the caller vouches.
    unsafe {
        for (token, acc) in acc.iter_mut().enumerate() {
            for (half, sums) in sums.iter().enumerate().take(if F::HALVES { 2 } else { 1 }) {
                *acc = L::fma(L::to_float(sums[token]), scales.scale[half], *acc);
                if F::MINS {
                    let x_sum = *x_sums.add(if F::HALVES { (1 + half) * N } else { 0 } + token);
                    *acc = L::fma(L::splat(x_sum), scales.min[half], *acc);
                }
            }
        }
    }
}

/// Unpacks a row tile into a panel.
///
/// # Safety
/// As for [`Simd`]; `rows` points to the row tile, of so many blocks.
#[inline(always)]
unsafe fn unpack<L: Simd, F: Format>(rows: *const u8, blocks: usize, stream: Stream, panel: &mut [f32]) {
    assert!(panel.len() >= blocks * F::GROUPS * panel_group::<F>(), "room for a panel");
    // SAFETY: blocks and groups stay within the row tile, and the panel has room for them; the caller vouches.
    unsafe {
        let mut to = panel.as_mut_ptr();
        let offset = L::splat_i(F::OFFSET << 16 | F::OFFSET);
        for block in 0..blocks {
            let block_at = rows.add(block * F::BLOCK_BYTES);
            for group in 0..F::GROUPS {
                let at = F::group_at(block_at, group);
                stream.read(at, F::BLOCK_BYTES.div_ceil(F::GROUPS));
                unpack_code_pairs::<L, F, 0>(at, offset, to);
                unpack_code_pairs::<L, F, 1>(at, offset, to);
                unpack_code_pairs::<L, F, 2>(at, offset, to);
                unpack_code_pairs::<L, F, 3>(at, offset, to);
                let scales = F::scales::<L>(block_at, at);
                let mut scale_at = to.add(PAIRS * LANES);
                for half in 0..if F::HALVES { 2 } else { 1 } {
                    L::store(scale_at, scales.scale[half]);
                    scale_at = scale_at.add(LANES);
                    if F::MINS {
                        L::store(scale_at, scales.min[half]);
                        scale_at = scale_at.add(LANES);
                    }
                }
                to = to.add(panel_group::<F>());
            }
        }
    }
}

/// The scales that [`unpack`] put there.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
unsafe fn unpacked_scales<L: Simd, F: Format>(at: *const f32) -> Scales<L> {
    // SAFETY: the caller vouches.
    unsafe {
        let step = if F::MINS { 2 * LANES } else { LANES };
        let half = |half: usize| {
            let at = at.add(if F::HALVES { half * step } else { 0 });
            (L::load(at), if F::MINS { L::load(at.add(LANES)) } else { L::zero() })
        };
        let (first, second) = (half(0), half(1));
        Scales { scale: [first.0, second.0], min: [first.1, second.1] }
    }
}
