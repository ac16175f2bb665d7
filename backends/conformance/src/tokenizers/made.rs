//! A tokenizer that the plugin made, called as C calls it.

use herald_api::Status;
use herald_api::abi::{
    HERALD_TEXT_CONTINUES, HERALD_TEXT_SPECIAL, HeraldTokenizer, HeraldTokenizerTable, HeraldVocabulary,
};

use super::vocabulary::{Packed, Words};
use crate::answer::{Answer, Buffer, call, created};
use crate::check::{Verdict, ensure};
use crate::guard::{Guarded, Place};

/// All that encoding and decoding can be told, for people too.
pub(super) const FLAGS: [(u32, &str); 4] = [
    (0, ""),
    (HERALD_TEXT_SPECIAL, " with SPECIAL"),
    (HERALD_TEXT_CONTINUES, " with CONTINUES"),
    (HERALD_TEXT_SPECIAL | HERALD_TEXT_CONTINUES, " with SPECIAL and CONTINUES"),
];

/// An id that no vocabulary has: what isn't written stays this.
const NEVER: u32 = u32::MAX;

/// A tokenizer, and what its vocabulary was.
pub(super) struct Made<'p> {
    table: &'p HeraldTokenizerTable,
    raw: *mut HeraldTokenizer,
    pub(super) words: Words,
    longest: usize,
    /// What `create` saw. Only `results::again` finds out whether the tokenizer still looks at it.
    pub(super) packed: Packed,
}

// SAFETY: the ABI's contract: any thread may call encode and decode, many at once.
unsafe impl Send for Made<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Made<'_> {}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the tokenizer came from this table's create, and nothing calls it any more.
            unsafe { destroy(self.raw) };
        }
    }
}

/// What a call gave: its answer, and what it wrote with OK or the number that it asked for.
pub(super) struct Given<T> {
    pub(super) answer: Answer,
    pub(super) n: usize,
    pub(super) written: Vec<T>,
}

/// Asks the table for a tokenizer of a struct; the tokenizer, or how that failed.
pub(super) fn create_raw(
    table: &HeraldTokenizerTable,
    raw: *const HeraldVocabulary,
) -> Verdict<Result<*mut HeraldTokenizer, Answer>> {
    let Some(create) = table.create else {
        unreachable!("a table without create is refused when it is loaded")
    };
    // SAFETY: the ABI's contract; the caller's struct lives for the call.
    created("tokenizer", |out, error| unsafe { create(raw, out, error) })
}

impl<'p> Made<'p> {
    /// Has a tokenizer made of a vocabulary.
    pub(super) fn create(table: &'p HeraldTokenizerTable, words: &Words) -> Verdict<Result<Self, Answer>> {
        let packed = Packed::new(words);
        Ok(create_raw(table, &raw const packed.raw)?.map(|raw| Self {
            table,
            raw,
            longest: words.longest(),
            words: words.clone(),
            packed,
        }))
    }

    fn n_tokens(&self) -> usize {
        self.words.tokens.len()
    }

    /// Calls encode with room for `capacity` ids, and looks at what it wrote.
    pub(super) fn encode(&self, text: &[u8], flags: u32, capacity: usize) -> Verdict<Given<u32>> {
        let Some(encode) = self.table.encode else { unreachable!("as for create") };
        let mut ids = Buffer::new(capacity, NEVER, NEVER - 1);
        let mut n = usize::MAX;
        let text = Guarded::copy_of("the text", text, 1, Place::High)?;
        // SAFETY: the ABI's contract; text and buffer have the sizes that are said.
        let answer = call("encode", |error| unsafe {
            let to = ids.as_mut_ptr();
            encode(self.raw, text.pointer().cast(), text.len(), flags, to, capacity, &raw mut n, error)
        })?;
        let filled = ids.filled("encode")?;
        let about = || format!("encode of {}", short(&String::from_utf8_lossy(text.bytes())));
        if !answer.is_ok() {
            return Ok(Given { answer, n, written: Vec::new() });
        }
        ensure!(n != usize::MAX, NotWritten, "{} gave OK and no number of ids", about());
        ensure!(
            n <= capacity,
            WrongLength,
            "{} says that it wrote {n} ids, where {capacity} had room",
            about()
        );
        let written = &filled[..n];
        if let Some(at) = written.iter().position(|id| *id == NEVER) {
            ensure!(false, WrongLength, "{} says that it wrote {n} ids, and wrote {at}", about());
        }
        if let Some(id) = written.iter().find(|id| **id as usize >= self.n_tokens()) {
            ensure!(
                false,
                WrongResult,
                "{} gave the id {id}, where ids below {} were expected",
                about(),
                self.n_tokens()
            );
        }
        Ok(Given { answer, n, written: written.to_vec() })
    }

