//! The shortest texts of lexemes: from their beginning, and from the middle of one.
//!
//! A lexeme is a regular expression, so a text of it is a path through an automaton whose states are made as they are reached. The
//! search is breadth first, so the path is a shortest one, in bytes. A lexeme's own shortest text is also looked for in tokens,
//! since few long tokens may be shorter than many short ones.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use llguidance::derivre::StateID;
use llguidance::earley::lexerspec::{LexemeIdx, LexerSpec};
use llguidance::earley::regexvec::{LexemeSet, RegexVec};
use llguidance::toktrie::{TokTrie, TrieNode};

use super::syntax::{Cost, NEVER};

/// States that a search visits at most: other answers wait for it.
const MAX_STATES: usize = 5_000;

/// The automaton's own count of work for one search.
const FUEL: u64 = 200_000;

/// Steps through the tokens' tree that all searches in tokens of a form may take together.
const MAX_STEPS: usize = 3_000_000;

/// Searches that are remembered.
const MAX_KNOWN: usize = 2_000;

/// The automaton of all lexemes, with what is known of its shortest paths.
pub(super) struct Spelling {
    automaton: RegexVec,
    spec: LexerSpec,
    /// A byte of each class that the automaton tells apart, those of plain text first.
    bytes: Vec<u8>,
    own: HashMap<LexemeIdx, Arc<[u8]>>,
    known: HashMap<StateID, Arc<Nearest>>,
    steps_left: usize,
}

/// The lexemes that can still come of a state, with the shortest text that leads to each.
pub(super) type Nearest = Vec<(LexemeIdx, Arc<[u8]>)>;

/// A lexeme's end, or that there is none.
pub(super) enum Step {
    /// It goes on.
    On(StateID),
    /// The byte ends these lexemes, and is their last.
    Last(Vec<LexemeIdx>),
    /// These lexemes ended before the byte.
    Before(Vec<LexemeIdx>),
    /// The byte can't come, or this can't follow the lexer.
    Lost,
}

impl Spelling {
    /// Over an automaton of the lexemes of `spec`.
    pub(super) fn new(automaton: RegexVec, spec: LexerSpec) -> Self {
        let (mut seen, mut bytes) = (HashSet::new(), Vec::new());
        let text = (b'a'..=b'z').chain(b'0'..=b'9').chain(b'A'..=b'Z').chain(b' '..=b'~');
        for byte in text.chain(0..=u8::MAX) {
            if seen.insert(automaton.alpha().map(byte)) {
                bytes.push(byte);
            }
        }
        Self { automaton, spec, bytes, own: HashMap::new(), known: HashMap::new(), steps_left: MAX_STEPS }
    }

    /// The state before any of these lexemes, and before what may stand between lexemes, where `skips`.
    pub(super) fn begin(&mut self, lexemes: impl Iterator<Item = LexemeIdx>, skips: bool) -> StateID {
        let mut set: LexemeSet = self.spec.alloc_lexeme_set();
        for lexeme in lexemes {
            if skips {
                set.add(self.spec.skip_id(self.spec.lexeme_spec(lexeme).class()));
            }
            set.add(lexeme);
        }
        self.automaton.set_fuel(FUEL);
        self.automaton.initial_state(&set)
    }

    /// Whether these are what may stand between lexemes.
    pub(super) fn is_skip(&self, lexemes: &[LexemeIdx]) -> bool {
        lexemes.iter().any(|lexeme| self.spec.skip_id(self.spec.lexeme_spec(*lexeme).class()) == *lexeme)
    }

    /// Goes a byte on.
    pub(super) fn step(&mut self, state: StateID, byte: u8) -> Step {
        self.automaton.set_fuel(FUEL);
        let next = self.automaton.transition(state, byte);
        if self.automaton.has_error() {
            return Step::Lost;
        }
        if next.is_dead() {
            let ended = self.automaton.state_desc(state).greedy_accepting.as_slice();
            return if ended.is_empty() { Step::Lost } else { Step::Before(ended.to_vec()) };
        }
        if !next.has_lowest_match() {
            return Step::On(next);
        }
        let ended = self.automaton.state_desc(next);
        match ended.lazy_hidden_len == 0 && !ended.has_special_token {
            true => Step::Last(ended.lazy_accepting.as_slice().to_vec()),
            false => Step::Lost,
        }
    }

