//! What layers use their weights for. A kind of layer may share its roles with others, so all of them stand here: each has
//! its own number.

use c::*;

/// What C sees of them.
// The comments are the C header's: their brackets are shapes, not links.
#[allow(rustdoc::broken_intra_doc_links)]
pub(super) mod c {
    /// The weight of the RMS norm at the layer's entry: [hidden]. Attention and MLP may come without it where they have
    /// HERALD_WEIGHT_POST_NORM (OLMo 2) or HERALD_WEIGHT_RESIDUAL_NORM (BERT): the branch then reads its input as it is. So may
    /// layers that have HERALD_WEIGHT_LAYER_NORM or HERALD_WEIGHT_INPUT_SCALE in its place.
    pub const HERALD_WEIGHT_NORM: u32 = 1;
    /// The weight of a norm over the branch's output, before the residual addition: [hidden].
    pub const HERALD_WEIGHT_POST_NORM: u32 = 2;
    /// Attention, query projection: [n_heads * key_dim, hidden].
    pub const HERALD_WEIGHT_QUERY: u32 = 3;
    /// Attention, key projection: [n_kv_heads * key_dim, hidden].
    pub const HERALD_WEIGHT_KEY: u32 = 4;
    /// Attention, value projection: [n_kv_heads * value_dim, hidden].
    pub const HERALD_WEIGHT_VALUE: u32 = 5;
    /// Attention, output projection: [hidden, n_heads * value_dim].
    pub const HERALD_WEIGHT_ATTENTION_OUTPUT: u32 = 6;
    /// Attention, bias of the query projection: [n_heads * key_dim].
    pub const HERALD_WEIGHT_QUERY_BIAS: u32 = 7;
    /// Attention, bias of the key projection: [n_kv_heads * key_dim].
    pub const HERALD_WEIGHT_KEY_BIAS: u32 = 8;
    /// Attention, bias of the value projection: [n_kv_heads * value_dim].
    pub const HERALD_WEIGHT_VALUE_BIAS: u32 = 9;
    /// Attention, bias of the output projection: [hidden].
    pub const HERALD_WEIGHT_ATTENTION_OUTPUT_BIAS: u32 = 10;
    /// Attention, norm of each query head before RoPE: [key_dim]; or of all heads as one: [n_heads * key_dim].
    pub const HERALD_WEIGHT_QUERY_NORM: u32 = 11;
    /// Attention, norm of each key head before RoPE: [key_dim]; or of all heads as one: [n_kv_heads * key_dim].
    pub const HERALD_WEIGHT_KEY_NORM: u32 = 12;
    /// Attention, divisors of RoPE's frequencies (llama3 scaling): [rope_dims / 2].
    pub const HERALD_WEIGHT_ROPE_FACTORS: u32 = 13;
    /// MLP, gate projection: [width, hidden].
    pub const HERALD_WEIGHT_GATE: u32 = 14;
    /// MLP, up projection: [width, hidden].
    pub const HERALD_WEIGHT_UP: u32 = 15;
    /// MLP, down projection: [hidden, width].
    pub const HERALD_WEIGHT_DOWN: u32 = 16;
    /// The embedding matrix, or the head's output matrix: [vocabulary, hidden]. A head without one gives its norm alone:
    /// vocabulary is then hidden.
    pub const HERALD_WEIGHT_EMBEDDING: u32 = 17;
    /// Input projection of Mamba and of short convolutions. Mamba-1: x and the gate z, [2 * inner, hidden]. Mamba-2: z, x, B,
    /// C and dt, [2 * inner + 2 * n_groups * state + n_heads, hidden]. Short convolution: B, C and x, [3 * hidden, hidden].
    pub const HERALD_WEIGHT_IN_PROJECTION: u32 = 18;
    /// The causal convolution, a filter for each channel, the newest token's tap last: [channels, taps]. Channels are x in
    /// Mamba-1, x, B and C in Mamba-2, [hidden] in a short convolution.
    pub const HERALD_WEIGHT_CONV: u32 = 19;
    /// The convolution's bias: [channels].
    pub const HERALD_WEIGHT_CONV_BIAS: u32 = 20;
    /// Mamba-1, projection to dt, B and C: [dt_rank + 2 * state, inner].
    pub const HERALD_WEIGHT_SSM_X: u32 = 21;
    /// Mamba-1, projection of dt: [inner, dt_rank].
    pub const HERALD_WEIGHT_SSM_DT: u32 = 22;
    /// Bias of dt: [inner] in Mamba-1, [n_heads] in Mamba-2.
    pub const HERALD_WEIGHT_SSM_DT_BIAS: u32 = 23;
    /// The decay A, which is negative: [inner, state] in Mamba-1; a number for each head in Mamba-2, [n_heads] or
    /// [n_heads, 1].
    pub const HERALD_WEIGHT_SSM_A: u32 = 24;
    /// The skip D: [inner] in Mamba-1; a number for each head in Mamba-2, [n_heads] or [n_heads, 1].
    pub const HERALD_WEIGHT_SSM_D: u32 = 25;
    /// Mamba-2, the norm of the gated output, by groups: [inner] or [n_groups, inner / n_groups].
    pub const HERALD_WEIGHT_SSM_NORM: u32 = 26;
    /// Output projection of Mamba, [hidden, inner], and of short convolutions, [hidden, hidden].
    pub const HERALD_WEIGHT_OUT_PROJECTION: u32 = 27;
    /// Mamba-1, norm of dt before its projection (Jamba): [dt_rank].
    pub const HERALD_WEIGHT_SSM_DT_NORM: u32 = 28;
    /// Mamba-1, norm of B (Jamba): [state].
    pub const HERALD_WEIGHT_SSM_B_NORM: u32 = 29;
    /// Mamba-1, norm of C (Jamba): [state].
    pub const HERALD_WEIGHT_SSM_C_NORM: u32 = 30;
    /// Mixture of experts, the router: [n_experts, hidden].
    pub const HERALD_WEIGHT_ROUTER: u32 = 31;
    /// Mixture of experts, added to the scores by which experts are chosen, not to their weights: [n_experts].
    pub const HERALD_WEIGHT_ROUTER_BIAS: u32 = 32;
    /// Mixture of experts, gate projections: [n_experts * width, hidden], expert after expert.
    pub const HERALD_WEIGHT_EXPERTS_GATE: u32 = 33;
    /// Mixture of experts, up projections: [n_experts * width, hidden].
    pub const HERALD_WEIGHT_EXPERTS_UP: u32 = 34;
    /// Mixture of experts, down projections: [n_experts * hidden, width].
    pub const HERALD_WEIGHT_EXPERTS_DOWN: u32 = 35;
    /// Mixture of experts, gate projection of the expert that every token uses: [shared_width, hidden].
    pub const HERALD_WEIGHT_SHARED_GATE: u32 = 36;
    /// Mixture of experts, up projection of the shared expert: [shared_width, hidden].
    pub const HERALD_WEIGHT_SHARED_UP: u32 = 37;
    /// Mixture of experts, down projection of the shared expert: [hidden, shared_width].
    pub const HERALD_WEIGHT_SHARED_DOWN: u32 = 38;
    /// Mixture of experts, what the shared expert is weighted by: sigmoid(w . x), [hidden]. Left out: by 1.
    pub const HERALD_WEIGHT_SHARED_ROUTER: u32 = 39;
    /// Delta net, the convolution of queries, a filter for each channel, the newest token's tap last:
    /// [n_key_heads * key_dim, taps].
    pub const HERALD_WEIGHT_QUERY_CONV: u32 = 40;
    /// Delta net, the convolution of keys: [n_key_heads * key_dim, taps].
    pub const HERALD_WEIGHT_KEY_CONV: u32 = 41;
    /// Delta net, the convolution of values: [n_value_heads * value_dim, taps].
    pub const HERALD_WEIGHT_VALUE_CONV: u32 = 42;
    /// Delta net, the gate of the output: [n_value_heads * value_dim, hidden]; or the first of two matrices: [gate_rank, hidden].
    pub const HERALD_WEIGHT_OUTPUT_GATE: u32 = 43;
    /// Delta net, the second matrix of the gate: [n_value_heads * value_dim, gate_rank].
    pub const HERALD_WEIGHT_OUTPUT_GATE_UP: u32 = 44;
    /// Delta net, how much of its value each token writes: [n_value_heads, hidden].
    pub const HERALD_WEIGHT_BETA: u32 = 45;
    /// Delta net, the decays: [decays, hidden], of n_value_heads or n_value_heads * key_dim decays; or the first of two
    /// matrices: [decay_rank, hidden].
    pub const HERALD_WEIGHT_DECAY: u32 = 46;
    /// Delta net, the second matrix of the decays: [decays, decay_rank].
    pub const HERALD_WEIGHT_DECAY_UP: u32 = 47;
    /// Delta net, HERALD_WEIGHT_BETA and HERALD_WEIGHT_DECAY in one, in place of both: for each key head the betas of the value
    /// heads that use it, then their decays, [2 * n_value_heads, hidden].
    pub const HERALD_WEIGHT_BETA_AND_DECAY: u32 = 48;
    /// Attention, query projection and gate in one, in place of HERALD_WEIGHT_QUERY: for each head the rows of its queries, then
    /// as many of its gate, [2 * n_heads * key_dim, hidden]. What the head attended to is multiplied by sigmoid(gate), so
    /// value_dim is key_dim.
    pub const HERALD_WEIGHT_QUERY_AND_GATE: u32 = 49;
    /// Attention sinks (arXiv 2309.17453): for each head the score of a slot that every query sees and that has no value, after
    /// scale and soft cap: [n_heads].
    pub const HERALD_WEIGHT_ATTENTION_SINKS: u32 = 50;
    /// Mixture of experts, added to the router's scores, before what makes weights of them: [n_experts].
    pub const HERALD_WEIGHT_ROUTER_SCORE_BIAS: u32 = 51;
    /// Mixture of experts, biases of the gate projections: [n_experts, width], expert after expert.
    pub const HERALD_WEIGHT_EXPERTS_GATE_BIAS: u32 = 52;
    /// Mixture of experts, biases of the up projections: [n_experts, width].
    pub const HERALD_WEIGHT_EXPERTS_UP_BIAS: u32 = 53;
    /// Mixture of experts, biases of the down projections: [n_experts, hidden].
    pub const HERALD_WEIGHT_EXPERTS_DOWN_BIAS: u32 = 54;
    /// Latent attention, the first of two query projections: [query_rank, hidden].
    pub const HERALD_WEIGHT_QUERY_DOWN: u32 = 55;
    /// Latent attention, the norm between both query projections: [query_rank]. The second is HERALD_WEIGHT_QUERY.
    pub const HERALD_WEIGHT_QUERY_DOWN_NORM: u32 = 56;
    /// Latent attention, the norm of the latent: [value_dim].
    pub const HERALD_WEIGHT_LATENT_NORM: u32 = 57;
    /// Latent attention, what makes of each head's query the one that meets latents, head after head:
    /// [n_heads * value_dim, latent_key_dim].
    pub const HERALD_WEIGHT_KEY_UP: u32 = 58;
    /// Latent attention, what makes each head's value of a latent, head after head: [n_heads * latent_value_dim, value_dim].
    pub const HERALD_WEIGHT_VALUE_UP: u32 = 59;
    /// Attention, norm of each value head: [value_dim].
    pub const HERALD_WEIGHT_VALUE_NORM: u32 = 80;
    /// MLP, mixture of experts, per-layer embedding: what the output is multiplied by after the branch was added: [1].
    pub const HERALD_WEIGHT_OUTPUT_SCALE: u32 = 81;
    /// Mixture of experts, the norm at the shared expert's entry, in place of HERALD_WEIGHT_NORM: [hidden].
    pub const HERALD_WEIGHT_SHARED_NORM: u32 = 82;
    /// Mixture of experts, norm of what the shared expert gives: [hidden].
    pub const HERALD_WEIGHT_SHARED_POST_NORM: u32 = 83;
    /// Mixture of experts, norm of what the other experts give together: [hidden].
    pub const HERALD_WEIGHT_EXPERTS_POST_NORM: u32 = 84;
    /// Mixture of experts, the norm at the router's entry, in place of HERALD_WEIGHT_NORM; what it gives is divided by
    /// sqrt(hidden): [hidden].
    pub const HERALD_WEIGHT_ROUTER_NORM: u32 = 85;
    /// Mixture of experts, what each expert's weight is multiplied by: [n_experts].
    pub const HERALD_WEIGHT_EXPERT_SCALES: u32 = 86;
    /// Mixture of experts, gate and up projections in one, in place of both: of each expert the rows of its gate, then those
    /// of its up projection, [n_experts * 2 * width, hidden].
    pub const HERALD_WEIGHT_EXPERTS_GATE_AND_UP: u32 = 87;
    /// Per-layer embedding, the table: [vocabulary, table_width].
    pub const HERALD_WEIGHT_PER_LAYER_TABLE: u32 = 88;
    /// Per-layer embedding, projection of the embedding: [width, hidden].
    pub const HERALD_WEIGHT_PER_LAYER_PROJECTION: u32 = 89;
    /// Per-layer embedding, norm of the projected embedding: [width].
    pub const HERALD_WEIGHT_PER_LAYER_NORM: u32 = 90;
    /// In place of HERALD_WEIGHT_NORM: the weight of a layer norm (arXiv 1607.06450), which subtracts the mean and divides by the
    /// root of the variance plus norm_eps, [hidden]. Of attention, MLPs and the head the norm at the entry; of the embedding
    /// one over what it gives.
    pub const HERALD_WEIGHT_LAYER_NORM: u32 = 60;
    /// The bias of HERALD_WEIGHT_LAYER_NORM: [hidden]. Left out: 0.
    pub const HERALD_WEIGHT_LAYER_NORM_BIAS: u32 = 61;
    /// Attention and MLP, the weight of a layer norm over the sum of residual and branch (BERT): output = norm(output +
    /// residual_scale * branch), [hidden]. In place of a norm at the entry.
    pub const HERALD_WEIGHT_RESIDUAL_NORM: u32 = 62;
    /// The bias of HERALD_WEIGHT_RESIDUAL_NORM: [hidden]. Left out: 0.
    pub const HERALD_WEIGHT_RESIDUAL_NORM_BIAS: u32 = 63;
    /// MLP, bias of the gate projection: [width].
    pub const HERALD_WEIGHT_GATE_BIAS: u32 = 64;
    /// MLP, bias of the up projection: [width].
    pub const HERALD_WEIGHT_UP_BIAS: u32 = 65;
    /// MLP, bias of the down projection: [hidden].
    pub const HERALD_WEIGHT_DOWN_BIAS: u32 = 66;
    /// Embedding, a row for each position, which is added to the scaled embedding of the token there: [positions, hidden].
    /// The call then brings positions below that.
    pub const HERALD_WEIGHT_POSITION_EMBEDDING: u32 = 67;
    /// Embedding, added to that of every token (BERT's first token type): [hidden].
    pub const HERALD_WEIGHT_TYPE_EMBEDDING: u32 = 68;
    /// Head, added to the products with the output matrix, before they are scaled: [vocabulary].
    pub const HERALD_WEIGHT_OUTPUT_BIAS: u32 = 69;
    /// Attention, RMS norm of each query head after RoPE (Hunyuan): [key_dim].
    pub const HERALD_WEIGHT_ROTATED_QUERY_NORM: u32 = 70;
    /// Attention, RMS norm of each key head after RoPE: [key_dim].
    pub const HERALD_WEIGHT_ROTATED_KEY_NORM: u32 = 71;
    /// Attention, temperature by position (Llama 4): [3], b, n and o. The query at position p, rotated and normed, is multiplied
    /// by 1 + b ln(1 + floor((p + o) / n)).
    pub const HERALD_WEIGHT_TEMPERATURE: u32 = 72;
    /// MLP with HERALD_ACTIVATION_XIELU, its numbers: [4], p, n, b and e; see there.
    pub const HERALD_WEIGHT_XIELU: u32 = 73;
    /// Attention, MLP and head, in place of a norm at the entry: the elements of the input are multiplied by these, [hidden].
    pub const HERALD_WEIGHT_INPUT_SCALE: u32 = 74;
}

