//! Grammars, in Lark's form, that keep calls of tools to their schemas.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use herald::Constraint;

use super::form::{Form, Syntax, Tags};
use super::{Choice, Tool, ToolUse};

/// The id of the special token that is spelt so.
pub(crate) type SpecialToken<'t> = &'t dyn Fn(&str) -> Option<u32>;

/// Any text, a line's end included.
const ANY: &str = "/(?s:.*)/";

/// A mark, as special tokens and text.
fn mark(text: &str, special: SpecialToken<'_>) -> String {
    let (mut parts, mut plain, mut place) = (Vec::new(), String::new(), 0);
    let flush = |plain: &mut String, parts: &mut Vec<String>| {
        if !plain.is_empty() {
            parts.push(Value::from(std::mem::take(plain)).to_string());
        }
    };
    while let Some(c) = text[place..].chars().next() {
        let ends = (place + 1..=text.len()).rev().filter(|end| text.is_char_boundary(*end));
        match ends.filter_map(|end| Some((end, special(&text[place..end])?))).next() {
            Some((end, id)) => {
                flush(&mut plain, &mut parts);
                parts.push(format!("<[{id}]>"));
                place = end;
            }
            None => {
                plain.push(c);
                place += c.len_utf8();
            }
        }
    }
    flush(&mut plain, &mut parts);
    parts.join(" ")
}

/// A text within a regular expression between slashes.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || c == '_' || c == ' ' {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "\\u{{{:x}}}", u32::from(c));
        }
    }
    escaped
}

/// A schema as a rule's element, with the white space that models have read most.
fn schema(schema: &Value) -> String {
    let mut schema = if schema.is_object() { schema.clone() } else { json!({}) };
    schema["x-guidance"] =
        json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    format!("%json {schema}")
}

/// Text of a schema's length, of characters that this matches.
fn text_of_length(character: &str, schema: &Value) -> String {
    let bound = |name: &str| schema[name].as_u64();
    let least = bound("minLength").unwrap_or(0);
    match bound("maxLength") {
        None if least == 0 => format!("/{character}*/"),
        None => format!("/{character}{{{least},}}/"),
        Some(most) => format!("/{character}{{{least},{most}}}/"),
    }
}

/// The definitions that a schema refers to, which must stand at the root of one that holds it.
fn definitions(inner: &Value, outer: &mut Map<String, Value>) {
    for name in ["$defs", "definitions"] {
        if let Some(definitions) = inner.get(name) {
            outer.insert(name.to_owned(), definitions.clone());
        }
    }
}

struct Writer<'w> {
    form: &'w Form,
    special: SpecialToken<'w>,
    rules: String,
}

