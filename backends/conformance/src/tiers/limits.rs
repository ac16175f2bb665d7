//! What tiers say that they hold, how much they may, and what they must refuse.

use herald_api::Status;
use herald_api::abi::{self, HeraldTierStats};

use super::Case;
use super::contents::near;
use super::made::{Made, Shape};
use super::page::Contents;
use crate::check::{Verdict, ensure};
use crate::{Outcome, heap};

/// `list` names every page once, whatever the room; `stats` counts them.
pub(super) fn lists(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let mut held: Vec<u64> = Vec::new();
    let mut tokens = 0;
    listed(&tier, &held)?;
    for id in [3, u64::MAX, 0, 1 << 40, 12, 13, 14] {
        let page = Contents::random(&case.shape, case.tokens(id % 1000), id);
        tier.put(id, &page)?.ok(&format!("put of page {id}"))?;
        held.push(id);
        tokens += page.n_tokens as u64;
        listed(&tier, &held)?;
        counted(&tier, held.len() as u64, tokens)?;
    }
    for id in [u64::MAX, 12] {
        tokens -= case.tokens(id % 1000) as u64;
        tier.drop_page(id)?.ok(&format!("drop of page {id}"))?;
        held.retain(|other| *other != id);
        listed(&tier, &held)?;
        counted(&tier, held.len() as u64, tokens)?;
    }
    let before = tier.stats()?;
    tier.must_get(3)?;
    // A page that isn't there: a miss.
    drop(tier.get(4)?);
    if let (Some(before), Some(after)) = (before, tier.stats()?) {
        let grew = (after.hits - before.hits, after.misses - before.misses);
        ensure!(
            grew == (1, 1),
            WrongLength,
            "a get that found its page and one that didn't counted as {grew:?} hits and misses"
        );
    }
    Ok(match (tier.list(0)?, tier.stats()?) {
        (None, None) => return Err(Outcome::Skipped("it offers neither list nor stats".to_owned())),
        (None, _) => "stats only".to_owned(),
        (_, None) => "list only".to_owned(),
        _ => String::new(),
    })
}

fn listed(tier: &Made<'_>, held: &[u64]) -> Verdict<()> {
    let count = held.len();
    for room in [0, 1, count.saturating_sub(1), count, count + 1, count + 40] {
        let Some((ids, n)) = tier.list(room)? else { return Ok(()) };
        ensure!(
            n == count,
            WrongLength,
            "list with room for {room} ids says that there are {n} pages, where {count} were put and not dropped"
        );
        let mut distinct = ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let strange = ids.iter().find(|id| !held.contains(id));
        ensure!(
            strange.is_none(),
            WrongResult,
            "list names the page {strange:?}, which was never put or was dropped"
        );
        ensure!(
            distinct.len() == room.min(count),
            WrongResult,
            "list with room for {room} of {count} pages gave {ids:?}, where {} different ones were expected",
            room.min(count)
        );
    }
    Ok(())
}

fn counted(tier: &Made<'_>, pages: u64, tokens: u64) -> Verdict<()> {
    let Some(HeraldTierStats { pages: says, tokens: says_tokens, bytes, .. }) = tier.stats()? else {
        return Ok(());
    };
    ensure!(
        (says, says_tokens) == (pages, tokens),
        WrongLength,
        "stats says {says} pages of {says_tokens} tokens, where {pages} of {tokens} are held"
    );
    ensure!(
        bytes > 0 && bytes < 1 << 40,
        WrongLength,
        "stats says that {pages} small pages take {bytes} bytes"
    );
    Ok(())
}

