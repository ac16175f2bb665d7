//! One forward call, in memory that tells what the plugin touches.

use std::ptr;

use herald_api::LayerParams;
use herald_api::abi::{AbiStruct, HeraldCall, HeraldFetch, HeraldPage, HeraldSequence};

use super::layer::{Layer, status_name};
use super::pages::ALIGN;
use super::structs::{Age, Structs};
use crate::guard::{Guarded, Place};
use crate::hooks::Counters;
use crate::pool::{Lent, Sharing};
use crate::{Fault, Outcome};

/// How calls are made, apart from what they are about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) place: Place,
    pub(super) sharing: Sharing,
    pub(super) age: Age,
    /// What fills scratch memory, and outputs that hold nothing beforehand.
    pub(super) fill: u8,
}

/// Float32's NaN with every bit set.
pub(super) const NAN_FILL: u8 = 0xff;

/// A large number as float32, -1.4e14 or so.
pub(super) const LARGE_FILL: u8 = 0xd6;

impl Manner {
    /// One worker, buffers that end where readable memory does, NaN in what holds nothing.
    pub(super) const PLAIN: Self =
        Self { place: Place::High, sharing: Sharing::Alone, age: Age::Today, fill: NAN_FILL };
}

/// A sequence's part of a call.
#[derive(Default)]
pub(super) struct Part {
    pub(super) n_tokens: usize,
    pub(super) past: usize,
    pub(super) pages: Vec<HeraldPage>,
    pub(super) state: Option<*mut u8>,
    /// Where selectable pages begin, and their summaries.
    pub(super) selectable: Option<(Vec<u64>, Vec<u8>)>,
    pub(super) max_distance: usize,
}

/// What a call is about.
pub(super) struct Content<'c> {
    pub(super) n_tokens: usize,
    /// Token ids, or none.
    pub(super) ids: &'c [u32],
    pub(super) positions: &'c [u32],
    /// Activations, where the output doesn't hold them.
    pub(super) input: Option<&'c [f32]>,
    /// What the output holds beforehand; `None`: nothing.
    pub(super) before: Option<&'c [f32]>,
    pub(super) parts: &'c [Part],
    pub(super) fetch: Option<&'c HeraldFetch>,
}

/// What C has for a call, kept while it runs.
pub(super) struct Prepared {
    pub(super) call: *const HeraldCall,
    structs: Structs,
    kept: Vec<Guarded>,
    output: Guarded,
}

fn bytes_of<T: bytemuck::NoUninit>(numbers: &[T]) -> &[u8] {
    bytemuck::cast_slice(numbers)
}

/// The pointers to what a layer's sequences are, and the memory that they need.
pub(super) fn sequences(
    parts: &[Part],
    structs: &mut Structs,
    kept: &mut Vec<Guarded>,
) -> Result<*const *const HeraldSequence, Outcome> {
    let mut raw = Vec::new();
    let mut first = 0;
    for part in parts {
        let mut sequence = HeraldSequence {
            first,
            n_tokens: part.n_tokens as u64,
            past: part.past as u64,
            pages: structs.list(&part.pages)?,
            n_pages: part.pages.len(),
            state: part.state.map_or(ptr::null_mut(), <*mut u8>::cast),
            max_distance: part.max_distance as u64,
            ..AbiStruct::empty()
        };
        if let Some((starts, summaries)) = &part.selectable {
            let starts_kept =
                Guarded::copy_of("the selectable pages' starts", bytes_of(starts), 8, Place::High)?;
            let summaries = Guarded::copy_of("the selectable pages' summaries", summaries, 8, Place::High)?;
            sequence.selectable_starts = starts_kept.pointer().cast_const().cast();
            sequence.selectable_summaries = summaries.pointer().cast_const().cast();
            sequence.n_selectable = starts.len();
            kept.extend([starts_kept, summaries]);
        }
        first += part.n_tokens as u64;
        raw.push(sequence);
    }
    structs.list(&raw)
}

