//! Engine layers: what a model is made of, and a forward call.

use std::ffi::{c_char, c_void};

use super::{HeraldError, HeraldLayer, HeraldParallel};

/// Looks up token embeddings: output[t] = scale * embedding[tokens[t]].
pub const HERALD_LAYER_EMBEDDING: u32 = 1;
/// Self-attention with its norm: output += residual_scale * attention(norm(input)).
pub const HERALD_LAYER_ATTENTION: u32 = 2;
/// A feed-forward network with its norm: output += residual_scale * mlp(norm(input)).
pub const HERALD_LAYER_MLP: u32 = 3;
/// The final norm and the product with the output matrix: output[t] = logits, [n_tokens, vocabulary].
pub const HERALD_LAYER_HEAD: u32 = 4;
/// A selective state space with its norm (Mamba, arXiv 2312.00752): output += residual_scale * mamba(norm(input)). Keeps
/// a recurrent state.
pub const HERALD_LAYER_MAMBA1: u32 = 5;
/// The same with a scalar decay for each head (Mamba-2, arXiv 2405.21060). Keeps a recurrent state.
pub const HERALD_LAYER_MAMBA2: u32 = 6;
/// A gated short convolution with its norm (LFM2, arXiv 2511.23404). Keeps a recurrent state.
pub const HERALD_LAYER_SHORT_CONV: u32 = 7;
/// A mixture of feed-forward networks with its norm, of which each token uses a few (arXiv 1701.06538).
pub const HERALD_LAYER_MOE: u32 = 8;

/// IEEE float32.
pub const HERALD_DTYPE_F32: u32 = 0;
/// IEEE float16.
pub const HERALD_DTYPE_F16: u32 = 1;
/// Blocks of 32: float16 scale, 4-bit values less 8. 18 bytes.
pub const HERALD_DTYPE_Q4_0: u32 = 2;
/// Blocks of 32: float16 scale and minimum, 4-bit values. 20 bytes.
pub const HERALD_DTYPE_Q4_1: u32 = 3;
/// Blocks of 32: float16 scale, 5-bit values less 16. 22 bytes.
pub const HERALD_DTYPE_Q5_0: u32 = 6;
/// Blocks of 32: float16 scale and minimum, 5-bit values. 24 bytes.
pub const HERALD_DTYPE_Q5_1: u32 = 7;
/// Blocks of 32: float16 scale, signed 8-bit values. 34 bytes.
pub const HERALD_DTYPE_Q8_0: u32 = 8;
/// Blocks of 256, 2 bits. 84 bytes.
pub const HERALD_DTYPE_Q2_K: u32 = 10;
/// Blocks of 256, 3 bits. 110 bytes.
pub const HERALD_DTYPE_Q3_K: u32 = 11;
/// Blocks of 256, 4 bits. 144 bytes.
pub const HERALD_DTYPE_Q4_K: u32 = 12;
/// Blocks of 256, 5 bits. 176 bytes.
pub const HERALD_DTYPE_Q5_K: u32 = 13;
/// Blocks of 256, 6 bits. 210 bytes.
pub const HERALD_DTYPE_Q6_K: u32 = 14;
/// Blocks of 32: float16 scale, 4-bit indices into a table of 16 levels. 18 bytes.
pub const HERALD_DTYPE_IQ4_NL: u32 = 20;
/// Blocks of 256, IQ4_NL's levels with 6-bit scales. 136 bytes.
pub const HERALD_DTYPE_IQ4_XS: u32 = 23;
/// bfloat16.
pub const HERALD_DTYPE_BF16: u32 = 30;

/// The weight of the norm at the layer's entry: [hidden]. Attention and MLP may come without it where they have
/// HERALD_WEIGHT_POST_NORM (OLMo 2): the branch then reads its input as it is.
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
/// The embedding matrix, or the head's output matrix: [vocabulary, hidden].
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

/// No RoPE.
pub const HERALD_ROPE_NONE: u32 = 0;
/// RoPE that rotates neighbours: elements 2i and 2i+1 (llama's own order).
pub const HERALD_ROPE_NEIGHBOURS: u32 = 1;
/// RoPE that rotates halves: elements i and i + rope_dims/2 (GPT-NeoX's order).
pub const HERALD_ROPE_HALVES: u32 = 2;

