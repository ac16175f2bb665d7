//! Which layers are checked: of each kind, every element type at a shape that all of them can have, and every shape that is
//! in some way particular.

use herald_api::{
    Activation, Attention, DType, DeltaDecay, DeltaGate, DeltaHeads, DeltaNet, Embedding, Head,
    LatentAttention, LayerKind, LayerParams, Mamba1, Mamba2, Mask, Mlp, Moe, PerLayerEmbedding, RopeKind,
    RopeScaling, Routing, ShortConv, WeightRole,
};

use super::plan::Plan;

/// The layers of a kind to check.
pub(super) fn plans(kind: LayerKind) -> Vec<Plan> {
    let of_types = |plan: &dyn Fn() -> Plan| DType::ALL.map(|dtype| plan().of(dtype)).to_vec();
    match kind {
        LayerKind::Embedding => [of_types(&|| embedding("", 256, 100, 1.0)), embeddings()].concat(),
        LayerKind::Head => [of_types(&|| head("", 256, 100, 1.0, None)), heads()].concat(),
        LayerKind::Mlp => [of_types(&|| gated("", 256, 512)), mlps()].concat(),
        LayerKind::Attention => [of_types(&typed_attention), attentions()].concat(),
        LayerKind::ChunkedAttention => chunked(),
        LayerKind::BidirectionalAttention => bidirectional(),
        LayerKind::Moe => [of_types(&|| experts("", 256, MOE)), mixtures()].concat(),
        LayerKind::Mamba1 => [of_types(&|| mamba1("", 256, MAMBA1)), mamba1s()].concat(),
        LayerKind::Mamba2 => [of_types(&|| mamba2("", 256, MAMBA2)), mamba2s()].concat(),
        LayerKind::PerLayerEmbedding => {
            [of_types(&|| per_layer_embedding("", 256, PER_LAYER)), per_layer_embeddings()].concat()
        }
        LayerKind::DeltaNet => [of_types(&|| delta_net("", 256, DELTA_NET)), delta_nets()].concat(),
        LayerKind::ShortConv => [of_types(&|| short_conv("", 256, 3)), short_convs()].concat(),
        _ => Vec::new(),
    }
}

/// A small layer of a kind, for checks of anything but its arithmetic.
pub(super) fn small(kind: LayerKind) -> Vec<Plan> {
    // Shapes and weights that any plugin of this kind can be expected to take; of several, the first that it does.
    let small = |plan: Plan| plan.lens(&[5, 3]);
    match kind {
        LayerKind::Embedding => vec![small(embedding("", 64, 40, 1.0)), small(embedding("", 256, 40, 1.0))],
        LayerKind::Head => vec![small(head("", 64, 40, 1.0, None)), small(head("", 256, 40, 1.0, None))],
        LayerKind::Mlp => {
            vec![small(gated("", 64, 96)), small(gated("", 256, 256)), small(plain_mlp("", 64, 96))]
        }
        LayerKind::Attention => {
            vec![small(attention("", 64, base_attention(4, 2, 16))), small(typed_attention())]
        }
        LayerKind::ChunkedAttention | LayerKind::BidirectionalAttention => {
            plans(kind).into_iter().map(small).collect()
        }
        LayerKind::Moe => {
            vec![small(experts("", 64, Moe { width: 64, ..MOE })), small(experts("", 256, MOE))]
        }
        LayerKind::Mamba1 => {
            vec![small(mamba1("", 64, Mamba1 { inner: 128, ..MAMBA1 })), small(mamba1("", 256, MAMBA1))]
        }
        LayerKind::Mamba2 => vec![small(mamba2("", 256, MAMBA2))],
        LayerKind::PerLayerEmbedding => vec![
            small(per_layer_embedding(
                "",
                64,
                PerLayerEmbedding { width: 32, table_width: 96, first: 32, ..PER_LAYER },
            )),
            small(per_layer_embedding("", 256, PER_LAYER)),
        ],
        LayerKind::DeltaNet => vec![small(delta_net("", 256, DELTA_NET))],
        LayerKind::ShortConv => vec![small(short_conv("", 64, 3)), small(short_conv("", 256, 3))],
        _ => Vec::new(),
    }
}

