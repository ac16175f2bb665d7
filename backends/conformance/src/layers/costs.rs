//! What a plugin takes of the machine: memory in forward calls, memory that it keeps, and threads of its own.

use std::collections::HashMap;

use herald_api::LayerKind;
use herald_api::abi::HERALD_STATUS_OK;

use super::battery::{any, outcome};
use super::call::{Content, Manner, Part};
use super::layer::{Layer, Maker, Order};
use super::plan::Case;
use super::run::{Memory, attention};
use crate::heap;
use crate::hooks::{self, Counters, Watch};
use crate::pool::{Lent, Pool, Sharing, thread_number};
use crate::{Fault, Outcome, Sink};

/// Layers that are made and destroyed.
const CYCLES: u32 = 1000;

/// Calls that are looked at.
const CALLS: usize = 8;

/// Checks what one small layer of a kind takes.
pub(super) fn check(maker: Maker<'_>, kind: LayerKind, sink: &mut Sink<'_>) {
    let name = kind.name();
    sink.check(format!("{name}, memory in forward calls"), || outcome(check_allocations(maker, kind)));
    sink.check(format!("{name}, {CYCLES} layers made and destroyed"), || outcome(check_leaks(maker, kind)));
    sink.check(format!("{name}, threads of its own"), || outcome(check_threads(maker, kind)));
}

/// Makes a call.
type Call<'c> = dyn FnMut() -> Result<(), Outcome> + 'c;