/// RoPE's frequencies as they are.
pub const HERALD_ROPE_SCALING_NONE: u32 = 0;
/// Positions divided by rope_factor.
pub const HERALD_ROPE_SCALING_LINEAR: u32 = 1;
/// YaRN (arXiv 2309.00071): interpolated by wavelength.
pub const HERALD_ROPE_SCALING_YARN: u32 = 2;

/// x * sigmoid(x).
pub const HERALD_ACTIVATION_SILU: u32 = 1;
/// GELU in its tanh approximation.
pub const HERALD_ACTIVATION_GELU_TANH: u32 = 2;
/// max(x, 0) squared (arXiv 2109.08668).
pub const HERALD_ACTIVATION_SQUARED_RELU: u32 = 3;

/// Experts by the softmax of their scores.
pub const HERALD_ROUTING_SOFTMAX: u32 = 1;
/// Experts by the sigmoid of each score.
pub const HERALD_ROUTING_SIGMOID: u32 = 2;

/// A page of 16-bit integers with a scale for each head of each token: keys is first float32 scales
/// [n_kv_heads, capacity], then int16 codes [n_kv_heads, capacity, key_dim]; values the same with value_dim. An element
/// is scale * code. (At the size of float16 this keeps keys and values a dozen times more exactly.)
pub const HERALD_PAGE_I16: u32 = 1;
/// A page of bytes that only its owner can read: a recurrent state, in keys.
pub const HERALD_PAGE_OPAQUE: u32 = 2;
/// A page of 4-bit codes, for whole pages that are only read. An element is offset + step * code, code 0 to 15. Steps and
/// offsets are pairs of float16 (step, offset): of keys one pair for each channel over 64 tokens (channels of keys differ
/// much, their tokens little), of values one for each token over 64 channels; the last of each may cover fewer.
/// keys: pairs [n_kv_heads, ceil(capacity / 64), key_dim], then codes [n_kv_heads, capacity, ceil(key_dim / 2)] bytes.
/// values: pairs [n_kv_heads, capacity, ceil(value_dim / 64)], then codes [n_kv_heads, capacity, ceil(value_dim / 2)].
/// The low half of a row's byte i is the code of element i, the high half that of element ceil(dim / 2) + i; where dim is
/// odd the last high half is 0.
pub const HERALD_PAGE_Q4: u32 = 3;

/// One weight: a view of the model file's bytes.
///
/// dims follows GGUF: dims[0] is the length of a row, whose elements are contiguous. A matrix written above as
/// [rows, columns] has dims {columns, rows}.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldTensor {
    /// sizeof(HeraldTensor) of the host.
    pub struct_size: usize,
    /// HERALD_WEIGHT_*: what the layer uses it for.
    pub role: u32,
    /// HERALD_DTYPE_*.
    pub dtype: u32,
    /// How many of dims are used: 1 to 4; the rest are 1.
    pub n_dims: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Elements along each dimension, none 0.
    pub dims: [u64; 4],
    /// The elements, rows one after another. At no particular alignment. Read-only; valid until layer_destroy.
    pub data: *const c_void,
    /// Bytes of data: exactly what dims and dtype need.
    pub data_bytes: u64,
    /// The tensor's name in the model file, for messages: UTF-8, valid until layer_destroy.
    pub name: *const c_char,
    /// Bytes of name.
    pub name_len: usize,
}

