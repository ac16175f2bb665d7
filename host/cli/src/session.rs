//! Saved conversations: one file each, with the sequence, its KV cache and the messages.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use herald::chat::Message;
use herald::files::{self, Lock};
use herald::sampler::SamplerState;
use herald::{NeuroEngine, SavedExtras, Sequence};
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// Maximum length of a session's name.
const MAX_NAME_LEN: usize = 64;

/// The messages of a conversation.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Transcript {
    pub(super) system: Option<String>,
    pub(super) messages: Vec<Message>,
}

/// A named session, locked against other processes.
#[derive(Debug)]
pub(super) struct Session {
    path: PathBuf,
    /// Holds the lock until it is dropped.
    _lock: Lock,
}

/// A session as it was saved.
pub(super) struct Opened {
    pub(super) sequence: Sequence,
    pub(super) transcript: Transcript,
    pub(super) random: Option<SamplerState>,
}

impl Session {
    /// The session of this name in `folder`, or else in the user's data folder.
    pub(super) fn new(name: &str, folder: Option<&Path>) -> Result<Self, Failure> {
        let folder = match folder {
            Some(folder) => folder.to_owned(),
            None => default_folder()?,
        };
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::file(&folder, "the folder for sessions can't be created", &error))?;
        let path = folder.join(format!("{name}.session"));
        let lock_path = folder.join(format!("{name}.lock"));
        match files::lock(&lock_path) {
            Ok(Some(lock)) => Ok(Self { path, _lock: lock }),
            Ok(None) => Err(Failure::Failed(format!("the session {name} is in use by another program"))),
            Err(error) => Err(Failure::file(&lock_path, "the session can't be locked", &error)),
        }
    }

    /// Loads the saved session; `None` for a new one.
    pub(super) fn open(&self, engine: &NeuroEngine) -> Result<Option<Opened>, Failure> {
        match self.path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let mut restored = engine.restore(&self.path)?;
        engine.set_loras(&mut restored.sequence, &engine.usual_loras())?;
        let transcript = serde_json::from_str(&restored.notes).map_err(|error| {
            Failure::Failed(format!("{}: it is not a conversation: {error}", self.path.display()))
        })?;
        Ok(Some(Opened { sequence: restored.sequence, transcript, random: restored.sampler }))
    }

    /// Saves it atomically.
    pub(super) fn save(
        &self,
        engine: &NeuroEngine,
        sequence: &Sequence,
        transcript: &Transcript,
        random: Option<SamplerState>,
    ) -> Result<(), Failure> {
        let notes = serde_json::to_string(transcript).map_err(|error| Failure::Failed(error.to_string()))?;
        let extras = SavedExtras { pending: &[], sampler: random, notes: &notes };
        Ok(engine.save_with(sequence, &extras, &self.path)?)
    }
}

fn default_folder() -> Result<PathBuf, Failure> {
    let base = choose_base_strategy()
        .map_err(|error| Failure::Failed(format!("the user's data folder can't be found: {error}")))?;
    Ok(base.data_dir().join("herald").join("sessions"))
}

/// A session's name, which becomes part of a file's name.
pub(super) fn name(text: &str) -> Result<String, String> {
    let letters = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if letters && !text.is_empty() && text.len() <= MAX_NAME_LEN && !text.starts_with(['.', '-']) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "up to {MAX_NAME_LEN} letters, digits, '-', '_' and '.' were expected, beginning with a letter, a digit or '_'"
    ))
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_those_of_files() {
        for good in ["work", "2026-01-31", "a.b_c", "_x"] {
            assert!(name(good).is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a\\b", "a b", "ä", "a\n", &long] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
