//! Page selection in float64: summaries of older pages, the scores by which the best are chosen, and attention to those, with
//! queries whose positions are shifted for pages beyond the maximum distance.

use std::sync::Arc;

use herald_api::import::{Batch, BatchBuffers, Fetcher, Forward, Lent, PageHandle, PageUse};
use herald_api::{AlignedBytes, Attention, Result};
use ndarray::{Array1, Array2, s};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;

use super::super::bounds::{Expected, FUNCTION, TINY, check_all, gamma};
use super::super::executor::Scoped;
use super::super::reference::Approx;
use super::super::softmax::{attention, score};
use super::super::values::Values;
use super::super::{Case, Subject, property};
use super::attention::{self as dense, Reference};
use super::batches::tier;
use super::order::{Limits, Weights, activations, create, order, scratch};

/// Tokens of a page.
const PAGE: usize = 8;

/// Half of float16's last place, relative to a number; and that of its smallest numbers.
const HALF: [f64; 2] = [1.0 / 2048.0, 1.0 / 33_554_432.0];

#[derive(Clone, Debug)]
struct Shape {
    dense: dense::Shape,
    n_tokens: usize,
    /// Pages to choose from.
    n_candidates: usize,
    /// How many of them are fetched.
    n_fetched: usize,
    max_distance: Option<usize>,
    workers: usize,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let tokens = select(&[1_usize, 3, 31, 70, 150][..]);
    let max_distance = select(&[None, Some(1_usize), Some(20), Some(90), Some(100_000)][..]);
    (dense::shapes(), tokens, 1_usize..40, 0_usize..12, max_distance, 1_usize..4).prop_map(
        |(mut dense, n_tokens, n_candidates, n_fetched, max_distance, workers)| {
            dense.params.window = None;
            Shape { dense, n_tokens, n_candidates, n_fetched, max_distance, workers }
        },
    )
}

/// Pages of earlier tokens, and their keys and values in float64, `[pages * PAGE, heads * dim]`.
struct Earlier {
    pages: Vec<Arc<PageHandle>>,
    keys: Array2<f64>,
    values: Array2<f64>,
}

impl Earlier {
    fn random(plugin: &Subject<'_>, params: &Attention, count: usize, values: &mut Values) -> Result<Self> {
        let tier = tier(plugin, params, PAGE)?;
        let heads = params.n_kv_heads;
        let mut part = |dim: usize| {
            let mut bytes =
                AlignedBytes::zeroed(heads * PAGE * (4 + 2 * dim)).expect("memory for a small page");
            let (scales, codes) = bytes.split_at_mut(4 * heads * PAGE);
            let (scales, codes): (&mut [f32], &mut [i16]) =
                (bytemuck::cast_slice_mut(scales), bytemuck::cast_slice_mut(codes));
            scales.fill_with(|| values.between(0.1, 1.5) / 32767.0);
            codes.fill_with(|| values.between(-32767.0, 32767.0) as i16);
            let element = |head: usize, slot: usize, column: usize| {
                let row = head * PAGE + slot;
                f64::from(scales[row]) * f64::from(codes[row * dim + column])
            };
            let rows = Array2::from_shape_fn((PAGE, heads * dim), |(slot, column)| {
                element(column / dim, slot, column % dim)
            });
            (bytes, rows)
        };
        let (mut pages, mut all) = (Vec::new(), [Vec::new(), Vec::new()]);
        for _ in 0..count {
            let ((keys, key_rows), (values, value_rows)) = (part(params.key_dim), part(params.value_dim));
            let mut page = tier.reserve()?;
            page.overwrite(&keys, &values)?;
            page.commit(PAGE)?;
            pages.push(Arc::new(page));
            all[0].extend(key_rows);
            all[1].extend(value_rows);
        }
        let [keys, values] = all;
        let shaped = |all: Vec<f64>, dim: usize| {
            Array2::from_shape_vec((count * PAGE, heads * dim), all).expect("whole rows")
        };
        Ok(Self { pages, keys: shaped(keys, params.key_dim), values: shaped(values, params.value_dim) })
    }
}

/// Fetches the pages with the best scores, and keeps these.
struct Best<'p> {
    candidates: &'p [Arc<PageHandle>],
    n_fetched: usize,
    scores: Vec<f32>,
    chosen: Vec<usize>,
}

impl Fetcher for Best<'_> {
    fn fetch(&mut self, scores: &[f32], batch: &mut Batch<'_>) -> Result<()> {
        self.scores = scores.to_vec();
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(self.n_fetched);
        for page in &order {
            batch.add_fetched(0, (1 + page) * PAGE, Arc::clone(&self.candidates[*page]))?;
        }
        self.chosen = order;
        Ok(())
    }
}

