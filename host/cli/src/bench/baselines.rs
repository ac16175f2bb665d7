//! Baselines: named runs that later ones are compared with.

use std::fs;
use std::path::PathBuf;

use etcetera::{BaseStrategy, choose_base_strategy};
use herald_suites::Report;

use crate::failure::Failure;

/// A baseline's name: a valid file name on every system, which can't lead to another folder.
pub(super) fn name(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with(['.', '-'])
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    match valid {
        true => Ok(text.to_owned()),
        false => Err("letters, digits, dots, dashes and underscores were expected, at most 64".to_owned()),
    }
}

/// A baseline's file.
fn path(name: &str) -> Result<PathBuf, Failure> {
    let base = choose_base_strategy()
        .map_err(|error| Failure::Failed(format!("the user's data folder can't be found: {error}")))?;
    Ok(base.data_dir().join("herald").join("baselines").join(format!("{name}.json")))
}

/// Saves a run.
pub(super) fn save(name: &str, report: &Report) -> Result<PathBuf, Failure> {
    let path = path(name)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .map_err(|error| Failure::file(folder, "the folder can't be created", &error))?;
    }
    report.write(&path)?;
    Ok(path)
}

/// Loads a saved run.
pub(super) fn load(name: &str) -> Result<Report, Failure> {
    let path = path(name)?;
    if !path.exists() {
        return Err(Failure::Failed(format!(
            "there is no baseline {name:?} ({}): create it with --save-baseline {name}",
            path.display()
        )));
    }
    Ok(Report::read(&path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in ["", "../x", "a/b", ".hidden", "-x", "a b", "é"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(name("before-2.0_x").as_deref(), Ok("before-2.0_x"));
    }
}
