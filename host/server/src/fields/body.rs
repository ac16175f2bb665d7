//! A request's body, read by the table of its fields.

use serde_json::{Map, Value};

use super::{Api, Field, Kind, Role};
use crate::error::ApiError;

/// The fields that a request gives, each as its table says.
#[derive(Debug)]
pub(crate) struct Body {
    api: &'static Api,
    values: Map<String, Value>,
}

/// The whole number that a value is; 100.0 is one.
pub(super) fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15)?;
        Some(number as i64)
    })
}

impl Body {
    /// Reads JSON.
    ///
    /// # Errors
    /// Where it is no JSON object, has a field that isn't served, or one of another kind than expected.
    pub(crate) fn read(api: &'static Api, bytes: &[u8]) -> Result<Self, ApiError> {
        // Some clients put a byte order mark before it.
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let value: Value = serde_json::from_slice(bytes).map_err(|error| {
            ApiError::invalid(format!("the request's body is not what was expected: {error}"))
        })?;
        match value {
            Value::Object(values) => Self::of(api, values),
            _ => Err(ApiError::invalid("the request's body is not what was expected: a JSON object")),
        }
    }

    /// Reads fields that are JSON already.
    ///
    /// # Errors
    /// As [`Body::read`].
    pub(crate) fn of(api: &'static Api, mut values: Map<String, Value>) -> Result<Self, ApiError> {
        values.retain(|_, value| !value.is_null());
        for (name, value) in &values {
            let field = api.field(name).ok_or_else(|| unknown(api, name))?;
            check(field, value)?;
        }
        let is_served = |name: &String| api.field(name).is_some_and(|field| field.role == Role::Served);
        values.retain(|name, _| is_served(name));
        Ok(Self { api, values })
    }

    /// Takes a field, where it is given. A name that its API doesn't have is never given.
    pub(crate) fn any(&mut self, name: &str) -> Option<Value> {
        self.values.shift_remove(name)
    }

    pub(crate) fn flag(&mut self, name: &str) -> Option<bool> {
        self.any(name)?.as_bool()
    }

    pub(crate) fn number(&mut self, name: &str) -> Option<f32> {
        // Beyond a float's range: the sampler refuses it by name.
        self.any(name)?.as_f64().map(|number| number as f32)
    }

    pub(crate) fn integer(&mut self, name: &str) -> Option<i64> {
        whole(&self.any(name)?)
    }

    /// A count of at least 0.
    ///
    /// # Errors
    /// A number below 0.
    pub(crate) fn count(&mut self, name: &str) -> Result<Option<usize>, ApiError> {
        let Some(number) = self.integer(name) else { return Ok(None) };
        let count = usize::try_from(number);
        count.map(Some).map_err(|_| wrong(name, &number.to_string(), "a whole number of at least 0"))
    }

    /// A count for which any number below 0 means "no limit", or "as if not given".
    pub(crate) fn limit(&mut self, name: &str) -> Option<Option<u32>> {
        self.integer(name).map(|number| u32::try_from(number.min(i64::from(u32::MAX))).ok())
    }

    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        match self.any(name)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        match self.any(name)? {
            Value::String(text) => Some(vec![text]),
            Value::Array(texts) => {
                Some(texts.into_iter().filter_map(|text| text.as_str().map(str::to_owned)).collect())
            }
            _ => None,
        }
    }

    pub(crate) fn list(&mut self, name: &str) -> Option<Vec<Value>> {
        match self.any(name)? {
            Value::Array(list) => Some(list),
            _ => None,
        }
    }

    pub(crate) fn object(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.any(name)? {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    /// A field that must be given.
    ///
    /// # Errors
    /// Where it isn't.
    pub(crate) fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, ApiError> {
        value.ok_or_else(|| {
            let expected = self.api.field(name).map_or("a value", |field| field.kind.expected());
            ApiError::invalid(format!("{name} is missing, where {expected} was expected")).at(name)
        })
    }

    /// Ends the reading: whatever the table promises and nothing has taken is refused.
    ///
    /// # Errors
    /// Where a field is left.
    pub(crate) fn done(self) -> Result<(), ApiError> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(name) => Err(refused(name)),
        }
    }
}

fn check(field: &Field, value: &Value) -> Result<(), ApiError> {
    if let Role::Only(values) = field.role {
        let accepted =
            |text: &&str| serde_json::from_str::<Value>(text).is_ok_and(|accepted| same(&accepted, value));
        return if values.iter().any(accepted) { Ok(()) } else { Err(refused(field.name)) };
    }
    // What changes nothing may be anything.
    if field.role == Role::Noted || field.kind.fits(value) {
        return Ok(());
    }
    let shown: String = value.to_string().chars().take(60).collect();
    Err(wrong(field.name, &shown, field.kind.expected()))
}

/// Whether two values are the same, as numbers where they are numbers.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// Says that a field has another value than was expected.
pub(crate) fn wrong(name: &str, found: &str, expected: &str) -> ApiError {
    ApiError::invalid(format!("{name} is {found}, where {expected} was expected")).at(name)
}

/// Says that a field isn't served.
pub(crate) fn refused(name: &str) -> ApiError {
    ApiError::invalid(format!("{name} is not served here: it was expected to be left out")).at(name)
}

fn unknown(api: &Api, name: &str) -> ApiError {
    let shown: String = name.chars().take(60).collect();
    let close = api.fields().map(|field| (distance(field.name, name), field.name)).min();
    let hint = match close {
        Some((distance, close)) if distance * 3 <= close.len() => format!("; {close} is one"),
        _ => String::new(),
    };
    ApiError::invalid(format!("{shown} is no field of {}{hint}", api.name)).at(&shown)
}

/// How many characters must be put in, left out or replaced to make one text of the other (Levenshtein); of long ones, many.
fn distance(a: &str, b: &str) -> usize {
    if b.len() > 40 {
        return usize::MAX / 8;
    }
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let replaced = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

/// A number from an object within a body.
pub(crate) fn integer_of(name: &str, value: &Value) -> Result<i64, ApiError> {
    whole(value).ok_or_else(|| wrong(name, &value.to_string(), Kind::Integer.expected()))
}