fn embedding(name: &str, hidden: usize, vocabulary: usize, scale: f32) -> Plan {
    Plan::new(name, hidden, LayerParams::Embedding(Embedding { vocabulary, scale, positions: None }))
}

fn embeddings() -> Vec<Plan> {
    let of_positions = Embedding { vocabulary: 50, scale: 1.0, positions: Some(64) };
    vec![
        embedding("of one token", 32, 1, 1.0),
        embedding("scale 16", 64, 50, 16.0),
        embedding("odd", 33, 7, 0.25),
        embedding("300 tokens at once", 32, 1000, 1.0).lens(&[300]),
        embedding("layer norm", 64, 50, 1.0).with(&[WeightRole::LayerNorm]),
        Plan::new("positions, a token type and a layer norm", 64, LayerParams::Embedding(of_positions)).with(
            &[
                WeightRole::PositionEmbedding,
                WeightRole::TypeEmbedding,
                WeightRole::LayerNorm,
                WeightRole::LayerNormBias,
            ],
        ),
    ]
}

fn head(name: &str, hidden: usize, vocabulary: usize, scale: f32, softcap: Option<f32>) -> Plan {
    Plan::new(name, hidden, LayerParams::Head(Head { vocabulary, scale, softcap }))
}

fn heads() -> Vec<Plan> {
    vec![
        head("vocabulary of 1", 32, 1, 1.0, None),
        head("vocabulary of 3001", 64, 3001, 1.0, None),
        head("softcap 0.5", 64, 50, 1.0, Some(0.5)),
        head("softcap 30, scale 16", 64, 50, 16.0, Some(30.0)),
        head("scale 0.25", 64, 50, 0.25, None),
        head("odd", 33, 7, 1.0, None),
        head("norm of F16", 64, 50, 1.0, None).vectors(DType::F16),
        head("70 tokens at once", 64, 50, 1.0, None).lens(&[70]),
        head("layer norm and biases", 64, 50, 1.0, None).without(&[WeightRole::Norm]).with(&[
            WeightRole::LayerNorm,
            WeightRole::LayerNormBias,
            WeightRole::OutputBias,
        ]),
        head("the norm alone", 64, 64, 1.0, None).without(&[WeightRole::Embedding]),
        head("a scale in place of a norm", 64, 50, 1.0, None)
            .without(&[WeightRole::Norm])
            .with(&[WeightRole::InputScale]),
    ]
}

fn gated(name: &str, hidden: usize, width: usize) -> Plan {
    Plan::new(name, hidden, mlp_of(width, Activation::Silu, true))
}

fn plain_mlp(name: &str, hidden: usize, width: usize) -> Plan {
    Plan::new(name, hidden, mlp_of(width, Activation::GeluTanh, false))
}

fn mlp_of(width: usize, activation: Activation, gated: bool) -> LayerParams {
    LayerParams::Mlp(Mlp { width, activation, gated })
}

fn mlps() -> Vec<Plan> {
    let mut plans = vec![
        gated("width 1", 32, 1),
        gated("odd, width 70", 33, 70),
        gated("norm after", 64, 96).with(&[WeightRole::PostNorm]),
        gated("norm after, none before", 64, 96).with(&[WeightRole::PostNorm]).without(&[WeightRole::Norm]),
        gated("output scaled", 64, 96).with(&[WeightRole::PostNorm, WeightRole::OutputScale]),
        gated("scale -1.5", 64, 96).residual_scale(-1.5),
        gated("layer norm and biases", 64, 96).without(&[WeightRole::Norm]).with(&[
            WeightRole::LayerNorm,
            WeightRole::LayerNormBias,
            WeightRole::GateBias,
            WeightRole::UpBias,
            WeightRole::DownBias,
        ]),
        plain_mlp("layer norm of the sum", 64, 96).without(&[WeightRole::Norm]).with(&[
            WeightRole::ResidualNorm,
            WeightRole::ResidualNormBias,
            WeightRole::UpBias,
        ]),
        gated("a scale in place of a norm", 64, 96)
            .without(&[WeightRole::Norm])
            .with(&[WeightRole::InputScale]),
        Plan::new("xIELU", 64, mlp_of(96, Activation::Xielu, false)),
        gated("norms of BF16", 64, 96).vectors(DType::Bf16),
        gated("70 tokens at once", 64, 96).lens(&[70]),
    ];
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::SquaredRelu, Activation::Gelu] {
        for gate in [true, false] {
            let name = format!("{activation:?}, {}", if gate { "gated" } else { "not gated" });
            plans.push(Plan::new(&name, 64, mlp_of(96, activation, gate)));
        }
    }
    plans
}

