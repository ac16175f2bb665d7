//! Python's methods of strings.

use super::arguments::{self, Given, optional_int, optional_text};
use super::characters;
use super::error::Error;
use super::lexer::is_space;
use super::meter::Shared;
use super::printf;
use super::value::{Builder, Items, Value};

pub(super) const NAMES: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

/// Calls a method of a string. `value` is that string.
pub(super) fn call(
    meter: &Shared,
    text: &str,
    name: &str,
    given: Given,
    value: &Value,
) -> Result<Value, Error> {
    meter.scanned(text.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = given.named(name, ["chars"])?;
            strip(meter, text, chars, name != "rstrip", name != "lstrip")
        }
        "upper" | "lower" | "casefold" | "capitalize" | "swapcase" | "title" => {
            given.named::<0>(name, [])?;
            characters::cased(meter, text, name)
        }
        "split" | "rsplit" => split(meter, text, name == "rsplit", given),
        "splitlines" => {
            let [keep] = given.named(name, ["keepends"])?;
            let keep = keep.is_some_and(|value| value.is_true());
            let mut items = Items::new(meter)?;
            for line in lines_with_ends(text) {
                items.push(Value::text(meter, if keep { line } else { without_end(line) })?)?;
            }
            Ok(items.list())
        }
        "replace" => {
            let [old, new, count] = given.named(name, ["old", "new", "count"])?;
            let (old, new) = (arguments::text(old, name)?, arguments::text(new, name)?);
            replace(meter, text, &old.text, &new.text, optional_int(count, name)?)
        }
        "startswith" | "endswith" => affix(meter, text, name == "endswith", given),
        "removeprefix" | "removesuffix" => {
            let [affix] = given.named(name, ["affix"])?;
            let affix = arguments::text(affix, name)?;
            let rest = match name {
                "removeprefix" => text.strip_prefix(affix.text.as_str()),
                _ => text.strip_suffix(affix.text.as_str()),
            };
            rest.map_or(Ok(value.clone()), |rest| part(meter, rest))
        }
        "find" | "index" | "rfind" | "rindex" | "count" => search(meter, text, name, given),
        "join" => {
            let [items] = given.named(name, ["iterable"])?;
            join(meter, text, &arguments::required(items, name)?)
        }
        "partition" | "rpartition" => partition(meter, text, name, given),
        "format" => printf::format(meter, text, &given),
        "format_map" => {
            let [map] = given.named(name, ["mapping"])?;
            let mut named = Given::default();
            if let Some(Value::Dict(dict)) = map {
                for (key, value) in dict.entries() {
                    meter.work(1)?;
                    if let Value::Text(key) = key {
                        named.named.push((key.clone(), value.clone()));
                    }
                }
            }
            printf::format(meter, text, &named)
        }
        "center" | "ljust" | "rjust" | "zfill" => padded(meter, text, name, given, None),
        "expandtabs" => expand_tabs(meter, text, given),
        _ => {
            given.named::<0>(name, [])?;
            Ok(Value::Bool(characters::is(text, name)))
        }
    }
}

/// A part of a string as a value.
fn part(meter: &Shared, text: &str) -> Result<Value, Error> {
    meter.copied(text.len())?;
    Value::text(meter, text)
}

/// The text without white space, or other characters, at its ends.
pub(super) fn strip(
    meter: &Shared,
    text: &str,
    chars: Option<Value>,
    left: bool,
    right: bool,
) -> Result<Value, Error> {
    let chars = optional_text(chars, "strip")?;
    let mut rest = text;
    if let Some(chars) = &chars {
        let dropped = |c: char| chars.text.contains(c);
        if left {
            let stripped = bounded(meter, rest.chars(), chars.text.len(), &dropped)?;
            rest = &rest[stripped..];
        }
        if right {
            let stripped = bounded(meter, rest.chars().rev(), chars.text.len(), &dropped)?;
            rest = &rest[..rest.len() - stripped];
        }
        return part(meter, rest);
    }
    if left {
        rest = rest.trim_start_matches(is_space);
    }
    if right {
        rest = rest.trim_end_matches(is_space);
    }
    part(meter, rest)
}

/// Bytes of the characters at the begin that are dropped. Each is looked for among `cost` bytes.
fn bounded(
    meter: &Shared,
    chars: impl Iterator<Item = char>,
    cost: usize,
    dropped: &dyn Fn(char) -> bool,
) -> Result<usize, Error> {
    let mut bytes = 0;
    for c in chars {
        meter.scanned(cost)?;
        if !dropped(c) {
            break;
        }
        bytes += c.len_utf8();
    }
    Ok(bytes)
}

