//! Attention by tiles: any number in a row make the softmax over all that they hold.

use std::ops::Range;

use herald_api::{Q4_GROUP, Q4Rows};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis, concatenate};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::bounds::{U, check_all, gamma};
use super::super::softmax::{attention, score};
use super::super::values::Values;
use super::super::{Case, ensure, property};
use super::CASES;
use crate::Kernels;
use crate::kernels::{OnlineSoftmax, Q4Tile, Tile, Upcoming};

/// The greatest 4-bit code.
const MAX_CODE: f64 = 15.0;

#[derive(Clone, Debug)]
struct Shape {
    queries: usize,
    key_dim: usize,
    value_dim: usize,
    /// The slots of each tile.
    tiles: Vec<usize>,
    softcap: Option<f32>,
    /// How large queries are: the largest make scores whose exp is far outside float32.
    size: f32,
    /// Elements that the queries lie after the beginning of their memory, and keys and values.
    before: [usize; 2],
    seed: u64,
}

/// As many queries as a decoding token brings, or a run of a prompt's.
fn queries() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..7, 7_usize..70]
}

fn shapes() -> impl Strategy<Value = Shape> {
    (
        (queries(), 1_usize..70, 1_usize..70),
        prop::collection::vec(1_usize..40, 1..4),
        select(&[None, Some(30.0_f32), Some(0.5)][..]),
        select(&[0.01_f32, 1.0, 30.0, 1e6, 1e18, 1e30][..]),
        [0_usize..8, 0_usize..8],
        any::<u64>(),
    )
        .prop_map(|((queries, key_dim, value_dim), tiles, softcap, size, before, seed)| Shape {
            queries,
            key_dim,
            value_dim,
            tiles,
            softcap,
            size,
            before,
            seed,
        })
}

/// Keys or values of a tile: as codes and scales with some before them, and as float64.
struct Rows {
    codes: Vec<i16>,
    scales: Vec<f32>,
    before: usize,
    value: Array2<f64>,
}

impl Rows {
    fn random(shape: [usize; 2], before: usize, values: &mut Values) -> Self {
        let [slots, dim] = shape;
        let codes: Vec<i16> = (0..before + slots * dim).map(|_| values.bits() as i16).collect();
        let scales = values.many(before + slots, 0.0, 2.0 / 32768.0);
        let value = Array2::from_shape_fn(shape, |(slot, column)| {
            f64::from(scales[before + slot]) * f64::from(codes[before + slot * dim + column])
        });
        Self { codes, scales, before, value }
    }

    fn codes(&self) -> &[i16] {
        &self.codes[self.before..]
    }

    fn scales(&self) -> &[f32] {
        &self.scales[self.before..]
    }
}

pub(in super::super) fn check(kernels: &'static Kernels) {
    property(&format!("{}: attend", kernels.name), CASES, shapes(), |shape| attend(kernels, &shape));
    property(&format!("{}: attend_q4", kernels.name), CASES, q4_shapes(), |shape| attend_q4(kernels, &shape));
}

/// One page more often than not has several groups of tokens, or of channels.
fn q4_shapes() -> impl Strategy<Value = (Shape, usize)> {
    let dim = || prop_oneof![1_usize..140, select(&[32_usize, 64, 96, 128, 160, 256][..])];
    let dims = (queries(), dim(), dim());
    (shapes(), prop_oneof![1_usize..150, Just(Q4_GROUP)], dims).prop_map(
        |(shape, slots, (queries, key_dim, value_dim))| {
            (Shape { queries, key_dim, value_dim, ..shape }, slots)
        },
    )
}

/// Keys or values of a page of 4-bit codes: as they lie in it, and as float64. `group` is how many slots and how many
/// columns share a pair.
struct Q4 {
    pairs: Vec<[u16; 2]>,
    codes: Vec<u8>,
    value: Array2<f64>,
    /// What the offset and the step's part are without regard to signs: how large sums of either by itself are.
    size: Array2<f64>,
    step: Array2<f64>,
}

