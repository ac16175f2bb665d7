//! Sequences and the prefix cache: beginning with what was computed before, and keeping what is computed.
//!
//! Pages are kept as they are, whole ones after each piece of a prompt, the last one when a sequence's turn ends. Recurrent states
//! exist only after the last token of a pass, so a prompt's pieces end where states are wanted: at the last page boundary
//! before its end, since the next prompt often differs from there on (the template's opening of an answer); where it leaves what
//! earlier prompts had, since others may leave it there too (Marconi, arXiv 2411.19379); and now and then before, more densely
//! towards the end.

use super::{NeuroEngine, Sequence};
use crate::kv_cache::{CacheReport, PageKey};

/// Tokens before a prompt's end for which states are kept after each piece. They get half as dense each time it doubles.
const DENSE: usize = 4096;

impl NeuroEngine {
    /// Begins an empty sequence with what earlier ones computed of the same tokens; returns how many tokens that are. The prompt's
    /// last token is never among them, since its logits are wanted.
    pub(crate) fn begin_shared(&self, sequence: &mut Sequence, ids: &[u32]) -> usize {
        let cache = &self.memory.prefixes;
        let [before_last @ .., _] = ids else { return 0 };
        if !cache.is_on() || !sequence.tokens.is_empty() || sequence.torn {
            return 0;
        }
        let (needs, ledger) = (&self.memory.needs, &self.memory.ledger);
        let room = self.memory.room_for_prefixes();
        let hit = cache.find(self.root(sequence), before_last, needs, ledger, room);
        sequence.branch = hit.known;
        if hit.tokens == 0 {
            return 0;
        }
        let (limits, how) = (self.memory.limits(), (&self.layers[..], &*self.pool));
        if let Err(error) =
            sequence.memory.take_over(&hit.rows, hit.states.as_deref(), hit.tokens, limits, how)
        {
            tracing::warn!("a prompt's beginning is computed again: {error}");
            sequence.memory.truncate(0);
            return 0;
        }
        sequence.tokens.extend_from_slice(&ids[..hit.tokens]);
        hit.tokens
    }

    /// How many of the `left` tokens of a prompt the next pass should run, where it may run `most`.
    pub(crate) fn piece(&self, sequence: &Sequence, left: usize, most: usize) -> usize {
        let (past, most) = (sequence.tokens.len(), most.min(left));
        if !self.memory.prefixes.is_on() || !self.memory.prefixes.with_states() || most == 0 {
            return most;
        }
        let (page, stop) = (self.page_tokens, past + most);
        // Where a pass would be too short to pay, there are states of the last one's end nearby.
        let next = (past / self.aligned_batch() + 1) * self.aligned_batch();
        let next = if next - past >= page { next } else { past };
        let marks = [sequence.branch, self.last_boundary(past + left), next];
        if let Some(mark) = marks.into_iter().filter(|mark| (past + 1..=stop).contains(mark)).min() {
            return mark - past;
        }
        let end = stop / page * page;
        if most == left || end <= past { most } else { end - past }
    }

    /// The most tokens of a pass, in whole pages.
    fn aligned_batch(&self) -> usize {
        (self.max_batch / self.page_tokens).max(1) * self.page_tokens
    }

    /// The last page boundary before a prompt's end.
    fn last_boundary(&self, end: usize) -> usize {
        end.saturating_sub(1) / self.page_tokens * self.page_tokens
    }

    /// Keeps what a piece of a prompt has computed, whose end is `left` tokens away.
    pub(crate) fn keep_piece(&self, sequence: &Sequence, left: usize) {
        let (tokens, end) = (sequence.tokens.len(), sequence.tokens.len() + left);
        let every = self.aligned_batch() << (1 + left / DENSE).ilog2();
        let wanted =
            tokens.is_multiple_of(every) || tokens == sequence.branch || tokens == self.last_boundary(end);
        self.keep(sequence, false, wanted && tokens.is_multiple_of(self.page_tokens));
    }

    /// Keeps all that a sequence has computed, at the end of its turn.
    pub(crate) fn keep_all(&self, sequence: &Sequence) {
        self.keep(sequence, true, true);
    }

    fn keep(&self, sequence: &Sequence, tail: bool, states: bool) {
        let cache = &self.memory.prefixes;
        if !cache.is_on() || sequence.torn || !sequence.is_own || sequence.tokens.is_empty() {
            return;
        }
        let root = self.root(sequence);
        let wanted = states && cache.with_states() && !cache.has_states(root, &sequence.tokens);
        let states =
            if wanted && self.memory.has_room_for_states() { sequence.memory.snapshot() } else { None };
        cache.keep(root, &sequence.tokens, &sequence.memory, tail, states);
    }

    /// Where a sequence begins in the cache.
    fn root(&self, sequence: &Sequence) -> PageKey {
        let root = self.memory.prefixes.root(|| self.cache_scope(), sequence.cache_key.as_deref());
        sequence.loras.key().map_or(root, |loras| root.of_loras(loras))
    }

    /// What the prefix cache holds and has done.
    #[must_use]
    pub fn cache_report(&self) -> CacheReport {
        self.memory.prefixes.report()
    }

    /// Returns once the prefix cache's files hold all that was kept so far; at once where it has none.
    pub fn flush_cache(&self) {
        self.memory.prefixes.flush();
    }

    /// Forgets what the prefix cache has in RAM. Pages that sequences use live on with these, and files stay.
    pub fn forget_prefixes(&self) {
        self.memory.prefixes.clear();
    }
}

impl Sequence {
    /// Keeps it apart in the prefix cache: it shares only with sequences of the same key, which may name a client or a user;
    /// `None`, as it begins: with all that have none.
    pub fn set_cache_key(&mut self, key: Option<&str>) {
        self.cache_key = key.map(str::to_owned);
    }
}
