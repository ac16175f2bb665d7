//! Adapters (LoRA, arXiv 2106.09685): low-rank updates of a model's weights, loaded beside it and added to the products of those
//! sequences that ask for them.
//!
//! An adapter is a GGUF file as llama.cpp's converter writes it (`read`). Its matrices stay apart from the model's, in float32, and
//! go to plugins with each call, sequence by sequence: so requests with different adapters share passes, and what is computed without
//! one is what it would be if none were loaded.

mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use herald_api::WeightRole;

use crate::error::{Error, Result};
use crate::gguf::Gguf;
use crate::model::ModelPlan;

/// An adapter to load beside a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraFile {
    /// The GGUF file.
    pub path: PathBuf,
    /// What it is called; `None`: as the file, without its ending.
    pub name: Option<String>,
    /// What its updates are multiplied by in sequences that don't say otherwise; 0: these go without it.
    pub scale: f32,
}

impl LoraFile {
    /// Reads `FILE`, `FILE:SCALE`, `NAME=FILE` or `NAME=FILE:SCALE`; the scale is 1 where none is given, and a name has neither slashes
    /// nor dots.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (name, file) = match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !name.contains(['/', '\\', '.']) => (Some(name), file),
            _ => (None, text),
        };
        let scaled = file.rsplit_once(':').and_then(|(file, scale)| Some((file, scale.parse().ok()?)));
        let (path, scale) = scaled.filter(|(file, _)| !file.is_empty()).unwrap_or((file, 1.0));
        Self { path: path.into(), name: name.map(str::to_owned), scale }
    }
}

/// What an adapter's updates are multiplied by in a sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoraScale {
    /// Which adapter: its index among those loaded, in the order of the options.
    pub index: usize,
    /// The scale; 0: the sequence goes without it.
    pub scale: f32,
}

/// A loaded adapter.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    path: PathBuf,
    scale: f32,
    /// What its file divides by the rank and multiplies updates by; `None`: it does neither.
    alpha: Option<f32>,
    /// A hash of all that its file computes with.
    digest: String,
    /// The updates of each of the model's layers.
    layers: Vec<Vec<Update>>,
}

/// An update of one weight of a layer.
#[derive(Debug)]
struct Update {
    role: WeightRole,
    rank: usize,
    columns: usize,
    rows: usize,
    /// `[rank, columns]`.
    down: Arc<[f32]>,
    /// `[rank, rows]`.
    up: Vec<f32>,
    /// What the file multiplies it by.
    factor: f32,
}

impl Adapter {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its updates are multiplied by in sequences that don't say otherwise.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The largest rank of its updates.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.layers.iter().flatten().map(|update| update.rank).max().unwrap_or(0)
    }

    /// How many weights it updates.
    #[must_use]
    pub fn n_updates(&self) -> usize {
        self.layers.iter().map(Vec::len).sum()
    }

    /// What its file's alpha and an update's rank make of the scale.
    fn factor(alpha: Option<f32>, rank: usize) -> f32 {
        alpha.map_or(1.0, |alpha| alpha / rank as f32)
    }
}

/// The adapters of an engine.
#[derive(Debug)]
pub(crate) struct Loras {
    adapters: Vec<Adapter>,
    /// Those that sequences begin with.
    usual: Arc<Selection>,
}

/// The adapters of a sequence.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// In the order of the adapters, none with a scale of 0.
    scales: Vec<LoraScale>,
    /// What tells what is computed with them apart from what is computed with others; `None`: there are none.
    key: Option<String>,
}

