//! The table of kernels that a backend fills: layers are written once over it.
//!
//! The module `suite` (with the feature of that name) checks every entry of every backend against the same float64
//! reference.

use herald_api::{Activation, ActivationPrecision, DType, Q4_GROUP, Q4Rows, RopeKind};

use crate::matmul::MatmulKernel;
use herald_formats::{RowKernels, f16_value};

/// A backend's kernels.
pub struct Kernels {
    /// The backend's name, for messages.
    pub name: &'static str,
    /// Whether no kernel's result for a token depends, to the bit, on the tokens beside it.
    pub is_batch_invariant: bool,
    /// Kernels over one row of a weight matrix of a type. Weights are [`herald_formats`]'s to the bit.
    pub rows: fn(DType) -> RowKernels,
    /// Matrix multiplication with weights of a type, and activations of a precision, or finer.
    pub matmul: fn(DType, ActivationPrecision) -> MatmulKernel,
    /// `out[t * rows + r] = x[t] . panel[r]` for all tokens and rows; `out` is only written.
    pub gemm: fn(&Gemm<'_>, &mut [f32]),
    /// Products of each head's queries with the head's part of float16 rows.
    pub head_matmul: fn(&HeadMatmul<'_>, &mut [f32]),
    /// `sum(a[i] * b[i])`.
    pub dot: fn(&[f32], &[f32]) -> f32,
    /// `y[i] += a * x[i]`.
    pub add_scaled: fn(&mut [f32], f32, &[f32]),
    /// `out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]` (RMSNorm, arXiv 1910.07467), for
    /// vectors whose sum of squares is a float32 number.
    pub rms_norm: fn(&[f32], &[f32], f32, &mut [f32]),
    /// `out[i] = (x[i] - mean(x)) / sqrt(variance(x) + eps) * weight[i] + bias[i]` (LayerNorm, arXiv 1607.06450). Arguments: x,
    /// weight, bias, eps, out.
    pub layer_norm: LayerNorm,
    /// Rotates pairs of a head's first `2 * rotation.len()` elements by angles given as `[cos, sin]` (RoPE, arXiv
    /// 2104.09864).
    pub rope: fn(RopeKind, &mut [f32], &[[f32; 2]]),
    /// The rotations of RoPE's pairs: `[cos, sin]` of `position * frequencies[i]`, times a magnitude. Arguments:
    /// frequencies, position, magnitude, result.
    pub rope_angles: fn(&[f64], f64, f64, &mut [[f32; 2]]),
    /// `exp(x[i]) / sum(exp(x))`.
    pub softmax: fn(&mut [f32]),
    /// `gate[i] = activation(gate[i]) * up[i]`.
    pub glu: fn(Activation, &mut [f32], &[f32]),
    /// `x[i] = activation(x[i])`.
    pub activate: fn(Activation, &mut [f32]),
    /// `x[i] = xielu(x[i])`.
    pub xielu: fn(&Xielu, &mut [f32]),
    /// Lays queries `[n, key_dim]` out as this table's `attend` reads them, in [`Tile::packed_queries_len`] elements.
    /// Arguments: queries, `key_dim`, result.
    pub pack_queries: fn(&[f32], usize, &mut [f32]),
    /// One tile of attention, added to the online softmax of its rows.
    pub attend: fn(&Tile<'_>, &mut OnlineSoftmax<'_>, &mut [f32]),
    /// The same over 4-bit codes, with queries that aren't packed.
    pub attend_q4: fn(&Q4Tile<'_>, &mut OnlineSoftmax<'_>, &mut [f32]),
    /// Relative rounding error of `attend_q4`'s int16 operands (queries times key steps, weights times value steps), against
    /// the row's largest magnitude. Used only by error bounds in tests.
    pub attend_q4_rounding: f32,
    /// Merges the second softmax, of the same rows over other slots, into the first.
    pub merge: fn(&mut OnlineSoftmax<'_>, &OnlineSoftmax<'_>),
    /// `x[i]` as `scale * codes[i]`, with the smallest scale that fits them all: fills the codes, returns the scale.
    pub quantize_i16: fn(&[f32], &mut [i16]) -> f32,
    /// `x[i] *= y[i]`.
    pub mul: fn(&mut [f32], &[f32]),
    /// `x[i] = ln(1 + exp(x[i]))`.
    pub softplus: fn(&mut [f32]),
    /// One token of a causal depthwise convolution: `out[c] = bias[c] + sum(tap.weight[c] * tap.input[c])`.
    pub conv: fn(&[Tap<'_>], &[f32], &mut [f32]),
    /// Takes a run of tokens of a block of channels through Mamba's selective scan: updates the state `[state, channels]` and
    /// fills `[n_tokens, channels]`.
    pub selective_scan: fn(&SelectiveScan<'_>, &mut [f32], &mut [f32]),
    /// Takes one token of a head through Mamba-2's recurrence: updates the state `[channels, state]` and fills `[channels]`.
    pub ssd_step: fn(&SsdStep<'_>, &mut [f32], &mut [f32]),
    /// Takes a run of tokens of a value head through the gated delta rule: updates the state `[key_dim, value_dim]` and fills
    /// `[n_tokens, value_dim]`. The same whatever runs a sequence comes in.
    pub delta_rule: fn(&DeltaRule<'_>, &mut [f32], &mut [f32]),
    /// `x[i] *= 1 / (1 + exp(-gate[i]))`.
    pub mul_sigmoid: fn(&mut [f32], &[f32]),
    /// `x[i] *= exp(to - from[i]) * weight[i]`: each token's contribution, decayed up to another token. Arguments: `to`,
    /// `from`, `weight`, `x`.
    pub decay_weights: fn(f32, &[f32], &[f32], &mut [f32]),
}

impl Kernels {
    /// What layers whose own order of sums doesn't depend on the batch promise
    /// ([`herald_api::EngineLayer::batch_invariant_tokens`]).
    pub(crate) fn batch_invariant_tokens(&self) -> usize {
        if self.is_batch_invariant { usize::MAX } else { 0 }
    }
}

/// `erfc(z) exp(z^2)` for `z >= 0` is `sum over i of ERFC[i] t^(i + 1)` with `t = 1 / (1 + ERFC_STEP z)`, to a relative error of 2e-8: a
/// least-squares fit, weighted until its greatest relative errors were alike.
pub const ERFC: [f32; 9] = [
    0.270_754_76,
    0.272_051_7,
    0.227_852,
    0.239_923,
    -0.111_500_59,
    0.438_332_68,
    -0.574_109_85,
    0.291_308_22,
    -0.054_611_936,
];
/// See [`ERFC`].
pub const ERFC_STEP: f32 = 0.48;

/// xIELU (arXiv 2411.13010): `square x^2 + slope x` where `x > 0`, otherwise
/// `exponential (exp(min(x, most)) - 1 - x) + slope x`.
#[derive(Clone, Copy, Debug)]
pub struct Xielu {
    /// Multiplies the square.
    pub square: f32,
    /// Multiplies what the exponential function and `x` differ by.
    pub exponential: f32,
    /// Multiplies `x`.
    pub slope: f32,
    /// The greatest argument of the exponential function.
    pub most: f32,
}

/// See [`Kernels::layer_norm`].
pub type LayerNorm = fn(&[f32], &[f32], &[f32], f32, &mut [f32]);

/// One tap of a causal convolution.
#[derive(Clone, Copy, Debug)]
pub struct Tap<'a> {
    /// Its weight for each channel.
    pub weight: &'a [f32],
    /// The token it falls on, channel by channel.
    pub input: &'a [f32],
}

/// A run of tokens through Mamba's selective scan (arXiv 2312.00752, equation 2 with the discretisation of section 3.2), for
/// a block of channels:
///
/// ```text
/// h[n, c] = exp(dt[t, c] a[n, c]) h[n, c] + dt[t, c] b[t, n] x[t, c]
/// y[t, c] = sum over n of c[t, n] h[n, c]  +  d[c] x[t, c]
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SelectiveScan<'a> {
    /// The first token's channels; each next token's are `x_stride` elements later.
    pub x: &'a [f32],
    /// Elements from one token's `x` to the next.
    pub x_stride: usize,
    /// Time steps `[n_tokens, channels]`.
    pub dt: &'a [f32],
    /// The first token's B, `[state]`; each next token's is `bc_stride` elements later.
    pub b: &'a [f32],
    /// The first token's C, likewise.
    pub c: &'a [f32],
    /// Elements from one token's B or C to the next.
    pub bc_stride: usize,
    /// The decay `[state, channels]`.
    pub a: &'a [f32],
    /// The skip `[channels]`.
    pub d: &'a [f32],
    /// Tokens.
    pub n_tokens: usize,
    /// Channels.
    pub channels: usize,
    /// Elements of a channel's state.
    pub state: usize,
}

/// One token of a head through Mamba-2's recurrence (arXiv 2405.21060, section 3):
/// `h[p, n] = decay h[p, n] + dt x[p] b[n]`, and then `y[p] = sum over n of c[n] h[p, n]`.
#[derive(Clone, Copy, Debug)]
pub struct SsdStep<'a> {
    /// `[channels]`.
    pub x: &'a [f32],
    /// `[state]`.
    pub b: &'a [f32],
    /// `[state]`.
    pub c: &'a [f32],
    /// `exp(dt A)`.
    pub decay: f32,
    /// The time step.
    pub dt: f32,
}

/// A run of tokens of a value head through the gated delta rule (arXiv 2412.06464, section 3.1). With `S` the state,
/// `[key_dim, value_dim]`:
///
/// ```text
/// S = decay[t] S
/// S = S + k[t] (beta[t] (v[t] - S^T k[t]))^T
/// y[t] = S^T q[t]
/// ```
///
/// There are as many tokens as betas.
#[derive(Clone, Copy, Debug)]
pub struct DeltaRule<'a> {
    /// The first token's query, `[key_dim]`; each next token's is `key_stride` elements later.
    pub queries: &'a [f32],
    /// The first token's key, likewise.
    pub keys: &'a [f32],
    /// Elements from one token's query or key to the next.
    pub key_stride: usize,
    /// The first token's value, `[value_dim]`; each next token's is `value_stride` elements later.
    pub values: &'a [f32],
    /// Elements from one token's value to the next.
    pub value_stride: usize,
    /// `[n_tokens]`.
    pub betas: &'a [f32],
    /// Factors from 0 to 1: one for each token, `[n_tokens]`, or one for each row of the state, `[n_tokens, key_dim]`.
    pub decays: &'a [f32],
    /// Elements of a query and of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
}

impl DeltaRule<'_> {
    /// Decays of a token: 1 or `key_dim`.
    ///
    /// # Panics
    /// Where a slice is too short, or the state or the result isn't what the run fills.
    #[must_use]
    #[inline]
    pub fn token_decays(&self, state: &[f32], out: &[f32]) -> usize {
        let Self { key_dim, value_dim, key_stride, value_stride, .. } = *self;
        let n_tokens = self.betas.len();
        let last = n_tokens.saturating_sub(1);
        let decays = if self.decays.len() == n_tokens { 1 } else { key_dim };
        assert!(
            n_tokens > 0
                && self.queries.len().min(self.keys.len()) >= last * key_stride + key_dim
                && self.values.len() >= last * value_stride + value_dim
                && self.decays.len() == n_tokens * decays
                && state.len() == key_dim * value_dim
                && out.len() == n_tokens * value_dim,
            "the delta rule of {n_tokens} tokens of [{key_dim}, {value_dim}] has slices of other lengths"
        );
        decays
    }
}

/// A product of tokens' activations with a panel of rows, both float32.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    /// `[n_tokens, columns]`.
    pub x: &'a [f32],
    /// `[rows, columns]`.
    pub panel: &'a [f32],
    /// Tokens.
    pub n_tokens: usize,
    /// Rows of the panel.
    pub rows: usize,
    /// Elements of a row.
    pub columns: usize,
}

/// `out[h, q, r] = queries[h, q] . rows[r, h]` for all heads, queries and rows; `out` is only written.
#[derive(Clone, Copy, Debug)]
pub struct HeadMatmul<'a> {
    /// `[n_heads, n_queries, width]`.
    pub queries: &'a [f32],
    /// Bits of float16: rows of `stride` elements, which begin with `[n_heads, width]`.
    pub rows: &'a [u16],
    /// Heads.
    pub n_heads: usize,
    /// Queries of a head.
    pub n_queries: usize,
    /// Elements of a head.
    pub width: usize,
    /// Elements from one row to the next.
    pub stride: usize,
}

