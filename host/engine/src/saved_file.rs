//! The file of a saved sequence, or of a page of the cache: safetensors whose every byte is under a checksum.
//!
//! The metadata's first value is the checksum of the header itself, read with zeros in its own place; another has those of all
//! tensors, in the order in which they lie. So a flipped bit is found wherever it is, and zeros are never taken for data. XXH3
//! runs at the speed of memory.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use safetensors::tensor::{SafeTensorError, SafeTensors};
use twox_hash::XxHash3_64;

/// The format's version, which a change of a file's meaning raises.
pub(crate) const VERSION: &str = "3";

/// The fact that says so.
pub(crate) const VERSION_KEY: &str = "herald.version";

/// How each header begins; the header's checksum follows.
const START: &str = "{\"__metadata__\":{\"herald.checksum\":\"";

/// The fact that has the tensors' checksums.
const SUMS: &str = "herald.checksums";

/// Digits of a checksum.
const DIGITS: usize = 16;

/// Whether a file begins as that of a saved sequence does.
#[must_use]
pub fn is_saved_sequence(path: &Path) -> bool {
    let mut start = [0; size_of::<u64>() + START.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start.ends_with(START.as_bytes())
}

/// The most bytes of a header, in what `read_facts` reads.
const MAX_HEADER: u64 = 1 << 24;

/// A checksum's digits while it is computed.
const ZEROS: [u8; DIGITS] = [b'0'; DIGITS];

fn digits(sum: u64) -> String {
    format!("{sum:016x}")
}

/// The checksum of a header with its length before it, in which the checksum's own place has zeros.
fn header_sum(header: &[u8]) -> u64 {
    let mut hash = XxHash3_64::with_seed(0);
    let (start, rest) = header.split_at(START.len().min(header.len()));
    std::hash::Hasher::write(&mut hash, &(header.len() as u64).to_le_bytes());
    std::hash::Hasher::write(&mut hash, start);
    std::hash::Hasher::write(&mut hash, &ZEROS);
    std::hash::Hasher::write(&mut hash, rest.get(DIGITS..).unwrap_or_default());
    std::hash::Hasher::finish(&hash)
}

/// Writes a file of these facts and parts, each part as it lies in memory.
pub(crate) fn write(
    to: &mut impl Write,
    facts: &BTreeMap<String, String>,
    parts: &[(String, &[u8])],
) -> io::Result<()> {
    let sums: String = parts.iter().map(|(_, bytes)| digits(XxHash3_64::oneshot(bytes))).collect();
    let mut header = START.to_owned();
    header.push_str(&digits(0));
    header.push('"');
    for (name, value) in facts.iter().map(|(name, value)| (name.as_str(), value)).chain([(SUMS, &sums)]) {
        let (name, value) = (serde_json::to_string(name)?, serde_json::to_string(value)?);
        header.extend([",", &name, ":", &value]);
    }
    header.push('}');
    let mut start = 0;
    for (name, bytes) in parts {
        let (name, len, end) = (serde_json::to_string(name)?, bytes.len(), start + bytes.len());
        write!(header, ",{name}:{{\"dtype\":\"U8\",\"shape\":[{len}],\"data_offsets\":[{start},{end}]}}")
            .map_err(io::Error::other)?;
        start = end;
    }
    header.push('}');
    let mut header = header.into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let sum = digits(header_sum(&header));
    header[START.len()..START.len() + DIGITS].copy_from_slice(sum.as_bytes());
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    parts.iter().try_for_each(|(_, bytes)| to.write_all(bytes))
}

/// A file whose checksums were found to be right.
pub(crate) struct SavedFile<'b> {
    pub(crate) facts: HashMap<String, String>,
    pub(crate) tensors: SafeTensors<'b>,
}

/// Why a file can't be used, in a sentence about "it".
#[derive(Debug)]
pub(crate) enum Unusable {
    /// It is damaged, or no saved sequence.
    Damaged(String),
    /// It is of an earlier version.
    Earlier(String),
}

impl From<String> for Unusable {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

/// Reads a file's bytes, or says what is wrong with them.
pub(crate) fn read(bytes: &[u8]) -> Result<SavedFile<'_>, Unusable> {
    let cut_off = |what: &str, end: u64| {
        format!("it is cut off: it has {} bytes, where {what} ends at {end}", bytes.len())
    };
    let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| cut_off("the length of its header", 8))?;
    let header_end = u64::from_le_bytes(*len).saturating_add(8);
    let header = usize::try_from(header_end).ok().and_then(|end| rest.get(..end - 8));
    let header = header.ok_or_else(|| cut_off("its header", header_end))?;
    check_header(bytes, header)?;
    let unread = |error: SafeTensorError| match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            format!("it is cut off, or longer than its header says: it has {} bytes", bytes.len())
        }
        error => format!("it is no safetensors file: {error}"),
    };
    let (_, found) = SafeTensors::read_metadata(bytes).map_err(unread)?;
    let facts = found.metadata().clone().unwrap_or_default();
    let mut places: Vec<_> =
        found.tensors().into_iter().map(|(name, info)| (info.data_offsets, name)).collect();
    places.sort_unstable();
    let tensors = SafeTensors::deserialize(bytes).map_err(unread)?;
    let sums = facts.get(SUMS).map_or("", String::as_str);
    if sums.len() != DIGITS * places.len() {
        return Err(format!("it has {} digits of checksums of {} parts", sums.len(), places.len()).into());
    }
    for (((start, end), name), sum) in places.iter().zip(sums.as_bytes().chunks_exact(DIGITS)) {
        let (from, to) = (header_end + *start as u64, header_end + *end as u64);
        let data = bytes.get(from as usize..to as usize).unwrap_or_default();
        if digits(XxHash3_64::oneshot(data)).as_bytes() != sum {
            let what = format!(
                "its part {name}, at the bytes from {from} to {to}, is damaged: its checksum doesn't match"
            );
            return Err(what.into());
        }
    }
    Ok(SavedFile { facts, tensors })
}

