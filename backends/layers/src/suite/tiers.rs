//! A plugin's memory tiers: what goes in comes out, and what they say they hold is what they hold. The active tier is
//! required; the compressed and the archived one are checked where the plugin offers them.

use herald_api::import::{Plugin, TierById, TierHandle};
use herald_api::{
    AlignedBytes, Error, MemoryTier, Page, Result, Status, TierConfig, TierKind, TierStats, abi,
};
use ndarray::Array3;

use super::values::Values;

const HEADS: usize = 2;
const KEY_DIM: usize = 6;
const VALUE_DIM: usize = 5;
const PAGE_TOKENS: usize = 7;

fn config(capacity_bytes: Option<u64>) -> TierConfig {
    TierConfig {
        kind: TierKind::Active,
        n_kv_heads: HEADS,
        key_dim: KEY_DIM,
        value_dim: VALUE_DIM,
        page_tokens: PAGE_TOKENS,
        state_bytes: 0,
        capacity_bytes,
        path: None,
        lz4: false,
    }
}

fn made(plugin: &Plugin, config: &TierConfig) -> TierHandle {
    plugin.create_tier(config).unwrap_or_else(|error| panic!("{}: {config:?}: {error}", plugin.name()))
}

/// A tier by its pages' ids.
fn made_by_id(plugin: &Plugin, config: &TierConfig) -> TierById {
    // SAFETY: no handles are made of its pages, and threads use pages of their own.
    unsafe { made(plugin, config).by_id() }
}

/// Bytes of a page as a tier takes them: aligned keys and values.
struct Bytes {
    keys: AlignedBytes,
    values: AlignedBytes,
}

impl Bytes {
    fn random(keys: usize, values: usize, seed: u64) -> Self {
        let mut from = Values::new(seed);
        let mut aligned = |len: usize| {
            let mut bytes = AlignedBytes::zeroed(len).expect("memory for a small page");
            bytes.copy_from_slice(&from.bytes(len));
            bytes
        };
        Self { keys: aligned(keys), values: aligned(values) }
    }

    /// The bytes of a page of [`config`].
    fn of_page(seed: u64) -> Self {
        Self::random(HEADS * PAGE_TOKENS * (4 + 2 * KEY_DIM), HEADS * PAGE_TOKENS * (4 + 2 * VALUE_DIM), seed)
    }

    fn page(&self, n_tokens: usize) -> Page<'_> {
        Page::new(abi::HERALD_PAGE_I16, n_tokens, PAGE_TOKENS, &self.keys, &self.values)
            .expect("a sound page")
    }
}

/// A page's tokens, keys and values, as the tier gives them back.
fn get(tier: &TierById, id: u64, keys: usize, values: usize) -> Result<(usize, Vec<u8>, Vec<u8>)> {
    let (mut keys, mut values) = (vec![0xaa; keys], vec![0xaa; values]);
    let n_tokens = tier.get(id, &mut keys, &mut values)?;
    Ok((n_tokens, keys, values))
}

fn status<T>(result: Result<T>) -> Option<Status> {
    result.err().as_ref().map(Error::status)
}

pub(super) fn check(plugin: &Plugin) {
    assert!(
        plugin.tier_kinds().contains(&TierKind::Active),
        "{} offers no active memory tier to check",
        plugin.name()
    );
    check_pages(plugin);
    check_views(plugin);
    check_states(plugin);
    check_capacity(plugin);
    check_search(plugin);
    check_refusals(plugin);
    check_threads(plugin);
    if plugin.tier_kinds().contains(&TierKind::Compressed) {
        check_compressed(plugin);
    }
    if plugin.tier_kinds().contains(&TierKind::Archived) {
        check_archived(plugin);
    }
}

