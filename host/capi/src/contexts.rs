//! Named contexts over one engine, and their memory.

use std::ffi::c_char;
use std::time::Instant;

use herald_api::abi::{AbiStruct, HeraldError};

use super::arguments::Handle;
use super::generate::{generate_with, is_cancelled};
use super::sequence::Ended;
use super::status::free;
use super::{HeraldEngine, HeraldGenerateOptions, HeraldGenerated};
use herald_engine::MemoryUsage;
use herald_engine::{MultiTierMemoryManager, NeuroEngine};

/// Named contexts over one engine. All calls on it except herald_memory_free may come from any thread, many at once: work on
/// a context waits for other work on it. Callbacks must not call functions that work on contexts: these return an error.
pub struct HeraldMemory {
    manager: MultiTierMemoryManager,
}

impl Handle for HeraldMemory {
    fn engine(&self) -> &NeuroEngine {
        self.manager.engine()
    }
}

/// What the memory tiers hold. Each layer counts its tokens separately.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldMemoryUsage {
    /// sizeof(HeraldMemoryUsage).
    pub struct_size: usize,
    /// Pages of the active tier: in RAM, as attention writes them.
    pub active_pages: u64,
    /// Tokens in them.
    pub active_tokens: u64,
    /// Their bytes.
    pub active_bytes: u64,
    /// Pages of the compressed tier: in RAM, 4 bits per element.
    pub compressed_pages: u64,
    /// Tokens in them.
    pub compressed_tokens: u64,
    /// Their bytes.
    pub compressed_bytes: u64,
    /// Pages of the archived tier, in a file.
    pub archived_pages: u64,
    /// Tokens in them.
    pub archived_tokens: u64,
    /// Their bytes in the file.
    pub archived_bytes: u64,
    /// RAM of all tiers, in bytes.
    pub memory_bytes: u64,
    /// Selected pages that were in RAM; 0 in the usage of one context.
    pub hits: u64,
    /// Selected pages that were read from the file; 0 in the usage of one context.
    pub misses: u64,
    /// Bytes of the prefix cache's active pages; 0 in the usage of one context.
    pub prefix_bytes: u64,
    /// Bytes of recurrent states, which are in no tier.
    pub state_bytes: u64,
    /// Bytes that all pages would need in the active tier.
    pub exact_bytes: u64,
    /// How many times smaller they are than that; 1 without pages.
    pub ratio: f64,
    /// Pages that have moved between tiers since the engine was loaded; 0 in the usage of one context or sequence.
    pub moved_pages: u64,
}

impl HeraldMemoryUsage {
    pub(super) fn of(found: &MemoryUsage, moved_pages: u64) -> Self {
        let MemoryUsage { active, compressed, archived, .. } = found;
        Self {
            active_pages: active.pages,
            active_tokens: active.tokens,
            active_bytes: active.bytes,
            compressed_pages: compressed.pages,
            compressed_tokens: compressed.tokens,
            compressed_bytes: compressed.bytes,
            archived_pages: archived.pages,
            archived_tokens: archived.tokens,
            archived_bytes: archived.bytes,
            memory_bytes: found.total().memory_bytes,
            hits: compressed.hits,
            misses: compressed.misses,
            prefix_bytes: found.prefix_bytes,
            state_bytes: found.state_bytes,
            exact_bytes: found.exact_bytes,
            ratio: found.ratio(),
            moved_pages,
            ..AbiStruct::empty()
        }
    }

    /// What the tiers hold of all sequences of an engine.
    pub(super) fn of_engine(engine: &NeuroEngine) -> Self {
        let moved = engine.traffic().report().iter().map(|traffic| traffic.pages).sum();
        Self::of(&engine.memory_usage(), moved)
    }
}

/// What herald_memory_optimize done.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldOptimized {
    /// sizeof(HeraldOptimized).
    pub struct_size: usize,
    /// Moves of pages from a tier to the one below.
    pub moved_pages: u64,
    /// Dropped pages of the prefix cache that no context held.
    pub unreferenced_pages: u64,
    /// Pages that were dropped because another context has the same, which both now share.
    pub merged_pages: u64,
    /// Freed pages of unused reserved room.
    pub spare_pages: u64,
    /// Decrease of the tiers' RAM, in bytes.
    pub bytes_freed: u64,
    /// Decrease of the process's RAM from returning freed memory to the system, in bytes.
    pub returned_bytes: u64,
    /// Contexts that were skipped because they were in use.
    pub busy_contexts: u64,
    /// The unused share of the tiers' room for tokens, before.
    pub fragmentation_before: f64,
    /// The same, afterwards.
    pub fragmentation_after: f64,
}

