//! The suite `memory`: the memory manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::context::Context;
use super::measurement::{Line, Measurement};
use super::sanity::surprise;
use super::target::Target;
use super::{Benchmark, Suite, corpus};
use herald::MultiTierMemoryManager;
use herald::metrics::process_memory;
use herald::{Capacity, MemoryOptions};
use herald::{Error, Result};
use herald::{LoadOptions, NeuroEngine};

/// Active tokens, and older pages that attention selects: few, so that much moves between tiers.
const ACTIVE: usize = 1024;
const SELECTED_PAGES: usize = 16;

const fn benchmark(
    name: &'static str,
    unit: &'static str,
    weight: u32,
    target: Target,
    method: &'static str,
    run: fn(&Context) -> Result<Measurement>,
) -> Benchmark {
    Benchmark { suite: Suite::Memory, name, method, unit, target, fresh: false, weight, run }
}

/// Text through the layers: at about 4 bytes per token, 1 KB/s is 250 tokens/s.
const INTAKE: Target = Target::at_least(1.0).or_share(0.15, |limits| 4.0 / 1e3 / limits.prompt(1.0));

pub(super) const BENCHMARKS: [Benchmark; 7] = [
    benchmark(
        "allocation_small",
        "KB/s",
        1,
        INTAKE,
        "1 KB of text is added to an empty context of the manager: through the layers, into the tiers, with 1,024 active \
         tokens. Text over time, median of up to 5 rounds; the tiers must hold every token, and none after clearing.",
        |context| allocation(context, 1_000),
    ),
    benchmark("allocation_medium", "KB/s", 4, INTAKE, "As allocation_small, with 10 KB.", |context| {
        allocation(context, 10_000)
    }),
    benchmark(
        "allocation_large",
        "KB/s",
        16,
        INTAKE,
        "As allocation_small, with 100 KB (20 KB with --quick), once.",
        |context| allocation(context, context.effort.pick(20_000, 100_000, 100_000)),
    ),
    benchmark(
        "compression",
        "to 1",
        2,
        Target::at_least(3.5),
        "A context of 1,024 tokens is compressed, all but its first and latest pages: bytes of those pages before over bytes \
         after. The next 64 tokens of the text are scored before and after: the mean Kullback-Leibler divergence of the \
         predictions must be at most 0.05 nats.",
        compression,
    ),
    benchmark(
        "optimisation",
        "% of room empty",
        2,
        Target::at_most(100.0),
        "Six contexts, some with the same text, all with unused reserved room; two are closed. After optimize_memory less of \
         the pages' room must be empty than before, and every context must have its tokens and bit-identical next logits.",
        optimisation,
    ),
    Benchmark {
        fresh: true,
        ..benchmark(
            "leak_detection",
            "pages",
            3,
            Target::at_most(0.0),
            "In its own process, five rounds: contexts are filled, compressed, forked, optimised, cleared and closed. Pages \
             that are held or without an owner afterwards.",
            leak_detection,
        )
    },
    benchmark(
        "concurrent_access",
        "lost updates",
        3,
        Target::at_most(0.0),
        "Four threads each add 24 pieces of marked tokens to three shared contexts, and read, compress and optimise \
         meanwhile: pieces that are missing, torn or out of their thread's order afterwards.",
        concurrent_access,
    ),
];

fn manager(context: &Context) -> Result<MultiTierMemoryManager> {
    let options = LoadOptions {
        context: Some(1 << 20),
        memory: MemoryOptions {
            active: Capacity::Tokens(ACTIVE),
            selected_pages: Some(SELECTED_PAGES),
            ..context.options().memory.clone()
        },
        ..context.options().clone()
    };
    Ok(MultiTierMemoryManager::new(Arc::new(NeuroEngine::load(&context.model, &options)?)))
}

