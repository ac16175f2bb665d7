//! The channels of gpt-oss: messages with a header each, between special tokens.
//!
//! The form: [OpenAI's description of harmony](https://cookbook.openai.com/articles/openai-harmony).

use super::Delta;

const MESSAGE: &str = "<|message|>";

/// What may end a message.
const ENDS: [&str; 5] = ["<|end|>", "<|start|>", "<|channel|>", "<|call|>", "<|return|>"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Text,
    Thought,
    Call,
}

/// Takes an answer apart by its channels.
#[derive(Debug, Default)]
pub(super) struct Channels {
    pending: String,
    /// What the running message is; `None` within a header.
    part: Option<Part>,
    calls: usize,
}

impl Channels {
    /// Takes more of the answer; `last` gives what was held back.
    pub(super) fn push(&mut self, text: &str, last: bool, out: &mut Vec<Delta>) {
        self.pending.push_str(text);
        loop {
            let Some(part) = self.part else {
                let Some((header, rest)) = self.pending.split_once(MESSAGE) else {
                    self.without_header(last, out);
                    return;
                };
                let (header, rest) = (header.to_owned(), rest.to_owned());
                self.part = Some(self.begin(&header, out));
                self.pending = rest;
                continue;
            };
            let found = ENDS.iter().filter_map(|end| Some((self.pending.find(end)?, end))).min();
            let certain = match found {
                Some((place, _)) => place,
                None if last => self.pending.len(),
                None => {
                    let may_begin = |place: &usize| {
                        self.pending
                            .get(*place..)
                            .is_some_and(|rest| ENDS.iter().any(|end| end.starts_with(rest)))
                    };
                    let from = self.pending.len().saturating_sub(ENDS[2].len());
                    (from..self.pending.len()).find(may_begin).unwrap_or(self.pending.len())
                }
            };
            let text: String = self.pending.drain(..certain).collect();
            if !text.is_empty() {
                out.push(match part {
                    Part::Text => Delta::Text(text),
                    Part::Thought => Delta::Thought(text),
                    Part::Call => Delta::Arguments(self.calls - 1, text),
                });
            }
            let Some((_, end)) = found else { return };
            // A header follows; a channel's mark is part of it.
            if *end != "<|channel|>" {
                self.pending.drain(..end.len());
            }
            self.part = None;
        }
    }

    /// An answer that begins without a header is text.
    fn without_header(&mut self, last: bool, out: &mut Vec<Delta>) {
        let begins = ["<|", "assistant", "analysis", "commentary", "final", " to="];
        let text = self.pending.as_str();
        let is_header =
            text.is_empty() || begins.iter().any(|begin| text.starts_with(begin) || begin.starts_with(text));
        if !is_header && self.calls == 0 {
            self.part = Some(Part::Text);
            out.push(Delta::Text(std::mem::take(&mut self.pending)));
        } else if last {
            self.pending.clear();
        }
    }

    fn begin(&mut self, header: &str, out: &mut Vec<Delta>) -> Part {
        if let Some((_, to)) = header.split_once("to=") {
            let end = to.find(|c: char| c.is_whitespace() || c == '<').unwrap_or(to.len());
            let name = to[..end].trim_start_matches("functions.");
            out.push(Delta::Call(self.calls, name.to_owned()));
            self.calls += 1;
            return Part::Call;
        }
        if header.contains("analysis") { Part::Thought } else { Part::Text }
    }
}
