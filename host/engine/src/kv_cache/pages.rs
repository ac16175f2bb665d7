//! One layer's pages of one sequence: the first and the latest as attention wrote them, those between compressed, and the
//! oldest of these in a file.
//!
//! The first page holds what StreamingLLM (arXiv 2309.17453) calls attention sinks: it always stays.

use std::sync::Arc;

use herald_api::import::{Batch, LayerHandle, PageHandle, PageUse, StoredPage, TierHandle};
use herald_api::{AlignedBytes, Error, Result, TierKind};

use super::copies::PageBytes;
use super::ledger::{Charge, Ledger};
use super::page_selection::{Candidates, OpenPages, SelectablePage};
use super::{Census, MemoryUsage};
use crate::metrics::TierTraffic;

/// Bytes that a far page takes beside its summary: its handle, and where it begins.
const FAR_BYTES: usize = size_of::<SelectablePage>() + size_of::<StoredPage>() + 3 * size_of::<u64>();

/// Pages at the beginning of a sequence that are never compressed.
const SINKS: usize = 1;

/// How much of a sequence stays in which tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The latest tokens, whose pages stay in the active tier.
    pub(crate) active_tokens: usize,
    /// The latest tokens before them whose pages stay in the compressed tier.
    pub(crate) compressed_tokens: usize,
}

/// What a layer with pages needs for each sequence.
#[derive(Clone)]
pub(crate) struct PagesNeeds {
    /// Where pages are written.
    pub(crate) tier: TierHandle,
    /// Where older pages go; `None`: they stay.
    pub(crate) compressed: Option<TierHandle>,
    /// Where still older pages go; `None`: they stay.
    pub(crate) archive: Option<TierHandle>,
    /// Counts what moves.
    pub(crate) traffic: Arc<TierTraffic>,
    /// Counts what the host holds itself.
    pub(crate) ledger: Arc<Ledger>,
    /// The most compressed pages that a batch attends to; `None`: all.
    pub(crate) selected_pages: Option<usize>,
    /// The context that the model was trained for.
    pub(crate) trained_context: usize,
    /// Bytes of a page's summary.
    pub(crate) summary_bytes: usize,
}

/// One layer's pages of one sequence, each of `page_tokens` tokens: sinks, far pages, and the latest.
pub(crate) struct LayerPages {
    needs: PagesNeeds,
    page_tokens: usize,
    /// Sinks and the latest. Sequences that began alike share pages: one that is shared is copied before it is written.
    near: Vec<Arc<PageHandle>>,
    /// Compressed pages, between the sinks and the others.
    far: Vec<SelectablePage>,
    /// How many of these are archived: the first.
    n_archived: usize,
    open: OpenPages,
    /// Where each far page begins.
    starts: Vec<u64>,
    /// Each far page's summary, in elements of 8 bytes.
    summaries: Vec<u64>,
    /// What the far pages take beside the tiers.
    charge: Charge,
}

impl LayerPages {
    pub(crate) fn new(needs: &PagesNeeds) -> Self {
        let page_tokens = needs.tier.config().page_tokens;
        Self {
            needs: needs.clone(),
            page_tokens,
            near: Vec::new(),
            far: Vec::new(),
            n_archived: 0,
            open: OpenPages::new(),
            starts: Vec::new(),
            summaries: Vec::new(),
            charge: Charge::new(&needs.ledger, 0),
        }
    }

    pub(crate) fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// The place among `near` of the page `index`, which is no far page.
    fn place(&self, index: usize) -> usize {
        if index < SINKS { index } else { index.saturating_sub(self.far.len()).max(SINKS) }
    }

    /// See [`super::SequenceMemory::reserve`].
    pub(crate) fn reserve(&mut self, past: usize, tokens: usize) -> Result<()> {
        let first = past / self.page_tokens;
        if !self.far.is_empty()
            && first == SINKS + self.far.len() - 1
            && !past.is_multiple_of(self.page_tokens)
        {
            self.restore_last()?;
        }
        for place in self.place(first)..self.near.len() {
            let page = &mut self.near[place];
            if Arc::get_mut(page).is_none() {
                let mut copy = self.needs.tier.reserve()?;
                copy.copy_from(page)?;
                *page = Arc::new(copy);
            }
        }
        while (self.near.len() + self.far.len()) * self.page_tokens < tokens {
            self.near.push(Arc::new(self.needs.tier.reserve()?));
        }
        Ok(())
    }

