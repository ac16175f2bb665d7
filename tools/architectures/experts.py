"""Language models with mixtures of experts."""

from .common import (
    Architecture,
    Config,
    attention,
    gemma4,
    granite,
    kinds,
    latent_attention,
    rope,
    widths,
    yarn,
)


def experts(h: int) -> Config:
    """Qwen's mixtures: four experts as wide as the hidden size, two of them used."""
    return dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=h, num_hidden_layers=2)


def gpt_oss(h: int) -> Config:
    return dict(
        hidden_size=h,
        intermediate_size=h,
        num_hidden_layers=4,
        head_dim=h // 4,
        sliding_window=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        **kinds("sfsf"),
        # llama.cpp's YaRN rounds the ends of its ramp to whole dimensions; published files don't.
        **yarn(150000.0, 1024, truncate=True),
        **attention(),
    )


def deepseek2_lite(h: int) -> Config:
    """V2-Lite has no low rank for queries. llama.cpp knows it by its 27 blocks."""
    narrow = dict(
        hidden_size=h // 2,
        intermediate_size=h // 2,
        kv_lora_rank=16,
        moe_intermediate_size=h // 4,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    return dict(
        num_hidden_layers=27,
        q_lora_rank=None,
        first_k_dense_replace=1,
        # Both are used: of 26 routers one would come too near to a tie.
        n_routed_experts=2,
        topk_method="greedy",
        routed_scaling_factor=1.0,
        norm_topk_prob=False,
        **yarn(1e4, 1024, mscale=0.707, mscale_all_dim=0.707),
        **{**latent_attention(h), **narrow},
    )


def hunyuan_moe_for_converter(saved: Config) -> Config:
    layers = saved["num_hidden_layers"]
    used = saved["moe_topk"]
    return dict(
        moe_intermediate_size=[saved["intermediate_size"]] * layers,
        num_shared_expert=[1] * layers,
        moe_topk=[used] * layers if isinstance(used, int) else used,
    )


def sigmoid(saved: Config) -> Config:
    return dict(scoring_func="sigmoid")


