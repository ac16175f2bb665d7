//! A template's source as tokens, by the rules of Jinja2's lexer with `trim_blocks` and `lstrip_blocks`.

use super::error::Error;

/// A piece of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between tags.
    Data(String),
    /// `{{`
    PrintBegin,
    /// `}}`
    PrintEnd,
    /// `{%`
    TagBegin,
    /// `%}`
    TagEnd,
    /// An identifier or a keyword.
    Name(String),
    /// A string's value.
    Text(String),
    /// A whole number.
    Int(i128),
    /// Any other number.
    Float(f64),
    /// An operator, a bracket or a punctuation mark.
    Sign(&'static str),
    /// The source ends.
    End,
}

impl Token {
    /// The token in a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Data(_) => "text".to_owned(),
            Self::PrintBegin => "`{{`".to_owned(),
            Self::PrintEnd => "end of variable block".to_owned(),
            Self::TagBegin => "`{%`".to_owned(),
            Self::TagEnd => "end of block".to_owned(),
            Self::Name(name) => format!("`{}`", shortened(name)),
            Self::Text(_) => "string".to_owned(),
            Self::Int(_) | Self::Float(_) => "number".to_owned(),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "end of input".to_owned(),
        }
    }
}

/// The begin of a name that may be long.
pub(super) fn shortened(name: &str) -> String {
    match name.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

const SIGNS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// Python's white space, which has four control characters more than Unicode's.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The tokens, each with its line, and an `End`.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>, Error> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    // One newline at the end belongs to the file, not to the template.
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, tokens: Vec::new(), line_starting: true };
    while lexer.at < source.len() {
        lexer.data()?;
    }
    lexer.push(Token::End);
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    tokens: Vec<(Token, u32)>,
    /// Whether what was read last ended with a newline.
    line_starting: bool,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count() as u32;
        self.line_starting = passed.ends_with('\n');
        self.at += bytes;
    }

    /// Text up to the next tag, and that tag.
    fn data(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let begin = rest
            .as_bytes()
            .windows(2)
            .position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
            .unwrap_or(rest.len());
        let (text, tag) = rest.split_at(begin);
        let sign = tag.get(2..).and_then(|after| after.chars().next()).filter(|c| matches!(c, '-' | '+'));
        let text = self.stripped(text, sign, tag.starts_with("{{"));
        if !text.is_empty() {
            self.push(Token::Data(text.to_owned()));
        }
        self.advance(begin);
        let opening = 2 + usize::from(sign.is_some());
        match tag.get(..2) {
            None => Ok(()),
            Some("{#") => {
                self.advance(opening);
                self.comment()
            }
            Some("{{") => {
                self.push(Token::PrintBegin);
                self.advance(opening);
                self.tag("}}", Token::PrintEnd)
            }
            Some(_) => match raw_begin(&tag[opening..]) {
                Some(length) => {
                    self.advance(opening + length);
                    self.raw()
                }
                None => {
                    self.push(Token::TagBegin);
                    self.advance(opening);
                    self.tag("%}", Token::TagEnd)
                }
            },
        }
    }

    /// Text before a tag, less the white space that the tag takes.
    fn stripped<'t>(&self, text: &'t str, sign: Option<char>, is_print: bool) -> &'t str {
        if sign == Some('-') {
            return text.trim_end_matches(is_space);
        }
        if sign == Some('+') || is_print {
            return text;
        }
        let line = text.rfind('\n').map_or(0, |newline| newline + 1);
        if (line > 0 || self.line_starting) && text[line..].chars().all(is_space) {
            &text[..line]
        } else {
            text
        }
    }

    fn comment(&mut self) -> Result<(), Error> {
        let Some(end) = self.rest().find("#}") else {
            return Err(Error::syntax(self.line, "unexpected end of comment"));
        };
        let minus = self.rest()[..end].ends_with('-');
        let plus = self.rest()[..end].ends_with('+');
        self.advance(end + 2);
        self.after_end(minus, plus);
        Ok(())
    }

    /// Takes the white space behind a tag's end.
    fn after_end(&mut self, minus: bool, plus: bool) {
        let rest = self.rest();
        let taken = match (minus, plus) {
            (true, _) => rest.len() - rest.trim_start_matches(is_space).len(),
            (false, false) => usize::from(rest.starts_with('\n')),
            (false, true) => 0,
        };
        if taken > 0 {
            self.advance(taken);
        }
    }

    fn raw(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let mut from = 0;
        while let Some(found) = rest[from..].find("{%") {
            let begin = from + found;
            from = begin + 2;
            let inner = &rest[from..];
            let sign = inner.chars().next().filter(|c| matches!(c, '-' | '+'));
            let name = inner[usize::from(sign.is_some())..].trim_start_matches(is_space);
            let Some(close) = name.strip_prefix("endraw") else { continue };
            let close = close.trim_start_matches(is_space);
            let minus = close.starts_with("-%}");
            let plus = close.starts_with("+%}");
            if !minus && !plus && !close.starts_with("%}") {
                continue;
            }
            let text = self.stripped(&rest[..begin], sign, false);
            if !text.is_empty() {
                self.push(Token::Data(text.to_owned()));
            }
            self.advance(rest.len() - close.len() + 2 + usize::from(minus || plus));
            self.after_end(minus, plus);
            return Ok(());
        }
        Err(Error::syntax(self.line, "unexpected end of raw block"))
    }

    /// The tokens of a tag, to its end.
    fn tag(&mut self, end: &str, token: Token) -> Result<(), Error> {
        let mut open: Vec<char> = Vec::new();
        loop {
            let spaces = self.rest().len() - self.rest().trim_start_matches(is_space).len();
            self.advance(spaces);
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Err(Error::syntax(self.line, format!("unexpected end of input, expected `{end}`")));
            };
            if open.is_empty() {
                let signed = (first == '-' || first == '+' && end == "%}") && rest[1..].starts_with(end);
                if signed || rest.starts_with(end) {
                    self.push(token);
                    self.advance(2 + usize::from(signed));
                    // The end of a print tag takes no newline, and knows no plus.
                    let is_print = end == "}}";
                    self.after_end(signed && first == '-', signed && first == '+' || is_print && !signed);
                    return Ok(());
                }
            }
            match first {
                '\'' | '"' => self.string(first)?,
                '0'..='9' => self.number()?,
                c if c.is_alphabetic() || c == '_' => {
                    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                    self.push(Token::Name(rest[..end].to_owned()));
                    self.advance(end);
                }
                _ => self.sign(first, &mut open)?,
            }
        }
    }

    fn sign(&mut self, first: char, open: &mut Vec<char>) -> Result<(), Error> {
        let Some(sign) = SIGNS.iter().find(|sign| self.rest().starts_with(*sign)) else {
            return Err(Error::syntax(self.line, format!("unexpected character {first:?}")));
        };
        match first {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' if open.pop() != Some(first) => {
                return Err(Error::syntax(self.line, format!("unexpected `{first}`")));
            }
            _ => {}
        }
        self.push(Token::Sign(sign));
        self.advance(sign.len());
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), Error> {
        let rest = &self.rest()[1..];
        let mut escaped = false;
        let end = rest.find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else { return Err(Error::syntax(self.line, "unexpected end of string")) };
        let value = unescaped(&rest[..end]).map_err(|why| Error::syntax(self.line, why))?;
        self.push(Token::Text(value));
        self.advance(end + 2);
        Ok(())
    }

    fn number(&mut self) -> Result<(), Error> {
        let rest = self.rest();
        let radix = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        let wrong = |text: &str| format!("the number {} can't be read", shortened(text));
        if radix != 10 {
            let length = rest[2..]
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .map_or(rest.len(), |n| n + 2);
            let value = i128::from_str_radix(&rest[2..length].replace('_', ""), radix)
                .map_err(|_| Error::syntax(self.line, wrong(&rest[..length])))?;
            self.push(Token::Int(value));
            self.advance(length);
            return Ok(());
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
        let mut length = digits(rest);
        let mut whole = true;
        let after_dot =
            rest[length..].strip_prefix('.').filter(|after| after.starts_with(|c: char| c.is_ascii_digit()));
        // `a.0.1` is an index of an index, not of a fraction.
        let after_dot = after_dot.filter(|_| !matches!(self.tokens.last(), Some((Token::Sign("."), _))));
        if let Some(after) = after_dot {
            length += 1 + digits(after);
            whole = false;
        }
        if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
            let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
                length += 1 + (exponent.len() - unsigned.len()) + digits(unsigned);
                whole = false;
            }
        }
        let text = rest[..length].replace('_', "");
        let token = match whole {
            true => text.parse().map(Token::Int).ok(),
            false => text.parse().map(Token::Float).ok(),
        };
        let token = token.ok_or_else(|| Error::syntax(self.line, wrong(&text)))?;
        self.push(token);
        self.advance(length);
        Ok(())
    }
}

