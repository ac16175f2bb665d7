//! Sparing the merges of a word that is a token: most words of a text are.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Of each token, whether its text as a word becomes that token. In a vocabulary as trained it does, and the merges can
/// be spared; but a vocabulary may have been edited, so it is found out when the word is first met.
pub(crate) struct WholeWords(Vec<AtomicU8>);

impl WholeWords {
    /// For this many tokens; without any, each word becomes the token that it is.
    pub(crate) fn new(tokens: usize) -> Self {
        Self((0..tokens).map(|_| AtomicU8::new(0)).collect())
    }

    /// Whether the token's word becomes the token, where that is known.
    #[inline]
    pub(crate) fn get(&self, id: u32) -> Option<bool> {
        match self.0.get(id as usize).map(|known| known.load(Relaxed)) {
            None | Some(1) => Some(true),
            Some(0) => None,
            Some(_) => Some(false),
        }
    }

    pub(crate) fn set(&self, id: u32, whole: bool) {
        if let Some(known) = self.0.get(id as usize) {
            known.store(if whole { 1 } else { 2 }, Relaxed);
        }
    }
}
