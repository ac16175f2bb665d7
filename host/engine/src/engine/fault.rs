//! Asking plugins for a part in turn, and leaving out one that fails.

use herald_api::Status;

use crate::error::Error;
use crate::plugin::Loaded;

/// A plugin that failed in a way that no plugin may: it is left out, and everything is built anew without it.
pub(super) struct PluginFault {
    pub(super) plugin: String,
    pub(super) reason: String,
}

/// Why a part was not built.
pub(super) enum BuildError {
    /// A plugin failed.
    Plugin(PluginFault),
    /// Another reason, which leaving a plugin out doesn't help.
    Other(Error),
}

pub(super) type BuildResult<T> = std::result::Result<T, BuildError>;

impl From<Error> for BuildError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<PluginFault> for BuildError {
    fn from(fault: PluginFault) -> Self {
        Self::Plugin(fault)
    }
}

/// The plugins to ask for a part, best first, and why others were left out.
pub(super) struct PluginRanking {
    pub(super) ranked: Vec<Loaded>,
    faults: Vec<String>,
}

impl PluginRanking {
    pub(super) fn new(ranked: Vec<Loaded>) -> Self {
        Self { ranked, faults: Vec::new() }
    }

    /// Builds something by `build`, anew each time that a plugin had to be left out.
    pub(super) fn build<T>(
        mut self,
        build: impl Fn(&Self) -> BuildResult<T>,
    ) -> std::result::Result<T, Error> {
        loop {
            match build(&self) {
                Ok(built) => return Ok(built),
                Err(BuildError::Other(error)) => return Err(error),
                Err(BuildError::Plugin(fault)) => self.leave_out(&fault),
            }
        }
    }

    fn leave_out(&mut self, PluginFault { plugin, reason }: &PluginFault) {
        tracing::warn!("backend {plugin} is refused: {reason}");
        self.ranked.retain(|loaded| loaded.plugin.name() != plugin);
        self.faults.push(format!("{plugin}: {reason}"));
    }

    /// The part that the first plugin makes which offers it.
    pub(super) fn first_of<T>(
        &self,
        part: impl Fn() -> String,
        make: impl Fn(&Loaded) -> herald_api::Result<T>,
    ) -> BuildResult<T> {
        let mut reasons = Vec::new();
        for loaded in &self.ranked {
            let plugin = loaded.plugin.name();
            match make(loaded) {
                Ok(made) => return Ok(made),
                Err(error) if is_not_offered(&error) => reasons.push(format!("{plugin}: {error}")),
                Err(error) => {
                    let reason = format!("{}: {error}", part());
                    return Err(PluginFault { plugin: plugin.to_owned(), reason }.into());
                }
            }
        }
        reasons.extend(self.faults.iter().cloned());
        let reasons = if reasons.is_empty() { "no plugin is left".to_owned() } else { reasons.join("; ") };
        Err(Error::Unbuilt { part: part(), reasons }.into())
    }
}

/// Whether a plugin's answer is that it can't make the part. A shape that contradicts the description may be the model's
/// fault, so that is no fault of the plugin's.
pub(super) fn is_not_offered(error: &herald_api::Error) -> bool {
    matches!(error.status(), Status::Unsupported | Status::InvalidArgument)
}
