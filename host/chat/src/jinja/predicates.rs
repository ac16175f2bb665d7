//! Jinja2's tests: `value is name(arguments)`.

use std::cmp::Ordering;
use std::rc::Rc;

use super::arguments::{self, Given};
use super::characters;
use super::error::Error;
use super::interpreter::Interpreter;
use super::lexer::shortened;
use super::order;
use super::show;
use super::value::Value;

const NAMES: [&str; 38] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "le",
];

/// Whether a test of this name holds.
pub(super) fn holds(
    interpreter: &Interpreter<'_>,
    name: &str,
    value: &Value,
    given: Given,
) -> Result<bool, Error> {
    let meter = &interpreter.meter;
    meter.work(1)?;
    let whole = || {
        let wrong = || Error::invalid(format!("a value that is {} is no whole number", value.kind()));
        value.as_int().ok_or_else(wrong)
    };
    if let Some(holds) = comparison(interpreter, name, value, &given)? {
        return Ok(holds);
    }
    match name {
        "divisibleby" => {
            let [number] = given.named(name, ["num"])?;
            let number = arguments::optional_int(number, name)?.ok_or_else(|| arguments::missing(name))?;
            if number == 0 {
                return Err(Error::invalid("divisibleby 0"));
            }
            return Ok(whole()?.checked_rem(number).unwrap_or(0) == 0);
        }
        "in" => {
            let [haystack] = given.named(name, ["seq"])?;
            return order::contains(meter, &arguments::required(haystack, name)?, value);
        }
        "sameas" => {
            let [other] = given.named(name, ["other"])?;
            return Ok(is_same(value, &arguments::required(other, name)?));
        }
        _ => given.named::<0>(name, [])?,
    };
    Ok(match name {
        "odd" => whole()?.rem_euclid(2) == 1,
        "even" => whole()?.rem_euclid(2) == 0,
        "defined" => !matches!(value, Value::Undefined),
        "undefined" => matches!(value, Value::Undefined),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        // As in Jinja2: what has a length and items, and what can be gone through.
        "sequence" | "iterable" => {
            matches!(
                value,
                Value::Undefined | Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_)
            )
        }
        "callable" => {
            matches!(value, Value::Macro(_) | Value::Method(_) | Value::Function(_) | Value::Loop(_))
        }
        "escaped" => false,
        "lower" | "upper" => {
            let shown = show::shown(meter, value)?;
            let text = shown.as_text().unwrap_or_default();
            meter.scanned(text.len())?;
            characters::all_cased(text, name == "upper")
        }
        "filter" => value.as_text().is_some_and(super::filters::exists),
        "test" => value.as_text().is_some_and(|name| NAMES.contains(&name) || name == "<="),
        _ => return Err(Error::unknown("unknown test", format!("test {} is unknown", shortened(name)))),
    })
}

/// Tests that compare with an argument.
fn comparison(
    interpreter: &Interpreter<'_>,
    name: &str,
    value: &Value,
    given: &Given,
) -> Result<Option<bool>, Error> {
    let meter = &interpreter.meter;
    let passes: fn(Ordering) -> bool = match name {
        "==" | "eq" | "equalto" | "!=" | "ne" => |_| true,
        ">" | "gt" | "greaterthan" => Ordering::is_gt,
        ">=" | "ge" => Ordering::is_ge,
        "<" | "lt" | "lessthan" => Ordering::is_lt,
        "<=" | "le" => Ordering::is_le,
        _ => return Ok(None),
    };
    let [other] = given.positional.as_slice() else { return Err(arguments::missing(name)) };
    Ok(Some(match name {
        "==" | "eq" | "equalto" => order::equal(meter, value, other)?,
        "!=" | "ne" => !order::equal(meter, value, other)?,
        _ => order::compare(meter, value, other)?.is_some_and(passes),
    }))
}

/// Python's `is`: small values are the same when they are equal.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::None, Value::None) | (Value::Undefined, Value::Undefined) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => Rc::ptr_eq(a, b) || a.text.len() < 32 && a.text == b.text,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Object(a), Value::Object(b)) => a == b,
        _ => false,
    }
}
