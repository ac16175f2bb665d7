//! Keeps texts in chunks and searches them.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use herald_api::abi::{AbiStruct, HeraldError};

use super::HeraldEngine;
use super::arguments::Handle;
use super::run::HERALD_GO_ON;
use super::status::{Failure, free};
use herald_documents::Documents;
use herald_engine::NeuroEngine;

/// Texts in chunks of 1,024 tokens that overlap by 128, found by meaning and by words. All calls on it except
/// herald_documents_free may come from any thread, many at once.
pub struct HeraldDocuments {
    documents: Documents,
    engine: Arc<NeuroEngine>,
}

impl Handle for HeraldDocuments {
    fn engine(&self) -> &NeuroEngine {
        &self.engine
    }
}

/// A chunk that a search found. Valid during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeraldHit {
    /// sizeof(HeraldHit) of the library.
    pub struct_size: usize,
    /// Its text's number.
    pub document: u64,
    /// Its text's name: name_len bytes of UTF-8, not NUL-terminated.
    pub name: *const c_char,
    /// Bytes of name.
    pub name_len: usize,
    /// Its index in the text.
    pub chunk: usize,
    /// The chunk: text_len bytes of UTF-8, not NUL-terminated.
    pub text: *const c_char,
    /// Bytes of text.
    pub text_len: usize,
    /// The sum of its reciprocal ranks by meaning and by words.
    pub score: f64,
    /// Its rank by meaning, from 1.
    pub meaning_rank: usize,
    /// Its rank by words, from 1; 0 if it has too few of the query's words.
    pub word_rank: usize,
}

/// Opens a folder's documents (NUL-terminated path), creating the folder if it doesn't exist, and writes them to *out; the
/// caller frees them with herald_documents_free. On failure *out is null. If folder is null, the documents are only in RAM.
/// Damaged files are left out, with a warning in the log. The engine may be freed before them. Any thread. Statuses: OK;
/// INVALID_ARGUMENT (also if the texts were added with another model); IO; NOT_FOUND; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_open(
    engine: *const HeraldEngine,
    folder: *const c_char,
    out: *mut *mut HeraldDocuments,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.write_handle(out, || {
            let engine = Arc::clone(&call.handle(engine, "engine")?.engine);
            let documents = if folder.is_null() {
                Documents::in_memory(Arc::clone(&engine))
            } else {
                Documents::open(Arc::clone(&engine), &call.path(folder, "folder")?)?
            };
            for damaged in documents.damaged() {
                tracing::warn!("{}: {}; it is left out", damaged.path.display(), damaged.reason);
            }
            Ok(HeraldDocuments { documents, engine })
        })
    })
}

/// Frees the handle. No call may be running on it. The files stay. Any thread. Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_free(documents: *mut HeraldDocuments) {
    // SAFETY: by herald.h's rules it is null or came from `herald_documents_open`, and the caller doesn't use it again.
    unsafe { free(documents) };
}

/// Adds a text (UTF-8, text_len bytes) under a name (NUL-terminated UTF-8), and writes its number to *id, unless id is null.
/// Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (an empty text); UNSUPPORTED; IO; OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_add(
    documents: *const HeraldDocuments,
    name: *const c_char,
    text: *const c_char,
    text_len: usize,
    id: *mut u64,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let documents = &call.handle(documents, "documents")?.documents;
        let name = call.required_text(name, "name")?;
        let added = documents.add(name, call.text(text, text_len, "text")?)?;
        call.write_if_wanted(id, added.id, "id")
    })
}

/// Passes the count chunks that match a query (NUL-terminated UTF-8) best to each, best first. each returns HERALD_GO_ON, or
/// HERALD_STOP for no more; it gets user_data, runs on the calling thread and must not throw or longjmp. Any thread, many at
/// once. Statuses: OK; INVALID_ARGUMENT (an empty query); OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_search(
    documents: *const HeraldDocuments,
    query: *const c_char,
    count: usize,
    each: Option<unsafe extern "C" fn(user_data: *mut c_void, hit: *const HeraldHit) -> i32>,
    user_data: *mut c_void,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let documents = &call.handle(documents, "documents")?.documents;
        let each = each.ok_or_else(|| Failure::invalid("each is null, where a function was expected"))?;
        for hit in documents.search(call.required_text(query, "query")?, count)? {
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
            // SAFETY: `each` is a function with herald.h's contract; `raw` and `hit` outlive the call.
            if unsafe { each(user_data, &raw const raw) } != HERALD_GO_ON {
                break;
            }
        }
        Ok(())
    })
}

/// Writes a prompt for a question (NUL-terminated UTF-8), with as much of the count best chunks as fits into budget tokens,
/// NUL-terminated, to text, and its length without the NUL to *len. capacity: size of text in bytes, which must be greater
/// than *len. Any thread, many at once. Statuses: OK; BUFFER_TOO_SMALL, with *len the length; INVALID_ARGUMENT (also if the
/// question alone exceeds the budget); OUT_OF_MEMORY; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_recall(
    documents: *const HeraldDocuments,
    question: *const c_char,
    count: usize,
    budget: usize,
    text: *mut c_char,
    capacity: usize,
    len: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        let documents = &call.handle(documents, "documents")?.documents;
        let question = call.required_text(question, "question")?;
        let recalled = documents.recall(question, count, budget)?;
        call.write_text(recalled.prompt.as_bytes(), text, capacity, len)
    })
}

/// Removes a text by its number. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT (no such text); IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_remove(
    documents: *const HeraldDocuments,
    id: u64,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        if call.handle(documents, "documents")?.documents.remove(id)? {
            return Ok(());
        }
        Err(Failure::invalid(format!("there is no text {id}, where the number of a kept text was expected")))
    })
}

/// Removes all texts. Any thread, many at once. Statuses: OK; INVALID_ARGUMENT; IO; INTERNAL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn herald_documents_clear(
    documents: *const HeraldDocuments,
    error: *mut HeraldError,
) -> u32 {
    c_call!(error, |call| {
        call.handle(documents, "documents")?.documents.clear()?;
        Ok(())
    })
}
