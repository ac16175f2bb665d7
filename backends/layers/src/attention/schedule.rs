//! Schedule: which worker attends from which queries to which pages.
//!
//! A work item is a block of a sequence's tokens with one KV head. Many items are shared out whole. Where there are few (a
//! decode step of one sequence over few KV heads), their pages are shared out too: split-K attention, Flash-Decoding. Each
//! run of pages, a split, has its own softmax, and the softmaxes are merged in order.
//!
//! Items that are not shared out by splits are computed split by split all the same. So a token's result is the same to the
//! bit, however its batch was cut and however many workers there were.

use std::ops::Range;

use herald_api::{Attention as Params, Mask, Parallel, Sequence, Sequences, abi};

use super::tile::{PageBuffers, Queries, QueryBuffers};
use super::{Attention, Buffers, first_page};
use crate::disjoint_slice::DisjointSlice;
use crate::kernels::{OnlineSoftmax, Upcoming};
use crate::parallel::ParallelExt;
use crate::scratch::{PerWorker, Scratch, padded_len};

/// Tokens of a query block.
const BLOCK_TOKENS: usize = 32;

/// At this many work items per worker there is enough parallelism; with fewer, attention is also split along the sequence
/// (Flash-Decoding).
const ENOUGH_ITEMS_PER_WORKER: usize = 4;

/// Tokens of a split: its pages begin within the same 256. Few enough that one token's attention over few KV heads divides
/// into even shares, many enough that merging costs next to nothing.
const SPLIT_TOKENS: usize = 256;

/// Pages of a split of 4-bit codes: always full, but after page selection mostly far apart.
const SPLIT_Q4_PAGES: usize = 4;

/// Room for the softmaxes of splits that are shared out: for this many tokens of each KV head, all splits together.
const MAX_SPLIT_TOKENS: usize = 512;

/// Up to this many elements of splits' softmaxes, merging them takes less time than waking the workers.
const MERGE_ALONE_ELEMENTS: usize = 1 << 13;

/// Bytes of one layer's keys and values up to which the last-level cache may still have them when the next token needs them.
const CACHED_KV_BYTES: usize = 2 << 20;

/// Consecutive tokens of one sequence, whose queries attend to a page in one kernel call.
#[derive(Clone)]
pub(super) struct QueryBlock<'a> {
    pub(super) sequence: Sequence<'a>,
    /// Indices in the batch.
    pub(super) tokens: Range<usize>,
}

/// A query block with one KV head.
pub(super) struct WorkItem<'a> {
    pub(super) block: QueryBlock<'a>,
    pub(super) kv_head: usize,
}

/// The work items of a batch: each query block with each KV head.
struct WorkItems<'b> {
    sequences: &'b Sequences<'b>,
    n_kv_heads: usize,
    /// How many items.
    len: usize,
}

/// A run of a sequence's pages, of which some token of a query block sees something.
#[derive(Clone, Copy, Default)]
struct KvSplit {
    /// The block's index.
    block: usize,
    /// The first page.
    first: usize,
    /// The first page after the split.
    end: usize,
}

/// A work item with its splits.
struct SplitItem<'a> {
    item: WorkItem<'a>,
    splits: &'a [KvSplit],
    /// Pages of the splits of all items before.
    pages_before: usize,
    /// Where the softmax of its first split begins in memory.
    offset: usize,
    /// Elements from one split's softmax to the next.
    stride: usize,
}

/// A worker's buffers for a work item.
struct ItemBuffers<'s> {
    queries: QueryBuffers<'s>,
    /// The softmax of all splits so far.
    total: &'s mut [f32],
    /// The softmax of one split.
    split: &'s mut [f32],
    page: PageBuffers<'s>,
}

fn n_blocks(sequence: &Sequence<'_>) -> usize {
    sequence.batch().len().div_ceil(BLOCK_TOKENS)
}

impl<'a> QueryBlock<'a> {
    fn of(sequence: Sequence<'a>, index: usize) -> Self {
        let start = sequence.batch().start + index * BLOCK_TOKENS;
        Self { sequence, tokens: start..sequence.batch().end.min(start + BLOCK_TOKENS) }
    }
}

impl<'b> WorkItems<'b> {
    fn new(sequences: &'b Sequences<'b>, n_kv_heads: usize) -> Self {
        let len = sequences.iter().map(|sequence| n_blocks(&sequence) * n_kv_heads).sum();
        Self { sequences, n_kv_heads, len }
    }

