//! One layer's pages of one sequence: the first and the latest as attention wrote them, those between compressed, and the
//! oldest of these in a file.
//!
//! The first page holds what StreamingLLM (arXiv 2309.17453) calls attention sinks: it always stays.

use std::sync::Arc;

use herald_api::import::{Batch, PageHandle, PageUse, TierHandle};
use herald_api::{AlignedBytes, Error, Result, TierConfig};

use super::copies::PageBytes;
use super::ledger::Ledger;
use super::page_selection::Candidates;
use super::selectable::{SelectablePage, SelectablePages, SelectableParts};
use super::traffic::TierTraffic;
use super::{Census, MemoryUsage};

/// Pages at the beginning of a sequence that always stay active.
pub(super) const SINKS: usize = 1;

/// What a layer with pages needs for each sequence.
#[derive(Clone)]
pub(crate) struct PagesNeeds {
    /// Where pages are written.
    pub(crate) tier: TierHandle,
    /// Where older pages go; `None`: they stay.
    pub(crate) compressed: Option<TierHandle>,
    /// Where still older pages go; `None`: they stay.
    pub(crate) archive: Option<TierHandle>,
    /// Counts the pages that move between tiers.
    pub(crate) traffic: Arc<TierTraffic>,
    /// Counts what the host holds itself.
    pub(crate) ledger: Arc<Ledger>,
    /// The most selectable pages that a pass attends to; `None`: all.
    pub(crate) selected_pages: Option<usize>,
    /// The context that the model was trained for.
    pub(crate) trained_context: usize,
    /// Bytes of a page's summary.
    pub(crate) summary_bytes: usize,
}

/// One layer's pages of one sequence: sinks, selectable pages, and the latest.
pub(crate) struct LayerPages {
    pub(super) needs: PagesNeeds,
    /// Sinks and the latest pages, in the active tier. Sequences that began alike share pages: a shared one is copied before
    /// it is written.
    pub(super) active: Vec<Arc<PageHandle>>,
    /// The compressed and archived pages between the sinks and the latest.
    pub(super) selectable: SelectablePages,
}

impl LayerPages {
    pub(crate) fn new(needs: &PagesNeeds) -> Self {
        let page_tokens = needs.tier.config().page_tokens;
        Self {
            needs: needs.clone(),
            active: Vec::new(),
            selectable: SelectablePages::new(page_tokens, needs.summary_bytes, &needs.ledger),
        }
    }

    /// Tokens of a page.
    pub(crate) fn page_tokens(&self) -> usize {
        self.needs.tier.config().page_tokens
    }

    /// The index among `active` of the page `index`, which isn't selectable.
    fn active_index(&self, index: usize) -> usize {
        if index < SINKS { index } else { index.saturating_sub(self.selectable.len()).max(SINKS) }
    }

    /// See [`super::SequenceMemory::reserve`].
    pub(crate) fn reserve(&mut self, past: usize, tokens: usize) -> Result<()> {
        let page_tokens = self.page_tokens();
        let first = past / page_tokens;
        if !self.selectable.is_empty()
            && first == SINKS + self.selectable.len() - 1
            && !past.is_multiple_of(page_tokens)
        {
            self.activate_last()?;
        }
        let first_active = self.active_index(first);
        for page in self.active.iter_mut().skip(first_active) {
            if Arc::get_mut(page).is_none() {
                let mut copy = self.needs.tier.reserve()?;
                copy.copy_from(page)?;
                *page = Arc::new(copy);
            }
        }
        while self.len() * page_tokens < tokens {
            self.active.push(Arc::new(self.needs.tier.reserve()?));
        }
        Ok(())
    }

    /// Bytes of the pages that `reserve` would make.
    pub(crate) fn wanted(&self, past: usize, tokens: usize) -> usize {
        let bytes = self.needs.tier.config().page_bytes().map_or(0, |(keys, values)| keys + values);
        let written = self.active.get(self.active_index(past / self.page_tokens())..).unwrap_or(&[]);
        let copies = written.iter().filter(|page| Arc::strong_count(page) > 1).count();
        (tokens.div_ceil(self.page_tokens()).saturating_sub(self.len()) + copies) * bytes
    }