impl HeadMatmul<'_> {
    /// Number of rows.
    ///
    /// # Panics
    /// Where a slice is too short, or `out_len` elements don't hold the result.
    #[must_use]
    #[inline]
    pub fn n_rows(&self, out_len: usize) -> usize {
        let Self { queries, rows, n_heads, n_queries, width, stride } = *self;
        let n_rows = rows.len() / stride.max(1);
        assert!(
            stride >= n_heads * width
                && queries.len() >= n_heads * n_queries * width
                && out_len >= n_heads * n_queries * n_rows,
            "products of {n_queries} queries of {n_heads} heads of {width} with {n_rows} rows of {stride} have slices too short"
        );
        n_rows
    }
}

/// Memory that the next tile will read, to be prefetched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upcoming<'a> {
    /// Codes of keys.
    pub keys: &'a [u8],
    /// Codes of values.
    pub values: &'a [u8],
    /// Scales or pairs of keys, and of values.
    pub scales: [&'a [u8]; 2],
    /// Whether the sequence's keys and values outgrow the shared caches, so that prefetched lines need not stay there.
    pub streaming: bool,
}

/// Queries of one KV head against the slots of one page, whose elements are codes with a scale per slot.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a, E = i16> {
    /// Queries, already rotated, as [`Kernels::pack_queries`] left them.
    pub queries: &'a [f32],
    /// Codes of keys `[slots, key_dim]`.
    pub keys: &'a [E],
    /// The scale of each key `[slots]`.
    pub key_scales: &'a [f32],
    /// Codes of values `[slots, value_dim]`.
    pub values: &'a [E],
    /// The scale of each value `[slots]`.
    pub value_scales: &'a [f32],
    /// The slots that each query sees, `begin..end`; empty where it sees none.
    pub visible: &'a [[u32; 2]],
    /// Elements of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Multiplies query-key products.
    pub scale: f32,
    /// Scores are `softcap * tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// What will be read next, to be prefetched.
    pub next: Upcoming<'a>,
}

