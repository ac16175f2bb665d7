//! Speculative decoding (arXiv 2211.17192): guessing what comes next, so that one pass reads the weights for several tokens.
//!
//! A draft is what followed where the text's last tokens came before, in the prompt or the answer: code that is edited, a text that
//! is quoted, a form that repeats; or what an answer's form allows nothing but; or what a smaller model expects, where one was loaded for it
//! (`engine/draft_model.rs`). A pass runs it beside the token that was chosen last, and tokens are chosen from its logits
//! one after another, until one isn't the draft's. Layers that promise batch invariance give each of them the logits that it would get
//! alone, and the sampler draws the same random numbers, so the text is the same to the bit, greedy or not. How long a draft is
//! follows from how often drafts came true, and from what passes cost here ([`PassCost`]).

mod automaton;
mod pace;

pub(crate) use pace::{Experience, PassCost};

use automaton::SuffixAutomaton;
use herald_api::AlignedBytes;
use pace::{Acceptance, Class};

use crate::engine::Follower;

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
    /// What is known of the draft model's guesses, where they are to be had.
    pub(crate) model: Option<ModelChances>,
}

/// What is known of a draft model's guesses when a draft is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModelChances {
    /// What each costs, over what the pass costs.
    pub(crate) token: f64,
    /// What it costs that the model reads what it hasn't seen of the text, over what the pass costs.
    pub(crate) behind: f64,
    /// The probability that one comes, as it was in other texts.
    pub(crate) expected: f64,
}

/// What a draft model guesses.
#[derive(Debug, Default)]
pub(crate) struct Guess {
    pub(crate) tokens: Vec<u32>,
    /// Whether it had another one, and thought too little of it.
    pub(crate) withheld: bool,
}

/// Has a draft model guess: the fewest tokens that it guesses however unsure it is, and the most.
pub(crate) type Guesser<'g> = dyn FnMut(usize, usize) -> Guess + 'g;

/// Makes the drafts of one text.
#[derive(Clone, Debug)]
pub(crate) struct Drafter {
    text: SuffixAutomaton,
    /// Tokens before those that the automaton has.
    skipped: usize,
    rates: Acceptance,
    counts: DraftCounts,
}

/// Tokens that were drafted, and of these that came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DraftCounts {
    pub(crate) all: [usize; 2],
    /// Of these, the draft model's guesses.
    pub(crate) guessed: [usize; 2],
}

impl Drafter {
    pub(crate) fn new() -> Self {
        Self {
            text: SuffixAutomaton::new(),
            skipped: 0,
            rates: Acceptance::default(),
            counts: DraftCounts::default(),
        }
    }

    /// A draft of what follows the text, which is `seen` and then `chosen` and begins as it did in the last call. `forced` are tokens that
    /// its form allows nothing but; `guess` asks the draft model, where there is one.
    pub(crate) fn draft(
        &mut self,
        seen: &[u32],
        chosen: &[u32],
        mut forced: Vec<u32>,
        chances: Chances,
        guess: &mut Guesser<'_>,
    ) -> Draft {
        self.read(seen, chosen);
        let repeated = self.text.repeated();
        if chances.room == 0 {
            return Draft::default();
        }
        if !forced.is_empty() {
            forced.truncate(self.len(Class::FORCED, &chances));
            return Draft { tokens: forced, class: Class::FORCED, withheld: false };
        }
        if self.rates.prefers_model(repeated, &chances) {
            let Guess { tokens, withheld } = guess(chances.min, self.len(Class::MODEL, &chances));
            if !tokens.is_empty() || withheld {
                return Draft { tokens, class: Class::MODEL, withheld };
            }
        } else if chances.model.is_some() {
            self.rates.fade(Class::MODEL);
        }
        if repeated == 0 {
            return Draft::default();
        }
        let class = Class::repeated(repeated);
        let len = self.len(class, &chances);
        Draft { tokens: self.text.continuation(len), class, withheld: false }
    }

    /// Reads what was added to the text.
    fn read(&mut self, seen: &[u32], chosen: &[u32]) {
        if self.text.len() == 0 || self.text.len() >= 2 * MAX_TEXT {
            self.text = SuffixAutomaton::new();
            self.skipped = (seen.len() + chosen.len()).saturating_sub(MAX_TEXT);
        }
        let known = self.text.len();
        seen.iter().chain(chosen).skip(self.skipped + known).for_each(|token| self.text.push(*token));
    }

    /// How many tokens a draft of a class gets.
    fn len(&mut self, class: Class, chances: &Chances) -> usize {
        let len = self.rates.draft_len(class, chances).max(chances.min).min(chances.room);
        if len == 0 {
            self.rates.fade(class);
        }
        len
    }

    /// Counts what became of a draft: `accepted` of its tokens came.
    pub(crate) fn learn(&mut self, draft: &Draft, accepted: usize) {
        if draft.tried() > 0 {
            self.rates.observe(draft.class, draft.tried(), accepted);
            let DraftCounts { all, guessed } = &mut self.counts;
            for counts in [Some(all), draft.is_by_model().then_some(guessed)].into_iter().flatten() {
                counts[0] += draft.tokens.len();
                counts[1] += accepted;
            }
        }
    }

    /// Tokens that were drafted, and of these that came.
    pub(crate) fn counts(&self) -> DraftCounts {
        self.counts
    }
}

/// Guesses for the tokens that come next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) tokens: Vec<u32>,
    class: Class,
    /// Whether the draft model had another token, and thought too little of it.
    withheld: bool,
}

impl Draft {
    /// How many tokens were thought of: one that is withheld brings no more than one that doesn't come.
    pub(crate) fn tried(&self) -> usize {
        self.tokens.len() + usize::from(self.withheld)
    }

    /// Whether the draft model made it.
    pub(crate) fn is_by_model(&self) -> bool {
        self.class == Class::MODEL
    }
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
    /// What the draft model has seen of the text.
    pub(crate) follower: Follower,
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