    /// The lexemes that a text which led here is, if it ends here.
    pub(super) fn ended(&self, state: StateID) -> &[LexemeIdx] {
        self.automaton.state_desc(state).greedy_accepting.as_slice()
    }

    /// A shortest text of a lexeme, as [`Spelling::learn`] found it.
    pub(super) fn own(&self, lexeme: LexemeIdx) -> Option<&Arc<[u8]>> {
        self.own.get(&lexeme)
    }

    /// What a lexeme's shortest text costs.
    pub(super) fn cost(&self, lexeme: LexemeIdx, trie: &TokTrie) -> Cost {
        let tokens = self.own(lexeme).and_then(|text| tokens_of(trie, text));
        tokens.map_or(NEVER, |tokens| tokens.len() as Cost)
    }

    /// Finds a shortest text of a lexeme.
    pub(super) fn learn(&mut self, lexeme: LexemeIdx, trie: &TokTrie) {
        if self.own.contains_key(&lexeme) {
            return;
        }
        let start = self.begin(std::iter::once(lexeme), false);
        let Some((_, by_bytes)) = self.search(start).into_iter().find(|(found, _)| *found == lexeme) else {
            return;
        };
        let n_tokens = tokens_of(trie, &by_bytes).map_or(usize::MAX, |tokens| tokens.len());
        // A token less can't be worth a search.
        let by_tokens = if n_tokens > 2 { self.search_tokens(start, lexeme, trie) } else { None };
        let text = match by_tokens {
            Some((text, n)) if n < n_tokens => text,
            _ => by_bytes,
        };
        self.own.insert(lexeme, text);
    }

    /// The shortest text, in bytes, that leads from a state to each lexeme that can come of it.
    pub(super) fn nearest(&mut self, state: StateID) -> Arc<Nearest> {
        if let Some(known) = self.known.get(&state) {
            return Arc::clone(known);
        }
        let nearest = Arc::new(self.search(state));
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(state, Arc::clone(&nearest));
        nearest
    }

    fn search(&mut self, start: StateID) -> Nearest {
        self.automaton.set_fuel(FUEL);
        let mut missing: HashSet<LexemeIdx> = self.automaton.state_desc(start).possible.iter().collect();
        let mut nearest = Nearest::new();
        // Each state's predecessor, and the byte that leads from it.
        let mut from: HashMap<StateID, (StateID, u8)> = HashMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(state) = open.pop_front() {
            let description = self.automaton.state_desc(state);
            let ends =
                [description.greedy_accepting.as_slice(), description.lazy_accepting.as_slice()].concat();
            for lexeme in ends {
                if missing.remove(&lexeme) {
                    nearest.push((lexeme, path(&from, start, state).into()));
                }
            }
            if missing.is_empty() || from.len() > MAX_STATES {
                break;
            }
            if state.has_lowest_match() {
                continue;
            }
            for &byte in &self.bytes {
                let next = self.automaton.transition(state, byte);
                if self.automaton.has_error() {
                    return nearest;
                }
                if !next.is_dead() && next != start && !from.contains_key(&next) {
                    from.insert(next, (state, byte));
                    open.push_back(next);
                }
            }
        }
        nearest
    }

