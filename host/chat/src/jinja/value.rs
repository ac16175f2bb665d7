//! Values: Python's, immutable and shared. Each pays for its memory as long as it lives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::error::Error;
use super::meter::{Charge, Shared};
use super::order::{self, Key};

/// Bytes of a value's place in a list, with the list's room to grow.
const PLACE: usize = 2 * size_of::<Value>();
/// Bytes of an allocation's own data.
const OVERHEAD: usize = 96;
/// Entries up to which a dict is searched from its begin.
const SMALL: usize = 8;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Rc<Text>),
    List(Rc<List>),
    Tuple(Rc<List>),
    Dict(Rc<Dict>),
    /// The interpreter keeps what can change: namespaces, cyclers, joiners.
    Object(usize),
    /// A loop, by its number.
    Loop(u64),
    Macro(Rc<MacroValue>),
    /// A value's method.
    Method(Rc<Method>),
    /// A function of the interpreter's.
    Function(&'static str),
}

/// A string.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    /// Then characters are bytes.
    pub(super) ascii: bool,
    _charge: Charge,
}

/// What a list or a tuple holds.
#[derive(Debug)]
pub(super) struct List {
    pub(super) items: Vec<Value>,
    _charge: Charge,
}

/// A dict, in the order of insertion.
#[derive(Debug)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    /// Only for large ones.
    index: HashMap<Key, usize>,
    charge: Charge,
}

/// A macro with the variables around it.
#[derive(Debug)]
pub(super) struct MacroValue {
    pub(super) index: usize,
    pub(super) captured: RefCell<Vec<(u32, Value)>>,
    pub(super) _charge: Charge,
}

/// A value's method, not called yet.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) receiver: RefCell<Value>,
    pub(super) name: Rc<Text>,
    pub(super) _charge: Charge,
}

impl Value {
    pub(super) fn text(meter: &Shared, text: impl Into<String> + AsRef<str>) -> Result<Self, Error> {
        Ok(Self::Text(Text::new(meter, text)?))
    }

    /// A string of one character.
    pub(super) fn character(meter: &Shared, c: char) -> Result<Self, Error> {
        Self::text(meter, &*c.encode_utf8(&mut [0; 4]))
    }

    pub(super) fn list(meter: &Shared, items: Vec<Self>) -> Result<Self, Error> {
        Ok(Self::List(List::new(meter, items)?))
    }

    pub(super) fn tuple(meter: &Shared, items: Vec<Self>) -> Result<Self, Error> {
        Ok(Self::Tuple(List::new(meter, items)?))
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(&text.text),
            _ => None,
        }
    }

    /// A number without a fraction; `true` is 1.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            other => other.as_int().map(|value| value as f64),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.text.is_empty(),
            Self::List(list) | Self::Tuple(list) => !list.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Object(_) | Self::Loop(_) | Self::Macro(_) | Self::Method(_) | Self::Function(_) => true,
        }
    }

    /// The kind of value, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Undefined => "undefined",
            Self::None => "none",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Text(_) => "string",
            Self::List(_) => "sequence",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "map",
            Self::Object(_) => "namespace",
            Self::Loop(_) => "loop",
            Self::Macro(_) => "macro",
            Self::Method(_) => "method",
            Self::Function(_) => "function",
        }
    }

    /// Whether values can be inside, on whose drop a stack may depend.
    fn holds_values(&self) -> bool {
        matches!(self, Self::List(_) | Self::Tuple(_) | Self::Dict(_) | Self::Macro(_) | Self::Method(_))
    }

    /// What a loop over it goes through.
    pub(super) fn items(&self, meter: &Shared) -> Result<Rc<List>, Error> {
        let mut items = Items::new(meter)?;
        match self {
            Self::List(list) | Self::Tuple(list) => return Ok(list.clone()),
            Self::Undefined => {}
            Self::Text(text) => {
                for c in text.text.chars() {
                    items.push(Self::character(meter, c)?)?;
                }
            }
            Self::Dict(dict) => {
                for (key, _) in dict.entries() {
                    items.push(key.clone())?;
                }
            }
            other => return Err(Error::invalid(format!("a value that is {} is not iterable", other.kind()))),
        }
        Ok(items.finish())
    }

    /// How many items it has.
    pub(super) fn length(&self, meter: &Shared) -> Result<usize, Error> {
        match self {
            Self::Undefined => Ok(0),
            Self::Text(text) => text.length(meter),
            Self::List(list) | Self::Tuple(list) => Ok(list.items.len()),
            Self::Dict(dict) => Ok(dict.entries.len()),
            other => Err(Error::invalid(format!("a value that is {} has no length", other.kind()))),
        }
    }
}

