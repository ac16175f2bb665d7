//! Who may write to a file by its owner and its mode.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::{Refusal, unusable};

/// The bit of a folder's mode that lets only owners rename and remove entries.
const STICKY: u32 = 0o1000;

/// Opens a file to read it.
pub(super) fn open(path: &Path) -> io::Result<File> {
    // The path is canonical, so a link was put there since. Opening a pipe must not wait for its other end.
    File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

/// Checks a file that is open.
pub(super) fn check_file(_: &File, metadata: &Metadata) -> Result<(), Refusal> {
    owned_by_us(metadata, "the file")?;
    written_by_us(metadata, "the file")
}

/// Checks a folder above a file, its own or one further up.
pub(super) fn check_folder(folder: &Path, what: &str, is_own: bool) -> Result<(), Refusal> {
    let metadata =
        folder.symlink_metadata().map_err(|error| unusable(&format!("{what} can't be looked at"), &error))?;
    if !metadata.is_dir() {
        return Err(Refusal::Unusable(format!("{what} is no folder any more")));
    }
    owned_by_us(&metadata, what)?;
    // In a sticky folder such as /tmp everybody may add entries, but only an entry's owner, the folder's owner and root
    // may rename or remove it. What the path names there is checked next, and is theirs. This doesn't do for the
    // file's own folder: a library is loaded with others from beside it, which anybody could add.
    let is_sticky = metadata.mode() & STICKY != 0;
    if is_own || !is_sticky { written_by_us(&metadata, what) } else { Ok(()) }
}

/// This process's effective user and group.
pub(super) fn identity() -> (u32, u32) {
    // SAFETY: these two only return numbers.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn owned_by_us(metadata: &Metadata, what: &str) -> Result<(), Refusal> {
    let (user, _) = identity();
    match metadata.uid() {
        0 => Ok(()),
        owner if owner == user => Ok(()),
        owner => Err(Refusal::Untrusted(format!(
            "{what} belongs to user {owner}, where you (user {user}) or root was expected"
        ))),
    }
}

fn written_by_us(metadata: &Metadata, what: &str) -> Result<(), Refusal> {
    let (user, group) = identity();
    // A group of one's own, as many systems give each user, is no one else.
    let own_group = metadata.gid() == group && group == user;
    let mode = metadata.mode();
    if mode & 0o002 != 0 || (mode & 0o020 != 0 && !own_group) {
        return Err(Refusal::Untrusted(format!(
            "{what} has mode {:03o}, which lets others write to it, where only its owner was expected to",
            mode & 0o777
        )));
    }
    Ok(())
}