    /// Bytes of the pages that `reserve` would make.
    pub(crate) fn wanted(&self, past: usize, tokens: usize) -> usize {
        let bytes = self.needs.tier.config().page_bytes().map_or(0, |(keys, values)| keys + values);
        let shared = |page: &Arc<PageHandle>| Arc::strong_count(page) > 1;
        let copies =
            self.near.get(self.place(past / self.page_tokens)..).unwrap_or(&[]).iter().filter(|p| shared(p));
        (tokens.div_ceil(self.page_tokens).saturating_sub(self.len()) + copies.count()) * bytes
    }

    /// Makes the last far page, of which a part was forgotten, one that can be written.
    fn restore_last(&mut self) -> Result<()> {
        let (Some(compressed), Some(last)) = (&self.needs.compressed, self.far.last()) else { return Ok(()) };
        let mut page = self.needs.tier.reserve()?;
        match last {
            SelectablePage::Compressed(last) => compressed.restore(last, &mut page)?,
            SelectablePage::Archived(last) => last.restore(&mut page)?,
        }
        page.commit(self.page_tokens)?;
        self.needs.traffic.record_move(last.tier(), TierKind::Active, 1, bytes_of(&page) as u64);
        self.keep_far(self.far.len() - 1);
        self.near.insert(SINKS, Arc::new(page));
        Ok(())
    }

    fn keep_far(&mut self, count: usize) {
        self.far.truncate(count);
        self.open.clear();
        self.n_archived = self.n_archived.min(count);
        self.starts.truncate(count);
        self.summaries.truncate(count * self.needs.summary_bytes / size_of::<u64>());
        self.charge();
    }

    fn charge(&mut self) {
        self.charge.set(self.own_bytes());
    }

    /// Bytes of what it holds beside pages.
    fn own_bytes(&self) -> usize {
        self.far.len() * (self.needs.summary_bytes + FAR_BYTES)
    }

    /// Adds this to a batch. Far pages that the layer is to choose from are returned, with the place of the first and how
    /// many it may have.
    pub(crate) fn add_to<'b>(
        &'b mut self,
        batch: &mut Batch<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<Option<Candidates<'b>>> {
        let Self { needs, page_tokens, near, far, n_archived, open, starts, summaries, .. } = self;
        let page_tokens = *page_tokens;
        let chosen = needs.selected_pages.filter(|most| far.len() > *most && needs.summary_bytes > 0);
        let listed = if chosen.is_some() { &[] } else { &far[..] };
        let n_far = far.len();
        let n_sinks = SINKS.min(near.len());
        let (sinks, latest) = near.split_at_mut(n_sinks);
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
        let latest = latest.iter_mut().enumerate().map(|(index, page)| use_of(SINKS + n_far + index, page));
        let end = past + n_tokens;
        let within =
            |used: &Result<(usize, PageUse<'b>)>| used.as_ref().map_or(true, |(start, _)| *start < end);
        let uses = sinks.chain(compressed).chain(latest).take_while(within).collect::<Result<Vec<_>>>()?;
        batch.push(n_tokens, past, None, uses)?;
        for (index, page) in listed.iter().enumerate().take(*n_archived) {
            batch.add_fetched(batch.len() - 1, (SINKS + index) * page_tokens, page.open()?)?;
        }
        if n_far > 0 && needs.selected_pages.is_some() {
            batch.max_distance(needs.trained_context);
        }
        let Some(most) = chosen else { return Ok(None) };
        batch.selectable_pages(starts, bytemuck::cast_slice(summaries));
        Ok(Some(Candidates {
            pages: far,
            first: SINKS,
            page_tokens,
            max_selected: most,
            open,
            traffic: &needs.traffic,
        }))
    }

    /// Tells the tier that tokens `past..tokens` are written.
    pub(crate) fn commit(&mut self, past: usize, tokens: usize) -> Result<()> {
        for index in past / self.page_tokens..tokens.div_ceil(self.page_tokens) {
            let place = self.place(index);
            let start = index * self.page_tokens;
            own(&mut self.near[place])?.commit((tokens - start).min(self.page_tokens))?;
        }
        Ok(())
    }

    /// Whether a page is to go down a tier, with `tokens` tokens in all.
    pub(crate) fn has_to_demote(&self, tokens: usize, limits: Limits) -> bool {
        self.has_to_compress(tokens, limits) || self.has_to_archive(limits)
    }

    fn has_to_compress(&self, tokens: usize, limits: Limits) -> bool {
        let next_end = (SINKS + self.far.len() + 1) * self.page_tokens;
        self.needs.compressed.is_some() && next_end.saturating_add(limits.active_tokens) <= tokens
    }

