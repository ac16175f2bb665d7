//! The engine-layer interface: what a model is made of.

use crate::call::{Call, Page, Parallel};
use crate::{DType, Error, Result, abi};

/// Kinds of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum LayerKind {
    /// Token embeddings.
    Embedding = abi::HERALD_LAYER_EMBEDDING,
    /// Self-attention with its norm.
    Attention = abi::HERALD_LAYER_ATTENTION,
    /// A feed-forward network with its norm.
    Mlp = abi::HERALD_LAYER_MLP,
    /// The final norm and the product with the output matrix.
    Head = abi::HERALD_LAYER_HEAD,
    /// A selective state space with its norm (Mamba).
    Mamba1 = abi::HERALD_LAYER_MAMBA1,
    /// The same with a scalar decay for each head (Mamba-2).
    Mamba2 = abi::HERALD_LAYER_MAMBA2,
    /// A gated short convolution with its norm (LFM2).
    ShortConv = abi::HERALD_LAYER_SHORT_CONV,
    /// A mixture of feed-forward networks with its norm.
    Moe = abi::HERALD_LAYER_MOE,
}

impl LayerKind {
    /// Every kind that this version knows.
    pub const ALL: [Self; 8] = [
        Self::Embedding,
        Self::Attention,
        Self::Mlp,
        Self::Head,
        Self::Mamba1,
        Self::Mamba2,
        Self::ShortConv,
        Self::Moe,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == code)
    }

    /// The word for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Attention => "attention",
            Self::Mlp => "mlp",
            Self::Head => "head",
            Self::Mamba1 => "mamba1",
            Self::Mamba2 => "mamba2",
            Self::ShortConv => "short convolution",
            Self::Moe => "mixture of experts",
        }
    }
}