    /// Adds this to a batch. Returns the pages that the layer is to select from, where it has to.
    pub(crate) fn add_to<'b>(
        &'b mut self,
        batch: &mut Batch<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<Option<Candidates<'b>>> {
        let page_tokens = self.page_tokens();
        let Self { needs, active, selectable, .. } = self;
        let (n_selectable, n_archived) = (selectable.len(), selectable.n_archived());
        let SelectableParts { pages, starts, summaries, open } = selectable.parts();
        let max_selected = needs.selected_pages.filter(|max| n_selectable > *max && needs.summary_bytes > 0);
        // Where nothing is selected, all are attended to.
        let listed = if max_selected.is_some() { &[] } else { pages };
        let n_sinks = SINKS.min(active.len());
        let (sinks, latest) = active.split_at_mut(n_sinks);
        let use_of = |index: usize, page: &'b mut Arc<PageHandle>| {
            // Whole pages of earlier tokens are only read; room that was reserved beyond the batch is left out.
            let start = index * page_tokens;
            let page =
                if start + page_tokens <= past { PageUse::Shared(page) } else { PageUse::Own(own(page)?) };
            Ok((start, page))
        };
        let sinks = sinks.iter_mut().enumerate().map(|(index, page)| use_of(index, page));
        let compressed = listed.iter().enumerate().filter_map(|(index, page)| match page {
            SelectablePage::Compressed(page) => {
                Some(Ok(((SINKS + index) * page_tokens, PageUse::Shared(page))))
            }
            SelectablePage::Archived(_) => None,
        });
        let latest =
            latest.iter_mut().enumerate().map(|(index, page)| use_of(SINKS + n_selectable + index, page));
        let end = past + n_tokens;
        let within =
            |used: &Result<(usize, PageUse<'b>)>| used.as_ref().map_or(true, |(start, _)| *start < end);
        let uses = sinks.chain(compressed).chain(latest).take_while(within).collect::<Result<Vec<_>>>()?;
        batch.push(n_tokens, past, None, uses)?;
        for (index, page) in listed.iter().enumerate().take(n_archived) {
            batch.add_fetched(batch.len() - 1, (SINKS + index) * page_tokens, page.open()?)?;
        }
        if n_selectable > 0 && needs.selected_pages.is_some() {
            batch.max_distance(needs.trained_context);
        }
        let Some(max_selected) = max_selected else { return Ok(None) };
        batch.selectable_pages(starts, summaries);
        let traffic = &*needs.traffic;
        Ok(Some(Candidates { pages, first_page: SINKS, page_tokens, max_selected, open, traffic }))
    }

    /// Tells the tier that tokens `past..tokens` are written.
    pub(crate) fn commit(&mut self, past: usize, tokens: usize) -> Result<()> {
        let page_tokens = self.page_tokens();
        for index in past / page_tokens..tokens.div_ceil(page_tokens) {
            let page = self.active_index(index);
            own(&mut self.active[page])?.commit((tokens - index * page_tokens).min(page_tokens))?;
        }
        Ok(())
    }

    /// Forgets the tokens from `tokens` on.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        let pages = tokens.div_ceil(self.page_tokens());
        let n_selectable = self.selectable.len();
        if pages <= SINKS + n_selectable {
            self.active.truncate(pages.min(SINKS));
            self.selectable.truncate(pages.saturating_sub(SINKS));
        } else {
            self.active.truncate(pages - n_selectable);
        }
    }

    /// The page `index`, where it is active.
    pub(super) fn active_page(&self, index: usize) -> Option<&Arc<PageHandle>> {
        if (SINKS..SINKS + self.selectable.len()).contains(&index) {
            return None;
        }
        self.active.get(self.active_index(index))
    }

    /// How many pages are compressed or archived.
    pub(crate) fn n_selectable(&self) -> usize {
        self.selectable.len()
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.active.len() + self.selectable.len()
    }

    /// A copy of the first `tokens` tokens, for a sequence that goes on by itself: pages are shared until one of the two
    /// writes to them. Pages beyond the tokens are room that was never used.
    pub(crate) fn fork(&self, tokens: usize) -> Self {
        let mut copy = Self {
            needs: self.needs.clone(),
            active: self.active.clone(),
            selectable: self.selectable.fork(),
        };
        copy.truncate(tokens);
        copy
    }

    /// The pages of the first `tokens` tokens, each in the format that it is kept in.
    pub(crate) fn opened(&self, tokens: usize) -> Result<Vec<Arc<PageHandle>>> {
        let (sinks, latest) = self.active.split_at(SINKS.min(self.active.len()));
        let sinks = sinks.iter().map(|page| Ok(Arc::clone(page)));
        let latest = latest.iter().map(|page| Ok(Arc::clone(page)));
        let all = sinks.chain(self.selectable.iter().map(SelectablePage::open)).chain(latest);
        all.take(tokens.div_ceil(self.page_tokens())).collect()
    }

    /// How many pages are archived and how many compressed, and the summaries of all of them.
    pub(crate) fn selectable(&self) -> ([usize; 2], &[u8]) {
        let pages = &self.selectable;
        ([pages.n_archived(), pages.n_compressed()], pages.summaries())
    }

    /// Pages of `tokens` tokens as `opened` gave them, each in the tier that it was in: after the sinks, `[archived,
    /// compressed]` pages with these summaries.
    pub(crate) fn restored(
        needs: &PagesNeeds,
        tokens: usize,
        pages: &[PageBytes<'_>],
        [n_archived, n_compressed]: [usize; 2],
        summaries: &[u8],
    ) -> Result<Self> {
        let mut made = Self::new(needs);
        let page_tokens = made.page_tokens();
        let n_selectable = n_archived.saturating_add(n_compressed);
        let n_whole = tokens / page_tokens;
        if pages.len() != tokens.div_ceil(page_tokens)
            || (n_selectable > 0 && n_selectable > n_whole.saturating_sub(SINKS))
            || summaries.len() != n_selectable * needs.summary_bytes
        {
            return Err(Error::invalid(format!(
                "{} pages, [{n_archived}, {n_compressed}] of them archived and compressed with {} bytes of summaries, are \
                 not those of {tokens} tokens",
                pages.len(),
                summaries.len()
            )));
        }
        for (index, page) in pages.iter().enumerate() {
            let (keys, values) = page.bytes();
            if index < SINKS || index >= SINKS + n_selectable {
                let mut page = needs.tier.reserve()?;
                page.overwrite(keys, values)?;
                page.commit((tokens - index * page_tokens).min(page_tokens))?;
                made.active.push(Arc::new(page));
                continue;
            }
            let Some(compressed) = &needs.compressed else {
                return Err(Error::invalid("a compressed page came, where nothing here reads it"));
            };
            let page = compressed_page(compressed.config(), keys, values)?;
            let selectable = index - SINKS;
            let page = match needs.archive.as_ref().filter(|_| selectable < n_archived) {
                Some(archive) => SelectablePage::Archived(Arc::new(archive.store(&page)?)),
                None => SelectablePage::Compressed(Arc::new(compressed.keep(&page)?)),
            };
            let bytes = selectable * needs.summary_bytes..(selectable + 1) * needs.summary_bytes;
            let summary: Vec<u64> =
                summaries[bytes].as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
            made.selectable.push(page, &summary);
        }
        Ok(made)
    }

    /// Adds what it holds of `tokens` tokens to a usage.
    pub(crate) fn tally(&self, tokens: usize, usage: &mut MemoryUsage) {
        let (config, page_tokens) = (self.needs.tier.config(), self.page_tokens());
        let (exact, coded) = (page_bytes(config.page_bytes()), page_bytes(config.q4_page_bytes()));
        for index in 0..self.len() {
            let (stats, bytes, in_memory) = match self.selectable.get(index.wrapping_sub(SINKS)) {
                Some(SelectablePage::Compressed(_)) => (&mut usage.compressed, coded, true),
                Some(SelectablePage::Archived(_)) => (&mut usage.archived, coded, false),
                None => (&mut usage.active, exact, true),
            };
            stats.pages += 1;
            stats.tokens += tokens.saturating_sub(index * page_tokens).min(page_tokens) as u64;
            stats.bytes += bytes;
            stats.memory_bytes += if in_memory { bytes } else { 0 };
            usage.exact_bytes += exact;
        }
        usage.summary_bytes += self.selectable.bytes() as u64;
    }

    /// Shows each page to `census`.
    pub(crate) fn count(&self, census: &mut Census) {
        self.active.iter().for_each(|page| census.see(page));
        for page in self.selectable.iter() {
            match page {
                SelectablePage::Compressed(page) => census.see(page),
                SelectablePage::Archived(page) => census.see_archived(page),
            }
        }
    }

    /// Shows each whole page in RAM of the first `tokens` tokens, with its index. What `each` puts in its place must equal it.
    pub(crate) fn each_whole_page(
        &mut self,
        tokens: usize,
        each: &mut dyn FnMut(usize, &mut Arc<PageHandle>),
    ) {
        let n_whole = tokens / self.page_tokens();
        let n_sinks = SINKS.min(self.active.len());
        let (sinks, latest) = self.active.split_at_mut(n_sinks);
        let selectable = self.selectable.compressed_mut();
        let all = sinks.iter_mut().map(Some).chain(selectable).chain(latest.iter_mut().map(Some));
        for (index, page) in all.take(n_whole).enumerate() {
            if let Some(page) = page {
                each(index, page);
            }
        }
    }

    /// Bytes of RAM that its pages and summaries take.
    pub(crate) fn bytes(&self) -> usize {
        let active: usize = self.active.iter().map(|page| bytes_of(page)).sum();
        let selectable = self.selectable.iter().map(|page| match page {
            SelectablePage::Compressed(page) => bytes_of(page),
            SelectablePage::Archived(_) => 0,
        });
        active + selectable.sum::<usize>() + self.selectable.bytes()
    }
}

