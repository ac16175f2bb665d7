//! Equality, order and hashing of values, as in Python. Shared parts count each time that they are met.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::error::Error;
use super::meter::{Charge, Shared};
use super::value::{Text, Value};

/// `a == b`
pub(super) fn equal(meter: &Shared, a: &Value, b: &Value) -> Result<bool, Error> {
    meter.work(1)?;
    Ok(match (a, b) {
        (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
        (Value::Text(a), Value::Text(b)) => {
            a.text.len() == b.text.len() && {
                meter.copied(a.text.len())?;
                a.text == b.text
            }
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            meter.enter()?;
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(meter, a, b)? {
                    meter.leave();
                    return Ok(false);
                }
            }
            meter.leave();
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries().len() != b.entries().len() {
                return Ok(false);
            }
            meter.enter()?;
            for (key, value) in a.entries() {
                let other = b.get(meter, key)?;
                if !other.map_or(Ok(false), |other| equal(meter, value, other))? {
                    meter.leave();
                    return Ok(false);
                }
            }
            meter.leave();
            true
        }
        (Value::Object(a), Value::Object(b)) => a == b,
        (Value::Loop(a), Value::Loop(b)) => a == b,
        (Value::Macro(a), Value::Macro(b)) => Rc::ptr_eq(a, b),
        (Value::Method(a), Value::Method(b)) => Rc::ptr_eq(a, b),
        (Value::Function(a), Value::Function(b)) => a == b,
        (a, b) => numbers(a, b).is_some_and(|ordering| ordering == Some(Ordering::Equal)),
    })
}

/// The order of two numbers; `None` where one is none, `Some(None)` where one is NaN.
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    match (a.as_int(), b.as_int()) {
        (Some(a), Some(b)) => Some(Some(a.cmp(&b))),
        _ => Some(a.as_float()?.partial_cmp(&b.as_float()?)),
    }
}

/// The order of two values; `Ok(None)` where one is NaN.
///
/// # Errors
/// They can't be ordered.
pub(super) fn compare(meter: &Shared, a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    meter.work(1)?;
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            meter.copied(a.text.len().min(b.text.len()))?;
            // UTF-8 sorts as its code points do.
            Ok(Some(a.text.cmp(&b.text)))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            meter.enter()?;
            let mut ordering = None;
            for (a, b) in a.items.iter().zip(&b.items) {
                // The first two that differ decide.
                if !equal(meter, a, b)? {
                    ordering = Some(compare(meter, a, b)?);
                    break;
                }
            }
            meter.leave();
            Ok(ordering.unwrap_or(Some(a.items.len().cmp(&b.items.len()))))
        }
        (a, b) => numbers(a, b).ok_or_else(|| {
            let (a, b) = (a.kind(), b.kind());
            Error::invalid(format!("values of types {a} and {b} can't be ordered"))
        }),
    }
}

/// `needle in haystack`
pub(super) fn contains(meter: &Shared, haystack: &Value, needle: &Value) -> Result<bool, Error> {
    match haystack {
        Value::Text(text) => {
            let Some(part) = needle.as_text() else {
                let kind = needle.kind();
                return Err(Error::invalid(format!("a string can't contain a value that is {kind}")));
            };
            meter.scanned(text.text.len())?;
            Ok(text.text.contains(part))
        }
        Value::List(list) | Value::Tuple(list) => {
            for item in &list.items {
                if equal(meter, item, needle)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Dict(dict) => Ok(dict.get(meter, needle)?.is_some()),
        Value::Undefined => Ok(false),
        other => Err(Error::invalid(format!("a value that is {} contains nothing", other.kind()))),
    }
}

/// A stable sort. `ascending` compares two places.
pub(super) fn sort(
    length: usize,
    mut order: impl FnMut(usize, usize) -> Result<Ordering, Error>,
) -> Result<Vec<usize>, Error> {
    let mut sorted: Vec<usize> = (0..length).collect();
    let mut merged = Vec::with_capacity(length);
    let mut width = 1;
    while width < length {
        for begin in (0..length).step_by(2 * width) {
            let middle = (begin + width).min(length);
            let end = (begin + 2 * width).min(length);
            let (mut left, mut right) = (begin, middle);
            while left < middle || right < end {
                let from_left =
                    right == end || left < middle && order(sorted[left], sorted[right])? != Ordering::Greater;
                let from = if from_left { &mut left } else { &mut right };
                merged.push(sorted[*from]);
                *from += 1;
            }
        }
        std::mem::swap(&mut sorted, &mut merged);
        merged.clear();
        width *= 2;
    }
    Ok(sorted)
}

/// A dict's key.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    None,
    Int(i128),
    /// The bits of a number that is no integer.
    Float(u64),
    Text(TextKey),
    Tuple(Vec<Key>),
    Other(&'static str, usize),
}

/// A string as a key.
#[derive(Debug)]
pub(super) struct TextKey(Rc<Text>);

impl PartialEq for TextKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for TextKey {}

impl Hash for TextKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl Key {
    /// The key of a value; what it takes is added to the charge.
    pub(super) fn new(meter: &Shared, value: &Value, charge: &mut Charge) -> Result<Self, Error> {
        meter.work(1)?;
        charge.grow(2 * size_of::<Self>())?;
        Ok(match value {
            Value::None => Self::None,
            Value::Bool(value) => Self::Int(i128::from(*value)),
            Value::Int(value) => Self::Int(*value),
            // 1 and 1.0 are one key.
            Value::Float(value) if value.fract() == 0.0 && value.abs() < 1e30 => Self::Int(*value as i128),
            Value::Float(value) => Self::Float(value.to_bits()),
            Value::Text(text) => {
                meter.scanned(text.text.len())?;
                Self::Text(TextKey(text.clone()))
            }
            Value::Tuple(list) => {
                meter.enter()?;
                let mut keys = Vec::new();
                for item in &list.items {
                    keys.push(Self::new(meter, item, charge)?);
                }
                meter.leave();
                Self::Tuple(keys)
            }
            Value::Undefined => Self::Other("undefined", 0),
            Value::Object(number) => Self::Other("object", *number),
            Value::Loop(number) => Self::Other("loop", *number as usize),
            Value::Function(name) => Self::Other(name, 0),
            Value::Macro(value) => Self::Other("macro", Rc::as_ptr(value).addr()),
            Value::List(_) | Value::Dict(_) | Value::Method(_) => return Err(unhashable(value)),
        })
    }
}

fn unhashable(value: &Value) -> Error {
    Error::invalid(format!("a value that is {} can't be a key", value.kind()))
}

/// Whether the value can be a key.
pub(super) fn check_hashable(meter: &Shared, value: &Value) -> Result<(), Error> {
    match value {
        Value::List(_) | Value::Dict(_) | Value::Method(_) => Err(unhashable(value)),
        Value::Tuple(list) => {
            meter.enter()?;
            for item in &list.items {
                check_hashable(meter, item)?;
            }
            meter.leave();
            Ok(())
        }
        _ => Ok(()),
    }
}