fn split(meter: &Shared, text: &str, from_right: bool, given: Given) -> Result<Value, Error> {
    let [separator, most] = given.named("split", ["sep", "maxsplit"])?;
    let most = optional_int(most, "split")?.unwrap_or(-1);
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut items = Items::new(meter)?;
    let mut rest = text;
    let separator = optional_text(separator, "split")?;
    if separator.as_ref().is_some_and(|separator| separator.text.is_empty()) {
        return Err(Error::invalid("split's separator is empty"));
    }
    loop {
        if separator.is_none() {
            rest =
                if from_right { rest.trim_end_matches(is_space) } else { rest.trim_start_matches(is_space) };
            if rest.is_empty() {
                break;
            }
        }
        let cut = match &separator {
            _ if items.as_mut().len() == most => None,
            Some(separator) if from_right => rest.rsplit_once(separator.text.as_str()),
            Some(separator) => rest.split_once(separator.text.as_str()),
            None if from_right => rest.rsplit_once(is_space),
            None => rest.split_once(is_space),
        };
        let Some((before, after)) = cut else {
            let last = match (&separator, from_right) {
                (Some(_), _) => rest,
                (None, true) => rest.trim_end_matches(is_space),
                (None, false) => rest.trim_start_matches(is_space),
            };
            items.push(part(meter, last)?)?;
            break;
        };
        let (piece, others) = if from_right { (after, before) } else { (before, after) };
        items.push(part(meter, piece)?)?;
        rest = others;
    }
    if from_right {
        items.as_mut().reverse();
    }
    Ok(items.list())
}

/// Python's line ends.
fn is_line_end(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Lines with their ends.
fn lines_with_ends(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.char_indices().find(|&(_, c)| is_line_end(c));
        let length = match end {
            None => rest.len(),
            Some((place, '\r')) if rest[place..].starts_with("\r\n") => place + 2,
            Some((place, c)) => place + c.len_utf8(),
        };
        let (line, others) = rest.split_at(length);
        rest = others;
        Some(line)
    })
}

fn without_end(line: &str) -> &str {
    match line.strip_suffix("\r\n") {
        Some(line) => line,
        None => line.strip_suffix(is_line_end).unwrap_or(line),
    }
}

/// Lines without their ends.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    lines_with_ends(text).map(without_end)
}

pub(super) fn replace(
    meter: &Shared,
    text: &str,
    old: &str,
    new: &str,
    count: Option<i128>,
) -> Result<Value, Error> {
    let most = usize::try_from(count.unwrap_or(-1)).unwrap_or(usize::MAX);
    let mut out = Builder::new(meter)?;
    let mut end = 0;
    for (place, _) in text.match_indices(old).take(most) {
        meter.work(1)?;
        out.push_str(&text[end..place])?;
        out.push_str(new)?;
        end = place + old.len();
    }
    out.push_str(&text[end..])?;
    out.finish()
}

fn affix(meter: &Shared, text: &str, at_end: bool, given: Given) -> Result<Value, Error> {
    let [affix, start, stop] = given.named("startswith", ["prefix", "start", "end"])?;
    let affix = arguments::required(affix, "startswith")?;
    let Some((text, _)) = within(text, start, stop, "startswith")? else {
        return Ok(Value::Bool(false));
    };
    let matches = |affix: &Value| {
        meter.work(1)?;
        let Some(affix) = affix.as_text() else {
            return Err(Error::invalid("startswith and endswith expect a string or a tuple of strings"));
        };
        meter.copied(affix.len().min(text.len()))?;
        Ok(if at_end { text.ends_with(affix) } else { text.starts_with(affix) })
    };
    if let Value::Tuple(list) = &affix {
        for affix in &list.items {
            if matches(affix)? {
                return Ok(Value::Bool(true));
            }
        }
        return Ok(Value::Bool(false));
    }
    Ok(Value::Bool(matches(&affix)?))
}

/// The places that a start and a stop mean.
pub(super) fn range_of(
    start: Option<Value>,
    stop: Option<Value>,
    length: usize,
    name: &str,
) -> Result<(usize, usize), Error> {
    let length = length as i128;
    let place = |value: Option<Value>, default: i128| {
        let index = optional_int(value, name)?.unwrap_or(default);
        let index = if index < 0 { index.saturating_add(length) } else { index };
        Ok(index.clamp(0, length) as usize)
    };
    Ok((place(start, 0)?, place(stop, length)?))
}

