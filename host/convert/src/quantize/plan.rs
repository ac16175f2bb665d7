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
        let smaller = options.dtype.bits_per_weight() < DType::Q6K.bits_per_weight();
        let of_head = options.head.unwrap_or(if smaller { DType::Q6K } else { options.dtype });
        let mut fallbacks = BTreeMap::new();
        let types = gguf.tensors().map(|info| {
            if !is_matrix(info) {
                return info.dtype();
            }
            let wanted = if info.name() == head { of_head } else { options.dtype };
            let columns = info.dims().first().copied().unwrap_or(1);
            let dtype = herald_formats::dtype_for_rows(wanted, columns);
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
        let mut entries = vec![("general.file_type", herald_formats::file_type(self.dtype))];
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
