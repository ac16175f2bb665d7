//! What a forward call must bring, by the layer's kind. Both sides check it, because each may face another party's code:
//! a host that brings too few pages, or a caller of the host that brings too many workers, would have a layer write past
//! the ends of its buffers.

use crate::sequence::{Needs, Sequence, check_pages};
use crate::{AlignedBytes, Call, Error, LayerDesc, LayerParams, Result, WeightRole};

/// Checks everything of a call that its buffers' lengths don't already say: ids within the vocabulary, positions and
/// input where the kind needs them, no more workers than the layer was made for, states, and attention's pages.
pub(crate) fn check(call: &Call<'_>, desc: &LayerDesc, max_workers: usize, needs: Needs) -> Result<()> {
    let Needs { state_bytes, page_formats, .. } = needs;
    let wrong = |what: String| {
        let (kind, index) = (desc.kind().name(), desc.block);
        Err(Error::invalid(format!("a call of the {kind} layer of block {index} brought {what}")))
    };
    if call.parallel.workers() > max_workers {
        return wrong(format!(
            "{} workers, where at most {max_workers} were announced",
            call.parallel.workers()
        ));
    }
    if state_bytes > 0 {
        let aligned =
            |state: *mut u8| !state.is_null() && (state as usize).is_multiple_of(AlignedBytes::ALIGN);
        if call.sequences.is_empty() || !call.sequences.iter().all(|sequence| aligned(sequence.state())) {
            return wrong(format!(
                "a sequence without an aligned state, where {state_bytes} bytes were expected"
            ));
        }
    }
    match &desc.params {
        LayerParams::Embedding(embedding) => {
            if call.tokens.len() != call.n_tokens {
                return wrong("no token ids".to_owned());
            }
            match call.tokens.iter().find(|id| **id as usize >= embedding.vocabulary) {
                Some(id) => wrong(format!(
                    "the token id {id}, where ids below {} were expected",
                    embedding.vocabulary
                )),
                None => Ok(()),
            }
        }
        LayerParams::PerLayerEmbedding(_) if call.tokens.len() != call.n_tokens => {
            wrong("no token ids".to_owned())
        }
        LayerParams::Head(_) if call.input.is_none() => wrong("no input".to_owned()),
        LayerParams::Attention(shape) => {
            if call.positions.len() != call.n_tokens {
                return wrong("no positions".to_owned());
            }
            if call.sequences.is_empty() {
                return wrong("no sequences".to_owned());
            }
            let page_of = |sequence: Sequence<'_>| check_pages(&sequence, shape, page_formats).or_else(wrong);
            call.sequences.iter().try_for_each(page_of)
        }
        params if params.is_recurrent() && call.sequences.is_empty() => wrong("no sequences".to_owned()),
        _ => Ok(()),
    }
}

/// Checks that each low-rank update of a call is of a weight that the layer has, and takes updates of, and of its shape.
pub(crate) fn check_loras(
    call: &Call<'_>,
    desc: &LayerDesc,
    has_weight: impl Fn(WeightRole) -> bool,
) -> Result<()> {
    for lora in call.sequences.iter().flat_map(|sequence| sequence.loras()) {
        let shape = desc.lora_shape(lora.role).filter(|_| has_weight(lora.role));
        if !shape.is_some_and(|shape| shape.fits(lora.rows, lora.columns)) {
            let expected = shape.map_or("none".to_owned(), |shape| shape.to_string());
            return Err(Error::invalid(format!(
                "a call of the {} layer of block {} brought an update of its weight {:?} for {} rows of {}, where {expected} was \
                 expected",
                desc.kind().name(),
                desc.block,
                lora.role,
                lora.rows,
                lora.columns
            )));
        }
    }
    Ok(())
}
