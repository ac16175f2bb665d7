//! A suffix automaton over a growing text: where its longest suffix that came before came last (Blumer et al., 1985; used for drafts as in
//! SAM decoding, arXiv 2411.10666).
//!
//! It has at most two states and three edges for each token, and a token is added in constant time on average.

use std::collections::HashMap;

/// No state, or no edge.
const NONE: u32 = u32::MAX;

/// The most links along which a new occurrence is noted. Texts like "aaaa" have as many links as tokens.
const MAX_NOTED: usize = 32;

/// A set of substrings that end at the same places.
#[derive(Clone, Copy, Debug)]
struct State {
    /// Tokens of the longest of them.
    len: u32,
    /// The state of its longest suffix that ends at other places too.
    link: u32,
    /// Its first edge.
    edges: u32,
    /// Where it came last, as far as that was noted: the index after its last token.
    end: u32,
}

/// A token that may follow.
#[derive(Clone, Copy, Debug)]
struct Edge {
    token: u32,
    to: u32,
    /// The next edge of the same state.
    next: u32,
}

/// The automaton of a text, and the text.
#[derive(Clone, Debug)]
pub(super) struct SuffixAutomaton {
    text: Vec<u32>,
    states: Vec<State>,
    edges: Vec<Edge>,
    /// The edge of a state and a token.
    index: HashMap<(u32, u32), u32>,
    /// The state of the whole text.
    last: u32,
    /// The longest suffix that came before: its length, and where it ended.
    repeated: (usize, usize),
}

impl SuffixAutomaton {
    pub(super) fn new() -> Self {
        let root = State { len: 0, link: NONE, edges: NONE, end: 0 };
        let (text, edges, index) = (Vec::new(), Vec::new(), HashMap::new());
        Self { text, states: vec![root], edges, index, last: 0, repeated: (0, 0) }
    }

    /// How many tokens the text has.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Adds a token to the text.
    pub(super) fn push(&mut self, token: u32) {
        self.text.push(token);
        let (end, len) = (self.text.len() as u32, self.states[self.last as usize].len + 1);
        let new = self.add(State { len, link: 0, edges: NONE, end });
        let mut state = self.last;
        let old = loop {
            if state == NONE {
                break None;
            }
            if let Some(edge) = self.index.get(&(state, token)) {
                break Some(self.edges[*edge as usize].to);
            }
            self.connect(state, token, new);
            state = self.states[state as usize].link;
        };
        self.last = new;
        let Some(old) = old else {
            self.repeated = (0, 0);
            return;
        };
        let link = if self.states[state as usize].len + 1 == self.states[old as usize].len {
            old
        } else {
            self.split(state, token, old)
        };
        self.states[new as usize].link = link;
        let repeated = self.states[link as usize];
        self.repeated = (repeated.len as usize, repeated.end as usize);
        let mut state = link;
        for _ in 0..MAX_NOTED {
            if state == 0 || state == NONE {
                break;
            }
            self.states[state as usize].end = end;
            state = self.states[state as usize].link;
        }
    }

    /// The length of the text's longest suffix that came before.
    pub(super) fn repeated(&self) -> usize {
        self.repeated.0
    }

    /// Up to `n` tokens that followed where that suffix came last. Where these run into the text's end, they repeat.
    pub(super) fn continuation(&self, n: usize) -> Vec<u32> {
        let (len, from) = self.repeated;
        if len == 0 || from >= self.text.len() {
            return Vec::new();
        }
        let period = self.text.len() - from;
        (0..n).map(|index| self.text[from + index % period]).collect()
    }

    fn add(&mut self, state: State) -> u32 {
        self.states.push(state);
        self.states.len() as u32 - 1
    }

    fn connect(&mut self, state: u32, token: u32, to: u32) {
        let edge = self.edges.len() as u32;
        self.edges.push(Edge { token, to, next: self.states[state as usize].edges });
        self.states[state as usize].edges = edge;
        self.index.insert((state, token), edge);
    }

    /// Gives the shorter substrings of the state `old`, which `from` and its suffixes lead to by `token`, a state of their own.
    fn split(&mut self, from: u32, token: u32, old: u32) -> u32 {
        let State { link, end, edges, .. } = self.states[old as usize];
        let len = self.states[from as usize].len + 1;
        let new = self.add(State { len, link, edges: NONE, end });
        let mut edge = edges;
        while edge != NONE {
            let Edge { token, to, next } = self.edges[edge as usize];
            self.connect(new, token, to);
            edge = next;
        }
        let mut state = from;
        while state != NONE {
            let Some(edge) = self.index.get(&(state, token)) else { break };
            let edge = &mut self.edges[*edge as usize];
            if edge.to != old {
                break;
            }
            edge.to = new;
            state = self.states[state as usize].link;
        }
        self.states[old as usize].link = new;
        new
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The longest suffix that came before, by trying them all: its length and every place where it ended.
    fn by_search(text: &[u32]) -> (usize, Vec<usize>) {
        for len in (1..text.len()).rev() {
            let suffix = &text[text.len() - len..];
            let ends: Vec<usize> = (len..text.len()).filter(|end| &text[end - len..*end] == suffix).collect();
            if !ends.is_empty() {
                return (len, ends);
            }
        }
        (0, Vec::new())
    }

    proptest! {
        #[test]
        fn the_longest_repeated_suffix_is_found(text in prop::collection::vec(0_u32..3, 0..80)) {
            let mut automaton = SuffixAutomaton::new();
            for n in 0..text.len() {
                automaton.push(text[n]);
                let (len, ends) = by_search(&text[..=n]);
                prop_assert_eq!(automaton.repeated(), len);
                let drafted = automaton.continuation(5);
                if len == 0 {
                    prop_assert!(drafted.is_empty());
                    continue;
                }
                let follows = |end: &usize| {
                    let period = n + 1 - end;
                    (0..5).map(|index| text[end + index % period]).eq(drafted.iter().copied())
                };
                prop_assert!(ends.iter().any(follows));
            }
        }
    }

    #[test]
    fn a_text_of_one_token_costs_little() {
        let mut automaton = SuffixAutomaton::new();
        (0..100_000).for_each(|_| automaton.push(7));
        assert_eq!(automaton.repeated(), 99_999);
        assert!(automaton.states.len() <= 200_000 && automaton.edges.len() <= 300_000);
        assert_eq!(automaton.continuation(3), [7, 7, 7]);
    }

    #[test]
    fn what_came_last_is_continued() {
        let mut automaton = SuffixAutomaton::new();
        [1, 2, 3, 9, 1, 2, 4, 9, 1, 2].into_iter().for_each(|token| automaton.push(token));
        assert_eq!((automaton.repeated(), automaton.continuation(2)), (3, vec![4, 9]));
    }
}
