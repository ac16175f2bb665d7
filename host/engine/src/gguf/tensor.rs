//! The tensors that a GGUF file lists, and where their data lies: every one inside the file, aligned, and apart from
//! the others.

use std::collections::HashSet;

use herald_api::DType;

use super::cursor::{Cursor, cut_off};
use super::error::{GgufError, Quoted};

/// The longest tensor name that the GGUF specification allows, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 64;

/// The most dimensions that the GGUF specification allows.
pub(super) const MAX_DIMS: usize = 4;

/// The fewest bytes of a tensor's entry: the name's length, one byte of name, the number of dimensions, one
/// dimension, the type, the offset.
pub(super) const LEAST_INFO_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// A tensor of a GGUF file: its name, shape and type, and where its data lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub(super) name: Box<str>,
    pub(super) dtype: DType,
    pub(super) dims: [usize; MAX_DIMS],
    pub(super) rank: usize,
    pub(super) part: usize,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

impl TensorInfo {
    /// The name, unique in the model.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the elements are stored.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The one to four dimensions in GGUF's order, none of them zero: `dims()[0]` is the length of a row, whose
    /// elements are adjacent.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        self.dims.get(..self.rank).unwrap_or_default()
    }

    /// The number of elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// Which of the model's files the data is in, from 0.
    #[must_use]
    pub fn part(&self) -> usize {
        self.part
    }

    /// Where the data begins, in bytes from the start of that file.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The length of the data in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What is wrong with a shape; the reader and the writer each say of which tensor.
#[derive(Debug)]
pub(super) struct ShapeFault {
    pub(super) field: &'static str,
    pub(super) held: String,
    pub(super) expected: String,
}

/// The bytes of a tensor's data.
pub(super) fn data_bytes(dtype: DType, dims: &[usize]) -> Result<usize, ShapeFault> {
    let fault = |field, held: String, expected: String| Err(ShapeFault { field, held, expected });
    let row = match dims.first() {
        Some(&row) if dims.len() <= MAX_DIMS => row,
        _ => return fault("number of dimensions", dims.len().to_string(), format!("1 to {MAX_DIMS}")),
    };
    if dims.contains(&0) {
        return fault("shape", format!("{dims:?}"), "dimensions of at least 1".to_owned());
    }
    if !row.is_multiple_of(dtype.block_len()) {
        let expected = format!("a multiple of {}, the block of {dtype}", dtype.block_len());
        return fault("row length", row.to_string(), expected);
    }
    // Elements are counted too, since a block holds more of them than bytes.
    let elements = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let rows = dims.iter().skip(1).try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let bytes = dtype.row_bytes(row).zip(rows).and_then(|(row_bytes, rows)| row_bytes.checked_mul(rows));
    match (elements, bytes) {
        (Some(_), Some(bytes)) => Ok(bytes),
        _ => fault("shape", format!("{dims:?}"), format!("a size that fits in {} bits", usize::BITS)),
    }
}

/// A tensor as its entry gives it: its data's offset is relative to where data begins, which isn't known yet.
pub(super) struct Listed {
    info: TensorInfo,
    /// The offset of its data in bytes, from where data begins.
    relative: u64,
    /// Where the file says so.
    relative_at: usize,
}

/// Reads `count` entries of the list of tensors.
pub(super) fn read_list(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Listed>, GgufError> {
    // `count` is the file's claim: the list grows with the entries that are really there.
    let mut list = Vec::new();
    let mut seen = HashSet::new();
    for number in 1..=count {
        let at = cursor.offset();
        let what = format_args!("the name of tensor {number} of {count}");
        let name = cursor.utf8(what)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let held = format!("{} bytes long", name.len());
            return Err(GgufError::field(what, at, held, format!("1 to {MAX_NAME_BYTES} bytes")));
        }
        if !seen.insert(name) {
            let held = format!("{} again", Quoted(name.as_bytes()));
            return Err(GgufError::field(what, at, held, "a name that no other tensor has"));
        }
        list.push(read_listed(cursor, name)?);
    }
    Ok(list)
}