impl Q4 {
    fn random([slots, dim]: [usize; 2], group: [usize; 2], values: &mut Values) -> Self {
        let pairs_across = dim.div_ceil(group[1]);
        let pairs: Vec<[u16; 2]> = (0..slots.div_ceil(group[0]) * pairs_across)
            .map(|_| {
                [values.between(0.0, 0.2), values.between(-2.0, 2.0)]
                    .map(|x| half::f16::from_f32(x).to_bits())
            })
            .collect();
        let width = dim.div_ceil(2);
        let mut codes: Vec<u8> = (0..slots * width).map(|_| values.bits() as u8).collect();
        if dim % 2 == 1 {
            codes.iter_mut().skip(width - 1).step_by(width).for_each(|byte| *byte &= 15);
        }
        let parts = |(slot, column): (usize, usize)| {
            let pair = pairs[slot / group[0] * pairs_across + column / group[1]];
            let [step, offset] = pair.map(|bits| f64::from(half::f16::from_bits(bits).to_f32()));
            let byte = codes[slot * width + column % width];
            let code = if column < width { byte & 15 } else { byte >> 4 };
            (offset, step, f64::from(code))
        };
        let of = |part: fn((f64, f64, f64)) -> f64| Array2::from_shape_fn((slots, dim), |at| part(parts(at)));
        Self {
            value: of(|(offset, step, code)| offset + step * code),
            size: of(|(offset, step, code)| offset.abs() + step * code),
            step: of(|(_, step, _)| step),
            pairs,
            codes,
        }
    }

    /// What an element may be off by in a sum of `terms`: offsets' and steps' parts may be summed apart.
    fn errors(&self, terms: usize) -> Array2<f64> {
        self.size.mapv(|size| gamma(terms + 4) * size)
    }

    fn rows(&self) -> Q4Rows<'_> {
        Q4Rows { pairs: &self.pairs, codes: &self.codes }
    }
}

/// Queries as a table's `attend` reads them.
fn pack(kernels: &Kernels, queries: &[f32], key_dim: usize) -> Vec<f32> {
    let mut packed = vec![f32::NAN; Tile::<i16>::packed_queries_len(queries.len() / key_dim, key_dim)];
    (kernels.pack_queries)(queries, key_dim, &mut packed);
    packed
}

