//! Many threads on one tier.

use std::sync::Barrier;

use super::Case;
use super::contents::{near, same};
use super::page::Contents;
use crate::check::{Verdict, ensure, on_threads};

const THREADS: u64 = 4;
const ROUNDS: u64 = 60;

/// Threads that put, get and drop pages of their own, and read pages that all share, see only what was put.
pub(super) fn check(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let shared = Contents::random(&case.shape, case.shape.page_tokens, 77);
    tier.put(u64::MAX, &shared)?.ok("put of the shared page")?;
    let before = tier.must_get(u64::MAX)?;
    let together = Barrier::new(THREADS as usize);
    let work = |thread: u64| -> Verdict<()> {
        together.wait();
        for round in 0..ROUNDS {
            let id = thread * ROUNDS + round;
            let page = Contents::random(&case.shape, case.tokens(id), id);
            tier.put(id, &page)?.ok(&format!("put of page {id}"))?;
            near(case, id, &page, &tier.must_get(id)?)?;
            ensure!(
                same(case, &before, &tier.must_get(u64::MAX)?),
                LosesData,
                "a page that {THREADS} threads read came back otherwise while others were put and dropped"
            );
            // Half of the pages stay.
            if round % 2 == 0 {
                tier.drop_page(id)?.ok(&format!("drop of page {id}"))?;
            }
        }
        Ok(())
    };
    on_threads(THREADS, work)?;
    for id in (0..THREADS * ROUNDS).filter(|id| id % ROUNDS % 2 == 1) {
        let page = Contents::random(&case.shape, case.tokens(id), id);
        near(case, id, &page, &tier.must_get(id)?)?;
    }
    if let Some(stats) = tier.stats()? {
        let kept = THREADS * ROUNDS / 2 + 1;
        ensure!(
            stats.pages == kept,
            WrongLength,
            "stats says {} pages after {THREADS} threads left {kept}",
            stats.pages
        );
    }
    Ok(format!("{THREADS} at once"))
}
