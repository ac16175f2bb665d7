//! Products of prepared activations with packed rows.
//!
//! Each lane is a row, so a product never adds across lanes: for each group of 32 columns a lane sums its products as
//! integers, exactly, and then `acc = fma(sum, scale, acc)`, group after group. Few tokens unpack codes as they go; for
//! many, rows are unpacked once into a panel of int16 pairs that stays in the cache. Both do the same float operations
//! in the same order, so a token's results do not depend on the tokens beside it.

use herald_layers::products::{Results, RowRun};

use crate::activations::{self, Token};
use crate::lanes::{LANES, Lanes};
use crate::packed::{Format, GROUP, PAIRS, Scales};

/// Tokens up to which codes are unpacked for each product.
const DIRECT: usize = 8;

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
/// As for [`Lanes`].
#[inline(always)]
pub(crate) unsafe fn multiply<L: Lanes, F: Format>(
    run: &RowRun<'_>,
    scratch: &mut [f32],
    out: &mut Results<'_>,
) {
    let blocks = run.columns / (GROUP * F::GROUPS);
    let granule_bytes = blocks * F::BLOCK_BYTES;
    let granules = run.n_rows.div_ceil(LANES);
    let token_len = activations::len(run.columns);
    assert!(
        run.rows.len() >= granules * granule_bytes
            && run.x.len() >= run.n_tokens * token_len
            && run.bias.is_none_or(|bias| bias.len() >= run.n_rows)
            && out.n_rows() >= run.n_rows,
        "a product of {} tokens with {} rows of {} has slices too short",
        run.n_tokens,
        run.n_rows,
        run.columns
    );
    let token = |index: usize| Token::new(&run.x[index * token_len..(index + 1) * token_len], run.columns);
    let mut job = Job { run, out };
    if run.n_tokens <= DIRECT {
        for granule in 0..granules {
            let rows = run.rows[granule * granule_bytes..].as_ptr();
            let mut first = 0;
            while first < run.n_tokens {
                // SAFETY: the granule's bytes are there, and the tokens; the caller vouches for the instruction set.
                first += unsafe {
                    match run.n_tokens - first {
                        8.. => job.direct::<L, F, 8>(rows, blocks, granule, first, &token),
                        4.. => job.direct::<L, F, 4>(rows, blocks, granule, first, &token),
                        2.. => job.direct::<L, F, 2>(rows, blocks, granule, first, &token),
                        _ => job.direct::<L, F, 1>(rows, blocks, granule, first, &token),
                    }
                };
            }
        }
        return;
    }
    let groups = run.columns / GROUP;
    let panel_len = groups * panel_group::<F>();
    let panels = &mut scratch[..PANELS * panel_len];
    for begin in (0..granules).step_by(PANELS) {
        let end = granules.min(begin + PANELS);
        for (granule, panel) in (begin..end).zip(panels.chunks_exact_mut(panel_len)) {
            let rows = run.rows[granule * granule_bytes..].as_ptr();
            // SAFETY: the granule's bytes are there, and the panel has room; the caller vouches for the instruction set.
            unsafe { unpack::<L, F>(rows, blocks, panel) };
        }
        let mut first = 0;
        while first < run.n_tokens {
            let left = run.n_tokens - first;
            let mut done = 0;
            for (granule, panel) in (begin..end).zip(panels.chunks_exact(panel_len)) {
                // SAFETY: the panels are unpacked, and the tokens are there; the caller vouches for the instruction set.
                done = unsafe {
                    match left {
                        12.. if L::TOKENS >= 12 => {
                            job.panel::<L, F, 12>(panel, groups, granule, first, &token)
                        }
                        8.. if L::TOKENS >= 8 => job.panel::<L, F, 8>(panel, groups, granule, first, &token),
                        4.. => job.panel::<L, F, 4>(panel, groups, granule, first, &token),
                        2.. => job.panel::<L, F, 2>(panel, groups, granule, first, &token),
                        _ => job.panel::<L, F, 1>(panel, groups, granule, first, &token),
                    }
                };
            }
            first += done;
        }
    }
}

/// A product under way.
struct Job<'j, 'a, 'o> {
    run: &'j RowRun<'a>,
    out: &'j mut Results<'o>,
}

