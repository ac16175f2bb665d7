//! Sequences that outlive a process: what the layers keep of one, in a file.
//!
//! The file is in safetensors format with checksums (`saved_file`). Its metadata has the format's version, the model's fingerprint
//! and, for each layer with a recurrent state or with summaries of pages, the backend that wrote them, since only that backend
//! can read them. Keys and values are in the ABI's page formats, which every backend reads.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::files::{self, Readers, Unfinished};
use crate::gguf::Gguf;
use crate::kv_cache::{LayerBytes, LayerNeeds, MemoryOptions, PageBytes, PageKey, SequenceMemory};
use crate::sampler::SamplerState;
use crate::saved_file::{self, Unusable, VERSION, VERSION_KEY};

/// Bytes of each end and of the middle of a tensor that go into a model's fingerprint.
const SAMPLE: usize = 4096;

/// What is saved beside a sequence.
#[derive(Clone, Copy, Debug, Default)]
pub struct SavedExtras<'e> {
    /// Tokens to run next.
    pub pending: &'e [u32],
    /// The random numbers that come next.
    pub sampler: Option<SamplerState>,
    /// The caller's own text.
    pub notes: &'e str,
}

/// A sequence from a file.
pub struct LoadedState {
    /// The sequence.
    pub sequence: Sequence,
    /// Tokens to run next, as they were saved.
    pub pending: Vec<u32>,
    /// The random numbers that come next, where they were saved.
    pub sampler: Option<SamplerState>,
    /// What the caller saved with it.
    pub notes: String,
}

impl NeuroEngine {
    /// A copy of a sequence, which goes on by itself.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or there is no memory for the copy.
    pub fn fork(&self, sequence: &Sequence) -> Result<Sequence> {
        self.owns(sequence)?;
        sequence.is_whole()?;
        let memory = sequence.memory.fork(sequence.tokens.len());
        let memory =
            memory.map_err(|source| Error::Plugin { what: "a copy of a sequence".to_owned(), source })?;
        let (is_own, cache_key) = (sequence.is_own, sequence.cache_key.clone());
        let loras = sequence.loras.clone();
        Ok(Sequence { is_own, cache_key, loras, ..self.opened(memory, sequence.tokens.clone()) })
    }

    /// Makes a sequence `len` tokens long (up to whole pages) with copies of its own pages, which take as much memory as that many
    /// tokens. What the model computes from them means nothing: this is for measuring long contexts.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, the context has no room for `len` tokens, or no memory is left.
    pub fn stretch(&self, sequence: &mut Sequence, len: usize) -> Result<()> {
        self.owns(sequence)?;
        if len > self.context {
            return Err(Error::ContextFull { wanted: len, room: self.context });
        }
        sequence.is_own = false;
        let past = sequence.tokens.len();
        let missing = len.saturating_sub(past);
        let grown = sequence.memory.stretch(missing, self.memory.limits());
        let added = grown.map_err(|source| Error::Plugin { what: "a longer sequence".to_owned(), source })?;
        let copies: Vec<u32> = sequence.tokens.iter().copied().cycle().take(added).collect();
        sequence.tokens.extend(copies);
        Ok(())
    }

    /// Takes a sequence back to its first `len` tokens. A model that keeps recurrent states, which can't go back, runs
    /// those tokens anew: where that is to be cheap, [`NeuroEngine::fork`] the sequence beforehand.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; the sequence then has fewer tokens than `len`.
    pub fn rewind(&self, sequence: &mut Sequence, len: usize) -> Result<()> {
        self.owns(sequence)?;
        if sequence.truncate(len) {
            return Ok(());
        }
        let tokens = sequence.tokens[..len.min(sequence.tokens.len())].to_vec();
        sequence.truncate(0);
        self.run(sequence, &tokens)
    }