impl Layer<'_> {
    /// Elements of a token's output.
    pub(super) fn output_width(&self) -> usize {
        match &self.desc.params {
            LayerParams::Head(head) => head.vocabulary,
            _ => self.desc.hidden,
        }
    }

    /// Runs a call; returns the output `[n_tokens, width]`.
    pub(super) fn forward(&self, content: &Content<'_>, manner: Manner) -> Result<Vec<f32>, Outcome> {
        self.forward_counted(content, manner, &Counters::default())
    }

    /// As [`Layer::forward`]; what it asks of the system counts for `counters`.
    pub(super) fn forward_counted(
        &self,
        content: &Content<'_>,
        manner: Manner,
        counters: &Counters,
    ) -> Result<Vec<f32>, Outcome> {
        let lent = Lent::new(self.maker.pool, manner.sharing, counters);
        let prepared = self.prepare(content, manner, &lent)?;
        self.call_prepared(&prepared, counters)?;
        if let Some(misuse) = lent.misuse() {
            return Err(Outcome::Failed(Fault::MisusesParallel, misuse));
        }
        if counters.threads() > 0 {
            let sentence =
                "forward started a thread or a process, where it was to use the threads that it was lent";
            return Err(Outcome::Failed(Fault::StartsThreads, sentence.to_owned()));
        }
        prepared.check_beside()?;
        Ok(prepared.output.floats())
    }

    /// Makes everything that a call needs.
    pub(super) fn prepare(
        &self,
        content: &Content<'_>,
        manner: Manner,
        lent: &Lent<'_>,
    ) -> Result<Prepared, Outcome> {
        let place = manner.place;
        let mut structs = Structs::new(manner.age);
        let mut kept = Vec::new();
        let mut read = |what: &'static str, bytes: &[u8]| {
            let copy = Guarded::copy_of(what, bytes, 4, place)?;
            let pointer = copy.pointer().cast_const();
            kept.push(copy);
            Ok(pointer)
        };
        let numbers = |ids: &[u32]| (!ids.is_empty()).then(|| bytes_of(ids).to_vec());
        let or_null =
            |bytes: Option<Vec<u8>>,
             what,
             read: &mut dyn FnMut(&'static str, &[u8]) -> Result<_, Outcome>| {
                bytes.map_or(Ok(ptr::null()), |bytes| read(what, &bytes))
            };
        let tokens = or_null(numbers(content.ids), "the token ids", &mut read)?;
        let positions = or_null(numbers(content.positions), "the positions", &mut read)?;
        let input = content.input.map(|input| bytes_of(input).to_vec());
        let input = or_null(input, "the input", &mut read)?;
        let mut output =
            Guarded::new("the output", 4 * content.n_tokens * self.output_width(), 4, place, manner.fill)?;
        if let Some(before) = content.before {
            output.bytes_mut().copy_from_slice(bytes_of(before));
        }
        let scratch_bytes = self.info.scratch_bytes;
        let scratch = Guarded::new("the scratch memory", scratch_bytes as usize, ALIGN, place, manner.fill)?;
        let list = sequences(content.parts, &mut structs, &mut kept)?;
        let call = HeraldCall {
            n_tokens: content.n_tokens,
            tokens: tokens.cast(),
            positions: positions.cast(),
            input: input.cast(),
            output: output.pointer().cast(),
            sequences: list,
            n_sequences: content.parts.len(),
            scratch: scratch.pointer().cast(),
            scratch_bytes,
            parallel: structs.one(&lent.raw())?,
            fetch: match content.fetch {
                Some(fetch) => structs.one(fetch)?,
                None => ptr::null(),
            },
            ..AbiStruct::empty()
        };
        kept.push(scratch);
        Ok(Prepared { call: structs.one(&call)?, structs, kept, output })
    }

    /// Calls forward; fails where it does.
    pub(super) fn call_prepared(&self, prepared: &Prepared, counters: &Counters) -> Result<(), Outcome> {
        let Some(forward) = self.maker.table.forward else {
            return Err(Outcome::Failed(Fault::Refused, "its table of layers has no forward".to_owned()));
        };
        let answer = self.maker.call(true, "forward", counters, |error| {
            // SAFETY: the ABI's contract: every buffer has the size that the call states, and lives in `prepared`.
            unsafe { forward(self.raw(), prepared.call, error) }
        })?;
        answer.map_err(|refusal| {
            let sentence = format!("forward answered {}: {}", status_name(refusal.status), refusal.sentence);
            Outcome::Failed(Fault::Refuses, sentence)
        })
    }
}

impl Prepared {
    fn check_beside(&self) -> Result<(), Outcome> {
        self.output.check_beside()?;
        self.kept.iter().try_for_each(Guarded::check_beside)?;
        self.structs.check_beside()
    }
}
