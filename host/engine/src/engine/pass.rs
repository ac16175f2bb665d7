//! One forward pass: a flat batch of tokens through the layers in turn.

use std::ops::Range;

use herald_api::import::{BatchBuffers, Forward, LayerHandle, Lent};
use herald_api::{AlignedBytes, LayerKind, Status};

use super::interrupt::{Leave, StatesBefore};
use super::{NeuroEngine, Sequence, finite};
use crate::error::{Error, Result};
use crate::kv_cache::PageSelector;
use crate::threads::locked;

/// The most tokens whose logits are computed at once: they are as wide as the vocabulary.
pub(super) const HEAD_TOKENS: usize = 32;

/// A sequence, and the tokens to run after what it has seen.
pub(super) type Entry<'s, 'i> = (&'s mut Sequence, &'i [u32]);

/// Which tokens' logits a pass gives.
pub(super) enum WantedLogits<'r> {
    /// None.
    None,
    /// Every token's.
    All,
    /// Those of the last token of each sequence.
    Last,
    /// Those of as many of each sequence's last tokens.
    LastOf(&'r [usize]),
    /// No logits, but every token's activations `[n_tokens, hidden]` after the first layers, as many as this says. The others
    /// are not run, so the sequences are of no further use.
    Hidden(usize),
}

impl WantedLogits<'_> {
    /// Whether they are those of no others than some last tokens of each sequence.
    fn is_of_last(&self) -> bool {
        matches!(self, Self::None | Self::Last | Self::LastOf(_))
    }

    /// Of how many of a sequence's last tokens something is wanted, where it has `n_tokens` new ones.
    fn of(&self, sequence: usize, n_tokens: usize) -> usize {
        match self {
            Self::None => 0,
            Self::All | Self::Hidden(_) => n_tokens,
            Self::Last => n_tokens.min(1),
            Self::LastOf(wanted) => n_tokens.min(wanted[sequence]),
        }
    }
}

/// Memory that a pass works in, kept from pass to pass.
pub(super) struct Workspace {
    /// How many of the tokens are each entry's: its last ones.
    rows: Vec<usize>,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    /// Activations `[n_tokens, hidden]`.
    activations: Vec<f32>,
    /// What parallel branches read, `[n_tokens, hidden]`.
    branch_input: Vec<f32>,
    /// Logits `[n, vocabulary]` of some of the tokens.
    logits: Vec<f32>,
    /// What any of the layers needs.
    scratch: AlignedBytes,
    batch: BatchBuffers,
}

impl NeuroEngine {
    /// Runs the sequences' new tokens, one sequence after another in the batch, and gives the logits to `each`, some at a time.
    /// `leave` says whose [`Stop`](crate::Stop) ends it.
    pub(super) fn pass(
        &self,
        entries: &mut [Entry<'_, '_>],
        wanted: WantedLogits<'_>,
        leave: Leave,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let mut workspace = self.workspace()?;
        let done = self.pass_in(&mut workspace, entries, wanted, leave, each);
        locked(&self.workspaces).push(workspace);
        done
    }

    fn workspace(&self) -> Result<Workspace> {
        if let Some(free) = locked(&self.workspaces).pop() {
            return Ok(free);
        }
        let bytes = self.all_layers().map(LayerHandle::scratch_bytes).max().unwrap_or(0);
        Ok(Workspace {
            rows: Vec::new(),
            tokens: Vec::new(),
            positions: Vec::new(),
            activations: Vec::new(),
            branch_input: Vec::new(),
            logits: Vec::new(),
            scratch: AlignedBytes::zeroed(bytes).map_err(|source| failed("scratch memory", source))?,
            batch: BatchBuffers::default(),
        })
    }

    fn pass_in(
        &self,
        workspace: &mut Workspace,
        entries: &mut [Entry<'_, '_>],
        wanted: WantedLogits<'_>,
        leave: Leave,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        leave.check(entries)?;
        self.check_pass(entries, &wanted)?;
        self.gather(workspace, entries)?;
        let n_layers = match wanted {
            WantedLogits::Hidden(n_layers) => n_layers,
            _ => self.layers.len(),
        };
        // The last layers' results are of use for those tokens alone whose logits are wanted, but for who keeps or watches them.
        let all = self.keeps_states || self.watchers.any();
        let tail = if all || !wanted.is_of_last() { n_layers } else { self.tail };
        let before = StatesBefore::of(entries);
        let leave = if before.allow_leaving(leave) { leave } else { Leave::Never };
        let done = self.run_layers(workspace, entries, 0..tail, leave).and_then(|()| {
            if tail < n_layers {
                self.keep_wanted(workspace, &wanted);
            }
            self.run_layers(workspace, entries, tail..n_layers, leave)
        });
        workspace.batch.end();
        if let Err(error) = done {
            before.give_back(entries);
            return Err(error);
        }
        self.commit(entries)?;
        if self.keeps_states {
            let mut rows = &workspace.activations[..];
            for (sequence, ids) in entries.iter_mut() {
                let (own, rest) = rows.split_at(ids.len() * self.plan.hidden);
                sequence.states.add(sequence.tokens.len() - ids.len(), ids, own);
                rows = rest;
            }
        }
        self.logits_of(workspace, entries, wanted, leave, each)
    }

