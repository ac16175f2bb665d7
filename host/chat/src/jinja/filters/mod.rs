//! Jinja2's filters.

mod sequences;
mod texts;

use std::cmp::Ordering;

use super::arguments::{Given, optional_int};
use super::error::Error;
use super::interpreter::Interpreter;
use super::json;
use super::lexer::shortened;
use super::meter::Shared;
use super::show;
use super::value::{Dict, Items, Value};

/// Applies a filter.
pub(super) fn apply(
    interpreter: &mut Interpreter<'_>,
    name: &str,
    value: Value,
    given: Given,
) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    meter.work(2)?;
    match name {
        "safe" | "string" | "pprint" => {
            given.named::<0>(name, [])?;
            show::shown(&meter, &value)
        }
        "tojson" => json::tojson(&meter, &value, given),
        "default" | "d" => {
            let [fallback, boolean] = given.named("default", ["default_value", "boolean"])?;
            let boolean = boolean.is_some_and(|value| value.is_true());
            if matches!(value, Value::Undefined) || boolean && !value.is_true() {
                return fallback.map_or_else(|| Value::text(&meter, ""), Ok);
            }
            Ok(value)
        }
        "length" | "count" => Ok(Value::Int(value.length(&meter)? as i128)),
        "list" => Ok(Value::List(value.items(&meter)?)),
        "abs" => match value {
            Value::Float(number) => Ok(Value::Float(number.abs())),
            other => other
                .as_int()
                .map(|number| Value::Int(number.saturating_abs()))
                .ok_or_else(|| wrong(name, &other)),
        },
        "int" => int(&meter, &value, given),
        "float" => {
            let [default] = given.named("float", ["default"])?;
            let number = match &value {
                Value::Text(text) => {
                    meter.scanned(text.text.len())?;
                    parse_float(&text.text)
                }
                other => other.as_float(),
            };
            Ok(number.map_or(default.unwrap_or(Value::Float(0.0)), Value::Float))
        }
        "round" => round(&value, given),
        "items" | "dictsort" => entries(&meter, name, &value, given),
        "attr" => {
            let [attribute] = given.named("attr", ["name"])?;
            let attribute = super::arguments::text(attribute, name)?;
            super::functions::attribute(interpreter, &value, &attribute)
        }
        _ => {
            if sequences::NAMES.contains(&name) {
                return sequences::apply(interpreter, name, &value, given);
            }
            if texts::NAMES.contains(&name) {
                return texts::apply(&meter, name, &value, given);
            }
            Err(Error::unknown("unknown filter", format!("filter {} is unknown", shortened(name))))
        }
    }
}

/// Whether there is a filter of this name.
pub(super) fn exists(name: &str) -> bool {
    let others = [
        "safe", "string", "pprint", "tojson", "default", "d", "length", "count", "list", "abs", "int",
        "float", "round", "items", "dictsort", "attr",
    ];
    others.contains(&name) || sequences::NAMES.contains(&name) || texts::NAMES.contains(&name)
}

fn wrong(name: &str, value: &Value) -> Error {
    Error::invalid(format!("{name} can't work on a value that is {}", value.kind()))
}

/// A number as Python reads one.
fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::lexer::is_space).replace('_', "");
    // Rust reads all that Python does, such as "1e5", ".5", "inf" and "nan".
    text.parse().ok()
}

fn int(meter: &Shared, value: &Value, given: Given) -> Result<Value, Error> {
    let [default, base] = given.named("int", ["default", "base"])?;
    let base = optional_int(base, "int")?.unwrap_or(10);
    let truncated = |number: f64| (number.is_finite() && number.abs() < 1e38).then_some(number as i128);
    let number = match value {
        Value::Text(text) => {
            meter.scanned(text.text.len())?;
            let digits = text.text.trim_matches(super::lexer::is_space).replace('_', "").to_ascii_lowercase();
            let prefix = match base {
                2 => "0b",
                8 => "0o",
                16 => "0x",
                _ => "",
            };
            let radix = u32::try_from(base).ok().filter(|radix| (2..=36).contains(radix));
            let digits = digits.strip_prefix(prefix).unwrap_or(&digits);
            let whole = radix.and_then(|radix| i128::from_str_radix(digits, radix).ok());
            whole.or_else(|| parse_float(&text.text).and_then(truncated))
        }
        Value::Float(number) => truncated(*number),
        other => other.as_int(),
    };
    Ok(number.map_or(default.unwrap_or(Value::Int(0)), Value::Int))
}

