//! Weights of three values, for models that were trained with no others (BitNet, TriLM).

use bytemuck::{Pod, Zeroable};
use herald_api::DType;

use super::Block;
use super::floats::{F16, Float};
use super::groups::Symmetric;

/// `w = d (q - 1)`: 256 weights, `q` of 0 to 2, five to a byte.
///
/// A byte is `q / 3^5` as a fraction of 256, rounded up, where `q` is the number whose digits to the base of 3 are the codes:
/// multiplied by a power of three, its upper end begins with the digit after it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tq1_0 {
    /// Weights `32 n + i`, digit `n` of byte `i`.
    pub first: [u8; 32],
    /// Weights `160 + 16 n + i`, digit `n` of byte `i`.
    pub second: [u8; 16],
    /// Weights `240 + 4 n + i`, digit `n` of byte `i`, of which there are four.
    pub last: [u8; 4],
    /// The scale `d`.
    pub d: F16,
}

/// `w = d (q - 1)`: 256 weights, `q` of 2 bits.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Tq2_0 {
    /// The codes `q`: 32 bytes for each 128 weights, run `j` of 32 weights at shift `2 j`.
    pub codes: [[u8; 32]; 2],
    /// The scale `d`.
    pub d: F16,
}

/// Powers of three.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

impl Block for Tq1_0 {
    const DTYPE: DType = DType::Tq1_0;
    const FILE_TYPE: u32 = 36;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        let mut codes = [0; 256];
        let (first, rest) = codes.split_at_mut(160);
        let (second, last) = rest.split_at_mut(80);
        digits(&self.first, first);
        digits(&self.second, second);
        digits(&self.last, last);
        Symmetric { codes: bytemuck::cast(codes), scales: [self.d.to_f32(); 8] }
    }
}

impl Block for Tq2_0 {
    const DTYPE: DType = DType::Tq2_0;
    const FILE_TYPE: u32 = 37;
    const FALLBACK: DType = DType::Iq4Nl;
    const QUANTIZE: Option<crate::QuantizeBlock<Self>> = None;
    type Unpacked = Symmetric<32, 8>;

    block_scales!(d);

    #[inline(always)]
    fn unpack(&self) -> Self::Unpacked {
        Symmetric {
            codes: std::array::from_fn(|run| {
                self.codes[run / 4].map(|byte| ((byte >> (2 * (run % 4))) & 3) as i8 - 1)
            }),
            scales: [self.d.to_f32(); 8],
        }
    }
}

/// The codes less 1 of as many digits as there is room for.
#[inline(always)]
fn digits<const N: usize>(bytes: &[u8; N], codes: &mut [i8]) {
    for (power, codes) in POWERS.into_iter().zip(codes.as_chunks_mut::<N>().0) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            *code = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
        }
    }
}
