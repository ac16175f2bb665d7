//! Folders in the user's cache folder.

use std::fs;
use std::path::PathBuf;

use etcetera::{BaseStrategy, choose_base_strategy};

fn herald() -> Option<PathBuf> {
    Some(choose_base_strategy().ok()?.cache_dir().join("herald"))
}

/// Where calibrations are kept: `herald/calibrations` in the user's cache folder, where there is one.
#[must_use]
pub fn calibrations() -> Option<PathBuf> {
    Some(herald()?.join("calibrations"))
}

/// Where packed weights are kept: `herald/packs` in the user's cache folder, where there is one.
#[must_use]
pub fn packs() -> Option<PathBuf> {
    Some(herald()?.join("packs"))
}

/// Where the plugins that answered their first probe are recorded: `herald` in the user's cache folder, where there is one.
pub(crate) fn probed_plugins() -> Option<PathBuf> {
    herald()
}

/// Where archived pages go: `herald/archive` in the user's cache folder, where it can be made. That is on a disk, while the
/// folder for temporary files, which serves otherwise, may be in RAM.
pub(crate) fn archive() -> PathBuf {
    let folder = herald().map(|herald| herald.join("archive"));
    folder.filter(|folder| fs::create_dir_all(folder).is_ok()).unwrap_or_else(std::env::temp_dir)
}
