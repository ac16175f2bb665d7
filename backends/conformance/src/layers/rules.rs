//! What a plugin makes of requests that it can't know, that contradict themselves, or that come from an older or a later host.

use std::mem::offset_of;
use std::sync::Mutex;

use herald_api::abi::{
    HERALD_STATUS_UNSUPPORTED, HeraldAttention, HeraldMamba1, HeraldMlp, HeraldMoe, HeraldTensor,
};
use herald_api::{LayerKind, Need};

use super::battery::{any, outcome};
use super::call::Manner;
use super::layer::{Layer, Maker, Order, status_name};
use super::plan::Case;
use super::run::{Cut, Results, run};
use super::structs::Age;
use crate::{Fault, Outcome, Sink};

/// Checks the rules on one small layer of a kind.
pub(super) fn check(maker: Maker<'_>, kind: LayerKind, sink: &mut Sink<'_>) {
    let name = kind.name();
    type Check = fn(Maker<'_>, LayerKind) -> Result<String, Outcome>;
    let checks: [(&str, Check); 9] = [
        ("what it can't know", check_unknown),
        ("unknown constants", check_constants),
        ("weights that are missing", check_missing),
        ("weights of other shapes", check_shapes),
        ("no buffer for the sentence", check_without_error),
        ("a host of the ABI's first version", |maker, kind| check_age(maker, kind, Age::First)),
        ("a later host", |maker, kind| check_age(maker, kind, Age::Later)),
        ("destroying nothing", check_destroy),
        ("calls from three threads at once", check_at_once),
    ];
    for (what, check) in checks {
        sink.check(format!("{name}, {what}"), || outcome(check(maker, kind)));
    }
}

/// Has a request refused that must be; with UNSUPPORTED where that is the only right answer.
fn refused(maker: Maker<'_>, order: &Order<'_>, what: &str, unsupported: bool) -> Result<(), Outcome> {
    match maker.make(order)? {
        Ok(_) => {
            let sentence = format!("it made a layer with {what}, where a refusal was expected");
            Err(Outcome::Failed(Fault::AcceptsDamage, sentence))
        }
        Err(refusal) if unsupported && refusal.status != HERALD_STATUS_UNSUPPORTED => {
            let sentence = format!(
                "it answered {} to {what}, where UNSUPPORTED was expected: {}",
                status_name(refusal.status),
                refusal.sentence
            );
            Err(Outcome::Failed(Fault::WrongStatus, sentence))
        }
        Err(_) => Ok(()),
    }
}

fn order(case: &Case) -> Order<'_> {
    Order::new(&case.desc, &case.tensors, case.limits())
}

fn check_unknown(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    let (case, _) = any(maker, kind)?;
    refused(maker, &Order { kind: Some(0x7fff), ..order(&case) }, "a kind that nobody knows", true)?;
    let of_no_type = |weights: &mut Vec<HeraldTensor>| {
        let largest = weights.iter_mut().max_by_key(|weight| weight.data_bytes);
        largest.into_iter().for_each(|weight| weight.dtype = 0x7fff);
    };
    refused(
        maker,
        &Order { spoil: Some(&of_no_type), ..order(&case) },
        "an element type that nobody knows",
        true,
    )?;
    let one_more = |weights: &mut Vec<HeraldTensor>| {
        let more = weights.first().map(|first| HeraldTensor { role: 0x7fff, ..*first });
        weights.extend(more);
    };
    refused(
        maker,
        &Order { spoil: Some(&one_more), ..order(&case) },
        "a weight of a role that nobody knows",
        true,
    )?;
    Ok("a kind, an element type, and a role of a weight".to_owned())
}

fn check_constants(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    let constants: &[(&str, usize)] = match kind {
        LayerKind::Mlp => &[
            ("an activation that nobody knows", offset_of!(HeraldMlp, activation)),
            ("gated as neither 0 nor 1", offset_of!(HeraldMlp, gated)),
        ],
        LayerKind::Attention | LayerKind::ChunkedAttention | LayerKind::BidirectionalAttention => &[
            ("a RoPE that nobody knows", offset_of!(HeraldAttention, rope)),
            ("a RoPE scaling that nobody knows", offset_of!(HeraldAttention, rope_scaling)),
        ],
        LayerKind::Moe => &[
            ("an activation that nobody knows", offset_of!(HeraldMoe, activation)),
            ("a routing that nobody knows", offset_of!(HeraldMoe, routing)),
            ("gated as neither 0 nor 1", offset_of!(HeraldMoe, gated)),
            ("normalize as neither 0 nor 1", offset_of!(HeraldMoe, normalize)),
        ],
        LayerKind::Mamba1 => &[("plain_norms as neither 0 nor 1", offset_of!(HeraldMamba1, plain_norms))],
        _ => return Err(Outcome::Skipped("the kind has none".to_owned())),
    };
    let (case, _) = any(maker, kind)?;
    for (what, offset) in constants {
        refused(maker, &Order { parameter: Some((*offset, 77)), ..order(&case) }, what, true)?;
    }
    Ok(format!("{} of them", constants.len()))
}

