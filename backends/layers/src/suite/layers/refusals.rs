//! What layers refuse: orders and calls that contradict themselves. Each refusal is one sentence that says what was wrong
//! and what was expected, and none is a panic.

use herald_api::import::{BatchBuffers, Forward, LayerSpec, PageUse};
use herald_api::{
    Activation, ActivationPrecision, Attention, DType, DeltaDecay, DeltaGate, DeltaHeads, DeltaNet,
    Embedding, Head, LayerDesc, LayerKind, LayerParams, Mamba1, Mamba2, Mask, Mlp, Moe, Parallel,
    PerLayerEmbedding, Result, RopeKind, RopeScaling, Routing, ShortConv, Status, WeightRole,
};

use super::super::Subject;
use super::super::values::Values;
use super::super::weights::{random_weight, shared};
use super::batches::tier;
use super::order::{Limits, create, order, scratch};

const HIDDEN: usize = 24;
const VOCABULARY: usize = 13;
const LIMITS: Limits = Limits { max_tokens: 8, max_workers: 1, page_tokens: 4 };

fn attention() -> Attention {
    Attention {
        n_heads: 6,
        n_kv_heads: 2,
        key_dim: 10,
        value_dim: 4,
        window: None,
        mask: Mask::Causal,
        rope: RopeKind::Halves,
        rope_dims: 8,
        rope_base: 10_000.0,
        rope_scaling: RopeScaling::None,
        softcap: None,
        latent: None,
        shares_kv: false,
        scale: 1.0,
    }
}

fn delta_net() -> DeltaNet {
    DeltaNet {
        n_key_heads: 2,
        n_value_heads: 4,
        key_dim: 6,
        value_dim: 5,
        taps: 3,
        heads: DeltaHeads::Grouped,
        decay: DeltaDecay::Head,
        gate: DeltaGate::Silu,
        decay_rank: None,
        gate_rank: None,
    }
}

/// Attention of a kind.
fn masked(kind: LayerKind) -> Attention {
    let (mask, window) = match kind {
        LayerKind::ChunkedAttention => (Mask::Chunked, Some(5)),
        LayerKind::BidirectionalAttention => (Mask::Bidirectional, None),
        _ => (Mask::Causal, None),
    };
    Attention { mask, window, ..attention() }
}

fn experts() -> Moe {
    Moe {
        n_experts: 4,
        n_used: 2,
        width: 10,
        shared_width: None,
        activation: Activation::Silu,
        gated: true,
        routing: Routing::Softmax,
        normalize: true,
        weight_scale: 1.0,
        groups: None,
    }
}

/// Parameters of a layer of a kind, and the shapes of its weights.
fn shapes(kind: LayerKind) -> (LayerParams, Vec<(WeightRole, [usize; 2])>) {
    match kind {
        LayerKind::Attention | LayerKind::ChunkedAttention | LayerKind::BidirectionalAttention => (
            LayerParams::Attention(masked(kind)),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::Query, [60, HIDDEN]),
                (WeightRole::Key, [20, HIDDEN]),
                (WeightRole::Value, [8, HIDDEN]),
                (WeightRole::AttentionOutput, [HIDDEN, 24]),
            ],
        ),
        LayerKind::Mlp => (
            LayerParams::Mlp(Mlp { width: 40, activation: Activation::Silu, gated: true }),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::Gate, [40, HIDDEN]),
                (WeightRole::Up, [40, HIDDEN]),
                (WeightRole::Down, [HIDDEN, 40]),
            ],
        ),
        LayerKind::PerLayerEmbedding => (
            LayerParams::PerLayerEmbedding(PerLayerEmbedding {
                vocabulary: VOCABULARY,
                width: 6,
                table_width: 18,
                first: 6,
                activation: Activation::GeluTanh,
                embedding_scale: 4.0,
                table_scale: 2.0,
                projection_scale: 0.5,
            }),
            vec![
                (WeightRole::Embedding, [VOCABULARY, HIDDEN]),
                (WeightRole::PerLayerTable, [VOCABULARY, 18]),
                (WeightRole::PerLayerProjection, [6, HIDDEN]),
                (WeightRole::PerLayerNorm, [1, 6]),
                (WeightRole::Gate, [6, HIDDEN]),
                (WeightRole::Down, [HIDDEN, 6]),
                (WeightRole::PostNorm, [1, HIDDEN]),
            ],
        ),
        LayerKind::Moe => (
            LayerParams::Moe(experts()),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::Router, [4, HIDDEN]),
                (WeightRole::ExpertsGate, [4 * 10, HIDDEN]),
                (WeightRole::ExpertsUp, [4 * 10, HIDDEN]),
                (WeightRole::ExpertsDown, [4 * HIDDEN, 10]),
            ],
        ),
        LayerKind::Embedding => (
            LayerParams::Embedding(Embedding { vocabulary: VOCABULARY, scale: 1.0, positions: None }),
            vec![(WeightRole::Embedding, [VOCABULARY, HIDDEN])],
        ),
        LayerKind::Mamba1 | LayerKind::Mamba2 | LayerKind::ShortConv | LayerKind::DeltaNet => {
            recurrent_shapes(kind)
        }
        _ => (
            LayerParams::Head(Head { vocabulary: VOCABULARY, scale: 1.0, softcap: None }),
            vec![(WeightRole::Norm, [1, HIDDEN]), (WeightRole::Embedding, [VOCABULARY, HIDDEN])],
        ),
    }
}

