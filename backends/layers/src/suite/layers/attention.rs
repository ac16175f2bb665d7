//! Attention against softmax attention in float64, over whole sequences.

use herald_api::{Attention, LayerDesc, LayerParams, Mask, RopeKind, RopeScaling, WeightRole};
use ndarray::{Array1, Array2, s};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::Subject;
use super::super::bounds::{U, check_all};
use super::super::reference::{Approx, Rotation};
use super::super::softmax::{attention, score};
use super::super::values::Values;
use super::super::weights::Matrix;
use super::super::{ensure, property};
use super::batches::{Cut, Sequence, run};
use super::norms::BranchNorms;
use super::order::{Weights, activations, desc};

/// Tokens of a page, where sequences share one.
const PAGE: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) params: Attention,
    /// Tokens of each sequence.
    lens: Vec<usize>,
    /// The first sequence's position at its first token.
    position: u32,
    /// From each token's position to the next: what RoPE's slow pairs turn by shows over long distances only.
    stride: usize,
    pub(super) seed: u64,
}

fn scalings() -> impl Strategy<Value = RopeScaling> {
    prop_oneof![
        Just(RopeScaling::None),
        (1.0_f32..8.0).prop_map(|factor| RopeScaling::Linear { factor }),
        (1.0_f32..40.0, 16_u32..8192, 0.0_f32..1.5, 0.5_f32..1.5).prop_map(
            |(factor, original_context, ext_factor, attn_factor)| RopeScaling::Yarn {
                factor,
                original_context,
                ext_factor: if ext_factor > 1.0 { 0.0 } else { ext_factor },
                attn_factor,
                beta_fast: 32.0,
                beta_slow: 1.0,
            }
        ),
    ]
}

/// Shapes of causal attention.
pub(super) fn shapes() -> impl Strategy<Value = Shape> {
    masked_shapes(Mask::Causal)
}

fn masked_shapes(mask: Mask) -> impl Strategy<Value = Shape> {
    let dims = select(&[2_usize, 6, 16, 32][..]);
    let heads = (1_usize..4, 1_usize..4, dims, select(&[1_usize, 5, 16, 32][..]));
    let ropes = (
        select(&[RopeKind::None, RopeKind::Neighbours, RopeKind::Halves][..]),
        any::<prop::sample::Index>(),
        select(&[100.0_f32, 10_000.0, 1e6][..]),
        scalings(),
    );
    let scores = (
        select(&[None, Some(1_usize), Some(5), Some(100)][..]),
        select(&[None, Some(2.0_f32), Some(50.0)][..]),
    );
    let sequences = prop::collection::vec(1_usize..24, 1..4);
    let positions = (select(&[0_u32, 3, 1_000_000][..]), select(&[1_usize, 997][..]));
    let hidden = select(&[5_usize, 32, 96, 256][..]);
    (hidden, heads, ropes, scores, sequences, positions, any::<u64>()).prop_map(
        move |(hidden, heads, ropes, (window, softcap), lens, (position, stride), seed)| {
            let (n_kv_heads, group, key_dim, value_dim) = heads;
            let (rope, pairs, rope_base, rope_scaling) = ropes;
            let params = Attention {
                n_heads: n_kv_heads * group,
                n_kv_heads,
                key_dim,
                value_dim,
                // A chunk has a length.
                window: if mask == Mask::Chunked { window.or(Some(7)) } else { window },
                mask,
                rope,
                rope_dims: 2 * (1 + pairs.index(key_dim / 2)),
                rope_base,
                rope_scaling,
                softcap,
                scale: 1.5 / (key_dim as f32).sqrt(),
            };
            Shape { hidden, params, lens, position, stride, seed }
        },
    )
}

/// The norms of heads before and after RoPE.
struct HeadNorms {
    before: Option<Array1<f64>>,
    after: Option<Array1<f64>>,
}

impl HeadNorms {
    /// Before RoPE of each head by itself or of all as one, and sometimes after it.
    fn random(weights: &mut Weights, roles: [WeightRole; 2], key_dim: usize, heads: usize) -> Self {
        let len = weights.values.pick(&[key_dim, heads * key_dim]);
        let before = weights.perhaps(|weights| weights.norm(roles[0], len));
        let has_after = weights.values.below(4) == 0;
        Self { before, after: has_after.then(|| weights.norm(roles[1], key_dim)) }
    }
}

/// The layer in float64.
pub(super) struct Reference {
    pub(super) desc: LayerDesc,
    pub(super) params: Attention,
    norms: BranchNorms,
    query_norms: HeadNorms,
    key_norms: HeadNorms,
    temperature: Option<Array1<f64>>,
    query: (Matrix, Option<Array1<f64>>),
    key: (Matrix, Option<Array1<f64>>),
    value: (Matrix, Option<Array1<f64>>),
    output: (Matrix, Option<Array1<f64>>),
    pub(super) rotation: Rotation,
}

