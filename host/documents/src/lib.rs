//! `Documents`: keeps texts in chunks, finds them by meaning and by words, and puts them into prompts.
//!
//! Adding a text cuts it into chunks of [`DocumentsOptions::chunk_tokens`] tokens, and runs each through the model once to
//! get its embedding vectors. A search ranks all chunks by their best vector (see `embedding`), ranks those that share
//! enough words with the query by BM25 (see `bm25`), and merges both rankings by reciprocal rank fusion (Cormack, Clarke
//! and Büttcher, doi.org/10.1145/1571941.1572114): a chunk's score is the sum of 1 / (60 + r) over the rankings in which it
//! has rank r, counted from 1.
//!
//! Every method may be called from any thread. The model runs outside all locks, so that adding doesn't block searches.

mod bm25;
mod chunks;
mod embedding;
mod prompt;
mod store;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use bm25::{Key, Words};
use chunks::Tokens;
use herald::NeuroEngine;
use herald::{Error, Result};
use store::{Document, Store};

pub use prompt::{PROMPT_TEMPLATE, Recalled};
pub use store::Damaged;

/// Added to a rank before it is inverted, so that one first rank alone doesn't decide.
const RANK_OFFSET: f64 = 60.0;

/// How texts are cut into chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentsOptions {
    /// Tokens of a chunk.
    pub chunk_tokens: usize,
    /// Tokens that a chunk shares with the previous one.
    pub overlap_tokens: usize,
}

impl Default for DocumentsOptions {
    fn default() -> Self {
        Self { chunk_tokens: 1024, overlap_tokens: 128 }
    }
}

/// A kept text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DocumentInfo {
    /// Its number, which [`Documents::remove`] takes.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Number of tokens.
    pub tokens: usize,
    /// Number of chunks.
    pub chunks: usize,
    /// Bytes of its text.
    pub text_bytes: usize,
    /// Bytes of its file; 0 if it is only in memory.
    pub file_bytes: u64,
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// The model that computed its vectors.
    pub model: String,
}

/// A chunk that a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hit {
    /// Its document's number.
    pub document: u64,
    /// The document's name.
    pub name: String,
    /// The chunk's index in the document.
    pub chunk: usize,
    /// The index of its first token in the document.
    pub first_token: usize,
    /// Its text.
    pub text: String,
    /// The sum of both rankings' reciprocal ranks.
    pub score: f64,
    /// Its rank by meaning, from 1.
    pub meaning_rank: usize,
    /// The cosine between the query and its nearest vector.
    pub meaning: f32,
    /// Its rank by words, from 1; `None` if it has too few of the query's words.
    pub word_rank: Option<usize>,
    /// Its BM25 score; 0 without such a rank.
    pub words: f64,
}

/// The size of the kept texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DocumentsUsage {
    /// Number of texts.
    pub documents: usize,
    /// Number of chunks.
    pub chunks: usize,
    /// Number of tokens, counting overlaps once.
    pub tokens: usize,
    /// Bytes of the texts.
    pub text_bytes: usize,
    /// Bytes of the chunks' vectors.
    pub vector_bytes: usize,
    /// Bytes of the files.
    pub file_bytes: u64,
}

/// The documents and their word index.
#[derive(Default)]
struct Held {
    documents: BTreeMap<u64, Document>,
    words: Words,
}

impl Held {
    fn insert(&mut self, id: u64, document: Document) {
        for (index, chunk) in document.chunks.iter().enumerate() {
            self.words.add((id, index), &document.text[chunk.bytes.clone()]);
        }
        self.documents.insert(id, document);
    }
}

/// A folder's texts without a model: to list and remove them.
pub struct DocumentStore {
    store: Store,
    documents: BTreeMap<u64, Document>,
    damaged: Vec<Damaged>,
}

impl DocumentStore {
    /// Opens a folder, creating it if it doesn't exist.
    ///
    /// # Errors
    /// If the folder can't be created or read.
    pub fn open(folder: &Path) -> Result<Self> {
        let store = Store::open(folder)?;
        let (documents, damaged) = store.read()?;
        Ok(Self { store, documents, damaged })
    }

    /// The texts, in the order they were added.
    #[must_use]
    pub fn documents(&self) -> Vec<DocumentInfo> {
        self.documents.iter().map(|(id, document)| info(*id, document)).collect()
    }

    /// Files that should hold a text but are damaged, and why.
    #[must_use]
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// The size of the texts.
    #[must_use]
    pub fn usage(&self) -> DocumentsUsage {
        usage(&self.documents)
    }

