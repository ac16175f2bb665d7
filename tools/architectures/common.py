"""What the entries of the architectures are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]

# The context length that the models claim, in tokens: longer than any prompt.
CONTEXT = 4096

# Instead of a setting's value: the converter doesn't see the setting.
REMOVED = object()

# The tokens of every model's vocabulary, which make_oracle.py makes up.
VOCABULARY = 512


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
    pooling: str | None = None
    """Of a model that embeds: `cls`, `mean` or `last`. It has no logits. Of one that ranks:
    `rank`, by a classifier of one class, or `yes`, by how probable that answer is. It has a score."""
    hidden: int = 32
    """The hidden size, where `--hidden` doesn't say: the smallest from which all other sizes follow."""
    seed: int = 11
    """The seed, where `--seed` doesn't say. In a mixture of experts, two that a router finds nearly equal
    change places by keys and values in 16 bits: such a model says nothing, and gets another seed."""
    auto_class: str = "AutoModelForCausalLM"
    """The class of `transformers` that makes the model."""
    wrapper: str | None = None
    """Where the language model is a part of another, the key of its configuration there."""
    inputs_first: Callable[[Any], bool] = lambda weight: False
    """Whether a matrix has its inputs before its outputs, against PyTorch's custom."""
    rename: Callable[[str], str] = lambda name: name
    """From a tensor's name in `transformers` to that in published files, where these differ."""
    additions: float = 1.0
    """By how much what a block adds is scaled, which is what its attention's and its MLP's last matrix gives. As drawn,
    each doubles the signal: through dozens of blocks, roundings grow with it, as they don't in a model that was trained."""
    experts_in: str | None = None
    """The block type of the experts' matrices, whose values the expected logits are of."""


def attention(heads: int = 4, kv_heads: int = 2) -> Config:
    return dict(num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=CONTEXT)


def widths(h: int) -> Config:
    return dict(hidden_size=h, intermediate_size=2 * h)


def rope(theta: float, kind: str = "default", **scaling: Any) -> Config:
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=theta, **scaling))


def yarn(theta: float, trained: int, **more: Any) -> Config:
    return rope(
        theta,
        "yarn",
        factor=4.0,
        beta_fast=32.0,
        beta_slow=1.0,
        original_max_position_embeddings=trained,
        **more,
    )


def sections(dims: int) -> list[int]:
    """The parts of a head's turned pairs that go with time, height and width."""
    third = dims // 2 // 3
    return [dims // 2 - 2 * third, third, third]


def kinds(letters: str) -> Config:
    """The kinds of attention, block by block: s slides a window, f sees everything."""
    names = {"s": "sliding_attention", "f": "full_attention"}
    return dict(layer_types=[names[letter] for letter in letters])


def granite(attention_multiplier: float = 0.1) -> Config:
    return dict(
        embedding_multiplier=3.0,
        logits_scaling=2.0,
        residual_multiplier=0.5,
        attention_multiplier=attention_multiplier,
        tie_word_embeddings=True,
        **attention(),
    )


def gemma4(h: int) -> Config:
    """Blocks of windows with heads of their own size, and of everything with larger ones, a quarter of which turns."""
    return dict(
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=h // 4,
        global_head_dim=h // 2,
        sliding_window=32,
        final_logit_softcapping=30.0,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        rope_parameters=dict(
            sliding_attention=dict(rope_type="default", rope_theta=1e4),
            full_attention=dict(rope_type="proportional", partial_rotary_factor=0.25, rope_theta=1e6),
        ),
        **widths(h),
    )


def latent_attention(h: int) -> Config:
    """DeepSeek's multi-head latent attention, and the widths of its experts."""
    return dict(
        num_attention_heads=4,
        num_key_value_heads=4,
        kv_lora_rank=32,
        qk_nope_head_dim=h // 4,
        qk_rope_head_dim=8,
        v_head_dim=h // 4,
        moe_intermediate_size=h // 2,
        num_experts_per_tok=2,
        n_shared_experts=1,
        max_position_embeddings=CONTEXT,
        **widths(h),
    )
