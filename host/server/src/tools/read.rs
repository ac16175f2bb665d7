//! An answer as it comes, taken apart: text, thoughts, and calls of tools.

use std::sync::Arc;

use serde_json::Value;

use super::form::{Form, Syntax, Tags};
use super::harmony::Channels;
use super::json::{Head, Scanner, head, value_end};
use super::{Tool, literals};

/// A function's name has no more bytes.
const MAX_NAME: usize = 512;

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delta {
    Text(String),
    Thought(String),
    /// A call begins: which, and the function's name.
    Call(usize, String),
    /// More of a call's arguments, which are a JSON object together.
    Arguments(usize, String),
}

/// Takes an answer apart. What it can't decide yet, it holds back.
#[derive(Debug)]
pub(crate) struct Reader {
    form: Option<Arc<Form>>,
    tools: Arc<[Tool]>,
    state: State,
    /// Text that nothing has been made of.
    pending: String,
    calls: usize,
    has_text: bool,
    channels: Option<Channels>,
}

#[derive(Debug)]
enum State {
    Thoughts,
    Text,
    /// After a mark that begins calls, or after a call.
    Between,
    Call(OpenCall),
}

/// A call that has begun.
#[derive(Debug, Default)]
struct OpenCall {
    /// The marks before it.
    opened: String,
    raw: String,
    /// What of `raw` was read.
    at: usize,
    name: Option<String>,
    arguments: Option<Scanner>,
    /// Follows the whole call, where that goes on after the arguments.
    whole: Option<Scanner>,
    n_arguments: usize,
}

/// How far a call's reading came.
enum Progress {
    Waits,
    /// It is done; this is what follows.
    Done(String),
    /// It is no call after all.
    Other,
}

/// Where one of the marks is, or from where on the text may begin one.
fn find(text: &str, marks: &[&str]) -> (usize, Option<usize>) {
    let found = marks.iter().enumerate().filter_map(|(index, mark)| Some((text.find(mark)?, index))).min();
    if let Some((place, index)) = found {
        return (place, Some(index));
    }
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest);
    let begins = |place: &usize| {
        text.is_char_boundary(*place) && marks.iter().any(|mark| mark.starts_with(&text[*place..]))
    };
    ((from..text.len()).find(begins).unwrap_or(text.len()), None)
}

impl Reader {
    /// `tools`: those that the answer may call; calls are not looked for where there are none. `thinks`: whether the prompt ends within
    /// thoughts.
    pub(crate) fn new(form: Option<Arc<Form>>, tools: Arc<[Tool]>, thinks: bool) -> Self {
        let is_harmony = form.as_ref().is_some_and(|form| form.syntax == Syntax::Harmony);
        Self {
            channels: is_harmony.then(Channels::default),
            form,
            tools,
            state: if thinks { State::Thoughts } else { State::Text },
            pending: String::new(),
            calls: 0,
            has_text: false,
        }
    }

    /// Takes more of the answer.
    pub(crate) fn push(&mut self, text: &str, out: &mut Vec<Delta>) {
        match (&mut self.channels, &self.form) {
            (Some(channels), _) => channels.push(text, false, out),
            (None, None) => self.text(text, out),
            (None, Some(form)) => {
                let form = Arc::clone(form);
                self.pending.push_str(text);
                while self.step(&form, false, out) {}
            }
        }
    }

    /// Ends the answer: what was held back is given.
    pub(crate) fn finish(&mut self, out: &mut Vec<Delta>) {
        match (&mut self.channels, &self.form) {
            (Some(channels), _) => channels.push("", true, out),
            (None, None) => {}
            (None, Some(form)) => {
                let form = Arc::clone(form);
                while self.step(&form, true, out) {}
                let rest = std::mem::take(&mut self.pending);
                match self.state {
                    State::Thoughts => self.thought(rest.trim_end(), out),
                    State::Text => self.text(&rest, out),
                    State::Between => self.text(rest.trim(), out),
                    State::Call(_) => {}
                }
            }
        }
    }

    fn text(&mut self, text: &str, out: &mut Vec<Delta>) {
        if !text.is_empty() {
            self.has_text |= !text.trim().is_empty();
            out.push(Delta::Text(text.to_owned()));
        }
    }

