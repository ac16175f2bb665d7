//! Filters of lists, and of what else can be gone through.

use std::rc::Rc;

use super::super::arguments::{self, Given};
use super::super::ast::Operator;
use super::super::error::Error;
use super::super::interpreter::Interpreter;
use super::super::operators;
use super::super::order::{self, Key};
use super::super::predicates;
use super::super::show;
use super::super::value::{Builder, Items, List, Value};
use super::{by_path, folded, sorted};

pub(super) const NAMES: [&str; 17] = [
    "first",
    "last",
    "join",
    "reverse",
    "sort",
    "unique",
    "min",
    "max",
    "sum",
    "map",
    "select",
    "reject",
    "selectattr",
    "rejectattr",
    "groupby",
    "batch",
    "slice",
];

pub(super) fn apply(
    interpreter: &mut Interpreter<'_>,
    name: &str,
    value: &Value,
    given: Given,
) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    match name {
        "first" => match value {
            Value::Text(_) | Value::List(_) | Value::Tuple(_) => operators::element(&meter, value, 0),
            other => Ok(other.items(&meter)?.items.first().cloned().unwrap_or(Value::Undefined)),
        },
        "last" => match value {
            Value::Text(_) | Value::List(_) | Value::Tuple(_) => operators::element(&meter, value, -1),
            other => Ok(other.items(&meter)?.items.last().cloned().unwrap_or(Value::Undefined)),
        },
        "join" => join(interpreter, value, given),
        "reverse" => match value {
            Value::Text(_) => operators::slice(&meter, value, [None, None, Some(-1)]),
            other => {
                let list = Value::List(other.items(&meter)?);
                operators::slice(&meter, &list, [None, None, Some(-1)])
            }
        },
        "sort" => sort(interpreter, value, given),
        "unique" => unique(interpreter, value, given),
        "min" | "max" => extreme(interpreter, name, value, given),
        "sum" => {
            let [attribute, start] = given.named("sum", ["attribute", "start"])?;
            let mut total = start.unwrap_or(Value::Int(0));
            for item in &value.items(&meter)?.items {
                let item = key_of(interpreter, item, attribute.as_ref())?;
                total = operators::arithmetic(&meter, Operator::Add, &total, &item)?;
            }
            Ok(total)
        }
        "map" => map(interpreter, value, given),
        "select" | "reject" => select(interpreter, name == "select", value, None, given),
        "selectattr" | "rejectattr" => {
            let mut given = given;
            let attribute = given.first(name)?;
            select(interpreter, name == "selectattr", value, Some(&attribute), given)
        }
        "groupby" => group_by(interpreter, value, given),
        "batch" => batch(interpreter, value, given),
        _ => slices(interpreter, value, given),
    }
}

/// An item, or its attribute.
fn key_of(
    interpreter: &mut Interpreter<'_>,
    item: &Value,
    attribute: Option<&Value>,
) -> Result<Value, Error> {
    match attribute {
        None | Some(Value::None | Value::Undefined) => Ok(item.clone()),
        Some(path) => by_path(interpreter, item, path),
    }
}

fn join(interpreter: &mut Interpreter<'_>, value: &Value, given: Given) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let [separator, attribute] = given.named("join", ["d", "attribute"])?;
    let separator = show::shown(&meter, &separator.unwrap_or(Value::Undefined))?;
    let mut out = Builder::new(&meter)?;
    for (place, item) in value.items(&meter)?.items.iter().enumerate() {
        meter.work(1)?;
        if place > 0 {
            show::show(&meter, &separator, &mut out)?;
        }
        let item = key_of(interpreter, item, attribute.as_ref())?;
        show::show(&meter, &item, &mut out)?;
    }
    out.finish()
}

/// The keys that items are compared by.
fn keys(
    interpreter: &mut Interpreter<'_>,
    items: &List,
    attribute: Option<&Value>,
    case_sensitive: bool,
) -> Result<Rc<List>, Error> {
    let meter = interpreter.meter.clone();
    let mut keys = Items::new(&meter)?;
    for item in &items.items {
        let key = key_of(interpreter, item, attribute)?;
        keys.push(folded(&meter, &key, case_sensitive)?)?;
    }
    Ok(keys.finish())
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}