/// A tier takes pages up to its capacity, refuses one more, keeps what it has, and takes another when one was dropped.
pub(super) fn capacity(case: &Case<'_>) -> Verdict {
    let (keys, values) = case.shape.page_bytes();
    let capacity = 10 * (keys + values) as u64 + 100;
    let mut wanted = case.wanted("pages");
    wanted.capacity = capacity;
    let tier = case.made(&wanted)?;
    // Nothing is a hundred times smaller without loss of what these checks have tested.
    let most = 1000;
    let page = |id: u64| Contents::random(&case.shape, case.shape.page_tokens, id);
    let mut full = None;
    for id in 0..most {
        let answer = tier.put(id, &page(id))?;
        if !answer.is_ok() {
            answer.refused("put in a tier that is full", &[Status::OutOfMemory])?;
            full = Some(id);
            break;
        }
        if let Some(stats) = tier.stats()? {
            ensure!(
                stats.bytes <= capacity,
                WrongStatus,
                "put of page {id} gave OK, and stats says {} bytes of at most {capacity}, where OUT_OF_MEMORY was expected",
                stats.bytes
            );
        }
    }
    let Some(full) = full else {
        ensure!(
            false,
            WrongStatus,
            "put took {most} pages of {} bytes in a tier of at most {capacity}, where OUT_OF_MEMORY was expected",
            keys + values
        );
        unreachable!("`ensure` returned")
    };
    ensure!(
        full > 0,
        Refuses,
        "put gave OUT_OF_MEMORY for the first page of {} bytes in a tier of {capacity}",
        keys + values
    );
    for id in 0..full {
        near(case, id, &page(id), &tier.must_get(id)?)?;
    }
    ensure!(tier.get(full)?.is_err(), WrongStatus, "get found page {full}, whose put gave OUT_OF_MEMORY");
    tier.put(full, &page(full))?.refused("put in a tier that is still full", &[Status::OutOfMemory])?;
    tier.drop_page(0)?.ok("drop of page 0")?;
    tier.put(full, &page(full))?.ok("put after a page was dropped from a tier that was full")?;
    near(case, full, &page(full), &tier.must_get(full)?)?;
    Ok(format!("{full} pages"))
}

/// Dropped pages and destroyed tiers give their memory back.
pub(super) fn memory(case: &Case<'_>) -> Verdict {
    if !case.alone {
        return Err(Outcome::Skipped("other threads of this process may take memory too".to_owned()));
    }
    // Pages of 1 MiB, which allocators don't keep for themselves.
    const ROUND: u64 = 8;
    let shape = Shape::of(8, 128, 128, 256);
    let wanted = super::Wanted { shape: shape.clone(), ..case.wanted("pages") };
    let page = Contents::random(&shape, shape.page_tokens, 1);
    let fill = |tier: &Made<'_>| -> Verdict<()> {
        for id in 0..ROUND {
            tier.put(id, &page)?.ok(&format!("put of page {id}"))?;
        }
        for id in 0..ROUND {
            tier.drop_page(id)?.ok(&format!("drop of page {id}"))?;
        }
        if let Some(answer) = tier.flush()? {
            answer.ok("flush")?;
        }
        Ok(())
    };
    let tier = case.made(&wanted)?;
    let kept = page.keys.len() as u64 * ROUND;
    let dropped = growth(kept, || fill(&tier))?;
    drop(tier);
    let mut made = 0;
    let destroyed = growth(kept, || {
        made += 1;
        let mut wanted = wanted.clone();
        if case.is_archived() {
            wanted.path.push_str(&made.to_string());
        }
        let tier = case.made(&wanted)?;
        for id in 0..ROUND {
            tier.put(id, &page)?.ok(&format!("put of page {id}"))?;
        }
        Ok(())
    })?;
    for (grew, what) in [(dropped, "dropped"), (destroyed, "destroyed with their tier")] {
        ensure!(
            grew == 0,
            Leaks,
            "each time that {ROUND} pages of {} bytes were put and {what}, the process kept {grew} bytes more",
            page.keys.len() + page.values.len()
        );
    }
    Ok(format!("{ROUND} pages of {} bytes", page.keys.len() + page.values.len()))
}

/// Bytes by which the process grows with each of several rounds of `kept` bytes, after some that may keep something for later;
/// 0 where that is little beside `kept`. What leaks does so each time, while memory that only lies scattered is used again: so the
/// least of some measurements counts.
fn growth(kept: u64, mut round: impl FnMut() -> Verdict<()>) -> Verdict<u64> {
    const MEASUREMENTS: usize = 3;
    round()?;
    round()?;
    let mut least = u64::MAX;
    for _ in 0..MEASUREMENTS {
        least = least.min(growth_once(kept, &mut round)?);
        if least == 0 {
            break;
        }
    }
    Ok(least)
}

fn growth_once(kept: u64, round: &mut impl FnMut() -> Verdict<()>) -> Verdict<u64> {
    const ROUNDS: u64 = 3;
    // What was handed out is exact. A plugin with an allocator of its own shows in what the process takes, which also grows
    // when freed memory lies scattered.
    let taken = || [heap::allocated().unwrap_or(0), heap::resident()];
    let limits = [kept / 16, kept / 2];
    let before = taken();
    for _ in 0..ROUNDS {
        round()?;
    }
    let after = taken();
    let grew = [0, 1].map(|kind| after[kind].saturating_sub(before[kind]) / ROUNDS);
    Ok([0, 1]
        .into_iter()
        .filter(|kind| grew[*kind] >= limits[*kind])
        .map(|kind| grew[kind])
        .max()
        .unwrap_or(0))
}

