//! Texts that are kept in chunks and found again.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use herald_api::abi::{AbiStruct, HeraldError};

use super::HeraldEngine;
use super::arguments;
use super::run::HERALD_GO_ON;
use super::status::{Failure, guard};
use herald_documents::Documents;

/// Texts in chunks of 1,024 tokens that share 128 with the next, found by meaning and by words. All calls on it but
/// herald_documents_free may come from any thread, many at once.
pub struct HeraldDocuments {
    memory: Documents,
}

/// A chunk that a search found. Valid during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldHit {
    /// sizeof(HeraldHit) of the library.
    pub struct_size: usize,
    /// The number of its text.
    pub document: u64,
    /// The name of its text: name_len bytes of UTF-8, not NUL-terminated.
    pub name: *const c_char,
    /// Bytes of name.
    pub name_len: usize,
    /// Its place in the text, from 0.
    pub chunk: usize,
    /// The chunk: text_len bytes of UTF-8, not NUL-terminated.
    pub text: *const c_char,
    /// Bytes of text.
    pub text_len: usize,
    /// The sum of its inverse ranks by meaning and by words.
    pub score: f64,
    /// Its rank by meaning, from 1.
    pub meaning_rank: usize,
    /// Its rank by words, from 1; 0 where it has too few of the query's.
    pub word_rank: usize,
}

/// Opens the documents of a folder (NUL-terminated path), which is made where it isn't there, and puts it in *out, for the
/// caller to give to herald_documents_free; on failure *out becomes null. Null for folder: one in RAM alone. Damaged files
/// are left out, with a warning in the log. The engine may be freed before it. Any thread. Statuses: OK; INVALID_ARGUMENT (also
/// where the texts were added with another model); IO; NOT_FOUND; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_open(
    engine: *const HeraldEngine,
    folder: *const c_char,
    out: *mut *mut HeraldDocuments,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let out = arguments::place(out, "out")?;
            out.write(std::ptr::null_mut());
            let engine = Arc::clone(&arguments::value(engine, "engine")?.engine);
            let memory = if folder.is_null() {
                Documents::in_memory(engine)
            } else {
                Documents::open(engine, &arguments::path(folder, "folder")?)?
            };
            for damaged in memory.damaged() {
                tracing::warn!("{}: {}; it is left out", damaged.path.display(), damaged.reason);
            }
            out.write(Box::into_raw(Box::new(HeraldDocuments { memory })));
            Ok(())
        })
    }
}

/// Frees the handle of documents, while no call runs on it. Its files stay. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_free(memory: *mut HeraldDocuments) {
    // SAFETY: the caller keeps to the header's rules.
    unsafe { super::status::free(memory) };
}

/// Adds a text (UTF-8, text_len bytes) under a name (NUL-terminated UTF-8), and puts its number in *id, unless it is null.
/// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (an empty text); UNSUPPORTED; IO; OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_add(
    memory: *const HeraldDocuments,
    name: *const c_char,
    text: *const c_char,
    text_len: usize,
    id: *mut u64,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let name = arguments::required_text(name, "name")?;
            let added = memory.memory.add(name, arguments::text(text, text_len, "text")?)?;
            if !id.is_null() {
                arguments::place(id, "id")?.write(added.id);
            }
            Ok(())
        })
    }
}

/// Hands the count chunks that fit a query (NUL-terminated UTF-8) best to each, best first. each returns HERALD_GO_ON, or
/// HERALD_STOP for no more; it runs on the calling thread and must not throw or longjmp. user_data is handed to it. Any
/// thread, many at once. Statuses: OK; INVALID_ARGUMENT (an empty query); OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_search(
    memory: *const HeraldDocuments,
    query: *const c_char,
    count: usize,
    each: Option<unsafe extern "C" fn(user_data: *mut c_void, hit: *const HeraldHit) -> i32>,
    user_data: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let each = each.ok_or_else(|| Failure::invalid("each is null, where a function was expected"))?;
            for hit in memory.memory.search(arguments::required_text(query, "query")?, count)? {
                let raw = HeraldHit {
                    document: hit.document,
                    name: hit.name.as_ptr().cast(),
                    name_len: hit.name.len(),
                    chunk: hit.chunk,
                    text: hit.text.as_ptr().cast(),
                    text_len: hit.text.len(),
                    score: hit.score,
                    meaning_rank: hit.meaning_rank,
                    word_rank: hit.word_rank.unwrap_or(0),
                    ..AbiStruct::empty()
                };
                if each(user_data, &raw const raw) != HERALD_GO_ON {
                    break;
                }
            }
            Ok(())
        })
    }
}

/// Writes a prompt for a question (NUL-terminated UTF-8), with as much of the count best chunks as leaves it with no more
/// than budget tokens, to text, NUL-terminated, and its length without the NUL to *len. capacity: bytes that text has room
/// for, which must be more than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length;
/// INVALID_ARGUMENT (also where the question alone takes more tokens); OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_recall(
    memory: *const HeraldDocuments,
    question: *const c_char,
    count: usize,
    budget: usize,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            let memory = arguments::value(memory, "memory")?;
            let question = arguments::required_text(question, "question")?;
            let recalled = memory.memory.recall(question, count, budget)?;
            arguments::answer_text(recalled.prompt.as_bytes(), text, capacity, len)
        })
    }
}

/// Removes a text by its number. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such text); IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_remove(
    memory: *const HeraldDocuments,
    id: u64,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            if arguments::value(memory, "memory")?.memory.remove(id)? {
                return Ok(());
            }
            Err(Failure::invalid(format!("there is no text {id}, where the number of one was expected")))
        })
    }
}

/// Removes all texts. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_clear(
    memory: *const HeraldDocuments,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the caller keeps to the header's rules.
    unsafe {
        guard(error, || {
            arguments::value(memory, "memory")?.memory.clear()?;
            Ok(())
        })
    }
}
