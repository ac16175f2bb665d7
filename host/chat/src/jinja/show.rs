//! Values as text: Python's `str` and `repr`.

use unicode_general_category::{GeneralCategory, get_general_category};

use super::error::Error;
use super::meter::Shared;
use super::value::{Builder, Value};

/// `str(value)`
pub(super) fn show(meter: &Shared, value: &Value, out: &mut Builder) -> Result<(), Error> {
    match value {
        Value::Text(text) => out.push_str(&text.text),
        Value::Undefined => Ok(()),
        other => represent(meter, other, out),
    }
}

/// `str(value)` as a value: a text stays itself.
pub(super) fn shown(meter: &Shared, value: &Value) -> Result<Value, Error> {
    if let Value::Text(_) = value {
        return Ok(value.clone());
    }
    let mut out = Builder::new(meter)?;
    show(meter, value, &mut out)?;
    out.finish()
}

/// `repr(value)`
pub(super) fn represent(meter: &Shared, value: &Value, out: &mut Builder) -> Result<(), Error> {
    meter.work(1)?;
    match value {
        Value::Undefined => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Text(text) => quoted(meter, &text.text, out),
        Value::List(list) => {
            out.push('[')?;
            sequence(meter, &list.items, out)?;
            out.push(']')
        }
        Value::Tuple(list) => {
            out.push('(')?;
            sequence(meter, &list.items, out)?;
            out.push_str(if list.items.len() == 1 { ",)" } else { ")" })
        }
        Value::Dict(dict) => {
            out.push('{')?;
            meter.enter()?;
            for (place, (key, value)) in dict.entries().iter().enumerate() {
                if place > 0 {
                    out.push_str(", ")?;
                }
                represent(meter, key, out)?;
                out.push_str(": ")?;
                represent(meter, value, out)?;
            }
            meter.leave();
            out.push('}')
        }
        Value::Object(_) => out.push_str("<Namespace>"),
        Value::Loop(_) => out.push_str("<LoopContext>"),
        Value::Macro(_) => out.push_str("<Macro>"),
        Value::Method(method) => {
            out.push_str("<method ")?;
            out.push_str(&method.name.text)?;
            out.push('>')
        }
        Value::Function(name) => {
            out.push_str("<function ")?;
            out.push_str(name)?;
            out.push('>')
        }
    }
}

fn sequence(meter: &Shared, items: &[Value], out: &mut Builder) -> Result<(), Error> {
    meter.enter()?;
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push_str(", ")?;
        }
        represent(meter, item, out)?;
    }
    meter.leave();
    Ok(())
}

/// A string in Python's quotes.
fn quoted(meter: &Shared, text: &str, out: &mut Builder) -> Result<(), Error> {
    meter.scanned(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote)?;
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n")?,
            '\r' => out.push_str("\\r")?,
            '\t' => out.push_str("\\t")?,
            '\\' => out.push_str("\\\\")?,
            c if c == quote => {
                out.push('\\')?;
                out.push(c)?;
            }
            c if is_printable(c) => out.push(c)?,
            c => {
                let code = c as u32;
                out.push_str(&match code {
                    0..0x100 => format!("\\x{code:02x}"),
                    0x100..0x1_0000 => format!("\\u{code:04x}"),
                    _ => format!("\\U{code:08x}"),
                })?;
            }
        }
    }
    out.push(quote)
}

/// Python's `str.isprintable`.
pub(super) fn is_printable(c: char) -> bool {
    use GeneralCategory as Category;
    c == ' '
        || !matches!(
            get_general_category(c),
            Category::Control
                | Category::Format
                | Category::Surrogate
                | Category::PrivateUse
                | Category::Unassigned
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::SpaceSeparator
        )
}

/// Python's `repr` of a float: it always shows that it is one, with an exponent below 1e-4 and from 1e16.
pub(super) fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    // Both languages write the shortest digits that read back as the same number.
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        if plain.contains('.') { plain } else { plain + ".0" }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    }
}
