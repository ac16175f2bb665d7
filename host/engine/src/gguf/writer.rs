//! Writes GGUF version 3: declare metadata and tensors, then stream the tensors' data, so that a model larger than
//! memory can be written.

use std::collections::HashSet;
use std::io::Write;
use std::vec;

use herald_api::DType;

use super::cursor::Cursor;
use super::error::{GgufError, Quoted};
use super::metadata::MAX_KEY_BYTES;
use super::part::{ALIGNMENT_EXPECTED, ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, is_alignment};
use super::tensor::{MAX_NAME_BYTES, data_bytes};
use super::value::{Array, MAX_DEPTH, Value, ValueType};

type Result<T> = std::result::Result<T, GgufError>;

const VERSION: u32 = 3;

/// An array that the caller makes, to be written as a metadata value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrayBuf {
    kind: ValueType,
    len: usize,
    bytes: Vec<u8>,
}

impl ArrayBuf {
    /// An array of strings, which need not be UTF-8.
    #[must_use]
    pub fn strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Self {
        let mut array = Self { kind: ValueType::String, len: 0, bytes: Vec::new() };
        for string in strings {
            put_string(&mut array.bytes, string.as_ref());
            array.len += 1;
        }
        array
    }

    /// An array of arrays.
    #[must_use]
    pub fn arrays<'a>(arrays: impl IntoIterator<Item = Array<'a>>) -> Self {
        let mut array = Self { kind: ValueType::Array, len: 0, bytes: Vec::new() };
        for inner in arrays {
            put_value(&mut array.bytes, Value::Array(inner));
            array.len += 1;
        }
        array
    }

    /// The array as a reader would see it.
    #[must_use]
    pub fn as_array(&self) -> Array<'_> {
        Array::from_checked(self.kind, self.len, &self.bytes)
    }
}

impl<'a> From<&'a ArrayBuf> for Value<'a> {
    fn from(array: &'a ArrayBuf) -> Self {
        Self::Array(array.as_array())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(string: &'a str) -> Self {
        Self::String(string.as_bytes())
    }
}

macro_rules! values_from_scalars {
    ($($scalar:ty => $kind:ident),*) => {$(
        impl From<$scalar> for Value<'_> {
            fn from(scalar: $scalar) -> Self {
                Self::$kind(scalar)
            }
        }

        impl From<&[$scalar]> for ArrayBuf {
            fn from(elements: &[$scalar]) -> Self {
                let mut bytes = Vec::with_capacity(size_of_val(elements));
                for &element in elements {
                    put_value(&mut bytes, element.into());
                }
                Self { kind: ValueType::$kind, len: elements.len(), bytes }
            }
        }
    )*};
}

values_from_scalars!(
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
    f32 => F32, f64 => F64, bool => Bool
);

fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    out.extend((string.len() as u64).to_le_bytes());
    out.extend(string);
}

fn put_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::U8(value) => out.extend(value.to_le_bytes()),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(value.into()),
        Value::String(value) => put_string(out, value),
        Value::Array(array) => {
            out.extend(array.element_type().code().to_le_bytes());
            out.extend((array.len() as u64).to_le_bytes());
            out.extend(array.bytes());
        }
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
    }
}

/// A tensor that was declared.
#[derive(Debug)]
struct Declared {
    name: Box<str>,
    dtype: DType,
    dims: Vec<usize>,
    bytes: usize,
}

/// A GGUF file in the making: what it will say of itself.
///
/// Tensors' data is aligned to `general.alignment` where that is among the metadata, and to 32 bytes otherwise.
#[derive(Debug)]
pub struct Writer {
    keys: HashSet<Box<str>>,
    metadata: Vec<u8>,
    names: HashSet<Box<str>>,
    tensors: Vec<Declared>,
    alignment: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// A file with no metadata and no tensors.
    #[must_use]
    pub fn new() -> Self {
        Self {
            keys: HashSet::new(),
            metadata: Vec::new(),
            names: HashSet::new(),
            tensors: Vec::new(),
            alignment: DEFAULT_ALIGNMENT,
        }
    }

