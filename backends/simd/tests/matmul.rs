//! What the suite of all backends doesn't ask of matmuls: a token's results are the same to the bit whatever tokens are
//! beside it, and on every instruction set.

use herald_api::{ActivationPrecision, AlignedBytes, DType, Hardware};
use herald_layers::matmul::{MatmulCall, MatmulKernel, OutputTile};
use herald_simd::VARIANTS;

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// Between -1 and 1; now and then many times as large.
    fn float(&mut self) -> f32 {
        let x = self.next() as f32 / (1_u64 << 30) as f32 - 1.0;
        if self.next().is_multiple_of(50) { 40.0 * x } else { x }
    }
}

/// Memory for floats, aligned as layers align it.
fn floats(len: usize) -> AlignedBytes {
    AlignedBytes::zeroed(4 * len).expect("there is memory for a test")
}

/// A matrix `[rows, columns]` as a kernel packs it.
fn pack(kernel: &MatmulKernel, bytes: &[u8], [rows, columns]: [usize; 2]) -> AlignedBytes {
    let packing = kernel.packing.expect("these kernels pack");
    let len = (packing.bytes)(rows, columns);
    let mut packed = AlignedBytes::zeroed(len).expect("there is memory for a test");
    let tile_bytes = (packing.bytes)(kernel.row_tile, columns);
    for (index, tile) in packed.chunks_exact_mut(tile_bytes).enumerate() {
        let first = index * kernel.row_tile;
        (packing.pack)(bytes, columns, first..rows.min(first + kernel.row_tile), tile);
    }
    packed
}

/// `[n_tokens, rows]`, as bits.
fn product(kernel: &MatmulKernel, packed: &[u8], [n_rows, columns]: [usize; 2], x: &[f32]) -> Vec<u32> {
    let n_tokens = x.len() / columns;
    let format = kernel.activations.expect("quantised weights meet quantised activations");
    let mut quantized = floats(n_tokens * (format.len)(columns));
    let quantized: &mut [f32] = bytemuck::cast_slice_mut(&mut quantized);
    format.quantize_all(x, columns, quantized);
    let mut scratch = floats((kernel.scratch_len)(columns, n_tokens));
    let mut out = vec![f32::NAN; n_tokens * n_rows];
    let call =
        MatmulCall { rows: packed, n_rows, dtype: kernel.dtype, columns, n_tokens, x: quantized, bias: None };
    (kernel.matmul)(&call, bytemuck::cast_slice_mut(&mut scratch), &mut OutputTile::whole(&mut out, n_rows));
    // Random scales may be NaN, which has several forms.
    out.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
}

#[test]
fn a_token_s_results_depend_on_nothing_but_the_token() {
    let hardware = Hardware::features_only();
    let mut random = Random(7);
    for dtype in DType::ALL.into_iter().filter(|dtype| dtype.block_len() > 1) {
        // A row tile and a part of one, more than two, and more than have panels at once; whole blocks of outliers, and parts.
        for (rows, blocks) in [(21, 1), (37, 3), (101, 5)] {
            let columns = blocks * 224_usize.next_multiple_of(dtype.block_len());
            let shape = [rows, columns];
            let n_bytes = rows * columns / dtype.block_len() * dtype.block_bytes();
            let bytes: Vec<u8> = (0..n_bytes).map(|_| random.next() as u8 & 0x3f).collect();
            let x: Vec<f32> = (0..49 * columns).map(|_| random.float()).collect();
            for precision in ActivationPrecision::ALL {
                let mut first: Option<Vec<u32>> = None;
                for variant in VARIANTS.iter().filter(|variant| variant.runs_on(&hardware)) {
                    let kernel = (variant.kernels.matmul)(dtype, precision);
                    let what = format!("{}: {precision:?} with {dtype}, {shape:?}", variant.name);
                    let packed = pack(&kernel, &bytes, shape);
                    let tokens = x.chunks_exact(columns);
                    let alone: Vec<u32> = tokens.flat_map(|x| product(&kernel, &packed, shape, x)).collect();
                    for n_tokens in [2, 3, 8, 9, 12, 16, 17, 31, 32, 49] {
                        let together = product(&kernel, &packed, shape, &x[..n_tokens * columns]);
                        assert!(together[..] == alone[..n_tokens * rows], "{what}, {n_tokens} tokens");
                    }
                    let first = first.get_or_insert_with(|| alone.clone());
                    assert!(alone == *first, "{what}: not what other instruction sets give");
                }
            }
        }
    }
}
