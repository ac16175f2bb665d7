//! Which page is which: the same in every process.

use std::collections::BTreeMap;
use std::fmt;

use sha2::{Digest, Sha256};

/// What tells a page apart: half of the SHA-256 of all tokens up to its end, of the model, and of what else changes what it holds.
/// Nobody finds two texts with the same one, so it may name files that other processes read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PageKey([u8; 16]);

impl PageKey {
    /// Where the sequences of an engine begin, for which these facts hold.
    pub(crate) fn of_facts(facts: &BTreeMap<String, String>) -> Self {
        let parts = facts.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        Self::hash("facts", parts)
    }

    /// Where those of this namespace begin, which share nothing with others.
    pub(crate) fn of_namespace(self, namespace: &str) -> Self {
        Self::hash("namespace", [&self.0[..], namespace.as_bytes()])
    }

    /// Where those begin that are computed with these adapters.
    pub(crate) fn of_loras(self, loras: &str) -> Self {
        Self::hash("loras", [&self.0[..], loras.as_bytes()])
    }

    /// The page of these tokens after this one.
    pub(crate) fn child(self, tokens: &[u32]) -> Self {
        let bytes: Vec<u8> = tokens.iter().flat_map(|id| id.to_le_bytes()).collect();
        Self::hash("page", [&self.0[..], &bytes])
    }

    fn hash<'p>(what: &'p str, parts: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in [what.as_bytes()].into_iter().chain(parts) {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }

    /// The key that [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = digits.then(|| u128::from_str_radix(text, 16).ok())??;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_in_every_process() {
        let facts = BTreeMap::from([("model".to_owned(), "m".to_owned())]);
        let page = PageKey::of_facts(&facts).child(&[1, 2, 3]);
        // Python: sha256 over each part after its length as 8 bytes, little-endian.
        assert_eq!(page.to_string(), "89257a0fd0f8a833558113d4be0f3aa3");
        assert_eq!(PageKey::parse(&page.to_string()), Some(page));
        assert_eq!(PageKey::parse("12"), None);
        assert_eq!(PageKey::parse(&"+1".repeat(16)), None);
    }

    #[test]
    fn whatever_differs_makes_another_key() {
        let root = PageKey::of_facts(&BTreeMap::new());
        let keys = [
            root,
            root.of_namespace(""),
            root.of_namespace("a"),
            root.of_loras("a"),
            root.of_namespace("a").of_loras("a"),
            root.child(&[]),
            root.child(&[1]),
            root.child(&[1, 0]),
            root.child(&[1]).child(&[0]),
            root.of_namespace("a").child(&[1]),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
