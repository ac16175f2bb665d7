//! Llama and what is built like it: SmolLM2, Mistral, Mixtral, SmolLM3.

use std::f32::consts::PI;

use super::{COMMON, Dim, Family, How, MLP, Model, PERMUTED_ATTENTION, Row, SILU, row};
use crate::checkpoint::config::{Config, Rope};
use crate::checkpoint::error::{Result, refused};
use crate::checkpoint::vocabulary::Style;

pub(super) const LLAMA: Family = Family {
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 2048}"#,
    model: |config| {
        derive_head(config)?;
        // Published twice: whether there are biases, and the biases.
        config.disregard(&["attention_bias", "mlp_bias", "is_llama_config", "rope_interleaved"]);
        llama(config, "llama")
    },
};

pub(super) const MISTRAL: Family = Family {
    classes: &["MistralForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 131072, "num_key_value_heads": 8}"#,
    model: |config| {
        derive_head(config)?;
        no_window(config)?;
        llama(config, "llama")
    },
};

pub(super) const MIXTRAL: Family = Family {
    classes: &["MixtralForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "max_position_embeddings": 131072, "num_key_value_heads": 8,
        "num_local_experts": 8, "num_experts_per_tok": 2}"#,
    model: |config| {
        no_window(config)?;
        let mut model = llama(config, "llama")?;
        model.tables = vec![COMMON, PERMUTED_ATTENTION, EXPERTS];
        Ok(model)
    },
};

pub(super) const SMOLLM3: Family = Family {
    classes: &["SmolLM3ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 2000000.0, "max_position_embeddings": 32768, "num_key_value_heads": 4,
        "tie_word_embeddings": true}"#,
    model: |config| {
        // Without it every fourth block has no RoPE, which engines take for granted.
        let every_fourth =
            |flags: &[f64]| flags.iter().enumerate().all(|(i, flag)| (*flag == 0.0) == ((i + 1) % 4 == 0));
        if let Some(flags) = config.numbers("no_rope_layers")?.filter(|flags| !every_fourth(flags)) {
            return Err(config.bad("no_rope_layers", &flags.into(), "RoPE in all but every fourth block"));
        }
        config.disregard(&[
            "attention_bias",
            "mlp_bias",
            "no_rope_layer_interval",
            "layer_types",
            "max_window_layers",
        ]);
        config.expect_flag("use_sliding_window", false)?;
        config.disregard(&["sliding_window"]);
        llama(config, "smollm3")
    },
};

const EXPERTS: &[Row] = &[
    row("layers.#.post_attention_layernorm", "ffn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.block_sparse_moe.gate", "ffn_gate_inp", &[Dim::Experts, Dim::Hidden], How::Keep),
    row("layers.#.block_sparse_moe.experts.#.w1", "ffn_gate_exps", &[Dim::Ff, Dim::Hidden], How::Stacked),
    row("layers.#.block_sparse_moe.experts.#.w2", "ffn_down_exps", &[Dim::Hidden, Dim::Ff], How::Stacked),
    row("layers.#.block_sparse_moe.experts.#.w3", "ffn_up_exps", &[Dim::Ff, Dim::Hidden], How::Stacked),
];

/// `transformers` computes the size of a head where it isn't set, and converters write it.
fn derive_head(config: &mut Config) -> Result<()> {
    let (hidden, heads) = (config.size(&["hidden_size"])?, config.size(&["num_attention_heads"])?);
    config.fill("head_dim", hidden / heads);
    Ok(())
}

/// Windows of Mistral 7B 0.1 and the first Mixtral: GGUF's `llama` has none.
fn no_window(config: &Config) -> Result<()> {
    let window = config.count(&["sliding_window"])?;
    let context = config.count(&["max_position_embeddings"])?;
    if window.zip(context).is_some_and(|(window, context)| window < context)
        && !config.is_ignored("sliding_window")
    {
        let value = window.into();
        return Err(config.bad(
            "sliding_window",
            &value,
            "null (--ignore sliding_window converts without a window)",
        ));
    }
    Ok(())
}

pub(super) fn llama(config: &Config, architecture: &'static str) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    let mut model = Model::usual(config, architecture)?;
    model.vocab_size();
    model.rope_dimensions()?;
    model.tables = vec![COMMON, PERMUTED_ATTENTION, MLP];
    model.style = Style::Llama;
    let rope = config.rope()?;
    if rope.kind()? == "llama3" {
        let head = model.sizes.get(Dim::Head)?;
        model.extra("rope_freqs.weight", llama3_factors(&rope, head)?);
    }
    Ok(model)
}

/// What RoPE's frequencies are divided by, as Llama 3 scales them: nothing for short waves, `factor` for long ones, and between
/// both by a ramp. In float32, as PyTorch does.
fn llama3_factors(rope: &Rope<'_>, head: usize) -> Result<Vec<f32>> {
    let base = rope.number("rope_theta")?.unwrap_or(10000.0);
    let factor = rope.number("factor")?.unwrap_or(8.0) as f32;
    let low = rope.number("low_freq_factor")?.unwrap_or(1.0);
    let high = rope.number("high_freq_factor")?.unwrap_or(4.0);
    let trained = rope.number("original_max_position_embeddings")?.unwrap_or(8192.0);
    if !(low > 0.0 && high > low && factor > 0.0 && base > 0.0) {
        return refused(format!(
            "RoPE's factors {factor}, {low} and {high} aren't positive and in order, which was expected"
        ));
    }
    let (longest, shortest) = ((trained / low) as f32, (trained / high) as f32);
    // A number divided by a tensor is multiplied by its reciprocal there.
    let frequencies = (0..head).step_by(2).map(|i| (base as f32).powf(i as f32 / head as f32).recip());
    Ok(frequencies
        .map(|frequency| {
            let wave = frequency.recip() * (2.0 * PI);
            if wave < shortest {
                1.0
            } else if wave > longest {
                factor
            } else {
                let smooth = (wave.recip() * trained as f32 - low as f32) / (high - low) as f32;
                ((1.0 - smooth) / factor + smooth).recip()
            }
        })
        .collect())
}
