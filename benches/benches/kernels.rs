//! Every kernel of every backend alone, on one thread: matmuls of weights of each type with one token (matrices larger than
//! the caches, so memory is the limit) and with many (so arithmetic is), and all other kernels over data in the second-level
//! cache. The summary after criterion's output gives each as a share of the machine's limit.

mod shared {
    pub(crate) mod matrix;
    pub(crate) mod summary;
    pub(crate) mod tables;
}

use std::hint::black_box;

use criterion::{Criterion, SamplingMode, Throughput};
use herald_api::{Activation, ActivationPrecision, DType, Q4_GROUP, Q4Rows, RopeKind};
use herald_layers::Kernels;
use herald_layers::kernels::{Gemm, OnlineSoftmax, Q4Tile, SelectiveScan, SsdStep, Tap, Tile, Upcoming};
use shared::matrix::{Matrix, weights};
use shared::summary::{Share, Summary};
use shared::tables::tables;

/// Columns of a small model's MLP weights.
const COLUMNS: usize = 1536;

/// Bytes of a matrix that is larger than the caches.
const LARGE: usize = 64 << 20;

/// Tokens of a prompt's piece, and rows of the matrix that they are multiplied with.
const TOKENS: usize = 256;
const ROWS: usize = 256;

/// Elements of a vector; three vectors fit into the second-level cache.
const LEN: usize = 16 << 10;

/// A bench's work: its multiply-adds, its bytes, and its limit.
struct Work {
    multiply_adds: usize,
    bytes: usize,
    share: Share,
}

impl Work {
    fn arithmetic(multiply_adds: usize, share: Share) -> Self {
        Self { multiply_adds, bytes: 0, share }
    }

    fn vectors(floats: usize) -> Self {
        Self { multiply_adds: 0, bytes: floats * size_of::<f32>(), share: Share::Cache }
    }
}

/// The benches of one backend.
struct Benches<'b> {
    criterion: &'b mut Criterion,
    summary: &'b mut Summary,
    backend: &'static str,
}

impl Benches<'_> {
    fn add(&mut self, name: &str, work: &Work, mut run: impl FnMut()) {
        let mut group = self.criterion.benchmark_group(self.backend);
        // Flat sampling: every sample has the same number of runs, which may be one for a slow backend.
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(match (work.multiply_adds as u64, work.bytes as u64) {
            (0, bytes) => Throughput::Bytes(bytes),
            (elements, 0) => Throughput::Elements(elements),
            (elements, bytes) => Throughput::ElementsAndBytes { elements, bytes },
        });
        group.bench_function(name, |bencher| bencher.iter(&mut run));
        self.summary.compare_with(self.backend, name, work.share);
    }
}

/// Floats between -1 and 1 that differ.
fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|index| (index % 17) as f32 / 8.0 - 1.0).collect()
}

fn codes(len: usize) -> Vec<i16> {
    (0..len).map(|index| (index * 997 % 65_535) as i16).collect()
}

fn products(benches: &mut Benches<'_>, kernels: &Kernels) {
    let (mut prepared, mut scratch) = (Vec::new(), Vec::new());
    let kinds = DType::ALL.into_iter().flat_map(|dtype| ActivationPrecision::ALL.map(|of| (dtype, of)));
    for (dtype, activations) in kinds {
        let is_float = dtype.block_len() == 1;
        let (suffix, share) = match activations {
            ActivationPrecision::Int8 if is_float => continue,
            ActivationPrecision::Int8 => (", int8", Share::Int8),
            _ => ("", if is_float { Share::Float } else { Share::Int }),
        };
        let row_bytes = dtype.row_bytes(COLUMNS).unwrap_or(1);
        let rows = (LARGE / row_bytes).next_multiple_of(64);
        // Created when it is first needed: a run may leave the bench out.
        let mut matrix = None;
        let (x, mut out) = (floats(COLUMNS), vec![0.0; rows]);
        let work = Work { multiply_adds: rows * COLUMNS, bytes: rows * row_bytes, share: Share::Memory };
        benches.add(&format!("{dtype} times 1 token{suffix}"), &work, || {
            let matrix =
                matrix.get_or_insert_with(|| Matrix::new(kernels, (dtype, activations), rows, COLUMNS));
            matrix.multiply(black_box(&x), &mut prepared, &mut scratch, &mut out);
        });
        let mut matrix = None;
        let (x, mut out) = (floats(TOKENS * COLUMNS), vec![0.0; TOKENS * ROWS]);
        let work = Work::arithmetic(TOKENS * ROWS * COLUMNS, share);
        benches.add(&format!("{dtype} times {TOKENS} tokens{suffix}"), &work, || {
            let matrix =
                matrix.get_or_insert_with(|| Matrix::new(kernels, (dtype, activations), ROWS, COLUMNS));
            matrix.multiply(black_box(&x), &mut prepared, &mut scratch, &mut out);
        });
        if activations != ActivationPrecision::default() {
            continue;
        }
        let row = (kernels.rows)(dtype);
        let (data, mut out) = (weights(dtype, 1, COLUMNS), vec![0.0; COLUMNS]);
        benches.add(&format!("{dtype} as floats"), &Work::vectors(COLUMNS), || {
            (row.dequantize)(black_box(&data), &mut out);
        });
    }
}

