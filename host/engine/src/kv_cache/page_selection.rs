//! Opening the selectable pages that a layer's queries would attend to most.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use herald_api::import::{Batch, Fetcher, PageHandle};
use herald_api::{Error, Result, Status, TierKind};

use super::selectable::{OpenPages, SelectablePage};
use super::traffic::TierTraffic;
use crate::threads::ThreadPool;

/// One sequence's pages that a layer selects from in a pass.
pub(crate) struct Candidates<'b> {
    pub(crate) pages: &'b [SelectablePage],
    /// The index of the first among all pages of the sequence.
    pub(crate) first_page: usize,
    /// Tokens of a page.
    pub(crate) page_tokens: usize,
    /// The most pages that are selected.
    pub(crate) max_selected: usize,
    pub(crate) open: &'b mut OpenPages,
    pub(crate) traffic: &'b TierTraffic,
}

/// Which pages a layer selected for a pass.
#[derive(Clone, Copy, Debug)]
pub struct PageSelection<'c> {
    /// The layer's index among all.
    pub layer: usize,
    /// The sequence's index in the batch.
    pub sequence: usize,
    /// The index of the first selectable page among all pages of the sequence.
    pub first: usize,
    /// Each selectable page's score.
    pub scores: &'c [f32],
    /// The indices of the selected ones among these, in no order.
    pub selected: &'c [usize],
}

/// Pages in a file that one thread opens in the time that it takes to wake the others.
const FEW: usize = 4;

/// Is told of every selection.
pub type SelectionWatcher = Arc<dyn Fn(&PageSelection<'_>) + Send + Sync>;

/// Opens the pages with the best scores for one layer.
pub(crate) struct PageSelector<'b> {
    layer: usize,
    /// Of each sequence of the batch; `None` where there is nothing to select from.
    candidates: Vec<Option<Candidates<'b>>>,
    watcher: Option<SelectionWatcher>,
    /// Opens pages: those in a file are read and checked then.
    pool: &'b ThreadPool,
}

impl<'b> PageSelector<'b> {
    pub(crate) fn new(layer: usize, watcher: Option<SelectionWatcher>, pool: &'b ThreadPool) -> Self {
        Self { layer, candidates: Vec::new(), watcher, pool }
    }

    /// Adds the next sequence of the batch.
    pub(crate) fn push(&mut self, candidates: Option<Candidates<'b>>) {
        self.candidates.push(candidates);
    }
}

impl Fetcher for PageSelector<'_> {
    fn fetch(&mut self, scores: &[f32], batch: &mut Batch<'_>) -> Result<()> {
        let mut first = 0;
        for (sequence, n_selectable) in batch.n_selectable().into_iter().enumerate() {
            let scores = &scores[first..first + n_selectable];
            first += n_selectable;
            let candidates = self.candidates.get_mut(sequence).filter(|_| n_selectable > 0);
            let Some(Some(candidates)) = candidates else { continue };
            let selected = best(scores, n_selectable.min(candidates.pages.len()), candidates.max_selected);
            if let Some(watcher) = &self.watcher {
                let (layer, first) = (self.layer, candidates.first_page);
                watcher(&PageSelection { layer, sequence, first, scores, selected: &selected });
            }
            candidates.fetch(&selected, sequence, batch, self.pool)?;
        }
        Ok(())
    }
}

/// The indices of the `max_selected` pages with the greatest scores; of equal ones, the latest.
fn best(scores: &[f32], n_pages: usize, max_selected: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n_pages).collect();
    if order.len() > max_selected {
        order.select_nth_unstable_by(max_selected, |a, b| scores[*b].total_cmp(&scores[*a]).then(b.cmp(a)));
        order.truncate(max_selected);
    }
    order
}

impl Candidates<'_> {
    /// Adds the selected pages to a batch.
    fn fetch(
        &mut self,
        selected: &[usize],
        sequence: usize,
        batch: &mut Batch<'_>,
        pool: &ThreadPool,
    ) -> Result<()> {
        let before = std::mem::take(self.open);
        let opened = open_all(pool, self.pages, selected, &before);
        let (mut compressed, mut archived) = (0, 0);
        for (index, page) in selected.iter().zip(opened) {
            let page = page?;
            if self.pages[*index].tier() == TierKind::Archived {
                archived += 1;
                self.open.push((*index, Arc::clone(&page)));
            } else {
                compressed += 1;
            }
            batch.add_fetched(sequence, (self.first_page + index) * self.page_tokens, page)?;
        }
        self.open.sort_unstable_by_key(|(index, _)| *index);
        self.traffic.record_fetch(TierKind::Compressed, compressed);
        self.traffic.record_fetch(TierKind::Archived, archived);
        Ok(())
    }
}

/// Opens the selected pages, except for those that are open. Pages in a file are read and checked, so all threads share that
/// where there are more than a few.
fn open_all(
    pool: &ThreadPool,
    pages: &[SelectablePage],
    selected: &[usize],
    before: &OpenPages,
) -> Vec<Result<Arc<PageHandle>>> {
    let open_already = |index: usize| {
        let SelectablePage::Archived(stored) = &pages[index] else { return None };
        let found = before.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        Some(&before[found].1).filter(|page| page.is_opened_of(stored)).map(Arc::clone)
    };
    let open = |index: usize| open_already(index).map_or_else(|| pages[index].open(), Ok);
    let new = selected
        .iter()
        .filter(|index| pages[**index].tier() == TierKind::Archived && open_already(**index).is_none());
    if new.count() < FEW {
        return selected.iter().map(|index| open(*index)).collect();
    }
    let opened: Vec<OnceLock<Result<Arc<PageHandle>>>> = selected.iter().map(|_| OnceLock::new()).collect();
    pool.run(selected.len(), &|share: Range<usize>, _| {
        for (index, opened) in selected[share.clone()].iter().zip(&opened[share]) {
            opened.get_or_init(|| open(*index));
        }
    });
    let left_out = || Err(Error::new(Status::Internal, "a selected page was not opened"));
    opened.into_iter().map(|page| page.into_inner().unwrap_or_else(left_out)).collect()
}