/// What a layer uses a weight for. Shapes are `[rows, columns]`, rows contiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum WeightRole {
    /// Norm at the layer's entry: `[hidden]`. Attention and MLP may come without it where they have a [`Self::PostNorm`].
    Norm = abi::HERALD_WEIGHT_NORM,
    /// Norm over the branch's output: `[hidden]`.
    PostNorm = abi::HERALD_WEIGHT_POST_NORM,
    /// Query projection: `[n_heads * key_dim, hidden]`.
    Query = abi::HERALD_WEIGHT_QUERY,
    /// Key projection: `[n_kv_heads * key_dim, hidden]`.
    Key = abi::HERALD_WEIGHT_KEY,
    /// Value projection: `[n_kv_heads * value_dim, hidden]`.
    Value = abi::HERALD_WEIGHT_VALUE,
    /// Attention's output projection: `[hidden, n_heads * value_dim]`.
    AttentionOutput = abi::HERALD_WEIGHT_ATTENTION_OUTPUT,
    /// Bias of the query projection.
    QueryBias = abi::HERALD_WEIGHT_QUERY_BIAS,
    /// Bias of the key projection.
    KeyBias = abi::HERALD_WEIGHT_KEY_BIAS,
    /// Bias of the value projection.
    ValueBias = abi::HERALD_WEIGHT_VALUE_BIAS,
    /// Bias of attention's output projection.
    AttentionOutputBias = abi::HERALD_WEIGHT_ATTENTION_OUTPUT_BIAS,
    /// Norm of each query head before RoPE, `[key_dim]`, or of all as one, `[n_heads * key_dim]`.
    QueryNorm = abi::HERALD_WEIGHT_QUERY_NORM,
    /// Norm of each key head before RoPE, `[key_dim]`, or of all as one, `[n_kv_heads * key_dim]`.
    KeyNorm = abi::HERALD_WEIGHT_KEY_NORM,
    /// Divisors of RoPE's frequencies: `[rope_dims / 2]`.
    RopeFactors = abi::HERALD_WEIGHT_ROPE_FACTORS,
    /// MLP's gate projection: `[width, hidden]`.
    Gate = abi::HERALD_WEIGHT_GATE,
    /// MLP's up projection: `[width, hidden]`.
    Up = abi::HERALD_WEIGHT_UP,
    /// MLP's down projection: `[hidden, width]`.
    Down = abi::HERALD_WEIGHT_DOWN,
    /// The embedding matrix, or the head's output matrix: `[vocabulary, hidden]`.
    Embedding = abi::HERALD_WEIGHT_EMBEDDING,
    /// Input projection of Mamba (`[2 * inner, hidden]` in Mamba-1, `[2 * inner + 2 * n_groups * state + n_heads,
    /// hidden]` in Mamba-2) and of short convolutions (`[3 * hidden, hidden]`).
    InProjection = abi::HERALD_WEIGHT_IN_PROJECTION,
    /// The causal convolution: `[channels, taps]`.
    Conv = abi::HERALD_WEIGHT_CONV,
    /// The convolution's bias: `[channels]`.
    ConvBias = abi::HERALD_WEIGHT_CONV_BIAS,
    /// Mamba-1's projection to dt, B and C: `[dt_rank + 2 * state, inner]`.
    SsmX = abi::HERALD_WEIGHT_SSM_X,
    /// Mamba-1's projection of dt: `[inner, dt_rank]`.
    SsmDt = abi::HERALD_WEIGHT_SSM_DT,
    /// Bias of dt: `[inner]` or `[n_heads]`.
    SsmDtBias = abi::HERALD_WEIGHT_SSM_DT_BIAS,
    /// The decay A, negative: `[inner, state]` in Mamba-1, `[n_heads]` in Mamba-2.
    SsmA = abi::HERALD_WEIGHT_SSM_A,
    /// The skip D: `[inner]` or `[n_heads]`.
    SsmD = abi::HERALD_WEIGHT_SSM_D,
    /// Norm of Mamba-2's gated output: `[inner]`.
    SsmNorm = abi::HERALD_WEIGHT_SSM_NORM,
    /// Output projection of Mamba and of short convolutions: `[hidden, inner]`.
    OutProjection = abi::HERALD_WEIGHT_OUT_PROJECTION,
    /// Norm of Mamba-1's dt: `[dt_rank]`.
    SsmDtNorm = abi::HERALD_WEIGHT_SSM_DT_NORM,
    /// Norm of Mamba-1's B: `[state]`.
    SsmBNorm = abi::HERALD_WEIGHT_SSM_B_NORM,
    /// Norm of Mamba-1's C: `[state]`.
    SsmCNorm = abi::HERALD_WEIGHT_SSM_C_NORM,
    /// Router of a mixture of experts: `[n_experts, hidden]`.
    Router = abi::HERALD_WEIGHT_ROUTER,
    /// Added to the scores by which experts are chosen: `[n_experts]`.
    RouterBias = abi::HERALD_WEIGHT_ROUTER_BIAS,
    /// Experts' gate projections: `[n_experts * width, hidden]`.
    ExpertsGate = abi::HERALD_WEIGHT_EXPERTS_GATE,
    /// Experts' up projections: `[n_experts * width, hidden]`.
    ExpertsUp = abi::HERALD_WEIGHT_EXPERTS_UP,
    /// Experts' down projections: `[n_experts * hidden, width]`.
    ExpertsDown = abi::HERALD_WEIGHT_EXPERTS_DOWN,
    /// Gate projection of the shared expert: `[shared_width, hidden]`.
    SharedGate = abi::HERALD_WEIGHT_SHARED_GATE,
    /// Up projection of the shared expert: `[shared_width, hidden]`.
    SharedUp = abi::HERALD_WEIGHT_SHARED_UP,
    /// Down projection of the shared expert: `[hidden, shared_width]`.
    SharedDown = abi::HERALD_WEIGHT_SHARED_DOWN,
    /// What the shared expert is weighted by, as `sigmoid(w . x)`: `[hidden]`.
    SharedRouter = abi::HERALD_WEIGHT_SHARED_ROUTER,
}

impl WeightRole {
    /// Every role that this version knows.
    pub const ALL: [Self; 39] = [
        Self::Norm,
        Self::PostNorm,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::AttentionOutput,
        Self::QueryBias,
        Self::KeyBias,
        Self::ValueBias,
        Self::AttentionOutputBias,
        Self::QueryNorm,
        Self::KeyNorm,
        Self::RopeFactors,
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::Embedding,
        Self::InProjection,
        Self::Conv,
        Self::ConvBias,
        Self::SsmX,
        Self::SsmDt,
        Self::SsmDtBias,
        Self::SsmA,
        Self::SsmD,
        Self::SsmNorm,
        Self::OutProjection,
        Self::SsmDtNorm,
        Self::SsmBNorm,
        Self::SsmCNorm,
        Self::Router,
        Self::RouterBias,
        Self::ExpertsGate,
        Self::ExpertsUp,
        Self::ExpertsDown,
        Self::SharedGate,
        Self::SharedUp,
        Self::SharedDown,
        Self::SharedRouter,
    ];

    /// The role with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u32 == code)
    }
}

/// Which elements of a head RoPE turns against each other (RoFormer, arXiv 2104.09864).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum RopeKind {
    /// No rotation.
    #[default]
    None = abi::HERALD_ROPE_NONE,
    /// Neighbours: elements `2i` and `2i + 1`.
    Neighbours = abi::HERALD_ROPE_NEIGHBOURS,
    /// Halves: elements `i` and `i + rope_dims / 2`.
    Halves = abi::HERALD_ROPE_HALVES,
}

