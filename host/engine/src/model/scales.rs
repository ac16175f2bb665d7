//! The factors that files have beside matrices of NVFP4, whose own scales can't hold every magnitude: of `NAME.weight` in `NAME.scale`.

use std::collections::{BTreeMap, HashSet};

use herald_api::DType;

use super::ModelError;
use crate::gguf::Gguf;

/// The factors of those of the used tensors that have some, by their names. A tensor that a layer uses for itself is none.
pub(super) fn find(gguf: &Gguf, used: &HashSet<&str>) -> Result<BTreeMap<String, String>, ModelError> {
    let mut scales = BTreeMap::new();
    for name in used {
        let Some(stem) = name.strip_suffix(".weight") else { continue };
        let scale = format!("{stem}.scale");
        let (Some(tensor), Some(factors)) = (gguf.tensor(name), gguf.tensor(&scale)) else { continue };
        if tensor.dtype() != DType::Nvfp4 || used.contains(scale.as_str()) {
            continue;
        }
        let matrices = tensor.dims().get(2).copied().unwrap_or(1);
        let given: usize = factors.dims().iter().product();
        if factors.dtype() != DType::F32 || (given != 1 && given != matrices) {
            return Err(ModelError::Contradiction {
                tensor: scale,
                found: format!("{given} numbers of type {}", factors.dtype().name()),
                expected: format!("1 or {matrices} of type F32"),
                because: (*name).to_owned(),
            });
        }
        scales.insert((*name).to_owned(), scale);
    }
    Ok(scales)
}
