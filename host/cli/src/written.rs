//! The files that commands write: none that the command reads, and none that can't be written once the work is done.

use std::path::Path;

use super::failure::Failure;
use super::input;

/// What a file is that a command reads.
pub(super) const MODEL: &str = "the model";
pub(super) const TEXT: &str = "the text";

/// Checks before the work that a file may be written: it is none of those that are read, each given with what it is, and the folder
/// for it is there.
pub(super) fn check<'p>(
    output: &Path,
    read: impl IntoIterator<Item = (&'p Path, &'static str)>,
) -> Result<(), Failure> {
    if input::is_stdin(output) {
        let what = "-: results of this kind aren't written to stdout: the name of a file was expected (./- for one that is called so)";
        return Err(Failure::Usage(what.to_owned()));
    }
    let same = |path: &Path| Some(output.canonicalize().ok()? == path.canonicalize().ok()?);
    if let Some((_, what)) = read.into_iter().find(|(path, _)| same(path) == Some(true)) {
        return Err(Failure::Usage(format!(
            "{}: it is {what} that is read, where another output file was expected",
            output.display()
        )));
    }
    let folder = folder_of(output);
    if !folder.is_dir() {
        return Err(Failure::Failed(format!(
            "{}: it can't be written: the folder {} isn't there",
            output.display(),
            folder.display()
        )));
    }
    Ok(())
}

/// The same for a saved sequence, which may take the place of another one, and of no other file.
pub(super) fn check_state<'p>(
    output: &Path,
    read: impl IntoIterator<Item = (&'p Path, &'static str)>,
) -> Result<(), Failure> {
    check(output, read)?;
    let is_other = output.metadata().is_ok_and(|facts| facts.is_file() && facts.len() > 0)
        && !herald::is_saved_sequence(output);
    if is_other {
        return Err(Failure::Failed(format!(
            "{}: it is no saved sequence, and would be lost: the name of a new file or of a saved sequence was expected",
            output.display()
        )));
    }
    Ok(())
}

/// The folder that a file is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