/// A page in a file has the codes that a compressed one has, whether or not LZ4 made them smaller, until it is dropped.
fn check_archived(plugin: &Plugin) {
    let folder = tempfile::tempdir().expect("a folder");
    let handles = made(plugin, &TierConfig { kind: TierKind::Compressed, ..config(None) });
    // SAFETY: no page of it gets a handle.
    let compressed = unsafe { handles.by_id() };
    let mut of_zeros = Bytes::of_page(20);
    of_zeros.keys.fill(0);
    of_zeros.values.fill(0);
    let mut random = Bytes::of_page(21);
    for part in [&mut random.keys, &mut random.values] {
        let scales: &mut [f32] = bytemuck::cast_slice_mut(&mut part[..4 * HEADS * PAGE_TOKENS]);
        scales.iter_mut().enumerate().for_each(|(slot, scale)| *scale = (slot + 1) as f32 / 1e6);
    }
    let (keys, values) = config(None).q4_page_bytes().expect("a small page");
    for (name, lz4) in [("", false), ("", true), ("pages", false), ("pages.lz4", true)] {
        let path = Some(folder.path().join(name));
        let config = TierConfig { kind: TierKind::Archived, path, lz4, ..config(None) };
        let tier = made_by_id(plugin, &config);
        for (id, bytes) in [(1, &of_zeros), (2, &random)] {
            let exact = bytes.page(PAGE_TOKENS);
            tier.put(id, Some(&exact)).expect("a page");
            let handle = handles.reserve();
            assert!(handle.is_err(), "codes are not written in place");
            compressed.put(id, Some(&exact)).expect("a page");
            for wait in [false, true] {
                if wait {
                    tier.flush().expect("written");
                }
                let [a, b] = [&tier, &compressed].map(|tier| {
                    let seen = tier.view(id).expect("its page");
                    assert_eq!((seen.format(), seen.n_tokens()), (abi::HERALD_PAGE_Q4, PAGE_TOKENS));
                    assert_eq!((seen.keys().1, seen.values().1), (keys, values));
                    for start in [seen.keys().0, seen.values().0] {
                        assert!((start as usize).is_multiple_of(AlignedBytes::ALIGN), "{start:p}");
                    }
                    // SAFETY: the tier holds that many bytes there until the page is released.
                    unsafe {
                        (
                            std::slice::from_raw_parts(seen.keys().0, seen.keys().1),
                            std::slice::from_raw_parts(seen.values().0, seen.values().1),
                        )
                    }
                });
                assert!(a == b, "an archived page is another than the compressed one");
                tier.release(id).expect("its page");
            }
            let whole = |tier| get(tier, id, bytes.keys.len(), bytes.values.len()).expect("its page");
            assert!(whole(&tier) == whole(&compressed), "a page that came back");
        }
        let query = [1.0; HEADS * KEY_DIM];
        assert_eq!(tier.search(&query, &[1, 2], 2), compressed.search(&query, &[1, 2], 2));
        assert_eq!(status(tier.view(3)), Some(Status::NotFound));
        assert_eq!(status(tier.put(1, Some(&random.page(1)))), Some(Status::InvalidArgument), "the same id");
        assert_eq!(status(tier.put(3, None)), Some(Status::Unsupported), "an empty page");
        let stats = tier.stats();
        assert_eq!((stats.pages, stats.tokens, stats.damaged), (2, 2 * PAGE_TOKENS as u64, 0), "{stats:?}");
        tier.drop_page(1).expect("its page");
        assert_eq!(status(tier.release(1)), Some(Status::NotFound));
        assert_eq!(tier.list(), Ok(vec![2]));
        for id in [1, 2] {
            compressed.drop_page(id).expect("its page");
        }
    }
    let nowhere = TierConfig { kind: TierKind::Archived, path: None, ..config(None) };
    assert!(plugin.create_tier(&nowhere).is_err(), "an archive without a file");
}

