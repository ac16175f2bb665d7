//! The shapes of real models. Where one is cut, its size says so: it has fewer blocks than the real one, and each is as large
//! as there, so that a block's speed is the real one's.

mod deepseek2;
mod encoders;
mod gemma4;
mod gpt_oss;
mod hybrids;
mod qwen35;

use super::recipe::Recipe;

/// A known model.
pub(super) struct Shape {
    pub(super) architecture: &'static str,
    pub(super) size: &'static str,
    pub(super) recipe: fn() -> Recipe,
}

/// All known models.
pub(super) static ALL: [Shape; 14] = [
    Shape { architecture: "granite_hybrid", size: "350m", recipe: hybrids::granite_hybrid },
    Shape { architecture: "falcon_h1", size: "0.5b", recipe: hybrids::falcon_h1 },
    Shape { architecture: "mamba2", size: "130m", recipe: hybrids::mamba2 },
    Shape { architecture: "mamba", size: "130m", recipe: hybrids::mamba },
    Shape { architecture: "lfm2", size: "350m", recipe: hybrids::lfm2 },
    Shape { architecture: "jamba", size: "small", recipe: hybrids::jamba },
    Shape { architecture: "llama", size: "1b", recipe: hybrids::llama },
    Shape { architecture: "qwen35", size: "0.8b", recipe: || qwen35::recipe(&qwen35::SMALL) },
    Shape { architecture: "qwen35", size: "4b", recipe: || qwen35::recipe(&qwen35::MEDIUM) },
    Shape { architecture: "qwen35moe", size: "35b-a3b-cut", recipe: || qwen35::recipe(&qwen35::SPARSE_CUT) },
    Shape { architecture: "gpt_oss", size: "20b-cut", recipe: || gpt_oss::recipe(&gpt_oss::CUT) },
    Shape { architecture: "gemma4", size: "e2b", recipe: || gemma4::recipe(&gemma4::E2B) },
    Shape {
        architecture: "glm4_moe_lite",
        size: "flash-cut",
        recipe: || deepseek2::recipe(&deepseek2::FLASH_CUT),
    },
    Shape { architecture: "bert", size: "minilm", recipe: || encoders::bert(&encoders::MINILM) },
];

const EPS: &str = "attention.layer_norm_rms_epsilon";

/// The norm after the last block.
fn output_norm(recipe: &mut Recipe, name: &str, hidden: usize) {
    recipe.tensor(name, &[hidden], super::Fill::Between(0.9, 1.1));
}

/// A model of two megabytes that any machine runs in a moment.
pub(super) fn smallest() -> Recipe {
    hybrids::smallest()
}

/// Small models of the same shapes, which tests run.
#[cfg(test)]
pub(super) fn tiny() -> Vec<(&'static str, Recipe)> {
    vec![
        ("qwen35", qwen35::recipe(&qwen35::TINY)),
        ("qwen35moe", qwen35::recipe(&qwen35::Sizes { experts: Some(qwen35::TINY_EXPERTS), ..qwen35::TINY })),
        ("gpt_oss", gpt_oss::recipe(&gpt_oss::TINY)),
        ("gemma4", gemma4::recipe(&gemma4::TINY)),
        ("glm4_moe_lite", deepseek2::recipe(&deepseek2::TINY)),
        ("bert", encoders::bert(&encoders::TINY)),
    ]
}
