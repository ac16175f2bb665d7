//! Mamba-2, by itself; and what hybrids share of it.

use super::{Dim, Family, How, Model, Row, SILU, exact, row};
use crate::checkpoint::config::Config;
use crate::checkpoint::error::{Result, refused};

/// The defaults are llama.cpp's converter's: those of `transformers` are of one model.
pub(super) const MAMBA2: Family = Family {
    classes: &["Mamba2ForCausalLM"],
    defaults: r#"{"expand": 2, "n_groups": 1, "conv_kernel": 4, "state_size": 128, "head_dim": 64, "layer_norm_epsilon": 1e-5}"#,
    model: mamba2,
};

const TABLE: &[Row] = &[
    row("embeddings", "token_embd", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("norm_f", "output_norm", &[Dim::Hidden], How::Keep),
    row("lm_head", "output", &[Dim::Vocab, Dim::Hidden], How::Keep),
    row("layers.#.norm", "attn_norm", &[Dim::Hidden], How::Keep),
    row("layers.#.mixer.in_proj", "ssm_in", &[Dim::Enters, Dim::Hidden], How::Keep),
    row("layers.#.mixer.conv1d", "ssm_conv1d", &[Dim::Channels, Dim::One, Dim::Kernel], How::Squeezed),
    exact("layers.#.mixer.dt_bias", "ssm_dt.bias", &[Dim::SsmHeads], How::Keep),
    exact("layers.#.mixer.A_log", "ssm_a", &[Dim::SsmHeads], How::NegExpColumn),
    exact("layers.#.mixer.D", "ssm_d", &[Dim::SsmHeads], How::Column),
    row("layers.#.mixer.norm", "ssm_norm", &[Dim::Inner], How::Grouped(Dim::Groups)),
    row("layers.#.mixer.out_proj", "ssm_out", &[Dim::Hidden, Dim::Inner], How::Keep),
];

/// The sizes of a Mamba-2 block.
pub(super) struct Ssm {
    pub(super) hidden: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    pub(super) groups: usize,
    pub(super) state: usize,
    pub(super) kernel: usize,
}

/// Sets the sizes and keys of Mamba-2 blocks.
pub(super) fn ssm(model: &mut Model, config: &Config, sizes: &Ssm) -> Result<()> {
    let channels = sizes.groups.saturating_mul(sizes.state).saturating_mul(2).saturating_add(sizes.inner);
    let enters = channels.saturating_add(sizes.inner).saturating_add(sizes.heads);
    if !sizes.inner.is_multiple_of(sizes.groups) || sizes.hidden > enters {
        let (inner, groups) = (sizes.inner, sizes.groups);
        let path = config.path().display();
        return refused(format!("{path}: Mamba's inner size {inner} is no multiple of its {groups} groups"));
    }
    for (dim, size) in [
        (Dim::SsmHeads, sizes.heads),
        (Dim::Inner, sizes.inner),
        (Dim::Groups, sizes.groups),
        (Dim::Kernel, sizes.kernel),
        (Dim::Channels, channels),
        (Dim::Enters, enters),
    ] {
        model.sizes.set(dim, size);
    }
    let meta = &mut model.meta;
    meta.of("ssm.conv_kernel", Some(sizes.kernel as u32));
    meta.of("ssm.state_size", Some(sizes.state as u32));
    meta.of("ssm.group_count", Some(sizes.groups as u32));
    meta.of("ssm.inner_size", Some(sizes.inner as u32));
    meta.of("ssm.time_step_rank", Some(sizes.heads as u32));
    Ok(())
}

fn mamba2(config: &mut Config) -> Result<Model> {
    config.expect("hidden_act", SILU)?;
    config.expect_flag("use_bias", false)?;
    config.expect_flag("rms_norm", true)?;
    config.disregard(&[
        // The class has one order of norm and gate, whatever this says.
        "norm_before_gate",
        "pad_vocab_size_multiple",
        "use_conv_bias",
        "residual_in_fp32",
        "time_step_rank",
        "time_step_min",
        "time_step_max",
        "time_step_floor",
        "time_step_limit",
        "chunk_size",
        "num_heads",
        "intermediate_size",
    ]);
    let mut model = Model::bare(config, "mamba2")?;
    let hidden = model.sizes.get(Dim::Hidden)?;
    let inner = config.size(&["expand"])?.saturating_mul(hidden);
    let head = config.size(&["head_dim"])?;
    if !inner.is_multiple_of(head) {
        return Err(config.bad("head_dim", &head.into(), &format!("a divisor of the inner size {inner}")));
    }
    // Any length: there are no positions.
    model.meta.of("context_length", Some(1_u32 << 20));
    model.meta.of("embedding_length", Some(hidden as u32));
    model.meta.of("feed_forward_length", Some(0_u32));
    model.meta.of("attention.head_count", Some(0_u32));
    model.meta.of("block_count", Some(model.blocks as u32));
    let sizes = Ssm {
        hidden,
        heads: inner / head,
        inner,
        groups: config.size(&["n_groups"])?,
        state: config.size(&["state_size"])?,
        kernel: config.size(&["conv_kernel"])?,
    };
    ssm(&mut model, config, &sizes)?;
    model
        .meta
        .of("attention.layer_norm_rms_epsilon", config.number(&["layer_norm_epsilon", "rms_norm_eps"])?);
    model.tables = vec![TABLE];
    model.prefixes = &["model.backbone.", "backbone.", "model."];
    Ok(model)
}
