//! How many tokens a draft should have: as many as are worth their time, by what drafts were worth so far and what passes cost here.

use std::time::Duration;

use super::{Chances, ModelChances};

/// Tokens of a pass beyond which its time says nothing about drafts.
const MAX_ROWS: usize = 64;

/// How much of what is known each new pass leaves: what about 60 passes taught counts.
const MEMORY: f64 = 0.984;

/// By how much a draft must pay.
const MARGIN: f64 = 1.25;

/// What a pass over some tokens costs: a straight line through those of late, by least squares.
#[derive(Clone, Debug)]
pub(crate) struct PassCost {
    weight: f64,
    rows: f64,
    seconds: f64,
    rows_rows: f64,
    rows_seconds: f64,
    /// What a copy of recurrent states takes, as far as that is known.
    copy_seconds: Option<f64>,
}

impl Default for PassCost {
    /// Before anything is known, a token costs a fifth of what a pass costs without it.
    fn default() -> Self {
        let mut cost = Self {
            weight: 0.0,
            rows: 0.0,
            seconds: 0.0,
            rows_rows: 0.0,
            rows_seconds: 0.0,
            copy_seconds: None,
        };
        cost.add(1.0, 0.006, 0.1);
        cost.add(6.0, 0.011, 0.1);
        cost
    }
}

impl PassCost {
    /// Counts a pass without prompts over this many tokens.
    pub(crate) fn observe(&mut self, rows: usize, took: Duration) {
        if rows == 0 || rows > MAX_ROWS {
            return;
        }
        for sum in
            [&mut self.weight, &mut self.rows, &mut self.seconds, &mut self.rows_rows, &mut self.rows_seconds]
        {
            *sum *= MEMORY;
        }
        self.add(rows as f64, took.as_secs_f64(), 1.0);
    }

    /// Counts a copy of recurrent states.
    pub(crate) fn copied(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.copy_seconds = Some(self.copy_seconds.map_or(took, |known| known + (took - known) / 8.0));
    }

    /// What a copy of recurrent states costs, over what a pass of `rows` tokens costs.
    pub(crate) fn fixed(&self, rows: usize) -> f64 {
        self.copy_seconds.map_or(0.1, |seconds| seconds / self.whole(rows).max(1e-9))
    }

    fn add(&mut self, rows: f64, seconds: f64, weight: f64) {
        self.weight += weight;
        self.rows += weight * rows;
        self.seconds += weight * seconds;
        self.rows_rows += weight * rows * rows;
        self.rows_seconds += weight * rows * seconds;
    }

    /// Seconds of a pass over `rows` tokens; `None` before any was seen.
    pub(crate) fn seconds(&self, rows: usize) -> Option<f64> {
        // What is assumed at first weighs less than one pass.
        (self.weight >= 1.0).then(|| self.whole(rows).max(1e-9))
    }

    /// What one more token costs, over what a pass of `rows` tokens costs.
    pub(crate) fn marginal(&self, rows: usize) -> f64 {
        (self.slope() / self.whole(rows).max(1e-9)).clamp(0.01, 1.0)
    }

    /// Seconds of a pass over `rows` tokens.
    fn whole(&self, rows: usize) -> f64 {
        self.seconds / self.weight + self.slope() * (rows as f64 - self.rows / self.weight)
    }

    /// Seconds of one more token.
    fn slope(&self) -> f64 {
        let (mean_rows, mean_seconds) = (self.rows / self.weight, self.seconds / self.weight);
        let variance = self.rows_rows / self.weight - mean_rows * mean_rows;
        let covariance = self.rows_seconds / self.weight - mean_rows * mean_seconds;
        // Where all passes of late had as many tokens, nothing is known of one more.
        if variance > 1e-3 { covariance / variance } else { mean_seconds / mean_rows / 5.0 }
    }
}

/// How often drafts came true, by what they went on from.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    classes: [Rate; CLASSES],
}

/// What a draft goes on from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Class(usize);

impl Class {
    /// The answer's form allows nothing else.
    pub(crate) const FORCED: Self = Self(CLASSES - 1);

    /// The draft model expects it.
    pub(crate) const MODEL: Self = Self(CLASSES - 2);

