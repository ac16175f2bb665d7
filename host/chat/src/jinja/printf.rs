//! Python's two ways to format: `'%s' % value` and `'{}'.format(value)`.

use super::arguments::Given;
use super::error::Error;
use super::meter::Shared;
use super::show;
use super::value::{Builder, Value};

/// Digits behind a point that may be asked for.
const MAX_PRECISION: usize = 1000;

/// How a value is written.
#[derive(Clone, Debug, Default)]
struct Format {
    fill: Option<char>,
    /// `<`, `>`, `^` or `=`.
    align: Option<char>,
    /// `+` or a space.
    sign: Option<char>,
    alternate: bool,
    width: usize,
    /// `,` or `_` between thousands.
    group: Option<char>,
    precision: Option<usize>,
    kind: Option<char>,
}

/// `format % values`
pub(super) fn percent(meter: &Shared, format: &str, values: &Value) -> Result<Value, Error> {
    meter.scanned(format.len())?;
    let mut out = Builder::new(meter)?;
    let single = [values.clone()];
    let mut rest = match values {
        Value::Tuple(list) => list.items.iter(),
        _ => single.iter(),
    };
    let too_few = || Error::invalid("a string to format has more fields than values");
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c)?;
            continue;
        }
        meter.work(1)?;
        let mut named = None;
        if chars.next_if_eq(&'(').is_some() {
            let name: String = chars.by_ref().take_while(|&c| c != ')').collect();
            let Value::Dict(dict) = values else {
                return Err(Error::invalid("a string to format has names, and its values are no dict"));
            };
            let found = dict.get(meter, &Value::text(meter, name.as_str())?)?;
            named = Some(found.cloned().ok_or_else(|| {
                Error::invalid(format!(
                    "a string to format names {}, which is missing",
                    super::lexer::shortened(&name)
                ))
            })?);
        }
        let mut spec = Format::default();
        while let Some(flag) = chars.next_if(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '#' => spec.alternate = true,
                '0' => spec.fill = Some('0'),
                '+' => spec.sign = Some('+'),
                _ => spec.sign = spec.sign.or(Some(' ')),
            }
        }
        let mut number =
            |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| -> Result<Option<usize>, Error> {
                if chars.next_if_eq(&'*').is_some() {
                    let value = rest.next().ok_or_else(too_few)?.as_int();
                    return Ok(Some(value.and_then(|value| usize::try_from(value).ok()).unwrap_or(0)));
                }
                digits(chars)
            };
        spec.width = number(&mut chars)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            spec.precision = Some(number(&mut chars)?.unwrap_or(0));
        }
        while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
        let Some(kind) = chars.next() else {
            return Err(Error::invalid("a string to format ends within a field"));
        };
        if kind == '%' {
            out.push('%')?;
            continue;
        }
        let value = match named {
            Some(value) => value,
            None => rest.next().ok_or_else(too_few)?.clone(),
        };
        field(meter, &mut out, &value, spec, kind)?;
    }
    if !matches!(values, Value::Dict(_)) && rest.next().is_some() {
        return Err(Error::invalid("a string to format has fewer fields than values"));
    }
    out.finish()
}

/// One field of `%`.
fn field(
    meter: &Shared,
    out: &mut Builder,
    value: &Value,
    mut spec: Format,
    kind: char,
) -> Result<(), Error> {
    if spec.align == Some('<') {
        spec.fill = None;
    } else if spec.fill == Some('0') {
        spec.align = Some('=');
    } else {
        spec.align = Some('>');
    }
    spec.kind = Some(match kind {
        'i' | 'u' => 'd',
        'F' => 'f',
        other => other,
    });
    match kind {
        's' | 'r' | 'a' => {
            let mut text = Builder::new(meter)?;
            if kind == 's' {
                show::show(meter, value, &mut text)?
            } else {
                show::represent(meter, value, &mut text)?
            }
            spec.kind = None;
            if spec.align == Some('=') {
                spec.align = Some('>');
                spec.fill = None;
            }
            write_text(meter, out, text.as_str(), &spec)
        }
        'c' => {
            let text = match value {
                Value::Text(text) => text.text.chars().next(),
                other => other.as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32),
            };
            let text = text.ok_or_else(|| Error::invalid("%c expects a character or its code"))?;
            write_text(meter, out, &text.to_string(), &Format { precision: None, ..spec })
        }
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' => {
            let whole = value.as_int().or_else(|| value.as_float().map(|value| value.trunc() as i128));
            let whole = whole.ok_or_else(|| wrong_type(kind, value))?;
            write_int(meter, out, whole, &Format { precision: None, ..spec })
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let number = value.as_float().ok_or_else(|| wrong_type(kind, value))?;
            write_float(meter, out, number, &spec)
        }
        other => Err(Error::invalid(format!("a string to format has a field of unknown type {other:?}"))),
    }
}

fn wrong_type(kind: char, value: &Value) -> Error {
    Error::invalid(format!("a field of type {kind} got a value that is {}, expected a number", value.kind()))
}