/// Pages come back from 4-bit codes to within half a step of each element's group, whichever way they come back.
fn check_compressed(plugin: &Plugin) {
    let config = TierConfig { kind: TierKind::Compressed, page_tokens: 70, ..config(None) };
    let tier = made_by_id(plugin, &config);
    let (key_bytes, value_bytes) = config.page_bytes().expect("a small page");
    let page_bytes = config.q4_page_bytes().expect("a small page");
    let mut random = Values::new(11);
    let mut part = |dim: usize, len: usize| {
        let mut bytes = AlignedBytes::zeroed(len).expect("memory");
        let (scales, codes) = bytes.split_at_mut(4 * HEADS * 70);
        bytemuck::cast_slice_mut::<_, f32>(scales).fill_with(|| random.between(0.1, 1.0) / 32768.0);
        bytemuck::cast_slice_mut::<_, i16>(codes).fill_with(|| random.bits() as i16);
        let element = move |bytes: &[u8], row: usize, column: usize| {
            let (scales, codes) = bytes.split_at(4 * HEADS * 70);
            let number = |at: usize, bytes: &[u8]| i16::from_ne_bytes([bytes[2 * at], bytes[2 * at + 1]]);
            let scale: [u8; 4] = scales[4 * row..4 * row + 4].try_into().expect("four bytes");
            f32::from_ne_bytes(scale) * f32::from(number(row * dim + column, codes))
        };
        (bytes, element)
    };
    let (keys, key) = part(KEY_DIM, key_bytes);
    let (values, value) = part(VALUE_DIM, value_bytes);
    let page = Page::new(abi::HERALD_PAGE_I16, 70, 70, &keys, &values).expect("a sound page");
    tier.put(1, Some(&page)).expect("a page");
    let seen = tier.view(1).expect("its page");
    assert_eq!(
        (seen.format(), seen.keys().1, seen.values().1),
        (abi::HERALD_PAGE_Q4, page_bytes.0, page_bytes.1)
    );
    // SAFETY: the tier holds that many bytes there until the page is dropped.
    let [seen_keys, seen_values] = unsafe {
        [
            std::slice::from_raw_parts(seen.keys().0, seen.keys().1),
            std::slice::from_raw_parts(seen.values().0, seen.values().1),
        ]
    };
    let own = Page::new(abi::HERALD_PAGE_Q4, 70, 70, seen_keys, seen_values).expect("a sound page");
    tier.put(2, Some(&own)).expect("a page in the tier's own format");
    for id in [1, 2] {
        let (n_tokens, got_keys, got_values) = get(&tier, id, key_bytes, value_bytes).expect("its page");
        assert_eq!(n_tokens, 70);
        let parts = [
            (
                KEY_DIM,
                [herald_api::Q4_GROUP, 1],
                &keys,
                got_keys,
                &key as &dyn Fn(&[u8], usize, usize) -> f32,
            ),
            (VALUE_DIM, [1, herald_api::Q4_GROUP], &values, got_values, &value),
        ];
        for (dim, group, original, got, element) in parts {
            for (head, slot, column) in
                (0..HEADS).flat_map(|h| (0..70).flat_map(move |s| (0..dim).map(move |c| (h, s, c))))
            {
                let first = [slot / group[0] * group[0], column / group[1] * group[1]];
                let near = (first[0]..(first[0] + group[0]).min(70))
                    .flat_map(|s| (first[1]..(first[1] + group[1]).min(dim)).map(move |c| (s, c)))
                    .map(|(s, c)| element(original, head * 70 + s, c));
                let (min, max) =
                    near.fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
                // Half a step; float16 rounds the step and the offset (2^-11 each), and int16 the way back.
                let bound = (max - min) / 30.0 + (max - min + min.abs()) * 1.1e-3 + 4e-5;
                let (a, b) =
                    (element(original, head * 70 + slot, column), element(&got, head * 70 + slot, column));
                assert!(
                    (a - b).abs() <= bound,
                    "{a} came back as {b}, where at most {bound} between was expected"
                );
            }
        }
    }
    assert_eq!(status(tier.put(3, None)), Some(Status::Unsupported), "an empty page of codes");
    let found = tier.search(&[1.0; HEADS * KEY_DIM], &[1, 2], 2).expect("two pages");
    assert!(found.len() == 2 && found[0].score == found[1].score, "{found:?}");
    assert_eq!(tier.stats().pages, 2);
}

