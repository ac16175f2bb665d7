//! Importance matrices: how large the activations are that each column of a model's matrices is multiplied with, summed over
//! a text. A quantiser that knows them keeps the columns that matter more exactly.
//!
//! Files are those of llama.cpp: GGUF files with two tensors for each matrix (`NAME.in_sum2`, the sums of the activations'
//! squares `[columns, matrices]`, and `NAME.counts`, of how many tokens they are `[1, matrices]`), and the format before
//! that, which is only read. An expert of a mixture counts as a matrix of its own.

mod legacy;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use herald::gguf::{ArrayBuf, Gguf, GgufError, Value, Writer};
use herald_api::DType;

/// What the sums' tensors are called, after the matrix.
const SUMS: &str = ".in_sum2";
/// What the counts' tensors are called, after the matrix.
const COUNTS: &str = ".counts";
/// What `general.type` says of such a file.
const TYPE: &str = "imatrix";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";

/// Why an importance matrix can't be read, or doesn't fit a model. Each displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ImatrixError {
    /// The file is no GGUF file that can be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The system refused the file.
    #[error("{path} can't be read: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file holds what an importance matrix doesn't.
    #[error("{path}: {what}, where {expected} was expected")]
    Damaged {
        /// The file.
        path: String,
        /// What it holds.
        what: String,
        /// What it should have held.
        expected: String,
    },
    /// It is of another model.
    #[error(
        "the importance matrix has {held} for {tensor:?}, where {columns} columns of {matrices} matrices were expected: it \
         was made with another model"
    )]
    Shape {
        /// The tensor's name.
        tensor: String,
        /// Numbers that the file has for it.
        held: String,
        /// The tensor's.
        columns: usize,
        /// The tensor's.
        matrices: usize,
    },
}

/// The sums of one tensor.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// Of the squares of the activations `[matrices, columns]`.
    sums: Vec<f64>,
    /// Tokens that each matrix was multiplied with.
    counts: Vec<f64>,
}

/// The importance of the columns of a model's matrices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceMatrix {
    entries: BTreeMap<String, Entry>,
    /// The texts that it was computed over, by name.
    pub datasets: Vec<String>,
    /// Pieces of text.
    pub chunk_count: u32,
    /// Tokens of a piece.
    pub chunk_size: u32,
}

impl ImportanceMatrix {
    /// Reads a file of either format.
    ///
    /// # Errors
    ///
    /// Where it can't be read or is damaged.
    pub fn open(path: &Path) -> Result<Self, ImatrixError> {
        let refused = |source| ImatrixError::Io { path: path.display().to_string(), source };
        Self::from_bytes(&std::fs::read(path).map_err(refused)?, path)
    }

