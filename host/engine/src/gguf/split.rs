//! Models split over several files: `NAME-00001-of-00003.gguf` and its siblings.
//!
//! Each part is a complete GGUF file with some of the tensors; the first has the model's metadata. Each says which part it is
//! (`split.no`, from 0), of how many (`split.count`), and how many tensors they have together
//! (`split.tensors.count`).

use std::io;
use std::path::{Path, PathBuf};

use super::error::Quoted;
use super::metadata::Metadata;
use super::{Gguf, GgufError, Loaded, TensorInfo};

const NUMBER: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// How many parts the model has, where it has several.
fn part_count(metadata: &Metadata) -> Result<Option<u16>, GgufError> {
    Ok(metadata.get::<u16>(COUNT)?.filter(|&count| count > 1))
}

/// Opens the parts beside the first. None for a file that is the whole model.
pub(super) fn siblings(first: &Loaded) -> Result<Vec<Loaded>, GgufError> {
    let (Some(count), Some(path)) = (part_count(&first.metadata)?, first.file.path.as_deref()) else {
        return Ok(Vec::new());
    };
    let number = first.metadata.require::<u16>(NUMBER)?;
    if number != 0 {
        return Err(not_the_first(path, number, count));
    }
    if part_path(path, 1, 1, count).is_none() {
        let message =
            format!("part 1 of {count} is misnamed; expected a name that ends in {}", suffix(1, count));
        return Err(GgufError::Split { path: Some(path.to_path_buf()), message });
    }
    let mut parts = Vec::new();
    let paths = (2..=count).filter_map(|ordinal| part_path(path, 1, ordinal, count).zip(Some(ordinal)));
    for (part, ordinal) in paths {
        parts.push(open_part(path, &part, ordinal, count)?);
    }

    let held = first.tensors.len() + parts.iter().map(|part| part.tensors.len()).sum::<usize>();
    match first.metadata.get::<u64>(TENSORS)? {
        Some(claimed) if claimed != held as u64 => {
            Err(first.metadata.fault(TENSORS, format!("{held}, as many as the {count} parts hold")))
        }
        _ => Ok(parts),
    }
}

/// Refuses a part of a split model that has no folder where its siblings could be.
pub(super) fn refuse_split(file: &Loaded) -> Result<(), GgufError> {
    match part_count(&file.metadata)? {
        Some(_) => Err(file
            .metadata
            .fault(COUNT, "a whole model, since bytes in memory have no other parts beside them")),
        None => Ok(()),
    }
}

/// Refuses a model whose parts have tensors of the same name; in one part, names were found to differ.
pub(super) fn check_names(gguf: &Gguf) -> Result<(), GgufError> {
    let sorted: Vec<&TensorInfo> = gguf.by_name.iter().filter_map(|&index| gguf.tensors.get(index)).collect();
    for pair in sorted.windows(2) {
        if let [one, other] = pair
            && one.name == other.name
        {
            let path = gguf.files.get(other.part).and_then(|file| file.path.clone());
            let name = Quoted(other.name.as_bytes());
            let message =
                format!("tensor {name} is also in part {}; expected it in one part only", one.part + 1);
            return Err(GgufError::Split { path, message });
        }
    }
    Ok(())
}

/// Opens one of the further parts and checks that it is the part that its name says.
fn open_part(first: &Path, path: &Path, ordinal: u16, count: u16) -> Result<Loaded, GgufError> {
    let part = Loaded::open(path).map_err(|error| match error {
        GgufError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
            let message =
                format!("part {ordinal} of {count} is missing; expected it beside {}", first.display());
            GgufError::Split { path, message }
        }
        other => other,
    })?;
    if part.metadata.require::<u16>(COUNT)? != count {
        return Err(part.metadata.fault(COUNT, format!("{count}, as in part 1")));
    }
    if part.metadata.require::<u16>(NUMBER)? != ordinal - 1 {
        return Err(part.metadata.fault(NUMBER, format!("{}, as the file's name says", ordinal - 1)));
    }
    Ok(part)
}

fn not_the_first(path: &Path, number: u16, count: u16) -> GgufError {
    // A part number as large as its type allows has no ordinal, and then no first part's name to tell either.
    let ordinal = u32::from(number) + 1;
    let first = number.checked_add(1).and_then(|ordinal| part_path(path, ordinal, 1, count));
    let expected = match first {
        Some(first) => format!("its first part, {}", first.display()),
        None => format!("its first part, whose name ends in {}", suffix(1, count)),
    };
    let message = format!("this is part {ordinal} of {count} of a split model; expected {expected}");
    GgufError::Split { path: Some(path.to_path_buf()), message }
}

/// The path of part `wanted`, given that of part `ordinal` (both from 1), or `None` where that one is misnamed.
fn part_path(path: &Path, ordinal: u16, wanted: u16, count: u16) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(&suffix(ordinal, count))?;
    Some(path.with_file_name(format!("{stem}{}", suffix(wanted, count))))
}

/// How the name of a part ends, by its number from 1.
fn suffix(ordinal: u16, count: u16) -> String {
    format!("-{ordinal:05}-of-{count:05}.gguf")
}
