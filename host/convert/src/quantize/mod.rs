//! Quantisation of model files: the same model, with its matrices in another element type.
//!
//! A [`Plan`] has each tensor's new type; [`write()`] streams the new file, a few million weights at a time, so that models
//! may be larger than memory.

mod plan;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::sync::Mutex;

use herald_api::DType;

use herald::gguf::{DataWriter, Gguf, GgufError, TensorInfo, Value, Writer};
use herald::threads::ThreadPool;
use herald::threads::{into_value, locked};

use crate::imatrix::{ImatrixError, ImportanceMatrix};

pub use plan::{Fallback, Plan, QuantizeOptions};
pub(crate) use plan::{Types, is_weighty};

/// Weights that are converted at a time.
const WEIGHTS_AT_ONCE: usize = 1 << 22;

/// Why a model could not be converted. Each displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The file can't be written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor's new type is one that HERALD reads but doesn't write.
    #[error("tensor {tensor:?}: {dtype} can be read, but not written")]
    ReadOnly {
        /// The tensor's name.
        tensor: String,
        /// The type.
        dtype: DType,
    },
    /// The importance matrix doesn't fit the model.
    #[error(transparent)]
    Importance(#[from] ImatrixError),
    /// A tensor holds a value that the new type can't hold.
    #[error("tensor {tensor:?}, row {row}: {source}")]
    Weight {
        /// The tensor's name.
        tensor: String,
        /// The row's index over all dimensions but the first.
        row: usize,
        /// Which of its weights is wrong, and why.
        source: herald_formats::Unstorable,
    },
    /// The caller stopped the work.
    #[error("the work was cancelled")]
    Cancelled,
}

/// Writes the model by the plan, in the order of its tensors. Weights that `importance` says more of are kept more exactly.
/// `done` gets the number of weights written since its last call, and returns whether to continue.
///
/// # Errors
///
/// If writing to `out` fails, a tensor's new type can't be written, a tensor holds a weight that its new type can't represent
/// (such as a NaN), `importance` is of another model, or `done` returned `false`. `out` is then not a complete model.
pub fn write<W: Write>(
    gguf: &Gguf,
    plan: &Plan,
    importance: Option<&ImportanceMatrix>,
    pool: &ThreadPool,
    out: W,
    done: &mut dyn FnMut(usize) -> bool,
) -> Result<W, QuantizeError> {
    let new_types = || gguf.tensors().zip(plan.types());
    if let Some((info, dtype)) =
        new_types().find(|(info, dtype)| info.dtype() != *dtype && !herald_formats::is_writable(*dtype))
    {
        return Err(QuantizeError::ReadOnly { tensor: info.name().to_owned(), dtype });
    }
    let mut writer = Writer::new();
    let entries = gguf.metadata().iter().filter(|(key, _)| !key.starts_with(plan::SPLIT));
    let replaced = plan.metadata(importance);
    for (key, value) in entries {
        let value =
            replaced.iter().find(|(other, _)| *other == key).map_or(value, |(_, new)| Value::U32(*new));
        writer.metadata(key, value)?;
    }
    for (key, value) in replaced.into_iter().filter(|(key, _)| gguf.metadata().value(key).is_none()) {
        writer.metadata(key, value)?;
    }
    for (info, dtype) in new_types() {
        writer.tensor(info.name(), dtype, info.dims())?;
    }
    let mut data = writer.begin(out)?;
    for (info, dtype) in new_types() {
        if info.dtype() == dtype {
            data.tensor(gguf.bytes(info))?;
            if !done(info.elements()) {
                return Err(QuantizeError::Cancelled);
            }
        } else {
            let importance = importance.map_or(Ok(None), |matrix| importance_of(matrix, info))?;
            convert(gguf, info, dtype, importance.as_deref(), pool, &mut data, done)?;
        }
    }
    Ok(data.finish()?)
}

/// What the importance matrix says of a tensor `[matrices, rows, columns]`: `[matrices, columns]`.
fn importance_of(matrix: &ImportanceMatrix, info: &TensorInfo) -> Result<Option<Vec<f32>>, ImatrixError> {
    let columns = info.dims().first().copied().unwrap_or(1);
    matrix.importance(info.name(), columns, info.dims().iter().skip(2).product())
}

/// Writes a tensor's data in another type, piece by piece.
fn convert<W: Write>(
    gguf: &Gguf,
    info: &TensorInfo,
    dtype: DType,
    importance: Option<&[f32]>,
    pool: &ThreadPool,
    data: &mut DataWriter<W>,
    done: &mut dyn FnMut(usize) -> bool,
) -> Result<(), QuantizeError> {
    let columns = info.dims().first().copied().unwrap_or(1);
    let rows_of_matrix = info.dims().get(1).copied().unwrap_or(1);
    let bytes = gguf.bytes(info);
    let old_row = bytes.len() / (info.elements() / columns);
    // The plan only contains types whose blocks divide a row.
    let new_row = dtype.row_bytes(columns).unwrap_or_default();
    let at_once = (WEIGHTS_AT_ONCE / columns).max(1);
    let mut new = Vec::new();
    for (piece, rows) in bytes.chunks(at_once * old_row).enumerate() {
        let count = rows.len() / old_row;
        new.resize(count * new_row, 0);
        // More shares than threads, so that none waits long for another.
        let share = count.div_ceil(4 * pool.threads().get());
        let shares: Vec<_> =
            rows.chunks(share * old_row).zip(new.chunks_mut(share * new_row).map(Mutex::new)).collect();
        let failed = Mutex::new(None);
        pool.run(shares.len(), &|range, _| {
            let mut weights = vec![0.0; columns];
            for (number, (old, new)) in range.clone().zip(&shares[range]) {
                let mut new = locked(new);
                for (row, (old, new)) in old.chunks(old_row).zip(new.chunks_mut(new_row)).enumerate() {
                    let row = piece * at_once + number * share + row;
                    let importance = importance.map(|of| &of[row / rows_of_matrix * columns..][..columns]);
                    herald_formats::dequantize_row(info.dtype(), old, &mut weights);
                    let written = herald_formats::quantize_row_for(dtype, &weights, importance, new);
                    if let Err(source) = written {
                        let mut failed = locked(&failed);
                        // The first one by index, so that the error doesn't depend on the threads.
                        if failed.as_ref().is_none_or(|&(other, _)| row < other) {
                            *failed = Some((row, source));
                        }
                        return;
                    }
                }
            }
        });
        if let Some((row, source)) = into_value(failed) {
            return Err(QuantizeError::Weight { tensor: info.name().to_owned(), row, source });
        }
        drop(shares);
        data.piece(&new)?;
        if !done(count * columns) {
            return Err(QuantizeError::Cancelled);
        }
    }
    Ok(())
}