/// How RoPE's frequencies are changed for a context longer than the trained one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// As they are.
    #[default]
    None,
    /// Positions divided by the factor.
    Linear {
        /// How many times longer the context may be.
        factor: f32,
    },
    /// YaRN (arXiv 2309.00071): interpolated by wavelength.
    Yarn {
        /// How many times longer the context may be.
        factor: f32,
        /// The trained context, in tokens.
        original_context: u32,
        /// How much extrapolation is mixed in where wavelengths are short, usually 1.
        ext_factor: f32,
        /// Multiplies the rotated vectors on top of YaRN's own `1 + 0.1 ln(factor)`; usually 1.
        attn_factor: f32,
        /// Rotations over the trained context above which frequencies stay, usually 32.
        beta_fast: f32,
        /// Rotations below which frequencies are interpolated, usually 1.
        beta_slow: f32,
    },
}

/// Grouped-query attention over keys and values kept in pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Query heads: a multiple of `n_kv_heads`.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Elements of a query and of a key head.
    pub key_dim: usize,
    /// Elements of a value head.
    pub value_dim: usize,
    /// A token attends to itself and the `window - 1` tokens before it; `None`: to all before it.
    pub window: Option<usize>,
    /// Which elements RoPE rotates.
    pub rope: RopeKind,
    /// The first so many elements of each head are rotated.
    pub rope_dims: usize,
    /// The base of RoPE's frequencies (theta).
    pub rope_base: f32,
    /// RoPE for longer contexts.
    pub rope_scaling: RopeScaling,
    /// Scores are `softcap * tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// Multiplies query-key products.
    pub scale: f32,
}

/// The function between an MLP's projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu = abi::HERALD_ACTIVATION_SILU,
    /// GELU in its tanh approximation.
    GeluTanh = abi::HERALD_ACTIVATION_GELU_TANH,
    /// `max(x, 0)` squared.
    SquaredRelu = abi::HERALD_ACTIVATION_SQUARED_RELU,
}

/// A feed-forward network: `down(activation(gate(x)) * up(x))`, or without the gate `down(activation(up(x)))`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mlp {
    /// Elements between the projections.
    pub width: usize,
    /// The function between them.
    pub activation: Activation,
    /// Whether there is a gate.
    pub gated: bool,
}

/// A selective state space (Mamba, arXiv 2312.00752); [`abi::HeraldMamba1`] has its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba1 {
    /// Channels.
    pub inner: usize,
    /// Elements of each channel's state.
    pub state: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Elements of dt before its projection.
    pub dt_rank: usize,
    /// Whether dt, B and C are RMS-normed without weights; with weights they are where those are there.
    pub plain_norms: bool,
}

/// A state space with a scalar decay for each head (Mamba-2, arXiv 2405.21060); [`abi::HeraldMamba2`] has its formulas.
#[derive(Clone, Debug, PartialEq)]
pub struct Mamba2 {
    /// Channels: a multiple of `n_heads`.
    pub inner: usize,
    /// Elements of each channel's state.
    pub state: usize,
    /// Taps of the convolution.
    pub taps: usize,
    /// Heads: a multiple of `n_groups`.
    pub n_heads: usize,
    /// Groups of heads that share B and C, and of channels that are normed together.
    pub n_groups: usize,
}

/// A gated short convolution (LFM2): `Wout (C * conv(B * x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ShortConv {
    /// Taps of the convolution.
    pub taps: usize,
}

/// What makes the weights of experts from a router's scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Routing {
    /// The softmax of all scores.
    Softmax = abi::HERALD_ROUTING_SOFTMAX,
    /// The sigmoid of each score.
    Sigmoid = abi::HERALD_ROUTING_SIGMOID,
}

/// A mixture of feed-forward networks, of which each token uses a few.
#[derive(Clone, Debug, PartialEq)]
pub struct Moe {
    /// Experts.
    pub n_experts: usize,
    /// Experts that each token uses: those of the greatest scores, of equal ones the first.
    pub n_used: usize,
    /// Elements between an expert's projections.
    pub width: usize,
    /// The same of the expert that every token uses.
    pub shared_width: Option<usize>,
    /// The function between the projections.
    pub activation: Activation,
    /// Whether there are gates.
    pub gated: bool,
    /// What makes weights from the router's scores.
    pub routing: Routing,
    /// Whether the weights of a token's experts are divided by their sum.
    pub normalize: bool,
    /// Multiplies the weights of a token's experts.
    pub weight_scale: f32,
}

/// Token embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Multiplies the embeddings.
    pub scale: f32,
}

/// The final norm and the product with the output matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Multiplies the logits.
    pub scale: f32,
    /// Logits are `softcap * tanh(logit / softcap)`.
    pub softcap: Option<f32>,
}

