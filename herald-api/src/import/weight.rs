//! Weights of a layer that the host wants, whose bytes live as long as the layer.

use std::ops::Range;
use std::sync::Arc;

use crate::abi::{AbiStruct, HeraldTensor};
use crate::{DType, Error, Result, WeightRole};

/// Bytes that stay where they are, unchanged, for as long as their owner lives.
///
/// # Safety
/// `bytes` returns the same slice each time, and nothing writes to it.
pub unsafe trait StableBytes: Send + Sync {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

// SAFETY: behind a shared reference a Vec neither moves nor changes its elements.
unsafe impl StableBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// A part of an owner's bytes, which it keeps alive.
#[derive(Clone)]
pub struct SharedBytes {
    owner: Arc<dyn StableBytes>,
    range: Range<usize>,
}

impl SharedBytes {
    /// The bytes `range` of `owner`; `None` where it has no such bytes.
    #[must_use]
    pub fn new(owner: Arc<dyn StableBytes>, range: Range<usize>) -> Option<Self> {
        owner.bytes().get(range.clone())?;
        Some(Self { owner, range })
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.owner.bytes()[self.range.clone()]
    }
}

/// One weight of a layer, whose bytes it keeps alive.
#[derive(Clone)]
pub struct SharedWeight {
    /// What the layer uses it for.
    pub role: WeightRole,
    /// The tensor's name in the model file.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// Dimensions in GGUF's spec: a row's length first; 1 to 4.
    pub dims: Vec<u64>,
    /// The rows' bytes.
    pub data: SharedBytes,
}

/// Checks that a weight has as many bytes as its dimensions say.
pub(super) fn check_weight(weight: &SharedWeight) -> Result<()> {
    let SharedWeight { name, dtype, dims, data, .. } = weight;
    let expected = match dims.as_slice() {
        [columns, rows @ ..] if rows.len() <= 3 => {
            let rows =
                rows.iter().try_fold(1_usize, |rows, dim| rows.checked_mul(usize::try_from(*dim).ok()?));
            let columns = usize::try_from(*columns).ok();
            rows.zip(columns.and_then(|columns| dtype.row_bytes(columns)))
                .and_then(|(rows, bytes)| rows.checked_mul(bytes))
        }
        _ => None,
    };
    let found = data.bytes().len();
    if expected == Some(found) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the weight {name} has {found} bytes, which are no {dtype} of dimensions {dims:?}"
    )))
}

/// The weight for C, which borrows all of it.
pub(super) fn raw_weight(weight: &SharedWeight) -> HeraldTensor {
    let mut dims = [1; 4];
    for (to, from) in dims.iter_mut().zip(&weight.dims) {
        *to = *from;
    }
    let bytes = weight.data.bytes();
    HeraldTensor {
        role: weight.role as u32,
        dtype: weight.dtype.code(),
        n_dims: weight.dims.len().min(4) as u32,
        dims,
        data: bytes.as_ptr().cast(),
        data_bytes: bytes.len() as u64,
        name: weight.name.as_ptr().cast(),
        name_len: weight.name.len(),
        ..AbiStruct::empty()
    }
}
