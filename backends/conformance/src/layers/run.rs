//! A layer's sequences, run in every way that a host may cut them.

use herald_api::{Attention, LayerParams, WeightRole};

use super::call::{Content, Manner, Part};
use super::layer::Layer;
use super::pages::{ALIGN, Page};
use super::plan::{Case, Tokens};
use crate::Outcome;
use crate::guard::Guarded;

/// How sequences are cut into calls.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The most tokens of a sequence in a call.
    pub(super) piece: usize,
    /// Calls by which each sequence begins after the one before it.
    pub(super) stagger: usize,
    /// Each sequence has calls of its own.
    pub(super) apart: bool,
    /// The output holds the activations; otherwise they are in another buffer.
    pub(super) in_place: bool,
    pub(super) manner: Manner,
}

impl Cut {
    /// All tokens in one call.
    pub(super) const WHOLE: Self =
        Self { piece: usize::MAX, stagger: 0, apart: false, in_place: false, manner: Manner::PLAIN };

    /// For each call, its sequences with their numbers of tokens.
    fn calls(&self, sequences: &[Tokens]) -> Vec<Vec<(usize, usize)>> {
        if self.apart {
            let alone = |(index, sequence): (usize, &Tokens)| {
                let mut left = sequence.len();
                std::iter::from_fn(move || {
                    let n_tokens = self.piece.min(left);
                    left -= n_tokens;
                    (n_tokens > 0).then(|| vec![(index, n_tokens)])
                })
            };
            return sequences.iter().enumerate().flat_map(alone).collect();
        }
        let mut done = vec![0; sequences.len()];
        let mut calls = Vec::new();
        let mut number = 0;
        while sequences.iter().zip(&done).any(|(sequence, done)| *done < sequence.len()) {
            let mut call = Vec::new();
            for (index, sequence) in sequences.iter().enumerate() {
                let n_tokens = self.piece.min(sequence.len() - done[index]);
                if number >= index * self.stagger && n_tokens > 0 {
                    call.push((index, n_tokens));
                    done[index] += n_tokens;
                }
            }
            number += 1;
            if !call.is_empty() {
                calls.push(call);
            }
        }
        calls
    }
}

/// What came of a run.
pub(super) struct Results {
    /// Each sequence's outputs `[n_tokens, width]`.
    pub(super) outputs: Vec<Vec<f32>>,
    /// What they held beforehand; none where they held nothing.
    pub(super) before: Vec<Vec<f32>>,
    /// Each sequence's keys and values, page by page.
    pub(super) pages: Vec<Vec<[Vec<f32>; 2]>>,
}

impl Results {
    /// What the layer added to a sequence's outputs, or wrote.
    pub(super) fn branch(&self, index: usize) -> Vec<f64> {
        let output = self.outputs[index].iter().map(|x| f64::from(*x));
        match self.before[index].is_empty() {
            true => output.collect(),
            false => output.zip(&self.before[index]).map(|(x, before)| x - f64::from(*before)).collect(),
        }
    }
}

/// A sequence's memory.
pub(super) struct Memory {
    pub(super) pages: Vec<Page>,
    state: Option<Guarded>,
    pub(super) done: usize,
}

impl Memory {
    /// A new sequence's, for this layer.
    pub(super) fn new(layer: &Layer<'_>, manner: Manner) -> Result<Self, Outcome> {
        let bytes = layer.info.state_bytes as usize;
        let state = match layer.desc.params.is_recurrent() && bytes > 0 {
            true => Some(Guarded::new("the recurrent state", bytes, ALIGN, manner.place, 0)?),
            false => None,
        };
        Ok(Self { pages: Vec::new(), state, done: 0 })
    }

    /// Makes room for tokens up to `end`, and describes the sequence for a call.
    pub(super) fn part(
        &mut self,
        attention: Option<&Attention>,
        end: usize,
        page_tokens: usize,
        manner: Manner,
    ) -> Result<Part, Outcome> {
        if let Some(params) = attention {
            let mut room = self.pages.last().map_or(0, |page| page.start + page.capacity);
            while room < end {
                self.pages.push(Page::new(params, room, page_tokens, manner.place)?);
                room += page_tokens;
            }
        }
        let raw = |page: &Page| {
            if page.start + page.capacity <= self.done {
                page.read_only();
            }
            page.raw(end)
        };
        Ok(Part {
            n_tokens: end - self.done,
            past: self.done,
            pages: self.pages.iter().map(raw).collect(),
            state: self.state.as_ref().map(Guarded::pointer),
            ..Part::default()
        })
    }

    /// The pages that a call may write to, as they are.
    fn snapshots(&self) -> Vec<[Vec<u8>; 2]> {
        self.open().map(Page::snapshot).collect()
    }

