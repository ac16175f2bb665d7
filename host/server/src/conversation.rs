//! From a conversation to a prompt, through the model's chat template.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use herald::NeuroEngine;
use herald::chat::ChatTemplate;

use crate::error::ApiError;
use crate::tools::{Choice, Form, Syntax, ToolUse};

/// What a client says, before it becomes a prompt.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// OpenAI's messages, with texts as contents.
    pub(crate) messages: Vec<Value>,
    pub(crate) uses: ToolUse,
    /// Variables for the template.
    pub(crate) variables: Map<String, Value>,
    /// Whether a new turn begins.
    pub(crate) begins_turn: bool,
    /// Whether the last message is gone on with.
    pub(crate) continues: bool,
}

/// A model's chat template, and how the model writes.
#[derive(Debug)]
pub(crate) struct ChatModel {
    template: ChatTemplate,
    pub(crate) form: Arc<Form>,
    /// Whether the template shows tools, calls and results.
    knows_tools: bool,
    /// Whether it wants arguments as objects.
    object_arguments: bool,
    /// Whether calls' ids must be nine letters and digits.
    pub(crate) short_ids: bool,
    knows_developer: bool,
}

/// A prompt.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    /// Whether it ends within the model's thoughts.
    pub(crate) thinks: bool,
}

const GENERIC: &str = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
    You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const GENERIC_CALLS: &str = "\n</tools>\n\nFor each function call, return a json object with function name and arguments \
    within <tool_call></tool_call> XML tags:\n<tool_call>\n\
    {\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>";

fn one(name: &str, value: impl Into<Value>) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value.into())])
}

impl ChatModel {
    /// The engine's.
    ///
    /// # Errors
    /// Where the model has no chat template, or it is none.
    pub(crate) fn load(engine: &NeuroEngine) -> Result<Self, ApiError> {
        let template = engine.chat_template()?;
        let source = engine.chat_template_source().unwrap_or_default().to_owned();
        Ok(Self::new(template, &source))
    }

    /// Finds out what a template shows, by rendering examples.
    pub(crate) fn new(template: ChatTemplate, source: &str) -> Self {
        let tool = json!({"type": "function", "function": {"name": "name_of_tool", "description": "d",
            "parameters": {"type": "object", "properties": {"argument": {"type": "string", "description": "d"}}}}});
        let user = json!({"role": "user", "content": "u"});
        let call = |arguments: Value| {
            json!({"role": "assistant", "content": "", "tool_calls": [{"id": "call00000", "type": "function",
                "function": {"name": "name_of_tool", "arguments": arguments}}]})
        };
        let result =
            json!({"role": "tool", "name": "name_of_tool", "tool_call_id": "call00000", "content": "r"});
        let render =
            |messages: Vec<Value>, variables| template.render_with(messages, variables).unwrap_or_default();
        let shown = render(vec![user.clone()], one("tools", json!([tool]))).contains("name_of_tool");
        let written = |arguments| render(vec![user.clone(), call(arguments), result.clone()], Map::new());
        let of_object = written(json!({"argument": "value"}));
        let of_text = written("{\"argument\": \"value\"}".into());
        let whole =
            |text: &str| text.contains("name_of_tool") && text.contains("argument") && text.contains("value");
        // A dict that was joined to a text is Python's, and a text that became JSON is quoted twice.
        let object_arguments = whole(&of_object) && !of_object.contains("{'argument'");
        let knows_tools = shown && (object_arguments || whole(&of_text));
        let form = if knows_tools {
            let found = Form::of_source(source).or_else(|| Form::of_template(&template, source));
            found.unwrap_or_else(Form::hermes)
        } else {
            Form { thoughts: Form::thoughts_of(source), ..Form::hermes() }
        };
        let form = match Form::of_source(source) {
            // Its thoughts and calls come in channels, whatever the template shows.
            Some(harmony) if harmony.syntax == Syntax::Harmony => harmony,
            _ => form,
        };
        Self {
            short_ids: source.contains("length 9") || source.contains("alphanumeric strings"),
            knows_developer: source.contains("developer"),
            template,
            form: Arc::new(form),
            knows_tools,
            object_arguments,
        }
    }