    /// Calls decode with room for `capacity` bytes, and looks at what it wrote.
    pub(super) fn decode(&self, ids: &[u32], flags: u32, capacity: usize, fill: u8) -> Verdict<Given<u8>> {
        let Some(decode) = self.table.decode else { unreachable!("as for create") };
        let mut bytes = Buffer::new(capacity, fill, 0xc5);
        let mut n = usize::MAX;
        let bytes_of_ids: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let guarded = Guarded::copy_of("the ids", &bytes_of_ids, align_of::<u32>(), Place::High)?;
        // SAFETY: the ABI's contract; ids and buffer have the sizes that are said.
        let answer = call("decode", |error| unsafe {
            let to = bytes.as_mut_ptr();
            decode(self.raw, guarded.pointer().cast(), ids.len(), flags, to, capacity, &raw mut n, error)
        })?;
        let filled = bytes.filled("decode")?;
        if !answer.is_ok() {
            return Ok(Given { answer, n, written: Vec::new() });
        }
        ensure!(n != usize::MAX, NotWritten, "decode of {} ids gave OK and no number of bytes", ids.len());
        ensure!(
            n <= capacity,
            WrongLength,
            "decode of {} ids says that it wrote {n} bytes, where {capacity} had room",
            ids.len()
        );
        Ok(Given { answer, n, written: filled[..n].to_vec() })
    }

    /// Encodes as the host does: with room for as many ids as bytes, and once more with what it asks for.
    pub(super) fn ids(&self, text: &str, flags: u32) -> Verdict<Result<Vec<u32>, Answer>> {
        let guess = text.len() + 8;
        let mut given = self.encode(text.as_bytes(), flags, guess)?;
        if given.answer.code == Status::BufferTooSmall.code() {
            let n = given.n;
            check_need("encode", n, guess, 16 * guess)?;
            given = self.encode(text.as_bytes(), flags, n)?;
        }
        Ok(if given.answer.is_ok() { Ok(given.written) } else { Err(given.answer) })
    }

    /// Decodes as the host does.
    pub(super) fn bytes(&self, ids: &[u32], flags: u32) -> Verdict<Result<Vec<u8>, Answer>> {
        let guess = 4 * ids.len() + 8;
        let mut given = self.decode(ids, flags, guess, 0)?;
        if given.answer.code == Status::BufferTooSmall.code() {
            let n = given.n;
            check_need("decode", n, guess, ids.len() * self.longest.max(16))?;
            given = self.decode(ids, flags, n, 0)?;
        }
        Ok(if given.answer.is_ok() { Ok(given.written) } else { Err(given.answer) })
    }

    /// The ids of a text that it must be able to encode.
    pub(super) fn must_encode(&self, text: &str, flags: u32) -> Verdict<Vec<u32>> {
        match self.ids(text, flags)? {
            Ok(ids) => Ok(ids),
            Err(answer) => {
                ensure!(
                    false,
                    WrongStatus,
                    "encode of {} gave {}, where OK was expected",
                    short(text),
                    answer.say()
                );
                Ok(Vec::new())
            }
        }
    }

    /// The bytes of ids of its vocabulary.
    pub(super) fn must_decode(&self, ids: &[u32], flags: u32) -> Verdict<Vec<u8>> {
        match self.bytes(ids, flags)? {
            Ok(bytes) => Ok(bytes),
            Err(answer) => {
                ensure!(false, WrongStatus, "decode of {ids:?} gave {}, where OK was expected", answer.say());
                Ok(Vec::new())
            }
        }
    }
}

/// Whether the room that a call asks for can be honest.
pub(super) fn check_need(what: &str, n: usize, room: usize, most: usize) -> Verdict<()> {
    ensure!(
        n != usize::MAX && n > room && n <= most.max(room),
        WrongLength,
        "{what} asks for room for {n} elements after it was given {room}, where more than that and at most {most} were \
         expected"
    );
    Ok(())
}

/// A text in quotes, cut.
pub(super) fn short(text: &str) -> String {
    let cut: String = text.chars().take(24).collect();
    let more = if cut.len() < text.len() { format!("... of {} bytes", text.len()) } else { String::new() };
    format!("\"{}\"{more}", cut.escape_debug())
}
