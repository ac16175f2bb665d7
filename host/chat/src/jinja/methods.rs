//! Python's methods of strings, lists and dicts: all that change nothing. As in `transformers`, templates can't change
//! a list or a dict.

use std::rc::Rc;

use super::arguments::{self, Given};
use super::error::Error;
use super::functions;
use super::interpreter::Interpreter;
use super::lexer::shortened;
use super::meter::Shared;
use super::order;
use super::strings;
use super::value::{Dict, Items, List, Text, Value};

const OF_LISTS: [&str; 3] = ["copy", "count", "index"];
const OF_DICTS: [&str; 6] = ["copy", "get", "items", "keys", "values", "fromkeys"];
const CHANGING: [&str; 12] = [
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "popitem",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "add",
];

/// Whether a value has a method of this name.
pub(super) fn exists(value: &Value, name: &str) -> bool {
    match value {
        Value::Text(_) => strings::NAMES.contains(&name),
        Value::List(_) | Value::Tuple(_) => OF_LISTS.contains(&name),
        Value::Dict(_) => OF_DICTS.contains(&name),
        _ => false,
    }
}

/// There is no such method.
pub(super) fn unknown(value: &Value, name: &str) -> Error {
    let kind = value.kind();
    let detail = match value {
        Value::List(_) | Value::Dict(_) if CHANGING.contains(&name) => {
            format!("{name} would change a {kind}, which templates can't")
        }
        _ => format!("{kind} has no method named {}", shortened(name)),
    };
    Error::unknown("unknown method", detail)
}

/// `value.name(arguments)`
pub(super) fn call(
    interpreter: &mut Interpreter<'_>,
    value: &Value,
    name: &Rc<Text>,
    given: Given,
) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    if exists(value, &name.text) {
        return match value {
            Value::Text(text) => strings::call(&meter, &text.text, &name.text, given, value),
            Value::List(list) | Value::Tuple(list) => of_list(&meter, value, list, &name.text, given),
            Value::Dict(dict) => of_dict(&meter, dict, &name.text, given),
            _ => Err(unknown(value, &name.text)),
        };
    }
    match value {
        Value::Object(_) | Value::Loop(_) => functions::call_state(interpreter, value, name, given),
        // A macro may be kept in a dict.
        Value::Dict(_) => match functions::attribute(interpreter, value, name)? {
            Value::Undefined => Err(unknown(value, &name.text)),
            callee => interpreter.call_value(&callee, given),
        },
        _ => Err(unknown(value, &name.text)),
    }
}

fn of_list(meter: &Shared, value: &Value, list: &List, name: &str, given: Given) -> Result<Value, Error> {
    if name == "copy" {
        given.named::<0>(name, [])?;
        return Ok(value.clone());
    }
    let [wanted, start, stop] = given.named(name, ["value", "start", "stop"])?;
    let wanted = arguments::required(wanted, name)?;
    let (start, stop) = strings::range_of(start, stop, list.items.len(), name)?;
    let mut count = 0;
    for (place, item) in list.items.iter().enumerate().take(stop).skip(start) {
        if order::equal(meter, item, &wanted)? {
            if name == "index" {
                return Ok(Value::Int(place as i128));
            }
            count += 1;
        }
    }
    if name == "index" {
        return Err(Error::invalid("index: the value is not in the list"));
    }
    Ok(Value::Int(count))
}

fn of_dict(meter: &Shared, dict: &Rc<Dict>, name: &str, given: Given) -> Result<Value, Error> {
    match name {
        "get" => {
            let [key, default] = given.named(name, ["key", "default"])?;
            let found = dict.get(meter, &arguments::required(key, name)?)?;
            Ok(found.cloned().or(default).unwrap_or(Value::None))
        }
        "copy" => {
            given.named::<0>(name, [])?;
            Ok(Value::Dict(dict.clone()))
        }
        "fromkeys" => {
            let [keys, value] = given.named(name, ["iterable", "value"])?;
            let mut made = Dict::new(meter)?;
            for key in &arguments::required(keys, name)?.items(meter)?.items {
                made.insert(meter, key.clone(), value.clone().unwrap_or(Value::None))?;
            }
            Ok(Value::Dict(Rc::new(made)))
        }
        _ => {
            given.named::<0>(name, [])?;
            let mut items = Items::new(meter)?;
            for (key, value) in dict.entries() {
                items.push(match name {
                    "keys" => key.clone(),
                    "values" => value.clone(),
                    _ => Value::tuple(meter, vec![key.clone(), value.clone()])?,
                })?;
            }
            Ok(items.list())
        }
    }
}
