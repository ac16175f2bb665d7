//! A tier that the plugin made, called as C calls it.

use herald_api::abi::{
    AbiStruct, HeraldPage, HeraldTier, HeraldTierConfig, HeraldTierQuery, HeraldTierStats, HeraldTierTable,
};
use herald_api::{AlignedBytes, Status, TierConfig, TierKind};

use super::page::{Contents, aligned};
use crate::answer::{Answer, Buffer, call, created};
use crate::check::{Verdict, ensure};
use crate::guard::{Guarded, Place};

/// What a tier's pages look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) n_kv_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
    pub(super) page_tokens: usize,
    pub(super) state_bytes: usize,
}

impl Shape {
    pub(super) const fn of(n_kv_heads: usize, key_dim: usize, value_dim: usize, page_tokens: usize) -> Self {
        Self { n_kv_heads, key_dim, value_dim, page_tokens, state_bytes: 0 }
    }

    pub(super) const fn state(state_bytes: usize) -> Self {
        Self { n_kv_heads: 0, key_dim: 0, value_dim: 0, page_tokens: 1, state_bytes }
    }

    /// Heads times tokens.
    pub(super) fn slots(&self) -> usize {
        self.n_kv_heads * self.page_tokens
    }

    pub(super) fn config(&self, capacity_bytes: Option<u64>) -> TierConfig {
        TierConfig {
            kind: TierKind::Active,
            n_kv_heads: self.n_kv_heads,
            key_dim: self.key_dim,
            value_dim: self.value_dim,
            page_tokens: self.page_tokens,
            state_bytes: self.state_bytes,
            capacity_bytes,
            path: None,
            lz4: false,
        }
    }

    /// Bytes of a page's keys, or of a state, and of its values.
    pub(super) fn page_bytes(&self) -> (usize, usize) {
        self.config(None).page_bytes().unwrap_or_else(|| panic!("the checks' own shapes are small: {self:?}"))
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        if self.state_bytes > 0 {
            return format!("states of {} bytes", self.state_bytes);
        }
        let Self { n_kv_heads, key_dim, value_dim, page_tokens, .. } = self;
        format!("{n_kv_heads} heads of {key_dim} and {value_dim}, {page_tokens} tokens")
    }
}

/// What to ask a plugin for a tier of.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) kind: TierKind,
    pub(super) shape: Shape,
    pub(super) capacity: u64,
    pub(super) path: String,
    pub(super) flags: u64,
}

/// The struct that asks for it, which points to its path.
pub(super) struct Request<'w> {
    pub(super) config: HeraldTierConfig,
    wanted: &'w Wanted,
}

impl Wanted {
    pub(super) fn request(&self) -> Request<'_> {
        let config = HeraldTierConfig {
            kind: self.kind as u32,
            n_kv_heads: self.shape.n_kv_heads as u32,
            key_dim: self.shape.key_dim as u32,
            value_dim: self.shape.value_dim as u32,
            page_tokens: self.shape.page_tokens as u32,
            state_bytes: self.shape.state_bytes as u64,
            capacity_bytes: self.capacity,
            path: self.path.as_ptr().cast(),
            path_len: self.path.len(),
            flags: self.flags,
            ..AbiStruct::empty()
        };
        Request { config, wanted: self }
    }
}

/// A tier, with what it keeps.
pub(super) struct Made<'p> {
    table: &'p HeraldTierTable,
    raw: *mut HeraldTier,
    pub(super) shape: Shape,
}

// SAFETY: the ABI's contract: all calls but destroy may come from any thread, many at once.
unsafe impl Send for Made<'_> {}
// SAFETY: as for Send.
unsafe impl Sync for Made<'_> {}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the tier came from this table's create, and nothing calls it any more.
            unsafe { destroy(self.raw) };
        }
    }
}

/// Asks the table for a tier; the tier, or how that failed.
fn create_raw(table: &HeraldTierTable, request: &Request<'_>) -> Verdict<Result<*mut HeraldTier, Answer>> {
    let Some(create) = table.create else {
        unreachable!("a table without create is refused when it is loaded")
    };
    // SAFETY: the ABI's contract; the request and the path that it points to live for the call.
    created("tier", |out, error| unsafe { create(&raw const request.config, out, error) })
}

