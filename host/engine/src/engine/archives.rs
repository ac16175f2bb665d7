//! The archived tiers: a file for each shape of pages.

use std::path::PathBuf;

use herald_api::import::TierHandle;
use herald_api::{Status, TierConfig, TierKind};

use super::fault::{BuildResult, PluginFault};
use crate::error::Error;
use crate::folders;
use crate::kv_cache::MemoryOptions;
use crate::plugin::Loaded;

/// The archived tiers of an engine.
pub(super) struct Archives {
    /// A file, or a folder for files without names.
    path: PathBuf,
    lz4: bool,
    made: Vec<TierHandle>,
    maker: Option<String>,
}

impl Archives {
    pub(super) fn new(options: &MemoryOptions) -> Self {
        Self {
            path: options.archive.clone().unwrap_or_else(folders::archive),
            lz4: options.archive_lz4,
            made: Vec::new(),
            maker: None,
        }
    }

    /// The plugin that made the first of them.
    pub(super) fn maker(&self) -> Option<&str> {
        self.maker.as_deref()
    }

    /// A tier for pages of a shape, the same one each time; `None` where no plugin offers one.
    pub(super) fn tier(&mut self, shape: &TierConfig, ranked: &[Loaded]) -> BuildResult<Option<TierHandle>> {
        let path = match self.made.len() {
            0 => self.path.clone(),
            _ if self.path.is_dir() => self.path.clone(),
            // A file holds pages of one shape.
            n => {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{}", n + 1));
                name.into()
            }
        };
        let config =
            TierConfig { kind: TierKind::Archived, path: Some(path.clone()), lz4: self.lz4, ..shape.clone() };
        let is_such =
            |tier: &&TierHandle| TierConfig { path: config.path.clone(), ..tier.config().clone() } == config;
        if let Some(tier) = self.made.iter().find(is_such) {
            return Ok(Some(tier.clone()));
        }
        for loaded in ranked {
            match loaded.plugin.create_tier(&config) {
                Ok(tier) => {
                    // A process that died left these pages behind.
                    let left = tier.take_found();
                    if !left.is_empty() {
                        tracing::warn!(
                            "{}: {} pages of an earlier run are dropped",
                            path.display(),
                            left.len()
                        );
                    }
                    drop(left);
                    self.maker.get_or_insert_with(|| loaded.plugin.name().to_owned());
                    self.made.push(tier.clone());
                    return Ok(Some(tier));
                }
                Err(error) => match error.status() {
                    Status::Unsupported | Status::InvalidArgument => {
                        tracing::debug!("{}: {error}", loaded.plugin.name());
                    }
                    // The file's fault.
                    Status::Io | Status::Corrupt => {
                        return Err(Error::Plugin { what: "the archive".to_owned(), source: error }.into());
                    }
                    _ => {
                        let reason = format!("the archived memory tier: {error}");
                        return Err(PluginFault { plugin: loaded.plugin.name().to_owned(), reason }.into());
                    }
                },
            }
        }
        Ok(None)
    }
}