    fn open(&self) -> impl Iterator<Item = &Page> {
        self.pages.iter().filter(|page| page.start + page.capacity > self.done)
    }

    fn check_written(&self, before: &[[Vec<u8>; 2]], end: usize) -> Result<(), Outcome> {
        if let Some(state) = &self.state {
            state.check_beside()?;
        }
        self.open().zip(before).try_for_each(|(page, before)| page.check_written(before, self.done..end))
    }
}

/// The attention parameters of a layer, if it is one.
pub(super) fn attention<'l>(layer: &'l Layer<'_>) -> Option<&'l Attention> {
    match &layer.desc.params {
        LayerParams::Attention(params) => Some(params),
        _ => None,
    }
}

/// The buffers of a call, gathered from its sequences.
#[derive(Default)]
struct Gathered {
    x: Vec<f32>,
    before: Vec<f32>,
    positions: Vec<u32>,
    ids: Vec<u32>,
}

/// What the layer multiplies its outputs by, where it does.
fn output_scale(case: &Case) -> Option<f32> {
    let tensor = case.tensors.iter().find(|tensor| tensor.role == WeightRole::OutputScale)?;
    let mut scale = [0.0];
    herald_formats::dequantize_row(tensor.dtype, &tensor.bytes, &mut scale);
    Some(scale[0])
}

/// Runs the sequences of a case.
pub(super) fn run(layer: &Layer<'_>, case: &Case, cut: Cut) -> Result<Results, Outcome> {
    let (hidden, width) = (layer.desc.hidden, layer.output_width());
    let is_head = matches!(layer.desc.params, LayerParams::Head(_));
    let is_embedding = matches!(layer.desc.params, LayerParams::Embedding(_));
    let is_branch = !is_head && !is_embedding;
    // A norm over the sum leaves no branch to compare: what was there before must be the same.
    let in_place = cut.in_place && !case.tensors.iter().any(|tensor| tensor.role == WeightRole::ResidualNorm);
    let params = attention(layer);
    let memories = case.sequences.iter().map(|_| Memory::new(layer, cut.manner));
    let mut memories = memories.collect::<Result<Vec<_>, _>>()?;
    let empty = || vec![Vec::new(); case.sequences.len()];
    let mut results = Results { outputs: empty(), before: empty(), pages: Vec::new() };
    for call in cut.calls(&case.sequences) {
        let mut gathered = Gathered::default();
        let (mut parts, mut snapshots) = (Vec::new(), Vec::new());
        for &(index, n_tokens) in &call {
            let sequence = &case.sequences[index];
            let memory = &mut memories[index];
            let new = memory.done..memory.done + n_tokens;
            let elements = new.start * hidden..new.end * hidden;
            gathered.x.extend(&sequence.x[elements.clone()]);
            let before = if in_place { &sequence.x } else { &sequence.residual };
            gathered.before.extend(&before[elements]);
            gathered.positions.extend(&sequence.positions[new.clone()]);
            gathered.ids.extend(&sequence.ids[new.clone()]);
            if is_branch {
                parts.push(memory.part(params, new.end, case.page_tokens, cut.manner)?);
                snapshots.push(memory.snapshots());
            }
        }
        let content = Content {
            n_tokens: gathered.positions.len(),
            ids: if layer.desc.params.reads_tokens() { &gathered.ids } else { &[] },
            positions: if params.is_some() || is_embedding { &gathered.positions } else { &[] },
            input: (is_head || (is_branch && !in_place)).then_some(&gathered.x[..]),
            before: is_branch.then_some(&gathered.before[..]),
            parts: &parts,
            fetch: None,
        };
        let output = layer.forward(&content, cut.manner)?;
        let mut first = 0;
        for (at, &(index, n_tokens)) in call.iter().enumerate() {
            let memory = &mut memories[index];
            let end = memory.done + n_tokens;
            if is_branch {
                memory.check_written(&snapshots[at], end)?;
                let elements = first * hidden..(first + n_tokens) * hidden;
                results.before[index].extend(&gathered.before[elements]);
            }
            results.outputs[index].extend(&output[first * width..(first + n_tokens) * width]);
            memory.done = end;
            first += n_tokens;
        }
    }
    let kept = |memory: &Memory| memory.pages.iter().map(Page::numbers).collect();
    results.pages = memories.iter().map(kept).collect();
    if let Some(scale) = output_scale(case) {
        // What is compared is the branch: without the scale an output is what was there and the branch.
        results.outputs.iter_mut().flatten().for_each(|output| *output /= scale);
    }
    Ok(results)
}
