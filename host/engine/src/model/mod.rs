//! From a model file's metadata to a list of layers.
//!
//! An architecture is one small file in `arch/` that turns metadata into layer descriptions; adding one is adding a
//! file there and a line to its table.

mod arch;
mod attention;
mod experts;
mod keys;
mod latent;
mod mtp;
mod parts;
mod rank;
mod recurrent;
mod scales;
mod shapes;

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use herald_api::{ActivationPrecision, LayerDesc, LayerParams, Mask, WeightRole};

use crate::gguf::{Gguf, GgufError};

pub use arch::names as architectures;
pub use keys::Keys;
pub use mtp::Fusion;

/// A layer, and the tensors that it is made of.
#[derive(Clone, Debug)]
pub struct LayerPlan {
    /// Its description.
    pub desc: LayerDesc,
    /// Its weights.
    pub weights: Vec<WeightPlan>,
    /// Whether it reads the same input as the layer before it: two parallel branches that add to one output.
    pub shares_input: bool,
    /// The earlier layer whose pages of keys and values it reads, where it has none of its own.
    pub pages_of: Option<usize>,
}

/// A weight of a layer.
#[derive(Clone, Debug)]
pub struct WeightPlan {
    /// What the layer uses it for.
    pub role: WeightRole,
    /// The name of its tensor.
    pub tensor: String,
    /// The rows that it takes of the tensor, or the elements, where the tensor has one dimension; `None`: all.
    pub rows: Option<Range<usize>>,
}

/// A model as a list of layers: the embedding first, the head last.
#[derive(Clone, Debug)]
pub struct ModelPlan {
    /// The architecture, as `general.architecture` names it.
    pub architecture: String,
    /// Elements of a token's activations.
    pub hidden: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// The context that the model was trained for, in tokens.
    pub context: usize,
    /// Its blocks.
    pub blocks: usize,
    /// Its layers in order.
    pub layers: Vec<LayerPlan>,
    /// Tensors that the architecture has and this model has no use for.
    pub ignored_tensors: Vec<String>,
    /// Weights that are no tensors: numbers of the metadata, or what the architecture itself prescribes. By the names that layers
    /// know them by.
    pub constants: BTreeMap<String, Vec<f32>>,
    /// Matrices that are multiplied by the factors in another tensor: one, or one for each expert. By their names.
    pub scales: BTreeMap<String, String>,
    /// How the file says that a text's embedding is made of its tokens'; `None`: it doesn't say.
    pub pooling: Option<Pooling>,
    /// Of a model that gives embeddings, the norm before pooling, as a head without a matrix; `None`: the last layer's results are
    /// pooled as they are.
    pub pooled_norm: Option<LayerPlan>,
    /// Matrices that a pooled vector goes through, one after another (EmbeddingGemma), as heads without a norm.
    pub dense: Vec<LayerPlan>,
    /// Of a model that ranks documents by a query, what makes a score of a pooled vector, in order; of others nothing.
    pub rank: Vec<RankStep>,
    /// The block that predicts the token after the next (multi-token prediction), where the file has one that can be used.
    pub mtp: Option<Box<ModelPlan>>,
    /// Of such a block, how the inputs of its layers are made.
    pub fusion: Option<Fusion>,
}

/// A step from a pooled vector to a score, which is the first element after the last step.
#[derive(Clone, Debug)]
pub enum RankStep {
    /// A norm or a matrix with its bias, as a head.
    Layer(Box<LayerPlan>),
    /// The hyperbolic tangent of each element.
    Tanh,
    /// GELU of each element.
    Gelu,
    /// The elements as probabilities.
    Softmax,
}

impl ModelPlan {
    /// Whether the model gives logits: it has an output head.
    #[must_use]
    pub fn has_head(&self) -> bool {
        self.layers.last().is_some_and(|layer| matches!(layer.desc.params, LayerParams::Head(_)))
    }

    /// The first of the last layers in which no token reads another's: what such a layer makes of a token depends on that token alone.
    #[must_use]
    pub fn tail(&self) -> usize {
        use LayerParams::{Head, Mlp, Moe, PerLayerEmbedding};
        let alone =
            |layer: &LayerPlan| matches!(layer.desc.params, Mlp(_) | Moe(_) | PerLayerEmbedding(_) | Head(_));
        self.layers.iter().rposition(|layer| !alone(layer)).map_or(0, |last| last + 1)
    }

    /// How finely matmuls with quantised weights represent activations where nobody says: in 8 bits, whose predictions are closer to
    /// the exact ones than those of other engines' 8 bits, and in 16 where the model embeds or ranks: vectors are kept, and compared
    /// with those that other software made of the same model.
    #[must_use]
    pub fn usual_activations(&self) -> ActivationPrecision {
        let generates = self.has_head() && self.pooling.is_none() && self.rank.is_empty();
        if generates { ActivationPrecision::Int8 } else { ActivationPrecision::Int16 }
    }