/// Reads the facts of a file of `len` bytes, of which only the header is read and checked.
pub(crate) fn read_facts(mut file: impl Read, len: u64) -> Result<HashMap<String, String>, Unusable> {
    let unread = |error: io::Error| format!("it is cut off or can't be read: {error}");
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(unread)?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER || header_len.saturating_add(8) > len {
        let what = format!("it is cut off or damaged: it has {len} bytes, and a header of {header_len}");
        return Err(what.into());
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(unread)?;
    check_header(&header, &header)?;
    #[derive(serde::Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__")]
        facts: HashMap<String, String>,
    }
    let header: Header =
        serde_json::from_slice(&header).map_err(|error| format!("its header can't be read: {error}"))?;
    Ok(header.facts)
}

/// Checks a header, and tells one of an earlier version from one that is damaged.
fn check_header(bytes: &[u8], header: &[u8]) -> Result<(), Unusable> {
    let sum = header.strip_prefix(START.as_bytes()).and_then(|rest| rest.get(..DIGITS));
    let damaged = || format!("its header, at the bytes from 0 to {}, is damaged", header.len() + 8);
    match sum {
        Some(sum) if sum == digits(header_sum(header)).as_bytes() => return Ok(()),
        Some(_) => return Err(format!("{}: its checksum doesn't match", damaged()).into()),
        None => {}
    }
    let (_, found) =
        SafeTensors::read_metadata(bytes).map_err(|error| format!("it is no saved sequence: {error}"))?;
    let version = found.metadata().as_ref().and_then(|facts| facts.get(VERSION_KEY));
    Err(match version.map(String::as_str) {
        Some(version @ ("1" | "2")) => Unusable::Earlier(format!(
            "it was saved with {VERSION_KEY} {version} by an earlier HERALD, without checksums, so that nobody can tell whether \
             it is whole, where {VERSION} was expected: its text must be run anew"
        )),
        Some(_) => format!("{}: it doesn't begin with its checksum", damaged()).into(),
        None => "it is no saved sequence of HERALD, or its header is damaged".to_owned().into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let facts = [(VERSION_KEY, VERSION), ("notes", "some \"text\",\n\u{1b} of anyone"), ("model", "m")];
        let facts = facts.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let data: Vec<u8> = (0..=255).collect();
        let parts: [(&str, &[u8]); 5] = [
            ("tokens", &data[..12]),
            ("pending", &[]),
            ("keys", &data),
            ("values", &[0; 70]),
            ("empty", &[]),
        ];
        let parts = parts.map(|(name, bytes)| (name.to_owned(), bytes));
        let mut bytes = Vec::new();
        write(&mut bytes, &BTreeMap::from(facts), &parts).unwrap();
        bytes
    }

    fn refusal(bytes: &[u8]) -> String {
        let Err(Unusable::Damaged(sentence)) = read(bytes) else { panic!("damage went unnoticed") };
        assert!(!sentence.is_empty() && sentence.len() < 400 && !sentence.contains('\n'), "{sentence}");
        sentence
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let bytes = file();
        let saved = read(&bytes).unwrap();
        assert_eq!(saved.facts["notes"], "some \"text\",\n\u{1b} of anyone");
        assert_eq!(saved.tensors.tensor("keys").unwrap().data()[200], 200);
        assert_eq!(saved.tensors.tensor("values").unwrap().data(), [0; 70]);
        assert!(saved.tensors.tensor("pending").unwrap().data().is_empty());
        assert_eq!(read_facts(&bytes[..], bytes.len() as u64).unwrap(), saved.facts);
    }

    #[test]
    fn one_flipped_bit_is_found_wherever_it_is() {
        let whole = file();
        let data = whole.len() - 338;
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << bit;
                assert_eq!(
                    read_facts(&bytes[..], bytes.len() as u64).is_err(),
                    at < data,
                    "byte {at}, bit {bit}"
                );
                let sentence = refusal(&bytes);
                let named = match at.checked_sub(data) {
                    None => "header",
                    Some(0..12) => "its part tokens",
                    Some(12..268) => "its part keys",
                    Some(_) => "its part values",
                };
                let wherever = sentence.contains(named) || (at < 8 && sentence.contains("cut off"));
                assert!(wherever || at < data, "byte {at}, bit {bit}: {sentence}");
            }
        }
        let mut zeros = whole.clone();
        zeros[data..].fill(0);
        assert!(
            refusal(&zeros).contains(&format!("its part tokens, at the bytes from {data} to {}", data + 12))
        );
        zeros.fill(0);
        refusal(&zeros);
    }

    #[test]
    fn a_file_that_is_cut_off_or_longer_is_refused() {
        let whole = file();
        for len in 0..whole.len() - 338 {
            assert!(read_facts(&whole[..len], len as u64).is_err(), "{len}");
        }
        for len in 0..whole.len() {
            assert!(refusal(&whole[..len]).contains("cut off"), "{len}");
        }
        refusal(&[&whole[..], b"x"].concat());
    }
}
