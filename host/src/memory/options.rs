//! How much of a sequence is kept how.

/// How much of a sequence a tier has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// So many tokens.
    Tokens(usize),
    /// As many tokens as take so many bytes in that tier, over all layers.
    Bytes(u64),
}

impl Capacity {
    /// The tokens that it has room for, where each takes so many bytes.
    pub(crate) fn tokens(self, token_bytes: usize) -> usize {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Bytes(bytes) => usize::try_from(bytes / token_bytes.max(1) as u64).unwrap_or(usize::MAX),
        }
    }
}

impl From<usize> for Capacity {
    fn from(tokens: usize) -> Self {
        Self::Tokens(tokens)
    }
}

/// How much of a sequence is kept how, and how much of it is attended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The latest tokens, whose pages stay as attention wrote them and are always attended to. Older pages, but the first
    /// of a sequence, are compressed.
    pub active: Capacity,
    /// The most compressed pages that a batch of tokens attends to, those that its queries would attend to most, chosen
    /// anew in every layer; `None`: all of them.
    pub far_pages: Option<usize>,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self { active: Capacity::Tokens(8192), far_pages: Some(64) }
    }
}
