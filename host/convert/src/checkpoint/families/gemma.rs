//! Gemma 1 to 3, of the last the language model.

use super::{Dim, Family, GELU_TANH, How, MLP, Model, OUTPUT, Row, WINDOW, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::Result;
use crate::checkpoint::vocabulary::Style;

pub(super) const GEMMA: Family = Family {
    classes: &["GemmaForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 8192, "head_dim": 256, "tie_word_embeddings": true}"#,
    model: |config| {
        config.disregard(&["hidden_act", "rope_theta", "attention_bias"]);
        config.expect("hidden_activation", GELU_TANH)?;
        let mut model = first_two(config, "gemma")?;
        model.tables = vec![TIED, ATTENTION, &[FFN_NORM], &MLP_ONLY];
        Ok(model)
    },
};

pub(super) const GEMMA2: Family = Family {
    classes: &["Gemma2ForCausalLM"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 8192, "head_dim": 256, "num_key_value_heads": 4,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096, "tie_word_embeddings": true}"#,
    model: |config| {
        config.disregard(&["hidden_act", "attention_bias", "sliding_window_size", "cache_implementation"]);
        config.expect("hidden_activation", GELU_TANH)?;
        config.expect_flag("use_bidirectional_attention", false)?;
        windows(config, |block| block % 2 == 0, "a window in every other block, from the first on")?;
        let mut model = first_two(config, "gemma2")?;
        scale(config, &model)?;
        model.meta.of("attn_logit_softcapping", Some(config.need_number(&["attn_logit_softcapping"])?));
        model.meta.of("final_logit_softcapping", Some(config.need_number(&["final_logit_softcapping"])?));
        model.meta.of(WINDOW, Some(config.need(&["sliding_window"])?));
        model.tables = vec![TIED, ATTENTION, &MLP_ONLY, BRANCH_NORMS];
        Ok(model)
    },
};

pub(super) const GEMMA3: Family = Family {
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    defaults: r#"{"rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0, "max_position_embeddings": 131072,
        "head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096, "vocab_size": 262208,
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "tie_word_embeddings": true}"#,
    model: |config| {
        config.disregard(&["hidden_act", "attention_bias"]);
        config.expect("hidden_activation", GELU_TANH)?;
        config.expect_flag("use_bidirectional_attention", false)?;
        if let Some(cap) = config.number(&["attn_logit_softcapping"])? {
            return Err(config.bad("attn_logit_softcapping", &cap.into(), "null"));
        }
        for key in ["sliding_window_pattern", "_sliding_window_pattern"] {
            if let Some(pattern) = config.count(&[key])?.filter(|pattern| *pattern != 6) {
                return Err(config.bad(key, &pattern.into(), "6"));
            }
        }
        windows(config, |block| block % 6 != 5, "a window in all but every sixth block")?;
        let mut model = Model::usual(config, "gemma3")?;
        scale(config, &model)?;
        model.meta.of(
            "final_logit_softcapping",
            config.number(&["final_logit_softcapping"])?.filter(|cap| *cap != 0.0),
        );
        model.meta.of(WINDOW, Some(config.need(&["sliding_window"])?));
        model.tables = vec![TOP, ATTENTION, &MLP_ONLY, BRANCH_NORMS, HEAD_NORMS];
        model.style = Style::NoSpaceBefore;
        Ok(model)
    },
};

/// The head is the embedding.
const TIED: &[Row] = &[
    row("embed_tokens", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("norm", "output_norm", &[Dim::Hidden], How::PlusOne),
    // Some tools write it all the same.
    row("lm_head", "", &[Dim::Vocab, Dim::Hidden], How::Dropped),
];

/// The head may be another.
const TOP: &[Row] = &[
    row("embed_tokens", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("norm", "output_norm", &[Dim::Hidden], How::PlusOne),
    row("lm_head", "output", &[Dim::Vocab, Dim::Hidden], How::Keep),
];

const ATTENTION: &[Row] = &[
    row("layers.#.input_layernorm", "attn_norm", &[Dim::Hidden], How::PlusOne),
    row("layers.#.self_attn.q_proj", "attn_q", &[Dim::Q, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.k_proj", "attn_k", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.v_proj", "attn_v", &[Dim::Kv, Dim::Hidden], How::Keep),
    OUTPUT,
];

const FFN_NORM: Row = row("layers.#.post_attention_layernorm", "ffn_norm", &[Dim::Hidden], How::PlusOne);

const MLP_ONLY: [Row; 3] = [MLP[1], MLP[2], MLP[3]];

/// Norms before the MLP and after both branches.
const BRANCH_NORMS: &[Row] = &[
    row("layers.#.post_attention_layernorm", "post_attention_norm", &[Dim::Hidden], How::PlusOne),
    row("layers.#.pre_feedforward_layernorm", "ffn_norm", &[Dim::Hidden], How::PlusOne),
    row("layers.#.post_feedforward_layernorm", "post_ffw_norm", &[Dim::Hidden], How::PlusOne),
];

const HEAD_NORMS: &[Row] = &[
    row("layers.#.self_attn.q_norm", "attn_q_norm", &[Dim::Head], How::PlusOne),
    row("layers.#.self_attn.k_norm", "attn_k_norm", &[Dim::Head], How::PlusOne),
];

/// The settings of the first two Gemmas. Their files say nothing of RoPE.
fn first_two(config: &Config, architecture: &'static str) -> Result<Model> {
    config.expect_flag("tie_word_embeddings", true)?;
    let mut model = Model::usual(config, architecture)?;
    model.meta.remove("rope.freq_base");
    model.style = if architecture == "gemma" { Style::Gemma } else { Style::NoSpaceBefore };
    Ok(model)
}

/// Refuses windows in other blocks than engines have them.
fn windows(config: &Config, has_window: fn(usize) -> bool, expected: &str) -> Result<()> {
    let Some(kinds) = config.texts("layer_types")? else { return Ok(()) };
    let differs =
        kinds.iter().enumerate().any(|(block, kind)| (*kind == "sliding_attention") != has_window(block));
    if differs { Err(config.bad("layer_types", &kinds.into(), expected)) } else { Ok(()) }
}

/// Refuses scales of scores other than those of a head, or of the hidden size's part for each head, as the largest have it.
fn scale(config: &Config, model: &Model) -> Result<()> {
    let Some(scalar) = config.number(&["query_pre_attn_scalar"])? else { return Ok(()) };
    let head = model.sizes.get(Dim::Head)?;
    let part = model.sizes.get(Dim::Hidden)? / model.sizes.get(Dim::Heads)?;
    if scalar == head as f64 || scalar == part as f64 {
        return Ok(());
    }
    Err(config.bad("query_pre_attn_scalar", &scalar.into(), &format!("{head}, the size of a head")))
}