    /// Removes damaged files and the remains of unfinished writes; returns the number of files and their bytes.
    ///
    /// # Errors
    /// If a file can't be removed.
    pub fn tidy(&mut self) -> Result<(usize, u64)> {
        let (mut files, mut bytes) = self.store.tidy()?;
        for damaged in std::mem::take(&mut self.damaged) {
            bytes += std::fs::metadata(&damaged.path).map_or(0, |facts| facts.len());
            files += 1;
            std::fs::remove_file(&damaged.path).map_err(|source| Error::File {
                path: damaged.path,
                what: "it can't be removed".to_owned(),
                source,
            })?;
        }
        Ok((files, bytes))
    }

    /// Removes a text by its number, even if its file is damaged; returns whether there was one.
    ///
    /// # Errors
    /// If the file can't be removed.
    pub fn remove(&mut self, id: u64) -> Result<bool> {
        self.documents.remove(&id);
        self.store.remove(id)
    }

    /// Removes all texts; returns the number of files.
    ///
    /// # Errors
    /// If a file can't be removed.
    pub fn clear(&mut self) -> Result<usize> {
        self.documents.clear();
        self.damaged.clear();
        self.store.clear()
    }
}

/// Texts in chunks that are found by meaning and by words.
///
/// ```no_run
/// use std::sync::Arc;
/// use herald::{LoadOptions, NeuroEngine};
/// use herald_documents::Documents;
///
/// # fn main() -> herald::Result<()> {
/// let engine = Arc::new(NeuroEngine::load("model.gguf".as_ref(), &LoadOptions::default())?);
/// let documents = Documents::open(engine, "notes".as_ref())?;
/// documents.add("diary", "In the evening the cat was asleep by the fire.")?;
/// for hit in documents.search("What did the pet do?", 3)? {
///     println!("{:.4} {}: {}", hit.score, hit.name, hit.text);
/// }
/// let recalled = documents.recall("What did the pet do?", 3, 2048)?;
/// println!("{}", recalled.prompt);
/// # Ok(())
/// # }
/// ```
pub struct Documents {
    engine: Arc<NeuroEngine>,
    options: DocumentsOptions,
    /// `None`: only in memory.
    store: Option<Store>,
    fingerprint: String,
    damaged: Vec<Damaged>,
    /// The last assigned number. Numbers are never reused, so that a late removal can't hit a newer text.
    last: AtomicU64,
    held: RwLock<Held>,
}

impl Documents {
    /// Empty documents that are only in memory, and gone with this value.
    #[must_use]
    pub fn in_memory(engine: Arc<NeuroEngine>) -> Self {
        let fingerprint = engine.fingerprint();
        let options = DocumentsOptions::default();
        Self {
            engine,
            options,
            store: None,
            fingerprint,
            damaged: Vec::new(),
            last: AtomicU64::new(0),
            held: RwLock::default(),
        }
    }

    /// Opens a folder's documents, creating the folder if it doesn't exist. Damaged files are left out:
    /// [`Documents::damaged`] names them.
    ///
    /// # Errors
    /// If the folder can't be created or read, or holds a text with another model's vectors.
    pub fn open(engine: Arc<NeuroEngine>, folder: &Path) -> Result<Self> {
        let empty = Self::in_memory(engine);
        let store = Store::open(folder)?;
        let (documents, damaged) = store.read()?;
        let mut held = Held::default();
        for (id, document) in documents {
            empty.check_model(folder, &document)?;
            held.insert(id, document);
        }
        Ok(Self { store: Some(store), damaged, held: RwLock::new(held), ..empty })
    }