    /// Reads a file of either format; `path` is for errors.
    ///
    /// # Errors
    ///
    /// Where it is no importance matrix, or a damaged one.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, ImatrixError> {
        if bytes.starts_with(b"GGUF") {
            return Self::from_gguf(&Gguf::from_bytes(bytes)?, path);
        }
        legacy::read(bytes, path)
    }

    /// Reads a GGUF file.
    fn from_gguf(gguf: &Gguf, path: &Path) -> Result<Self, ImatrixError> {
        let metadata = gguf.metadata();
        if metadata.get::<&str>("general.type")? != Some(TYPE) {
            let what = "it isn't said to be an importance matrix (general.type)".to_owned();
            return Err(damaged(path, what, format!("{TYPE:?}")));
        }
        let mut matrix = Self {
            chunk_count: metadata.get(CHUNK_COUNT)?.unwrap_or_default(),
            chunk_size: metadata.get(CHUNK_SIZE)?.unwrap_or_default(),
            ..Self::default()
        };
        if let Some(Value::Array(names)) = metadata.value(DATASETS) {
            let text = |name| match name {
                Value::String(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => None,
            };
            matrix.datasets = names.elements().filter_map(text).collect();
        }
        for info in gguf.tensors() {
            let Some(name) = info.name().strip_suffix(SUMS) else { continue };
            let counts = gguf.tensor(&format!("{name}{COUNTS}"));
            let fits = counts.is_some_and(|counts| {
                counts.dtype() == DType::F32
                    && info.dtype() == DType::F32
                    && counts.elements() * info.dims()[0] == info.elements()
            });
            let Some(counts) = counts.filter(|_| fits) else {
                let what = format!("the sums of {name:?} have no counts that fit them");
                return Err(damaged(path, what, format!("a tensor {:?} of F32", format!("{name}{COUNTS}"))));
            };
            let numbers = |info| floats(gguf.bytes(info)).collect();
            let entry = Entry { sums: numbers(info), counts: numbers(counts) };
            matrix.entries.insert(name.to_owned(), entry);
        }
        Ok(matrix)
    }

    /// Writes a GGUF file.
    ///
    /// # Errors
    ///
    /// If writing to `out` fails.
    pub fn write<W: Write>(&self, out: W) -> Result<W, GgufError> {
        let mut writer = Writer::new();
        let datasets = ArrayBuf::strings(&self.datasets);
        writer.metadata("general.type", TYPE)?;
        writer.metadata(DATASETS, &datasets)?;
        writer.metadata(CHUNK_COUNT, self.chunk_count)?;
        writer.metadata(CHUNK_SIZE, self.chunk_size)?;
        for (name, Entry { sums, counts }) in &self.entries {
            let columns = sums.len() / counts.len();
            writer.tensor(&format!("{name}{SUMS}"), DType::F32, &[columns, counts.len()])?;
            writer.tensor(&format!("{name}{COUNTS}"), DType::F32, &[1, counts.len()])?;
        }
        let mut data = writer.begin(out)?;
        for Entry { sums, counts } in self.entries.values() {
            for numbers in [sums, counts] {
                let bytes: Vec<u8> =
                    numbers.iter().flat_map(|number| (*number as f32).to_le_bytes()).collect();
                data.tensor(&bytes)?;
            }
        }
        data.finish()
    }

    /// Adds the activations `x` `[tokens, columns]` that matrix `index` of `matrices` of a tensor was multiplied with.
    ///
    /// # Panics
    ///
    /// Where `index` isn't below `matrices`, or either differs from what was added for the tensor before.
    pub fn add(&mut self, tensor: &str, columns: usize, [index, matrices]: [usize; 2], x: &[f32]) {
        if !self.entries.contains_key(tensor) {
            let entry = Entry { sums: vec![0.0; columns * matrices], counts: vec![0.0; matrices] };
            self.entries.insert(tensor.to_owned(), entry);
        }
        let Some(entry) = self.entries.get_mut(tensor) else { return };
        let sums = &mut entry.sums[columns * index..][..columns];
        for token in x.chunks_exact(columns) {
            for (sum, x) in sums.iter_mut().zip(token) {
                *sum += f64::from(*x).powi(2);
            }
            entry.counts[index] += 1.0;
        }
    }

    /// Numbers that it has for a tensor.
    #[must_use]
    pub fn numbers(&self, tensor: &str) -> usize {
        self.entries.get(tensor).map_or(0, |entry| entry.sums.len())
    }

    /// Tensors that it knows.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The importance of each column of the matrices of a tensor, `[matrices, columns]`: the mean of the squares. `None` where
    /// it doesn't know the tensor. Of a matrix that no token used, all columns are alike.
    ///
    /// # Errors
    ///
    /// Where the tensor has another shape.
    pub fn importance(
        &self,
        tensor: &str,
        columns: usize,
        matrices: usize,
    ) -> Result<Option<Vec<f32>>, ImatrixError> {
        let Some(entry) = self.entries.get(tensor) else { return Ok(None) };
        let Entry { sums, counts } = entry;
        // One for all matrices of a tensor will do.
        let counts = match counts.len() {
            1 => Cow::Owned(vec![counts[0]; matrices]),
            _ => Cow::Borrowed(counts),
        };
        if sums.len() != columns && sums.len() != columns * matrices || counts.len() != matrices {
            let held = format!("{} numbers", sums.len());
            return Err(ImatrixError::Shape { tensor: tensor.to_owned(), held, columns, matrices });
        }
        let means = counts.iter().zip(sums.chunks_exact(columns).cycle()).flat_map(|(&count, sums)| {
            sums.iter().map(move |&sum| if count > 0.0 { (sum / count) as f32 } else { 1.0 })
        });
        Ok(Some(means.collect()))
    }
}

/// Little-endian float32.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<4>().0.iter().map(|&bytes| f64::from(f32::from_le_bytes(bytes)))
}

fn damaged(path: &Path, what: String, expected: impl Into<String>) -> ImatrixError {
    ImatrixError::Damaged { path: path.display().to_string(), what, expected: expected.into() }
}
