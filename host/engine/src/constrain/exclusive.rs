//! Alternatives of `oneOf` of which no value fits two: they are those of `anyOf`. The compiler itself sees that of few.

use serde_json::{Map, Value, json};

/// How many references are followed to an alternative.
const MAX_REFERENCES: usize = 16;

/// The alternatives as `anyOf` may have them, if no value fits two. Where only a property that may be missing tells them apart, it
/// must be there: without it, a value could fit several. `root` is what references are relative to.
pub(super) fn exclusive(root: &Value, alternatives: &[Value]) -> Option<Vec<Value>> {
    let seen: Vec<&Map<String, Value>> =
        alternatives.iter().map(|one| resolved(root, one)).collect::<Option<_>>()?;
    if all_apart(&seen, |one, other| are_apart(one, other)) {
        return Some(alternatives.to_vec());
    }
    let tag = tag_of(&seen)?;
    Some(alternatives.iter().map(|one| json!({"allOf": [one, {"required": [tag]}]})).collect())
}

/// A schema, or what it refers to.
fn resolved<'s>(root: &'s Value, mut schema: &'s Value) -> Option<&'s Map<String, Value>> {
    for _ in 0..MAX_REFERENCES {
        let fields = schema.as_object()?;
        let Some(reference) = fields.get("$ref") else { return Some(fields) };
        schema = root.pointer(&super::schema::unescaped(reference.as_str()?.strip_prefix('#')?))?;
    }
    None
}

fn all_apart<T>(all: &[T], are_apart: impl Fn(&T, &T) -> bool) -> bool {
    all.iter().enumerate().all(|(index, one)| all[..index].iter().all(|other| are_apart(one, other)))
}

/// Whether surely no value fits both.
fn are_apart(one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
    if let (Some(values), Some(others)) = (values(one), values(other)) {
        return are_disjoint(values, others);
    }
    let (types, others) = (types(one), types(other));
    if let (Some(types), Some(others)) = (&types, &others)
        && types.iter().all(|name| !others.contains(name))
    {
        return true;
    }
    let both_are = |name: &str| [&types, &others].iter().all(|types| types.as_deref() == Some(&[name]));
    if both_are("number") {
        let ([least, most], [other_least, other_most]) = (bounds(one), bounds(other));
        return ends_before(most, other_least) || ends_before(other_most, least);
    }
    both_are("object")
        && properties(one).any(|(name, part)| {
            let other_part = property(other, name);
            is_required(one, name)
                && is_required(other, name)
                && part.zip(other_part).is_some_and(|(part, other)| are_disjoint(part, other))
        })
}

/// The property by whose values all alternatives, which are objects, are told apart.
fn tag_of<'s>(all: &[&'s Map<String, Value>]) -> Option<&'s str> {
    if !all.iter().all(|one| types(one).as_deref() == Some(&["object"])) {
        return None;
    }
    let tells = |name: &str| {
        let of_each: Option<Vec<&[Value]>> = all.iter().map(|one| property(one, name)).collect();
        of_each.is_some_and(|of_each| all_apart(&of_each, |values, others| are_disjoint(values, others)))
    };
    properties(all.first()?).map(|(name, _)| name).find(|name| tells(name))
}

/// The values that a schema allows, where it lists them.
fn values(schema: &Map<String, Value>) -> Option<&[Value]> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(std::slice::from_ref(value)),
        (None, Some(Value::Array(values))) => Some(values),
        _ => None,
    }
}

/// The properties of a schema, with the values of those that list them.
fn properties(schema: &Map<String, Value>) -> impl Iterator<Item = (&str, Option<&[Value]>)> {
    let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    properties.map(|(name, part)| (name.as_str(), part.as_object().and_then(values)))
}

fn property<'s>(schema: &'s Map<String, Value>, name: &str) -> Option<&'s [Value]> {
    schema.get("properties")?.get(name)?.as_object().and_then(values)
}

fn is_required(schema: &Map<String, Value>, name: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|one| one == name))
}

