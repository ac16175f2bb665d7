//! Answers in a form end well however little room there is: with room for the shortest answer and one token more, every answer is
//! whole. The logits are random, so nothing but the form leads to the end.

use std::net::{Ipv4Addr, Ipv6Addr};

use herald::sampler::SamplerConfig;
use herald::{Constraint, Finish, GenerateOptions, Generated, NeuroEngine};
use herald_testing::load_tiny;
use regex::Regex;
use serde_json::{Value, json};

/// More tokens than any of these forms' shortest answers take.
const LONGEST: usize = 120;

fn generate(engine: &NeuroEngine, constraint: &Constraint, most: usize, seed: u64) -> Generated {
    let sampler = SamplerConfig {
        // Nearly uniform.
        temperature: 8.0,
        seed: Some(seed),
        ..SamplerConfig::default()
    };
    let options = GenerateOptions {
        max_tokens: Some(most),
        constraint: Some(constraint.clone()),
        sampler,
        ..GenerateOptions::default()
    };
    let mut sequence = engine.sequence().expect("a sequence");
    engine
        .generate(&mut sequence, &[5, 6, 7], &options, &mut || true, &mut |_| true)
        .unwrap_or_else(|error| panic!("{constraint:?}: {error}"))
}

fn is_whole(generated: &Generated) -> bool {
    matches!(generated.finish, Finish::Complete | Finish::EndToken(_))
}

/// Checks answers of a form with room for the shortest one and up to two tokens more, and with more room. `example`: an answer that
/// somebody wrote.
fn ends_well(engine: &NeuroEngine, constraint: &Constraint, example: &str, is_valid: &dyn Fn(&str) -> bool) {
    assert!(is_valid(example), "the example {example:?} of {constraint:?}");
    // Answers of fewer tokens are cut off, those of more are not.
    let (mut cut, mut shortest) = (0, LONGEST);
    while shortest - cut > 1 {
        let middle = usize::midpoint(cut, shortest);
        let whole = is_whole(&generate(engine, constraint, middle, 0));
        *(if whole { &mut shortest } else { &mut cut }) = middle;
    }
    let of_example = engine.tokenizer().encode(example, false).expect("tokens").len();
    // A token more: what ends an answer may need one of its own.
    assert!(
        shortest <= of_example + 1,
        "{constraint:?}: {shortest} tokens, where {example:?} has {of_example}"
    );
    for (room, seeds) in [
        (shortest, 0..1),
        (shortest + 1, 1..7),
        (shortest + 2, 7..9),
        (shortest + 9, 9..12),
        (LONGEST, 12..14),
    ] {
        for seed in seeds {
            let generated = generate(engine, constraint, room, seed);
            let text = &generated.text;
            assert!(
                is_whole(&generated) && generated.tokens.len() <= room && is_valid(text),
                "{constraint:?} with {room} tokens, seed {seed}: {:?} of {text:?}",
                generated.finish
            );
        }
    }
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn is_date(text: &str) -> bool {
    let parts: Vec<u32> = text.split('-').filter_map(|part| part.parse().ok()).collect();
    let [year, month, day] = parts[..] else { return false };
    let days = match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    text.len() == 10 && year > 0 && (1..=12).contains(&month) && (1..=days).contains(&day)
}

fn is_time(text: &str) -> bool {
    let Some((clock, zone)) = text.split_at_checked(8) else { return false };
    let is_clock = |text: &str, limits: &[u32]| {
        let parts: Vec<&str> = text.split(':').collect();
        let fits =
            |(part, limit): (&&str, &u32)| part.len() == 2 && part.parse::<u32>().is_ok_and(|n| n < *limit);
        parts.len() == limits.len() && parts.iter().zip(limits).all(fits)
    };
    let zone = match zone.strip_prefix('.') {
        Some(rest) => rest.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        None => zone,
    };
    let offset = zone.strip_prefix(['+', '-']).is_some_and(|offset| is_clock(offset, &[24, 60]));
    is_clock(clock, &[24, 60, 60]) && (matches!(zone, "z" | "Z") || offset)
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else { return false };
    let address = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_domain = address.map_or_else(|| is_host(domain), |address| address.parse::<Ipv4Addr>().is_ok());
    is_domain && !local.split('.').any(str::is_empty) && !local.contains(['@', ' ', '"'])
}

/// What RFC 3986 allows in a reference, and each percent sign with two digits.
fn is_reference(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%{}".contains(&byte);
    let escapes = text.split('%').skip(1).all(|rest| {
        rest.get(..2).is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
    });
    text.bytes().all(allowed) && escapes && text.matches('#').count() <= 1
}

fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && is_reference(rest)
}

fn is_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escapes
}

fn is_relative_pointer(text: &str) -> bool {
    let rest = text.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let number = &text[..text.len() - rest.len()];
    !number.is_empty() && (number == "0" || !number.starts_with('0')) && (rest == "#" || is_pointer(rest))
}

