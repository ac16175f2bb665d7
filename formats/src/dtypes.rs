//! From an element type to the Rust type that holds it, and what files need to know of it.

use herald_api::DType;

use crate::floats::Float;
use crate::{Block, Unpacked};

/// Evaluates an expression with the type that holds an element type's floats, or its blocks: `F` is a
/// [`Float`](crate::floats::Float) and `B` a [`Block`](crate::Block). It is a `match`, so the names are of one type in each
/// arm, and the expressions may ask more of it than the two traits say.
///
/// ```
/// use herald_formats::{Block, DType, dispatch, floats::Float};
///
/// let name = |dtype: DType| dispatch!(dtype, float F => F::DTYPE.name(), block B => B::DTYPE.name());
/// assert_eq!(name(DType::Q4K), "Q4_K");
/// ```
#[macro_export]
macro_rules! dispatch {
    ($dtype:expr, float $F:ident => $of_float:expr, block $B:ident => $of_block:expr $(,)?) => {
        $crate::dispatch!(@match $dtype, $F => $of_float, $B => $of_block,
            floats {
                floats::F32,
                floats::F16,
                floats::Bf16,
            }
            blocks {
                legacy::Q4_0,
                legacy::Q4_1,
                legacy::Q5_0,
                legacy::Q5_1,
                legacy::Q8_0,
                k_quants::Q2K,
                k_quants::Q3K,
                k_quants::Q4K,
                k_quants::Q5K,
                k_quants::Q6K,
                iq4::Iq4Nl,
                iq4::Iq4Xs,
            }
        )
    };
    (@match $dtype:expr, $F:ident => $of_float:expr, $B:ident => $of_block:expr,
        floats { $($float_module:ident::$float:ident,)* }
        blocks { $($block_module:ident::$block:ident,)* }
    ) => {
        match $dtype {
            $($crate::DType::$float => {
                #[allow(dead_code, reason = "not every expression differs by type")]
                type $F = $crate::$float_module::$float;
                $of_float
            })*
            $($crate::DType::$block => {
                #[allow(dead_code, reason = "not every expression differs by type")]
                type $B = $crate::$block_module::$block;
                $of_block
            })*
        }
    };
}

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
