//! Many contexts by name over one engine, and what their memory takes.

use std::ffi::c_char;

use herald_api::abi::{self, AbiStruct, HeraldError};

use super::arguments;
use super::generate::generate_with;
use super::status::{Failure, guard};
use super::{HeraldEngine, HeraldGenerateOptions, HeraldGenerated};
use herald_engine::MemoryUsage;
use herald_engine::MultiTierMemoryManager;

/// Contexts by name over one engine. All calls on it but herald_memory_free may come from any thread, many at once: work on
/// one context waits for other work on it. Callbacks must not call functions that work on contexts, which refuse.
pub struct HeraldMemory {
    manager: MultiTierMemoryManager,
}

/// What the memory tiers hold. In tiers each layer counts its own tokens.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldMemoryUsage {
    /// sizeof(HeraldMemoryUsage).
    pub struct_size: usize,
    /// Pages of the active tier: as attention writes them, in RAM.
    pub active_pages: u64,
    /// Tokens in them.
    pub active_tokens: u64,
    /// Their bytes.
    pub active_bytes: u64,
    /// Pages of the compressed tier: 4 bits an element, in RAM.
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
    /// Bytes of RAM that the tiers take together.
    pub memory_bytes: u64,
    /// Far pages that layers wanted and that were in RAM; 0 in the usage of one context.
    pub hits: u64,
    /// Far pages that layers wanted and that came from the file; 0 in the usage of one context.
    pub misses: u64,
    /// Bytes of active pages that are kept for prompts that begin alike; 0 in the usage of one context.
    pub prefix_bytes: u64,
    /// Bytes of recurrent states, which are in no tier.
    pub state_bytes: u64,
    /// Bytes that all pages would take in the active tier.
    pub exact_bytes: u64,
    /// How many times smaller they are; 1 where there are none.
    pub ratio: f64,
}

/// What herald_memory_optimize did.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldOptimized {
    /// sizeof(HeraldOptimized).
    pub struct_size: usize,
    /// Moves of pages from a tier to the one below.
    pub moved_pages: u64,
    /// Pages of earlier prompts that no context held, and were dropped.
    pub unreferenced_pages: u64,
    /// Pages that were dropped because another context had the same, which both now share.
    pub merged_pages: u64,
    /// Pages of room that was reserved and not used.
    pub spare_pages: u64,
    /// Bytes of RAM that the tiers take less than before.
    pub bytes_freed: u64,
    /// Bytes of RAM that freed memory's return to the system took off the process.
    pub returned_bytes: u64,
    /// Contexts that were left as they were, since somebody worked on them.
    pub busy_contexts: u64,
    /// The part of the tiers' room for tokens that held none, before.
    pub fragmentation_before: f64,
    /// The same afterwards.
    pub fragmentation_after: f64,
}

/// Pages that tiers hold, beside those that can be reached.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldLeakStats {
    /// sizeof(HeraldLeakStats).
    pub struct_size: usize,
    /// Pages that the tiers hold.
    pub held_pages: u64,
    /// Their bytes.
    pub held_bytes: u64,
    /// Pages that contexts, or the earlier prompts that the engine keeps, hold; each once.
    pub reachable_pages: u64,
    /// Their bytes.
    pub reachable_bytes: u64,
    /// Sequences of the engine beside the contexts: which pages they hold can't be seen.
    pub other_sequences: u64,
    /// Pages whose owner is gone, or is one of the other sequences.
    pub orphaned_pages: u64,
    /// Their bytes.
    pub orphaned_bytes: u64,
    /// Pages that the tiers hold more (or fewer) than at the mark.
    pub grown_pages: i64,
    /// Their bytes.
    pub grown_bytes: i64,
    /// RSS of the process beside that at the mark. A heap keeps some of what was freed, so this alone proves nothing.
    pub grown_rss_bytes: i64,
}

/// Makes a manager without contexts on an engine, and puts it in *out, for the caller to give to herald_memory_free; on
/// failure *out becomes null. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_new(
    engine: *const HeraldEngine,
    out: *mut *mut HeraldMemory,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let out = arguments::place(out, "out")?;
            out.write(std::ptr::null_mut());
            let HeraldEngine { engine, .. } = arguments::value(engine, "engine")?;
            let manager = MultiTierMemoryManager::new(std::sync::Arc::clone(engine));
            out.write(Box::into_raw(Box::new(HeraldMemory { manager })));
            Ok(())
        })
    }
}

/// Frees a manager and its contexts, while no call runs on it. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_free(memory: *mut HeraldMemory) {
    // SAFETY: the caller keeps to the header's rules.
    unsafe { super::status::free(memory) };
}

/// Runs a text (UTF-8, text_len bytes) through the model's layers after what the context (NUL-terminated UTF-8) has seen;
/// one that isn't there is opened. The BOS that the model asks for goes before it where the context is empty. Puts the number
/// of tokens that were added in *n_tokens, unless it is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT;
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
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let context = arguments::required_text(context, "context")?;
            let text = arguments::text(text, text_len, "text")?;
            let added = memory.manager.add_to_active_memory(context, text)?;
            if !n_tokens.is_null() {
                arguments::place(n_tokens, "n_tokens")?.write(added);
            }
            Ok(())
        })
    }
}

