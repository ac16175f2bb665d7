//! What files need to know of an element type.

use herald_api::DType;

use crate::floats::Float;
use crate::{Block, Unpacked, dispatch};

/// GGUF's number for files most of whose weights are of this type (`general.file_type`).
#[must_use]
pub fn file_type(dtype: DType) -> u32 {
    dispatch!(dtype, float F => F::FILE_TYPE, block B => B::FILE_TYPE)
}

/// The type for rows of `columns` weights where `wanted` is asked for: that one where its blocks divide the row; else one of
/// about its size, or a little larger, whose blocks do.
#[must_use]
pub fn dtype_for_rows(wanted: DType, columns: usize) -> DType {
    dispatch!(wanted,
        float F => wanted,
        block B => if columns.is_multiple_of(<B as Block>::Unpacked::LEN) { wanted } else { dtype_for_rows(B::FALLBACK, columns) },
    )
}