impl<E> Tile<'_, E> {
    /// Float32 elements that [`Kernels::pack_queries`] may fill for this many queries: whole vectors.
    #[must_use]
    pub fn packed_queries_len(queries: usize, key_dim: usize) -> usize {
        queries.next_multiple_of(16) * key_dim.next_multiple_of(16)
    }

    /// Float32 elements of scratch memory that [`Kernels::attend`] may use for a tile of this many queries and slots: scores
    /// in whole vectors, one number per query, and keys and values as float32.
    #[must_use]
    pub fn scratch_len(queries: usize, slots: usize, key_dim: usize, value_dim: usize) -> usize {
        queries.next_multiple_of(16) * (slots.next_multiple_of(16) + 1) + slots * (key_dim + value_dim)
    }
}

/// Queries of one KV head against a whole page of 4-bit codes ([`herald_api::abi::HERALD_PAGE_Q4`]).
#[derive(Clone, Copy, Debug)]
pub struct Q4Tile<'a> {
    /// Queries, already rotated, `[n, key_dim]`.
    pub queries: &'a [f32],
    /// The head's keys: pairs `[ceil(slots / 64), key_dim]`, codes `[slots, ceil(key_dim / 2)]`.
    pub keys: Q4Rows<'a>,
    /// The head's values: pairs `[slots, ceil(value_dim / 64)]`, codes `[slots, ceil(value_dim / 2)]`.
    pub values: Q4Rows<'a>,
    /// Slots of the page.
    pub slots: usize,
    /// The slots that each query sees, `begin..end`; empty where it sees none.
    pub visible: &'a [[u32; 2]],
    /// Elements of a key.
    pub key_dim: usize,
    /// Elements of a value.
    pub value_dim: usize,
    /// Multiplies query-key products.
    pub scale: f32,
    /// Scores are `softcap * tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// What will be read next, to be prefetched.
    pub next: Upcoming<'a>,
}