fn base_attention(n_heads: usize, n_kv_heads: usize, dim: usize) -> Attention {
    Attention {
        n_heads,
        n_kv_heads,
        key_dim: dim,
        value_dim: dim,
        window: None,
        mask: Mask::Causal,
        rope: RopeKind::Halves,
        rope_dims: dim,
        rope_base: 10_000.0,
        rope_scaling: RopeScaling::None,
        softcap: None,
        latent: None,
        shares_kv: false,
        scale: 1.0 / (dim as f32).sqrt(),
    }
}

fn attention(name: &str, hidden: usize, params: Attention) -> Plan {
    Plan::new(name, hidden, LayerParams::Attention(params)).lens(&[13, 1, 7])
}

/// 4 heads over latents of 24, with 8 more elements that carry the position.
fn latent(query_rank: Option<usize>) -> Attention {
    Attention {
        value_dim: 24,
        rope_dims: 8,
        latent: Some(LatentAttention { key_dim: 16, value_dim: 12, query_rank }),
        ..base_attention(4, 1, 32)
    }
}

fn typed_attention() -> Plan {
    attention("4 heads of 64 over 2", 256, base_attention(4, 2, 64))
}

fn attentions() -> Vec<Plan> {
    use WeightRole::{
        AttentionOutputBias, AttentionSinks, KeyBias, KeyNorm, LayerNorm, LayerNormBias, Norm, PostNorm,
        Query, QueryAndGate, QueryBias, QueryNorm, ResidualNorm, ResidualNormBias, RopeFactors,
        RotatedKeyNorm, RotatedQueryNorm, Temperature, ValueBias, ValueNorm,
    };
    let base = base_attention;
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_context: 256,
        ext_factor: 1.0,
        attn_factor: 1.1,
        beta_fast: 32.0,
        beta_slow: 1.0,
        whole_pairs: true,
    };
    vec![
        attention("2 heads of 16, no RoPE", 32, Attention { rope: RopeKind::None, ..base(2, 2, 16) }),
        attention(
            "6 heads of 16 over 2, neighbours, 8 of 16 rotated",
            64,
            Attention { rope: RopeKind::Neighbours, rope_dims: 8, ..base(6, 2, 16) },
        ),
        attention(
            "4 heads over 1, keys of 32, values of 16, positions over 3",
            64,
            Attention { value_dim: 16, rope_scaling: RopeScaling::Linear { factor: 3.0 }, ..base(4, 1, 32) },
        ),
        attention("window 5", 64, Attention { window: Some(5), ..base(4, 2, 16) }).lens(&[37, 3]),
        attention("window 1", 64, Attention { window: Some(1), ..base(4, 2, 16) }),
        attention("softcap 2", 64, Attention { softcap: Some(2.0), scale: 0.7, ..base(4, 2, 16) }),
        attention("YaRN", 64, Attention { rope_scaling: yarn, ..base(4, 2, 16) }).positions(0, 97),
        attention("norms of query and key heads", 64, base(4, 2, 16)).with(&[QueryNorm, KeyNorm]),
        attention("norms of all query and key heads as one", 64, base(4, 2, 16))
            .with(&[QueryNorm, KeyNorm])
            .other_shapes(),
        attention("biases", 64, base(4, 2, 16)).with(&[QueryBias, KeyBias, ValueBias, AttentionOutputBias]),
        attention("query, key and value biases", 64, base(4, 2, 16)).with(&[QueryBias, KeyBias, ValueBias]),
        attention("norms of value heads", 64, base(4, 2, 16)).with(&[ValueNorm]),
        attention("sinks", 64, base(4, 2, 16)).with(&[AttentionSinks]),
        attention("gated", 64, base(4, 2, 16)).with(&[QueryAndGate]).without(&[Query]),
        attention("latent", 64, latent(None)),
        attention("latent, queries in two steps", 64, latent(Some(24))),
        attention("norm after", 64, base(4, 2, 16)).with(&[PostNorm]).residual_scale(0.22),
        attention("norm after, none before", 64, base(4, 2, 16)).with(&[PostNorm]).without(&[Norm]),
        attention("layer norm", 64, base(4, 2, 16)).without(&[Norm]).with(&[LayerNorm, LayerNormBias]),
        attention("layer norm of the sum", 64, base(4, 2, 16))
            .without(&[Norm])
            .with(&[ResidualNorm, ResidualNormBias]),
        attention("norms of turned heads", 64, base(4, 2, 16)).with(&[RotatedQueryNorm, RotatedKeyNorm]),
        attention("temperature by position", 64, base(4, 2, 16)).with(&[Temperature]).positions(3, 5),
        attention("frequencies' divisors", 64, base(4, 2, 16)).with(&[RopeFactors]).positions(3, 50),
        attention("odd, 3 heads of 6 over 3, values of 5", 33, Attention { value_dim: 5, ..base(3, 3, 6) }),
        attention("4 heads of 128 over 2", 256, base(4, 2, 128)).lens(&[40]).page_tokens(16),
        attention("one head of 256", 64, base(1, 1, 256)).lens(&[9]),
        attention("300 tokens, pages of 64", 64, base(4, 2, 16)).lens(&[300]).page_tokens(64),
        attention("pages of one token", 64, base(4, 2, 16)).page_tokens(1),
        attention("far positions", 64, Attention { rope_base: 1e6, ..base(4, 2, 16) })
            .positions(100_000, 997),
        attention("norms of F16, eps 1e-6", 64, base(4, 2, 16)).vectors(DType::F16).norm_eps(1e-6),
    ]
}

