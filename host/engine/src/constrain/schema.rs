//! JSON schemas as the compiler takes them: what it refuses and means nothing is left out, what it takes too wide is narrowed.
//!
//! Nothing here lets an answer through that the schema forbids; where a format can't be told exactly, fewer texts are allowed than
//! the format has.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::exclusive::{Apart, Root};
use crate::error::{Error, Result};

/// The greatest `multipleOf`: a greater one is beyond the compiler's 32-bit numbers.
const MAX_MULTIPLE: f64 = 1e8;

/// Keywords whose values are schemas' parts by name, and not schemas or data.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords whose values are data.
const DATA: [&str; 5] = ["const", "enum", "default", "examples", "x-guidance"];

/// Formats that the compiler knows, and that every text which it makes of them is valid by.
const KNOWN: [&str; 6] = ["duration", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// A day of a year: 29 February in leap years only, and no year 0.
const DATE: &str = concat!(
    r"(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-",
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))",
    r"|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29",
);

/// A time of day with its zone, without leap seconds.
const TIME: &str = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:[zZ]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";

/// An address of RFC 5321: atoms of at most 64 characters together, and a domain whose labels have at most 63. The compiler's own
/// has labels of any length.
const EMAIL: &str = concat!(
    r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,15}(?:\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]{1,15}){0,3}",
    r"@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?){0,3}",
);

/// A reference to a place of the web: its path, query and fragment (RFC 3986), without a scheme.
const RELATIVE: &str = r"/?(?:[a-zA-Z0-9._~!$&'()*+,;=@-]+/)*[a-zA-Z0-9._~!$&'()*+,;=@-]*(?:\?[a-zA-Z0-9._~/=&-]*)?(?:#[a-zA-Z0-9._~/-]*)?";

/// RFC 6901.
const POINTER: &str = r"(?:/(?:[^~/]|~[01])*)*";

/// A schema for the compiler.
///
/// # Errors
/// Where a `multipleOf` is too great.
pub(super) fn normalised(schema: &Value) -> Result<Value> {
    let mut made = part(schema, &Root::new(schema))?;
    // Pointers with escapes get plain names: the compiler takes them as they are written.
    let mut names = BTreeMap::new();
    rename(&mut made, &mut names);
    let targets: Vec<(String, Value)> = names
        .into_iter()
        .filter_map(|(pointer, name)| Some((name, made.pointer(&pointer)?.clone())))
        .collect();
    if let (false, Value::Object(fields)) = (targets.is_empty(), &mut made)
        && let Value::Object(definitions) = fields.entry("$defs").or_insert_with(|| json!({}))
    {
        definitions.extend(targets);
    }
    Ok(made)
}

/// Gives each `$ref` that has escapes in its pointer a plain one, and records the pointers that these stand for, by what they
/// mean.
fn rename(schema: &mut Value, names: &mut BTreeMap<String, String>) {
    match schema {
        Value::Object(fields) => {
            for (field, value) in fields.iter_mut().filter(|(field, _)| !DATA.contains(&field.as_str())) {
                match value {
                    Value::String(reference) if field == "$ref" => {
                        let Some(pointer) =
                            reference.strip_prefix('#').filter(|text| text.contains(['~', '%']))
                        else {
                            continue;
                        };
                        let number = names.len();
                        let name =
                            names.entry(unescaped(pointer)).or_insert_with(|| format!("__pointer_{number}"));
                        *reference = format!("#/$defs/{name}");
                    }
                    value => rename(value, names),
                }
            }
        }
        Value::Array(parts) => parts.iter_mut().for_each(|part| rename(part, names)),
        _ => {}
    }
}

