//! Grouped-query self-attention (arXiv 2305.13245) over a KV cache of pages.
//!
//! For each token `t` of a sequence, with `x` its activations and `h` a query head of the KV head `g`:
//!
//! ```text
//! q, k, v = Wq n(x), Wk n(x), Wv n(x)          n: RMS or layer norm; q and k normed by head where the model has QK-norm
//! a_h     = softmax_s(scale * rope(q_h, t) . rope(k_g, s)) v_g      over the slots s <= t within the window
//! x      += residual_scale * n'(Wo a)          n': a second norm, where the model has one
//!           residual_scale * n'(Wo (a * sigmoid(Wg n(x))))         where it has gates (arXiv 2505.06708)
//! ```
//!
//! The slots may also be those of the token's chunk, or of all tokens of the sequence, later ones too ([`herald_api::Mask`]). BERT
//! norms the sum: `x = n'(x + Wo a)`.
//!
//! The softmax is online (arXiv 1805.02867), so no row of scores is ever kept whole: page by page, with `z_s` the scores of
//! the page's slots, the greatest score `m`, the sum `l` and the output `o` become
//!
//! ```text
//! m' = max(m, max_s z_s)
//! l' = exp(m - m') l + sum_s exp(z_s - m')
//! o' = exp(m - m') o + sum_s exp(z_s - m') v_s        and in the end        a = o / l
//! ```
//!
//! A head's sink (arXiv 2309.17453) is one more score `z`, without a value: it adds `exp(z - m)` to `l` in the end.
//!
//! The same three lines merge the softmaxes of two runs of pages.
//!
//! - [`project`]: queries, keys and values; norms; RoPE; keys and values into the cache.
//! - [`latent`]: the same for latent attention.
//! - [`tile`]: one page. One kernel call attends from a block of queries of one KV head to the page's keys and values
//!   (FlashAttention, arXiv 2205.14135).
//! - [`schedule`]: which worker takes which query block, KV head and run of pages (split-K attention; Flash-Decoding).

mod latent;
mod project;
mod schedule;
mod tile;

use herald_api::{
    Attention as Params, Call, EngineLayer, Error, LayerDesc, LayerRequest, Mask, Page, Result, RopeKind,
    Sequence, WeightRole, abi,
};

use crate::kernels::Kernels;
use crate::layer::Layer;
use crate::linear::{Linear, matmul_bytes, matmul_one};
use crate::lora::Loras;
use crate::norm::{ExitNorm, Norm, add_branch, add_branch_bytes, enter};
use crate::page_selection::PageScorer;
use crate::rope::Rope;
use crate::scratch::Scratch;
use crate::weights::Weights;

use latent::{Latent, LatentBuffers};

pub(crate) struct Attention<'w> {
    kernels: &'static Kernels,
    desc: LayerDesc,
    params: Params,
    norm: Option<Norm>,
    exit_norm: Option<ExitNorm>,
    sinks: Option<Vec<f32>>,
    query_norms: HeadNorms,
    key_norms: HeadNorms,
    value_norm: Option<Vec<f32>>,
    temperature: Option<Temperature>,
    /// Queries; with gates, head by head the rows of its queries and as many of its gate.
    query: Linear<'w>,
    is_gated: bool,
    /// None where an earlier layer has filled the pages.
    key: Option<Linear<'w>>,
    /// Nor has latent attention any.
    value: Option<Linear<'w>>,
    latent: Option<Latent<'w>>,
    output: Linear<'w>,
    rope: Rope,
    max_tokens: usize,
    max_workers: usize,
    page_tokens: usize,
    max_lora_rank: usize,
    scorer: PageScorer,
}

/// The norms of query or key heads.
struct HeadNorms {
    /// Before RoPE: of each head, or of all as one.
    before: Option<Vec<f32>>,
    /// After RoPE: of each head.
    after: Option<Vec<f32>>,
}

/// What queries are multiplied by for their positions (Llama 4): `1 + slope ln(1 + floor((p + offset) / length))`.
struct Temperature {
    slope: f32,
    length: f32,
    offset: f32,
}