impl Text {
    pub(super) fn new(meter: &Shared, text: impl Into<String> + AsRef<str>) -> Result<Rc<Self>, Error> {
        // It may be a copy that is made only now.
        let charge = meter.charge(OVERHEAD + text.as_ref().len())?;
        Self::charged(meter, text.into(), charge)
    }

    fn charged(meter: &Shared, text: String, charge: Charge) -> Result<Rc<Self>, Error> {
        meter.work(1)?;
        Ok(Rc::new(Self { ascii: text.is_ascii(), text, _charge: charge }))
    }

    /// Its characters.
    pub(super) fn length(&self, meter: &Shared) -> Result<usize, Error> {
        if self.ascii {
            return Ok(self.text.len());
        }
        meter.scanned(self.text.len())?;
        Ok(self.text.chars().count())
    }

    /// The place of a character; the text's end where it has fewer.
    pub(super) fn offset(&self, meter: &Shared, character: usize) -> Result<usize, Error> {
        if self.ascii {
            return Ok(character.min(self.text.len()));
        }
        meter.scanned(self.text.len())?;
        Ok(self.text.char_indices().nth(character).map_or(self.text.len(), |(offset, _)| offset))
    }
}

impl List {
    pub(super) fn new(meter: &Shared, items: Vec<Value>) -> Result<Rc<Self>, Error> {
        let charge = meter.charge(OVERHEAD + items.capacity() * size_of::<Value>())?;
        Ok(Rc::new(Self { items, _charge: charge }))
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if self.items.iter().any(Value::holds_values) {
            bury(std::mem::take(&mut self.items));
        }
    }
}

impl Drop for Dict {
    fn drop(&mut self) {
        let holds = |(key, value): &(Value, Value)| key.holds_values() || value.holds_values();
        if self.entries.iter().any(holds) {
            bury(std::mem::take(&mut self.entries).into_iter().flat_map(|(key, value)| [key, value]));
        }
    }
}

impl Drop for MacroValue {
    fn drop(&mut self) {
        bury(self.captured.take().into_iter().map(|(_, value)| value));
    }
}

impl Drop for Method {
    fn drop(&mut self) {
        bury([self.receiver.replace(Value::None)]);
    }
}

/// Drops values one after the other: lists may be nested so deep that a drop within a drop overflows the stack.
fn bury(values: impl IntoIterator<Item = Value>) {
    thread_local! {
        static BURIED: RefCell<Option<Vec<Value>>> = const { RefCell::new(None) };
    }
    let values = values.into_iter().filter(Value::holds_values);
    // The borrows end before a value is dropped, which comes here again.
    let begins = BURIED.with(|buried| {
        let mut buried = buried.borrow_mut();
        let begins = buried.is_none();
        buried.get_or_insert_default().extend(values);
        begins
    });
    if begins {
        while let Some(value) = BURIED.with(|buried| buried.borrow_mut().as_mut().and_then(Vec::pop)) {
            drop(value);
        }
        BURIED.with(|buried| *buried.borrow_mut() = None);
    }
}

/// A list that grows.
pub(super) struct Items {
    items: Vec<Value>,
    charge: Charge,
    meter: Shared,
}

impl Items {
    pub(super) fn new(meter: &Shared) -> Result<Self, Error> {
        Ok(Self { items: Vec::new(), charge: meter.charge(OVERHEAD)?, meter: meter.clone() })
    }

