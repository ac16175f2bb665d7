//! Attention to earlier tokens' pages that others made: pages of 4-bit codes, and pages that the layer chooses among.

use std::ffi::c_void;
use std::ptr;

use herald_api::LayerKind;
use herald_api::abi::{
    AbiStruct, HERALD_PAGE_Q4, HERALD_STATUS_INTERNAL, HERALD_STATUS_INVALID_ARGUMENT, HERALD_STATUS_OK,
    HeraldError, HeraldFetch, HeraldSequence,
};

use super::battery::{any, make_case, outcome, with_noise};
use super::call::{Content, Manner, NAN_FILL, Part, sequences};
use super::compare::Expected;
use super::layer::{Layer, Maker, status_name};
use super::pages::Page;
use super::plan::Case;
use super::run::{Results, attention};
use super::structs::{Age, Structs};
use crate::guard::{Guarded, Place};
use crate::hooks::{Counters, Watch};
use crate::pool::Sharing;
use crate::values::Values;
use crate::{Fault, Outcome, Sink};

/// Tokens of a page.
const PAGE: usize = 16;

/// Earlier pages: the first, those to choose among, the latest.
const PAGES: usize = 14;

/// How many of those to choose among are fetched.
const FETCHED: usize = 4;

/// New tokens.
const TOKENS: usize = 5;

/// Checks what attention makes of earlier pages.
pub(super) fn check(maker: Maker<'_>, reference: Maker<'_>, sink: &mut Sink<'_>) {
    sink.check("attention, pages of 4-bit codes", || outcome(check_q4(maker, reference)));
    for max_distance in [0, 100] {
        let limit = if max_distance == 0 { "" } else { ", positions at most 100 apart" };
        sink.check(format!("attention, page selection{limit}"), || {
            outcome(check_selection(maker, reference, max_distance))
        });
    }
}

/// A layer with a sequence's earlier pages, and its new tokens.
struct Scene {
    case: Case,
    pages: Vec<Page>,
}

impl Scene {
    /// The layer's case with pages of this size, and random earlier pages.
    fn new(case: Case) -> Result<Self, Outcome> {
        let mut case = Case { page_tokens: PAGE, ..case };
        let hidden = case.desc.hidden;
        let mut values = Values::of("earlier pages");
        let herald_api::LayerParams::Attention(params) = &case.desc.params else {
            return Err(Outcome::Skipped("it is no attention".to_owned()));
        };
        let mut pages = Vec::new();
        for index in 0..PAGES {
            let mut page = Page::new(params, index * PAGE, PAGE, Place::High)?;
            let mut numbers = |dim: usize, offset: f32| -> Vec<f32> {
                // Keys have means of their own by page, so that pages differ by what attends to them.
                let mean: Vec<f32> = (0..dim).map(|_| offset * values.normal()).collect();
                let rows = 0..params.n_kv_heads * PAGE;
                rows.flat_map(|_| mean.iter().map(|mean| mean + values.normal()).collect::<Vec<_>>())
                    .collect()
            };
            page.fill(&[numbers(params.key_dim, 1.5), numbers(params.value_dim, 0.0)]);
            page.read_only();
            pages.push(page);
        }
        let past = PAGES * PAGE;
        let sequence = &mut case.sequences[0];
        sequence.x.truncate(TOKENS * hidden);
        sequence.residual.truncate(TOKENS * hidden);
        sequence.ids.truncate(TOKENS);
        sequence.positions = (past as u32..(past + TOKENS) as u32).collect();
        case.sequences.truncate(1);
        Ok(Self { case, pages })
    }

    /// Runs the new tokens over these earlier pages; `selection` chooses more of them.
    fn run(
        &self,
        layer: &Layer<'_>,
        case: &Case,
        earlier: &[&Page],
        selection: Option<&mut Selection<'_>>,
    ) -> Result<Results, Outcome> {
        let (past, end) = (PAGES * PAGE, PAGES * PAGE + TOKENS);
        let Some(params) = attention(layer) else { return Err(Outcome::Skipped(String::new())) };
        let own = Page::new(params, past, PAGE, Place::High)?;
        let before = own.snapshot();
        let pages = earlier.iter().copied().chain([&own]).map(|page| page.raw(end)).collect();
        let mut part = Part { n_tokens: TOKENS, past, pages, ..Part::default() };
        let mut kept = None;
        let fetch = match selection {
            Some(selection) => {
                selection.describe(&mut part);
                let scores = Guarded::new(
                    "the scores of HeraldFetch",
                    4 * selection.n_candidates() * layer.info.score_width as usize,
                    4,
                    Place::High,
                    NAN_FILL,
                )?;
                let fetch = selection.fetch(&part, &scores);
                kept = Some(scores);
                Some(fetch)
            }
            None => None,
        };
        let sequence = &case.sequences[0];
        let content = Content {
            n_tokens: TOKENS,
            ids: &[],
            positions: &sequence.positions,
            input: Some(&sequence.x),
            before: Some(&sequence.residual),
            parts: &[part],
            fetch: fetch.as_ref(),
        };
        let manner = Manner { sharing: Sharing::Ragged(3), ..Manner::PLAIN };
        let output = layer.forward(&content, manner)?;
        own.check_written(&before, past..end)?;
        kept.iter().try_for_each(Guarded::check_beside)?;
        Ok(Results { outputs: vec![output], before: vec![sequence.residual.clone()], pages: Vec::new() })
    }
}

