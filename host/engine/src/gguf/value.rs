//! Metadata values: what a key of a GGUF file may hold, and how each kind turns into the Rust type a caller asks for.
//!
//! Arrays stay as they lie in the file, since a vocabulary has hundreds of thousands of entries: an [`Array`] is a view
//! that decodes an element when it is reached.

use std::fmt;

use super::cursor::Cursor;
use super::error::{GgufError, Quoted};

/// How deep arrays may nest: no known file nests them at all, and a bound keeps a hostile one off the stack.
pub(super) const MAX_DEPTH: usize = 4;

/// The kinds of metadata values, with GGUF's numbers (`gguf_metadata_value_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)] // The names are Rust's own.
pub enum ValueType {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The number in the file.
    #[must_use]
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The name that errors and listings show.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Bytes of a value, or `None` where they vary.
    fn fixed_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }

    /// The fewest bytes of a value: a string has at least its length, an array its element type and length.
    fn least_bytes(self) -> usize {
        self.fixed_bytes().unwrap_or(if self == Self::String { 8 } else { 12 })
    }

    pub(super) fn read(cursor: &mut Cursor<'_>, field: fmt::Arguments<'_>) -> Result<Self, GgufError> {
        let at = cursor.offset();
        let code = cursor.u32(field)?;
        Self::ALL
            .get(code as usize)
            .copied()
            .ok_or_else(|| GgufError::field(field, at, code.to_string(), "a number from 0 (u8) to 12 (f64)"))
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value, or an element of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // The kinds are `ValueType`'s.
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// A string's bytes. The value of a key is always UTF-8; elements of arrays are as the file has them, since the
    /// tokens of some vocabularies are not.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The value's kind.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// Reads a value of a known kind, inside `depth` arrays; `what` names it in errors.
    fn read(
        cursor: &mut Cursor<'a>,
        kind: ValueType,
        depth: usize,
        what: fmt::Arguments<'_>,
    ) -> Result<Self, GgufError> {
        match kind {
            ValueType::String => cursor.string(what).map(Self::String),
            ValueType::Array => Array::read(cursor, depth, what).map(Self::Array),
            scalar => Value::read_scalar(cursor, scalar, what),
        }
    }

    /// The value if it is an integer of any width.
    fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(value) => value.into(),
            Self::I8(value) => value.into(),
            Self::U16(value) => value.into(),
            Self::I16(value) => value.into(),
            Self::U32(value) => value.into(),
            Self::I32(value) => value.into(),
            Self::U64(value) => value.into(),
            Self::I64(value) => value.into(),
            Self::F32(_) | Self::F64(_) | Self::Bool(_) | Self::String(_) | Self::Array(_) => return None,
        })
    }
}

impl Value<'static> {
    /// Reads a value of a kind of fixed size, which borrows nothing.
    pub(super) fn read_scalar(
        cursor: &mut Cursor<'_>,
        kind: ValueType,
        what: fmt::Arguments<'_>,
    ) -> Result<Self, GgufError> {
        let at = cursor.offset();
        Ok(match kind {
            ValueType::U8 => Self::U8(u8::from_le_bytes(cursor.array(what)?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(cursor.array(what)?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(cursor.array(what)?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(cursor.array(what)?)),
            ValueType::U32 => Self::U32(u32::from_le_bytes(cursor.array(what)?)),
            ValueType::I32 => Self::I32(i32::from_le_bytes(cursor.array(what)?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(cursor.array(what)?)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(cursor.array(what)?)),
            ValueType::I64 => Self::I64(i64::from_le_bytes(cursor.array(what)?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(cursor.array(what)?)),
            ValueType::Bool => match cursor.array(what)? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [byte] => return Err(GgufError::field(what, at, format!("the bool {byte}"), "0 or 1")),
            },
            ValueType::String | ValueType::Array => {
                return Err(GgufError::field(what, at, format!("of type {kind}"), "a value of fixed size"));
            }
        })
    }
}

/// What an error says of the value: its kind, and the value where it is short.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.value_type();
        match self {
            Self::F32(value) => write!(f, "the {kind} {value}"),
            Self::F64(value) => write!(f, "the {kind} {value}"),
            Self::Bool(value) => write!(f, "the {kind} {value}"),
            Self::String(bytes) => write!(f, "the {kind} {}", Quoted(bytes)),
            Self::Array(array) => write!(f, "an array of {} {} values", array.len, array.kind),
            integer => write!(f, "the {kind} {}", integer.integer().unwrap_or_default()),
        }
    }
}

/// An array as it lies in the file. Copies are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// An array whose elements were checked before, by [`Array::read`] or by making them.
    pub(super) fn from_checked(kind: ValueType, len: usize, bytes: &'a [u8]) -> Self {
        Self { kind, len, bytes }
    }

    /// The kind of the elements.
    #[must_use]
    pub fn element_type(&self) -> ValueType {
        self.kind
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements in order, each decoded when it is reached.
    #[must_use]
    pub fn elements(&self) -> Elements<'a> {
        Elements { cursor: Cursor::new(self.bytes), kind: self.kind, left: self.len }
    }

    /// The elements as the file encodes them, without the array's own type and length.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads an array that lies inside `depth` others, and walks it once, so that later reads of it can't fail.
    pub(super) fn read(
        cursor: &mut Cursor<'a>,
        depth: usize,
        what: fmt::Arguments<'_>,
    ) -> Result<Self, GgufError> {
        let at = cursor.offset();
        if depth >= MAX_DEPTH {
            let held = format!("an array inside {depth} others");
            return Err(GgufError::field(what, at, held, format!("arrays nested at most {MAX_DEPTH} deep")));
        }
        let kind = ValueType::read(cursor, format_args!("the element type of {what}"))?;
        let len = cursor.count(kind.least_bytes(), format_args!("the number of elements of {what}"))?;
        let start = cursor.offset();
        match kind.fixed_bytes() {
            // `count` has checked that the file has as many bytes, so the product can't overflow.
            Some(bytes) if kind != ValueType::Bool => {
                cursor.take(len * bytes, what)?;
            }
            _ => {
                for index in 0..len {
                    Value::read(cursor, kind, depth + 1, format_args!("element {index} of {what}"))?;
                }
            }
        }
        Ok(Self { kind, len, bytes: cursor.since(start) })
    }
}