    /// Puts the tokens and their positions into the workspace, and makes room for them.
    fn gather(&self, workspace: &mut Workspace, entries: &mut [Entry<'_, '_>]) -> Result<()> {
        let Workspace { rows, tokens, positions, activations, .. } = workspace;
        rows.clear();
        tokens.clear();
        positions.clear();
        for (sequence, ids) in entries {
            let past = sequence.tokens.len();
            rows.push(ids.len());
            tokens.extend_from_slice(ids);
            positions.extend(past as u32..(past + ids.len()) as u32);
            self.reserve(sequence, ids.len())?;
        }
        resize(activations, tokens.len().saturating_mul(self.plan.hidden), "activations")
    }

    /// Runs some layers on the workspace's tokens, but not the head.
    fn run_layers(
        &self,
        workspace: &mut Workspace,
        entries: &mut [Entry<'_, '_>],
        layers: Range<usize>,
        leave: Leave,
    ) -> Result<()> {
        let Workspace { rows, tokens, positions, activations, branch_input, scratch, batch, .. } = workspace;
        let threads = Lent::new(&*self.pool);
        let watcher = self.memory.watcher();
        // A pass of many tokens is the same plugin's to its end, where few are left.
        let n_tokens = entries.iter().map(|(_, ids)| ids.len()).sum();
        for index in layers {
            if tokens.is_empty() {
                break;
            }
            leave.check(entries)?;
            tracing::trace!(target: "herald::pass", "{} tokens through layer {index}", tokens.len());
            let selects = entries.iter().any(|(sequence, _)| sequence.memory.has_selectable_pages(index));
            let layer = self.layer_for(index, n_tokens, selects);
            let shares_input = self.plan.layers[index].shares_input;
            let next_shares = self.plan.layers.get(index + 1).is_some_and(|next| next.shares_input);
            if next_shares && !shares_input {
                resize(branch_input, activations.len(), "activations")?;
                branch_input.copy_from_slice(activations);
            }
            let call = Forward {
                n_tokens: tokens.len(),
                tokens,
                positions,
                input: (shares_input || next_shares).then_some(&branch_input[..]),
                output: activations,
                parallel: threads.parallel(),
            };
            let done = match layer.desc().kind() {
                LayerKind::Embedding => layer.forward(call, None, scratch),
                LayerKind::Head => break,
                _ => {
                    let mut batch = batch.begin();
                    let mut selector = PageSelector::new(index, watcher.clone(), &self.pool);
                    let mut entries = entries.iter_mut().zip(&*rows).filter(|(_, rows)| **rows > 0);
                    let added = entries.try_for_each(|((sequence, ids), rows)| {
                        let past = sequence.tokens.len() + ids.len() - rows;
                        sequence.memory.add_to(index, &mut batch, &mut selector, *rows, past)?;
                        self.loras.of_layer(index, &sequence.loras).for_each(|lora| batch.push_lora(lora));
                        Ok(())
                    });
                    added.and_then(|()| {
                        layer.forward_fetching(call, Some(&mut batch), scratch, Some(&mut selector))
                    })
                }
            };
            done.map_err(|source| failed(&name_of(layer), source))?;
            if let (LayerKind::Embedding, Some(fusion)) = (layer.desc().kind(), &self.fusion) {
                let states = entries.iter().flat_map(|(sequence, _)| &sequence.states_beside).copied();
                self.fuse(fusion, activations, &states.collect::<Vec<f32>>())?;
            }
            let ends = rows.iter().scan(0, |end, rows| {
                *end += rows;
                Some(*end)
            });
            finite::check_activations(layer, activations, self.plan.hidden, ends)?;
        }
        Ok(())
    }

    /// Leaves only those tokens in the workspace whose logits are wanted.
    fn keep_wanted(&self, workspace: &mut Workspace, wanted: &WantedLogits<'_>) {
        let Workspace { rows, tokens, positions, activations, branch_input, .. } = workspace;
        if branch_input.len() == activations.len() {
            keep_last(branch_input, self.plan.hidden, rows, wanted);
        }
        keep_last(activations, self.plan.hidden, rows, wanted);
        keep_last(tokens, 1, rows, wanted);
        keep_last(positions, 1, rows, wanted);
        rows.iter_mut().enumerate().for_each(|(index, rows)| *rows = wanted.of(index, *rows));
    }

