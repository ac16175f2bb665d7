//! How much of a sequence stays in which tier.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How much of a sequence a tier has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// This many tokens.
    Tokens(usize),
    /// As many tokens as take this many bytes in that tier, over all layers.
    Bytes(u64),
}

impl Capacity {
    /// The tokens that it has room for, where each takes `token_bytes`.
    pub(crate) fn tokens(self, token_bytes: usize) -> usize {
        match self {
            Self::Tokens(tokens) => tokens,
            Self::Bytes(bytes) => usize::try_from(bytes / token_bytes.max(1) as u64).unwrap_or(usize::MAX),
        }
    }
}

impl FromStr for Capacity {
    type Err = String;

    /// Tokens (`4096`), or bytes with their unit (`2GiB`, `500MB`).
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no capacity, where tokens (4096) or bytes (2GiB) were expected");
        let text = text.trim();
        if let Ok(tokens) = text.parse() {
            return Ok(Self::Tokens(tokens));
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let unit: u64 = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
            "b" => 1,
            "kb" => 1000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(wrong()),
        };
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Self::Bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for Capacity {
    /// As [`Capacity::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokens(tokens) => write!(f, "{tokens}"),
            Self::Bytes(bytes) => write!(f, "{bytes}B"),
        }
    }
}

impl From<usize> for Capacity {
    fn from(tokens: usize) -> Self {
        Self::Tokens(tokens)
    }
}

/// How much of a sequence stays in which tier, and how much of it is attended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The latest tokens, whose pages stay as attention wrote them and are always attended to. Older pages, except for the first
    /// of a sequence, are compressed. [`MemoryOptions::EXACT`]: none ever is.
    pub active: Capacity,
    /// The latest of the compressed pages, which stay in RAM. Older ones go to an archive, a file on disk.
    pub compressed: Capacity,
    /// The most older pages that a pass attends to: in each layer, those that its queries would attend to most. `None`: all.
    pub selected_pages: Option<usize>,
    /// Where the archive lies: a file, or a folder for a nameless file that goes with the engine. `None`: the latter, in the
    /// user's cache folder. Nothing is written before the first page is archived.
    pub archive: Option<PathBuf>,
    /// Whether archived pages are compressed with LZ4.
    pub archive_lz4: bool,
    /// The most bytes of RAM for sequences and the prefix cache. At the limit, cached pages are dropped first, then pages move
    /// down a tier earlier than the capacities say; where that doesn't suffice, the call that needs room fails. `None`: no limit.
    pub budget: Option<u64>,
}

impl MemoryOptions {
    /// The active capacity with which nothing is compressed, whatever the budget: where that is used up, calls fail.
    pub const EXACT: Capacity = Capacity::Tokens(usize::MAX);

    /// Whether no page is ever compressed.
    pub(crate) fn is_exact(&self) -> bool {
        self.active == Self::EXACT
    }
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            active: Capacity::Tokens(3072),
            compressed: Capacity::Tokens(32768),
            selected_pages: Some(64),
            archive: None,
            archive_lz4: false,
            budget: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity::{self, Bytes, Tokens};

    #[test]
    fn capacities_are_tokens_or_bytes() {
        let cases = [
            ("4096", Some(Tokens(4096))),
            ("0", Some(Tokens(0))),
            ("2GiB", Some(Bytes(2 << 30))),
            ("512 mib", Some(Bytes(512 << 20))),
            ("1GB", Some(Bytes(1_000_000_000))),
            ("7B", Some(Bytes(7))),
            ("", None),
            ("GiB", None),
            ("-1", None),
            ("1.5GiB", None),
            ("2 tokens", None),
            ("99999999999GiB", None),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Capacity>().ok(), expected, "{text:?}");
        }
        assert_eq!(Bytes(1000).tokens(10), 100);
        assert_eq!(Tokens(1000).tokens(10), 1000);
        assert_eq!(Bytes(1000).tokens(0), 1000, "a model without pages");
    }
}