impl Writer<'_> {
    fn mark(&self, text: &str) -> String {
        mark(text, self.special)
    }

    fn rule(&mut self, name: &str, body: &str) {
        let body = if body.trim().is_empty() { "\"\"" } else { body };
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    /// What is between a call's marks.
    fn body(&mut self, index: usize, tool: &Tool) -> String {
        let name = Value::from(tool.name.as_str()).to_string();
        match self.form.syntax {
            Syntax::Json { name, arguments } => {
                let mut object = Map::new();
                object.insert("type".to_owned(), "object".into());
                object.insert(
                    "properties".to_owned(),
                    json!({name: {"const": tool.name}, arguments: tool.parameters}),
                );
                object.insert("required".to_owned(), json!([name, arguments]));
                object.insert("additionalProperties".to_owned(), false.into());
                definitions(&tool.parameters, &mut object);
                schema(&Value::Object(object))
            }
            Syntax::Named { before, between, after } => {
                let [before, between, after] = [before, between, after].map(|text| self.mark(text));
                format!("{before} {name} {between} {} {after}", schema(&tool.parameters))
            }
            Syntax::Tagged(tags) => self.tagged(index, tool, &tags),
            Syntax::Python => format!("\"[\" {name} \"(\" {} \")\" \"]\"", self.pairs(index, tool, "=")),
            Syntax::Braces { .. } => {
                format!("\"call:\" {name} \"{{\" {} \"}}\"", self.pairs(index, tool, ":"))
            }
            Syntax::Harmony => {
                let constrained = self.mark("<|constrain|>json<|message|>");
                let to = Value::from(format!("commentary to=functions.{} ", tool.name));
                format!("{} {to} {constrained} {}", self.mark("<|channel|>"), schema(&tool.parameters))
            }
        }
    }

    fn tagged(&mut self, index: usize, tool: &Tool, tags: &Tags) -> String {
        let around = |this: &Self, [open, close]: [&str; 2]| [this.mark(open), this.mark(close)];
        let [name_open, name_close] = around(self, tags.name);
        let [key_open, key_close] = around(self, tags.key);
        let [value_open, value_close] = around(self, tags.value);
        let mut body = format!("{name_open} {} {name_close}", Value::from(tool.name.as_str()));
        for (place, (key, part, is_required)) in parts(tool).into_iter().enumerate() {
            let value = if part["type"] == "string" && part.get("enum").is_none() {
                let rule = format!("t{index}_{place}");
                let text = text_of_length("(?s:.)", &part);
                let _ = writeln!(self.rules, "{rule}[suffix={}]: {text}", Value::from(tags.value[1]));
                rule
            } else if let Some(texts) = part["enum"].as_array().filter(|all| all.iter().all(Value::is_string))
            {
                let texts: Vec<String> = texts.iter().map(Value::to_string).collect();
                format!("({}) {value_close}", texts.join(" | "))
            } else {
                format!("{} {value_close}", schema(&part))
            };
            let key = Value::from(key);
            let argument = format!("{key_open} {key} {key_close} {value_open} {value}");
            let _ = write!(body, " ({argument}){}", if is_required { "" } else { "?" });
        }
        format!("{body} {}", self.mark(tags.end))
    }

    /// Keys and values of a call that is no JSON: those that are required, then the others.
    fn pairs(&mut self, index: usize, tool: &Tool, between: &str) -> String {
        let mut pairs = String::new();
        let mut parts = parts(tool);
        parts.sort_by_key(|(_, _, is_required)| !is_required);
        for (place, (key, part, is_required)) in parts.into_iter().enumerate() {
            let value = self.literal(index, place, &part);
            let pair = format!("{} {value}", Value::from(format!("{key}{between}")));
            // Whether a comma stands before is only certain where something must come before.
            let comma = if place > 0 { "\", \" " } else { "" };
            let _ = match is_required {
                true => write!(pairs, " {comma}{pair}"),
                false if place > 0 => write!(pairs, " ({comma}{pair})?"),
                false => write!(pairs, " {pair}"),
            };
        }
        pairs
    }

    fn literal(&mut self, index: usize, place: usize, part: &Value) -> String {
        match (&self.form.syntax, part["type"].as_str()) {
            (Syntax::Braces { quote }, Some("string")) => {
                let quote = self.mark(quote);
                let texts = part["enum"].as_array().filter(|all| all.iter().all(Value::is_string));
                match texts {
                    Some(texts) => {
                        let texts: Vec<String> = texts.iter().map(Value::to_string).collect();
                        format!("{quote} ({}) {quote}", texts.join(" | "))
                    }
                    None => {
                        let text = text_of_length("[^<]", part);
                        let _ = writeln!(self.rules, "L{index}_{place}: {text}");
                        format!("{quote} (L{index}_{place})? {quote}")
                    }
                }
            }
            (Syntax::Python, Some("boolean")) => "(\"True\" | \"False\")".to_owned(),
            _ => schema(part),
        }
    }

    /// All calls of an answer, without the text that the first begins with.
    fn calls(&mut self, uses: &ToolUse, begun: &str) -> String {
        let tools: Vec<Tool> = uses.callable().into_iter().cloned().collect();
        let bodies: Vec<String> =
            tools.iter().enumerate().map(|(index, tool)| self.body(index, tool)).collect();
        let form = self.form;
        let names: Vec<String> = (0..bodies.len()).map(|index| format!("body{index}")).collect();
        for (name, body) in names.iter().zip(&bodies) {
            self.rule(name, body);
        }
        self.rule("body", &names.join(" | "));
        let end = if form.syntax == Syntax::Harmony { String::new() } else { self.mark(&form.call[1]) };
        let has_section = !form.section[0].is_empty();
        let begin_with = |text: &str| text.strip_prefix(begun).unwrap_or(text).to_owned();
        let section = self.mark(&begin_with(&form.section[0]));
        let first = if has_section { form.call[0].clone() } else { begin_with(&form.call[0]) };
        let (first, again) = (self.mark(&first), self.mark(&form.call[0]));
        let brackets = if form.list { ["\"[\"", "\"]\""] } else { ["", ""] };
        let between = self.mark(form.between);
        let more = match uses.parallel && form.syntax != Syntax::Harmony {
            true => format!("({between} {again} body {end})*"),
            false => String::new(),
        };
        let [open, close] = brackets;
        format!("{section} {open} {first} body {end} {more} {close} {}", self.mark(&form.section[1]))
    }

    /// gpt-oss's thoughts, which may come before anything else: where their end is a special token, as that model has it. A model
    /// without it would write them for ever, and has learnt none.
    fn channel_of_thoughts(&mut self) -> String {
        let (begin, end) = (self.mark("<|channel|>analysis<|message|>"), "<|end|><|start|>assistant");
        match (self.special)("<|end|>") {
            Some(_) => {
                let _ = writeln!(self.rules, "THOUGHT: {ANY}");
                format!("({begin} (THOUGHT)? {})?", self.mark(end))
            }
            None => String::new(),
        }
    }

    /// Thoughts before the answer proper: those that the prompt has begun, or none or some of the model's own.
    fn thoughts(&mut self, has_begun: bool) -> String {
        let Some([begin, end]) = &self.form.thoughts else { return String::new() };
        let ends_special = (self.special)(end).is_some();
        if ends_special {
            let _ = writeln!(self.rules, "THOUGHT: {ANY}");
        } else {
            let _ = writeln!(self.rules, "thought[suffix={}]: {ANY}", Value::from(end.as_str()));
        }
        let inner =
            if ends_special { format!("(THOUGHT)? {}", self.mark(end)) } else { "thought".to_owned() };
        let inner = format!("{inner} (SPACE)?");
        self.rules.push_str("SPACE: /[ \\n]{1,4}/\n");
        match has_begun {
            true => inner,
            false => format!("({} {inner})?", self.mark(begin)),
        }
    }
}