fn sort(interpreter: &mut Interpreter<'_>, value: &Value, given: Given) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let [reverse, case_sensitive, attribute] =
        given.named("sort", ["reverse", "case_sensitive", "attribute"])?;
    let items = value.items(&meter)?;
    let case_sensitive = is_true(case_sensitive.as_ref());
    let keys = match &attribute {
        // Several attributes: the first counts most.
        Some(Value::Text(paths)) if paths.text.contains(',') => {
            let mut keys = Items::new(&meter)?;
            for item in &items.items {
                let mut parts = Vec::new();
                for path in paths.text.split(',') {
                    let path = Value::text(&meter, path.trim())?;
                    let part = by_path(interpreter, item, &path)?;
                    parts.push(folded(&meter, &part, case_sensitive)?);
                }
                keys.push(Value::list(&meter, parts)?)?;
            }
            keys.finish()
        }
        attribute => keys(interpreter, &items, attribute.as_ref(), case_sensitive)?,
    };
    let mut out = Items::new(&meter)?;
    for place in sorted(&meter, &keys.items, is_true(reverse.as_ref()))? {
        out.push(items.items[place].clone())?;
    }
    Ok(out.list())
}

// The key's hash is the text's, which never changes; what changes is the count of its memory.
#[expect(clippy::mutable_key_type)]
fn unique(interpreter: &mut Interpreter<'_>, value: &Value, given: Given) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let [case_sensitive, attribute] = given.named("unique", ["case_sensitive", "attribute"])?;
    let items = value.items(&meter)?;
    let keys = keys(interpreter, &items, attribute.as_ref(), is_true(case_sensitive.as_ref()))?;
    let mut seen = std::collections::HashSet::new();
    let mut charge = meter.charge(0)?;
    let mut out = Items::new(&meter)?;
    for (item, key) in items.items.iter().zip(&keys.items) {
        if seen.insert(Key::new(&meter, key, &mut charge)?) {
            out.push(item.clone())?;
        }
    }
    Ok(out.list())
}

fn extreme(
    interpreter: &mut Interpreter<'_>,
    name: &str,
    value: &Value,
    given: Given,
) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let [case_sensitive, attribute] = given.named(name, ["case_sensitive", "attribute"])?;
    let items = value.items(&meter)?;
    let keys = keys(interpreter, &items, attribute.as_ref(), is_true(case_sensitive.as_ref()))?;
    let mut best = 0;
    for place in 1..keys.items.len() {
        let ordering = order::compare(&meter, &keys.items[place], &keys.items[best])?;
        if ordering.is_some_and(|ordering| if name == "min" { ordering.is_lt() } else { ordering.is_gt() }) {
            best = place;
        }
    }
    Ok(items.items.get(best).cloned().unwrap_or(Value::Undefined))
}

fn map(interpreter: &mut Interpreter<'_>, value: &Value, mut given: Given) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let items = value.items(&meter)?;
    let mut out = Items::new(&meter)?;
    if given.positional.is_empty() {
        let [attribute, default] = given.named("map", ["attribute", "default"])?;
        let attribute = arguments::required(attribute, "map")?;
        for item in &items.items {
            let found = match (by_path(interpreter, item, &attribute)?, &default) {
                (Value::Undefined, Some(default)) => default.clone(),
                (found, _) => found,
            };
            out.push(found)?;
        }
        return Ok(out.list());
    }
    let filter = arguments::text(Some(given.first("map")?), "map")?;
    for item in &items.items {
        let given = copy(interpreter, &given)?;
        let mapped = super::apply(interpreter, &filter.text, item.clone(), given)?;
        out.push(mapped)?;
    }
    Ok(out.list())
}

/// The same arguments once more.
fn copy(interpreter: &Interpreter<'_>, given: &Given) -> Result<Given, Error> {
    interpreter.meter.work((given.positional.len() + given.named.len()) as u64)?;
    Ok(Given { positional: given.positional.clone(), named: given.named.clone(), charge: None })
}

