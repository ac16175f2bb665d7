//! `host man`: the manual pages, which an installation makes.

use std::path::PathBuf;

use clap::Args;

use super::failure::Failure;
use super::{arguments, output};

/// Write the manual pages, one for each command, into a folder
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self) -> Result<(), Failure> {
        clap_mangen::generate_to(arguments::command(), &self.folder).map_err(|error| {
            Failure::file(&self.folder, "the manual pages can't be written there", &error)
        })?;
        output::line(self.folder.display())
    }
}