    /// Whether the form's marks are special tokens of the model, which must be written out then.
    pub(crate) fn has_special_marks(&self, engine: &NeuroEngine) -> bool {
        self.form.marks().any(|mark| engine.tokenizer().control_token(mark.trim()).is_some())
    }

    /// The prompt of a conversation. Contents never become control tokens, unless they are trusted.
    ///
    /// # Errors
    /// Where the template refuses the messages, or the vocabulary can't express them.
    pub(crate) fn prompt(
        &self,
        engine: &NeuroEngine,
        conversation: &Conversation,
        trust: bool,
    ) -> Result<Prompt, ApiError> {
        let tokenizer = engine.tokenizer();
        let (mut messages, tools) = self.messages(conversation);
        let mut tools = tools;
        let mark = if trust { None } else { unused_mark(&messages, &tools)? };
        let mut is_marked = false;
        if let Some(mark) = mark {
            let mut spell = |text: &mut String| {
                if let Some(marked) = tokenizer.mark_controls(text, mark) {
                    *text = marked;
                    is_marked = true;
                }
            };
            messages.iter_mut().for_each(|message| each_text(message, true, &mut spell));
            each_text(&mut tools, false, &mut spell);
        }
        let mut variables = conversation.variables.clone();
        variables.insert("add_generation_prompt".to_owned(), conversation.begins_turn.into());
        if tools.as_array().is_some_and(|tools| !tools.is_empty()) {
            variables.insert("tools".to_owned(), tools);
        }
        let mut text = self.render(&messages, &variables)?;
        if conversation.continues {
            cut_after_last(&mut text, &messages)?;
        }
        engine.check_text(&text)?;
        let ids = match mark {
            Some(mark) if is_marked => {
                let ids = tokenizer.encode_marked(&text, mark)?;
                text.retain(|c| c != mark);
                tokenizer.as_prompt(ids)
            }
            _ => tokenizer.encode_prompt(&text, true)?,
        };
        let begin = self.form.thoughts.as_ref().map(|[begin, _]| begin.trim_end());
        let thinks = begin.is_some_and(|begin| text.trim_end().ends_with(begin));
        Ok(Prompt { text, ids, thinks })
    }

    /// Renders; where the template knows no system, its text goes before the first user's.
    fn render(&self, messages: &[Value], variables: &Map<String, Value>) -> Result<String, ApiError> {
        let failed = match self.template.render_with(messages.to_vec(), variables.clone()) {
            Ok(text) => return Ok(text),
            Err(error) => error,
        };
        if let [system, rest @ ..] = messages
            && system["role"] == "system"
            && let Some(place) = rest.iter().position(|message| message["role"] == "user")
        {
            let mut rest = rest.to_vec();
            let text = |message: &Value| message["content"].as_str().unwrap_or_default().to_owned();
            rest[place]["content"] = format!("{}\n\n{}", text(system), text(&rest[place])).into();
            if let Ok(text) = self.template.render_with(rest, variables.clone()) {
                return Ok(text);
            }
        }
        Err(ApiError::from(herald::Error::from(failed)).at("messages"))
    }

    /// The messages as the template wants them, and the tools for it.
    fn messages(&self, conversation: &Conversation) -> (Vec<Value>, Value) {
        let uses = &conversation.uses;
        let shown = uses.choice != Choice::None && !uses.tools.is_empty();
        let definitions: Vec<Value> = uses.tools.iter().map(|tool| tool.definition.clone()).collect();
        let mut names: HashMap<String, String> = HashMap::new();
        let mut messages = conversation.messages.clone();
        for message in &mut messages {
            if message["role"] == "developer" && !self.knows_developer {
                message["role"] = "system".into();
            }
            if let Some(calls) = message["tool_calls"].as_array_mut() {
                calls.iter_mut().for_each(|call| self.call(call, &mut names));
            }
            if message["role"] == "tool" {
                let id = message["tool_call_id"].as_str().unwrap_or_default();
                if message["name"].is_null()
                    && let Some(name) = names.get(id)
                {
                    message["name"] = name.as_str().into();
                }
                if self.short_ids && message["tool_call_id"].is_string() {
                    message["tool_call_id"] =
                        short(message["tool_call_id"].as_str().unwrap_or_default()).into();
                }
            }
        }
        if self.knows_tools || self.form.syntax == Syntax::Harmony {
            return (messages, if shown { definitions.into() } else { Value::Null });
        }
        (generic(messages, if shown { &definitions } else { &[] }), Value::Null)
    }