/// The number of layers that keep pages.
fn layers(manager: &MultiTierMemoryManager) -> Result<u64> {
    match manager.engine().layers_with_pages() as u64 {
        0 => Err(Error::Invalid("the model keeps no pages, so there is nothing to measure".to_owned())),
        layers => Ok(layers),
    }
}

fn allocation(context: &Context, bytes: usize) -> Result<Measurement> {
    let manager = manager(context)?;
    let layers = layers(&manager)?;
    let text = corpus::plain(bytes);
    let ids = manager.engine().tokenizer().encode_prompt(&text, false)?;
    // In pieces, like a text that arrives over time; each piece is a point of the curve.
    let pieces = ids.chunks(512);
    let (mut whole, mut left, mut held, mut curves) = (true, 0, 0, Vec::new());
    let samples = context.rounds(5, || {
        let start = Instant::now();
        curves.clear();
        for piece in pieces.clone() {
            manager.add_to_active_memory("text", piece)?;
            curves.push((start.elapsed().as_secs_f64(), manager.get_memory_usage()));
        }
        let seconds = start.elapsed().as_secs_f64();
        let usage = manager.get_memory_usage();
        held = usage.total().bytes;
        whole &= usage.total().tokens == ids.len() as u64 * layers;
        manager.clear_active_memory("text")?;
        left = manager.get_memory_leak_stats()?.held_pages;
        Ok(text.len() as f64 / 1e3 / seconds)
    })?;
    let found = Measurement::of(samples)
        .check("every token is in the tiers", whole, if whole { "it is" } else { "some are not" })
        .check("no page is left after clearing", left == 0, format!("{left} are"))
        .detail("tokens", ids.len() as f64, "")
        .detail("memory in the tiers", held as f64 / 1e6, "MB")
        .detail("per KB of text", held as f64 / text.len() as f64, "KB");
    if bytes < 20_000 {
        return Ok(found);
    }
    let line = |name: &str, of: fn(&herald::MemoryUsage) -> u64| Line {
        name: name.to_owned(),
        points: curves.iter().map(|(at, usage)| (*at, of(usage) as f64 / 1e6)).collect(),
    };
    let lines = vec![
        line("active", |usage| usage.active.bytes),
        line("compressed", |usage| usage.compressed.bytes),
        line("archived, on disk", |usage| usage.archived.bytes),
        line("without compression", |usage| usage.exact_bytes),
    ];
    Ok(found.chart("Memory by tier while a long text is added", "seconds", "MB", lines))
}

/// The logits after each of `ids`, appended to a fork of a context; the context itself does not change.
fn predictions(manager: &MultiTierMemoryManager, name: &str, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
    manager.with_sequence(name, |engine, sequence| {
        let mut fork = engine.fork(sequence)?;
        let mut rows = Vec::new();
        engine.logits(&mut fork, ids, &mut |logits| rows.push(logits.to_vec()))?;
        Ok(rows)
    })
}

fn compression(context: &Context) -> Result<Measurement> {
    let manager = manager(context)?;
    layers(&manager)?;
    let text = [corpus::PASSAGE, corpus::MEDIUM].concat() + &corpus::varied(8_000);
    let ids = manager.engine().tokenizer().encode_prompt(&text, false)?;
    let (text, next) = ids.split_at(1_024.min(ids.len() / 2));
    let next = &next[..64.min(next.len())];
    manager.add_to_active_memory("text", text)?;
    let exact = predictions(&manager, "text", next)?;
    let start = Instant::now();
    let moved = manager.compress_memory("text", 0)?;
    let seconds = start.elapsed().as_secs_f64();
    let usage = manager.get_context_usage("text")?;
    let compressed = predictions(&manager, "text", next)?;
    let divergence =
        exact.iter().zip(&compressed).map(|(p, q)| divergence(p, q)).sum::<f64>() / exact.len().max(1) as f64;
    let loss = |rows: &[Vec<f32>]| {
        let losses = rows.iter().zip(&next[1..]).map(|(row, token)| surprise(row, *token));
        losses.sum::<f64>() / (next.len() - 1).max(1) as f64
    };
    let before = usage.exact_bytes.saturating_sub(usage.active.bytes) as f64;
    let all = usage.total().tokens == text.len() as u64 * layers(&manager)?;
    Ok(Measurement::of(vec![before / (usage.compressed.bytes as f64).max(1.0)])
        .check("pages moved down a tier", moved.pages > 0, format!("{} did", moved.pages))
        .check("no token is lost", all, format!("the tiers hold {}", usage.total().tokens))
        .check(
            "predictions diverge by at most 0.05 nats",
            (0.0..=0.05).contains(&divergence),
            format!("{divergence:.5}"),
        )
        .detail("mean divergence", divergence, "nats")
        .detail("change in mean negative log-likelihood", loss(&compressed) - loss(&exact), "nats")
        .detail("compressing", before / 1e6 / seconds.max(1e-9), "MB/s"))
}

