//! Matmuls of quantised activations with packed rows.
//!
//! Each lane is a row, so nothing is ever added across lanes: for each group of 32 columns a lane sums its products as
//! integers, exactly, and then `acc = fma(sum, scale, acc)`, group after group. For few tokens, codes are unpacked as they
//! are multiplied; for many, rows are first unpacked into a panel that stays in the cache. Both do the same float
//! operations in the same order, so a token's results do not depend on the tokens beside it.
//!
//! There are two precisions of activations, [`int16`] and [`int8`]; this is what they share.

pub(crate) mod int16;
pub(crate) mod int8;

use std::marker::PhantomData;

use herald_layers::matmul::{MatmulCall, OutputTile};

use crate::activations::int8::TILE;
use crate::packed::{Format, GROUP};
use crate::prefetch::{Stream, prefetch};
use crate::simd::{LANES, Simd};

/// Tokens up to which codes are usually unpacked as they are multiplied.
const DIRECT: usize = 8;

/// Row tiles whose panels are in the cache together.
const PANELS: usize = 4;

/// How a format's groups are summed: as much of it as the products of a panel depend on.
pub(crate) trait Sums: 'static {
    /// Whether each half of a group has its own scale.
    const HALVES: bool;
    /// Whether there are minima.
    const MINS: bool;
    /// Sums of integers of a group, and scales.
    const COUNT: usize = 1 + Self::HALVES as usize;
    /// Vectors of a group's scales and minima in a panel.
    const SCALE_VECTORS: usize = Self::COUNT * (1 + Self::MINS as usize);
}

/// The only [`Sums`].
pub(crate) struct SumsOf<const HALVES: bool, const MINS: bool>;

impl<const HALVES: bool, const MINS: bool> Sums for SumsOf<HALVES, MINS> {
    const HALVES: bool = HALVES;
    const MINS: bool = MINS;
}

/// A precision of activations.
pub(crate) trait Precision: 'static {
    /// Float32 elements of a quantised token, for rows of a format.
    fn token_len<F: Format>(columns: usize) -> usize;

    /// Vectors of a group's panel.
    fn panel_vectors<S: Simd, F: Format>() -> usize;

    /// Tokens up to which codes are unpacked as they are multiplied.
    fn direct_tokens<S: Simd>() -> usize {
        DIRECT
    }

    /// Unpacks a row tile into a panel.
    fn unpack<S: Simd, F: Format>(s: S, rows: &[u8], stream: Stream, panel: &mut [f32]);

    /// The micro-kernel on a row tile as it is packed, with a tile of `N` tokens. Returns `N`.
    fn direct<S: Simd, F: Format, const N: usize>(
        s: S,
        tile: &mut Tile<'_, '_, '_>,
        rows: &[u8],
        stream: Stream,
    ) -> usize;

    /// The micro-kernel on the panels of some neighbouring row tiles, one after the other, with a tile of `N` tokens. Returns
    /// how many row tiles it has done: at least one.
    fn panel<S: Simd, F: Format, const N: usize>(s: S, tile: Tile<'_, '_, '_>, panels: &[f32]) -> usize;

    /// The first tile of sixteen tokens on wide vectors: twelve would leave four, too few multiply-adds to keep the CPU busy.
    const OF_SIXTEEN: usize;

    /// Whether tile registers multiply tiles of [`TILE`] of a batch's tokens with rows of a format.
    fn in_tiles<S: Simd, F: Format>(_n_tokens: usize) -> bool {
        false
    }

    /// Tokens of the next tile, with `left` to go of `n_tokens`, for rows of a format.
    fn tile_of<S: Simd, F: Format>(n_tokens: usize, left: usize) -> usize {
        match left {
            TILE.. if Self::in_tiles::<S, F>(n_tokens) => TILE,
            16 if S::WIDE => Self::OF_SIXTEEN,
            12.. if S::WIDE => 12,
            8.. if S::WIDE => 8,
            4.. => 4,
            2.. => 2,
            left => left,
        }
    }

    /// Whether codes are unpacked as they are multiplied with `n_tokens`.
    fn is_direct<S: Simd, F: Format>(n_tokens: usize) -> bool;
}