/// Parameters of HERALD_LAYER_ATTENTION: grouped-query attention over keys and values kept in pages.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldAttention {
    /// sizeof(HeraldAttention) of the host.
    pub struct_size: usize,
    /// Query heads: a multiple of n_kv_heads.
    pub n_heads: u32,
    /// Key and value heads.
    pub n_kv_heads: u32,
    /// Elements of a query and of a key head.
    pub key_dim: u32,
    /// Elements of a value head.
    pub value_dim: u32,
    /// A token attends to itself and the window - 1 tokens before it; 0: to all before it.
    pub window: u32,
    /// HERALD_ROPE_*.
    pub rope: u32,
    /// The first so many elements of each query and key head are rotated: even, at most key_dim.
    pub rope_dims: u32,
    /// HERALD_ROPE_SCALING_*.
    pub rope_scaling: u32,
    /// The base of RoPE's frequencies (theta).
    pub rope_base: f32,
    /// How many times longer than trained the context may be (linear, YaRN); otherwise 1.
    pub rope_factor: f32,
    /// YaRN: the context that the model was trained for, in tokens.
    pub rope_original_context: u32,
    /// YaRN: how much extrapolation is mixed in where wavelengths are short, usually 1.
    pub yarn_ext_factor: f32,
    /// YaRN: multiplies the rotated vectors, on top of YaRN's own 1 + 0.1 ln(rope_factor); usually 1.
    pub yarn_attn_factor: f32,
    /// YaRN: rotations over the trained context above which frequencies stay, usually 32.
    pub yarn_beta_fast: f32,
    /// YaRN: rotations below which frequencies are interpolated, usually 1.
    pub yarn_beta_slow: f32,
    /// Scores are softcap * tanh(score / softcap) before the softmax; 0: as they are.
    pub softcap: f32,
    /// Multiplies query-key products.
    pub scale: f32,
}

/// Parameters of HERALD_LAYER_MLP.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMlp {
    /// sizeof(HeraldMlp) of the host.
    pub struct_size: usize,
    /// Elements between the projections.
    pub width: u32,
    /// HERALD_ACTIVATION_*.
    pub activation: u32,
    /// 1: down(activation(gate(x)) * up(x)); 0: down(activation(up(x))).
    pub gated: u32,
}

/// Parameters of HERALD_LAYER_EMBEDDING.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldEmbedding {
    /// sizeof(HeraldEmbedding) of the host.
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Multiplies the embeddings; usually 1.
    pub scale: f32,
}

/// Parameters of HERALD_LAYER_HEAD.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldHead {
    /// sizeof(HeraldHead) of the host.
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Multiplies the logits; usually 1.
    pub scale: f32,
    /// Logits are softcap * tanh(logit / softcap); 0: as they are.
    pub softcap: f32,
}

/// Parameters of HERALD_LAYER_MAMBA1. With x and z the input projection's halves and n the layer's norms of dt, B and C:
///
///   x = silu(conv(x)),  dt, B, C = n(Wx x),  dt = softplus(Wdt dt + bias)
///   h[t] = exp(dt A) h[t-1] + dt B x,  y = C h[t] + D x,  output += residual_scale * Wout (y * silu(z))
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMamba1 {
    /// sizeof(HeraldMamba1) of the host.
    pub struct_size: usize,
    /// Channels.
    pub inner: u32,
    /// Elements of each channel's state.
    pub state: u32,
    /// Taps of the convolution.
    pub taps: u32,
    /// Elements of dt before its projection.
    pub dt_rank: u32,
    /// 1: dt, B and C are RMS-normed without weights (Falcon Mamba); 0: they are normed where their norms' weights are
    /// there.
    pub plain_norms: u32,
}

/// Parameters of HERALD_LAYER_MAMBA2. With z, x, B, C and dt the input projection's parts, head by head:
///
///   x, B, C = silu(conv(x, B, C)),  dt = softplus(dt + bias)
///   h[t] = exp(dt A) h[t-1] + dt x B^T,  y = h[t] C + D x,  output += residual_scale * Wout norm(y * silu(z))
///
/// where the norm, by groups of channels, is left out with its weight.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMamba2 {
    /// sizeof(HeraldMamba2) of the host.
    pub struct_size: usize,
    /// Channels: a multiple of n_heads.
    pub inner: u32,
    /// Elements of each channel's state.
    pub state: u32,
    /// Taps of the convolution.
    pub taps: u32,
    /// Heads, each of inner / n_heads channels with one decay: a multiple of n_groups.
    pub n_heads: u32,
    /// Groups of heads that share B and C, and of channels that are normed together.
    pub n_groups: u32,
}