fn check_pages(plugin: &Plugin) {
    let tier = made_by_id(plugin, &config(None));
    assert_eq!(tier.stats(), TierStats::default(), "a new tier's stats");
    let (a, b) = (Bytes::of_page(1), Bytes::of_page(2));
    tier.put(5, Some(&a.page(3))).expect("a page");
    tier.put(u64::MAX, Some(&b.page(PAGE_TOKENS))).expect("a page with the largest id");
    tier.put(0, None).expect("an empty page");
    for (id, n_tokens, bytes) in [(5, 3, &a), (u64::MAX, PAGE_TOKENS, &b)] {
        let (tokens, keys, values) = get(&tier, id, bytes.keys.len(), bytes.values.len()).expect("its page");
        assert_eq!(tokens, n_tokens, "tokens of page {id}");
        assert!(keys == *bytes.keys && values == *bytes.values, "page {id} came back changed");
    }
    let (tokens, keys, values) = get(&tier, 0, a.keys.len(), a.values.len()).expect("the empty page");
    assert!(tokens == 0 && keys.iter().chain(&values).all(|byte| *byte == 0), "an empty page is zeros");
    let stats = tier.stats();
    assert_eq!((stats.pages, stats.tokens, stats.hits, stats.misses), (3, 10, 3, 0), "{stats:?}");
    assert!(stats.bytes >= 3 * (a.keys.len() + a.values.len()) as u64, "{stats:?}");

    let other = get(&tier, 5, a.keys.len() + 8, a.values.len());
    assert!(status(other).is_some(), "a buffer of another size than the page's was filled");

    tier.commit(0, 4).expect("tokens of the empty page");
    tier.commit(5, 1).expect("fewer tokens");
    assert_eq!(tier.stats().tokens, 4 + 1 + PAGE_TOKENS as u64);
    assert_eq!(get(&tier, 0, a.keys.len(), a.values.len()).map(|page| page.0), Ok(4));

    tier.drop_page(5).expect("a page that it holds");
    assert_eq!(status(tier.drop_page(5)), Some(Status::NotFound), "a page dropped twice");
    assert_eq!(status(get(&tier, 5, a.keys.len(), a.values.len())), Some(Status::NotFound), "a dropped page");
    let after = tier.stats();
    assert_eq!((after.pages, after.misses), (2, 1), "{after:?}");
    assert_eq!(after.bytes * 3, stats.bytes * 2, "the bytes of two pages of three: {after:?}");
    tier.put(5, Some(&b.page(2))).expect("an id that is free again");
    assert_eq!(get(&tier, 5, b.keys.len(), b.values.len()).map(|page| page.1), Ok(b.keys.to_vec()));
}