    fn call(&self, call: &mut Value, names: &mut HashMap<String, String>) {
        if call["type"].is_null() {
            call["type"] = "function".into();
        }
        let name = call["function"]["name"].as_str().unwrap_or_default().to_owned();
        if let Some(id) = call["id"].as_str() {
            names.insert(id.to_owned(), name);
            if self.short_ids {
                call["id"] = short(id).into();
            }
        }
        let arguments = &mut call["function"]["arguments"];
        match arguments.as_str().map(serde_json::from_str::<Value>) {
            Some(Ok(object)) if self.object_arguments && object.is_object() => *arguments = object,
            Some(Err(_)) if self.object_arguments && arguments == "" => *arguments = json!({}),
            None if !self.object_arguments && arguments.is_object() => {
                *arguments = arguments.to_string().into()
            }
            None if arguments.is_null() => *arguments = json!({}),
            _ => {}
        }
    }
}

/// An id of nine letters and digits for another.
fn short(id: &str) -> Cow<'_, str> {
    if id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Cow::Borrowed(id);
    }
    // FNV-1a: the same id always gives the same.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = format!("{hash:016x}");
    Cow::Owned(hash[..9].to_owned())
}

/// The messages for a template that knows no tools: they are described in the system's text, calls are texts of the assistant's, and
/// results of the user's.
fn generic(messages: Vec<Value>, definitions: &[Value]) -> Vec<Value> {
    let mut changed: Vec<Value> = Vec::with_capacity(messages.len() + 1);
    for message in messages {
        let text = message["content"].as_str().unwrap_or_default();
        if message["role"] == "tool" {
            let result = format!("<tool_response>\n{text}\n</tool_response>");
            // Results of one turn are one message: templates want roles in turn.
            match changed.last_mut() {
                Some(last) if last["is_result"] == true => {
                    last["content"] =
                        format!("{}\n{result}", last["content"].as_str().unwrap_or_default()).into();
                }
                _ => changed.push(json!({"role": "user", "content": result, "is_result": true})),
            }
        } else if let Some(calls) = message["tool_calls"].as_array() {
            let written = calls.iter().map(|call| {
                let function = &call["function"];
                let arguments = match function["arguments"].as_str() {
                    Some(text) => text.to_owned(),
                    None => function["arguments"].to_string(),
                };
                format!(
                    "<tool_call>\n{{\"name\": {}, \"arguments\": {arguments}}}\n</tool_call>",
                    function["name"]
                )
            });
            let texts: Vec<String> =
                Some(text.to_owned()).filter(|text| !text.is_empty()).into_iter().chain(written).collect();
            changed.push(json!({"role": "assistant", "content": texts.join("\n")}));
        } else {
            changed.push(message);
        }
    }
    if !definitions.is_empty() {
        let shown: String = definitions.iter().map(|tool| format!("\n{tool}")).collect();
        let text = format!("{GENERIC}{shown}{GENERIC_CALLS}");
        match changed.first_mut().filter(|first| first["role"] == "system") {
            Some(first) => {
                let before = first["content"].as_str().unwrap_or_default();
                first["content"] = format!("{before}\n\n{text}").into();
            }
            None => changed.insert(0, json!({"role": "system", "content": text})),
        }
    }
    changed
}

/// Ends the text after the last message's content, so that the model goes on with it.
fn cut_after_last(text: &mut String, messages: &[Value]) -> Result<(), ApiError> {
    let last = messages.last().and_then(|message| message["content"].as_str()).unwrap_or_default().trim();
    let found = if last.is_empty() { None } else { text.rfind(last) };
    let place = found.ok_or_else(|| {
        let what = "continue_final_message is true, where a last message with a text that the template writes was expected";
        ApiError::invalid(what).at("continue_final_message")
    })?;
    text.truncate(place + last.len());
    Ok(())
}

