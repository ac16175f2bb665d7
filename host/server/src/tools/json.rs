//! JSON as it comes: where a value ends, and what of a call is there already.

use serde_json::Value;

/// Follows a JSON value to its end, byte by byte.
#[derive(Clone, Debug, Default)]
pub(super) struct Scanner {
    depth: usize,
    in_text: bool,
    is_escaped: bool,
    has_begun: bool,
    is_scalar: bool,
}

impl Scanner {
    /// Takes more of the text; where the value ends in it, the number of bytes that belong to it.
    pub(super) fn feed(&mut self, text: &str) -> Option<usize> {
        for (index, byte) in text.bytes().enumerate() {
            if self.in_text {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.in_text = false;
                        if self.depth == 0 {
                            return Some(index + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => (self.in_text, self.has_begun) = (true, true),
                b'{' | b'[' => {
                    self.depth += 1;
                    self.has_begun = true;
                }
                b'}' | b']' => {
                    if self.depth <= 1 {
                        // Of a number, this is what stands around it.
                        return Some(if self.depth == 0 { index } else { index + 1 });
                    }
                    self.depth -= 1;
                }
                b',' | b' ' | b'\n' | b'\t' | b'\r' if self.depth == 0 && self.is_scalar => {
                    return Some(index);
                }
                b',' | b' ' | b'\n' | b'\t' | b'\r' if self.depth == 0 => {}
                _ if !self.has_begun => (self.has_begun, self.is_scalar) = (true, true),
                _ => {}
            }
        }
        None
    }
}

/// The end of the value that a text begins with, where it is all there.
pub(super) fn value_end(text: &str) -> Option<usize> {
    Scanner::default().feed(text)
}

/// What of a call, which is a JSON object, is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Not enough yet.
    Incomplete,
    /// It is no call.
    Other,
    /// The name, and where the arguments begin.
    Arguments(String, usize),
    /// All of the object: the name, and the arguments, where there are any.
    Whole(String, Option<String>),
}

/// Reads the beginning of an object for its name and arguments.
pub(super) fn head(text: &str, name_key: &str, arguments_key: &str) -> Head {
    let (mut name, mut arguments): (Option<String>, Option<String>) = (None, None);
    let mut place = text.len() - text.trim_start().len();
    match text[place..].chars().next() {
        None => return Head::Incomplete,
        Some('{') => place += 1,
        Some(_) => return Head::Other,
    }
    loop {
        let rest = text[place..].trim_start_matches([' ', '\n', '\t', '\r', ',']);
        place = text.len() - rest.len();
        if rest.starts_with('}') {
            return match name {
                Some(name) => Head::Whole(name, arguments),
                None => Head::Other,
            };
        }
        if !rest.is_empty() && !rest.starts_with('"') {
            return Head::Other;
        }
        let Some(end) = value_end(rest) else { return Head::Incomplete };
        let Ok(Value::String(key)) = serde_json::from_str(&rest[..end]) else { return Head::Other };
        place += end;
        let rest = text[place..].trim_start();
        match rest.chars().next() {
            None => return Head::Incomplete,
            Some(':') => {}
            Some(_) => return Head::Other,
        }
        let rest = rest[1..].trim_start();
        place = text.len() - rest.len();
        let is_arguments = key == arguments_key || key == "arguments" || key == "parameters";
        if let Some(name) = name.as_ref().filter(|_| is_arguments && rest.starts_with('{')) {
            return Head::Arguments(name.clone(), place);
        }
        let Some(end) = value_end(rest) else { return Head::Incomplete };
        if key == name_key || key == "name" {
            let Ok(Value::String(text)) = serde_json::from_str(&rest[..end]) else { return Head::Other };
            name = Some(text);
        } else if is_arguments {
            arguments = Some(unquoted(&rest[..end]));
        }
        place += end;
    }
}

/// Arguments as a JSON object, which some models put into a text.
fn unquoted(text: &str) -> String {
    match serde_json::from_str(text) {
        Ok(Value::String(inner))
            if serde_json::from_str::<Value>(&inner).is_ok_and(|value| value.is_object()) =>
        {
            inner
        }
        Ok(Value::Null) => "{}".to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a\"\\\\{}\\[\\], é]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a\"]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_ends_where_its_parser_says(value in values(), cut in 0_usize..20) {
            let text = format!("{value}, more");
            let length = value.to_string().len();
            prop_assert_eq!(value_end(&text), Some(length));
            // However it comes in pieces.
            let cut = (0..=cut.min(length)).rev().find(|cut| text.is_char_boundary(*cut)).unwrap_or(0);
            let mut scanner = Scanner::default();
            let found = scanner.feed(&text[..cut]).or_else(|| scanner.feed(&text[cut..]).map(|end| end + cut));
            prop_assert_eq!(found, Some(length));
        }

        #[test]
        fn a_head_never_panics(text in "[{}\"a:, \\\\ntrué\\[\\]0-9]{0,24}") {
            let _ = head(&text, "name", "arguments");
        }
    }

    #[test]
    fn heads_of_calls() {
        let read = |text| head(text, "name", "arguments");
        assert_eq!(read("{\"name\": \"f\", \"arguments\": {\"a\""), Head::Arguments("f".to_owned(), 27));
        assert_eq!(
            read("{\"arguments\": {\"a\": 1}, \"name\": \"f\"}"),
            Head::Whole("f".to_owned(), Some("{\"a\": 1}".to_owned()))
        );
        assert_eq!(
            read("{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1}\"}"),
            Head::Whole("f".to_owned(), Some("{\"a\": 1}".to_owned()))
        );
        assert_eq!(read("{\"na"), Head::Incomplete);
        assert_eq!(read("{\"a\": 1}"), Head::Other);
        assert_eq!(read("x"), Head::Other);
    }
}