/// A number's digits.
fn digits(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, Error> {
    let mut number = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        let value: usize = number.unwrap_or(0);
        let value = value.checked_mul(10).and_then(|value| value.checked_add(digit as usize));
        number = Some(value.ok_or_else(|| Error::invalid("a number in a string to format is too large"))?);
    }
    Ok(number)
}

/// `format.format(values)`
pub(super) fn format(meter: &Shared, format: &str, given: &Given) -> Result<Value, Error> {
    let mut out = Builder::new(meter)?;
    let mut next = 0;
    fill(meter, format, given, &mut next, &mut out, true)?;
    out.finish()
}

fn fill(
    meter: &Shared,
    format: &str,
    given: &Given,
    next: &mut usize,
    out: &mut Builder,
    outer: bool,
) -> Result<(), Error> {
    meter.scanned(format.len())?;
    let mut rest = format;
    while let Some(place) = rest.find(['{', '}']) {
        meter.work(1)?;
        out.push_str(&rest[..place])?;
        let brace = &rest[place..=place];
        rest = &rest[place + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace)?;
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(Error::invalid("a string to format has a single `}`"));
        }
        // A field may have fields in its format, one deep.
        let mut depth = 1;
        let end = rest.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let Some(end) = end else { return Err(Error::invalid("a string to format ends within a field")) };
        let field = &rest[..end];
        rest = &rest[end + 1..];
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        let (name, conversion) = match name.split_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (name, None),
        };
        let value = lookup(meter, name, given, next)?;
        let spec = if spec.contains('{') && outer {
            let mut filled = Builder::new(meter)?;
            fill(meter, spec, given, next, &mut filled, false)?;
            parse_spec(filled.as_str())?
        } else {
            parse_spec(spec)?
        };
        formatted(meter, out, &value, conversion, &spec)?;
    }
    out.push_str(rest)
}

/// The value that a field names: `0`, `name`, `0.attribute`, `name[key]`, or nothing for the next.
fn lookup(meter: &Shared, name: &str, given: &Given, next: &mut usize) -> Result<Value, Error> {
    let missing = || {
        Error::invalid(format!(
            "a string to format names {:?}, which is missing",
            super::lexer::shortened(name)
        ))
    };
    let end = name.find(['.', '[']).unwrap_or(name.len());
    let (first, mut path) = name.split_at(end);
    let mut value = if first.is_empty() {
        *next += 1;
        given.positional.get(*next - 1).cloned()
    } else if let Ok(place) = first.parse::<usize>() {
        given.positional.get(place).cloned()
    } else {
        given.named.iter().find(|(name, _)| name.text == first).map(|(_, value)| value.clone())
    }
    .ok_or_else(missing)?;
    while !path.is_empty() {
        meter.work(1)?;
        let (key, after) = if let Some(inner) = path.strip_prefix('[') {
            inner.split_once(']').ok_or_else(missing)?
        } else {
            let inner = path.strip_prefix('.').ok_or_else(missing)?;
            inner.split_at(inner.find(['.', '[']).unwrap_or(inner.len()))
        };
        path = after;
        let found = match &value {
            Value::Dict(dict) => dict.get(meter, &Value::text(meter, key)?)?.cloned(),
            other => match key.parse() {
                Ok(index) => Some(super::operators::element(meter, other, index)?),
                Err(_) => None,
            },
        };
        value = found.filter(|value| !matches!(value, Value::Undefined)).ok_or_else(missing)?;
    }
    Ok(value)
}

/// `[[fill]align][sign][#][0][width][,][.precision][type]`
fn parse_spec(spec: &str) -> Result<Format, Error> {
    let mut format = Format::default();
    let mut chars = spec.chars().peekable();
    let is_align = |c: &char| matches!(c, '<' | '>' | '^' | '=');
    let mut ahead = spec.chars();
    if let (Some(fill), Some(align)) = (ahead.next(), ahead.next().filter(is_align)) {
        format.fill = Some(fill);
        format.align = Some(align);
        chars.next();
        chars.next();
    } else {
        format.align = chars.next_if(is_align);
    }
    format.sign = chars.next_if(|c| matches!(c, '+' | '-' | ' ')).filter(|&c| c != '-');
    format.alternate = chars.next_if_eq(&'#').is_some();
    if chars.next_if_eq(&'0').is_some() && format.fill.is_none() {
        format.fill = Some('0');
        format.align = format.align.or(Some('='));
    }
    format.width = digits(&mut chars)?.unwrap_or(0);
    format.group = chars.next_if(|c| matches!(c, ',' | '_'));
    if chars.next_if_eq(&'.').is_some() {
        format.precision = digits(&mut chars)?;
    }
    format.kind = chars.next();
    match chars.next() {
        None => Ok(format),
        Some(_) => Err(Error::invalid("a string to format has a field whose format can't be read")),
    }
}

