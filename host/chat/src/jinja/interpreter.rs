//! Runs a program's statements.

use std::rc::Rc;

use super::arguments::Given;
use super::ast::{self, For, Program, Statement, StatementKind, Symbol, Target};
use super::error::Error;
use super::lexer::shortened;
use super::meter::{Charge, Shared};
use super::value::{Builder, Dict, Items, List, MacroValue, Text, Value};

/// Macros that call each other.
const MAX_CALLS: usize = 200;
/// Functions that every template finds.
const FUNCTIONS: [&str; 7] =
    ["range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"];
/// Bytes of a variable's place.
const VARIABLE: usize = 2 * size_of::<(Symbol, Value)>();

/// What comes after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// Variables of a block.
struct Scope {
    variables: Vec<(Symbol, Value)>,
    charge: Charge,
}

/// A macro's call: its scopes, innermost last. The first frame is the template itself.
#[derive(Default)]
struct Frame {
    scopes: Vec<Scope>,
}

/// What can change, unlike values.
pub(super) enum Object {
    Namespace(Dict),
    /// Its items, and which is next.
    Cycler(Rc<List>, usize),
    /// What it puts between, and whether it was used.
    Joiner(Value, bool),
}

/// A loop that runs.
pub(super) struct Loop<'a> {
    pub(super) number: u64,
    pub(super) items: Rc<List>,
    pub(super) index: usize,
    pub(super) depth: usize,
    pub(super) changed: Option<Value>,
    recursive: Option<&'a For>,
}

