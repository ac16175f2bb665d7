//! The archived tier's file: what it still holds can be read, and it can be written on.

use std::path::Path;

use herald_api::{AlignedBytes, Error, MemoryTier, Page, Result, TierConfig, TierFactory, TierKind, abi};
use herald_layers::Tiers;

use super::{DEFAULT, Target};

const HEADS: usize = 1;
const DIM: usize = 32;
const PAGE_TOKENS: usize = 64;

pub(super) const TARGET: Target = Target { name: "archive", run, seeds, max_len: 256 << 10, ..DEFAULT };

fn config(path: &Path) -> TierConfig {
    TierConfig {
        kind: TierKind::Archived,
        n_kv_heads: HEADS,
        key_dim: DIM,
        value_dim: DIM,
        page_tokens: PAGE_TOKENS,
        state_bytes: 0,
        capacity_bytes: None,
        path: Some(path.to_owned()),
        lz4: true,
    }
}

fn put(tier: &dyn MemoryTier, id: u64) -> Result<()> {
    let none = || Error::unsupported("there are no such pages");
    let (keys, values) = config(Path::new("")).q4_page_bytes().ok_or_else(none)?;
    let filled = |len: usize| -> Result<AlignedBytes> {
        let mut bytes = AlignedBytes::zeroed(len)?;
        bytes.iter_mut().enumerate().for_each(|(place, byte)| *byte = (place as u64 * id) as u8);
        Ok(bytes)
    };
    let (keys, values) = (filled(keys)?, filled(values)?);
    let page = Page::new(abi::HERALD_PAGE_Q4, PAGE_TOKENS, PAGE_TOKENS, &keys, &values).ok_or_else(none)?;
    tier.put(id, Some(&page))
}

/// A file with pages, some of which were dropped.
fn seeds() -> Vec<Vec<u8>> {
    let made = || -> std::io::Result<Vec<u8>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("pages");
        let tier = Tiers::create(&config(&path)).map_err(std::io::Error::other)?;
        for id in 1..6 {
            put(&*tier, id).map_err(std::io::Error::other)?;
        }
        tier.drop_page(2).map_err(std::io::Error::other)?;
        tier.flush().map_err(std::io::Error::other)?;
        drop(tier);
        std::fs::read(&path)
    };
    made().into_iter().collect()
}

fn run(input: &[u8]) -> String {
    let Ok(folder) = tempfile::tempdir() else { return "no folder".to_owned() };
    let path = folder.path().join("pages");
    if std::fs::write(&path, input).is_err() {
        return "no file".to_owned();
    }
    let answer = Tiers::create(&config(&path)).and_then(|tier| {
        let ids = tier.list()?;
        let mut damaged = 0;
        for id in &ids {
            match tier.view(*id) {
                Ok(_) => tier.release(*id)?,
                Err(_) => damaged += 1,
            }
        }
        let free = (1000..).find(|id| !ids.contains(id)).unwrap_or(1000);
        put(&*tier, free)?;
        tier.flush()?;
        Ok((ids.len().min(3), damaged.min(2)))
    });
    // The folder's name is another each time.
    super::told(answer, |(pages, damaged)| {
        format!("{} pages, {} damaged", ["no", "a", "b", "c"][pages], ["x", "y", "z"][damaged])
    })
    .replace(&*path.to_string_lossy(), "FILE")
}