/// Whether two lists have no value in common. Lists and objects are not looked into: they may be the same.
fn are_disjoint(values: &[Value], others: &[Value]) -> bool {
    let are_same = |one: &Value, other: &Value| match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
        (one, other) => one == other,
    };
    values.iter().all(|value| !others.iter().any(|other| are_same(value, other)))
}

/// The types that a schema allows, where that is told; whole numbers are numbers.
fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    let plain = |name| if name == "integer" { "number" } else { name };
    let mut types: Vec<&str> = match (schema.get("type"), values(schema)) {
        (Some(Value::String(name)), _) => vec![plain(name)],
        (Some(Value::Array(names)), _) => {
            names.iter().map(|name| name.as_str().map(plain)).collect::<Option<_>>()?
        }
        (_, Some(values)) => values.iter().map(type_of).collect(),
        _ => return None,
    };
    types.sort_unstable();
    types.dedup();
    Some(types)
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A schema's least and greatest number, and whether each is itself left out.
fn bounds(schema: &Map<String, Value>) -> [(f64, bool); 2] {
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let bound = |name: &str, exclusive: &str, none: f64, tighter: fn(f64, f64) -> bool| {
        let (closed, open) = (number(name).unwrap_or(none), number(exclusive).unwrap_or(none));
        if tighter(closed, open) { (closed, false) } else { (open, true) }
    };
    [
        bound("minimum", "exclusiveMinimum", f64::NEG_INFINITY, |closed, open| closed > open),
        bound("maximum", "exclusiveMaximum", f64::INFINITY, |closed, open| closed < open),
    ]
}

/// Whether a range that ends at the first bound ends before one that begins at the second.
fn ends_before((most, leaves_out): (f64, bool), (least, also_leaves_out): (f64, bool)) -> bool {
    most < least || (most == least && (leaves_out || also_leaves_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn are_exclusive(alternatives: &Value) -> bool {
        exclusive(&json!({}), alternatives.as_array().unwrap()).is_some()
    }

    #[test]
    fn values_types_and_ranges_tell_apart() {
        for apart in [
            json!([{"const": 1}, {"const": 2}, {"const": "1"}]),
            json!([{"enum": [1, 2]}, {"enum": [3]}]),
            json!([{"type": "string"}, {"type": ["integer", "null"]}]),
            json!([{"type": "integer", "maximum": 2}, {"type": "number", "minimum": 5}]),
            json!([{"type": "number", "exclusiveMaximum": 2}, {"type": "number", "minimum": 2}]),
            json!([{"const": null}, {"type": "object"}]),
        ] {
            assert!(are_exclusive(&apart), "{apart}");
        }
        for not in [
            json!([{"const": 1}, {"const": 1.0}]),
            json!([{"type": "integer"}, {"type": "number"}]),
            json!([{"type": "number", "maximum": 2}, {"type": "number", "minimum": 2}]),
            json!([{"enum": [[1]]}, {"enum": [[1.0]]}]),
            json!([{"type": "string"}, {"minLength": 2}]),
            json!([{"type": "object"}, {"type": "object"}]),
            json!([true, {"type": "string"}]),
            json!([{"$ref": "#/nowhere"}, {"type": "string"}]),
        ] {
            assert!(!are_exclusive(&not), "{not}");
        }
    }

    #[test]
    fn a_tag_that_may_be_missing_must_be_there() {
        let root = json!({"$defs": {
            "cat": {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}},
            "dog": {"type": "object", "properties": {"kind": {"const": "dog"}}, "required": ["kind"]},
        }});
        let alternatives = [json!({"$ref": "#/$defs/cat"}), json!({"$ref": "#/$defs/dog"})];
        let made = exclusive(&root, &alternatives).unwrap();
        assert_eq!(made[0], json!({"allOf": [{"$ref": "#/$defs/cat"}, {"required": ["kind"]}]}));
        // One that refers to itself ends.
        let root = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}});
        assert!(exclusive(&root, &[json!({"$ref": "#/$defs/a"}), json!({"const": 1})]).is_none());
    }
}
