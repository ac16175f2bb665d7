//! The projections of latent attention in float64 (DeepSeek-V2, arXiv 2405.04434).

use herald_api::{Attention, LatentAttention, WeightRole};
use ndarray::{Array1, Axis, concatenate};

use super::super::reference::{Approx, Rotation};
use super::super::weights::Matrix;
use super::order::Weights;

/// What makes queries, keys and values.
pub(super) struct Latent {
    params: Attention,
    sizes: LatentAttention,
    query_down: Option<(Matrix, Array1<f64>)>,
    query: Matrix,
    key: Matrix,
    norm: Array1<f64>,
    /// Head by head.
    key_up: Vec<Matrix>,
    /// Head by head.
    value_up: Vec<Matrix>,
}

/// Columns of one matrix after those of another.
fn beside(parts: &[Approx]) -> Approx {
    let of = |part: &dyn Fn(&Approx) -> ndarray::Array2<f64>| {
        let parts: Vec<_> = parts.iter().map(part).collect();
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(1), &views).expect("as many rows")
    };
    Approx { value: of(&|part| part.value.clone()), error: of(&|part| part.error.clone()) }
}

impl Latent {
    pub(super) fn random(
        hidden: usize,
        params: &Attention,
        sizes: LatentAttention,
        weights: &mut Weights,
    ) -> Self {
        let Attention { n_heads, key_dim, value_dim: rank, .. } = *params;
        let width = sizes.key_dim + key_dim - rank;
        let query_down = sizes.query_rank.map(|rank| {
            (
                weights.matrix(WeightRole::QueryDown, rank, hidden),
                weights.norm(WeightRole::QueryDownNorm, rank),
            )
        });
        let query = weights.matrix(WeightRole::Query, n_heads * width, sizes.query_rank.unwrap_or(hidden));
        let key = weights.matrix(WeightRole::Key, key_dim, hidden);
        let norm = weights.norm(WeightRole::LatentNorm, rank);
        let mut of_heads = |role, rows: usize, columns| {
            let all = weights.matrix(role, n_heads * rows, columns);
            let part = |head: usize| all.rows(head * rows..(head + 1) * rows);
            (0..n_heads).map(part).collect()
        };
        let key_up = of_heads(WeightRole::KeyUp, rank, sizes.key_dim);
        let value_up = of_heads(WeightRole::ValueUp, sizes.value_dim, rank);
        Self { params: params.clone(), sizes, query_down, query, key, norm, key_up, value_up }
    }

    /// The rotated queries, and the keys and values as a page keeps them, of normed tokens.
    pub(super) fn heads(&self, x: &Approx, rotation: &Rotation, eps: f64, positions: &[u32]) -> [Approx; 3] {
        let Attention { n_heads, key_dim, value_dim: rank, .. } = self.params;
        let projected = x.multiply(&self.key, None);
        let latent = projected.columns(0..rank).rms_norm(&self.norm, eps);
        let key = beside(&[projected.columns(rank..key_dim), latent.clone()]);
        let low = match &self.query_down {
            Some((down, norm)) => x.multiply(down, None).rms_norm(norm, eps),
            None => x.clone(),
        };
        let queries = low.multiply(&self.query, None);
        let (own, width) = (self.sizes.key_dim, self.sizes.key_dim + key_dim - rank);
        let heads: Vec<_> = (0..n_heads)
            .flat_map(|head| {
                let at = head * width;
                let absorbed = queries.columns(at..at + own).multiply(&self.key_up[head], None);
                [queries.columns(at + own..at + width), absorbed]
            })
            .collect();
        [
            beside(&heads).rotate(rotation, key_dim, positions),
            key.rotate(rotation, key_dim, positions).quantize_i16(key_dim),
            latent.quantize_i16(rank),
        ]
    }

    /// Each head's value of the latents that it attended to.
    pub(super) fn values(&self, attended: &Approx) -> Approx {
        let rank = self.params.value_dim;
        let of = |head: usize| {
            attended.columns(head * rank..(head + 1) * rank).multiply(&self.value_up[head], None)
        };
        beside(&(0..self.params.n_heads).map(of).collect::<Vec<_>>())
    }
}