impl Reference {
    pub(super) fn random(hidden: usize, params: &Attention, weights: &mut Weights) -> Self {
        let Attention { n_heads, n_kv_heads, key_dim, value_dim, rope, rope_dims, .. } = *params;
        let desc = desc(hidden, LayerParams::Attention(params.clone()), &mut weights.values);
        let norms = BranchNorms::random(weights, hidden);
        let query_roles = [WeightRole::QueryNorm, WeightRole::RotatedQueryNorm];
        let query_norms = HeadNorms::random(weights, query_roles, key_dim, n_heads);
        let key_roles = [WeightRole::KeyNorm, WeightRole::RotatedKeyNorm];
        let key_norms = HeadNorms::random(weights, key_roles, key_dim, n_kv_heads);
        let has_temperature = weights.values.below(4) == 0;
        let temperature = has_temperature.then(|| weights.vector(WeightRole::Temperature, 3, [1.0, 7.0]));
        let mut biased = |role, bias, rows, columns| {
            let matrix = weights.matrix(role, rows, columns);
            (matrix, weights.perhaps(|weights| weights.vector(bias, rows, [-0.5, 0.5])))
        };
        let query = biased(WeightRole::Query, WeightRole::QueryBias, n_heads * key_dim, hidden);
        let key = biased(WeightRole::Key, WeightRole::KeyBias, n_kv_heads * key_dim, hidden);
        let value = biased(WeightRole::Value, WeightRole::ValueBias, n_kv_heads * value_dim, hidden);
        let output =
            biased(WeightRole::AttentionOutput, WeightRole::AttentionOutputBias, hidden, n_heads * value_dim);
        let factors = if rope == RopeKind::None {
            None
        } else {
            weights.perhaps(|weights| weights.vector(WeightRole::RopeFactors, rope_dims / 2, [1.0, 8.0]))
        };
        let rotation = Rotation::new(
            rope,
            rope_dims,
            f64::from(params.rope_base),
            params.rope_scaling,
            factors.as_ref(),
        );
        let params = params.clone();
        Self { desc, params, norms, query_norms, key_norms, temperature, query, key, value, output, rotation }
    }

    /// The rotated queries, and the keys and values as a page keeps them, of tokens.
    pub(super) fn heads(&self, x: &Approx, positions: &[u32]) -> [Approx; 3] {
        let Attention { key_dim, value_dim, .. } = self.params;
        let eps = f64::from(self.desc.norm_eps);
        let x = self.norms.enter(x, eps);
        let product =
            |(matrix, bias): &(Matrix, Option<Array1<f64>>), x: &Approx| x.multiply(matrix, bias.as_ref());
        let normed = |x: Approx, norm: &Option<Array1<f64>>| {
            let width = x.value.ncols();
            match norm {
                Some(norm) => x.rows_of(norm.len()).rms_norm(norm, eps).rows_of(width),
                None => x,
            }
        };
        let heads = |x: Approx, norms: &HeadNorms| {
            let rotated = normed(x, &norms.before).rotate(&self.rotation, key_dim, positions);
            normed(rotated, &norms.after)
        };
        let mut queries = heads(product(&self.query, &x), &self.query_norms);
        if let Some(numbers) = &self.temperature {
            let factor = |token: usize| {
                let step = ((f64::from(positions[token]) + numbers[2]) / numbers[1]).floor();
                1.0 + numbers[0] * step.ln_1p()
            };
            let all = Array2::from_shape_fn(queries.value.dim(), |(token, _)| factor(token));
            let mut factors = Approx::exact(all);
            factors.error = factors.value.mapv(|factor| factor * U);
            queries = queries.times(&factors);
        }
        [
            queries,
            heads(product(&self.key, &x), &self.key_norms).quantize_i16(key_dim),
            product(&self.value, &x).quantize_i16(value_dim),
        ]
    }

    /// The tokens that one of a sequence attends to.
    fn seen(&self, token: usize, n_tokens: usize) -> std::ops::Range<usize> {
        let Attention { window, mask, .. } = self.params;
        match (mask, window) {
            (Mask::Bidirectional, Some(window)) => {
                token.saturating_sub(window / 2)..n_tokens.min(token + window / 2 + 1)
            }
            (Mask::Bidirectional, None) => 0..n_tokens,
            (Mask::Chunked, Some(chunk)) => token - token % chunk..token + 1,
            (_, window) => window.map_or(0, |window| (token + 1).saturating_sub(window))..token + 1,
        }
    }

