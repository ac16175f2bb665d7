//! `host gguf set`: other values in a file's metadata.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use herald::files::{Readers, Unfinished};
use herald::gguf::{Gguf, Override, Value};
use herald_convert::parts;
use serde_json::json;

use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{output, progress, written};

/// Set keys of a model file's metadata
#[derive(Debug, Args)]
#[command(
    after_help = "Numbers and truth values that the file has already are changed in place, which takes no room and no time. For anything
else a new file is written, and takes the old one's place once it is whole. A key keeps its type; a new one gets the
first of u32, i32, u64, i64, f32, bool and string that its value fits.

Of a split model, the first part has the metadata.

Examples:
  host gguf set model.gguf llama.context_length=8192 general.name='My model'
  host gguf set model.gguf tokenizer.chat_template=str:'{{ messages }}' --output other.gguf"
)]
pub(crate) struct Set {
    /// The model's file
    file: PathBuf,
    /// Keys and values, as KEY=VALUE or KEY=TYPE:VALUE, where TYPE is `int`, `float`, `bool` or `str`
    #[arg(required = true, value_name = "KEY=VALUE")]
    set: Vec<Override>,
    /// Write to this file instead, and leave the model's as it is
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Set {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let gguf = super::opened(&self.file)?;
        self.check(&gguf)?;
        let places = if self.output.is_none() { places(&gguf, &self.set) } else { None };
        let is_in_place = places.is_some();
        let to = self.output.as_deref().unwrap_or(&self.file);
        match places {
            Some(places) => write_in_place(to, &places)
                .map_err(|error| Failure::file(to, "it can't be changed", &error))?,
            None => self.rewrite(&gguf, to, options.quiet)?,
        }
        if self.json {
            let keys: Vec<&str> = self.set.iter().map(Override::key).collect();
            return output::json(
                &json!({"path": to.to_string_lossy(), "set": keys, "in_place": is_in_place}),
            );
        }
        let how = if is_in_place { "changed in place" } else { "written anew" };
        output::line(format_args!("{}: {how}", to.display()))
    }

    /// That the values can be set, and the file may be changed.
    fn check(&self, gguf: &Gguf) -> Result<(), Failure> {
        for set in &self.set {
            let key = set.key();
            if key.starts_with("split.") || key == "general.alignment" {
                let why = "says where the tensors are, which can't be set";
                return Err(Failure::Usage(format!("{key} {why}: `host gguf split` and `merge` write it")));
            }
            set.stored(gguf.metadata().value(key).map(|value| value.value_type()))
                .map_err(Failure::Failed)?;
        }
        match &self.output {
            Some(output) => written::check(output, gguf.paths().map(|file| (file, written::MODEL))),
            None if self.file.is_symlink() => Err(Failure::Failed(format!(
                "{}: it is a symbolic link, and other programs may share the file (as in the hub's cache): name a new one with --output",
                self.file.display()
            ))),
            _ => Ok(()),
        }
    }

    fn rewrite(&self, gguf: &Gguf, to: &Path, quiet: bool) -> Result<(), Failure> {
        let bytes: u64 = gguf.tensors().filter(|info| info.part() == 0).map(|info| info.bytes() as u64).sum();
        super::must_fit(written::folder_of(to), bytes)?;
        let file = Unfinished::create(to, Readers::Usual)
            .map_err(|error| Failure::file(to, "it can't be written", &error))?;
        let bar = progress::weighted(bytes, quiet);
        let lookout = Lookout::begin();
        let out = parts::write_set(gguf, &self.set, BufWriter::new(file), &mut |bytes| {
            bar.inc(bytes);
            lookout.go_on()
        });
        bar.finish_and_clear();
        super::keep(to, out.map_err(|error| super::failure(to, error))?).map(drop)
    }
}

/// Where the file has the values, and what is to be there; none where one isn't there, or may have another length.
fn places(gguf: &Gguf, sets: &[Override]) -> Option<Vec<(usize, Vec<u8>)>> {
    let place = |set: &Override| {
        let held = gguf.metadata().value(set.key())?;
        let value = set.stored(Some(held.value_type())).ok()?;
        Some((gguf.metadata().offset(set.key())?, bytes(value)?))
    };
    sets.iter().map(place).collect()
}

/// A number or a truth value as a file has it. Texts may be long, and half of one may be written when the power fails.
fn bytes(value: Value<'_>) -> Option<Vec<u8>> {
    Some(match value {
        Value::U8(value) => value.to_le_bytes().to_vec(),
        Value::I8(value) => value.to_le_bytes().to_vec(),
        Value::U16(value) => value.to_le_bytes().to_vec(),
        Value::I16(value) => value.to_le_bytes().to_vec(),
        Value::U32(value) => value.to_le_bytes().to_vec(),
        Value::I32(value) => value.to_le_bytes().to_vec(),
        Value::U64(value) => value.to_le_bytes().to_vec(),
        Value::I64(value) => value.to_le_bytes().to_vec(),
        Value::F32(value) => value.to_le_bytes().to_vec(),
        Value::F64(value) => value.to_le_bytes().to_vec(),
        Value::Bool(value) => vec![u8::from(value)],
        Value::String(_) | Value::Array(_) => return None,
    })
}

fn write_in_place(path: &Path, places: &[(usize, Vec<u8>)]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    for (offset, bytes) in places {
        file.seek(SeekFrom::Start(*offset as u64))?;
        file.write_all(bytes)?;
    }
    file.sync_all()
}
