//! How a loop's items are divided.
//!
//! Each worker begins with an even share, and takes from its front half of what is left of it, again and again. One that has
//! none left takes from the end of another's. So where processors are equally fast nobody moves far from the rows that its cache may
//! still have, and where they aren't (one has other work, or shares its core with somebody) all end together.

use std::ops::Range;

use super::sync::{AtomicU64, Ordering};

/// The smallest pieces are about a share divided by this.
const PIECES: usize = 8;

/// Items that kernels take at once, where a share has as many as [`TOGETHER_FROM`]: no piece is smaller.
const TOGETHER: usize = 4;
const TOGETHER_FROM: usize = 16;

/// As many units as there may be: far fewer than a share's bits can count, so that no sum overflows.
const MAX_UNITS: usize = 1 << 30;

/// The items of worker `worker` of `workers`, where `items` are divided into contiguous shares whose sizes differ by at
/// most one, the larger ones first. Empty for a worker at or above `workers`.
pub(super) fn share_of(items: usize, worker: usize, workers: usize) -> Range<usize> {
    if worker >= workers {
        return items..items;
    }
    let (size, larger) = (items / workers, items % workers);
    // At most `items`, so it cannot overflow.
    let start = worker * size + worker.min(larger);
    start..start + size + usize::from(worker < larger)
}

/// What each worker has left of its share of a loop.
#[derive(Debug)]
pub(super) struct Shares(Vec<Share>);

/// A range of units: the first in the low half of the number, and the end in the high one. Its owner takes from the front and others from
/// the end. It has cache lines of its own, of which processors may fetch two at once.
#[derive(Debug)]
#[repr(align(128))]
struct Share(AtomicU64);

/// What all pieces of a loop have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Division {
    items: usize,
    workers: usize,
    /// Items of a unit: more than one where there are more than [`MAX_UNITS`].
    unit: usize,
    /// The least units that are taken at once, where as many are left.
    grain: u32,
}

impl Shares {
    /// For loops of at most as many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Share::new()).collect())
    }

    /// Gives each of `workers` its share of `items`. All must have left the loop before, and learn of this one by something that makes
    /// visible what was written before.
    pub(super) fn divide(&self, items: usize, workers: usize) -> Division {
        let division = Division::of(items, workers);
        let units = items.div_ceil(division.unit);
        for (worker, share) in self.0[..workers].iter().enumerate() {
            let units = share_of(units, worker, workers);
            share.put(units.start as u32..units.end as u32);
        }
        division
    }

    /// The next items for a worker: of its own share, or else of another's. `None` once others have taken all that are left.
    pub(super) fn take(&self, division: &Division, worker: usize) -> Option<Range<usize>> {
        let own = &self.0[worker];
        let units = own.take(|units| division.front(units)).or_else(|| {
            let mut others = (worker + 1..division.workers).chain(0..worker);
            let taken = others.find_map(|other| self.0[other].take(|units| division.back(units)))?;
            // Some at once, and not only into its own share: others might take all of that before it does.
            let [first, rest] = division.front(&taken);
            own.put(rest);
            Some(first)
        })?;
        Some(division.items_of(&units))
    }
}

impl Division {
    fn of(items: usize, workers: usize) -> Self {
        let unit = items.div_ceil(MAX_UNITS).max(1);
        let share = items.div_ceil(unit) / workers;
        // One worker has nobody to leave pieces for.
        let pieces = if workers > 1 { PIECES } else { 1 };
        let least = if share < TOGETHER_FROM { 1 } else { TOGETHER };
        let grain = (share / pieces).max(1).next_multiple_of(least) as u32;
        Self { items, workers, unit, grain }
    }

    /// The first half of what a worker has left, and the rest.
    fn front(&self, units: &Range<u32>) -> [Range<u32>; 2] {
        let len = units.end - units.start;
        let half = len.div_ceil(2).next_multiple_of(self.grain).min(len);
        let cut = units.start + half;
        [units.start..cut, cut..units.end]
    }

    /// The last half of what another has left, and the rest.
    fn back(&self, units: &Range<u32>) -> [Range<u32>; 2] {
        let half = (units.end - units.start) / 2 / self.grain * self.grain;
        let cut = units.start + half;
        [cut..units.end, units.start..cut]
    }

    fn items_of(&self, units: &Range<u32>) -> Range<usize> {
        units.start as usize * self.unit..self.items.min((units.end as usize).saturating_mul(self.unit))
    }
}

/// All orders here are relaxed: a share's number is all there is to know about it, and the items' own data is published with the loop.
impl Share {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Fills it, while it is empty and its owner's alone to fill.
    fn put(&self, units: Range<u32>) {
        self.0.store(Self::number(&units), Ordering::Relaxed);
    }

    /// Takes the first of two parts that `divide` makes of it, unless it is empty.
    fn take(&self, divide: impl Fn(&Range<u32>) -> [Range<u32>; 2]) -> Option<Range<u32>> {
        let rest = |number| {
            let units = Self::units(number);
            (!units.is_empty()).then(|| Self::number(&divide(&units)[1]))
        };
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).ok()?;
        let [taken, _] = divide(&Self::units(before));
        Some(taken)
    }

    fn number(units: &Range<u32>) -> u64 {
        u64::from(units.end) << 32 | u64::from(units.start)
    }

    fn units(number: u64) -> Range<u32> {
        number as u32..(number >> 32) as u32
    }
}