    /// Whether tokens attend to later ones, so that a text is run as a whole.
    #[must_use]
    pub fn is_bidirectional(&self) -> bool {
        self.layers.iter().any(|layer| match &layer.desc.params {
            LayerParams::Attention(attention) => attention.mask == Mask::Bidirectional,
            _ => false,
        })
    }
}

/// How a text's embedding is made of the hidden states of its tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
}

/// Why a file is no model that HERALD can run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file's metadata has a value of the wrong kind.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A key is missing that every model of the architecture has.
    #[error("the model has no {key}, where {expected} was expected")]
    MissingKey {
        /// The key.
        key: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A value that no model can have.
    #[error("the model's {key} is {value}, where {expected} was expected")]
    BadKey {
        /// The key.
        key: String,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: String,
    },
    /// The architecture is unknown.
    #[error("the model's architecture is {found:?}, where one of these was expected: {known}")]
    UnknownArchitecture {
        /// What the file says.
        found: String,
        /// The ones that HERALD runs.
        known: String,
    },
    /// A tensor is missing that the model needs.
    #[error("the model has no tensor {0}, which its architecture needs")]
    MissingTensor(String),
    /// A tensor whose shape contradicts the metadata.
    #[error("the tensor {tensor} is {found}, where {expected} was expected for {because}")]
    Contradiction {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: String,
        /// The shape that the metadata asks for.
        expected: String,
        /// The metadata that asks for it.
        because: String,
    },
    /// A key that the architecture doesn't know. Computing without it could give wrong results.
    #[error(
        "the model's {key} is {value}, which HERALD's {architecture} architecture doesn't compute with: its results could \
         be wrong without"
    )]
    UnknownKey {
        /// The key.
        key: String,
        /// What it holds.
        value: String,
        /// The architecture.
        architecture: String,
    },
    /// A tensor that the architecture doesn't know. Computing without it would give wrong results.
    #[error("the model has the tensor {name}, which HERALD's {architecture} architecture has no place for")]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The architecture.
        architecture: String,
    },
}

/// The tensors that layers are made of, where all are there and have the shapes that the metadata asks for.
fn check_weights<'p>(
    keys: &Keys<'_>,
    gguf: &Gguf,
    constants: &BTreeMap<String, Vec<f32>>,
    layers: impl Iterator<Item = &'p LayerPlan>,
) -> Result<HashSet<&'p str>, ModelError> {
    let mut used = HashSet::new();
    for layer in layers {
        for weight in &layer.weights {
            if constants.contains_key(&weight.tensor) {
                continue;
            }
            let Some(tensor) = gguf.tensor(&weight.tensor) else {
                return Err(ModelError::MissingTensor(weight.tensor.clone()));
            };
            shapes::check(keys, &layer.desc, weight, tensor)?;
            used.insert(weight.tensor.as_str());
        }
    }
    Ok(used)
}

/// Reads what a model is made of.
///
/// # Errors
/// One sentence that names the key or the tensor, what it holds, and what was expected.
pub fn plan(gguf: &Gguf) -> Result<ModelPlan, ModelError> {
    let keys = Keys::new(gguf)?;
    let mut plan = arch::plan(&keys)?;
    plan.mtp = arch::mtp(&keys).and_then(|build| mtp::plan(&keys, gguf, build));
    if let Some((key, value)) = keys.unread() {
        return Err(ModelError::UnknownKey { key, value, architecture: plan.architecture });
    }
    let of_rank = plan.rank.iter().filter_map(RankStep::layer);
    let layers = plan.layers.iter().chain(&plan.pooled_norm).chain(&plan.dense).chain(of_rank);
    let mut used = check_weights(&keys, gguf, &plan.constants, layers)?;
    let scales = scales::find(gguf, &used)?;
    used.extend(scales.values().map(String::as_str));
    // Some files store RoPE's frequencies, which are computed anyway.
    let is_rope_table =
        |name: &str| name.ends_with(".attn_rot_embd") || name.ends_with(".rotary_emb.inv_freq");
    // What activations would be multiplied by to be NVFP4 too, which here they aren't.
    let is_of_activations = |name: &str| {
        name.strip_suffix(".input_scale").is_some_and(|stem| gguf.tensor(&format!("{stem}.weight")).is_some())
    };
    let is_ignored = |name: &str| {
        is_rope_table(name)
            || is_of_activations(name)
            || plan.ignored_tensors.iter().any(|ignored| ignored == name)
    };
    let unknown = gguf.tensors().find(|tensor| !used.contains(tensor.name()) && !is_ignored(tensor.name()));
    match unknown {
        None => {
            plan.scales = scales;
            Ok(plan)
        }
        Some(tensor) => {
            Err(ModelError::UnknownTensor { name: tensor.name().to_owned(), architecture: plan.architecture })
        }
    }
}