    /// All query blocks, in order.
    fn blocks(&self) -> impl Iterator<Item = QueryBlock<'b>> + use<'b> {
        self.sequences
            .iter()
            .flat_map(|sequence| (0..n_blocks(&sequence)).map(move |index| QueryBlock::of(sequence, index)))
    }

    fn get(&self, index: usize) -> Option<WorkItem<'b>> {
        let (mut block, kv_head) = (index / self.n_kv_heads, index % self.n_kv_heads);
        for sequence in self.sequences.iter() {
            let n_blocks = n_blocks(&sequence);
            if block < n_blocks {
                return Some(WorkItem { block: QueryBlock::of(sequence, block), kv_head });
            }
            block -= n_blocks;
        }
        None
    }
}

impl KvSplit {
    fn pages(self) -> Range<usize> {
        self.first..self.end
    }
}

impl SplitItem<'_> {
    /// The first page after the item's, counted over all items.
    fn pages_end(&self) -> usize {
        self.pages_before + n_pages(self.splits)
    }

    /// The elements of the softmax of a split with `len` elements.
    fn softmax(&self, split: usize, len: usize) -> Range<usize> {
        let start = self.offset + split * self.stride;
        start..start + len
    }

    /// The splits whose first pages, counted over all items, are these.
    fn splits_of(&self, pages: &Range<usize>) -> Range<usize> {
        let first = self.splits.first().map_or(0, |split| split.first);
        let before =
            |end: usize| self.splits.partition_point(|split| self.pages_before + split.first - first < end);
        before(pages.start)..before(pages.end)
    }
}

fn n_pages(splits: &[KvSplit]) -> usize {
    splits.iter().map(|split| split.pages().len()).sum()
}

/// The splits of pages that hold any of these tokens, rising. Which pages make up a split doesn't depend on the tokens.
fn splits<'s>(sequence: &Sequence<'s>, tokens: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<'s> {
    let sequence = *sequence;
    let split_of = move |page: usize| match sequence.page_format(page) {
        abi::HERALD_PAGE_Q4 => (true, page / SPLIT_Q4_PAGES),
        _ => (false, sequence.page_start(page) / SPLIT_TOKENS),
    };
    // The last page that begins no later than the first token reaches to it.
    let mut next = first_page(&sequence, tokens.start + 1).saturating_sub(1);
    let end = first_page(&sequence, tokens.end);
    std::iter::from_fn(move || {
        let first = next;
        let split = (first < end).then(|| split_of(first))?;
        while next < end && split_of(next) == split {
            next += 1;
        }
        Some(first..next)
    })
}