impl Q4Tile<'_> {
    /// Float32 elements of scratch memory that [`Kernels::attend_q4`] may use: what attention over that many float32
    /// elements takes, packed queries, and a group's steps and offsets.
    #[must_use]
    pub fn scratch_len(queries: usize, slots: usize, key_dim: usize, value_dim: usize) -> usize {
        let tile = Tile::<i16>::scratch_len(queries, slots, key_dim, value_dim);
        Tile::<i16>::packed_queries_len(queries, key_dim) + tile + 2 * key_dim + slots
    }

    /// Attends by dequantising: `widen` writes the tile's elements as float32 into scratch memory, as [`Q4Tile::widen`] does
    /// (one head's tile, which stays in the nearest caches), then `attend` runs over those. `queries`: as `attend` reads
    /// them. Both are closures so that, inlined into the caller, they compile to the caller's instruction set while the
    /// layout of the scratch memory stands here once.
    #[inline(always)]
    pub fn attend_with(
        &self,
        queries: &[f32],
        softmax: &mut OnlineSoftmax<'_>,
        scratch: &mut [f32],
        widen: impl FnOnce(&mut [f32], &mut [f32], &mut [f32]),
        attend: impl FnOnce(&Tile<'_, f32>, &mut OnlineSoftmax<'_>, &mut [f32]),
    ) {
        let Self { slots, key_dim, value_dim, .. } = *self;
        let (pairs, scratch) = scratch.split_at_mut(2 * key_dim);
        let (keys, scratch) = scratch.split_at_mut(slots * key_dim);
        let (values, scratch) = scratch.split_at_mut(slots * value_dim);
        let (ones, scratch) = scratch.split_at_mut(slots);
        ones.fill(1.0);
        widen(pairs, keys, values);
        let tile = Tile {
            queries,
            keys,
            key_scales: ones,
            values,
            value_scales: ones,
            visible: self.visible,
            key_dim,
            value_dim,
            scale: self.scale,
            softcap: self.softcap,
            next: self.next,
        };
        attend(&tile, softmax, scratch);
    }

    /// Dequantises keys to `[slots, key_dim]` and values to `[slots, value_dim]`. `pairs`: room for a group's steps and
    /// offsets, `[2, key_dim]`.
    #[inline(always)]
    pub fn widen(&self, pairs: &mut [f32], keys: &mut [f32], values: &mut [f32]) {
        let Self { key_dim, value_dim, .. } = *self;
        let width = key_dim.div_ceil(2);
        let (steps, offsets) = pairs.split_at_mut(key_dim);
        let groups = keys.chunks_mut(Q4_GROUP * key_dim).zip(self.keys.codes.chunks(Q4_GROUP * width));
        for ((keys, codes), pairs) in groups.zip(self.keys.pairs.chunks_exact(key_dim)) {
            for ((step, offset), pair) in steps.iter_mut().zip(&mut *offsets).zip(pairs) {
                (*step, *offset) = (f16_value(pair[0]), f16_value(pair[1]));
            }
            for (key, codes) in keys.chunks_exact_mut(key_dim).zip(codes.chunks_exact(width)) {
                let (low, high) = key.split_at_mut(width);
                for (((out, code), step), offset) in low.iter_mut().zip(codes).zip(&*steps).zip(&*offsets) {
                    *out = offset + step * f32::from(code & 15);
                }
                let (steps, offsets) = (&steps[width..], &offsets[width..]);
                for (((out, code), step), offset) in high.iter_mut().zip(codes).zip(steps).zip(offsets) {
                    *out = offset + step * f32::from(code >> 4);
                }
            }
        }
        let width = value_dim.div_ceil(2);
        let rows = values.chunks_exact_mut(value_dim).zip(self.values.codes.chunks_exact(width));
        for ((value, codes), pairs) in rows.zip(self.values.pairs.chunks_exact(value_dim.div_ceil(Q4_GROUP)))
        {
            for (group, pair) in pairs.iter().enumerate() {
                let [step, offset] = [f16_value(pair[0]), f16_value(pair[1])];
                let begin = group * Q4_GROUP;
                let end = (begin + Q4_GROUP).min(value_dim);
                // The group's part in the low halves of bytes ends here, and its part in the high halves begins.
                let middle = width.clamp(begin, end);
                for (out, code) in value[begin..middle].iter_mut().zip(&codes[begin.min(width)..]) {
                    *out = offset + step * f32::from(code & 15);
                }
                for (out, code) in value[middle..end].iter_mut().zip(&codes[middle.saturating_sub(width)..]) {
                    *out = offset + step * f32::from(code >> 4);
                }
            }
        }
    }
}