/// The length of ` raw %}` at the begin of a tag's inside.
fn raw_begin(inner: &str) -> Option<usize> {
    let close = inner.trim_start_matches(is_space).strip_prefix("raw")?.trim_start_matches(is_space);
    let after = match close.strip_prefix("-%}") {
        Some(after) => after.trim_start_matches(is_space),
        None => close.strip_prefix("%}")?,
    };
    Some(inner.len() - after.len())
}

/// A string's value: Python's escapes.
fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    // The first half of a pair of UTF-16 surrogates.
    let mut high: Option<u32> = None;
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = match chars.next() {
            None => break,
            Some('\n') => continue,
            Some('n') => 10,
            Some('t') => 9,
            Some('r') => 13,
            Some('a') => 7,
            Some('b') => 8,
            Some('f') => 12,
            Some('v') => 11,
            Some(c @ ('\\' | '\'' | '"')) => c as u32,
            Some('x') => hex(&mut chars, 2)?,
            Some('u') => hex(&mut chars, 4)?,
            Some('U') => hex(&mut chars, 8)?,
            Some(c @ '0'..='7') => {
                let mut code = c as u32 - '0' as u32;
                for _ in 0..2 {
                    let Some(digit) = chars.clone().next().and_then(|c| c.to_digit(8)) else { break };
                    code = code * 8 + digit;
                    chars.next();
                }
                code
            }
            Some(c) => {
                out.push('\\');
                out.push(c);
                continue;
            }
        };
        match (code, high.take()) {
            (0xD800..0xDC00, _) => high = Some(code),
            (0xDC00..0xE000, Some(high)) => {
                out.extend(char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (code - 0xDC00)));
            }
            _ => out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }
    Ok(out)
}

fn hex(chars: &mut std::str::Chars<'_>, digits: u32) -> Result<u32, String> {
    (0..digits).try_fold(0, |code, _| {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        digit
            .map(|digit| code << 4 | digit)
            .ok_or_else(|| format!("an escape in a string has fewer than {digits} digits"))
    })
}
