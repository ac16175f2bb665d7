//! Calls that are no JSON: Python's, and Gemma's.

use serde_json::{Map, Number, Value};

/// A call that was read: the function's name and its arguments.
pub(super) type Call = (String, Map<String, Value>);

/// The deepest nesting of lists and objects.
const MAX_DEPTH: usize = 64;

/// Calls in a list as Python writes them: `[f(a="b", n=1), g()]`; `None` where the text is something else.
pub(super) fn python(text: &str) -> Option<Vec<Call>> {
    let mut reader = Reader { rest: text.trim(), quote: None };
    let is_list = reader.take("[");
    let mut calls = Vec::new();
    while !(reader.rest.is_empty() || is_list && reader.take("]")) {
        let name = reader.name(|c| c.is_alphanumeric() || "_.-".contains(c))?;
        let arguments = if reader.take("(") { reader.pairs("=", ")", 0)? } else { return None };
        calls.push((name, arguments));
        reader.take(",");
    }
    reader.rest.is_empty().then_some(calls).filter(|calls| !calls.is_empty())
}

/// A call as Gemma writes it: `call:f{a:<|"|>b<|"|>,n:1}`, with this around texts.
pub(super) fn braces(text: &str, quote: &'static str) -> Option<Call> {
    let mut reader = Reader { rest: text.trim().strip_prefix("call:")?, quote: Some(quote) };
    let name = reader.name(|c| c != '{')?;
    if !reader.take("{") {
        return None;
    }
    let arguments = reader.pairs(":", "}", 0)?;
    reader.rest.is_empty().then_some((name, arguments))
}

struct Reader<'t> {
    rest: &'t str,
    /// What stands around texts beside quotes.
    quote: Option<&'static str>,
}

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn name(&mut self, belongs: impl Fn(char) -> bool) -> Option<String> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Keys and values up to `end`.
    fn pairs(&mut self, between: &str, end: &str, depth: usize) -> Option<Map<String, Value>> {
        let mut pairs = Map::new();
        while !self.take(end) {
            let is_quoted = self.rest.starts_with(['"', '\'']);
            let is_marked = self.quote.is_some_and(|quote| self.rest.starts_with(quote));
            let key = if is_quoted || is_marked {
                self.value(depth + 1)?.as_str()?.to_owned()
            } else {
                self.name(|c| c.is_alphanumeric() || "_-.$ ".contains(c))?
            };
            if !self.take(between) {
                return None;
            }
            pairs.insert(key, self.value(depth + 1)?);
            if !self.take(",") && !self.rest.starts_with(end) {
                return None;
            }
        }
        Some(pairs)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(quote) = self.quote
            && let Some(rest) = self.rest.strip_prefix(quote)
        {
            let (text, rest) = rest.split_once(quote)?;
            self.rest = rest.trim_start();
            return Some(text.into());
        }
        if self.take("{") {
            return self.pairs(":", "}", depth).map(Value::Object);
        }
        for (begin, end) in [("[", "]"), ("(", ")")] {
            if self.take(begin) {
                let mut items = Vec::new();
                while !self.take(end) {
                    items.push(self.value(depth + 1)?);
                    if !self.take(",") && !self.rest.starts_with(end) {
                        return None;
                    }
                }
                return Some(items.into());
            }
        }
        if self.rest.starts_with(['"', '\'']) {
            return self.text();
        }
        let word = self.name(|c| c.is_alphanumeric() || "+-._".contains(c))?;
        Some(match word.as_str() {
            "True" | "true" => true.into(),
            "False" | "false" => false.into(),
            "None" | "null" => Value::Null,
            number => match number.parse::<i64>() {
                Ok(number) => number.into(),
                Err(_) => Value::Number(Number::from_f64(number.parse().ok()?)?),
            },
        })
    }

    /// A text in Python's or JSON's quotes.
    fn text(&mut self) -> Option<Value> {
        let quote = self.rest.chars().next()?;
        let mut text = String::new();
        let mut rest = self.rest[1..].chars();
        loop {
            let c = rest.next()?;
            if c == quote {
                break;
            }
            if c != '\\' {
                text.push(c);
                continue;
            }
            let digits = match rest.next()? {
                'n' => Err('\n'),
                't' => Err('\t'),
                'r' => Err('\r'),
                'b' => Err('\u{8}'),
                'f' => Err('\u{c}'),
                'x' => Ok(2),
                'u' => Ok(4),
                'U' => Ok(8),
                other => Err(other),
            };
            match digits {
                Err(c) => text.push(c),
                Ok(n) => {
                    let code = u32::from_str_radix(rest.as_str().get(..n)?, 16).ok()?;
                    rest = rest.as_str()[n..].chars();
                    text.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
            }
        }
        self.rest = rest.as_str().trim_start();
        Some(text.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn pythons_calls() {
        let calls =
            python("[weather(city='Paris', days=[1, 2.5], x=None, deep={\"a\": True}), now()]").unwrap();
        assert_eq!(calls.len(), 2);
        let expected = json!({"city": "Paris", "days": [1, 2.5], "x": null, "deep": {"a": true}});
        assert_eq!((calls[0].0.as_str(), Value::Object(calls[0].1.clone())), ("weather", expected));
        assert_eq!(calls[1], ("now".to_owned(), Map::new()));
        assert_eq!(python("a.b(q=\"x\\n\\u00e9\\\"\")").unwrap()[0].1["q"], "x\né\"");
        assert_eq!((python("text"), python("[f(]"), python("")), (None, None, None));
    }

    #[test]
    fn gemmas_calls() {
        let (name, arguments) =
            braces("call:f{city:<|\"|>Pa, }\"ris<|\"|>,n:-3,l:[<|\"|>a<|\"|>,true],o:{k:null}}", "<|\"|>")
                .unwrap();
        assert_eq!(name, "f");
        assert_eq!(
            Value::Object(arguments),
            json!({"city": "Pa, }\"ris", "n": -3, "l": ["a", true], "o": {"k": null}})
        );
        assert_eq!(braces("call:f{a:<|\"|>b}", "<|\"|>"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "[\\[\\](){}a=:,'\"\\\\u0-9é. ]{0,30}") {
            let _ = python(&text);
            let _ = braces(&format!("call:{text}"), "'");
        }
    }
}
