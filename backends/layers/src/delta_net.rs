//! Linear attention by the gated delta rule (arXiv 2412.06464), and Kimi delta attention (arXiv 2510.26692), whose keys' channels
//! each have a decay of their own. With `x` a token's activations, and for each value head a state `S` of `[key_dim, value_dim]`:
//!
//! ```text
//! q, k, v = silu(conv(Wq n(x), Wk n(x), Wv n(x)))          n: RMS norm
//! q, k    = q / |q| / sqrt(key_dim), k / |k|
//! beta    = sigmoid(Wbeta n(x))
//! g       = exp(A softplus(Wdecay n(x) + bias))            one for each head, or one for each channel of its keys
//! S       = g S
//! S       = S + k (beta (v - S^T k))^T                     what S answers to k moves towards v
//! x      += residual_scale * Wout (n'(S^T q) * f(Wgate n(x)))      n': RMS norm by head; f: silu or sigmoid
//! ```
//!
//! The rule goes token by token, in a kernel that reads and writes the state once a token ([`crate::kernels::DeltaRule`]). The
//! other way, chunks of tokens as matrix products (section 3.2 there), has a third more arithmetic at models' sizes, and rounds
//! differently wherever a prompt is cut; this way a token's result is the same to the bit, whatever batch it came in.

use std::ops::Range;

use herald_api::{
    Activation, Call, DeltaDecay, DeltaGate, DeltaNet as Params, EngineLayer, Error, LayerDesc, LayerRequest,
    Result, Sequence, WeightRole,
};

use crate::conv::{CONV_BLOCK, Conv, Inputs};
use crate::disjoint_slice::DisjointSlice;
use crate::kernels::{DeltaRule, Kernels};
use crate::layer::Layer;
use crate::linear::{Linear, Product, matmul, matmul_bytes, matmul_one};
use crate::norm::{add_branch, norm_rows};
use crate::parallel::ParallelExt;
use crate::recurrent_state::recurrent_state;
use crate::scratch::{PerWorker, Scratch};
use crate::weights::Weights;

/// Tokens of a call of the kernel: their outputs stay in the nearest cache.
const RUN: usize = 32;

/// Tokens from which on it pays off to wake the workers for convolutions and norms.
const SHARE_FROM_TOKENS: usize = 8;

/// Added to the sums of squares of queries and keys (as in the authors' code).
const NORM_EPS: f32 = 1e-6;

pub(crate) struct DeltaNet<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Vec<f32>,
    /// Of queries, keys and values.
    inputs: [Linear<'w>; 3],
    /// Likewise.
    convs: [Conv; 3],
    controls: Controls<'w>,
    decay_up: Option<Linear<'w>>,
    gate: Linear<'w>,
    gate_up: Option<Linear<'w>>,
    dt_bias: Vec<f32>,
    a: Vec<f32>,
    head_norm: Vec<f32>,
    /// `1 / sqrt(key_dim)`, as often: with it as weight, an RMS norm is division by the length.
    key_norm: Vec<f32>,
    /// `1 / key_dim`, likewise.
    query_norm: Vec<f32>,
    output: Linear<'w>,
    max_tokens: usize,
    max_workers: usize,
}

/// What gives betas and decays: two matrices, or one for both.
enum Controls<'w> {
    Apart { beta: Linear<'w>, decay: Linear<'w> },
    Joined(Linear<'w>),
}

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// Queries, keys and values before the convolution: `[n_tokens, heads * dim]` each.
    projected: [&'s mut [f32]; 3],
    /// The same after it.
    convolved: [&'s mut [f32]; 3],
    /// The gate, and later what the output projection takes: `[n_tokens, n_value_heads * value_dim]`.
    gate: &'s mut [f32],
    /// Of the gate's two matrices, what the first gives.
    gate_low: &'s mut [f32],
    /// Betas, `[n_tokens, n_value_heads]`; joined with decays, `[n_tokens, 2 * n_value_heads]`.
    beta: &'s mut [f32],
    /// `[n_tokens, n_decays]`.
    decay: &'s mut [f32],
    /// Of the decays' two matrices, what the first gives.
    decay_low: &'s mut [f32],
    /// Betas after the sigmoid, head by head: `[n_value_heads, n_tokens]`.
    betas: &'s mut [f32],
    /// Decays as factors, head by head: `[n_value_heads, n_tokens, n_decays / n_value_heads]`.
    decays: &'s mut [f32],
    /// For one step at a time.
    work: &'s mut [u8],
}

/// A worker's buffers for the betas, decays and norms of a token.
struct TokenBuffers<'s> {
    normed: &'s mut [f32],
    beta: &'s mut [f32],
    from: &'s mut [f32],
    factors: &'s mut [f32],
    ones: &'s mut [f32],
}

