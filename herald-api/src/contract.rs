//! What a forward call must bring, by the layer's kind. Both sides check it, because each may face another party's code:
//! a host that brings too few pages, or a caller of the host that brings too many workers, would have a layer write past
//! the ends of its buffers.

use crate::abi;
use crate::call::{Sequence, q4_page_bytes};
use crate::{AlignedBytes, Attention, Call, Error, LayerDesc, LayerParams, Result};

/// Checks everything of a call that its buffers' lengths don't already say: ids within the vocabulary, positions and
/// input where the kind needs them, no more workers than the layer was made for, states, and attention's pages.
pub(crate) fn check(
    call: &Call<'_>,
    desc: &LayerDesc,
    max_workers: usize,
    state_bytes: usize,
    page_formats: u32,
) -> Result<()> {
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

/// A sequence's pages are of attention's shape, in formats that the layer reads (those that are written: 16-bit integers),
/// don't overlap, rise, and have room for the batch's tokens.
pub(crate) fn check_pages(
    sequence: &Sequence<'_>,
    shape: &Attention,
    page_formats: u32,
) -> Result<(), String> {
    let end = sequence.past() + sequence.batch().len();
    let (mut last_end, mut covered) = (0, sequence.past());
    for page in sequence.pages() {
        let slots = shape.n_kv_heads.saturating_mul(page.capacity());
        let bytes =
            |dim: usize| slots.saturating_mul(size_of::<f32>() + dim.saturating_mul(size_of::<i16>()));
        let (keys, values) = (page.key_bytes().len(), page.value_bytes().len());
        let expected = (bytes(shape.key_dim), bytes(shape.value_dim));
        let whole = page.start() + page.capacity() <= sequence.past();
        let is_q4 = page.format() == abi::HERALD_PAGE_Q4
            && whole
            && page_formats & (1 << abi::HERALD_PAGE_Q4) != 0
            && q4_page_bytes(shape.n_kv_heads, shape.key_dim, shape.value_dim, page.capacity())
                == Some((keys, values));
        if !is_q4 && (page.format() != abi::HERALD_PAGE_I16 || (keys, values) != expected) {
            return Err(format!(
                "a page of format {} with {keys} bytes of keys and {values} of values, where format {} with {} and {} \
                 was expected",
                page.format(),
                abi::HERALD_PAGE_I16,
                expected.0,
                expected.1
            ));
        }
        let page_end = page.start() + page.capacity();
        if page.start() < last_end || page.start() + page.n_tokens() > end {
            return Err(format!(
                "a page of {} tokens at token {}, where it was to begin at {last_end} or later and hold no token past \
                 {end}",
                page.n_tokens(),
                page.start()
            ));
        }
        last_end = page_end;
        if page.start() <= covered {
            covered = covered.max(page_end);
        }
    }
    if covered < end {
        return Err(format!(
            "pages with room up to token {covered} of a sequence, where room up to {end} was expected"
        ));
    }
    Ok(())
}