fn chunked() -> Vec<Plan> {
    let of = |name: &str, window| {
        attention(
            name,
            64,
            Attention { mask: Mask::Chunked, window: Some(window), ..base_attention(4, 2, 16) },
        )
    };
    vec![of("chunks of 5", 5), of("chunks of 16", 16).lens(&[40, 3]), of("chunks of one token", 1)]
}

fn bidirectional() -> Vec<Plan> {
    let of = |name: &str, window| {
        attention(name, 64, Attention { mask: Mask::Bidirectional, window, ..base_attention(4, 2, 16) })
    };
    vec![
        of("all tokens", None),
        of("3 tokens on either side", Some(7)).lens(&[40, 3]),
        of("300 tokens, pages of 64", None).lens(&[300]).page_tokens(64),
    ]
}

const MOE: Moe = Moe {
    n_experts: 4,
    n_used: 2,
    width: 256,
    shared_width: None,
    activation: Activation::Silu,
    gated: true,
    routing: Routing::Softmax,
    normalize: true,
    weight_scale: 1.0,
    groups: None,
};

fn experts(name: &str, hidden: usize, params: Moe) -> Plan {
    Plan::new(name, hidden, LayerParams::Moe(params))
}

fn mixtures() -> Vec<Plan> {
    let base = Moe { width: 32, ..MOE };
    let of = |name: &str, params: Moe| experts(name, 64, params);
    vec![
        of("one of 8 used", Moe { n_experts: 8, n_used: 1, ..base.clone() }),
        of("all of 3 used", Moe { n_experts: 3, n_used: 3, ..base.clone() }),
        of("not normalized, scale 2.5", Moe { normalize: false, weight_scale: 2.5, ..base.clone() }),
        of("sigmoid", Moe { routing: Routing::Sigmoid, ..base.clone() }),
        of("sigmoid, bias of the choice", Moe { routing: Routing::Sigmoid, ..base.clone() })
            .with(&[WeightRole::RouterBias]),
        of("clamped SwiGLU, biases", Moe { activation: Activation::ClampedSwiglu, ..base.clone() }).with(&[
            WeightRole::RouterScoreBias,
            WeightRole::ExpertsGateBias,
            WeightRole::ExpertsUpBias,
            WeightRole::ExpertsDownBias,
        ]),
        of(
            "sigmoid, 2 of 4 groups",
            Moe { n_experts: 8, routing: Routing::SigmoidGroups, groups: Some([4, 2]), ..base.clone() },
        ),
        of(
            "softmax, 2 of 3 groups",
            Moe { n_experts: 6, routing: Routing::SoftmaxGroups, groups: Some([3, 2]), ..base.clone() },
        ),
        of(
            "sigmoid of the input",
            Moe { routing: Routing::SigmoidOfInput, normalize: false, ..base.clone() },
        ),
        of("shared expert", Moe { shared_width: Some(48), ..base.clone() }),
        of("shared expert with its own weight", Moe { shared_width: Some(64), ..base.clone() })
            .with(&[WeightRole::SharedRouter]),
        of("an MLP beside, each with norms", Moe { shared_width: Some(48), ..base.clone() })
            .with(&[
                WeightRole::RouterNorm,
                WeightRole::ExpertScales,
                WeightRole::ExpertsGateAndUp,
                WeightRole::ExpertsPostNorm,
                WeightRole::SharedNorm,
                WeightRole::SharedPostNorm,
                WeightRole::PostNorm,
                WeightRole::OutputScale,
            ])
            .without(&[WeightRole::ExpertsGate, WeightRole::ExpertsUp]),
        of("not gated", Moe { gated: false, activation: Activation::SquaredRelu, ..base.clone() }),
        of("GELU", Moe { activation: Activation::GeluTanh, ..base.clone() }).residual_scale(0.5),
        experts("odd, width 9", 33, Moe { width: 9, ..base.clone() }),
        of("70 tokens at once", base).lens(&[70]),
    ]
}