impl Job<'_, '_, '_> {
    /// A granule, as it is packed, with `N` tokens from `first` on. Returns `N`.
    ///
    /// # Safety
    /// As for [`Lanes`]; `rows` points to the granule, of so many blocks.
    #[inline(always)]
    unsafe fn direct<L: Lanes, F: Format, const N: usize>(
        &mut self,
        rows: *const u8,
        blocks: usize,
        granule: usize,
        first: usize,
        token: &impl Fn(usize) -> Token,
    ) -> usize {
        let tokens: [Token; N] = std::array::from_fn(|index| token(first + index));
        // SAFETY: blocks and groups stay within the granule, and tokens have as many columns; the caller vouches.
        unsafe {
            let mut acc = [L::zero(); N];
            for block in 0..blocks {
                let block_at = rows.add(block * F::BLOCK_BYTES);
                for group in 0..F::GROUPS {
                    let at = F::group_at(block_at, group);
                    let column = block * F::GROUPS + group;
                    let scales = F::scales::<L>(block_at, at);
                    let mut sums = [[L::splat_i(0); N]; 2];
                    for q in 0..4 {
                        let quad = F::quad::<L>(at, q);
                        let pairs = [2 * q, 2 * q + 1, 8 + 2 * q, 9 + 2 * q];
                        for index in 0..4 {
                            for (sum, token) in sums[index / 2].iter_mut().zip(&tokens) {
                                let x = L::splat_from(token.codes.add(column * PAIRS + pairs[index]));
                                *sum = L::dot_add(*sum, quad[index], x);
                            }
                        }
                    }
                    if F::OFFSET != 0 {
                        for half in 0..2 {
                            for (sum, token) in sums[half].iter_mut().zip(&tokens) {
                                let offset = -F::OFFSET * (*token.sums.add(2 * column + half) as i32);
                                *sum = L::add_i(*sum, L::splat_i(offset));
                            }
                        }
                    }
                    add_group::<L, F, N>(&mut acc, &sums, &scales, &tokens, column);
                }
            }
            self.store::<L, N>(&acc, &tokens, granule, first);
        }
        N
    }

    /// A granule's panel with `N` tokens from `first` on. Returns `N`.
    ///
    /// # Safety
    /// As for [`Lanes`]; the panel is of so many groups.
    #[inline(always)]
    unsafe fn panel<L: Lanes, F: Format, const N: usize>(
        &mut self,
        panel: &[f32],
        groups: usize,
        granule: usize,
        first: usize,
        token: &impl Fn(usize) -> Token,
    ) -> usize {
        let tokens: [Token; N] = std::array::from_fn(|index| token(first + index));
        // SAFETY: groups stay within the panel, and tokens have as many columns; the caller vouches.
        unsafe {
            let mut acc = [L::zero(); N];
            let mut at = panel.as_ptr();
            for column in 0..groups {
                let mut sums = [[L::splat_i(0); N]; 2];
                for half in 0..2 {
                    let to = if F::HALVES { half } else { 0 };
                    for pair in half * PAIRS / 2..(half + 1) * PAIRS / 2 {
                        let codes = L::load_i(at.add(pair * LANES).cast());
                        for (sum, token) in sums[to].iter_mut().zip(&tokens) {
                            let x = L::splat_from(token.codes.add(column * PAIRS + pair));
                            *sum = L::dot_add(*sum, codes, x);
                        }
                    }
                }
                let scales = unpacked_scales::<L, F>(at.add(PAIRS * LANES));
                add_group::<L, F, N>(&mut acc, &sums, &scales, &tokens, column);
                at = at.add(panel_group::<F>());
            }
            self.store::<L, N>(&acc, &tokens, granule, first);
        }
        N
    }

    /// Scales the sums and stores them.
    ///
    /// # Safety
    /// As for [`Lanes`].
    #[inline(always)]
    unsafe fn store<L: Lanes, const N: usize>(
        &mut self,
        acc: &[L::F; N],
        tokens: &[Token; N],
        granule: usize,
        first: usize,
    ) {
        let rows = granule * LANES..self.run.n_rows.min((granule + 1) * LANES);
        for (index, (acc, token)) in acc.iter().zip(tokens).enumerate() {
            let out = &mut self.out.token(first + index)[rows.clone()];
            // SAFETY: only as many lanes as there are rows are read and stored; the caller vouches for the rest.
            unsafe {
                let [scale, power] = token.scale;
                let mut result = L::mul(L::mul(*acc, L::splat(scale)), L::splat(power));
                if let Some(bias) = self.run.bias {
                    result = L::add(result, L::load_first(bias[rows.clone()].as_ptr(), rows.len()));
                }
                L::store_first(out.as_mut_ptr(), result, rows.len());
            }
        }
    }
}

/// Adds a group's integer sums, scaled, and its minima.
///
/// # Safety
/// As for [`Lanes`]; the tokens have such a group.
#[inline(always)]
unsafe fn add_group<L: Lanes, F: Format, const N: usize>(
    acc: &mut [L::F; N],
    sums: &[[L::I; N]; 2],
    scales: &Scales<L>,
    tokens: &[Token; N],
    column: usize,
) {
    // SAFETY: the caller vouches.
    unsafe {
        for index in 0..N {
            let x = tokens[index].sums.add(2 * column);
            if F::HALVES {
                for half in 0..2 {
                    acc[index] = L::fma(L::to_float(sums[half][index]), scales.scale[half], acc[index]);
                    if F::MINS {
                        acc[index] = L::fma(L::splat(*x.add(half)), scales.min[half], acc[index]);
                    }
                }
            } else {
                let sum = L::add_i(sums[0][index], sums[1][index]);
                acc[index] = L::fma(L::to_float(sum), scales.scale[0], acc[index]);
                if F::MINS {
                    acc[index] = L::fma(L::splat(*x + *x.add(1)), scales.min[0], acc[index]);
                }
            }
        }
    }
}

/// Unpacks a granule into a panel.
///
/// # Safety
/// As for [`Lanes`]; `rows` points to the granule, of so many blocks.
#[inline(always)]
unsafe fn unpack<L: Lanes, F: Format>(rows: *const u8, blocks: usize, panel: &mut [f32]) {
    assert!(panel.len() >= blocks * F::GROUPS * panel_group::<F>(), "room for a panel");
    // SAFETY: blocks and groups stay within the granule, and the panel has room for them; the caller vouches.
    unsafe {
        let mut to = panel.as_mut_ptr();
        let offset = L::splat_i(F::OFFSET << 16 | F::OFFSET);
        for block in 0..blocks {
            let block_at = rows.add(block * F::BLOCK_BYTES);
            for group in 0..F::GROUPS {
                let at = F::group_at(block_at, group);
                for q in 0..4 {
                    let quad = F::quad::<L>(at, q);
                    for (codes, pair) in quad.into_iter().zip([2 * q, 2 * q + 1, 8 + 2 * q, 9 + 2 * q]) {
                        let codes = if F::OFFSET != 0 { L::sub_i16(codes, offset) } else { codes };
                        L::store_i(to.add(pair * LANES).cast(), codes);
                    }
                }
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
/// As for [`Lanes`].
#[inline(always)]
unsafe fn unpacked_scales<L: Lanes, F: Format>(at: *const f32) -> Scales<L> {
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
