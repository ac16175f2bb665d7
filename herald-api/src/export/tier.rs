//! Memory tiers: a [`TierFactory`] as a `HeraldTierTable`.

use std::ffi::c_void;
use std::path::PathBuf;

use crate::abi::{
    self, AbiStruct, HeraldError, HeraldPage, HeraldTier, HeraldTierConfig, HeraldTierQuery, HeraldTierStats,
    HeraldTierTable,
};
use crate::marshal::{catch, guard, known_flags, slice};
use crate::{Error, MemoryTier, Page, Result, Status, TierConfig, TierFactory, TierKind};

/// A tier and the shape of its pages, which the boundary checks for it.
struct Exported {
    tier: Box<dyn MemoryTier>,
    config: TierConfig,
    page_bytes: (usize, usize),
}

struct Tables<F>(F);

impl<F: TierFactory> Tables<F> {
    const STATIC: &'static HeraldTierTable = &HeraldTierTable {
        struct_size: size_of::<HeraldTierTable>(),
        kinds: F::KINDS.as_ptr().cast(),
        n_kinds: F::KINDS.len(),
        create: Some(create::<F>),
        put: Some(put),
        get: Some(get),
        view: Some(view),
        commit: Some(commit),
        drop: Some(drop_page),
        destroy: Some(destroy),
        stats: Some(stats),
        search: Some(search),
        release: Some(release),
        list: Some(list),
        flush: Some(flush),
    };
}

/// The C table of a factory's tiers.
#[must_use]
pub fn tier_table<F: TierFactory>() -> *const HeraldTierTable {
    // TierKind is repr(u32) with the ABI's numbers, so KINDS is an array of those.
    Tables::<F>::STATIC
}

unsafe extern "C" fn create<F: TierFactory>(
    config: *const HeraldTierConfig,
    out: *mut *mut HeraldTier,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract for all three.
    unsafe {
        guard(error, || {
            if out.is_null() {
                return Err(Error::invalid("tier_create was given nowhere to put the tier (out is null)"));
            }
            let config = read_config(config)?;
            let page_bytes = config
                .page_bytes()
                .ok_or_else(|| Error::invalid(format!("a page of {config:?} overflows")))?;
            let sizes = [config.n_kv_heads, config.key_dim, config.value_dim];
            if config.page_tokens == 0 || (config.state_bytes == 0 && sizes.contains(&0)) {
                return Err(Error::invalid(format!("a page of {config:?} would be empty")));
            }
            let made = Exported { tier: F::create(&config)?, config, page_bytes };
            out.write(Box::into_raw(Box::new(made)).cast());
            Ok(())
        })
    }
}

unsafe extern "C" fn put(
    tier: *mut HeraldTier,
    id: u64,
    page: *const HeraldPage,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`, the page is null or a page.
    unsafe {
        guard(error, || {
            let exported = exported(tier)?;
            if page.is_null() {
                return exported.tier.put(id, None);
            }
            let page = Page::from_raw(abi::read(page).map_err(Error::invalid)?).map_err(Error::invalid)?;
            let format =
                if exported.config.state_bytes > 0 { abi::HERALD_PAGE_OPAQUE } else { abi::HERALD_PAGE_I16 };
            let bytes = (page.key_bytes().len(), page.value_bytes().len());
            let own = page.format() == abi::HERALD_PAGE_Q4
                && exported.config.state_bytes == 0
                && exported.config.kind != TierKind::Active
                && exported.config.q4_page_bytes() == Some(bytes);
            if !own && (page.format() != format || bytes != exported.page_bytes) {
                return Err(Error::invalid(format!(
                    "page {id} has format {} with {bytes:?} bytes of keys and values, where format {format} with {:?} \
                     was expected",
                    page.format(),
                    exported.page_bytes
                )));
            }
            exported.tier.put(id, Some(&page))
        })
    }
}

unsafe extern "C" fn get(
    tier: *mut HeraldTier,
    id: u64,
    into: *mut HeraldPage,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`, and into's buffers are the caller's own.
    unsafe {
        guard(error, || {
            let exported = exported(tier)?;
            let mut page = abi::read(into.cast_const()).map_err(Error::invalid)?;
            let (keys, values) = exported.page_bytes;
            if page.key_bytes < keys as u64 || page.value_bytes < values as u64 {
                return Err(Error::new(
                    Status::BufferTooSmall,
                    format!(
                        "page {id} needs {keys} bytes for keys and {values} for values, where {} and {} were given",
                        page.key_bytes, page.value_bytes
                    ),
                ));
            }
            let n_tokens = exported.tier.get(id, buffer(page.keys, keys)?, buffer(page.values, values)?)?;
            page.n_tokens = n_tokens as u32;
            page.capacity = exported.config.page_tokens as u32;
            page.format =
                if exported.config.state_bytes > 0 { abi::HERALD_PAGE_OPAQUE } else { abi::HERALD_PAGE_I16 };
            page.key_bytes = keys as u64;
            page.value_bytes = values as u64;
            abi::write(into, &page).map_err(Error::invalid)
        })
    }
}

