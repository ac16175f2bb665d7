//! What the cache holds of a page and of a recurrent state, and how a sequence gives and takes them.

use std::sync::{Arc, Mutex};

use herald_api::import::{Executor, LayerHandle, PageHandle};
use herald_api::{AlignedBytes, Error, Result, TierKind};

use crate::kv_cache::ledger::{Ledger, StateCharge, SummaryCharge};
use crate::kv_cache::pages::{SINKS, bytes_of};
use crate::kv_cache::selectable::SelectablePage;
use crate::kv_cache::{Census, LayerMemory, LayerPages, Limits, SequenceMemory};
use crate::threads::{ThreadPool, into_value, locked};

/// One layer's page: as attention wrote it, as the tiers below keep it, or both. It has at least one form.
#[derive(Clone)]
pub(crate) struct CachedPage {
    pub(super) exact: Option<Arc<PageHandle>>,
    pub(super) coded: Option<CodedPage>,
}

/// A page with the summary by which it is selected.
#[derive(Clone)]
pub(crate) struct CodedPage {
    pub(super) page: SelectablePage,
    pub(super) summary: Arc<Summary>,
}

/// A page's summary, which the ledger counts.
pub(crate) struct Summary {
    pub(super) words: Box<[u64]>,
    _charge: SummaryCharge,
}

impl Summary {
    pub(super) fn new(words: &[u64], ledger: &Arc<Ledger>) -> Self {
        let mut charge = SummaryCharge::new(ledger);
        charge.set(size_of_val(words));
        Self { words: words.into(), _charge: charge }
    }
}

impl CachedPage {
    /// Bytes of RAM, of the exact form and of the other.
    fn bytes(&self) -> [usize; 2] {
        let exact = self.exact.as_ref().map_or(0, |page| bytes_of(page));
        let coded = self.coded.as_ref().map_or(0, |coded| {
            let page = match &coded.page {
                SelectablePage::Compressed(page) => bytes_of(page),
                SelectablePage::Archived(_) => 0,
            };
            page + size_of_val(&*coded.summary.words)
        });
        [exact, coded]
    }
}

/// A page of every layer that keeps pages, in the layers' order.
#[derive(Clone, Default)]
pub(crate) struct PageRow(pub(super) Vec<CachedPage>);

impl PageRow {
    /// Bytes of RAM. What a sequence holds too counts whole.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().flat_map(CachedPage::bytes).sum()
    }

    /// Bytes of exact forms whose pages have another one too.
    pub(super) fn spare_bytes(&self) -> usize {
        self.0.iter().filter(|page| page.coded.is_some()).map(|page| page.bytes()[0]).sum()
    }

    /// Takes those out.
    pub(super) fn take_spare(&mut self) -> Self {
        let twice = self.0.iter_mut().filter(|page| page.coded.is_some());
        Self(twice.map(|page| CachedPage { exact: page.exact.take(), coded: None }).collect())
    }

    /// Whether a sequence has a form of its page `index` that this lacks, or one that takes less RAM.
    pub(super) fn lacks(&self, index: usize, memory: &SequenceMemory) -> bool {
        self.0.iter().zip(memory.layers_with_pages()).any(|(page, layer)| {
            match (page.coded.as_ref().map(|coded| coded.page.tier()), layer.selectable_tier(index)) {
                (_, None) | (Some(TierKind::Archived), _) => false,
                (None, Some(_)) => true,
                (Some(_), Some(tier)) => tier == TierKind::Archived,
            }
        })
    }

    /// Adds the forms that it lacks.
    pub(super) fn add(&mut self, other: Self) {
        for (page, other) in self.0.iter_mut().zip(other.0) {
            page.exact = page.exact.take().or(other.exact);
            page.coded = other.coded.or(page.coded.take());
        }
    }

    /// Whether nobody else holds any of it.
    pub(super) fn is_unheld(&self) -> bool {
        self.0.iter().all(|page| {
            let coded = page.coded.as_ref().is_none_or(|coded| match &coded.page {
                SelectablePage::Compressed(page) => Arc::strong_count(page) == 1,
                SelectablePage::Archived(page) => Arc::strong_count(page) == 1,
            });
            coded && page.exact.as_ref().is_none_or(|page| Arc::strong_count(page) == 1)
        })
    }

    /// How many pages it has, each form counted.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|page| usize::from(page.exact.is_some()) + usize::from(page.coded.is_some())).sum()
    }

    /// Shows its pages to `census`.
    pub(super) fn count(&self, census: &mut Census) {
        for page in &self.0 {
            page.exact.iter().for_each(|page| census.see(page));
            match page.coded.as_ref().map(|coded| &coded.page) {
                Some(SelectablePage::Compressed(page)) => census.see(page),
                Some(SelectablePage::Archived(page)) => census.see_archived(page),
                None => {}
            }
        }
    }
}

/// The recurrent states of all layers that have one, after some token.
pub(crate) struct States {
    pub(super) parts: Vec<AlignedBytes>,
    _charge: StateCharge,
}

impl States {
    pub(super) fn new(parts: Vec<AlignedBytes>, ledger: &Arc<Ledger>) -> Self {
        let bytes = parts.iter().map(|part| part.len()).sum();
        Self { parts, _charge: StateCharge::new(ledger, bytes) }
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }
}

