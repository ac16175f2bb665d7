//! Models that rank: pooling type 4 in GGUF. What makes a score of a pooled vector is named as llama.cpp names it: `cls`, a dense
//! layer with an activation and maybe a norm, and `cls.output`, the scores.

use herald_api::{ActivationPrecision, Head, LayerDesc, LayerParams, WeightRole};

use super::parts::{Builder, whole};
use super::{Keys, LayerPlan, ModelError, Pooling, RankStep};

/// The pooling type of models that rank.
pub(super) const POOLING_TYPE: usize = 4;

/// The architecture whose dense layer has another activation, and whose vectors may be pooled otherwise.
const MODERN_BERT: &str = "modern-bert";

/// Language models that answer yes or no: what is pooled is the last token, and scores are probabilities.
const LANGUAGE_MODELS: [&str; 2] = ["qwen3", "qwen3vl"];

/// Whether a model ranks: its file says so, or has what makes scores. (Converters write no pooling type for most encoders.)
pub(super) fn is_asked_for(keys: &Keys<'_>) -> Result<bool, ModelError> {
    let says_so = keys.optional_count("pooling_type")? == Some(POOLING_TYPE);
    Ok(says_so || ["cls.weight", "cls.output.weight"].iter().any(|name| keys.has_tensor(name)))
}

/// The pooling that a model has by its `pooling_type` of 4.
pub(super) fn pooling(keys: &Keys<'_>) -> Result<Pooling, ModelError> {
    let architecture = keys.architecture();
    if LANGUAGE_MODELS.contains(&architecture) {
        return Ok(Pooling::Last);
    }
    if architecture != MODERN_BERT {
        return Ok(Pooling::Cls);
    }
    match keys.optional_count("classifier.pooling_type")? {
        None | Some(1) => Ok(Pooling::Mean),
        Some(2) => Ok(Pooling::Cls),
        Some(other) => {
            Err(keys.bad("classifier.pooling_type", other, "1 (mean) or 2 (the first token)".to_owned()))
        }
    }
}

impl RankStep {
    /// The layer that it is.
    #[must_use]
    pub fn layer(&self) -> Option<&LayerPlan> {
        match self {
            Self::Layer(layer) => Some(layer),
            Self::Tanh | Self::Gelu | Self::Softmax => None,
        }
    }
}

impl Builder<'_, '_> {
    /// The steps of a model that ranks, by the tensors that the file has.
    pub(super) fn rank_steps(&mut self) -> Result<Vec<RankStep>, ModelError> {
        // The names of what the scores are, which say nothing of how they are computed.
        self.keys.disregard(&["classifier.output_labels"]);
        let architecture = self.keys.architecture();
        let mut steps = Vec::new();
        let mut width = self.hidden;
        if self.keys.has_tensor("cls.weight") {
            steps.push(self.rank_matrix("cls", &mut width)?);
            steps.push(if architecture == MODERN_BERT { RankStep::Gelu } else { RankStep::Tanh });
            if self.keys.has_tensor("cls.norm.weight") {
                steps.push(RankStep::Layer(Box::new(self.pooled_norm("cls.norm.weight"))));
            }
        } else if architecture == "bert" {
            tracing::warn!(
                "the file has no cls.weight: if the model has a pooler, as BERT's classifiers do, the converter left it out, \
                 and scores are not the model's"
            );
        }
        if self.keys.has_tensor("cls.output.weight") {
            steps.push(self.rank_matrix("cls.output", &mut width)?);
        }
        if steps.is_empty() {
            return Err(ModelError::MissingTensor("cls.output.weight".to_owned()));
        }
        if LANGUAGE_MODELS.contains(&architecture) {
            steps.push(RankStep::Softmax);
        }
        Ok(steps)
    }

    /// A matrix with its bias, over a vector of `width` elements, which is then as wide as the result.
    fn rank_matrix(&mut self, name: &str, width: &mut usize) -> Result<RankStep, ModelError> {
        let (matrix, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let vocabulary = self.keys.rows(&matrix)?;
        let mut weights = vec![
            whole(WeightRole::InputScale, self.ones(name, *width)),
            whole(WeightRole::Embedding, matrix),
        ];
        if self.keys.has_tensor(&bias) {
            weights.push(whole(WeightRole::OutputBias, bias));
        }
        let desc = LayerDesc {
            block: self.blocks,
            hidden: std::mem::replace(width, vocabulary),
            residual_scale: 1.0,
            norm_eps: self.norm_eps,
            activations: ActivationPrecision::default(),
            params: LayerParams::Head(Head { vocabulary, scale: 1.0, softcap: None }),
        };
        let plan = LayerPlan { desc, weights, shares_input: false, pages_of: None };
        Ok(RankStep::Layer(Box::new(plan)))
    }
}