/// Reads an entry from behind its name.
fn read_listed(cursor: &mut Cursor<'_>, name: &str) -> Result<Listed, GgufError> {
    let tensor = format_args!("tensor {}", Quoted(name.as_bytes()));
    let rank_at = cursor.offset();
    let rank_field = format_args!("the number of dimensions of {tensor}");
    let claimed = cursor.u32(rank_field)?;
    let rank =
        usize::try_from(claimed).ok().filter(|rank| (1..=MAX_DIMS).contains(rank)).ok_or_else(|| {
            GgufError::field(rank_field, rank_at, claimed.to_string(), format!("1 to {MAX_DIMS}"))
        })?;

    let dims_at = cursor.offset();
    let mut dims = [1; MAX_DIMS];
    for (index, dim) in dims.iter_mut().take(rank).enumerate() {
        let at = cursor.offset();
        let field = format_args!("dimension {index} of {tensor}");
        let held = cursor.u64(field)?;
        *dim = usize::try_from(held).map_err(|_| {
            GgufError::field(
                field,
                at,
                held.to_string(),
                format!("a number that fits in {} bits", usize::BITS),
            )
        })?;
    }

    let type_at = cursor.offset();
    let type_field = format_args!("the type of {tensor}");
    let code = cursor.u32(type_field)?;
    let dtype = DType::from_code(code).ok_or_else(|| {
        let held = match DType::unread_name(code) {
            Some(name) => format!("{code} ({name})"),
            None => format!("{code}, which GGUF doesn't define"),
        };
        let known: Vec<String> =
            DType::ALL.iter().map(|dtype| format!("{} ({dtype})", dtype.code())).collect();
        GgufError::field(type_field, type_at, held, format!("one of {}", known.join(", ")))
    })?;
    let bytes = data_bytes(dtype, dims.get(..rank).unwrap_or_default()).map_err(|fault| {
        GgufError::field(format_args!("the {} of {tensor}", fault.field), dims_at, fault.held, fault.expected)
    })?;

    let relative_at = cursor.offset();
    let relative = cursor.u64(format_args!("the offset of {tensor}"))?;
    let info = TensorInfo { name: name.into(), dtype, dims, rank, part: 0, offset: 0, bytes };
    Ok(Listed { info, relative, relative_at })
}

/// Finds each tensor's data in a file of `end` bytes whose list of tensors ended at `list_end`, and checks that it is
/// aligned, inside the file, and no other tensor's.
pub(super) fn locate(
    list: Vec<Listed>,
    list_end: usize,
    alignment: usize,
    end: usize,
) -> Result<Vec<TensorInfo>, GgufError> {
    // Overflows only for an alignment near the address space's size, and then there is no room for data anyway.
    let data_start = list_end.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    let mut tensors = Vec::with_capacity(list.len());
    let mut fields = Vec::with_capacity(list.len());
    for Listed { mut info, relative, relative_at } in list {
        let name = Quoted(info.name.as_bytes());
        let field = format_args!("the offset of tensor {name}");
        if !relative.is_multiple_of(alignment as u64) {
            let expected = format!("a multiple of {alignment}, the file's alignment");
            return Err(GgufError::field(field, relative_at, relative.to_string(), expected));
        }
        let offset = usize::try_from(relative).ok().and_then(|relative| data_start.checked_add(relative));
        let Some(offset) = offset.filter(|offset| offset.checked_add(info.bytes).is_some()) else {
            let expected = format!("an offset in the file's {end} bytes");
            return Err(GgufError::field(field, relative_at, relative.to_string(), expected));
        };
        if offset + info.bytes > end {
            return Err(cut_off(format_args!("the data of tensor {name}"), offset, end, info.bytes));
        }
        info.offset = offset;
        tensors.push(info);
        fields.push((relative, relative_at));
    }

    let mut order: Vec<(&TensorInfo, (u64, usize))> = tensors.iter().zip(fields).collect();
    order.sort_by_key(|(info, _)| info.offset);
    for pair in order.windows(2) {
        let [(before, _), (info, (relative, relative_at))] = pair else { continue };
        if before.offset + before.bytes > info.offset {
            let name = Quoted(info.name.as_bytes());
            let other = Quoted(before.name.as_bytes());
            let held = format!("{relative}, inside the data of tensor {other}");
            let field = format_args!("the offset of tensor {name}");
            return Err(GgufError::field(field, *relative_at, held, "data that no other tensor has"));
        }
    }
    Ok(tensors)
}