    fn has_to_archive(&self, limits: Limits) -> bool {
        let compressed = (self.far.len() - self.n_archived) * self.page_tokens;
        self.needs.archive.is_some() && compressed > limits.compressed_tokens
    }

    /// Moves pages that have no place in their tier down. Where that fails, what has moved stays moved.
    pub(crate) fn demote(&mut self, tokens: usize, limits: Limits, layer: &LayerHandle) -> Result<()> {
        let mut moved = 0;
        let done = loop {
            if self.has_to_archive(limits) {
                if let Err(error) = self.archive_next() {
                    break Err(error);
                }
            } else if self.has_to_compress(tokens, limits)
                && let Some(page) = self.near.get(SINKS + moved).map(Arc::clone)
            {
                if let Err(error) = self.compress(&page, layer) {
                    break Err(error);
                }
                moved += 1;
            } else {
                break Ok(());
            }
        };
        self.near.drain(SINKS..SINKS + moved);
        done
    }

    /// Moves pages up that have a place in a higher tier: 4-bit codes come back as they are, not as they were before.
    pub(crate) fn promote(&mut self, tokens: usize, limits: Limits) -> Result<()> {
        while !self.far.is_empty()
            && ((SINKS + self.far.len()) * self.page_tokens).saturating_add(limits.active_tokens) > tokens
        {
            self.restore_last()?;
        }
        // What stays open would keep the file's copies of pages that leave it.
        self.open.clear();
        let Some(compressed) = &self.needs.compressed else { return Ok(()) };
        while self.n_archived > 0
            && (self.far.len() - self.n_archived + 1) * self.page_tokens <= limits.compressed_tokens
        {
            let page = &mut self.far[self.n_archived - 1];
            let kept = compressed.keep(&*page.open()?)?;
            let bytes = bytes_of(&kept) as u64;
            self.needs.traffic.record_move(TierKind::Archived, TierKind::Compressed, 1, bytes);
            *page = SelectablePage::Compressed(Arc::new(kept));
            self.n_archived -= 1;
        }
        Ok(())
    }

    /// Compresses the next active page after the far ones.
    fn compress(&mut self, page: &PageHandle, layer: &LayerHandle) -> Result<()> {
        let Some(compressed) = &self.needs.compressed else { return Ok(()) };
        let words = self.needs.summary_bytes / size_of::<u64>();
        let start = (SINKS + self.far.len()) * self.page_tokens;
        let at = self.summaries.len();
        self.summaries.resize(at + words, 0);
        let summary: &mut [u8] = bytemuck::cast_slice_mut(&mut self.summaries[at..]);
        let summarised = if words > 0 { layer.summarise(page, start, summary) } else { Ok(()) };
        match summarised.and_then(|()| compressed.keep(page)) {
            Ok(kept) => {
                self.needs.traffic.record_move(
                    TierKind::Active,
                    TierKind::Compressed,
                    1,
                    bytes_of(&kept) as u64,
                );
                self.far.push(SelectablePage::Compressed(Arc::new(kept)));
                self.starts.push(start as u64);
                self.charge();
                Ok(())
            }
            Err(error) => {
                self.summaries.truncate(at);
                Err(error)
            }
        }
    }

    /// Archives the oldest compressed page.
    fn archive_next(&mut self) -> Result<()> {
        let (Some(archive), Some(page)) = (&self.needs.archive, self.far.get_mut(self.n_archived)) else {
            return Ok(());
        };
        if let SelectablePage::Compressed(compressed) = page {
            let stored = archive.store(compressed)?;
            let bytes = bytes_of(compressed) as u64;
            self.needs.traffic.record_move(TierKind::Compressed, TierKind::Archived, 1, bytes);
            *page = SelectablePage::Archived(Arc::new(stored));
        }
        self.n_archived += 1;
        Ok(())
    }

    /// Forgets the tokens from `tokens` on.
    pub(crate) fn truncate(&mut self, tokens: usize) {
        let pages = tokens.div_ceil(self.page_tokens);
        let far = self.far.len();
        if pages <= SINKS + far {
            self.near.truncate(pages.min(SINKS));
            self.keep_far(pages.saturating_sub(SINKS));
        } else {
            self.near.truncate(pages - far);
        }
    }

    /// The page `index` as attention wrote it, where it is still there so.
    pub(crate) fn exact_page(&self, index: usize) -> Option<&Arc<PageHandle>> {
        if (SINKS..SINKS + self.far.len()).contains(&index) {
            return None;
        }
        self.near.get(self.place(index))
    }

