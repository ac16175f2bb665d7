//! Checks of memory tiers: what goes in comes out, however many ask for it at once, until it is dropped; and what comes out
//! of a file is what went in, or nothing.

mod archive;
mod contents;
mod damage;
mod disk;
mod limits;
mod made;
mod page;
mod search;
mod sharing;
mod views;

use std::path::Path;

use herald_api::abi::{HERALD_TIER_LZ4, HeraldTierTable};
use herald_api::import::Plugin;
use herald_api::{Status, TierKind};
use tempfile::TempDir;

use crate::check::{Verdict, ensure, run};
use crate::{Fault, Outcome, Sink};
use made::{Made, Shape, Wanted};

/// Pages of several shapes: small and odd, as common models have them, and with more tokens than share a step of 4 bits.
const PAGES: [Shape; 5] = [
    Shape::of(2, 6, 5, 7),
    Shape::of(1, 64, 64, 64),
    Shape::of(3, 80, 72, 70),
    Shape::of(8, 128, 96, 16),
    Shape::of(1, 192, 128, 130),
];

/// States of several sizes, an odd one among them.
const STATES: [Shape; 3] = [Shape::state(133), Shape::state(4096), Shape::state(300_000)];

/// What every check begins with.
#[derive(Clone, Copy)]
struct Both<'p> {
    table: &'p HeraldTierTable,
    reference: &'p Plugin,
    alone: bool,
}

/// A kind of tier under test, with pages of one shape.
struct Case<'p> {
    table: &'p HeraldTierTable,
    kind: TierKind,
    shape: Shape,
    flags: u64,
    /// Of an archived tier.
    folder: Option<TempDir>,
    reference: &'p Plugin,
    /// Whether the process's memory and its limits are the checks' own.
    alone: bool,
}

// SAFETY: the table's pointers are to constants, and its functions may be called from any thread.
unsafe impl Sync for Case<'_> {}

impl<'p> Case<'p> {
    fn new(both: Both<'p>, kind: TierKind, shape: &Shape, flags: u64) -> Verdict<Self> {
        let folder = match kind {
            TierKind::Archived => Some(tempfile::tempdir().map_err(|error| {
                Outcome::Skipped(format!("no folder for an archive can be made: {error}"))
            })?),
            _ => None,
        };
        let Both { table, reference, alone } = both;
        Ok(Self { table, kind, shape: shape.clone(), flags, folder, reference, alone })
    }

    /// What to ask for: an archived tier in a file of this name, or where it is empty in the folder.
    fn wanted(&self, file: &str) -> Wanted {
        let folder = self.folder.as_ref().map_or(Path::new(""), TempDir::path);
        let path = if file.is_empty() { folder.to_owned() } else { folder.join(file) };
        Wanted {
            kind: self.kind,
            shape: self.shape.clone(),
            capacity: 0,
            path: if self.folder.is_some() { path.display().to_string() } else { String::new() },
            flags: self.flags,
        }
    }

    /// A new tier; in a file of its own where it is archived.
    fn tier(&self, file: &str) -> Verdict<Made<'p>> {
        self.made(&self.wanted(file))
    }

    fn made(&self, wanted: &Wanted) -> Verdict<Made<'p>> {
        Made::create(self.table, wanted)?.map_err(|answer| {
            if answer.code == Status::Unsupported.code() {
                return Outcome::Skipped(answer.message);
            }
            let sentence = format!("create of a tier of {} gave {}", wanted.shape.name(), answer.say());
            Outcome::Failed(Fault::Refuses, sentence)
        })
    }

    /// Whether the tier's file outlives it.
    fn is_archived(&self) -> bool {
        self.kind == TierKind::Archived
    }

    /// The number of tokens that pages of these checks hold: all that have room, or fewer.
    fn tokens(&self, id: u64) -> usize {
        1 + (id as usize * 5) % self.shape.page_tokens
    }
}