fn check_q4(maker: Maker<'_>, reference: Maker<'_>) -> Result<String, Outcome> {
    let (scene, layer, reference) = scene(maker, reference)?;
    let reads = |layer: &Layer<'_>| layer.info.page_formats & (1 << HERALD_PAGE_Q4) != 0;
    if !reads(&layer) {
        return Err(Outcome::Skipped("it doesn't say that it reads them".to_owned()));
    }
    if !reads(&reference) {
        return Err(Outcome::Skipped("the reference doesn't read them".to_owned()));
    }
    // Every other page, so that both formats stand beside each other.
    let quantised = scene.pages.iter().map(|page| page.to_q4(Place::High));
    let quantised = quantised.collect::<Result<Vec<_>, _>>()?;
    let mixed: Vec<&Page> = scene
        .pages
        .iter()
        .zip(&quantised)
        .enumerate()
        .map(|(i, (a, b))| if i % 3 == 0 { a } else { b })
        .collect();
    let run = |layer: &Layer<'_>, case: &Case| scene.run(layer, case, &mixed, None);
    let noisy =
        [run(&reference, &with_noise(&scene.case, 1))?, run(&reference, &with_noise(&scene.case, 2))?];
    let expected = Expected::new(&run(&reference, &scene.case)?, &noisy, layer.output_width());
    let distance = expected.check(&run(&layer, &scene.case)?, "over pages of 4-bit codes")?;
    Ok(format!("off by {:.1e}", distance.off))
}

/// Earlier pages for a layer that both the plugin and the reference make.
fn scene<'p>(maker: Maker<'p>, reference: Maker<'p>) -> Result<(Scene, Layer<'p>, Layer<'p>), Outcome> {
    let (case, _) = any(maker, LayerKind::Attention)?;
    let scene = Scene::new(case)?;
    let refused =
        |refusal: super::layer::Refusal| Outcome::Skipped(format!("not offered: {}", refusal.sentence));
    let layer = make_case(maker, &scene.case)?.map_err(refused)?;
    let reference = make_case(reference, &scene.case)?.map_err(refused)?;
    Ok((scene, layer, reference))
}

/// Pages that a layer chooses among, and what came of it.
struct Selection<'s> {
    candidates: Vec<&'s Page>,
    summaries: Vec<u8>,
    max_distance: usize,
    score_width: usize,
    part: Part,
    scores: *const f32,
    /// Those that are fetched: the best by the layer's scores, where it isn't told beforehand.
    chosen: Option<Vec<usize>>,
    calls: usize,
    failed: Option<Outcome>,
    structs: Structs,
    kept: Vec<Guarded>,
}

impl<'s> Selection<'s> {
    fn new(
        layer: &Layer<'_>,
        candidates: &'s [Page],
        max_distance: usize,
        chosen: Option<Vec<usize>>,
    ) -> Result<Self, Outcome> {
        let mut summaries = Vec::new();
        for page in candidates {
            summaries.extend(summarise(layer, page)?);
        }
        Ok(Self {
            candidates: candidates.iter().collect(),
            summaries,
            max_distance,
            score_width: layer.info.score_width as usize,
            part: Part::default(),
            scores: ptr::null(),
            chosen,
            calls: 0,
            failed: None,
            structs: Structs::new(Age::Today),
            kept: Vec::new(),
        })
    }

    fn n_candidates(&self) -> usize {
        self.candidates.len()
    }

    fn describe(&self, part: &mut Part) {
        let starts = self.candidates.iter().map(|page| page.start as u64).collect();
        part.selectable = Some((starts, self.summaries.clone()));
        part.max_distance = self.max_distance;
    }

    fn fetch(&mut self, part: &Part, scores: &Guarded) -> HeraldFetch {
        self.part = Part {
            n_tokens: part.n_tokens,
            past: part.past,
            pages: part.pages.clone(),
            max_distance: part.max_distance,
            selectable: part.selectable.clone(),
            state: None,
        };
        self.scores = scores.pointer().cast_const().cast();
        HeraldFetch {
            context: ptr::from_mut(self).cast(),
            scores: scores.pointer().cast(),
            n_scores: self.n_candidates() * self.score_width,
            run: Some(fetch),
            ..AbiStruct::empty()
        }
    }