    /// So many tokens came before: 1, 2, 3 to 4, 5 to 8, 9 to 16, or more.
    pub(crate) fn repeated(len: usize) -> Self {
        Self((len.max(1).next_power_of_two().trailing_zeros() as usize).min(CLASSES - 3))
    }
}

/// How many there are.
const CLASSES: usize = 8;

/// What is assumed of each class before anything is known.
const ASSUMED: [f64; CLASSES] = [0.15, 0.35, 0.55, 0.75, 0.85, 0.92, 0.7, 0.9];

/// How many tokens what is assumed counts for.
const ASSUMED_WEIGHT: f64 = 4.0;

/// How many tokens are remembered.
const REMEMBERED: f64 = 0.97;

/// How many tokens of drafts came, and how many drafts ended before their last one did.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    came: f64,
    missed: f64,
}

impl Rate {
    fn observe(&mut self, tried: usize, accepted: usize, remembered: f64) {
        let fade = remembered.powi(accepted as i32 + 1);
        self.came = self.came * fade + accepted as f64;
        self.missed = self.missed * fade + if accepted < tried { 1.0 } else { 0.0 };
    }

    fn fade(&mut self, remembered: f64) {
        self.came *= remembered;
        self.missed *= remembered;
    }

    fn probability(self, assumed: f64) -> f64 {
        (self.came + ASSUMED_WEIGHT * assumed) / (self.came + self.missed + ASSUMED_WEIGHT)
    }
}

/// How often a draft model's guesses came in all texts so far: what a new text begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Experience(Rate);

impl Experience {
    /// How many tokens are remembered here.
    const REMEMBERED: f64 = 0.997;

    /// Counts guesses: `accepted` of `tried` came.
    pub(crate) fn observe(&mut self, tried: usize, accepted: usize) {
        self.0.observe(tried, accepted, Self::REMEMBERED);
    }

    /// Forgets a little, so that a model whose guesses never came is tried again now and then.
    pub(crate) fn fade(&mut self) {
        self.0.fade(Self::REMEMBERED);
    }

    /// The probability that a guess comes, if those before it came.
    pub(crate) fn probability(&self) -> f64 {
        self.0.probability(ASSUMED[Class::MODEL.0])
    }
}

impl Default for Acceptance {
    fn default() -> Self {
        Self { classes: [Rate::default(); CLASSES] }
    }
}

impl Acceptance {
    /// Counts a draft of a class: `accepted` of its `tried` tokens came.
    pub(crate) fn observe(&mut self, class: Class, tried: usize, accepted: usize) {
        self.classes[class.0].observe(tried, accepted, REMEMBERED);
    }

    /// Forgets a little of what was seen, so that a class whose drafts never came is tried again.
    pub(crate) fn fade(&mut self, class: Class) {
        self.classes[class.0].fade(REMEMBERED);
    }

    /// The probability that the next token of a draft comes, if those before it came.
    fn probability(&self, class: Class, chances: &Chances) -> f64 {
        let assumed = match &chances.model {
            Some(model) if class == Class::MODEL => model.expected,
            _ => ASSUMED[class.0],
        };
        self.classes[class.0].probability(assumed)
    }

    /// How many tokens a draft of a class should have.
    pub(crate) fn draft_len(&self, class: Class, chances: &Chances) -> usize {
        self.plan(class, chances).0
    }

    /// Whether the draft model's guesses are worth more than a repetition of so many tokens.
    pub(crate) fn prefers_model(&self, repeated: usize, chances: &Chances) -> bool {
        // An experiment that asks for drafts of some length gets what comes most often, whatever it costs.
        let free = Chances {
            marginal: 0.0,
            fixed: 0.0,
            model: chances.model.map(|model| ModelChances { token: 0.0, behind: 0.0, ..model }),
            ..*chances
        };
        let compared = if chances.min > 0 { &free } else { chances };
        let worth = |class| self.plan(class, compared).1;
        chances.model.is_some()
            && worth(Class::MODEL) > if repeated == 0 { 0.0 } else { worth(Class::repeated(repeated)) }
    }

