//! Attention against softmax attention in float64, over whole sequences.

use herald_api::{
    Attention, LatentAttention, LayerDesc, LayerParams, Mask, RopeKind, RopeScaling, WeightRole,
};
use ndarray::{Array1, Array2, s};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::Subject;
use super::super::bounds::{Expected, U, check_all};
use super::super::reference::{Approx, Rotation};
use super::super::softmax::{Score, attention, score};
use super::super::values::Values;
use super::super::weights::Matrix;
use super::super::{ensure, property};
use super::batches::{Cut, Sequence, run};
use super::latent::Latent;
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
        (1.0_f32..40.0, 16_u32..8192, 0.0_f32..1.5, 0.5_f32..1.5, any::<bool>()).prop_map(
            |(factor, original_context, ext_factor, attn_factor, whole_pairs)| RopeScaling::Yarn {
                whole_pairs,
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
    let latent = (select(&[1_usize, 6, 16][..]), select(&[1_usize, 5, 32][..]), select(&[None, Some(8)][..]));
    let heads = (heads, prop::option::weighted(0.25, latent));
    (hidden, heads, ropes, scores, sequences, positions, any::<u64>()).prop_map(
        move |(hidden, heads, ropes, (window, softcap), lens, (position, stride), seed)| {
            let ((n_kv_heads, group, key_dim, value_dim), latent) = heads;
            let latent = latent.map(|(key_dim, value_dim, query_rank)| LatentAttention {
                key_dim,
                value_dim,
                query_rank,
            });
            let n_heads = n_kv_heads * group;
            // What carries the position is the whole key, or what a latent follows.
            let turned = key_dim;
            let (n_kv_heads, key_dim) = match latent {
                Some(_) => (1, turned + value_dim),
                None => (n_kv_heads, key_dim),
            };
            let (rope, pairs, rope_base, rope_scaling) = ropes;
            let params = Attention {
                n_heads,
                n_kv_heads,
                key_dim,
                value_dim,
                // A chunk has a length.
                window: if mask == Mask::Chunked { window.or(Some(7)) } else { window },
                mask,
                rope,
                rope_dims: 2 * (1 + pairs.index(turned / 2)),
                rope_base,
                rope_scaling,
                softcap,
                latent,
                shares_kv: false,
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
    sinks: Option<Array1<f64>>,
    inputs: Inputs,
    output: Biased,
    pub(super) rotation: Rotation,
}

type Biased = (Matrix, Option<Array1<f64>>);

/// What makes queries, keys and values.
enum Inputs {
    Heads(Heads),
    Latent(Latent),
}

struct Heads {
    query_norms: HeadNorms,
    key_norms: HeadNorms,
    temperature: Option<Array1<f64>>,
    value_norm: Option<Array1<f64>>,
    query: Biased,
    /// Whether `query` has after the rows of each head's queries as many of its gate.
    is_gated: bool,
    key: Biased,
    value: Biased,
}

impl Heads {
    fn random(hidden: usize, params: &Attention, weights: &mut Weights) -> Self {
        let Attention { n_heads, n_kv_heads, key_dim, value_dim, .. } = *params;
        let query_roles = [WeightRole::QueryNorm, WeightRole::RotatedQueryNorm];
        let query_norms = HeadNorms::random(weights, query_roles, key_dim, n_heads);
        let key_roles = [WeightRole::KeyNorm, WeightRole::RotatedKeyNorm];
        let key_norms = HeadNorms::random(weights, key_roles, key_dim, n_kv_heads);
        let has_temperature = weights.values.below(4) == 0;
        let temperature = has_temperature.then(|| weights.vector(WeightRole::Temperature, 3, [1.0, 7.0]));
        let value_norm = weights.perhaps(|weights| weights.norm(WeightRole::ValueNorm, value_dim));
        let is_gated = key_dim == value_dim && weights.values.coin();
        let mut biased = |role, bias, rows| biased(weights, role, bias, [rows, hidden]);
        let query = if is_gated {
            biased(WeightRole::QueryAndGate, None, 2 * n_heads * key_dim)
        } else {
            biased(WeightRole::Query, Some(WeightRole::QueryBias), n_heads * key_dim)
        };
        let key = biased(WeightRole::Key, Some(WeightRole::KeyBias), n_kv_heads * key_dim);
        let value = biased(WeightRole::Value, Some(WeightRole::ValueBias), n_kv_heads * value_dim);
        Self { query_norms, key_norms, temperature, value_norm, query, is_gated, key, value }
    }

    /// Of normed tokens the queries before their norm (`part` 0), or the gates (1).
    fn queries(&self, params: &Attention, x: &Approx, part: usize) -> Approx {
        let (matrix, bias) = &self.query;
        let all = x.multiply(matrix, bias.as_ref());
        if !self.is_gated {
            return all;
        }
        let dim = params.key_dim;
        let columns =
            (0..params.n_heads * dim).map(|column| column / dim * 2 * dim + part * dim + column % dim);
        all.pick(&columns.collect::<Vec<_>>())
    }

    /// What the temperature makes of queries.
    fn warm(&self, queries: Approx, positions: &[u32]) -> Approx {
        let Some(numbers) = &self.temperature else { return queries };
        let factor = |token: usize| {
            let step = ((f64::from(positions[token]) + numbers[2]) / numbers[1]).floor();
            1.0 + numbers[0] * step.ln_1p()
        };
        let all = Array2::from_shape_fn(queries.value.dim(), |(token, _)| factor(token));
        let mut factors = Approx::exact(all);
        factors.error = factors.value.mapv(|factor| factor * U);
        queries.times(&factors)
    }
}

fn biased(
    weights: &mut Weights,
    role: WeightRole,
    bias: Option<WeightRole>,
    [rows, columns]: [usize; 2],
) -> Biased {
    let matrix = weights.matrix(role, rows, columns);
    let bias = bias.and_then(|bias| weights.perhaps(|weights| weights.vector(bias, rows, [-0.5, 0.5])));
    (matrix, bias)
}

impl Reference {
    pub(super) fn random(hidden: usize, params: &Attention, weights: &mut Weights) -> Self {
        let Attention { n_heads, value_dim, rope, rope_dims, .. } = *params;
        let desc = desc(hidden, LayerParams::Attention(params.clone()), &mut weights.values);
        let norms = BranchNorms::random(weights, hidden);
        let (inputs, bias, value_dim) = match params.latent {
            Some(sizes) => {
                let latent = Latent::random(hidden, params, sizes, weights);
                (Inputs::Latent(latent), None, sizes.value_dim)
            }
            None => {
                let heads = Heads::random(hidden, params, weights);
                (Inputs::Heads(heads), Some(WeightRole::AttentionOutputBias), value_dim)
            }
        };
        let output = biased(weights, WeightRole::AttentionOutput, bias, [hidden, n_heads * value_dim]);
        let sinks = match inputs {
            Inputs::Latent(_) => None,
            Inputs::Heads(_) => {
                weights.perhaps(|weights| weights.vector(WeightRole::AttentionSinks, n_heads, [-3.0, 3.0]))
            }
        };
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
        Self { sinks, desc, params, norms, inputs, output, rotation }
    }

    /// The rotated queries, and the keys and values as a page keeps them, of tokens.
    pub(super) fn heads(&self, x: &Approx, positions: &[u32]) -> [Approx; 3] {
        let Attention { key_dim, value_dim, .. } = self.params;
        let eps = f64::from(self.desc.norm_eps);
        let x = self.norms.enter(x, eps);
        let own = match &self.inputs {
            Inputs::Latent(latent) => return latent.heads(&x, &self.rotation, eps, positions),
            Inputs::Heads(heads) => heads,
        };
        let product = |(matrix, bias): &Biased, x: &Approx| x.multiply(matrix, bias.as_ref());
        let normed = |x: Approx, norm: &Option<Array1<f64>>| match norm {
            Some(norm) => x.rows_of(norm.len()).rms_norm(norm, eps).rows_of(x.value.ncols()),
            None => x,
        };
        let heads = |x: Approx, norms: &HeadNorms| {
            let rotated = normed(x, &norms.before).rotate(&self.rotation, key_dim, positions);
            normed(rotated, &norms.after)
        };
        [
            own.warm(heads(own.queries(&self.params, &x, 0), &own.query_norms), positions),
            heads(product(&own.key, &x), &own.key_norms).quantize_i16(key_dim),
            normed(product(&own.value, &x), &own.value_norm).quantize_i16(value_dim),
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
                let mut scores: Vec<_> = slots
                    .clone()
                    .map(|slot| {
                        let key = of(&k, slot, kv_head);
                        let [query, key] = [&query, &key].map(|[value, error]| [value.view(), error.view()]);
                        score(query, key, 0.0, f64::from(scale), softcap.map(f64::from))
                    })
                    .collect();
                let seen = s![slots.clone(), kv_head * value_dim..(kv_head + 1) * value_dim];
                let mut values = [v.value.slice(seen).to_owned(), v.error.slice(seen).to_owned()];
                self.add_sink(head, &mut scores, &mut values);
                // At most a tile for each slot.
                let sums = attention(&scores, values[0].view(), values[1].view(), None, scores.len());
                for (column, sum) in sums.into_iter().enumerate() {
                    attended.value[[token, head * value_dim + column]] = sum.value;
                    attended.error[[token, head * value_dim + column]] = sum.bound;
                }
            }
        }
        attended
    }

    /// Adds a head's sink to the slots that a query sees, where there is one.
    pub(super) fn add_sink(&self, head: usize, scores: &mut Vec<Score>, values: &mut [Array2<f64>]) {
        let Some(sinks) = &self.sinks else { return };
        scores.push(Score(Expected { value: sinks[head], bound: 0.0 }));
        for values in values {
            let none = Array1::zeros(values.ncols());
            values.push_row(none.view()).expect("a row of the same width");
        }
    }

    /// What becomes of `before` with what was attended to, of the tokens `x`.
    pub(super) fn leave(&self, before: &Approx, x: &Approx, attended: &Approx) -> Approx {
        let [scale, eps] = [self.desc.residual_scale, self.desc.norm_eps].map(f64::from);
        let attended = match &self.inputs {
            Inputs::Latent(latent) => latent.values(attended),
            Inputs::Heads(heads) if heads.is_gated => {
                attended.times(&heads.queries(&self.params, &self.norms.enter(x, eps), 1).sigmoid())
            }
            Inputs::Heads(_) => attended.clone(),
        };
        let branch = attended.multiply(&self.output.0, self.output.1.as_ref());
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
                let expected = reference.leave(&float64(before), &float64(&sequence.x), attended);
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