impl Temperature {
    fn of(numbers: Option<Vec<f32>>) -> Result<Option<Self>> {
        let Some([slope, length, offset]) = numbers.as_deref() else { return Ok(None) };
        if length.is_nan() || *length < 1.0 {
            return Err(Error::invalid(format!(
                "the temperature changes every {length} positions, where at least 1 was expected"
            )));
        }
        Ok(Some(Self { slope: *slope, length: *length, offset: *offset }))
    }

    fn at(&self, position: u32) -> f32 {
        let step = ((f64::from(position) + f64::from(self.offset)) / f64::from(self.length)).floor();
        (1.0 + f64::from(self.slope) * step.ln_1p()) as f32
    }
}

/// The buffers of one forward call.
struct Buffers<'s> {
    /// Normed activations, and later the branch's output: `[n_tokens, hidden]`.
    hidden: &'s mut [f32],
    /// `[n_tokens, n_heads, key_dim]`.
    q: &'s mut [f32],
    /// With gates, queries and gates as they are projected: `[n_tokens, n_heads, 2, key_dim]`.
    gated_q: &'s mut [f32],
    /// `[n_tokens, n_kv_heads, key_dim]`.
    k: &'s mut [f32],
    /// `[n_tokens, n_kv_heads, value_dim]`.
    v: &'s mut [f32],
    /// `[n_tokens, n_heads, value_dim]`.
    attended: &'s mut [f32],
    /// The softmaxes of splits; see [`Attention::attend`].
    splits: &'s mut [f32],
    latent: Option<LatentBuffers<'s>>,
    /// What adding low-rank updates works in: `[n_tokens, max_lora_rank]`.
    lora: &'s mut [f32],
    /// For one step at a time.
    work: &'s mut [u8],
}

impl<'w> Attention<'w> {
    pub(crate) fn new(
        kernels: &'static Kernels,
        request: &LayerRequest<'w, '_>,
        params: &Params,
    ) -> Result<Self> {
        check(params)?;
        let rope_dims = if params.rope == RopeKind::None { 0 } else { params.rope_dims };
        let mut weights = Weights::new(kernels, request);
        let factors = weights.optional_vector(WeightRole::RopeFactors)?;
        let gated_query = weights.optional_matrix(WeightRole::QueryAndGate)?;
        let is_gated = gated_query.is_some();
        let query = match gated_query {
            Some(query) => query,
            None => weights.biased(WeightRole::Query, WeightRole::QueryBias)?,
        };
        let layer = Self {
            kernels,
            query,
            is_gated,
            norm: weights.entry_norm()?,
            exit_norm: weights.exit_norm()?,
            sinks: weights.optional_vector(WeightRole::AttentionSinks)?,
            query_norms: HeadNorms {
                before: weights.optional_vector(WeightRole::QueryNorm)?,
                after: weights.optional_vector(WeightRole::RotatedQueryNorm)?,
            },
            key_norms: HeadNorms {
                before: weights.optional_vector(WeightRole::KeyNorm)?,
                after: weights.optional_vector(WeightRole::RotatedKeyNorm)?,
            },
            value_norm: weights.optional_vector(WeightRole::ValueNorm)?,
            temperature: Temperature::of(weights.optional_vector(WeightRole::Temperature)?)?,
            key: match params.shares_kv {
                true => None,
                false => Some(weights.biased(WeightRole::Key, WeightRole::KeyBias)?),
            },
            value: match params.shares_kv || params.latent.is_some() {
                true => None,
                false => Some(weights.biased(WeightRole::Value, WeightRole::ValueBias)?),
            },
            latent: Latent::new(&mut weights, params)?,
            output: weights.biased(WeightRole::AttentionOutput, WeightRole::AttentionOutputBias)?,
            scorer: PageScorer::new(kernels, params),
            rope: Rope::new(rope_dims, params.rope_base, params.rope_scaling, factors.as_deref()),
            desc: request.desc.clone(),
            params: params.clone(),
            max_tokens: request.max_tokens,
            max_workers: request.max_workers,
            page_tokens: request.page_tokens,
            max_lora_rank: if params.latent.is_some() { 0 } else { request.max_lora_rank },
        };
        weights.finish()?;
        Ok(layer)
    }

