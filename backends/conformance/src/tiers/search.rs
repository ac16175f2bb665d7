//! Search, beside every product computed.

use herald_api::Status;

use super::Case;
use super::page::Contents;
use crate::Outcome;
use crate::check::{Verdict, ensure};
use crate::values::Values;

const QUERIES: usize = 3;

/// The pages that queries would attend to most come first. A score is the greatest product, or a bound above it.
pub(super) fn check(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let width = case.shape.n_kv_heads * case.shape.key_dim;
    let queries = Values::new(9).many(QUERIES * width, -1.0, 1.0);
    let ids: Vec<u64> = (0..12).map(|index| 1000 - 7 * index).collect();
    for id in &ids {
        tier.put(*id, &Contents::random(&case.shape, case.tokens(*id), *id))?
            .ok(&format!("put of page {id}"))?;
    }
    let mut expected = Vec::new();
    for id in &ids {
        // What the tier holds is what it gives back.
        let held = tier.must_get(*id)?;
        let Some([keys, _]) = held.elements(&case.shape) else {
            return Err(Outcome::Skipped("a page of this shape can't be read".to_owned()));
        };
        expected.push((*id, best(case, &queries, &keys, held.n_tokens)));
    }
    let largest = expected.iter().fold(0.0_f32, |largest, (_, score)| largest.max(score.abs()));
    let rounding = 2e-3 * largest;
    let mut bounds = false;
    for k in [1, 3, ids.len(), ids.len() + 5] {
        let Some(answer) = tier.search(&queries, QUERIES, &ids, k)? else {
            return Err(Outcome::Skipped("not offered".to_owned()));
        };
        let found = answer.map_err(|answer| {
            Outcome::Failed(
                crate::Fault::WrongStatus,
                format!("search for the best {k} gave {}", answer.say()),
            )
        })?;
        for (at, (id, score)) in found.iter().enumerate() {
            let known = expected.iter().find(|(other, _)| other == id);
            let Some((_, exact)) = known else {
                ensure!(false, WrongResult, "search found the page {id}, which it was not to choose among");
                continue;
            };
            ensure!(
                !found[..at].iter().any(|(other, _)| other == id),
                WrongResult,
                "search found the page {id} twice"
            );
            ensure!(
                *score >= exact - rounding,
                WrongResult,
                "search scores page {id} with {score}, where its greatest product is {exact}"
            );
            ensure!(
                at == 0 || *score <= found[at - 1].1,
                WrongResult,
                "search gave a page scored {score} after one scored {}, where the best come first",
                found[at - 1].1
            );
            bounds |= *score > exact + rounding;
        }
        // Where scores are exact, the pages are the best ones.
        let worst = found.last().map_or(f32::INFINITY, |(_, score)| *score);
        let missed = expected
            .iter()
            .find(|(id, score)| *score > worst + rounding && !found.iter().any(|(other, _)| other == id));
        if let Some((id, score)) = missed {
            ensure!(
                false,
                WrongResult,
                "search for the best {k} missed page {id}, whose greatest product is {score}, and gave one scored {worst}"
            );
        }
    }
    none(&tier, &queries, &ids)?;
    Ok(if bounds { "scores are bounds".to_owned() } else { "scores are exact".to_owned() })
}

/// A search for nothing, among nothing, for a page that isn't there, without queries.
fn none(tier: &super::Made<'_>, queries: &[f32], ids: &[u64]) -> Verdict<()> {
    for (what, among, k) in [("for the best none", ids, 0), ("among no pages", &[][..], 3)] {
        if let Some(Err(answer)) = tier.search(queries, QUERIES, among, k)? {
            answer.ok(&format!("search {what}"))?;
        }
    }
    for (what, among, n_queries, allowed) in [
        ("among pages of which one isn't there", &[ids[0], 5][..], QUERIES, Status::NotFound),
        ("without queries", ids, 0, Status::InvalidArgument),
    ] {
        match tier.search(queries, n_queries, among, 2)? {
            Some(Err(answer)) => answer.refused(&format!("search {what}"), &[allowed])?,
            Some(Ok(_)) => {
                ensure!(false, WrongStatus, "search {what} gave OK, where {allowed:?} was expected")
            }
            None => {}
        }
    }
    Ok(())
}

/// The greatest product of a query with a key of its head.
fn best(case: &Case<'_>, queries: &[f32], keys: &[f32], n_tokens: usize) -> f32 {
    let (dim, tokens) = (case.shape.key_dim, case.shape.page_tokens);
    let mut best = f64::NEG_INFINITY;
    for (row, key) in keys.chunks_exact(dim).enumerate().filter(|(row, _)| row % tokens < n_tokens) {
        for query in queries.chunks_exact(case.shape.n_kv_heads * dim) {
            let query = &query[row / tokens * dim..][..dim];
            let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
            best = best.max(product);
        }
    }
    best as f32
}