/// The same of kinds with a recurrent state.
fn recurrent_shapes(kind: LayerKind) -> (LayerParams, Vec<(WeightRole, [usize; 2])>) {
    match kind {
        LayerKind::Mamba1 => (
            LayerParams::Mamba1(Mamba1 { inner: 40, state: 4, taps: 3, dt_rank: 5, plain_norms: false }),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::InProjection, [80, HIDDEN]),
                (WeightRole::Conv, [40, 3]),
                (WeightRole::SsmX, [13, 40]),
                (WeightRole::SsmDt, [40, 5]),
                (WeightRole::SsmA, [40, 4]),
                (WeightRole::SsmD, [1, 40]),
                (WeightRole::OutProjection, [HIDDEN, 40]),
            ],
        ),
        LayerKind::Mamba2 => (
            LayerParams::Mamba2(Mamba2 { inner: 40, state: 3, taps: 3, n_heads: 4, n_groups: 2 }),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::InProjection, [96, HIDDEN]),
                (WeightRole::Conv, [52, 3]),
                (WeightRole::SsmDtBias, [1, 4]),
                (WeightRole::SsmA, [4, 1]),
                (WeightRole::SsmD, [1, 4]),
                (WeightRole::OutProjection, [HIDDEN, 40]),
            ],
        ),
        LayerKind::ShortConv => (
            LayerParams::ShortConv(ShortConv { taps: 3 }),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::InProjection, [3 * HIDDEN, HIDDEN]),
                (WeightRole::Conv, [HIDDEN, 3]),
                (WeightRole::OutProjection, [HIDDEN, HIDDEN]),
            ],
        ),
        _ => (
            LayerParams::DeltaNet(delta_net()),
            vec![
                (WeightRole::Norm, [1, HIDDEN]),
                (WeightRole::Query, [12, HIDDEN]),
                (WeightRole::Key, [12, HIDDEN]),
                (WeightRole::Value, [20, HIDDEN]),
                (WeightRole::QueryConv, [12, 3]),
                (WeightRole::KeyConv, [12, 3]),
                (WeightRole::ValueConv, [20, 3]),
                (WeightRole::OutputGate, [20, HIDDEN]),
                (WeightRole::Beta, [4, HIDDEN]),
                (WeightRole::Decay, [4, HIDDEN]),
                (WeightRole::SsmDtBias, [1, 4]),
                (WeightRole::SsmA, [1, 4]),
                (WeightRole::SsmNorm, [1, 5]),
                (WeightRole::OutProjection, [HIDDEN, 20]),
            ],
        ),
    }
}

/// An order that every plugin which offers the kind takes.
fn good(kind: LayerKind) -> LayerSpec {
    let (params, shapes) = shapes(kind);
    let mut values = Values::new(7);
    let weights: Vec<_> = shapes
        .into_iter()
        .map(|(role, shape)| random_weight(role, DType::F16, shape, 0.5, &mut values).0)
        .collect();
    let desc = LayerDesc {
        block: 3,
        hidden: HIDDEN,
        residual_scale: 1.0,
        norm_eps: 1e-5,
        activations: ActivationPrecision::default(),
        params,
    };
    order(&desc, &weights, LIMITS)
}

/// The order must be refused with one of the statuses, in a sentence with all of these parts.
fn refused(plugin: &Subject<'_>, what: &str, order: LayerSpec, statuses: &[Status], parts: &[&str]) {
    sentence(&format!("{}: {what}", plugin.name()), create(plugin, order).map(drop), statuses, parts);
}

fn sentence(what: &str, result: Result<()>, statuses: &[Status], parts: &[&str]) {
    let Err(error) = result else { panic!("{what} was accepted, where one of {statuses:?} was expected") };
    assert!(
        statuses.contains(&error.status()),
        "{what} was refused with {:?} ({error}), where one of {statuses:?} was expected",
        error.status()
    );
    for part in parts {
        assert!(error.message().contains(part), "{what} was refused without saying {part:?}: {error}");
    }
    let lines = error.message().lines().count();
    assert!(lines == 1, "{what} was refused in {lines} lines, where one sentence was expected: {error}");
}