    /// What a whole sequence attends to.
    fn attended(&self, x: &Approx, positions: &[u32]) -> Approx {
        let Attention { n_heads, n_kv_heads, key_dim, value_dim, scale, softcap, .. } = self.params;
        let n_tokens = positions.len();
        let [q, k, v] = self.heads(x, positions);
        let mut attended = Approx::exact(Array2::zeros((n_tokens, n_heads * value_dim)));
        for token in 0..n_tokens {
            let slots = self.seen(token, n_tokens);
            for head in 0..n_heads {
                let kv_head = head / (n_heads / n_kv_heads);
                let of = |x: &Approx, token: usize, head: usize| {
                    let part = s![token, head * key_dim..(head + 1) * key_dim];
                    [x.value.slice(part).to_owned(), x.error.slice(part).to_owned()]
                };
                let query = of(&q, token, head);
                let scores: Vec<_> = slots
                    .clone()
                    .map(|slot| {
                        let key = of(&k, slot, kv_head);
                        let [query, key] = [&query, &key].map(|[value, error]| [value.view(), error.view()]);
                        score(query, key, 0.0, f64::from(scale), softcap.map(f64::from))
                    })
                    .collect();
                let seen = s![slots.clone(), kv_head * value_dim..(kv_head + 1) * value_dim];
                // At most a tile for each slot.
                let sums = attention(&scores, v.value.slice(seen), v.error.slice(seen), None, scores.len());
                for (column, sum) in sums.into_iter().enumerate() {
                    attended.value[[token, head * value_dim + column]] = sum.value;
                    attended.error[[token, head * value_dim + column]] = sum.bound;
                }
            }
        }
        attended
    }

    /// What becomes of `before` with what was attended to.
    pub(super) fn leave(&self, before: &Approx, attended: &Approx) -> Approx {
        let branch = attended.multiply(&self.output.0, self.output.1.as_ref());
        let [scale, eps] = [self.desc.residual_scale, self.desc.norm_eps].map(f64::from);
        self.norms.leave(before, &branch, scale, eps)
    }
}

pub(super) fn check(plugin: &Subject<'_>, mask: Mask) {
    let name = format!("{}: {mask:?} attention", plugin.name());
    property(&name, 100, masked_shapes(mask), |shape| {
        let mut weights = Weights::new(plugin.kernels, shape.seed);
        let reference = Reference::random(shape.hidden, &shape.params, &mut weights);
        let mut sequences = sequences(&shape, &mut weights.values);
        if mask == Mask::Bidirectional {
            // Their first tokens see the others.
            sequences.iter_mut().for_each(|sequence| sequence.shared = 0);
        }
        let float64 = |x: &[f32]| {
            let x: Vec<f64> = x.iter().copied().map(f64::from).collect();
            Approx::exact(
                Array2::from_shape_vec((x.len() / shape.hidden, shape.hidden), x).expect("whole rows"),
            )
        };
        let attended: Vec<Approx> = sequences
            .iter()
            .map(|sequence| reference.attended(&float64(&sequence.x), &sequence.positions))
            .collect();
        // Where tokens see later ones, all come at once.
        let cuts = cuts(&sequences, &mut weights.values);
        for cut in cuts.into_iter().filter(|cut| mask != Mask::Bidirectional || cut.piece == usize::MAX) {
            let results = run(plugin, &reference.desc, &shape.params, &weights.shared, &sequences, cut)
                .map_err(|error| TestCaseError::fail(format!("{cut:?}: {error}")))?;
            for ((sequence, attended), results) in sequences.iter().zip(&attended).zip(results) {
                let before = if cut.in_place { &sequence.x } else { &sequence.residual };
                let expected = reference.leave(&float64(before), attended);
                let tokens = sequence.shared..sequence.positions.len();
                ensure(results.len() == tokens.len() * shape.hidden, || {
                    format!("{cut:?}: tokens are missing")
                })?;
                for (token, results) in tokens.zip(results.chunks_exact(shape.hidden)) {
                    let what = format!("{cut:?}: token {token} of {}", sequence.positions.len());
                    check_all(&what, results, expected.row(token))?;
                }
            }
        }
        Ok(())
    });
}

/// Sequences of the shape's lengths. Some begin with tokens of the first one.
fn sequences(shape: &Shape, values: &mut Values) -> Vec<Sequence> {
    let mut sequences: Vec<Sequence> = Vec::new();
    for (index, len) in shape.lens.iter().copied().enumerate() {
        let first_position = shape.position + 17 * index as u32;
        let mut sequence = Sequence {
            x: activations(len, shape.hidden, values).0,
            residual: activations(len, shape.hidden, values).0,
            positions: (first_position..).step_by(shape.stride).take(len).collect(),
            shared: 0,
        };
        if let Some(first) = sequences.first().filter(|_| values.coin()) {
            let shared = values.below(first.positions.len().min(len - 1) / PAGE + 1) * PAGE;
            sequence.shared = shared;
            sequence.x[..shared * shape.hidden].copy_from_slice(&first.x[..shared * shape.hidden]);
            sequence.positions = (first.positions[0]..).step_by(shape.stride).take(len).collect();
        }
        sequences.push(sequence);
    }
    sequences
}

/// All at once, one by one, and in pieces of seven, each with the rest at random.
fn cuts(sequences: &[Sequence], values: &mut Values) -> Vec<Cut> {
    // Shared tokens fill whole pages.
    let shares = sequences.iter().any(|sequence| sequence.shared > 0);
    let pages = [PAGE, PAGE / 2, 1, 64];
    [usize::MAX, 1, 7]
        .map(|piece| Cut {
            piece,
            stagger: if piece == usize::MAX { 0 } else { values.below(4) },
            page_tokens: values.pick(if shares { &pages[..3] } else { &pages }),
            workers: 1 + values.below(3),
            in_place: values.coin(),
            evict: values.coin(),
        })
        .to_vec()
}
