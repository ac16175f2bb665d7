//! Results that are no numbers, and whose they are.
//!
//! A NaN spreads: by the time that it reaches the sampler, any layer may have made it. So each layer's result is looked at while
//! it is known whose it is. That costs little: only the last token's activations of each sequence, to which what is wrong
//! before them comes through attention or a state, and the logits that were asked for. For a model of 135 million weights
//! that is about 85,000 of 135 million operations a token; for larger ones less.

use herald_api::Status;
use herald_api::import::LayerHandle;

use super::pass::{failed, name_of};
use crate::error::{Error, Result};

/// All bits of a float32's exponent: those of infinity and NaN.
const EXPONENT: u32 = 0x7F80_0000;

/// Whether all are finite. Without a branch in the loop, so that compilers vectorise it.
fn all_finite(values: &[f32]) -> bool {
    !values.iter().fold(false, |found, value| found | (value.to_bits() & EXPONENT == EXPONENT))
}

/// Checks the rows of activations `[n_tokens, hidden]` that end at the tokens `ends`, after a layer has added to them.
pub(super) fn check_activations(
    layer: &LayerHandle,
    activations: &[f32],
    hidden: usize,
    ends: impl Iterator<Item = usize>,
) -> Result<()> {
    for end in ends.filter(|end| *end > 0) {
        let row = &activations[(end - 1) * hidden..end * hidden];
        if !all_finite(row) {
            return Err(not_finite(layer, "the activation", row, |value| value.is_finite()));
        }
    }
    Ok(())
}

/// Marks logits `[n_tokens, vocabulary]` before the head writes them, so that those which it leaves out show.
pub(super) fn mark_logits(logits: &mut [f32], vocabulary: usize) {
    for row in logits.chunks_exact_mut(vocabulary.max(1)) {
        let (middle, last) = (row.len() / 2, row.len() - 1);
        for index in [0, middle, last] {
            row[index] = f32::NAN;
        }
    }
}

/// Checks logits. -inf is a logit: that of a token which is never chosen.
pub(super) fn check_logits(head: &LayerHandle, logits: &[f32]) -> Result<()> {
    let is_logit = |value: f32| value < f32::INFINITY;
    // Most have no -inf either.
    if all_finite(logits) || logits.iter().all(|value| is_logit(*value)) {
        return Ok(());
    }
    Err(not_finite(head, "the logit", logits, is_logit))
}

fn not_finite(layer: &LayerHandle, what: &str, row: &[f32], sound: impl Fn(f32) -> bool) -> Error {
    let index = row.iter().position(|value| !sound(*value)).unwrap_or(0);
    let reason = format!(
        "{what} {index} that it computed is {}, where a finite number was expected: the plugin computes wrongly or leaves \
         results out, or the model's weights are damaged",
        row[index]
    );
    failed(&name_of(layer), herald_api::Error::new(Status::Internal, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_value_that_is_no_number_is_found() {
        let mut values = vec![0.0, -1.5, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e-40];
        assert!(all_finite(&values) && all_finite(&[]));
        for wrong in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            values.push(wrong);
            assert!(!all_finite(&values), "{wrong}");
            values.pop();
        }
    }

    #[test]
    fn a_head_that_writes_no_logits_leaves_marks() {
        for vocabulary in [1, 2, 3, 100] {
            let mut logits = vec![1.0; 3 * vocabulary];
            mark_logits(&mut logits, vocabulary);
            assert!(
                logits.chunks_exact(vocabulary).all(|row| row[0].is_nan() && row[vocabulary - 1].is_nan())
            );
        }
    }
}
