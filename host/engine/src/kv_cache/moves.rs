//! Moving one layer's pages between tiers.

use std::sync::Arc;

use herald_api::import::{LayerHandle, PageHandle};
use herald_api::{Error, Result, TierKind};

use super::pages::{LayerPages, SINKS, bytes_of};
use super::selectable::SelectablePage;

/// How much of a sequence stays in which tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The latest tokens, whose pages stay in the active tier.
    pub(crate) active_tokens: usize,
    /// The latest tokens before them whose pages stay in the compressed tier.
    pub(crate) compressed_tokens: usize,
}

impl LayerPages {
    /// Whether a page has to go down a tier, with `tokens` tokens in all.
    pub(crate) fn has_to_demote(&self, tokens: usize, limits: Limits) -> bool {
        self.has_to_compress(tokens, limits) || self.has_to_archive(limits)
    }

    fn has_to_compress(&self, tokens: usize, limits: Limits) -> bool {
        let next_end = (SINKS + self.selectable.len() + 1) * self.page_tokens();
        self.needs.compressed.is_some() && next_end.saturating_add(limits.active_tokens) <= tokens
    }

    /// Up to how many tokens the sequence may grow in one pass that gives the results of as many passes of one token: until then, no page
    /// moves, none is selected for some tokens and not for others, and no position shifts.
    pub(crate) fn even_until(&self, limits: Limits) -> usize {
        let next_end = (SINKS + self.selectable.len() + 1) * self.page_tokens();
        let moves = match self.needs.compressed {
            Some(_) => next_end.saturating_add(limits.active_tokens) - 1,
            None => usize::MAX,
        };
        match self.needs.selected_pages {
            Some(selected) if self.selectable.len() > selected => 0,
            Some(_) if !self.selectable.is_empty() => moves.min(self.needs.trained_context),
            _ => moves,
        }
    }

    fn has_to_archive(&self, limits: Limits) -> bool {
        let compressed = self.selectable.n_compressed() * self.page_tokens();
        self.needs.archive.is_some() && compressed > limits.compressed_tokens
    }

    /// Moves pages beyond their tier's limit down. Where that fails, what has moved stays moved.
    pub(crate) fn demote(&mut self, tokens: usize, limits: Limits, layer: &LayerHandle) -> Result<()> {
        let mut compressed = 0;
        let done = loop {
            if self.has_to_archive(limits) {
                if let Err(error) = self.archive_next() {
                    break Err(error);
                }
            } else if self.has_to_compress(tokens, limits)
                && let Some(page) = self.active.get(SINKS + compressed).map(Arc::clone)
            {
                if let Err(error) = self.compress(&page, layer) {
                    break Err(error);
                }
                compressed += 1;
            } else {
                break Ok(());
            }
        };
        self.active.drain(SINKS..SINKS + compressed);
        done
    }

    /// Moves pages up for which a higher tier has room: 4-bit codes come back as they are, not as they were before.
    pub(crate) fn promote(&mut self, tokens: usize, limits: Limits) -> Result<()> {
        while !self.selectable.is_empty()
            && ((SINKS + self.selectable.len()) * self.page_tokens()).saturating_add(limits.active_tokens)
                > tokens
        {
            self.activate_last()?;
        }
        // Pages that stay open would keep the file's copies of pages that leave it.
        self.selectable.close_archived();
        let Some(compressed) = &self.needs.compressed else { return Ok(()) };
        let page_tokens = self.page_tokens();
        let mut n_archived = self.selectable.n_archived();
        while n_archived > 0
            && (self.selectable.len() - n_archived + 1) * page_tokens <= limits.compressed_tokens
            && let Some(page) = self.selectable.get(n_archived - 1)
        {
            let kept = compressed.keep(&*page.open()?)?;
            let bytes = bytes_of(&kept) as u64;
            self.needs.traffic.record_move(TierKind::Archived, TierKind::Compressed, 1, bytes);
            n_archived -= 1;
            self.selectable.replace(n_archived, SelectablePage::Compressed(Arc::new(kept)));
        }
        Ok(())
    }