/// The state of an online softmax over `n` queries (Milakov and Gimelshein, arXiv 1805.02867): each query's maximum, sum
/// and output over the slots so far.
#[derive(Debug)]
pub struct OnlineSoftmax<'a> {
    /// The greatest score of each query; negative infinity before any slot.
    pub max: &'a mut [f32],
    /// Sum of `exp(score - max)` of each query.
    pub sum: &'a mut [f32],
    /// Sum of `exp(score - max) * value`, `[n, value_dim]`.
    pub out: &'a mut [f32],
}

impl<'a> OnlineSoftmax<'a> {
    /// The state of `n` queries in memory of `n * (value_dim + 2)` elements.
    #[must_use]
    pub fn of(memory: &'a mut [f32], n: usize) -> Self {
        let (out, rest) = memory.split_at_mut(memory.len() - 2 * n);
        let (max, sum) = rest.split_at_mut(n);
        Self { max, sum, out }
    }

    /// Starts over, with no slots.
    pub fn begin(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.out.fill(0.0);
    }

    /// Merges the state of the same queries over other slots; see [`Kernels::merge`].
    pub fn merge(&mut self, other: &OnlineSoftmax<'_>) {
        let width = self.out.len() / self.sum.len().max(1);
        let rows = self.out.chunks_exact_mut(width.max(1)).zip(other.out.chunks_exact(width.max(1)));
        for (row, (out, other_out)) in rows.enumerate() {
            if other.max[row] == f32::NEG_INFINITY && other.sum[row] == 0.0 {
                continue;
            }
            let max = self.max[row].max(other.max[row]);
            let [own, others] = [self.max[row], other.max[row]].map(|of_one| libm::expf(of_one - max));
            self.max[row] = max;
            self.sum[row] = self.sum[row] * own + other.sum[row] * others;
            for (out, other) in out.iter_mut().zip(other_out) {
                *out = *out * own + other * others;
            }
        }
    }

    /// Adds to each query a slot of this score that has no value.
    pub fn sink<'s>(&mut self, scores: impl IntoIterator<Item = &'s f32>) {
        for ((sum, max), score) in self.sum.iter_mut().zip(&*self.max).zip(scores) {
            // Of a query that sees nothing else there is nothing to share.
            if *sum > 0.0 {
                *sum += libm::expf(score - max);
            }
        }
    }

    /// Divides by the sums: `out` then holds each query's attention, zeros for a query that saw no slot.
    pub fn finish(&mut self) {
        let width = self.out.len() / self.sum.len().max(1);
        for (row, sum) in self.out.chunks_exact_mut(width.max(1)).zip(&*self.sum) {
            let inverse = if *sum > 0.0 { 1.0 / sum } else { 0.0 };
            row.iter_mut().for_each(|value| *value *= inverse);
        }
    }
}
