//! Which bytes of a file are free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Runs of bytes begin at multiples of this: what pages ask for in memory (they are read where they lie).
pub(super) const UNIT: u64 = 64;

/// The free runs of a file, none of which touches another.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Length by start.
    by_start: BTreeMap<u64, u64>,
    /// The same runs as (length, start), for the smallest that suffices.
    by_len: BTreeSet<(u64, u64)>,
}

impl Space {
    /// What a run of `len` bytes takes.
    pub(super) fn rounded(len: u64) -> u64 {
        len.next_multiple_of(UNIT)
    }

    fn insert(&mut self, start: u64, len: u64) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn remove(&mut self, start: u64) -> Option<u64> {
        let len = self.by_start.remove(&start)?;
        self.by_len.remove(&(len, start));
        Some(len)
    }

    /// Takes `len` bytes, rounded up, from the smallest run that has room; `None` where none has.
    pub(super) fn take(&mut self, len: u64) -> Option<u64> {
        let len = Self::rounded(len);
        let (found, start) = self.by_len.range((len, 0)..).next().copied()?;
        self.remove(start);
        if found > len {
            self.insert(start + len, found - len);
        }
        Some(start)
    }

    /// Takes these bytes, rounded up; `false` where they aren't all free.
    pub(super) fn take_at(&mut self, start: u64, len: u64) -> bool {
        let len = Self::rounded(len);
        let Some((first, found)) = self.by_start.range(..=start).next_back().map(|(a, b)| (*a, *b)) else {
            return false;
        };
        let Some(rest) = (first + found).checked_sub(start).and_then(|room| room.checked_sub(len)) else {
            return false;
        };
        self.remove(first);
        if start > first {
            self.insert(first, start - first);
        }
        if rest > 0 {
            self.insert(start + len, rest);
        }
        true
    }

    /// Gives bytes back that were taken, or that are new. `len`: as it was taken.
    pub(super) fn give(&mut self, start: u64, len: u64) {
        let mut run: Range<u64> = start..start + Self::rounded(len);
        if let Some((before, len)) = self.by_start.range(..start).next_back().map(|(a, b)| (*a, *b))
            && before + len == run.start
        {
            self.remove(before);
            run.start = before;
        }
        if let Some(len) = self.remove(run.end) {
            run.end += len;
        }
        self.insert(run.start, run.end - run.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(space: &Space) -> Vec<(u64, u64)> {
        assert_eq!(space.by_start.len(), space.by_len.len());
        space.by_start.iter().map(|(start, len)| (*start, *len)).collect()
    }

    #[test]
    fn what_is_given_back_is_one_run_again() {
        let mut space = Space::default();
        space.give(0, 1024);
        let places: Vec<u64> = (0..4).map(|_| space.take(200).expect("room")).collect();
        assert_eq!(places, [0, 256, 512, 768]);
        assert_eq!(space.take(1), None);
        space.give(256, 200);
        space.give(768, 200);
        assert_eq!(runs(&space), [(256, 256), (768, 256)]);
        space.give(512, 200);
        assert_eq!(runs(&space), [(256, 768)]);
        space.give(0, 200);
        assert_eq!(runs(&space), [(0, 1024)]);
    }

    #[test]
    fn the_smallest_run_that_suffices_is_taken() {
        let mut space = Space::default();
        space.give(0, 640);
        space.give(1000 * UNIT, 128);
        assert_eq!(space.take(100), Some(1000 * UNIT));
        assert_eq!(space.take(100), Some(0));
    }

    #[test]
    fn a_given_run_is_taken_once() {
        let mut space = Space::default();
        space.give(0, 640);
        assert!(space.take_at(128, 100));
        assert!(!space.take_at(192, 64) && !space.take_at(64, 128) && !space.take_at(640, 1));
        assert!(space.take_at(0, 128) && space.take_at(256, 384));
        assert_eq!(runs(&space), []);
    }
}
