//! What the host itself holds of an engine's sequences and in its cache, beside pages: recurrent states, and summaries of pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Adds up the charges of an engine's sequences.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sequences: AtomicU64,
    state_bytes: AtomicU64,
    summary_bytes: AtomicU64,
}

impl Ledger {
    /// How many sequences are open.
    pub(crate) fn sequences(&self) -> u64 {
        self.sequences.load(Ordering::Relaxed)
    }

    /// Bytes of their recurrent states, and of those in the cache.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.state_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the summaries of their pages.
    pub(crate) fn summary_bytes(&self) -> u64 {
        self.summary_bytes.load(Ordering::Relaxed)
    }
}

/// An open sequence and its recurrent states, whose size never changes. They leave the ledger when this is dropped.
#[derive(Debug)]
pub(crate) struct SequenceCharge {
    ledger: Arc<Ledger>,
    state_bytes: u64,
}

impl SequenceCharge {
    pub(crate) fn new(ledger: &Arc<Ledger>, state_bytes: usize) -> Self {
        let state_bytes = state_bytes as u64;
        ledger.sequences.fetch_add(1, Ordering::Relaxed);
        ledger.state_bytes.fetch_add(state_bytes, Ordering::Relaxed);
        Self { ledger: Arc::clone(ledger), state_bytes }
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }
}

impl Drop for SequenceCharge {
    fn drop(&mut self) {
        self.ledger.sequences.fetch_sub(1, Ordering::Relaxed);
        self.ledger.state_bytes.fetch_sub(self.state_bytes, Ordering::Relaxed);
    }
}

/// Recurrent states in the cache. They leave the ledger when this is dropped.
#[derive(Debug)]
pub(crate) struct StateCharge {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl StateCharge {
    pub(crate) fn new(ledger: &Arc<Ledger>, bytes: usize) -> Self {
        let bytes = bytes as u64;
        ledger.state_bytes.fetch_add(bytes, Ordering::Relaxed);
        Self { ledger: Arc::clone(ledger), bytes }
    }
}

impl Drop for StateCharge {
    fn drop(&mut self) {
        self.ledger.state_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The summaries of one layer's pages. They leave the ledger when this is dropped.
#[derive(Debug)]
pub(crate) struct SummaryCharge {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl SummaryCharge {
    pub(crate) fn new(ledger: &Arc<Ledger>) -> Self {
        Self { ledger: Arc::clone(ledger), bytes: 0 }
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Changes the charge to this many bytes.
    pub(crate) fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        // Added before it is taken away, so that the sum never wraps.
        self.ledger.summary_bytes.fetch_add(bytes, Ordering::Relaxed);
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.ledger.summary_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Drop for SummaryCharge {
    fn drop(&mut self) {
        self.ledger.summary_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_and_go() {
        let ledger = Arc::default();
        let (one, other) = (SequenceCharge::new(&ledger, 10), SequenceCharge::new(&ledger, 5));
        let cached = StateCharge::new(&ledger, 100);
        assert_eq!((ledger.sequences(), ledger.state_bytes()), (2, 115));
        drop(cached);
        let mut summaries = SummaryCharge::new(&ledger);
        summaries.set(7);
        summaries.set(3);
        assert_eq!((ledger.sequences(), ledger.state_bytes(), ledger.summary_bytes()), (2, 15, 3));
        drop((one, summaries));
        assert_eq!((ledger.sequences(), ledger.state_bytes(), ledger.summary_bytes()), (1, 5, 0));
        drop(other);
        assert_eq!((ledger.sequences(), ledger.state_bytes()), (0, 0));
    }
}
