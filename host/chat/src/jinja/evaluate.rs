//! Evaluates a program's expressions.

use std::rc::Rc;

use super::arguments::Given;
use super::ast::{Arguments, CALLER, Comparison, Expression, ExpressionKind, Filter, Postfix, PostfixKind};
use super::error::Error;
use super::interpreter::Interpreter;
use super::lexer::shortened;
use super::value::{Builder, Dict, Items, Text, Value};
use super::{filters, functions, methods, operators, order, predicates, show};

impl<'a> Interpreter<'a> {
    pub(super) fn evaluate(&mut self, expression: &'a Expression) -> Result<Value, Error> {
        self.meter.enter()?;
        let value = self.kind(expression).map_err(|error| error.at(expression.line))?;
        self.meter.leave();
        Ok(value)
    }

    fn kind(&mut self, expression: &'a Expression) -> Result<Value, Error> {
        Ok(match &expression.kind {
            ExpressionKind::None => Value::None,
            ExpressionKind::Bool(value) => Value::Bool(*value),
            ExpressionKind::Int(value) => Value::Int(*value),
            ExpressionKind::Float(value) => Value::Float(*value),
            ExpressionKind::Text(symbol) => Value::Text(self.texts[*symbol as usize].clone()),
            ExpressionKind::Name(symbol) => self.variable(*symbol)?,
            ExpressionKind::List(items) => self.all(items)?.list(),
            ExpressionKind::Tuple(items) => Value::Tuple(self.all(items)?.finish()),
            ExpressionKind::Dict(entries) => {
                let mut dict = Dict::new(&self.meter)?;
                for (key, value) in entries {
                    let key = self.evaluate(key)?;
                    let value = self.evaluate(value)?;
                    dict.insert(&self.meter, key, value)?;
                }
                Value::Dict(Rc::new(dict))
            }
            ExpressionKind::Postfix(base, postfixes) => self.postfixes(base, postfixes)?,
            ExpressionKind::Arithmetic(first, rest) => {
                let mut value = self.evaluate(first)?;
                for (operator, right) in rest {
                    let right = self.evaluate(right)?;
                    value = operators::arithmetic(&self.meter, *operator, &value, &right)?;
                }
                value
            }
            ExpressionKind::Concatenation(parts) => {
                let mut out = Builder::new(&self.meter)?;
                for part in parts {
                    let part = self.evaluate(part)?;
                    show::show(&self.meter, &part, &mut out)?;
                }
                out.finish()?
            }
            ExpressionKind::Comparison(first, rest) => self.comparison(first, rest)?,
            ExpressionKind::And(parts) => self.until(parts, false)?,
            ExpressionKind::Or(parts) => self.until(parts, true)?,
            ExpressionKind::Not(value, negated) => Value::Bool(self.evaluate(value)?.is_true() != *negated),
            ExpressionKind::Signed(value, negated) => {
                let value = self.evaluate(value)?;
                match (&value, negated) {
                    (Value::Float(number), true) => Value::Float(-number),
                    (Value::Float(_), false) => value,
                    (other, negated) => {
                        let number = other.as_int().ok_or_else(|| {
                            Error::invalid(format!("a sign before a value that is {}", other.kind()))
                        })?;
                        Value::Int(if *negated { number.saturating_neg() } else { number })
                    }
                }
            }
            ExpressionKind::Conditional(parts) => {
                let (value, condition, otherwise) = &**parts;
                match (self.evaluate(condition)?.is_true(), otherwise) {
                    (true, _) => self.evaluate(value)?,
                    (false, Some(otherwise)) => self.evaluate(otherwise)?,
                    (false, None) => Value::Undefined,
                }
            }
        })
    }

    fn all(&mut self, expressions: &'a [Expression]) -> Result<Items, Error> {
        let mut items = Items::new(&self.meter)?;
        items.reserve(expressions.len())?;
        for expression in expressions {
            let value = self.evaluate(expression)?;
            items.push(value)?;
        }
        Ok(items)
    }

    /// The first value whose truth is this, or the last: Python's `or` and `and`.
    fn until(&mut self, parts: &'a [Expression], truth: bool) -> Result<Value, Error> {
        let mut value = Value::Undefined;
        for part in parts {
            value = self.evaluate(part)?;
            if value.is_true() == truth {
                break;
            }
        }
        Ok(value)
    }

