//! The type that each tensor gets.

use std::collections::BTreeMap;

use herald_api::DType;

use herald::gguf::{Gguf, TensorInfo};

/// The prefix of metadata keys that only split models' parts have.
pub(super) const SPLIT: &str = "split.";

/// The version of the block formats (`general.quantization_version`), unchanged since 2023.
const FORMATS_VERSION: u32 = 2;

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

impl Plan {
    /// The plan for a model. Vectors, norms, convolutions and routers stay as they are: they are small, and engines
    /// read them in float32.
    #[must_use]
    pub fn new(gguf: &Gguf, options: &QuantizeOptions) -> Self {
        let head = if gguf.tensor(HEAD).is_some() { HEAD } else { EMBEDDING };
        let of_head = options.head.unwrap_or(match options.dtype {
            DType::F32 | DType::F16 | DType::Bf16 | DType::Q8_0 => options.dtype,
            _ => DType::Q6K,
        });
        let mut fallbacks = BTreeMap::new();
        let types = gguf.tensors().map(|info| {
            if !is_matrix(info) {
                return info.dtype();
            }
            let wanted = if info.name() == head { of_head } else { options.dtype };
            let columns = info.dims().first().copied().unwrap_or(1);
            let dtype = dividing(wanted, columns);
            if dtype != wanted {
                let new = Fallback { columns, wanted, dtype, tensors: 0 };
                fallbacks.entry((columns, wanted.code())).or_insert(new).tensors += 1;
            }
            dtype
        });
        let types = types.collect();
        Self { dtype: options.dtype, types, fallbacks: fallbacks.into_values().collect() }
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

    /// The metadata that the new file changes.
    pub(super) fn metadata(&self) -> Vec<(&'static str, u32)> {
        let mut entries = vec![("general.file_type", file_type(self.dtype))];
        if self.dtype.block_len() > 1 {
            entries.push(("general.quantization_version", FORMATS_VERSION));
        }
        entries
    }
}

/// Whether the tensor is a weight matrix (or a stack of them) that gets the requested type.
fn is_matrix(info: &TensorInfo) -> bool {
    let name = info.name();
    let small = ["norm", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "position_embd", "token_types"];
    info.dims().len() >= 2 && name.ends_with(".weight") && !small.iter().any(|part| name.contains(part))
}

/// The type itself if its blocks divide the row, else one of about its size whose blocks do.
fn dividing(wanted: DType, columns: usize) -> DType {
    if columns.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    let smaller_blocks = match wanted {
        DType::Q2K | DType::Q3K | DType::Iq4Xs => DType::Iq4Nl,
        DType::Q4K => DType::Q5_0,
        DType::Q5K => DType::Q5_1,
        DType::Q6K => DType::Q8_0,
        _ => DType::F16,
    };
    if columns.is_multiple_of(smaller_blocks.block_len()) { smaller_blocks } else { DType::F16 }
}

/// GGUF's number for files with mostly this type (`general.file_type`); for the K formats, the number of the most uniform
/// mixture.
fn file_type(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q8_0 => 7,
        DType::Q5_0 => 8,
        DType::Q5_1 => 9,
        DType::Q2K => 10,
        DType::Q3K => 11,
        DType::Q4K => 14,
        DType::Q5K => 16,
        DType::Q6K => 18,
        DType::Iq4Nl => 25,
        DType::Iq4Xs => 30,
        DType::Bf16 => 32,
    }
}