/// A function of the table that every tier has.
macro_rules! required {
    ($table:expr, $name:ident) => {
        match $table.$name {
            Some(function) => function,
            None => unreachable!("a table without {} is refused when it is loaded", stringify!($name)),
        }
    };
}

/// The ids and scores of a search, or why there are none.
pub(super) type Found = Result<Vec<(u64, f32)>, Answer>;

impl<'p> Made<'p> {
    /// Has a tier made.
    pub(super) fn create(table: &'p HeraldTierTable, wanted: &Wanted) -> Verdict<Result<Self, Answer>> {
        Self::of(table, &wanted.request())
    }

    /// Has a tier made of a request, which may say something else than the shape.
    pub(super) fn of(table: &'p HeraldTierTable, request: &Request<'_>) -> Verdict<Result<Self, Answer>> {
        let shape = request.wanted.shape.clone();
        Ok(create_raw(table, request)?.map(|raw| Self { table, raw, shape }))
    }

    /// Puts a page from memory that ends where it ends.
    pub(super) fn put(&self, id: u64, page: &Contents) -> Verdict<Answer> {
        let guarded = |what, bytes: &[u8]| Guarded::copy_of(what, bytes, AlignedBytes::ALIGN, Place::High);
        let (keys, values) =
            (guarded("a page's keys", &page.keys)?, guarded("a page's values", &page.values)?);
        let raw = HeraldPage { keys: keys.pointer().cast(), values: values.pointer().cast(), ..page.raw() };
        self.put_raw(id, &raw)
    }

    pub(super) fn put_raw(&self, id: u64, page: *const HeraldPage) -> Verdict<Answer> {
        let put = required!(self.table, put);
        // SAFETY: the ABI's contract: null, or a page of the caller's that lives for the call.
        call("put", |error| unsafe { put(self.raw, id, page, error) })
    }

    /// Copies a page out; its contents where that succeeds.
    pub(super) fn get(&self, id: u64) -> Verdict<Result<Contents, Answer>> {
        self.get_with(id, self.shape.page_bytes())
    }

    /// The same with room for so many bytes of keys and of values.
    pub(super) fn get_with(&self, id: u64, room: (usize, usize)) -> Verdict<Result<Contents, Answer>> {
        let get = required!(self.table, get);
        let mut keys = Buffer::new(room.0, 0xa3_u8, 0xc5);
        let mut values = Buffer::new(room.1, 0xa3_u8, 0xc5);
        let mut page = HeraldPage {
            n_tokens: u32::MAX,
            keys: keys.as_mut_ptr().cast(),
            key_bytes: room.0 as u64,
            values: values.as_mut_ptr().cast(),
            value_bytes: room.1 as u64,
            ..AbiStruct::empty()
        };
        // SAFETY: the ABI's contract; the buffers have the sizes that are said.
        let answer = call("get", |error| unsafe { get(self.raw, id, &raw mut page, error) })?;
        let (keys, values) = (keys.filled("get")?, values.filled("get")?);
        if !answer.is_ok() {
            return Ok(Err(answer));
        }
        ensure!(page.n_tokens != u32::MAX, NotWritten, "get of page {id} gave OK and no number of tokens");
        ensure!(
            page.n_tokens as usize <= self.shape.page_tokens,
            WrongLength,
            "get says that page {id} holds {} tokens, where at most {} have room",
            page.n_tokens,
            self.shape.page_tokens
        );
        let state = self.shape.state_bytes > 0;
        Ok(Ok(Contents {
            format: if state {
                herald_api::abi::HERALD_PAGE_OPAQUE
            } else {
                herald_api::abi::HERALD_PAGE_I16
            },
            n_tokens: page.n_tokens as usize,
            capacity: self.shape.page_tokens,
            keys: aligned(keys),
            values: aligned(values),
        }))
    }

