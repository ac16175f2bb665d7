//! From tokens to statements.

use std::collections::HashMap;

use super::ast::{
    CALLER, ExpressionKind, For, KWARGS, Macro, PostfixKind, Program, RESERVED, Statement, StatementKind,
    Symbol, Target, VARARGS,
};
use super::error::Error;
use super::lexer::{self, Token, shortened};

/// Depth of nested blocks and brackets, which costs stack. Real templates have some ten.
const MAX_NESTING: u32 = 150;

/// Parses a template.
pub(crate) fn parse(source: &str) -> Result<Program, Error> {
    let mut parser = Parser {
        tokens: lexer::tokens(source)?,
        at: 0,
        nesting: 0,
        loops: 0,
        symbols: HashMap::new(),
        mentions: [0; RESERVED.len()],
        program: Program::default(),
    };
    for name in RESERVED {
        parser.symbol(name);
    }
    let (body, _) = parser.body(&[])?;
    parser.program.body = body;
    Ok(parser.program)
}

pub(super) struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nesting: u32,
    /// Loops around the statement that is parsed.
    loops: u32,
    symbols: HashMap<String, Symbol>,
    /// How often each reserved name was read.
    mentions: [u32; RESERVED.len()],
    pub(super) program: Program,
}

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens[self.at].1
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.tokens[self.at].0.clone();
        // The last token is `End`, which stays.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    pub(super) fn symbol(&mut self, text: &str) -> Symbol {
        if let Some(&symbol) = self.symbols.get(text) {
            if let Some(mentions) = self.mentions.get_mut(symbol as usize) {
                *mentions += 1;
            }
            return symbol;
        }
        // A source of 128 KiB has far fewer than 2^32.
        let symbol = self.program.texts.len() as Symbol;
        self.program.texts.push(text.to_owned());
        self.symbols.insert(text.to_owned(), symbol);
        symbol
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(found) if found == name)
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> bool {
        let is = self.is_sign(sign);
        if is {
            self.next();
        }
        is
    }

    pub(super) fn take_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        if is {
            self.next();
        }
        is
    }

    pub(super) fn unexpected(&self, expected: &str) -> Error {
        let found = self.peek().describe();
        Error::syntax(self.line(), format!("unexpected {found}, expected {expected}"))
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Result<(), Error> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    /// Whether `not in` begins here.
    pub(super) fn not_in(&self) -> bool {
        matches!(self.tokens.get(self.at + 1), Some((Token::Name(name), _)) if name == "in")
    }

    /// Whether `name=` begins here.
    pub(super) fn is_named_argument(&self) -> bool {
        matches!(self.peek(), Token::Name(_))
            && matches!(self.tokens.get(self.at + 1), Some((Token::Sign("="), _)))
    }

    fn expect(&mut self, token: &Token) -> Result<(), Error> {
        if self.peek() != token {
            return Err(self.unexpected(&token.describe()));
        }
        self.next();
        Ok(())
    }

    pub(super) fn identifier(&mut self) -> Result<Symbol, Error> {
        match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                Ok(self.symbol(&name))
            }
            _ => Err(self.unexpected("identifier")),
        }
    }

    /// Runs `parse` one level deeper.
    pub(super) fn nested<T>(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(Error::syntax(self.line(), format!("nested more than {MAX_NESTING} deep")));
        }
        let parsed = parse(self)?;
        self.nesting -= 1;
        Ok(parsed)
    }

    /// Statements up to a tag of one of these names, which is returned and stands behind its name. Without names, up
    /// to the end.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Statement>, String), Error> {
        self.nested(|parser| {
            let mut statements = Vec::new();
            loop {
                let line = parser.line();
                let kind = match parser.next() {
                    Token::Data(text) => StatementKind::Text(parser.symbol(&text)),
                    Token::PrintBegin => {
                        let value = parser.tuple(true)?;
                        parser.expect(&Token::PrintEnd)?;
                        StatementKind::Print(value)
                    }
                    Token::TagBegin => {
                        let Token::Name(name) = parser.peek().clone() else {
                            return Err(parser.unexpected("block keyword"));
                        };
                        parser.next();
                        if ends.contains(&name.as_str()) {
                            return Ok((statements, name));
                        }
                        parser.statement(&name, line)?
                    }
                    Token::End if ends.is_empty() => return Ok((statements, String::new())),
                    _ => return Err(parser.unexpected("end of block")),
                };
                statements.push(Statement { line, kind });
            }
        })
    }

    /// A tag's end, then statements up to a tag `end`, with that tag's end.
    fn block(&mut self, end: &str) -> Result<Vec<Statement>, Error> {
        self.expect(&Token::TagEnd)?;
        let (body, _) = self.body(&[end])?;
        self.expect(&Token::TagEnd)?;
        Ok(body)
    }

    fn statement(&mut self, name: &str, line: u32) -> Result<StatementKind, Error> {
        match name {
            "if" => self.condition(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "macro" => {
                let name = self.identifier()?;
                let index = self.declaration(name, "endmacro", |_| Ok(()))?.0;
                Ok(StatementKind::Macro(index))
            }
            "call" => {
                let (index, call) = self.declaration(CALLER, "endcall", |parser| parser.expression())?;
                let is_call = matches!(&call.kind, ExpressionKind::Postfix(_, postfixes)
                    if matches!(postfixes.last().map(|last| &last.kind), Some(PostfixKind::Call(_))));
                match is_call {
                    true => Ok(StatementKind::CallBlock(call, index)),
                    false => Err(Error::syntax(line, "expected a call in the call block")),
                }
            }
            "filter" => {
                let filters = self.filters(true)?;
                Ok(StatementKind::FilterBlock(filters, self.block("endfilter")?))
            }
            "with" => {
                let mut assignments = Vec::new();
                while *self.peek() != Token::TagEnd {
                    if !assignments.is_empty() {
                        self.expect_sign(",")?;
                    }
                    let target = self.target()?;
                    self.expect_sign("=")?;
                    assignments.push((target, self.expression()?));
                }
                Ok(StatementKind::With(assignments, self.block("endwith")?))
            }
            // Marks an assistant's words for training, and otherwise prints what is inside.
            "generation" => Ok(StatementKind::Body(self.block("endgeneration")?)),
            "autoescape" => {
                self.expression()?;
                Ok(StatementKind::Body(self.block("endautoescape")?))
            }
            "block" => {
                self.identifier()?;
                while self.take_name("scoped") || self.take_name("required") {}
                self.expect(&Token::TagEnd)?;
                let (body, _) = self.body(&["endblock"])?;
                if matches!(self.peek(), Token::Name(_)) {
                    self.next();
                }
                self.expect(&Token::TagEnd)?;
                Ok(StatementKind::Body(body))
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err(Error::syntax(line, format!("`{name}` is outside of a loop")));
                }
                self.expect(&Token::TagEnd)?;
                Ok(if name == "break" { StatementKind::Break } else { StatementKind::Continue })
            }
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Token::TagEnd | Token::End) {
                    self.next();
                }
                self.expect(&Token::TagEnd)?;
                Ok(StatementKind::Elsewhere(name.to_owned()))
            }
            _ => Err(Error::syntax(line, format!("unknown statement {}", shortened(name)))),
        }
    }

    fn condition(&mut self) -> Result<StatementKind, Error> {
        let mut branches = Vec::new();
        loop {
            let condition = self.tuple(false)?;
            self.expect(&Token::TagEnd)?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match end.as_str() {
                "elif" => {}
                "else" => return Ok(StatementKind::If(branches, self.block("endif")?)),
                _ => {
                    self.expect(&Token::TagEnd)?;
                    return Ok(StatementKind::If(branches, Vec::new()));
                }
            }
        }
    }

    fn for_loop(&mut self) -> Result<StatementKind, Error> {
        let target = self.target()?;
        if !self.take_name("in") {
            return Err(self.unexpected("`in`"));
        }
        let items = self.tuple(false)?;
        let condition = if self.take_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.take_name("recursive");
        self.expect(&Token::TagEnd)?;
        self.loops += 1;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.loops -= 1;
        let otherwise = match end.as_str() {
            "else" => self.block("endfor")?,
            _ => {
                self.expect(&Token::TagEnd)?;
                Vec::new()
            }
        };
        Ok(StatementKind::For(Box::new(For { target, items, condition, recursive, body, otherwise })))
    }

    fn set(&mut self) -> Result<StatementKind, Error> {
        let target = self.target()?;
        if self.take_sign("=") {
            let value = self.tuple(true)?;
            self.expect(&Token::TagEnd)?;
            return Ok(StatementKind::Set(target, value));
        }
        let filters = self.filters(false)?;
        Ok(StatementKind::SetBlock(target, filters, self.block("endset")?))
    }

    /// A macro's parameters, what `between` reads, and its body.
    fn declaration<T>(
        &mut self,
        name: Symbol,
        end: &str,
        between: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<(usize, T), Error> {
        let mut parameters = Vec::new();
        // A call block may have none; a macro has brackets always.
        if name != CALLER || self.is_sign("(") {
            self.expect_sign("(")?;
            while !self.is_sign(")") {
                if !parameters.is_empty() {
                    self.expect_sign(",")?;
                    if self.is_sign(")") {
                        break;
                    }
                }
                let parameter = self.identifier()?;
                let default = if self.take_sign("=") { Some(self.expression()?) } else { None };
                parameters.push((parameter, default));
            }
            self.expect_sign(")")?;
        }
        let between = between(self)?;
        let loops = std::mem::take(&mut self.loops);
        let before = self.mentions;
        let body = self.block(end)?;
        self.loops = loops;
        let mentioned = |name: Symbol| self.mentions[name as usize] > before[name as usize];
        let (takes_more, takes_named) = (mentioned(VARARGS), mentioned(KWARGS));
        self.program.macros.push(Macro { name, parameters, takes_more, takes_named, body });
        Ok((self.program.macros.len() - 1, between))
    }

    /// A name, an attribute, or several with commas.
    fn target(&mut self) -> Result<Target, Error> {
        let first = self.single_target()?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut targets = vec![first];
        while self.take_sign(",") {
            if self.is_name("in") || self.is_sign("=") || self.is_sign(")") {
                break;
            }
            targets.push(self.single_target()?);
        }
        Ok(Target::Tuple(targets))
    }

    fn single_target(&mut self) -> Result<Target, Error> {
        if self.take_sign("(") {
            let target = self.nested(Self::target)?;
            self.expect_sign(")")?;
            return Ok(target);
        }
        if let Token::Name(name) = self.peek()
            && matches!(name.as_str(), "true" | "false" | "none" | "True" | "False" | "None")
        {
            return Err(Error::syntax(self.line(), format!("can't assign to `{name}`")));
        }
        let name = self.identifier()?;
        if self.take_sign(".") {
            return Ok(Target::Attribute(name, self.identifier()?));
        }
        Ok(Target::Name(name))
    }
}