fn vectors(benches: &mut Benches<'_>, kernels: &Kernels) {
    let (x, mut y) = (floats(LEN), floats(LEN));
    benches.add("dot", &Work::vectors(2 * LEN), || {
        black_box((kernels.dot)(black_box(&x), &y));
    });
    benches.add("add_scaled", &Work::vectors(3 * LEN), || (kernels.add_scaled)(&mut y, black_box(1e-9), &x));
    benches.add("mul", &Work::vectors(3 * LEN), || {
        (kernels.mul)(&mut y, black_box(&x));
    });
    let mut out = vec![0.0; LEN];
    benches
        .add("rms_norm", &Work::vectors(3 * LEN), || (kernels.rms_norm)(black_box(&x), &x, 1e-5, &mut out));
    let mut scaled = vec![0; LEN];
    benches.add("quantize_i16", &Work::vectors(LEN), || {
        black_box((kernels.quantize_i16)(black_box(&x), &mut scaled));
    });
    // In-place kernels get fresh input each time, so that values don't settle at a fixed point.
    for (name, kind) in [("silu", Activation::Silu), ("gelu", Activation::GeluTanh)] {
        benches.add(&format!("glu ({name})"), &Work::vectors(4 * LEN), || {
            out.copy_from_slice(black_box(&x));
            (kernels.glu)(kind, &mut out, &x);
        });
        benches.add(&format!("activate ({name})"), &Work::vectors(3 * LEN), || {
            out.copy_from_slice(black_box(&x));
            (kernels.activate)(kind, &mut out);
        });
    }
    benches.add("softplus", &Work::vectors(3 * LEN), || {
        out.copy_from_slice(black_box(&x));
        (kernels.softplus)(&mut out);
    });
    benches.add("decay_weights", &Work::vectors(4 * LEN), || {
        (kernels.decay_weights)(black_box(0.5), &x, &x, &mut out);
    });
    let rotation = vec![[0.8, 0.6]; LEN / 2];
    for (name, kind) in [("halves", RopeKind::Halves), ("neighbours", RopeKind::Neighbours)] {
        benches.add(&format!("rope ({name})"), &Work::vectors(3 * LEN), || {
            (kernels.rope)(kind, &mut y, black_box(&rotation));
        });
    }
    let (tokens, rows, columns) = (64, 64, COLUMNS);
    let (x, panel, mut out) = (floats(tokens * columns), floats(rows * columns), vec![0.0; tokens * rows]);
    benches.add("gemm", &Work::arithmetic(tokens * rows * columns, Share::Float), || {
        let call = Gemm { x: black_box(&x), panel: &panel, n_tokens: tokens, rows, columns };
        (kernels.gemm)(&call, &mut out);
    });
}