    /// A page that must be there.
    pub(super) fn must_get(&self, id: u64) -> Verdict<Contents> {
        match self.get(id)? {
            Ok(contents) => Ok(contents),
            Err(answer) => {
                ensure!(false, LosesData, "get of page {id}, which was put, gave {}", answer.say());
                unreachable!("`ensure` returned")
            }
        }
    }

    /// Where the tier keeps a page; checked for what the ABI says of it.
    pub(super) fn view(&self, id: u64) -> Verdict<Result<HeraldPage, Answer>> {
        let view = required!(self.table, view);
        let mut page = HeraldPage { start: 0x1234_5678_9abc, n_tokens: u32::MAX, ..AbiStruct::empty() };
        // SAFETY: the ABI's contract; the page is our own.
        let answer = call("view", |error| unsafe { view(self.raw, id, &raw mut page, error) })?;
        if !answer.is_ok() {
            return Ok(Err(answer));
        }
        ensure!(page.start == 0x1234_5678_9abc, WritesOutside, "view of page {id} changed the page's start");
        let exact = self.shape.page_bytes();
        let q4 = self.shape.config(None).q4_page_bytes();
        let (key_bytes, value_bytes) = match page.format {
            herald_api::abi::HERALD_PAGE_I16 if self.shape.state_bytes == 0 => exact,
            herald_api::abi::HERALD_PAGE_OPAQUE if self.shape.state_bytes > 0 => exact,
            herald_api::abi::HERALD_PAGE_Q4 if self.shape.state_bytes == 0 => q4.unwrap_or_default(),
            other => {
                ensure!(
                    false,
                    WrongResult,
                    "view of page {id} gave the format {other}, which such a tier can't have"
                );
                unreachable!("`ensure` returned")
            }
        };
        let said = (page.key_bytes, page.value_bytes);
        ensure!(
            said == (key_bytes as u64, value_bytes as u64),
            WrongLength,
            "view of page {id} in the format {} says {said:?} bytes of keys and values, where {:?} were expected",
            page.format,
            (key_bytes, value_bytes)
        );
        ensure!(
            page.n_tokens as usize <= self.shape.page_tokens,
            WrongLength,
            "view says that page {id} holds {} tokens, where at most {} have room",
            page.n_tokens,
            self.shape.page_tokens
        );
        for (start, bytes, what) in
            [(page.keys, page.key_bytes, "keys"), (page.values, page.value_bytes, "values")]
        {
            let aligned = !start.is_null() && (start as usize).is_multiple_of(AlignedBytes::ALIGN);
            ensure!(
                bytes == 0 || aligned,
                WrongResult,
                "view of page {id} gave {what} at {start:p}, where memory aligned to 64 bytes was expected"
            );
        }
        Ok(Ok(page))
    }

    /// A copy of what is where `view` said.
    ///
    /// # Safety
    /// The page came from this tier's `view`, and has neither been dropped nor released since.
    pub(super) unsafe fn seen(&self, page: &HeraldPage) -> Contents {
        // SAFETY: the ABI's contract: as many bytes are there, until the page is dropped or released.
        let [keys, values] =
            [(page.keys, page.key_bytes), (page.values, page.value_bytes)].map(|(start, len)| unsafe {
                match len {
                    0 => aligned(&[]),
                    _ => aligned(std::slice::from_raw_parts(start.cast_const().cast(), len as usize)),
                }
            });
        Contents {
            format: page.format,
            n_tokens: page.n_tokens as usize,
            capacity: self.shape.page_tokens,
            keys,
            values,
        }
    }

    pub(super) fn commit(&self, id: u64, n_tokens: u32) -> Verdict<Answer> {
        let commit = required!(self.table, commit);
        // SAFETY: the ABI's contract.
        call("commit", |error| unsafe { commit(self.raw, id, n_tokens, error) })
    }

    pub(super) fn drop_page(&self, id: u64) -> Verdict<Answer> {
        let drop = required!(self.table, drop);
        // SAFETY: the ABI's contract; the checks read no page after this.
        call("drop", |error| unsafe { drop(self.raw, id, error) })
    }