pub(super) fn bytes_of(page: &PageHandle) -> usize {
    page.bytes().0.len() + page.bytes().1.len()
}

/// A page of 4-bit codes with these keys and values, in no tier.
pub(super) fn compressed_page(config: &TierConfig, keys: &[u8], values: &[u8]) -> Result<PageHandle> {
    if config.q4_page_bytes() != Some((keys.len(), values.len())) {
        return Err(Error::invalid(format!(
            "a compressed page has {} and {} bytes, where {:?} were expected",
            keys.len(),
            values.len(),
            config.q4_page_bytes()
        )));
    }
    let start = keys.len().next_multiple_of(AlignedBytes::ALIGN);
    let mut bytes = AlignedBytes::zeroed(start + values.len())?;
    bytes[..keys.len()].copy_from_slice(keys);
    bytes[start..].copy_from_slice(values);
    PageHandle::of_bytes(config, bytes)
}

/// A page for writing, which `reserve` has made the sequence's own.
fn own(page: &mut Arc<PageHandle>) -> Result<&mut PageHandle> {
    Arc::get_mut(page).ok_or_else(|| Error::invalid("a page that is shared was to be written"))
}

/// Bytes of a page in RAM: its values begin at an aligned offset.
pub(crate) fn page_bytes(parts: Option<(usize, usize)>) -> u64 {
    parts.map_or(0, |(keys, values)| (keys.next_multiple_of(AlignedBytes::ALIGN) + values) as u64)
}