fn is_duration(text: &str) -> bool {
    let form = "^P([0-9]+W|([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+S)?)?)$";
    Regex::new(form).expect("a pattern").is_match(text) && text.len() > 2 && !text.ends_with('T')
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[test]
fn every_format_of_json_schema_ends_well() {
    let engine = load_tiny("llama");
    type Check = fn(&str) -> bool;
    let formats: [(&str, &str, Check); 20] = [
        ("date-time", "2026-11-29T03:15:00Z", |text| {
            text.split_at_checked(11).is_some_and(|(date, time)| {
                is_date(&date[..10]) && date.to_lowercase().ends_with('t') && is_time(time)
            })
        }),
        ("date", "2024-02-29", is_date),
        ("time", "23:59:59+01:00", is_time),
        ("duration", "P1D", is_duration),
        ("email", "a@b.c", is_email),
        ("idn-email", "a@b.c", is_email),
        ("hostname", "a.b", is_host),
        ("idn-hostname", "a.b", is_host),
        ("ipv4", "1.2.3.4", |text| text.parse::<Ipv4Addr>().is_ok()),
        ("ipv6", "::1", |text| text.parse::<Ipv6Addr>().is_ok()),
        ("uri", "http://a.b/c", is_uri),
        ("uri-reference", "/a/b?c#d", is_reference),
        ("iri", "http://a.b/c", is_uri),
        ("iri-reference", "/a/b?c#d", is_reference),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", is_uuid),
        ("uri-template", "/a/b", is_reference),
        ("json-pointer", "/a/b", is_pointer),
        ("relative-json-pointer", "1/a", is_relative_pointer),
        ("regex", "ab", |text| Regex::new(text).is_ok()),
        ("colour", "red", |_| true),
    ];
    for (format, example, is_valid) in formats {
        let of_text = |json: &str| serde_json::from_str::<String>(json).is_ok_and(|text| is_valid(&text));
        let schema = json!({"type": "string", "format": format});
        ends_well(&engine, &Constraint::JsonSchema(schema.clone()), &json!(example).to_string(), &of_text);
        let of_field = |json: &str| {
            let value: Value = serde_json::from_str(json).unwrap_or_default();
            // Integers may have any number of digits.
            value["x"].as_str().is_some_and(is_valid)
                && value["n"].as_f64().is_some_and(|n| n >= 0.0 && n.fract() == 0.0)
        };
        let schema = json!({"type": "object", "properties": {"x": schema, "n": {"type": "integer", "minimum": 0}},
            "required": ["x", "n"], "additionalProperties": false});
        let example = format!("{{\"x\": {}, \"n\": 1}}", json!(example));
        ends_well(&engine, &Constraint::JsonSchema(schema), &example, &of_field);
    }
}

/// Patterns of JSON Schema may match anywhere in a text.
const PATTERNS: [(&str, &str); 50] = [
    ("abc", "abc"),
    ("abcdefgh", "abcdefgh"),
    ("foo|bar", "bar"),
    ("[0-9]", "1"),
    ("[0-9]{3}", "123"),
    ("[0-9]{3}-[0-9]{4}", "555-1234"),
    ("^a", "a"),
    ("a$", "a"),
    ("^abc", "abc"),
    ("xyz$", "xyz"),
    ("^[a-z]+$", "a"),
    ("^[A-Z][a-z]{2,5}$", "Abc"),
    ("^.{5}$", "abcde"),
    (".{10}", "abcdefghij"),
    ("^.{3,6}$", "abc"),
    ("a.c", "abc"),
    ("a+b+", "ab"),
    ("(ab)+c", "abc"),
    ("(ab|cd){2}", "abcd"),
    ("x{7}", "xxxxxxx"),
    ("^(yes|no)$", "no"),
    ("hello world", "hello world"),
    ("[^a-z]", "A"),
    ("[^a-z]{4}", "1234"),
    ("\\d+", "1"),
    ("\\d{2}:\\d{2}", "12:34"),
    ("\\w+@\\w+", "a@b"),
    ("^\\w+@\\w+\\.com$", "a@b.com"),
    ("\\.", "."),
    ("\\$[0-9]+\\.[0-9]{2}", "$1.00"),
    ("^#[0-9a-f]{6}$", "#00ff00"),
    ("^#?[0-9a-f]{3}$", "abc"),
    ("(red|green|blue)$", "red"),
    ("^v[0-9]+\\.[0-9]+\\.[0-9]+$", "v1.2.3"),
    ("[aeiou]{3}", "aei"),
    ("^[^aeiou]{4}$", "bcdf"),
    ("q[^u]", "qa"),
    ("end\\.$", "end."),
    ("^begin", "begin"),
    ("^begin.*end$", "beginend"),
    ("a.*b.*c", "abc"),
    ("a.{4}z", "abcdez"),
    ("(a|b)(c|d)(e|f)", "ace"),
    ("^(a|bb|ccc)d$", "ad"),
    ("[A-Z]{2}[0-9]{2}[A-Z]{2}", "AB12CD"),
    ("^[0-9]+(,[0-9]+)*$", "1,2"),
    ("^/([a-z]+/)+$", "/a/"),
    ("ß|é", "é"),
    ("日本", "日本"),
    ("^[a-z]{2}(-[A-Z]{2})?$", "en"),
];

#[test]
fn unanchored_patterns_end_well() {
    let engine = load_tiny("llama");
    for (pattern, example) in PATTERNS {
        let matches = Regex::new(pattern).expect("a pattern");
        let is_valid =
            |json: &str| serde_json::from_str::<String>(json).is_ok_and(|text| matches.is_match(&text));
        let schema = json!({"type": "string", "pattern": pattern});
        ends_well(&engine, &Constraint::JsonSchema(schema), &json!(example).to_string(), &is_valid);
    }
}

#[test]
fn regular_expressions_end_well() {
    let engine = load_tiny("llama");
    for (pattern, example) in [
        (".*abcdefgh.*", "abcdefgh"),
        ("(.|\\n)*END", "END"),
        ("[a-z]+@[a-z]+\\.(com|org)", "a@b.org"),
        ("(0|[1-9][0-9]*)(\\.[0-9]{2}){3}", "1.00.00.00"),
        ("[ACGT]{12}", "ACGTACGTACGT"),
        ("x(yz|yyy)*w{3}", "xwww"),
    ] {
        let whole = Regex::new(&format!("^(?s:{pattern})$")).expect("a pattern");
        ends_well(&engine, &Constraint::Regex(pattern.to_owned()), example, &|text| whole.is_match(text));
    }
}

/// Where alternatives differ in what they need, the cheapest is the way.
#[test]
fn the_cheapest_alternative_is_the_way() {
    let engine = load_tiny("llama");
    let object = |n: usize| {
        let names: Vec<String> = (0..n).map(|index| format!("name{index}")).collect();
        let properties: Value =
            names.iter().map(|name| (name.clone(), json!({"type": "string", "minLength": 4}))).collect();
        json!({"type": "object", "properties": properties, "required": names, "additionalProperties": false})
    };
    let parses = |json: &str| serde_json::from_str::<Value>(json).is_ok();
    let schema =
        json!({"anyOf": [object(9), object(2), {"type": "array", "items": object(3), "minItems": 1}]});
    let example = r#"{"name0": "abcd", "name1": "abcd"}"#;
    ends_well(&engine, &Constraint::JsonSchema(schema), example, &parses);
    let tree = json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "object", "additionalProperties": false,
        "properties": {"left": {"$ref": "#/$defs/a~1b"}, "value": {"type": "integer"}}, "required": ["value"]}}});
    ends_well(&engine, &Constraint::JsonSchema(tree), r#"{"value": 1}"#, &parses);
    ends_well(&engine, &Constraint::JsonSchema(json!({})), "1", &parses);
}

