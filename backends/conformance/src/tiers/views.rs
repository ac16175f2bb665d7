//! Pages where the tier itself keeps them.

use herald_api::abi;
use herald_api::{Status, TierKind};

use super::Case;
use super::contents::{near, same};
use super::page::Contents;
use crate::Outcome;
use crate::check::{Verdict, ensure};

/// A page that is viewed holds what was put, stays where it is, and goes through the tier's own format unchanged.
pub(super) fn check(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let page = Contents::random(&case.shape, case.shape.page_tokens, 1);
    tier.put(1, &page)?.ok("put of page 1")?;
    let seen = match tier.view(1)? {
        Ok(seen) => seen,
        Err(answer) => {
            answer.refused("view of page 1", &[Status::Unsupported])?;
            ensure!(
                case.kind != TierKind::Active,
                Refuses,
                "view of a page of an active tier gave {}, where attention has to write it",
                answer.say()
            );
            return Err(Outcome::Skipped(answer.message));
        }
    };
    // SAFETY: it was viewed just now.
    let there = unsafe { tier.seen(&seen) };
    near(case, 1, &page, &there)?;
    let got = tier.must_get(1)?;
    near_enough(case, &there, &got)?;
    for id in 2..300 {
        tier.put(id, &page)?.ok(&format!("put of page {id}"))?;
    }
    for id in (2..300).step_by(3) {
        tier.drop_page(id)?.ok(&format!("drop of page {id}"))?;
    }
    if let Some(answer) = tier.flush()? {
        answer.ok("flush")?;
    }
    // SAFETY: it was viewed and neither dropped nor released.
    let still = unsafe { tier.seen(&seen) };
    ensure!(
        *still.keys == *there.keys && *still.values == *there.values,
        LosesData,
        "the bytes of page 1, which is viewed, changed while others came and went"
    );
    let again = tier.view(1)?.map_err(|answer| {
        Outcome::Failed(crate::Fault::LosesData, format!("the second view of page 1 gave {}", answer.say()))
    })?;
    ensure!(
        (again.keys, again.values) == (seen.keys, seen.values),
        LosesData,
        "page 1 moved from {:p} to {:p} while it was viewed",
        seen.keys,
        again.keys
    );
    // Released as often as viewed; the page is still there.
    let mut releases = false;
    for _ in 0..2 {
        if let Some(answer) = tier.release(1)? {
            answer.ok("release of a page that is viewed")?;
            releases = true;
        }
    }
    ensure!(same(case, &got, &tier.must_get(1)?), LosesData, "page 1 changed when its views were released");
    if there.format == abi::HERALD_PAGE_Q4 {
        tier.put(1000, &there)?.ok("put of a page in the tier's own format")?;
        let copy = tier.must_get(1000)?;
        ensure!(
            same(case, &got, &copy),
            LosesData,
            "a page put in the tier's own format, as view gave it, came back otherwise"
        );
    }
    Ok(if releases { "with release".to_owned() } else { "without release".to_owned() })
}

/// A page in place and the same page copied out as int16 differ by the rounding of that at most.
fn near_enough(case: &Case<'_>, there: &Contents, got: &Contents) -> Verdict<()> {
    let (Some(there), Some(got)) = (there.elements(&case.shape), got.elements(&case.shape)) else {
        return Ok(());
    };
    for (part, what) in ["keys", "values"].into_iter().enumerate() {
        let apart = super::page::Distance::between(&there[part], &got[part]);
        ensure!(
            apart.greatest <= 1e-4,
            LosesData,
            "the {what} that view shows are off by {:.5} of the greatest from those that get copies",
            apart.greatest
        );
    }
    Ok(())
}

/// A page without contents is zeros, to be written in place and told to commit.
pub(super) fn empty(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let answer = tier.put_raw(1, std::ptr::null())?;
    if !answer.is_ok() {
        answer.refused("put of an empty page", &[Status::Unsupported])?;
        ensure!(
            case.kind != TierKind::Active,
            Refuses,
            "put of an empty page in an active tier gave {}, where attention has to write it",
            answer.say()
        );
        return Err(Outcome::Skipped(answer.message));
    }
    let got = tier.must_get(1)?;
    let zeros = got.keys.iter().chain(got.values.iter()).all(|byte| *byte == 0);
    ensure!(got.n_tokens == 0, WrongLength, "an empty page says that it holds {} tokens", got.n_tokens);
    ensure!(zeros, WrongResult, "an empty page isn't all zeros");
    let Ok(seen) = tier.view(1)? else {
        return Err(Outcome::Failed(crate::Fault::Refuses, "an empty page can't be viewed".to_owned()));
    };
    let page = Contents::random(&case.shape, 2, 5);
    if seen.format == page.format {
        // SAFETY: it was viewed just now, and holds as many bytes as this shape's pages have (`view` checked that).
        unsafe {
            std::ptr::copy_nonoverlapping(page.keys.as_ptr(), seen.keys.cast(), page.keys.len());
            std::ptr::copy_nonoverlapping(page.values.as_ptr(), seen.values.cast(), page.values.len());
        }
        tier.commit(1, 2)?.ok("commit of 2 tokens")?;
        near(case, 1, &page, &tier.must_get(1)?)?;
    }
    let tokens = case.shape.page_tokens as u32;
    for n_tokens in [tokens + 1, u32::MAX] {
        tier.commit(1, n_tokens)?.refused(
            &format!("commit of {n_tokens} tokens to a page with room for {tokens}"),
            &[Status::InvalidArgument],
        )?;
    }
    tier.commit(1, tokens)?.ok("commit of a whole page")?;
    ensure!(
        tier.must_get(1)?.n_tokens == case.shape.page_tokens,
        WrongLength,
        "a page that was told to hold {tokens} tokens says another number"
    );
    Ok(String::new())
}