fn check_views(plugin: &Plugin) {
    let tier = made_by_id(plugin, &config(None));
    let (old, new) = (Bytes::of_page(3), Bytes::of_page(4));
    tier.put(1, Some(&old.page(2))).expect("a page");
    let seen = tier.view(1).expect("its page");
    assert_eq!(seen.format(), abi::HERALD_PAGE_I16, "an active page's format");
    assert_eq!((seen.n_tokens(), seen.keys().1, seen.values().1), (2, old.keys.len(), old.values.len()));
    for (start, what) in [(seen.keys().0, "keys"), (seen.values().0, "values")] {
        assert!(
            !start.is_null() && (start as usize).is_multiple_of(AlignedBytes::ALIGN),
            "{what} at {start:p}"
        );
    }
    // Other pages come and go; this one stays where it is.
    for id in 2..200 {
        tier.put(id, None).expect("another page");
    }
    let again = tier.view(1).expect("its page");
    assert!(
        (again.keys().0, again.values().0) == (seen.keys().0, seen.values().0),
        "a page moved while its tier grew"
    );
    // SAFETY: the tier holds that many bytes there until the page is dropped, and nobody else uses them.
    let [keys, values] = unsafe {
        [
            std::slice::from_raw_parts_mut(seen.keys().0, seen.keys().1),
            std::slice::from_raw_parts_mut(seen.values().0, seen.values().1),
        ]
    };
    assert!(*keys == *old.keys && *values == *old.values, "a page seen in place");
    keys.copy_from_slice(&new.keys);
    values.copy_from_slice(&new.values);
    let (_, keys, values) = get(&tier, 1, new.keys.len(), new.values.len()).expect("its page");
    assert!(keys == *new.keys && values == *new.values, "a page written in place");
    assert_eq!(status(tier.view(1000)), Some(Status::NotFound), "a view of an unknown page");

    let stats = tier.stats();
    assert_eq!((stats.hits, stats.misses), (3, 1), "views and gets count alike: {stats:?}");

    let tier = made(plugin, &config(None));
    let mut reserved = tier.reserve().expect("a page to write");
    reserved.commit(2).expect("tokens");
    assert_eq!((tier.stats().pages, tier.stats().tokens), (1, 2), "a reserved page");
    drop(reserved);
    assert_eq!((tier.stats().pages, tier.stats().tokens), (0, 0), "a page goes with its handle");
}

fn check_states(plugin: &Plugin) {
    // An odd size, for a state is any bytes.
    let config = TierConfig {
        n_kv_heads: 0,
        key_dim: 0,
        value_dim: 0,
        page_tokens: 1,
        state_bytes: 133,
        ..config(None)
    };
    let tier = made_by_id(plugin, &config);
    let bytes = Bytes::random(133, 0, 5);
    let state = Page::new(abi::HERALD_PAGE_OPAQUE, 1, 1, &bytes.keys, &[]).expect("a sound state");
    tier.put(9, Some(&state)).expect("a state");
    tier.put(10, None).expect("a state of zeros");
    assert_eq!(get(&tier, 9, 133, 0), Ok((1, bytes.keys.to_vec(), Vec::new())));
    let seen = tier.view(9).expect("its state");
    assert_eq!((seen.format(), seen.keys().1, seen.values().1), (abi::HERALD_PAGE_OPAQUE, 133, 0));
    let page = Bytes::of_page(6);
    let refused = status(tier.put(11, Some(&page.page(1))));
    assert_eq!(refused, Some(Status::InvalidArgument), "a KV page in a tier of states");

    // A tier of states has nothing that queries could be compared with, whatever else its shape says.
    let tier = made_by_id(plugin, &TierConfig { n_kv_heads: 1, key_dim: 3, value_dim: 1, ..config });
    tier.put(1, Some(&state)).expect("a state");
    let refused = status(tier.search(&[1.0; 3], &[1], 1));
    let kinds = [Some(Status::InvalidArgument), Some(Status::Unsupported)];
    assert!(kinds.contains(&refused), "a search among states gave {refused:?}");
}

fn check_capacity(plugin: &Plugin) {
    let tier = made_by_id(plugin, &config(None));
    tier.put(0, None).expect("a page");
    let page = tier.stats().bytes;
    let tier = made_by_id(plugin, &config(Some(3 * page + page / 2)));
    for id in 0..3 {
        tier.put(id, None).expect("a page that has room");
    }
    let full = tier.put(3, None).expect_err("a page beyond the capacity");
    assert_eq!(full.status(), Status::OutOfMemory, "{full}");
    let capacity = (3 * page + page / 2).to_string();
    assert!(full.message().contains(&capacity), "a full tier doesn't say its capacity of {capacity}: {full}");
    assert_eq!(tier.stats().pages, 3, "a refused page is not kept");
    tier.drop_page(1).expect("a page that it holds");
    tier.put(3, None).expect("a page that has room again");
}