/// A rendering.
pub(super) struct Interpreter<'a> {
    pub(super) program: &'a Program,
    pub(super) meter: Shared,
    /// The program's texts, as values.
    pub(super) texts: Vec<Rc<Text>>,
    /// Variables of the template itself, by symbol.
    globals: Vec<Option<Value>>,
    frames: Vec<Frame>,
    pub(super) objects: Vec<(Object, Charge)>,
    pub(super) loops: Vec<Loop<'a>>,
    next_loop: u64,
    outputs: Vec<Builder>,
    pub(super) strftime: fn(&str) -> Result<String, String>,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(
        program: &'a Program,
        meter: &Shared,
        strftime: fn(&str) -> Result<String, String>,
    ) -> Result<Self, Error> {
        let mut texts = Vec::with_capacity(program.texts.len());
        for text in &program.texts {
            texts.push(Text::new(meter, text.as_str())?);
        }
        let mut interpreter = Self {
            program,
            meter: meter.clone(),
            globals: vec![None; texts.len()],
            texts,
            frames: vec![Frame::default()],
            objects: Vec::new(),
            loops: Vec::new(),
            next_loop: 0,
            outputs: vec![Builder::new(meter)?],
            strftime,
        };
        for name in FUNCTIONS {
            interpreter.define(name, Value::Function(name));
        }
        Ok(interpreter)
    }

    /// Sets a variable of the template, if it is mentioned there.
    pub(super) fn define(&mut self, name: &str, value: Value) {
        if let Some(symbol) = self.program.texts.iter().position(|text| text == name) {
            self.globals[symbol] = Some(value);
        }
    }

    /// Runs the whole template.
    pub(super) fn run(mut self) -> Result<String, Error> {
        self.body(&self.program.body)?;
        Ok(self.outputs.pop().map(Builder::into_string).unwrap_or_default())
    }

    pub(super) fn symbol_text(&self, symbol: Symbol) -> &'a str {
        &self.program.texts[symbol as usize]
    }

    /// What is written from here on is kept apart, until [`Interpreter::captured`].
    fn capture(&mut self) -> Result<(), Error> {
        self.outputs.push(Builder::new(&self.meter)?);
        Ok(())
    }

    fn captured(&mut self) -> Result<Value, Error> {
        match self.outputs.pop() {
            Some(output) => output.finish(),
            None => Value::text(&self.meter, ""),
        }
    }

    fn write(&mut self, value: &Value) -> Result<(), Error> {
        match self.outputs.last_mut() {
            Some(output) => super::show::show(&self.meter, value, output),
            None => Ok(()),
        }
    }

    pub(super) fn variable(&self, symbol: Symbol) -> Result<Value, Error> {
        if let Some(frame) = self.frames.last() {
            for scope in frame.scopes.iter().rev() {
                self.meter.work(scope.variables.len() as u64 / 8)?;
                let found = scope.variables.iter().find(|(name, _)| *name == symbol);
                if let Some((_, value)) = found {
                    return Ok(value.clone());
                }
            }
        }
        Ok(self.globals[symbol as usize].clone().unwrap_or(Value::Undefined))
    }

    fn set(&mut self, symbol: Symbol, value: Value) -> Result<(), Error> {
        let scope = self.frames.last_mut().and_then(|frame| frame.scopes.last_mut());
        let Some(scope) = scope else {
            self.globals[symbol as usize] = Some(value);
            return Ok(());
        };
        self.meter.work(scope.variables.len() as u64 / 8)?;
        match scope.variables.iter_mut().find(|(name, _)| *name == symbol) {
            Some((_, old)) => *old = value,
            None => {
                scope.charge.grow(VARIABLE)?;
                scope.variables.push((symbol, value));
            }
        }
        Ok(())
    }

    fn push_scope(&mut self) -> Result<(), Error> {
        let scope = Scope { variables: Vec::new(), charge: self.meter.charge(VARIABLE)? };
        if let Some(frame) = self.frames.last_mut() {
            frame.scopes.push(scope);
        }
        Ok(())
    }

    fn pop_scope(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.scopes.pop();
        }
    }

    /// Forgets the variables of the innermost scope.
    fn clear_scope(&mut self) {
        if let Some(scope) = self.frames.last_mut().and_then(|frame| frame.scopes.last_mut()) {
            scope.variables.clear();
        }
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<(), Error> {
        match target {
            Target::Name(symbol) => self.set(*symbol, value),
            Target::Attribute(namespace, attribute) => {
                let Value::Object(number) = self.variable(*namespace)? else {
                    let name = shortened(self.symbol_text(*namespace));
                    return Err(Error::invalid(format!(
                        "`{name}` is no namespace, and has no attributes to set"
                    )));
                };
                let name = Value::Text(self.texts[*attribute as usize].clone());
                match self.objects.get_mut(number) {
                    Some((Object::Namespace(attributes), _)) => attributes.insert(&self.meter, name, value),
                    _ => Err(Error::invalid("only namespaces have attributes to set")),
                }
            }
            Target::Tuple(targets) => {
                let values = value.items(&self.meter)?;
                if values.items.len() != targets.len() {
                    let (found, expected) = (values.items.len(), targets.len());
                    return Err(Error::invalid(format!("{found} values for {expected} names")));
                }
                for (target, value) in targets.iter().zip(&values.items) {
                    self.assign(target, value.clone())?;
                }
                Ok(())
            }
        }
    }

    fn body(&mut self, statements: &'a [Statement]) -> Result<Flow, Error> {
        self.meter.enter()?;
        for statement in statements {
            self.meter.work(1)?;
            let flow = self.statement(&statement.kind).map_err(|error| error.at(statement.line))?;
            if flow != Flow::Next {
                self.meter.leave();
                return Ok(flow);
            }
        }
        self.meter.leave();
        Ok(Flow::Next)
    }

    /// A body with variables of its own.
    fn scoped(&mut self, statements: &'a [Statement]) -> Result<Flow, Error> {
        self.push_scope()?;
        let flow = self.body(statements)?;
        self.pop_scope();
        Ok(flow)
    }

    fn statement(&mut self, statement: &'a StatementKind) -> Result<Flow, Error> {
        match statement {
            StatementKind::Text(symbol) => {
                let text = Value::Text(self.texts[*symbol as usize].clone());
                self.write(&text)?;
            }
            StatementKind::Print(expression) => {
                let value = self.evaluate(expression)?;
                self.write(&value)?;
            }
            StatementKind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.evaluate(condition)?.is_true() {
                        return self.body(body);
                    }
                }
                return self.body(otherwise);
            }
            StatementKind::For(for_loop) => {
                let items = self.evaluate(&for_loop.items)?;
                self.for_loop(for_loop, &items, 1)?;
            }
            StatementKind::Set(target, expression) => {
                let value = self.evaluate(expression)?;
                self.assign(target, value)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let value = self.captured_body(body, filters)?;
                self.assign(target, value)?;
            }
            StatementKind::Macro(index) => {
                let value = self.macro_value(*index)?;
                self.set(self.program.macros[*index].name, value)?;
            }
            StatementKind::CallBlock(call, caller) => {
                let caller = self.macro_value(*caller)?;
                let value = self.call_with_caller(call, caller)?;
                self.write(&value)?;
            }
            StatementKind::FilterBlock(filters, body) => {
                let value = self.captured_body(body, filters)?;
                self.write(&value)?;
            }
            StatementKind::With(assignments, body) => {
                let mut values = Vec::with_capacity(assignments.len());
                for (_, expression) in assignments {
                    values.push(self.evaluate(expression)?);
                }
                self.push_scope()?;
                for ((target, _), value) in assignments.iter().zip(values) {
                    self.assign(target, value)?;
                }
                let flow = self.body(body)?;
                self.pop_scope();
                return Ok(flow);
            }
            StatementKind::Body(body) => return self.body(body),
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
            StatementKind::Elsewhere(name) => {
                return Err(Error::invalid(format!(
                    "`{name}` needs other templates, and a model has one only"
                )));
            }
        }
        Ok(Flow::Next)
    }

    fn captured_body(&mut self, body: &'a [Statement], filters: &'a [ast::Filter]) -> Result<Value, Error> {
        self.capture()?;
        self.scoped(body)?;
        let mut value = self.captured()?;
        for filter in filters {
            value = self.apply(filter, value)?;
        }
        Ok(value)
    }

    fn for_loop(&mut self, for_loop: &'a For, items: &Value, depth: usize) -> Result<(), Error> {
        let mut items = items.items(&self.meter)?;
        self.push_scope()?;
        if let Some(condition) = &for_loop.condition {
            let mut passing = Items::new(&self.meter)?;
            for item in &items.items {
                self.clear_scope();
                self.assign(&for_loop.target, item.clone())?;
                if self.evaluate(condition)?.is_true() {
                    passing.push(item.clone())?;
                }
            }
            items = passing.finish();
        }
        if items.items.is_empty() {
            self.clear_scope();
            self.body(&for_loop.otherwise)?;
            self.pop_scope();
            return Ok(());
        }
        self.next_loop += 1;
        let number = self.next_loop;
        let recursive = for_loop.recursive.then_some(for_loop);
        self.loops.push(Loop { number, items: items.clone(), index: 0, depth, changed: None, recursive });
        for (index, item) in items.items.iter().enumerate() {
            if let Some(running) = self.loops.last_mut() {
                running.index = index;
            }
            self.clear_scope();
            self.set(ast::LOOP, Value::Loop(number))?;
            self.assign(&for_loop.target, item.clone())?;
            if self.body(&for_loop.body)? == Flow::Break {
                break;
            }
        }
        self.loops.pop();
        self.pop_scope();
        Ok(())
    }

    /// `loop(items)` in a recursive loop.
    pub(super) fn recurse(&mut self, number: u64, items: &Value) -> Result<Value, Error> {
        let running = self.loops.iter().rev().find(|running| running.number == number);
        let Some((for_loop, depth)) = running.and_then(|running| Some((running.recursive?, running.depth)))
        else {
            return Err(Error::invalid("the loop is over, or isn't a recursive one"));
        };
        self.capture()?;
        self.for_loop(for_loop, items, depth + 1)?;
        self.captured()
    }

    /// A macro that sees the variables around it.
    fn macro_value(&mut self, index: usize) -> Result<Value, Error> {
        let mut captured: Vec<(Symbol, Value)> = Vec::new();
        if let Some(frame) = self.frames.last() {
            for scope in &frame.scopes {
                self.meter.work(1 + scope.variables.len() as u64)?;
                captured.extend(scope.variables.iter().cloned());
            }
        }
        let charge = self.meter.charge(2 * VARIABLE + captured.capacity() * VARIABLE)?;
        let captured = std::cell::RefCell::new(captured);
        Ok(Value::Macro(Rc::new(MacroValue { index, captured, _charge: charge })))
    }

    /// Calls a macro.
    pub(super) fn call_macro(&mut self, callee: &Rc<MacroValue>, mut given: Given) -> Result<Value, Error> {
        if self.frames.len() > MAX_CALLS {
            return Err(Error::invalid(format!("macros call each other more than {MAX_CALLS} deep")));
        }
        let declared = &self.program.macros[callee.index];
        let name = shortened(self.symbol_text(declared.name));
        self.frames.push(Frame::default());
        self.push_scope()?;
        // Around: what the macro saw, where the last of a name counts, and itself.
        for (symbol, value) in callee.captured.borrow().iter() {
            self.set(*symbol, value.clone())?;
        }
        if declared.name != ast::CALLER && matches!(self.variable(declared.name)?, Value::Undefined) {
            self.set(declared.name, Value::Macro(callee.clone()))?;
        }
        self.push_scope()?;
        let mut positional = std::mem::take(&mut given.positional).into_iter();
        for (parameter, default) in &declared.parameters {
            self.meter.work(given.named.len() as u64 / 4)?;
            let named = given.named.iter().position(|(name, _)| name.text == self.symbol_text(*parameter));
            let value = match (positional.next(), named) {
                (Some(_), Some(_)) => {
                    let parameter = shortened(self.symbol_text(*parameter));
                    return Err(Error::invalid(format!("macro {name} got its argument {parameter} twice")));
                }
                (Some(value), None) => value,
                (None, Some(place)) => given.named.remove(place).1,
                (None, None) => match default {
                    Some(default) => self.evaluate(default)?,
                    None => Value::Undefined,
                },
            };
            self.set(*parameter, value)?;
        }
        self.rest_of_arguments(declared, positional.collect(), given.named)?;
        self.capture()?;
        self.body(&declared.body)?;
        self.frames.pop();
        self.captured()
    }

    /// `varargs`, `kwargs` and `caller` within a macro.
    fn rest_of_arguments(
        &mut self,
        declared: &ast::Macro,
        positional: Vec<Value>,
        named: Vec<(Rc<Text>, Value)>,
    ) -> Result<(), Error> {
        let too_many = |what: String| {
            let name = shortened(self.symbol_text(declared.name));
            Err(Error::unknown("too many arguments", format!("macro {name} takes no {what}")))
        };
        if !positional.is_empty() && !declared.takes_more {
            return too_many(format!("more than {} arguments", declared.parameters.len()));
        }
        let is_caller = |name: &Text| name.text == ast::RESERVED[ast::CALLER as usize];
        if let Some((name, _)) = named.iter().find(|(name, _)| !is_caller(name))
            && !declared.takes_named
        {
            return too_many(format!("argument named {}", shortened(&name.text)));
        }
        // The body of a call block sees the caller of the macro around it.
        if declared.name != ast::CALLER {
            self.set(ast::CALLER, Value::Undefined)?;
        }
        let list = Value::tuple(&self.meter, positional)?;
        self.set(ast::VARARGS, list)?;
        let mut rest = Dict::new(&self.meter)?;
        for (name, value) in named {
            if is_caller(&name) {
                self.set(ast::CALLER, value)?;
            } else {
                rest.insert(&self.meter, Value::Text(name), value)?;
            }
        }
        self.set(ast::KWARGS, Value::Dict(Rc::new(rest)))
    }
}
