//! Filters of strings. What isn't a string becomes one first, as in Jinja2.

use super::super::arguments::{self, Given};
use super::super::ast::Operator;
use super::super::error::Error;
use super::super::lexer::is_space;
use super::super::meter::Shared;
use super::super::operators;
use super::super::printf;
use super::super::show;
use super::super::strings;
use super::super::value::{Builder, Dict, Value};

pub(super) const NAMES: [&str; 18] = [
    "trim",
    "upper",
    "lower",
    "capitalize",
    "title",
    "replace",
    "indent",
    "center",
    "truncate",
    "wordcount",
    "wordwrap",
    "escape",
    "e",
    "forceescape",
    "striptags",
    "urlencode",
    "format",
    "filesizeformat",
];

pub(super) fn apply(meter: &Shared, name: &str, value: &Value, given: Given) -> Result<Value, Error> {
    let shown = show::shown(meter, value)?;
    let text = shown.as_text().unwrap_or_default();
    meter.scanned(text.len())?;
    match name {
        "trim" => {
            let [chars] = given.named("trim", ["chars"])?;
            strings::strip(meter, text, chars, true, true)
        }
        "center" => strings::padded(meter, text, name, given, Some(80)),
        "upper" | "lower" | "capitalize" => strings::call(meter, text, name, given, &shown),
        "title" => title(meter, text),
        "replace" => {
            let [old, new, count] = given.named("replace", ["old", "new", "count"])?;
            let old = show::shown(meter, &arguments::required(old, "replace")?)?;
            let new = show::shown(meter, &arguments::required(new, "replace")?)?;
            let count = arguments::optional_int(count, "replace")?;
            strings::replace(
                meter,
                text,
                old.as_text().unwrap_or_default(),
                new.as_text().unwrap_or_default(),
                count,
            )
        }
        "indent" => indent(meter, text, given),
        "truncate" => truncate(meter, text, given),
        "wordcount" => {
            let mut count = 0;
            let mut within = false;
            for c in text.chars() {
                let is_word = c.is_alphanumeric() || c == '_';
                count += i128::from(is_word && !within);
                within = is_word;
            }
            Ok(Value::Int(count))
        }
        "wordwrap" => wrap(meter, text, given),
        "escape" | "e" | "forceescape" => escape(meter, text),
        "striptags" => strip_tags(meter, text),
        "urlencode" => url_encode(meter, value, text),
        "format" => {
            let values = if given.named.is_empty() {
                Value::tuple(meter, given.positional)?
            } else {
                let mut dict = Dict::new(meter)?;
                for (name, value) in given.named {
                    dict.insert(meter, Value::Text(name), value)?;
                }
                Value::Dict(std::rc::Rc::new(dict))
            };
            match &values {
                Value::Tuple(list) if list.items.is_empty() => printf::percent(meter, text, &values),
                values => operators::arithmetic(meter, Operator::Remainder, &shown, values),
            }
        }
        _ => file_size(meter, value, given),
    }
}

/// Jinja2's own title case: letters after a space, a hyphen or a bracket are large.
fn title(meter: &Shared, text: &str) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    let mut begins = true;
    for c in text.chars() {
        if begins {
            for c in c.to_uppercase() {
                out.push(c)?;
            }
        } else {
            for c in c.to_lowercase() {
                out.push(c)?;
            }
        }
        begins = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
    }
    out.finish()
}

fn indent(meter: &Shared, text: &str, given: Given) -> Result<Value, Error> {
    let [width, first, blank] = given.named("indent", ["width", "first", "blank"])?;
    let first = first.is_some_and(|value| value.is_true());
    let blank = blank.is_some_and(|value| value.is_true());
    let indentation = match width {
        Some(Value::Text(text)) => Value::Text(text),
        other => {
            let width = arguments::optional_int(other, "indent")?.unwrap_or(4);
            let mut spaces = Builder::new(meter)?;
            spaces.repeat(' ', usize::try_from(width.max(0)).unwrap_or(usize::MAX))?;
            spaces.finish()?
        }
    };
    let indentation = indentation.as_text().unwrap_or_default();
    let mut out = Builder::new(meter)?;
    for (place, line) in strings::lines(text).enumerate() {
        meter.work(1)?;
        if place > 0 {
            out.push('\n')?;
        }
        let indented = if place == 0 { first } else { blank || !line.is_empty() };
        if indented {
            out.push_str(indentation)?;
        }
        out.push_str(line)?;
    }
    // Jinja2 looks at the text with a newline behind it: a text that ends with one has an empty line.
    if text.is_empty() && first {
        out.push_str(indentation)?;
    } else if text.ends_with('\n') {
        out.push('\n')?;
        if blank {
            out.push_str(indentation)?;
        }
    }
    out.finish()
}

