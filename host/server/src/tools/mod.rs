//! Tools: functions that a model may call.
//!
//! Each family of models writes its calls in its own way ([`Form`]). From that follow the grammar that keeps the arguments to their
//! schemas ([`grammar`]) and the reader that finds the calls, and the model's thoughts, in the answer as it comes ([`Reader`]).

mod form;
mod grammar;
mod harmony;
mod json;
mod literals;
mod read;
#[cfg(test)]
mod tests;

pub(crate) use form::{Form, Syntax};
pub(crate) use grammar::{answer_in, calls};
pub(crate) use read::{Delta, Reader};

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::wrong;

/// A function that the model may call.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// The schema of its arguments.
    pub(crate) parameters: Value,
    /// As chat templates want it: `{"type": "function", "function": {...}}`.
    pub(crate) definition: Value,
}

/// Which tools an answer calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None: they are not even shown.
    None,
    /// As the model likes.
    #[default]
    Auto,
    /// At least one.
    Required,
    /// One of these.
    Named(Vec<String>),
}

/// The tools of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct ToolUse {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: Choice,
    /// Whether an answer may have several calls.
    pub(crate) parallel: bool,
}

impl Tool {
    pub(crate) fn new(name: &str, description: Option<&Value>, parameters: Option<&Value>) -> Self {
        let parameters = parameters
            .filter(|schema| schema.as_object().is_some_and(|schema| !schema.is_empty()))
            .cloned()
            .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
        let mut function = Map::new();
        function.insert("name".to_owned(), name.into());
        // Templates take for granted that there is one.
        function.insert("description".to_owned(), description.cloned().unwrap_or_else(|| "".into()));
        function.insert("parameters".to_owned(), parameters.clone());
        let definition = json!({"type": "function", "function": function});
        Self { name: name.to_owned(), parameters, definition }
    }

    /// Of OpenAI's definition, with the function in a field of its own (chat completions) or not (responses).
    fn read(value: &Value, place: &str) -> Result<Self, ApiError> {
        if let Some(kind) = value["type"].as_str().filter(|kind| *kind != "function") {
            let expected = "\"function\" (the server has no tools of its own)";
            return Err(wrong(&format!("{place}.type"), &format!("{kind:?}"), expected));
        }
        let function = value.get("function").unwrap_or(value);
        let name = function["name"].as_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| wrong(&format!("{place}.name"), "missing", "a function's name"))?;
        let parameters = function.get("parameters").filter(|schema| !schema.is_null());
        if let Some(schema) = parameters.filter(|schema| !schema.is_object()) {
            return Err(wrong(&format!("{place}.parameters"), &schema.to_string(), "a JSON schema"));
        }
        Ok(Self::new(name, function.get("description").filter(|text| text.is_string()), parameters))
    }

    /// Of a request's list.
    ///
    /// # Errors
    /// Where one is no function.
    pub(crate) fn list(values: &[Value]) -> Result<Vec<Self>, ApiError> {
        let read = |(index, value)| Self::read(value, &format!("tools[{index}]"));
        values.iter().enumerate().map(read).collect()
    }
}

impl Choice {
    /// Of OpenAI's `tool_choice`.
    ///
    /// # Errors
    /// Where it is something else.
    pub(crate) fn read(value: &Value) -> Result<Self, ApiError> {
        let name =
            |value: &Value| value["name"].as_str().or(value["function"]["name"].as_str()).map(str::to_owned);
        let unknown = || {
            wrong(
                "tool_choice",
                &value.to_string(),
                "none, auto, required, or an object with a function's name",
            )
        };
        match value.as_str() {
            Some("none") => return Ok(Self::None),
            Some("auto") => return Ok(Self::Auto),
            Some("required" | "any") => return Ok(Self::Required),
            Some(_) => return Err(unknown()),
            None => {}
        }
        if value["type"] != "allowed_tools" {
            return name(value).map(|name| Self::Named(vec![name])).ok_or_else(unknown);
        }
        let allowed = value.get("allowed_tools").unwrap_or(value);
        let names: Option<Vec<String>> =
            allowed["tools"].as_array().and_then(|tools| tools.iter().map(name).collect());
        match (allowed["mode"].as_str(), names) {
            (Some("required"), Some(names)) => Ok(Self::Named(names)),
            (_, Some(_)) => Ok(Self::Auto),
            _ => Err(unknown()),
        }
    }
}

impl ToolUse {
    /// Checks that the choice names tools that are there.
    ///
    /// # Errors
    /// Where it doesn't.
    pub(crate) fn new(tools: Vec<Tool>, choice: Option<Choice>, parallel: bool) -> Result<Self, ApiError> {
        let choice = choice.unwrap_or_default();
        if let Choice::Named(names) = &choice
            && let Some(unknown) = names.iter().find(|name| tools.iter().all(|tool| tool.name != **name))
        {
            return Err(wrong("tool_choice", &format!("{unknown:?}"), "the name of one of the tools"));
        }
        if choice == Choice::Required && tools.is_empty() {
            return Err(wrong("tool_choice", "\"required\"", "\"auto\" or \"none\" (there are no tools)"));
        }
        Ok(Self { tools, choice, parallel })
    }

    /// The tools that an answer may call.
    pub(crate) fn callable(&self) -> Vec<&Tool> {
        match &self.choice {
            Choice::None => Vec::new(),
            Choice::Auto | Choice::Required => self.tools.iter().collect(),
            Choice::Named(names) => self.tools.iter().filter(|tool| names.contains(&tool.name)).collect(),
        }
    }
}