    fn linears(&self) -> impl Iterator<Item = &Linear<'w>> + Clone {
        let own = self.latent.iter().flat_map(Latent::linears);
        [&self.query, &self.output].into_iter().chain(&self.key).chain(&self.value).chain(own)
    }

    /// Elements of a token's queries.
    fn query_width(&self) -> usize {
        self.params.n_heads * self.params.key_dim
    }

    /// Elements that a token attends to: a value for each query head.
    fn attended_width(&self) -> usize {
        self.params.n_heads * self.params.value_dim
    }

    /// Query heads that share a KV head.
    fn group(&self) -> usize {
        self.params.n_heads / self.params.n_kv_heads
    }

    fn buffers<'s>(&self, scratch: &mut Scratch<'s>, n_tokens: usize, workers: usize) -> Buffers<'s> {
        Buffers {
            hidden: scratch.take(n_tokens * self.desc.hidden),
            q: scratch.take(n_tokens * self.query_width()),
            gated_q: scratch.take(if self.is_gated { n_tokens * self.query.rows } else { 0 }),
            k: scratch.take(n_tokens * self.params.n_kv_heads * self.params.key_dim),
            v: scratch.take(n_tokens * self.params.n_kv_heads * self.params.value_dim),
            attended: scratch.take(n_tokens * self.attended_width()),
            splits: scratch.take(self.splits_len()),
            latent: self.latent.as_ref().map(|latent| self.latent_buffers(latent, scratch, n_tokens)),
            lora: scratch.take(n_tokens * self.max_lora_rank),
            work: scratch.for_steps([
                matmul_bytes(self.linears(), n_tokens, workers),
                self.latent.as_ref().map_or(0, |latent| latent.work_bytes(n_tokens, workers)),
                Scratch::measure(|scratch| self.head_workers(scratch, workers)),
                self.scorer.scratch_bytes(&self.rope, workers),
                Scratch::measure(|scratch| self.item_workers(scratch, workers)),
                add_branch_bytes(&self.desc, self.exit_norm.as_ref(), workers),
            ]),
        }
    }

    /// Refuses pages larger than the layer was made for. The boundary has checked their shape, but how much scratch memory
    /// a page takes is this layer's own.
    fn check_pages(&self, call: &Call<'_>) -> Result<()> {
        let pages = call.sequences.iter().flat_map(|sequence| sequence.pages());
        match pages.map(|page| page.capacity()).max().filter(|largest| *largest > self.page_tokens) {
            Some(largest) => Err(Error::invalid(format!(
                "a KV page has room for {largest} tokens, where at most {} were expected",
                self.page_tokens
            ))),
            None => Ok(()),
        }
    }
}

/// A sequence's first page that begins at the token `index` or later.
fn first_page(sequence: &Sequence<'_>, index: usize) -> usize {
    let (mut low, mut high) = (0, sequence.n_pages());
    while low < high {
        let middle = low.midpoint(high);
        if sequence.page_start(middle) < index { low = middle + 1 } else { high = middle }
    }
    low
}

fn check(params: &Params) -> Result<()> {
    let Params { n_heads, n_kv_heads, key_dim, value_dim, rope_dims, .. } = *params;
    if params.shares_kv && params.latent.is_some() {
        return Err(Error::unsupported(
            "latent attention that shares an earlier layer's pages is not known here",
        ));
    }
    if let Some(latent) = params.latent
        && (n_kv_heads != 1 || value_dim >= key_dim || latent.key_dim == 0 || rope_dims > key_dim - value_dim)
    {
        return Err(Error::invalid(format!(
            "latent attention has {n_kv_heads} KV heads with keys of {key_dim}, latents of {value_dim}, queries of {} and RoPE \
             over {rope_dims}, where one KV head was expected, whose key is longer than the latent by what RoPE rotates, and \
             nothing empty",
            latent.key_dim
        )));
    }
    if n_kv_heads == 0
        || n_heads == 0
        || !n_heads.is_multiple_of(n_kv_heads)
        || key_dim == 0
        || value_dim == 0
    {
        return Err(Error::invalid(format!(
            "attention has {n_heads} query heads of {key_dim} over {n_kv_heads} KV heads of {value_dim}, where a multiple \
             was expected, and nothing empty"
        )));
    }
    if params.rope != RopeKind::None && (rope_dims > key_dim || !rope_dims.is_multiple_of(2)) {
        return Err(Error::invalid(format!(
            "RoPE is to rotate {rope_dims} elements of heads of {key_dim}, where an even number of at most those was \
             expected"
        )));
    }
    Ok(())
}