    /// Moves the last selectable page, of which a part may have been forgotten, back among the active ones.
    pub(super) fn activate_last(&mut self) -> Result<()> {
        let (Some(compressed), Some(last)) = (&self.needs.compressed, self.selectable.last()) else {
            return Ok(());
        };
        let mut page = self.needs.tier.reserve()?;
        match last {
            SelectablePage::Compressed(last) => compressed.restore(last, &mut page)?,
            SelectablePage::Archived(last) => last.restore(&mut page)?,
        }
        page.commit(self.page_tokens())?;
        self.needs.traffic.record_move(last.tier(), TierKind::Active, 1, bytes_of(&page) as u64);
        self.selectable.truncate(self.selectable.len() - 1);
        self.active.insert(SINKS, Arc::new(page));
        Ok(())
    }

    /// Compresses `page`, the active page that follows the selectable ones.
    pub(super) fn compress(&mut self, page: &PageHandle, layer: &LayerHandle) -> Result<()> {
        let Some(compressed) = &self.needs.compressed else { return Ok(()) };
        let mut summary = self.selectable.new_summary();
        if !summary.is_empty() {
            let start = self.selectable.start(self.selectable.len());
            layer.summarise(page, start, bytemuck::cast_slice_mut(&mut summary))?;
        }
        let kept = compressed.keep(page)?;
        self.needs.traffic.record_move(TierKind::Active, TierKind::Compressed, 1, bytes_of(&kept) as u64);
        self.selectable.push(SelectablePage::Compressed(Arc::new(kept)), &summary);
        Ok(())
    }

    /// Archives the oldest compressed page.
    fn archive_next(&mut self) -> Result<()> {
        let index = self.selectable.n_archived();
        if let (Some(archive), Some(SelectablePage::Compressed(page))) =
            (&self.needs.archive, self.selectable.get(index))
        {
            let stored = archive.store(page)?;
            let bytes = bytes_of(page) as u64;
            self.needs.traffic.record_move(TierKind::Compressed, TierKind::Archived, 1, bytes);
            self.selectable.replace(index, SelectablePage::Archived(Arc::new(stored)));
        }
        Ok(())
    }

    /// Makes this longer by `pages` pages, by copies between the sinks and the latest: of its selectable pages in turn, each in
    /// the tier in which its index puts it; or of its first page after the sinks where none is selectable. Their content is
    /// no text's.
    pub(crate) fn stretch(&mut self, pages: usize, limits: Limits) -> Result<()> {
        let n_selectable = self.selectable.len();
        let Some(compressed) = self.needs.compressed.clone().filter(|_| n_selectable > 0) else {
            return self.stretch_active(pages);
        };
        let room =
            (limits.compressed_tokens / self.page_tokens()).saturating_sub(self.selectable.n_compressed());
        let n_archived = if self.needs.archive.is_some() { pages.saturating_sub(room) } else { 0 };
        let copies = (0..pages).map(|index| {
            let from = index % n_selectable;
            let page = self.selectable.get(from).map(SelectablePage::open);
            let page = page.unwrap_or_else(|| Err(Error::invalid("there is no page to copy")))?;
            let copy = match self.needs.archive.as_ref().filter(|_| index < n_archived) {
                Some(archive) => SelectablePage::Archived(Arc::new(archive.store(&page)?)),
                None => SelectablePage::Compressed(Arc::new(compressed.keep(&page)?)),
            };
            Ok((copy, from))
        });
        let copies = copies.collect::<Result<Vec<_>>>()?;
        self.selectable.insert_copies(copies);
        Ok(())
    }

    fn stretch_active(&mut self, pages: usize) -> Result<()> {
        let few = || Error::invalid("a sequence of few tokens has no pages to make more of");
        let page = Arc::clone(self.active.get(SINKS).ok_or_else(few)?);
        for _ in 0..pages {
            let mut copy = self.needs.tier.reserve()?;
            copy.copy_from(&page)?;
            copy.commit(self.page_tokens())?;
            self.active.insert(SINKS, Arc::new(copy));
        }
        Ok(())
    }
}
