//! A forward call as a backend sees it.

use crate::fetch::Fetch;
use crate::parallel::Parallel;
use crate::sequence::Sequences;

/// A forward call: a flat batch of tokens from any number of sequences.
#[derive(Debug)]
pub struct Call<'a> {
    /// Tokens of the batch: 1 to `max_tokens`.
    pub n_tokens: usize,
    /// Token ids `[n_tokens]`; empty for layers other than the embedding, where the host left them out.
    pub tokens: &'a [u32],
    /// Positions for RoPE `[n_tokens]`; empty where the host left them out.
    pub positions: &'a [u32],
    /// Activations `[n_tokens, hidden]`; `None`: the output holds them too.
    pub input: Option<&'a [f32]>,
    /// Activations `[n_tokens, hidden]` that a residual branch adds to and the embedding fills, or the head's logits
    /// `[n_tokens, vocabulary]`.
    pub output: &'a mut [f32],
    /// The sequences, covering the batch's tokens in order.
    pub sequences: Sequences<'a>,
    /// Memory to work in, aligned to 64 bytes, at least what the layer asked for; holds anything at first.
    pub scratch: &'a mut [u8],
    /// Threads to work with.
    pub parallel: Parallel<'a>,
    /// Page selection; `None` where no sequence has selectable pages.
    pub fetch: Option<Fetch<'a>>,
}
