//! The tables for readers: docs/SERVER.md's, and `/openapi.json`.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::tables::ALL;
use super::{Api, Field, Kind, Role};
use crate::endpoints;

/// The tables of fields as docs/SERVER.md has them, in Markdown.
#[must_use]
pub fn documented() -> String {
    let mut text = String::new();
    for api in ALL {
        let heading = if api.name.starts_with('/') { format!("`{}`", api.name) } else { api.name.to_owned() };
        let _ = write!(
            text,
            "### Fields of {heading}\n\n| Field | Value | What becomes of it |\n| --- | --- | --- |\n"
        );
        for field in api.fields() {
            let kind = field.kind.expected();
            let _ = writeln!(text, "| `{}` | {kind} | {} |", field.name, becomes(field));
        }
        text.push('\n');
    }
    text
}

fn becomes(field: &Field) -> String {
    let about = field.about.replace('|', "\\|");
    let more = if about.is_empty() { String::new() } else { format!(": {about}") };
    match field.role {
        Role::Served => about,
        Role::Noted => format!("changes nothing{more}"),
        Role::Only([]) => format!("refused{more}"),
        Role::Only(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("refused but for {}{more}", values.join(" or "))
        }
    }
}

/// The description of the server's endpoints in OpenAPI 3.1.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints() {
        let api = ALL.iter().find(|api| api.name == endpoint.path);
        let method = endpoint.method.to_lowercase();
        let mut operation = json!({
            "summary": endpoint.about,
            "responses": {
                "200": {"description": "the answer"},
                "4XX": {"description": "why there is none, in one sentence"},
            },
        });
        if let Some(api) = api {
            operation["requestBody"] =
                json!({"required": true, "content": {"application/json": {"schema": schema(api)}}});
        }
        if endpoint.path.ends_with("/NAME") {
            operation["parameters"] =
                json!([{"name": "NAME", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        let path = endpoint.path.replace("NAME", "{NAME}");
        paths.entry(path).or_insert_with(|| json!({}))[method] = operation;
    }
    let version = env!("CARGO_PKG_VERSION");
    json!({"openapi": "3.1.0", "info": {"title": "HERALD", "version": version}, "paths": paths})
}

fn schema(api: &Api) -> Value {
    let properties: Map<String, Value> =
        api.fields().map(|field| (field.name.to_owned(), property(field))).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn property(field: &Field) -> Value {
    let mut schema = match field.kind {
        Kind::Flag => json!({"type": ["boolean", "null"]}),
        Kind::Integer => json!({"type": ["integer", "null"]}),
        Kind::Number => json!({"type": ["number", "null"]}),
        Kind::Text => json!({"type": ["string", "null"]}),
        Kind::Texts => json!({"type": ["string", "array", "null"], "items": {"type": "string"}}),
        Kind::List => json!({"type": ["array", "null"]}),
        Kind::Object => json!({"type": ["object", "null"]}),
        Kind::Any => json!({}),
    };
    if let Role::Only(values) = field.role {
        let values = values.iter().filter_map(|value| serde_json::from_str::<Value>(value).ok());
        schema = json!({"enum": values.chain([Value::Null]).collect::<Vec<_>>()});
    }
    schema["description"] = becomes(field).into();
    schema
}
