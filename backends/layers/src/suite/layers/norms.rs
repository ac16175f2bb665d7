//! The norms at both ends of a residual branch, of every kind that layers may have.

use herald_api::WeightRole;
use ndarray::Array1;

use super::super::reference::Approx;
use super::order::Weights;

/// A norm of whole rows.
pub(super) enum RowNorm {
    Rms(Array1<f64>),
    Layer(Array1<f64>, Option<Array1<f64>>),
    /// No norm: a factor for each element.
    Scale(Array1<f64>),
}

impl RowNorm {
    /// A layer norm, half of the time with a bias.
    pub(super) fn layer(weights: &mut Weights, role: WeightRole, bias: WeightRole, len: usize) -> Self {
        let weight = weights.norm(role, len);
        Self::Layer(weight, weights.perhaps(|weights| weights.vector(bias, len, [-0.5, 0.5])))
    }

    /// Of a head: an RMS norm, a layer norm or a scale.
    pub(super) fn of_head(weights: &mut Weights, len: usize) -> Self {
        if weights.values.below(4) == 0 {
            return Self::Scale(weights.norm(WeightRole::InputScale, len));
        }
        Self::either(weights, len)
    }

    /// An RMS norm or a layer norm.
    pub(super) fn either(weights: &mut Weights, len: usize) -> Self {
        if weights.values.coin() {
            return Self::layer(weights, WeightRole::LayerNorm, WeightRole::LayerNormBias, len);
        }
        Self::Rms(weights.norm(WeightRole::Norm, len))
    }

    pub(super) fn apply(&self, x: &Approx, eps: f64) -> Approx {
        match self {
            Self::Rms(weight) => x.rms_norm(weight, eps),
            Self::Layer(weight, bias) => x.layer_norm(weight, bias.as_ref(), eps),
            Self::Scale(weight) => x.times(&Approx::exact(
                weight.broadcast(x.value.dim()).map_or_else(|| x.value.clone(), |weight| weight.to_owned()),
            )),
        }
    }
}

/// The norms of a branch.
pub(super) struct BranchNorms {
    entry: Option<RowNorm>,
    /// Of the branch alone.
    post: Option<Array1<f64>>,
    /// Of residual and branch together.
    sum: Option<RowNorm>,
}

impl BranchNorms {
    pub(super) fn random(weights: &mut Weights, hidden: usize) -> Self {
        let (mut post, mut sum) = (None, None);
        match weights.values.below(4) {
            0 | 1 => {}
            2 => post = Some(weights.norm(WeightRole::PostNorm, hidden)),
            _ => {
                let [role, bias] = [WeightRole::ResidualNorm, WeightRole::ResidualNormBias];
                sum = Some(RowNorm::layer(weights, role, bias, hidden));
            }
        }
        let may_lack = post.is_some() || sum.is_some();
        let entry = match weights.values.below(8) {
            0 => Some(RowNorm::Scale(weights.norm(WeightRole::InputScale, hidden))),
            1..4 if may_lack => None,
            _ => Some(RowNorm::either(weights, hidden)),
        };
        Self { entry, post, sum }
    }

    /// What the branch reads.
    pub(super) fn enter(&self, x: &Approx, eps: f64) -> Approx {
        self.entry.as_ref().map_or_else(|| x.clone(), |norm| norm.apply(x, eps))
    }

    /// What becomes of what the branch is added to.
    pub(super) fn leave(&self, before: &Approx, branch: &Approx, scale: f64, eps: f64) -> Approx {
        let branch = self.post.as_ref().map_or_else(|| branch.clone(), |norm| branch.rms_norm(norm, eps));
        let sum = before.plus(&branch.scale(scale));
        self.sum.as_ref().map_or_else(|| sum.clone(), |norm| norm.apply(&sum, eps))
    }
}