    /// `None` where the tier has no such function.
    pub(super) fn release(&self, id: u64) -> Verdict<Option<Answer>> {
        let release = |release: unsafe extern "C" fn(_, _, _) -> u32| {
            // SAFETY: the ABI's contract; the checks read no page after this.
            call("release", |error| unsafe { release(self.raw, id, error) })
        };
        self.table.release.map(release).transpose()
    }

    /// `None` where the tier has no such function.
    pub(super) fn flush(&self) -> Verdict<Option<Answer>> {
        let flush = |flush: unsafe extern "C" fn(_, _) -> u32| {
            // SAFETY: the ABI's contract.
            call("flush", |error| unsafe { flush(self.raw, error) })
        };
        self.table.flush.map(flush).transpose()
    }

    pub(super) fn stats(&self) -> Verdict<Option<HeraldTierStats>> {
        let Some(stats) = self.table.stats else { return Ok(None) };
        let mut out: HeraldTierStats = AbiStruct::empty();
        // SAFETY: the ABI's contract; the answer is our own.
        call("stats", |error| unsafe { stats(self.raw, &raw mut out, error) })?.ok("stats")?;
        Ok(Some(out))
    }

    /// Asks for at most `room` ids: those that were written, and how many pages there are said to be. `None` where the
    /// tier has no such function.
    pub(super) fn list(&self, room: usize) -> Verdict<Option<(Vec<u64>, usize)>> {
        const NONE: u64 = 0xeeee_eeee_eeee_eeee;
        let Some(list) = self.table.list else { return Ok(None) };
        let mut ids = Buffer::new(room, NONE, NONE);
        let mut n = usize::MAX;
        // SAFETY: the ABI's contract; the buffer has room for as many as are said.
        let answer = call("list", |error| unsafe {
            let to = ids.as_mut_ptr();
            list(self.raw, to, room, &raw mut n, error)
        })?;
        if answer.is_one_of(&[Status::Unsupported]) {
            return Ok(None);
        }
        answer.ok("list")?;
        let filled = ids.filled("list")?;
        let written = &filled[..n.min(room)];
        if let Some(at) = written.iter().position(|id| *id == NONE) {
            ensure!(
                false,
                WrongLength,
                "list says that there are {n} pages, and with room for {room} wrote {at} ids"
            );
        }
        Ok(Some((written.to_vec(), n)))
    }

    /// The best `k` of these pages, best first, with their scores; `None` where the tier has no such function.
    pub(super) fn search(
        &self,
        query: &[f32],
        n_queries: usize,
        ids: &[u64],
        k: usize,
    ) -> Verdict<Option<Found>> {
        let Some(search) = self.table.search else { return Ok(None) };
        let raw = HeraldTierQuery {
            ids: ids.as_ptr(),
            n_ids: ids.len(),
            query: query.as_ptr(),
            n_queries,
            ..AbiStruct::empty()
        };
        let mut found = Buffer::new(k, u64::MAX - 7, u64::MAX - 9);
        let mut scores = Buffer::new(k, -1e30_f32, -2e30);
        let mut n = usize::MAX;
        // SAFETY: the ABI's contract; the query holds its slices, and both buffers have room for k.
        let answer = call("search", |error| unsafe {
            let (found, scores) = (found.as_mut_ptr(), scores.as_mut_ptr());
            search(self.raw, &raw const raw, k, found, scores, &raw mut n, error)
        })?;
        let (found, scores) = (found.filled("search")?, scores.filled("search")?);
        if answer.is_one_of(&[Status::Unsupported]) {
            return Ok(None);
        }
        if !answer.is_ok() {
            return Ok(Some(Err(answer)));
        }
        let most = k.min(ids.len());
        ensure!(
            n == most,
            WrongLength,
            "search among {} pages for the best {k} says that it found {n}, where {most} were expected",
            ids.len()
        );
        Ok(Some(Ok(found.iter().copied().zip(scores.iter().copied()).take(n).collect())))
    }
}

/// Statuses of a tier that has no such page.
pub(super) const NOT_FOUND: [Status; 1] = [Status::NotFound];
