//! Text from files, models and plugins, made harmless before a terminal gets it.
//!
//! A terminal obeys control characters: they set its title, its clipboard, its colours, and overwrite lines. Characters
//! that turn the writing's direction, and those that end lines, let a text pass for another. All that the program writes
//! goes through one of these functions, in `output`, `log` and `progress`, so that no message can forget it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Spaces before the lines of a message that its first line doesn't hold.
const INDENT: &str = "    ";

/// The text with escapes (`\x1b`, `\u{202e}`) for what a terminal would obey. Newlines and tabs stay.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && c != '\t')
}

/// The text in one line: newlines and tabs are escaped too.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| true)
}

/// A message: a newline inside begins an indented line, which doesn't pass for a message of its own.
pub(super) fn message(text: &str) -> Cow<'_, str> {
    let text = lines(text);
    let begin = text.len() - text.trim_start_matches('\n').len();
    let body = text[begin..].trim_end_matches('\n');
    if !body.contains('\n') {
        return text;
    }
    let end = &text[begin + body.len()..];
    Cow::Owned(format!("{}{}{end}", &text[..begin], body.replace('\n', &format!("\n{INDENT}"))))
}

/// JSON with JSON's own escapes for what a terminal would obey; it stays the same JSON.
pub(super) fn json(text: &str) -> Cow<'_, str> {
    if !text.contains(|c: char| commands(c) && c != '\n') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if commands(c) && c != '\n' {
            // All of them have four digits, and writing to a string can't fail.
            let _ = write!(out, "\\u{:04x}", c as u32);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a terminal would do something for it, other than showing it.
fn commands(c: char) -> bool {
    // C0, DEL and C1; line and paragraph separators; embeddings, overrides and isolates of the writing's direction.
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, also: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harmful = |c: char| commands(c) && also(c);
    if !text.contains(harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !harmful(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // Writing to a string can't fail.
            c if (c as u32) < 0x100 => drop(write!(out, "\\x{:02x}", c as u32)),
            c => drop(write!(out, "\\u{{{:x}}}", c as u32)),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        for (text, expected) in [
            ("plain, é, 🦀, \u{5d0}", "plain, é, 🦀, \u{5d0}"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("a\rb\x08\x7f\u{85}\u{9b}2J", "a\\rb\\x08\\x7f\\x85\\x9b2J"),
            (
                "\u{202e}abc\u{202c} \u{2066}x\u{2069} \u{2028}\u{2029}",
                "\\u{202e}abc\\u{202c} \\u{2066}x\\u{2069} \\u{2028}\\u{2029}",
            ),
            ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ] {
            assert_eq!(lines(text), expected);
        }
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = c.to_string();
            assert!(!line(&text).contains(commands), "{c:?}");
            assert!(!json(&text).contains(|c| commands(c) && c != '\n'), "{c:?}");
        }
        assert_eq!(line("a\nb\tc"), "a\\nb\\tc");
    }

    #[test]
    fn a_message_has_one_beginning() {
        assert_eq!(message("\n\nerror: a\nwarning: b\n"), "\n\nerror: a\n    warning: b\n");
        assert_eq!(message("plain"), "plain");
    }

    #[test]
    fn json_stays_the_same() {
        let value = serde_json::json!({ "a\x7f\u{9b}": "\x1b\u{202e}\n\u{2028}é" });
        let text = serde_json::to_string_pretty(&value).expect("JSON");
        let safe = json(&text);
        assert_ne!(safe, text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).expect("JSON"), value);
    }
}