const INVALID: &[Status] = &[Status::InvalidArgument];
const EITHER: &[Status] = &[Status::InvalidArgument, Status::Unsupported];

pub(super) fn check(plugin: &Subject<'_>, kind: LayerKind) {
    let good = good(kind);
    let made = create(plugin, good.clone());
    assert!(made.is_ok(), "{}: a plain {} layer was refused: {:?}", plugin.name(), kind.name(), made.err());

    for (index, weight) in good.weights.iter().enumerate() {
        let role = format!("{:?}", weight.role);
        let mut order = good.clone();
        order.weights.remove(index);
        refused(plugin, &format!("no {role}"), order, INVALID, &[&role, kind.name()]);

        let mut order = good.clone();
        order.weights.push(weight.clone());
        refused(plugin, &format!("{role} twice"), order, EITHER, &[&weight.name]);

        let [columns, rows] = [weight.dims[0], weight.dims[1]].map(|dim| dim as usize);
        for [rows, columns] in [[rows + 1, columns], [rows, columns + 1], [columns, rows + 2]] {
            let mut order = good.clone();
            let bytes = vec![0; 2 * rows * columns];
            order.weights[index] = shared(weight.role, DType::F16, &[columns, rows], bytes, 0);
            let parts =
                [weight.name.clone(), rows.to_string(), columns.to_string(), weight.dims[0].to_string()];
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            refused(plugin, &format!("{role} of {rows} rows of {columns}"), order, INVALID, &parts);
        }
    }
    let stranger = match kind {
        LayerKind::Mlp | LayerKind::PerLayerEmbedding => WeightRole::QueryNorm,
        _ => WeightRole::Down,
    };
    let mut order = good.clone();
    order.weights.push(shared(stranger, DType::F32, &[HIDDEN], vec![0; 4 * HIDDEN], 0));
    let name = order.weights.last().map_or(String::new(), |weight| weight.name.clone());
    refused(plugin, "a weight that the layer doesn't know", order, &[Status::Unsupported], &[&name]);

    let mut order = good.clone();
    order.desc.hidden = HIDDEN + 1;
    let parts = [HIDDEN.to_string(), (HIDDEN + 1).to_string()];
    refused(plugin, "another hidden size", order, INVALID, &[&parts[0], &parts[1]]);
    for change in [
        (|order: &mut LayerSpec| order.desc.hidden = 0) as fn(&mut LayerSpec),
        |order| order.max_tokens = 0,
        |order| order.max_workers = 0,
        |order| order.page_tokens = 0,
        |order| match &mut order.desc.params {
            LayerParams::Attention(params) => params.value_dim = 0,
            LayerParams::Mlp(params) => params.width = 0,
            LayerParams::Embedding(params) => params.vocabulary = 0,
            LayerParams::Head(params) => params.vocabulary = 0,
            LayerParams::Mamba1(params) => params.state = 0,
            LayerParams::Mamba2(params) => params.state = 0,
            LayerParams::ShortConv(params) => params.taps = 0,
            LayerParams::Moe(params) => params.width = 0,
            LayerParams::DeltaNet(params) => params.value_dim = 0,
            LayerParams::PerLayerEmbedding(params) => params.width = 0,
            _ => order.desc.hidden = 0,
        },
    ] {
        let mut order = good.clone();
        change(&mut order);
        refused(plugin, "a size of 0", order, INVALID, &[]);
    }
    match kind {
        LayerKind::Attention => check_heads(plugin, &good),
        LayerKind::Mamba2 => check_groups(plugin, &good),
        LayerKind::Moe => check_experts(plugin, &good),
        LayerKind::DeltaNet => check_value_heads(plugin, &good),
        _ => {}
    }
    if kind == LayerKind::Embedding {
        check_tokens(plugin, good);
    }
}

fn check_heads(plugin: &Subject<'_>, good: &LayerSpec) {
    type Change = fn(&mut Attention);
    let changes: [(&str, Change, &[&str]); 7] = [
        ("no heads", |params| params.n_heads = 0, &["0", "2"]),
        ("no KV heads", |params| params.n_kv_heads = 0, &["6", "0"]),
        ("heads that KV heads don't divide", |params| params.n_kv_heads = 4, &["6", "4"]),
        ("empty keys", |params| params.key_dim = 0, &["0"]),
        ("odd RoPE", |params| params.rope_dims = 7, &["7", "10"]),
        ("RoPE beyond the key", |params| params.rope_dims = 12, &["12", "10"]),
        (
            "odd RoPE of neighbours",
            |params| (params.rope, params.rope_dims) = (RopeKind::Neighbours, 3),
            &["3"],
        ),
    ];
    for (what, change, parts) in changes {
        let mut order = good.clone();
        let mut params = attention();
        change(&mut params);
        order.desc.params = LayerParams::Attention(params);
        refused(plugin, what, order, INVALID, parts);
    }
}