fn round(value: &Value, given: Given) -> Result<Value, Error> {
    let [precision, method] = given.named("round", ["precision", "method"])?;
    let precision = optional_int(precision, "round")?.unwrap_or(0);
    let precision = i32::try_from(precision).ok().filter(|precision| precision.abs() <= 300);
    let precision = precision.ok_or_else(|| Error::invalid("round's precision is beyond 300 digits"))?;
    let number = value.as_float().ok_or_else(|| wrong("round", value))?;
    let method = super::arguments::optional_text(method, "round")?;
    let scale = 10f64.powi(precision);
    let rounded = match method.as_ref().map_or("common", |method| &method.text) {
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        "common" if matches!(value, Value::Int(_)) => {
            let whole = (number * scale).round_ties_even() / scale;
            return Ok(if precision >= 0 { value.clone() } else { Value::Int(whole as i128) });
        }
        // The shortest decimal's digits, as Python rounds; a tie goes to the even digit.
        "common" if precision >= 0 => {
            let decimals = precision as usize;
            format!("{number:.decimals$}").parse().unwrap_or(number)
        }
        "common" => (number * scale).round_ties_even() / scale,
        _ => return Err(Error::invalid("round's method is not common, ceil or floor")),
    };
    Ok(Value::Float(rounded))
}

/// A dict's entries as pairs, for `dictsort` in order.
fn entries(meter: &Shared, name: &str, value: &Value, given: Given) -> Result<Value, Error> {
    let mut items = Items::new(meter)?;
    let Value::Dict(dict) = value else {
        return if matches!(value, Value::Undefined) { Ok(items.list()) } else { Err(wrong(name, value)) };
    };
    let order = if name == "dictsort" {
        sorted_entries(meter, dict, given)?
    } else {
        (0..dict.entries().len()).collect()
    };
    for place in order {
        let (key, value) = &dict.entries()[place];
        items.push(Value::tuple(meter, vec![key.clone(), value.clone()])?)?;
    }
    Ok(items.list())
}

fn sorted_entries(meter: &Shared, dict: &Dict, given: Given) -> Result<Vec<usize>, Error> {
    let [case_sensitive, by, reverse] = given.named("dictsort", ["case_sensitive", "by", "reverse"])?;
    let case_sensitive = case_sensitive.is_some_and(|value| value.is_true());
    let by_value =
        match super::arguments::optional_text(by, "dictsort")?.as_ref().map_or("key", |by| &by.text) {
            "key" => false,
            "value" => true,
            _ => return Err(Error::invalid("dictsort sorts by \"key\" or \"value\"")),
        };
    let mut keys = Items::new(meter)?;
    for (key, value) in dict.entries() {
        keys.push(folded(meter, if by_value { value } else { key }, case_sensitive)?)?;
    }
    sorted(meter, &keys.finish().items, reverse.is_some_and(|value| value.is_true()))
}

/// The places of the keys in order; equal ones keep theirs.
fn sorted(meter: &Shared, keys: &[Value], reverse: bool) -> Result<Vec<usize>, Error> {
    let _charge = meter.charge(keys.len() * 2 * size_of::<usize>())?;
    super::order::sort(keys.len(), |a, b| {
        let ordering = super::order::compare(meter, &keys[a], &keys[b])?.unwrap_or(Ordering::Equal);
        Ok(if reverse { ordering.reverse() } else { ordering })
    })
}

/// A key to compare by: in small letters, unless case counts.
fn folded(meter: &Shared, value: &Value, case_sensitive: bool) -> Result<Value, Error> {
    match value {
        Value::Text(text) if !case_sensitive => {
            meter.scanned(text.text.len())?;
            let _room = meter.charge(text.text.len().saturating_mul(3))?;
            Value::text(meter, text.text.to_lowercase())
        }
        other => Ok(other.clone()),
    }
}

/// The value that `attribute="a.b.0"` names, in an item.
fn by_path(interpreter: &mut Interpreter<'_>, item: &Value, path: &Value) -> Result<Value, Error> {
    let Value::Text(text) = path else { return super::functions::item(interpreter, item, path) };
    let mut value = item.clone();
    for part in text.text.split('.') {
        interpreter.meter.work(1)?;
        let key = match part.parse::<i128>() {
            Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
            _ => Value::text(&interpreter.meter, part)?,
        };
        if matches!(value, Value::Undefined) {
            return Err(Error::undefined(&shortened(&text.text)));
        }
        value = super::functions::item(interpreter, &value, &key)?;
    }
    Ok(value)
}