fn check_search(plugin: &Plugin) {
    let tier = made_by_id(plugin, &config(None));
    let mut values = Values::new(8);
    // Pages with 0 to all tokens; keys beyond them are larger and must not count.
    let pages: Vec<(u64, usize, Array3<f64>)> = (0..8_u64)
        .map(|id| {
            let n_tokens = id as usize % (PAGE_TOKENS + 1);
            let mut page = Bytes::of_page(id);
            let mut keys = Array3::zeros((HEADS, PAGE_TOKENS, KEY_DIM));
            let (scales, codes) = page.keys.split_at_mut(4 * HEADS * PAGE_TOKENS);
            let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
            let codes: &mut [i16] = bytemuck::cast_slice_mut(codes);
            for (row, scale) in scales.iter_mut().enumerate() {
                let limit = if row % PAGE_TOKENS < n_tokens { 1.0 } else { 1e4 };
                *scale = values.between(0.0, limit) / 32768.0;
            }
            codes.fill_with(|| values.bits() as i16);
            for (((head, slot, _), key), code) in keys.indexed_iter_mut().zip(codes) {
                *key = f64::from(scales[head * PAGE_TOKENS + slot]) * f64::from(*code);
            }
            tier.put(10 * id, Some(&page.page(n_tokens))).expect("a page");
            (10 * id, n_tokens, keys)
        })
        .collect();
    let n_queries = 3;
    let queries = values.many(n_queries * HEADS * KEY_DIM, -1.0, 1.0);
    let score = |(_, n_tokens, keys): &(u64, usize, Array3<f64>)| {
        let mut best = f64::NEG_INFINITY;
        for (query, head) in (0..n_queries).flat_map(|query| (0..HEADS).map(move |head| (query, head))) {
            let query = &queries[(query * HEADS + head) * KEY_DIM..][..KEY_DIM];
            for token in 0..*n_tokens {
                let product = query.iter().enumerate().map(|(i, q)| f64::from(*q) * keys[[head, token, i]]);
                best = best.max(product.sum());
            }
        }
        best
    };
    let ids: Vec<u64> = pages.iter().map(|page| page.0).rev().collect();
    let mut expected: Vec<(u64, f64)> = pages.iter().map(|page| (page.0, score(page))).collect();
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));
    for k in [0, 1, 3, 8, 100] {
        let found = tier.search(&queries, &ids, k).expect("pages to find");
        assert_eq!(found.len(), k.min(8), "of 8 pages the best {k}");
        for (found, (id, score)) in found.iter().zip(&expected) {
            assert_eq!(found.id, *id, "the best {k}");
            // An exact score: KEY_DIM products and their sum, each query and key below 1.
            let bound = super::bounds::gamma(KEY_DIM + 2) * KEY_DIM as f64;
            let near = f64::from(found.score) == *score || (f64::from(found.score) - score).abs() <= bound;
            assert!(near, "page {id} has the score {}, where {score} was expected", found.score);
        }
    }
    let among: Vec<u64> =
        tier.search(&queries, &ids[..2], 2).expect("two").iter().map(|found| found.id).collect();
    assert!(among.iter().all(|id| ids[..2].contains(id)), "a search among two ids found {among:?}");
    assert_eq!(
        status(tier.search(&queries, &[0, 3], 1)),
        Some(Status::NotFound),
        "a search of an unknown page"
    );
    assert_eq!(tier.search(&queries, &[], 4), Ok(Vec::new()), "a search among nothing");
    let ragged = status(tier.search(&queries[1..], &ids, 1));
    assert_eq!(ragged, Some(Status::InvalidArgument), "queries of another length");
    let stats = tier.stats();
    assert_eq!((stats.hits, stats.misses), (0, 0), "searches are neither hits nor misses: {stats:?}");
}