/// Parameters of HERALD_LAYER_SHORT_CONV: output += residual_scale * Wout (C * conv(B * x)).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldShortConv {
    /// sizeof(HeraldShortConv) of the host.
    pub struct_size: usize,
    /// Taps of the convolution.
    pub taps: u32,
}

/// Parameters of HERALD_LAYER_MOE.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldMoe {
    /// sizeof(HeraldMoe) of the host.
    pub struct_size: usize,
    /// Experts.
    pub n_experts: u32,
    /// Experts that each token uses: those of the greatest scores, of equal ones the first.
    pub n_used: u32,
    /// Elements between an expert's projections.
    pub width: u32,
    /// The same of the expert that every token uses; 0: there is none.
    pub shared_width: u32,
    /// HERALD_ACTIVATION_*.
    pub activation: u32,
    /// As in HeraldMlp.
    pub gated: u32,
    /// HERALD_ROUTING_*: what makes the weights of the experts from the router's scores.
    pub routing: u32,
    /// 1: the weights of a token's experts are divided by their sum; 0: they are not.
    pub normalize: u32,
    /// Multiplies the weights of a token's experts; usually 1.
    pub weight_scale: f32,
}

/// A layer: a whole residual branch with its norm. Exactly the parameters of its own kind are not null.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerDesc {
    /// sizeof(HeraldLayerDesc) of the host.
    pub struct_size: usize,
    /// HERALD_LAYER_*.
    pub kind: u32,
    /// The block that the layer belongs to, counted from 0; for messages.
    pub block: u32,
    /// Elements of a token's activations.
    pub hidden: u32,
    /// Multiplies the branch before it is added; usually 1.
    pub residual_scale: f32,
    /// Added to the mean square in the layer's RMS norms.
    pub norm_eps: f32,
    /// Not used; 0.
    pub reserved: u32,
    /// For HERALD_LAYER_ATTENTION.
    pub attention: *const HeraldAttention,
    /// For HERALD_LAYER_MLP.
    pub mlp: *const HeraldMlp,
    /// For HERALD_LAYER_EMBEDDING.
    pub embedding: *const HeraldEmbedding,
    /// For HERALD_LAYER_HEAD.
    pub head: *const HeraldHead,
    /// For HERALD_LAYER_MAMBA1.
    pub mamba1: *const HeraldMamba1,
    /// For HERALD_LAYER_MAMBA2.
    pub mamba2: *const HeraldMamba2,
    /// For HERALD_LAYER_SHORT_CONV.
    pub short_conv: *const HeraldShortConv,
    /// For HERALD_LAYER_MOE.
    pub moe: *const HeraldMoe,
}

/// A layer that the host wants: its description, its weights, and the largest calls that it will get.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerRequest {
    /// sizeof(HeraldLayerRequest) of the host.
    pub struct_size: usize,
    /// The description; valid during the call.
    pub desc: *const HeraldLayerDesc,
    /// The weights, each by a pointer of its own; the structs are valid during the call, their data and names until
    /// layer_destroy. A role that the layer doesn't know must be answered with UNSUPPORTED, never ignored.
    pub weights: *const *const HeraldTensor,
    /// How many weights.
    pub n_weights: usize,
    /// Threads to prepare weights with; valid during the call.
    pub parallel: *const HeraldParallel,
    /// The most tokens that a forward call will bring.
    pub max_tokens: u32,
    /// The most workers that a forward call will bring.
    pub max_workers: u32,
    /// Tokens of a KV page.
    pub page_tokens: u32,
    /// Not used; 0.
    pub reserved: u32,
}

