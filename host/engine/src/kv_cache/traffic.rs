//! Counting the pages that move between memory tiers.

use std::sync::atomic::{AtomicU64, Ordering};

use herald_api::TierKind;
use serde::Serialize;

const KINDS: usize = TierKind::ALL.len();

/// Counts what moves between an engine's memory tiers. Whoever moves a page calls [`TierTraffic::record_move`].
#[derive(Debug, Default)]
pub struct TierTraffic {
    counts: [[Count; KINDS]; KINDS],
    /// Pages that layers selected, by the tier that they were in.
    fetched: [AtomicU64; KINDS],
}

#[derive(Debug, Default)]
struct Count {
    pages: AtomicU64,
    bytes: AtomicU64,
}

/// What has moved from one tier to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// From this tier.
    #[serde(serialize_with = "name")]
    pub from: TierKind,
    /// To this tier.
    #[serde(serialize_with = "name")]
    pub to: TierKind,
    /// Pages.
    pub pages: u64,
    /// Bytes that they take where they went.
    pub bytes: u64,
}

fn name<S: serde::Serializer>(kind: &TierKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

fn index(kind: TierKind) -> usize {
    TierKind::ALL.iter().position(|other| *other == kind).unwrap_or(0)
}

impl TierTraffic {
    /// Counts pages that have moved, and the bytes that they take where they went. Any thread.
    pub fn record_move(&self, from: TierKind, to: TierKind, pages: u64, bytes: u64) {
        let count = &self.counts[index(from)][index(to)];
        count.pages.fetch_add(pages, Ordering::Relaxed);
        count.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts pages of this tier that a layer has selected. Any thread.
    pub fn record_fetch(&self, from: TierKind, pages: u64) {
        self.fetched[index(from)].fetch_add(pages, Ordering::Relaxed);
    }

    /// How many pages of this tier layers have selected.
    #[must_use]
    pub fn fetched(&self, from: TierKind) -> u64 {
        self.fetched[index(from)].load(Ordering::Relaxed)
    }

    /// What has moved so far, for each pair of tiers between which anything has.
    #[must_use]
    pub fn report(&self) -> Vec<Traffic> {
        let pairs = TierKind::ALL.into_iter().flat_map(|from| TierKind::ALL.map(|to| (from, to)));
        pairs
            .map(|(from, to)| {
                let count = &self.counts[index(from)][index(to)];
                let (pages, bytes) =
                    (count.pages.load(Ordering::Relaxed), count.bytes.load(Ordering::Relaxed));
                Traffic { from, to, pages, bytes }
            })
            .filter(|traffic| traffic.pages > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_add_up_by_pair() {
        let traffic = TierTraffic::default();
        assert_eq!(traffic.report(), []);
        traffic.record_move(TierKind::Active, TierKind::Compressed, 2, 20);
        traffic.record_move(TierKind::Active, TierKind::Compressed, 1, 10);
        traffic.record_move(TierKind::Archived, TierKind::Active, 1, 40);
        let expected = [
            Traffic { from: TierKind::Active, to: TierKind::Compressed, pages: 3, bytes: 30 },
            Traffic { from: TierKind::Archived, to: TierKind::Active, pages: 1, bytes: 40 },
        ];
        assert_eq!(traffic.report(), expected);
        let json = serde_json::to_string(&traffic.report()[0]).unwrap();
        assert_eq!(json, r#"{"from":"active","to":"compressed","pages":3,"bytes":30}"#);
    }
}
