//! What one layer is put through.

use herald_api::LayerKind;
use herald_api::abi::HERALD_STATUS_UNSUPPORTED;

use super::call::{LARGE_FILL, Manner, NAN_FILL};
use super::cases;
use super::compare::Expected;
use super::layer::{Layer, Maker, Order, Refusal, status_name};
use super::plan::{Case, Plan};
use super::run::{Cut, Results, run};
use crate::guard::Place;
use crate::pool::Sharing;
use crate::values::Values;
use crate::{Fault, Outcome};

/// A finding from what a check returned.
pub(super) fn outcome(result: Result<String, Outcome>) -> Outcome {
    result.map_or_else(|outcome| outcome, Outcome::Passed)
}

/// Has the plugin make the layer, of the first element type that it takes.
pub(super) fn make<'p>(maker: Maker<'p>, plan: &Plan) -> Result<(Case, Layer<'p>), Outcome> {
    let mut refused = None;
    for dtype in plan.dtypes() {
        let case = plan.case(dtype);
        match make_case(maker, &case) {
            Ok(Ok(layer)) => return Ok((case, layer)),
            Ok(Err(refusal)) => refused = Some(refusal.sentence),
            // Norms couldn't be left out in the ABI's first version: there it was a mistake of the host's. And the header doesn't
            // name every shape that a table of numbers may have.
            Err(Outcome::Failed(Fault::Refuses, sentence))
                if !plan.without.is_empty() || plan.other_shapes =>
            {
                refused = Some(sentence);
            }
            Err(outcome) => return Err(outcome),
        }
    }
    let sentence = refused.unwrap_or("no element type suits it".to_owned());
    Err(Outcome::Skipped(format!("not offered: {sentence}")))
}

/// Has the plugin make the layer, or say that it doesn't offer it.
pub(super) fn make_case<'p>(maker: Maker<'p>, case: &Case) -> Result<Result<Layer<'p>, Refusal>, Outcome> {
    match maker.make(&Order::new(&case.desc, &case.tensors, case.limits()))? {
        Err(refusal) if refusal.status != HERALD_STATUS_UNSUPPORTED => {
            let status = status_name(refusal.status);
            let sentence = format!(
                "layer_create answered {status} to a sound request, where OK or UNSUPPORTED was expected: {}",
                refusal.sentence
            );
            Err(Outcome::Failed(Fault::Refuses, sentence))
        }
        made => Ok(made),
    }
}

/// A small layer of a kind that the plugin makes.
pub(super) fn any<'p>(maker: Maker<'p>, kind: LayerKind) -> Result<(Case, Layer<'p>), Outcome> {
    let mut skipped = Outcome::Skipped("not offered".to_owned());
    for plan in cases::small(kind).iter().chain(&cases::plans(kind)) {
        match make(maker, plan) {
            Err(outcome @ Outcome::Skipped(_)) => skipped = outcome,
            made => return made,
        }
    }
    Err(skipped)
}

/// Whether the plugin makes any layer of a kind that it lists.
pub(super) fn check_offered(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    match any(maker, kind) {
        Ok((case, _)) => Ok(format!("{}, hidden {}", case.dtype, case.desc.hidden)),
        Err(Outcome::Skipped(why)) => {
            let sentence = format!("it lists the kind, and makes no layer of it; the last one was {why}");
            Err(Outcome::Failed(Fault::Refuses, sentence))
        }
        Err(outcome) => Err(outcome),
    }
}

/// What the reference expects of a layer.
pub(super) fn expected(reference: Maker<'_>, case: &Case) -> Result<Expected, Outcome> {
    let layer = make_case(reference, case)?.map_err(|refusal| {
        Outcome::Skipped(format!("the reference doesn't offer it: {}", refusal.sentence))
    })?;
    let results = run(&layer, case, Cut::WHOLE)?;
    let noisy = [1, 2, 3].map(|seed| run(&layer, &with_noise(case, seed), Cut::WHOLE));
    let noisy = noisy.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(Expected::new(&results, &noisy, layer.output_width()))
}

/// The case with each token's activations rounded as if to 8 bits: off by up to half a 127th of its largest.
pub(super) fn with_noise(case: &Case, seed: u64) -> Case {
    let mut values = Values::new(seed);
    let mut case = case.clone();
    for sequence in &mut case.sequences {
        for token in sequence.x.chunks_exact_mut(case.desc.hidden) {
            let step = token.iter().fold(0.0, |largest: f32, x| largest.max(x.abs())) / 127.0;
            token.iter_mut().for_each(|x| *x += values.between(-0.5, 0.5) * step);
        }
    }
    case
}

/// Checks that a layer computes what the reference does, in every way that a batch may be cut.
pub(super) fn check(maker: Maker<'_>, reference: Maker<'_>, plan: &Plan) -> Result<String, Outcome> {
    let (case, layer) = make(maker, plan)?;
    let expected = expected(reference, &case)?;
    let (certain, all) = expected.certain();
    if 2 * certain < all {
        return Err(Outcome::Skipped(format!("rounding alone turns over {} of {all} tokens", all - certain)));
    }
    let distance = check_whole(&layer, &case, &expected)?;
    let kind = plan.dtype.map_or_else(|| format!("{}, ", case.dtype), |_| String::new());
    Ok(format!("{kind}off by {distance:.1e}"))
}