const MAMBA1: Mamba1 = Mamba1 { inner: 256, state: 16, taps: 4, dt_rank: 32, plain_norms: false };

fn mamba1(name: &str, hidden: usize, params: Mamba1) -> Plan {
    Plan::new(name, hidden, LayerParams::Mamba1(params)).with(&[WeightRole::ConvBias, WeightRole::SsmDtBias])
}

fn mamba1s() -> Vec<Plan> {
    let base = Mamba1 { inner: 64, state: 8, dt_rank: 4, ..MAMBA1 };
    let bare = |name: &str, params: Mamba1| Plan::new(name, 32, LayerParams::Mamba1(params));
    vec![
        bare("no biases", base.clone()),
        mamba1("norms without weights", 32, Mamba1 { plain_norms: true, ..base.clone() }),
        mamba1("norms of dt, B and C", 32, base.clone()).with(&[
            WeightRole::SsmDtNorm,
            WeightRole::SsmBNorm,
            WeightRole::SsmCNorm,
        ]),
        mamba1(
            "odd, 9 channels, 3 taps",
            33,
            Mamba1 { inner: 9, state: 5, taps: 3, dt_rank: 1, ..base.clone() },
        ),
        mamba1("one tap", 32, Mamba1 { taps: 1, ..base.clone() }),
        mamba1("tables in one row", 32, base.clone()).other_shapes(),
        mamba1("150 tokens", 32, base).lens(&[150]),
    ]
}

const MAMBA2: Mamba2 = Mamba2 { inner: 256, state: 32, taps: 4, n_heads: 8, n_groups: 1 };

fn mamba2(name: &str, hidden: usize, params: Mamba2) -> Plan {
    Plan::new(name, hidden, LayerParams::Mamba2(params)).with(&[WeightRole::ConvBias, WeightRole::SsmNorm])
}

