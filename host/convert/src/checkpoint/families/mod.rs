//! The families of architectures that checkpoints are converted of, a file each: settings to metadata, and a table of tensors.
//!
//! Keys, names and shapes are those of llama.cpp's converter, whose files the tests compare with.

mod bert;
mod falcon_h1;
mod gemma;
mod glm;
mod gpt2;
mod gpt_oss;
mod granite;
mod lfm2;
mod llama;
mod mamba;
mod olmo;
mod phi;
mod qwen;
mod qwen_delta;

use super::config::{Config, Rope};
use super::error::{Result, refused};
use super::meta::{Item, Meta};
use super::recipe::{Content, Recipe};
use super::table::{Dim, How, Recipes, Row, Sizes, exact, row};
use super::vocabulary::Style;

/// A family of checkpoints.
pub(super) struct Family {
    /// The classes of `transformers` that it has.
    classes: &'static [&'static str],
    /// What `transformers` takes for settings that a configuration leaves out.
    defaults: &'static str,
    /// From the settings to the model.
    model: fn(&mut Config) -> Result<Model>,
}

/// All of them.
const FAMILIES: &[Family] = &[
    llama::LLAMA,
    llama::MISTRAL,
    llama::MIXTRAL,
    llama::SMOLLM3,
    qwen::QWEN2,
    qwen::QWEN3,
    qwen::QWEN2_MOE,
    qwen::QWEN3_MOE,
    qwen_delta::QWEN35,
    qwen_delta::QWEN35_MOE,
    qwen_delta::QWEN3_NEXT,
    gemma::GEMMA,
    gemma::GEMMA2,
    gemma::GEMMA3,
    phi::PHI3,
    olmo::OLMO2,
    olmo::OLMO3,
    granite::GRANITE,
    granite::GRANITE_MOE,
    granite::GRANITE_HYBRID,
    lfm2::LFM2,
    mamba::MAMBA2,
    falcon_h1::FALCON_H1,
    gpt2::GPT2,
    glm::GLM4,
    gpt_oss::GPT_OSS,
    bert::BERT,
];

/// What a checkpoint becomes.
pub(super) struct Model {
    /// The class, for messages.
    pub(super) called: String,
    pub(super) meta: Meta,
    pub(super) sizes: Sizes,
    pub(super) blocks: usize,
    pub(super) tables: Vec<&'static [Row]>,
    /// What published names may begin with, and tables leave out.
    pub(super) prefixes: &'static [&'static str],
    /// What names begin with that belong to another task.
    pub(super) left_out: &'static [&'static str],
    /// The kind of each block; without any, all are of one.
    pub(super) kinds: Vec<u8>,
    /// Tensors that follow from the configuration.
    pub(super) extra: Vec<(&'static str, Recipe)>,
    /// How the vocabulary is written.
    pub(super) style: Style,
    /// How many tokens there are.
    pub(super) tokens: usize,
}

/// The model that a checkpoint's settings describe.
pub(super) fn model(config: &mut Config) -> Result<Model> {
    let class = config.class()?.to_owned();
    let Some(family) = FAMILIES.iter().find(|family| family.classes.contains(&class.as_str())) else {
        let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.classes).copied().collect();
        return refused(format!(
            "{}: the architecture is {class:?}, and the known ones are {}",
            config.path().display(),
            known.join(", ")
        ));
    };
    config.set_defaults(family.defaults)?;
    if let Some(quantized) = config.get("quantization_config").filter(|_| class != "GptOssForCausalLM") {
        return Err(config.bad("quantization_config", quantized, "a checkpoint in F32, F16 or BF16"));
    }
    (family.model)(config)
}

const WINDOW: &str = "attention.sliding_window";
const PATTERN: &str = "attention.sliding_window_pattern";
const EXPERT_FF: &str = "expert_feed_forward_length";
const SHARED_FF: &str = "expert_shared_feed_forward_length";

/// Activations that are SiLU, and those that are GELU by its tangent.
const SILU: &[&str] = &["silu", "swish"];
const GELU_TANH: &[&str] = &["gelu_pytorch_tanh", "gelu_new"];