fn check_groups(plugin: &Subject<'_>, good: &LayerSpec) {
    let [mut heads, mut groups] = [good.clone(), good.clone()];
    if let LayerParams::Mamba2(params) = &mut heads.desc.params {
        params.n_heads = 6;
    }
    refused(plugin, "heads that don't divide the channels", heads, INVALID, &["40", "6"]);
    if let LayerParams::Mamba2(params) = &mut groups.desc.params {
        params.n_groups = 3;
    }
    refused(plugin, "groups that don't divide the heads", groups, INVALID, &["4", "3"]);
}

fn check_value_heads(plugin: &Subject<'_>, good: &LayerSpec) {
    let mut order = good.clone();
    order.desc.params = LayerParams::DeltaNet(DeltaNet { n_key_heads: 3, ..delta_net() });
    refused(plugin, "value heads that key heads don't divide", order, INVALID, &["4", "3"]);
}

fn check_experts(plugin: &Subject<'_>, good: &LayerSpec) {
    for n_used in [0, 5] {
        let mut order = good.clone();
        order.desc.params = LayerParams::Moe(Moe { n_used, ..experts() });
        refused(plugin, "more experts than there are, or none", order, INVALID, &["4", &n_used.to_string()]);
    }
}

fn check_tokens(plugin: &Subject<'_>, good: LayerSpec) {
    let layer = create(plugin, good).unwrap_or_else(|error| panic!("{}: {error}", plugin.name()));
    let mut output = [0.0; 2 * HIDDEN];
    let request = Forward {
        n_tokens: 2,
        tokens: &[3, VOCABULARY as u32],
        positions: &[],
        input: None,
        output: &mut output,
        parallel: Parallel::serial(),
    };
    let result = scratch(&layer).and_then(|mut scratch| layer.forward(request, None, &mut scratch));
    let number = VOCABULARY.to_string();
    sentence(&format!("{}: a token outside the vocabulary", plugin.name()), result, INVALID, &[&number]);
}

/// Calls of attention without what it needs, or with pages of another shape.
pub(super) fn check_attention_calls(plugin: &Subject<'_>) {
    let expect = |what: &str, positions: &[u32], pages: Option<&Attention>, page_tokens: usize| {
        let result = call(plugin, positions, pages, page_tokens);
        sentence(&format!("{}: {what}", plugin.name()), result, EITHER, &[]);
    };
    let right = attention();
    let result = call(plugin, &[0, 1, 2], Some(&right), LIMITS.page_tokens);
    assert!(result.is_ok(), "{}: a plain call was refused: {result:?}", plugin.name());
    expect("no positions", &[], Some(&right), LIMITS.page_tokens);
    expect("no sequences", &[0, 1, 2], None, LIMITS.page_tokens);
    expect("larger pages than were said", &[0, 1, 2], Some(&right), LIMITS.page_tokens + 1);
    expect("longer keys", &[0, 1, 2], Some(&Attention { key_dim: 12, ..right.clone() }), LIMITS.page_tokens);
    expect(
        "shorter values",
        &[0, 1, 2],
        Some(&Attention { value_dim: 3, ..right.clone() }),
        LIMITS.page_tokens,
    );
    expect("other heads", &[0, 1, 2], Some(&Attention { n_kv_heads: 1, ..right }), LIMITS.page_tokens);
}

/// A call of three tokens of one sequence, over a page of this shape.
fn call(
    plugin: &Subject<'_>,
    positions: &[u32],
    pages: Option<&Attention>,
    page_tokens: usize,
) -> Result<()> {
    let layer = create(plugin, good(LayerKind::Attention))?;
    let mut output = [0.5; 3 * HIDDEN];
    let request = Forward {
        n_tokens: 3,
        tokens: &[],
        positions,
        input: None,
        output: &mut output,
        parallel: Parallel::serial(),
    };
    let mut scratch = scratch(&layer)?;
    let Some(params) = pages else { return layer.forward(request, None, &mut scratch) };
    let mut page = tier(plugin, params, page_tokens)?.reserve()?;
    let mut buffers = BatchBuffers::default();
    let mut batch = buffers.begin();
    batch.push(3, 0, None, [(0, PageUse::Own(&mut page))])?;
    layer.forward(request, Some(&mut batch), &mut scratch)
}