    fn check_model(&self, folder: &Path, document: &Document) -> Result<()> {
        if document.model == self.fingerprint && document.hidden == self.engine.plan().hidden {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "{}: the text {:?} was added with the model {}, whose vectors can't be compared with those of {}, where texts of \
             the same model were expected: open it with that model, or use another folder",
            folder.display(),
            document.name,
            document.model_name,
            model_name(&self.engine)
        )))
    }

    /// Sets how texts are cut that are added from now on.
    ///
    /// # Errors
    /// If chunks would be empty, or the overlap is not smaller than a chunk.
    pub fn set_options(&mut self, options: DocumentsOptions) -> Result<()> {
        let DocumentsOptions { chunk_tokens, overlap_tokens } = options;
        if chunk_tokens == 0 || overlap_tokens >= chunk_tokens {
            return Err(Error::Invalid(format!(
                "chunks of {chunk_tokens} tokens can't overlap by {overlap_tokens}, where at least one token and a smaller \
                 overlap were expected"
            )));
        }
        self.options = options;
        Ok(())
    }

    /// The model.
    #[must_use]
    pub fn engine(&self) -> &Arc<NeuroEngine> {
        &self.engine
    }

    /// Files that should hold a text but are damaged, and why. They were left out.
    #[must_use]
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Adds a text under a name, which may be used more than once. A text that is kept under this name already, in the same
    /// chunks, isn't kept twice: its number is the one that it has.
    ///
    /// # Errors
    /// As [`Documents::add_while`].
    pub fn add(&self, name: &str, text: &str) -> Result<DocumentInfo> {
        self.add_while(name, text, &mut |_, _| true)
    }

    /// Like [`Documents::add`], but calls `progress` with the numbers of finished chunks and of all chunks after each one.
    /// If it returns `false`, the work stops and nothing is added.
    ///
    /// # Errors
    /// If the text has no token or the vocabulary can't express it, if a plugin or the disk fails, or with
    /// [`Error::Cancelled`].
    pub fn add_while(
        &self,
        name: &str,
        text: &str,
        progress: &mut dyn FnMut(usize, usize) -> bool,
    ) -> Result<DocumentInfo> {
        let tokens = Tokens::of(self.engine.tokenizer(), text)?;
        if tokens.ids.is_empty() {
            return Err(Error::Invalid(format!("the text {name:?} is empty, where some text was expected")));
        }
        let DocumentsOptions { chunk_tokens, overlap_tokens } = self.options;
        let chunks = tokens.chunks(chunk_tokens.min(self.engine.context() - 1).max(1), overlap_tokens);
        let same = |document: &Document| {
            document.name == name && document.text == tokens.text && document.chunks == chunks
        };
        if let Some((id, document)) = self.read().documents.iter().find(|(_, document)| same(document)) {
            return Ok(info(*id, document));
        }
        let hidden = self.engine.plan().hidden;
        let (mut vectors, mut windows) = (Vec::new(), Vec::new());
        for (index, chunk) in chunks.iter().enumerate() {
            let more = embedding::vectors(&self.engine, &tokens.ids[chunk.tokens.clone()], true)?;
            windows.push(more.len() / hidden);
            vectors.extend(more);
            if !progress(index + 1, chunks.len()) && index + 1 < chunks.len() {
                return Err(Error::Cancelled);
            }
        }
        let added = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut document = Document {
            name: name.to_owned(),
            n_tokens: tokens.ids.len(),
            text: tokens.text,
            chunks,
            windows,
            vectors,
            hidden,
            added,
            model: self.fingerprint.clone(),
            model_name: model_name(&self.engine),
            file_bytes: 0,
        };
        let id = match &self.store {
            Some(store) => store.add(&mut document, &self.last)?,
            None => self.last.fetch_add(1, Ordering::Relaxed) + 1,
        };
        let mut held = self.write();
        let info = info(id, &document);
        held.insert(id, document);
        Ok(info)
    }

    /// The texts, in the order they were added.
    #[must_use]
    pub fn documents(&self) -> Vec<DocumentInfo> {
        self.read().documents.iter().map(|(id, document)| info(*id, document)).collect()
    }

    /// The size of the texts.
    #[must_use]
    pub fn usage(&self) -> DocumentsUsage {
        usage(&self.read().documents)
    }

    /// Removes a text by its number; returns whether there was one.
    ///
    /// # Errors
    /// If its file can't be removed: the text then stays.
    pub fn remove(&self, id: u64) -> Result<bool> {
        let on_disk = self.store.as_ref().map(|store| store.remove(id)).transpose()?.unwrap_or(false);
        let mut held = self.write();
        let removed = held.documents.remove(&id).is_some();
        if removed {
            held.words.remove(id);
        }
        Ok(removed || on_disk)
    }

    /// Removes all texts; returns their number.
    ///
    /// # Errors
    /// As [`Documents::remove`].
    pub fn clear(&self) -> Result<usize> {
        let ids: Vec<u64> = self.read().documents.keys().copied().collect();
        let mut removed = 0;
        for id in ids {
            removed += usize::from(self.remove(id)?);
        }
        Ok(removed)
    }

    /// The `k` chunks that match a query best, best first.
    ///
    /// # Errors
    /// If the query has no token, or a plugin fails.
    pub fn search(&self, query: &str, k: usize) -> Result<Vec<Hit>> {
        let ids = self.engine.tokenizer().encode(query, false)?;
        if ids.is_empty() {
            return Err(Error::Invalid("the query is empty, where some text was expected".to_owned()));
        }
        // A query longer than the context is cut.
        let ids = &ids[..ids.len().min(self.engine.context() - 1).max(1)];
        let query_vector = embedding::vectors(&self.engine, ids, false)?;
        let held = self.read();
        let by_meaning = rank_by_meaning(&held.documents, &query_vector);
        let by_words = held.words.search(query);
        let word_ranks: HashMap<Key, (usize, f64)> =
            by_words.iter().enumerate().map(|(index, (key, score))| (*key, (index + 1, *score))).collect();
        let inverse = |rank: usize| 1.0 / (RANK_OFFSET + rank as f64);
        let mut found: Vec<_> = by_meaning
            .into_iter()
            .enumerate()
            .map(|(index, (key, meaning))| {
                let words = word_ranks.get(&key).copied();
                let score = inverse(index + 1) + words.map_or(0.0, |(rank, _)| inverse(rank));
                (key, score, index + 1, meaning, words)
            })
            .collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let hit = |((id, index), score, meaning_rank, meaning, words): (
            Key,
            f64,
            usize,
            f32,
            Option<(usize, f64)>,
        )| {
            let document = held.documents.get(&id)?;
            let chunk = document.chunks.get(index)?;
            Some(Hit {
                document: id,
                name: document.name.clone(),
                chunk: index,
                first_token: chunk.tokens.start,
                text: document.text[chunk.bytes.clone()].to_owned(),
                score,
                meaning_rank,
                meaning,
                word_rank: words.map(|(rank, _)| rank),
                words: words.map_or(0.0, |(_, score)| score),
            })
        };
        Ok(found.into_iter().take(k).filter_map(hit).collect())
    }

    /// A prompt for a question, with as much of the `k` best chunks as fits into `budget` tokens.
    ///
    /// # Errors
    /// As [`Documents::search`], or if the question alone exceeds the budget.
    pub fn recall(&self, question: &str, k: usize, budget: usize) -> Result<Recalled> {
        self.recall_as(PROMPT_TEMPLATE, question, k, budget)
    }

    /// Like [`Documents::recall`], with another template than [`PROMPT_TEMPLATE`].
    ///
    /// # Errors
    /// As [`Documents::recall`], or if the template is invalid.
    pub fn recall_as(&self, template: &str, question: &str, k: usize, budget: usize) -> Result<Recalled> {
        let hits = self.search(question, k)?;
        prompt::recall(self.engine.tokenizer(), template, question, hits, budget)
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        // No holder of the lock leaves the data half-changed, so poisoning doesn't matter.
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All chunks by the highest cosine between one of their vectors and the query's, best first.
fn rank_by_meaning(documents: &BTreeMap<u64, Document>, query: &[f32]) -> Vec<(Key, f32)> {
    let hidden = query.len();
    let all = documents.values().flat_map(|document| document.vectors.chunks_exact(hidden));
    // A single vector equals the mean, and the difference would have no direction.
    let many = documents.values().map(|document| document.windows.len()).sum::<usize>() > 1;
    let mean = if many { embedding::mean(all, hidden) } else { vec![0.0; hidden] };
    let mut ranked = Vec::new();
    for (id, document) in documents {
        let mut vectors = document.vectors.chunks_exact(hidden);
        for (index, windows) in document.windows.iter().enumerate() {
            let cosines =
                vectors.by_ref().take(*windows).map(|vector| embedding::cosine(query, vector, &mean));
            ranked.push(((*id, index), cosines.fold(-1.0, f32::max)));
        }
    }
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}

fn model_name(engine: &NeuroEngine) -> String {
    engine.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn info(id: u64, document: &Document) -> DocumentInfo {
    DocumentInfo {
        id,
        name: document.name.clone(),
        tokens: document.n_tokens,
        chunks: document.chunks.len(),
        text_bytes: document.text.len(),
        file_bytes: document.file_bytes,
        added: document.added,
        model: document.model_name.clone(),
    }
}

fn usage(documents: &BTreeMap<u64, Document>) -> DocumentsUsage {
    let mut usage = DocumentsUsage { documents: documents.len(), ..DocumentsUsage::default() };
    for document in documents.values() {
        usage.chunks += document.chunks.len();
        usage.tokens += document.n_tokens;
        usage.text_bytes += document.text.len();
        usage.vector_bytes += size_of_val(&document.vectors[..]);
        usage.file_bytes += document.file_bytes;
    }
    usage
}
