//! How much of a sequence is kept how.

/// How much of a sequence is kept how, and how much of it is attended to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The latest tokens, whose pages stay as attention wrote them and are always attended to. Older pages, but the first
    /// of a sequence, are compressed.
    pub active_tokens: usize,
    /// The most compressed pages that a batch of tokens attends to, those that its queries would attend to most, chosen
    /// anew in every layer; `None`: all of them.
    pub far_pages: Option<usize>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { active_tokens: 8192, far_pages: Some(64) }
    }
}
