"""State-space models, delta nets and short convolutions, and hybrids of these with attention."""

from .common import (
    REMOVED,
    Architecture,
    Config,
    attention,
    granite,
    latent_attention,
    rope,
    sections,
    widths,
)


def mamba1(h: int) -> Config:
    return dict(hidden_size=h, state_size=16, conv_kernel=4, expand=2, time_step_rank=max(4, h // 16))


def mamba2_of_hybrid(h: int) -> Config:
    """Mamba-2 as the hybrids name its settings: four heads over an inner size of twice the hidden size."""
    return dict(
        mamba_n_heads=4,
        mamba_d_head=h // 2,
        mamba_n_groups=1,
        mamba_d_state=h // 2,
        mamba_d_conv=4,
        mamba_expand=2,
        mamba_chunk_size=32,
    )


def granite_hybrid(h: int, layers: str) -> Config:
    """Granite 4: M is a Mamba-2 block, A an attention block. No positions, as published."""
    kinds = {"M": "mamba", "A": "attention"}
    return dict(
        num_hidden_layers=len(layers),
        layer_types=[kinds[layer] for layer in layers],
        shared_intermediate_size=2 * h,
        position_embedding_type="nope",
        **granite(0.02),
        **mamba2_of_hybrid(h),
    )


def granite_hybrid_for_converter(saved: Config) -> Config:
    older = {"linear_attention": "mamba", "full_attention": "attention"}
    return dict(layer_types=[older[kind] for kind in saved["layer_types"]])


def nemotron_h_for_converter(saved: Config) -> Config:
    letters = {"linear_attention": "M", "mlp": "-", "full_attention": "*"}
    pattern = "".join(letters[kind] for kind in saved["layers_block_type"])
    # Settings of its mixtures of experts, by which the converter would take a dense model for one.
    unused = [key for key in saved if any(word in key for word in ("expert", "moe", "mtp", "nextn"))]
    return dict(
        hybrid_override_pattern=pattern,
        num_hidden_layers=len(pattern),
        layers_block_type=REMOVED,
        mamba_d_head=saved["mamba_head_dim"],
        **dict.fromkeys([*unused, "n_group", "topk_group"], REMOVED),
    )


def nemotron_h_moe_for_converter(saved: Config) -> Config:
    letters = {"linear_attention": "M", "mamba": "M", "full_attention": "*", "attention": "*", "moe": "E"}
    blocks = saved["layers_block_type"]
    pattern = "".join(letters[kind] for kind in blocks)
    return dict(hybrid_override_pattern=pattern, num_hidden_layers=len(blocks), layers_block_type=REMOVED)


def delta_net(h: int) -> Config:
    """Qwen's gated delta nets: two value heads for each key head, three blocks before one of attention."""
    return dict(
        num_hidden_layers=4,
        head_dim=h // 2,
        linear_conv_kernel_dim=4,
        linear_key_head_dim=h // 4,
        linear_value_head_dim=h // 4,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        layer_types=["linear_attention"] * 3 + ["full_attention"],
        **attention(),
    )


def quarter_in_sections(h: int) -> Config:
    return rope(1e7, partial_rotary_factor=0.25, mrope_section=sections(h // 8), mrope_interleaved=True)


def shared_and_routed(h: int) -> Config:
    return dict(
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=h // 2,
        shared_expert_intermediate_size=h // 2,
    )


def kimi_linear_for_converter(saved: Config) -> Config:
    blocks = list(enumerate(saved["layer_types"], 1))
    return dict(
        linear_attn_config=dict(
            full_attn_layers=[block for block, kind in blocks if kind == "full_attention"],
            kda_layers=[block for block, kind in blocks if kind != "full_attention"],
            short_conv_kernel_size=saved["linear_conv_kernel_dim"],
            head_dim=saved["linear_head_dim"],
            num_heads=saved["linear_num_heads"],
        ),
        num_experts=saved.get("num_experts") or saved["num_local_experts"],
        num_experts_per_token=saved.get("num_experts_per_token") or saved["num_experts_per_tok"],
        num_shared_experts=saved.get("num_shared_experts") or saved["n_shared_experts"],
        first_k_dense_replace=1,
        moe_router_activation_func="sigmoid",
        moe_renormalize=True,
        scoring_func="sigmoid",
    )


RECURRENT = {
    "granite_hybrid": Architecture(
        "granitemoehybrid",
        lambda h: dict(
            hidden_size=h,
            intermediate_size=3 * h // 2,
            num_local_experts=4,
            num_experts_per_tok=2,
            **granite_hybrid(h, "MMAM"),
        ),
        "Mamba-2 and attention, 2 of 4 experts and a shared one",
        granite_hybrid_for_converter,
    ),
    "granite_hybrid_dense": Architecture(
        "granitemoehybrid",
        lambda h: dict(num_local_experts=0, num_experts_per_tok=0, **widths(h), **granite_hybrid(h, "MAMM")),
        "Mamba-2 and attention, dense MLPs",
        granite_hybrid_for_converter,
    ),
    "falcon_h1": Architecture(
        "falcon_h1",
        lambda h: dict(
            num_hidden_layers=3,
            head_dim=h // 4,
            mamba_d_ssm=2 * h,
            mamba_rms_norm=False,
            embedding_multiplier=2.5,
            lm_head_multiplier=0.5,
            key_multiplier=0.7,
            ssm_in_multiplier=1.1,
            ssm_out_multiplier=0.6,
            attention_in_multiplier=1.0,
            attention_out_multiplier=0.9,
            mlp_multipliers=[0.9, 0.8],
            ssm_multipliers=[0.35, 0.25, 0.35, 0.5, 0.3],
            **widths(h),
            **attention(),
            **mamba2_of_hybrid(h),
        ),
        "Mamba-2 and attention side by side in each block, multipliers",
    ),
    "nemotron_h": Architecture(
        "nemotron_h",
        lambda h: dict(
            hybrid_override_pattern="M-M*-M",
            num_hidden_layers=6,
            head_dim=h // 4,
            ssm_state_size=h // 2,
            mamba_num_heads=4,
            mamba_head_dim=h // 2,
            n_groups=2,
            mamba_n_groups=2,
            conv_kernel=4,
            expand=2,
            chunk_size=32,
            **widths(h),
            **attention(),
        ),
        "blocks of one thing each: Mamba-2 in two groups, squared-ReLU MLP or attention",
        nemotron_h_for_converter,
    ),
    "jamba": Architecture(
        "jamba",
        lambda h: dict(
            num_hidden_layers=8,
            attn_layer_period=4,
            attn_layer_offset=2,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=4,
            num_experts_per_tok=2,
            mamba_d_state=16,
            mamba_d_conv=4,
            mamba_expand=2,
            mamba_dt_rank=max(4, h // 16),
            **widths(h),
            **attention(),
        ),
        "Mamba and attention, MLPs and 2 of 4 experts by turns",
    ),
    "lfm2": Architecture(
        "lfm2",
        lambda h: dict(
            num_hidden_layers=4,
            full_attn_idxs=[1, 3],
            conv_L_cache=3,
            block_auto_adjust_ff_dim=False,
            tie_word_embeddings=True,
            **widths(h),
            **attention(),
        ),
        "gated short convolutions and attention",
    ),
    "mamba": Architecture("mamba", lambda h: dict(num_hidden_layers=3, **mamba1(h)), "selective scan"),
    "falcon_mamba": Architecture(
        "falcon_mamba",
        lambda h: dict(num_hidden_layers=2, intermediate_size=2 * h, **mamba1(h)),
        "Mamba with norms on its time steps, B and C",
    ),
    "mamba2": Architecture(
        "mamba2",
        lambda h: dict(
            hidden_size=h,
            num_hidden_layers=3,
            state_size=h // 2,
            conv_kernel=4,
            expand=2,
            num_heads=8,
            head_dim=h // 4,
            n_groups=1,
            chunk_size=32,
            norm_before_gate=False,
            rms_norm=True,
        ),
        "SSD with a gated norm",
    ),
    "kimi_linear": Architecture(
        "kimi_linear",
        lambda h: dict(
            num_hidden_layers=4,
            linear_head_dim=h // 4,
            linear_num_heads=4,
            linear_conv_kernel_dim=4,
            layer_types=["linear_attention"] * 3 + ["full_attention"],
            mlp_layer_types=["dense"] + ["sparse"] * 3,
            num_local_experts=4,
            routed_scaling_factor=1.5,
            norm_topk_prob=True,
            **latent_attention(h),
        ),
        "Kimi's delta attention, latent attention without RoPE, sigmoid routing",
        kimi_linear_for_converter,
        hidden=64,
        # Published files call the dense MLP of the first block by its own name.
        rename=lambda name: name.replace("layers.0.block_sparse_moe.", "layers.0.mlp."),
    ),
    "lfm2moe": Architecture(
        "lfm2_moe",
        lambda h: dict(
            num_hidden_layers=4,
            conv_L_cache=3,
            layer_types=["conv", "full_attention", "conv", "full_attention"],
            num_dense_layers=1,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=h // 2,
            routed_scaling_factor=1.0,
            tie_word_embeddings=True,
            **rope(1e6),
            **widths(h),
            **attention(),
        ),
        "LFM2 with 2 of 4 experts, routed by sigmoids with a bias",
        lambda saved: dict(
            layer_types=["conv" if "conv" in kind else kind for kind in saved["layer_types"]],
        ),
        hidden=64,
    ),
    "nemotron_h_moe": Architecture(
        "nemotron_h",
        lambda h: dict(
            layers_block_type=["mamba", "moe", "mamba", "attention", "moe", "mamba", "moe"],
            head_dim=h // 4,
            ssm_state_size=h // 2,
            mamba_num_heads=4,
            mamba_head_dim=h // 2,
            n_groups=2,
            conv_kernel=4,
            expand=2,
            chunk_size=32,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_shared_experts=1,
            moe_intermediate_size=h // 2,
            moe_shared_expert_intermediate_size=h,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            n_group=1,
            topk_group=1,
            **widths(h),
            **attention(),
        ),
        "Nemotron-H with 2 of 4 experts of squared ReLU and a shared one (Nemotron 3)",
        nemotron_h_moe_for_converter,
        hidden=64,
    ),
    "qwen35": Architecture(
        "qwen3_5_text",
        lambda h: dict(**quarter_in_sections(h), **delta_net(h), **widths(h)),
        "gated delta nets and gated attention, RoPE in sections",
        hidden=64,
    ),
    "qwen35moe": Architecture(
        "qwen3_5_moe_text",
        lambda h: dict(hidden_size=h, **quarter_in_sections(h), **delta_net(h), **shared_and_routed(h)),
        "the same with 2 of 4 experts and a gated shared one",
        hidden=64,
    ),
    "qwen3next": Architecture(
        "qwen3_next",
        lambda h: dict(
            **rope(1e6, partial_rotary_factor=0.25), **delta_net(h), **shared_and_routed(h), **widths(h)
        ),
        "the same as published earlier: matrices of the delta net interleaved",
        hidden=64,
    ),
}