/// What a made layer needs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerInfo {
    /// sizeof(HeraldLayerInfo) of the host.
    pub struct_size: usize,
    /// Bytes of scratch memory that a forward call of max_tokens needs.
    pub scratch_bytes: u64,
    /// Bytes of recurrent state for each sequence; 0 for layers that keep none.
    pub state_bytes: u64,
    /// Bytes that the layer itself allocated for weights (repacked copies); for reports.
    pub weight_bytes: u64,
    /// Attention: formats of whole pages that it reads beside HERALD_PAGE_I16: bit HERALD_PAGE_* of each.
    pub page_formats: u32,
    /// Attention: float32 elements of HeraldFetch's scores that the layer works in for each selectable page; 0: it does no
    /// page selection, and is brought no selectable pages.
    pub score_width: u32,
    /// Attention: bytes of a selectable page's summary; 0: it makes none.
    pub summary_bytes: u64,
}

/// A run of tokens' keys and values of one layer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldPage {
    /// sizeof(HeraldPage) of whoever made it.
    pub struct_size: usize,
    /// The position in its sequence of the page's first token.
    pub start: u64,
    /// Tokens that it holds, counting those that this call will write.
    pub n_tokens: u32,
    /// Tokens that it has room for.
    pub capacity: u32,
    /// HERALD_PAGE_*.
    pub format: u32,
    /// Not used; 0.
    pub reserved: u32,
    /// Keys, aligned to 64 bytes.
    pub keys: *mut c_void,
    /// Values, aligned to 64 bytes.
    pub values: *mut c_void,
    /// Bytes of keys.
    pub key_bytes: u64,
    /// Bytes of values.
    pub value_bytes: u64,
}

/// One sequence's part of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldSequence {
    /// sizeof(HeraldSequence) of the host.
    pub struct_size: usize,
    /// The index of its first token in the batch.
    pub first: u64,
    /// Its tokens in this batch, one after another.
    pub n_tokens: u64,
    /// Tokens that it had before them: the first one's position in the sequence.
    pub past: u64,
    /// Its KV pages for this layer, in rising order of start; they may leave out earlier tokens, which are then not
    /// attended to, and always hold room for this batch's tokens. Pages that hold only earlier tokens may be shared with
    /// other sequences and are read-only. Null for layers without KV.
    pub pages: *const *const HeraldPage,
    /// How many pages.
    pub n_pages: usize,
    /// Its recurrent state, state_bytes as the layer asked, zeroed when the sequence began, aligned to 64 bytes; or null.
    pub state: *mut c_void,
    /// Page selection (Quest, arXiv 2406.10774; InfLLM, arXiv 2402.04617): pages that attention may choose among, by scores
    /// that the layer gives them (see HeraldFetch). The position of each page's first token, rising.
    pub selectable_starts: *const u64,
    /// The selectable pages' summaries, as summarise made them, one after another; aligned to 8 bytes.
    pub selectable_summaries: *const c_void,
    /// How many selectable pages; 0: none, and both pointers may be null.
    pub n_selectable: usize,
    /// The greatest distance between a query and a key that the layer's RoPE may see, usually the context that the model was
    /// trained for. For a page whose first token is further than this from the batch's last token, the layer subtracts a
    /// position shift from the positions of the batch's queries, so that the distance is exactly this (InfLLM, arXiv
    /// 2402.04617). 0: no limit, positions stay as they are.
    pub max_distance: u64,
}

/// Page selection: a layer whose sequences have selectable pages fills scores and calls run, once, after it has written its
/// keys and values and before it attends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldFetch {
    /// sizeof(HeraldFetch) of the host.
    pub struct_size: usize,
    /// For run.
    pub context: *mut c_void,
    /// Memory for n_scores float32: score_width for each selectable page of every sequence, holding anything at first. run
    /// reads the first elements, one for each selectable page, sequence after sequence: the more the batch's queries would
    /// attend to a page, the greater.
    pub scores: *mut f32,
    /// Elements of scores.
    pub n_scores: usize,
    /// Chooses pages by their scores and puts a new list of the call's sequences, with these pages among the others, in
    /// *sequences; it is valid until the call ends, and the list that the call began with is valid no longer. The
    /// thread that was handed the call may use it, once.
    /// Statuses: OK; otherwise the layer gives the status and the message back from forward.
    pub run: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            sequences: *mut *const *const HeraldSequence,
            error: *mut HeraldError,
        ) -> u32,
    >,
}

