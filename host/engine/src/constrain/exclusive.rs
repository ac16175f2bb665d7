//! Alternatives of `oneOf` of which no value fits two: they are those of `anyOf`. The compiler itself sees that of few.

use std::cell::Cell;

use serde_json::{Map, Value};

/// How many references are followed to an alternative.
const MAX_REFERENCES: usize = 16;

/// How many values are compared for one schema. Alternatives that would take more are left to the compiler, which refuses them.
const MAX_COMPARISONS: usize = 1_000_000;

/// What tells the alternatives of `oneOf` apart.
#[derive(Debug, PartialEq)]
pub(super) enum Apart<'s> {
    /// They themselves do.
    Already,
    /// This property, which may be missing: it must be there, since a value without it could fit several.
    By(&'s str),
}

/// A schema, with what may still be compared of it.
pub(super) struct Root<'s> {
    schema: &'s Value,
    comparisons: Cell<usize>,
}

impl<'s> Root<'s> {
    pub(super) fn new(schema: &'s Value) -> Self {
        Self { schema, comparisons: Cell::new(MAX_COMPARISONS) }
    }

    /// What tells alternatives apart, where no value fits two or a property sees to that.
    pub(super) fn exclusive(&self, alternatives: &'s [Value]) -> Option<Apart<'s>> {
        let seen: Vec<&Map<String, Value>> =
            alternatives.iter().map(|one| self.resolved(one)).collect::<Option<_>>()?;
        if all_apart(&seen, |one, other| self.are_apart(one, other)) {
            return Some(Apart::Already);
        }
        self.tag_of(&seen).map(Apart::By)
    }

    /// Whether as many comparisons are left. They are then made.
    fn may_compare(&self, count: usize) -> bool {
        let left = self.comparisons.get().checked_sub(count);
        self.comparisons.set(left.unwrap_or(0));
        left.is_some()
    }

    /// A schema, or what it refers to.
    fn resolved(&self, mut schema: &'s Value) -> Option<&'s Map<String, Value>> {
        for _ in 0..MAX_REFERENCES {
            let fields = schema.as_object()?;
            let Some(reference) = fields.get("$ref") else { return Some(fields) };
            schema =
                self.schema.pointer(&super::schema::unescaped(reference.as_str()?.strip_prefix('#')?))?;
        }
        None
    }

    /// Whether surely no value fits both.
    fn are_apart(&self, one: &Map<String, Value>, other: &Map<String, Value>) -> bool {
        if !self.may_compare(1) {
            return false;
        }
        if let (Some(values), Some(others)) = (values(one), values(other)) {
            return self.are_disjoint(values, others);
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
                let both = part.zip(property(other, name));
                both.is_some_and(|(part, other)| self.are_disjoint(part, other))
                    && self.is_required(one, name)
                    && self.is_required(other, name)
            })
    }

    /// The property by whose values all alternatives, which are objects, are told apart.
    fn tag_of(&self, all: &[&'s Map<String, Value>]) -> Option<&'s str> {
        if !all.iter().all(|one| types(one).as_deref() == Some(&["object"])) {
            return None;
        }
        let tells = |name: &str| {
            let of_each: Option<Vec<&[Value]>> = all.iter().map(|one| property(one, name)).collect();
            of_each.is_some_and(|of_each| {
                all_apart(&of_each, |values, others| self.are_disjoint(values, others))
            })
        };
        properties(all.first()?).map(|(name, _)| name).find(|name| self.may_compare(all.len()) && tells(name))
    }

    fn is_required(&self, schema: &Map<String, Value>, name: &str) -> bool {
        let required = schema.get("required").and_then(Value::as_array);
        required.is_some_and(|required| {
            self.may_compare(required.len()) && required.iter().any(|one| one == name)
        })
    }

    /// Whether two lists have no value in common. Lists and objects are not looked into: they may be the same.
    fn are_disjoint(&self, values: &[Value], others: &[Value]) -> bool {
        let are_same = |one: &Value, other: &Value| match (one, other) {
            (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
            (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => true,
            (one, other) => one == other,
        };
        self.may_compare(values.len().saturating_mul(others.len()).max(1))
            && values.iter().all(|value| !others.iter().any(|other| are_same(value, other)))
    }
}

fn all_apart<T>(all: &[T], are_apart: impl Fn(&T, &T) -> bool) -> bool {
    all.iter().enumerate().all(|(index, one)| all[..index].iter().all(|other| are_apart(one, other)))
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
    use serde_json::json;

    use super::*;

    fn are_exclusive(alternatives: &Value) -> bool {
        let nothing = json!({});
        Root::new(&nothing).exclusive(alternatives.as_array().unwrap()) == Some(Apart::Already)
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
        assert_eq!(Root::new(&root).exclusive(&alternatives), Some(Apart::By("kind")));
        // One that refers to itself ends.
        let root = json!({"$defs": {"a": {"$ref": "#/$defs/a"}}});
        assert!(Root::new(&root).exclusive(&[json!({"$ref": "#/$defs/a"}), json!({"const": 1})]).is_none());
    }

    #[test]
    fn what_would_take_long_is_not_compared() {
        let many: Vec<Value> = (0..20_000).map(|number| json!({"const": number})).collect();
        assert!(!are_exclusive(&many.into()));
        let lists: Vec<Value> =
            [0, 10_000].map(|first| json!({"enum": (first..first + 9_000).collect::<Vec<i32>>()})).to_vec();
        assert!(!are_exclusive(&lists.into()));
    }
}
