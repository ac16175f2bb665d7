//! What weight matrices are multiplied with, shown to whoever computes importance matrices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use herald_api::Product;
use herald_api::import::{LayerHandle, Observing};

use super::NeuroEngine;
use crate::error::{Error, Result};

/// A product of one of the model's matrices with a batch of activations.
#[derive(Clone, Copy, Debug)]
pub struct WeightProduct<'a> {
    /// The name of the matrix's tensor.
    pub tensor: &'a str,
    /// Which of the tensor's matrices it is: more than one where it has experts.
    pub matrix: usize,
    /// The tensor's matrices.
    pub matrices: usize,
    /// Elements of a row.
    pub columns: usize,
    /// The activations `[n_tokens, columns]`.
    pub input: &'a [f32],
}

/// Shows products until it is dropped.
#[must_use = "products are shown until it is dropped"]
pub struct Watched {
    _plugins: Vec<Observing>,
    _counted: Counted,
}

/// How many watch an engine's products.
#[derive(Debug, Default)]
pub(super) struct Watchers(Arc<AtomicUsize>);

/// One of them.
struct Counted(Arc<AtomicUsize>);

impl Watchers {
    /// Whether anybody watches.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn add(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A tensor's place in memory.
struct Place {
    name: String,
    bytes: usize,
    columns: usize,
    matrices: usize,
}

impl NeuroEngine {
    /// Shows each product of a weight matrix that the model's layers compute, from any thread, before it is computed. A plugin
    /// shows its layers' products to one at a time: the last who asked.
    ///
    /// # Errors
    /// Where a plugin that computes layers doesn't show what they multiply.
    pub fn watch_products(
        &self,
        watch: impl Fn(&WeightProduct<'_>) + Send + Sync + 'static,
    ) -> Result<Watched> {
        let places: BTreeMap<usize, Place> = self
            .gguf
            .tensors()
            .map(|info| {
                let bytes = self.gguf.bytes(info);
                let (dims, name) = (info.dims(), info.name().to_owned());
                let matrices = dims.iter().skip(2).product();
                (bytes.as_ptr() as usize, Place { name, bytes: bytes.len(), columns: dims[0], matrices })
            })
            .collect();
        let shown = move |product: &Product<'_>| {
            let Some((start, place)) = places.range(..=product.data).next_back() else { return };
            let (offset, bytes) = (product.data - start, place.bytes / place.matrices);
            // Several matrices may be rows of one: its activations are shown with the first.
            if offset >= place.bytes || !offset.is_multiple_of(bytes) || product.columns != place.columns {
                return;
            }
            watch(&WeightProduct {
                tensor: &place.name,
                matrix: offset / bytes,
                matrices: place.matrices,
                columns: place.columns,
                input: product.input,
            });
        };
        let shown: Arc<dyn Fn(&Product<'_>) + Send + Sync> = Arc::new(shown);
        let mut makers: BTreeMap<&str, &LayerHandle> = BTreeMap::new();
        for layer in self.all_layers() {
            makers.entry(layer.plugin()).or_insert(layer);
        }
        let observed = makers.into_iter().map(|(plugin, layer)| {
            let what = || format!("showing what the layers of {plugin} multiply");
            layer.observe(Arc::clone(&shown)).map_err(|source| Error::Plugin { what: what(), source })
        });
        Ok(Watched { _plugins: observed.collect::<Result<_>>()?, _counted: self.watchers.add() })
    }
}