fn check_whole(layer: &Layer<'_>, case: &Case, expected: &Expected) -> Result<f64, Outcome> {
    let first = run(layer, case, Cut::WHOLE)?;
    let filled = Cut { manner: Manner { fill: LARGE_FILL, ..Manner::PLAIN }, ..Cut::WHOLE };
    let again = run(layer, case, filled)?;
    check_written(&first, &again)?;
    let distance = expected.check(&first, "in one call")?;
    check_repeated(&first, &again, layer.output_width())?;

    let manner = Manner { place: Place::Low, sharing: Sharing::Ragged(3), fill: LARGE_FILL, ..Manner::PLAIN };
    let shared = run(layer, case, Cut { in_place: true, manner, ..Cut::WHOLE })?;
    expected.check(&shared, "in place, with 3 workers")?;
    expected.check_same(&first, &shared, Fault::Unstable, "in place, with 3 workers")?;
    let longest = case.sequences.iter().map(super::plan::Tokens::len).max().unwrap_or(0);
    // Long sequences would take long token by token.
    let pieces = if longest <= 40 { [1, 3] } else { [longest.div_ceil(3), 33] };
    let last_only = Manner { sharing: Sharing::LastOnly(2), ..manner };
    let mut by_token = None;
    for (piece, stagger, apart, manner, how) in [
        (pieces[0], 2, false, last_only, "in pieces, on the last of 2 workers"),
        (pieces[1], 1, false, Manner::PLAIN, "in pieces beside other sequences"),
        (usize::MAX, 0, true, Manner::PLAIN, "each sequence in a call of its own"),
    ] {
        if piece < usize::MAX && layer.desc.kind() == LayerKind::BidirectionalAttention {
            continue;
        }
        let cut = Cut { piece, stagger, apart, in_place: apart, manner };
        let results = run(layer, case, cut)?;
        expected.check_same(&first, &results, Fault::BatchDependent, how)?;
        if piece == 1 {
            by_token = Some(results);
        }
    }
    by_token.map_or(Ok(()), |by_token| check_invariance(layer, case, &first, &by_token))?;
    Ok(distance.off)
}

/// Fails where results depend on the batch, to the bit, and the layer promises that they don't.
fn check_invariance(
    layer: &Layer<'_>,
    case: &Case,
    whole: &Results,
    by_token: &Results,
) -> Result<(), Outcome> {
    let promised = layer.info.batch_invariant_tokens as usize;
    let longest = case.sequences.iter().map(super::plan::Tokens::len).max().unwrap_or(0);
    let cut;
    let whole = match promised {
        0 => return Ok(()),
        _ if promised >= longest => whole,
        piece => {
            cut = run(layer, case, Cut { piece, ..Cut::WHOLE })?;
            &cut
        }
    };
    for (index, (whole, by_token)) in whole.outputs.iter().zip(&by_token.outputs).enumerate() {
        if let Some(at) = whole.iter().zip(by_token).position(|(x, y)| x.to_bits() != y.to_bits()) {
            let width = layer.output_width();
            let sentence = format!(
                "it promises that up to {promised} tokens of a sequence get, to the bit, the results of one call a token, and \
                 element {} of token {} of sequence {index} was {:e} in a call of many and {:e} in one of its own",
                at % width,
                at / width,
                whole[at],
                by_token[at]
            );
            return Err(Outcome::Failed(Fault::BatchDependent, sentence));
        }
    }
    Ok(())
}

/// Fails where two runs left in place what filled their outputs.
fn check_written(first: &Results, again: &Results) -> Result<(), Outcome> {
    let is = |x: f32, fill: u8| x.to_bits() == u32::from_ne_bytes([fill; 4]);
    for (index, (first, again)) in first.outputs.iter().zip(&again.outputs).enumerate() {
        let unwritten = |(x, y): &(&f32, &f32)| is(**x, NAN_FILL) && is(**y, LARGE_FILL);
        let count = first.iter().zip(again).filter(unwritten).count();
        if count > 0 {
            let sentence = format!(
                "it returned OK and left {count} of the {} results of sequence {index} unwritten",
                first.len()
            );
            return Err(Outcome::Failed(Fault::NotWritten, sentence));
        }
    }
    Ok(())
}

/// Fails where the same call gave other results, with other numbers in the memory that held nothing.
fn check_repeated(first: &Results, again: &Results, width: usize) -> Result<(), Outcome> {
    for (index, (first, again)) in first.outputs.iter().zip(&again.outputs).enumerate() {
        if let Some(at) = first.iter().zip(again).position(|(x, y)| x.to_bits() != y.to_bits()) {
            let sentence = format!(
                "the same call twice: element {} of token {} of sequence {index} was {:e}, then {:e} (what the scratch memory \
                 held beforehand was another)",
                at % width,
                at / width,
                first[at],
                again[at]
            );
            return Err(Outcome::Failed(Fault::Unstable, sentence));
        }
    }
    Ok(())
}
