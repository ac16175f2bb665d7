//! What tokenizers cost: time that is linear in the text, memory that comes back; and many threads at once.

use herald_api::{EncodeOptions, Tokenizer};

use super::Case;
use super::made::{Made, short};
use super::texts::TEXTS;
use crate::Outcome;
use crate::check::{Verdict, ensure, on_threads};
use crate::heap;
use crate::system::{THREAD_CLOCK, thread_time};

const THREADS: u64 = 4;

/// Several threads get what one gets.
pub(super) fn threads(case: &Case<'_>) -> Verdict {
    let mut expected = Vec::new();
    for (_, text) in TEXTS {
        let ids = case.made.ids(text, 0)?;
        let bytes = match &ids {
            Ok(ids) => case.made.must_decode(ids, 0)?,
            Err(_) => Vec::new(),
        };
        expected.push((ids, bytes));
    }
    let work = |thread: u64| -> Verdict<()> {
        for round in 0..20 {
            // Each thread at another text.
            let at = (round + thread as usize * TEXTS.len() / THREADS as usize) % TEXTS.len();
            let ((name, text), (ids, bytes)) = (TEXTS[at], &expected[at]);
            ensure!(
                case.made.ids(text, 0)? == *ids,
                Unstable,
                "encode of {name} gave other ids while {THREADS} threads encoded at once"
            );
            if let Ok(ids) = ids {
                ensure!(
                    case.made.must_decode(ids, 0)? == *bytes,
                    Unstable,
                    "decode of {name} gave other bytes while {THREADS} threads decoded at once"
                );
            }
        }
        Ok(())
    };
    on_threads(THREADS, work)?;
    Ok(format!("{THREADS} at once"))
}

/// Tokenizers that were destroyed, and calls that are over, take no memory.
pub(super) fn memory(case: &Case<'_>) -> Verdict {
    if !case.alone {
        return Err(Outcome::Skipped("other threads of this process may take memory too".to_owned()));
    }
    if heap::allocated().is_none() {
        return Err(Outcome::Skipped("the C library doesn't tell how much memory is in use".to_owned()));
    }
    let one_create = || Made::create(case.table, &case.made.words).map(drop);
    let one_call = || {
        let text = TEXTS[3].1;
        if let Ok(ids) = case.made.ids(text, 0)? {
            case.made.must_decode(&ids, 0)?;
        }
        case.made.decode(&[u32::MAX], 0, 8, 0).map(drop)
    };
    let what: [(&str, &dyn Fn() -> Verdict<()>); 2] =
        [("each tokenizer that was made and destroyed", &one_create), ("each call", &one_call)];
    for (what, work) in what {
        let grew = growth(work)?;
        ensure!(grew < 16, Leaks, "{what} leaves {grew} bytes of memory in use");
    }
    Ok(String::new())
}

/// Bytes that each call of `work` leaves in use; little where the process grows for another reason.
fn growth(work: &dyn Fn() -> Verdict<()>) -> Verdict<u64> {
    // What is kept once, such as tables and caches, is there before the first measurement.
    (0..4).try_for_each(|_| work())?;
    let mut grew = u64::MAX;
    // The allocator keeps some of what is freed for later and counts it as in use. That has a bound, and a leak has none: it
    // shows as much with sixteen times the calls.
    for rounds in [32, 32, 64, 128, 256, 512] {
        let before = heap::allocated().unwrap_or(0);
        (0..rounds).try_for_each(|_| work())?;
        grew = grew.min(heap::allocated().unwrap_or(0).saturating_sub(before) / rounds);
        if grew < 16 {
            break;
        }
    }
    Ok(grew)
}

/// More CPU time than any tokenizer that is linear takes for a megabyte.
const LIMIT: f64 = 20.0;

/// What texts begin with, the first time and those after it. A text that takes too long, but less than [`LIMIT`], is timed again, and
/// the quarter before it, and the shortest times count: a thread's time grows while others share its core and its caches, and a
/// plugin that is slow is slow each time.
const BEGINNINGS: [&str; 5] = ["", "b", "c", "d", "e"];

/// A megabyte of one letter, or of something else that merges badly, takes time linear in its length.
pub(super) fn long_run(case: &Case<'_>, name: &str, unit: &str) -> Verdict {
    let largest = if case.first { 1 << 20 } else { 1 << 18 };
    // Each time another text, since a tokenizer may remember those that it has seen.
    let timed = |len: usize, time: usize| -> Verdict<_> {
        let text = BEGINNINGS[time].to_owned() + &unit.repeat(len / unit.len());
        let start = thread_time();
        let ids = case.made.ids(&text, 0)?;
        let took = thread_time().saturating_sub(start).max(THREAD_CLOCK).as_secs_f64();
        Ok((took, text, ids))
    };
    let (mut before, mut slowest) = (f64::INFINITY, 0.0_f64);
    // Linear time grows fourfold from step to step, quadratic time sixteenfold.
    for len in [1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20].into_iter().take_while(|len| *len <= largest) {
        let (mut took, text, ids) = timed(len, 0)?;
        let steps = ((1 << 20) / len).ilog2() / 2;
        for time in 1..=BEGINNINGS.len() {
            let grew = took / before;
            let steep = took > 0.05 && grew > 8.0;
            let foreseen = if steep { took * grew.powi(steps.cast_signed()) } else { took };
            if foreseen < LIMIT {
                break;
            }
            ensure!(
                time < BEGINNINGS.len() && took < LIMIT,
                Hangs,
                "encode of {len} bytes of {name} took {took:.1} s, {grew:.0} times as long as of a quarter of them: a \
                 megabyte would take {foreseen:.0} s, where time linear in the text was expected"
            );
            let (again, _, answer) = timed(len, time)?;
            if answer.is_ok() == ids.is_ok() {
                took = took.min(again);
            }
            if before.is_finite() {
                before = before.min(timed(len / 4, time)?.0);
            }
        }
        if len == largest && case.first {
            same_as_reference(case, &text, &ids)?;
        }
        slowest = slowest.max(took);
        before = took;
    }
    Ok(format!("{} kB in {slowest:.2} s", largest >> 10))
}

fn same_as_reference(
    case: &Case<'_>,
    text: &str,
    ids: &Result<Vec<u32>, crate::answer::Answer>,
) -> Verdict<()> {
    let (Some(reference), Ok(ids)) = (&case.reference, ids) else { return Ok(()) };
    let mut theirs = Vec::new();
    if reference.encode(text, EncodeOptions::default(), &mut theirs).is_ok() {
        ensure!(
            *ids == theirs,
            WrongResult,
            "encode of {} gave {} ids, where {} gives {} others",
            short(text),
            ids.len(),
            reference.plugin(),
            theirs.len()
        );
    }
    Ok(())
}
