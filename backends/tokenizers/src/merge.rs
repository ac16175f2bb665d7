//! Merging the symbols of one word, best pair first: the loop that both kinds of BPE share.
//!
//! A word of n symbols takes O(n log n): the symbols form a linked list, and a heap holds each adjacent pair that may
//! merge. Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016.

use crate::pieces::NO_TOKEN;
use herald_api::{Error, Result};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Marks the end of the linked list.
const NONE: u32 = u32::MAX;

/// The priority of a pair that doesn't merge. Smaller priorities merge first.
pub(crate) const NEVER: u32 = u32::MAX;

/// A stretch of a word that is, or is yet to become, one token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    /// Where in the word it starts, in bytes.
    pub(crate) start: u32,
    /// Where in the word it ends.
    pub(crate) end: u32,
    /// The token that it is, or [`NO_TOKEN`].
    pub(crate) token: u32,
}

/// A symbol in the list, with the pair that it begins.
struct Node {
    symbol: Symbol,
    previous: u32,
    next: u32,
    /// The priority of merging this symbol with the next, or [`NEVER`].
    priority: u32,
    /// The token which that makes.
    merged: u32,
}

/// The working memory of [`Merger::merge`], kept from word to word.
#[derive(Default)]
pub(crate) struct Merger {
    nodes: Vec<Node>,
    /// Priority and left symbol of each pair, the priority in the upper half: equal ones merge from the left.
    pairs: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// Starts a word.
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Appends a symbol to the word. A word has fewer than 2³² - 1 symbols.
    pub(crate) fn push(&mut self, symbol: Symbol) {
        let position = self.nodes.len() as u32;
        if let Some(last) = self.nodes.last_mut() {
            last.next = position;
        }
        let previous = position.checked_sub(1).unwrap_or(NONE);
        self.nodes.push(Node { symbol, previous, next: NONE, priority: NEVER, merged: NO_TOKEN });
    }

    /// Merges adjacent symbols until no pair is left that may. `rule` says of two neighbours with which priority they
    /// merge ([`NEVER`]: they don't), and into which token.
    pub(crate) fn merge(&mut self, rule: impl Fn(Symbol, Symbol) -> (u32, u32)) {
        let mut pairs = std::mem::take(&mut self.pairs).into_vec();
        pairs.clear();
        for left in 0..self.nodes.len() as u32 {
            pairs.extend(self.rate(left, &rule));
        }
        self.pairs = BinaryHeap::from(pairs);
        while let Some(Reverse(pair)) = self.pairs.pop() {
            let (priority, left) = ((pair >> 32) as u32, pair as u32);
            let node = &self.nodes[left as usize];
            // A pair whose symbols have since merged with others was rated anew, which left this entry stale.
            if node.priority != priority {
                continue;
            }
            let (previous, right, token) = (node.previous, node.next, node.merged);
            let taken = &mut self.nodes[right as usize];
            taken.priority = NEVER;
            let (end, next) = (taken.symbol.end, taken.next);
            let node = &mut self.nodes[left as usize];
            node.symbol.end = end;
            node.symbol.token = token;
            node.next = next;
            if next != NONE {
                self.nodes[next as usize].previous = left;
            }
            let again = self.rate(left, &rule);
            self.pairs.extend(again);
            if previous != NONE {
                let again = self.rate(previous, &rule);
                self.pairs.extend(again);
            }
        }
    }

    /// What the word has become, from left to right.
    pub(crate) fn symbols(&self) -> impl Iterator<Item = Symbol> + '_ {
        let mut position = if self.nodes.is_empty() { NONE } else { 0 };
        std::iter::from_fn(move || {
            let node = self.nodes.get(position as usize)?;
            position = node.next;
            Some(node.symbol)
        })
    }

    /// Rates the pair that the symbol at `left` begins; the heap's entry for it, where it may merge.
    fn rate(&mut self, left: u32, rule: &impl Fn(Symbol, Symbol) -> (u32, u32)) -> Option<Reverse<u64>> {
        let node = &self.nodes[left as usize];
        let (priority, merged) = match self.nodes.get(node.next as usize) {
            Some(next) => rule(node.symbol, next.symbol),
            None => (NEVER, NO_TOKEN),
        };
        let node = &mut self.nodes[left as usize];
        node.priority = priority;
        node.merged = merged;
        (priority != NEVER).then_some(Reverse((u64::from(priority) << 32) | u64::from(left)))
    }
}

/// Checks that positions in `text` fit the merger's 32 bits.
pub(crate) fn check_size(text: &str) -> Result<()> {
    if text.len() < u32::MAX as usize {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the text has {} bytes, and a text of less than 4 GiB was expected",
        text.len()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges `text`'s bytes by `merges`, each with the priority of its position, and joins the results with `|`.
    fn merged(text: &str, merges: &[&str]) -> String {
        let mut merger = Merger::default();
        for (position, byte) in (0..).zip(text.bytes()) {
            merger.push(Symbol { start: position, end: position + 1, token: u32::from(byte) });
        }
        merger.merge(|left, right| {
            let whole = &text[left.start as usize..right.end as usize];
            merges.iter().position(|&merge| merge == whole).map_or((NEVER, NO_TOKEN), |rank| (rank as u32, 0))
        });
        let words: Vec<&str> =
            merger.symbols().map(|symbol| &text[symbol.start as usize..symbol.end as usize]).collect();
        words.join("|")
    }

    #[test]
    fn the_best_pair_first_and_from_the_left() {
        assert_eq!(merged("", &["ab"]), "");
        assert_eq!(merged("a", &["ab"]), "a");
        assert_eq!(merged("aaa", &["aa"]), "aa|a");
        assert_eq!(merged("aaaa", &["aa", "aaaa"]), "aaaa");
        assert_eq!(merged("abc", &["bc", "ab"]), "a|bc");
        assert_eq!(merged("abcbc", &["bc", "abc", "abcbc"]), "abcbc");
        assert_eq!(merged("xaby", &["ab", "aby", "xab"]), "x|aby");
    }

    #[test]
    fn a_stale_pair_does_not_merge() {
        // "bc" is in the heap when "ab" takes its b away.
        assert_eq!(merged("abcd", &["ab", "bc", "cd"]), "ab|cd");
        assert_eq!(merged("aabb", &["ab", "aab", "aabb"]), "aabb");
    }
}