fn check_refusals(plugin: &Plugin) {
    let tier = made_by_id(plugin, &config(None));
    let bytes = Bytes::of_page(7);
    tier.put(1, Some(&bytes.page(2))).expect("a page");
    let twice = tier.put(1, None).expect_err("an id that is taken");
    assert_eq!(twice.status(), Status::InvalidArgument, "{twice}");
    assert!(twice.message().contains('1'), "an id that is taken isn't named: {twice}");
    let kept = get(&tier, 1, bytes.keys.len(), bytes.values.len());
    assert_eq!(kept, Ok((2, bytes.keys.to_vec(), bytes.values.to_vec())), "a page put twice");

    let put = |format, n_tokens, capacity, keys: &[u8], values: &[u8]| {
        let page =
            Page::new(format, n_tokens, capacity, keys, values).expect("a page that is sound in itself");
        status(tier.put(2, Some(&page)))
    };
    let (keys, values) = (&bytes.keys[..], &bytes.values[..]);
    let invalid = Some(Status::InvalidArgument);
    let capacity = PAGE_TOKENS;
    assert_eq!(put(abi::HERALD_PAGE_OPAQUE, 1, capacity, keys, values), invalid, "another format");
    assert_eq!(put(abi::HERALD_PAGE_I16, 1, capacity, &keys[..8], values), invalid, "fewer keys");
    assert_eq!(put(abi::HERALD_PAGE_I16, 1, capacity, keys, &[]), invalid, "no values");
    assert_eq!(put(abi::HERALD_PAGE_I16, 9, 9, keys, values), invalid, "more tokens than have room");
    assert_eq!(tier.stats().pages, 1, "refused pages are not kept");

    assert_eq!(status(tier.commit(1, PAGE_TOKENS + 1)), invalid, "more tokens than a page has room for");
    assert_eq!(status(tier.commit(2, 1)), Some(Status::NotFound), "tokens of an unknown page");
    assert_eq!(
        status(get(&tier, 1, keys.len() - 1, values.len())),
        Some(Status::BufferTooSmall),
        "small buffer"
    );
    assert_eq!(status(get(&tier, 1, keys.len(), 0)), Some(Status::BufferTooSmall), "no buffer for values");

    for (what, config) in [
        ("no page", TierConfig { page_tokens: 0, ..config(None) }),
        ("no heads", TierConfig { n_kv_heads: 0, ..config(None) }),
        ("no keys", TierConfig { key_dim: 0, ..config(None) }),
    ] {
        assert_eq!(status(plugin.create_tier(&config)), invalid, "a tier with {what}");
    }
    let huge = TierConfig { n_kv_heads: u32::MAX as usize, key_dim: u32::MAX as usize, ..config(None) };
    // SAFETY: as for `made_by_id`.
    let refused = plugin.create_tier(&huge).and_then(|tier| unsafe { tier.by_id() }.put(0, None));
    let kinds = [Some(Status::InvalidArgument), Some(Status::OutOfMemory)];
    assert!(kinds.contains(&status(refused)), "a page larger than memory");
}

fn check_threads(plugin: &Plugin) {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 50;
    let tier = made_by_id(plugin, &config(None));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let tier = &tier;
            scope.spawn(move || {
                let bytes = Bytes::of_page(thread);
                for round in 0..ROUNDS {
                    let id = thread * ROUNDS + round;
                    tier.put(id, Some(&bytes.page(3))).expect("a page");
                    let (_, keys, _) = get(tier, id, bytes.keys.len(), bytes.values.len()).expect("its page");
                    assert!(keys == *bytes.keys, "page {id} is another thread's");
                    assert_eq!(status(tier.view(u64::MAX - id)), Some(Status::NotFound));
                    tier.commit(id, 2).expect("tokens");
                    // Half of the pages stay.
                    if round % 2 == 0 {
                        tier.drop_page(id).expect("its page");
                    }
                }
            });
        }
    });
    let stats = tier.stats();
    let (all, kept) = (THREADS * ROUNDS, THREADS * ROUNDS / 2);
    let counted = (stats.pages, stats.tokens, stats.hits, stats.misses);
    assert_eq!(counted, (kept, 2 * kept, all, all), "{stats:?}");
}