/// A tool's arguments: the name, the schema, and whether it is required, with what the schema refers to.
fn parts(tool: &Tool) -> Vec<(String, Value, bool)> {
    let required = tool.parameters["required"].as_array().cloned().unwrap_or_default();
    let properties = tool.parameters["properties"].as_object().cloned().unwrap_or_default();
    let part = |(key, mut part): (String, Value)| {
        if let Some(part) = part.as_object_mut() {
            definitions(&tool.parameters, part);
        }
        let is_required = required.iter().any(|name| name == key.as_str());
        (key, part, is_required)
    };
    properties.into_iter().map(part).collect()
}

/// The grammar of an answer that calls tools as the choice says; `None` where it may say anything. `thinks`: whether the prompt ends
/// within thoughts.
pub(crate) fn calls(
    form: &Form,
    uses: &ToolUse,
    thinks: bool,
    special: SpecialToken<'_>,
) -> Option<Constraint> {
    if uses.callable().is_empty() {
        return None;
    }
    let mut writer = Writer { form, special, rules: String::new() };
    let start = if form.syntax == Syntax::Harmony {
        if uses.choice == Choice::Auto {
            return None;
        }
        let calls = writer.calls(uses, "");
        format!("{} {calls}", writer.channel_of_thoughts())
    } else if uses.choice == Choice::Auto {
        automatic(&mut writer, uses, thinks)
    } else {
        let thoughts = writer.thoughts(thinks);
        format!("{thoughts} {}", writer.calls(uses, ""))
    };
    Some(Constraint::Lark(format!("start: {start}\n{}", writer.rules)))
}

/// Text, then calls where the model begins them.
fn automatic(writer: &mut Writer<'_>, uses: &ToolUse, thinks: bool) -> String {
    let trigger = writer.form.trigger().to_owned();
    let special = writer.special;
    let marks_special =
        writer.form.thoughts.as_ref().is_some_and(|[begin, _]| special(begin.trim()).is_some());
    let thoughts = if thinks || marks_special { writer.thoughts(thinks) } else { String::new() };
    if trigger.is_empty() {
        let calls = writer.calls(uses, "");
        writer.rules.push_str("TEXT: /[^{](?s:.*)/\n");
        return format!("{thoughts} (TEXT | {calls})?");
    }
    if mark(&trigger, special).starts_with("<[") {
        let calls = writer.calls(uses, "");
        let _ = writeln!(writer.rules, "TEXT: {ANY}");
        return format!("{thoughts} (TEXT)? ({calls})?");
    }
    let calls = writer.calls(uses, &trigger);
    let inner = escaped(&trigger);
    let _ = writeln!(writer.rules, "TEXT: {ANY} & ~/(?s:.*){inner}(?s:.*)/");
    let _ = writeln!(writer.rules, "before[suffix={}]: {ANY}", Value::from(trigger.as_str()));
    format!("{thoughts} (TEXT | before {calls})")
}

/// The form that an answer must have: after the thoughts that the prompt has begun, in the channel of answers, and where tools may be
/// called as well, in place of a call. Grammars hold as they are.
pub(crate) fn answer_in(
    form: &Form,
    constraint: Constraint,
    uses: &ToolUse,
    thinks: bool,
    special: SpecialToken<'_>,
) -> Constraint {
    let is_harmony = form.syntax == Syntax::Harmony;
    let may_call = !uses.callable().is_empty();
    let answer = match &constraint {
        Constraint::JsonSchema(answer) => schema(answer),
        Constraint::Regex(regex) => format!("/{}/", regex.replace('/', "\\/")),
        Constraint::Lark(_) | Constraint::Gbnf(_) => return constraint,
    };
    if !thinks && !may_call && !is_harmony {
        return constraint;
    }
    let mut writer = Writer { form, special, rules: format!("answer: {answer}\n") };
    let calls = if may_call { format!("| {}", writer.calls(uses, "")) } else { String::new() };
    let start = if is_harmony {
        let thoughts = writer.channel_of_thoughts();
        format!("{thoughts} ({} answer {calls})", writer.mark("<|channel|>final<|message|>"))
    } else {
        let thoughts = if thinks { writer.thoughts(true) } else { String::new() };
        format!("{thoughts} (answer {calls})")
    };
    Constraint::Lark(format!("start: {start}\n{}", writer.rules))
}
