//! What an archive's file looks like.
//!
//! ```text
//! header (4096 bytes) | table | pages and more tables, in any order, where there is room
//! ```
//!
//! A table is a block of 64-byte entries: the first links to the next table, each other one describes a page or is zeros. A
//! page is written before its entry, and the entry is wiped before the page's space is reused, so that a process that dies at
//! any moment leaves only whole pages. Header, links, entries and pages each have a checksum
//! (XXH3, 64 bits). Numbers are little-endian; a page's content has the machine's byte order, which the header records.

use herald_api::TierConfig;
use twox_hash::XxHash3_64;

/// Bytes of the header.
pub(super) const HEADER_BYTES: u64 = 4096;

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: usize = 64;

/// Bytes of a table.
pub(super) const TABLE_BYTES: u64 = 64 << 10;

/// Entries of a table, its link counted.
pub(super) const TABLE_ENTRIES: u64 = TABLE_BYTES / ENTRY_BYTES as u64;

const MAGIC: &[u8; 8] = b"HERALDAR";
const LINK: &[u8; 8] = b"HRLDTABL";
const VERSION: u32 = 1;
const ORDER: u32 = 0x0102_0304;

/// A page's bytes are compressed with LZ4.
const LZ4: u32 = 1;

/// A checksum.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

fn seal(bytes: &mut [u8]) {
    let end = bytes.len() - 8;
    let sum = checksum(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(bytes: &[u8]) -> bool {
    let (bytes, sum) = bytes.split_at(bytes.len() - 8);
    checksum(bytes).to_le_bytes() == sum
}

fn number(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].try_into().map_or(0, u32::from_le_bytes)
}

/// A file's header.
pub(super) fn header(config: &TierConfig) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES as usize];
    bytes[..8].copy_from_slice(MAGIC);
    let shape = [config.n_kv_heads, config.key_dim, config.value_dim, config.page_tokens];
    let words = [VERSION.to_le_bytes(), ORDER.to_ne_bytes()];
    let words = words.into_iter().chain(shape.map(|size| (size as u32).to_le_bytes()));
    for (place, word) in bytes[8..].chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word);
    }
    seal(&mut bytes);
    bytes
}

/// Whether a header is that of pages of this shape; otherwise what is wrong with it.
pub(super) fn check_header(bytes: &[u8], config: &TierConfig) -> Result<(), String> {
    let expected = header(config);
    if bytes == expected {
        return Ok(());
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return Err(format!(
            "it begins with {} zeros, where the header of an archive of pages or an empty file was expected",
            bytes.len()
        ));
    }
    if bytes.len() < expected.len() || bytes[..8] != *MAGIC {
        return Err("it is no archive of pages".to_owned());
    }
    if !is_sealed(bytes) {
        return Err("its header is damaged: the checksum is another".to_owned());
    }
    if bytes[8..12] != expected[8..12] {
        return Err(format!("it is an archive of version {}, where {VERSION} was expected", half(bytes, 8)));
    }
    if bytes[12..16] != expected[12..16] {
        return Err("it was written by a machine of another byte order".to_owned());
    }
    let shape = |bytes: &[u8]| [16, 20, 24, 28].map(|at| half(bytes, at));
    Err(format!(
        "its pages have the shape {:?} (heads, key and value elements, tokens), where {:?} was expected",
        shape(bytes),
        shape(&expected)
    ))
}

/// A table without pages, the last of its file.
pub(super) fn empty_table() -> Vec<u8> {
    let mut bytes = vec![0; TABLE_BYTES as usize];
    bytes[..ENTRY_BYTES].copy_from_slice(&link(0));
    bytes
}

/// A table's first entry.
pub(super) fn link(next: u64) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[..8].copy_from_slice(LINK);
    bytes[8..16].copy_from_slice(&next.to_le_bytes());
    seal(&mut bytes);
    bytes
}

/// Where the next table is, or 0, by a table's first entry; `None` where it is damaged.
pub(super) fn linked(bytes: &[u8]) -> Option<u64> {
    (bytes[..8] == *LINK && is_sealed(bytes)).then(|| number(bytes, 8))
}

/// What an entry says of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u64,
    /// Where it lies.
    pub(super) start: u64,
    /// Bytes there.
    pub(super) len: u32,
    pub(super) n_tokens: u32,
    pub(super) lz4: bool,
    /// Of the bytes as they lie there.
    pub(super) sum: u64,
}

impl Entry {
    pub(super) fn bytes(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        // Marks the entry as used.
        bytes[0] = 1;
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.start.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.n_tokens.to_le_bytes());
        bytes[32..36].copy_from_slice(&if self.lz4 { LZ4 } else { 0 }.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.sum.to_le_bytes());
        seal(&mut bytes);
        bytes
    }

    /// An entry as it was written: `Ok(None)` for an empty one, `Err` for a damaged one.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, ()> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let entry = Self {
            id: number(bytes, 8),
            start: number(bytes, 16),
            len: half(bytes, 24),
            n_tokens: half(bytes, 28),
            lz4: half(bytes, 32) == LZ4,
            sum: number(bytes, 40),
        };
        // The entry must be exactly what would be written, so that no flipped bit goes unnoticed.
        if bytes == entry.bytes() { Ok(Some(entry)) } else { Err(()) }
    }
}