    /// Saves a sequence, with tokens to run next, for [`NeuroEngine::restore`] in another process. The file takes an earlier
    /// one's place as a whole, once the disk holds it.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, an archived page is damaged, or the file can't be written: an earlier
    /// one then stays.
    pub fn save(&self, sequence: &Sequence, pending: &[u32], path: &Path) -> Result<()> {
        self.save_with(sequence, &SavedExtras { pending, ..SavedExtras::default() }, path)
    }

    /// As [`NeuroEngine::save`], with all that can be saved beside a sequence.
    ///
    /// # Errors
    /// As [`NeuroEngine::save`].
    pub fn save_with(&self, sequence: &Sequence, extras: &SavedExtras<'_>, path: &Path) -> Result<()> {
        self.owns(sequence)?;
        sequence.is_whole()?;
        let (tokens, pending) = (words(&sequence.tokens), words(extras.pending));
        let mut facts = self.facts();
        facts.insert("notes".to_owned(), extras.notes.to_owned());
        if sequence.loras.key().is_some() {
            facts.insert("loras".to_owned(), self.loras.text(&sequence.loras));
        }
        if let Some(SamplerState { seed, draws }) = extras.sampler {
            facts.insert("sampler".to_owned(), format!("{seed} {draws}"));
        }
        let layers: Vec<_> = sequence
            .memory
            .layer_bytes(sequence.tokens.len())
            .collect::<herald_api::Result<_>>()
            .map_err(|source| Error::Plugin { what: "the memory of a sequence".to_owned(), source })?;
        let mut parts: Vec<(String, &[u8])> =
            vec![("tokens".to_owned(), &tokens), ("pending".to_owned(), &pending)];
        for (index, layer) in layers.iter().enumerate() {
            match layer {
                LayerBytes::Nothing => {}
                LayerBytes::State(state) => parts.push((state_name(index), state)),
                LayerBytes::Pages { pages, selectable, summaries } => {
                    for (page, (keys, values)) in pages.iter().map(PageBytes::bytes).enumerate() {
                        parts.push((page_name(index, page, "keys"), keys));
                        parts.push((page_name(index, page, "values"), values));
                    }
                    if *selectable != [0, 0] {
                        parts.push((summaries_name(index), summaries));
                        facts.insert(selectable_name(index), format!("{} {}", selectable[0], selectable[1]));
                        facts.insert(summaries_name(index), self.summaries_of(index));
                    }
                }
            }
        }
        let write = || {
            let mut file = BufWriter::new(Unfinished::create(path, Readers::Owner)?);
            saved_file::write(&mut file, &facts, &parts)?;
            file.flush()?;
            file.into_inner().map_err(std::io::IntoInnerError::into_error)?.keep(path)
        };
        write().map_err(|source| Error::File {
            path: path.to_owned(),
            what: "the sequence can't be saved".to_owned(),
            source,
        })
    }

    /// Who made the summaries of a layer's pages, and how long they are.
    fn summaries_of(&self, layer: usize) -> String {
        let layer = &self.layers[layer];
        format!("{} bytes of the backend {}", layer.summary_bytes(), layer.plugin())
    }