/// A character that none of the texts has. Unicode keeps some for such uses, which are no text.
fn unused_mark(messages: &[Value], tools: &Value) -> Result<Option<char>, ApiError> {
    let written = format!("{}{tools}", Value::from(messages.to_vec()));
    let mark = ('\u{fdd0}'..='\u{fdef}').find(|mark| !written.contains(*mark));
    mark.map(Some).ok_or_else(|| {
        ApiError::invalid("the messages have all of U+FDD0 to U+FDEF, which are no characters").at("messages")
    })
}

/// Calls `each` with every text within a value: of a message, of all of its fields but those that say what it is.
fn each_text(value: &mut Value, is_message: bool, each: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, false, each)),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if !(is_message && name == "role" && is_known_role(field)) {
                    each_text(field, false, each);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_known_role(role: &Value) -> bool {
    matches!(role.as_str(), Some("system" | "user" | "assistant" | "tool" | "developer"))
}

/// OpenAI's messages, checked: each has a role, and a content that is a text.
///
/// # Errors
/// Where one isn't a message, or has parts that are no text.
pub(crate) fn messages(values: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    if values.is_empty() {
        let what = "messages is empty, where at least one message was expected";
        return Err(ApiError::invalid(what).at("messages"));
    }
    let mut messages = Vec::with_capacity(values.len());
    for (index, mut value) in values.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let wrong = |field: &str, expected: &str| {
            let at = if field.is_empty() { place.clone() } else { format!("{place}.{field}") };
            ApiError::invalid(format!("{at} was expected to be {expected}")).at(at)
        };
        let message =
            value.as_object_mut().ok_or_else(|| wrong("", "an object with a role and a content"))?;
        message.retain(|_, field| !field.is_null());
        match message.get("role").and_then(Value::as_str) {
            Some("function") => {
                message.insert("role".to_owned(), "tool".into());
            }
            Some(role) if !role.is_empty() => {}
            _ => return Err(wrong("role", "the text of a role, such as user")),
        }
        let text = match message.remove("content") {
            None => String::new(),
            Some(content) => text_of(&content).map_err(|expected| wrong("content", &expected))?,
        };
        message.insert("content".to_owned(), text.into());
        if let Some(function) = message.remove("function_call") {
            let id = format!("call_{index}");
            message.insert(
                "tool_calls".to_owned(),
                json!([{"id": id, "type": "function", "function": function}]),
            );
        }
        if message.get("tool_calls").is_some_and(|calls| calls.as_array().is_some_and(Vec::is_empty)) {
            message.remove("tool_calls");
        }
        check_calls(message.get("tool_calls")).map_err(|expected| wrong("tool_calls", expected))?;
        // Templates know both names.
        if let Some(thoughts) = message.get("reasoning_content").or(message.get("reasoning")).cloned() {
            message.entry("reasoning_content").or_insert_with(|| thoughts.clone());
            message.entry("thinking").or_insert(thoughts);
        }
        messages.push(value);
    }
    Ok(messages)
}

fn check_calls(calls: Option<&Value>) -> Result<(), &'static str> {
    let Some(calls) = calls else { return Ok(()) };
    let is_call = |call: &Value| call["function"]["name"].is_string();
    match calls.as_array().is_some_and(|calls| calls.iter().all(is_call)) {
        true => Ok(()),
        false => Err("a list of calls, each with a function that has a name"),
    }
}

/// The text of a content: a text, or parts that are texts.
///
/// # Errors
/// What was expected.
pub(crate) fn text_of(content: &Value) -> Result<String, String> {
    match content {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut text = String::new();
            for part in parts {
                match (part, part["type"].as_str()) {
                    (Value::String(part), _) => text.push_str(part),
                    (_, Some("text" | "input_text" | "output_text")) if part["text"].is_string() => {
                        text.push_str(part["text"].as_str().unwrap_or_default());
                    }
                    (_, Some("refusal")) => text.push_str(part["refusal"].as_str().unwrap_or_default()),
                    // What was thought before is no part of what is said.
                    (_, Some("thinking" | "redacted_thinking" | "reasoning")) => {}
                    (_, kind) => {
                        return Err(format!(
                            "text, as only that is served, and not a part of type {:?}",
                            kind.unwrap_or("?")
                        ));
                    }
                }
            }
            Ok(text)
        }
        _ => Err("a text, a list of parts, or null".to_owned()),
    }
}