/// The elements of an [`Array`], in order.
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    kind: ValueType,
    left: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // The array was walked when the file was opened, so this fails only if the file has changed since.
        Value::read(&mut self.cursor, self.kind, 0, format_args!("an element")).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// A Rust type that a metadata value can be asked for as.
///
/// Integers are taken from any width that fits, since writers differ; an `f32` also from an `f64`; a `Vec` from an
/// array whose every element fits.
pub trait FromValue<'a>: Sized {
    /// The words for an error: "expected …".
    fn expected() -> String;

    /// The value as this type.
    ///
    /// # Errors
    ///
    /// Where it is of another kind or out of range: the words for what it holds.
    fn from_value(value: Value<'a>) -> Result<Self, String>;
}

macro_rules! integers_from_value {
    ($($integer:ty),*) => {$(
        impl<'a> FromValue<'a> for $integer {
            fn expected() -> String {
                format!("an integer from {} to {}", Self::MIN, Self::MAX)
            }

            fn from_value(value: Value<'a>) -> Result<Self, String> {
                value.integer().and_then(|integer| integer.try_into().ok()).ok_or_else(|| value.to_string())
            }
        }
    )*};
}

integers_from_value!(u8, u16, u32, u64, usize, i32, i64);

impl<'a> FromValue<'a> for f32 {
    fn expected() -> String {
        "a floating-point number".to_owned()
    }

    fn from_value(value: Value<'a>) -> Result<Self, String> {
        match value {
            Value::F32(float) => Ok(float),
            // The nearest f32: hyperparameters have no more digits.
            Value::F64(float) => Ok(float as f32),
            _ => Err(value.to_string()),
        }
    }
}

impl<'a> FromValue<'a> for bool {
    fn expected() -> String {
        "a bool".to_owned()
    }

    fn from_value(value: Value<'a>) -> Result<Self, String> {
        match value {
            Value::Bool(flag) => Ok(flag),
            _ => Err(value.to_string()),
        }
    }
}

impl<'a> FromValue<'a> for &'a [u8] {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn from_value(value: Value<'a>) -> Result<Self, String> {
        match value {
            Value::String(bytes) => Ok(bytes),
            _ => Err(value.to_string()),
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    fn expected() -> String {
        "a string of UTF-8".to_owned()
    }

    fn from_value(value: Value<'a>) -> Result<Self, String> {
        match value {
            Value::String(bytes) => str::from_utf8(bytes).map_err(|_| value.to_string()),
            _ => Err(value.to_string()),
        }
    }
}

impl<'a> FromValue<'a> for Array<'a> {
    fn expected() -> String {
        "an array".to_owned()
    }

    fn from_value(value: Value<'a>) -> Result<Self, String> {
        match value {
            Value::Array(array) => Ok(array),
            _ => Err(value.to_string()),
        }
    }
}

impl<'a, T: FromValue<'a>> FromValue<'a> for Vec<T> {
    fn expected() -> String {
        format!("an array whose every element is {}", T::expected())
    }

    fn from_value(value: Value<'a>) -> Result<Self, String> {
        let array = Array::from_value(value)?;
        let mut elements = Self::with_capacity(array.len());
        for (index, element) in array.elements().enumerate() {
            elements.push(
                T::from_value(element)
                    .map_err(|held| format!("{value}, of which element {index} is {held}"))?,
            );
        }
        Ok(elements)
    }
}
