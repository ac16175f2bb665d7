//! The architectures, one file each.

mod apertus;
mod bert;
mod deepseek2;
mod exaone4;
mod falcon_h1;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma4;
mod glm4;
mod gpt2;
mod gpt_oss;
mod granite;
mod hunyuan;
mod jamba;
mod kimi_linear;
mod lfm2;
mod llama;
mod llama4;
mod mamba;
mod mamba2;
mod mistral3;
mod nemotron_h;
mod olmo2;
mod parallel;
mod phi3;
mod qwen2;
mod qwen35;
mod qwen_moe;
mod smollm3;

use super::{Keys, ModelError, ModelPlan};

type Plan = fn(&Keys<'_>) -> Result<ModelPlan, ModelError>;

/// Each architecture by the name that `general.architecture` gives it.
const ARCHITECTURES: [(&str, Plan); 55] = [
    ("apertus", apertus::plan),
    ("arcee", llama::arcee),
    ("bert", bert::bert),
    ("cohere2", parallel::cohere2),
    ("deepseek2", deepseek2::plan),
    ("ernie4_5", llama::plan),
    ("ernie4_5-moe", qwen_moe::ernie4_5),
    ("exaone4", exaone4::plan),
    ("falcon", parallel::falcon),
    ("falcon-h1", falcon_h1::plan),
    ("gemma", gemma::plan),
    ("gemma-embedding", gemma3::embedding),
    ("gemma2", gemma2::plan),
    ("gemma3", gemma3::plan),
    ("gemma4", gemma4::plan),
    ("glm4", glm4::plan),
    ("glm4moe", glm4::moe),
    ("gpt-oss", gpt_oss::plan),
    ("gpt2", gpt2::plan),
    ("gptneox", parallel::gpt_neox),
    ("granite", granite::plan),
    ("granitehybrid", granite::hybrid),
    ("granitemoe", granite::plan),
    ("hunyuan-dense", hunyuan::plan),
    ("hunyuan-moe", hunyuan::plan),
    ("jamba", jamba::plan),
    ("kimi-linear", kimi_linear::plan),
    ("lfm2", lfm2::plan),
    ("lfm2moe", lfm2::plan),
    ("llama", llama::plan),
    ("llama4", llama4::plan),
    ("mamba", mamba::plan),
    ("mamba2", mamba2::plan),
    ("minimax-m2", qwen_moe::minimax_m2),
    ("mistral3", mistral3::plan),
    ("modern-bert", bert::modern),
    ("nemotron_h", nemotron_h::plan),
    ("nemotron_h_moe", nemotron_h::plan),
    ("nomic-bert", bert::nomic),
    ("olmo2", olmo2::plan),
    ("olmoe", qwen_moe::qwen2),
    ("phi2", parallel::phi2),
    ("phi3", phi3::plan),
    ("qwen2", qwen2::plan),
    ("qwen2moe", qwen_moe::qwen2),
    ("qwen3", qwen2::plan),
    ("qwen35", qwen35::plan),
    ("qwen35moe", qwen35::plan),
    ("qwen3moe", qwen_moe::qwen3),
    ("qwen3next", qwen35::qwen3_next),
    ("qwen3vl", qwen2::qwen3_vl),
    ("seed_oss", qwen2::seed_oss),
    ("smollm3", smollm3::plan),
    ("stablelm", parallel::stablelm),
    ("starcoder2", gpt2::starcoder2),
];

/// Of architectures whose files have a block for multi-token prediction, what plans it.
const MTP: [(&str, Plan); 5] = [
    ("deepseek2", deepseek2::mtp),
    ("glm4moe", glm4::mtp),
    ("qwen35", qwen35::mtp),
    ("qwen35moe", qwen35::mtp),
    ("qwen3next", qwen35::mtp),
];

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

/// What plans the file's block for multi-token prediction, where HERALD knows the architecture's.
pub(super) fn mtp(keys: &Keys<'_>) -> Option<Plan> {
    MTP.iter().find(|(known, _)| *known == keys.architecture()).map(|(_, plan)| *plan)
}