fn check_missing(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    let (case, _) = any(maker, kind)?;
    let required = |index: &usize| {
        let shape = case.desc.weight_shape(case.tensors[*index].role);
        shape.is_some_and(|shape| shape.need != Need::Optional)
    };
    let mut count = 0;
    for index in (0..case.tensors.len()).filter(required) {
        let without = |weights: &mut Vec<HeraldTensor>| {
            weights.remove(index);
        };
        let what = format!("no weight {:?}", case.tensors[index].role);
        refused(maker, &Order { spoil: Some(&without), ..order(&case) }, &what, false)?;
        count += 1;
    }
    Ok(format!("{count} weights"))
}

fn check_shapes(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    let (case, _) = any(maker, kind)?;
    for (index, tensor) in case.tensors.iter().enumerate() {
        // One row less, or of a vector one element less: what is there is all readable.
        let (dim, unit) = match tensor.dims.len() {
            1 => (0, tensor.dtype.block_bytes()),
            _ => (1, tensor.bytes.len() / tensor.dims[1].max(1)),
        };
        if tensor.dims[dim] < 2 || (dim == 0 && tensor.dtype.block_len() > 1) {
            continue;
        }
        let shorter = |weights: &mut Vec<HeraldTensor>| {
            weights[index].dims[dim] -= 1;
            weights[index].data_bytes -= unit as u64;
        };
        let what = format!("a weight {:?} that is too short", tensor.role);
        refused(maker, &Order { spoil: Some(&shorter), ..order(&case) }, &what, false)?;
    }
    Ok(format!("{} weights", case.tensors.len()))
}

fn check_without_error(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    let (case, _) = any(maker, kind)?;
    let none = |weights: &mut Vec<HeraldTensor>| weights.clear();
    let order = Order { spoil: Some(&none), with_error: false, ..order(&case) };
    refused(maker, &order, "no weights", false)?;
    Ok(String::new())
}

/// The same layer from a host whose structs are shorter, or longer: it computes the same.
fn check_age(maker: Maker<'_>, kind: LayerKind, age: Age) -> Result<String, Outcome> {
    let (case, layer) = any(maker, kind)?;
    let today = run(&layer, &case, Cut::WHOLE)?;
    let other = maker.make(&Order { age, ..order(&case) })?.map_err(|refusal| {
        let sentence = format!("it refuses that host's request: {}", refusal.sentence);
        Outcome::Failed(Fault::Refuses, sentence)
    })?;
    let cut = Cut { manner: Manner { age, ..Manner::PLAIN }, ..Cut::WHOLE };
    same(&today, &run(&other, &case, cut)?, "with that host's structs")?;
    Ok(String::new())
}

/// Fails where results aren't the same to the bit.
fn same(first: &Results, second: &Results, how: &str) -> Result<(), Outcome> {
    let bits =
        |results: &Results| -> Vec<u32> { results.outputs.iter().flatten().map(|x| x.to_bits()).collect() };
    if bits(first) == bits(second) {
        return Ok(());
    }
    Err(Outcome::Failed(Fault::Unstable, format!("{how} the results are others")))
}

fn check_destroy(maker: Maker<'_>, _: LayerKind) -> Result<String, Outcome> {
    if let Some(destroy) = maker.table.destroy {
        // SAFETY: the ABI allows null.
        unsafe { destroy(std::ptr::null_mut()) };
    }
    Ok(String::new())
}

fn check_at_once(maker: Maker<'_>, kind: LayerKind) -> Result<String, Outcome> {
    let (case, layer) = any(maker, kind)?;
    let first = run(&layer, &case, Cut::WHOLE)?;
    let failed: Mutex<Option<Outcome>> = Mutex::new(None);
    let shared: &Layer<'_> = &layer;
    maker.pool.run(3, &|_| {
        for _ in 0..8 {
            let again = run(shared, &case, Cut::WHOLE);
            if let Err(outcome) = again.and_then(|again| same(&first, &again, "beside other calls"))
                && let Ok(mut failed) = failed.lock()
            {
                failed.get_or_insert(outcome);
            }
        }
    });
    failed.into_inner().ok().flatten().map_or_else(|| Ok(String::new()), Err)
}
