//! A model's hyperparameters, by the names that GGUF gives them under the architecture's prefix.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;

use super::ModelError;
use crate::gguf::{FromValue, Gguf, Metadata, TensorInfo, Value};

/// The greatest value that a count or a size can sensibly have: it keeps products of two in range.
const MAX_SIZE: u64 = 1 << 24;

/// Keys that change nothing that is computed here, whatever the architecture: what training or the converter did.
const WITHOUT_EFFECT: [&str; 3] = ["vocab_size", "rope.scaling.finetuned", "tensor_data_layout"];

/// A model file's metadata, seen from its architecture. It remembers which keys were read: one that nobody read means that
/// the file asks for something that HERALD doesn't compute.
pub struct Keys<'g> {
    gguf: &'g Gguf,
    architecture: &'g str,
    read: RefCell<HashSet<String>>,
}

impl<'g> Keys<'g> {
    pub(super) fn new(gguf: &'g Gguf) -> Result<Self, ModelError> {
        let key = "general.architecture";
        let architecture = gguf.metadata().get(key)?.ok_or_else(|| ModelError::MissingKey {
            key: key.to_owned(),
            expected: "the architecture's name",
        })?;
        if gguf.metadata().get::<&str>("general.type")? == Some("adapter") {
            return Err(ModelError::BadKey {
                key: "general.type".to_owned(),
                value: "adapter".to_owned(),
                expected: "a model (an adapter is loaded beside one, by --lora)".to_owned(),
            });
        }
        let read = WITHOUT_EFFECT.iter().map(|key| (*key).to_owned()).collect();
        Ok(Self { gguf, architecture, read: RefCell::new(read) })
    }

    /// Accepts keys that have no effect in this model, whatever they hold.
    pub(super) fn disregard(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// A key of the architecture that was neither read nor disregarded, with its value for people.
    pub(super) fn unread(&self) -> Option<(String, String)> {
        let prefix = format!("{}.", self.architecture);
        let read = self.read.borrow();
        let unread = self.metadata().iter().find_map(|(full, _)| {
            full.strip_prefix(&prefix).filter(|key| !read.contains(*key)).map(str::to_owned)
        })?;
        let key = format!("{prefix}{unread}");
        let value = self.metadata().value(&key)?.to_string();
        Some((key, value))
    }

    /// A value, which counts as read.
    fn value<T: FromValue<'g>>(&self, key: &str) -> Result<Option<T>, ModelError> {
        self.disregard(&[key]);
        Ok(self.metadata().get(&self.full(key))?)
    }

