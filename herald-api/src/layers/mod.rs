//! Kinds of layers: each is a file, with its parameters as C and as Rust have them, the way between the two, and the shapes
//! of its weights. A new kind is a new file, and in this one its `mod`, its part of [`c`], and a line of the list below.

/// What C sees of this module: a part of [`crate::abi`].
// The comments are the C header's: their brackets are shapes, not links.
#[allow(rustdoc::broken_intra_doc_links)]
pub(crate) mod c {
    pub use super::activation::{
        HERALD_ACTIVATION_CLAMPED_SWIGLU, HERALD_ACTIVATION_GELU, HERALD_ACTIVATION_GELU_TANH,
        HERALD_ACTIVATION_SILU, HERALD_ACTIVATION_SQUARED_RELU, HERALD_ACTIVATION_XIELU,
    };
    pub use super::attention::{
        HERALD_ROPE_HALVES, HERALD_ROPE_NEIGHBOURS, HERALD_ROPE_NONE, HERALD_ROPE_SCALING_LINEAR,
        HERALD_ROPE_SCALING_NONE, HERALD_ROPE_SCALING_YARN, HERALD_ROPE_SCALING_YARN_SMOOTH, HeraldAttention,
    };
    pub use super::delta_net::{
        HERALD_DELTA_DECAY_CHANNEL, HERALD_DELTA_DECAY_HEAD, HERALD_DELTA_GATE_SIGMOID,
        HERALD_DELTA_GATE_SILU, HERALD_DELTA_HEADS_GROUPED, HERALD_DELTA_HEADS_TILED, HeraldDeltaNet,
    };
    pub use super::embedding::HeraldEmbedding;
    pub use super::head::HeraldHead;
    pub use super::mamba1::HeraldMamba1;
    pub use super::mamba2::HeraldMamba2;
    pub use super::mlp::HeraldMlp;
    pub use super::moe::{
        HERALD_ROUTING_SIGMOID, HERALD_ROUTING_SIGMOID_GROUPS, HERALD_ROUTING_SIGMOID_OF_INPUT,
        HERALD_ROUTING_SOFTMAX, HERALD_ROUTING_SOFTMAX_GROUPS, HeraldMoe,
    };
    pub use super::per_layer_embedding::HeraldPerLayerEmbedding;
    pub use super::precision::{HERALD_ACTIVATIONS_INT8, HERALD_ACTIVATIONS_INT16};
    pub use super::role::c::*;
    pub use super::short_conv::HeraldShortConv;

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
    /// Linear attention by the gated delta rule with its norm (arXiv 2412.06464). Keeps a recurrent state.
    pub const HERALD_LAYER_DELTA_NET: u32 = 9;
    /// What a block adds for the token itself (Gemma 3n and 4). Its calls bring the tokens' ids.
    pub const HERALD_LAYER_PER_LAYER_EMBEDDING: u32 = 10;
    /// HERALD_LAYER_ATTENTION whose tokens attend to themselves and to those before them in their chunk: the tokens of a sequence
    /// are cut into runs of attention->window tokens (Llama 4).
    pub const HERALD_LAYER_CHUNKED_ATTENTION: u32 = 12;
    /// HERALD_LAYER_ATTENTION whose tokens attend to those after them too (encoders). All tokens of a sequence come in one call:
    /// HeraldSequence.past is 0.
    pub const HERALD_LAYER_BIDIRECTIONAL_ATTENTION: u32 = 11;

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
        /// How finely matmuls with quantised weights may represent activations: HERALD_ACTIVATIONS_*. A plugin may be finer.
        pub activations: u32,
        /// For HERALD_LAYER_ATTENTION, HERALD_LAYER_CHUNKED_ATTENTION and HERALD_LAYER_BIDIRECTIONAL_ATTENTION.
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
        /// For HERALD_LAYER_DELTA_NET.
        pub delta_net: *const HeraldDeltaNet,
        /// For HERALD_LAYER_PER_LAYER_EMBEDDING.
        pub per_layer_embedding: *const HeraldPerLayerEmbedding,
    }
}

mod activation;
mod attention;
mod delta_net;
mod embedding;
mod head;
mod mamba1;
mod mamba2;
mod mlp;
mod moe;
mod per_layer_embedding;
mod precision;
mod role;
mod shape;
mod short_conv;
#[cfg(test)]
mod tests;

pub use activation::Activation;
pub use attention::{LatentAttention, Mask, RopeKind, RopeScaling};
pub use delta_net::{DeltaDecay, DeltaGate, DeltaHeads};
pub use moe::Routing;
pub use precision::ActivationPrecision;
pub use role::WeightRole;
pub use shape::{Need, WeightShape};

use c::HeraldLayerDesc;

use crate::abi::{self, AbiStruct};
use crate::{Error, Result};

/// What is particular to one kind of layer: its parameters on both sides of the boundary, and what follows from them.
trait KindParams: Sized {
    /// The parameters as C has them.
    type Raw: AbiStruct;

    /// The parameters for C.
    fn to_raw(&self) -> Self::Raw;

    /// The parameters from C.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] for a constant or a flag that isn't known.
    fn from_raw(raw: &Self::Raw) -> Result<Self>;