    /// Opens a sequence that [`NeuroEngine::save`] saved, with its pages in the tiers that they were in.
    ///
    /// # Errors
    /// Where the file can't be read, holds no sequence, is damaged anywhere, or is of another version, another model, other
    /// pages, or a recurrent state of another backend.
    pub fn restore(&self, path: &Path) -> Result<LoadedState> {
        let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
        let unread = |source| Error::File {
            path: path.to_owned(),
            what: "the saved sequence can't be read".to_owned(),
            source,
        };
        let file = files::opened(path).map_err(|error| unread(files::explained(path, error)))?;
        // SAFETY: the file is only ever replaced as a whole by `save`; whoever changes it meanwhile changes what is read, as
        // with a model's file.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(unread)?;
        let saved = saved_file::read(&bytes).map_err(|unusable| match unusable {
            Unusable::Damaged(what) => damaged(format!("the saved sequence can't be read: {what}")),
            Unusable::Earlier(what) => {
                Error::Invalid(format!("{}: the saved sequence can't be read: {what}", path.display()))
            }
        })?;
        let (found, tensors) = (&saved.facts, &saved.tensors);
        let check = |name: &str, expected: &str| {
            let found = found.get(name).map_or("nothing", String::as_str);
            if found == expected {
                return Ok(());
            }
            Err(Error::Invalid(format!(
                "{}: the sequence was saved with {name} {found}, where {expected} was expected",
                path.display()
            )))
        };
        let mut expected: Vec<_> = self.facts().into_iter().collect();
        // The version first, then the model, then what depends on how it is run.
        expected.sort_by_key(|(name, _)| (name != VERSION_KEY, name != "model", name.clone()));
        expected.iter().try_for_each(|(name, expected)| check(name, expected))?;
        let pair = |name: &str| -> Result<Option<[u64; 2]>> {
            let Some(text) = found.get(name) else { return Ok(None) };
            let pair = text.split_once(' ').and_then(|(a, b)| Some([a.parse().ok()?, b.parse().ok()?]));
            pair.map(Some)
                .ok_or_else(|| damaged(format!("the saved sequence's {name} is no pair of numbers: {text}")))
        };
        let part = |name: &str| match tensors.tensor(name) {
            Ok(tensor) => Ok(tensor.data()),
            Err(_) => Err(damaged(format!("the saved sequence lacks its part {name}"))),
        };
        let ids = |name: &str| -> Result<Vec<u32>> {
            let ids: Vec<u32> =
                part(name)?.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
            match ids.iter().find(|id| **id as usize >= self.plan.vocabulary) {
                Some(id) => {
                    Err(damaged(format!("the saved sequence has the token {id}, which the model lacks")))
                }
                None => Ok(ids),
            }
        };
        let (tokens, pending) = (ids("tokens")?, ids("pending")?);
        if tokens.len() > self.context {
            return Err(Error::ContextFull { wanted: tokens.len(), room: self.context });
        }
        let mut failed = None;
        let memory =
            SequenceMemory::from_bytes(&self.memory.needs, &self.memory.ledger, tokens.len(), |index| {
                self.saved_layer(index, tokens.len(), &part, &pair, &check).map_err(|error| {
                    failed.get_or_insert(error);
                    herald_api::Error::invalid("a part is missing")
                })
            });
        if let Some(error) = failed {
            return Err(error);
        }
        let memory = memory.map_err(|source| {
            let what = format!("{}: the saved sequence can't be read", path.display());
            Error::Plugin { what, source }
        })?;
        let sampler = pair("sampler")?.map(|[seed, draws]| SamplerState { seed, draws });
        let notes = found.get("notes").cloned().unwrap_or_default();
        let loras = self.loras.parse(found.get("loras").map_or("", String::as_str)).map_err(|sentence| {
            Error::Invalid(format!("{}: the saved sequence can't be used: {sentence}", path.display()))
        })?;
        let sequence = Sequence { loras, ..self.opened(memory, tokens) };
        Ok(LoadedState { sequence, pending, sampler, notes })
    }

