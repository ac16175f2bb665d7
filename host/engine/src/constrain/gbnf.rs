//! Grammars in GBNF, as ones in Lark's form.
//!
//! GBNF knows characters, and a lexer like Lark's cuts a text into terminals, the longest first. So a rule that doesn't come back to
//! itself becomes one terminal, which is a regular expression, and only the others become rules.
//!
//! The form: [llama.cpp's description](https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md).

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

/// The deepest nesting of brackets, and of rules within terminals.
const MAX_DEPTH: usize = 64;

/// Whether a line begins a rule's definition.
pub(super) fn is_definition(line: &str) -> bool {
    line.split_once("::=").is_some_and(|(name, _)| {
        let name = name.trim();
        !name.is_empty() && name.chars().all(is_name)
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// What a rule is made of.
#[derive(Debug)]
enum Node {
    Text(String),
    /// A regular expression for one character.
    Class(String),
    /// A token, as Lark's form writes it.
    Token(String),
    Rule(String),
    Sequence(Vec<Node>),
    Choice(Vec<Node>),
    /// At least, and at most, so often.
    Repeat(Box<Node>, u32, Option<u32>),
}

/// The grammar in Lark's form.
///
/// # Errors
/// Where it is no GBNF, in one sentence without an end.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let rules = Reader { rest: text, line: 1 }.rules()?;
    if !rules.iter().any(|(name, _)| name == "root") {
        return Err("it has no rule \"root\", where that was expected to be the whole".to_owned());
    }
    let index: HashMap<&str, usize> =
        rules.iter().enumerate().map(|(index, (name, _))| (name.as_str(), index)).collect();
    for (name, node) in &rules {
        let mut used = HashSet::new();
        references(node, &mut used);
        if let Some(unknown) = used.iter().find(|used| !index.contains_key(*used)) {
            return Err(format!("the rule {name:?} uses {unknown:?}, which is no rule of it"));
        }
    }
    let regular = regular(&rules, &index);
    let mut lark = String::new();
    let names: HashMap<&str, String> = index
        .iter()
        .map(|(name, index)| (*name, if regular[*index] { format!("T{index}") } else { format!("r{index}") }))
        .collect();
    let _ = writeln!(lark, "start: {}", names["root"]);
    for (name, node) in &rules {
        let _ = write!(lark, "{}: ", names[name.as_str()]);
        write_node(&mut lark, node, &names);
        lark.push('\n');
    }
    Ok(lark)
}

fn references<'n>(node: &'n Node, used: &mut HashSet<&'n str>) {
    match node {
        Node::Text(_) | Node::Class(_) | Node::Token(_) => {}
        Node::Rule(name) => {
            used.insert(name);
        }
        Node::Sequence(nodes) | Node::Choice(nodes) => nodes.iter().for_each(|node| references(node, used)),
        Node::Repeat(node, ..) => references(node, used),
    }
}

fn has_token(node: &Node) -> bool {
    match node {
        Node::Token(_) => true,
        Node::Text(_) | Node::Class(_) | Node::Rule(_) => false,
        Node::Sequence(nodes) | Node::Choice(nodes) => nodes.iter().any(has_token),
        Node::Repeat(node, ..) => has_token(node),
    }
}

/// Which rules can be terminals: those made of characters, and of others that can.
fn regular(rules: &[(String, Node)], index: &HashMap<&str, usize>) -> Vec<bool> {
    let uses: Vec<Vec<usize>> = rules
        .iter()
        .map(|(_, node)| {
            let mut used = HashSet::new();
            references(node, &mut used);
            used.into_iter().map(|name| index[name]).collect()
        })
        .collect();
    let mut regular = vec![false; rules.len()];
    // Rules become regular from the innermost outwards; what comes back to itself never does.
    for _ in 0..MAX_DEPTH {
        let mut changed = false;
        for (rule, used) in uses.iter().enumerate() {
            if !regular[rule] && !has_token(&rules[rule].1) && used.iter().all(|other| regular[*other]) {
                regular[rule] = true;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    regular
}

fn write_node(lark: &mut String, node: &Node, names: &HashMap<&str, String>) {
    match node {
        Node::Text(text) => lark.push_str(&serde_json::Value::from(text.as_str()).to_string()),
        Node::Class(class) => {
            let _ = write!(lark, "/{class}/");
        }
        Node::Token(token) => lark.push_str(token),
        Node::Rule(name) => lark.push_str(&names[name.as_str()]),
        Node::Sequence(nodes) if nodes.is_empty() => lark.push_str("\"\""),
        Node::Sequence(nodes) | Node::Choice(nodes) => {
            let between = if matches!(node, Node::Choice(_)) { " | " } else { " " };
            lark.push('(');
            for (place, node) in nodes.iter().enumerate() {
                lark.push_str(if place > 0 { between } else { "" });
                write_node(lark, node, names);
            }
            lark.push(')');
        }
        Node::Repeat(node, least, most) => {
            lark.push('(');
            write_node(lark, node, names);
            let _ = match (least, most) {
                (0, None) => write!(lark, ")*"),
                (1, None) => write!(lark, ")+"),
                (0, Some(1)) => write!(lark, ")?"),
                (least, None) => write!(lark, "){{{least},}}"),
                (least, Some(most)) => write!(lark, "){{{least},{most}}}"),
            };
        }
    }
}

struct Reader<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Reader<'t> {
    fn failed(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(20).collect();
        format!("line {} has {found:?}, where {expected} was expected", self.line)
    }

    fn skip(&mut self, n_bytes: usize) {
        let (skipped, rest) = self.rest.split_at(n_bytes);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    /// Skips spaces and comments, and, within a rule's brackets or before one, the ends of lines.
    fn space(&mut self, lines: bool) {
        loop {
            let after = self.rest.trim_start_matches([' ', '\t', '\r']);
            self.skip(self.rest.len() - after.len());
            if self.rest.starts_with('#') {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if lines && self.rest.starts_with('\n') {
                self.skip(1);
            } else {
                return;
            }
        }
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.skip(text.len());
        }
        found
    }

    fn name(&mut self) -> Option<&'t str> {
        let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let name = &self.rest[..end];
        self.skip(end);
        Some(name).filter(|name| !name.is_empty())
    }

    fn rules(mut self) -> Result<Vec<(String, Node)>, String> {
        let mut rules: Vec<(String, Node)> = Vec::new();
        loop {
            self.space(true);
            if self.rest.is_empty() {
                return Ok(rules);
            }
            let name = self.name().ok_or_else(|| self.failed("a rule's name"))?;
            self.space(true);
            if !self.take("::=") {
                return Err(self.failed("\"::=\""));
            }
            self.space(true);
            let node = self.choice(false, 0)?;
            if rules.iter().any(|(other, _)| other == name) {
                return Err(format!("the rule {name:?} is defined twice"));
            }
            rules.push((name.to_owned(), node));
            if !self.rest.is_empty() && !self.rest.starts_with('\n') {
                return Err(self.failed("the end of the line"));
            }
        }
    }

    fn choice(&mut self, nested: bool, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(format!("line {}: brackets are nested more than {MAX_DEPTH} deep", self.line));
        }
        let mut choices = vec![self.sequence(nested, depth)?];
        loop {
            // An alternative may stand on a line of its own.
            let (rest, line) = (self.rest, self.line);
            self.space(true);
            if !self.take("|") {
                if !nested {
                    (self.rest, self.line) = (rest, line);
                }
                break;
            }
            self.space(true);
            choices.push(self.sequence(nested, depth)?);
        }
        Ok(if choices.len() == 1 { choices.remove(0) } else { Node::Choice(choices) })
    }

    fn sequence(&mut self, nested: bool, depth: usize) -> Result<Node, String> {
        let mut nodes: Vec<Node> = Vec::new();
        loop {
            self.space(nested);
            let node = match self.rest.chars().next() {
                Some('"') => self.text()?,
                Some('[') => self.class()?,
                Some('.') => {
                    self.skip(1);
                    Node::Class("(?s:.)".to_owned())
                }
                Some('<') => self.token()?,
                Some('(') => {
                    self.skip(1);
                    self.space(true);
                    let node = self.choice(true, depth + 1)?;
                    self.space(true);
                    if !self.take(")") {
                        return Err(self.failed("\")\""));
                    }
                    node
                }
                Some(c) if is_name(c) => Node::Rule(self.name().unwrap_or_default().to_owned()),
                _ => return Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Sequence(nodes) }),
            };
            nodes.push(self.repeated(node)?);
        }
    }

    fn repeated(&mut self, node: Node) -> Result<Node, String> {
        let mut node = node;
        loop {
            let (least, most) = match self.rest.chars().next() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => self.bounds()?,
                _ => return Ok(node),
            };
            // The mark itself; of bounds, their closing bracket.
            self.skip(1);
            node = Node::Repeat(Box::new(node), least, most);
        }
    }

    /// Reads `{m}`, `{m,}`, `{m,n}` or `{,n}` up to its closing bracket.
    fn bounds(&mut self) -> Result<(u32, Option<u32>), String> {
        let end = self.rest.find('}').ok_or_else(|| self.failed("\"}\""))?;
        let inner = &self.rest[1..end];
        let number = |text: &str| text.trim().parse::<u32>().ok();
        let bounds = match inner.split_once(',') {
            None => number(inner).map(|n| (n, Some(n))),
            Some((least, most)) if most.trim().is_empty() => number(least).map(|least| (least, None)),
            Some((least, most)) if least.trim().is_empty() => number(most).map(|most| (0, Some(most))),
            Some((least, most)) => number(least).zip(number(most)).map(|(least, most)| (least, Some(most))),
        };
        let bounds = bounds.filter(|(least, most)| most.is_none_or(|most| *least <= most));
        let bounds = bounds.ok_or_else(|| self.failed("how often something may come, as in {1,3}"))?;
        self.skip(end);
        Ok(bounds)
    }

    /// A special token: by its id, `<[7]>`, or its text.
    fn token(&mut self) -> Result<Node, String> {
        let end = self.rest.find('>').ok_or_else(|| self.failed("\">\""))?;
        let token = self.rest[..=end].to_owned();
        if token.chars().any(char::is_whitespace) {
            return Err(self.failed("a token such as <|im_end|> or <[7]>"));
        }
        self.skip(end + 1);
        Ok(Node::Token(token))
    }

    fn text(&mut self) -> Result<Node, String> {
        self.skip(1);
        let mut text = String::new();
        loop {
            if self.take("\"") {
                return Ok(Node::Text(text));
            }
            text.push(self.character()?);
        }
    }

    fn class(&mut self) -> Result<Node, String> {
        self.skip(1);
        let mut class = String::from(if self.take("^") { "[^" } else { "[" });
        let (mut last, mut is_range, mut is_empty) = ('\0', false, true);
        while !self.take("]") {
            if !is_empty && !is_range && self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.skip(1);
                class.push('-');
                is_range = true;
                continue;
            }
            let c = self.character()?;
            if is_range && c < last {
                return Err(format!("line {}: the range {last:?}-{c:?} is empty", self.line));
            }
            let _ = write!(class, "\\u{{{:x}}}", u32::from(c));
            (last, is_range, is_empty) = (c, false, false);
        }
        if is_empty {
            return Err(format!("line {}: [] has no characters, where at least one was expected", self.line));
        }
        class.push(']');
        Ok(Node::Class(class))
    }

    /// A character of a text or a class, where it may be escaped.
    fn character(&mut self) -> Result<char, String> {
        let c = self.rest.chars().next().ok_or_else(|| self.failed("the end of a text or class"))?;
        self.skip(c.len_utf8());
        if c != '\\' {
            return Ok(c);
        }
        let escaped = self.rest.chars().next().ok_or_else(|| self.failed("an escaped character"))?;
        self.skip(escaped.len_utf8());
        let digits = match escaped {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Ok(other),
        };
        let code = self.rest.get(..digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let c = code.and_then(char::from_u32).ok_or_else(|| self.failed("a character's code in hex"))?;
        self.skip(digits);
        Ok(c)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_do_not_recur_become_terminals() {
        let lark = to_lark("root ::= \"a\" [0-9]{2,} word? # so\nword ::= [^ \\n\\]]+ | \"é\\x41\"").unwrap();
        assert_eq!(
            lark,
            "start: T0\nT0: (\"a\" (/[\\u{30}-\\u{39}]/){2,} (T1)?)\nT1: ((/[^\\u{20}\\u{a}\\u{5d}]/)+ | \"éA\")\n"
        );
    }

    #[test]
    fn rules_that_recur_stay_rules() {
        let lark = to_lark("root ::= \"(\" root \")\"\n    | ( x\n | \"\" )\nx::=.{,3}").unwrap();
        assert_eq!(lark, "start: r0\nr0: ((\"(\" r0 \")\") | (T1 | \"\"))\nT1: (/(?s:.)/){0,3}\n");
    }

    #[test]
    fn what_is_no_grammar_gets_a_sentence() {
        for (text, says) in [
            ("", "no rule \"root\""),
            ("root ::= x", "uses \"x\""),
            ("root ::= \"a", "the end of a text"),
            ("root ::= (\"a\"", "\")\""),
            ("root ::= [z-a]", "is empty"),
            ("root ::= []", "no characters"),
            ("root ::= \"a\"{3,1}", "how often"),
            ("root = \"a\"", "\"::=\""),
            ("root ::= \"a\"\nroot ::= \"b\"", "twice"),
            ("root ::= \"\\uD800\"", "code in hex"),
        ] {
            let said = to_lark(text).unwrap_err();
            assert!(said.contains(says), "{text:?}: {said}");
        }
        assert!(to_lark(&format!("root ::= {}", "(".repeat(10_000))).unwrap_err().contains("nested"));
    }
}