    /// Room for so many more.
    pub(super) fn reserve(&mut self, items: usize) -> Result<(), Error> {
        self.charge.grow(items.saturating_mul(size_of::<Value>()))?;
        self.items.reserve_exact(items);
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), Error> {
        self.meter.work(1)?;
        if self.items.len() == self.items.capacity() {
            self.charge.grow(self.items.len().max(4) * PLACE)?;
        }
        self.items.push(value);
        Ok(())
    }

    pub(super) fn extend(&mut self, values: &[Value]) -> Result<(), Error> {
        self.reserve(values.len())?;
        // Each is counted in its reference count.
        self.meter.work(values.len() as u64 / 4)?;
        self.items.extend_from_slice(values);
        Ok(())
    }

    pub(super) fn as_mut(&mut self) -> &mut Vec<Value> {
        &mut self.items
    }

    pub(super) fn finish(self) -> Rc<List> {
        Rc::new(List { items: self.items, _charge: self.charge })
    }

    pub(super) fn list(self) -> Value {
        Value::List(self.finish())
    }
}

impl Dict {
    pub(super) fn new(meter: &Shared) -> Result<Self, Error> {
        Ok(Self { entries: Vec::new(), index: HashMap::new(), charge: meter.charge(2 * OVERHEAD)? })
    }

    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    /// Adds or replaces an entry.
    pub(super) fn insert(&mut self, meter: &Shared, key: Value, value: Value) -> Result<(), Error> {
        meter.work(2)?;
        if let Some(place) = self.find(meter, &key)? {
            self.entries[place].1 = value;
            return Ok(());
        }
        self.charge.grow(2 * PLACE)?;
        self.entries.push((key, value));
        let from = match self.entries.len() {
            length if length <= SMALL => return Ok(()),
            length if length == SMALL + 1 => 0,
            length => length - 1,
        };
        for (place, (key, _)) in self.entries.iter().enumerate().skip(from) {
            let key = Key::new(meter, key, &mut self.charge)?;
            self.index.insert(key, place);
        }
        Ok(())
    }

    fn find(&self, meter: &Shared, key: &Value) -> Result<Option<usize>, Error> {
        if self.index.is_empty() {
            order::check_hashable(meter, key)?;
            for (place, (found, _)) in self.entries.iter().enumerate() {
                if order::equal(meter, found, key)? {
                    return Ok(Some(place));
                }
            }
            return Ok(None);
        }
        let mut charge = meter.charge(0)?;
        Ok(self.index.get(&Key::new(meter, key, &mut charge)?).copied())
    }

    pub(super) fn get(&self, meter: &Shared, key: &Value) -> Result<Option<&Value>, Error> {
        Ok(self.find(meter, key)?.map(|place| &self.entries[place].1))
    }
}

/// A string that grows.
#[derive(Debug)]
pub(super) struct Builder {
    text: String,
    charge: Charge,
    meter: Shared,
}

impl Builder {
    pub(super) fn new(meter: &Shared) -> Result<Self, Error> {
        Ok(Self { text: String::new(), charge: meter.charge(OVERHEAD)?, meter: meter.clone() })
    }

    /// Room for so many more bytes.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), Error> {
        let free = self.text.capacity() - self.text.len();
        if bytes > free {
            let more = (bytes - free).max(self.text.capacity());
            self.charge.grow(more)?;
            self.text.reserve_exact(free + more);
        }
        Ok(())
    }

    pub(super) fn push_str(&mut self, text: &str) -> Result<(), Error> {
        self.meter.copied(text.len())?;
        self.reserve(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn push(&mut self, c: char) -> Result<(), Error> {
        self.reserve(c.len_utf8())?;
        self.text.push(c);
        Ok(())
    }

    /// The same character several times.
    pub(super) fn repeat(&mut self, c: char, count: usize) -> Result<(), Error> {
        self.reserve(count.saturating_mul(c.len_utf8()))?;
        self.meter.scanned(count)?;
        self.text.extend(std::iter::repeat_n(c, count));
        Ok(())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }

    pub(super) fn finish(self) -> Result<Value, Error> {
        Ok(Value::Text(Text::charged(&self.meter, self.text, self.charge)?))
    }
}
