//! DRY, "don't repeat yourself": tokens that would go on with a repetition.

use std::collections::{HashMap, VecDeque};

use super::SamplerConfig;

/// What each token loses of its logit, for those that lose anything. `window` has the last tokens, oldest first.
///
/// The text's end is compared with every place in it, by the Z algorithm over the reversed window, so this takes time linear in
/// the window.
pub(super) fn penalties(window: &VecDeque<u32>, config: &SamplerConfig) -> Vec<(u32, f64)> {
    if window.len() < 2 {
        return Vec::new();
    }
    let reversed: Vec<u32> = window.iter().rev().copied().collect();
    // No repetition reaches over a breaker.
    let is_breaker =
        |token: &u32| config.dry_breakers.as_ref().is_some_and(|breakers| breakers.contains(token));
    let most = reversed.iter().position(is_breaker).unwrap_or(reversed.len());
    if most == 0 {
        return Vec::new();
    }
    let mut longest: HashMap<u32, usize> = HashMap::new();
    for (place, length) in prefix_lengths(&reversed).into_iter().enumerate().skip(1) {
        let length = length.min(most);
        if length >= (config.dry_allowed_length as usize).max(1) {
            let followed_by = reversed[place - 1];
            let known = longest.entry(followed_by).or_insert(0);
            *known = (*known).max(length);
        }
    }
    let penalty = |length: usize| {
        let exponent = (length - config.dry_allowed_length as usize) as f64;
        // More than any logit is enough.
        (f64::from(config.dry_multiplier) * f64::from(config.dry_base).powf(exponent)).min(1e9)
    };
    longest.into_iter().map(|(token, length)| (token, penalty(length))).collect()
}

/// For each place, how many tokens from there on equal those at the beginning.
fn prefix_lengths(tokens: &[u32]) -> Vec<usize> {
    let n = tokens.len();
    let mut lengths = vec![0; n];
    // The match that reaches furthest: `[start, end)` equals the beginning.
    let (mut start, mut end) = (0, 0);
    for place in 1..n {
        let mut length = if place < end { lengths[place - start].min(end - place) } else { 0 };
        while place + length < n && tokens[length] == tokens[place + length] {
            length += 1;
        }
        if place + length > end {
            (start, end) = (place, place + length);
        }
        lengths[place] = length;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// As the author describes it: every earlier place is compared with the end, token by token.
    fn naive(window: &[u32], config: &SamplerConfig) -> HashMap<u32, f64> {
        let breakers = config.dry_breakers.clone().unwrap_or_default();
        let mut found: HashMap<u32, f64> = HashMap::new();
        for next in 1..window.len() {
            let (mut length, n) = (0, window.len());
            while length < next {
                let (here, end) = (window[next - 1 - length], window[n - 1 - length]);
                if here != end || breakers.contains(&end) {
                    break;
                }
                length += 1;
            }
            if length >= (config.dry_allowed_length as usize).max(1) {
                let over = (length - config.dry_allowed_length as usize) as f64;
                let penalty = f64::from(config.dry_multiplier) * f64::from(config.dry_base).powf(over);
                let known = found.entry(window[next]).or_insert(0.0);
                *known = known.max(penalty.min(1e9));
            }
        }
        found
    }

    proptest! {
        #[test]
        fn repetitions_cost_what_the_description_says(
            window in prop::collection::vec(0_u32..4, 0..40),
            breakers in prop::collection::btree_set(0_u32..6, 0..2),
            allowed in 0_u32..4,
        ) {
            let breakers: BTreeSet<u32> = breakers;
            let config = SamplerConfig {
                dry_multiplier: 0.8,
                dry_allowed_length: allowed,
                dry_breakers: Some(breakers),
                ..SamplerConfig::default()
            };
            let window: VecDeque<u32> = window.into();
            let fast: HashMap<u32, f64> = penalties(&window, &config).into_iter().collect();
            let slow = naive(&Vec::from(window), &config);
            prop_assert_eq!(fast, slow);
        }
    }
}