    /// Adds a metadata entry, behind those added before.
    ///
    /// # Errors
    ///
    /// [`GgufError::Unwritable`] for a key that is empty, too long or there already, a string that is no UTF-8, arrays
    /// nested too deep, and a `general.alignment` that is none.
    pub fn metadata<'v>(&mut self, key: &str, value: impl Into<Value<'v>>) -> Result<&mut Self> {
        let value = value.into();
        let what = || format!("metadata {}", Quoted(key.as_bytes()));
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let held = format!("a key of {} bytes", key.len());
            return Err(unwritable(what(), held, format!("1 to {MAX_KEY_BYTES} bytes")));
        }
        if self.keys.contains(key) {
            return Err(unwritable(what(), "there already", "a key that no other entry has"));
        }
        match value {
            Value::String(bytes) if str::from_utf8(bytes).is_err() => {
                return Err(unwritable(what(), value, "UTF-8"));
            }
            Value::Array(array) if nests_too_deep(array) => {
                return Err(unwritable(what(), value, format!("arrays nested at most {MAX_DEPTH} deep")));
            }
            Value::U32(alignment) if key == ALIGNMENT_KEY && is_alignment(alignment) => {
                self.alignment = alignment
            }
            _ if key == ALIGNMENT_KEY => {
                return Err(unwritable(what(), value, format!("a u32, {ALIGNMENT_EXPECTED}")));
            }
            _ => {}
        }
        self.keys.insert(key.into());
        put_string(&mut self.metadata, key.as_bytes());
        self.metadata.extend(value.value_type().code().to_le_bytes());
        put_value(&mut self.metadata, value);
        Ok(self)
    }

    /// Declares a tensor, behind those declared before; `dims` in GGUF's order, the length of a row first.
    ///
    /// # Errors
    ///
    /// [`GgufError::Unwritable`] for a name that is empty, too long or there already, and a shape that GGUF or the type
    /// doesn't allow.
    pub fn tensor(&mut self, name: &str, dtype: DType, dims: &[usize]) -> Result<&mut Self> {
        let quoted = Quoted(name.as_bytes());
        if name.is_empty() || name.len() > MAX_NAME_BYTES {
            let held = format!("{} bytes long", name.len());
            let what = format!("the name of tensor {quoted}");
            return Err(unwritable(what, held, format!("1 to {MAX_NAME_BYTES} bytes")));
        }
        let bytes = data_bytes(dtype, dims).map_err(|fault| {
            unwritable(format!("the {} of tensor {quoted}", fault.field), fault.held, fault.expected)
        })?;
        if !self.names.insert(name.into()) {
            let what = format!("tensor {quoted}");
            return Err(unwritable(what, "there already", "a name that no other tensor has"));
        }
        self.tensors.push(Declared { name: name.into(), dtype, dims: dims.to_vec(), bytes });
        Ok(self)
    }

    /// Writes all that comes before the data; the tensors' data follows through the [`DataWriter`].
    ///
    /// # Errors
    ///
    /// Where `out` refuses, or the data is too large to have offsets.
    pub fn begin<W: Write>(self, mut out: W) -> Result<DataWriter<W>> {
        let mut head = Vec::new();
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.keys.len() as u64).to_le_bytes());
        head.extend(&self.metadata);
        let alignment = self.alignment as usize;
        let mut offset = 0_usize;
        let mut pending = Vec::with_capacity(self.tensors.len());
        for Declared { name, dtype, dims, bytes } in self.tensors {
            put_string(&mut head, name.as_bytes());
            head.extend((dims.len() as u32).to_le_bytes());
            for dim in dims {
                head.extend((dim as u64).to_le_bytes());
            }
            head.extend(dtype.code().to_le_bytes());
            head.extend((offset as u64).to_le_bytes());
            let end = offset.checked_add(bytes).and_then(|end| end.checked_next_multiple_of(alignment));
            offset = end.ok_or_else(|| {
                let what = format!("the data up to tensor {}", Quoted(name.as_bytes()));
                unwritable(what, "too large", format!("a size that fits in {} bits", usize::BITS))
            })?;
            pending.push((name, bytes));
        }
        head.resize(head.len().next_multiple_of(alignment), 0);
        out.write_all(&head).map_err(refused)?;
        Ok(DataWriter { out, alignment, pending: pending.into_iter(), begun: None })
    }
}

