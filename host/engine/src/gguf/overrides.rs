//! Values that a run sets in place of the file's metadata.

use std::fmt;
use std::str::FromStr;

use super::value::{Value, ValueType};

/// A key with the value that it is to have for a run, as `KEY=VALUE` or, as llama.cpp's `--override-kv` has it,
/// `KEY=TYPE:VALUE` with `int`, `float`, `bool` or `str`.
///
/// Without a type the value has the type that the file's has; where the file has no such key, the first that it can be
/// of these four.
///
/// ```
/// use herald::gguf::Override;
///
/// let set: Override = "tokenizer.ggml.add_bos_token=false".parse().unwrap();
/// assert_eq!(set.key(), "tokenizer.ggml.add_bos_token");
/// assert!("llama.context_length=int:many".parse::<Override>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    key: String,
    kind: Option<Kind>,
    value: String,
}

/// What a value is, whatever its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Float,
    Bool,
    Str,
}

/// A value that is set.
#[derive(Debug)]
pub(super) enum Set {
    Scalar(Value<'static>),
    String(String),
}

impl Kind {
    const NAMED: [(&str, Self); 4] =
        [("int", Self::Int), ("float", Self::Float), ("bool", Self::Bool), ("str", Self::Str)];

    fn name(self) -> &'static str {
        Self::NAMED.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }

    /// That of a value of the file; none of an array.
    fn of(value: ValueType) -> Option<Self> {
        Some(match value {
            ValueType::U8
            | ValueType::I8
            | ValueType::U16
            | ValueType::I16
            | ValueType::U32
            | ValueType::I32
            | ValueType::U64
            | ValueType::I64 => Self::Int,
            ValueType::F32 | ValueType::F64 => Self::Float,
            ValueType::Bool => Self::Bool,
            ValueType::String => Self::Str,
            ValueType::Array => return None,
        })
    }

    fn read(self, text: &str) -> Option<Set> {
        Some(match self {
            Self::Int => Set::Scalar(match text.parse() {
                Ok(value) => Value::I64(value),
                Err(_) => Value::U64(text.parse().ok()?),
            }),
            Self::Float => Set::Scalar(Value::F64(text.parse().ok()?)),
            Self::Bool => Set::Scalar(Value::Bool(text.parse().ok()?)),
            Self::Str => Set::String(text.to_owned()),
        })
    }
}

impl Override {
    /// A key with the text of its value, as after `KEY=`.
    ///
    /// # Errors
    /// A sentence where the key is empty, or the value is not of the type that is written before it.
    pub fn new(key: &str, value: &str) -> Result<Self, String> {
        if key.is_empty() {
            return Err(format!("`={value}` has no key, where KEY=VALUE or KEY=TYPE:VALUE was expected"));
        }
        let typed = value.split_once(':').and_then(|(name, rest)| {
            Kind::NAMED.iter().find(|(other, _)| *other == name).map(|(_, kind)| (*kind, rest))
        });
        let (kind, value) = typed.map_or((None, value), |(kind, rest)| (Some(kind), rest));
        if let Some(kind) = kind.filter(|kind| kind.read(value).is_none()) {
            return Err(format!("{key} is set to `{value}`, where {} was expected", kind.expected()));
        }
        Ok(Self { key: key.to_owned(), kind, value: value.to_owned() })
    }

    /// The key that it sets.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value as a file is to hold it: of type `held` where the file has one already; otherwise whole numbers get the first of
    /// u32, i32, u64 and i64 that they fit, and others f32.
    ///
    /// # Errors
    /// A sentence where it isn't of that type, or too large for it.
    pub fn stored(&self, held: Option<ValueType>) -> Result<Value<'_>, String> {
        let scalar = match self.value(held)? {
            Set::String(_) => Value::String(self.value.as_bytes()),
            Set::Scalar(scalar) => scalar,
        };
        let (number, text) = match scalar {
            Value::I64(number) => (i128::from(number), self.value.as_str()),
            Value::U64(number) => (i128::from(number), self.value.as_str()),
            Value::F64(number) if held != Some(ValueType::F64) => {
                return self.of_type(Value::F32(number as f32), held);
            }
            other => return self.of_type(other, held),
        };
        let kinds = match held {
            Some(kind) => vec![kind],
            None => vec![ValueType::U32, ValueType::I32, ValueType::U64, ValueType::I64],
        };
        let expected = held.map_or("64 bits", ValueType::name);
        kinds.into_iter().find_map(|kind| integer(number, kind)).ok_or_else(|| {
            format!("{} is set to `{text}`, where a value of type {expected} was expected", self.key)
        })
    }

    /// The value, if it is of the file's type: `KEY=str:5` may name another.
    fn of_type<'v>(&self, value: Value<'v>, held: Option<ValueType>) -> Result<Value<'v>, String> {
        match held.filter(|held| *held != value.value_type()) {
            None => Ok(value),
            Some(held) => Err(format!(
                "{} is set to a value of type {}, where the file's {} was expected",
                self.key,
                value.value_type().name(),
                held.name()
            )),
        }
    }

    /// The value, where the file has one of type `held`, or none.
    pub(super) fn value(&self, held: Option<ValueType>) -> Result<Set, String> {
        let of_file = match held.map(Kind::of) {
            Some(None) => {
                return Err(format!("{} is an array, which can't be set from outside", self.key));
            }
            known => known.flatten(),
        };
        if let Some(kind) = self.kind.or(of_file) {
            return kind.read(&self.value).ok_or_else(|| {
                format!("{} is set to `{}`, where {} was expected", self.key, self.value, kind.expected())
            });
        }
        let kinds = [Kind::Bool, Kind::Int, Kind::Float, Kind::Str];
        let read = kinds.into_iter().find_map(|kind| kind.read(&self.value));
        Ok(read.unwrap_or_else(|| Set::String(self.value.clone())))
    }
}