/// The Kullback-Leibler divergence of `other`'s distribution from `exact`'s, in nats; both are rows of logits.
fn divergence(exact: &[f32], other: &[f32]) -> f64 {
    let total = |row: &[f32]| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|logit| f64::from(logit - max).exp()).sum();
        f64::from(max) + sum.ln()
    };
    let (p_total, q_total) = (total(exact), total(other));
    let terms = exact.iter().zip(other).map(|(p, q)| {
        let (p, q) = (f64::from(*p) - p_total, f64::from(*q) - q_total);
        p.exp() * (p - q)
    });
    // Rounding can make a divergence of zero negative.
    terms.sum::<f64>().max(0.0)
}

fn optimisation(context: &Context) -> Result<Measurement> {
    let manager = manager(context)?;
    layers(&manager)?;
    let engine = manager.engine();
    let ids = engine.tokenizer().encode_prompt(&corpus::varied(4_000), false)?;
    let length = 300.min(ids.len() - 100);
    let names = ["a", "b", "c", "d", "e", "f"];
    for (index, name) in names.iter().enumerate() {
        // Every second context has the same text.
        let from = if index % 2 == 0 { 0 } else { index * 10 };
        manager.add_to_active_memory(name, &ids[from..from + length])?;
        manager.with_sequence(name, |engine, sequence| engine.reserve(sequence, 700))?;
    }
    manager.close("a")?;
    manager.close("f")?;
    let kept = &names[1..5];
    let probe = &ids[..4];
    let state = || {
        let of = |name| Ok((manager.tokens(name)?, predictions(&manager, name, probe)?));
        kept.iter().map(|name| of(name)).collect::<Result<Vec<_>>>()
    };
    let before = state()?;
    let start = Instant::now();
    let optimized = manager.optimize_memory()?;
    let seconds = start.elapsed().as_secs_f64();
    let same = before == state()?;
    let stats = manager.get_memory_leak_stats()?;
    let mut found = Measurement::of(vec![optimized.fragmentation_after * 100.0])
        .check(
            "contexts keep their tokens and next logits",
            same,
            if same { "they do" } else { "some differ" },
        )
        .check(
            "less of the room is empty",
            optimized.fragmentation_after < optimized.fragmentation_before,
            format!(
                "{:.1}% before, {:.1}% after",
                optimized.fragmentation_before * 100.0,
                optimized.fragmentation_after * 100.0
            ),
        )
        .check("no page is without an owner", !stats.leaks(), format!("{} are", stats.orphaned_pages))
        .detail("empty before", optimized.fragmentation_before * 100.0, "%")
        .detail("spare pages freed", optimized.spare_pages as f64, "")
        .detail("pages merged", optimized.merged_pages as f64, "")
        .detail("freed", optimized.bytes_freed as f64 / 1e6, "MB")
        .detail("time", seconds * 1e3, "ms");
    found.relative_target = Some((optimized.fragmentation_before * 100.0, "less than before".to_owned()));
    Ok(found)
}