EXPERTS = {
    "qwen2_moe": Architecture(
        "qwen2_moe",
        lambda h: dict(
            shared_expert_intermediate_size=2 * h, **rope(1e4), **experts(h), **widths(h), **attention()
        ),
        "2 of 4 experts and a gated shared one",
    ),
    "qwen3_moe": Architecture(
        "qwen3_moe",
        lambda h: dict(
            head_dim=h // 4, norm_topk_prob=True, **rope(1e4), **experts(h), **widths(h), **attention()
        ),
        "2 of 4 experts, weights normalised over those used",
    ),
    "granite_moe": Architecture(
        "granitemoe",
        lambda h: dict(
            num_hidden_layers=2,
            num_local_experts=4,
            num_experts_per_tok=2,
            **rope(1e4),
            **granite(),
            **widths(h),
        ),
        "Granite with 2 of 4 experts",
    ),
    "deepseek2_lite": Architecture(
        "deepseek_v2",
        deepseek2_lite,
        "multi-head latent attention with YaRN, a dense block first, a shared expert",
        hidden=64,
        # 1 / sqrt(2 blocks), as GPT-2 starts (Radford et al. 2019, section 2.3).
        additions=54**-0.5,
    ),
    "deepseek_v3": Architecture(
        "deepseek_v3",
        lambda h: dict(
            num_hidden_layers=3,
            q_lora_rank=48,
            first_k_dense_replace=1,
            n_routed_experts=8,
            n_group=4,
            topk_group=2,
            routed_scaling_factor=2.5,
            norm_topk_prob=True,
            num_mtp_layers=0,
            **rope(1e4),
            **latent_attention(h),
        ),
        "latent attention, sigmoid routing with a bias over the best 2 of 4 groups of experts",
        sigmoid,
        hidden=64,
        seed=13,
    ),
    "ernie4_5_moe": Architecture(
        "ernie4_5_moe",
        lambda h: dict(
            num_hidden_layers=3,
            moe_intermediate_size=h // 2,
            moe_k=2,
            moe_num_experts=4,
            moe_num_shared_experts=2,
            moe_layer_start_index=1,
            tie_word_embeddings=True,
            **rope(5e5),
            **widths(h),
            **attention(),
        ),
        "a dense block, then 2 of 4 experts and two shared ones",
        hidden=64,
    ),
    "gemma4_moe": Architecture(
        "gemma4_text",
        lambda h: dict(
            num_hidden_layers=3,
            hidden_size_per_layer_input=0,
            attention_k_eq_v=True,
            num_global_key_value_heads=1,
            enable_moe_block=True,
            num_experts=4,
            top_k_experts=2,
            moe_intermediate_size=h // 2,
            **kinds("ssf"),
            **gemma4(h),
        ),
        "2 of 4 experts beside an MLP",
        hidden=64,
    ),
    "glm4_moe_lite": Architecture(
        "glm4_moe_lite",
        lambda h: dict(
            num_hidden_layers=3,
            q_lora_rank=48,
            n_routed_experts=4,
            n_group=1,
            topk_group=1,
            routed_scaling_factor=1.8,
            norm_topk_prob=True,
            mlp_layer_types=["dense", "sparse", "sparse"],
            **rope(1e6),
            **latent_attention(h),
        ),
        "latent attention and sigmoid routing without groups (GLM-4.7-Flash)",
        lambda saved: dict(first_k_dense_replace=1, scoring_func="sigmoid"),
        hidden=64,
    ),
    "glm4moe": Architecture(
        "glm4_moe",
        lambda h: dict(
            num_hidden_layers=3,
            head_dim=h // 2,
            moe_intermediate_size=h // 2,
            num_experts_per_tok=2,
            n_shared_experts=1,
            n_routed_experts=4,
            routed_scaling_factor=1.5,
            first_k_dense_replace=1,
            use_qk_norm=True,
            attention_bias=True,
            num_mtp_layers=0,
            **rope(1e6, partial_rotary_factor=0.5),
            **widths(h),
            **attention(),
        ),
        "norms of queries and keys, sigmoid routing, a shared expert",
        hidden=64,
    ),
    "gpt_oss": Architecture(
        "gpt_oss",
        gpt_oss,
        "attention sinks, windows by turns, experts with biases and clamped SwiGLU",
        hidden=64,
        inputs_first=lambda weight: weight.dim() == 3,
    ),
    "gpt_oss.mxfp4": Architecture(
        "gpt_oss",
        gpt_oss,
        "the same with experts in MXFP4, as published",
        hidden=64,
        inputs_first=lambda weight: weight.dim() == 3,
        experts_in="MXFP4",
    ),
    "hunyuan_moe": Architecture(
        "hunyuan_v1_moe",
        lambda h: dict(
            num_hidden_layers=2,
            num_experts=4,
            moe_topk=2,
            head_dim=h // 4,
            tie_word_embeddings=True,
            **rope(1e4),
            **widths(h),
            **attention(),
        ),
        "2 of 4 experts and a shared one",
        hunyuan_moe_for_converter,
        hidden=64,
    ),
    "llama4": Architecture(
        "llama4_text",
        lambda h: dict(
            hidden_size=h,
            intermediate_size=h // 2,
            intermediate_size_mlp=2 * h,
            num_hidden_layers=4,
            head_dim=h // 4,
            num_experts_per_tok=1,
            num_local_experts=4,
            interleave_moe_layer_step=2,
            use_qk_norm=True,
            attention_chunk_size=8192,
            no_rope_layer_interval=4,
            attn_temperature_tuning=False,
            **rope(5e5),
            **attention(),
        ),
        "1 of 4 experts in every other block, their inputs weighted; every fourth block without RoPE",
        hidden=64,
        inputs_first=lambda weight: weight.dim() == 3,
    ),
    "minimax_m2": Architecture(
        "minimax_m2",
        lambda h: dict(
            hidden_size=h,
            intermediate_size=h // 2,
            num_hidden_layers=3,
            head_dim=h // 2,
            num_experts_per_tok=2,
            num_local_experts=4,
            **rope(5e6, partial_rotary_factor=0.5),
            **attention(),
        ),
        "norms over all heads of queries and keys, sigmoid routing",
        lambda saved: dict(rotary_dim=saved["head_dim"] // 2, scoring_func="sigmoid"),
        hidden=64,
    ),
    "mixtral": Architecture(
        "mixtral",
        lambda h: dict(
            hidden_size=h,
            intermediate_size=h // 2,
            num_hidden_layers=2,
            num_local_experts=4,
            num_experts_per_tok=2,
            sliding_window=None,
            **rope(1e6),
            **attention(),
        ),
        "Llama with 2 of 4 experts",
        hidden=64,
    ),
    "olmoe": Architecture(
        "olmoe",
        lambda h: dict(
            hidden_size=h,
            intermediate_size=h // 2,
            num_hidden_layers=2,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=False,
            **rope(1e4),
            **attention(kv_heads=4),
        ),
        "2 of 4 experts, weights of all; norms over all heads of queries and keys",
        hidden=64,
    ),
}