    fn thought(&self, text: &str, out: &mut Vec<Delta>) {
        if !text.is_empty() {
            out.push(Delta::Thought(text.to_owned()));
        }
    }

    /// Makes something of what is pending; false where that needs more text.
    fn step(&mut self, form: &Form, last: bool, out: &mut Vec<Delta>) -> bool {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Thoughts => self.in_thoughts(form, out),
            State::Text => self.in_text(form, out),
            State::Between => self.in_between(form),
            State::Call(call) => self.in_call(form, call, last, out),
        }
    }

    fn in_thoughts(&mut self, form: &Form, out: &mut Vec<Delta>) -> bool {
        let end = form.thoughts.as_ref().map_or("", |[_, end]| end.as_str());
        let (place, found) = if end.is_empty() { (0, Some(0)) } else { find(&self.pending, &[end]) };
        let before = self.pending[..place].trim_end().len();
        let thought = self.pending[..before].to_owned();
        self.thought(&thought, out);
        if found.is_some() {
            self.pending = self.pending[place + end.len()..].trim_start().to_owned();
            return true;
        }
        self.pending.drain(..before);
        self.state = State::Thoughts;
        false
    }

    fn in_text(&mut self, form: &Form, out: &mut Vec<Delta>) -> bool {
        let has_tools = !self.tools.is_empty();
        if !self.has_text {
            // White space after thoughts, and before calls.
            let skipped = self.pending.len() - self.pending.trim_start().len();
            if has_tools || form.thoughts.is_some() {
                self.pending.drain(..skipped);
            }
            if has_tools && form.trigger().is_empty() && self.pending.starts_with('{') {
                self.state = State::Call(OpenCall::default());
                return self.open("");
            }
        }
        let trigger = match form.trigger() {
            "" => "<|python_tag|>",
            trigger => trigger,
        };
        let mut marks: Vec<&str> = if has_tools { vec![trigger] } else { Vec::new() };
        marks.extend(form.thoughts.iter().map(|[begin, _]| begin.trim_end()));
        let (place, found) = find(&self.pending, &marks);
        let is_call = has_tools && found == Some(0);
        let certain = match found {
            Some(_) if is_call => self.pending[..place].trim_end().len(),
            Some(_) => place,
            // It may go before a call, and is left out then.
            None if has_tools => self.pending[..place].trim_end().len(),
            None => place,
        };
        let text = self.pending[..certain].to_owned();
        self.text(&text, out);
        let Some(index) = found else {
            self.pending.drain(..certain);
            return false;
        };
        self.pending.drain(..place + marks[index].len());
        if !is_call {
            let rest = self.pending.trim_start().to_owned();
            self.pending = rest;
            self.state = State::Thoughts;
            return true;
        }
        match form.section[0].is_empty() {
            true => self.open(trigger),
            false => {
                self.state = State::Between;
                true
            }
        }
    }

    /// Begins a call.
    fn open(&mut self, mark: &str) -> bool {
        self.state = State::Call(OpenCall { opened: mark.to_owned(), ..OpenCall::default() });
        true
    }

    fn in_between(&mut self, form: &Form) -> bool {
        let rest =
            self.pending.trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == ';').to_owned();
        let after = match form.syntax {
            Syntax::Named { after, .. } => after.trim(),
            _ => "",
        };
        let begin = form.call[0].trim();
        let brackets = if form.list { ["[", "]"] } else { ["", ""] };
        let around = [form.section[0].trim(), form.section[1].trim(), form.call[1].trim(), after];
        let mut marks: Vec<&str> =
            around.into_iter().chain(brackets).filter(|mark| !mark.is_empty()).collect();
        if let Some(mark) = marks.iter().find(|mark| rest.starts_with(**mark)) {
            self.pending = rest[mark.len()..].to_owned();
            self.state = State::Between;
            return true;
        }
        if begin.is_empty() && rest.starts_with('{') {
            self.pending = rest;
            return self.open("");
        }
        if !begin.is_empty() && rest.starts_with(begin) {
            self.pending = rest[begin.len()..].to_owned();
            return self.open(begin);
        }
        marks.extend(Some(begin).filter(|begin| !begin.is_empty()));
        if rest.is_empty() || marks.iter().any(|mark| mark.starts_with(rest.as_str())) {
            self.pending = rest;
            self.state = State::Between;
            return false;
        }
        true
    }

    fn in_call(&mut self, form: &Form, mut call: OpenCall, last: bool, out: &mut Vec<Delta>) -> bool {
        call.raw.push_str(&std::mem::take(&mut self.pending));
        let index = self.calls;
        let progress = match form.syntax {
            Syntax::Json { name, arguments } => call.json(index, name, arguments, out),
            Syntax::Named { before, between, .. } => call.named(index, before, between, out),
            Syntax::Tagged(tags) => {
                let end = if tags.end.is_empty() { form.call[1].trim() } else { tags.end };
                call.tagged(index, &tags, end, &self.tools, out)
            }
            Syntax::Python | Syntax::Braces { .. } => {
                return self.literal(form, call, last, out);
            }
            Syntax::Harmony => Progress::Other,
        };
        match progress {
            Progress::Waits if !last || call.name.is_some() => {
                self.state = State::Call(call);
                false
            }
            Progress::Done(rest) => {
                self.calls += 1;
                self.pending = rest;
                self.state = State::Between;
                true
            }
            Progress::Waits | Progress::Other => {
                let text = format!("{}{}", call.opened, call.raw);
                self.text(&text, out);
                self.state = State::Text;
                false
            }
        }
    }

    /// Calls that are read once they are whole.
    fn literal(&mut self, form: &Form, call: OpenCall, last: bool, out: &mut Vec<Delta>) -> bool {
        let end = form.call[1].trim();
        let (written, rest) = match call.raw.split_once(end) {
            Some((written, rest)) => (written, rest),
            None if last => (call.raw.as_str(), ""),
            None => {
                self.state = State::Call(call);
                return false;
            }
        };
        let calls = match form.syntax {
            Syntax::Braces { quote } => literals::braces(written, quote).map(|call| vec![call]),
            _ => literals::python(written),
        };
        let Some(calls) = calls else {
            let text = format!("{}{}", call.opened, call.raw);
            self.text(&text, out);
            return false;
        };
        for (name, arguments) in calls {
            out.push(Delta::Call(self.calls, name));
            out.push(Delta::Arguments(self.calls, Value::Object(arguments).to_string()));
            self.calls += 1;
        }
        self.pending = rest.to_owned();
        self.state = State::Between;
        true
    }
}

