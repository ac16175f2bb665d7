//! Speculative decoding (arXiv 2211.17192): guessing what comes next, so that one pass reads the weights for several tokens.
//!
//! A draft is what followed where the text's last tokens came before, in the prompt or the answer: code that is edited, a text that
//! is quoted, a form that repeats; or what an answer's form allows nothing but. A pass runs it beside the token that was chosen last, and tokens are chosen from its logits
//! one after another, until one isn't the draft's. Layers that promise batch invariance give each of them the logits that it would get
//! alone, and the sampler draws the same random numbers, so the text is the same to the bit, greedy or not. How long a draft is
//! follows from how often drafts came true, and from what passes cost here ([`PassCost`]).

mod automaton;
mod pace;

pub(crate) use pace::PassCost;

use automaton::SuffixAutomaton;
use herald_api::AlignedBytes;
use pace::{Acceptance, Class};

/// Tokens of a text's end that are looked through, at most twice as many: an automaton takes about 120 bytes for each.
const MAX_TEXT: usize = 1 << 15;

/// What is known of a pass when a draft for it is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chances {
    /// The fewest tokens that the draft has, where there is room for them.
    pub(crate) min: usize,
    /// The most that it may have.
    pub(crate) room: usize,
    /// What one more token in the pass costs, over what the pass costs without it.
    pub(crate) marginal: f64,
    /// What a draft costs whatever its length, over what the pass costs.
    pub(crate) fixed: f64,
    /// Sequences that share the pass.
    pub(crate) sequences: usize,
}

/// Makes the drafts of one text.
#[derive(Clone, Debug)]
pub(crate) struct Drafter {
    text: SuffixAutomaton,
    /// Tokens before those that the automaton has.
    skipped: usize,
    rates: Acceptance,
    /// Tokens that were drafted, and of these that came.
    counts: (usize, usize),
}

impl Drafter {
    pub(crate) fn new() -> Self {
        Self { text: SuffixAutomaton::new(), skipped: 0, rates: Acceptance::default(), counts: (0, 0) }
    }

    /// A draft of what follows the text, which is `seen` and then `chosen` and begins as it did in the last call. `forced` are tokens that
    /// its form allows nothing but.
    pub(crate) fn draft(
        &mut self,
        seen: &[u32],
        chosen: &[u32],
        forced: Vec<u32>,
        chances: Chances,
    ) -> Draft {
        if self.text.len() == 0 || self.text.len() >= 2 * MAX_TEXT {
            self.text = SuffixAutomaton::new();
            self.skipped = (seen.len() + chosen.len()).saturating_sub(MAX_TEXT);
        }
        let known = self.text.len();
        seen.iter().chain(chosen).skip(self.skipped + known).for_each(|token| self.text.push(*token));
        let repeated = self.text.repeated();
        let class = if forced.is_empty() { Class::repeated(repeated) } else { Class::FORCED };
        if chances.room == 0 || (forced.is_empty() && repeated == 0) {
            return Draft::default();
        }
        let len = self.rates.draft_len(class, &chances).max(chances.min).min(chances.room);
        if len == 0 {
            self.rates.fade(class);
        }
        let mut tokens = if forced.is_empty() { self.text.continuation(len) } else { forced };
        tokens.truncate(len);
        Draft { tokens, class }
    }

    /// Counts what became of a draft: `accepted` of its tokens came.
    pub(crate) fn learn(&mut self, draft: &Draft, accepted: usize) {
        if !draft.tokens.is_empty() {
            self.rates.observe(draft.class, draft.tokens.len(), accepted);
            self.counts.0 += draft.tokens.len();
            self.counts.1 += accepted;
        }
    }

    /// Tokens that were drafted, and of these that came.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.counts
    }
}

/// Guesses for the tokens that come next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) tokens: Vec<u32>,
    class: Class,
}

/// What a sequence that decodes runs next.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Tokens of the text that are still to be run: the one that was chosen last, and before it those that the sequence went back over,
    /// since its recurrent states had seen what didn't come.
    pub(crate) chosen: Vec<u32>,
    /// Guesses for what comes after these.
    pub(crate) draft: Draft,
    /// The recurrent states before a pass with a draft.
    pub(crate) states: Option<Vec<AlignedBytes>>,
}

impl Ahead {
    /// The tokens of its next pass.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.chosen.iter().chain(&self.draft.tokens).copied().collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.chosen.len() + self.draft.tokens.len()
    }

    /// Of how many of them, the last ones, the logits are wanted.
    pub(crate) fn wanted(&self) -> usize {
        self.draft.tokens.len() + 1
    }
}
