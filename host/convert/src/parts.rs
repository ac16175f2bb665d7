//! Model files written anew with the same tensors: split into parts, merged, with other metadata.
//!
//! The parts' names and keys are those of llama.cpp's `gguf-split`: each part is a GGUF file with some of the tensors, and the first
//! has the model's metadata.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use herald::gguf::{Gguf, GgufError, Override, TensorInfo, Value, Writer};

/// The prefix of the keys that only parts have.
const SPLIT: &str = "split.";

/// What data is aligned to where a file doesn't say.
const ALIGNMENT: u64 = 32;

/// How much a part holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of tensors; one that is larger gets a part of its own.
    Bytes(u64),
    /// So many tensors.
    Tensors(usize),
}

/// Why a file can't be written. Each displays as one sentence.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// Writing failed.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A key can't be set so.
    #[error("{0}")]
    Set(String),
    /// The caller stopped the work.
    #[error("the work was cancelled")]
    Cancelled,
}

/// Which of the model's tensors each part has: at least one part, each with at least one tensor where there are any.
#[must_use]
pub fn plan(gguf: &Gguf, limit: Limit) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    let (mut begin, mut bytes) = (0, 0);
    for (index, info) in gguf.tensors().enumerate() {
        let own = (info.bytes() as u64).next_multiple_of(ALIGNMENT);
        let is_full = match limit {
            Limit::Bytes(most) => bytes + own > most,
            Limit::Tensors(most) => index - begin >= most.max(1),
        };
        if is_full && index > begin {
            parts.push(begin..index);
            (begin, bytes) = (index, 0);
        }
        bytes += own;
    }
    parts.push(begin..gguf.tensors().len());
    parts
}

/// The path of a part, by its number from 0: `PREFIX-00001-of-00003.gguf`.
#[must_use]
pub fn path(prefix: &Path, number: usize, count: usize) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(format!("-{:05}-of-{count:05}.gguf", number + 1));
    name.into()
}

/// Writes a part of a plan, by its number from 0. `done` gets the bytes of tensors since its last call, and says whether to go on.
///
/// # Errors
/// More parts than a file can count (65,535), or as [`write_whole`].
pub fn write_part<W: Write>(
    gguf: &Gguf,
    plan: &[Range<usize>],
    number: usize,
    out: W,
    done: &mut dyn FnMut(u64) -> bool,
) -> Result<W, PartsError> {
    let of_parts = |number: usize| {
        let most = u16::MAX;
        u16::try_from(number).map_err(|_| {
            PartsError::Set(format!("{number} parts are too many, where at most {most} were expected"))
        })
    };
    let mut writer = Writer::new();
    if number == 0 {
        copy_metadata(gguf, &mut writer)?;
    }
    writer.metadata("split.no", Value::U16(of_parts(number)?))?;
    writer.metadata("split.count", Value::U16(of_parts(plan.len())?))?;
    let tensors = i32::try_from(gguf.tensors().len()).unwrap_or(i32::MAX);
    writer.metadata("split.tensors.count", Value::I32(tensors))?;
    let range = plan.get(number).cloned().unwrap_or_default();
    let tensors: Vec<&TensorInfo> = gguf.tensors().skip(range.start).take(range.len()).collect();
    copy_tensors(gguf, &tensors, writer, out, done)
}

/// Writes the model as one file.
///
/// # Errors
/// Where `out` refuses; [`PartsError::Cancelled`]. `out` is then no complete file.
pub fn write_whole<W: Write>(
    gguf: &Gguf,
    out: W,
    done: &mut dyn FnMut(u64) -> bool,
) -> Result<W, PartsError> {
    let mut writer = Writer::new();
    copy_metadata(gguf, &mut writer)?;
    let tensors: Vec<&TensorInfo> = gguf.tensors().collect();
    copy_tensors(gguf, &tensors, writer, out, done)
}

/// Writes the model's file, or the first of its parts, with some keys set.
///
/// # Errors
/// A value that the key can't have, or as [`write_whole`].
pub fn write_set<W: Write>(
    gguf: &Gguf,
    sets: &[Override],
    out: W,
    done: &mut dyn FnMut(u64) -> bool,
) -> Result<W, PartsError> {
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        // The last one counts.
        match sets.iter().rev().find(|set| set.key() == key) {
            Some(set) => {
                writer.metadata(key, set.stored(Some(value.value_type())).map_err(PartsError::Set)?)?
            }
            None => writer.metadata(key, value)?,
        };
    }
    for (index, set) in sets.iter().enumerate() {
        let is_last = !sets[index + 1..].iter().any(|other| other.key() == set.key());
        if is_last && gguf.metadata().value(set.key()).is_none() {
            writer.metadata(set.key(), set.stored(None).map_err(PartsError::Set)?)?;
        }
    }
    let tensors: Vec<&TensorInfo> = gguf.tensors().filter(|info| info.part() == 0).collect();
    copy_tensors(gguf, &tensors, writer, out, done)
}

/// All metadata but what only parts have.
fn copy_metadata(gguf: &Gguf, writer: &mut Writer) -> Result<(), GgufError> {
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| !key.starts_with(SPLIT)) {
        writer.metadata(key, value)?;
    }
    Ok(())
}

fn copy_tensors<W: Write>(
    gguf: &Gguf,
    tensors: &[&TensorInfo],
    mut writer: Writer,
    out: W,
    done: &mut dyn FnMut(u64) -> bool,
) -> Result<W, PartsError> {
    for info in tensors {
        writer.tensor(info.name(), info.dtype(), info.dims())?;
    }
    let mut data = writer.begin(out)?;
    for info in tensors {
        data.tensor(gguf.bytes(info))?;
        gguf.give_back(info);
        if !done(info.bytes() as u64) {
            return Err(PartsError::Cancelled);
        }
    }
    Ok(data.finish()?)
}