/// Repeats a call of a sequence's first `n_tokens` tokens: `around` is handed what makes it.
fn repeat(
    layer: &Layer<'_>,
    case: &Case,
    n_tokens: usize,
    counters: &Counters,
    around: &mut dyn FnMut(&mut Call<'_>) -> Result<(), Outcome>,
) -> Result<(), Outcome> {
    use herald_api::LayerParams::{Embedding, Head};
    let manner = Manner { sharing: Sharing::Ragged(3), ..Manner::PLAIN };
    let sequence = &case.sequences[0];
    let is_embedding = matches!(layer.desc.params, Embedding(_));
    let is_branch = !is_embedding && !matches!(layer.desc.params, Head(_));
    let mut memory = Memory::new(layer, manner)?;
    let parts: Vec<Part> = match is_branch {
        true => vec![memory.part(attention(layer), n_tokens, case.page_tokens, manner)?],
        false => Vec::new(),
    };
    let elements = ..n_tokens * layer.desc.hidden;
    let content = Content {
        n_tokens,
        ids: if layer.desc.params.reads_tokens() { &sequence.ids[..n_tokens] } else { &[] },
        positions: if attention(layer).is_some() { &sequence.positions[..n_tokens] } else { &[] },
        input: (!is_embedding).then_some(&sequence.x[elements]),
        before: is_branch.then_some(&sequence.residual[elements]),
        parts: &parts,
        fetch: None,
    };
    let lent = Lent::new(layer.maker.pool, manner.sharing, counters);
    let prepared = layer.prepare(&content, manner, &lent)?;
    around(&mut || layer.call_prepared(&prepared, counters))
}

fn check_allocations(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    if !hooks::install() {
        return Err(Outcome::Skipped("allocations can't be counted on this system".to_owned()));
    }
    let (case, layer) = any(maker, kind)?;
    let whole = case.sequences[0].len();
    for n_tokens in [1, whole] {
        let counters = Counters::default();
        let (mut allocations, mut kept) = (0, 0);
        repeat(&layer, &case, n_tokens, &counters, &mut |call| {
            // What is made once, at the first call, isn't made in every one.
            call()?;
            call()?;
            hooks::install();
            let before = (counters.allocations(), counters.kept());
            for _ in 0..CALLS {
                call()?;
            }
            allocations = counters.allocations() - before.0;
            kept = counters.kept() - before.1;
            Ok(())
        })?;
        let of = format!("{CALLS} calls of {n_tokens} {}", if n_tokens == 1 { "token" } else { "tokens" });
        if n_tokens == 1 && allocations > 0 {
            let sentence = format!("{of} allocated memory {allocations} times, where none was expected");
            return Err(Outcome::Failed(Fault::Allocates, sentence));
        }
        if kept >= CALLS as i64 {
            let sentence =
                format!("{of} allocated memory and kept it, {kept} times, where none was expected");
            return Err(Outcome::Failed(Fault::Allocates, sentence));
        }
        if n_tokens > 1 && allocations > 0 {
            let each = allocations.div_ceil(CALLS as u64);
            return Ok(format!(
                "none at one token; {each} times a call of {n_tokens}, given back at its end"
            ));
        }
    }
    Ok("none".to_owned())
}

fn check_leaks(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    if !hooks::install() {
        return Err(Outcome::Skipped("allocations can't be counted on this system".to_owned()));
    }
    let (case, _) = any(maker, kind)?;
    let (Some(create), Some(destroy)) = (maker.table.create, maker.table.destroy) else {
        return Err(Outcome::Failed(
            Fault::Refused,
            "its table of layers has no create or no destroy".to_owned(),
        ));
    };
    let counters = Counters::default();
    let request = maker.request(&Order::new(&case.desc, &case.tensors, case.limits()), &counters)?;
    let cycle = || {
        // SAFETY: the counters outlive this call.
        let _watch = unsafe { Watch::begin(&raw const counters) };
        let mut layer = std::ptr::null_mut();
        // SAFETY: the ABI's contract: the request lives on, and each layer is destroyed once.
        unsafe {
            let status = create(request.raw, &raw mut layer, std::ptr::null_mut());
            if status == HERALD_STATUS_OK {
                destroy(layer);
            }
            status
        }
    };
    // What is made once isn't made for every layer.
    for _ in 0..8 {
        cycle();
    }
    let (before, memory) = (counters.kept(), heap::resident());
    for number in 0..CYCLES {
        if cycle() != HERALD_STATUS_OK {
            let sentence = format!("layer_create failed at the same request, the {number}th time");
            return Err(Outcome::Failed(Fault::Unstable, sentence));
        }
    }
    let kept = counters.kept() - before;
    let grown = heap::resident().saturating_sub(memory);
    if kept >= i64::from(CYCLES / 2) {
        let sentence =
            format!("{CYCLES} layers made and destroyed left {kept} allocations, where none was expected");
        return Err(Outcome::Failed(Fault::Leaks, sentence));
    }
    // Memory that isn't asked for where it is counted shows in the process's size.
    if maker.alone && grown > 64 << 20 {
        let sentence =
            format!("{CYCLES} layers made and destroyed made the process grow by {} MiB", grown >> 20);
        return Err(Outcome::Failed(Fault::Leaks, sentence));
    }
    Ok(format!("{kept} allocations left"))
}

fn check_threads(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    if !maker.alone {
        return Err(Outcome::Skipped("other threads of this process hide it".to_owned()));
    }
    let (case, layer) = any(maker, kind)?;
    let counters = Counters::default();
    let mut busy = 0;
    repeat(&layer, &case, case.sequences[0].len(), &counters, &mut |call| {
        call()?;
        for _ in 0..CALLS {
            let before = foreign_times(maker.pool);
            call()?;
            let after = foreign_times(maker.pool);
            let worked = |(thread, time): (&i32, &u64)| before.get(thread).is_none_or(|before| time > before);
            busy += usize::from(after.iter().any(worked));
        }
        Ok(())
    })?;
    if counters.threads() > 0 || busy > CALLS / 2 {
        let sentence = format!(
            "in {busy} of {CALLS} forward calls threads of its own worked, and {} were started, where it was to use those \
             that it was lent",
            counters.threads()
        );
        return Err(Outcome::Failed(Fault::StartsThreads, sentence));
    }
    Ok("none".to_owned())
}

/// How long each thread that isn't ours has run, in the system's unit.
fn foreign_times(pool: &Pool) -> HashMap<i32, u64> {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return HashMap::new() };
    let ours = |thread: &i32| *thread == thread_number() || pool.ids().contains(thread);
    let numbers = threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|thread| !ours(thread)).map(|thread| (thread, running_time(thread))).collect()
}

fn running_time(thread: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    text.split_whitespace().next().and_then(|time| time.parse().ok()).unwrap_or(0)
}
