"""The architectures that make_oracle.py builds, one entry each.

A new architecture is one new entry of ARCHITECTURES:

    "name": Architecture("model_type", lambda h: dict(...), "what this one exercises"),

`model_type` names the configuration class in `transformers` (`AutoConfig.for_model`). The function takes the
hidden size and returns that class's arguments. Derive every other size from the hidden size, so that
`--hidden` scales the whole model. Choose a shape that takes every path of the architecture within 96 tokens:
more than one block of each kind, fewer KV heads than heads, a window shorter than the prompt, multipliers
other than one. make_oracle.py sets what all models share: the vocabulary, float32, untied embeddings.

The GGUF converter sometimes reads other names than the installed `transformers` writes. `for_converter` then
takes the saved configuration and returns what to change in it; a value of None removes the key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

# The context length that the models claim, in tokens: longer than any prompt.
CONTEXT = 4096


@dataclass(frozen=True)
class Architecture:
    """How to build a random model of one architecture."""

    model_type: str
    """The configuration class, by the name that `transformers` registers it under."""
    config: Callable[[int], Config]
    """From the hidden size to the configuration's arguments."""
    note: str
    """What this model exercises, in a few words for `--list`."""
    for_converter: Callable[[Config], Config] = lambda saved: {}
    """From the saved configuration to what the converter needs changed in it."""


def attention(heads: int = 4, kv_heads: int = 2) -> Config:
    return dict(num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=CONTEXT)


def widths(h: int) -> Config:
    return dict(hidden_size=h, intermediate_size=2 * h)


def rope(theta: float, kind: str = "default", **scaling: Any) -> Config:
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **scaling))


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


def granite(attention_multiplier: float = 0.1) -> Config:
    return dict(
        embedding_multiplier=3.0,
        logits_scaling=2.0,
        residual_multiplier=0.5,
        attention_multiplier=attention_multiplier,
        tie_word_embeddings=True,
        **attention(),
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


def experts(h: int) -> Config:
    """Qwen's mixtures: four experts as wide as the hidden size, two of them used."""
    return dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=h, num_hidden_layers=2)


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
        layers_block_type=None,
        mamba_d_head=saved["mamba_head_dim"],
        **dict.fromkeys([*unused, "n_group", "topk_group"]),
    )


ARCHITECTURES = {
    "llama": Architecture(
        "llama",
        lambda h: dict(num_hidden_layers=3, **rope(1e5), rms_norm_eps=1e-5, **widths(h), **attention()),
        "grouped-query attention, RoPE, SwiGLU",
    ),
    "llama_tied": Architecture(
        "llama",
        lambda h: dict(
            hidden_size=3 * h // 4,
            intermediate_size=2 * h,
            num_hidden_layers=2,
            tie_word_embeddings=True,
            **rope(1e5),
            **attention(heads=3, kv_heads=1),
        ),
        "tied embeddings, three heads: no size is a power of two",
    ),
    "llama_linear": Architecture(
        "llama",
        lambda h: dict(
            num_hidden_layers=2,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            **rope(1e4, "linear", factor=4.0),
            **widths(h),
            **attention(heads=2, kv_heads=1),
        ),
        "RoPE scaled linearly by 4",
    ),
    "llama_llama3": Architecture(
        "llama",
        lambda h: dict(
            num_hidden_layers=2,
            rms_norm_eps=1e-5,
            tie_word_embeddings=True,
            **rope(
                1e4,
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=32,
            ),
            **widths(h),
            **attention(heads=2, kv_heads=1),
        ),
        "Llama 3's RoPE scaling by 8 over 32 trained tokens",
    ),
    "mistral": Architecture(
        "mistral",
        lambda h: dict(num_hidden_layers=2, sliding_window=None, **rope(1e4), **widths(h), **attention()),
        "Mistral, without a window",
    ),
    "qwen2": Architecture(
        "qwen2",
        lambda h: dict(num_hidden_layers=2, **rope(1e6), **widths(h), **attention()),
        "biases on queries, keys and values",
    ),
    "qwen2_moe": Architecture(
        "qwen2_moe",
        lambda h: dict(
            shared_expert_intermediate_size=2 * h, **rope(1e4), **experts(h), **widths(h), **attention()
        ),
        "2 of 4 experts and a gated shared one",
    ),
    "qwen3": Architecture(
        "qwen3",
        lambda h: dict(num_hidden_layers=2, head_dim=h // 4, **rope(1e4), **widths(h), **attention()),
        "norms on queries and keys",
    ),
    "qwen3_moe": Architecture(
        "qwen3_moe",
        lambda h: dict(
            head_dim=h // 4, norm_topk_prob=True, **rope(1e4), **experts(h), **widths(h), **attention()
        ),
        "2 of 4 experts, weights normalised over those used",
    ),
    "qwen3_yarn": Architecture(
        "qwen3",
        lambda h: {
            **widths(h),
            **attention(heads=2, kv_heads=1),
            "num_hidden_layers": 2,
            "head_dim": h // 2,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "max_position_embeddings": 128,
            **rope(1e4, "yarn", factor=4.0, original_max_position_embeddings=32),
        },
        "YaRN by 4 over 32 trained tokens",
    ),
    "gemma2": Architecture(
        "gemma2",
        lambda h: dict(
            num_hidden_layers=4,
            head_dim=h // 4,
            query_pre_attn_scalar=h // 4,
            sliding_window=32,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=8.0,
            tie_word_embeddings=True,
            **rope(1e4),
            **widths(h),
            **attention(),
        ),
        "windows of 32 in every other block, capped scores and logits",
    ),
    "gemma3": Architecture(
        "gemma3_text",
        lambda h: dict(
            num_hidden_layers=7,
            head_dim=h // 4,
            query_pre_attn_scalar=h // 4,
            sliding_window=32,
            tie_word_embeddings=True,
            **widths(h),
            **attention(kv_heads=1),
        ),
        "windows of 32 in five blocks of six, with a RoPE base of their own",
    ),
    "phi3": Architecture(
        "phi3",
        lambda h: dict(
            num_hidden_layers=2,
            sliding_window=40,
            original_max_position_embeddings=CONTEXT,
            **rope(1e4),
            **widths(h),
            **attention(),
        ),
        "fused QKV and gate-up matrices, a window of 40",
    ),
    "olmo2": Architecture(
        "olmo2",
        lambda h: dict(num_hidden_layers=2, **rope(1e4), **widths(h), **attention()),
        "norms after attention and MLP, norms over all heads of queries and keys",
    ),
    "smollm3": Architecture(
        "smollm3",
        lambda h: dict(
            num_hidden_layers=4,
            no_rope_layer_interval=4,
            use_sliding_window=False,
            **rope(2e6),
            **widths(h),
            **attention(),
        ),
        "every fourth block without RoPE",
    ),
    "granite": Architecture(
        "granite",
        lambda h: dict(num_hidden_layers=2, **rope(1e4), **granite(), **widths(h)),
        "multipliers on embeddings, residuals, scores and logits",
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
}
