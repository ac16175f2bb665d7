//! One layer's pages of one sequence that are no longer active, and what the layer selects among them by.

use std::sync::Arc;

use herald_api::import::{PageHandle, StoredPage};
use herald_api::{Result, TierKind};

use super::ledger::{Ledger, SummaryCharge};
use super::pages::SINKS;

/// Bytes that a selectable page takes in the host, beside its summary: its handle, and where it begins.
const PAGE_BYTES: usize = size_of::<SelectablePage>() + size_of::<StoredPage>() + 3 * size_of::<u64>();

/// A page that is no longer active.
#[derive(Clone)]
pub(crate) enum SelectablePage {
    /// In RAM.
    Compressed(Arc<PageHandle>),
    /// In a file.
    Archived(Arc<StoredPage>),
}

impl SelectablePage {
    /// The page's keys and values, for as long as the result lives.
    pub(crate) fn open(&self) -> Result<Arc<PageHandle>> {
        match self {
            Self::Compressed(page) => Ok(Arc::clone(page)),
            Self::Archived(page) => page.open().map(Arc::new),
        }
    }

    pub(crate) fn tier(&self) -> TierKind {
        match self {
            Self::Compressed(_) => TierKind::Compressed,
            Self::Archived(_) => TierKind::Archived,
        }
    }

    fn is_archived(&self) -> bool {
        matches!(self, Self::Archived(_))
    }
}

/// Archived pages that the latest pass attended to, by their index among the selectable ones, rising. They stay open, since
/// the next token mostly selects them again, and opening one reads all of it.
pub(crate) type OpenPages = Vec<(usize, Arc<PageHandle>)>;

/// The selectable pages of a layer, oldest first: the archived ones, then the compressed ones. They follow the sinks.
///
/// Starts and summaries lie in lists of their own, because that is how a layer is handed them in each pass. All lists change
/// together, here alone.
pub(crate) struct SelectablePages {
    page_tokens: usize,
    /// Elements of a summary.
    summary_words: usize,
    pages: Vec<SelectablePage>,
    /// The position of each page's first token.
    starts: Vec<u64>,
    /// The summaries, one after another.
    summaries: Vec<u64>,
    open: OpenPages,
    charge: SummaryCharge,
}

/// The lists of a [`SelectablePages`], borrowed side by side.
pub(crate) struct SelectableParts<'b> {
    pub(crate) pages: &'b [SelectablePage],
    pub(crate) starts: &'b [u64],
    pub(crate) summaries: &'b [u8],
    pub(crate) open: &'b mut OpenPages,
}

impl SelectablePages {
    /// None yet. Pages have `page_tokens` tokens and summaries of `summary_bytes`, a multiple of 8.
    pub(crate) fn new(page_tokens: usize, summary_bytes: usize, ledger: &Arc<Ledger>) -> Self {
        Self {
            page_tokens,
            summary_words: summary_bytes / size_of::<u64>(),
            pages: Vec::new(),
            starts: Vec::new(),
            summaries: Vec::new(),
            open: OpenPages::new(),
            charge: SummaryCharge::new(ledger),
        }
    }

    /// A copy, whose archived pages are not open.
    pub(crate) fn fork(&self) -> Self {
        let mut copy = Self {
            page_tokens: self.page_tokens,
            summary_words: self.summary_words,
            pages: self.pages.clone(),
            starts: self.starts.clone(),
            summaries: self.summaries.clone(),
            open: OpenPages::new(),
            charge: SummaryCharge::new(self.charge.ledger()),
        };
        copy.recharge();
        copy
    }

    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(crate) fn n_archived(&self) -> usize {
        self.pages.partition_point(SelectablePage::is_archived)
    }

    pub(crate) fn n_compressed(&self) -> usize {
        self.len() - self.n_archived()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&SelectablePage> {
        self.pages.get(index)
    }

    pub(crate) fn last(&self) -> Option<&SelectablePage> {
        self.pages.last()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SelectablePage> {
        self.pages.iter()
    }

    /// Each page in turn, `None` for those in a file. What is put in place of a page must equal it.
    pub(crate) fn compressed_mut(&mut self) -> impl Iterator<Item = Option<&mut Arc<PageHandle>>> {
        self.pages.iter_mut().map(|page| match page {
            SelectablePage::Compressed(page) => Some(page),
            SelectablePage::Archived(_) => None,
        })
    }

    /// The position of the first token of the page `index`.
    pub(crate) fn start(&self, index: usize) -> usize {
        (SINKS + index) * self.page_tokens
    }

    /// All summaries, one after another.
    pub(crate) fn summaries(&self) -> &[u8] {
        bytemuck::cast_slice(&self.summaries)
    }

    /// The summary of the page `index`.
    pub(crate) fn summary(&self, index: usize) -> &[u64] {
        &self.summaries[index * self.summary_words..(index + 1) * self.summary_words]
    }

    pub(crate) fn parts(&mut self) -> SelectableParts<'_> {
        SelectableParts {
            pages: &self.pages,
            starts: &self.starts,
            summaries: bytemuck::cast_slice(&self.summaries),
            open: &mut self.open,
        }
    }

    /// Bytes of RAM that this takes beside the tiers.
    pub(crate) fn bytes(&self) -> usize {
        self.len() * (self.summary_words * size_of::<u64>() + PAGE_BYTES)
    }

    /// A summary to be filled in, all zeros.
    pub(crate) fn new_summary(&self) -> Vec<u64> {
        vec![0; self.summary_words]
    }

    /// Adds a page after the others, with a summary of [`SelectablePages::new_summary`]'s length.
    pub(crate) fn push(&mut self, page: SelectablePage, summary: &[u64]) {
        assert_eq!(summary.len(), self.summary_words, "a summary of another layer");
        self.starts.push(self.start(self.len()) as u64);
        self.pages.push(page);
        self.summaries.extend_from_slice(summary);
        self.recharge();
    }

    /// Puts a page, with its summary, into another tier.
    pub(crate) fn replace(&mut self, index: usize, page: SelectablePage) {
        self.pages[index] = page;
    }

    /// Forgets the pages after the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.pages.truncate(len);
        self.starts.truncate(len);
        self.summaries.truncate(len * self.summary_words);
        self.open.clear();
        self.recharge();
    }

    /// Inserts copies of pages before the compressed ones, each with the index of the page whose summary it shares.
    pub(crate) fn insert_copies(&mut self, copies: Vec<(SelectablePage, usize)>) {
        let words = self.summary_words;
        let at = self.n_archived();
        let summaries: Vec<u64> = copies
            .iter()
            .flat_map(|(_, from)| &self.summaries[from * words..(from + 1) * words])
            .copied()
            .collect();
        self.summaries.splice(at * words..at * words, summaries);
        self.pages.splice(at..at, copies.into_iter().map(|(page, _)| page));
        self.starts = (0..self.len()).map(|index| self.start(index) as u64).collect();
        self.open.clear();
        self.recharge();
    }

    /// Closes archived pages that a pass left open.
    pub(crate) fn close_archived(&mut self) {
        self.open.clear();
    }

    fn recharge(&mut self) {
        self.charge.set(self.bytes());
    }
}