/// What is particular to a layer's kind.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LayerParams {
    /// Token embeddings.
    Embedding(Embedding),
    /// Self-attention.
    Attention(Attention),
    /// A feed-forward network.
    Mlp(Mlp),
    /// The output head.
    Head(Head),
    /// A selective state space.
    Mamba1(Mamba1),
    /// A state space with a scalar decay for each head.
    Mamba2(Mamba2),
    /// A gated short convolution.
    ShortConv(ShortConv),
    /// A mixture of experts.
    Moe(Moe),
}

/// A layer: a whole residual branch with its norm.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerDesc {
    /// The block that it belongs to, counted from 0.
    pub block: usize,
    /// Elements of a token's activations.
    pub hidden: usize,
    /// Multiplies the branch before it is added.
    pub residual_scale: f32,
    /// Added to the mean square in RMS norms.
    pub norm_eps: f32,
    /// What is particular to its kind.
    pub params: LayerParams,
}

impl LayerDesc {
    /// The layer's kind.
    #[must_use]
    pub fn kind(&self) -> LayerKind {
        match self.params {
            LayerParams::Embedding(_) => LayerKind::Embedding,
            LayerParams::Attention(_) => LayerKind::Attention,
            LayerParams::Mlp(_) => LayerKind::Mlp,
            LayerParams::Head(_) => LayerKind::Head,
            LayerParams::Mamba1(_) => LayerKind::Mamba1,
            LayerParams::Mamba2(_) => LayerKind::Mamba2,
            LayerParams::ShortConv(_) => LayerKind::ShortConv,
            LayerParams::Moe(_) => LayerKind::Moe,
        }
    }
}

/// One weight: a view of the model file's bytes, whose size has been checked against its shape.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'w> {
    /// What the layer uses it for.
    pub role: WeightRole,
    /// The tensor's name in the model file.
    pub name: &'w str,
    /// The element type.
    pub dtype: DType,
    /// Elements of a row.
    pub columns: usize,
    /// Rows: the product of the other dimensions.
    pub rows: usize,
    /// The rows' bytes, one after another, at no particular alignment.
    pub bytes: &'w [u8],
}

/// A layer that the host wants.
#[derive(Clone, Debug)]
pub struct LayerRequest<'w, 'p> {
    /// Its description.
    pub desc: LayerDesc,
    /// Its weights.
    pub weights: Vec<Weight<'w>>,
    /// The most tokens that a forward call will bring.
    pub max_tokens: usize,
    /// The most workers that a forward call will bring.
    pub max_workers: usize,
    /// Tokens of a KV page.
    pub page_tokens: usize,
    /// Threads to prepare weights with.
    pub parallel: Parallel<'p>,
}

/// A backend's engine layers. The implementing type carries no data: it names the functions of a table.
pub trait LayerFactory: 'static {
    /// The kinds that it offers, at least in some forms.
    const KINDS: &'static [LayerKind];

    /// Whether [`LayerFactory::create`] would accept the request; cheap, reads no weight data.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] with what is missing, or [`crate::Status::InvalidArgument`].
    fn supports(request: &LayerRequest<'_, '_>) -> Result<()>;

    /// Makes a layer, which may keep views of the weights.
    ///
    /// # Errors
    /// As [`LayerFactory::supports`], and [`crate::Status::OutOfMemory`].
    fn create<'w>(request: &LayerRequest<'w, '_>) -> Result<Box<dyn EngineLayer + 'w>>;
}

/// A layer of a model. It doesn't change: calls may come from many threads at once, each with buffers of its own.
pub trait EngineLayer: Send + Sync {
    /// Bytes of scratch memory that a call of `max_tokens` needs.
    fn scratch_bytes(&self) -> usize;

    /// Bytes of recurrent state for each sequence.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Bytes that the layer itself allocated for weights.
    fn weight_bytes(&self) -> usize {
        0
    }

    /// Formats of whole pages that it reads beside 16-bit integers: bit `HERALD_PAGE_*` of each.
    fn page_formats(&self) -> u32 {
        0
    }

    /// Float32 elements of scores that it works in for each selectable page; 0: it does no page selection.
    fn score_width(&self) -> usize {
        0
    }

    /// Bytes of a page's summary; 0: it makes none.
    fn summary_bytes(&self) -> usize {
        0
    }

    /// Makes the summary of a whole page, by which the layer later scores it.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] where it makes none.
    fn summarise(&self, _page: &Page<'_>, _summary: &mut [u8]) -> Result<()> {
        Err(Error::unsupported("the layer makes no summaries of pages"))
    }

    /// Runs the layer over a batch. Allocates nothing.
    ///
    /// # Errors
    /// [`crate::Status::InvalidArgument`] where the call contradicts the layer's contract.
    fn forward(&self, call: &mut Call<'_>) -> Result<()>;
}