impl OpenCall {
    fn begin(&mut self, index: usize, name: String, at: usize, out: &mut Vec<Delta>) {
        out.push(Delta::Call(index, name.clone()));
        (self.name, self.at) = (Some(name), at);
    }

    /// Gives more of the arguments; true where they are complete.
    fn more_arguments(&mut self, index: usize, out: &mut Vec<Delta>) -> bool {
        let Some(scanner) = &mut self.arguments else { return true };
        let fresh = &self.raw[self.at..];
        let end = scanner.feed(fresh);
        let fresh = &fresh[..end.unwrap_or(fresh.len())];
        if !fresh.is_empty() {
            out.push(Delta::Arguments(index, fresh.to_owned()));
        }
        self.at += fresh.len();
        if end.is_some() {
            self.arguments = None;
        }
        end.is_some()
    }

    fn json(&mut self, index: usize, name: &str, arguments: &str, out: &mut Vec<Delta>) -> Progress {
        if self.name.is_none() {
            match head(&self.raw, name, arguments) {
                Head::Incomplete => return Progress::Waits,
                Head::Other => return Progress::Other,
                Head::Whole(name, arguments) => {
                    self.begin(index, name, 0, out);
                    out.push(Delta::Arguments(index, arguments.unwrap_or_else(|| "{}".to_owned())));
                    let end = value_end(&self.raw).unwrap_or(self.raw.len());
                    return Progress::Done(self.raw[end..].to_owned());
                }
                Head::Arguments(name, start) => {
                    self.begin(index, name, start, out);
                    self.arguments = Some(Scanner::default());
                }
            }
        }
        if !self.more_arguments(index, out) {
            return Progress::Waits;
        }
        let from = if self.whole.is_some() { self.at } else { 0 };
        let end = self.whole.get_or_insert_with(Scanner::default).feed(&self.raw[from..]);
        self.at = self.raw.len();
        end.map_or(Progress::Waits, |end| Progress::Done(self.raw[from + end..].to_owned()))
    }

