//! Which type each tensor gets.

use std::collections::BTreeMap;

use herald_api::DType;

use herald::gguf::{Gguf, TensorInfo};

/// How the metadata of a split model's parts begin; a whole one has none of it.
pub(super) const SPLIT: &str = "split.";

/// The version of the block formats that files say they have; there has been no other since 2023.
const FORMATS_VERSION: u32 = 2;

/// The head when it isn't the token embedding.
const HEAD: &str = "output.weight";
const EMBEDDING: &str = "token_embd.weight";

/// What to make of a model.
#[derive(Clone, Copy, Debug)]
pub struct QuantizeOptions {
    /// The type of the matrices.
    pub dtype: DType,
    /// The type of the output head, or of the token embedding where that is the head too. By default, where `dtype` is
    /// smaller than Q6_K, that: a head's errors reach the logits directly.
    pub head: Option<DType>,
}

/// Tensors that get another type than was asked for, since their rows are no whole number of its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// Weights of a row.
    pub columns: usize,
    /// What was asked for.
    pub wanted: DType,
    /// What they get.
    pub dtype: DType,
    /// How many tensors.
    pub tensors: usize,
}

/// What becomes of each tensor of a model.
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

    /// Where the plan departs from what was asked for.
    #[must_use]
    pub fn fallbacks(&self) -> &[Fallback] {
        &self.fallbacks
    }

    /// What the new file says of itself.
    pub(super) fn metadata(&self) -> Vec<(&'static str, u32)> {
        let mut entries = vec![("general.file_type", file_type(self.dtype))];
        if self.dtype.block_len() > 1 {
            entries.push(("general.quantization_version", FORMATS_VERSION));
        }
        entries
    }
}

/// Whether the tensor is a matrix (or a stack of them) of the kind that most of a model's weights are in.
fn is_matrix(info: &TensorInfo) -> bool {
    let name = info.name();
    let small = ["norm", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv", "position_embd", "token_types"];
    info.dims().len() >= 2 && name.ends_with(".weight") && !small.iter().any(|part| name.contains(part))
}

/// The type itself where its blocks divide the row; else one of about its size, or a little more, that does.
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

/// GGUF's number for files most of whose weights are of this type (`general.file_type`); of the K formats, the number
/// of the mixture that is nearest to uniform.
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
