//! A weight matrix as a backend keeps it, and products of tokens with it, on one thread.

use herald_api::{AlignedBytes, DType};
use herald_layers::Kernels;
use herald_layers::matmul::{MatmulCall, MatmulKernel, OutputTile};

/// Bytes that are finite weights in every type: scales of float16 1.5 and codes of all values.
#[must_use]
pub fn weights(dtype: DType, rows: usize, columns: usize) -> Vec<u8> {
    let bytes = dtype.row_bytes(columns).unwrap_or(0) * rows;
    (0..bytes).map(|index| if index % 2 == 1 { 0x3e } else { (index * 37) as u8 }).collect()
}

/// A matrix `[rows, columns]`.
pub struct Matrix {
    products: MatmulKernel,
    kept: AlignedBytes,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// A matrix of some weights, in a backend's own order.
    ///
    /// # Panics
    /// Where there is no memory for it.
    #[must_use]
    pub fn new(kernels: &Kernels, dtype: DType, rows: usize, columns: usize) -> Self {
        let products = (kernels.matmul)(dtype);
        let file = weights(dtype, rows, columns);
        let len = products.packing.map_or(file.len(), |packing| (packing.bytes)(rows, columns));
        let mut kept = AlignedBytes::zeroed(len).expect("memory for a bench");
        match products.packing {
            None => kept.copy_from_slice(&file),
            Some(packing) => {
                let row_tile = products.row_tile;
                let granules = kept.chunks_exact_mut((packing.bytes)(row_tile, columns));
                for (index, packed) in granules.enumerate() {
                    let run = index * row_tile..rows.min((index + 1) * row_tile);
                    (packing.pack)(&file, columns, run, packed);
                }
            }
        }
        Self { products, kept, rows, columns }
    }

    /// Bytes of it, as they are kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.kept.len()
    }

    /// Multiplies as many tokens as `out` `[n_tokens, rows]` has room for. `scratch` and `prepared` are kept from call to
    /// call.
    pub fn multiply(&self, x: &[f32], prepared: &mut Vec<f32>, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let n_tokens = x.len() / self.columns;
        scratch.resize((self.products.scratch_len)(self.columns, n_tokens), 0.0);
        let x = match self.products.activations {
            None => x,
            Some(form) => {
                prepared.resize((form.len)(self.columns) * n_tokens, 0.0);
                form.quantize_all(x, self.columns, prepared);
                &prepared[..]
            }
        };
        let run = MatmulCall {
            rows: &self.kept,
            n_rows: self.rows,
            dtype: self.products.dtype,
            columns: self.columns,
            n_tokens,
            x,
            bias: None,
        };
        (self.products.matmul)(&run, scratch, &mut OutputTile::whole(out, self.rows));
    }
}
