//! Streams a conversion: a few million weights at a time, shared out over a thread pool.

use std::io::Write;
use std::sync::Mutex;

use herald::gguf::DataWriter;
use herald::threads::{ThreadPool, into_value, locked};
use herald_api::DType;

use super::error::Result;
use super::recipe::Content;
use super::{CheckpointError, Conversion, Tensor};

/// Weights that are converted at a time.
const WEIGHTS_AT_ONCE: usize = 1 << 22;

/// Bytes that are copied at a time.
const BYTES_AT_ONCE: usize = 1 << 24;

impl Conversion<'_> {
    /// Writes the file. `done` gets the number of weights written since its last call, and returns whether to continue.
    ///
    /// # Errors
    ///
    /// If writing to `out` fails, a tensor holds a weight that its type can't represent (such as a NaN), or `done` returned `false`.
    /// `out` is then not a complete model.
    pub fn write<W: Write>(
        &self,
        pool: &ThreadPool,
        out: W,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Result<W> {
        let mut data = self.writer()?.begin(out)?;
        for tensor in &self.tensors {
            match tensor.recipe.as_published(&self.checkpoint.shards, tensor.dtype) {
                Some(parts) => copy(&parts, tensor, &mut data, done)?,
                None => self.convert(tensor, pool, &mut data, done)?,
            }
        }
        Ok(data.finish()?)
    }

    fn convert<W: Write>(
        &self,
        tensor: &Tensor,
        pool: &ThreadPool,
        data: &mut DataWriter<W>,
        done: &mut dyn FnMut(usize) -> bool,
    ) -> Result<()> {
        let width = tensor.recipe.width();
        let rows = tensor.recipe.elements() / width.max(1);
        // The type's blocks divide a row.
        let row_bytes = tensor.dtype.row_bytes(width).unwrap_or_default();
        let at_once = if tensor.recipe.has_rows() { (WEIGHTS_AT_ONCE / width).max(1) } else { rows };
        let mut bytes = Vec::new();
        let mut first = 0;
        while first < rows {
            let count = at_once.min(rows - first);
            bytes.resize(count * row_bytes, 0);
            // More shares than threads, so that none waits long for another; rows that aren't the parts' come together.
            let share =
                if tensor.recipe.has_rows() { count.div_ceil(4 * pool.threads().get()) } else { count };
            let shares: Vec<_> = bytes.chunks_mut(share * row_bytes).map(Mutex::new).collect();
            let failed = Mutex::new(None);
            pool.run(shares.len(), &|range, _| {
                for (number, out) in range.clone().zip(&shares[range]) {
                    if let Err(error) = self.rows(tensor, first + number * share, &mut locked(out)) {
                        *locked(&failed) = Some(error);
                    }
                }
            });
            if let Some(error) = into_value(failed) {
                return Err(error);
            }
            drop(shares);
            data.piece(&bytes)?;
            if !done(count * width) {
                return Err(CheckpointError::Cancelled);
            }
            first += count;
        }
        Ok(())
    }

    /// Makes some rows of a tensor.
    fn rows(&self, tensor: &Tensor, first: usize, out: &mut [u8]) -> Result<()> {
        let shards = &self.checkpoint.shards;
        if matches!(tensor.recipe.content, Content::Mxfp4 { .. }) && tensor.dtype == DType::Mxfp4 {
            tensor.recipe.read_blocks(shards, first, out);
            return Ok(());
        }
        let width = tensor.recipe.width();
        let row_bytes = tensor.dtype.row_bytes(width).unwrap_or_default().max(1);
        let mut weights = vec![0.0; out.len() / row_bytes * width];
        tensor.recipe.read(shards, first, &mut weights);
        for (weights, row) in weights.chunks(width).zip(out.chunks_mut(row_bytes)) {
            herald_formats::quantize_row(tensor.dtype, weights, row)
                .map_err(|source| CheckpointError::Weight { tensor: tensor.name.clone(), source })?;
        }
        Ok(())
    }
}

/// Writes a tensor's published bytes.
fn copy<W: Write>(
    parts: &[&[u8]],
    tensor: &Tensor,
    data: &mut DataWriter<W>,
    done: &mut dyn FnMut(usize) -> bool,
) -> Result<()> {
    let size = tensor.dtype.row_bytes(1).unwrap_or(1);
    for piece in parts.iter().flat_map(|part| part.chunks(BYTES_AT_ONCE)) {
        data.piece(piece)?;
        if !done(piece.len() / size) {
            return Err(CheckpointError::Cancelled);
        }
    }
    Ok(())
}
