//! A weight matrix in a backend's packing, and its product with tokens, on one thread.

use herald_api::{ActivationPrecision, AlignedBytes, DType};
use herald_layers::Kernels;
use herald_layers::matmul::{MatmulCall, MatmulKernel, OutputTile};

/// Bytes that are finite weights in every type: float16 scales of about 1.5, and codes of all values.
pub(crate) fn weights(dtype: DType, rows: usize, columns: usize) -> Vec<u8> {
    let bytes = dtype.row_bytes(columns).unwrap_or(0) * rows;
    (0..bytes).map(|index| if index % 2 == 1 { 0x3e } else { (index * 37) as u8 }).collect()
}

/// A matrix `[rows, columns]`.
pub(crate) struct Matrix {
    kernel: MatmulKernel,
    packed: AlignedBytes,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// A matrix of arbitrary weights, packed for a backend.
    ///
    /// # Panics
    /// If there is no memory for it.
    pub(crate) fn new(
        kernels: &Kernels,
        (dtype, activations): (DType, ActivationPrecision),
        rows: usize,
        columns: usize,
    ) -> Self {
        let kernel = (kernels.matmul)(dtype, activations);
        let file = weights(dtype, rows, columns);
        let len = kernel.packing.map_or(file.len(), |packing| (packing.bytes)(rows, columns));
        let mut packed = AlignedBytes::zeroed(len).expect("memory for a bench");
        match kernel.packing {
            None => packed.copy_from_slice(&file),
            Some(packing) => {
                let row_tile = kernel.row_tile;
                let tiles = packed.chunks_exact_mut((packing.bytes)(row_tile, columns));
                for (index, tile) in tiles.enumerate() {
                    let run = index * row_tile..rows.min((index + 1) * row_tile);
                    (packing.pack)(&file, columns, run, tile);
                }
            }
        }
        Self { kernel, packed, rows, columns }
    }

    /// Multiplies tokens `x` `[n_tokens, columns]` to `out` `[n_tokens, rows]`. `scratch` and `prepared` are reused by the
    /// next call.
    pub(crate) fn multiply(
        &self,
        x: &[f32],
        prepared: &mut Vec<f32>,
        scratch: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let n_tokens = x.len() / self.columns;
        scratch.resize((self.kernel.scratch_len)(self.columns, n_tokens), 0.0);
        let x = match self.kernel.activations {
            None => x,
            Some(form) => {
                prepared.resize((form.len)(self.columns) * n_tokens, 0.0);
                form.quantize_all(x, self.columns, prepared);
                &prepared[..]
            }
        };
        let run = MatmulCall {
            rows: &self.packed,
            n_rows: self.rows,
            dtype: self.kernel.dtype,
            columns: self.columns,
            n_tokens,
            x,
            bias: None,
        };
        (self.kernel.matmul)(&run, scratch, &mut OutputTile::whole(out, self.rows));
    }
}