pub(super) fn check(plugin: &Subject<'_>) {
    property(&format!("{}: page selection", plugin.name()), 60, shapes(), |shape| {
        check_shape(plugin, &shape)
    });
}

fn check_shape(plugin: &Subject<'_>, shape: &Shape) -> Case {
    let failed = |error: herald_api::Error| TestCaseError::fail(error.to_string());
    let (hidden, params, n_tokens) = (shape.dense.hidden, &shape.dense.params, shape.n_tokens);
    let mut weights = Weights::new(plugin.kernels, shape.dense.seed);
    let reference = Reference::random(hidden, params, &mut weights);
    let limits = Limits { max_tokens: n_tokens, max_workers: shape.workers, page_tokens: PAGE };
    let layer = create(plugin, order(&reference.desc, &weights.shared, limits)).map_err(failed)?;
    if layer.summary_bytes() == 0 {
        return Ok(());
    }
    // The first page, the candidates, and the latest.
    let earlier =
        Earlier::random(plugin, params, shape.n_candidates + 2, &mut weights.values).map_err(failed)?;
    let candidates = &earlier.pages[1..=shape.n_candidates];
    let mut summaries = vec![0_u64; shape.n_candidates * layer.summary_bytes() / 8];
    let starts: Vec<u64> = (1..=shape.n_candidates).map(|page| (page * PAGE) as u64).collect();
    let len = layer.summary_bytes() / 8;
    for ((page, summary), start) in candidates.iter().zip(summaries.chunks_exact_mut(len)).zip(&starts) {
        layer.summarise(page, *start as usize, bytemuck::cast_slice_mut(summary)).map_err(failed)?;
    }
    let boxes = check_summaries(&reference, &earlier, &starts, &summaries, len)?;

    let past = earlier.pages.len() * PAGE;
    let (x, exact) = activations(n_tokens, hidden, &mut weights.values);
    let positions: Vec<u32> = (past as u32..(past + n_tokens) as u32).collect();
    let own_tier = tier(plugin, params, PAGE).map_err(failed)?;
    let mut own: Vec<PageHandle> =
        (0..n_tokens.div_ceil(PAGE)).map(|_| own_tier.reserve()).collect::<Result<_>>().map_err(failed)?;
    let mut output = x.clone();
    let mut best = Best { candidates, n_fetched: shape.n_fetched, scores: Vec::new(), chosen: Vec::new() };
    {
        let mut buffers = BatchBuffers::default();
        let mut batch = buffers.begin();
        let near = [0, past - PAGE].map(|start| (start, PageUse::Shared(&earlier.pages[start / PAGE])));
        let own = own.iter_mut().enumerate().map(|(page, own)| (past + page * PAGE, PageUse::Own(own)));
        batch.push(n_tokens, past, None, near.into_iter().chain(own)).map_err(failed)?;
        batch.selectable_pages(&starts, bytemuck::cast_slice(&summaries));
        if let Some(max_distance) = shape.max_distance {
            batch.max_distance(max_distance);
        }
        let threads = Scoped(shape.workers);
        let lent = Lent::new(&threads);
        let request = Forward {
            n_tokens,
            tokens: &[],
            positions: &positions,
            input: None,
            output: &mut output,
            parallel: lent.parallel(),
        };
        let mut scratch = scratch(&layer).map_err(failed)?;
        layer.forward_fetching(request, Some(&mut batch), &mut scratch, Some(&mut best)).map_err(failed)?;
    }
    let [q, k, v] = reference.heads(&exact, &positions);
    let seen = Seen { shape, past };
    check_all("the scores", &best.scores[..shape.n_candidates], seen.scores(&reference, &q, &boxes))?;
    let attended = seen.attended(&reference, &earlier, &best.chosen, [&q, &k, &v]);
    let expected = reference.leave(&exact, &exact, &attended);
    for (token, row) in output.chunks_exact(hidden).enumerate() {
        check_all(&format!("token {token}"), row, expected.row(token))?;
    }
    Ok(())
}