impl Selection {
    pub(crate) fn scales(&self) -> &[LoraScale] {
        &self.scales
    }

    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl Loras {
    /// Reads the files for a model.
    ///
    /// # Errors
    /// One sentence: a file that can't be read, is no adapter, is one of another model, or updates what none can update here.
    pub(crate) fn load(files: &[LoraFile], gguf: &Gguf, plan: &ModelPlan) -> Result<Self> {
        let adapters =
            files.iter().map(|file| read::adapter(file, gguf, plan)).collect::<Result<Vec<_>>>()?;
        for (index, adapter) in adapters.iter().enumerate() {
            if adapters[..index].iter().any(|other| other.name == adapter.name) {
                return Err(Error::Invalid(format!(
                    "two adapters are called {:?}, where names that differ were expected (NAME=FILE gives one)",
                    adapter.name
                )));
            }
        }
        let mut loras = Self { adapters, usual: Arc::default() };
        let scale = |(index, file): (usize, &LoraFile)| LoraScale { index, scale: file.scale };
        let usual: Vec<_> = files.iter().enumerate().map(scale).collect();
        loras.usual = loras.select(&usual)?;
        Ok(loras)
    }

    pub(crate) fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    /// The adapters that sequences begin with.
    pub(crate) fn usual(&self) -> Arc<Selection> {
        Arc::clone(&self.usual)
    }

    /// These adapters, and no others.
    ///
    /// # Errors
    /// Where there is no such adapter, one is named twice, or its scale is no finite number.
    pub(crate) fn select(&self, scales: &[LoraScale]) -> Result<Arc<Selection>> {
        let mut chosen: Vec<LoraScale> = Vec::with_capacity(scales.len());
        for LoraScale { index, scale } in scales.iter().copied() {
            let Some(adapter) = self.adapters.get(index) else {
                return Err(Error::Invalid(format!(
                    "there is no adapter {index}, where one of the {} that are loaded was expected, counted from 0",
                    self.adapters.len()
                )));
            };
            if !(scale * adapter.alpha.unwrap_or(1.0)).is_finite() {
                return Err(Error::Invalid(format!(
                    "the adapter {:?} has the scale {scale}, where a finite number was expected",
                    adapter.name
                )));
            }
            if chosen.iter().any(|other| other.index == index) {
                return Err(Error::Invalid(format!(
                    "the adapter {:?} is named twice, where once was expected",
                    adapter.name
                )));
            }
            chosen.push(LoraScale { index, scale });
        }
        chosen.retain(|lora| lora.scale != 0.0);
        chosen.sort_by_key(|lora| lora.index);
        let of =
            |lora: &LoraScale| format!("{} {:08x}", self.adapters[lora.index].digest, lora.scale.to_bits());
        let key = chosen.iter().map(of).collect::<Vec<_>>().join(" ");
        Ok(Arc::new(Selection { scales: chosen, key: (!key.is_empty()).then_some(key) }))
    }

    /// A selection as a text, for [`Loras::parse`]: a line for each adapter.
    pub(crate) fn text(&self, selection: &Selection) -> String {
        let line = |LoraScale { index, scale }: &LoraScale| {
            let Adapter { digest, name, .. } = &self.adapters[*index];
            format!("{digest} {scale} {name}")
        };
        selection.scales.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// The selection that a text tells.
    ///
    /// # Errors
    /// A sentence where an adapter isn't loaded, or the text is none.
    pub(crate) fn parse(&self, text: &str) -> std::result::Result<Arc<Selection>, String> {
        let mut scales = Vec::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ' ');
            let (Some(digest), Some(scale), name) =
                (parts.next(), parts.next().and_then(|scale| scale.parse().ok()), parts.next())
            else {
                return Err(format!("{line:?} names no adapter and scale"));
            };
            let Some(index) = self.adapters.iter().position(|adapter| adapter.digest == digest) else {
                return Err(format!(
                    "the adapter {:?} is needed, which isn't loaded",
                    name.unwrap_or_default()
                ));
            };
            scales.push(LoraScale { index, scale });
        }
        self.select(&scales).map_err(|error| error.to_string())
    }

    /// The largest rank of the updates of a layer; 0: it has none.
    pub(crate) fn max_rank(&self, layer: usize) -> usize {
        let of = |adapter: &Adapter| adapter.layers[layer].iter().map(|update| update.rank).max();
        self.adapters.iter().filter_map(of).max().unwrap_or(0)
    }

    /// The updates of a layer's weights by these adapters, as plugins take them.
    pub(crate) fn of_layer<'l>(
        &'l self,
        layer: usize,
        selection: &'l Selection,
    ) -> impl Iterator<Item = herald_api::Lora<'l>> {
        selection.scales.iter().flat_map(move |LoraScale { index, scale }| {
            self.adapters[*index].layers[layer].iter().map(move |update| herald_api::Lora {
                role: update.role,
                rank: update.rank,
                columns: update.columns,
                rows: update.rows,
                down: &update.down,
                up: &update.up,
                scale: scale * update.factor,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (Option<String>, String, f32) {
        let LoraFile { path, name, scale } = LoraFile::parse(text);
        (name, path.display().to_string(), scale)
    }

    #[test]
    fn files_come_with_names_and_scales() {
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(parsed("a.gguf"), (None, "a.gguf".to_owned(), 1.0));
        assert_eq!(parsed("a.gguf:0.5"), (None, "a.gguf".to_owned(), 0.5));
        assert_eq!(parsed("sql=dir/a.gguf:-2"), (some("sql"), "dir/a.gguf".to_owned(), -2.0));
        assert_eq!(parsed("dir/x=a.gguf"), (None, "dir/x=a.gguf".to_owned(), 1.0));
        assert_eq!(parsed(r"C:\a.gguf"), (None, r"C:\a.gguf".to_owned(), 1.0));
        assert_eq!(parsed(":1"), (None, ":1".to_owned(), 1.0));
    }
}