fn truncate(meter: &Shared, text: &str, given: Given) -> Result<Value, Error> {
    let [length, kill_words, end, leeway] =
        given.named("truncate", ["length", "killwords", "end", "leeway"])?;
    let length = arguments::optional_int(length, "truncate")?.unwrap_or(255);
    let leeway = arguments::optional_int(leeway, "truncate")?.unwrap_or(5);
    let end = arguments::optional_text(end, "truncate")?;
    let end = end.as_ref().map_or("...", |end| &end.text);
    let (count, end_count) = (text.chars().count() as i128, end.chars().count() as i128);
    if length < end_count || leeway < 0 {
        return Err(Error::invalid("truncate's length is below that of its end"));
    }
    let mut out = Builder::new(meter)?;
    if count <= length.saturating_add(leeway) {
        out.push_str(text)?;
        return out.finish();
    }
    let kept = text.char_indices().nth((length - end_count) as usize).map_or(text.len(), |(place, _)| place);
    let mut kept = &text[..kept];
    if !kill_words.is_some_and(|value| value.is_true()) {
        kept = kept.rsplit_once(' ').map_or(kept, |(before, _)| before);
    }
    out.push_str(kept)?;
    out.push_str(end)?;
    out.finish()
}

/// Lines of at most a width, cut at spaces where there are some.
fn wrap(meter: &Shared, text: &str, given: Given) -> Result<Value, Error> {
    let names = ["width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [width, break_long, with, _] = given.named("wordwrap", names)?;
    let width = arguments::optional_int(width, "wordwrap")?.unwrap_or(79);
    let width = usize::try_from(width).ok().filter(|&width| width > 0);
    let width = width.ok_or_else(|| Error::invalid("wordwrap's width is below 1"))?;
    let break_long = break_long.is_none_or(|value| value.is_true());
    let with = arguments::optional_text(with, "wordwrap")?;
    let with = with.as_ref().map_or("\n", |with| &with.text);
    let mut out = Builder::new(meter)?;
    for (place, line) in strings::lines(text).enumerate() {
        if place > 0 {
            out.push_str(with)?;
        }
        let mut used = 0;
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            meter.work(1)?;
            let length = word.chars().count();
            if used > 0 && used + 1 + length > width {
                out.push_str(with)?;
                used = 0;
            } else if used > 0 {
                out.push(' ')?;
                used += 1;
            }
            for c in word.chars() {
                if break_long && used == width {
                    out.push_str(with)?;
                    used = 0;
                }
                out.push(c)?;
                used += 1;
            }
        }
    }
    out.finish()
}

fn escape(meter: &Shared, text: &str) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;")?,
            '<' => out.push_str("&lt;")?,
            '>' => out.push_str("&gt;")?,
            '\'' => out.push_str("&#39;")?,
            '"' => out.push_str("&#34;")?,
            c => out.push(c)?,
        }
    }
    out.finish()
}

/// The text without tags, and with single spaces.
fn strip_tags(meter: &Shared, text: &str) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    let (mut within, mut space) = (false, false);
    for c in text.chars() {
        match c {
            '<' => within = true,
            '>' if within => within = false,
            _ if within => {}
            c if is_space(c) => space = true,
            c => {
                if space && !out.as_str().is_empty() {
                    out.push(' ')?;
                }
                space = false;
                out.push(c)?;
            }
        }
    }
    out.finish()
}

/// Percent escapes; a dict or pairs become a query.
fn url_encode(meter: &Shared, value: &Value, text: &str) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    let Value::Dict(dict) = value else {
        quote(text, "/", &mut out)?;
        return out.finish();
    };
    for (place, (key, value)) in dict.entries().iter().enumerate() {
        if place > 0 {
            out.push('&')?;
        }
        let (key, value) = (show::shown(meter, key)?, show::shown(meter, value)?);
        quote(key.as_text().unwrap_or_default(), "", &mut out)?;
        out.push('=')?;
        quote(value.as_text().unwrap_or_default(), "", &mut out)?;
    }
    out.finish()
}

fn quote(text: &str, safe: &str, out: &mut Builder) -> Result<(), Error> {
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || safe.contains(c) {
            out.push(c)?;
        } else if c == ' ' && safe.is_empty() {
            // A query's space.
            out.push('+')?;
        } else {
            out.push_str(&format!("%{byte:02X}"))?;
        }
    }
    Ok(())
}

fn file_size(meter: &Shared, value: &Value, given: Given) -> Result<Value, Error> {
    let [binary] = given.named("filesizeformat", ["binary"])?;
    let bytes = match value {
        Value::Text(text) => super::parse_float(&text.text),
        other => other.as_float(),
    };
    let bytes = bytes.ok_or_else(|| super::wrong("filesizeformat", value))?;
    let binary = binary.is_some_and(|value| value.is_true());
    let base = if binary { 1024.0 } else { 1000.0 };
    let names = if binary {
        ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    } else {
        ["kB", "MB", "GB", "TB", "PB", "EB"]
    };
    if bytes == 1.0 {
        return Value::text(meter, "1 Byte");
    }
    if bytes < base {
        return Value::text(meter, format!("{} Bytes", bytes.trunc()));
    }
    let mut size = bytes / base;
    let mut name = 0;
    while size >= base && name + 1 < names.len() {
        size /= base;
        name += 1;
    }
    Value::text(meter, format!("{size:.1} {}", names[name]))
}
