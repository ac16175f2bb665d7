//! Backends that aren't worth measuring: those whose results aren't the reference's, or that take for ever.

use std::time::Duration;

use herald::agreement::{REFERENCE, Sample};
use herald::files::UnfinishedFolder;
use herald_suites::BackendRow;

use super::processes::Processes;
use crate::failure::Failure;

/// A backend that takes this many times as long as the reference, which is plain code, is not measured.
const TIMES_SLOWER: u32 = 20;

/// What any backend may take for its first results: a loaded machine is no fault of a plugin's.
const LEAST: Duration = Duration::from_secs(60);

/// Compares what each backend computes with what the reference does. Those that are wrong, or too slow, are skipped, with the
/// reason; where the chosen one is among them, the next is chosen. `processes` starts those of a backend.
pub(super) fn leave_out<'p>(
    rows: &mut [BackendRow],
    has_reference: bool,
    processes: &dyn Fn(&str) -> Processes<'p>,
) -> Result<(), Failure> {
    let place = std::env::temp_dir();
    let folder = UnfinishedFolder::create_in(&place)
        .map_err(|error| Failure::file(&place, "the backends' results can't be compared in it", &error))?;
    let file = folder.path().join("sample");
    let sample = |name: &str, limit: Duration| {
        let processes = processes(name);
        processes.sample(&file, limit.min(processes.limit))
    };
    let reference = match has_reference {
        true => Some(sample(REFERENCE, Duration::MAX)?),
        false => None,
    };
    for row in rows.iter_mut().filter(|row| row.skipped.is_none()) {
        let reason = match (&reference, row.name == REFERENCE) {
            (Some(own), true) => own.as_ref().err().cloned(),
            (Some(Ok((expected, took))), false) => {
                let limit = (*took * TIMES_SLOWER).max(LEAST);
                compare(sample(&row.name, limit)?, Some(expected))
            }
            _ => compare(sample(&row.name, Duration::MAX)?, None),
        };
        row.skipped = reason;
    }
    if rows.iter().all(|row| !row.chosen || row.skipped.is_none()) {
        return Ok(());
    }
    rows.iter_mut().for_each(|row| row.chosen = false);
    if let Some(next) = rows.iter_mut().find(|row| row.skipped.is_none()) {
        next.chosen = true;
        return Ok(());
    }
    let reasons = rows.iter().filter_map(|row| Some(format!("{}: {}", row.name, row.skipped.as_ref()?)));
    Err(Failure::Failed(format!("no backend can be measured: {}", reasons.collect::<Vec<_>>().join("; "))))
}

fn compare(found: Result<(Sample, Duration), String>, expected: Option<&Sample>) -> Option<String> {
    match (found, expected) {
        (Err(reason), _) => Some(reason),
        (Ok((found, _)), Some(expected)) => found.check(expected).err(),
        (Ok(_), None) => None,
    }
}
