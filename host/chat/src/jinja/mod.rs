//! A small Jinja interpreter whose every operation is paid for.
//!
//! A template comes with a model, from anywhere. Template engines limit the *steps* of a template, and a step may be
//! `a == b`, `list | sort` or `x + x`, which takes for ever when the values share their parts: sixty steps make a list
//! of 2^60 items. No limit from outside helps: a thread can't be stopped in the middle of a comparison, and a process of
//! its own for each prompt isn't for those who embed the engine. So the operations themselves must count, and no engine
//! whose values are its own lets them. Here, all work goes through a [meter](meter::Meter):
//!
//! - steps of statements, expressions and calls; items that are visited, as often as they are visited; bytes that are
//!   copied, compared, searched;
//! - memory of values as long as they live, before it is taken;
//! - depth of nested values and calls.
//!
//! What isn't nested by brackets or blocks in the source (chains of operators and signs) is a loop here, the parser
//! limits the rest, and values are dropped one after the other, so that the stack is bounded too.
//!
//! The language is Jinja2's as the Python package `transformers` sets it up for chat templates: `trim_blocks`,
//! `lstrip_blocks`, loop controls, `generation` blocks, an immutable sandbox, and Python's methods of strings, lists and
//! dicts that change nothing. What Jinja2 makes lazily (`map`, `select`, `range`) is a list here.
//! See [Jinja's documentation](https://jinja.palletsprojects.com/en/stable/templates/).

mod arguments;
mod ast;
mod characters;
mod error;
mod evaluate;
mod expressions;
mod filters;
mod functions;
mod interpreter;
mod json;
mod lexer;
mod meter;
mod methods;
mod operators;
mod order;
mod parser;
mod predicates;
mod printf;
mod show;
mod strings;
mod value;

pub(super) use ast::Program;
pub(super) use error::{Error, Reason};
pub(super) use parser::parse;

use std::rc::Rc;

use interpreter::Interpreter;
use meter::{Meter, Shared};
use value::{Dict, Items, Value};

/// What a rendering may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Steps, of some ten nanoseconds each.
    pub(super) work: u64,
    /// Bytes of values that live at the same time, the result included.
    pub(super) memory: usize,
}

/// Renders a program with variables from JSON. Call it on a deep stack.
///
/// # Errors
/// The template raises an exception, fails, or exceeds the budget.
pub(super) fn render<'v>(
    program: &Program,
    variables: impl IntoIterator<Item = (&'v str, serde_json::Value)>,
    strftime: fn(&str) -> Result<String, String>,
    budget: Budget,
) -> Result<String, Error> {
    let meter = Meter::new(budget.work, budget.memory);
    let mut interpreter = Interpreter::new(program, &meter, strftime)?;
    for (name, value) in variables {
        interpreter.define(name, from_json(&meter, value)?);
    }
    interpreter.run()
}

/// JSON as a value.
fn from_json(meter: &Shared, json: serde_json::Value) -> Result<Value, Error> {
    meter.enter()?;
    let value = match json {
        serde_json::Value::Null => Value::None,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(i128::from(number)),
            (None, Some(number)) => Value::Int(i128::from(number)),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::text(meter, text)?,
        serde_json::Value::Array(array) => {
            let mut items = Items::new(meter)?;
            items.reserve(array.len())?;
            for item in array {
                items.push(from_json(meter, item)?)?;
            }
            items.list()
        }
        serde_json::Value::Object(object) => {
            let mut dict = Dict::new(meter)?;
            for (key, value) in object {
                let key = Value::text(meter, key)?;
                dict.insert(meter, key, from_json(meter, value)?)?;
            }
            Value::Dict(Rc::new(dict))
        }
    };
    meter.leave();
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back() {
        let meter = Meter::new(1_000_000, 1 << 20);
        let json = serde_json::json!({"a": [1, "text", {"b": null}], "c": "é".repeat(1000)});
        let program = parse(
            "{% set ns = namespace(x=[]) %}{% for i in range(500) %}{% set ns.x = [ns.x, json] %}{% endfor %}\
             {% macro m(a) %}{{ a | tojson }}{% endmacro %}{{ m(json) ~ json.items() | list }}{{ [ns.x.copy] | length }}",
        );
        let program = program.expect("a template");
        for _ in 0..2 {
            let mut interpreter = Interpreter::new(&program, &meter, |_| Err(String::new())).expect("room");
            interpreter.define("json", from_json(&meter, json.clone()).expect("room"));
            assert!(interpreter.run().expect("a text").len() > 2000);
            assert_eq!(meter.live(), 0, "what is held once all is dropped");
        }
    }
}
