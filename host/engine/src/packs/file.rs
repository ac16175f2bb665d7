//! The file of a pack: what it holds, and whether that is whole.
//!
//! ```text
//! a header of one page     magic, version, where the index is and its XXH3, the file's time, and the boot since which the data is
//!                          known to be whole
//! data                     packed weights, each aligned to 64
//! the index, JSON          whose pack it is ([`Identity`]), and for each weight where it lies in the model, its form, where it lies
//!                          here, and its XXH3
//! ```
//!
//! A pack is not synced to the disk when it is made: that would take as long as the disk takes for the whole model. So after a
//! power cut it may hold zeros in place of data. Its header says since which boot of the machine it is known to be whole: the first
//! process after a boot compares all checksums, and says so there. It also says when the file was last written: where its time is
//! another one, somebody else wrote to it, and checksums are compared too.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;

use crate::files;
use crate::plugin::Loaded;

/// How a pack begins.
const MAGIC: [u8; 8] = *b"HERALDPK";

/// The version of the format, which a change of a file's meaning raises.
const VERSION: u64 = 1;

/// Bytes before the data.
pub(super) const HEADER_BYTES: usize = 4096;

/// Data is aligned to so many bytes.
const ALIGN: usize = 64;

/// Bytes of a boot's name: a UUID as text.
const BOOT_BYTES: usize = 36;

/// Where the boot's name lies in the header, behind magic, version, the index's offset, its length and its checksum, and the file's
/// time.
const BOOT_AT: usize = 6 * size_of::<u64>();

/// The longest index that is read: of a million weights.
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// A file as its name, length and time tell it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileId {
    #[serde(with = "crate::files::any_path")]
    pub(super) path: PathBuf,
    bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    modified: u64,
    /// When anything of it was last changed, which nobody can set, where the system tells.
    changed: Option<(i64, i64)>,
}

impl FileId {
    /// A file's; `None` where it can't be inspected.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let path = path.canonicalize().ok()?;
        let facts = path.metadata().ok()?;
        let modified = nanoseconds(facts.modified().ok()?)?;
        Some(Self { path, bytes: facts.len(), modified, changed: changed(&facts) })
    }

    /// Whether it is of this length and time.
    pub(super) fn is(&self, bytes: u64, modified: SystemTime) -> bool {
        self.bytes == bytes && Some(self.modified) == nanoseconds(modified)
    }
}

#[cfg(unix)]
fn changed(facts: &std::fs::Metadata) -> Option<(i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    Some((facts.ctime(), facts.ctime_nsec()))
}

#[cfg(not(unix))]
fn changed(_: &std::fs::Metadata) -> Option<(i64, i64)> {
    None
}

/// Nanoseconds since 1970.
fn nanoseconds(time: SystemTime) -> Option<u64> {
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_nanos()).ok()
}

/// A build of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginBuild {
    pub(super) name: String,
    version: String,
    file: FileId,
}

impl PluginBuild {
    /// A plugin's; `None` where its file can't be inspected.
    pub(super) fn of(loaded: &Loaded) -> Option<Self> {
        let (name, version) = (loaded.plugin.name().to_owned(), loaded.plugin.version().to_owned());
        Some(Self { name, version, file: FileId::of(&loaded.path)? })
    }
}

/// Whose pack it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) model: Vec<FileId>,
    pub(super) plugin: PluginBuild,
}

impl Identity {
    /// A name that is the same for the same places and plugin, so that a new pack takes the place of one that counts no more.
    pub(super) fn file_name(&self) -> Option<String> {
        let [model, plugin] =
            [self.model.first()?, &self.plugin.file].map(|file| file.path.as_os_str().as_encoded_bytes());
        let sum = Sha256::new().chain_update(model).chain_update([0]).chain_update(plugin).finalize();
        let digits: String = sum.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Some(format!("{digits}-{}.{}", self.plugin.name, super::EXTENSION))
    }

    /// Whether the model's files and the plugin's are still those.
    pub(super) fn is_current(&self) -> bool {
        let is_same = |file: &FileId| FileId::of(&file.path).as_ref() == Some(file);
        self.model.iter().all(is_same) && is_same(&self.plugin.file)
    }
}

/// A weight in the model's files, and the form that it is packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// Which of the model's files.
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) form: u64,
}

/// A packed weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) of: Key,
    /// Where it lies in the pack.
    pub(super) offset: usize,
    pub(super) bytes: usize,
    /// The [`sum`] of its bytes.
    pub(super) sum: u64,
}