type Check = fn(&Case<'_>) -> Verdict;

/// Checks a plugin's tiers, beside those of `reference`; nothing where it offers none.
pub fn check(plugin: &Plugin, reference: &Plugin, sink: &mut Sink<'_>) {
    let Some(table) = plugin.tier_table() else { return };
    let both = Both { table, reference, alone: sink.is_alone() };
    for kind in plugin.tier_kinds() {
        let name = kind.name();
        run(sink, format!("{name} tier, whether it is offered"), || offered(both, kind));
        for shape in PAGES.iter().chain(&STATES) {
            let subject = format!("{name} tier, {}", shape.name());
            run(sink, subject, || contents::check(&Case::new(both, kind, shape, 0)?));
        }
        let everywhere: [(&str, Check); 9] = [
            ("ids that are taken or unknown", contents::ids),
            ("pages in place", views::check),
            ("lists and counts", limits::lists),
            ("a full tier", limits::capacity),
            ("memory", limits::memory),
            ("search", search::check),
            ("threads", sharing::check),
            ("bad input", limits::refusals),
            ("empty pages", views::empty),
        ];
        for (what, check) in everywhere {
            let case = || Case::new(both, kind, &PAGES[0], 0);
            run(sink, format!("{name} tier, {what}"), || check(&case()?));
        }
        if kind != TierKind::Archived {
            continue;
        }
        let files: [(&str, Check, &Shape, u64); 8] = [
            ("opened again", archive::again, &PAGES[0], 0),
            ("opened again (LZ4)", archive::again, &PAGES[0], HERALD_TIER_LZ4),
            ("a damaged file", damage::flips, &PAGES[0], 0),
            ("a damaged file (LZ4)", damage::flips, &PAGES[0], HERALD_TIER_LZ4),
            ("a file that was cut", damage::cuts, &PAGES[0], 0),
            ("a file of something else", damage::foreign, &PAGES[0], 0),
            ("a full disk", disk::full, &PAGES[3], 0),
            ("paths that can't be used", archive::paths, &PAGES[0], 0),
        ];
        for (what, check, shape, flags) in files {
            let case = || Case::new(both, kind, shape, flags);
            run(sink, format!("{name} tier, {what}"), || check(&case()?));
        }
    }
    run(sink, "memory tiers, unknown kinds", || unknown_kinds(table, plugin));
}

/// Whether the plugin makes any tier of a kind that it lists.
fn offered(both: Both<'_>, kind: TierKind) -> Verdict {
    let mut refusal = String::new();
    for shape in PAGES.iter().chain(&STATES) {
        let case = Case::new(both, kind, shape, 0)?;
        match Made::create(both.table, &case.wanted("pages"))? {
            Ok(_) => return Ok(shape.name()),
            Err(answer) => refusal = answer.say(),
        }
    }
    let sentence = format!("it lists the kind, and makes no tier of it; the last answer was {refusal}");
    Err(Outcome::Failed(Fault::Refuses, sentence))
}

/// A kind that no header has, and one that the plugin doesn't list.
fn unknown_kinds(table: &HeraldTierTable, plugin: &Plugin) -> Verdict {
    let offered = plugin.tier_kinds();
    let other = TierKind::ALL.into_iter().find(|kind| !offered.contains(kind)).map(|kind| kind as u32);
    for kind in [Some(0), Some(77), other].into_iter().flatten() {
        let wanted = Wanted {
            kind: TierKind::Active,
            shape: PAGES[0].clone(),
            capacity: 0,
            path: String::new(),
            flags: 0,
        };
        let mut request = wanted.request();
        request.config.kind = kind;
        match Made::of(table, &request)? {
            Err(answer) => {
                answer.refused(&format!("create of a tier of the kind {kind}"), &[Status::Unsupported])?
            }
            Ok(_) => ensure!(
                false,
                AcceptsDamage,
                "create of a tier of the kind {kind}, which it doesn't list, gave OK, where UNSUPPORTED was expected"
            ),
        }
    }
    Ok(String::new())
}
