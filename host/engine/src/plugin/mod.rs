//! Plugins: finding them, checking them, and putting them in order.
//!
//! The host links no backend: each is a file that is loaded here. A file that fails a check costs one line, and the next is
//! tried, so one bad plugin never stops the program.

mod discover;
#[cfg(all(unix, not(target_vendor = "apple")))]
mod elf;
mod known;
#[cfg(all(unix, not(target_vendor = "apple")))]
mod linked;
mod load;
mod single;
mod trial;

use std::path::PathBuf;

use herald_api::import::Plugin;
use herald_api::{Hardware, Probe};

use load::CheckedFile;

pub use discover::Search;
pub use single::load_file;
pub use trial::{COMMAND as PROBE_COMMAND, Trial, probe_and_exit};

/// A plugin that may be used.
#[derive(Clone)]
pub struct Loaded {
    /// Its file.
    pub path: PathBuf,
    /// The plugin.
    pub plugin: Plugin,
    /// How well it suits this machine.
    pub probe: Probe,
}

/// A file that is no usable plugin.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The file, or the folder.
    pub path: PathBuf,
    /// One sentence.
    pub reason: String,
    /// Whether the user named this very file ([`Search::files`]).
    pub is_named: bool,
    /// Whether it loads and works, and said itself, when it was probed, that it doesn't suit this machine.
    pub is_unsuited: bool,
}

/// Every plugin that was found.
#[derive(Clone, Default)]
pub struct Plugins {
    /// Those that may be used, best first.
    pub usable: Vec<Loaded>,
    /// Those that may not.
    pub refused: Vec<Refused>,
}

/// No plugin will do.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// None was found at all.
    #[error(
        "no backend plugin was found in {searched}, where {}herald_cpu was expected; build it with cargo build, or \
         name its folder in HERALD_PLUGIN_PATH{refusals}",
        std::env::consts::DLL_PREFIX
    )]
    None {
        /// The paths that were searched.
        searched: String,
        /// What was refused there, and why.
        refusals: String,
    },
    /// A plugin that the user named can't be used.
    #[error("{}: the plugin can't be used: {reason}", path.display())]
    Named {
        /// Its file.
        path: PathBuf,
        /// Why it was refused.
        reason: String,
    },
    /// There is no plugin of the given name.
    #[error("there is no backend {name:?}; {known}{refusals}")]
    Unknown {
        /// The name.
        name: String,
        /// The plugins that were found.
        known: String,
        /// What was refused, and why.
        refusals: String,
    },
}

/// This machine, as plugins see it.
#[must_use]
pub fn this_machine() -> Hardware {
    // 0 where the system doesn't say.
    let memory_bytes = crate::system::ram_bytes().unwrap_or(0);
    Hardware::detect(crate::threads::available_threads().get() as u32, memory_bytes)
}

impl Plugins {
    /// Finds, checks and probes the plugins that a search reaches. Those that are new to this machine are tried in a child
    /// process first ([`Trial`]).
    #[must_use]
    pub fn discover(search: &Search, hardware: &Hardware) -> Self {
        let mut plugins = Self::default();
        for checked in tried(search) {
            match checked.and_then(|(file, is_named)| plugins.load(file, is_named, hardware)) {
                Ok(loaded) => plugins.usable.push(loaded),
                Err(refused) => {
                    let path = refused.path.display();
                    // Whoever named the file gets an error.
                    if refused.is_unsuited && !refused.is_named {
                        tracing::info!("{path}: not used: {}", refused.reason);
                    } else if !refused.is_named {
                        tracing::warn!("{path}: refused: {}", refused.reason);
                    }
                    plugins.refused.push(refused);
                }
            }
        }
        // The sort is stable: of equals, the one that was found first.
        plugins.usable.sort_by_key(|loaded| std::cmp::Reverse(loaded.probe.score));
        plugins
    }

    fn load(&self, file: CheckedFile, is_named: bool, hardware: &Hardware) -> Result<Loaded, Refused> {
        let path = file.path.clone();
        let refuse = |reason: String| Refused { path: path.clone(), reason, is_named, is_unsuited: false };
        let plugin = file.load().map_err(refuse)?;
        if let Some(first) = self.usable.iter().find(|loaded| loaded.plugin.name() == plugin.name()) {
            return Err(refuse(format!("{} offers {:?} already", first.path.display(), plugin.name())));
        }
        let unsuited = |error: herald_api::Error| Refused {
            is_unsuited: error.status() == herald_api::Status::Unsupported,
            ..refuse(error.to_string())
        };
        let probe = plugin.probe(hardware).map_err(unsuited)?;
        Ok(Loaded { path, plugin, probe })
    }

    /// That each plugin which the user named can be used.
    ///
    /// # Errors
    /// The first that can't.
    pub fn check_named(&self) -> Result<(), ChooseError> {
        match self.refused.iter().find(|refused| refused.is_named) {
            Some(Refused { path, reason, .. }) => {
                Err(ChooseError::Named { path: path.clone(), reason: reason.clone() })
            }
            None => Ok(()),
        }
    }

    /// The plugins in the order in which they are to be asked: the one named `backend` first, where there is one, and the
    /// others by score.
    ///
    /// # Errors
    /// Where there is none at all, or none of that name, or one that the user named can't be used.
    pub fn ranked(&self, backend: Option<&str>, search: &Search) -> Result<Vec<Loaded>, ChooseError> {
        self.check_named()?;
        if self.usable.is_empty() {
            let paths = search.files.iter().chain(search.folders());
            let searched: Vec<String> = paths.map(|path| path.display().to_string()).collect();
            return Err(ChooseError::None { searched: searched.join(", "), refusals: self.refusals() });
        }
        let mut ranked = self.usable.clone();
        if let Some(name) = backend.filter(|name| *name != "auto") {
            let Some(index) = ranked.iter().position(|loaded| loaded.plugin.name() == name) else {
                let names: Vec<&str> = ranked.iter().map(|loaded| loaded.plugin.name()).collect();
                return Err(ChooseError::Unknown {
                    name: name.to_owned(),
                    known: format!("expected auto or one of: {}", names.join(", ")),
                    refusals: self.refusals(),
                });
            };
            let chosen = ranked.remove(index);
            ranked.insert(0, chosen);
        }
        Ok(ranked)
    }

    fn refusals(&self) -> String {
        self.refused
            .iter()
            .map(|refused| format!("; {}: {}", refused.path.display(), refused.reason))
            .collect()
    }
}

/// The candidates of a search that may be loaded in this process, each with whether the user named it.
fn tried(search: &Search) -> Vec<Result<(CheckedFile, bool), Refused>> {
    let checked = search.candidates().into_iter().map(|candidate| {
        let (path, is_named) = candidate?;
        let file = CheckedFile::open(&path, search.allow_insecure);
        file.map(|file| (file, is_named)).map_err(|reason| Refused {
            path,
            reason,
            is_named,
            is_unsuited: false,
        })
    });
    let checked: Vec<_> = checked.collect();
    let files: Vec<&CheckedFile> = checked.iter().flatten().map(|(file, _)| file).collect();
    let mut results = search.trial.run(&files).into_iter();
    let tried = checked.into_iter().map(|checked| {
        let (file, is_named) = checked?;
        match results.next().unwrap_or(Ok(())) {
            Ok(()) => Ok((file, is_named)),
            Err(reason) => Err(Refused { path: file.path, reason, is_named, is_unsuited: false }),
        }
    });
    tried.collect()
}