/// Pages that the tiers hold, compared with those that can be reached.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldLeakStats {
    /// sizeof(HeraldLeakStats).
    pub struct_size: usize,
    /// Pages that the tiers hold.
    pub held_pages: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Pages that contexts or the prefix cache hold, each counted once.
    pub reachable_pages: u64,
    /// Their bytes.
    pub reachable_bytes: u64,
    /// The engine's other sequences, whose pages are unknown.
    pub other_sequences: u64,
    /// Pages without a known owner: it is gone, or one of the other sequences.
    pub orphaned_pages: u64,
    /// Their bytes.
    pub orphaned_bytes: u64,
    /// Growth of held_pages since the mark; may be negative.
    pub grown_pages: i64,
    /// Growth of held_bytes since the mark.
    pub grown_bytes: i64,
    /// Growth of the process's RSS since the mark. A heap keeps some freed memory, so this alone proves nothing.
    pub grown_rss_bytes: i64,
}

/// Creates a manager without contexts on an engine and writes it to *out; the caller frees it with herald_memory_free. On
/// failure *out is null. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_new(
    engine: *const HeraldEngine,
    out: *mut *mut HeraldMemory,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let HeraldEngine { engine, .. } = call.handle(engine, "engine")?;
            let manager = MultiTierMemoryManager::new(std::sync::Arc::clone(engine));
            Ok(HeraldMemory { manager })
        })
    })
}

/// Frees a manager and its contexts. No call may be running on it. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_free(memory: *mut HeraldMemory) {
    // SAFETY: by herald.h's rules it is null or came from `herald_memory_new`, and the caller doesn't use it again.
    unsafe { free(memory) };
}

/// Appends a text (UTF-8, text_len bytes) to a context (NUL-terminated UTF-8 name) and runs it through the model's layers. A
/// context that doesn't exist is created. An empty one begins with the model's BOS token, if it wants one. Writes the number
/// of added tokens to *n_tokens, unless n_tokens is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT;
/// CONTEXT_FULL; UNSUPPORTED; OUT_OF_MEMORY; IO (the archive's disk is full); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_add_to_active(
    memory: *const HeraldMemory,
    context: *const c_char,
    text: *const c_char,
    text_len: usize,
    n_tokens: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        let context = call.required_text(context, "context")?;
        let text = call.text(text, text_len, "text")?;
        let added = memory.manager.add_to_active_memory(context, text)?;
        call.write_if_wanted(n_tokens, added, "n_tokens")
    })
}

/// Like herald_memory_add_to_active, with n_ids ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_add_ids_to_active(
    memory: *const HeraldMemory,
    context: *const c_char,
    ids: *const u32,
    n_ids: usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        let context = call.required_text(context, "context")?;
        memory.manager.add_to_active_memory(context, call.slice(ids, n_ids, "ids")?)?;
        Ok(())
    })
}

/// Appends a text to a context like herald_memory_add_to_active, then generates like herald_generate, with the same options,
/// callback and answer. The last token, which was not run, runs before whatever comes next. Any thread, many at once.
/// Statuses: those of herald_memory_add_to_active and herald_generate.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_generate(
    memory: *const HeraldMemory,
    context: *const c_char,
    text: *const c_char,
    text_len: usize,
    options: *const HeraldGenerateOptions,
    generated: *mut HeraldGenerated,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        let context = call.required_text(context, "context")?;
        let text = call.text(text, text_len, "text")?;
        generate_with(call, options, generated, 0, |options, each| {
            let done = memory.manager.generate_while(context, text, options, &mut || true, each);
            let late = options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let ended = if late && is_cancelled(&done) { Ended::Late } else { Ended::No };
            Ok((done, ended))
        })
    })
}

/// Ends work on a context: what runs now, or else what begins next, which then does nothing. Stays set until a call has reported
/// it, herald_memory_generate with HERALD_FINISH_CANCELLED, herald_memory_add_* with the status CANCELLED; see
/// herald_sequence_cancel. Doesn't wait, and may be called from callbacks. Any thread, many at once. Statuses: OK;
/// INVALID_ARGUMENT (no such context).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_cancel(
    memory: *const HeraldMemory,
    context: *const c_char,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        Ok(memory.manager.cancel(call.required_text(context, "context")?)?)
    })
}