/// Pages of another shape, small buffers, tiers without a shape.
pub(super) fn refusals(case: &Case<'_>) -> Verdict {
    let tier = case.tier("pages")?;
    let page = Contents::random(&case.shape, 3, 1);
    tier.put(1, &page)?.ok("put of page 1")?;
    let sound = page.raw();
    let broken = [
        ("of an unknown format", abi::HeraldPage { format: 99, ..sound }),
        ("of the format of a state", abi::HeraldPage { format: abi::HERALD_PAGE_OPAQUE, ..sound }),
        ("with fewer keys than its shape has", abi::HeraldPage { key_bytes: sound.key_bytes - 4, ..sound }),
        (
            "with more values than its shape has",
            abi::HeraldPage { value_bytes: sound.value_bytes + 4, ..sound },
        ),
        ("without keys", abi::HeraldPage { keys: std::ptr::null_mut(), ..sound }),
        ("of more tokens than have room", abi::HeraldPage { n_tokens: sound.capacity + 1, ..sound }),
        ("whose struct ends early", abi::HeraldPage { struct_size: size_of::<usize>(), ..sound }),
    ];
    for (what, raw) in &broken {
        tier.put_raw(2, raw)?.refused(&format!("put of a page {what}"), &[Status::InvalidArgument])?;
        ensure!(tier.get(2)?.is_err(), WrongStatus, "get found a page {what}, whose put was refused");
    }
    let (keys, values) = case.shape.page_bytes();
    for room in [(keys - 1, values), (keys, values - 1), (0, 0), (keys, 0)] {
        match tier.get_with(1, room)? {
            Err(answer) => answer.refused(
                &format!(
                    "get with room for {room:?} bytes of keys and values, where {:?} are needed,",
                    (keys, values)
                ),
                &[Status::BufferTooSmall],
            )?,
            Ok(_) => ensure!(
                false,
                WrongStatus,
                "get with room for {room:?} bytes, where {:?} are needed, gave OK, where BUFFER_TOO_SMALL was expected",
                (keys, values)
            ),
        }
    }
    near(case, 1, &page, &tier.must_get(1)?)?;
    let shapes = [
        ("of no tokens", Shape { page_tokens: 0, ..case.shape.clone() }),
        ("of no heads", Shape { n_kv_heads: 0, ..case.shape.clone() }),
        ("of keys without elements", Shape { key_dim: 0, ..case.shape.clone() }),
    ];
    for (what, shape) in shapes {
        let wanted = super::Wanted { shape, ..case.wanted("other") };
        match Made::create(case.table, &wanted)? {
            Err(answer) => {
                answer.refused(&format!("create of a tier of pages {what}"), &[Status::InvalidArgument])?;
            }
            Ok(_) => ensure!(false, WrongStatus, "create of a tier of pages {what} gave OK"),
        }
    }
    let wanted = case.wanted("flags");
    let mut request = wanted.request();
    request.config.flags = 1 << 50;
    match Made::of(case.table, &request)? {
        Err(answer) => {
            let refusals = [Status::Unsupported, Status::InvalidArgument];
            answer.refused("create of a tier with a flag that no header has", &refusals)?;
        }
        Ok(_) => ensure!(
            false,
            WrongStatus,
            "create ignored a flag that no header has, where UNSUPPORTED was expected"
        ),
    }
    huge(case)
}

/// A page larger than any memory is refused, when the tier is made or when the page comes.
fn huge(case: &Case<'_>) -> Verdict {
    let wanted = case.wanted("huge");
    let mut request = wanted.request();
    let raw = &mut request.config;
    (raw.n_kv_heads, raw.key_dim, raw.value_dim, raw.page_tokens) = (u32::MAX, u32::MAX, 1, 16);
    let refusals = [Status::InvalidArgument, Status::OutOfMemory, Status::Unsupported];
    match Made::of(case.table, &request)? {
        Err(answer) => answer.refused("create of a tier of pages of 2^70 bytes", &refusals)?,
        Ok(tier) => {
            let what = "put of an empty page of 2^70 bytes";
            tier.put_raw(0, std::ptr::null())?.refused(what, &refusals)?;
        }
    }
    Ok(String::new())
}