/// A part of a text by its characters, and the place where it begins; `None` where that is after the end, so that not even an
/// empty text is there.
fn within<'t>(
    text: &'t str,
    start: Option<Value>,
    stop: Option<Value>,
    name: &str,
) -> Result<Option<(&'t str, usize)>, Error> {
    if start.is_none() && stop.is_none() {
        return Ok(Some((text, 0)));
    }
    let length = text.chars().count();
    let is_past = optional_int(start.clone(), name)?.is_some_and(|start| start > length as i128);
    let (start, stop) = range_of(start, stop, length, name)?;
    if is_past || start > stop {
        return Ok(None);
    }
    let offset = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(offset, _)| offset);
    Ok(Some((&text[offset(start)..offset(stop)], start)))
}

fn search(meter: &Shared, text: &str, name: &str, given: Given) -> Result<Value, Error> {
    let [part, start, stop] = given.named(name, ["sub", "start", "end"])?;
    let part = arguments::text(part, name)?;
    let part_of = within(text, start, stop, name)?;
    let missing = || match name {
        "count" => Ok(Value::Int(0)),
        _ if name.ends_with("find") => Ok(Value::Int(-1)),
        _ => Err(Error::invalid(format!("{name}: the string is not found"))),
    };
    let Some((text, from)) = part_of else { return missing() };
    if name == "count" {
        let count =
            if part.text.is_empty() { text.chars().count() + 1 } else { text.matches(&part.text).count() };
        return Ok(Value::Int(count as i128));
    }
    let found = if name.starts_with('r') { text.rfind(&part.text) } else { text.find(&part.text) };
    meter.work(1)?;
    match found {
        Some(offset) => Ok(Value::Int((from + text[..offset].chars().count()) as i128)),
        None => missing(),
    }
}

fn join(meter: &Shared, separator: &str, items: &Value) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    for (place, item) in items.items(meter)?.items.iter().enumerate() {
        meter.work(1)?;
        if place > 0 {
            out.push_str(separator)?;
        }
        let Some(item) = item.as_text() else {
            return Err(Error::invalid(format!("join: item {place} is {}, expected a string", item.kind())));
        };
        out.push_str(item)?;
    }
    out.finish()
}

fn partition(meter: &Shared, text: &str, name: &str, given: Given) -> Result<Value, Error> {
    let [separator] = given.named(name, ["sep"])?;
    let separator = arguments::text(separator, name)?;
    if separator.text.is_empty() {
        return Err(Error::invalid(format!("{name}'s separator is empty")));
    }
    let cut = match name {
        "partition" => text.split_once(separator.text.as_str()),
        _ => text.rsplit_once(separator.text.as_str()),
    };
    let parts = match (cut, name) {
        (Some((before, after)), _) => [before, separator.text.as_str(), after],
        (None, "partition") => [text, "", ""],
        (None, _) => ["", "", text],
    };
    let mut items = Vec::with_capacity(3);
    for piece in parts {
        items.push(part(meter, piece)?);
    }
    Value::tuple(meter, items)
}

/// A text with fill characters up to a width, which may be left out where there is a usual one.
pub(super) fn padded(
    meter: &Shared,
    text: &str,
    name: &str,
    given: Given,
    usual: Option<i128>,
) -> Result<Value, Error> {
    let [width, fill] = given.named(name, ["width", "fillchar"])?;
    let width = match optional_int(width, name)?.or(usual) {
        Some(width) => usize::try_from(width.max(0)).unwrap_or(usize::MAX),
        None => return Err(arguments::missing(name)),
    };
    let fill = optional_text(fill, name)?;
    let fill = match &fill {
        None if name == "zfill" => '0',
        None => ' ',
        Some(fill) => {
            let mut characters = fill.text.chars();
            match (characters.next(), characters.next()) {
                (Some(one), None) => one,
                _ => return Err(Error::invalid(format!("{name} fills with one character"))),
            }
        }
    };
    let count = text.chars().count();
    let padding = width.saturating_sub(count);
    let mut out = Builder::new(meter)?;
    let (sign, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) if name == "zfill" => text.split_at(text.len() - digits.len()),
        _ => ("", text),
    };
    let left = match name {
        "ljust" => 0,
        // CPython's own rounding.
        "center" => padding / 2 + (padding & width & 1),
        _ => padding,
    };
    out.push_str(sign)?;
    out.repeat(fill, left)?;
    out.push_str(digits)?;
    out.repeat(fill, padding - left)?;
    out.finish()
}

fn expand_tabs(meter: &Shared, text: &str, given: Given) -> Result<Value, Error> {
    let [size] = given.named("expandtabs", ["tabsize"])?;
    let size = usize::try_from(optional_int(size, "expandtabs")?.unwrap_or(8).max(0)).unwrap_or(usize::MAX);
    let mut out = Builder::new(meter)?;
    let mut column = 0usize;
    for c in text.chars() {
        match c {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                out.repeat(' ', spaces)?;
                column = column.saturating_add(spaces);
            }
            c => {
                out.push(c)?;
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    out.finish()
}