    fn named(&mut self, index: usize, before: &str, between: &str, out: &mut Vec<Delta>) -> Progress {
        if self.name.is_none() {
            let Some((written, _)) = self.raw.split_once(between) else {
                return if self.raw.len() > MAX_NAME { Progress::Other } else { Progress::Waits };
            };
            let start = written.len() + between.len();
            let name = written.trim().trim_start_matches(before.trim());
            // Mistral writes the call's number behind its name.
            let name = name.split("[CALL_ID]").next().unwrap_or(name).trim().to_owned();
            if name.is_empty() || name.len() > MAX_NAME {
                return Progress::Other;
            }
            self.begin(index, name, start, out);
            self.arguments = Some(Scanner::default());
        }
        let is_done = self.more_arguments(index, out);
        if is_done { Progress::Done(self.raw[self.at..].to_owned()) } else { Progress::Waits }
    }

    fn tagged(
        &mut self,
        index: usize,
        tags: &Tags,
        end: &str,
        tools: &[Tool],
        out: &mut Vec<Delta>,
    ) -> Progress {
        loop {
            let rest = self.raw[self.at..].trim_start();
            let start = self.raw.len() - rest.len();
            let Some(name) = self.name.clone() else {
                let open = tags.name[0];
                let Some(written) = rest.strip_prefix(open) else {
                    return if open.starts_with(rest) { Progress::Waits } else { Progress::Other };
                };
                let stop = if open.is_empty() { ['\n', '<'] } else { ['>', '\n'] };
                let Some(length) = written.find(stop) else {
                    return if written.len() > MAX_NAME { Progress::Other } else { Progress::Waits };
                };
                let name = written[..length].trim().to_owned();
                let skipped = usize::from(!open.is_empty());
                if name.is_empty() {
                    return Progress::Other;
                }
                self.begin(index, name, start + open.len() + length + skipped, out);
                continue;
            };
            let key_open = tags.key[0];
            if let Some(written) = rest.strip_prefix(key_open) {
                let Some((key, value, length)) = tagged_argument(written, tags) else {
                    return Progress::Waits;
                };
                let tool = tools.iter().find(|tool| tool.name == name);
                let schema = tool.map(|tool| &tool.parameters["properties"][key]);
                let value = typed(value, schema.unwrap_or(&Value::Null));
                let before = if self.n_arguments == 0 { "{" } else { ", " };
                out.push(Delta::Arguments(index, format!("{before}{}: {value}", Value::from(key))));
                self.n_arguments += 1;
                self.at = start + key_open.len() + length;
                continue;
            }
            let may_follow = [key_open, end];
            if may_follow.iter().any(|mark| rest.len() < mark.len() && mark.starts_with(rest)) {
                return Progress::Waits;
            }
            let ending = if self.n_arguments == 0 { "{}" } else { "}" };
            out.push(Delta::Arguments(index, ending.to_owned()));
            let rest = if tags.end.is_empty() { rest } else { rest.strip_prefix(end).unwrap_or(rest) };
            return Progress::Done(rest.to_owned());
        }
    }
}

/// A key, its value, and how long both are with their tags, where they are all there.
fn tagged_argument<'t>(written: &'t str, tags: &Tags) -> Option<(&'t str, &'t str, usize)> {
    let (key, after) = written.split_once(tags.key[1].trim_end())?;
    let open = tags.value[0];
    let value_at = if open.is_empty() { after } else { after.trim_start().strip_prefix(open)? };
    let close = tags.value[1].trim();
    let (value, rest) = value_at.split_once(close)?;
    let value = if open.is_empty() {
        let value = value.strip_prefix('\n').unwrap_or(value);
        value.strip_suffix('\n').unwrap_or(value)
    } else {
        value
    };
    Some((key.trim(), value, written.len() - rest.len()))
}

/// The value that a text stands for, by its schema: a text where it must be one, or is no JSON.
fn typed(text: &str, schema: &Value) -> Value {
    let is_text = schema["type"] == "string"
        || (schema["type"].is_null()
            && schema["enum"].as_array().is_some_and(|all| all.iter().all(Value::is_string)));
    if is_text {
        return text.into();
    }
    match text.trim() {
        "True" => true.into(),
        "False" => false.into(),
        "None" => Value::Null,
        trimmed => serde_json::from_str(trimmed).unwrap_or_else(|_| text.into()),
    }
}