impl Attention<'_> {
    /// Query rows of a block.
    fn rows(&self, block: &QueryBlock<'_>) -> usize {
        block.tokens.len() * self.group()
    }

    /// Float32 elements of the online softmax of `rows` queries.
    fn softmax_len(&self, rows: usize) -> usize {
        rows * (self.params.value_dim + 2)
    }

    /// Elements that hold the softmaxes of all splits that are shared out.
    pub(super) fn splits_len(&self) -> usize {
        MAX_SPLIT_TOKENS * self.params.n_kv_heads * padded_len(self.softmax_len(self.group()))
    }

    fn item_buffers<'s>(&self, scratch: &mut Scratch<'s>, rows: usize) -> ItemBuffers<'s> {
        ItemBuffers {
            queries: self.query_buffers(scratch, rows),
            total: scratch.take(self.softmax_len(rows)),
            split: scratch.take(self.softmax_len(rows)),
            page: self.page_buffers(scratch, rows),
        }
    }

    /// Each worker's memory for a work item.
    pub(super) fn item_workers<'s>(&self, scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        scratch.per_worker(workers, |scratch| self.item_buffers(scratch, BLOCK_TOKENS * self.group()))
    }

    /// The tokens of a sequence that a token sees.
    pub(super) fn visible_to(&self, block: &QueryBlock<'_>, token: usize) -> Range<usize> {
        let (past, batch) = (block.sequence.past(), block.sequence.batch());
        let own = past + token - batch.start;
        let Params { window, mask, .. } = self.params;
        match (mask, window) {
            (Mask::Bidirectional, None) => 0..past + batch.len(),
            (Mask::Bidirectional, Some(window)) => {
                own.saturating_sub(window / 2)..(past + batch.len()).min(own + window / 2 + 1)
            }
            (Mask::Chunked, Some(chunk)) => own / chunk * chunk..own + 1,
            (_, Some(window)) => (own + 1).saturating_sub(window)..own + 1,
            (_, None) => 0..own + 1,
        }
    }

    /// The tokens that any token of a block sees.
    fn visible(&self, block: &QueryBlock<'_>) -> Range<usize> {
        let [first, last] = [block.tokens.start, block.tokens.end - 1];
        self.visible_to(block, first).start..self.visible_to(block, last).end
    }

    /// Attends from each token of the batch to what it sees: `attended`.
    pub(super) fn attend(
        &self,
        parallel: &Parallel<'_>,
        sequences: &Sequences<'_>,
        buffers: &mut Buffers<'_>,
    ) {
        let items = WorkItems::new(sequences, self.params.n_kv_heads);
        let mut list = [KvSplit::default(); MAX_SPLIT_TOKENS];
        let few = parallel.workers() > 1 && items.len < ENOUGH_ITEMS_PER_WORKER * parallel.workers();
        match few.then(|| self.list_splits(&items, &mut list)).flatten() {
            Some(splits) => self.attend_by_splits(parallel, &items, splits, buffers),
            None => self.attend_by_items(parallel, &items, buffers),
        }
    }

    /// The splits of all query blocks, in order; `None` where there is no room for their softmaxes.
    fn list_splits<'l>(
        &self,
        items: &WorkItems<'_>,
        list: &'l mut [KvSplit; MAX_SPLIT_TOKENS],
    ) -> Option<&'l [KvSplit]> {
        let (mut len, mut tokens) = (0, 0);
        for (index, block) in items.blocks().enumerate() {
            for pages in splits(&block.sequence, self.visible(&block)) {
                tokens += block.tokens.len();
                if tokens > MAX_SPLIT_TOKENS {
                    return None;
                }
                list[len] = KvSplit { block: index, first: pages.start, end: pages.end };
                len += 1;
            }
        }
        Some(&list[..len])
    }

    /// Work items are shared out. Workers begin with an even share each, and later blocks see more; so the order takes items
    /// from both ends in turn, which gives every share about as much to do.
    fn attend_by_items(&self, parallel: &Parallel<'_>, items: &WorkItems<'_>, buffers: &mut Buffers<'_>) {
        let mut workers = self.item_workers(&mut Scratch::new(buffers.work), parallel.workers());
        let attended = DisjointSlice::new(&mut *buffers.attended);
        let q = &*buffers.q;
        parallel.run_with(items.len, &mut workers, |range, mut scratch| {
            for turn in range {
                let index = if turn % 2 == 0 { turn / 2 } else { items.len - 1 - turn / 2 };
                let Some(item) = items.get(index) else { continue };
                let rows = self.rows(&item.block);
                let ItemBuffers { queries, total, split, mut page } =
                    self.item_buffers(&mut scratch.reborrow(), rows);
                let queries = self.queries(&item, q, queries);
                let mut total = OnlineSoftmax::of(total, rows);
                total.begin();
                for pages in splits(&item.block.sequence, self.visible(&item.block)) {
                    let mut softmax = OnlineSoftmax::of(&mut *split, rows);
                    self.attend_split(&item, pages, queries, &mut softmax, &mut page);
                    (self.kernels.merge)(&mut total, &softmax);
                }
                self.finish(&item, total, &attended);
            }
        });
    }

    /// Splits are shared out by their pages, and merged when all are done.
    fn attend_by_splits(
        &self,
        parallel: &Parallel<'_>,
        items: &WorkItems<'_>,
        splits: &[KvSplit],
        buffers: &mut Buffers<'_>,
    ) {
        let mut workers = self.item_workers(&mut Scratch::new(buffers.work), parallel.workers());
        let attended = DisjointSlice::new(&mut *buffers.attended);
        let softmaxes = DisjointSlice::new(&mut *buffers.splits);
        let q = &*buffers.q;
        let last = self.split_items(items, splits).last();
        let (n_pages, n_elements) =
            last.map_or((0, 0), |last| (last.pages_end(), last.softmax(last.splits.len(), 0).end));
        parallel.run_with(n_pages, &mut workers, |range, mut scratch| {
            for split_item in self.split_items(items, splits) {
                let item = &split_item.item;
                let own = split_item.splits_of(&range);
                if own.is_empty() {
                    continue;
                }
                let rows = self.rows(&item.block);
                let ItemBuffers { queries, mut page, .. } = self.item_buffers(&mut scratch.reborrow(), rows);
                let queries = self.queries(item, q, queries);
                for split in own {
                    let memory = split_item.softmax(split, self.softmax_len(rows));
                    // SAFETY: each split of each item is one worker's, and has its own elements.
                    let mut softmax = OnlineSoftmax::of(unsafe { softmaxes.part(memory) }, rows);
                    let pages = split_item.splits[split].pages();
                    self.attend_split(item, pages, queries, &mut softmax, &mut page);
                }
            }
        });
        let pays_off = n_elements > MERGE_ALONE_ELEMENTS;
        parallel.when(pays_off).run_with(items.len, &mut workers, |range, mut scratch| {
            for split_item in self.split_items(items, splits).skip(range.start).take(range.len()) {
                let rows = self.rows(&split_item.item.block);
                let ItemBuffers { total, .. } = self.item_buffers(&mut scratch.reborrow(), rows);
                let mut total = OnlineSoftmax::of(total, rows);
                total.begin();
                for split in 0..split_item.splits.len() {
                    let memory = split_item.softmax(split, self.softmax_len(rows));
                    // SAFETY: all splits are done, and each item is one worker's.
                    let softmax = OnlineSoftmax::of(unsafe { softmaxes.part(memory) }, rows);
                    (self.kernels.merge)(&mut total, &softmax);
                }
                self.finish(&split_item.item, total, &attended);
            }
        });
    }

    /// All work items in order, with their splits out of the list of all.
    fn split_items<'l>(
        &self,
        items: &WorkItems<'l>,
        list: &'l [KvSplit],
    ) -> impl Iterator<Item = SplitItem<'l>> {
        let n_kv_heads = self.params.n_kv_heads;
        let (mut rest, mut pages_before, mut offset) = (list, 0, 0);
        items.blocks().enumerate().flat_map(move |(index, block)| {
            let (splits, after) = rest.split_at(rest.partition_point(|split| split.block <= index));
            rest = after;
            let stride = padded_len(self.softmax_len(self.rows(&block)));
            let (pages, elements) = (n_pages(splits), splits.len() * stride);
            let first = [pages_before, offset];
            pages_before += n_kv_heads * pages;
            offset += n_kv_heads * elements;
            (0..n_kv_heads).map(move |kv_head| SplitItem {
                item: WorkItem { block: block.clone(), kv_head },
                splits,
                pages_before: first[0] + kv_head * pages,
                offset: first[1] + kv_head * elements,
                stride,
            })
        })
    }

    /// Attends from a work item to the pages of one split, with a new softmax.
    fn attend_split(
        &self,
        item: &WorkItem<'_>,
        pages: Range<usize>,
        queries: Queries<'_>,
        softmax: &mut OnlineSoftmax<'_>,
        buffers: &mut PageBuffers<'_>,
    ) {
        let Params { n_kv_heads, key_dim, value_dim, .. } = self.params;
        softmax.begin();
        let visible = self.visible(&item.block);
        let streaming =
            visible.len() * n_kv_heads * (key_dim + value_dim) * size_of::<i16>() > CACHED_KV_BYTES;
        let sequence = &item.block.sequence;
        let mut following = (pages.start..sequence.n_pages()).map(|index| sequence.page(index));
        let mut next = following.next();
        for _ in pages {
            let Some(page) = std::mem::replace(&mut next, following.next()) else { break };
            if page.start() >= visible.end || page.start() + page.n_tokens() <= visible.start {
                continue;
            }
            let upcoming =
                next.as_ref().map_or(Upcoming::default(), |page| self.upcoming(page, item.kv_head));
            let upcoming = Upcoming { streaming, ..upcoming };
            self.attend_page(item, queries, &page, upcoming, softmax, buffers);
        }
    }

    /// Ends the softmax of a work item and puts its rows where they belong.
    fn finish(&self, item: &WorkItem<'_>, mut softmax: OnlineSoftmax<'_>, attended: &DisjointSlice<'_, f32>) {
        if let Some(sinks) = &self.sinks {
            let heads = sinks.iter().skip(item.kv_head * self.group()).take(self.group());
            softmax.sink(heads.cycle());
        }
        softmax.finish();
        let width = self.group() * self.params.value_dim;
        for (row, token) in softmax.out.chunks_exact(width).zip(item.block.tokens.clone()) {
            let first = token * self.attended_width() + item.kv_head * width;
            // SAFETY: each token and KV head is one worker's.
            unsafe { attended.part(first..first + width) }.copy_from_slice(row);
        }
    }
}
