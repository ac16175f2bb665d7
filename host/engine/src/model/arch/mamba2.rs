//! Mamba-2 (arXiv 2405.21060): blocks of nothing but state spaces with scalar decays.

use crate::model::parts::Builder;
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let params = recurrent::mamba2(keys)?;
    // Converters write what a transformer would have.
    keys.disregard(&["feed_forward_length", "attention.head_count"]);
    for block in 0..model.blocks {
        model.mamba2(block, params.clone());
    }
    model.finish(None)
}