    /// The architecture's name.
    #[must_use]
    pub fn architecture(&self) -> &'g str {
        self.architecture
    }

    fn metadata(&self) -> &'g Metadata {
        self.gguf.metadata()
    }

    /// The key with the architecture's prefix.
    pub(super) fn full(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    /// Whether the file has this tensor.
    #[must_use]
    pub fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    /// A count or size that is there, and not 0.
    ///
    /// # Errors
    /// Where it isn't there, is 0, is no integer, or is absurd.
    pub fn size(&self, key: &str) -> Result<usize, ModelError> {
        self.optional_size(key)?
            .ok_or_else(|| ModelError::MissingKey { key: self.full(key), expected: "a size" })
    }

    /// A count or size that may be left out; never 0.
    ///
    /// # Errors
    /// Where it is 0, no integer, or absurd.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.value::<u64>(key)? else { return Ok(None) };
        if value == 0 || value > MAX_SIZE {
            return Err(self.bad(key, value, format!("a number from 1 to {MAX_SIZE}")));
        }
        Ok(Some(value as usize))
    }

    /// A count that may be 0 or left out: 0.
    ///
    /// # Errors
    /// Where it is no integer, or absurd.
    pub fn count(&self, key: &str) -> Result<usize, ModelError> {
        Ok(self.optional_count(key)?.unwrap_or(0))
    }

    /// A count that may be 0 or left out.
    ///
    /// # Errors
    /// Where it is no integer, or absurd.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.value::<u64>(key)? {
            Some(value) if value > MAX_SIZE => {
                Err(self.bad(key, value, format!("a number up to {MAX_SIZE}")))
            }
            value => Ok(value.map(|value| value as usize)),
        }
    }

    /// A flag that may be left out: no.
    ///
    /// # Errors
    /// Where it is no flag.
    pub fn flag(&self, key: &str) -> Result<bool, ModelError> {
        Ok(self.optional_flag(key)?.unwrap_or(false))
    }

    /// A flag that may be left out.
    ///
    /// # Errors
    /// Where it is no flag.
    pub fn optional_flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.value(key)
    }

    /// A size for each of `blocks` blocks, stored as one number for all or as an array.
    ///
    /// # Errors
    /// Where it isn't there, or the array's length or a value is wrong.
    pub fn sizes(&self, key: &str, blocks: usize) -> Result<Vec<usize>, ModelError> {
        let Some(values) = self.optional_array(key)? else { return Ok(vec![self.size(key)?; blocks]) };
        // Some files have a number for the blocks after the model's own too, which predict further tokens.
        if values.len() != blocks && values.len() != self.size("block_count")? {
            return Err(self.bad(
                key,
                format!("{} numbers", values.len()),
                format!("one for each of {blocks} blocks"),
            ));
        }
        values
            .into_iter()
            .take(blocks)
            .map(|value| match u64::try_from(value) {
                Ok(size) if size <= MAX_SIZE => Ok(size as usize),
                _ => Err(self.bad(key, value, format!("numbers from 0 to {MAX_SIZE}"))),
            })
            .collect()
    }

    /// Integers or flags stored as an array; `None` where the key isn't there or isn't an array.
    ///
    /// # Errors
    /// Where it is an array of something else.
    pub fn optional_array(&self, key: &str) -> Result<Option<Vec<i64>>, ModelError> {
        let full = self.full(key);
        self.disregard(&[key]);
        let Some(Value::Array(array)) = self.metadata().value(&full) else { return Ok(None) };
        let number = |value| match value {
            Value::Bool(flag) => Some(i64::from(flag)),
            value => i64::from_value(value).ok(),
        };
        let numbers: Option<Vec<i64>> = array.elements().map(number).collect();
        numbers.map(Some).ok_or_else(|| self.metadata().fault(&full, "an array of integers or bools").into())
    }

    /// A number that is there.
    ///
    /// # Errors
    /// Where it isn't there, or isn't a finite number.
    pub fn float(&self, key: &str) -> Result<f32, ModelError> {
        self.optional_float(key)?
            .ok_or_else(|| ModelError::MissingKey { key: self.full(key), expected: "a number" })
    }

    /// A number that may be left out.
    ///
    /// # Errors
    /// Where it isn't a finite number, or one that makes all activations NaN: no base of RoPE, no epsilon.
    pub fn optional_float(&self, key: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.value::<f32>(key)? else { return Ok(None) };
        let expected = if !value.is_finite() {
            "a finite number"
        } else if key.starts_with("rope.freq_base") && value <= 0.0 {
            "a number above 0"
        } else if key.ends_with("epsilon") && value < 0.0 {
            "a number of at least 0"
        } else {
            return Ok(Some(value));
        };
        Err(self.bad(key, value, expected.to_owned()))
    }

    /// Numbers under a key without the architecture's prefix, one for each of `blocks` blocks.
    ///
    /// # Errors
    /// Where they aren't there, aren't as many, or aren't finite numbers.
    pub fn floats_of_blocks(&self, full: &str, blocks: usize) -> Result<Vec<f32>, ModelError> {
        let numbers: Option<Vec<f32>> = self.metadata().get(full)?;
        let numbers = numbers.ok_or_else(|| ModelError::MissingKey {
            key: full.to_owned(),
            expected: "a number for each block",
        })?;
        let value = match numbers.iter().find(|number| !number.is_finite()) {
            Some(number) => number.to_string(),
            None if numbers.len() != blocks => format!("{} numbers", numbers.len()),
            None => return Ok(numbers),
        };
        let expected = format!("a finite number for each of {blocks} blocks");
        Err(ModelError::BadKey { key: full.to_owned(), value, expected })
    }

    /// A text that may be left out.
    ///
    /// # Errors
    /// Where it is no text.
    pub fn optional_text(&self, key: &str) -> Result<Option<&'g str>, ModelError> {
        self.value(key)
    }

    /// The tensors of some blocks.
    pub(super) fn tensors_of(&self, blocks: Range<usize>) -> impl Iterator<Item = &'g str> {
        self.gguf.tensors().map(TensorInfo::name).filter(move |name| {
            let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            block
                .and_then(|(block, _)| block.parse::<usize>().ok())
                .is_some_and(|block| blocks.contains(&block))
        })
    }

    /// How many tensors the file has.
    #[must_use]
    pub fn n_tensors(&self) -> usize {
        self.gguf.tensors().len()
    }

    /// How many rows a tensor has.
    ///
    /// # Errors
    /// Where it isn't there, or has no rows.
    pub fn rows(&self, tensor: &str) -> Result<usize, ModelError> {
        let found = self.gguf.tensor(tensor).ok_or_else(|| ModelError::MissingTensor(tensor.to_owned()))?;
        match found.dims().get(1) {
            Some(rows) if (1..=MAX_SIZE as usize).contains(rows) => Ok(*rows),
            _ => Err(ModelError::BadKey {
                key: format!("tensor {tensor}"),
                value: format!("of dimensions {:?}", found.dims()),
                expected: "a matrix".to_owned(),
            }),
        }
    }

    /// A key's value for people; `None` where the file hasn't got it.
    #[must_use]
    pub(super) fn shown(&self, key: &str) -> Option<String> {
        match self.metadata().value(&self.full(key))? {
            Value::Array(array) => {
                let numbers: Option<Vec<String>> = array
                    .elements()
                    .map(|value| i64::from_value(value).ok().map(|n| n.to_string()))
                    .collect();
                Some(format!("[{}]", numbers?.join(", ")))
            }
            value => i64::from_value(value).ok().map(|number| number.to_string()),
        }
    }

    /// An error about a value of this key.
    pub fn bad(&self, key: &str, value: impl ToString, expected: String) -> ModelError {
        ModelError::BadKey { key: self.full(key), value: value.to_string(), expected }
    }
}
