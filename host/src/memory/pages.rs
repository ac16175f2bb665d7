//! One layer's pages of one sequence: the first and the latest as attention wrote them, those between compressed.
//!
//! The first page holds what StreamingLLM (arXiv 2309.17453) calls attention sinks: it always stays.

use std::sync::Arc;

use herald_api::import::{Batch, LayerHandle, PageHandle, PageUse, TierHandle};
use herald_api::{AlignedBytes, Error, Result};

use super::{FarPages, MemoryUsage};

/// Pages at the beginning of a sequence that are never compressed.
const SINKS: usize = 1;

/// How much of a sequence stays in which tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The latest tokens, whose pages stay in the active tier.
    pub(crate) active_tokens: usize,
}

/// What a layer with pages needs for each sequence.
#[derive(Clone)]
pub(crate) struct PagesNeeds {
    /// Where pages are written.
    pub(crate) tier: TierHandle,
    /// Where older pages go; `None`: they stay.
    pub(crate) compressed: Option<TierHandle>,
    /// How much stays in which tier.
    pub(crate) limits: Limits,
    /// The most compressed pages that a batch attends to; `None`: all.
    pub(crate) far_pages: Option<usize>,
    /// The context that the model was trained for.
    pub(crate) trained: usize,
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
    far: Vec<Arc<PageHandle>>,
    /// Where each far page begins.
    starts: Vec<u64>,
    /// Each far page's summary, in elements of 8 bytes.
    summaries: Vec<u64>,
}

impl LayerPages {
    pub(crate) fn new(needs: &PagesNeeds) -> Self {
        let page_tokens = needs.tier.config().page_tokens;
        Self {
            needs: needs.clone(),
            page_tokens,
            near: Vec::new(),
            far: Vec::new(),
            starts: Vec::new(),
            summaries: Vec::new(),
        }
    }

    pub(crate) fn page_tokens(&self) -> usize {
        self.page_tokens
    }

    /// The place among `near` of the page `index`, which is no far page.
    fn place(&self, index: usize) -> usize {
        if index < SINKS { index } else { index - self.far.len() }
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

    /// Makes the last far page, of which a part was forgotten, one that can be written.
    fn restore_last(&mut self) -> Result<()> {
        let (Some(compressed), Some(last)) = (&self.needs.compressed, self.far.last()) else { return Ok(()) };
        let mut page = self.needs.tier.reserve()?;
        compressed.restore(last, &mut page)?;
        self.keep_far(self.far.len() - 1);
        self.near.insert(SINKS, Arc::new(page));
        Ok(())
    }

    fn keep_far(&mut self, count: usize) {
        self.far.truncate(count);
        self.starts.truncate(count);
        self.summaries.truncate(count * self.needs.summary_bytes / size_of::<u64>());
    }

    /// Adds this to a batch. Far pages that the layer is to choose from are returned, with the place of the first and how
    /// many it may have.
    pub(crate) fn add_to<'b>(
        &'b mut self,
        batch: &mut Batch<'b>,
        n_tokens: usize,
        past: usize,
    ) -> Result<Option<FarPages<'b>>> {
        let Self { needs, page_tokens, near, far, starts, summaries } = self;
        let page_tokens = *page_tokens;
        let chosen = needs.far_pages.filter(|most| far.len() > *most && needs.summary_bytes > 0);
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
        let listed = listed
            .iter()
            .enumerate()
            .map(|(index, page)| Ok(((SINKS + index) * page_tokens, PageUse::Shared(page))));
        let latest = latest.iter_mut().enumerate().map(|(index, page)| use_of(SINKS + n_far + index, page));
        let end = past + n_tokens;
        let within =
            |used: &Result<(usize, PageUse<'b>)>| used.as_ref().map_or(true, |(start, _)| *start < end);
        let uses = sinks.chain(listed).chain(latest).take_while(within).collect::<Result<Vec<_>>>()?;
        batch.push(n_tokens, past, None, uses)?;
        if n_far > 0 && needs.far_pages.is_some() {
            batch.reach(needs.trained);
        }
        let Some(most) = chosen else { return Ok(None) };
        batch.far(starts, bytemuck::cast_slice(summaries));
        Ok(Some((far, SINKS, most)))
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

    /// How much of it is kept how, as the engine was loaded.
    pub(crate) fn limits(&self) -> Limits {
        self.needs.limits
    }

    /// Whether a page is to go down a tier, with `tokens` tokens in all.
    pub(crate) fn has_to_demote(&self, tokens: usize, limits: Limits) -> bool {
        let next_end = (SINKS + self.far.len() + 1) * self.page_tokens;
        self.needs.compressed.is_some() && next_end.saturating_add(limits.active_tokens) <= tokens
    }

    /// Moves pages that have no place in their tier down.
    pub(crate) fn demote(&mut self, tokens: usize, limits: Limits, layer: &LayerHandle) -> Result<()> {
        let words = self.needs.summary_bytes / size_of::<u64>();
        let mut moved = 0;
        let done = loop {
            if !self.has_to_demote(tokens, limits) {
                break Ok(());
            }
            let Some((compressed, page)) = self.needs.compressed.as_ref().zip(self.near.get(SINKS + moved))
            else {
                break Ok(());
            };
            let start = (SINKS + self.far.len()) * self.page_tokens;
            let at = self.summaries.len();
            self.summaries.resize(at + words, 0);
            let summary: &mut [u8] = bytemuck::cast_slice_mut(&mut self.summaries[at..]);
            let summarised = if words > 0 { layer.summarise(page, start, summary) } else { Ok(()) };
            match summarised.and_then(|()| compressed.keep(page)) {
                Ok(kept) => {
                    self.far.push(Arc::new(kept));
                    self.starts.push(start as u64);
                    moved += 1;
                }
                Err(error) => {
                    self.summaries.truncate(at);
                    break Err(error);
                }
            }
        };
        self.near.drain(SINKS..SINKS + moved);
        done
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

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.near.len() + self.far.len()
    }

    /// All pages, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<PageHandle>> {
        let (sinks, latest) = self.near.split_at(SINKS.min(self.near.len()));
        sinks.iter().chain(&self.far).chain(latest)
    }

