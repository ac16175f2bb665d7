//! The model that benchmarks run on: the user's, the default one, or random weights if there is none.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use herald::files::UnfinishedFolder;
use herald_convert::synth::{self, Storage};

use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// The architecture and size of the stand-in with random weights.
const STAND_IN: (&str, &str) = ("granite_hybrid", "350m");

/// A model's file.
pub(super) struct Model {
    pub(super) path: PathBuf,
    /// Whether its weights are random.
    pub(super) synthetic: bool,
    /// The stand-in's folder, removed on drop.
    _folder: Option<UnfinishedFolder>,
}

impl Model {
    /// The model that the options name. If they name none and the default one is unavailable, a stand-in.
    pub(super) fn find(options: &EngineOptions) -> Result<Self, Failure> {
        let named = options.model().is_some();
        match options.model_path() {
            Ok(path) => Ok(Self { path, synthetic: false, _folder: None }),
            Err(Failure::Failed(reason)) if !named => {
                let (architecture, size) = STAND_IN;
                output::note(format_args!(
                    "there is no model ({reason}), so the benchmarks run on random weights in the shape of {architecture} \
                     {size} (host synth): speeds are real, text is not"
                ));
                Self::stand_in()
            }
            Err(failure) => Err(failure),
        }
    }

    fn stand_in() -> Result<Self, Failure> {
        let (architecture, size) = STAND_IN;
        let failed = |error: std::io::Error| {
            Failure::file(&std::env::temp_dir(), "no model can be written to it", &error)
        };
        let folder = UnfinishedFolder::create_in(&std::env::temp_dir()).map_err(failed)?;
        let path = folder.path().join(format!("{architecture}-{size}.gguf"));
        write(&path, architecture, size)?;
        Ok(Self { path, synthetic: true, _folder: Some(folder) })
    }
}

fn write(path: &Path, architecture: &str, size: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::file(path, "it can't be written", &error);
    let out = BufWriter::new(File::create(path).map_err(failed)?);
    let written = synth::write(architecture, size, Storage::Q4KM, out)
        .ok_or_else(|| Failure::Failed(format!("there is no shape for {architecture} {size}")))?;
    let out = written.map_err(|error| Failure::Failed(error.to_string()))?;
    out.into_inner().map_err(|error| failed(error.into_error()))?;
    Ok(())
}
