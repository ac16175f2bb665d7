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

/// `general.file_type` of the usual mixture of 4 bits.
const Q4_K_M: u32 = 15;

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
    file_type: u32,
}

/// The types of tensors as they come, and where they depart from the request.
#[derive(Debug)]
pub(crate) struct Types {
    dtype: DType,
    of_head: DType,
    head: &'static str,
    fallbacks: BTreeMap<(usize, u32), Fallback>,
    /// The model's blocks, where the matrices that errors hurt most get at least Q6_K.
    mixed: Option<usize>,
}

impl Types {
    /// Types for a request; `has_head` says whether the output head is a tensor of its own.
    pub(crate) fn new(dtype: DType, head: Option<DType>, has_head: bool) -> Self {
        let smaller = dtype.bits_per_weight() < DType::Q6K.bits_per_weight();
        let of_head = head.unwrap_or(if smaller { DType::Q6K } else { dtype });
        Self {
            dtype,
            of_head,
            head: if has_head { HEAD } else { EMBEDDING },
            fallbacks: BTreeMap::new(),
            mixed: None,
        }
    }

    /// The type of a tensor; none for those that stay as they are.
    pub(crate) fn of(&mut self, name: &str, dims: &[usize]) -> Option<DType> {
        if !is_matrix(name, dims) {
            return None;
        }
        let wanted = match self.mixed {
            _ if name == self.head => self.of_head,
            Some(blocks) if is_weighty(name, blocks) => DType::Q6K,
            _ => self.dtype,
        };
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
        let types = Types::new(options.dtype, options.head, gguf.tensor(HEAD).is_some());
        Self::of(gguf, types, herald_formats::file_type(options.dtype))
    }

    /// The plan for the usual mixture of 4 bits, llama.cpp's Q4_K_M: Q4_K, and Q6_K for the head and for half of the value and down
    /// projections. `head` is as in [`QuantizeOptions`].
    #[must_use]
    pub fn q4_k_m(gguf: &Gguf, head: Option<DType>) -> Self {
        let blocks = gguf.tensors().filter_map(|info| block_of(info.name())).max().map_or(0, |last| last + 1);
        let types = Types::new(DType::Q4K, head, gguf.tensor(HEAD).is_some());
        Self::of(gguf, Types { mixed: Some(blocks), ..types }, Q4_K_M)
    }

    fn of(gguf: &Gguf, mut types: Types, file_type: u32) -> Self {
        let dtype = types.dtype;
        let of = gguf.tensors().map(|info| types.of(info.name(), info.dims()).unwrap_or(info.dtype()));
        let of = of.collect();
        Self { dtype, types: of, fallbacks: types.fallbacks(), file_type }
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
        let mut entries = vec![("general.file_type", self.file_type)];
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

/// A block's number in a tensor's name.
fn block_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// Whether the usual mixture gives a matrix more bits: the value and down projections in the first and last eighth of the blocks and
/// every third block between them.
pub(crate) fn is_weighty(name: &str, blocks: usize) -> bool {
    let eighth = blocks / 8;
    let more = |block: usize| block < eighth || block >= 7 * blocks / 8 || (block - eighth) % 3 == 2;
    ["attn_v.", "ffn_down."].iter().any(|part| name.contains(part)) && block_of(name).is_some_and(more)
}

/// Whether the tensor is a weight matrix (or a stack of them) that gets the requested type.
fn is_matrix(name: &str, dims: &[usize]) -> bool {
    let small = ["norm", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "position_embd", "token_types"];
    dims.len() >= 2 && name.ends_with(".weight") && !small.iter().any(|part| name.contains(part))
}