/// The XXH3 of packed bytes.
pub(super) fn sum(packed: &[u8]) -> u64 {
    XxHash3_64::oneshot(packed)
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    identity: Identity,
    entries: Vec<Entry>,
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
struct Header {
    index_offset: u64,
    index_bytes: u64,
    index_sum: u64,
    /// The file's time, in nanoseconds since 1970.
    written: u64,
    boot: [u8; BOOT_BYTES],
}

impl Header {
    fn write(&self) -> Vec<u8> {
        let numbers = [VERSION, self.index_offset, self.index_bytes, self.index_sum, self.written];
        let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
        let mut bytes: Vec<u8> = MAGIC.into_iter().chain(numbers).chain(self.boot).collect();
        bytes.resize(HEADER_BYTES, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let number = |index: usize| {
            let (words, _) = bytes.as_chunks::<{ size_of::<u64>() }>();
            words.get(index).map(|word| u64::from_le_bytes(*word))
        };
        if !bytes.starts_with(&MAGIC) || number(1)? != VERSION {
            return None;
        }
        let (index_offset, index_bytes, index_sum) = (number(2)?, number(3)?, number(4)?);
        let (written, boot) = (number(5)?, *bytes.get(BOOT_AT..)?.first_chunk()?);
        Some(Self { index_offset, index_bytes, index_sum, written, boot })
    }
}

/// What names the boot of this machine that is running; `None` where the system doesn't tell.
fn this_boot() -> Option<[u8; BOOT_BYTES]> {
    let text = std::fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    text.first_chunk().copied()
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Opens a pack's file and reads its header and index.
fn read(path: &Path) -> io::Result<(File, Header, Index)> {
    let mut file = files::opened(path)?;
    let facts = file.metadata()?;
    check_owner(&facts)?;
    let mut bytes = [0; HEADER_BYTES];
    file.read_exact(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is cut short"),
        _ => error,
    })?;
    let header = Header::read(&bytes).ok_or_else(|| damaged("it is no pack of this version"))?;
    let end = header.index_offset.checked_add(header.index_bytes);
    if end != Some(facts.len())
        || header.index_bytes > MAX_INDEX_BYTES
        || header.index_offset < HEADER_BYTES as u64
    {
        return Err(damaged("its index doesn't lie at its end"));
    }
    let mut text = vec![0; header.index_bytes as usize];
    file.seek(SeekFrom::Start(header.index_offset))?;
    file.read_exact(&mut text)?;
    if sum(&text) != header.index_sum {
        return Err(damaged("its index's checksum doesn't match"));
    }
    Ok((file, header, serde_json::from_slice(&text)?))
}

/// Only this user may have written it.
#[cfg(unix)]
fn check_owner(facts: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: it takes nothing and can't fail.
    let user = unsafe { libc::geteuid() };
    if facts.uid() != user || facts.mode() & 0o022 != 0 {
        return Err(damaged("others than this user may write to it"));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_owner(_: &std::fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Whose pack a file is.
pub(super) fn identity(path: &Path) -> io::Result<Identity> {
    let (_, _, index) = read(path)?;
    Ok(index.identity)
}

/// A pack that is mapped.
pub(super) struct Mapped {
    pub(super) map: Mmap,
    /// Where each weight lies, and its bytes.
    pub(super) entries: HashMap<Key, (usize, usize)>,
}

/// Maps the pack of a model and a plugin.
///
/// # Errors
/// Where there is none, it is another one's, or damaged.
pub(super) fn open(path: &Path, identity: &Identity) -> io::Result<Mapped> {
    let (file, header, index) = read(path)?;
    if index.identity != *identity {
        return Err(damaged("the model or the plugin has changed"));
    }
    // SAFETY: only this user may write to the file, and HERALD doesn't write to data once a file has its name.
    let map = unsafe { Mmap::map(&file)? };
    let is_within = |entry: &Entry| {
        let end = entry.offset.checked_add(entry.bytes);
        entry.offset >= HEADER_BYTES
            && entry.offset.is_multiple_of(ALIGN)
            && end.is_some_and(|end| end as u64 <= header.index_offset && end <= map.len())
    };
    if !index.entries.iter().all(is_within) {
        return Err(damaged("it says that weights lie where it has none"));
    }
    let time = file.metadata()?.modified().ok().and_then(nanoseconds);
    if this_boot().is_none_or(|boot| boot != header.boot) || time != Some(header.written) {
        verify(path, &map, &index.entries, header.written)?;
    }
    let entries = index.entries.iter().map(|entry| (entry.of, (entry.offset, entry.bytes))).collect();
    Ok(Mapped { map, entries })
}

/// Compares the checksums of all data, and notes in the header that they match in this boot.
fn verify(path: &Path, map: &[u8], entries: &[Entry], written: u64) -> io::Result<()> {
    let is_whole = |entry: &Entry| sum(&map[entry.offset..entry.offset + entry.bytes]) == entry.sum;
    if !entries.iter().all(is_whole) {
        return Err(damaged("a weight's checksum doesn't match"));
    }
    let Some(boot) = this_boot() else { return Ok(()) };
    let noted = File::options().write(true).open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(BOOT_AT as u64))?;
        file.write_all(&boot)?;
        file.set_modified(UNIX_EPOCH + Duration::from_nanos(written))
    });
    if let Err(error) = noted {
        tracing::debug!("{}: that it is whole can't be noted: {error}", path.display());
    }
    Ok(())
}

/// Writes header and index around the data of a file, which ends at `end`.
pub(super) fn finish(
    file: &mut File,
    identity: &Identity,
    entries: Vec<Entry>,
    end: usize,
) -> io::Result<()> {
    let index = serde_json::to_vec(&Index { identity: identity.clone(), entries })?;
    let written = nanoseconds(SystemTime::now()).unwrap_or(0);
    let header = Header {
        index_offset: end as u64,
        index_bytes: index.len() as u64,
        index_sum: sum(&index),
        // Zeros are no boot: without one, each process compares the checksums.
        boot: this_boot().unwrap_or([0; BOOT_BYTES]),
        written,
    };
    file.seek(SeekFrom::Start(end as u64))?;
    file.write_all(&index)?;
    file.set_len((end + index.len()) as u64)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header.write())?;
    file.set_modified(UNIX_EPOCH + Duration::from_nanos(written))
}
