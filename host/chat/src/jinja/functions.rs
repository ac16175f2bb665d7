//! Functions that every template finds, attributes, and the objects that can change.

use std::rc::Rc;

use super::arguments::{self, Given};
use super::error::Error;
use super::evaluate::bound;
use super::interpreter::{Interpreter, Object};
use super::methods;
use super::operators;
use super::show;
use super::value::{Builder, Dict, Items, Text, Value};

/// Characters of an exception's message.
const MAX_MESSAGE: usize = 1000;

/// Calls a function of this name.
pub(super) fn call(
    interpreter: &mut Interpreter<'_>,
    name: &'static str,
    given: Given,
) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    match name {
        "range" => range(interpreter, given),
        "dict" => {
            let mut dict = Dict::new(&meter)?;
            fill(interpreter, &mut dict, given)?;
            Ok(Value::Dict(Rc::new(dict)))
        }
        "namespace" => {
            let mut dict = Dict::new(&meter)?;
            fill(interpreter, &mut dict, given)?;
            object(interpreter, Object::Namespace(dict))
        }
        "cycler" => {
            let items = Value::list(&meter, given.positional)?.items(&meter)?;
            if items.items.is_empty() {
                return Err(arguments::missing("cycler"));
            }
            object(interpreter, Object::Cycler(items, 0))
        }
        "joiner" => {
            let [separator] = given.named("joiner", ["sep"])?;
            let separator = separator.map_or_else(|| Value::text(&meter, ", "), Ok)?;
            object(interpreter, Object::Joiner(separator, false))
        }
        "raise_exception" => {
            let [message] = given.named("raise_exception", ["message"])?;
            let mut out = Builder::new(&meter)?;
            show::show(&meter, &message.unwrap_or(Value::None), &mut out)?;
            let mut message = out.into_string();
            if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
                message.truncate(end);
                message.push_str("...");
            }
            Err(Error::raised(message))
        }
        _ => {
            let [format] = given.named("strftime_now", ["format"])?;
            let format = arguments::text(format, "strftime_now")?;
            meter.scanned(format.text.len())?;
            Value::text(&meter, (interpreter.strftime)(&format.text).map_err(Error::invalid)?)
        }
    }
}

fn range(interpreter: &Interpreter<'_>, given: Given) -> Result<Value, Error> {
    let meter = &interpreter.meter;
    let [first, second, step] = given.named("range", ["start", "stop", "step"])?;
    let first = arguments::optional_int(first, "range")?.ok_or_else(|| arguments::missing("range"))?;
    let (start, stop) = match arguments::optional_int(second, "range")? {
        Some(stop) => (first, stop),
        None => (0, first),
    };
    let step = arguments::optional_int(step, "range")?.unwrap_or(1);
    if step == 0 {
        return Err(Error::invalid("range's step is 0"));
    }
    let mut items = Items::new(meter)?;
    let mut next = start;
    while if step > 0 { next < stop } else { next > stop } {
        items.push(Value::Int(next))?;
        let Some(after) = next.checked_add(step) else { break };
        next = after;
    }
    Ok(items.list())
}

/// Puts a mapping, or pairs, and then the named arguments into a dict.
fn fill(interpreter: &Interpreter<'_>, dict: &mut Dict, given: Given) -> Result<(), Error> {
    let meter = &interpreter.meter;
    for value in &given.positional {
        if let Value::Dict(entries) = value {
            for (key, value) in entries.entries() {
                dict.insert(meter, key.clone(), value.clone())?;
            }
            continue;
        }
        for pair in &value.items(meter)?.items {
            match pair.items(meter)?.items.as_slice() {
                [key, value] => dict.insert(meter, key.clone(), value.clone())?,
                _ => return Err(Error::invalid("an item that should be a key and a value is no pair")),
            }
        }
    }
    for (name, value) in given.named {
        dict.insert(meter, Value::Text(name), value)?;
    }
    Ok(())
}

fn object(interpreter: &mut Interpreter<'_>, object: Object) -> Result<Value, Error> {
    let charge = interpreter.meter.charge(4 * size_of::<Object>())?;
    interpreter.objects.push((object, charge));
    Ok(Value::Object(interpreter.objects.len() - 1))
}

/// Calls a joiner: its separator, except for the first time.
pub(super) fn call_object(interpreter: &mut Interpreter<'_>, number: usize) -> Result<Value, Error> {
    match interpreter.objects.get_mut(number) {
        Some((Object::Joiner(separator, used), _)) => {
            if std::mem::replace(used, true) {
                return Ok(separator.clone());
            }
            Value::text(&interpreter.meter, "")
        }
        _ => Err(Error::invalid("a namespace can't be called")),
    }
}