/// # Safety
/// A pointer that is not null has room for `len` bytes that nobody else uses during `'a`.
unsafe fn buffer<'a>(pointer: *mut c_void, len: usize) -> Result<&'a mut [u8]> {
    if len == 0 {
        return Ok(&mut []);
    }
    if pointer.is_null() {
        return Err(Error::invalid(format!("a buffer for {len} bytes is null")));
    }
    // SAFETY: the host's contract: its own buffer, with this many bytes.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.cast(), len) })
}

unsafe extern "C" fn view(
    tier: *mut HeraldTier,
    id: u64,
    page: *mut HeraldPage,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`, the page is the caller's to fill.
    unsafe {
        guard(error, || {
            let exported = exported(tier)?;
            let seen = exported.tier.view(id)?;
            let mut answer = abi::read(page.cast_const()).map_err(Error::invalid)?;
            let ((keys, key_bytes), (values, value_bytes)) = (seen.keys(), seen.values());
            answer.n_tokens = seen.n_tokens() as u32;
            answer.capacity = exported.config.page_tokens as u32;
            answer.format = seen.format();
            answer.keys = keys.cast();
            answer.key_bytes = key_bytes as u64;
            answer.values = values.cast();
            answer.value_bytes = value_bytes as u64;
            abi::write(page, &answer).map_err(Error::invalid)
        })
    }
}

unsafe extern "C" fn commit(tier: *mut HeraldTier, id: u64, n_tokens: u32, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`.
    unsafe {
        guard(error, || {
            let exported = exported(tier)?;
            if n_tokens as usize > exported.config.page_tokens {
                return Err(Error::invalid(format!(
                    "page {id} was to hold {n_tokens} tokens, where at most {} have room",
                    exported.config.page_tokens
                )));
            }
            exported.tier.commit(id, n_tokens as usize)
        })
    }
}

unsafe extern "C" fn drop_page(tier: *mut HeraldTier, id: u64, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`.
    unsafe { guard(error, || exported(tier)?.tier.drop_page(id)) }
}

unsafe extern "C" fn release(tier: *mut HeraldTier, id: u64, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`.
    unsafe { guard(error, || exported(tier)?.tier.release(id)) }
}

unsafe extern "C" fn list(
    tier: *mut HeraldTier,
    ids: *mut u64,
    room: usize,
    n: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`, ids has room for all of them.
    unsafe {
        guard(error, || {
            if n.is_null() || (room > 0 && ids.is_null()) {
                return Err(Error::invalid("a list of pages needs pointers for their ids and their number"));
            }
            let found = exported(tier)?.tier.list()?;
            for (index, id) in found.iter().take(room).enumerate() {
                ids.add(index).write(*id);
            }
            n.write(found.len());
            Ok(())
        })
    }
}

unsafe extern "C" fn flush(tier: *mut HeraldTier, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`.
    unsafe { guard(error, || exported(tier)?.tier.flush()) }
}

unsafe extern "C" fn destroy(tier: *mut HeraldTier) {
    if !tier.is_null() {
        // SAFETY: the host's contract: it came from `create`, and no call is running on it.
        let dropped = catch(|| unsafe { drop(Box::from_raw(tier.cast::<Exported>())) });
        if dropped.is_err() {
            super::log(super::Level::Error, "a memory tier panicked while it was destroyed");
        }
    }
}