    /// How many tokens a draft of a class should have, and how much of a pass that saves.
    fn plan(&self, class: Class, chances: &Chances) -> (usize, f64) {
        let p = self.probability(class, chances);
        let by_model = chances.model.filter(|_| class == Class::MODEL);
        let (token, behind) = by_model.map_or((0.0, 0.0), |model| (model.token, model.behind));
        // A token that comes saves the sequence's share of a pass.
        let worth = 1.0 / chances.sequences.max(1) as f64;
        let (mut drafted, mut gain, mut comes) = (0, 0.0, 1.0);
        while drafted < chances.room {
            comes *= p;
            let more = comes * worth - (chances.marginal + token) * MARGIN;
            if more <= 0.0 {
                break;
            }
            gain += more;
            drafted += 1;
        }
        let gain = gain - chances.fixed - behind;
        if gain > 0.0 { (drafted, gain) } else { (0, 0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_learned() {
        let mut cost = PassCost::default();
        for rows in (1..=8).cycle().take(200) {
            cost.observe(rows, Duration::from_micros(9_000 + 1_000 * rows as u64));
        }
        assert!((cost.marginal(1) - 0.1).abs() < 0.01, "{}", cost.marginal(1));
        assert!((cost.marginal(11) - 0.05).abs() < 0.01, "{}", cost.marginal(11));
    }

    #[test]
    fn drafts_are_long_where_they_come_and_none_where_they_never_do() {
        let mut rates = Acceptance::default();
        let (long, short) = (Class::repeated(6), Class::repeated(2));
        (0..40).for_each(|_| rates.observe(long, 4, 4));
        let alone = Chances { min: 0, room: 16, marginal: 0.1, fixed: 0.0, sequences: 1, model: None };
        assert!(rates.draft_len(long, &alone) >= 10);
        (0..40).for_each(|_| rates.observe(short, 2, 0));
        assert_eq!(rates.draft_len(short, &alone), 0);
        // With many sequences, a pass is well used without drafts.
        assert!(rates.draft_len(long, &Chances { sequences: 16, ..alone }) < 10);
        (0..200).for_each(|_| rates.fade(short));
        assert!(rates.draft_len(short, &alone) > 0);
    }

    #[test]
    fn a_draft_model_is_asked_where_its_guesses_pay() {
        let mut rates = Acceptance::default();
        let model = ModelChances { token: 0.1, behind: 0.0, expected: 0.7 };
        let alone = Chances { min: 0, room: 16, marginal: 0.1, fixed: 0.0, sequences: 1, model: Some(model) };
        let with = |changed: ModelChances| Chances { model: Some(changed), ..alone };
        assert!(rates.prefers_model(0, &alone) && rates.draft_len(Class::MODEL, &alone) > 1);
        assert!(rates.prefers_model(1, &alone) && !rates.prefers_model(20, &alone));
        assert!(!rates.prefers_model(0, &Chances { model: None, ..alone }));
        // A model as slow as the other, a long text that it hasn't read, guesses that never came in other texts, a full pass.
        for costly in [
            with(ModelChances { token: 1.0, ..model }),
            with(ModelChances { behind: 3.0, ..model }),
            with(ModelChances { expected: 0.1, ..model }),
            Chances { sequences: 8, ..alone },
        ] {
            assert!(!rates.prefers_model(0, &costly), "{costly:?}");
            assert_eq!(rates.draft_len(Class::MODEL, &costly), 0, "{costly:?}");
        }
        // What is asked for is made, and by whoever is right more often.
        let asked = Chances { min: 4, ..with(ModelChances { token: 1.0, ..model }) };
        assert!(rates.prefers_model(0, &asked) && !rates.prefers_model(20, &asked));
        (0..40).for_each(|_| rates.observe(Class::MODEL, 2, 0));
        assert!(!rates.prefers_model(0, &alone));
        (0..200).for_each(|_| rates.fade(Class::MODEL));
        assert!(rates.prefers_model(0, &alone));
    }

    #[test]
    fn experience_is_kept_and_fades() {
        let mut experience = Experience::default();
        assert!((experience.probability() - 0.7).abs() < 1e-9);
        (0..100).for_each(|_| experience.observe(3, 0));
        assert!(experience.probability() < 0.1);
        (0..2000).for_each(|_| experience.fade());
        assert!(experience.probability() > 0.6);
    }
}
