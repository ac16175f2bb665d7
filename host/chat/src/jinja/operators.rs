//! Operators and subscripts, as in Python.

use std::rc::Rc;

use super::ast::Operator;
use super::error::Error;
use super::meter::Shared;
use super::printf;
use super::value::{Builder, Items, List, Text, Value};

/// `a + b` and its kind.
pub(super) fn arithmetic(meter: &Shared, operator: Operator, a: &Value, b: &Value) -> Result<Value, Error> {
    meter.work(1)?;
    match (operator, a, b) {
        (Operator::Add, Value::Text(a), Value::Text(b)) => {
            let mut out = Builder::new(meter)?;
            out.reserve(a.text.len() + b.text.len())?;
            out.push_str(&a.text)?;
            out.push_str(&b.text)?;
            out.finish()
        }
        (Operator::Add, Value::List(a), Value::List(b)) => joined(meter, a, b).map(Value::List),
        (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => joined(meter, a, b).map(Value::Tuple),
        (Operator::Multiply, Value::Text(_) | Value::List(_) | Value::Tuple(_), _)
            if b.as_int().is_some() =>
        {
            repeated(meter, a, b.as_int().unwrap_or(0))
        }
        (Operator::Multiply, _, Value::Text(_) | Value::List(_) | Value::Tuple(_))
            if a.as_int().is_some() =>
        {
            repeated(meter, b, a.as_int().unwrap_or(0))
        }
        (Operator::Remainder, Value::Text(format), _) => printf::percent(meter, &format.text, b),
        _ => numbers(operator, a, b),
    }
}

fn joined(meter: &Shared, a: &List, b: &List) -> Result<Rc<List>, Error> {
    let mut items = Items::new(meter)?;
    items.reserve(a.items.len() + b.items.len())?;
    meter.work((a.items.len() + b.items.len()) as u64 / 4)?;
    items.as_mut().extend_from_slice(&a.items);
    items.as_mut().extend_from_slice(&b.items);
    Ok(items.finish())
}

fn repeated(meter: &Shared, value: &Value, times: i128) -> Result<Value, Error> {
    // More than memory has is refused by the meter.
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Text(text) => {
            let mut out = Builder::new(meter)?;
            out.reserve(text.text.len().saturating_mul(times))?;
            if !text.text.is_empty() {
                meter.work(times as u64)?;
                for _ in 0..times {
                    out.push_str(&text.text)?;
                }
            }
            out.finish()
        }
        Value::List(list) | Value::Tuple(list) => {
            let mut items = Items::new(meter)?;
            items.reserve(list.items.len().saturating_mul(times))?;
            if !list.items.is_empty() {
                meter.work((list.items.len() as u64 / 4 + 1).saturating_mul(times as u64))?;
                for _ in 0..times {
                    items.as_mut().extend_from_slice(&list.items);
                }
            }
            let items = items.finish();
            Ok(if matches!(value, Value::List(_)) { Value::List(items) } else { Value::Tuple(items) })
        }
        _ => Ok(Value::None),
    }
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
    }
}

fn numbers(operator: Operator, a: &Value, b: &Value) -> Result<Value, Error> {
    let too_large = || Error::invalid(format!("the result of {} is too large a number", sign(operator)));
    let zero = || Error::invalid(format!("division by zero with {}", sign(operator)));
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        let result = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Subtract => a.checked_sub(b),
            Operator::Multiply => a.checked_mul(b),
            Operator::Divide if b == 0 => return Err(zero()),
            Operator::Divide => return Ok(Value::Float(a as f64 / b as f64)),
            Operator::FloorDivide | Operator::Remainder if b == 0 => return Err(zero()),
            // Python rounds down; the remainder has the divisor's sign.
            Operator::FloorDivide => a
                .checked_div_euclid(b)
                .map(|quotient| if b < 0 && a.rem_euclid(b) != 0 { quotient - 1 } else { quotient }),
            Operator::Remainder => {
                a.checked_rem_euclid(b).map(|rest| if b < 0 && rest != 0 { rest + b } else { rest })
            }
            Operator::Power if b < 0 && a == 0 => return Err(zero()),
            Operator::Power if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
            Operator::Power if a.abs() <= 1 => {
                // Any power of these is one of these.
                Some(if a == 0 && b > 0 {
                    0
                } else if a == -1 && b % 2 == 1 {
                    -1
                } else {
                    1
                })
            }
            Operator::Power => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
        };
        return result.map(Value::Int).ok_or_else(too_large);
    }
    let (Some(x), Some(y)) = (a.as_float(), b.as_float()) else {
        let (sign, a, b) = (sign(operator), a.kind(), b.kind());
        let message = format!("tried to use {sign} operator on unsupported types {a} and {b}");
        return Err(Error::invalid(message));
    };
    Ok(Value::Float(match operator {
        Operator::Add => x + y,
        Operator::Subtract => x - y,
        Operator::Multiply => x * y,
        Operator::Divide | Operator::FloorDivide | Operator::Remainder if y == 0.0 => return Err(zero()),
        Operator::Divide => x / y,
        Operator::FloorDivide => (x / y).floor(),
        Operator::Remainder => {
            let rest = x % y;
            if rest != 0.0 && (rest < 0.0) != (y < 0.0) { rest + y } else { rest }
        }
        Operator::Power => x.powf(y),
    }))
}

