//! What was put comes back.

use herald_api::abi;
use herald_api::{MemoryTier, Page, Status, TierConfig, TierKind};

use super::Case;
use super::made::{Made, NOT_FOUND};
use super::page::{Contents, Distance};
use crate::Outcome;
use crate::check::{Verdict, ensure};

/// Beyond what a tier's own 4 bits explain: half of a fifteenth of what a group of 64 spans, which is at most twice the
/// greatest element, and the rounding of float16 and int16.
const FOUR_BITS: f64 = 1.0 / 15.0 + 4e-3;

/// How much worse than the reference's a compressed page may be, in root mean square.
const WORSE: f64 = 1.5;

/// How far the pages that came back are from those that were put, over the whole check.
#[derive(Default)]
struct Errors {
    own: Distance,
    reference: Distance,
    exact: bool,
}

/// Pages and states of one shape, put and got in several orders, come back as they were: exactly from an active tier, within
/// what 4 bits explain from others.
pub(super) fn check(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let count = if case.shape.state_bytes > 1 << 16 { 4 } else { 24 };
    let ids: Vec<u64> =
        (0..count).map(|index| [index, u64::MAX - index, index << 40][index as usize % 3]).collect();
    let pages: Vec<Contents> =
        ids.iter().map(|id| Contents::random(&case.shape, case.tokens(*id % 1000), *id)).collect();
    for (id, page) in ids.iter().zip(&pages) {
        tier.put(*id, page)?.ok(&format!("put of page {id}"))?;
    }
    let mut errors = Errors { exact: true, ..Errors::default() };
    let mut first = Vec::new();
    for (id, page) in ids.iter().zip(&pages) {
        let got = tier.must_get(*id)?;
        compare(case, *id, page, &got, &mut errors)?;
        first.push(got);
    }
    if let Some(answer) = tier.flush()? {
        answer.ok("flush")?;
    }
    // In another order, and after what was put is in the file.
    for (id, before) in ids.iter().zip(&first).rev() {
        let got = tier.must_get(*id)?;
        ensure!(
            same(case, before, &got),
            Unstable,
            "page {id} came back otherwise the second time, with nothing put in between"
        );
    }
    for id in ids.iter().step_by(2) {
        tier.drop_page(*id)?.ok(&format!("drop of page {id}"))?;
    }
    for (index, (id, before)) in ids.iter().zip(&first).enumerate() {
        match tier.get(*id)? {
            Ok(got) => {
                ensure!(
                    index % 2 == 1,
                    WrongStatus,
                    "get of page {id}, which was dropped, gave OK, where NOT_FOUND was expected"
                );
                ensure!(same(case, before, &got), LosesData, "page {id} changed when others were dropped");
            }
            Err(answer) => {
                ensure!(
                    index % 2 == 0,
                    LosesData,
                    "dropping other pages lost page {id}: get gave {}",
                    answer.say()
                );
                answer.refused(&format!("get of page {id}, which was dropped,"), &NOT_FOUND)?;
            }
        }
    }
    Ok(if errors.exact {
        format!("{count} pages, to the bit")
    } else {
        format!(
            "{count} pages, off by {:.3} (RMS; the reference: {:.3})",
            errors.own.relative, errors.reference.relative
        )
    })
}

/// Whether two copies of a page are the same where it holds tokens.
pub(super) fn same(case: &Case<'_>, a: &Contents, b: &Contents) -> bool {
    if a.n_tokens != b.n_tokens {
        return false;
    }
    match (a.elements(&case.shape), b.elements(&case.shape)) {
        (Some(a), Some(b)) => {
            a.iter().flatten().map(|x| x.to_bits()).eq(b.iter().flatten().map(|x| x.to_bits()))
        }
        _ => *a.keys == *b.keys && *a.values == *b.values,
    }
}

/// Fails unless `got` is what `put` was, as near as the tier's kind promises.
pub(super) fn near(case: &Case<'_>, id: u64, put: &Contents, got: &Contents) -> Verdict<()> {
    compare(case, id, put, got, &mut Errors { exact: true, ..Errors::default() })
}

