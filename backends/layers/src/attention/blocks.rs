//! What a batch is to attention: blocks of a sequence's tokens, KV heads, and the pages that tokens see and write.

use std::ops::Range;

use herald_api::{Page, Sequence, Sequences};

/// Tokens of a sequence whose queries go over a page together.
pub(super) const TOKEN_BLOCK: usize = 32;

/// The first page that begins at `place` or later.
pub(super) fn first_page(sequence: &Sequence<'_>, place: usize) -> usize {
    let (mut low, mut high) = (0, sequence.n_pages());
    while low < high {
        let middle = low.midpoint(high);
        if sequence.page_start(middle) < place { low = middle + 1 } else { high = middle }
    }
    low
}

/// Some tokens of one sequence, one after another, whose queries go over a page together.
pub(super) struct Block<'a> {
    pub(super) sequence: Sequence<'a>,
    /// Places in the batch.
    pub(super) tokens: Range<usize>,
}

/// What attention over a batch is made of: each block of tokens with each KV head.
pub(super) struct Items {
    n_kv_heads: usize,
    /// How many.
    pub(super) len: usize,
}

impl Items {
    pub(super) fn new(sequences: &Sequences<'_>, n_kv_heads: usize) -> Self {
        let len = sequences.iter().map(|sequence| Self::n_blocks(&sequence) * n_kv_heads).sum();
        Self { n_kv_heads, len }
    }

    fn n_blocks(sequence: &Sequence<'_>) -> usize {
        sequence.batch().len().div_ceil(TOKEN_BLOCK)
    }

    fn block<'a>(sequence: Sequence<'a>, index: usize) -> Block<'a> {
        let start = sequence.batch().start + index * TOKEN_BLOCK;
        let tokens = start..sequence.batch().end.min(start + TOKEN_BLOCK);
        Block { sequence, tokens }
    }

    /// All blocks, in order.
    pub(super) fn blocks<'a>(&self, sequences: &Sequences<'a>) -> impl Iterator<Item = Block<'a>> + use<'a> {
        let sequences = *sequences;
        sequences.iter().flat_map(|sequence| {
            (0..Self::n_blocks(&sequence)).map(move |index| Self::block(sequence, index))
        })
    }

    /// One item: a block and a KV head.
    pub(super) fn item<'a>(&self, sequences: &Sequences<'a>, item: usize) -> Option<(Block<'a>, usize)> {
        let (mut block, kv_head) = (item / self.n_kv_heads, item % self.n_kv_heads);
        for sequence in sequences.iter() {
            let n_blocks = Self::n_blocks(&sequence);
            if block < n_blocks {
                return Some((Self::block(sequence, block), kv_head));
            }
            block -= n_blocks;
        }
        None
    }
}

/// Where a token's keys and values go.
pub(super) struct Slot<'a> {
    pub(super) page: Page<'a>,
    pub(super) index: usize,
}

impl<'a> Slot<'a> {
    pub(super) fn of(sequences: &Sequences<'a>, token: usize) -> Option<Self> {
        let sequence = sequences.iter().find(|sequence| sequence.batch().contains(&token))?;
        let place = sequence.past() + token - sequence.batch().start;
        // Pages rise, so the token's is the last one that begins no later.
        let page = sequence.page(first_page(&sequence, place + 1).checked_sub(1)?);
        Some(Self { page, index: place - page.start() })
    }
}
