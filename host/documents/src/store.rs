//! Documents in a folder: one file each, written atomically, with a checksum.
//!
//! A file is in safetensors format. Its metadata has the format's version, the document's name, when it was added, the
//! model's fingerprint and name, and the SHA-256 of everything else. Its tensors are `text` (UTF-8), `chunks` (four numbers
//! each: the token range's start and end, and the byte range's), `vectors` (`[n_windows, hidden]`) and `windows` (the
//! number of vectors of each chunk). There is no index that could disagree with the files: the folder is the list, and two
//! processes may add to it at once.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use super::chunks::Chunk;
use herald::files::{Readers, Unfinished};
use herald::{Error, Result};

/// The format's version, which changes with the meaning of a file.
const VERSION: &str = "1";

/// The extension of documents' files.
const EXTENSION: &str = "memory";

/// The prefix of files that earlier versions were writing.
const UNFINISHED: &str = ".writing-";

/// An unfinished file of this age will never be finished.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);

/// Maximum size of a document's file.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// A document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Document {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) n_tokens: usize,
    pub(super) chunks: Vec<Chunk>,
    /// Each chunk's number of vectors.
    pub(super) windows: Vec<usize>,
    /// All chunks' vectors.
    pub(super) vectors: Vec<f32>,
    /// Elements of a vector.
    pub(super) hidden: usize,
    /// When it was added, in seconds since 1970.
    pub(super) added: u64,
    /// The fingerprint of the model that computed the vectors.
    pub(super) model: String,
    /// That model's name.
    pub(super) model_name: String,
    /// Bytes of its file; 0 without one.
    pub(super) file_bytes: u64,
}

/// A file that should hold a document but is damaged.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damaged {
    /// The file.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// JSON has no texts but Unicode, and a path may be no such text.
fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// A folder of documents.
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens a folder, creating it if it doesn't exist.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|source| failed(folder, "the folder can't be created", source))?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn path(&self, id: u64) -> PathBuf {
        self.folder.join(format!("{id:08}.{EXTENSION}"))
    }

    /// The numbers of the documents' files.
    fn ids(&self) -> Result<Vec<u64>> {
        let read = |source| failed(&self.folder, "the folder can't be read", source);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(read)? {
            let path = entry.map_err(read)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            if path.extension().is_some_and(|ending| ending == EXTENSION) {
                // A greater number isn't one of ours, and would leave none for the next document.
                ids.extend(stem.and_then(|stem| stem.parse::<u32>().ok()).map(u64::from));
            }
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// All documents by number, and the damaged files.
    pub(super) fn read(&self) -> Result<(BTreeMap<u64, Document>, Vec<Damaged>)> {
        let (mut documents, mut damaged) = (BTreeMap::new(), Vec::new());
        for id in self.ids()? {
            let path = self.path(id);
            match fs::metadata(&path).and_then(|facts| match facts.len() {
                0..=MAX_FILE_BYTES => fs::read(&path),
                len => Err(io::Error::other(format!(
                    "it has {len} bytes, where at most {MAX_FILE_BYTES} were expected"
                ))),
            }) {
                Ok(bytes) => match parse(&bytes) {
                    Ok(document) => drop(documents.insert(id, document)),
                    Err(reason) => damaged.push(Damaged { path, reason }),
                },
                // Another process removed it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed(&path, "it can't be read", source)),
            }
        }
        Ok((documents, damaged))
    }

    /// Writes a document atomically, and returns its number: the next one after `last` and after every file, which `last`
    /// becomes.
    pub(super) fn add(&self, document: &mut Document, last: &AtomicU64) -> Result<u64> {
        let wrong = |source: io::Error| failed(&self.folder, "the document can't be written", source);
        let mut file = Unfinished::create_in(&self.folder, Readers::Owner).map_err(wrong)?;
        let bytes = serialise(document).map_err(|error| wrong(io::Error::other(error)))?;
        file.write_all(&bytes).map_err(wrong)?;
        document.file_bytes = bytes.len() as u64;
        loop {
            last.fetch_max(self.ids()?.last().copied().unwrap_or(0), Ordering::Relaxed);
            let id = last.fetch_add(1, Ordering::Relaxed) + 1;
            match file.keep_new(&self.path(id)) {
                Ok(()) => return Ok(id),
                // Another process was faster.
                Err((_, Some(again))) => file = again,
                Err((error, None)) => return Err(wrong(error)),
            }
        }
    }

    /// Removes a document's file, damaged or not; returns whether there was one.
    pub(super) fn remove(&self, id: u64) -> Result<bool> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed(&path, "it can't be removed", source)),
        }
    }

    /// Removes files of abandoned writes; returns their number and bytes.
    pub(super) fn tidy(&self) -> Result<(usize, u64)> {
        let read = |source| failed(&self.folder, "the folder can't be read", source);
        let (mut files, mut bytes) = herald::files::tidy(&self.folder).map_err(read)?;
        for entry in fs::read_dir(&self.folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                continue;
            }
            let Ok(facts) = entry.metadata() else { continue };
            let age = facts.modified().ok().and_then(|time| time.elapsed().ok());
            if facts.is_file()
                && age.is_some_and(|age| age > ABANDONED_AFTER)
                && fs::remove_file(entry.path()).is_ok()
            {
                files += 1;
                bytes += facts.len();
            }
        }
        Ok((files, bytes))
    }

    /// Removes all documents' files; returns their number.
    pub(super) fn clear(&self) -> Result<usize> {
        let mut removed = 0;
        for id in self.ids()? {
            removed += usize::from(self.remove(id)?);
        }
        Ok(removed)
    }
}