impl SequenceMemory {
    /// The layers that keep pages.
    pub(super) fn layers_with_pages(&self) -> impl Iterator<Item = &LayerPages> {
        self.layers.iter().filter_map(|layer| match layer {
            LayerMemory::Pages(pages) => Some(pages),
            _ => None,
        })
    }

    /// The page `index` of every layer that keeps pages, in the form that it has; `None` where there is none.
    pub(crate) fn page_row(&self, index: usize) -> Option<PageRow> {
        self.layers_with_pages().map(|pages| pages.cached(index)).collect::<Option<_>>().map(PageRow)
    }

    /// A copy of the recurrent states for the cache; `None` where there is no memory for it.
    pub(crate) fn snapshot(&self) -> Option<Arc<States>> {
        let parts = self.copy_states().ok()?;
        Some(Arc::new(States::new(parts, self.charge.ledger())))
    }

    /// Begins an empty sequence of `tokens` tokens with pages and states from the cache. Pages are put into the tiers where a
    /// sequence that had computed them would have them: `layers` compress those that must be, on the threads of `pool`.
    pub(crate) fn take_over(
        &mut self,
        rows: &[PageRow],
        states: Option<&States>,
        tokens: usize,
        limits: Limits,
        (layers, pool): (&[LayerHandle], &ThreadPool),
    ) -> Result<()> {
        let with_pages = self.layers.iter_mut().zip(layers).filter_map(|(memory, layer)| match memory {
            LayerMemory::Pages(pages) => Some((pages, layer)),
            _ => None,
        });
        let all: Vec<_> = with_pages.map(|(pages, layer)| Mutex::new((pages, layer, Ok(())))).collect();
        Executor::run(pool, all.len(), &|range, _| {
            for index in range {
                let mut item = locked(&all[index]);
                let (pages, layer, done) = &mut *item;
                let cached = rows.iter().map(|row| &row.0[index]);
                *done = pages.take_over(cached, tokens, limits, layer);
            }
        });
        all.into_iter().try_for_each(|item| into_value(item).2)?;
        if let Some(states) = states {
            let copies: Vec<_> =
                states.parts.iter().map(|part| super::copied(part)).collect::<Result<_>>()?;
            self.set_states(copies);
        }
        Ok(())
    }
}

impl LayerPages {
    /// The tier of the page `index`, where it isn't active.
    fn selectable_tier(&self, index: usize) -> Option<TierKind> {
        index.checked_sub(SINKS).and_then(|index| self.selectable.get(index)).map(SelectablePage::tier)
    }

    /// The page `index` in the form that it has.
    fn cached(&self, index: usize) -> Option<CachedPage> {
        let selectable =
            index.checked_sub(SINKS).and_then(|index| Some((index, self.selectable.get(index)?)));
        Some(match selectable {
            Some((index, page)) => {
                let summary = Summary::new(self.selectable.summary(index), &self.needs.ledger);
                let coded = CodedPage { page: page.clone(), summary: Arc::new(summary) };
                CachedPage { exact: None, coded: Some(coded) }
            }
            None => CachedPage { exact: Some(Arc::clone(self.active_page(index)?)), coded: None },
        })
    }

    /// Fills this, which is empty, with pages of `tokens` tokens.
    fn take_over<'p>(
        &mut self,
        pages: impl Iterator<Item = &'p CachedPage>,
        tokens: usize,
        limits: Limits,
        layer: &LayerHandle,
    ) -> Result<()> {
        for (index, page) in pages.enumerate() {
            let end = (index + 1) * self.page_tokens();
            let is_older = index >= SINKS
                && self.needs.compressed.is_some()
                && end.saturating_add(limits.active_tokens) <= tokens;
            match (is_older, &page.coded, &page.exact) {
                (true, Some(coded), _) => self.push_coded(coded)?,
                (true, None, Some(exact)) => self.compress(exact, layer)?,
                (false, _, Some(exact)) => self.active.push(Arc::clone(exact)),
                (false, Some(coded), None) => {
                    let restored = self.restored_page(coded)?;
                    self.active.push(Arc::new(restored));
                }
                (_, None, None) => return Err(Error::invalid("a page of the cache has no form at all")),
            }
        }
        Ok(())
    }

    fn push_coded(&mut self, coded: &CodedPage) -> Result<()> {
        let mut page = coded.page.clone();
        // Archived pages come before compressed ones.
        if let (SelectablePage::Archived(archived), Some(compressed)) = (&page, &self.needs.compressed)
            && self.selectable.n_compressed() > 0
        {
            page = SelectablePage::Compressed(Arc::new(compressed.keep(&archived.open()?)?));
        }
        self.selectable.push(page, &coded.summary.words);
        Ok(())
    }

    /// The codes of a page at 16 bits again.
    fn restored_page(&self, coded: &CodedPage) -> Result<PageHandle> {
        let mut page = self.needs.tier.reserve()?;
        match (&coded.page, &self.needs.compressed) {
            (SelectablePage::Compressed(coded), Some(tier)) => tier.restore(coded, &mut page)?,
            (SelectablePage::Archived(coded), _) => coded.restore(&mut page)?,
            _ => return Err(Error::invalid("a compressed page came, where nothing here reads it")),
        }
        page.commit(self.page_tokens())?;
        Ok(page)
    }
}
