//! Blocks whose weights are points of a codebook with free signs, several at a time, times odd scales of 4 bits and a float16
//! number.
//!
//! A group tries a range of scales, and for each takes the points nearest to its weights, in the measure of their importance.
//! As in [`supers`](super::supers), a group then picks among the scales that there are by the error that they really
//! leave, and the block's number is fitted to all points at once.

use half::f16;

use super::grid::sums;
use super::supers::{least, reaching};
use super::{fit, group};

/// Points that are looked at around each place of the lattice of levels.
const NEAR: usize = 16;
/// Scales that a group tries, and the part of the magnitude that the first and the last put at the largest level.
const CANDIDATES: u32 = 16;
const REACHES: [f32; 2] = [0.55, 1.4];
/// Times that points and scale are fitted to each other, after the best candidate is known.
const REFINEMENTS: usize = 3;
/// The largest scale: `2 s + 1`, with `s` of 4 bits.
const MAX_ODD_SCALE: f32 = 31.0;

/// A codebook, with what finding the point nearest to some magnitudes takes.
pub(crate) struct Codebook<const DIM: usize> {
    levels: Vec<f32>,
    points: Vec<[f32; DIM]>,
    /// For each place of the lattice of levels, the points nearest to it, the nearest first.
    near: Vec<[u16; NEAR]>,
}

impl<const DIM: usize> Codebook<DIM> {
    /// The codebook with these points, whose coordinates have these levels, in growing order.
    pub(crate) fn new(points: &[[i8; DIM]], levels: &[i8]) -> Self {
        let points: Vec<[f32; DIM]> = points.iter().map(|point| point.map(f32::from)).collect();
        let levels: Vec<f32> = levels.iter().copied().map(f32::from).collect();
        let near = (0..levels.len().pow(DIM as u32)).map(|place| {
            let mut rest = place;
            let at: [f32; DIM] = std::array::from_fn(|_| {
                let level = levels[rest % levels.len()];
                rest /= levels.len();
                level
            });
            let mut order: Vec<(u32, u16)> = points
                .iter()
                .zip(0..)
                .map(|(point, index)| (off(&at, &[1.0; DIM], point) as u32, index))
                .collect();
            order.select_nth_unstable(NEAR - 1);
            order[..NEAR].sort_unstable();
            std::array::from_fn(|i| order[i].1)
        });
        let near = near.collect();
        Self { levels, points, near }
    }

    /// The place of the lattice that is nearest to magnitudes.
    #[inline(always)]
    fn place(&self, v: &[f32; DIM]) -> usize {
        let mut place = 0;
        for &v in v.iter().rev() {
            let level: usize =
                self.levels.windows(2).map(|pair| usize::from(2.0 * v > pair[0] + pair[1])).sum();
            place = place * self.levels.len() + level;
        }
        place
    }

    /// The index of the point nearest to magnitudes, of those near their place.
    #[inline(always)]
    fn near(&self, v: &[f32; DIM], w: &[f32; DIM]) -> u16 {
        self.best(v, w, self.near[self.place(v)].iter().copied())
    }

    /// The index of the nearest of all points.
    fn nearest(&self, v: &[f32; DIM], w: &[f32; DIM]) -> u16 {
        self.best(v, w, 0..self.points.len() as u16)
    }

    #[inline(always)]
    fn best(&self, v: &[f32; DIM], w: &[f32; DIM], of: impl Iterator<Item = u16>) -> u16 {
        let (mut best, mut error) = (0, f32::INFINITY);
        for index in of {
            let its = off(v, w, &self.points[usize::from(index)]);
            if its < error {
                (best, error) = (index, its);
            }
        }
        best
    }
}

/// `sum(w (v - point)^2)`.
#[inline(always)]
fn off<const DIM: usize>(v: &[f32; DIM], w: &[f32; DIM], point: &[f32; DIM]) -> f32 {
    let mut sum = 0.0;
    for i in 0..DIM {
        let off = v[i] - point[i];
        sum += w[i] * off * off;
    }
    sum
}

/// Weights `d unit (2 s + 1) point`, with signs.
pub(crate) struct Block<const GROUPS: usize> {
    pub(crate) d: f16,
    /// Each group's `s`.
    pub(crate) scales: [u8; GROUPS],
    /// The indices of the points; there are as many as 256 weights take.
    pub(crate) points: [u16; 64],
    /// The signs of each eight weights: a set bit is a minus.
    pub(crate) signs: [u8; 32],
}

/// A group of weights that is fitted.
struct Group<'b, const SIZE: usize, const DIM: usize> {
    book: &'b Codebook<DIM>,
    /// The magnitudes.
    x: [f32; SIZE],
    w: [f32; SIZE],
}