/// A pointer of a URI's fragment as RFC 6901 writes it in JSON: `%20` is a space; `~0` and `~1` stay.
pub(super) fn unescaped(pointer: &str) -> String {
    let mut bytes = Vec::with_capacity(pointer.len());
    let mut rest = pointer.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(escaped) => {
                bytes.push(escaped);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A part of a schema.
fn part<'s>(schema: &'s Value, root: &Root<'s>) -> Result<Value> {
    match schema {
        Value::Object(fields) => Ok(Value::Object(object(fields, root)?)),
        Value::Array(parts) => parts.iter().map(|schema| part(schema, root)).collect(),
        other => Ok(other.clone()),
    }
}

fn object<'s>(fields: &'s Map<String, Value>, root: &Root<'s>) -> Result<Map<String, Value>> {
    let mut made = Map::new();
    let mut also = Vec::new();
    let names = Names::of(fields);
    for (name, value) in fields {
        match (name.as_str(), value) {
            (name, value) if DATA.contains(&name) => drop(made.insert(name.to_owned(), value.clone())),
            (name, Value::Object(parts)) if NAMED.contains(&name) => {
                let named = |(name, value): (&String, &Value)| Ok((name.clone(), part(value, root)?));
                made.insert(name.to_owned(), Value::Object(parts.iter().map(named).collect::<Result<_>>()?));
            }
            // They say nothing.
            ("uniqueItems" | "deprecated", Value::Bool(false)) => {}
            ("deprecated" | "nullable", _) => {}
            ("minContains" | "maxContains", _) if !fields.contains_key("contains") => {}
            ("uniqueItems", _)
                if fields.get("maxItems").and_then(Value::as_u64).is_some_and(|most| most < 2) => {}
            ("propertyNames", _) if !matches!(names, Names::Unknown) => {}
            ("additionalProperties", _) if matches!(names, Names::Like(_)) => {}
            ("oneOf", Value::Array(alternatives)) => {
                let mut parts: Vec<Value> =
                    alternatives.iter().map(|one| part(one, root)).collect::<Result<_>>()?;
                let Some(apart) = root.exclusive(alternatives) else {
                    made.insert(name.clone(), Value::Array(parts));
                    continue;
                };
                if let Apart::By(tag) = apart {
                    parts =
                        parts.into_iter().map(|one| json!({"allOf": [one, {"required": [tag]}]})).collect();
                }
                also.push(json!({"anyOf": parts}));
            }
            ("format", Value::String(format)) => format_of(format, &mut made, &mut also),
            ("multipleOf", number) => {
                if number.as_f64().is_some_and(|number| number > MAX_MULTIPLE) {
                    return Err(Error::Constraint(format!(
                        "the JSON schema can't be used: multipleOf is {number}, where at most {MAX_MULTIPLE} was expected"
                    )));
                }
                made.insert(name.clone(), number.clone());
            }
            ("minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum", Value::Number(_)) => {
                made.insert(name.clone(), within(name, value));
            }
            _ => drop(made.insert(name.clone(), part(value, root)?)),
        }
    }
    names.insert_into(&mut made, fields.get("additionalProperties"), root)?;
    if !also.is_empty() {
        match made.entry("allOf").or_insert_with(|| json!([])) {
            Value::Array(all) => all.extend(also),
            other => *other = json!([{"allOf": other.clone()}]),
        }
    }
    Ok(made)
}

/// What `propertyNames` asks, which the compiler doesn't know, as far as the properties themselves can say the same.
enum Names {
    /// Nothing.
    Any,
    /// They match this pattern.
    Like(String),
    /// Something that can't be said so, or where other keywords say more of the properties.
    Unknown,
}

impl Names {
    fn of(fields: &Map<String, Value>) -> Self {
        let Some(asked) = fields.get("propertyNames") else { return Self::Any };
        let Some(asked) =
            asked.as_object().filter(|asked| asked.get("type").is_none_or(|kind| kind == "string"))
        else {
            return Self::Unknown;
        };
        let said: Vec<&str> = asked.keys().map(String::as_str).filter(|name| *name != "type").collect();
        if said.is_empty() {
            return Self::Any;
        }
        let says_more = ["properties", "patternProperties", "unevaluatedProperties"];
        if says_more.iter().any(|name| fields.contains_key(*name)) {
            return Self::Unknown;
        }
        let (pattern, listed) = (asked.get("pattern"), asked.get("enum"));
        match (said.as_slice(), pattern.and_then(Value::as_str), listed.and_then(Value::as_array)) {
            (["pattern"], Some(pattern), _) => Self::Like(pattern.to_owned()),
            // As a pattern: each as a property would have a copy of the values' schema.
            (["enum"], _, Some(listed)) => {
                let listed: Option<Vec<String>> =
                    listed.iter().map(|name| name.as_str().map(literally)).collect();
                listed.map_or(Self::Unknown, |listed| Self::Like(format!("^(?:{})$", listed.join("|"))))
            }
            _ => Self::Unknown,
        }
    }

    /// Says it of the properties. `values` is the schema of each.
    fn insert_into<'s>(
        self,
        made: &mut Map<String, Value>,
        values: Option<&'s Value>,
        root: &Root<'s>,
    ) -> Result<()> {
        if let Self::Like(pattern) = self {
            let value = values.map_or_else(|| Ok(json!({})), |values| part(values, root))?;
            made.insert("patternProperties".to_owned(), json!({pattern: value}));
            made.insert("additionalProperties".to_owned(), false.into());
        }
        Ok(())
    }
}

/// A regular expression for a text alone.
fn literally(text: &str) -> String {
    let mut expression = String::with_capacity(text.len());
    for c in text.chars() {
        // With a backslash, these two mean the edges of words.
        if c.is_ascii_punctuation() && !"<>".contains(c) {
            expression.push('\\');
        }
        expression.push(c);
    }
    expression
}

