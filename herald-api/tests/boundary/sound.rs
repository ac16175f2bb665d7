//! No safe call breaks memory: what would have a plugin read or write past what there is, is refused on this side.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use herald_api::abi::*;
use herald_api::import::{Batch, BatchBuffers, Fetcher, Forward, LayerHandle, PageHandle, PageUse};
use herald_api::{AlignedBytes, MemoryTier, Parallel, Result, TierConfig, TierKind};

use crate::plugin::{SCRATCH_BYTES, STATE_BYTES};
use crate::support::*;
use crate::works::Held;

/// How many pages a tier says that it has, asked with this much room, and the ids that it writes.
type Listing = (fn(usize) -> usize, &'static [u64]);

thread_local! {
    static LISTED: Cell<Listing> = const { Cell::new((|_| 0, &[])) };
    /// The starts of the pages that a layer saw: at first, after it fetched some, and at last in the list that it had at first.
    static SEEN: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "C" fn lists(
    _: *mut HeraldTier,
    ids: *mut u64,
    room: usize,
    n: *mut usize,
    _: *mut HeraldError,
) -> u32 {
    let (says, listed) = LISTED.get();
    // SAFETY: the host's buffer has this much room, and its place for the number.
    unsafe {
        listed.iter().take(room).enumerate().for_each(|(index, id)| ids.add(index).write(*id));
        n.write(says(room));
    }
    0
}

fn archive(says: fn(usize) -> usize, ids: &'static [u64]) -> Result<herald_api::import::TierHandle> {
    LISTED.set((says, ids));
    let mut tables = Tables::new();
    tables.tiers.list = Some(lists);
    let config = TierConfig { kind: TierKind::Archived, ..tier_config() };
    tables.load().expect("a plugin").create_tier(&config)
}

/// Numbers that no archive can hold are refused before there is memory for them, and lists come to an end.
#[test]
fn a_tier_that_lies_about_its_pages() {
    let many = "pages, where at most 16777216 were expected";
    for says_that in [|_| 1 << 61, |_| 1 << 42, |_| usize::MAX, |_| (1 << 24) + 1] as [fn(usize) -> usize; 4]
    {
        says(archive(says_that, &[]), many);
    }
    says(archive(|room| room + 1, &[]), "8 times in a row that it holds more pages than before");
    says(archive(|room| 4 * room + 1, &[]), "8 times in a row");
    says(archive(|_| 3, &[4, 7, 4]), "lists the page 4 twice");
    says(archive(|_| 2, &[]), "lists the page 0 twice");
    says(archive(|_| 2, &[5, u64::MAX]), "lists a page 18446744073709551615, where numbers below");
}

/// A tier in Rust has every function of the table, also those that it doesn't offer.
#[test]
fn an_archive_that_cannot_list_is_one_that_found_nothing() {
    unsafe extern "C" fn unsupported(
        _: *mut HeraldTier,
        _: *mut u64,
        _: usize,
        _: *mut usize,
        _: *mut HeraldError,
    ) -> u32 {
        HERALD_STATUS_UNSUPPORTED
    }
    let mut tables = Tables::new();
    tables.tiers.list = Some(unsupported);
    let config = TierConfig { kind: TierKind::Archived, ..tier_config() };
    let tier = tables.load().expect("a plugin").create_tier(&config).expect("the tier");
    assert!(tier.take_found().is_empty());
}

#[test]
fn a_page_in_a_file_has_one_owner() {
    let tier = archive(|_| 2, &[9, 3]).expect("the tier");
    let found = tier.take_found();
    assert_eq!((found.len(), tier.take_found().len()), (2, 0));
    assert_eq!(tier.stats().pages, 0, "the plugin has none of them");
    let page = tier.reserve().expect("a page with a new id");
    assert_eq!(by_id(&tier).get(10, &mut [0; 64], &mut [0; 80]).map_err(|error| error.to_string()), Ok(0));
    drop((found, page));
    assert_eq!(tier.stats().pages, 0);
}

/// An active tier is given pages as attention writes them, never those of another format, which are shorter.
#[test]
fn a_tier_is_given_pages_of_its_own_formats() {
    let config = TierConfig { page_tokens: 64, ..tier_config() };
    let tier = loaded().create_tier(&config).expect("the tier");
    let (keys, values) = config.q4_page_bytes().expect("small");
    let start = keys.next_multiple_of(AlignedBytes::ALIGN);
    let page = PageHandle::of_bytes(&config, AlignedBytes::zeroed(start + values).expect("memory"));
    let page = page.expect("a page");
    says(tier.store(&page), "has format 3");
    says(tier.keep(&page), "has format 3");
}

#[test]
fn numbers_past_those_of_the_abi() {
    let past = u32::MAX as usize + 5;
    let plugin = loaded();
    let change = |change: fn(&mut herald_api::import::LayerSpec, usize)| {
        let mut spec = attention_spec();
        change(&mut spec, past);
        plugin.create_layer(spec, Parallel::serial())
    };
    says(change(|spec, past| spec.max_tokens = past), "4294967300 tokens, where at most 4294967295");
    says(change(|spec, past| spec.max_workers = past), "4294967300 workers");
    says(change(|spec, past| spec.page_tokens = past), "4294967300 tokens of a page");
    says(change(|spec, past| spec.desc.hidden = past), "numbers past those of the ABI");
    says(
        change(|spec, _| spec.weights[0].dims = vec![5]),
        "has 16 bytes, which are no F32 of dimensions [5]",
    );
    says(change(|spec, _| spec.weights[0].dims = vec![2, 1 << 63, 2]), "which are no F32");
    says(change(|spec, _| spec.weights[0].dims = vec![4, 1, 1, 1, 1]), "which are no F32");
    says(change(|spec, _| spec.weights[0].dims.clear()), "which are no F32");
    let mut head = head_spec();
    head.desc.params =
        herald_api::LayerParams::Head(herald_api::Head { vocabulary: past, scale: 1.0, softcap: None });
    says(plugin.create_layer(head, Parallel::serial()), "numbers past those of the ABI");
    for tier in
        [TierConfig { n_kv_heads: past, ..tier_config() }, TierConfig { page_tokens: past, ..tier_config() }]
    {
        says(plugin.create_tier(&tier), "where at most 4294967295 were expected");
    }
}

unsafe extern "C" fn chooses(_: *const HeraldLayer, out: *mut HeraldLayerInfo, _: *mut HeraldError) -> u32 {
    // SAFETY: the host's struct.
    let out = unsafe { &mut *out };
    (out.scratch_bytes, out.state_bytes) = (SCRATCH_BYTES as u64, STATE_BYTES as u64);
    (out.score_width, out.summary_bytes) = (1, 8);
    0
}

fn starts(list: *const *const HeraldSequence) -> Vec<u64> {
    // SAFETY: the host's list of one sequence with its pages.
    unsafe {
        let sequence = &**list;
        (0..sequence.n_pages).map(|index| (**sequence.pages.add(index)).start).collect()
    }
}

/// Fetches, looks at both lists, and fetches again.
unsafe extern "C" fn fetches(_: *const HeraldLayer, call: *const HeraldCall, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's call, with page selection.
    unsafe {
        let (call, fetch) = (&*call, &*(*call).fetch);
        std::slice::from_raw_parts_mut(fetch.scores, fetch.n_scores).fill(1.0);
        let (mut list, run) = (std::ptr::null(), fetch.run.expect("a function"));
        let mut seen = vec![starts(call.sequences)];
        let status = run(fetch.context, &mut list, error);
        if status != HERALD_STATUS_OK {
            return status;
        }
        seen.extend([starts(list), starts(call.sequences)]);
        SEEN.set(seen);
        run(fetch.context, &mut list, error)
    }
}

/// Brings these pages.
struct Brings(Vec<(usize, Arc<PageHandle>)>);

impl Fetcher for Brings {
    fn fetch(&mut self, scores: &[f32], batch: &mut Batch<'_>) -> Result<()> {
        assert_eq!(scores, [1.0]);
        self.0.drain(..).try_for_each(|(start, page)| batch.add_fetched(0, start, page))
    }
}

fn choosing() -> LayerHandle {
    let mut tables = Tables::new();
    tables.layers.info = Some(chooses);
    tables.layers.forward = Some(fetches);
    let plugin = tables.load().expect("a plugin");
    plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer")
}

/// Runs two tokens after eight, with a selectable page at the start that has `summaries`.
fn select(layer: &LayerHandle, summaries: &[u64], mut brings: Brings) -> Result<()> {
    let mut held = Held::new(&loaded(), 1);
    let mut buffers = BatchBuffers::default();
    let mut batch = buffers.begin();
    batch.push(2, 8, Some(&mut held.state), held.pages.iter_mut().map(|page| (8, PageUse::Own(page))))?;
    // SAFETY: any numbers are bytes.
    let bytes = unsafe { summaries.align_to::<u8>().1 };
    batch.selectable_pages(&[0], bytes);
    let request = Forward {
        n_tokens: 2,
        tokens: &[],
        positions: &[8, 9],
        input: None,
        output: &mut [0.0; 2 * HIDDEN],
        parallel: Parallel::serial(),
    };
    let mut scratch = AlignedBytes::zeroed(SCRATCH_BYTES)?;
    layer.forward_fetching(request, Some(&mut batch), &mut scratch, Some(&mut brings))
}

fn page(config: &TierConfig) -> Arc<PageHandle> {
    Arc::new(loaded().create_tier(config).expect("the tier").reserve().expect("a page"))
}

#[test]
fn fetched_pages_are_checked_and_the_first_list_stays() {
    let layer = choosing();
    let fetched = || (0..2).map(|index| (index * PAGE_TOKENS, page(&tier_config()))).collect();
    says(select(&layer, &[0], Brings(fetched())), "HeraldFetch was called twice");
    assert_eq!(SEEN.take(), [vec![8], vec![0, 4, 8], vec![8]]);
    let other = TierConfig { key_dim: KEY_DIM - 1, ..tier_config() };
    says(select(&layer, &[0], Brings(vec![(0, page(&other))])), "bytes of keys and");
    says(select(&layer, &[0], Brings(vec![(5, page(&tier_config()))])), "a page at token 5 was fetched");
    says(
        select(&layer, &[0], Brings(vec![(usize::MAX, page(&tier_config()))])),
        "was fetched for a sequence of 8",
    );
    let twice = vec![(0, page(&tier_config())), (2, page(&tier_config()))];
    says(select(&layer, &[0], Brings(twice)), "where it was to begin at 4 or later");
    assert!(SEEN.take().is_empty());
}

#[test]
fn summaries_are_as_many_as_their_pages() {
    let layer = choosing();
    for summaries in [&[][..], &[0, 0]] {
        let words = "bytes of summaries of 1 selectable pages, where 8 each were expected";
        says(select(&layer, summaries, Brings(Vec::new())), words);
    }
    let plain = loaded().create_layer(attention_spec(), Parallel::serial()).expect("the layer");
    says(
        select(&plain, &[0], Brings(Vec::new())),
        "8 bytes of summaries of 1 selectable pages, where 0 each",
    );
    // A page of another shape is not summarised: the plugin would read past its end.
    let other = page(&TierConfig { page_tokens: PAGE_TOKENS, key_dim: 1, ..tier_config() });
    let mut summary = [0_u64];
    // SAFETY: any bytes are a number.
    let bytes = unsafe { summary.align_to_mut::<u8>().1 };
    says(layer.summarise(&other, 0, bytes), "was to be summarised");
}