    /// `a < b < c` holds if both do.
    fn comparison(
        &mut self,
        first: &'a Expression,
        rest: &'a [(Comparison, Expression)],
    ) -> Result<Value, Error> {
        let mut left = self.evaluate(first)?;
        for (comparison, right) in rest {
            let right = self.evaluate(right)?;
            if !compare(self, *comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn postfixes(&mut self, base: &'a Expression, postfixes: &'a [Postfix]) -> Result<Value, Error> {
        let mut place = 0;
        let mut value = match (&base.kind, postfixes.first()) {
            (ExpressionKind::Name(name), Some(Postfix { kind: PostfixKind::Call(arguments), line })) => {
                place = 1;
                let callee = self.variable(*name)?;
                let given = self.arguments(arguments)?;
                self.call_named(&callee, self.symbol_text(*name), given).map_err(|error| error.at(*line))?
            }
            _ => self.evaluate(base)?,
        };
        while let Some(postfix) = postfixes.get(place) {
            self.meter.work(1)?;
            let what = || describe(self, base, &postfixes[..place]);
            if matches!(value, Value::Undefined)
                && matches!(
                    postfix.kind,
                    PostfixKind::Attribute(_)
                        | PostfixKind::Item(_)
                        | PostfixKind::Slice(_)
                        | PostfixKind::Call(_)
                )
            {
                return Err(Error::undefined(&what()).at(postfix.line));
            }
            // A method's call needs no value for the method.
            let call = match (&postfix.kind, postfixes.get(place + 1)) {
                (PostfixKind::Attribute(name), Some(Postfix { kind: PostfixKind::Call(arguments), .. })) => {
                    Some((*name, arguments))
                }
                _ => None,
            };
            place += 1 + usize::from(call.is_some());
            let next = match call {
                Some((name, arguments)) => {
                    let given = self.arguments(arguments)?;
                    let name = self.texts[name as usize].clone();
                    methods::call(self, &value, &name, given)
                }
                None => self.postfix(&value, &postfix.kind),
            };
            value = next.map_err(|error| error.at(postfix.line))?;
        }
        Ok(value)
    }

    fn postfix(&mut self, value: &Value, postfix: &'a PostfixKind) -> Result<Value, Error> {
        match postfix {
            PostfixKind::Attribute(name) => {
                let name = self.texts[*name as usize].clone();
                functions::attribute(self, value, &name)
            }
            PostfixKind::Item(index) => {
                let index = self.evaluate(index)?;
                functions::item(self, value, &index)
            }
            PostfixKind::Slice(parts) => {
                let mut bounds = [None; 3];
                for (bound, part) in bounds.iter_mut().zip(&**parts) {
                    if let Some(part) = part {
                        *bound = match self.evaluate(part)? {
                            Value::None => None,
                            other => Some(other.as_int().ok_or_else(|| {
                                Error::invalid(format!("a slice from or to a value that is {}", other.kind()))
                            })?),
                        };
                    }
                }
                operators::slice(&self.meter, value, bounds)
            }
            PostfixKind::Call(arguments) => {
                let given = self.arguments(arguments)?;
                self.call_value(value, given)
            }
            PostfixKind::Filter(filter) => self.apply(filter, value.clone()),
            PostfixKind::Test(name, arguments, negated) => {
                let given = self.arguments(arguments)?;
                let holds = predicates::holds(self, self.symbol_text(*name), value, given)?;
                Ok(Value::Bool(holds != *negated))
            }
        }
    }

    pub(super) fn apply(&mut self, filter: &'a Filter, value: Value) -> Result<Value, Error> {
        let given = self.arguments(&filter.arguments)?;
        filters::apply(self, self.symbol_text(filter.name), value, given)
    }

    fn arguments(&mut self, arguments: &'a Arguments) -> Result<Given, Error> {
        let mut given = Given::default();
        for expression in &arguments.positional {
            given.positional.push(self.evaluate(expression)?);
        }
        if let Some(list) = &arguments.list {
            let list = self.evaluate(list)?.items(&self.meter)?;
            // They are copied twice or more on their way.
            self.meter.work(list.items.len() as u64)?;
            given.charge = Some(self.meter.charge(3 * list.items.len() * size_of::<Value>())?);
            given.positional.extend_from_slice(&list.items);
        }
        for (name, expression) in &arguments.named {
            let name = self.texts[*name as usize].clone();
            given.named.push((name, self.evaluate(expression)?));
        }
        if let Some(dict) = &arguments.dict {
            let Value::Dict(dict) = self.evaluate(dict)? else {
                return Err(Error::invalid("what is behind `**` is no dict"));
            };
            // Each is looked for among the others.
            let count = dict.entries().len() as u64;
            self.meter.work(count.saturating_mul(count + 1) / 4)?;
            for (key, value) in dict.entries() {
                let Value::Text(key) = key else {
                    return Err(Error::invalid("a key behind `**` is no string"));
                };
                given.named.push((key.clone(), value.clone()));
            }
        }
        Ok(given)
    }

    /// `callee(arguments)` where the callee has this name.
    fn call_named(&mut self, callee: &Value, name: &str, given: Given) -> Result<Value, Error> {
        match callee {
            Value::Undefined => {
                Err(Error::unknown("unknown function", format!("{} is unknown", shortened(name))))
            }
            other => self.call_value(other, given),
        }
    }

    /// Calls what a value is.
    pub(super) fn call_value(&mut self, callee: &Value, given: Given) -> Result<Value, Error> {
        match callee {
            Value::Macro(callee) => self.call_macro(callee, given),
            Value::Function(name) => functions::call(self, name, given),
            Value::Method(method) => {
                let receiver = method.receiver.borrow().clone();
                methods::call(self, &receiver, &method.name, given)
            }
            Value::Loop(number) => {
                let [items] = given.named("loop", ["iterable"])?;
                self.recurse(*number, &items.unwrap_or(Value::Undefined))
            }
            Value::Object(number) => functions::call_object(self, *number),
            other => Err(Error::invalid(format!("a value that is {} can't be called", other.kind()))),
        }
    }

    /// A call block: the call's last part gets the block's body as `caller`.
    pub(super) fn call_with_caller(&mut self, call: &'a Expression, caller: Value) -> Result<Value, Error> {
        let ExpressionKind::Postfix(base, postfixes) = &call.kind else { return Ok(Value::Undefined) };
        let Some((Postfix { kind: PostfixKind::Call(arguments), .. }, before)) = postfixes.split_last()
        else {
            return Ok(Value::Undefined);
        };
        let callee = match before {
            [] => self.evaluate(base)?,
            before => self.postfixes(base, before)?,
        };
        let mut given = self.arguments(arguments)?;
        given.named.push((self.texts[CALLER as usize].clone(), caller));
        match &base.kind {
            ExpressionKind::Name(name) if before.is_empty() => {
                self.call_named(&callee, self.symbol_text(*name), given)
            }
            _ => self.call_value(&callee, given),
        }
    }
}

/// `left comparison right`
fn compare(
    interpreter: &Interpreter<'_>,
    comparison: Comparison,
    left: &Value,
    right: &Value,
) -> Result<bool, Error> {
    let meter = &interpreter.meter;
    let ordered = || order::compare(meter, left, right);
    Ok(match comparison {
        Comparison::Equal => order::equal(meter, left, right)?,
        Comparison::NotEqual => !order::equal(meter, left, right)?,
        Comparison::Less => ordered()?.is_some_and(|ordering| ordering.is_lt()),
        Comparison::LessOrEqual => ordered()?.is_some_and(|ordering| ordering.is_le()),
        Comparison::Greater => ordered()?.is_some_and(|ordering| ordering.is_gt()),
        Comparison::GreaterOrEqual => ordered()?.is_some_and(|ordering| ordering.is_ge()),
        Comparison::In => order::contains(meter, right, left)?,
        Comparison::NotIn => !order::contains(meter, right, left)?,
    })
}

/// What an expression is called in a message.
fn describe(interpreter: &Interpreter<'_>, base: &Expression, postfixes: &[Postfix]) -> String {
    let mut out = match &base.kind {
        ExpressionKind::Name(name) => interpreter.symbol_text(*name).to_owned(),
        _ => "the value".to_owned(),
    };
    for postfix in postfixes {
        match &postfix.kind {
            PostfixKind::Attribute(name) => {
                out.push('.');
                out.push_str(interpreter.symbol_text(*name));
            }
            PostfixKind::Item(Expression { kind: ExpressionKind::Text(key), .. }) => {
                out.push_str(&format!("['{}']", interpreter.symbol_text(*key)));
            }
            PostfixKind::Item(Expression { kind: ExpressionKind::Int(index), .. }) => {
                out.push_str(&format!("[{index}]"));
            }
            PostfixKind::Item(_) | PostfixKind::Slice(_) => out.push_str("[...]"),
            PostfixKind::Call(_) => out.push_str("(...)"),
            PostfixKind::Filter(filter) => {
                out.push('|');
                out.push_str(interpreter.symbol_text(filter.name));
            }
            PostfixKind::Test(..) => out.push_str(" is ..."),
        }
    }
    shortened(&out)
}

/// A method's value, where it isn't called at once.
pub(super) fn bound(
    interpreter: &Interpreter<'_>,
    receiver: &Value,
    name: &Rc<Text>,
) -> Result<Value, Error> {
    let _charge = interpreter.meter.charge(size_of::<super::value::Method>() + 32)?;
    let receiver = std::cell::RefCell::new(receiver.clone());
    Ok(Value::Method(Rc::new(super::value::Method { receiver, name: name.clone(), _charge })))
}