    /// A copy of the first `tokens` tokens, for a sequence that goes on by itself: pages are shared until one of the two
    /// writes to them. Pages beyond the tokens are room that was never used.
    pub(crate) fn fork(&self, tokens: usize) -> Self {
        let mut copy = Self {
            needs: self.needs.clone(),
            page_tokens: self.page_tokens,
            near: self.near.clone(),
            far: self.far.clone(),
            starts: self.starts.clone(),
            summaries: self.summaries.clone(),
        };
        copy.truncate(tokens);
        copy
    }

    /// The keys and values of the pages of the first `tokens` tokens, each in the format that it is kept in.
    pub(crate) fn page_bytes(&self, tokens: usize) -> Vec<(&[u8], &[u8])> {
        self.iter().take(tokens.div_ceil(self.page_tokens)).map(|page| page.bytes()).collect()
    }

    /// Fills pages that were reserved, as `page_bytes` gave them: compressed ones come back active, and go down again when
    /// the sequence next grows.
    pub(crate) fn overwrite(&mut self, bytes: &[(&[u8], &[u8])]) -> Result<()> {
        let config = self.needs.tier.config();
        for (page, (keys, values)) in self.near.iter_mut().zip(bytes) {
            let page = own(page)?;
            if config.q4_page_bytes() != Some((keys.len(), values.len())) {
                page.overwrite(keys, values)?;
                continue;
            }
            let Some(compressed) = &self.needs.compressed else {
                return Err(Error::invalid("a compressed page came, where nothing here reads it"));
            };
            let start = keys.len().next_multiple_of(AlignedBytes::ALIGN);
            let mut whole = AlignedBytes::zeroed(start + values.len())?;
            whole[..keys.len()].copy_from_slice(keys);
            whole[start..].copy_from_slice(values);
            compressed.restore(&compressed.keep(&PageHandle::of_bytes(config, whole)?)?, page)?;
        }
        Ok(())
    }

    /// Makes this so many pages longer, by copies between the sinks and the latest: of its compressed pages in turn, or of
    /// its first page after the sinks where it has none. What is in them means nothing there.
    pub(crate) fn stretch(&mut self, pages: usize) -> Result<()> {
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
        let words = self.needs.summary_bytes / size_of::<u64>();
        for index in 0..pages {
            let from = index % there;
            self.starts.push(((SINKS + self.far.len()) * self.page_tokens) as u64);
            self.far.push(Arc::new(compressed.keep(&self.far[from])?));
            self.summaries.extend_from_within(from * words..(from + 1) * words);
        }
        Ok(())
    }

    /// Adds a page to the latest.
    pub(crate) fn push(&mut self, page: Arc<PageHandle>) {
        self.near.push(page);
    }

    /// Adds what it holds of `tokens` tokens to a usage.
    pub(crate) fn tally(&self, tokens: usize, usage: &mut MemoryUsage) {
        let (active, compressed) = (self.needs.tier.config(), self.needs.compressed.as_ref());
        let exact_bytes = page_bytes(active.page_bytes());
        for (index, page) in self.iter().enumerate() {
            let far = (SINKS..SINKS + self.far.len()).contains(&index) && compressed.is_some();
            let stats = if far { &mut usage.compressed } else { &mut usage.active };
            let start = index * self.page_tokens;
            stats.pages += 1;
            stats.tokens += tokens.saturating_sub(start).min(self.page_tokens) as u64;
            stats.bytes += page_bytes(Some((page.bytes().0.len(), page.bytes().1.len())));
            usage.exact_bytes += exact_bytes;
        }
    }

    /// Shows each whole page of the first `tokens` tokens, with its place; what is put instead must be its equal.
    pub(crate) fn each_whole_page(
        &mut self,
        tokens: usize,
        each: &mut dyn FnMut(usize, &mut Arc<PageHandle>),
    ) {
        let n_sinks = SINKS.min(self.near.len());
        let (sinks, latest) = self.near.split_at_mut(n_sinks);
        let all = sinks.iter_mut().chain(&mut self.far).chain(latest);
        all.take(tokens / self.page_tokens).enumerate().for_each(|(index, page)| each(index, page));
    }

    /// Bytes of its pages and summaries.
    pub(crate) fn bytes(&self) -> usize {
        let pages = |pages: &[Arc<PageHandle>]| -> usize {
            pages.iter().map(|page| page.bytes().0.len() + page.bytes().1.len()).sum()
        };
        pages(&self.near) + pages(&self.far) + size_of_val(&self.summaries[..])
    }
}

/// A page for writing, which `reserve` has made the sequence's own.
fn own(page: &mut Arc<PageHandle>) -> Result<&mut PageHandle> {
    Arc::get_mut(page).ok_or_else(|| Error::invalid("a page that is shared was to be written"))
}

/// Bytes of a page in RAM: its values begin at an aligned place.
pub(crate) fn page_bytes(parts: Option<(usize, usize)>) -> u64 {
    parts.map_or(0, |(keys, values)| (keys.next_multiple_of(AlignedBytes::ALIGN) + values) as u64)
}