/// A worker's buffers for a head.
struct HeadBuffers<'s> {
    /// What the rule gives: `[RUN, value_dim]`.
    out: &'s mut [f32],
    normed: &'s mut [f32],
}

/// What the rule of all heads reads and fills.
struct Rule<'r> {
    n_tokens: usize,
    /// Queries, keys and values.
    qkv: [&'r [f32]; 3],
    betas: &'r [f32],
    decays: &'r [f32],
    /// A head's part is its own.
    gate: DisjointSlice<'r, f32>,
}

impl<'w> DeltaNet<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        check(&request.desc, params)?;
        let Params { n_key_heads, n_value_heads, key_dim, value_dim, taps, .. } = *params;
        let mut weights = Weights::new(kernels, request);
        let keys = n_key_heads * key_dim;
        let mut conv = |role, channels| Conv::of_role(&mut weights, request, role, channels, taps);
        let convs = [
            conv(WeightRole::QueryConv, keys)?,
            conv(WeightRole::KeyConv, keys)?,
            conv(WeightRole::ValueConv, n_value_heads * value_dim)?,
        ];
        let controls = match weights.optional_matrix(WeightRole::BetaAndDecay)? {
            Some(joined) => Controls::Joined(joined),
            None => Controls::Apart {
                beta: weights.matrix(WeightRole::Beta)?,
                decay: weights.matrix(WeightRole::Decay)?,
            },
        };
        let layer = Self {
            kernels,
            norm: weights.vector(WeightRole::Norm)?,
            inputs: [
                weights.matrix(WeightRole::Query)?,
                weights.matrix(WeightRole::Key)?,
                weights.matrix(WeightRole::Value)?,
            ],
            convs,
            controls,
            decay_up: weights.optional_matrix(WeightRole::DecayUp)?,
            gate: weights.matrix(WeightRole::OutputGate)?,
            gate_up: weights.optional_matrix(WeightRole::OutputGateUp)?,
            dt_bias: weights.vector(WeightRole::SsmDtBias)?,
            a: weights.vector(WeightRole::SsmA)?,
            head_norm: weights.vector(WeightRole::SsmNorm)?,
            key_norm: vec![1.0 / (key_dim as f32).sqrt(); key_dim],
            query_norm: vec![1.0 / key_dim as f32; key_dim],
            output: weights.matrix(WeightRole::OutProjection)?,
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
        };
        weights.finish()?;
        Ok(layer)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear<'w>> + Clone {
        let controls = match &self.controls {
            Controls::Apart { beta, decay } => [Some(beta), Some(decay)],
            Controls::Joined(joined) => [Some(joined), None],
        };
        let others = [self.decay_up.as_ref(), self.gate_up.as_ref()];
        self.inputs
            .iter()
            .chain([&self.gate, &self.output])
            .chain(controls.into_iter().chain(others).flatten())
    }

    /// Elements of a sequence's state before the rule's: those of the three convolutions.
    fn conv_states_len(&self) -> usize {
        self.convs.iter().map(Conv::state_len).sum()
    }

    /// Elements of a sequence's state: the convolutions', then for each value head `[key_dim, value_dim]`.
    fn state_len(&self) -> usize {
        let Params { n_value_heads, key_dim, value_dim, .. } = self.params;
        self.conv_states_len() + n_value_heads * key_dim * value_dim
    }

    /// Decays of a head.
    fn head_decays(&self) -> usize {
        match self.params.decay {
            DeltaDecay::Channel => self.params.key_dim,
            _ => 1,
        }
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        let Params { n_value_heads, .. } = self.params;
        let n_decays = self.params.n_decays();
        let joined = if matches!(self.controls, Controls::Joined(_)) { 2 } else { 1 };
        let low = |linear: &Linear<'_>, up: &Option<Linear<'_>>| up.as_ref().map_or(0, |_| linear.rows);
        let decay_low = match &self.controls {
            Controls::Apart { decay, .. } => low(decay, &self.decay_up),
            Controls::Joined(_) => 0,
        };
        Buffers {
            hidden: scratch.take(n_tokens * self.desc.hidden),
            projected: self.inputs.each_ref().map(|linear| scratch.take(n_tokens * linear.rows)),
            convolved: self.inputs.each_ref().map(|linear| scratch.take(n_tokens * linear.rows)),
            gate: scratch.take(n_tokens * self.output.columns),
            gate_low: scratch.take(n_tokens * low(&self.gate, &self.gate_up)),
            beta: scratch.take(n_tokens * n_value_heads * joined),
            decay: scratch.take(n_tokens * n_decays),
            decay_low: scratch.take(n_tokens * decay_low),
            betas: scratch.take(n_tokens * n_value_heads),
            decays: scratch.take(n_tokens * n_decays),
            work: scratch.for_steps([
                matmul_bytes(self.linears(), n_tokens, workers),
                Scratch::measure(|scratch| self.token_workers(scratch, workers)),
                Scratch::measure(|scratch| self.head_workers(scratch, workers)),
            ]),
        }
    }

    fn token_buffers<'s>(&self, scratch: &mut Scratch<'s>) -> TokenBuffers<'s> {
        let most = self.params.n_decays().max(self.params.n_value_heads);
        TokenBuffers {
            normed: scratch.take(self.params.key_dim),
            beta: scratch.take(self.params.n_value_heads),
            from: scratch.take(most),
            factors: scratch.take(most),
            ones: scratch.take(most),
        }
    }

    fn token_workers<'s>(&self, scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        scratch.per_worker(workers, |scratch| self.token_buffers(scratch))
    }

    fn head_buffers<'s>(&self, scratch: &mut Scratch<'s>) -> HeadBuffers<'s> {
        let dim = self.params.value_dim;
        HeadBuffers { out: scratch.take(RUN * dim), normed: scratch.take(dim) }
    }

    fn head_workers<'s>(&self, scratch: &mut Scratch<'s>, workers: usize) -> PerWorker<'s> {
        scratch.per_worker(workers, |scratch| self.head_buffers(scratch))
    }

    /// All products with the normed activations.
    fn project(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { hidden, projected, gate, gate_low, beta, decay, decay_low, work, .. } = buffers;
        let (parallel, n_tokens) = (&call.parallel, call.n_tokens);
        let [q, k, v] = projected;
        let [query, key, value] = &self.inputs;
        let gate_out = if self.gate_up.is_some() { &mut **gate_low } else { &mut **gate };
        let decay_out = if self.decay_up.is_some() { &mut **decay_low } else { &mut **decay };
        let q = Product { linear: query, out: q };
        let k = Product { linear: key, out: k };
        let v = Product { linear: value, out: v };
        let gates = Product { linear: &self.gate, out: gate_out };
        match &self.controls {
            Controls::Joined(joined) => {
                let controls = Product { linear: joined, out: beta };
                matmul(parallel, hidden, n_tokens, work, &mut [q, k, v, gates, controls]);
            }
            Controls::Apart { beta: of_beta, decay: of_decay } => {
                let betas = Product { linear: of_beta, out: beta };
                let decays = Product { linear: of_decay, out: decay_out };
                matmul(parallel, hidden, n_tokens, work, &mut [q, k, v, gates, betas, decays]);
            }
        }
        if let Some(up) = &self.gate_up {
            matmul_one(parallel, up, gate_low, n_tokens, work, gate);
        }
        if let Some(up) = &self.decay_up {
            matmul_one(parallel, up, decay_low, n_tokens, work, decay);
        }
    }

    /// Convolves queries, keys and values of all sequences.
    fn convolve(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let parallel = call.parallel.when(call.n_tokens >= SHARE_FROM_TOKENS);
        let sequences = &call.sequences;
        let mut before = 0;
        for ((conv, x), out) in self.convs.iter().zip(&buffers.projected).zip(&mut buffers.convolved) {
            let (channels, blocks) = (conv.channels, conv.channels.div_ceil(CONV_BLOCK));
            let out = DisjointSlice::new(out);
            parallel.run(sequences.len() * blocks, &|items, _| {
                for item in items {
                    let (sequence, first) = (sequences.get(item / blocks), item % blocks * CONV_BLOCK);
                    let block = first..channels.min(first + CONV_BLOCK);
                    let batch = sequence.batch();
                    let inputs =
                        Inputs { x: &x[batch.start * channels..], stride: channels, n_tokens: batch.len() };
                    // SAFETY: each sequence's block of channels is one worker's, in its state and in `out`; the layer asked
                    // for a state of this length.
                    unsafe {
                        let state = recurrent_state(&sequence, self.state_len()).after(before);
                        let rows = (&out, batch.start * channels, channels);
                        conv.run(self.kernels, inputs, block.clone(), &state, rows);
                        for token in batch {
                            let row = out.part(token * channels + block.start..token * channels + block.end);
                            (self.kernels.activate)(Activation::Silu, row);
                        }
                    }
                }
            });
            before += conv.state_len();
        }
    }

    /// Norms each token's queries and keys, and makes betas and decays what the rule takes.
    fn prepare(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let Buffers { convolved, beta, decay, betas, decays, work, .. } = buffers;
        let [q, k, _] = convolved;
        let mut workers = self.token_workers(&mut Scratch::new(work), call.parallel.workers());
        let [q, k, betas, decays] = [&mut **q, &mut **k, &mut **betas, &mut **decays].map(DisjointSlice::new);
        let (keys, n_tokens) = (self.inputs[0].rows, call.n_tokens);
        let parallel = call.parallel.when(n_tokens >= SHARE_FROM_TOKENS);
        parallel.run_with(n_tokens, &mut workers, |tokens, mut scratch| {
            let mut buffers = self.token_buffers(&mut scratch);
            for token in tokens {
                // SAFETY: each token is one worker's.
                let [q, k] = [&q, &k].map(|rows| unsafe { rows.part(token * keys..(token + 1) * keys) });
                self.norm_heads(q, &self.query_norm, buffers.normed);
                self.norm_heads(k, &self.key_norm, buffers.normed);
                self.controls_of(token, beta, decay, &mut buffers);
                // SAFETY: as above: a token's elements of each head are one worker's.
                unsafe { self.scatter(token, n_tokens, &buffers, &betas, &decays) };
            }
        });
    }

    /// Divides each head by its length, and queries by the root of their size besides.
    fn norm_heads(&self, heads: &mut [f32], weight: &[f32], normed: &mut [f32]) {
        let eps = NORM_EPS / self.params.key_dim as f32;
        for head in heads.chunks_exact_mut(self.params.key_dim) {
            (self.kernels.rms_norm)(head, weight, eps, normed);
            head.copy_from_slice(normed);
        }
    }

    /// A token's betas and decays: `beta` and `factors` of its buffers.
    fn controls_of(&self, token: usize, beta: &[f32], decay: &[f32], buffers: &mut TokenBuffers<'_>) {
        let Params { n_key_heads, n_value_heads, .. } = self.params;
        let n_decays = self.params.n_decays();
        let TokenBuffers { beta: betas, from, factors, ones, .. } = buffers;
        let (from, factors, ones) = (&mut from[..n_decays], &mut factors[..n_decays], &mut ones[..n_decays]);
        ones.fill(1.0);
        // The gates of the sigmoid stand in `factors` for now, which has room for them.
        match &self.controls {
            Controls::Joined(_) => {
                let row = &beta[token * 2 * n_value_heads..(token + 1) * 2 * n_value_heads];
                let shared = n_value_heads / n_key_heads;
                for (group, row) in row.chunks_exact(2 * shared).enumerate() {
                    let heads = group * shared..(group + 1) * shared;
                    factors[heads.clone()].copy_from_slice(&row[..shared]);
                    from[heads].copy_from_slice(&row[shared..]);
                }
            }
            Controls::Apart { .. } => {
                factors[..n_value_heads].copy_from_slice(&beta[token * n_value_heads..][..n_value_heads]);
                from.copy_from_slice(&decay[token * n_decays..][..n_decays]);
            }
        }
        betas.fill(1.0);
        (self.kernels.mul_sigmoid)(betas, &factors[..n_value_heads]);
        (self.kernels.add_scaled)(from, 1.0, &self.dt_bias);
        (self.kernels.softplus)(from);
        for (from, a) in from.chunks_exact_mut(self.head_decays()).zip(&self.a) {
            from.iter_mut().for_each(|from| *from *= -a);
        }
        factors.fill(1.0);
        (self.kernels.decay_weights)(0.0, from, ones, factors);
    }

    /// Puts a token's betas and decays where their heads' are.
    ///
    /// # Safety
    /// Nobody else uses the token's elements of both slices.
    unsafe fn scatter(
        &self,
        token: usize,
        n_tokens: usize,
        buffers: &TokenBuffers<'_>,
        betas: &DisjointSlice<'_, f32>,
        decays: &DisjointSlice<'_, f32>,
    ) {
        let n = self.head_decays();
        let heads = buffers.beta.iter().zip(buffers.factors.chunks_exact(n));
        for (head, (beta, factors)) in heads.enumerate() {
            let at = head * n_tokens + token;
            // SAFETY: the caller's alone, by this function's contract.
            unsafe {
                betas.part(at..at + 1)[0] = *beta;
                decays.part(at * n..(at + 1) * n).copy_from_slice(factors);
            }
        }
    }

    /// Takes all heads of all sequences through the rule, norms and gates what it gives: `gate`.
    fn heads(&self, call: &Call<'_>, buffers: &mut Buffers<'_>) {
        let n_heads = self.params.n_value_heads;
        let Buffers { convolved, gate, betas, decays, work, .. } = buffers;
        let mut workers = self.head_workers(&mut Scratch::new(work), call.parallel.workers());
        let rule = Rule {
            n_tokens: call.n_tokens,
            qkv: convolved.each_ref().map(|part| &**part),
            betas,
            decays,
            gate: DisjointSlice::new(gate),
        };
        let sequences = &call.sequences;
        call.parallel.run_with(sequences.len() * n_heads, &mut workers, |items, mut scratch| {
            for item in items {
                let (sequence, head) = (sequences.get(item / n_heads), item % n_heads);
                let mut buffers = self.head_buffers(&mut scratch.reborrow());
                // SAFETY: each sequence's head is one worker's.
                unsafe { self.head(&sequence, head, &rule, &mut buffers) };
            }
        });
    }

    /// Takes a head of a sequence through the rule.
    ///
    /// # Safety
    /// Nobody else uses the head's part of the state and of the gate.
    unsafe fn head(
        &self,
        sequence: &Sequence<'_>,
        head: usize,
        rule: &Rule<'_>,
        buffers: &mut HeadBuffers<'_>,
    ) {
        let Params { key_dim, value_dim, .. } = self.params;
        let [keys, values] = [self.inputs[0].rows, self.inputs[2].rows];
        let (key_at, value_at) = (self.params.key_head(head) * key_dim, head * value_dim);
        let first = self.conv_states_len() + head * key_dim * value_dim;
        // SAFETY: the layer asked for a state of this length, and this head's part is the caller's alone.
        let state =
            unsafe { recurrent_state(sequence, self.state_len()).part(first..first + key_dim * value_dim) };
        let n = self.head_decays();
        for token in sequence.batch().step_by(RUN) {
            let tokens: Range<usize> = token..sequence.batch().end.min(token + RUN);
            let at = head * rule.n_tokens + token;
            let call = DeltaRule {
                queries: &rule.qkv[0][token * keys + key_at..],
                keys: &rule.qkv[1][token * keys + key_at..],
                key_stride: keys,
                values: &rule.qkv[2][token * values + value_at..],
                value_stride: values,
                betas: &rule.betas[at..at + tokens.len()],
                decays: &rule.decays[at * n..(at + tokens.len()) * n],
                key_dim,
                value_dim,
            };
            let out = &mut buffers.out[..tokens.len() * value_dim];
            (self.kernels.delta_rule)(&call, state, out);
            for (token, out) in tokens.zip(out.chunks_exact(value_dim)) {
                let at = token * values + value_at;
                // SAFETY: the head's part of the gate is the caller's alone.
                let gate = unsafe { rule.gate.part(at..at + value_dim) };
                (self.kernels.rms_norm)(out, &self.head_norm, self.desc.norm_eps, buffers.normed);
                match self.params.gate {
                    DeltaGate::Sigmoid => {
                        (self.kernels.mul_sigmoid)(buffers.normed, gate);
                        gate.copy_from_slice(buffers.normed);
                    }
                    _ => (self.kernels.glu)(Activation::Silu, gate, buffers.normed),
                }
            }
        }
    }
}

