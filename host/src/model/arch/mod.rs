//! The architectures, one file each.

mod gemma3;
mod llama;
mod qwen2;
mod qwen3;

use super::{Keys, ModelError, ModelPlan};

type Plan = fn(&Keys<'_>) -> Result<ModelPlan, ModelError>;

/// Each architecture by the name that `general.architecture` gives it.
const ARCHITECTURES: [(&str, Plan); 4] =
    [("gemma3", gemma3::plan), ("llama", llama::plan), ("qwen2", qwen2::plan), ("qwen3", qwen3::plan)];

/// The names of the architectures that HERALD runs.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

pub(super) fn plan(keys: &Keys<'_>) -> Result<ModelPlan, ModelError> {
    let name = keys.architecture();
    let found = ARCHITECTURES.iter().find(|(known, _)| *known == name);
    let (_, plan) = found.ok_or_else(|| ModelError::UnknownArchitecture {
        found: name.to_owned(),
        known: names().join(", "),
    })?;
    plan(keys)
}
