//! The filter `tojson`, with the text of Python's `json.dumps`: models were trained on its very spaces.

use super::arguments::Given;
use super::error::Error;
use super::meter::Shared;
use super::order;
use super::show;
use super::value::{Builder, Value};

/// Lists in lists that are written; a template can build deeper ones, and each costs stack.
const MAX_DEPTH: usize = 64;
/// Spaces of an indentation step.
const MAX_INDENT: i128 = 16;

/// `value | tojson(indent=none, ensure_ascii=false, separators=none, sort_keys=false)`. Nothing is escaped for HTML.
pub(super) fn tojson(meter: &Shared, value: &Value, given: Given) -> Result<Value, Error> {
    let names = ["indent", "ensure_ascii", "separators", "sort_keys"];
    let [indent, ensure_ascii, separators, sort_keys] = given.named("tojson", names)?;
    let present =
        |value: Option<Value>| value.filter(|value| !matches!(value, Value::None | Value::Undefined));
    let indent = match present(indent) {
        Some(Value::Text(text)) => Some(text.text.clone()),
        Some(indent) => {
            let spaces =
                indent.as_int().filter(|spaces| (0..=MAX_INDENT).contains(spaces)).ok_or_else(|| {
                    Error::invalid(format!("tojson's indent is not none or a number up to {MAX_INDENT}"))
                })?;
            Some(" ".repeat(spaces as usize))
        }
        None => None,
    };
    let (item, key) = match present(separators) {
        Some(pair) => separators_of(meter, &pair)?,
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let mut writer = Writer {
        meter,
        out: Builder::new(meter)?,
        indent,
        item,
        key,
        ensure_ascii: ensure_ascii.is_some_and(|value| value.is_true()),
        sort_keys: sort_keys.is_some_and(|value| value.is_true()),
    };
    writer.value(value, 0)?;
    writer.out.finish()
}

/// Between items, and between a key and its value.
fn separators_of(meter: &Shared, pair: &Value) -> Result<(String, String), Error> {
    let pair = pair.items(meter)?;
    match pair.items.as_slice() {
        [Value::Text(item), Value::Text(key)] if item.text.len() <= 16 && key.text.len() <= 16 => {
            Ok((item.text.clone(), key.text.clone()))
        }
        _ => Err(Error::invalid("tojson's separators are not two short strings")),
    }
}

struct Writer<'a> {
    meter: &'a Shared,
    out: Builder,
    indent: Option<String>,
    /// Between items.
    item: String,
    /// Between a key and its value.
    key: String,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.meter.work(1)?;
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("tojson's value is nested more than {MAX_DEPTH} deep")));
        }
        match value {
            Value::None => self.out.push_str("null"),
            Value::Bool(value) => self.out.push_str(if *value { "true" } else { "false" }),
            Value::Int(_) | Value::Float(_) => {
                let number = number(value);
                self.out.push_str(&number)
            }
            Value::Text(text) => self.string(&text.text),
            Value::List(list) | Value::Tuple(list) => self.list(&list.items, depth),
            Value::Dict(dict) => self.map(dict.entries(), depth),
            other => Err(Error::invalid(format!("tojson has no text for a value that is {}", other.kind()))),
        }
    }

    fn list(&mut self, items: &[Value], depth: usize) -> Result<(), Error> {
        self.out.push('[')?;
        for (place, item) in items.iter().enumerate() {
            self.next_item(place, depth + 1)?;
            self.value(item, depth + 1)?;
        }
        self.close(']', items.is_empty(), depth)
    }

    fn map(&mut self, entries: &[(Value, Value)], depth: usize) -> Result<(), Error> {
        let places = if self.sort_keys {
            let compare = |a: usize, b: usize| {
                let ordering = order::compare(self.meter, &entries[a].0, &entries[b].0)?;
                Ok(ordering.unwrap_or(std::cmp::Ordering::Equal))
            };
            order::sort(entries.len(), compare)?
        } else {
            (0..entries.len()).collect()
        };
        self.out.push('{')?;
        for (count, place) in places.into_iter().enumerate() {
            self.next_item(count, depth + 1)?;
            let (key, value) = &entries[place];
            match key {
                Value::Text(text) => self.string(&text.text)?,
                Value::None => self.out.push_str("\"null\"")?,
                Value::Bool(key) => self.out.push_str(if *key { "\"true\"" } else { "\"false\"" })?,
                Value::Int(_) | Value::Float(_) => self.string(&number(key))?,
                other => {
                    return Err(Error::invalid(format!(
                        "tojson has no text for a key that is {}",
                        other.kind()
                    )));
                }
            }
            let separator = self.key.clone();
            self.out.push_str(&separator)?;
            self.value(value, depth + 1)?;
        }
        self.close('}', entries.is_empty(), depth)
    }

    fn next_item(&mut self, place: usize, depth: usize) -> Result<(), Error> {
        if place > 0 {
            self.out.push_str(&self.item)?;
        }
        self.new_line(depth)
    }

    fn close(&mut self, bracket: char, empty: bool, depth: usize) -> Result<(), Error> {
        if !empty {
            self.new_line(depth)?;
        }
        self.out.push(bracket)
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        if let Some(indent) = &self.indent {
            self.out.push('\n')?;
            for _ in 0..depth {
                self.out.push_str(indent)?;
            }
        }
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.meter.scanned(text.len())?;
        self.out.push('"')?;
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\"")?,
                '\\' => self.out.push_str("\\\\")?,
                '\n' => self.out.push_str("\\n")?,
                '\r' => self.out.push_str("\\r")?,
                '\t' => self.out.push_str("\\t")?,
                '\u{8}' => self.out.push_str("\\b")?,
                '\u{c}' => self.out.push_str("\\f")?,
                c if c < ' ' || (self.ensure_ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"))?;
                    }
                }
                c => self.out.push(c)?,
            }
        }
        self.out.push('"')
    }
}

/// A number as Python's `json` writes it.
fn number(value: &Value) -> String {
    match value {
        Value::Float(value) if value.is_nan() => "NaN".to_owned(),
        Value::Float(value) if value.is_infinite() => {
            if *value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
        }
        Value::Float(value) => show::float(*value),
        other => other.as_int().unwrap_or(0).to_string(),
    }
}