/// A format as the compiler's own, as a pattern, or as nothing where it is unknown: it is then an annotation.
fn format_of(format: &str, made: &mut Map<String, Value>, also: &mut Vec<Value>) {
    if KNOWN.contains(&format) {
        made.insert("format".to_owned(), format.into());
        if format == "hostname" {
            also.push(json!({"maxLength": 253}));
        }
        return;
    }
    let pattern = match format {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("(?:{DATE})[tT]{TIME}"),
        "email" | "idn-email" => EMAIL.to_owned(),
        "idn-hostname" => {
            made.insert("format".to_owned(), "hostname".into());
            return also.push(json!({"maxLength": 253}));
        }
        "iri" => return drop(made.insert("format".to_owned(), "uri".into())),
        "uri-reference" | "iri-reference" => RELATIVE.to_owned(),
        "uri-template" => format!(r"(?:{RELATIVE}|\{{[a-zA-Z0-9_]+\}})"),
        "json-pointer" => POINTER.to_owned(),
        "relative-json-pointer" => format!("(?:0|[1-9][0-9]*)(?:#|{POINTER})"),
        "regex" => "[a-zA-Z0-9 ]*".to_owned(),
        _ => return,
    };
    also.push(json!({"pattern": format!("^(?:{pattern})$")}));
}

/// A bound as the compiler's float64 has it, not beyond what it was: integers past 2^53 are rounded towards the inside.
fn within(name: &str, bound: &Value) -> Value {
    let exact: Option<i128> = bound.as_i64().map(i128::from).or_else(|| bound.as_u64().map(i128::from));
    let (Some(exact), Some(rounded)) = (exact, bound.as_f64()) else { return bound.clone() };
    let lower = name.ends_with("inimum");
    let inside = match (lower, rounded as i128 - exact) {
        (true, ..0) => rounded.next_up(),
        (false, 1..) => rounded.next_down(),
        (_, 0) => return bound.clone(),
        _ => rounded,
    };
    json!(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_nothing_is_left_out() {
        let schema =
            json!({"type": "array", "uniqueItems": false, "items": {"type": "string", "format": "colour"}});
        let made = normalised(&schema).unwrap();
        assert_eq!(made, json!({"type": "array", "items": {"type": "string"}}));
    }

    #[test]
    fn names_of_properties_become_properties() {
        let record = json!({"type": "object", "propertyNames": {"type": "string"}, "additionalProperties": {"type": "number"}});
        let made = normalised(&record).unwrap();
        assert_eq!(made, json!({"type": "object", "additionalProperties": {"type": "number"}}));
        let listed = normalised(
            &json!({"propertyNames": {"enum": ["a.", "b"]}, "additionalProperties": {"type": "number"}}),
        );
        let properties = json!({"^(?:a\\.|b)$": {"type": "number"}});
        assert_eq!(listed.unwrap(), json!({"patternProperties": properties, "additionalProperties": false}));
        let like = normalised(
            &json!({"propertyNames": {"pattern": "^x"}, "additionalProperties": {"type": "number"}}),
        );
        let properties = json!({"^x": {"type": "number"}});
        assert_eq!(like.unwrap(), json!({"patternProperties": properties, "additionalProperties": false}));
        // What can't be said so stays, and is refused.
        let other = json!({"propertyNames": {"minLength": 2}, "properties": {"a": {}}});
        assert_eq!(normalised(&other).unwrap(), other);
    }

    /// Each part is made once, however deep it is.
    #[test]
    fn nesting_costs_no_more_than_it_is_long() {
        let mut deep = json!({"type": "number"});
        for level in 0..60 {
            let record =
                json!({"type": "object", "propertyNames": {"pattern": "^x"}, "additionalProperties": deep});
            deep = json!({"oneOf": [record, {"const": level}]});
        }
        normalised(&deep).unwrap();
    }

    #[test]
    fn names_and_data_stay_as_they_are() {
        let schema =
            json!({"properties": {"format": {"const": {"format": "x"}}, "uniqueItems": {"type": "boolean"}}});
        assert_eq!(normalised(&schema).unwrap(), schema);
    }

    #[test]
    fn bounds_past_2_to_the_53_stay_inside() {
        let past = 9_007_199_254_740_993_i64;
        let made = normalised(&json!({"minimum": past, "maximum": past, "exclusiveMaximum": 5})).unwrap();
        assert_eq!(made["minimum"].as_f64(), Some(9_007_199_254_740_994.0));
        assert_eq!(made["maximum"].as_f64(), Some(9_007_199_254_740_992.0));
        assert_eq!(made["exclusiveMaximum"], 5);
    }

    #[test]
    fn pointers_may_have_escapes() {
        let schema =
            json!({"items": {"$ref": "#/$defs/a~1b%20c"}, "$defs": {"a/b c": {"$ref": "#/$defs/a~1b%20c"}}});
        let made = normalised(&schema).unwrap();
        assert_eq!(made["items"]["$ref"], "#/$defs/__pointer_0");
        assert_eq!(made["$defs"]["__pointer_0"], json!({"$ref": "#/$defs/__pointer_0"}));
    }

    #[test]
    fn a_format_joins_what_is_there() {
        let made = normalised(&json!({"format": "date", "allOf": [{"minLength": 1}]})).unwrap();
        assert_eq!(made["allOf"].as_array().map(Vec::len), Some(2));
        assert!(made.get("format").is_none());
    }
}
