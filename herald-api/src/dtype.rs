//! Element types of tensors, as GGUF numbers them.

use std::fmt;

use crate::abi;

/// Makes the enum and its functions from one row for each type, so that a type is described in one place.
macro_rules! dtypes {
    ($($variant:ident = $code:ident, $name:literal: $len:literal in $bytes:literal bytes, $description:literal;)*) => {
        /// How a tensor's elements are stored: plain floats, or quantised in blocks along a row.
        ///
        /// The numbers are those of the GGUF specification (`ggml_type`), which the ABI shares (`HERALD_DTYPE_*`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum DType {
            $(
                #[doc = $description]
                $variant = abi::$code,
            )*
        }

        impl DType {
            /// Every type that HERALD reads, in the order of their numbers.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Elements in a block: 1 for plain floats.
            #[must_use]
            pub const fn block_len(self) -> usize {
                match self {
                    $(Self::$variant => $len,)*
                }
            }

            /// Bytes of a block.
            #[must_use]
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }

            /// The name that GGUF tools print.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What an element is, or how a block's codes `q` stand for weights, in a few words: `d`, `dmin` and a block's `m`
            /// are float16, a group's `s` and `m` small integers.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)*
                }
            }
        }
    };
}

dtypes! {
    F32 = HERALD_DTYPE_F32, "F32": 1 in 4 bytes, "IEEE 754 binary32";
    F16 = HERALD_DTYPE_F16, "F16": 1 in 2 bytes, "IEEE 754 binary16";
    Q4_0 = HERALD_DTYPE_Q4_0, "Q4_0": 32 in 18 bytes, "blocks of 32 weights d (q - 8), q of 4 bits";
    Q4_1 = HERALD_DTYPE_Q4_1, "Q4_1": 32 in 20 bytes, "blocks of 32 weights d q + m, q of 4 bits";
    Q5_0 = HERALD_DTYPE_Q5_0, "Q5_0": 32 in 22 bytes, "blocks of 32 weights d (q - 16), q of 5 bits";
    Q5_1 = HERALD_DTYPE_Q5_1, "Q5_1": 32 in 24 bytes, "blocks of 32 weights d q + m, q of 5 bits";
    Q8_0 = HERALD_DTYPE_Q8_0, "Q8_0": 32 in 34 bytes, "blocks of 32 weights d q, q of 8 bits";
    Q2K = HERALD_DTYPE_Q2_K, "Q2_K": 256 in 84 bytes, "blocks of 16 groups of 16 weights d s q - dmin m, q of 2 bits";
    Q3K = HERALD_DTYPE_Q3_K, "Q3_K": 256 in 110 bytes, "blocks of 16 groups of 16 weights d s (q - 4), q of 3 bits";
    Q4K = HERALD_DTYPE_Q4_K, "Q4_K": 256 in 144 bytes, "blocks of 8 groups of 32 weights d s q - dmin m, q of 4 bits";
    Q5K = HERALD_DTYPE_Q5_K, "Q5_K": 256 in 176 bytes, "blocks of 8 groups of 32 weights d s q - dmin m, q of 5 bits";
    Q6K = HERALD_DTYPE_Q6_K, "Q6_K": 256 in 210 bytes, "blocks of 16 groups of 16 weights d s (q - 32), q of 6 bits";
    Iq2Xxs = HERALD_DTYPE_IQ2_XXS, "IQ2_XXS": 256 in 66 bytes, "blocks of 8 groups of 32 weights d (2 s + 1) / 8 g, g of a codebook of 256 points of 8";
    Iq2Xs = HERALD_DTYPE_IQ2_XS, "IQ2_XS": 256 in 74 bytes, "blocks of 16 groups of 16 weights d (2 s + 1) / 8 g, g of a codebook of 512 points of 8";
    Iq3Xxs = HERALD_DTYPE_IQ3_XXS, "IQ3_XXS": 256 in 98 bytes, "blocks of 8 groups of 32 weights d (2 s + 1) / 4 g, g of a codebook of 256 points of 4";
    Iq1S = HERALD_DTYPE_IQ1_S, "IQ1_S": 256 in 50 bytes, "blocks of 8 groups of 32 weights d (2 s + 1) (g + m), g of a codebook of 2048 points of 8";
    Iq4Nl = HERALD_DTYPE_IQ4_NL, "IQ4_NL": 32 in 18 bytes, "blocks of 32 weights d level(q), q of 4 bits";
    Iq3S = HERALD_DTYPE_IQ3_S, "IQ3_S": 256 in 110 bytes, "blocks of 8 groups of 32 weights d (2 s + 1) g, g of a codebook of 512 points of 4";
    Iq2S = HERALD_DTYPE_IQ2_S, "IQ2_S": 256 in 82 bytes, "blocks of 16 groups of 16 weights d (2 s + 1) / 8 g, g of a codebook of 1024 points of 8";
    Iq4Xs = HERALD_DTYPE_IQ4_XS, "IQ4_XS": 256 in 136 bytes, "blocks of 8 groups of 32 weights d s level(q), q of 4 bits";
    Iq1M = HERALD_DTYPE_IQ1_M, "IQ1_M": 256 in 56 bytes, "blocks of 16 groups of 16 weights d (2 s + 1) (g + m), g of a codebook of 2048 points of 8";
    Bf16 = HERALD_DTYPE_BF16, "BF16": 1 in 2 bytes, "bfloat16, the upper half of a binary32";
    Tq1_0 = HERALD_DTYPE_TQ1_0, "TQ1_0": 256 in 54 bytes, "blocks of 256 weights d (q - 1), q of 0 to 2";
    Tq2_0 = HERALD_DTYPE_TQ2_0, "TQ2_0": 256 in 66 bytes, "blocks of 256 weights d (q - 1), q of 2 bits";
    Mxfp4 = HERALD_DTYPE_MXFP4, "MXFP4": 32 in 17 bytes, "blocks of 32 weights 2^(e - 128) level(q), q of 4 bits";
    Nvfp4 = HERALD_DTYPE_NVFP4, "NVFP4": 64 in 36 bytes, "blocks of 4 groups of 16 weights s / 2 level(q), q of 4 bits, s an 8-bit float";
}