/// As herald_memory_add_to_active, with n_ids ids.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_add_ids_to_active(
    memory: *const HeraldMemory,
    context: *const c_char,
    ids: *const u32,
    n_ids: usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let context = arguments::required_text(context, "context")?;
            memory.manager.add_to_active_memory(context, arguments::slice(ids, n_ids, "ids")?)?;
            Ok(())
        })
    }
}

/// Adds a text to a context, as herald_memory_add_to_active does, and generates after it, as herald_generate does: with the
/// same options, callback and answer. The last token, which was not run, is run before whatever comes next. Any thread, many
/// at once. Statuses: as herald_memory_add_to_active and herald_generate.
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
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let context = arguments::required_text(context, "context")?;
            let text = arguments::text(text, text_len, "text")?;
            generate_with(options, generated, 0, |options, each| {
                Ok(memory.manager.generate_while(context, text, options, &mut || true, each))
            })
        })
    }
}

/// Moves a context's pages that are older than its latest keep_tokens tokens to the compressed tier now, but for the first.
/// Puts the number of moves in *moved_pages, unless it is null. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no
/// such context); OUT_OF_MEMORY; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_compress(
    memory: *const HeraldMemory,
    context: *const c_char,
    keep_tokens: usize,
    moved_pages: *mut u64,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let context = arguments::required_text(context, "context")?;
            let moved = memory.manager.compress_memory(context, keep_tokens)?;
            if !moved_pages.is_null() {
                arguments::place(moved_pages, "moved_pages")?.write(moved.pages);
            }
            Ok(())
        })
    }
}

/// Tidies up: gives back room that was reserved and not used, moves pages down that have no place in the active tier, makes
/// equal pages of several contexts one, drops pages that nobody holds, and gives freed memory back to the system. Fills
/// optimized, whose struct_size the caller has set; null where it isn't wanted. Any thread, many at once. Statuses: OK;
/// INVALID_ARGUMENT; OUT_OF_MEMORY; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_optimize(
    memory: *const HeraldMemory,
    optimized: *mut HeraldOptimized,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            if !optimized.is_null() {
                abi::read(optimized.cast_const()).map_err(Failure::invalid)?;
            }
            let did = memory.manager.optimize_memory()?;
            if optimized.is_null() {
                return Ok(());
            }
            let answer = HeraldOptimized {
                moved_pages: did.demoted.pages,
                unreferenced_pages: did.unreferenced_pages,
                merged_pages: did.merged_pages,
                spare_pages: did.spare_pages,
                bytes_freed: did.bytes_freed,
                returned_bytes: did.returned_bytes,
                busy_contexts: did.busy_contexts,
                fragmentation_before: did.fragmentation_before,
                fragmentation_after: did.fragmentation_after,
                ..AbiStruct::empty()
            };
            abi::write(optimized, &answer).map_err(Failure::invalid)
        })
    }
}

/// Forgets all that a context has seen, in all tiers; it stays open, empty. Null: every context. Any thread, many at once.
/// Statuses: OK; INVALID_ARGUMENT (no such context); INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_clear_active(
    memory: *const HeraldMemory,
    context: *const c_char,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            match arguments::c_text(context, "context")? {
                Some(context) => memory.manager.clear_active_memory(context)?,
                None => memory.manager.clear_all_active_memory()?,
            };
            Ok(())
        })
    }
}

/// Closes a context, once work on it has ended; nothing where there is none. Any thread, many at once. Statuses: OK;
/// INVALID_ARGUMENT; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_close(
    memory: *const HeraldMemory,
    context: *const c_char,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            memory.manager.close(arguments::required_text(context, "context")?)?;
            Ok(())
        })
    }
}

/// Fills usage, whose struct_size the caller has set, with what the tiers hold of a context, as it was when work on it last
/// ended; for null, of all sequences of the engine, pages that several share counted once. Doesn't wait, and may be called
/// from callbacks. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such context).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_usage(
    memory: *const HeraldMemory,
    context: *const c_char,
    usage: *mut HeraldMemoryUsage,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let found: MemoryUsage = match arguments::c_text(context, "context")? {
                Some(context) => memory.manager.get_context_usage(context)?,
                None => memory.manager.get_memory_usage(),
            };
            let MemoryUsage { active, compressed, archived, .. } = found;
            let answer = HeraldMemoryUsage {
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
                ..AbiStruct::empty()
            };
            abi::write(usage, &answer).map_err(Failure::invalid)
        })
    }
}

/// Fills stats, whose struct_size the caller has set. Waits for work on contexts that is under way, and holds up what would
/// begin meanwhile. Any thread. Statuses: OK; INVALID_ARGUMENT; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_leak_stats(
    memory: *const HeraldMemory,
    stats: *mut HeraldLeakStats,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
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
            abi::write(stats, &answer).map_err(Failure::invalid)
        })
    }
}

/// Has herald_memory_leak_stats count growth from now on. Any thread. Statuses: OK; INVALID_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_memory_mark(memory: *const HeraldMemory, error: *mut HeraldError) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            arguments::value(memory, "memory")?.manager.mark();
            Ok(())
        })
    }
}