fn select(
    interpreter: &mut Interpreter<'_>,
    wanted: bool,
    value: &Value,
    attribute: Option<&Value>,
    mut given: Given,
) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let test = match given.positional.is_empty() {
        true => None,
        false => Some(arguments::text(Some(given.first("select")?), "select")?),
    };
    let mut out = Items::new(&meter)?;
    for item in &value.items(&meter)?.items {
        let key = key_of(interpreter, item, attribute)?;
        let holds = match &test {
            None => key.is_true(),
            Some(test) => {
                let given = copy(interpreter, &given)?;
                predicates::holds(interpreter, &test.text, &key, given)?
            }
        };
        if holds == wanted {
            out.push(item.clone())?;
        }
    }
    Ok(out.list())
}

fn group_by(interpreter: &mut Interpreter<'_>, value: &Value, given: Given) -> Result<Value, Error> {
    let meter = interpreter.meter.clone();
    let [attribute, default, case_sensitive] =
        given.named("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = arguments::required(attribute, "groupby")?;
    let items = value.items(&meter)?;
    let mut found = Items::new(&meter)?;
    for item in &items.items {
        found.push(match (by_path(interpreter, item, &attribute)?, &default) {
            (Value::Undefined, Some(default)) => default.clone(),
            (found, _) => found,
        })?;
    }
    let found = found.finish();
    let keys = keys(interpreter, &found, None, is_true(case_sensitive.as_ref()))?;
    let mut groups = Items::new(&meter)?;
    let mut group: Option<(usize, Items)> = None;
    let mut finish = |group: Option<(usize, Items)>| match group {
        Some((first, group)) => {
            let pair = vec![found.items[first].clone(), group.list()];
            groups.push(Value::tuple(&meter, pair)?)
        }
        None => Ok(()),
    };
    for place in sorted(&meter, &keys.items, false)? {
        let same = match &group {
            Some((first, _)) => order::equal(&meter, &keys.items[*first], &keys.items[place])?,
            None => false,
        };
        if !same {
            finish(group.take())?;
            group = Some((place, Items::new(&meter)?));
        }
        if let Some((_, group)) = &mut group {
            group.push(items.items[place].clone())?;
        }
    }
    finish(group.take())?;
    Ok(groups.list())
}

fn count_of(value: Option<Value>, name: &str) -> Result<usize, Error> {
    let count = arguments::optional_int(value, name)?.ok_or_else(|| arguments::missing(name))?;
    usize::try_from(count)
        .ok()
        .filter(|&count| count > 0)
        .ok_or_else(|| Error::invalid(format!("{name}'s number is below 1")))
}

fn batch(interpreter: &Interpreter<'_>, value: &Value, given: Given) -> Result<Value, Error> {
    let meter = &interpreter.meter;
    let [count, fill] = given.named("batch", ["linecount", "fill_with"])?;
    let count = count_of(count, "batch")?;
    let mut out = Items::new(meter)?;
    for chunk in value.items(meter)?.items.chunks(count) {
        let mut batch = Items::new(meter)?;
        batch.extend(chunk)?;
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None)) {
            for _ in chunk.len()..count {
                batch.push(fill.clone())?;
            }
        }
        out.push(batch.list())?;
    }
    Ok(out.list())
}

fn slices(interpreter: &Interpreter<'_>, value: &Value, given: Given) -> Result<Value, Error> {
    let meter = &interpreter.meter;
    let [count, fill] = given.named("slice", ["slices", "fill_with"])?;
    let count = count_of(count, "slice")?;
    let items = value.items(meter)?;
    let (each, longer) = (items.items.len() / count, items.items.len() % count);
    let mut out = Items::new(meter)?;
    let mut begin = 0;
    for place in 0..count {
        let end = begin + each + usize::from(place < longer);
        let mut slice = Items::new(meter)?;
        slice.extend(&items.items[begin..end])?;
        if let Some(fill) = fill.as_ref().filter(|fill| !matches!(fill, Value::None))
            && place >= longer
        {
            slice.push(fill.clone())?;
        }
        out.push(slice.list())?;
        begin = end;
    }
    Ok(out.list())
}