/// A forward call: a flat batch of tokens from any number of sequences.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldCall {
    /// sizeof(HeraldCall) of the host.
    pub struct_size: usize,
    /// Tokens of the batch: 1 to max_tokens.
    pub n_tokens: usize,
    /// Token ids [n_tokens]; for the embedding, elsewhere may be null.
    pub tokens: *const u32,
    /// Positions for RoPE [n_tokens]; may be null for layers other than attention.
    pub positions: *const u32,
    /// Activations [n_tokens, hidden]; null: the output holds them too (the usual residual branch, in place).
    pub input: *const f32,
    /// Activations [n_tokens, hidden] that a residual branch adds to and the embedding fills, or the head's logits
    /// [n_tokens, vocabulary]. Does not overlap input.
    pub output: *mut f32,
    /// The sequences, covering the batch's tokens in order, each by a pointer of its own. Null for the embedding and the
    /// head.
    pub sequences: *const *const HeraldSequence,
    /// How many sequences.
    pub n_sequences: usize,
    /// Memory to work in, for this call alone, aligned to 64 bytes; holds anything at first.
    pub scratch: *mut c_void,
    /// Bytes of scratch: at least the scratch_bytes that the layer asked for.
    pub scratch_bytes: u64,
    /// Threads to work with.
    pub parallel: *const HeraldParallel,
    /// Page selection; null where no sequence has selectable pages.
    pub fetch: *const HeraldFetch,
}

/// Engine layers of a plugin. All pointers are to structs that stay the caller's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[cfg_attr(feature = "layout", derive(abi_stable::StableAbi))]
pub struct HeraldLayerTable {
    /// sizeof(HeraldLayerTable) of the plugin.
    pub struct_size: usize,
    /// The HERALD_LAYER_* kinds that it offers, at least in some forms.
    pub kinds: *const u32,
    /// How many kinds.
    pub n_kinds: usize,
    /// Whether layer_create would accept the request; cheap, reads no weight data. Any thread. May be null: then
    /// layer_create is asked. Statuses: OK; UNSUPPORTED with what is missing; INVALID_ARGUMENT.
    pub supports:
        Option<unsafe extern "C" fn(request: *const HeraldLayerRequest, error: *mut HeraldError) -> u32>,
    /// Makes a layer and puts it in *out, for the caller to give to destroy. Any thread. On failure *out is untouched
    /// and nothing is kept. Statuses: OK, UNSUPPORTED, INVALID_ARGUMENT (a shape that contradicts the description),
    /// OUT_OF_MEMORY, INTERNAL.
    pub create: Option<
        unsafe extern "C" fn(
            request: *const HeraldLayerRequest,
            out: *mut *mut HeraldLayer,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Says what the layer needs: fills out. Any thread. Statuses: OK.
    pub info: Option<
        unsafe extern "C" fn(
            layer: *const HeraldLayer,
            out: *mut HeraldLayerInfo,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Runs the layer over a batch. Any thread, and any number at once with different buffers: a layer doesn't change.
    /// It may write only output, scratch, its sequences' states, and the slots of this batch's tokens in their pages; it
    /// allocates nothing. On failure those hold anything. Statuses: OK, INVALID_ARGUMENT, INTERNAL.
    pub forward: Option<
        unsafe extern "C" fn(
            layer: *const HeraldLayer,
            call: *const HeraldCall,
            error: *mut HeraldError,
        ) -> u32,
    >,
    /// Destroys a layer that no call is running on. Any thread. Null is allowed.
    pub destroy: Option<unsafe extern "C" fn(layer: *mut HeraldLayer)>,
    /// Makes the summary of a whole page (HERALD_PAGE_I16, with its start), by which the layer can later tell how much
    /// queries would attend to it: fills summary_bytes at summary, aligned to 8 bytes. Any thread. May be null where no
    /// layer has summaries. Statuses: OK; INVALID_ARGUMENT; UNSUPPORTED.
    pub summarise: Option<
        unsafe extern "C" fn(
            layer: *const HeraldLayer,
            page: *const HeraldPage,
            summary: *mut c_void,
            error: *mut HeraldError,
        ) -> u32,
    >,
}