    /// The text of fewest tokens that leads from a state to a lexeme, and how many they are.
    fn search_tokens(
        &mut self,
        start: StateID,
        lexeme: LexemeIdx,
        trie: &TokTrie,
    ) -> Option<(Arc<[u8]>, usize)> {
        let mut from: HashMap<StateID, (StateID, Vec<u8>)> = HashMap::new();
        let mut level = vec![start];
        for n in 1.. {
            let mut next_level = Vec::new();
            for state in std::mem::take(&mut level) {
                let mut reached = Reached { seen: HashSet::from([start]), states: Vec::new() };
                self.walk(trie, trie.root(), state, &mut Vec::new(), &mut reached)?;
                for (next, bytes) in reached.states {
                    if from.contains_key(&next) {
                        continue;
                    }
                    from.insert(next, (state, bytes));
                    let description = self.automaton.state_desc(next);
                    if description.greedy_accepting.contains(lexeme)
                        || description.lazy_accepting.contains(lexeme)
                    {
                        return Some((token_path(&from, start, next).into(), n));
                    }
                    if !next.has_lowest_match() {
                        next_level.push(next);
                    }
                }
            }
            if next_level.is_empty() {
                return None;
            }
            level = next_level;
        }
        None
    }

    /// All states that one token leads to. `None` where the work gets too much.
    fn walk(
        &mut self,
        trie: &TokTrie,
        node: &TrieNode,
        state: StateID,
        bytes: &mut Vec<u8>,
        reached: &mut Reached,
    ) -> Option<()> {
        for child in trie.node_children(node) {
            self.steps_left = self.steps_left.checked_sub(1)?;
            let next = self.automaton.transition(state, child.byte());
            if self.automaton.has_error() {
                return None;
            }
            if next.is_dead() {
                continue;
            }
            bytes.push(child.byte());
            if child.token_id().is_some() && reached.seen.insert(next) {
                reached.states.push((next, bytes.clone()));
            }
            if !next.has_lowest_match() {
                self.walk(trie, child, next, bytes, reached)?;
            }
            bytes.pop();
        }
        Some(())
    }
}

/// States that a token leads to, with its bytes.
struct Reached {
    seen: HashSet<StateID>,
    states: Vec<(StateID, Vec<u8>)>,
}

fn path(from: &HashMap<StateID, (StateID, u8)>, start: StateID, end: StateID) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut state = end;
    while state != start {
        let (before, byte) = from[&state];
        bytes.push(byte);
        state = before;
    }
    bytes.reverse();
    bytes
}

fn token_path(from: &HashMap<StateID, (StateID, Vec<u8>)>, start: StateID, end: StateID) -> Vec<u8> {
    let mut parts = Vec::new();
    let mut state = end;
    while state != start {
        let (before, bytes) = &from[&state];
        parts.push(bytes.as_slice());
        state = *before;
    }
    parts.reverse();
    parts.concat()
}

/// The fewest tokens that a text can be written in; `None` where the vocabulary can't express it.
pub(super) fn tokens_of(trie: &TokTrie, text: &[u8]) -> Option<Vec<u32>> {
    // For each length of the text, from its end: how many tokens the rest takes, and the first of them.
    let mut best: Vec<Option<(usize, u32, usize)>> = vec![None; text.len() + 1];
    best[text.len()] = Some((0, 0, 0));
    for at in (0..text.len()).rev() {
        let mut node = trie.root();
        for (length, byte) in text[at..].iter().enumerate() {
            let Some(child) = trie.child_at_byte(node, *byte) else { break };
            node = child;
            let rest = best[at + length + 1].filter(|_| child.token_id().is_some());
            if let (Some((n, ..)), Some(token)) = (rest, child.token_id())
                && best[at].is_none_or(|(known, ..)| n + 1 < known)
            {
                best[at] = Some((n + 1, token, length + 1));
            }
        }
    }
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let (_, token, length) = best[at]?;
        tokens.push(token);
        at += length;
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use llguidance::toktrie::TokRxInfo;

    use super::*;

    #[test]
    fn a_text_takes_the_fewest_tokens() {
        let words: Vec<Vec<u8>> =
            ["a", "b", "ab", "abc", "bcd", "d", "c"].iter().map(|word| word.as_bytes().to_vec()).collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, 6), &words);
        // The longest first token isn't always on the way.
        assert_eq!(tokens_of(&trie, b"abcd"), Some(vec![0, 4]));
        assert_eq!(tokens_of(&trie, b""), Some(vec![]));
        assert_eq!(tokens_of(&trie, b"ax"), None);
    }
}