    /// Puts the best pages among the others; returns the new list.
    fn choose(&mut self) -> Result<*const *const HeraldSequence, Outcome> {
        self.calls += 1;
        // SAFETY: the scores' buffer has at least one element for each candidate, and lives as long as the call.
        let scores = unsafe { std::slice::from_raw_parts(self.scores, self.n_candidates()) };
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            let sentence = format!("the score of selectable page {at} is {}", scores[at]);
            return Err(Outcome::Failed(Fault::NotFinite, sentence));
        }
        let best = || {
            let mut order: Vec<usize> = (0..scores.len()).collect();
            order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            order.truncate(FETCHED);
            order
        };
        let chosen = self.chosen.get_or_insert_with(best);
        let end = self.part.past + self.part.n_tokens;
        self.part.pages.extend(chosen.iter().map(|index| self.candidates[*index].raw(end)));
        self.part.pages.sort_by_key(|page| page.start);
        sequences(std::slice::from_ref(&self.part), &mut self.structs, &mut self.kept)
    }
}

unsafe extern "C" fn fetch(
    context: *mut c_void,
    to: *mut *const *const HeraldSequence,
    _: *mut HeraldError,
) -> u32 {
    // SAFETY: nothing of this function is the plugin's: it isn't watched meanwhile.
    let _watch = unsafe { Watch::begin(ptr::null()) };
    // SAFETY: the plugin's contract: the context that it was lent, on the call's thread.
    let selection = unsafe { &mut *context.cast::<Selection<'_>>() };
    if to.is_null() {
        return HERALD_STATUS_INVALID_ARGUMENT;
    }
    match selection.choose() {
        Ok(list) => {
            // SAFETY: the plugin's own variable.
            unsafe { to.write(list) };
            HERALD_STATUS_OK
        }
        Err(outcome) => {
            selection.failed.get_or_insert(outcome);
            HERALD_STATUS_INTERNAL
        }
    }
}

/// Has the layer summarise a whole page.
fn summarise(layer: &Layer<'_>, page: &Page) -> Result<Vec<u8>, Outcome> {
    let bytes = layer.info.summary_bytes as usize;
    let into = Guarded::new("a page's summary", bytes, 8, Place::High, 0)?;
    let mut structs = Structs::new(Age::Today);
    let raw = structs.one(&page.raw(page.start + page.capacity))?;
    let Some(summarise) = layer.maker.table.summarise else {
        return Err(Outcome::Skipped("it makes no summaries".to_owned()));
    };
    let answer = layer.maker.call(true, "summarise", &Counters::default(), |error| {
        // SAFETY: the ABI's contract: a whole page, and room for a summary.
        unsafe { summarise(layer.raw(), raw, into.pointer().cast(), error) }
    })?;
    answer.map_err(|refusal| {
        let sentence = format!("summarise answered {}: {}", status_name(refusal.status), refusal.sentence);
        Outcome::Failed(Fault::Refuses, sentence)
    })?;
    into.check_beside()?;
    Ok(into.bytes().to_vec())
}

/// Whether the layer does page selection.
fn selects(layer: &Layer<'_>) -> bool {
    layer.maker.table.summarise.is_some() && layer.info.score_width > 0 && layer.info.summary_bytes > 0
}

fn check_selection(maker: Maker<'_>, reference: Maker<'_>, max_distance: usize) -> Result<String, Outcome> {
    let (scene, layer, reference) = scene(maker, reference)?;
    if !selects(&layer) {
        return Err(Outcome::Skipped("it does none".to_owned()));
    }
    if !selects(&reference) {
        return Err(Outcome::Skipped("the reference does none".to_owned()));
    }
    let candidates = &scene.pages[1..PAGES - 1];
    let near = [&scene.pages[0], &scene.pages[PAGES - 1]];
    let mut own = Selection::new(&layer, candidates, max_distance, None)?;
    let results = scene.run(&layer, &scene.case, &near, Some(&mut own));
    if let Some(failed) = own.failed.take() {
        return Err(failed);
    }
    let results = results?;
    if own.calls != 1 {
        let sentence =
            format!("it called HeraldFetch.run {} times in a call, where once was expected", own.calls);
        return Err(Outcome::Failed(Fault::WrongStatus, sentence));
    }
    let chosen = own.chosen.clone();
    let run = |case: &Case| {
        let mut same = Selection::new(&reference, candidates, max_distance, chosen.clone())?;
        scene.run(&reference, case, &near, Some(&mut same))
    };
    let noisy = [run(&with_noise(&scene.case, 1))?, run(&with_noise(&scene.case, 2))?];
    let expected = Expected::new(&run(&scene.case)?, &noisy, layer.output_width());
    let distance = expected.check(&results, "over the pages that it chose")?;
    Ok(format!("off by {:.1e}", distance.off))
}