/// Compares summaries with the boxes of the keys; returns them as they are, for each page `[heads, 2, key_dim]`.
fn check_summaries(
    reference: &Reference,
    earlier: &Earlier,
    starts: &[u64],
    summaries: &[u64],
    len: usize,
) -> Result<Vec<Vec<f64>>, TestCaseError> {
    let Attention { n_kv_heads, key_dim, .. } = reference.params;
    let mut boxes = Vec::new();
    for (start, summary) in starts.iter().zip(summaries.chunks_exact(len)) {
        let halves: &[u16] = bytemuck::cast_slice(summary);
        let got: Vec<f32> = halves[..n_kv_heads * 2 * key_dim]
            .iter()
            .map(|bits| half::f16::from_bits(*bits).to_f32())
            .collect();
        let start = *start as usize;
        let keys = Approx::exact(earlier.keys.slice(s![start..start + PAGE, ..]).to_owned());
        let keys = keys.turn_back(&reference.rotation, key_dim, start);
        let mut expected = Vec::new();
        for head in 0..n_kv_heads {
            let mut of_head = [Vec::new(), Vec::new()];
            for channel in head * key_dim..(head + 1) * key_dim {
                let column = keys.value.column(channel);
                let (min, max) = column
                    .iter()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
                let error = keys.error.column(channel).iter().copied().fold(0.0, f64::max);
                for (to, value) in of_head.iter_mut().zip([f64::midpoint(min, max), (max - min) / 2.0]) {
                    // The key as float32, two roundings of the middle, float16's.
                    let before = error + gamma(3) * (min.abs() + max.abs());
                    let bound = before + HALF[0] * (value.abs() + before) + HALF[1];
                    to.push(Expected { value, bound });
                }
            }
            expected.extend(of_head.concat());
        }
        check_all(&format!("the summary of the page at {start}"), &got, expected)?;
        boxes.push(got.into_iter().map(f64::from).collect());
    }
    Ok(boxes)
}

/// Where the batch's tokens lie among the others.
struct Seen<'s> {
    shape: &'s Shape,
    past: usize,
}