fn check(desc: &LayerDesc, params: &Params) -> Result<()> {
    let Params { n_key_heads, n_value_heads, key_dim, value_dim, taps, .. } = *params;
    let sizes = [n_value_heads, key_dim, value_dim, taps];
    let elements = sizes.into_iter().try_fold(1_usize, usize::checked_mul);
    if n_key_heads == 0
        || elements.is_none_or(|elements| elements == 0)
        || !n_value_heads.is_multiple_of(n_key_heads)
    {
        return Err(Error::invalid(format!(
            "the delta net of block {} has {n_value_heads} value heads of {value_dim} over {n_key_heads} key heads of \
             {key_dim}, where a multiple was expected, and nothing empty",
            desc.block
        )));
    }
    Ok(())
}

impl<'w> Layer<'w> for DeltaNet<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        let controls = match &mut self.controls {
            Controls::Apart { beta, decay } => vec![beta, decay],
            Controls::Joined(joined) => vec![joined],
        };
        let others = [&mut self.decay_up, &mut self.gate_up].into_iter().flatten();
        self.inputs
            .iter_mut()
            .chain([&mut self.gate, &mut self.output])
            .chain(controls)
            .chain(others)
            .collect()
    }
}

impl EngineLayer for DeltaNet<'_> {
    fn weight_bytes(&self) -> usize {
        self.linears().map(Linear::packed_bytes).sum()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn state_bytes(&self) -> usize {
        self.state_len() * size_of::<f32>()
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        let n_tokens = call.n_tokens;
        let (kernels, parallel) = (self.kernels, &call.parallel);
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let mut buffers = self.buffers(&mut scratch, n_tokens, parallel.workers());
        let input = call.input.unwrap_or(call.output);
        norm_rows(kernels, parallel, input, &self.norm, self.desc.norm_eps, buffers.hidden);
        self.project(call, &mut buffers);
        self.convolve(call, &mut buffers);
        self.prepare(call, &mut buffers);
        self.heads(call, &mut buffers);
        let Buffers { hidden, gate, work, .. } = buffers;
        matmul_one(parallel, &self.output, gate, n_tokens, work, hidden);
        add_branch(kernels, parallel, &self.desc, hidden, None, work, call.output);
        Ok(())
    }
}
