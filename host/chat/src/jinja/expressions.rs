//! From tokens to expressions, by Jinja2's ranks of operators.

use super::ast::{Arguments, Comparison, Expression, ExpressionKind, Filter, Operator, Postfix, PostfixKind};
use super::error::Error;
use super::lexer::Token;
use super::parser::Parser;

/// Conditions without an `else` behind one value.
const MAX_CONDITIONS: usize = 20;

impl Parser {
    /// An expression, or several with commas.
    pub(super) fn tuple(&mut self, conditional: bool) -> Result<Expression, Error> {
        let line = self.line();
        let first = if conditional { self.expression()? } else { self.or()? };
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take_sign(",") {
            if matches!(self.peek(), Token::PrintEnd | Token::TagEnd)
                || self.is_sign(")")
                || self.is_name("recursive")
            {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.or()? });
        }
        Ok(Expression { line, kind: ExpressionKind::Tuple(items) })
    }

    pub(super) fn expression(&mut self) -> Result<Expression, Error> {
        self.nested(|parser| {
            let line = parser.line();
            let mut value = parser.or()?;
            // `a if b if c` nests to the left.
            let mut nested = 0;
            while parser.take_name("if") {
                nested += 1;
                if nested > MAX_CONDITIONS {
                    let why = format!("more than {MAX_CONDITIONS} conditions in a row");
                    return Err(Error::syntax(parser.line(), why));
                }
                let condition = parser.or()?;
                let otherwise = if parser.take_name("else") { Some(parser.expression()?) } else { None };
                let parts = Box::new((value, condition, otherwise));
                value = Expression { line, kind: ExpressionKind::Conditional(parts) };
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Result<Expression, Error> {
        self.words("or", Self::and, ExpressionKind::Or)
    }

    fn and(&mut self) -> Result<Expression, Error> {
        self.words("and", Self::not, ExpressionKind::And)
    }

    /// Parts with a word between them.
    fn words(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Expression, Error>,
        kind: fn(Vec<Expression>) -> ExpressionKind,
    ) -> Result<Expression, Error> {
        let line = self.line();
        let first = part(self)?;
        if !self.is_name(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_name(word) {
            parts.push(part(self)?);
        }
        Ok(Expression { line, kind: kind(parts) })
    }

    fn not(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        let mut count = 0u32;
        while self.take_name("not") {
            count += 1;
        }
        let value = self.comparison()?;
        if count == 0 {
            return Ok(value);
        }
        Ok(Expression { line, kind: ExpressionKind::Not(Box::new(value), count % 2 == 1) })
    }

    fn comparison(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Sign("==") => Comparison::Equal,
                Token::Sign("!=") => Comparison::NotEqual,
                Token::Sign("<") => Comparison::Less,
                Token::Sign("<=") => Comparison::LessOrEqual,
                Token::Sign(">") => Comparison::Greater,
                Token::Sign(">=") => Comparison::GreaterOrEqual,
                Token::Name(name) if name == "in" => Comparison::In,
                Token::Name(name) if name == "not" && self.not_in() => {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((comparison, self.sum()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression { line, kind: ExpressionKind::Comparison(Box::new(first), rest) })
    }

    fn arithmetic(
        &mut self,
        operators: &[(&str, Operator)],
        part: fn(&mut Self) -> Result<Expression, Error>,
    ) -> Result<Expression, Error> {
        let line = self.line();
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some(&(_, operator)) = operators.iter().find(|(sign, _)| self.is_sign(sign)) {
            self.next();
            rest.push((operator, part(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression { line, kind: ExpressionKind::Arithmetic(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Result<Expression, Error> {
        self.arithmetic(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concatenation)
    }

    fn concatenation(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        let first = self.product()?;
        if !self.is_sign("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_sign("~") {
            parts.push(self.product()?);
        }
        Ok(Expression { line, kind: ExpressionKind::Concatenation(parts) })
    }

    fn product(&mut self) -> Result<Expression, Error> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Remainder),
        ];
        self.arithmetic(&operators, Self::power)
    }

    /// Jinja2's `**` goes from left to right, unlike Python's.
    fn power(&mut self) -> Result<Expression, Error> {
        self.arithmetic(&[("**", Operator::Power)], Self::unary)
    }

    /// Signs bind tighter than filters, and looser than attributes.
    fn unary(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        let (mut signs, mut minuses) = (0u32, 0u32);
        loop {
            if self.take_sign("-") {
                minuses += 1;
            } else if !self.take_sign("+") {
                break;
            }
            signs += 1;
        }
        let value = self.primary()?;
        let mut postfixes = Vec::new();
        self.postfixes(&mut postfixes)?;
        if signs == 0 {
            self.filters_and_tests(&mut postfixes)?;
            return Ok(with_postfixes(value, postfixes));
        }
        let value = with_postfixes(value, postfixes);
        let kind = ExpressionKind::Signed(Box::new(value), minuses % 2 == 1);
        let mut postfixes = Vec::new();
        self.filters_and_tests(&mut postfixes)?;
        Ok(with_postfixes(Expression { line, kind }, postfixes))
    }

    fn primary(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        let kind = match self.peek().clone() {
            Token::Name(name) => {
                self.next();
                match name.as_str() {
                    "true" | "True" => ExpressionKind::Bool(true),
                    "false" | "False" => ExpressionKind::Bool(false),
                    "none" | "None" => ExpressionKind::None,
                    _ => ExpressionKind::Name(self.symbol(&name)),
                }
            }
            Token::Text(mut text) => {
                self.next();
                // Strings side by side are one, as in Python.
                while let Token::Text(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                ExpressionKind::Text(self.symbol(&text))
            }
            Token::Int(value) => {
                self.next();
                ExpressionKind::Int(value)
            }
            Token::Float(value) => {
                self.next();
                ExpressionKind::Float(value)
            }
            Token::Sign("(") => return self.brackets(),
            Token::Sign("[") => {
                self.next();
                let mut items = Vec::new();
                while !self.is_sign("]") {
                    if !items.is_empty() {
                        self.expect_sign(",")?;
                        if self.is_sign("]") {
                            break;
                        }
                    }
                    items.push(self.expression()?);
                }
                self.expect_sign("]")?;
                ExpressionKind::List(items)
            }
            Token::Sign("{") => {
                self.next();
                let mut entries = Vec::new();
                while !self.is_sign("}") {
                    if !entries.is_empty() {
                        self.expect_sign(",")?;
                        if self.is_sign("}") {
                            break;
                        }
                    }
                    let key = self.expression()?;
                    self.expect_sign(":")?;
                    entries.push((key, self.expression()?));
                }
                self.expect_sign("}")?;
                ExpressionKind::Dict(entries)
            }
            _ => return Err(self.unexpected("an expression")),
        };
        Ok(Expression { line, kind })
    }

    fn brackets(&mut self) -> Result<Expression, Error> {
        let line = self.line();
        self.next();
        if self.take_sign(")") {
            return Ok(Expression { line, kind: ExpressionKind::Tuple(Vec::new()) });
        }
        let value = self.nested(|parser| parser.tuple(true))?;
        self.expect_sign(")")?;
        Ok(value)
    }

    /// `.name`, `[index]` and `(arguments)`.
    fn postfixes(&mut self, postfixes: &mut Vec<Postfix>) -> Result<(), Error> {
        loop {
            let line = self.line();
            let kind = if self.take_sign(".") {
                if let Token::Int(index) = *self.peek() {
                    self.next();
                    PostfixKind::Item(Expression { line, kind: ExpressionKind::Int(index) })
                } else {
                    PostfixKind::Attribute(self.identifier()?)
                }
            } else if self.take_sign("[") {
                let subscript = self.subscript()?;
                self.expect_sign("]")?;
                subscript
            } else if self.is_sign("(") {
                PostfixKind::Call(self.arguments()?)
            } else {
                return Ok(());
            };
            postfixes.push(Postfix { line, kind });
        }
    }

    fn subscript(&mut self) -> Result<PostfixKind, Error> {
        let line = self.line();
        let mut parts = [None, None, None];
        let mut part = 0;
        while !self.is_sign("]") && !self.is_sign(",") {
            if self.is_sign(":") && part < 2 {
                self.next();
                part += 1;
            } else if parts[part].is_none() {
                parts[part] = Some(self.expression()?);
            } else {
                return Err(self.unexpected("`]`"));
            }
        }
        match (part, parts) {
            (0, [Some(first), ..]) if self.is_sign(",") => {
                let mut items = vec![first];
                while self.take_sign(",") {
                    items.push(self.expression()?);
                }
                Ok(PostfixKind::Item(Expression { line, kind: ExpressionKind::Tuple(items) }))
            }
            (0, [Some(index), ..]) => Ok(PostfixKind::Item(index)),
            (0, _) => Err(self.unexpected("an expression")),
            (_, parts) => Ok(PostfixKind::Slice(Box::new(parts))),
        }
    }

    /// `|filter` and `is test`, with what is taken from their results.
    fn filters_and_tests(&mut self, postfixes: &mut Vec<Postfix>) -> Result<(), Error> {
        loop {
            let line = self.line();
            let kind = if self.take_sign("|") {
                PostfixKind::Filter(self.filter()?)
            } else if self.take_name("is") {
                self.test()?
            } else if self.is_sign("(") {
                PostfixKind::Call(self.arguments()?)
            } else {
                return Ok(());
            };
            postfixes.push(Postfix { line, kind });
        }
    }

    fn filter(&mut self) -> Result<Filter, Error> {
        let name = self.dotted_name()?;
        let arguments = if self.is_sign("(") { self.arguments()? } else { Arguments::default() };
        Ok(Filter { name, arguments })
    }

    /// `|name|name`, or `name|name` at the begin of a filter block.
    pub(super) fn filters(&mut self, begins_with_name: bool) -> Result<Vec<Filter>, Error> {
        let mut filters = Vec::new();
        if begins_with_name {
            filters.push(self.filter()?);
        }
        while self.take_sign("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn dotted_name(&mut self) -> Result<u32, Error> {
        let first = self.identifier()?;
        if !self.is_sign(".") {
            return Ok(first);
        }
        let mut name = self.program.texts[first as usize].clone();
        while self.take_sign(".") {
            let part = self.identifier()?;
            name.push('.');
            name.push_str(&self.program.texts[part as usize]);
        }
        Ok(self.symbol(&name))
    }

    fn test(&mut self) -> Result<PostfixKind, Error> {
        let negated = self.take_name("not");
        let name = self.dotted_name()?;
        if self.is_sign("(") {
            return Ok(PostfixKind::Test(name, self.arguments()?, negated));
        }
        let mut arguments = Arguments::default();
        let begins = match self.peek() {
            Token::Name(name) if name == "is" => {
                return Err(Error::syntax(self.line(), "tests can't be chained with `is`"));
            }
            Token::Name(name) => {
                !matches!(name.as_str(), "else" | "or" | "and" | "if" | "in" | "not" | "recursive")
            }
            Token::Text(_) | Token::Int(_) | Token::Float(_) => true,
            Token::Sign(sign) => matches!(*sign, "[" | "{"),
            _ => false,
        };
        if begins {
            let value = self.primary()?;
            let mut postfixes = Vec::new();
            self.postfixes(&mut postfixes)?;
            arguments.positional.push(with_postfixes(value, postfixes));
        }
        Ok(PostfixKind::Test(name, arguments, negated))
    }

    fn arguments(&mut self) -> Result<Arguments, Error> {
        self.expect_sign("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.is_sign(")") {
            if !std::mem::replace(&mut first, false) {
                self.expect_sign(",")?;
                if self.is_sign(")") {
                    break;
                }
            }
            let line = self.line();
            if self.take_sign("**") {
                arguments.dict = Some(Box::new(self.expression()?));
            } else if self.take_sign("*") {
                arguments.list = Some(Box::new(self.expression()?));
            } else if self.is_named_argument() {
                let name = self.identifier()?;
                self.next();
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() && arguments.dict.is_none() {
                arguments.positional.push(self.expression()?);
            } else {
                return Err(Error::syntax(line, "an argument without a name follows one with a name"));
            }
        }
        self.expect_sign(")")?;
        Ok(arguments)
    }
}

fn with_postfixes(value: Expression, postfixes: Vec<Postfix>) -> Expression {
    if postfixes.is_empty() {
        return value;
    }
    Expression { line: value.line, kind: ExpressionKind::Postfix(Box::new(value), postfixes) }
}