    /// Which of the kinds that share the parameters these are of; `None`: the first.
    fn other_kind(&self) -> Option<LayerKind> {
        None
    }

    /// The parameters as those of a layer of this kind, one of those that share them.
    ///
    /// # Errors
    /// Where they contradict it.
    fn of_kind(self, _kind: LayerKind) -> Result<Self> {
        Ok(self)
    }

    /// The shape of this role's weight in a layer of this hidden size; `None` where the layer has no such weight.
    fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape>;

    /// Float32 elements of a sequence's recurrent state in a layer of this hidden size, by the kind's formula; `None` where
    /// the kind keeps no state.
    fn state_elements(&self, _hidden: usize) -> Option<usize> {
        None
    }
}

macro_rules! layer_kinds {
    ($(
        $(#[$doc:meta])* $kind:ident($field:ident, $raw:ident) = $code:ident, $name:literal
        $(, or $(#[$other_doc:meta])* $other:ident = $other_code:ident, $other_name:literal)*;
    )*) => {
        $(pub use $field::$kind;)*

        /// Kinds of layers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        #[non_exhaustive]
        pub enum LayerKind {
            $(
                $(#[$doc])* $kind = abi::$code,
                $($(#[$other_doc])* $other = abi::$other_code,)*
            )*
        }

        impl LayerKind {
            /// Every kind that this version knows.
            pub const ALL: [Self; [$(abi::$code $(, abi::$other_code)*),*].len()] =
                [$(Self::$kind $(, Self::$other)*),*];

            /// The word for people.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name, $(Self::$other => $other_name,)*)*
                }
            }
        }

        /// What is particular to a layer's kind.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum LayerParams {
            $($(#[$doc])* $kind($kind),)*
        }

        impl LayerParams {
            /// Reads the parameters of the description's kind.
            ///
            /// # Safety
            /// The pointers of `desc` are as `HeraldLayerDesc` says.
            unsafe fn from_raw(kind: LayerKind, desc: &HeraldLayerDesc) -> Result<Self> {
                Ok(match kind {
                    $(LayerKind::$kind $(| LayerKind::$other)* => {
                        // SAFETY: the maker of HeraldLayerDesc guarantees the pointer, and `read` checks the struct.
                        let raw = unsafe { abi::read(desc.$field).map_err(Error::invalid)? };
                        Self::$kind($kind::from_raw(&raw)?.of_kind(kind)?)
                    })*
                })
            }

            /// Calls `body` with a description that has these parameters as well.
            fn with_raw<T>(&self, desc: HeraldLayerDesc, body: impl FnOnce(&HeraldLayerDesc) -> T) -> T {
                match self {
                    $(Self::$kind(params) => {
                        let raw: abi::$raw = params.to_raw();
                        body(&HeraldLayerDesc { $field: &raw const raw, ..desc })
                    })*
                }
            }

            fn kind(&self) -> LayerKind {
                match self {
                    $(Self::$kind(params) => params.other_kind().unwrap_or(LayerKind::$kind),)*
                }
            }

            fn weight(&self, hidden: usize, role: WeightRole) -> Option<WeightShape> {
                match self {
                    $(Self::$kind(params) => params.weight(hidden, role),)*
                }
            }

            /// Float32 elements of a sequence's recurrent state in a layer of this hidden size: the convolution's latest
            /// inputs and the state of the recurrence. `None` where the kind keeps no state. (How a plugin stores it is the
            /// plugin's own matter.)
            #[must_use]
            pub fn state_elements(&self, hidden: usize) -> Option<usize> {
                match self {
                    $(Self::$kind(params) => params.state_elements(hidden),)*
                }
            }

            /// Whether a layer of this kind keeps a recurrent state for each sequence.
            #[must_use]
            pub fn is_recurrent(&self) -> bool {
                self.state_elements(0).is_some()
            }
        }

        /// The layouts of the parameters, in the order of `HeraldLayerDesc`'s fields.
        #[cfg(feature = "layout")]
        pub(crate) fn param_layouts() -> Vec<&'static abi_stable::type_layout::TypeLayout> {
            use abi_stable::StableAbi;
            let mut layouts =
                [$((std::mem::offset_of!(HeraldLayerDesc, $field), <abi::$raw as StableAbi>::LAYOUT)),*];
            layouts.sort_by_key(|(offset, _)| *offset);
            layouts.into_iter().map(|(_, layout)| layout).collect()
        }
    };
}

// Of each kind: its parameters (its file, which is also their field in HeraldLayerDesc, and their C struct), its number, and
// its name for people; and the same of other kinds that have the same parameters.
layer_kinds! {
    /// Token embeddings.
    Embedding(embedding, HeraldEmbedding) = HERALD_LAYER_EMBEDDING, "embedding";
    /// Self-attention with its norm.
    Attention(attention, HeraldAttention) = HERALD_LAYER_ATTENTION, "attention",
        or /// Self-attention within chunks of a sequence.
        ChunkedAttention = HERALD_LAYER_CHUNKED_ATTENTION, "chunked attention",
        or /// Self-attention to all tokens of a sequence, also later ones.
        BidirectionalAttention = HERALD_LAYER_BIDIRECTIONAL_ATTENTION, "bidirectional attention";
    /// A feed-forward network with its norm.
    Mlp(mlp, HeraldMlp) = HERALD_LAYER_MLP, "mlp";
    /// The final norm and the product with the output matrix.
    Head(head, HeraldHead) = HERALD_LAYER_HEAD, "head";
    /// A selective state space with its norm (Mamba).
    Mamba1(mamba1, HeraldMamba1) = HERALD_LAYER_MAMBA1, "mamba1";
    /// The same with a scalar decay for each head (Mamba-2).
    Mamba2(mamba2, HeraldMamba2) = HERALD_LAYER_MAMBA2, "mamba2";
    /// A gated short convolution with its norm (LFM2).
    ShortConv(short_conv, HeraldShortConv) = HERALD_LAYER_SHORT_CONV, "short convolution";
    /// A mixture of feed-forward networks with its norm.
    Moe(moe, HeraldMoe) = HERALD_LAYER_MOE, "mixture of experts";
    /// Linear attention by the gated delta rule with its norm.
    DeltaNet(delta_net, HeraldDeltaNet) = HERALD_LAYER_DELTA_NET, "delta net";
    /// What a block adds for the token itself.
    PerLayerEmbedding(per_layer_embedding, HeraldPerLayerEmbedding) = HERALD_LAYER_PER_LAYER_EMBEDDING, "per-layer embedding";
}

impl LayerParams {
    /// Whether a layer of this kind reads the tokens' ids.
    #[must_use]
    pub fn reads_tokens(&self) -> bool {
        matches!(self, Self::Embedding(_) | Self::PerLayerEmbedding(_))
    }
}

impl LayerKind {
    /// The kind with this number.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == code)
    }
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
    /// How finely its matmuls may represent activations.
    pub activations: ActivationPrecision,
    /// What is particular to its kind.
    pub params: LayerParams,
}

impl LayerDesc {
    /// The layer's kind.
    #[must_use]
    pub fn kind(&self) -> LayerKind {
        self.params.kind()
    }

    /// The shape that a weight of this role must have, and whether it must be there; `None` where the layer has no such
    /// weight.
    #[must_use]
    pub fn weight_shape(&self, role: WeightRole) -> Option<WeightShape> {
        self.params.weight(self.hidden, role)
    }

    /// The shape of this role's weight where forward calls may bring low-rank updates of it ([`crate::Lora`]): the projections of
    /// attention that isn't latent, and of MLPs; `None` elsewhere.
    #[must_use]
    pub fn lora_shape(&self, role: WeightRole) -> Option<WeightShape> {
        use WeightRole::{AttentionOutput, Down, Gate, Key, Query, QueryAndGate, Up, Value};
        let takes = match &self.params {
            LayerParams::Attention(attention) => {
                attention.latent.is_none()
                    && matches!(role, Query | QueryAndGate | Key | Value | AttentionOutput)
            }
            LayerParams::Mlp(_) => matches!(role, Gate | Up | Down),
            _ => false,
        };
        self.weight_shape(role).filter(|_| takes)
    }

    /// Calls `body` with the description as C has it, which lives for the call.
    pub fn with_raw<T>(&self, body: impl FnOnce(&HeraldLayerDesc) -> T) -> T {
        let desc = HeraldLayerDesc {
            kind: self.kind() as u32,
            block: self.block as u32,
            hidden: self.hidden as u32,
            residual_scale: self.residual_scale,
            norm_eps: self.norm_eps,
            activations: self.activations as u32,
            ..AbiStruct::empty()
        };
        self.params.with_raw(desc, body)
    }

    /// The description from C.
    ///
    /// # Errors
    /// [`crate::Status::Unsupported`] for a kind or a constant that isn't known, [`crate::Status::InvalidArgument`] for a
    /// description that contradicts itself.
    ///
    /// # Safety
    /// As `HeraldLayerDesc` says.
    pub(crate) unsafe fn from_raw(desc: *const HeraldLayerDesc) -> Result<Self> {
        // SAFETY: the maker of HeraldLayerDesc guarantees the pointer, and `read` checks the struct.
        let raw = unsafe { abi::read(desc).map_err(Error::invalid)? };
        let kind = LayerKind::from_code(raw.kind).ok_or_else(|| {
            Error::unsupported(format!("layer kind {} is not known to this plugin", raw.kind))
        })?;
        // SAFETY: the maker of HeraldLayerDesc guarantees the pointers in it.
        let params = unsafe { LayerParams::from_raw(kind, &raw)? };
        if raw.hidden == 0 {
            return Err(Error::invalid("the layer's hidden size is 0"));
        }
        Ok(Self {
            block: raw.block as usize,
            hidden: raw.hidden as usize,
            residual_scale: raw.residual_scale,
            norm_eps: raw.norm_eps,
            activations: ActivationPrecision::from_code(raw.activations),
            params,
        })
    }
}

/// A flag from C.
fn flag(value: u32, what: &str) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::unsupported(format!("{what} is {other}, where 0 or 1 was expected"))),
    }
}
