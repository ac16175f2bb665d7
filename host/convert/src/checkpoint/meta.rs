//! The metadata of the file in the making.

use herald::gguf::{ArrayBuf, GgufError, Value, Writer};

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    Bools(Vec<bool>),
    Texts(Vec<String>),
}

impl From<u32> for Item {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<f64> for Item {
    fn from(value: f64) -> Self {
        Self::F32(value as f32)
    }
}

impl From<bool> for Item {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Item {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

/// Keys and values in order; a value that is set again replaces the former.
#[derive(Clone, Debug, Default)]
pub(super) struct Meta {
    architecture: &'static str,
    entries: Vec<(String, Item)>,
}

impl Meta {
    /// The metadata of a model of this architecture.
    pub(super) fn new(architecture: &'static str) -> Self {
        let mut meta = Self { architecture, entries: Vec::new() };
        meta.set("general.architecture", architecture);
        meta
    }

    /// The architecture.
    pub(super) fn architecture(&self) -> &'static str {
        self.architecture
    }

    /// Sets a key.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Item>) {
        let value = value.into();
        match self.entries.iter_mut().find(|(other, _)| other == key) {
            Some((_, former)) => *former = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    /// Sets a key of the architecture, if there is a value.
    pub(super) fn of(&mut self, key: &str, value: Option<impl Into<Item>>) {
        if let Some(value) = value {
            self.set(&format!("{}.{key}", self.architecture), value);
        }
    }

    /// Takes a key of the architecture out.
    pub(super) fn remove(&mut self, key: &str) {
        let key = format!("{}.{key}", self.architecture);
        self.entries.retain(|(other, _)| *other != key);
    }

    /// Sets a key of the architecture as another has it.
    pub(super) fn take(&mut self, other: &Self, key: &str) {
        let key = format!("{}.{key}", other.architecture);
        if let Some((_, value)) = other.entries.iter().find(|(found, _)| *found == key) {
            self.set(&key, value.clone());
        }
    }

    /// Puts what the metadata of another has behind what is there.
    pub(super) fn extend(&mut self, other: Self) {
        for (key, value) in other.entries {
            self.set(&key, value);
        }
    }

    /// Declares all of it to a writer.
    pub(super) fn write(&self, writer: &mut Writer) -> Result<(), GgufError> {
        for (key, item) in &self.entries {
            let array = match item {
                Item::I32s(values) => ArrayBuf::from(&values[..]),
                Item::F32s(values) => ArrayBuf::from(&values[..]),
                Item::Bools(values) => ArrayBuf::from(&values[..]),
                Item::Texts(values) => ArrayBuf::strings(values),
                Item::U32(value) => {
                    writer.metadata(key, *value)?;
                    continue;
                }
                Item::I32(value) => {
                    writer.metadata(key, *value)?;
                    continue;
                }
                Item::F32(value) => {
                    writer.metadata(key, *value)?;
                    continue;
                }
                Item::Bool(value) => {
                    writer.metadata(key, *value)?;
                    continue;
                }
                Item::Text(value) => {
                    writer.metadata(key, value.as_str())?;
                    continue;
                }
            };
            writer.metadata(key, Value::from(&array))?;
        }
        Ok(())
    }
}