fn failed(path: &Path, what: &str, source: io::Error) -> Error {
    Error::File { path: path.to_owned(), what: what.to_owned(), source }
}

/// The tensors of a document, by name.
type Parts = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

fn checksum(facts: &BTreeMap<String, String>, parts: &[(&str, &[u8])]) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, value) in facts.iter().filter(|(name, _)| *name != "sha256") {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    for (name, bytes) in parts {
        add(name.as_bytes());
        add(bytes);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serialise(document: &Document) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let numbers = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<u8> {
        numbers.flat_map(|number| (number as u64).to_le_bytes()).collect()
    };
    let bounds = |chunk: &Chunk| [chunk.tokens.start, chunk.tokens.end, chunk.bytes.start, chunk.bytes.end];
    let (n_chunks, n_windows) = (document.chunks.len(), document.windows.iter().sum());
    let parts: Parts = BTreeMap::from([
        ("chunks", (Dtype::U64, vec![n_chunks, 4], numbers(&mut document.chunks.iter().flat_map(bounds)))),
        ("text", (Dtype::U8, vec![document.text.len()], document.text.as_bytes().to_vec())),
        (
            "vectors",
            (
                Dtype::F32,
                vec![n_windows, document.hidden],
                document.vectors.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
        ),
        ("windows", (Dtype::U64, vec![n_chunks], numbers(&mut document.windows.iter().copied()))),
    ]);
    let mut facts = BTreeMap::from([
        ("herald.text_memory".to_owned(), VERSION.to_owned()),
        ("name".to_owned(), document.name.clone()),
        ("added".to_owned(), document.added.to_string()),
        ("tokens".to_owned(), document.n_tokens.to_string()),
        ("model".to_owned(), document.model.clone()),
        ("model_name".to_owned(), document.model_name.clone()),
    ]);
    let bytes: Vec<(&str, &[u8])> = parts.iter().map(|(name, (.., bytes))| (*name, &bytes[..])).collect();
    facts.insert("sha256".to_owned(), checksum(&facts, &bytes));
    let views = parts
        .iter()
        .map(|(name, (dtype, shape, bytes))| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize(views, Some(facts.into_iter().collect()))
}

/// Parses a file's document, or says what is wrong with it.
fn parse(bytes: &[u8]) -> Result<Document, String> {
    let unread = |error: safetensors::SafeTensorError| format!("it is not a safetensors file: {error}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(unread)?;
    let facts: BTreeMap<String, String> = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let fact = |name: &str| {
        facts
            .get(name)
            .cloned()
            .ok_or_else(|| format!("it lacks {name}, where a document of HERALD was expected"))
    };
    let version = fact("herald.text_memory")?;
    if version != VERSION {
        return Err(format!("it has the format's version {version}, where {VERSION} was expected"));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(unread)?;
    let part = |name: &str, dtype: Dtype| match tensors.tensor(name) {
        Ok(tensor) if tensor.dtype() == dtype => Ok(tensor),
        _ => Err(format!("it lacks its part {name}")),
    };
    let (chunks, text) = (part("chunks", Dtype::U64)?, part("text", Dtype::U8)?);
    let (vectors, windows) = (part("vectors", Dtype::F32)?, part("windows", Dtype::U64)?);
    let all = [
        ("chunks", chunks.data()),
        ("text", text.data()),
        ("vectors", vectors.data()),
        ("windows", windows.data()),
    ];
    if fact("sha256")? != checksum(&facts, &all) {
        return Err(
            "its checksum doesn't match its content: bytes have changed since it was written".to_owned()
        );
    }
    let contradicts = || "its parts contradict each other".to_owned();
    let numbers = |bytes: &[u8]| -> Vec<usize> {
        bytes.as_chunks::<8>().0.iter().map(|number| u64::from_le_bytes(*number) as usize).collect()
    };
    let text = String::from_utf8(text.data().to_vec()).map_err(|_| "its text is not UTF-8".to_owned())?;
    let n_tokens = fact("tokens")?.parse().map_err(|_| contradicts())?;
    let chunks: Vec<Chunk> = numbers(chunks.data())
        .as_chunks::<4>()
        .0
        .iter()
        .map(|[from, to, start, end]| Chunk { tokens: *from..*to, bytes: *start..*end })
        .collect();
    let windows = numbers(windows.data());
    let &[n_windows, hidden] = vectors.shape() else { return Err(contradicts()) };
    let in_bounds = |chunk: &Chunk| {
        chunk.tokens.start < chunk.tokens.end
            && chunk.tokens.end <= n_tokens
            && text.get(chunk.bytes.clone()).is_some()
    };
    let total = windows.iter().try_fold(0_usize, |sum, windows| sum.checked_add(*windows));
    if windows.len() != chunks.len() || total != Some(n_windows) || !chunks.iter().all(in_bounds) {
        return Err(contradicts());
    }
    Ok(Document {
        name: fact("name")?,
        n_tokens,
        chunks,
        windows,
        vectors: vectors.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect(),
        hidden,
        added: fact("added")?.parse().map_err(|_| contradicts())?,
        model: fact("model")?,
        model_name: fact("model_name")?,
        file_bytes: bytes.len() as u64,
        text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document() -> Document {
        Document {
            name: "a name\nwith ünusual characters".to_owned(),
            text: "some täxt".to_owned(),
            n_tokens: 3,
            chunks: vec![Chunk { tokens: 0..2, bytes: 0..5 }, Chunk { tokens: 1..3, bytes: 4..10 }],
            windows: vec![1, 2],
            vectors: (0..12_u8).map(f32::from).collect(),
            hidden: 4,
            added: 77,
            model: "f".to_owned(),
            model_name: "m".to_owned(),
            file_bytes: 0,
        }
    }

    #[test]
    fn a_document_survives_a_round_trip() {
        let bytes = serialise(&document()).expect("bytes");
        let expected = Document { file_bytes: bytes.len() as u64, ..document() };
        assert_eq!(parse(&bytes), Ok(expected));
    }

    #[test]
    fn a_removed_documents_number_is_not_reused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("the folder");
        let last = AtomicU64::new(0);
        let numbers = [(); 3].map(|()| {
            let id = store.add(&mut document(), &last).expect("written");
            assert!(store.remove(id).expect("removed"));
            id
        });
        assert_eq!(numbers, [1, 2, 3]);
        fs::write(store.path(u64::MAX), "of someone else").expect("written");
        assert_eq!(store.add(&mut document(), &last).expect("written"), 4);
    }

    proptest! {
        /// A file with any changed byte is refused, or means the same (JSON has more than one spelling).
        #[test]
        fn no_changed_byte_goes_unnoticed(at in 0_usize..1000, to in any::<u8>(), cut in 0_usize..2000) {
            let bytes = serialise(&document()).expect("bytes");
            let expected = parse(&bytes).expect("a document");
            let mut changed = bytes.clone();
            let at = at % changed.len();
            changed[at] = to;
            match parse(&changed) {
                Ok(found) => prop_assert_eq!(found, expected.clone()),
                Err(reason) => prop_assert!(!reason.contains('\n'), "{}", reason),
            }
            if cut < bytes.len() {
                prop_assert!(parse(&bytes[..cut]).is_err());
            }
        }
    }
}