/// A tile of tokens, and the row tile that it is multiplied with.
pub(crate) struct Tile<'t, 'a, 'o> {
    run: &'t MatmulCall<'a>,
    /// The tokens' activations, and those after them.
    x: &'t [f32],
    out: &'t mut OutputTile<'o>,
    row_tile: usize,
    /// The first token.
    first: usize,
}

impl Tile<'_, '_, '_> {
    /// Multiplies the accumulators by a token's factors, one after the other, and stores them.
    #[inline(always)]
    fn store<S: Simd, const N: usize, const FACTORS: usize>(
        &mut self,
        s: S,
        acc: &[S::F; N],
        factors: [&[f32; N]; FACTORS],
    ) {
        let rows = self.row_tile * LANES..self.run.n_rows.min((self.row_tile + 1) * LANES);
        for (token, acc) in acc.iter().enumerate() {
            let mut result = *acc;
            for factors in factors {
                result = s.mul(result, s.splat(factors[token]));
            }
            if let Some(bias) = self.run.bias {
                result = s.add(result, s.load_first(&bias[rows.clone()]));
            }
            s.store_first(&mut self.out.token(self.first + token)[rows.clone()], result);
        }
    }
}

/// Float32 elements of a row tile's panel.
fn panel_len<S: Simd, F: Format, P: Precision>(columns: usize) -> usize {
    columns / GROUP * P::panel_vectors::<S, F>() * LANES
}

/// Float32 elements of scratch memory that [`matmul`] uses.
pub(crate) fn scratch_len<S: Simd, F: Format, P: Precision>(columns: usize, max_tokens: usize) -> usize {
    if max_tokens <= P::direct_tokens::<S>() { 0 } else { PANELS * panel_len::<S, F, P>(columns) }
}

/// Multiplies a run of packed rows with quantised tokens.
#[inline(always)]
pub(crate) fn matmul<S: Simd, F: Format, P: Precision>(
    s: S,
    run: &MatmulCall<'_>,
    scratch: &mut [f32],
    out: &mut OutputTile<'_>,
) {
    let row_tile_bytes = run.columns / (GROUP * F::GROUPS) * F::BLOCK_BYTES;
    let row_tiles = run.n_rows.div_ceil(LANES);
    assert!(
        run.rows.len() >= row_tiles * row_tile_bytes
            && run.x.len() >= run.n_tokens * P::token_len::<F>(run.columns)
            && run.bias.is_none_or(|bias| bias.len() >= run.n_rows)
            && out.n_rows() >= run.n_rows,
        "a product of {} tokens with {} rows of {} has slices too short",
        run.n_tokens,
        run.n_rows,
        run.columns
    );
    // A table with tile registers leaves few tokens to another's kernels, so it is without those for them.
    let direct = !S::TILES && P::is_direct::<S, F>(run.n_tokens);
    // More than one tile of tokens reads a row tile again.
    let once = !direct || run.n_tokens == P::tile_of::<S, F>(run.n_tokens, run.n_tokens);
    let stream = Stream::new(&run.rows[..row_tiles * row_tile_bytes], once);
    let rows = RowTiles { bytes: row_tile_bytes, count: row_tiles, stream };
    if direct {
        rows.as_packed::<S, F, P>(s, run, out);
    } else {
        rows.as_panels::<S, F, P>(s, run, &mut scratch[..PANELS * panel_len::<S, F, P>(run.columns)], out);
    }
}

/// The row tiles of a run.
#[derive(Clone, Copy)]
struct RowTiles {
    bytes: usize,
    count: usize,
    stream: Stream,
}

