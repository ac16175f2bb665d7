//! A trie of the vocabulary's tokens: all tokens that a text begins with, in one walk along its bytes.

use crate::pieces::NO_TOKEN;
use std::collections::VecDeque;

/// A prefix of some token. Its children lie side by side, in order of the bytes that lead to them.
struct Node {
    first_child: u32,
    n_children: u32,
    /// The token that ends here, or [`NO_TOKEN`].
    token: u32,
}

/// The trie; its root is the first node.
pub(crate) struct Trie {
    nodes: Vec<Node>,
    /// The byte that leads to each node.
    labels: Vec<u8>,
}

impl Trie {
    /// A trie of tokens with their ids. Of tokens that are spelt alike the first id wins; empty ones are left out.
    pub(crate) fn new<'t>(tokens: impl Iterator<Item = (&'t [u8], u32)>) -> Self {
        let mut tokens: Vec<(&[u8], u32)> = tokens.filter(|(token, _)| !token.is_empty()).collect();
        tokens.sort_unstable();
        tokens.dedup_by_key(|(token, _)| *token);
        let empty = || Node { first_child: 0, n_children: 0, token: NO_TOKEN };
        let mut trie = Self { nodes: vec![empty()], labels: vec![0] };
        // Level by level: of each node that has no children yet, which tokens begin with it, and its length.
        let mut open = VecDeque::from([(0, 0, tokens.len(), 0)]);
        while let Some((node, mut from, to, length)) = open.pop_front() {
            if let Some(&(token, id)) = tokens[from..to].first()
                && token.len() == length
            {
                trie.nodes[node].token = id;
                from += 1;
            }
            trie.nodes[node].first_child = trie.nodes.len() as u32;
            while from < to {
                let byte = tokens[from].0[length];
                let end = from + tokens[from..to].partition_point(|(token, _)| token[length] == byte);
                open.push_back((trie.nodes.len(), from, end, length + 1));
                trie.nodes[node].n_children += 1;
                trie.nodes.push(empty());
                trie.labels.push(byte);
                from = end;
            }
        }
        trie
    }

    /// The tokens that `text` begins with, shortest first, each with its length in bytes.
    #[inline]
    pub(crate) fn prefixes<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let mut node = &self.nodes[0];
        let walk = text.iter().map_while(move |&byte| {
            let first = node.first_child as usize;
            let labels = &self.labels[first..first + node.n_children as usize];
            node = &self.nodes[first + labels.binary_search(&byte).ok()?];
            Some(node.token)
        });
        (1..).zip(walk).filter(|&(_, token)| token != NO_TOKEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tokens: &[&str], text: &str) -> Vec<(usize, u32)> {
        Trie::new(tokens.iter().map(|token| token.as_bytes()).zip(0..)).prefixes(text.as_bytes()).collect()
    }

    #[test]
    fn all_prefixes_shortest_first() {
        let tokens = ["abc", "a", "b", "abcd", "", "abc", "é"];
        assert_eq!(found(&tokens, "abcx"), [(1, 1), (3, 0)]);
        assert_eq!(found(&tokens, "abcd"), [(1, 1), (3, 0), (4, 3)]);
        assert_eq!(found(&tokens, "éa"), [(2, 6)]);
        assert_eq!(found(&tokens, "xa"), []);
        assert_eq!(found(&tokens, ""), []);
        assert_eq!(found(&[], "a"), []);
    }
}