/// Rows that nearly all language models share.
const COMMON: &[Row] = &[
    row("embed_tokens", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("norm", "output_norm", &[Dim::Hidden], How::Keep),
    row("lm_head", "output", &[Dim::Vocab, Dim::Hidden], How::Keep),
];

/// The same of a model that embeds, which has no head.
const HEADLESS: &[Row] = &[
    row("embed_tokens", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("norm", "output_norm", &[Dim::Hidden], How::Keep),
];

/// Attention, of which RoPE turns the halves of heads with each other in the file too.
const ATTENTION: &[Row] = &[
    row("layers.#.input_layernorm", "attn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.self_attn.q_proj", "attn_q", &[Dim::Q, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.k_proj", "attn_k", &[Dim::Kv, Dim::Hidden], How::Keep),
    row("layers.#.self_attn.v_proj", "attn_v", &[Dim::Kv, Dim::Hidden], How::Keep),
    OUTPUT,
];

/// The same with neighbours turned with each other in the file.
const PERMUTED_ATTENTION: &[Row] = &[
    row("layers.#.input_layernorm", "attn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.self_attn.q_proj", "attn_q", &[Dim::Q, Dim::Hidden], How::Permuted(Dim::Heads)),
    row("layers.#.self_attn.k_proj", "attn_k", &[Dim::Kv, Dim::Hidden], How::Permuted(Dim::KvHeads)),
    row("layers.#.self_attn.v_proj", "attn_v", &[Dim::Kv, Dim::Hidden], How::Keep),
    OUTPUT,
];

const OUTPUT: Row = row("layers.#.self_attn.o_proj", "attn_output", &[Dim::Hidden, Dim::Q], How::Keep);

/// An MLP with a gate, after a norm.
const MLP: &[Row] = &[
    row("layers.#.post_attention_layernorm", "ffn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.mlp.gate_proj", "ffn_gate", &[Dim::Ff, Dim::Hidden], How::Keep),
    row("layers.#.mlp.up_proj", "ffn_up", &[Dim::Ff, Dim::Hidden], How::Keep),
    row("layers.#.mlp.down_proj", "ffn_down", &[Dim::Hidden, Dim::Ff], How::Keep),
];

/// Norms of queries and keys, by head.
const HEAD_NORMS: &[Row] = &[
    row("layers.#.self_attn.q_norm", "attn_q_norm", &[Dim::Head], How::Keep),
    row("layers.#.self_attn.k_norm", "attn_k_norm", &[Dim::Head], How::Keep),
];

impl Model {
    /// A model with what most families have: the settings that llama.cpp's converter looks for in any configuration.
    fn usual(config: &Config, architecture: &'static str) -> Result<Self> {
        let mut model = Self::bare(config, architecture)?;
        let heads = config.size(&["num_attention_heads"])?;
        let kv_heads = config.count(&["num_key_value_heads"])?.map_or(heads, |count| count as usize);
        let hidden = model.sizes.get(Dim::Hidden)?;
        let head = config.count(&["head_dim"])?.map_or(hidden / heads, |dim| dim as usize);
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(config.bad(
                "num_key_value_heads",
                &kv_heads.into(),
                "a divisor of num_attention_heads",
            ));
        }
        if head == 0 {
            return Err(config.bad("num_attention_heads", &heads.into(), "at most hidden_size"));
        }
        if head > LARGEST_HEAD {
            return Err(config.bad("head_dim", &head.into(), &format!("at most {LARGEST_HEAD}")));
        }
        for (dim, size) in [(Dim::Heads, heads), (Dim::KvHeads, kv_heads), (Dim::Head, head)] {
            model.sizes.set(dim, size);
        }
        let products = heads.checked_mul(head).zip(kv_heads.checked_mul(head));
        let Some((q, kv)) = products.filter(|(q, _)| *q <= LARGEST) else {
            return Err(config.bad("head_dim", &head.into(), "a size of heads that fits in memory"));
        };
        model.sizes.set(Dim::Q, q);
        model.sizes.set(Dim::Kv, kv);
        model.usual_meta(config)?;
        Ok(model)
    }

    /// A model with sizes of its vocabulary and its hidden states alone.
    fn bare(config: &Config, architecture: &'static str) -> Result<Self> {
        let blocks = config.size(&["num_hidden_layers", "n_layer"])?;
        if blocks > MOST_BLOCKS {
            return Err(config.bad("num_hidden_layers", &blocks.into(), &format!("at most {MOST_BLOCKS}")));
        }
        let tokens = config.size(&["vocab_size"])?;
        let mut sizes = Sizes::default();
        sizes.set(Dim::Vocab, tokens);
        sizes.set(Dim::Hidden, config.size(&["hidden_size", "n_embd"])?);
        Ok(Self {
            called: config.class()?.to_owned(),
            meta: Meta::new(architecture),
            sizes,
            blocks,
            tables: vec![COMMON],
            prefixes: &["model."],
            left_out: &[],
            kinds: Vec::new(),
            extra: Vec::new(),
            style: Style::Usual,
            tokens,
        })
    }

    fn usual_meta(&mut self, config: &Config) -> Result<()> {
        let meta = &mut self.meta;
        meta.of("block_count", Some(self.blocks as u32));
        meta.of("context_length", config.count(&["max_position_embeddings"])?);
        meta.of("embedding_length", Some(config.need(&["hidden_size"])?));
        let ff = config.count(&["intermediate_size"])?;
        meta.of("feed_forward_length", ff);
        if let Some(ff) = ff {
            self.sizes.set(Dim::Ff, ff as usize);
        }
        meta.of("attention.head_count", config.count(&["num_attention_heads"])?);
        meta.of("attention.head_count_kv", config.count(&["num_key_value_heads"])?);
        let rope = config.rope()?;
        rope_scaling(meta, config, &rope)?;
        rope_bases(meta, &rope)?;
        meta.of("attention.layer_norm_rms_epsilon", config.number(&["rms_norm_eps", "norm_eps"])?);
        let experts = config.count(&["num_local_experts", "num_experts"])?;
        meta.of("expert_count", experts);
        if let Some(experts) = experts {
            self.sizes.set(Dim::Experts, experts as usize);
        }
        meta.of("expert_used_count", config.count(&["num_experts_per_tok", "num_experts_per_token"])?);
        let head = config.count(&["head_dim"])?;
        meta.of("attention.key_length", head);
        meta.of("attention.value_length", head);
        Ok(())
    }

    /// The width that RoPE turns of each head: all of it.
    fn rope_dimensions(&mut self) -> Result<()> {
        let head = self.sizes.get(Dim::Head)?;
        self.meta.of("rope.dimension_count", Some(head as u32));
        Ok(())
    }

    /// The count of tokens among the metadata.
    fn vocab_size(&mut self) {
        self.meta.of("vocab_size", Some(self.tokens as u32));
    }

    /// The width of experts, of which the file has the key.
    fn expert_width(&mut self, config: &Config, key: &str, shared: bool) -> Result<()> {
        let Some(width) = config.count(&[key])? else { return Ok(()) };
        let (key, dim) = if shared { (SHARED_FF, Dim::SharedFf) } else { (EXPERT_FF, Dim::ExpertFf) };
        self.meta.of(key, Some(width));
        self.sizes.set(dim, width as usize);
        Ok(())
    }

    /// A tensor that follows from the configuration.
    fn extra(&mut self, name: &'static str, numbers: Vec<f32>) {
        self.extra.push((name, Recipe { dims: vec![numbers.len()], content: Content::Numbers(numbers) }));
    }

    /// The kinds of blocks that the setting `layer_types` has, each of which one of `kinds` says.
    fn kinds_of_blocks(&mut self, config: &Config, kinds: &[(&str, u8)]) -> Result<()> {
        let Some(names) = config.texts("layer_types")? else { return Ok(()) };
        if names.len() != self.blocks {
            let expected = format!("one for each of {} blocks", self.blocks);
            return Err(config.bad("layer_types", &names.len().into(), &expected));
        }
        for name in names {
            let Some((_, kind)) = kinds.iter().find(|(other, _)| *other == name) else {
                let known: Vec<&str> = kinds.iter().map(|(name, _)| *name).collect();
                return Err(config.bad("layer_types", &name.into(), &known.join(" or ")));
            };
            self.kinds.push(*kind);
        }
        Ok(())
    }
}

/// The most blocks: each costs memory before tensors are looked at.
const MOST_BLOCKS: usize = 4096;

/// The largest head, and the largest size of all heads.
const LARGEST_HEAD: usize = 1 << 16;
const LARGEST: usize = 1 << 31;

/// How RoPE's positions are scaled.
fn rope_scaling(meta: &mut Meta, config: &Config, rope: &Rope<'_>) -> Result<()> {
    match rope.kind()? {
        "default" | "llama3" => {}
        kind @ ("linear" | "yarn") => {
            meta.of("rope.scaling.type", Some(kind));
            let factor = rope.number("factor")?.filter(|factor| *factor > 0.0);
            let Some(factor) = factor else {
                return refused(format!(
                    "{}: RoPE's factor isn't positive, which was expected",
                    config.path().display()
                ));
            };
            meta.of("rope.scaling.factor", Some(factor));
            if kind == "yarn" {
                yarn(meta, config, rope)?;
            }
        }
        "su" | "longrope" => meta.of("rope.scaling.type", Some("longrope")),
        other => {
            let known = "default, linear, yarn, longrope or llama3";
            return Err(config.bad("rope_type", &other.into(), known));
        }
    }
    if let Some(mut sections) = rope.numbers("mrope_section")? {
        sections.resize(4, 0.0);
        let sections = sections.iter().map(|&section| section as i32).collect();
        meta.of("rope.dimension_sections", Some(Item::I32s(sections)));
    }
    Ok(())
}

fn yarn(meta: &mut Meta, config: &Config, rope: &Rope<'_>) -> Result<()> {
    const TRAINED: &str = "original_max_position_embeddings";
    let Some(trained) = rope.count(TRAINED)? else {
        return refused(format!("{}: YaRN has no {TRAINED}, which was expected", config.path().display()));
    };
    meta.of("rope.scaling.original_context_length", Some(trained));
    meta.of("rope.scaling.yarn_ext_factor", rope.number("extrapolation_factor")?);
    let attention = rope.number("attention_factor")?.or(rope.number("attn_factor")?);
    meta.of("rope.scaling.yarn_attn_factor", attention);
    meta.of("rope.scaling.yarn_beta_fast", rope.number("beta_fast")?);
    meta.of("rope.scaling.yarn_beta_slow", rope.number("beta_slow")?);
    Ok(())
}

fn rope_bases(meta: &mut Meta, rope: &Rope<'_>) -> Result<()> {
    meta.of("rope.freq_base", rope.number("rope_theta")?);
    meta.of("rope.freq_base_swa", rope.window_base);
    Ok(())
}
