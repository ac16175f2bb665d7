//! Multi-token prediction (DeepSeek-V3, arXiv 2412.19437): a block after a model's own that predicts the token after the next.
//!
//! With `h` what the model made of the token before, and `e` the embedding of a token:
//!
//! ```text
//! x = block(projection [norm(e); norm(h)])       logits of what follows the token = head(norm(x))
//! ```
//!
//! The head and the embedding are the model's own where the file has none for the block. Guesses go on from the block's own
//! states: `x` takes the place of `h`.

use super::parts::Builder;
use super::{Keys, LayerPlan, ModelError, ModelPlan, scales};
use crate::gguf::Gguf;

/// How a token's input is made of its embedding and of a state.
#[derive(Clone, Debug)]
pub struct Fusion {
    /// The embedding's norm, as a head without a matrix.
    pub embedding_norm: LayerPlan,
    /// The state's norm, as a head without a matrix.
    pub state_norm: LayerPlan,
    /// The matrix that both go through, side by side: as a head without a norm.
    pub projection: LayerPlan,
    /// What states are normed by before, the model's and the block's own, where they are those that the heads read; `None`: they are
    /// as the blocks leave them.
    pub heads_norms: Option<Box<[LayerPlan; 2]>>,
}

impl Fusion {
    /// Its layers.
    pub(crate) fn layers(&self) -> impl Iterator<Item = &LayerPlan> {
        let Self { embedding_norm, state_norm, projection, heads_norms } = self;
        [embedding_norm, state_norm, projection]
            .into_iter()
            .chain(heads_norms.iter().flat_map(|both| both.iter()))
    }
}

/// Which states a block for multi-token prediction reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum States {
    /// As the model's blocks leave them (DeepSeek, GLM).
    OfBlocks,
    /// As the model's head reads them (Qwen).
    OfHead,
}

impl<'k, 'g> Builder<'k, 'g> {
    /// A builder of the block after a model's own.
    pub(super) fn after_all(keys: &'k Keys<'g>) -> Result<Self, ModelError> {
        let mut model = Self::new(keys, |_| 1.0)?;
        let own = Self::tensor(model.blocks, "nextn.embed_tokens.weight");
        if keys.has_tensor(&own)
            && let Some(embedding) = model.last_layer().and_then(|layer| layer.weights.first_mut())
        {
            embedding.tensor = own;
        }
        model.blocks += 1;
        Ok(model)
    }

    /// The index of that block.
    pub(super) fn block_after(&self) -> usize {
        self.blocks - 1
    }

    /// Adds the head, and ends the block.
    pub(super) fn finish_after(mut self, states: States) -> Result<ModelPlan, ModelError> {
        let keys = self.keys();
        let block = self.block_after();
        let part = |name: &str| Self::tensor(block, &format!("nextn.{name}.weight"));
        let usual = |own: String, usual: &str| if keys.has_tensor(&own) { own } else { usual.to_owned() };
        let matrix = usual(part("shared_head_head"), self.output());
        let norm = usual(part("shared_head_norm"), "output_norm.weight");
        let fusion = Fusion {
            embedding_norm: self.pooled_norm(&part("enorm")),
            state_norm: self.pooled_norm(&part("hnorm")),
            projection: self.matrix(part("eh_proj"), 2 * self.hidden, self.hidden),
            heads_norms: (states == States::OfHead)
                .then(|| Box::new(["output_norm.weight", norm.as_str()].map(|norm| self.pooled_norm(norm)))),
        };
        let mut plan = self.finish_with(None, &norm, matrix)?;
        plan.fusion = Some(fusion);
        Ok(plan)
    }
}

/// The plan of a model's block for multi-token prediction, where it has one that can be used. `build` plans it.
pub(super) fn plan(
    keys: &Keys<'_>,
    gguf: &Gguf,
    build: fn(&Keys<'_>) -> Result<ModelPlan, ModelError>,
) -> Option<Box<ModelPlan>> {
    // Where there are several, the first predicts the token after the next, and its guesses go on from its own states.
    if !matches!(keys.count("nextn_predict_layers"), Ok(1..)) {
        return None;
    }
    match build(keys).and_then(|plan| checked(keys, gguf, plan)) {
        Ok(plan) => Some(Box::new(plan)),
        Err(error) => {
            tracing::info!("the block for multi-token prediction isn't used: {error}");
            None
        }
    }
}

/// The plan, with the factors of its matrices, where all of its weights are there and fit.
fn checked(keys: &Keys<'_>, gguf: &Gguf, mut plan: ModelPlan) -> Result<ModelPlan, ModelError> {
    let fusion = plan.fusion.as_ref().into_iter().flat_map(Fusion::layers);
    let used = super::check_weights(keys, gguf, &plan.constants, plan.layers.iter().chain(fusion))?;
    let scales = scales::find(gguf, &used)?;
    plan.scales = scales;
    Ok(plan)
}