impl RowTiles {
    fn of<'r>(&self, run: &MatmulCall<'r>, row_tile: usize) -> &'r [u8] {
        &run.rows[row_tile * self.bytes..][..self.bytes]
    }

    /// Multiplies them as they are packed.
    #[inline(always)]
    fn as_packed<S: Simd, F: Format, P: Precision>(
        &self,
        s: S,
        run: &MatmulCall<'_>,
        out: &mut OutputTile<'_>,
    ) {
        let token_len = P::token_len::<F>(run.columns);
        for row_tile in 0..self.count {
            let rows = self.of(run, row_tile);
            let mut first = 0;
            while first < run.n_tokens {
                let tile = &mut Tile { run, x: &run.x[first * token_len..], out, row_tile, first };
                // Only wide vectors have the wider tiles: the others' kernels aren't compiled for those.
                first += match P::tile_of::<S, F>(run.n_tokens, run.n_tokens - first) {
                    16 if S::WIDE => P::direct::<S, F, 16>(s, tile, rows, self.stream),
                    12 if S::WIDE => P::direct::<S, F, 12>(s, tile, rows, self.stream),
                    8 if S::WIDE => P::direct::<S, F, 8>(s, tile, rows, self.stream),
                    4 => P::direct::<S, F, 4>(s, tile, rows, self.stream),
                    2 => P::direct::<S, F, 2>(s, tile, rows, self.stream),
                    _ => P::direct::<S, F, 1>(s, tile, rows, self.stream),
                };
            }
        }
    }

    /// Multiplies their panels, in memory for [`PANELS`] of them.
    #[inline(always)]
    fn as_panels<S: Simd, F: Format, P: Precision>(
        &self,
        s: S,
        run: &MatmulCall<'_>,
        panels: &mut [f32],
        out: &mut OutputTile<'_>,
    ) {
        let (token_len, panel_len) = (P::token_len::<F>(run.columns), panel_len::<S, F, P>(run.columns));
        for begin in (0..self.count).step_by(PANELS) {
            let end = self.count.min(begin + PANELS);
            for (row_tile, panel) in (begin..end).zip(panels.chunks_exact_mut(panel_len)) {
                P::unpack::<S, F>(s, self.of(run, row_tile), self.stream, panel);
            }
            let mut first = 0;
            while first < run.n_tokens {
                let n_tokens = P::tile_of::<S, F>(run.n_tokens, run.n_tokens - first);
                // What is stored after the products arrives while they are computed.
                let rows = begin * LANES..run.n_rows.min(end * LANES);
                for token in first..first + n_tokens {
                    prefetch(bytemuck::cast_slice(&out.token(token)[rows.clone()]));
                }
                let mut row_tile = begin;
                while row_tile < end {
                    let tile = Tile { run, x: &run.x[first * token_len..], out, row_tile, first };
                    let panel = &panels[(row_tile - begin) * panel_len..(end - begin) * panel_len];
                    row_tile += match n_tokens {
                        16 if S::WIDE => P::panel::<S, F, 16>(s, tile, panel),
                        12 if S::WIDE => P::panel::<S, F, 12>(s, tile, panel),
                        8 if S::WIDE => P::panel::<S, F, 8>(s, tile, panel),
                        4 => P::panel::<S, F, 4>(s, tile, panel),
                        2 => P::panel::<S, F, 2>(s, tile, panel),
                        _ => P::panel::<S, F, 1>(s, tile, panel),
                    };
                }
                first += n_tokens;
            }
        }
    }
}

/// A tile and a panel, to be multiplied apart: the products depend on nothing of the format but its sums.
struct PanelTask<'p, 't, 'a, 'o, P, L, const N: usize> {
    tile: Tile<'t, 'a, 'o>,
    panel: &'p [f32],
    kinds: PhantomData<(P, L)>,
}

/// Stores a group's scales (and minima) in a panel, half after half.
#[inline(always)]
fn store_scales<S: Simd, F: Format>(s: S, header: &[u8], group: &[u8], to: &mut [[f32; LANES]]) {
    let scales = F::scales(s, header, group);
    let step = 1 + usize::from(F::MINS);
    for half in 0..F::Sums::COUNT {
        s.store(&mut to[half * step], scales.scale[half]);
        if F::MINS {
            s.store(&mut to[half * step + 1], scales.min[half]);
        }
    }
}

/// The scales that [`store_scales`] put in a panel.
#[inline(always)]
fn load_scales<S: Simd, L: Sums>(s: S, vectors: &[[f32; LANES]]) -> crate::packed::Scales<S> {
    let step = 1 + usize::from(L::MINS);
    let half = |half: usize| {
        let at = if L::HALVES { half * step } else { 0 };
        (s.load(&vectors[at]), if L::MINS { s.load(&vectors[at + 1]) } else { s.zero() })
    };
    let (first, second) = (half(0), half(1));
    crate::packed::Scales { scale: [first.0, second.0], min: [first.1, second.1] }
}