macro_rules! weight_roles {
    ($($(#[$doc:meta])* $role:ident = $code:ident,)*) => {
        /// What a layer uses a weight for. [`LayerDesc::weight_shape`](crate::LayerDesc::weight_shape) says which roles a
        /// layer has, and the shape of each.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum WeightRole {
            $($(#[$doc])* $role = $code,)*
        }

        impl WeightRole {
            /// Every role that this version knows.
            pub const ALL: [Self; [$($code),*].len()] = [$(Self::$role),*];
        }
    };
}

weight_roles! {
    /// Norm at the layer's entry.
    Norm = HERALD_WEIGHT_NORM,
    /// Norm over the branch's output.
    PostNorm = HERALD_WEIGHT_POST_NORM,
    /// Query projection.
    Query = HERALD_WEIGHT_QUERY,
    /// Key projection.
    Key = HERALD_WEIGHT_KEY,
    /// Value projection.
    Value = HERALD_WEIGHT_VALUE,
    /// Attention's output projection.
    AttentionOutput = HERALD_WEIGHT_ATTENTION_OUTPUT,
    /// Bias of the query projection.
    QueryBias = HERALD_WEIGHT_QUERY_BIAS,
    /// Bias of the key projection.
    KeyBias = HERALD_WEIGHT_KEY_BIAS,
    /// Bias of the value projection.
    ValueBias = HERALD_WEIGHT_VALUE_BIAS,
    /// Bias of attention's output projection.
    AttentionOutputBias = HERALD_WEIGHT_ATTENTION_OUTPUT_BIAS,
    /// Norm of each query head before RoPE, or of all heads as one.
    QueryNorm = HERALD_WEIGHT_QUERY_NORM,
    /// Norm of each key head before RoPE, or of all heads as one.
    KeyNorm = HERALD_WEIGHT_KEY_NORM,
    /// Divisors of RoPE's frequencies.
    RopeFactors = HERALD_WEIGHT_ROPE_FACTORS,
    /// MLP's gate projection.
    Gate = HERALD_WEIGHT_GATE,
    /// MLP's up projection.
    Up = HERALD_WEIGHT_UP,
    /// MLP's down projection.
    Down = HERALD_WEIGHT_DOWN,
    /// The embedding matrix, or the head's output matrix.
    Embedding = HERALD_WEIGHT_EMBEDDING,
    /// Input projection of Mamba and of short convolutions.
    InProjection = HERALD_WEIGHT_IN_PROJECTION,
    /// The causal convolution's filters.
    Conv = HERALD_WEIGHT_CONV,
    /// The convolution's bias.
    ConvBias = HERALD_WEIGHT_CONV_BIAS,
    /// Mamba-1's projection to dt, B and C.
    SsmX = HERALD_WEIGHT_SSM_X,
    /// Mamba-1's projection of dt.
    SsmDt = HERALD_WEIGHT_SSM_DT,
    /// Bias of dt.
    SsmDtBias = HERALD_WEIGHT_SSM_DT_BIAS,
    /// The decay A, negative.
    SsmA = HERALD_WEIGHT_SSM_A,
    /// The skip D.
    SsmD = HERALD_WEIGHT_SSM_D,
    /// Norm of Mamba-2's gated output.
    SsmNorm = HERALD_WEIGHT_SSM_NORM,
    /// Output projection of Mamba and of short convolutions.
    OutProjection = HERALD_WEIGHT_OUT_PROJECTION,
    /// Norm of Mamba-1's dt.
    SsmDtNorm = HERALD_WEIGHT_SSM_DT_NORM,
    /// Norm of Mamba-1's B.
    SsmBNorm = HERALD_WEIGHT_SSM_B_NORM,
    /// Norm of Mamba-1's C.
    SsmCNorm = HERALD_WEIGHT_SSM_C_NORM,
    /// Router of a mixture of experts.
    Router = HERALD_WEIGHT_ROUTER,
    /// Added to the scores by which experts are chosen.
    RouterBias = HERALD_WEIGHT_ROUTER_BIAS,
    /// Experts' gate projections.
    ExpertsGate = HERALD_WEIGHT_EXPERTS_GATE,
    /// Experts' up projections.
    ExpertsUp = HERALD_WEIGHT_EXPERTS_UP,
    /// Experts' down projections.
    ExpertsDown = HERALD_WEIGHT_EXPERTS_DOWN,
    /// Gate projection of the shared expert.
    SharedGate = HERALD_WEIGHT_SHARED_GATE,
    /// Up projection of the shared expert.
    SharedUp = HERALD_WEIGHT_SHARED_UP,
    /// Down projection of the shared expert.
    SharedDown = HERALD_WEIGHT_SHARED_DOWN,
    /// What the shared expert is weighted by, as `sigmoid(w . x)`.
    SharedRouter = HERALD_WEIGHT_SHARED_ROUTER,
    /// The convolution of a delta net's queries.
    QueryConv = HERALD_WEIGHT_QUERY_CONV,
    /// The convolution of a delta net's keys.
    KeyConv = HERALD_WEIGHT_KEY_CONV,
    /// The convolution of a delta net's values.
    ValueConv = HERALD_WEIGHT_VALUE_CONV,
    /// The gate of a delta net's output, or the first of its two matrices.
    OutputGate = HERALD_WEIGHT_OUTPUT_GATE,
    /// The second matrix of the gate of a delta net's output.
    OutputGateUp = HERALD_WEIGHT_OUTPUT_GATE_UP,
    /// How much of its value each token writes to a delta net's state.
    Beta = HERALD_WEIGHT_BETA,
    /// The decays of a delta net's state, or the first of their two matrices.
    Decay = HERALD_WEIGHT_DECAY,
    /// The second matrix of the decays of a delta net's state.
    DecayUp = HERALD_WEIGHT_DECAY_UP,
    /// `Beta` and `Decay` in one, key head by key head.
    BetaAndDecay = HERALD_WEIGHT_BETA_AND_DECAY,
    /// Query projection and gate of attention in one, head by head.
    QueryAndGate = HERALD_WEIGHT_QUERY_AND_GATE,
    /// Attention sinks.
    AttentionSinks = HERALD_WEIGHT_ATTENTION_SINKS,
    /// Added to the router's scores.
    RouterScoreBias = HERALD_WEIGHT_ROUTER_SCORE_BIAS,
    /// Biases of the experts' gate projections.
    ExpertsGateBias = HERALD_WEIGHT_EXPERTS_GATE_BIAS,
    /// Biases of the experts' up projections.
    ExpertsUpBias = HERALD_WEIGHT_EXPERTS_UP_BIAS,
    /// Biases of the experts' down projections.
    ExpertsDownBias = HERALD_WEIGHT_EXPERTS_DOWN_BIAS,
    /// The first of two query projections of latent attention.
    QueryDown = HERALD_WEIGHT_QUERY_DOWN,
    /// The norm between both query projections of latent attention.
    QueryDownNorm = HERALD_WEIGHT_QUERY_DOWN_NORM,
    /// The norm of latent attention's latent.
    LatentNorm = HERALD_WEIGHT_LATENT_NORM,
    /// What makes of each head's query the one that meets latents.
    KeyUp = HERALD_WEIGHT_KEY_UP,
    /// What makes each head's value of a latent.
    ValueUp = HERALD_WEIGHT_VALUE_UP,
    /// Norm of each value head.
    ValueNorm = HERALD_WEIGHT_VALUE_NORM,
    /// What the output is multiplied by after the branch was added.
    OutputScale = HERALD_WEIGHT_OUTPUT_SCALE,
    /// Norm at the shared expert's entry.
    SharedNorm = HERALD_WEIGHT_SHARED_NORM,
    /// Norm of what the shared expert gives.
    SharedPostNorm = HERALD_WEIGHT_SHARED_POST_NORM,
    /// Norm of what the other experts give together.
    ExpertsPostNorm = HERALD_WEIGHT_EXPERTS_POST_NORM,
    /// Norm at the router's entry.
    RouterNorm = HERALD_WEIGHT_ROUTER_NORM,
    /// What each expert's weight is multiplied by.
    ExpertScales = HERALD_WEIGHT_EXPERT_SCALES,
    /// Gate and up projections of experts in one.
    ExpertsGateAndUp = HERALD_WEIGHT_EXPERTS_GATE_AND_UP,
    /// A per-layer embedding's table.
    PerLayerTable = HERALD_WEIGHT_PER_LAYER_TABLE,
    /// A per-layer embedding's projection of the embedding.
    PerLayerProjection = HERALD_WEIGHT_PER_LAYER_PROJECTION,
    /// A per-layer embedding's norm of the projected embedding.
    PerLayerNorm = HERALD_WEIGHT_PER_LAYER_NORM,
    /// Layer norm, in place of [`WeightRole::Norm`].
    LayerNorm = HERALD_WEIGHT_LAYER_NORM,
    /// Its bias.
    LayerNormBias = HERALD_WEIGHT_LAYER_NORM_BIAS,
    /// Layer norm over the sum of residual and branch.
    ResidualNorm = HERALD_WEIGHT_RESIDUAL_NORM,
    /// Its bias.
    ResidualNormBias = HERALD_WEIGHT_RESIDUAL_NORM_BIAS,
    /// Bias of an MLP's gate projection.
    GateBias = HERALD_WEIGHT_GATE_BIAS,
    /// Bias of an MLP's up projection.
    UpBias = HERALD_WEIGHT_UP_BIAS,
    /// Bias of an MLP's down projection.
    DownBias = HERALD_WEIGHT_DOWN_BIAS,
    /// A row for each position, added to embeddings.
    PositionEmbedding = HERALD_WEIGHT_POSITION_EMBEDDING,
    /// Added to every token's embedding.
    TypeEmbedding = HERALD_WEIGHT_TYPE_EMBEDDING,
    /// Bias of the output matrix.
    OutputBias = HERALD_WEIGHT_OUTPUT_BIAS,
    /// Norm of each query head after RoPE.
    RotatedQueryNorm = HERALD_WEIGHT_ROTATED_QUERY_NORM,
    /// Norm of each key head after RoPE.
    RotatedKeyNorm = HERALD_WEIGHT_ROTATED_KEY_NORM,
    /// What queries are multiplied by, position by position.
    Temperature = HERALD_WEIGHT_TEMPERATURE,
    /// The numbers of xIELU.
    Xielu = HERALD_WEIGHT_XIELU,
    /// What the input is multiplied by in place of a norm.
    InputScale = HERALD_WEIGHT_INPUT_SCALE,
}

impl WeightRole {
    /// What a branch may have in place of an RMS norm at its entry.
    pub(super) const IN_PLACE_OF_NORM: [Self; 4] =
        [Self::PostNorm, Self::LayerNorm, Self::ResidualNorm, Self::InputScale];

    /// What a head may have in place of an RMS norm.
    pub(super) const IN_PLACE_OF_HEAD_NORM: [Self; 2] = [Self::LayerNorm, Self::InputScale];

    /// The role with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u32 == code)
    }
}
