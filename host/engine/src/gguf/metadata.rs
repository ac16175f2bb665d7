//! The metadata of a GGUF file: keys and typed values, in the file's order.

use std::collections::HashSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use memmap2::Mmap;

use super::cursor::Cursor;
use super::error::{GgufError, Quoted};
use super::overrides::{Override, Set};
use super::value::{Array, FromValue, Value, ValueType};

/// The longest key that the GGUF specification allows, in bytes.
pub(super) const MAX_KEY_BYTES: usize = 65535;

/// The fewest bytes of an entry: the key's length, one byte of key, the value type, one byte of value.
pub(super) const LEAST_ENTRY_BYTES: usize = 8 + 1 + 4 + 1;

/// The metadata of a file (of a split model, its first part's).
#[derive(Clone, Debug)]
pub struct Metadata {
    path: Option<PathBuf>,
    map: Arc<Mmap>,
    entries: Vec<Entry>,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    key: Box<str>,
    /// Where the value begins, in bytes from the start of the file.
    offset: usize,
    stored: Stored,
}

/// A value as it is kept: what is small is copied, and arrays stay in the file.
#[derive(Clone, Debug)]
enum Stored {
    Scalar(Value<'static>),
    String(Box<str>),
    Array { kind: ValueType, len: usize, bytes: Range<usize> },
}

impl Entry {
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The value, for a caller that has only the file's bytes.
    pub(super) fn value<'a>(&'a self, file: &'a [u8]) -> Value<'a> {
        match &self.stored {
            Stored::Scalar(value) => *value,
            Stored::String(string) => Value::String(string.as_bytes()),
            Stored::Array { kind, len, bytes } => {
                Value::Array(Array::from_checked(*kind, *len, file.get(bytes.clone()).unwrap_or_default()))
            }
        }
    }

    /// An error that says what this entry holds.
    pub(super) fn fault(&self, held: String, expected: String) -> GgufError {
        let key = Quoted(self.key.as_bytes());
        GgufError::field(format_args!("metadata {key}"), self.offset, held, expected)
    }
}

/// Reads `count` entries.
pub(super) fn read_entries(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Entry>, GgufError> {
    // `count` is the file's claim: the list grows with the entries that are really there.
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for number in 1..=count {
        let at = cursor.offset();
        let what = format_args!("the key of metadata entry {number} of {count}");
        let key = cursor.utf8(what)?;
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let held = format!("{} bytes long", key.len());
            return Err(GgufError::field(what, at, held, format!("1 to {MAX_KEY_BYTES} bytes")));
        }
        let quoted = Quoted(key.as_bytes());
        if !seen.insert(key) {
            return Err(GgufError::field(
                what,
                at,
                format!("{quoted} again"),
                "a key that no other entry has",
            ));
        }
        let kind = ValueType::read(cursor, format_args!("the value type of metadata {quoted}"))?;
        let offset = cursor.offset();
        let what = format_args!("metadata {quoted}");
        let stored = match kind {
            ValueType::String => Stored::String(cursor.utf8(what)?.into()),
            ValueType::Array => {
                let array = Array::read(cursor, 0, what)?;
                let bytes = cursor.offset() - array.bytes().len()..cursor.offset();
                Stored::Array { kind: array.element_type(), len: array.len(), bytes }
            }
            scalar => Stored::Scalar(Value::read_scalar(cursor, scalar, what)?),
        };
        entries.push(Entry { key: key.into(), offset, stored });
    }
    Ok(entries)
}

impl Metadata {
    pub(super) fn new(path: Option<PathBuf>, map: Arc<Mmap>, entries: Vec<Entry>) -> Self {
        Self { path, map, entries }
    }

    /// Sets a key to another value than the file's, or one that the file has none for.
    pub(super) fn set(&mut self, set: &Override) -> Result<(), String> {
        let place = self.entries.iter().position(|entry| entry.key() == set.key());
        let held = place.map(|place| self.entries[place].value(&self.map).value_type());
        let stored = match set.value(held)? {
            Set::Scalar(value) => Stored::Scalar(value),
            Set::String(text) => Stored::String(text.into()),
        };
        match place {
            Some(place) => self.entries[place].stored = stored,
            None => self.entries.push(Entry { key: set.key().into(), offset: 0, stored }),
        }
        Ok(())
    }

    /// Where a key's value begins in the file, in bytes; of an array, its elements' type comes first. None for a key that the file
    /// doesn't have.
    #[must_use]
    pub fn offset(&self, key: &str) -> Option<usize> {
        // No value lies at the file's beginning: that is where values are that were set.
        self.entries.iter().find(|entry| entry.key() == key).map(|entry| entry.offset).filter(|at| *at > 0)
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys and values, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.entries.iter().map(|entry| (entry.key(), entry.value(&self.map)))
    }

    /// The value of a key, of whatever kind, or `None` where the file has no such key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<Value<'_>> {
        self.entry(key).map(|entry| entry.value(&self.map))
    }

    /// The value of a key as a `T` (see [`FromValue`] for which types there are), or `None` where the file has no such
    /// key.
    ///
    /// # Errors
    ///
    /// [`GgufError::Field`] where the value is of another kind or doesn't fit.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, GgufError> {
        let Some(entry) = self.entry(key) else { return Ok(None) };
        T::from_value(entry.value(&self.map))
            .map(Some)
            .map_err(|held| entry.fault(held, T::expected()).in_file(self.path.as_deref()))
    }

    /// The value of a key that the caller can't do without.
    ///
    /// # Errors
    ///
    /// As [`Metadata::get`], and [`GgufError::Missing`] where the file has no such key.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, GgufError> {
        self.get(key)?.ok_or_else(|| GgufError::Missing {
            path: self.path.clone(),
            key: key.to_owned(),
            expected: T::expected(),
        })
    }

    /// An error about a value of the right kind that contradicts others: where it is, what it holds, and what the caller
    /// expected.
    #[must_use]
    pub fn fault(&self, key: &str, expected: impl Into<String>) -> GgufError {
        let expected = expected.into();
        match self.entry(key) {
            Some(entry) => {
                entry.fault(entry.value(&self.map).to_string(), expected).in_file(self.path.as_deref())
            }
            None => GgufError::Missing { path: self.path.clone(), key: key.to_owned(), expected },
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key() == key)
    }
}
