//! Files of pages: they are there when they are opened again.

use herald_api::Status;

use super::Case;
use super::contents::same;
use super::made::Made;
use super::page::Contents;
use crate::check::{Verdict, ensure};

/// How many pages the files of these checks have.
pub(super) const PAGES: u64 = 20;

/// The page of an id.
pub(super) fn page(case: &Case<'_>, id: u64) -> Contents {
    Contents::random(&case.shape, case.tokens(id), id)
}

/// Writes a file with pages 0 to `PAGES - 1`, and gives them as the tier gave them before it closed.
pub(super) fn written(case: &Case<'_>, file: &str) -> Verdict<Vec<Contents>> {
    let tier = case.tier(file)?;
    for id in 0..PAGES {
        tier.put(id, &page(case, id))?.ok(&format!("put of page {id}"))?;
    }
    if let Some(answer) = tier.flush()? {
        answer.ok("flush")?;
    }
    (0..PAGES).map(|id| tier.must_get(id)).collect()
}

/// Opened again, a file has what was put and not dropped, to the bit; and goes on taking pages.
pub(super) fn again(case: &Case<'_>) -> Verdict {
    let before = written(case, "pages")?;
    let tier = case.tier("pages")?;
    let all: Vec<u64> = (0..PAGES).collect();
    holds(case, &tier, &all, &before)?;
    let kept: Vec<u64> = all.into_iter().filter(|id| id % 3 != 1).collect();
    for id in (0..PAGES).filter(|id| id % 3 == 1) {
        tier.drop_page(id)?.ok(&format!("drop of page {id}, which was in the file,"))?;
    }
    // Without flush: closing the tier is enough.
    tier.put(PAGES, &page(case, PAGES))?.ok("put in a file that was opened again")?;
    let last = tier.must_get(PAGES)?;
    drop(tier);
    let tier = case.tier("pages")?;
    holds(case, &tier, &kept.iter().copied().chain([PAGES]).collect::<Vec<_>>(), &before)?;
    ensure!(
        same(case, &last, &tier.must_get(PAGES)?),
        LosesData,
        "page {PAGES} came back otherwise when the file was opened again"
    );
    Ok(format!("{PAGES} pages"))
}

/// Fails unless the tier has exactly these pages, and those of `before` as they were.
fn holds(case: &Case<'_>, tier: &Made<'_>, ids: &[u64], before: &[Contents]) -> Verdict<()> {
    if let Some((mut listed, n)) = tier.list(ids.len())? {
        listed.sort_unstable();
        ensure!(
            listed == ids,
            LosesData,
            "the file, opened again, lists the pages {listed:?}, where {ids:?} were put and not dropped"
        );
        ensure!(n == ids.len(), WrongLength, "list says that there are {n} pages, and gives {}", ids.len());
    }
    for (id, before) in ids.iter().filter_map(|id| Some((*id, before.get(*id as usize)?))) {
        ensure!(
            same(case, before, &tier.must_get(id)?),
            LosesData,
            "page {id} came back otherwise when the file was opened again"
        );
    }
    Ok(())
}

/// Paths where no file can be; and a folder, in which nothing stays.
pub(super) fn paths(case: &Case<'_>) -> Verdict {
    let folder = case.wanted("").path;
    let a_file = std::path::Path::new(&folder).join("file");
    std::fs::write(&a_file, "x").map_err(|error| {
        crate::Outcome::Skipped(format!("no file can be made in a temporary folder: {error}"))
    })?;
    let allowed = [Status::Io, Status::InvalidArgument];
    for path in ["no-such-folder/pages", "file/pages", "a\0b"] {
        let mut wanted = case.wanted(path);
        wanted.path = format!("{folder}/{path}");
        refused(case, &wanted, &allowed)?;
    }
    let mut nowhere = case.wanted("");
    nowhere.path.clear();
    refused(case, &nowhere, &allowed)?;
    std::fs::remove_file(&a_file).ok();

    let tier = case.tier("")?;
    for id in 0..PAGES {
        tier.put(id, &page(case, id))?.ok(&format!("put of page {id} of an archive in a folder"))?;
    }
    for id in 0..PAGES {
        super::contents::near(case, id, &page(case, id), &tier.must_get(id)?)?;
    }
    drop(tier);
    let left: Vec<_> = std::fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect())
        .unwrap_or_default();
    ensure!(
        left.is_empty(),
        Leaks,
        "an archive in a folder left {left:?} there, where its file was to go with it"
    );
    Ok(String::new())
}

fn refused(case: &Case<'_>, wanted: &super::Wanted, allowed: &[Status]) -> Verdict<()> {
    let what = format!("an archive at {:?}", wanted.path);
    match Made::create(case.table, wanted)? {
        Err(answer) => answer.refused(&format!("create of {what}"), allowed),
        // A tier that makes its file with the first page says so then.
        Ok(tier) => {
            let put = tier.put(0, &page(case, 0))?;
            let answer = match tier.flush()? {
                Some(flush) if put.is_ok() => flush,
                _ => put,
            };
            answer.refused(&format!("put and flush of a page of {what}"), allowed)
        }
    }
}
