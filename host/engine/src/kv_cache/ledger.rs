//! What the host itself holds of sequences: recurrent states, and summaries of pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Adds up the charges of an engine's sequences, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Ledger(AtomicU64);

impl Ledger {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one owner holds; nothing any more when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    ledger: Arc<Ledger>,
    bytes: u64,
}

impl Charge {
    pub(crate) fn new(ledger: &Arc<Ledger>, bytes: usize) -> Self {
        let mut charge = Self { ledger: Arc::clone(ledger), bytes: 0 };
        charge.set(bytes);
        charge
    }

    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Says how much it is now.
    pub(crate) fn set(&mut self, bytes: usize) {
        let bytes = bytes as u64;
        // Added before it is taken away, so that the sum never wraps.
        self.ledger.0.fetch_add(bytes, Ordering::Relaxed);
        self.ledger.0.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charges_add_up_and_go() {
        let ledger = Arc::default();
        let mut a = Charge::new(&ledger, 10);
        let b = Charge::new(&ledger, 5);
        a.set(3);
        assert_eq!(ledger.bytes(), 8);
        drop((a, b));
        assert_eq!(ledger.bytes(), 0);
    }
}