/// One page's keys and values against the queries of a decoded token, and of a prompt's tokens.
fn attention(benches: &mut Benches<'_>, kernels: &Kernels) {
    let (slots, dim) = (64, 64);
    let (keys, values, scales) = (codes(slots * dim), codes(slots * dim), vec![1e-5; slots]);
    let pairs = vec![[0x2e66, 0xb800]; slots.max(dim)];
    let nibbles: Vec<u8> = (0..slots * dim / 2).map(|index| (index * 37) as u8).collect();
    for n in [3, 96] {
        let plain = floats(n * dim);
        let mut queries = vec![0.0; Tile::<i16>::packed_queries_len(n, dim)];
        (kernels.pack_queries)(&plain, dim, &mut queries);
        let visible = vec![[0, slots as u32]; n];
        let mut memory = vec![0.0; n * (dim + 2)];
        let mut scratch = vec![0.0; Q4Tile::scratch_len(n, slots, dim, dim)];
        let work = Work::arithmetic(2 * n * slots * dim, Share::Float);
        benches.add(&format!("attend, {n} queries"), &work, || {
            let mut running = OnlineSoftmax::of(&mut memory, n);
            running.begin();
            let tile = Tile {
                queries: black_box(&queries),
                keys: &keys,
                key_scales: &scales,
                values: &values,
                value_scales: &scales,
                visible: &visible,
                key_dim: dim,
                value_dim: dim,
                scale: 0.125,
                softcap: None,
                next: Upcoming::default(),
            };
            (kernels.attend)(&tile, &mut running, &mut scratch);
        });
        benches.add(&format!("attend_q4, {n} queries"), &work, || {
            let mut running = OnlineSoftmax::of(&mut memory, n);
            running.begin();
            let tile = Q4Tile {
                queries: black_box(&plain),
                keys: Q4Rows { pairs: &pairs[..slots.div_ceil(Q4_GROUP) * dim], codes: &nibbles },
                values: Q4Rows { pairs: &pairs[..slots * dim.div_ceil(Q4_GROUP)], codes: &nibbles },
                slots,
                visible: &visible,
                key_dim: dim,
                value_dim: dim,
                scale: 0.125,
                softcap: None,
                next: Upcoming::default(),
            };
            (kernels.attend_q4)(&tile, &mut running, &mut scratch);
        });
    }
}

fn recurrent(benches: &mut Benches<'_>, kernels: &Kernels) {
    let (channels, state, tokens) = (64, 16, 64);
    let (x, dt, bc) = (floats(tokens * channels), vec![0.01; tokens * channels], floats(tokens * state));
    let (a, d) = (vec![-1.0; state * channels], floats(channels));
    let (mut h, mut out) = (vec![0.0; state * channels], vec![0.0; tokens * channels]);
    // The state's decay, input and output: three multiply-adds per element and token.
    benches.add("selective_scan", &Work::arithmetic(3 * tokens * channels * state, Share::Float), || {
        let call = SelectiveScan {
            x: black_box(&x),
            x_stride: channels,
            dt: &dt,
            b: &bc,
            c: &bc,
            bc_stride: state,
            a: &a,
            d: &d,
            n_tokens: tokens,
            channels,
            state,
        };
        (kernels.selective_scan)(&call, &mut h, &mut out);
    });
    let (channels, state) = (64, 128);
    let (x, bc) = (floats(channels), floats(state));
    let (mut h, mut out) = (vec![0.0; channels * state], vec![0.0; channels]);
    benches.add("ssd_step", &Work::arithmetic(3 * channels * state, Share::Float), || {
        let call = SsdStep { x: black_box(&x), b: &bc, c: &bc, decay: 0.9, dt: 0.01 };
        (kernels.ssd_step)(&call, &mut h, &mut out);
    });
    let (taps, input, mut out) = (floats(4 * LEN / 4), floats(LEN), vec![0.0; LEN / 4]);
    benches.add("conv", &Work::vectors(9 * LEN / 4), || {
        let tap = |index: usize| Tap {
            weight: &taps[index * LEN / 4..(index + 1) * LEN / 4],
            input: &input[index * LEN / 4..(index + 1) * LEN / 4],
        };
        (kernels.conv)(black_box(&[tap(0), tap(1), tap(2), tap(3)]), &taps[..LEN / 4], &mut out);
    });
}

fn main() {
    let mut summary = Summary::begin();
    let mut criterion = summary.criterion();
    for kernels in tables() {
        let mut benches = Benches { criterion: &mut criterion, summary: &mut summary, backend: kernels.name };
        products(&mut benches, kernels);
        vectors(&mut benches, kernels);
        attention(&mut benches, kernels);
        recurrent(&mut benches, kernels);
    }
    criterion.final_summary();
    summary.print();
}