fn attend_q4(kernels: &Kernels, (shape, slots): &(Shape, usize)) -> Case {
    let Shape { queries: n, key_dim, value_dim, softcap, size, .. } = *shape;
    let slots = *slots;
    let mut values = Values::new(shape.seed);
    // Scores so large that their errors would be the scores are the other kernel's test.
    let size = size.min(30.0);
    let queries = values.many(n * key_dim, -size, size);
    let scale = 1.0 / (key_dim as f32).sqrt();
    let keys = Q4::random([slots, key_dim], [Q4_GROUP, 1], &mut values);
    let page_values = Q4::random([slots, value_dim], [1, Q4_GROUP], &mut values);
    let visible: Vec<[u32; 2]> = (0..n)
        .map(|_| {
            let (a, b) = (values.below(slots + 1), values.below(slots + 1));
            [a.min(b) as u32, a.max(b) as u32]
        })
        .collect();
    let attend = |range: Range<usize>| {
        let n = range.len();
        let tile = Q4Tile {
            queries: &queries[range.start * key_dim..range.end * key_dim],
            keys: keys.rows(),
            values: page_values.rows(),
            slots,
            visible: &visible[range],
            key_dim,
            value_dim,
            scale,
            softcap,
            next: Upcoming::default(),
        };
        let mut memory = vec![f32::NAN; n * (value_dim + 2)];
        let mut running = OnlineSoftmax::of(&mut memory, n);
        running.begin();
        // Scratch memory holds anything at first, and is no longer than said.
        let mut scratch = vec![f32::NAN; Q4Tile::scratch_len(n, slots, key_dim, value_dim)];
        (kernels.attend_q4)(&tile, &mut running, &mut scratch);
        running.finish();
        running.out.to_vec()
    };
    let out = attend(0..n);
    let alone = values.below(n);
    let out_alone = attend(alone..alone + 1);
    ensure(out_alone == out[alone * value_dim..(alone + 1) * value_dim], || {
        format!("query {alone} of {n} by itself has another result than among the others")
    })?;
    let exact = Array2::zeros((1, key_dim));
    let rounding = f64::from(kernels.attend_q4_rounding);
    let (key_errors, value_errors) = (keys.errors(key_dim), page_values.errors(slots));
    for (query, [begin, end]) in visible.iter().enumerate() {
        let seen: Vec<usize> = (*begin as usize..*end as usize).collect();
        let row: Vec<f64> = queries[query * key_dim..][..key_dim].iter().copied().map(f64::from).collect();
        let row = ArrayView1::from(&row);
        let scores: Vec<_> = seen
            .iter()
            .map(|slot| {
                // Each number of the query times its step, of which a code has up to 15, may be rounded.
                let largest = row
                    .iter()
                    .zip(keys.step.row(*slot))
                    .fold(0.0_f64, |max, (q, step)| max.max((q * step).abs()));
                let rounded = rounding * largest * (MAX_CODE * key_dim as f64);
                let key = [keys.value.row(*slot), key_errors.row(*slot)];
                score([row, exact.row(0)], key, rounded, f64::from(scale), softcap.map(f64::from))
            })
            .collect();
        let of_seen = |array: &Array2<f64>| array.select(Axis(0), &seen);
        let (value, error, step) =
            (of_seen(&page_values.value), of_seen(&value_errors), of_seen(&page_values.step));
        let steps = step * (rounding * MAX_CODE);
        let expected = attention(&scores, value.view(), error.view(), Some(steps.view()), 1);
        check_all(&format!("query {query}"), &out[query * value_dim..(query + 1) * value_dim], expected)?;
    }
    Ok(())
}

/// Attends to a tile, which leaves the softmax of queries that see nothing of it alone.
fn attend_tile(kernels: &Kernels, tile: &Tile<'_>, running: &mut OnlineSoftmax<'_>) -> Case {
    let Tile { visible, key_dim, value_dim, .. } = *tile;
    let (n, slots) = (visible.len(), tile.key_scales.len());
    let unseen: Vec<_> = (0..n).filter(|query| visible[*query][0] == visible[*query][1]).collect();
    let state = |running: &OnlineSoftmax<'_>, query: usize| {
        let out = running.out[query * value_dim..(query + 1) * value_dim].to_vec();
        (running.max[query], running.sum[query], out)
    };
    let old: Vec<_> = unseen.iter().map(|query| state(running, *query)).collect();
    // Scratch memory holds anything at first, and is no longer than said.
    let mut scratch = vec![f32::NAN; Tile::<i16>::scratch_len(n, slots, key_dim, value_dim)];
    (kernels.attend)(tile, running, &mut scratch);
    for (query, old) in unseen.iter().zip(old) {
        ensure(state(running, *query) == old, || {
            format!("query {query} sees nothing of a tile of {slots}, which changed what it had seen")
        })?;
    }
    Ok(())
}