fn leak_detection(context: &Context) -> Result<Measurement> {
    let manager = manager(context)?;
    layers(&manager)?;
    let engine = manager.engine();
    let mut ids = engine.tokenizer().encode_prompt(&corpus::varied(3_000), false)?;
    ids.truncate(400);
    let resident = || process_memory().map_or(0.0, |memory| memory.rss_bytes as f64);
    let (mut worst, mut first, mut moved) = (0, 0.0, 0);
    for round in 0..5 {
        for name in ["one", "two", "three"] {
            manager.add_to_active_memory(name, &ids)?;
            moved += manager.compress_memory(name, 64)?.pages;
        }
        let fork = manager.with_sequence("one", |engine, sequence| engine.fork(sequence))?;
        manager.clear_active_memory("one")?;
        manager.optimize_memory()?;
        drop(fork);
        for name in ["one", "two", "three"] {
            manager.close(name)?;
        }
        manager.optimize_memory()?;
        let stats = manager.get_memory_leak_stats()?;
        worst = worst.max(stats.held_pages + stats.orphaned_pages);

        if round == 0 {
            first = resident();
        }
    }
    Ok(Measurement::of(vec![worst as f64])
        .check("there were pages to lose", moved > 0, format!("{moved} were compressed"))
        .detail("growth of the process from round 1 to 5", (resident() - first) / 1e6, "MB"))
}

/// Tokens of a piece; the first identifies its thread, the second its index.
const PIECE: usize = 8;
const THREADS: usize = 4;
const PIECES: usize = 24;

fn concurrent_access(context: &Context) -> Result<Measurement> {
    let manager = manager(context)?;
    layers(&manager)?;
    let contexts = ["x", "y", "z"];
    let vocabulary = manager.engine().plan().vocabulary as u32;
    if vocabulary < 256 {
        return Err(Error::Invalid("the vocabulary is too small to mark tokens".to_owned()));
    }
    let piece = |thread: usize, index: usize| -> Vec<u32> {
        let mut ids = vec![100 + thread as u32, 150 + index as u32];
        ids.resize(PIECE, 50);
        ids
    };
    let failures = AtomicUsize::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (manager, failures) = (&manager, &failures);
            scope.spawn(move || {
                for index in 0..PIECES {
                    let name = contexts[(thread + index) % contexts.len()];
                    let ids = piece(thread, index);
                    let added = manager.add_to_active_memory(name, &ids).is_ok_and(|added| added == PIECE);
                    let tidied = match index % 8 {
                        3 => manager.compress_memory(name, 64).is_ok(),
                        5 => manager.optimize_memory().is_ok(),
                        7 => manager.tokens(name).is_ok_and(|tokens| tokens.len() % PIECE == 0),
                        _ => true,
                    };
                    failures.fetch_add(usize::from(!added) + usize::from(!tidied), Ordering::Relaxed);
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let (mut found, mut wrong) = (0, 0);
    for name in contexts {
        let tokens = manager.tokens(name)?;
        let mut next = [None; THREADS];
        for ids in tokens.chunks(PIECE) {
            let thread = (ids[0] as usize).wrapping_sub(100);
            let index = ids.get(1).map_or(usize::MAX, |id| (*id as usize).wrapping_sub(150));
            let known = thread < THREADS && index < PIECES && ids == piece(thread, index);
            let in_order = known && next[thread].is_none_or(|before| before < index);
            if known {
                next[thread] = Some(index);
            }
            found += usize::from(in_order);
            wrong += usize::from(!in_order);
        }
    }
    let updates = THREADS * PIECES;
    let lost = updates.saturating_sub(found) + wrong;
    let failed = failures.into_inner();
    Ok(Measurement::of(vec![lost as f64])
        .check("every call succeeds", failed == 0, format!("{failed} failed"))
        .detail("updates", updates as f64, "")
        .detail("updates per second", updates as f64 / seconds, ""))
}
