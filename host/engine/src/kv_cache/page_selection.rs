//! Pages beyond the active ones, and bringing those that a layer's queries would attend to most.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use herald_api::import::{Batch, Fetcher, PageHandle, StoredPage};
use herald_api::{Error, Result, Status, TierKind};

use crate::metrics::TierTraffic;
use crate::threads::ThreadPool;

/// A page beyond the active ones.
#[derive(Clone)]
pub(crate) enum SelectablePage {
    /// In RAM.
    Compressed(Arc<PageHandle>),
    /// In a file.
    Archived(Arc<StoredPage>),
}

impl SelectablePage {
    /// The page in place, for as long as the result lives.
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
}

/// Archived pages that the latest batch attended to, by their places, rising. They stay open, since the next token mostly wants
/// them again, and opening one reads all of it.
pub(crate) type OpenPages = Vec<(usize, Arc<PageHandle>)>;

/// A sequence's far pages of one layer.
pub(crate) struct Candidates<'b> {
    pub(crate) pages: &'b [SelectablePage],
    /// The place in pages of the first.
    pub(crate) first: usize,
    /// Tokens of a page.
    pub(crate) page_tokens: usize,
    /// How many of them a batch may fetch.
    pub(crate) max_selected: usize,
    pub(crate) open: &'b mut OpenPages,
    pub(crate) traffic: &'b TierTraffic,
}

/// Which far pages a layer attends to for a batch.
#[derive(Clone, Copy, Debug)]
pub struct PageSelection<'c> {
    /// The layer's place among all.
    pub layer: usize,
    /// The sequence's place in the batch.
    pub sequence: usize,
    /// The place in pages of the first far page.
    pub first: usize,
    /// Each far page's score.
    pub scores: &'c [f32],
    /// The far pages that were chosen, in no order.
    pub selected: &'c [usize],
}

/// Pages in a file that one thread opens in the time that it takes to wake the others.
const FEW: usize = 4;

/// Who is told of every choice.
pub type SelectionWatcher = Arc<dyn Fn(&PageSelection<'_>) + Send + Sync>;

/// Brings the far pages with the best scores.
pub(crate) struct PageSelector<'b> {
    layer: usize,
    /// Of each sequence of the batch.
    sequences: Vec<Option<Candidates<'b>>>,
    watcher: Option<SelectionWatcher>,
    /// Opens pages: those in a file are read and checked then.
    pool: &'b ThreadPool,
}

impl<'b> PageSelector<'b> {
    pub(crate) fn new(layer: usize, watcher: Option<SelectionWatcher>, pool: &'b ThreadPool) -> Self {
        Self { layer, sequences: Vec::new(), watcher, pool }
    }

    /// Adds the next sequence of the batch.
    pub(crate) fn push(&mut self, far: Option<Candidates<'b>>) {
        self.sequences.push(far);
    }
}

impl Fetcher for PageSelector<'_> {
    fn fetch(&mut self, scores: &[f32], batch: &mut Batch<'_>) -> Result<()> {
        let mut first = 0;
        for (index, n_far) in batch.n_selectable().into_iter().enumerate() {
            let scores = &scores[first..first + n_far];
            first += n_far;
            let Some(Some(far)) = self.sequences.get_mut(index).filter(|_| n_far > 0) else { continue };
            let mut order: Vec<usize> = (0..n_far.min(far.pages.len())).collect();
            if order.len() > far.max_selected {
                order.select_nth_unstable_by(far.max_selected, |a, b| {
                    scores[*b].total_cmp(&scores[*a]).then(b.cmp(a))
                });
                order.truncate(far.max_selected);
            }
            if let Some(watcher) = &self.watcher {
                let Self { layer, .. } = *self;
                watcher(&PageSelection {
                    layer,
                    sequence: index,
                    first: far.first,
                    scores,
                    selected: &order,
                });
            }
            let before = std::mem::take(far.open);
            let opened = open_all(self.pool, far.pages, &order, &before);
            let mut fetched = [0; 2];
            for (place, page) in order.into_iter().zip(opened) {
                let page = page?;
                let tier = far.pages[place].tier();
                fetched[usize::from(tier == TierKind::Archived)] += 1;
                if tier == TierKind::Archived {
                    far.open.push((place, Arc::clone(&page)));
                }
                batch.add_fetched(index, (far.first + place) * far.page_tokens, page)?;
            }
            far.open.sort_unstable_by_key(|(place, _)| *place);
            far.traffic.record_fetch(TierKind::Compressed, fetched[0]);
            far.traffic.record_fetch(TierKind::Archived, fetched[1]);
        }
        Ok(())
    }
}

/// Opens the pages at these places, those that are open already aside: pages in a file by all threads, since they are read
/// and checked then.
fn open_all(
    pool: &ThreadPool,
    pages: &[SelectablePage],
    order: &[usize],
    before: &OpenPages,
) -> Vec<Result<Arc<PageHandle>>> {
    let open_already = |place: usize| {
        let SelectablePage::Archived(stored) = &pages[place] else { return None };
        let found = before.binary_search_by_key(&place, |(place, _)| *place).ok()?;
        Some(&before[found].1).filter(|page| page.id() == stored.id()).map(Arc::clone)
    };
    let open = |place: usize| open_already(place).map_or_else(|| pages[place].open(), Ok);
    let new = order
        .iter()
        .filter(|place| pages[**place].tier() == TierKind::Archived && open_already(**place).is_none());
    if new.count() < FEW {
        return order.iter().map(|place| open(*place)).collect();
    }
    let opened: Vec<OnceLock<Result<Arc<PageHandle>>>> = order.iter().map(|_| OnceLock::new()).collect();
    pool.run(order.len(), &|share: Range<usize>, _| {
        for (place, opened) in order[share.clone()].iter().zip(&opened[share]) {
            opened.get_or_init(|| open(*place));
        }
    });
    let left_out = || Err(Error::new(Status::Internal, "a far page was not opened"));
    opened.into_iter().map(|page| page.into_inner().unwrap_or_else(left_out)).collect()
}