    /// How many compressed pages there are.
    pub(crate) fn n_selectable(&self) -> usize {
        self.far.len()
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// A copy of the first `tokens` tokens, for a sequence that goes on by itself: pages are shared until one of the two
    /// writes to them. Pages beyond the tokens are room that was never used.
    pub(crate) fn fork(&self, tokens: usize) -> Self {
        let mut copy = Self {
            needs: self.needs.clone(),
            page_tokens: self.page_tokens,
            near: self.near.clone(),
            far: self.far.clone(),
            n_archived: self.n_archived,
            open: OpenPages::new(),
            starts: self.starts.clone(),
            summaries: self.summaries.clone(),
            charge: Charge::new(&self.needs.ledger, self.own_bytes()),
        };
        copy.truncate(tokens);
        copy
    }

    /// The pages of the first `tokens` tokens, each in the format that it is kept in.
    pub(crate) fn opened(&self, tokens: usize) -> Result<Vec<Arc<PageHandle>>> {
        let (sinks, latest) = self.near.split_at(SINKS.min(self.near.len()));
        let sinks = sinks.iter().map(|page| Ok(Arc::clone(page)));
        let latest = latest.iter().map(|page| Ok(Arc::clone(page)));
        let all = sinks.chain(self.far.iter().map(SelectablePage::open)).chain(latest);
        all.take(tokens.div_ceil(self.page_tokens)).collect()
    }

    /// How many pages are archived and how many compressed, and the summaries of all of them.
    pub(crate) fn far(&self) -> ([usize; 2], &[u8]) {
        ([self.n_archived, self.far.len() - self.n_archived], bytemuck::cast_slice(&self.summaries))
    }

    /// Pages of `tokens` tokens as `opened` gave them, each in the tier that it was in.
    pub(crate) fn restored(
        needs: &PagesNeeds,
        tokens: usize,
        pages: &[PageBytes<'_>],
        far: [usize; 2],
        summaries: &[u8],
    ) -> Result<Self> {
        let mut made = Self::new(needs);
        let page_tokens = made.page_tokens;
        let n_far = far[0].saturating_add(far[1]);
        let whole = tokens / page_tokens;
        if pages.len() != tokens.div_ceil(page_tokens)
            || (n_far > 0 && n_far > whole.saturating_sub(SINKS))
            || summaries.len() != n_far * needs.summary_bytes
        {
            return Err(Error::invalid(format!(
                "{} pages, {far:?} of them archived and compressed with {} bytes of summaries, are not those of {tokens} \
                 tokens",
                pages.len(),
                summaries.len()
            )));
        }
        for (index, page) in pages.iter().enumerate() {
            let (keys, values) = page.bytes();
            if index < SINKS || index >= SINKS + n_far {
                let mut page = needs.tier.reserve()?;
                page.overwrite(keys, values)?;
                page.commit((tokens - index * page_tokens).min(page_tokens))?;
                made.near.push(Arc::new(page));
                continue;
            }
            let Some(compressed) = &needs.compressed else {
                return Err(Error::invalid("a compressed page came, where nothing here reads it"));
            };
            let config = compressed.config();
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
            let page = PageHandle::of_bytes(config, bytes)?;
            made.far.push(match needs.archive.as_ref().filter(|_| index - SINKS < far[0]) {
                Some(archive) => {
                    made.n_archived += 1;
                    SelectablePage::Archived(Arc::new(archive.store(&page)?))
                }
                None => SelectablePage::Compressed(Arc::new(compressed.keep(&page)?)),
            });
            made.starts.push((index * page_tokens) as u64);
        }
        made.summaries = summaries.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        made.charge();
        Ok(made)
    }

    /// Makes this so many pages longer, by copies between the sinks and the latest: of its far pages in turn, each in the tier
    /// that its place has; or of its first page after the sinks where it has no far ones. What is in them means nothing there.
    pub(crate) fn stretch(&mut self, pages: usize, limits: Limits) -> Result<()> {
        let few = || Error::invalid("a sequence of few tokens has no pages to make more of");
        let there = self.far.len();
        let Some(compressed) = self.needs.compressed.clone().filter(|_| there > 0) else {
            let page = Arc::clone(self.near.get(SINKS).ok_or_else(few)?);
            for _ in 0..pages {
                let mut copy = self.needs.tier.reserve()?;
                copy.copy_from(&page)?;
                copy.commit(self.page_tokens)?;
                self.near.insert(SINKS, Arc::new(copy));
            }
            return Ok(());
        };
        let room = (limits.compressed_tokens / self.page_tokens).saturating_sub(there - self.n_archived);
        let archived = if self.needs.archive.is_some() { pages.saturating_sub(room) } else { 0 };
        let words = self.needs.summary_bytes / size_of::<u64>();
        let (mut copies, mut summaries) = (Vec::with_capacity(pages), Vec::with_capacity(pages * words));
        for index in 0..pages {
            let from = index % there;
            let page = self.far[from].open()?;
            copies.push(match self.needs.archive.as_ref().filter(|_| index < archived) {
                Some(archive) => SelectablePage::Archived(Arc::new(archive.store(&page)?)),
                None => SelectablePage::Compressed(Arc::new(compressed.keep(&page)?)),
            });
            summaries.extend_from_slice(&self.summaries[from * words..(from + 1) * words]);
        }
        let place = self.n_archived;
        self.open.clear();
        self.far.splice(place..place, copies);
        self.summaries.splice(place * words..place * words, summaries);
        self.n_archived += archived;
        self.starts = (0..self.far.len()).map(|index| ((SINKS + index) * self.page_tokens) as u64).collect();
        self.charge();
        Ok(())
    }

    /// Adds a page to the latest.
    pub(crate) fn push(&mut self, page: Arc<PageHandle>) {
        self.near.push(page);
    }

    /// Adds what it holds of `tokens` tokens to a usage.
    pub(crate) fn tally(&self, tokens: usize, usage: &mut MemoryUsage) {
        let config = self.needs.tier.config();
        let (exact, coded) = (page_bytes(config.page_bytes()), page_bytes(config.q4_page_bytes()));
        let far = SINKS..SINKS + self.far.len();
        for index in 0..self.len() {
            let (stats, bytes, in_memory) = match self.far.get(index.wrapping_sub(far.start)) {
                Some(SelectablePage::Compressed(_)) => (&mut usage.compressed, coded, true),
                Some(SelectablePage::Archived(_)) => (&mut usage.archived, coded, false),
                None => (&mut usage.active, exact, true),
            };
            stats.pages += 1;
            stats.tokens += tokens.saturating_sub(index * self.page_tokens).min(self.page_tokens) as u64;
            stats.bytes += bytes;
            stats.memory_bytes += if in_memory { bytes } else { 0 };
            usage.exact_bytes += exact;
        }
    }

    /// Shows each page to `census`.
    pub(crate) fn count(&self, census: &mut Census) {
        self.near.iter().for_each(|page| census.see(page));
        for page in &self.far {
            match page {
                SelectablePage::Compressed(page) => census.see(page),
                SelectablePage::Archived(page) => census.see_archived(page),
            }
        }
    }

    /// Shows each whole page in RAM of the first `tokens` tokens, with its place; what is put instead must be its equal.
    pub(crate) fn each_whole_page(
        &mut self,
        tokens: usize,
        each: &mut dyn FnMut(usize, &mut Arc<PageHandle>),
    ) {
        let n_sinks = SINKS.min(self.near.len());
        let (sinks, latest) = self.near.split_at_mut(n_sinks);
        let far = self.far.iter_mut().map(|page| match page {
            SelectablePage::Compressed(page) => Some(page),
            SelectablePage::Archived(_) => None,
        });
        let all = sinks.iter_mut().map(Some).chain(far).chain(latest.iter_mut().map(Some));
        for (index, page) in all.take(tokens / self.page_tokens).enumerate() {
            if let Some(page) = page {
                each(index, page);
            }
        }
    }

    /// Bytes of RAM that its pages and summaries take.
    pub(crate) fn bytes(&self) -> usize {
        let near: usize = self.near.iter().map(|page| bytes_of(page)).sum();
        let far = self.far.iter().map(|page| match page {
            SelectablePage::Compressed(page) => bytes_of(page),
            SelectablePage::Archived(_) => 0,
        });
        near + far.sum::<usize>() + self.own_bytes()
    }
}

fn bytes_of(page: &PageHandle) -> usize {
    page.bytes().0.len() + page.bytes().1.len()
}

/// A page for writing, which `reserve` has made the sequence's own.
fn own(page: &mut Arc<PageHandle>) -> Result<&mut PageHandle> {
    Arc::get_mut(page).ok_or_else(|| Error::invalid("a page that is shared was to be written"))
}

/// Bytes of a page in RAM: its values begin at an aligned place.
pub(crate) fn page_bytes(parts: Option<(usize, usize)>) -> u64 {
    parts.map_or(0, |(keys, values)| (keys.next_multiple_of(AlignedBytes::ALIGN) + values) as u64)
}