/// Moves a context's pages that are older than its latest keep_tokens tokens, except the first, to the compressed tier now.
/// Writes the number of moves to *moved_pages, unless moved_pages is null. Any thread, many at once. Statuses: OK;
/// INVALID_ARGUMENT (no such context); OUT_OF_MEMORY; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_compress(
    memory: *const HeraldMemory,
    context: *const c_char,
    keep_tokens: usize,
    moved_pages: *mut u64,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        let context = call.required_text(context, "context")?;
        let moved = memory.manager.compress_memory(context, keep_tokens)?;
        call.write_if_wanted(moved_pages, moved.pages, "moved_pages")
    })
}

/// Optimises memory: frees unused reserved room, moves pages that exceed the active tier's capacity down, merges equal pages
/// of several contexts, drops pages that nobody holds, and returns freed memory to the system. Fills optimized, whose
/// struct_size the caller must set; null if it isn't wanted. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT;
/// OUT_OF_MEMORY; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_optimize(
    memory: *const HeraldMemory,
    optimized: *mut HeraldOptimized,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        if !optimized.is_null() {
            call.read(optimized.cast_const())?;
        }
        let done = memory.manager.optimize_memory()?;
        if optimized.is_null() {
            return Ok(());
        }
        let answer = HeraldOptimized {
            moved_pages: done.demoted.pages,
            unreferenced_pages: done.unreferenced_pages,
            merged_pages: done.merged_pages,
            spare_pages: done.spare_pages,
            bytes_freed: done.bytes_freed,
            returned_bytes: done.returned_bytes,
            busy_contexts: done.busy_contexts,
            fragmentation_before: done.fragmentation_before,
            fragmentation_after: done.fragmentation_after,
            ..AbiStruct::empty()
        };
        call.fill(optimized, &answer)
    })
}

/// Removes all tokens of a context from all tiers; it stays open. Null: every context. Any thread, many at once. Statuses:
/// OK; INVALID_ARGUMENT (no such context); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_clear_active(
    memory: *const HeraldMemory,
    context: *const c_char,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        match call.c_text(context, "context")? {
            Some(context) => memory.manager.clear_active_memory(context)?,
            None => memory.manager.clear_all_active_memory()?,
        };
        Ok(())
    })
}

/// Closes a context after waiting for work on it; does nothing if there is none. Any thread, many at once. Statuses: OK;
/// INVALID_ARGUMENT; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_close(
    memory: *const HeraldMemory,
    context: *const c_char,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        memory.manager.close(call.required_text(context, "context")?)?;
        Ok(())
    })
}

/// Fills usage, whose struct_size the caller must set, with what the tiers held of a context when work on it last ended; for
/// null, with what they hold of all sequences of the engine, counting shared pages once. Doesn't wait, and may be called from
/// callbacks. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such context).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_usage(
    memory: *const HeraldMemory,
    context: *const c_char,
    usage: *mut HeraldMemoryUsage,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        let answer = match call.c_text(context, "context")? {
            Some(context) => HeraldMemoryUsage::of(&memory.manager.get_context_usage(context)?, 0),
            None => HeraldMemoryUsage::of_engine(memory.manager.engine()),
        };
        call.fill(usage, &answer)
    })
}

/// Fills stats, whose struct_size the caller must set. Waits for running work on contexts, and delays new work meanwhile.
/// Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_leak_stats(
    memory: *const HeraldMemory,
    stats: *mut HeraldLeakStats,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let memory = call.handle(memory, "memory")?;
        let found = memory.manager.get_memory_leak_stats()?;
        let answer = HeraldLeakStats {
            held_pages: found.held_pages,
            held_bytes: found.held_bytes,
            reachable_pages: found.reachable_pages,
            reachable_bytes: found.reachable_bytes,
            other_sequences: found.other_sequences,
            orphaned_pages: found.orphaned_pages,
            orphaned_bytes: found.orphaned_bytes,
            grown_pages: found.since_mark.pages,
            grown_bytes: found.since_mark.tier_bytes,
            grown_rss_bytes: found.since_mark.rss_bytes,
            ..AbiStruct::empty()
        };
        call.fill(stats, &answer)
    })
}

/// Sets the mark from which herald_memory_leak_stats counts growth. Any thread. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_mark(memory: *const HeraldMemory, error: *mut HeraldError) -> u32 {
    c_call!(error, |call| {
        call.handle(memory, "memory")?.manager.mark();
        Ok(())
    })
}