/// `value[index]` of a string, a list or a tuple. What isn't there is undefined.
pub(super) fn element(meter: &Shared, value: &Value, index: i128) -> Result<Value, Error> {
    match value {
        Value::List(list) | Value::Tuple(list) => {
            Ok(place(index, list.items.len()).map_or(Value::Undefined, |place| list.items[place].clone()))
        }
        Value::Text(text) => {
            let Some(place) = place(index, text.length(meter)?) else { return Ok(Value::Undefined) };
            let offset = text.offset(meter, place)?;
            text.text[offset..].chars().next().map_or(Ok(Value::Undefined), |c| Value::character(meter, c))
        }
        _ => Ok(Value::Undefined),
    }
}

fn place(index: i128, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(length as i128)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < length)
}

/// `value[start:stop:step]`
pub(super) fn slice(meter: &Shared, value: &Value, parts: [Option<i128>; 3]) -> Result<Value, Error> {
    let length = value.length(meter)?;
    let step = parts[2].unwrap_or(1);
    if step == 0 {
        return Err(Error::invalid("a slice's step is 0"));
    }
    let (start, stop) = bounds(length as i128, parts[0], parts[1], step);
    let within = if step > 0 { stop - start } else { start - stop };
    let count = if within <= 0 { 0 } else { (within - 1) / step.saturating_abs() + 1 };
    let count = usize::try_from(count).unwrap_or(0);
    let places = (0..count).map(|turn| (start + turn as i128 * step) as usize);
    match value {
        Value::List(list) | Value::Tuple(list) => {
            let mut items = Items::new(meter)?;
            items.reserve(count)?;
            meter.work(count as u64 / 4)?;
            items.as_mut().extend(places.map(|place| list.items[place].clone()));
            let items = items.finish();
            Ok(if matches!(value, Value::List(_)) { Value::List(items) } else { Value::Tuple(items) })
        }
        Value::Text(text) => text_slice(meter, text, step, start, count, places),
        Value::Undefined => Ok(Value::Undefined),
        other => Err(Error::invalid(format!("a value that is {} can't be sliced", other.kind()))),
    }
}

fn text_slice(
    meter: &Shared,
    text: &Text,
    step: i128,
    start: i128,
    count: usize,
    places: impl Iterator<Item = usize>,
) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    if count == 0 {
        return out.finish();
    }
    if step == 1 {
        let begin = text.offset(meter, start as usize)?;
        let end = text.offset(meter, start as usize + count)?;
        out.push_str(&text.text[begin..end])?;
        return out.finish();
    }
    meter.scanned(text.text.len())?;
    // Four bytes for each character, while this goes on.
    let _charge = meter.charge(text.text.len().saturating_mul(4))?;
    let characters: Vec<char> = text.text.chars().collect();
    meter.scanned(count)?;
    for place in places {
        out.push(characters[place])?;
    }
    out.finish()
}

/// A slice's first place and the one behind its last, as Python's `slice.indices`.
fn bounds(length: i128, start: Option<i128>, stop: Option<i128>, step: i128) -> (i128, i128) {
    let (lowest, highest) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let clamped = |index: i128| {
        let index = if index < 0 { index.saturating_add(length) } else { index };
        index.clamp(lowest, highest)
    };
    let first = if step > 0 { lowest } else { highest };
    let last = if step > 0 { highest } else { lowest };
    (start.map_or(first, clamped), stop.map_or(last, clamped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_divide_as_pythons() {
        for (a, b, quotient, rest) in
            [(7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1), (6, -2, -3, 0)]
        {
            let (a, b) = (Value::Int(a), Value::Int(b));
            let of = |operator| numbers(operator, &a, &b).unwrap().as_int().unwrap();
            assert_eq!((of(Operator::FloorDivide), of(Operator::Remainder)), (quotient, rest));
        }
    }
}