/// One field of `format`.
fn formatted(
    meter: &Shared,
    out: &mut Builder,
    value: &Value,
    conversion: Option<&str>,
    spec: &Format,
) -> Result<(), Error> {
    let kind = spec.kind;
    match (conversion, value) {
        (None, Value::Int(number)) if matches!(kind, None | Some('d' | 'b' | 'o' | 'x' | 'X' | 'n')) => {
            write_int(meter, out, *number, spec)
        }
        (None, Value::Int(_) | Value::Float(_))
            if matches!(kind, Some('e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%')) =>
        {
            write_float(meter, out, value.as_float().unwrap_or(0.0), spec)
        }
        (None, Value::Float(number)) if kind.is_none() => write_float(meter, out, *number, spec),
        _ if matches!(kind, None | Some('s')) => {
            let mut text = Builder::new(meter)?;
            match conversion {
                Some("r" | "a") => show::represent(meter, value, &mut text)?,
                _ => show::show(meter, value, &mut text)?,
            }
            write_text(meter, out, text.as_str(), spec)
        }
        _ => Err(wrong_type(kind.unwrap_or('s'), value)),
    }
}

fn write_text(meter: &Shared, out: &mut Builder, text: &str, spec: &Format) -> Result<(), Error> {
    meter.scanned(text.len())?;
    let end =
        spec.precision.and_then(|most| text.char_indices().nth(most)).map_or(text.len(), |(end, _)| end);
    padded(out, "", &text[..end], spec, '<')
}

fn write_int(meter: &Shared, out: &mut Builder, number: i128, spec: &Format) -> Result<(), Error> {
    meter.work(1)?;
    let magnitude = number.unsigned_abs();
    let (digits, prefix) = match spec.kind {
        Some('x') => (format!("{magnitude:x}"), "0x"),
        Some('X') => (format!("{magnitude:X}"), "0X"),
        Some('o') => (format!("{magnitude:o}"), "0o"),
        Some('b') => (format!("{magnitude:b}"), "0b"),
        _ => (magnitude.to_string(), ""),
    };
    let digits = grouped(digits, spec.group);
    let mut sign = sign_of(number < 0, spec);
    if spec.alternate {
        sign.push_str(prefix);
    }
    padded(out, &sign, &digits, spec, '>')
}

fn sign_of(negative: bool, spec: &Format) -> String {
    if negative { "-".to_owned() } else { spec.sign.map(String::from).unwrap_or_default() }
}

fn write_float(meter: &Shared, out: &mut Builder, number: f64, spec: &Format) -> Result<(), Error> {
    meter.work(1)?;
    let precision = spec.precision.unwrap_or(6);
    if precision > MAX_PRECISION {
        return Err(Error::invalid(format!("a precision of more than {MAX_PRECISION} digits")));
    }
    // Up to 300 digits before the point, and those behind.
    meter.scanned(300 + precision)?;
    let magnitude = number.abs();
    let digits = match spec.kind {
        _ if !number.is_finite() => show::float(magnitude),
        Some('e' | 'E') => exponential(magnitude, precision),
        Some('%') => format!("{:.precision$}%", magnitude * 100.0),
        Some('g' | 'G') => general(magnitude, precision.max(1), spec.alternate),
        None if spec.precision.is_none() => show::float(magnitude),
        None => general(magnitude, precision.max(1), spec.alternate),
        Some(_) => format!("{magnitude:.precision$}"),
    };
    let upper = matches!(spec.kind, Some('E' | 'G' | 'F'));
    let digits = grouped(if upper { digits.to_uppercase() } else { digits }, spec.group);
    padded(out, &sign_of(number.is_sign_negative() && !number.is_nan(), spec), &digits, spec, '>')
}

fn exponential(number: f64, precision: usize) -> String {
    let text = format!("{number:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// C's `%g`.
fn general(number: f64, precision: usize, keep_zeros: bool) -> String {
    let scientific = exponential(number, precision - 1);
    let exponent: i32 =
        scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let without_zeros = |text: &str| match text.contains('.') && !keep_zeros {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if exponent < -4 || exponent >= precision as i32 {
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "+00"));
        format!("{}e{exponent}", without_zeros(digits))
    } else {
        let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
        without_zeros(&format!("{number:.decimals$}"))
    }
}

/// A mark between thousands.
fn grouped(digits: String, group: Option<char>) -> String {
    let Some(group) = group else { return digits };
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (place, c) in digits[..whole].chars().enumerate() {
        if place > 0 && (whole - place).is_multiple_of(3) {
            out.push(group);
        }
        out.push(c);
    }
    out + &digits[whole..]
}

fn padded(out: &mut Builder, sign: &str, body: &str, spec: &Format, default: char) -> Result<(), Error> {
    let fill = spec.fill.unwrap_or(' ');
    let padding = spec.width.saturating_sub(sign.chars().count() + body.chars().count());
    let (before, between, after) = match spec.align.unwrap_or(default) {
        '<' => (0, 0, padding),
        '^' => (padding / 2, 0, padding - padding / 2),
        '=' => (0, padding, 0),
        _ => (padding, 0, 0),
    };
    out.repeat(fill, before)?;
    out.push_str(sign)?;
    out.repeat(fill, between)?;
    out.push_str(body)?;
    out.repeat(fill, after)
}
