//! Checks of the probe.

use std::time::{Duration, Instant};

use herald_api::abi::{
    AbiStruct, HERALD_STATUS_OK, HERALD_STATUS_UNSUPPORTED, HeraldError, HeraldHardware, HeraldProbe,
};
use herald_api::import::Plugin;
use herald_api::{Hardware, Status};

use crate::{Fault, Outcome, Sink};

/// A probe that takes longer holds up every command of the host.
const LIMIT: Duration = Duration::from_secs(2);

/// Checks that the probe answers soon, and the same each time. Returns whether the plugin runs on this machine, as far as is
/// known: one that says that it doesn't is not to be checked further.
pub fn check_probe(plugin: &Plugin, hardware: &Hardware, sink: &mut Sink<'_>) -> bool {
    let mut runs_here = true;
    sink.check("probe", || {
        let outcome = check_answers(plugin, hardware);
        runs_here = !matches!(outcome, Outcome::Skipped(_));
        outcome
    });
    sink.check("probe, of other machines", || check_machines(plugin));
    runs_here
}

fn check_answers(plugin: &Plugin, hardware: &Hardware) -> Outcome {
    let start = Instant::now();
    let first = plugin.probe(hardware);
    let took = start.elapsed();
    let second = plugin.probe(hardware);
    if took > LIMIT {
        let sentence =
            format!("it took {:.1} s, where at most {} s were expected", took.as_secs_f64(), LIMIT.as_secs());
        return Outcome::Failed(Fault::Hangs, sentence);
    }
    match (first, second) {
        (Ok(first), Ok(second)) if first == second => {
            Outcome::Passed(format!("score {}, {}", first.score, first.variant))
        }
        (Ok(first), Ok(second)) => {
            let sentence = format!("it answered {first:?}, and then {second:?}");
            Outcome::Failed(Fault::Unstable, sentence)
        }
        (Err(error), Err(_)) if error.status() == Status::Unsupported => {
            Outcome::Skipped(format!("it says that it can't run on this machine: {error}"))
        }
        (Err(error), Err(_)) => Outcome::Failed(Fault::WrongStatus, error.to_string()),
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
            Outcome::Failed(Fault::Unstable, format!("of two calls one failed: {error}"))
        }
    }
}

/// A machine with one CPU that has no special instructions, as an older and as a later host describes it.
fn check_machines(plugin: &Plugin) -> Outcome {
    /// A struct with fields that the plugin can't know.
    #[repr(C)]
    struct Later<T> {
        known: T,
        unknown: [u64; 8],
    }
    let Some(probe) = plugin.table().probe else {
        return Outcome::Failed(Fault::Refused, "it has no probe".to_owned());
    };
    for longer in [0, 64] {
        let size = size_of::<HeraldHardware>() + longer;
        let hardware = Later {
            known: HeraldHardware { struct_size: size, cpus: 1, ..AbiStruct::empty() },
            unknown: [0x5a5a_5a5a_5a5a_5a5a; 8],
        };
        let size = size_of::<HeraldProbe>() + longer;
        let mut answer =
            Later { known: HeraldProbe { struct_size: size, ..AbiStruct::empty() }, unknown: [0; 8] };
        let mut error: HeraldError = AbiStruct::empty();
        // SAFETY: the ABI's contract; the structs are as long as they say.
        let status = unsafe { probe((&raw const hardware).cast(), (&raw mut answer).cast(), &raw mut error) };
        if status != HERALD_STATUS_OK && status != HERALD_STATUS_UNSUPPORTED {
            let sentence = format!("it answered status {status}, where OK or UNSUPPORTED was expected");
            return Outcome::Failed(Fault::WrongStatus, sentence);
        }
        if status == HERALD_STATUS_OK && answer.known.score == 0 {
            return Outcome::Failed(Fault::WrongStatus, "it gave the score 0, which is none".to_owned());
        }
        if answer.known.struct_size != size || answer.unknown != [0; 8] {
            return Outcome::Failed(Fault::WritesOutside, "it changed what isn't its own to fill".to_owned());
        }
    }
    Outcome::Passed(String::new())
}