impl<const SIZE: usize, const DIM: usize> Group<'_, SIZE, DIM> {
    /// The points' coordinates that are near the magnitudes for a step of theirs.
    #[inline(always)]
    fn codes(&self, step: f32) -> [f32; SIZE] {
        let inverse = 1.0 / step;
        let mut codes = [0.0; SIZE];
        let runs = self.x.as_chunks::<DIM>().0.iter().zip(self.w.as_chunks::<DIM>().0);
        for ((x, w), codes) in runs.zip(codes.as_chunks_mut::<DIM>().0) {
            *codes = self.book.points[usize::from(self.book.near(&x.map(|x| x * inverse), w))];
        }
        codes
    }

    /// The sums of `w x q` and `w q^2`.
    #[inline(always)]
    fn products(&self, q: &[f32; SIZE]) -> [f32; 2] {
        sums::<SIZE, 2>(|i| [self.w[i] * self.x[i] * q[i], self.w[i] * q[i] * q[i]])
    }

    /// The error for a step.
    fn error(&self, step: f32) -> f32 {
        let q = self.codes(step);
        let [error] = sums::<SIZE, 1>(|i| {
            let off = self.x[i] - step * q[i];
            [self.w[i] * off * off]
        });
        error
    }

    /// The step of least error that was found; 0 for weights that are too small for any.
    fn step(&self) -> f32 {
        let largest = self.x.iter().fold(0.0_f32, |largest, &x| largest.max(x));
        if largest < fit::NOTHING {
            return 0.0;
        }
        let most = self.book.levels.last().copied().unwrap_or(1.0);
        let (mut best, mut gain) = (0.0, 0.0);
        let mut consider = |step: f32| {
            let [xq, qq] = self.products(&self.codes(step));
            let better = xq * xq > gain * qq;
            if better {
                (best, gain) = (xq / qq, xq * xq / qq);
            }
            (better, best)
        };
        for candidate in 0..=CANDIDATES {
            let reach = REACHES[0] + (REACHES[1] - REACHES[0]) * candidate as f32 / CANDIDATES as f32;
            consider(largest * reach / most);
        }
        let (mut better, mut step) = consider(largest / most);
        for _ in 0..REFINEMENTS {
            if step > 0.0 {
                (better, step) = consider(step);
            }
            if !better {
                break;
            }
        }
        step
    }
}

/// The block of these 256 weights, whose errors count by `columns`.
pub(crate) fn quantize<const DIM: usize, const SIZE: usize, const GROUPS: usize>(
    book: &Codebook<DIM>,
    unit: f32,
    weights: &[f32],
    columns: Option<&[f32]>,
) -> Block<GROUPS> {
    let groups: [Group<'_, SIZE, DIM>; GROUPS] = std::array::from_fn(|i| {
        let x = group(&weights[SIZE * i..][..SIZE]);
        let columns = columns.map(|columns| &columns[SIZE * i..][..SIZE]);
        Group { book, w: fit::importance(&x, columns), x: x.map(f32::abs) }
    });
    let ideal = groups.each_ref().map(Group::step);
    let largest = ideal.iter().fold(0.0_f32, |most, &step| most.max(step));
    if largest == 0.0 {
        return Block { d: f16::ZERO, scales: [0; GROUPS], points: [0; 64], signs: [0; 32] };
    }
    let mut d = reaching(largest / (MAX_ODD_SCALE * unit));
    let step = |d: f16, s: f32| d.to_f32() * (2.0 * s + 1.0) * unit;
    let mut scales = [0.0; GROUPS];
    let mut total = 0.0;
    for (group, scale) in scales.iter_mut().enumerate() {
        let middle = ((ideal[group] / (d.to_f32() * unit) - 1.0) / 2.0).round();
        let near = [middle, middle - 1.0, middle + 1.0].map(|s| s.clamp(0.0, (MAX_ODD_SCALE - 1.0) / 2.0));
        let (best, its) = least(near, |s| groups[group].error(step(d, s)));
        *scale = best;
        total += its;
    }
    for _ in 0..REFINEMENTS {
        let (mut xu, mut uu) = (0.0, 0.0);
        for (group, &s) in groups.iter().zip(&scales) {
            let [xq, qq] = group.products(&group.codes(step(d, s)));
            let scale = (2.0 * s + 1.0) * unit;
            xu += scale * xq;
            uu += scale * scale * qq;
        }
        let better = reaching(if uu > 0.0 { xu / uu } else { 0.0 });
        let its: f32 = groups.iter().zip(&scales).map(|(group, &s)| group.error(step(better, s))).sum();
        if its >= total {
            break;
        }
        (d, total) = (better, its);
    }
    let mut block = Block { d, scales: scales.map(|s| s as u8), points: [0; 64], signs: signs_of(weights) };
    for (index, (group, &s)) in groups.iter().zip(&scales).enumerate() {
        let inverse = 1.0 / step(d, s);
        let runs = group.x.as_chunks::<DIM>().0.iter().zip(group.w.as_chunks::<DIM>().0);
        for ((x, w), point) in runs.zip(&mut block.points[index * SIZE / DIM..]) {
            *point = book.nearest(&x.map(|x| x * inverse), w);
        }
    }
    block
}

/// The signs of 256 weights.
fn signs_of(weights: &[f32]) -> [u8; 32] {
    std::array::from_fn(|run| {
        let run = &weights[8 * run..][..8];
        run.iter().zip(0..).fold(0, |signs, (&weight, bit)| signs | u8::from(weight < 0.0) << bit)
    })
}
