//! Sequences run through an attention layer in every way that a host may cut them: all at once, one token at a time,
//! in pieces, together with others that are further on, over shared pages, and without pages that a window has left.

use herald_api::import::{
    BatchBuffers, Forward, Lent, PageHandle, PageUse, Plugin, SharedWeight, TierHandle,
};
use herald_api::{Attention, LayerDesc, Result, TierConfig, TierKind};

use super::super::executor::Scoped;
use super::order::{Limits, create, order, scratch};

/// A sequence's tokens.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    /// `[n_tokens, hidden]`.
    pub(super) x: Vec<f32>,
    /// What the branch is added to where that isn't `x` itself, `[n_tokens, hidden]`.
    pub(super) residual: Vec<f32>,
    /// Positions for RoPE.
    pub(super) positions: Vec<u32>,
    /// So many of its first tokens are those of the first sequence, whose pages it reads: whole pages.
    pub(super) shared: usize,
}

/// How sequences are cut into batches, and what a batch brings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The most tokens of a sequence in a batch.
    pub(super) piece: usize,
    /// Batches by which each sequence begins after the one before it.
    pub(super) stagger: usize,
    pub(super) page_tokens: usize,
    pub(super) workers: usize,
    /// The output holds the activations; otherwise they are in another buffer.
    pub(super) in_place: bool,
    /// Leaves out the pages that no token's window reaches any more.
    pub(super) evict: bool,
}

impl Cut {
    /// For each batch, its sequences with their numbers of tokens.
    fn batches(&self, sequences: &[Sequence]) -> Vec<Vec<(usize, usize)>> {
        let len = |sequence: &Sequence| sequence.positions.len();
        let mut done: Vec<usize> = sequences.iter().map(|sequence| sequence.shared).collect();
        let mut batches = Vec::new();
        while sequences.iter().zip(&done).any(|(sequence, done)| *done < len(sequence)) {
            let mut batch = Vec::new();
            let first_is_done = done[0] == len(&sequences[0]);
            for (index, sequence) in sequences.iter().enumerate() {
                let begins = batches.len() >= index * self.stagger && (sequence.shared == 0 || first_is_done);
                let n_tokens = self.piece.min(len(sequence) - done[index]);
                if begins && n_tokens > 0 {
                    batch.push((index, n_tokens));
                    done[index] += n_tokens;
                }
            }
            batches.push(batch);
        }
        batches.retain(|batch| !batch.is_empty());
        batches
    }
}

/// A tier for the pages of an attention layer.
pub(super) fn tier(plugin: &Plugin, params: &Attention, page_tokens: usize) -> Result<TierHandle> {
    plugin.create_tier(&TierConfig {
        kind: TierKind::Active,
        n_kv_heads: params.n_kv_heads,
        key_dim: params.key_dim,
        value_dim: params.value_dim,
        page_tokens,
        state_bytes: 0,
        capacity_bytes: None,
        path: None,
        lz4: false,
    })
}

/// Runs the sequences; returns each one's results `[n_tokens, hidden]`, without those of shared tokens.
///
/// # Errors
/// As the plugin's.
pub(super) fn run(
    plugin: &Plugin,
    desc: &LayerDesc,
    params: &Attention,
    weights: &[SharedWeight],
    sequences: &[Sequence],
    cut: Cut,
) -> Result<Vec<Vec<f32>>> {
    let hidden = desc.hidden;
    let batches = cut.batches(sequences);
    let tokens = |batch: &[(usize, usize)]| batch.iter().map(|(_, n_tokens)| n_tokens).sum();
    let limits = Limits {
        max_tokens: batches.iter().map(|batch| tokens(batch)).max().unwrap_or(1),
        max_workers: cut.workers,
        page_tokens: cut.page_tokens,
    };
    let layer = create(plugin, order(desc, weights, limits))?;
    let mut scratch = scratch(&layer)?;
    let tier = tier(plugin, params, cut.page_tokens)?;
    let threads = Scoped(cut.workers);
    let lent = Lent::new(&threads);
    let mut buffers = BatchBuffers::default();
    let mut pages: Vec<Vec<PageHandle>> = sequences.iter().map(|_| Vec::new()).collect();
    let mut done: Vec<usize> = sequences.iter().map(|sequence| sequence.shared).collect();
    let mut results = vec![Vec::new(); sequences.len()];
    for parts in &batches {
        let (mut x, mut output, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for &(index, n_tokens) in parts {
            let sequence = &sequences[index];
            let new = done[index]..done[index] + n_tokens;
            x.extend(&sequence.x[new.start * hidden..new.end * hidden]);
            let before = if cut.in_place { &sequence.x } else { &sequence.residual };
            output.extend(&before[new.start * hidden..new.end * hidden]);
            positions.extend(&sequence.positions[new.clone()]);
            while sequence.shared + pages[index].len() * cut.page_tokens < new.end {
                pages[index].push(tier.reserve()?);
            }
        }
        let mut batch = buffers.begin();
        let first_is_here = parts.iter().any(|(index, _)| *index == 0);
        let mut own = pages.iter_mut();
        let mut first = own.next().map(|pages| pages.as_mut_slice());
        let read: &[PageHandle] = if first_is_here { &[] } else { first.take().map_or(&[], |pages| &*pages) };
        let mut own: Vec<_> =
            std::iter::once(first).chain(own.map(|pages| Some(pages.as_mut_slice()))).collect();
        for &(index, n_tokens) in parts {
            let (past, shared) = (done[index], sequences[index].shared);
            let own = own[index].take().unwrap_or_default().iter_mut().enumerate().map(|(page, handle)| {
                let start = shared + page * cut.page_tokens;
                let full = start + cut.page_tokens <= past;
                (start, if full { PageUse::Shared(handle) } else { PageUse::Own(handle) })
            });
            let read = read.iter().take(shared / cut.page_tokens).enumerate();
            let read = read.map(|(page, handle)| (page * cut.page_tokens, PageUse::Shared(handle)));
            let left = |start: usize| {
                cut.evict && params.window.is_some_and(|window| start + cut.page_tokens + window <= past + 1)
            };
            batch.push(n_tokens, past, None, read.chain(own).filter(|(start, _)| !left(*start)))?;
        }
        let request = Forward {
            n_tokens: positions.len(),
            tokens: &[],
            positions: &positions,
            input: (!cut.in_place).then_some(&x[..]),
            output: &mut output,
            parallel: lent.parallel(),
        };
        layer.forward(request, Some(&mut batch), &mut scratch)?;
        let mut output = output.as_slice();
        for &(index, n_tokens) in parts {
            let (these, rest) = output.split_at(n_tokens * hidden);
            results[index].extend_from_slice(these);
            output = rest;
            done[index] += n_tokens;
        }
    }
    Ok(results)
}