fn mamba2s() -> Vec<Plan> {
    let base = Mamba2 { inner: 64, state: 16, n_heads: 4, ..MAMBA2 };
    let bare = |name: &str, params: Mamba2| Plan::new(name, 32, LayerParams::Mamba2(params));
    vec![
        bare("no bias, no norm", base.clone()),
        mamba2("2 groups", 32, Mamba2 { n_groups: 2, ..base.clone() }),
        mamba2("odd, 3 heads of 5", 33, Mamba2 { inner: 15, state: 7, n_heads: 3, taps: 3, ..base.clone() }),
        mamba2("one tap", 32, Mamba2 { taps: 1, ..base.clone() }),
        mamba2("numbers in columns", 32, base.clone()).other_shapes(),
        mamba2("300 tokens", 32, base).lens(&[300]),
    ]
}

const DELTA_NET: DeltaNet = DeltaNet {
    n_key_heads: 4,
    n_value_heads: 8,
    key_dim: 32,
    value_dim: 32,
    taps: 4,
    heads: DeltaHeads::Grouped,
    decay: DeltaDecay::Head,
    gate: DeltaGate::Silu,
    decay_rank: None,
    gate_rank: None,
};

fn delta_net(name: &str, hidden: usize, params: DeltaNet) -> Plan {
    Plan::new(name, hidden, LayerParams::DeltaNet(params))
}

fn delta_nets() -> Vec<Plan> {
    let base = DeltaNet { n_key_heads: 2, n_value_heads: 4, key_dim: 16, value_dim: 16, ..DELTA_NET };
    let of = |name: &str, params: DeltaNet| delta_net(name, 32, params);
    let kimi = DeltaNet {
        n_key_heads: 4,
        decay: DeltaDecay::Channel,
        gate: DeltaGate::Sigmoid,
        decay_rank: Some(8),
        gate_rank: Some(8),
        ..base.clone()
    };
    vec![
        of("4 heads over 2", base.clone()),
        of("4 heads over 2, tiled", DeltaNet { heads: DeltaHeads::Tiled, ..base.clone() }),
        of("betas and decays in one", base.clone())
            .with(&[WeightRole::BetaAndDecay])
            .without(&[WeightRole::Beta, WeightRole::Decay]),
        of("decays by channel, gates in two steps", kimi),
        delta_net(
            "odd, 3 heads of [5, 7], 3 taps",
            33,
            DeltaNet { n_key_heads: 3, n_value_heads: 3, key_dim: 5, value_dim: 7, taps: 3, ..base.clone() },
        ),
        of("one tap", DeltaNet { taps: 1, ..base.clone() }),
        of("numbers in columns", base.clone()).other_shapes(),
        of("300 tokens", base).lens(&[300]),
    ]
}

const PER_LAYER: PerLayerEmbedding = PerLayerEmbedding {
    vocabulary: 40,
    width: 256,
    table_width: 768,
    first: 256,
    activation: Activation::GeluTanh,
    embedding_scale: 16.0,
    table_scale: 4.0,
    projection_scale: 0.0625,
};

fn per_layer_embedding(name: &str, hidden: usize, params: PerLayerEmbedding) -> Plan {
    Plan::new(name, hidden, LayerParams::PerLayerEmbedding(params))
}

fn per_layer_embeddings() -> Vec<Plan> {
    let base = PerLayerEmbedding { width: 32, table_width: 96, first: 32, ..PER_LAYER };
    vec![
        per_layer_embedding("its output scaled", 64, base.clone()).with(&[WeightRole::OutputScale]),
        per_layer_embedding("the first block", 64, PerLayerEmbedding { first: 0, ..base.clone() }),
        per_layer_embedding(
            "odd, 7 of 21",
            33,
            PerLayerEmbedding { width: 7, table_width: 21, first: 14, ..base.clone() },
        ),
        per_layer_embedding("70 tokens", 64, base).lens(&[70]),
    ]
}

fn short_conv(name: &str, hidden: usize, taps: usize) -> Plan {
    Plan::new(name, hidden, LayerParams::ShortConv(ShortConv { taps }))
}

fn short_convs() -> Vec<Plan> {
    vec![
        short_conv("bias", 64, 3).with(&[WeightRole::ConvBias]),
        short_conv("one tap", 64, 1),
        short_conv("odd, 5 taps", 33, 5),
        short_conv("filters in one row", 64, 3).other_shapes(),
        short_conv("70 tokens", 64, 3).lens(&[70]).residual_scale(0.5),
    ]
}
