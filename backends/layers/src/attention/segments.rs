//! Runs of a sequence's pages with a softmax of their own, so that what one token sees can be shared out over the workers.

use std::ops::Range;

use herald_api::{Sequence, abi};

use super::blocks::first_page;

/// Slots of a segment: pages that begin within the same so many places. Few, so that a token's attention over few KV heads
/// comes in shares of about the same size.
const SEGMENT: usize = 256;

/// Pages of a segment of 4-bit codes. They come whole and before the batch, but mostly far apart.
const Q4_SEGMENT: usize = 4;

/// A segment that some token of a block sees something of.
#[derive(Clone, Copy, Default)]
pub(super) struct Segment {
    /// The number of the block.
    pub(super) block: usize,
    /// Its first page.
    pub(super) first: usize,
    /// The first page after it.
    pub(super) end: usize,
}

impl Segment {
    pub(super) fn pages(self) -> Range<usize> {
        self.first..self.end
    }
}

/// The segments of pages that hold any of these places, rising. Which pages are one segment does not depend on the places.
pub(super) fn segments<'s>(
    sequence: &Sequence<'s>,
    places: Range<usize>,
) -> impl Iterator<Item = Range<usize>> + use<'s> {
    let sequence = *sequence;
    let segment_of = move |index: usize| match sequence.page_format(index) {
        abi::HERALD_PAGE_Q4 => (true, index / Q4_SEGMENT),
        _ => (false, sequence.page_start(index) / SEGMENT),
    };
    // The last page that begins no later than what is seen reaches into it.
    let mut next = first_page(&sequence, places.start + 1).saturating_sub(1);
    let end = first_page(&sequence, places.end);
    std::iter::from_fn(move || {
        let first = next;
        let segment = (first < end).then(|| segment_of(first))?;
        while next < end && segment_of(next) == segment {
            next += 1;
        }
        Some(first..next)
    })
}
