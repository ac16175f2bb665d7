//! Mamba (arXiv 2312.00752), and Falcon Mamba (arXiv 2410.05355), which norms dt, B and C: blocks of nothing but selective
//! state spaces.

use crate::model::parts::Builder;
use crate::model::{Keys, ModelError, ModelPlan, recurrent};

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let mut model = Builder::new(keys, |_| 1.0)?;
    let params = recurrent::mamba1(keys)?;
    // Converters write what a transformer would have.
    keys.disregard(&["feed_forward_length", "attention.head_count"]);
    for block in 0..model.blocks {
        model.mamba1(block, params.clone());
    }
    model.finish(None)
}