impl Seen<'_> {
    /// How many positions are subtracted from queries' for a page.
    fn position_shift(&self, start: usize) -> usize {
        let distance = self.past + self.shape.n_tokens - start;
        self.shape.max_distance.map_or(0, |max_distance| distance.saturating_sub(max_distance))
    }

    /// The score of each candidate: for each mean query and head, the softmax over the pages of `scale` times the greatest
    /// product with anything in the page's box; summed.
    fn scores(&self, reference: &Reference, q: &Approx, boxes: &[Vec<f64>]) -> Vec<Expected> {
        let Attention { n_heads, n_kv_heads, key_dim, scale, .. } = reference.params;
        let (n_tokens, scale) = (self.shape.n_tokens, f64::from(scale));
        let count = n_tokens.div_ceil(32).min(4);
        let mut totals = vec![Expected { value: 0.0, bound: 0.0 }; boxes.len()];
        for run in 0..count {
            let tokens = run * n_tokens / count..(run + 1) * n_tokens / count;
            let mean = |of: &Array2<f64>, size: bool| -> Array1<f64> {
                let rows = of.slice(s![tokens.clone(), ..]);
                let rows = if size { rows.mapv(f64::abs) } else { rows.to_owned() };
                rows.sum_axis(ndarray::Axis(0)) / tokens.len() as f64
            };
            let value = mean(&q.value, false).insert_axis(ndarray::Axis(0));
            let sizes = mean(&q.value, true) + mean(&q.error, false);
            let error =
                (mean(&q.error, false) + gamma(tokens.len() + 2) * sizes).insert_axis(ndarray::Axis(0));
            let mean = Approx { value, error };
            let turned: Vec<Approx> = (0..boxes.len())
                .map(|page| {
                    let start = (1 + page) * PAGE;
                    let end = self.past + n_tokens;
                    let distance = end - start - self.position_shift(start);
                    mean.turn_back(&reference.rotation, key_dim, end - distance)
                })
                .collect();
            for head in 0..n_heads {
                let kv_head = head / (n_heads / n_kv_heads);
                let bounds: Vec<Expected> = boxes
                    .iter()
                    .zip(&turned)
                    .map(|(of_page, query)| {
                        let of_head = &of_page[kv_head * 2 * key_dim..(kv_head + 1) * 2 * key_dim];
                        let (mut value, mut carried, mut size) = (0.0, 0.0, 0.0);
                        for channel in 0..key_dim {
                            let (middle, half) = (of_head[channel], of_head[key_dim + channel]);
                            let at = head * key_dim + channel;
                            let (q, e) = (query.value[[0, at]], query.error[[0, at]]);
                            value += q * middle + q.abs() * half;
                            carried += e * (middle.abs() + half);
                            size += (q.abs() + e) * (middle.abs() + half);
                        }
                        let roundings = gamma(2 * key_dim + 3) * size;
                        Expected { value: scale * value, bound: scale * (carried + roundings + TINY) }
                    })
                    .collect();
                let max = bounds.iter().map(|bound| bound.value).fold(f64::NEG_INFINITY, f64::max);
                let off = bounds.iter().map(|bound| bound.bound).fold(0.0, f64::max);
                let sum: f64 = bounds.iter().map(|bound| (bound.value - max).exp()).sum();
                for (total, bound) in totals.iter_mut().zip(&bounds) {
                    let part = (bound.value - max).exp() / sum;
                    // Numerator and denominator are off by the bounds, the difference's rounding, the function, the sum's
                    // roundings and the quotient's.
                    let spread = 2.0 * (off + gamma(1) * (max - bound.value + off));
                    let relative = spread.exp() * (1.0 + 2.0 * FUNCTION + gamma(boxes.len() + 2)) - 1.0;
                    total.value += part;
                    total.bound += part * relative + 4.0 * TINY;
                }
            }
        }
        let rows = count * n_heads;
        totals
            .into_iter()
            .map(|Expected { value, bound }| Expected { value, bound: bound + gamma(rows) * (value + bound) })
            .collect()
    }

    /// Attention over the first page, those that were chosen, the latest, and the batch's own tokens.
    fn attended(
        &self,
        reference: &Reference,
        earlier: &Earlier,
        chosen: &[usize],
        [q, k, v]: [&Approx; 3],
    ) -> Approx {
        let Attention { n_heads, n_kv_heads, key_dim, value_dim, scale, softcap, .. } = reference.params;
        let n_tokens = self.shape.n_tokens;
        let mut pages: Vec<usize> = chosen.iter().map(|page| 1 + page).collect();
        pages.extend([0, self.shape.n_candidates + 1]);
        pages.sort_unstable();
        let own = (0..n_tokens.div_ceil(PAGE)).map(|page| self.past / PAGE + page);
        let turned: Vec<(usize, Approx)> = pages
            .into_iter()
            .chain(own)
            .map(|page| (page, q.turn_back(&reference.rotation, key_dim, self.position_shift(page * PAGE))))
            .collect();
        let mut attended = Approx::exact(Array2::zeros((n_tokens, n_heads * value_dim)));
        for token in 0..n_tokens {
            for head in 0..n_heads {
                let kv_head = head / (n_heads / n_kv_heads);
                let query_part = s![token, head * key_dim..(head + 1) * key_dim];
                let key_columns = kv_head * key_dim..(kv_head + 1) * key_dim;
                let value_columns = kv_head * value_dim..(kv_head + 1) * value_dim;
                let (mut scores, mut rows) = (Vec::new(), [Vec::new(), Vec::new()]);
                for (page, turned) in &turned {
                    // Pages within the maximum distance take the query unshifted.
                    let query = if self.position_shift(page * PAGE) == 0 { q } else { turned };
                    let query = [query.value.slice(query_part), query.error.slice(query_part)];
                    for place in page * PAGE..((page + 1) * PAGE).min(self.past + token + 1) {
                        let of = |earlier: &Array2<f64>, own: &Approx, columns: std::ops::Range<usize>| {
                            match place.checked_sub(self.past) {
                                None => {
                                    let row = earlier.slice(s![place, columns]).to_owned();
                                    let error = Array1::zeros(row.len());
                                    [row, error]
                                }
                                Some(own_token) => [&own.value, &own.error]
                                    .map(|part| part.slice(s![own_token, columns.clone()]).to_owned()),
                            }
                        };
                        let [key, error] = of(&earlier.keys, k, key_columns.clone());
                        let softcap = softcap.map(f64::from);
                        scores.push(score(query, [key.view(), error.view()], 0.0, f64::from(scale), softcap));
                        for (rows, row) in rows.iter_mut().zip(of(&earlier.values, v, value_columns.clone()))
                        {
                            rows.extend(row);
                        }
                    }
                }
                let mut values = rows
                    .map(|rows| Array2::from_shape_vec((scores.len(), value_dim), rows).expect("whole rows"));
                reference.add_sink(head, &mut scores, &mut values);
                let sums = attention(&scores, values[0].view(), values[1].view(), None, scores.len());
                for (column, sum) in sums.into_iter().enumerate() {
                    attended.value[[token, head * value_dim + column]] = sum.value;
                    attended.error[[token, head * value_dim + column]] = sum.bound;
                }
            }
        }
        attended
    }
}