unsafe extern "C" fn stats(tier: *mut HeraldTier, out: *mut HeraldTierStats, error: *mut HeraldError) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`, out is the caller's to fill.
    unsafe {
        guard(error, || {
            let stats = exported(tier)?.tier.stats();
            let answer = HeraldTierStats {
                pages: stats.pages,
                tokens: stats.tokens,
                bytes: stats.bytes,
                hits: stats.hits,
                misses: stats.misses,
                memory_bytes: stats.memory_bytes,
                damaged: stats.damaged,
                ..AbiStruct::empty()
            };
            abi::write(out, &answer).map_err(Error::invalid)
        })
    }
}

unsafe extern "C" fn search(
    tier: *mut HeraldTier,
    query: *const HeraldTierQuery,
    k: usize,
    ids: *mut u64,
    scores: *mut f32,
    n: *mut usize,
    error: *mut HeraldError,
) -> u32 {
    // SAFETY: the host's contract: the tier came from `create`, the query holds its slices, the buffers have room for k.
    unsafe {
        guard(error, || {
            let exported = exported(tier)?;
            let raw = abi::read(query).map_err(Error::invalid)?;
            let width = exported.config.n_kv_heads * exported.config.key_dim;
            if n.is_null()
                || (k > 0 && (ids.is_null() || scores.is_null()))
                || width == 0
                || raw.n_queries == 0
            {
                return Err(Error::invalid(
                    "a search needs queries, buffers for k results, and a tier that keeps keys",
                ));
            }
            let len =
                raw.n_queries.checked_mul(width).ok_or_else(|| Error::invalid("the queries overflow"))?;
            let queries = slice(raw.query, len, "the queries")?;
            let among = slice(raw.ids, raw.n_ids, "the ids of a search")?;
            let found = exported.tier.search(queries, among, k)?;
            let count = found.len().min(k);
            for (index, found) in found[..count].iter().enumerate() {
                ids.add(index).write(found.id);
                scores.add(index).write(found.score);
            }
            n.write(count);
            Ok(())
        })
    }
}

/// # Safety
/// `tier` is null or came from `create`.
unsafe fn exported<'a>(tier: *mut HeraldTier) -> Result<&'a Exported> {
    // SAFETY: the host's contract: null, or what `create` gave and `destroy` hasn't had; only shared references are made.
    unsafe { tier.cast_const().cast::<Exported>().as_ref() }.ok_or_else(|| Error::invalid("the tier is null"))
}

/// # Safety
/// As `HeraldTierConfig` says.
unsafe fn read_config(config: *const HeraldTierConfig) -> Result<TierConfig> {
    // SAFETY: the host's contract for HeraldTierConfig; struct and text are checked as they are read.
    unsafe {
        let raw = abi::read(config).map_err(Error::invalid)?;
        let kind = TierKind::from_code(raw.kind).ok_or_else(|| {
            Error::unsupported(format!("tier kind {} is not known to this plugin", raw.kind))
        })?;
        known_flags(raw.flags, abi::HERALD_TIER_LZ4)?;
        let path = path(slice(raw.path.cast::<u8>(), raw.path_len, "the tier's path")?)?;
        Ok(TierConfig {
            kind,
            n_kv_heads: raw.n_kv_heads as usize,
            key_dim: raw.key_dim as usize,
            value_dim: raw.value_dim as usize,
            page_tokens: raw.page_tokens as usize,
            state_bytes: raw.state_bytes as usize,
            capacity_bytes: (raw.capacity_bytes != 0).then_some(raw.capacity_bytes),
            path: (!path.as_os_str().is_empty()).then_some(path),
            lz4: raw.flags & abi::HERALD_TIER_LZ4 != 0,
        })
    }
}

#[cfg(unix)]
fn path(bytes: &[u8]) -> Result<PathBuf> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::ffi::OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn path(bytes: &[u8]) -> Result<PathBuf> {
    let text = std::str::from_utf8(bytes);
    text.map(PathBuf::from).map_err(|_| Error::invalid("the tier's path is not UTF-8"))
}