/// A method of an object or of a loop.
pub(super) fn call_state(
    interpreter: &mut Interpreter<'_>,
    value: &Value,
    name: &Rc<Text>,
    given: Given,
) -> Result<Value, Error> {
    match (value, name.text.as_str()) {
        (Value::Object(number), "next" | "reset") => {
            if let Some((Object::Cycler(items, next), _)) = interpreter.objects.get_mut(*number) {
                if name.text == "reset" {
                    *next = 0;
                    return Ok(Value::None);
                }
                let item = items.items[*next].clone();
                *next = (*next + 1) % items.items.len();
                return Ok(item);
            }
        }
        (Value::Loop(number), "cycle") => {
            let index = running(interpreter, *number)?.index;
            return match given.positional.len() {
                0 => Err(arguments::missing("loop.cycle")),
                length => Ok(given.positional[index % length].clone()),
            };
        }
        (Value::Loop(number), "changed") => {
            let value = Value::tuple(&interpreter.meter, given.positional)?;
            let last = running(interpreter, *number)?.changed.take();
            let same = match &last {
                Some(last) => super::order::equal(&interpreter.meter, last, &value)?,
                None => false,
            };
            running(interpreter, *number)?.changed = Some(value);
            return Ok(Value::Bool(!same));
        }
        _ => {}
    }
    match attribute(interpreter, value, name)? {
        Value::Undefined => Err(methods::unknown(value, &name.text)),
        callee => interpreter.call_value(&callee, given),
    }
}

fn running<'i, 'a>(
    interpreter: &'i mut Interpreter<'a>,
    number: u64,
) -> Result<&'i mut super::interpreter::Loop<'a>, Error> {
    let found = interpreter.loops.iter_mut().rev().find(|running| running.number == number);
    found.ok_or_else(|| Error::invalid("`loop` is used after its loop"))
}

/// `value.name`: as in Jinja2, an attribute or a method before an item.
pub(super) fn attribute(
    interpreter: &mut Interpreter<'_>,
    value: &Value,
    name: &Rc<Text>,
) -> Result<Value, Error> {
    match value {
        Value::Text(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_)
            if methods::exists(value, &name.text) =>
        {
            bound(interpreter, value, name)
        }
        Value::Dict(dict) => {
            let found = dict.get(&interpreter.meter, &Value::Text(name.clone()))?;
            Ok(found.cloned().unwrap_or(Value::Undefined))
        }
        Value::Object(number) => match interpreter.objects.get(*number) {
            Some((Object::Namespace(attributes), _)) => {
                let found = attributes.get(&interpreter.meter, &Value::Text(name.clone()))?;
                Ok(found.cloned().unwrap_or(Value::Undefined))
            }
            Some((Object::Cycler(items, next), _)) if name.text == "current" => {
                Ok(items.items[*next].clone())
            }
            _ => Ok(Value::Undefined),
        },
        Value::Loop(number) => {
            let running = running(interpreter, *number)?;
            let (index, length) = (running.index, running.items.items.len());
            let number = |number: usize| Ok(Value::Int(number as i128));
            let neighbour = |place: Option<usize>| {
                let item = place.and_then(|place| running.items.items.get(place));
                Ok(item.cloned().unwrap_or(Value::Undefined))
            };
            match name.text.as_str() {
                "index" => number(index + 1),
                "index0" => number(index),
                "revindex" => number(length - index),
                "revindex0" => number(length - index - 1),
                "first" => Ok(Value::Bool(index == 0)),
                "last" => Ok(Value::Bool(index + 1 == length)),
                "length" => number(length),
                "depth" => number(running.depth),
                "depth0" => number(running.depth - 1),
                "previtem" => neighbour(index.checked_sub(1)),
                "nextitem" => neighbour(Some(index + 1)),
                _ => Ok(Value::Undefined),
            }
        }
        Value::Macro(callee) if name.text == "name" => {
            let symbol = interpreter.program.macros[callee.index].name;
            Ok(Value::Text(interpreter.texts[symbol as usize].clone()))
        }
        _ => Ok(Value::Undefined),
    }
}

/// `value[key]`: an item before an attribute.
pub(super) fn item(interpreter: &mut Interpreter<'_>, value: &Value, key: &Value) -> Result<Value, Error> {
    if let Value::Dict(dict) = value
        && let Some(found) = dict.get(&interpreter.meter, key)?
    {
        return Ok(found.clone());
    }
    match (value, key) {
        (Value::Text(_) | Value::List(_) | Value::Tuple(_), key) if key.as_int().is_some() => {
            operators::element(&interpreter.meter, value, key.as_int().unwrap_or(0))
        }
        (_, Value::Text(name)) => attribute(interpreter, value, name),
        _ => Ok(Value::Undefined),
    }
}
