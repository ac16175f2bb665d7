//! `host plugin new`: a small plugin to begin with.

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// Write a small plugin that builds and passes `host plugin check`
#[derive(Debug, Args)]
pub(crate) struct New {
    /// The folder to make
    folder: PathBuf,
}

impl New {
    pub(super) fn run(self) -> Result<(), Failure> {
        Err(Failure::Failed(format!("{}: it can't be written yet", self.folder.display())))
    }
}
