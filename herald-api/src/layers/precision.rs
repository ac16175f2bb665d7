//! How finely matmuls may represent activations.

/// As float32, or in integers of at least 16 bits.
pub const HERALD_ACTIVATIONS_INT16: u32 = 0;
/// Also in 8 bits, with a scale for each group of columns.
pub const HERALD_ACTIVATIONS_INT8: u32 = 1;

/// How finely a layer's matmuls with quantised weights may represent activations. A backend may always be finer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum ActivationPrecision {
    /// As float32, or in integers of at least 16 bits.
    #[default]
    Int16 = HERALD_ACTIVATIONS_INT16,
    /// Also in 8 bits, with a scale for each group of columns.
    Int8 = HERALD_ACTIVATIONS_INT8,
}

impl ActivationPrecision {
    /// Every precision that this version knows.
    pub const ALL: [Self; 2] = [Self::Int16, Self::Int8];

    /// The precision with this number. What isn't known allows nothing coarser than is.
    pub(super) fn from_code(code: u32) -> Self {
        if code == Self::Int8 as u32 { Self::Int8 } else { Self::Int16 }
    }
}
