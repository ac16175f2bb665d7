//! A disk that is full.

use herald_api::Status;

use super::Case;
use super::archive::page;
use super::contents::same;
use super::made::Made;
use super::page::Contents;
use crate::Outcome;
use crate::check::{Verdict, ensure};
use crate::system::FullDisk;

/// How long a file may become.
const LIMIT: u64 = 6 << 20;

/// A page for which the disk has no room is an error; those before it stay, in the tier and in the file.
pub(super) fn full(case: &Case<'_>) -> Verdict {
    if !case.alone {
        return Err(Outcome::Skipped("other threads of this process may write files too".to_owned()));
    }
    let Some(disk) = FullDisk::begin(LIMIT) else {
        return Err(Outcome::Skipped("this system has no limit on the length of files".to_owned()));
    };
    let (keys, values) = case.shape.page_bytes();
    // With 4 bits for each element three times as much.
    let most = 12 * LIMIT / (keys + values) as u64;
    let tier = case.tier("pages")?;
    let allowed = [Status::Io, Status::OutOfMemory];
    let mut held = 0;
    let mut refused = None;
    while held < most && refused.is_none() {
        let answer = tier.put(held, &page(case, held % 64))?;
        if answer.is_ok() {
            held += 1;
        } else {
            answer.refused("put on a full disk", &allowed)?;
            refused = Some(answer);
        }
    }
    let flushed = match tier.flush()? {
        Some(answer) if answer.is_ok() => true,
        Some(answer) => {
            answer.refused("flush on a full disk", &allowed)?;
            refused.get_or_insert(answer);
            false
        }
        None => false,
    };
    let Some(refused) = refused else {
        ensure!(
            false,
            LosesData,
            "put and flush gave OK for {most} pages of {} bytes, where a file may have {LIMIT} bytes",
            keys + values
        );
        unreachable!("`ensure` returned")
    };
    let before = stays(case, &tier, held, "on a full disk")?;
    // Room for one is there again.
    for id in 0..4 {
        tier.drop_page(id)?.ok("drop on a full disk")?;
    }
    tier.put(most + 1, &page(case, 1))?.ok("put on a full disk, after four pages were dropped,")?;
    drop(tier);
    drop(disk);
    let tier = case.tier("pages")?;
    if flushed {
        for (id, before) in before.iter().enumerate().skip(4).step_by(7) {
            let got = tier.must_get(id as u64)?;
            ensure!(same(case, before, &got), LosesData, "page {id}, put before the disk was full, changed");
        }
    }
    Ok(format!("{held} pages, then: {}", refused.message))
}

/// The pages that a tier has, each as it was put.
fn stays(case: &Case<'_>, tier: &Made<'_>, held: u64, when: &str) -> Verdict<Vec<Contents>> {
    // Every page's contents are those of one of 64 ids.
    let mut first: Vec<Contents> = Vec::new();
    let mut all = Vec::new();
    for id in 0..held {
        let got = tier.must_get(id)?;
        match first.get(id as usize % 64) {
            Some(other) if id >= 64 => {
                ensure!(
                    same(case, other, &got),
                    LosesData,
                    "{when}, page {id} came back as something else than was put"
                );
            }
            _ => {
                super::contents::near(case, id, &page(case, id), &got)?;
                first.push(tier.must_get(id)?);
            }
        }
        all.push(got);
    }
    Ok(all)
}
