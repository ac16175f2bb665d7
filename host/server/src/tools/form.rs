//! How a family of models writes calls of tools and thoughts.

use serde_json::{Map, Value, json};

use herald::chat::ChatTemplate;

/// How the name and the arguments of one call are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// A JSON object with these keys for the name and the arguments.
    Json { name: &'static str, arguments: &'static str },
    /// The name, then the arguments as a JSON object: what stands before, between and behind them.
    Named { before: &'static str, between: &'static str, after: &'static str },
    /// Each argument between tags.
    Tagged(Tags),
    /// Calls of functions as Python writes them, in a list.
    Python,
    /// `call:NAME{key:value, ...}`, with this around texts.
    Braces { quote: &'static str },
    /// The channels of gpt-oss.
    Harmony,
}

/// Tags around a call's name, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) name: [&'static str; 2],
    pub(crate) key: [&'static str; 2],
    pub(crate) value: [&'static str; 2],
    pub(crate) end: &'static str,
}

/// Qwen 3 Coder's and Qwen 3.5's.
const FUNCTION_TAGS: Tags = Tags {
    name: ["<function=", ">\n"],
    key: ["<parameter=", ">\n"],
    value: ["", "\n</parameter>\n"],
    end: "</function>",
};

/// GLM 4.5's.
const ARGUMENT_TAGS: Tags = Tags {
    name: ["", "\n"],
    key: ["<arg_key>", "</arg_key>\n"],
    value: ["<arg_value>", "</arg_value>\n"],
    end: "",
};

/// How a family writes its calls and thoughts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    /// Around all calls of an answer, where something is.
    pub(crate) section: [String; 2],
    /// Around each call.
    pub(crate) call: [String; 2],
    /// Whether the calls are in a JSON list.
    pub(crate) list: bool,
    /// Between two calls.
    pub(crate) between: &'static str,
    pub(crate) syntax: Syntax,
    /// Around thoughts.
    pub(crate) thoughts: Option<[String; 2]>,
}

const HERMES: Syntax = Syntax::Json { name: "name", arguments: "arguments" };

fn pair(texts: [&str; 2]) -> [String; 2] {
    texts.map(str::to_owned)
}

impl Form {
    fn new(section: [&str; 2], call: [&str; 2], syntax: Syntax) -> Self {
        Self { section: pair(section), call: pair(call), list: false, between: "\n", syntax, thoughts: None }
    }

    fn list(section: [&str; 2], syntax: Syntax) -> Self {
        Self { list: true, between: ", ", ..Self::new(section, ["", ""], syntax) }
    }

    /// Hermes's and ChatML's, which is also what models without a form are taught.
    pub(crate) fn hermes() -> Self {
        Self::new(["", ""], ["<tool_call>\n", "\n</tool_call>"], HERMES)
    }

    /// What a template's source shows; `None` where no known family does so.
    pub(crate) fn of_source(source: &str) -> Option<Self> {
        let has = |text: &str| source.contains(text);
        let mut form = if has("<|channel|>") && has("<|message|>") {
            Self::new(["", ""], ["", "<|call|>"], Syntax::Harmony)
        } else if has("<|tool_call>call:") {
            Self::new(["", ""], ["<|tool_call>", "<tool_call|>"], Syntax::Braces { quote: "<|\"|>" })
        } else if has("<start_function_call>") {
            let call = ["<start_function_call>", "<end_function_call>"];
            Self::new(["", ""], call, Syntax::Braces { quote: "<escape>" })
        } else if has("<arg_key>") {
            Self::new(["", ""], ["<tool_call>", "</tool_call>"], Syntax::Tagged(ARGUMENT_TAGS))
        } else if has("<function=") && has("<parameter=") {
            Self::new(["", ""], ["<tool_call>\n", "\n</tool_call>"], Syntax::Tagged(FUNCTION_TAGS))
        } else if has("<function=") {
            let syntax = Syntax::Named { before: "", between: ">", after: "" };
            Self::new(["", ""], ["<function=", "</function>"], syntax)
        } else if has("<｜tool▁calls▁begin｜>") {
            let section = ["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"];
            let syntax = if has("```json") {
                Syntax::Named { before: "function<｜tool▁sep｜>", between: "\n```json\n", after: "\n```" }
            } else {
                Syntax::Named { before: "", between: "<｜tool▁sep｜>", after: "" }
            };
            Self::new(section, ["<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"], syntax)
        } else if has("[TOOL_CALLS]") && has("[ARGS]") {
            let syntax = Syntax::Named { before: "", between: "[ARGS]", after: "" };
            Self { between: "", ..Self::new(["", ""], ["[TOOL_CALLS]", ""], syntax) }
        } else if has("[TOOL_CALLS]") {
            Self::list(["[TOOL_CALLS]", ""], HERMES)
        } else if has("<|tool_call_start|>") || has("<|tool_list_start|>") {
            Self::new(["", ""], ["<|tool_call_start|>", "<|tool_call_end|>"], Syntax::Python)
        } else if has("<|tool_call|>") {
            Self::list(["<|tool_call|>", ""], HERMES)
        } else if has("<|START_ACTION|>") {
            let syntax = Syntax::Json { name: "tool_name", arguments: "parameters" };
            Self::list(["<|START_ACTION|>", "<|END_ACTION|>"], syntax)
        } else if has("<tool_call>") {
            Self::hermes()
        } else if has("<|python_tag|>") || (has("<|start_header_id|>") && has("\"parameters\": ")) {
            let syntax = Syntax::Json { name: "name", arguments: "parameters" };
            Self { between: "; ", ..Self::new(["", ""], ["", ""], syntax) }
        } else {
            return None;
        };
        form.thoughts = Self::thoughts_of(source);
        Some(form)
    }

    /// What stands around thoughts in an answer.
    pub(crate) fn around_thoughts(&self) -> Option<[String; 2]> {
        match self.syntax {
            Syntax::Harmony => Some(pair(["<|channel|>analysis<|message|>", "<|end|>"])),
            _ => self.thoughts.clone(),
        }
    }

    /// What stands around thoughts, by a template's source.
    pub(crate) fn thoughts_of(source: &str) -> Option<[String; 2]> {
        const KNOWN: [[&str; 2]; 5] = [
            ["<|channel>thought\n", "<channel|>"],
            ["<seed:think>", "</seed:think>"],
            ["[THINK]", "[/THINK]"],
            ["<|START_THINKING|>", "<|END_THINKING|>"],
            ["<think>", "</think>"],
        ];
        KNOWN.iter().find(|[_, end]| source.contains(end)).map(|around| pair(*around))
    }

    /// What a template itself writes for a call, where it isn't of a known family and the call is a JSON object.
    pub(crate) fn of_template(template: &ChatTemplate, source: &str) -> Option<Self> {
        let user = json!({"role": "user", "content": "u"});
        let arguments = json!({"argument": "value"});
        let call = json!({"id": "call00000", "type": "function",
            "function": {"name": "name_of_tool", "arguments": arguments}});
        let render = |assistant: Value, begins: bool| {
            let mut variables = Map::new();
            variables.insert("add_generation_prompt".to_owned(), begins.into());
            let messages =
                if assistant.is_null() { vec![user.clone()] } else { vec![user.clone(), assistant] };
            template.render_with(messages, variables).ok()
        };
        let prompt = render(Value::Null, true)?;
        let text = render(json!({"role": "assistant", "content": "said"}), false)?;
        let called = render(json!({"role": "assistant", "content": "", "tool_calls": [call]}), false)?;
        // What ends the turn is no part of the call.
        let turn_end = text.split_once("said")?.1;
        let written = called.strip_prefix(&prompt)?.strip_suffix(turn_end)?.trim();
        let name = written.find("name_of_tool")?;
        let begin = written[..name].rfind('{')?;
        let object: String = written[begin..].to_owned();
        let mut values = serde_json::Deserializer::from_str(&object).into_iter::<Value>();
        let value = values.next()?.ok()?;
        let end = begin + values.byte_offset();
        let names = ["name", "tool_name"];
        let keys = ["arguments", "parameters"];
        let name = names.into_iter().find(|key| value[key] == "name_of_tool")?;
        let arguments = keys.into_iter().find(|key| value[key] == arguments)?;
        let (before, after) = (written[..begin].trim_end(), written[end..].trim_start());
        let syntax = Syntax::Json { name, arguments };
        let mut form = match (before.strip_suffix('['), after.strip_prefix(']')) {
            (Some(before), Some(after)) => Self::list([before.trim_end(), after.trim_start()], syntax),
            _ => Self::new(["", ""], [&written[..begin], &written[end..]], syntax),
        };
        form.thoughts = Self::thoughts_of(source);
        Some(form)
    }

    /// The text by which calls begin; empty where an answer that begins with a brace is one.
    pub(crate) fn trigger(&self) -> &str {
        let begin = if self.section[0].is_empty() { &self.call[0] } else { &self.section[0] };
        begin.trim()
    }

    /// All marks of the form, for finding out which are special tokens.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &str> {
        let thoughts = self.thoughts.iter().flatten();
        let harmony = ["<|channel|>"].into_iter().filter(|_| self.syntax == Syntax::Harmony);
        let inner = match self.syntax {
            Syntax::Named { before, between, after } => [before, between, after],
            Syntax::Braces { quote } => [quote, "", ""],
            _ => [""; 3],
        };
        let around = self.section.iter().chain(&self.call).chain(thoughts).map(String::as_str);
        around.chain(harmony).chain(inner).filter(|mark| !mark.is_empty())
    }
}
