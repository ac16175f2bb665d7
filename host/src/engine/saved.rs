//! Sequences that outlive a process: what the layers keep of one, in a file.
//!
//! The file is in safetensors format. Its metadata has the format's version, the model's fingerprint and, for each layer
//! with a recurrent state, the backend that wrote it, since only that knows what is in it; keys and values are in the
//! ABI's own format, which every backend reads.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::{NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::memory::{LayerBytes, LayerNeeds, SequenceMemory};

/// The format's version: a change of what a file means makes it another.
const VERSION: &str = "1";

/// Bytes of each end and of the middle of a tensor that go into a model's fingerprint.
const SAMPLE: usize = 4096;

/// A sequence from a file.
pub struct Restored {
    /// The sequence.
    pub sequence: Sequence,
    /// Tokens that were to come next when it was saved: they have not been run.
    pub pending: Vec<u32>,
}

impl NeuroEngine {
    /// A copy of a sequence, which goes on by itself.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or there is no memory for the copy.
    pub fn fork(&self, sequence: &Sequence) -> Result<Sequence> {
        self.owns(sequence)?;
        let memory = sequence.memory.fork(sequence.tokens.len());
        let memory =
            memory.map_err(|source| Error::Plugin { what: "a copy of a sequence".to_owned(), source })?;
        Ok(self.opened(memory, sequence.tokens.clone()))
    }

    /// Makes a sequence one of `len` tokens (to whole pages), with copies of its own pages between its others: as much memory
    /// as so many tokens take. What the model makes of them means nothing.
    pub(crate) fn stretch(&self, sequence: &mut Sequence, len: usize) -> Result<()> {
        self.owns(sequence)?;
        if len > self.context {
            return Err(Error::ContextFull { wanted: len, room: self.context });
        }
        let past = sequence.tokens.len();
        let missing = len.saturating_sub(past);
        let grown = sequence.memory.stretch(missing);
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
        let tokens = sequence.tokens[..len].to_vec();
        sequence.truncate(0);
        self.run(sequence, &tokens)
    }

    /// Saves a sequence, with tokens that are to be run next, for [`NeuroEngine::restore`] in another process.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine, or the file can't be written: an earlier one then stays.
    pub fn save(&self, sequence: &Sequence, pending: &[u32], path: &Path) -> Result<()> {
        self.owns(sequence)?;
        let (tokens, pending) = (words(&sequence.tokens), words(pending));
        let mut parts: Vec<(String, &[u8])> =
            vec![("tokens".to_owned(), &tokens), ("pending".to_owned(), &pending)];
        for (index, layer) in sequence.memory.layer_bytes(sequence.tokens.len()).enumerate() {
            match layer {
                LayerBytes::Nothing => {}
                LayerBytes::State(state) => parts.push((state_name(index), state)),
                LayerBytes::Pages(pages) => {
                    for (page, (keys, values)) in pages.into_iter().enumerate() {
                        parts.push((page_name(index, page, "keys"), keys));
                        parts.push((page_name(index, page, "values"), values));
                    }
                }
            }
        }
        let wrong = |error: &dyn std::fmt::Display| {
            Error::Invalid(format!("{}: the sequence can't be saved: {error}", path.display()))
        };
        let views = parts.into_iter().map(|(name, bytes)| {
            Ok((name, TensorView::new(Dtype::U8, vec![bytes.len()], bytes).map_err(|error| wrong(&error))?))
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let file = NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).map_err(|error| wrong(&error))?;
        safetensors::serialize_to_file(views, Some(self.facts()), file.path())
            .map_err(|error| wrong(&error))?;
        file.persist(path).map_err(|error| wrong(&error.error))?;
        Ok(())
    }

    /// Opens a sequence that [`NeuroEngine::save`] saved.
    ///
    /// # Errors
    /// Where the file can't be read, is none, or is of another version, another model, other pages, or a recurrent state of
    /// another backend.
    pub fn restore(&self, path: &Path) -> Result<Restored> {
        let wrong = |what: &str| Error::Invalid(format!("{}: {what}", path.display()));
        let unread =
            |error: &dyn std::fmt::Display| wrong(&format!("the saved sequence can't be read: {error}"));
        let bytes = fs::read(path).map_err(|error| unread(&error))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| unread(&error))?;
        let empty = HashMap::new();
        let found = header.metadata().as_ref().unwrap_or(&empty);
        let mut expected: Vec<_> = self.facts().into_iter().collect();
        // The version first, then the model, then what depends on how it is run.
        expected.sort_by_key(|(name, _)| (name != "herald.version", name != "model", name.clone()));
        for (name, expected) in expected {
            let found = found.get(&name).map_or("nothing", String::as_str);
            if found != expected {
                return Err(wrong(&format!(
                    "the sequence was saved with {name} {found}, where {expected} was expected"
                )));
            }
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|error| unread(&error))?;
        let part = |name: &str| match tensors.tensor(name) {
            Ok(tensor) => Ok(tensor.data()),
            Err(_) => Err(wrong(&format!("the saved sequence lacks its part {name}"))),
        };
        let ids = |name: &str| -> Result<Vec<u32>> {
            let ids: Vec<u32> =
                part(name)?.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
            match ids.iter().find(|id| **id as usize >= self.plan.vocabulary) {
                Some(id) => {
                    Err(wrong(&format!("the saved sequence has the token {id}, which the model lacks")))
                }
                None => Ok(ids),
            }
        };
        let (tokens, pending) = (ids("tokens")?, ids("pending")?);
        if tokens.len() > self.context {
            return Err(Error::ContextFull { wanted: tokens.len(), room: self.context });
        }
        let mut missing = None;
        let memory = SequenceMemory::from_bytes(&self.needs, tokens.len(), |index| {
            let mut take = |name: &str| {
                part(name).unwrap_or_else(|error| {
                    missing.get_or_insert(error);
                    &[]
                })
            };
            Ok(match &self.needs[index] {
                LayerNeeds::Nothing => LayerBytes::Nothing,
                LayerNeeds::State(_) => LayerBytes::State(take(&state_name(index))),
                LayerNeeds::Pages(needs) => {
                    let pages = 0..tokens.len().div_ceil(needs.tier.config().page_tokens);
                    let page = |page| {
                        (take(&page_name(index, page, "keys")), take(&page_name(index, page, "values")))
                    };
                    LayerBytes::Pages(pages.map(page).collect())
                }
            })
        });
        if let Some(error) = missing {
            return Err(error);
        }
        let memory = memory.map_err(|error| unread(&error))?;
        Ok(Restored { sequence: self.opened(memory, tokens), pending })
    }

    /// What must be the same where a sequence is restored.
    fn facts(&self) -> HashMap<String, String> {
        let mut facts = HashMap::from([
            ("herald.version".to_owned(), VERSION.to_owned()),
            ("model".to_owned(), fingerprint(&self.gguf)),
        ]);
        for (index, (layer, needs)) in self.layers.iter().zip(&self.needs).enumerate() {
            match needs {
                LayerNeeds::Nothing => {}
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

fn page_name(layer: usize, page: usize, part: &str) -> String {
    format!("layer.{layer}.page.{page}.{part}")
}

fn words(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

/// A hash that tells models apart: of all that shapes the computation in their metadata, of each tensor's name and shape,
/// and of its bytes at both ends and in the middle, since reading all of a large model would take longer than restoring
/// is worth.
fn fingerprint(gguf: &Gguf) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (key, value) in gguf.metadata().iter() {
        if !key.starts_with("tokenizer.") && !key.starts_with("general.name") {
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
