//! Memory tiers: pages in RAM, as attention writes them (active) and as 4-bit codes (compressed), and in a file
//! (archived).

mod archive;
mod codes;
mod q4;
mod ram;

use herald_api::{Error, Found, MemoryTier, Result, Status, TierConfig, TierFactory, TierKind};

use archive::ArchiveTier;
use ram::RamTier;

/// The tiers that every backend offers.
pub struct Tiers;

impl TierFactory for Tiers {
    const KINDS: &'static [TierKind] = &TierKind::ALL;

    fn create(config: &TierConfig) -> Result<Box<dyn MemoryTier>> {
        if config.kind != TierKind::Active && config.state_bytes > 0 {
            return Err(Error::unsupported(format!(
                "there is no {} memory tier for recurrent states",
                config.kind.name()
            )));
        }
        Ok(match config.kind {
            TierKind::Active | TierKind::Compressed => Box::new(RamTier::new(config)?),
            TierKind::Archived => Box::new(ArchiveTier::open(config)?),
        })
    }
}

fn not_found(id: u64) -> Error {
    Error::new(Status::NotFound, format!("the memory tier holds no page {id}"))
}

fn overflows(config: &TierConfig) -> Error {
    Error::invalid(format!("a page of {config:?} overflows"))
}

/// The `k` with the greatest scores, best first.
fn best(mut found: Vec<Found>, k: usize) -> Vec<Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    found.truncate(k);
    found
}