/// The number in an integer type, where it fits.
fn integer(number: i128, kind: ValueType) -> Option<Value<'static>> {
    Some(match kind {
        ValueType::U8 => Value::U8(number.try_into().ok()?),
        ValueType::I8 => Value::I8(number.try_into().ok()?),
        ValueType::U16 => Value::U16(number.try_into().ok()?),
        ValueType::I16 => Value::I16(number.try_into().ok()?),
        ValueType::U32 => Value::U32(number.try_into().ok()?),
        ValueType::I32 => Value::I32(number.try_into().ok()?),
        ValueType::U64 => Value::U64(number.try_into().ok()?),
        ValueType::I64 => Value::I64(number.try_into().ok()?),
        _ => return None,
    })
}

impl Kind {
    fn expected(self) -> &'static str {
        match self {
            Self::Int => "an integer",
            Self::Float => "a number",
            Self::Bool => "true or false",
            Self::Str => "a text",
        }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(format!("`{text}` sets nothing, where KEY=VALUE or KEY=TYPE:VALUE was expected"));
        };
        Self::new(key, value)
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{}={}:{}", self.key, kind.name(), self.value),
            None => write!(f, "{}={}", self.key, self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, held: Option<ValueType>) -> Result<String, String> {
        let set: Override = text.parse()?;
        assert_eq!(set.to_string(), text);
        set.value(held).map(|set| format!("{set:?}"))
    }

    fn value(text: &str, held: Option<ValueType>) -> String {
        read(text, held).unwrap()
    }

    #[test]
    fn types() {
        assert_eq!(value("k=int:5", None), "Scalar(I64(5))");
        assert_eq!(value("k=int:18446744073709551615", None), "Scalar(U64(18446744073709551615))");
        assert_eq!(value("k=float:5", None), "Scalar(F64(5.0))");
        assert_eq!(value("k=bool:true", None), "Scalar(Bool(true))");
        assert_eq!(value("k=str:5", None), "String(\"5\")");
        assert_eq!(value("k=str:a=b:c", None), "String(\"a=b:c\")");
        assert_eq!(value("k=http://x", None), "String(\"http://x\")");
        for (text, expected) in [("false", "Bool(false)"), ("-7", "I64(-7)"), ("1e3", "F64(1000.0)")] {
            assert_eq!(value(&format!("k={text}"), None), format!("Scalar({expected})"));
        }
        assert_eq!(value("k=", None), "String(\"\")");
        assert_eq!(value("k=7", Some(ValueType::F32)), "Scalar(F64(7.0))");
        assert_eq!(value("k=7", Some(ValueType::String)), "String(\"7\")");
        assert_eq!(value("k=7", Some(ValueType::U32)), "Scalar(I64(7))");
    }

    #[test]
    fn values_for_files() {
        let stored = |text: &str, held| {
            let set: Override = text.parse().unwrap();
            set.stored(held).map(|value| format!("{value:?}"))
        };
        for (text, held, expected) in [
            ("k=7", None, "U32(7)"),
            ("k=-7", None, "I32(-7)"),
            ("k=5000000000", None, "U64(5000000000)"),
            ("k=0.5", None, "F32(0.5)"),
            ("k=7", Some(ValueType::U16), "U16(7)"),
            ("k=7", Some(ValueType::F64), "F64(7.0)"),
            ("k=true", Some(ValueType::Bool), "Bool(true)"),
        ] {
            assert_eq!(stored(text, held).unwrap(), expected, "{text}");
        }
        let wrong = |text: &str, held| stored(text, Some(held)).unwrap_err();
        let large = wrong("k=70000", ValueType::U16);
        assert_eq!(large, "k is set to `70000`, where a value of type u16 was expected");
        let other = wrong("k=str:7", ValueType::Bool);
        assert_eq!(other, "k is set to a value of type string, where the file's bool was expected");
        assert!(wrong("k=float:7", ValueType::U16).contains("u16"));
    }

    #[test]
    fn faults() {
        let sentence = "where KEY=VALUE or KEY=TYPE:VALUE was expected";
        assert_eq!(read("k", None), Err(format!("`k` sets nothing, {sentence}")));
        assert_eq!(read("=v", None), Err(format!("`=v` has no key, {sentence}")));
        assert_eq!(read("k=int:x", None), Err("k is set to `x`, where an integer was expected".to_owned()));
        let held = Some(ValueType::Bool);
        assert_eq!(read("k=1", held), Err("k is set to `1`, where true or false was expected".to_owned()));
        let held = Some(ValueType::Array);
        assert_eq!(read("k=1", held), Err("k is an array, which can't be set from outside".to_owned()));
    }
}