/// Whether an answer is one of a form's.
type IsValid<'c> = &'c dyn Fn(&str) -> bool;

/// What the compiler itself refuses, and the same said otherwise lets through.
#[test]
fn schemas_that_are_said_otherwise_end_well() {
    let engine = load_tiny("llama");
    let cat =
        json!({"type": "object", "properties": {"kind": {"const": "cat"}}, "additionalProperties": false});
    let dog = json!({"type": "object", "properties": {"kind": {"const": "dog"}, "age": {"type": "integer", "maximum": 99}},
        "additionalProperties": false});
    let kind = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default()["kind"].clone();
    let record = |text: &str, is_name: fn(&str) -> bool| {
        let parsed: Value = serde_json::from_str(text).unwrap_or_default();
        parsed
            .as_object()
            .is_some_and(|fields| fields.iter().all(|(name, value)| is_name(name) && value.is_boolean()))
    };
    let cases: [(Value, &str, IsValid<'_>); 5] = [
        (json!({"oneOf": [cat, dog]}), "{\"kind\": \"cat\"}", &|text| {
            kind(text) == "cat" || kind(text) == "dog"
        }),
        (json!({"oneOf": [{"const": 1}, {"const": 2}]}), "1", &|text| ["1", "2"].contains(&text)),
        (
            json!({"oneOf": [{"type": "integer", "minimum": 1, "maximum": 2}, {"type": "integer", "minimum": 5, "maximum": 6}]}),
            "1",
            &|text| ["1", "2", "5", "6"].contains(&text),
        ),
        (
            json!({"type": "object", "propertyNames": {"enum": ["a.b", "<c>"]}, "additionalProperties": {"type": "boolean"}}),
            "{\"a.b\": true}",
            &|text| record(text, |name| ["a.b", "<c>"].contains(&name)),
        ),
        (
            json!({"type": "object", "propertyNames": {"pattern": "^[ab]{2}$"}, "additionalProperties": {"type": "boolean"}}),
            "{\"ab\": true}",
            &|text| record(text, |name| name.len() == 2 && name.bytes().all(|byte| b"ab".contains(&byte))),
        ),
    ];
    for (schema, example, is_valid) in cases {
        ends_well(&engine, &Constraint::JsonSchema(schema), example, is_valid);
    }
}