/// Takes the data of the tensors that a [`Writer`] declared, in that order.
#[derive(Debug)]
pub struct DataWriter<W> {
    out: W,
    alignment: usize,
    pending: vec::IntoIter<(Box<str>, usize)>,
    /// The tensor whose data has begun to come, and how many bytes of it have.
    begun: Option<(Box<str>, usize, usize)>,
}

impl<W: Write> DataWriter<W> {
    /// Writes the next tensor's data.
    ///
    /// # Errors
    ///
    /// Where `out` refuses, the data has not the declared length, or there is no further tensor.
    pub fn tensor(&mut self, data: &[u8]) -> Result<()> {
        self.complete()?;
        let other = |(_, bytes): &&(Box<str>, usize)| *bytes != data.len();
        if let Some((name, bytes)) = self.pending.as_slice().first().filter(other) {
            let what = format!("the data of tensor {}", Quoted(name.as_bytes()));
            let error = unwritable(what, format!("{} bytes", data.len()), format!("{bytes}, as declared"));
            self.pending.next();
            return Err(error);
        }
        self.piece(data)
    }

    /// Writes the next bytes of a tensor's data, which may come in several pieces: of the tensor whose data isn't
    /// complete yet, or else of the next.
    ///
    /// # Errors
    ///
    /// Where `out` refuses, the data is longer than declared, or there is no further tensor.
    pub fn piece(&mut self, data: &[u8]) -> Result<()> {
        let next = || self.pending.next().map(|(name, bytes)| (name, bytes, 0));
        let Some((name, bytes, before)) = self.begun.take().or_else(next) else {
            let held = format!("{} bytes for one tensor more", data.len());
            return Err(unwritable("the data", held, "data of the declared tensors only"));
        };
        let written = before + data.len();
        if written > bytes {
            let what = format!("the data of tensor {}", Quoted(name.as_bytes()));
            return Err(unwritable(what, format!("{written} bytes"), format!("{bytes}, as declared")));
        }
        self.out.write_all(data).map_err(refused)?;
        if written < bytes {
            self.begun = Some((name, bytes, written));
            return Ok(());
        }
        // Padding is shorter than the alignment, which may be large: it goes out in pieces.
        let mut padding = bytes.next_multiple_of(self.alignment) - bytes;
        while padding > 0 {
            let zeros = [0; 64];
            let piece = zeros.get(..padding).unwrap_or(&zeros);
            self.out.write_all(piece).map_err(refused)?;
            padding -= piece.len();
        }
        Ok(())
    }

    /// Refuses to go on while a tensor's data isn't complete.
    fn complete(&self) -> Result<()> {
        let Some((name, bytes, written)) = &self.begun else { return Ok(()) };
        let what = format!("the data of tensor {}", Quoted(name.as_bytes()));
        Err(unwritable(what, format!("{written} bytes so far"), format!("{bytes}, as declared")))
    }

    /// Ends the file and gives `out` back, flushed.
    ///
    /// # Errors
    ///
    /// Where `out` refuses, or a declared tensor has no data yet.
    pub fn finish(mut self) -> Result<W> {
        self.complete()?;
        if let Some((name, bytes)) = self.pending.next() {
            let what = format!("the data of tensor {}", Quoted(name.as_bytes()));
            return Err(unwritable(what, "missing", format!("{bytes} bytes, as declared")));
        }
        self.out.flush().map_err(refused)?;
        Ok(self.out)
    }
}

/// Whether a reader would refuse the array.
fn nests_too_deep(array: Array<'_>) -> bool {
    array.element_type() == ValueType::Array && {
        let mut bytes = Vec::new();
        put_value(&mut bytes, Value::Array(array));
        Array::read(&mut Cursor::new(&bytes), 0, format_args!("the array")).is_err()
    }
}

fn unwritable(what: impl Into<String>, held: impl ToString, expected: impl Into<String>) -> GgufError {
    GgufError::Unwritable { what: what.into(), held: held.to_string(), expected: expected.into() }
}

fn refused(source: std::io::Error) -> GgufError {
    GgufError::Io { path: None, doing: "written", source }
}