fn attend(kernels: &Kernels, shape: &Shape) -> Case {
    let Shape { queries: n, key_dim, value_dim, softcap, size, before, .. } = *shape;
    let mut values = Values::new(shape.seed);
    let queries = values.many(before[0] + n * key_dim, -size, size);
    let queries = &queries[before[0]..];
    let packed = pack(kernels, queries, key_dim);
    let scale = 1.0 / (key_dim as f32).sqrt();

    let (mut max, mut sum, mut out) = (vec![f32::NAN; n], vec![f32::NAN; n], vec![f32::NAN; n * value_dim]);
    let mut running = OnlineSoftmax { max: &mut max, sum: &mut sum, out: &mut out };
    running.begin();
    // One of them alone gives the same.
    let alone = values.below(n);
    let packed_alone = pack(kernels, &queries[alone * key_dim..][..key_dim], key_dim);
    let mut memory_alone = vec![f32::NAN; value_dim + 2];
    let mut running_alone = OnlineSoftmax::of(&mut memory_alone, 1);
    running_alone.begin();
    let (mut all_keys, mut all_values) = (Vec::new(), Vec::new());
    // Of each query the slots that it sees, over all tiles.
    let mut seen: Vec<Vec<usize>> = vec![Vec::new(); n];
    let mut first = 0;
    for &slots in &shape.tiles {
        let keys = Rows::random([slots, key_dim], before[1], &mut values);
        let tile_values = Rows::random([slots, value_dim], before[1], &mut values);
        let visible: Vec<[u32; 2]> = (0..n)
            .map(|_| {
                let (a, b) = (values.below(slots + 1), values.below(slots + 1));
                [a.min(b) as u32, if values.coin() { slots as u32 } else { a.max(b) as u32 }]
            })
            .collect();
        let tile = Tile {
            queries: &packed,
            keys: keys.codes(),
            key_scales: keys.scales(),
            values: tile_values.codes(),
            value_scales: tile_values.scales(),
            visible: &visible,
            key_dim,
            value_dim,
            scale,
            softcap,
            next: Upcoming::default(),
        };
        let tile_alone = Tile { queries: &packed_alone, visible: &visible[alone..=alone], ..tile };
        let mut scratch = vec![f32::NAN; Tile::<i16>::scratch_len(1, slots, key_dim, value_dim)];
        (kernels.attend)(&tile_alone, &mut running_alone, &mut scratch);
        attend_tile(kernels, &tile, &mut running)?;
        for (seen, [begin, end]) in seen.iter_mut().zip(&visible) {
            seen.extend(first + *begin as usize..first + *end as usize);
        }
        first += slots;
        all_keys.push(keys.value);
        all_values.push(tile_values.value);
    }
    ensure(
        running_alone.max[0].to_bits() == running.max[alone].to_bits()
            && running_alone.sum[0].to_bits() == running.sum[alone].to_bits()
            && running_alone.out == &running.out[alone * value_dim..(alone + 1) * value_dim],
        || format!("query {alone} of {n} by itself has another result than among the others"),
    )?;
    running.finish();

    let stack = |tiles: &[Array2<f64>]| {
        let views: Vec<ArrayView2<'_, f64>> = tiles.iter().map(|tile| tile.view()).collect();
        concatenate(Axis(0), &views).expect("all tiles are equally wide")
    };
    compare(shape, queries, &seen, [stack(&all_keys), stack(&all_values)], &out)
}

/// Compares each query's attention, the rows of `out`, with that over the slots that it saw of all tiles.
fn compare(
    shape: &Shape,
    queries: &[f32],
    seen: &[Vec<usize>],
    [keys, values]: [Array2<f64>; 2],
    out: &[f32],
) -> Case {
    let Shape { key_dim, value_dim, softcap, .. } = *shape;
    let scale = f64::from(1.0 / (key_dim as f32).sqrt());
    // A code times its scale is rounded.
    let key_errors = keys.mapv(|key| U * key.abs());
    let exact = ArrayView1::from(&[0.0; 128][..key_dim]);
    for (query, seen) in seen.iter().enumerate() {
        let row: Vec<f64> = queries[query * key_dim..][..key_dim].iter().copied().map(f64::from).collect();
        let row = ArrayView1::from(&row);
        let scores: Vec<_> = seen
            .iter()
            .map(|slot| {
                let key = [keys.row(*slot), key_errors.row(*slot)];
                score([row, exact], key, 0.0, scale, softcap.map(f64::from))
            })
            .collect();
        let values = values.select(Axis(0), seen);
        let errors = values.mapv(|value| U * value.abs());
        let expected = attention(&scores, values.view(), errors.view(), None, shape.tiles.len());
        check_all(&format!("query {query}"), &out[query * value_dim..(query + 1) * value_dim], expected)?;
    }
    Ok(())
}