fn compare(case: &Case<'_>, id: u64, put: &Contents, got: &Contents, errors: &mut Errors) -> Verdict<()> {
    ensure!(
        got.n_tokens == put.n_tokens,
        LosesData,
        "page {id} was put with {} tokens, and came back with {}",
        put.n_tokens,
        got.n_tokens
    );
    let exact = *got.keys == *put.keys && *got.values == *put.values;
    if case.kind == TierKind::Active || case.shape.state_bytes > 0 {
        let part = if got.keys[..] == put.keys[..] {
            ("values", &got.values, &put.values)
        } else {
            ("keys", &got.keys, &put.keys)
        };
        let at = part.1.iter().zip(part.2.iter()).position(|(a, b)| a != b);
        ensure!(
            exact,
            LosesData,
            "page {id} of {} came back changed: byte {} of its {} is {:#04x}, where {:#04x} was put",
            case.shape.name(),
            at.unwrap_or(0),
            part.0,
            at.map_or(0, |at| part.1[at]),
            at.map_or(0, |at| part.2[at])
        );
        return Ok(());
    }
    errors.exact &= exact;
    let (Some(expected), Some(found)) = (put.elements(&case.shape), got.elements(&case.shape)) else {
        return Err(Outcome::Skipped("a page of this shape can't be read".to_owned()));
    };
    let theirs = reference(case, put)?;
    for (part, what) in ["keys", "values"].into_iter().enumerate() {
        let own = Distance::between(&expected[part], &found[part]);
        let reference = theirs.as_ref().map(|theirs| Distance::between(&expected[part], &theirs[part]));
        ensure!(
            own.greatest <= FOUR_BITS,
            LosesData,
            "an element of the {what} of page {id} of {} came back off by {:.3} of the greatest, where 4 bits explain {:.3}",
            case.shape.name(),
            own.greatest,
            FOUR_BITS
        );
        if let Some(reference) = reference {
            ensure!(
                own.relative <= WORSE * reference.relative + 1e-3,
                LosesData,
                "the {what} of page {id} of {} came back off by {:.4} in root mean square, where the reference is off by {:.4}",
                case.shape.name(),
                own.relative,
                reference.relative
            );
            errors.reference = errors.reference.max(reference);
        }
        errors.own = errors.own.max(own);
    }
    Ok(())
}

/// The elements of a page after it went through the reference's compressed tier; `None` where it has none.
fn reference(case: &Case<'_>, put: &Contents) -> Verdict<Option<[Vec<f32>; 2]>> {
    let config = TierConfig { kind: TierKind::Compressed, ..case.shape.config(None) };
    let Ok(tier) = case.reference.create_tier(&config) else { return Ok(None) };
    // SAFETY: none of its pages gets a handle, and no other thread has the tier.
    let tier = unsafe { tier.by_id() };
    let page = Page::new(put.format, put.n_tokens, put.capacity, &put.keys, &put.values);
    let (keys, values) = case.shape.page_bytes();
    let (mut keys, mut values) = (vec![0; keys], vec![0; values]);
    let through = tier.put(0, page.as_ref()).and_then(|()| tier.get(0, &mut keys, &mut values));
    let n_tokens = through.map_err(|error| Outcome::Skipped(format!("the reference's own tier: {error}")))?;
    let contents = Contents {
        format: abi::HERALD_PAGE_I16,
        n_tokens,
        capacity: put.capacity,
        keys: super::page::aligned(&keys),
        values: super::page::aligned(&values),
    };
    Ok(contents.elements(&case.shape))
}

/// An id that is taken isn't taken again, and one that is unknown isn't found, whatever is asked of it.
pub(super) fn ids(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let (first, second) = (Contents::random(&case.shape, 3, 1), Contents::random(&case.shape, 5, 2));
    tier.put(7, &first)?.ok("put of page 7")?;
    let before = tier.must_get(7)?;
    tier.put(7, &second)?.refused("put of a page under an id that is taken", &[Status::InvalidArgument])?;
    let after = tier.must_get(7)?;
    ensure!(
        same(case, &before, &after),
        LosesData,
        "a refused put under the id 7 changed the page that has it"
    );
    for id in [0, 8, u64::MAX, 1 << 63] {
        unknown(&tier, id, "that no page has")?;
    }
    tier.drop_page(7)?.ok("drop of page 7")?;
    unknown(&tier, 7, "of a page that was dropped")?;
    tier.put(7, &second)?.ok("put under an id whose page was dropped")?;
    near(case, 7, &second, &tier.must_get(7)?)?;
    Ok(String::new())
}

fn unknown(tier: &Made<'_>, id: u64, which: &str) -> Verdict<()> {
    let what = |call: &str| format!("{call} of the id {id}, {which},");
    match tier.get(id)? {
        Err(answer) => answer.refused(&what("get"), &NOT_FOUND)?,
        Ok(_) => ensure!(false, WrongStatus, "{} gave OK, where NOT_FOUND was expected", what("get")),
    }
    match tier.view(id)? {
        Err(answer) => answer.refused(&what("view"), &[Status::NotFound, Status::Unsupported])?,
        Ok(_) => ensure!(false, WrongStatus, "{} gave OK, where NOT_FOUND was expected", what("view")),
    }
    tier.commit(id, 1)?.refused(&what("commit"), &NOT_FOUND)?;
    tier.drop_page(id)?.refused(&what("drop"), &NOT_FOUND)?;
    if let Some(answer) = tier.release(id)? {
        answer.refused(&what("release"), &NOT_FOUND)?;
    }
    Ok(())
}
