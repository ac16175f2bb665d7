//! The shortest way from anywhere in an answer to its end.
//!
//! The parser that checks an answer doesn't say what it waits for, so this follows the answer beside it: lexemes by the same automaton,
//! and what they mean by the same grammar. What is left at least is then a sum: the rest of the lexeme that has begun, what its
//! rule still wants, and what the rules around that want. Ways are checked by the parser before they count.

use std::collections::HashMap;
use std::sync::Arc;

use llguidance::derivre::StateID;
use llguidance::earley::CGrammar;
use llguidance::earley::lexerspec::LexemeIdx;
use llguidance::earley::regexvec::RegexVec;
use llguidance::toktrie::TokTrie;

use super::chart::Chart;
use super::spelling::{Spelling, Step, tokens_of};
use super::syntax::{Cost, NEVER, SymbolId, Syntax, sum};
use crate::stop::Stop;

/// The longest way that is looked for, in bytes.
const MAX_BYTES: usize = 4096;

/// Grammars of more lexemes than this are left to the slower search.
const MAX_LEXEMES: usize = 20_000;

/// A place in an answer.
#[derive(Clone, Copy)]
pub(super) struct Place {
    rows: usize,
    state: StateID,
    /// Whether a lexeme has begun.
    begun: bool,
}

/// Follows an answer, and knows the way to its end.
pub(super) struct Pathfinder {
    syntax: Syntax,
    spelling: Spelling,
    chart: Chart,
    place: Place,
}

impl Pathfinder {
    /// At the beginning of an answer. `None` where the form's grammar has parts that this doesn't know, or is too large.
    pub(super) fn new(grammar: &CGrammar, automaton: RegexVec, trie: &TokTrie, stop: &Stop) -> Option<Self> {
        let mut syntax = Syntax::new(grammar)?;
        let mut spelling = Spelling::new(automaton, grammar.lexer_spec().clone());
        let lexemes: Vec<LexemeIdx> = syntax.lexemes().take(MAX_LEXEMES + 1).collect();
        if lexemes.len() > MAX_LEXEMES {
            return None;
        }
        for lexeme in lexemes {
            if stop.ends() {
                return None;
            }
            spelling.learn(lexeme, trie);
        }
        syntax.weigh(|lexeme| spelling.cost(lexeme, trie));
        let chart = Chart::new(&syntax)?;
        let state = spelling.begin(chart.next(&syntax).map(|(lexeme, ..)| lexeme), false);
        let place = Place { rows: chart.len(), state, begun: false };
        Some(Self { syntax, spelling, chart, place })
    }

    /// Where it is.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Goes back to an earlier place.
    pub(super) fn back_to(&mut self, place: Place) {
        self.chart.truncate(place.rows);
        self.place = place;
    }

    /// Goes on by a token's bytes. Returns whether it could follow.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().all(|byte| self.follow_byte(*byte))
    }

    fn follow_byte(&mut self, byte: u8) -> bool {
        match self.spelling.step(self.place.state, byte) {
            Step::On(state) => {
                self.place.state = state;
                self.place.begun = true;
                true
            }
            Step::Last(lexemes) => self.end(&lexemes),
            // A lexeme that begins with the byte is no longer than the automaton, so this goes no deeper.
            Step::Before(lexemes) => self.place.begun && self.end(&lexemes) && self.follow_byte(byte),
            Step::Lost => false,
        }
    }

    /// Ends the lexeme that has begun, which is any of these.
    fn end(&mut self, lexemes: &[LexemeIdx]) -> bool {
        if self.spelling.is_skip(lexemes) {
            self.chart.skip();
        } else if !self.chart.scan(&self.syntax, lexemes) {
            return false;
        }
        let next = self.chart.next(&self.syntax).map(|(lexeme, ..)| lexeme);
        let state = self.spelling.begin(next, true);
        self.place = Place { rows: self.chart.len(), state, begun: false };
        true
    }

    /// The shortest text that would end the answer here; empty where it may end as it is.
    pub(super) fn way(&mut self, trie: &TokTrie) -> Option<Vec<u8>> {
        if !self.place.begun {
            return self.way_from_lexeme(&HashMap::new(), true, trie);
        }
        // What has begun may have ended already, or ends soonest so.
        let ended = self.spelling.ended(self.place.state).iter().map(|lexeme| (*lexeme, Arc::from([])));
        let mut texts: HashMap<LexemeIdx, Arc<[u8]>> = ended.collect();
        for (lexeme, text) in self.spelling.nearest(self.place.state).iter() {
            texts.entry(*lexeme).or_insert_with(|| Arc::clone(text));
        }
        let on = self.way_from_lexeme(&texts, false, trie);
        // Where it is what may stand between lexemes, the way goes on as from its beginning.
        let skipped = texts.iter().find(|(lexeme, _)| self.spelling.is_skip(&[**lexeme]));
        let after_skip = skipped.and_then(|(_, text)| {
            let rest = self.way_from_lexeme(&HashMap::new(), true, trie)?;
            Some([text, rest.as_slice()].concat())
        });
        on.into_iter().chain(after_skip).min_by_key(Vec::len)
    }

    /// The shortest text from a lexeme on: one that ends with the text that is given for it, or `whole`, which then may be none.
    fn way_from_lexeme(
        &self,
        texts: &HashMap<LexemeIdx, Arc<[u8]>>,
        whole: bool,
        trie: &TokTrie,
    ) -> Option<Vec<u8>> {
        if whole && self.chart.is_whole() {
            return Some(Vec::new());
        }
        let mut best: Option<(Cost, &[u8], SymbolId)> = None;
        for (lexeme, symbol, after) in self.chart.next(&self.syntax) {
            let text = if whole { self.spelling.own(lexeme) } else { texts.get(&lexeme) };
            let Some(text) = text else { continue };
            let cost = match whole {
                true => self.syntax.cost(symbol),
                false => tokens_of(trie, text).map_or(NEVER, |tokens| tokens.len() as Cost),
            };
            let total = sum(cost, after);
            if total != NEVER && best.is_none_or(|(known, ..)| total < known) {
                best = Some((total, text, symbol));
            }
        }
        let (_, text, symbol) = best?;
        let mut way = text.to_vec();
        let mut add = |lexeme: LexemeIdx| match self.spelling.own(lexeme) {
            Some(text) if way.len() + text.len() <= MAX_BYTES => {
                way.extend_from_slice(text);
                true
            }
            _ => false,
        };
        self.chart.spell_after(&self.syntax, symbol, &mut add).then_some(way)
    }
}