    /// Makes the tokens that were run part of their sequences.
    fn commit(&self, entries: &mut [Entry<'_, '_>]) -> Result<()> {
        for (sequence, ids) in entries {
            let past = sequence.tokens.len();
            let limits = self.memory.limits();
            let committed = sequence.memory.commit(past, past + ids.len(), limits, &self.layers, &self.pool);
            committed.map_err(|source| failed("the memory of a sequence", source))?;
            sequence.tokens.extend_from_slice(ids);
        }
        Ok(())
    }

    /// Gives what is wanted of the tokens that were run to `each`.
    fn logits_of(
        &self,
        workspace: &mut Workspace,
        entries: &[Entry<'_, '_>],
        wanted: WantedLogits<'_>,
        leave: Leave,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        match wanted {
            WantedLogits::None => Ok(()),
            WantedLogits::Hidden(_) => {
                each(&workspace.activations);
                Ok(())
            }
            WantedLogits::All => self.head(workspace, &|| leave.check(entries), each),
            WantedLogits::Last | WantedLogits::LastOf(_) => {
                self.keep_wanted(workspace, &wanted);
                self.head(workspace, &|| Ok(()), each)
            }
        }
    }

    /// The logits of the workspace's tokens, given to `each` some rows at a time, while `go_on` allows it.
    fn head(
        &self,
        workspace: &mut Workspace,
        go_on: &dyn Fn() -> Result<()>,
        each: &mut dyn FnMut(&[f32]),
    ) -> Result<()> {
        let Some(head) = self.layers.last().filter(|layer| layer.desc().kind() == LayerKind::Head) else {
            return Err(Error::Invalid("the model has no output head".to_owned()));
        };
        let Workspace { activations, logits, scratch, .. } = workspace;
        let (hidden, vocabulary) = (self.plan.hidden, self.plan.vocabulary);
        let max_rows = HEAD_TOKENS.min(self.max_batch);
        let wanted = max_rows.min(activations.len() / hidden) * vocabulary;
        if logits.len() < wanted {
            resize(logits, wanted, "logits")?;
        }
        let threads = Lent::new(&*self.pool);
        for rows in activations.chunks(max_rows * hidden) {
            go_on()?;
            let n_tokens = rows.len() / hidden;
            finite::mark_logits(&mut logits[..n_tokens * vocabulary], vocabulary);
            let forward = Forward {
                n_tokens,
                tokens: &[],
                positions: &[],
                input: Some(rows),
                output: &mut logits[..n_tokens * vocabulary],
                parallel: threads.parallel(),
            };
            head.forward(forward, None, scratch).map_err(|source| failed(&name_of(head), source))?;
            finite::check_logits(head, &logits[..n_tokens * vocabulary])?;
            each(&logits[..n_tokens * vocabulary]);
        }
        Ok(())
    }
}

pub(super) fn name_of(layer: &LayerHandle) -> String {
    format!("{}, {} layer of block {}", layer.plugin(), layer.desc().kind().name(), layer.desc().block)
}

/// Leaves the last elements of each sequence that are wanted, `width` a token, where it has as many tokens as `rows` says.
fn keep_last<T: Copy>(values: &mut Vec<T>, width: usize, rows: &[usize], wanted: &WantedLogits<'_>) {
    let (mut end, mut kept) = (0, 0);
    for (index, rows) in rows.iter().enumerate() {
        end += rows * width;
        let len = wanted.of(index, *rows) * width;
        values.copy_within(end - len..end, kept);
        kept += len;
    }
    values.truncate(kept);
}

/// Gives a vector another length, where there is memory for it.
fn resize(values: &mut Vec<f32>, len: usize, what: &str) -> Result<()> {
    reserve(values, len.saturating_sub(values.len()), what)?;
    values.resize(len, 0.0);
    Ok(())
}

/// Makes room in a vector for as many more values as a model or a caller asks for.
pub(super) fn reserve(values: &mut Vec<f32>, more: usize, what: &str) -> Result<()> {
    values.try_reserve(more).map_err(|_| {
        let message = format!("there is no memory for {more} numbers");
        failed(what, herald_api::Error::new(Status::OutOfMemory, message))
    })
}

pub(super) fn failed(what: &str, source: herald_api::Error) -> Error {
    Error::Plugin { what: what.to_owned(), source }
}
