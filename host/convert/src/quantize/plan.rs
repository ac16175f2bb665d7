//! The type that each tensor gets.

use std::collections::{BTreeMap, HashSet};

use herald_api::DType;

use herald::gguf::Gguf;

use crate::imatrix::ImportanceMatrix;

/// The prefix of metadata keys that only split models' parts have.
pub(super) const SPLIT: &str = "split.";

/// The version of the block formats (`general.quantization_version`), unchanged since 2023.
const FORMATS_VERSION: u32 = 2;

/// What the new file says of the importance matrix that it was made with, as llama.cpp's do.
const IMATRIX_ENTRIES: &str = "quantize.imatrix.entries_count";
const IMATRIX_CHUNKS: &str = "quantize.imatrix.chunks_count";

/// The output head, if it isn't the token embedding.
const HEAD: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";

/// The requested types.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeOptions {
    /// The type of the matrices.
    pub dtype: DType,
    /// The type of the output head, or of the token embedding if that is the head too. By default `dtype`, but at least
    /// Q6_K: a head's errors reach the logits directly.
    pub head: Option<DType>,
}

/// Tensors that get another type than requested, because their rows are not a whole number of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Weights of a row.
    pub columns: usize,
    /// The requested type.
    pub wanted: DType,
    /// The type that they get.
    pub dtype: DType,
    /// Number of tensors.
    pub tensors: usize,
}

/// The new type of each tensor of a model.
#[derive(Clone, Debug)]
pub struct Plan {
    dtype: DType,
    types: Vec<DType>,
    fallbacks: Vec<Fallback>,
}

/// The types of tensors as they come, and where they depart from the request.
#[derive(Debug)]
pub(crate) struct Types {
    dtype: DType,
    of_head: DType,
    head: &'static str,
    fallbacks: BTreeMap<(usize, u32), Fallback>,
}

impl Types {
    /// Types for a request; `has_head` says whether the output head is a tensor of its own.
    pub(crate) fn new(dtype: DType, head: Option<DType>, has_head: bool) -> Self {
        let smaller = dtype.bits_per_weight() < DType::Q6K.bits_per_weight();
        let of_head = head.unwrap_or(if smaller { DType::Q6K } else { dtype });
        Self { dtype, of_head, head: if has_head { HEAD } else { EMBEDDING }, fallbacks: BTreeMap::new() }
    }

    /// The type of a tensor; none for those that stay as they are.
    pub(crate) fn of(&mut self, name: &str, dims: &[usize]) -> Option<DType> {
        if !is_matrix(name, dims) {
            return None;
        }
        let wanted = if name == self.head { self.of_head } else { self.dtype };
        let columns = dims.first().copied().unwrap_or(1);
        let dtype = herald_formats::dtype_for_rows(wanted, columns);
        if dtype != wanted {
            let new = Fallback { columns, wanted, dtype, tensors: 0 };
            self.fallbacks.entry((columns, wanted.code())).or_insert(new).tensors += 1;
        }
        Some(dtype)
    }

    /// Where types departed from the request.
    pub(crate) fn fallbacks(self) -> Vec<Fallback> {
        self.fallbacks.into_values().collect()
    }
}

impl Plan {
    /// The plan for a model. Vectors, norms, convolutions and routers stay as they are: they are small, and engines
    /// read them in float32.
    #[must_use]
    pub fn new(gguf: &Gguf, options: &QuantizeOptions) -> Self {
        let mut types = Types::new(options.dtype, options.head, gguf.tensor(HEAD).is_some());
        let of = gguf.tensors().map(|info| types.of(info.name(), info.dims()).unwrap_or(info.dtype()));
        let of = of.collect();
        Self { dtype: options.dtype, types: of, fallbacks: types.fallbacks() }
    }

    /// Each tensor's new type, in the file's order.
    pub fn types(&self) -> impl ExactSizeIterator<Item = DType> {
        self.types.iter().copied()
    }

    /// Where the plan departs from the request.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// Tensors that get a new type in blocks, and that an importance matrix knows nothing of.
    #[must_use]
    pub fn unknown(&self, gguf: &Gguf, importance: &ImportanceMatrix) -> usize {
        let known: HashSet<&str> = importance.tensors().collect();
        let changed = gguf.tensors().zip(self.types()).filter(|(info, dtype)| info.dtype() != *dtype);
        changed.filter(|(info, dtype)| dtype.block_len() > 1 && !known.contains(info.name())).count()
    }

    /// The metadata that the new file changes.
    pub(super) fn metadata(&self, importance: Option<&ImportanceMatrix>) -> Vec<(&'static str, u32)> {
        let mut entries = vec![("general.file_type", herald_formats::file_type(self.dtype))];
        if self.dtype.block_len() > 1 {
            entries.push(("general.quantization_version", FORMATS_VERSION));
        }
        if let Some(importance) = importance {
            let count = u32::try_from(importance.tensors().len()).unwrap_or(u32::MAX);
            entries.extend([(IMATRIX_ENTRIES, count), (IMATRIX_CHUNKS, importance.chunk_count)]);
        }
        entries
    }
}

/// Whether the tensor is a weight matrix (or a stack of them) that gets the requested type.
fn is_matrix(name: &str, dims: &[usize]) -> bool {
    let small = ["norm", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "position_embd", "token_types"];
    dims.len() >= 2 && name.ends_with(".weight") && !small.iter().any(|part| name.contains(part))
}
