//! An importance matrix of either format: it is read or refused by a sentence, and what is read can be asked and written.

use std::hint::black_box;
use std::path::Path;

use herald_convert::imatrix::ImportanceMatrix;

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "imatrix",
    run,
    seeds,
    words: &["GGUF", "imatrix", "general.type", "a.in_sum2", "a.counts", "imatrix.chunk_count"],
    ..DEFAULT
};

/// A file of each format.
fn seeds() -> Vec<Vec<u8>> {
    let mut matrix = ImportanceMatrix::default();
    matrix.add("a", 4, [1, 2], &[1.0, 2.0, 3.0, 4.0]);
    let old = [&1_u32.to_le_bytes()[..], &[1, 0, 0, 0, b'a', 1, 0, 0, 0, 2, 0, 0, 0], &[0x3f; 8]].concat();
    matrix.write(Vec::new()).into_iter().chain([old]).collect()
}

fn run(input: &[u8]) -> String {
    super::told(ImportanceMatrix::from_bytes(input, Path::new("it")), |matrix| {
        for name in matrix.tensors() {
            for matrices in 1..4 {
                black_box(matrix.importance(name, matrix.numbers(name) / matrices, matrices).is_ok());
            }
        }
        super::told(matrix.write(Vec::new()), |bytes| format!("{} bytes again", bytes.len()))
    })
}
