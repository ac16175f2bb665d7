//! Checks that an engine's output is a model's, however fast it came.

use super::corpus::PASSAGE;
use super::measurement::Check;
use herald::NeuroEngine;
use herald::Result;

/// Maximum tokens of the passage to score.
const MAX_SCORED: usize = 96;

/// Scores a passage of English. A trained model needs less than half the bits of a uniform guess: its perplexity is below
/// the square root of the vocabulary's size. Whatever the weights, logits must be finite, not all equal, and change with
/// the text.
pub(super) fn check(engine: &NeuroEngine, synthetic: bool) -> Result<Vec<Check>> {
    let mut ids = engine.tokenizer().encode_prompt(PASSAGE, false)?;
    ids.truncate(MAX_SCORED.min(engine.context()));
    let (mut loss, mut lively, mut last) = (0.0, true, Vec::new());
    let mut position = 1;
    let mut sequence = engine.sequence()?;
    engine.logits(&mut sequence, &ids, &mut |logits| {
        let varies = logits.iter().any(|logit| *logit != logits[0]);
        lively &= varies && logits.iter().all(|logit| logit.is_finite()) && logits != &last[..];
        if let Some(next) = ids.get(position) {
            loss += surprise(logits, *next);
        }
        position += 1;
        last = logits.to_vec();
    })?;
    let mut checks = vec![Check {
        what: "logits are finite, and differ at each position".to_owned(),
        passed: lively && position == ids.len() + 1,
        found: if lively { "they are" } else { "they are not" }.to_owned(),
    }];
    if !synthetic {
        let perplexity = (loss / (ids.len() - 1).max(1) as f64).exp();
        let limit = (engine.plan().vocabulary as f64).sqrt();
        checks.push(Check {
            what: format!("the perplexity of a passage of English is below {limit:.0}"),
            passed: (1.0..limit).contains(&perplexity),
            found: format!("{perplexity:.2}"),
        });
    }
    Ok(checks)
}

/// The negative log-likelihood of a token, in nats.
pub(super) fn surprise(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    total.ln() - f64::from(logits[token as usize] - max)
}
