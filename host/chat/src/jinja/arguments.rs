//! The arguments of a call of a filter, a test, a function or a method.

use std::rc::Rc;

use super::error::Error;
use super::meter::Charge;
use super::value::{Text, Value};

/// Arguments, evaluated.
#[derive(Debug, Default)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Rc<Text>, Value)>,
    /// For those that came in a list or a dict.
    pub(super) charge: Option<Charge>,
}

impl Given {
    /// The arguments by their parameters' names; `None` where none is given.
    pub(super) fn named<const N: usize>(
        self,
        callee: &str,
        names: [&str; N],
    ) -> Result<[Option<Value>; N], Error> {
        let mut values = [const { None }; N];
        let count = self.positional.len();
        if count > N {
            let message = format!("{callee} takes at most {N} arguments, not {count}");
            return Err(Error::unknown("too many arguments", message));
        }
        for (place, value) in self.positional.into_iter().enumerate() {
            values[place] = Some(value);
        }
        for (name, value) in self.named {
            let Some(place) = names.iter().position(|known| *known == name.text) else {
                let name = super::lexer::shortened(&name.text);
                let message = format!("{callee} has no argument named {name}");
                return Err(Error::unknown("too many arguments", message));
            };
            values[place] = Some(value);
        }
        Ok(values)
    }

    /// The first argument, taken out.
    pub(super) fn first(&mut self, callee: &str) -> Result<Value, Error> {
        if self.positional.is_empty() {
            return Err(missing(callee));
        }
        Ok(self.positional.remove(0))
    }
}

/// A required argument isn't there.
pub(super) fn missing(callee: &str) -> Error {
    Error::unknown("missing argument", format!("{callee} needs an argument"))
}

/// A required argument.
pub(super) fn required(value: Option<Value>, callee: &str) -> Result<Value, Error> {
    value.ok_or_else(|| missing(callee))
}

/// A string argument.
pub(super) fn text(value: Option<Value>, callee: &str) -> Result<Rc<Text>, Error> {
    match required(value, callee)? {
        Value::Text(text) => Ok(text),
        other => {
            Err(Error::invalid(format!("an argument of {callee} is {}, expected a string", other.kind())))
        }
    }
}

/// A string argument that may be left out or be none.
pub(super) fn optional_text(value: Option<Value>, callee: &str) -> Result<Option<Rc<Text>>, Error> {
    match value {
        None | Some(Value::None | Value::Undefined) => Ok(None),
        value => text(value, callee).map(Some),
    }
}

/// A whole number that may be left out or be none.
pub(super) fn optional_int(value: Option<Value>, callee: &str) -> Result<Option<i128>, Error> {
    match value {
        None | Some(Value::None | Value::Undefined) => Ok(None),
        Some(value) => value.as_int().map(Some).ok_or_else(|| {
            Error::invalid(format!("an argument of {callee} is {}, expected a whole number", value.kind()))
        }),
    }
}
