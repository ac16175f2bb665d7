//! A bound on how long a model thinks before it answers.

use std::collections::VecDeque;

use crate::error::Result;
use crate::tokenizer::AscTokenizer;

/// How long a model may think before it answers, and how its thoughts are told from the answer. Thoughts stand at its beginning;
/// where they reach the bound, the text that ends them is written in place of what the model would have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThinkingBudget {
    /// The text before thoughts, such as `<think>`.
    pub begin: String,
    /// The text after them.
    pub end: String,
    /// Tokens that they may have, without those of the two texts.
    pub max_tokens: usize,
    /// Whether the prompt ends with the first of them.
    pub has_begun: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Before,
    /// With so many tokens.
    Within(usize),
    /// These tokens come next.
    Ending(VecDeque<u32>),
    After,
}

/// An answer's thoughts while they come.
#[derive(Debug)]
pub(super) struct Thoughts {
    budget: ThinkingBudget,
    state: State,
    /// The last of the text, in which a mark may have begun.
    seen: String,
}

impl Thoughts {
    pub(super) fn new(budget: ThinkingBudget, tokenizer: &AscTokenizer) -> Result<Self> {
        let state = if budget.has_begun { State::Within(0) } else { State::Before };
        let mut thoughts = Self { budget, state, seen: String::new() };
        thoughts.bound(tokenizer)?;
        Ok(thoughts)
    }

    /// The token that must come next.
    pub(super) fn next(&self) -> Option<u32> {
        match &self.state {
            State::Ending(tokens) => tokens.front().copied(),
            _ => None,
        }
    }

    /// Gives up ending them: the answer's form doesn't let them end.
    pub(super) fn give_up(&mut self) {
        self.state = State::After;
    }

    /// Takes a token that has come, with its text.
    pub(super) fn push(&mut self, bytes: &[u8], tokenizer: &AscTokenizer) -> Result<()> {
        match &mut self.state {
            State::After => return Ok(()),
            State::Ending(tokens) => {
                tokens.pop_front();
                if tokens.is_empty() {
                    self.state = State::After;
                }
                return Ok(());
            }
            State::Before => {
                self.seen.push_str(&String::from_utf8_lossy(bytes));
                let (seen, begin) = (self.seen.trim_start(), self.budget.begin.trim());
                if seen.starts_with(begin) {
                    self.state = State::Within(0);
                    self.seen.clear();
                } else if !begin.starts_with(seen) {
                    // It answers at once.
                    self.state = State::After;
                }
            }
            State::Within(count) => {
                *count += 1;
                self.seen.push_str(&String::from_utf8_lossy(bytes));
                if self.seen.contains(&self.budget.end) {
                    self.state = State::After;
                    return Ok(());
                }
                let mut keep = self.seen.len().saturating_sub(self.budget.end.len());
                while !self.seen.is_char_boundary(keep) {
                    keep -= 1;
                }
                self.seen.drain(..keep);
            }
        }
        self.bound(tokenizer)
    }

    /// Ends them where they have reached the bound.
    fn bound(&mut self, tokenizer: &AscTokenizer) -> Result<()> {
        if matches!(self.state, State::Within(count) if count >= self.budget.max_tokens) {
            let tokens = tokenizer.encode(&self.budget.end, true)?;
            self.state = if tokens.is_empty() { State::After } else { State::Ending(tokens.into()) };
        }
        Ok(())
    }
}