    /// What a file holds of a layer.
    fn saved_layer<'b>(
        &self,
        index: usize,
        tokens: usize,
        part: &dyn Fn(&str) -> Result<&'b [u8]>,
        pair: &dyn Fn(&str) -> Result<Option<[u64; 2]>>,
        check: &dyn Fn(&str, &str) -> Result<()>,
    ) -> Result<LayerBytes<'b>> {
        Ok(match &self.memory.needs[index] {
            LayerNeeds::Nothing | LayerNeeds::PagesOf(_) => LayerBytes::Nothing,
            LayerNeeds::State(_) => LayerBytes::State(part(&state_name(index))?),
            LayerNeeds::Pages(needs) => {
                let n_pages = tokens.div_ceil(needs.tier.config().page_tokens);
                let pages = (0..n_pages)
                    .map(|page| {
                        let keys = part(&page_name(index, page, "keys"))?;
                        Ok(PageBytes::Lent(keys, part(&page_name(index, page, "values"))?))
                    })
                    .collect::<Result<_>>()?;
                let selectable = pair(&selectable_name(index))?.unwrap_or_default();
                let mut summaries: &[u8] = &[];
                if selectable != [0, 0] {
                    check(&summaries_name(index), &self.summaries_of(index))?;
                    summaries = part(&summaries_name(index))?;
                }
                let selectable = selectable.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
                LayerBytes::Pages { pages, selectable, summaries }
            }
        })
    }

    /// A hash that tells the model apart from others: of what its metadata and tensors say, and of samples of its weights.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.gguf)
    }

    /// Where the prefix cache's sequences begin: what changes a page's content, to the last bit of a number.
    pub(super) fn cache_scope(&self) -> PageKey {
        let mut facts = self.facts();
        for (index, layer) in self.layers.iter().enumerate() {
            let precision = layer.desc().activations;
            facts.insert(format!("layer.{index}"), format!("{} {precision:?}", layer.plugin()));
            if layer.summary_bytes() > 0 {
                facts.insert(format!("summaries.{index}"), self.summaries_of(index));
            }
            if let Some(Some(layer)) = self.prompt_layers.get(index) {
                facts.insert(format!("prompt_layer.{index}"), layer.plugin().to_owned());
            }
        }
        let MemoryOptions { active, compressed, selected_pages, .. } = &self.memory.options;
        facts.insert("tiers".to_owned(), format!("{active:?} {compressed:?} {selected_pages:?}"));
        PageKey::of_facts(&facts)
    }

    /// What must be the same when a sequence is restored.
    fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::from([
            (VERSION_KEY.to_owned(), VERSION.to_owned()),
            ("model".to_owned(), fingerprint(&self.gguf)),
        ]);
        for (index, (layer, needs)) in self.layers.iter().zip(&self.memory.needs).enumerate() {
            match needs {
                LayerNeeds::Nothing | LayerNeeds::PagesOf(_) => {}
                LayerNeeds::State(bytes) => {
                    let state = format!("{bytes} bytes of the backend {}", layer.plugin());
                    facts.insert(format!("state.{index}"), state);
                }
                LayerNeeds::Pages(needs) => {
                    facts.insert(format!("page_tokens.{index}"), needs.tier.config().page_tokens.to_string());
                }
            }
        }
        facts
    }
}

fn state_name(layer: usize) -> String {
    format!("layer.{layer}.state")
}

fn selectable_name(layer: usize) -> String {
    format!("selectable.{layer}")
}

fn summaries_name(layer: usize) -> String {
    format!("layer.{layer}.summaries")
}

fn page_name(layer: usize, page: usize, part: &str) -> String {
    format!("layer.{layer}.page.{page}.{part}")
}

fn words(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// A hash that tells models apart: of the metadata that shapes the computation, of each tensor's name and shape, and of its bytes
/// at both ends and in the middle. Reading all of a large model would take longer than restoring saves.
fn fingerprint(gguf: &Gguf) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (key, value) in gguf.metadata().iter() {
        // What changes no number of a computation may differ.
        let passed_over = ["tokenizer.", "general.name", "general.sampling."];
        if !passed_over.iter().any(|start| key.starts_with(start)) {
            add(format!("{key} = {value:?}").as_bytes());
        }
    }
    for tensor in gguf.tensors() {
        add(format!("{} {} {:?}", tensor.name(), tensor.dtype(), tensor.dims()).as_bytes());
        let bytes = gguf.bytes(tensor);
        let last = bytes.len().saturating_sub(SAMPLE);
        for start in [0, last / 2, last] {
            add(&bytes[start..bytes.len().min(start + SAMPLE)]);
        }
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
