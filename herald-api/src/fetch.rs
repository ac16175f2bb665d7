//! Page selection as a backend sees it.

use std::marker::PhantomData;

use crate::abi::{self, HeraldFetch, HeraldSequence};
use crate::marshal::try_call;
use crate::sequence::{Needs, Sequences, check_pages};
use crate::{Attention, Error, Result};

/// Page selection (Quest, arXiv 2406.10774; InfLLM, arXiv 2402.04617): a layer scores its sequences' selectable pages, and
/// the host answers with sequences that have the best.
#[derive(Debug)]
pub struct Fetch<'a> {
    raw: HeraldFetch,
    n_tokens: usize,
    shape: &'a Attention,
    needs: Needs,
    lent: PhantomData<&'a mut [f32]>,
}

impl<'a> Fetch<'a> {
    /// What a host lent with a call of `n_tokens`; `None` where it lent nothing.
    ///
    /// # Safety
    /// `pointer` is null, or a host's `HeraldFetch` that is good for the lifetime `'a`, on this thread.
    pub(crate) unsafe fn from_raw(
        pointer: *const HeraldFetch,
        n_tokens: usize,
        shape: &'a Attention,
        needs: Needs,
    ) -> Result<Option<Self>> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the host's contract: a HeraldFetch that is good for the call; `read` checks the struct.
        let raw = unsafe { abi::read(pointer).map_err(Error::invalid)? };
        let bytes = raw.n_scores.checked_mul(size_of::<f32>());
        let possible = bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok());
        let there = raw.scores.is_aligned() && (raw.n_scores == 0 || !raw.scores.is_null());
        if raw.run.is_none() || !possible || !there {
            return Err(Error::invalid(format!(
                "HeraldFetch has no run function, or {} scores at {:p}, where aligned memory was expected",
                raw.n_scores, raw.scores
            )));
        }
        Ok(Some(Self { raw, n_tokens, shape, needs, lent: PhantomData }))
    }

    /// Memory for scores: `score_width` for each selectable page of every sequence. [`Fetch::run`] reads the first
    /// elements, one for each selectable page, sequence after sequence.
    pub fn scores(&mut self) -> &mut [f32] {
        if self.raw.n_scores == 0 {
            return &mut [];
        }
        // SAFETY: `from_raw` checked the pointer; the host lent the memory to this call alone for 'a.
        unsafe { std::slice::from_raw_parts_mut(self.raw.scores, self.raw.n_scores) }
    }

    /// Elements of the memory for scores.
    pub(crate) fn n_scores(&self) -> usize {
        self.raw.n_scores
    }

    /// Has the host choose by the scores: the call's sequences, with these pages among the others.
    ///
    /// # Errors
    /// As the host failed; [`crate::Status::InvalidArgument`] where its answer makes no sense.
    pub fn run(self) -> Result<Sequences<'a>> {
        let mut list = std::ptr::null();
        let Some(run) = self.raw.run else { return Err(Error::invalid("HeraldFetch has no run function")) };
        // SAFETY: the host's contract: this thread, once.
        try_call(|error| unsafe { run(self.raw.context, &mut list, error) })?;
        let mut len = 0;
        let mut tokens = 0;
        while tokens < self.n_tokens as u64 {
            if list.is_null() {
                return Err(Error::invalid("the host answered with no list of sequences"));
            }
            // SAFETY: the host's contract: the list covers the batch's tokens, which are not all found yet.
            let raw: HeraldSequence = unsafe { abi::read(list.add(len).read()).map_err(Error::invalid)? };
            tokens = raw.n_tokens.max(1).saturating_add(tokens);
            len += 1;
        }
        // SAFETY: the host's contract: the list is good until the call ends.
        let sequences =
            unsafe { Sequences::from_raw(list, len, self.n_tokens, self.needs).map_err(Error::invalid)? };
        let checked =
            |sequence| check_pages(&sequence, self.shape, self.needs.page_formats).map_err(Error::invalid);
        sequences.iter().try_for_each(checked)?;
        Ok(sequences)
    }
}
