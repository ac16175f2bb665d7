"""Models that turn texts into embeddings, and those that rank a document by a query."""

from .common import Architecture, Config, attention, widths


def bert(h: int, layers: int, positions: int = 512, types: int = 2) -> Config:
    return dict(
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=positions,
        type_vocab_size=types,
        **widths(h),
    )


def score_of_one(saved: Config) -> Config:
    """The converter looks labels up by numbers, which a saved configuration has as texts."""
    return dict(id2label={0: "LABEL_0"})


def bert_classifier(name: str) -> str:
    """The converter leaves BERT's pooler out, which is what RoBERTa's classifiers begin with."""
    name = name.replace("bert.pooler.dense", "classifier.dense")
    return name if "dense" in name else name.replace("classifier.", "classifier.out_proj.")


def nomic_bert_for_converter(saved: Config) -> Config:
    """Nomic's own code has other names for all of these."""
    return dict(
        architectures=["NomicBertModel"],
        n_positions=8192,
        max_trained_positions=2048,
        activation_function="swiglu",
        causal=False,
        qkv_proj_bias=False,
        mlp_fc1_bias=False,
        mlp_fc2_bias=False,
        prenorm=False,
        rotary_emb_fraction=1.0,
        rotary_emb_interleaved=False,
        rotary_emb_scale_base=None,
        rotary_emb_base=10000.0,
        n_embd=saved["hidden_size"],
        n_inner=saved["intermediate_size"],
        n_head=saved["num_attention_heads"],
        n_layer=saved["num_hidden_layers"],
        layer_norm_epsilon=saved.get("layer_norm_eps", 1e-12),
    )


ENCODERS = {
    "bert": Architecture(
        "bert",
        lambda h: bert(h, 3),
        "learned positions, norms after each branch, the first token pooled",
        pooling="cls",
        auto_class="AutoModel",
        hidden=64,
    ),
    "bert_mean": Architecture(
        "bert",
        lambda h: bert(h, 2),
        "the same, all tokens pooled",
        pooling="mean",
        auto_class="AutoModel",
        hidden=64,
    ),
    "bert_rank": Architecture(
        "bert",
        lambda h: dict(num_labels=1, **bert(h, 2)),
        "a cross-encoder: a score of the first token, by BERT's pooler and a matrix",
        score_of_one,
        pooling="rank",
        auto_class="AutoModelForSequenceClassification",
        hidden=64,
        rename=bert_classifier,
    ),
    "gemma_embedding": Architecture(
        "gemma3_text",
        lambda h: dict(
            num_hidden_layers=7,
            num_attention_heads=4,
            num_key_value_heads=1,
            head_dim=h // 4,
            query_pre_attn_scalar=h // 4,
            sliding_window=32,
            max_position_embeddings=2048,
            use_bidirectional_attention=True,
            tie_word_embeddings=True,
            **widths(h),
        ),
        "Gemma 3 that sees both ways, with windows to both sides",
        pooling="mean",
        auto_class="AutoModel",
        hidden=64,
    ),
    "modernbert": Architecture(
        "modernbert",
        lambda h: dict(
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=2048,
            local_attention=32,
            global_attn_every_n_layers=3,
            **widths(h),
        ),
        "RoPE, windows to both sides in two blocks of three, gated GELU",
        lambda saved: dict(layer_norm_eps=saved["norm_eps"]),
        pooling="mean",
        auto_class="AutoModel",
        hidden=64,
    ),
    "nomic_bert": Architecture(
        "nomic_bert",
        lambda h: bert(h, 2, positions=2048),
        "BERT with RoPE and SwiGLU",
        nomic_bert_for_converter,
        pooling="mean",
        auto_class="AutoModel",
        hidden=64,
    ),
    "qwen3_embedding": Architecture(
        "qwen3",
        lambda h: dict(
            num_hidden_layers=2, head_dim=h // 4, tie_word_embeddings=True, **widths(h), **attention()
        ),
        "a causal model whose last token is pooled",
        pooling="last",
        auto_class="AutoModel",
        hidden=64,
    ),
    "qwen3_rank": Architecture(
        "qwen3",
        lambda h: dict(
            num_hidden_layers=2, head_dim=h // 4, tie_word_embeddings=True, **widths(h), **attention()
        ),
        "a language model that answers yes or no",
        lambda saved: dict(_name_or_path="qwen3-reranker"),
        pooling="yes",
        hidden=64,
    ),
    "xlm_roberta": Architecture(
        "xlm-roberta",
        lambda h: dict(pad_token_id=1, **bert(h, 2, positions=514, types=1)),
        "BERT whose positions begin after the padding's",
        pooling="cls",
        auto_class="AutoModel",
        hidden=64,
    ),
    "xlm_roberta_rank": Architecture(
        "xlm-roberta",
        lambda h: dict(num_labels=1, pad_token_id=1, **bert(h, 2, positions=514, types=1)),
        "a cross-encoder as bge-reranker is one",
        score_of_one,
        pooling="rank",
        auto_class="AutoModelForSequenceClassification",
        hidden=64,
    ),
}
