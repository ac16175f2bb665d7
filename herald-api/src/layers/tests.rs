use super::*;

/// A layer of each kind, with every part that it can have.
fn layers(size: usize) -> Vec<LayerDesc> {
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        original_context: 4096,
        ext_factor: 1.0,
        attn_factor: 0.5,
        beta_fast: 32.0,
        beta_slow: 1.0,
        whole_pairs: false,
    };
    let (n_heads, state, n_groups) = (size * 2, size + 3, size);
    let attention = |mask| {
        LayerParams::Attention(Attention {
            n_heads,
            n_kv_heads: size,
            key_dim: size * 5,
            value_dim: size * 7,
            window: Some(9),
            mask,
            rope: RopeKind::Halves,
            rope_dims: size * 4,
            rope_base: 1e6,
            rope_scaling: yarn,
            softcap: Some(50.0),
            scale: 0.25,
            shares_kv: false,
            latent: None,
        })
    };
    let all = [
        LayerParams::Embedding(Embedding { vocabulary: size, scale: 3.0, positions: Some(size * 2) }),
        attention(Mask::Causal),
        attention(Mask::Chunked),
        attention(Mask::Bidirectional),
        LayerParams::Mlp(Mlp { width: size * 3, activation: Activation::GeluTanh, gated: true }),
        LayerParams::Head(Head { vocabulary: size, scale: 2.0, softcap: None }),
        LayerParams::Mamba1(Mamba1 { inner: size * 2, state, taps: 4, dt_rank: size, plain_norms: true }),
        LayerParams::Mamba2(Mamba2 { inner: size * 4, state, taps: 4, n_heads, n_groups }),
        LayerParams::ShortConv(ShortConv { taps: 3 }),
        LayerParams::Moe(Moe {
            n_experts: size,
            n_used: 2,
            width: size * 3,
            shared_width: Some(size * 2),
            activation: Activation::SquaredRelu,
            gated: true,
            routing: Routing::SigmoidGroups,
            groups: Some([5, 2]),
            normalize: true,
            weight_scale: 2.5,
        }),
        LayerParams::DeltaNet(DeltaNet {
            n_key_heads: 2,
            n_value_heads: 4,
            key_dim: size,
            value_dim: size * 2,
            taps: 4,
            heads: DeltaHeads::Tiled,
            decay: DeltaDecay::Channel,
            gate: DeltaGate::Sigmoid,
            decay_rank: Some(size),
            gate_rank: None,
        }),
        LayerParams::PerLayerEmbedding(PerLayerEmbedding {
            vocabulary: size,
            width: size * 2,
            table_width: size * 9,
            first: size * 3,
            activation: Activation::GeluTanh,
            embedding_scale: 4.0,
            table_scale: 2.0,
            projection_scale: 0.5,
        }),
    ];
    all.into_iter().map(|params| desc(size * 11, params)).collect()
}

fn desc(hidden: usize, params: LayerParams) -> LayerDesc {
    let activations = ActivationPrecision::Int8;
    LayerDesc { block: 3, hidden, residual_scale: 0.5, norm_eps: 1e-6, activations, params }
}

#[test]
fn every_kind_comes_back_from_c() {
    let layers = layers(10);
    let kinds: Vec<_> = layers.iter().map(LayerDesc::kind).collect();
    assert_eq!(kinds, LayerKind::ALL);
    for desc in layers {
        // SAFETY: the description and what it points to live for the call.
        let back = desc.with_raw(|raw| unsafe { LayerDesc::from_raw(raw) });
        assert_eq!(back.expect("a sound description"), desc);
    }
}

/// Layers whose weights are others than those of [`layers`]: latent attention, attention over another layer's pages, and an MLP
/// with numbers of its own.
fn particular_layers(size: usize) -> Vec<LayerDesc> {
    let layers = layers(size);
    let LayerParams::Attention(attention) = &layers[1].params else { panic!("attention") };
    let latent = LatentAttention { key_dim: size, value_dim: size * 3, query_rank: Some(size * 2) };
    let params = [
        LayerParams::Attention(Attention { latent: Some(latent), n_kv_heads: 1, ..attention.clone() }),
        LayerParams::Attention(Attention { shares_kv: true, ..attention.clone() }),
        LayerParams::Attention(Attention { value_dim: attention.key_dim, ..attention.clone() }),
        LayerParams::Mlp(Mlp { width: 30, activation: Activation::Xielu, gated: false }),
        LayerParams::DeltaNet(DeltaNet {
            n_key_heads: 2,
            n_value_heads: 4,
            key_dim: size,
            value_dim: size,
            taps: 4,
            heads: DeltaHeads::Grouped,
            decay: DeltaDecay::Head,
            gate: DeltaGate::Silu,
            decay_rank: None,
            gate_rank: Some(size),
        }),
    ];
    params.into_iter().map(|params| LayerDesc { params, ..layers[0].clone() }).collect()
}

#[test]
fn particular_layers_come_back_from_c() {
    for desc in particular_layers(10) {
        // SAFETY: the description and what it points to live for the call.
        let back = desc.with_raw(|raw| unsafe { LayerDesc::from_raw(raw) });
        assert_eq!(back.expect("a sound description"), desc);
    }
}

#[test]
fn every_role_is_some_kinds() {
    let layers = [layers(10), particular_layers(10)].concat();
    for role in WeightRole::ALL {
        let is_some = |desc: &LayerDesc| desc.weight_shape(role).is_some();
        assert!(layers.iter().any(is_some), "{role:?}");
    }
}

#[test]
fn sizes_that_nobody_can_mean_do_not_overflow() {
    for size in [0, u32::MAX as usize / 11] {
        for desc in layers(size).into_iter().chain(particular_layers(size.max(1))) {
            for role in WeightRole::ALL {
                let fits = desc.weight_shape(role).is_some_and(|shape| shape.fits(usize::MAX - 1, 1));
                assert!(!fits, "{role:?} of {desc:?}");
            }
        }
    }
}

#[test]
fn shapes_have_alternatives_and_say_what_may_be_left_out() {
    let layers = layers(10);
    let shape = |kind: LayerKind, role| {
        let desc = layers.iter().find(|desc| desc.kind() == kind).expect("the kind");
        desc.weight_shape(role).expect("the role")
    };
    let norm = shape(LayerKind::Attention, WeightRole::QueryNorm);
    assert!(norm.fits(1, 50) && norm.fits(1, 1000) && !norm.fits(20, 50), "{norm}");
    assert_eq!((norm.need, norm.to_string()), (Need::Optional, "50 elements or 1000 elements".to_owned()));
    let decay = shape(LayerKind::Mamba2, WeightRole::SsmA);
    assert!(decay.fits(1, 20) && decay.fits(20, 1) && !decay.fits(2, 10), "{decay}");
    assert_eq!((decay.need, decay.to_string()), (Need::Required, "20 elements or 20 rows of 1".to_owned()));
    let entry = shape(LayerKind::Mlp, WeightRole::Norm);
    assert_eq!(
        (entry.need, entry.to_string()),
        (Need::Unless(&WeightRole::IN_PLACE_OF_NORM), "110 elements".to_owned())
    );
    let down = shape(LayerKind::Mlp, WeightRole::Down);
    assert_eq!((down.need, down.to_string()), (Need::Required, "110 rows of 30".to_owned()));
    let plain = LayerParams::Mlp(Mlp { width: 30, activation: Activation::Silu, gated: false });
    assert_eq!(plain.weight(110, WeightRole::Gate), None);
}
