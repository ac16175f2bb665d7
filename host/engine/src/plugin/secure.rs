//! Whether a plugin's file is one that only its user, or the system, may have written.

use std::path::Path;

/// Refuses a file that someone else may write to, or whose folder they may.
#[cfg(unix)]
pub(super) fn check(path: &Path) -> Result<(), String> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    for (checked, what) in [(path, "the file"), (folder, "its folder")] {
        check_one(checked, what)?;
    }
    Ok(())
}

#[cfg(unix)]
fn check_one(path: &Path, what: &str) -> Result<(), String> {
    use std::os::unix::fs::MetadataExt;

    const INSIST: &str = "(--allow-insecure-plugins loads it all the same)";
    let metadata = path.metadata().map_err(|error| format!("{what} can't be looked at: {error}"))?;
    // SAFETY: these two only return numbers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if metadata.uid() != 0 && metadata.uid() != user {
        return Err(format!(
            "{what} belongs to user {}, where you (user {user}) or root was expected {INSIST}",
            metadata.uid()
        ));
    }
    // A group of one's own, as many systems give each user, is no one else.
    let own_group = metadata.gid() == group && group == user;
    let by_others = metadata.mode() & 0o002 != 0 || (metadata.mode() & 0o020 != 0 && !own_group);
    if by_others {
        return Err(format!(
            "{what} has mode {:03o}, which lets others write to it, where only its owner was expected to {INSIST}",
            metadata.mode() & 0o777
        ));
    }
    Ok(())
}

/// Elsewhere the system's own access lists decide who may write where plugins are installed.
#[cfg(not(unix))]
pub(super) fn check(_: &Path) -> Result<(), String> {
    Ok(())
}