impl DType {
    /// The type with this GGUF number, or `None` where HERALD doesn't read it.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.code() == code)
    }

    /// The type with this name, in upper or lower case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name().eq_ignore_ascii_case(name))
    }

    /// GGUF's name for the number of a type that HERALD doesn't read, for errors; `None` where GGUF doesn't define it.
    #[must_use]
    pub fn unread_name(code: u32) -> Option<&'static str> {
        Some(match code {
            4 => "Q4_2, which GGUF has withdrawn",
            5 => "Q4_3, which GGUF has withdrawn",
            9 => "Q8_1",
            15 => "Q8_K",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            31 => "Q4_0_4_4, which GGUF has withdrawn",
            32 => "Q4_0_4_8, which GGUF has withdrawn",
            33 => "Q4_0_8_8, which GGUF has withdrawn",
            36 => "IQ4_NL_4_4, which GGUF has withdrawn",
            37 => "IQ4_NL_4_8, which GGUF has withdrawn",
            38 => "IQ4_NL_8_8, which GGUF has withdrawn",
            41 => "Q1_0",
            42 => "Q2_0",
            _ => return None,
        })
    }

    /// The GGUF number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// Bits of a weight, its share of the block's scales included.
    #[must_use]
    pub fn bits_per_weight(self) -> f32 {
        (8 * self.block_bytes()) as f32 / self.block_len() as f32
    }

    /// Bytes of a row of `len` elements, or `None` where `len` is no whole number of blocks or the size overflows.
    #[must_use]
    pub fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