impl<'w> Layer<'w> for Attention<'w> {
    fn matrices(&mut self) -> Vec<&mut Linear<'w>> {
        let own = self.latent.iter_mut().flat_map(Latent::linears_mut);
        let kv = self.key.iter_mut().chain(&mut self.value);
        [&mut self.query, &mut self.output].into_iter().chain(kv).chain(own).collect()
    }
}

impl EngineLayer for Attention<'_> {
    fn weight_bytes(&self) -> usize {
        self.linears().map(Linear::packed_bytes).sum()
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::measure(|scratch| self.buffers(scratch, self.max_tokens, self.max_workers))
    }

    fn batch_invariant_tokens(&self) -> usize {
        self.kernels.batch_invariant_tokens()
    }

    fn page_formats(&self) -> u32 {
        1 << abi::HERALD_PAGE_Q4
    }

    fn max_lora_rank(&self) -> usize {
        self.max_lora_rank
    }

    fn score_width(&self) -> usize {
        self.scorer.score_width()
    }

    fn summary_bytes(&self) -> usize {
        self.scorer.summary_bytes()
    }

    fn summarise(&self, page: &Page<'_>, summary: &mut [u8]) -> Result<()> {
        self.scorer.summarise(&self.rope, page, summary);
        Ok(())
    }

    fn forward(&self, call: &mut Call<'_>) -> Result<()> {
        self.check_pages(call)?;
        if self.params.mask == Mask::Bidirectional
            && call.sequences.iter().any(|sequence| sequence.past() > 0)
        {
            return Err(Error::invalid(
                "a sequence goes on, where all of it was expected in one call: its tokens attend to later ones",
            ));
        }
        let n_tokens = call.n_tokens;
        let mut scratch = Scratch::new(std::mem::take(&mut call.scratch));
        let mut buffers = self.buffers(&mut scratch, n_tokens, call.parallel.workers());
        let (kernels, parallel) = (self.kernels, call.parallel);
        let input = call.input.unwrap_or(call.output);
        enter(kernels, &parallel, &self.desc, input, self.norm.as_ref(), buffers.hidden);
        match &self.latent {
            Some(latent) => self.project_latent(latent, call, &mut buffers),
            None => self.project(call, &mut buffers),
        }
        if let Some(mut fetch) = call.fetch.take() {
            let Buffers { q, work, .. } = &mut buffers;
            self.scorer.score(&parallel, &call.sequences, &self.rope, q, work, fetch.scores());
            call.sequences = fetch.run()?;
        }
        self.attend(&parallel, &call.sequences, &mut buffers);
        if self.is_gated {
            self.apply_gates(&parallel, &mut buffers);
        }
        let Buffers { hidden: branch, attended, work, lora, latent: mut own, .. } = buffers;
        let attended = match (&self.latent, &mut own) {
            (Some(latent), Some(own)) => self.latent_values(latent, &parallel, attended, own, work),
            _ => attended,
        };
        matmul_one(&parallel, &self.output, attended, n_tokens, work, branch);
        let mut loras = Loras { kernels, parallel: &parallel, sequences: &call.sequences, work: lora };
        loras.add(WeightRole::AttentionOutput, attended, branch);
        add_branch(kernels, &parallel, &self.desc, branch, self.exit_norm.as_ref(), work, call.output);
        Ok(())
    }
}
