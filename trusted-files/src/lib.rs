//! Whether a file that is loaded as code is one that only this user, or the system, may have written.
//!
//! The host asks this of plugins, and the `blas` backend of the library that it loads: one rule for both. The file, its
//! folder and all folders above must belong to root or to this user, and nobody else may write to them. Unix systems say so by owners
//! and modes, Windows by access lists.
//!
//! Folders are checked from the root down, and the file last. At each step nobody else can change what the earlier steps
//! found, so the path that was checked stays the path that is opened.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fmt;
use std::fs::File;
use std::path::Path;

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

/// Why a file is refused: a sentence about "it", without the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Someone else may have written it.
    Untrusted(String),
    /// It can't be opened, or is no file.
    Unusable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Untrusted(sentence) | Self::Unusable(sentence)) = self;
        f.write_str(sentence)
    }
}

impl std::error::Error for Refusal {}

fn unusable(what: &str, error: &std::io::Error) -> Refusal {
    Refusal::Unusable(format!("{what}: {error}"))
}

/// Checks the folders of a file, from the root down; `own` is what its own one is called.
fn check_folders(path: &Path, own: &str) -> Result<(), Refusal> {
    let home = path.parent();
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        let is_own = Some(folder) == home;
        let what = match is_own {
            true => own.to_owned(),
            false => format!("the folder {} above it", folder.display()),
        };
        system::check_folder(folder, &what, is_own)?;
    }
    Ok(())
}

/// Opens a file by its canonical path. With `checks` it is refused where someone else may have written it; without, anything
/// that is a file will do.
///
/// # Errors
/// As [`Refusal`] says.
pub fn open(path: &Path, checks: bool) -> Result<File, Refusal> {
    if checks {
        check_folders(path, "its folder")?;
    }
    let file = system::open(path).map_err(|error| unusable("it can't be opened", &error))?;
    let metadata = file.metadata().map_err(|error| unusable("it can't be looked at", &error))?;
    if !metadata.is_file() {
        return Err(Refusal::Unusable("it is no file, where a library was expected".to_owned()));
    }
    if checks {
        system::check_file(&file, &metadata)?;
    }
    Ok(file)
}

/// Follows links, then checks a file and the folders that it is in.
///
/// # Errors
/// As [`open`].
pub fn check(path: &Path) -> Result<(), Refusal> {
    let canonical = path.canonicalize().map_err(|error| unusable("it can't be opened", &error))?;
    open(&canonical, true).map(drop)
}

/// Follows links, then checks a folder in which files are looked for, and the folders that it is in. Where it isn't there,
/// nobody else may be able to make it.
///
/// # Errors
/// As [`Refusal`] says.
pub fn check_folder(folder: &Path) -> Result<(), Refusal> {
    let there = folder.ancestors().find_map(|folder| Some((folder, folder.canonicalize().ok()?)));
    let (found, canonical) = there
        .ok_or_else(|| Refusal::Unusable(format!("the folder {} can't be looked at", folder.display())))?;
    let what = match found == folder {
        true => "the folder".to_owned(),
        false => format!("the folder {}, where it would be made,", found.display()),
    };
    check_folders(&canonical.join("file"), &what)
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions");
    }

    /// A file in `a/b` in a temporary folder, whose own folder is sticky where tests usually run.
    fn file() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().expect("a temporary folder");
        let folder = home.path().canonicalize().expect("a path").join("a/b");
        fs::create_dir_all(&folder).expect("folders");
        // Whatever the umask is, and whoever shares the user's group.
        for folder in folder.ancestors().take(3) {
            mode(folder, 0o755);
        }
        let file = folder.join("library");
        fs::write(&file, "code").expect("a file");
        mode(&file, 0o644);
        (home, file)
    }

    #[track_caller]
    fn refused(path: &Path, words: &[&str]) {
        let sentence = check(path).expect_err("it is refused").to_string();
        for word in words {
            assert!(sentence.contains(word), "{sentence:?} does not say {word:?}");
        }
    }

    #[test]
    fn a_file_of_ours_in_folders_of_ours_is_trusted() {
        let (_home, file) = file();
        check(&file).expect("it is ours");
        // So is one of root's.
        check(Path::new("/bin/sh")).expect("it is the system's");
    }

    #[test]
    fn whoever_may_write_to_a_folder_above_may_swap_the_file() {
        let (home, file) = file();
        let (b, a) = (file.parent().expect("b"), home.path().join("a"));
        mode(&a, 0o777);
        refused(&file, &["the folder", "/a above it has mode 777", "only its owner"]);
        // Who may only add to it can't swap what is there.
        mode(&a, 0o1777);
        check(&file).expect("it can't be swapped");
        mode(&a, 0o755);
        for open in [0o777, 0o1777] {
            mode(b, open);
            refused(&file, &["its folder has mode 777"]);
        }
        mode(b, 0o755);
        mode(&file, 0o646);
        refused(&file, &["the file has mode 646"]);
    }

    #[test]
    fn links_are_followed_first() {
        let (home, file) = file();
        let link = home.path().join("link");
        symlink(home.path().join("a"), &link).expect("a link");
        check(&link.join("b/library")).expect("it leads to a file of ours");
        mode(file.parent().expect("b"), 0o757);
        refused(&link.join("b/library"), &["its folder has mode 757"]);
        // A link in the place of the file has come after the path was resolved.
        let late = home.path().join("late");
        symlink(&file, &late).expect("a link");
        assert!(open(&late, false).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_one_that_nobody_else_can_make() {
        let (home, file) = file();
        let (a, b) = (home.path().join("a"), file.parent().expect("b").to_owned());
        let missing = b.join("c/d");
        check_folder(&b).expect("it is ours");
        check_folder(&missing).expect("only we can make it");
        let said = |folder: &Path| check_folder(folder).expect_err("it is refused").to_string();
        for open in [0o777, 0o1777] {
            mode(&b, open);
            assert!(said(&b).starts_with("the folder has mode 777"), "{}", said(&b));
            assert!(said(&missing).contains("b, where it would be made, has mode 777"), "{}", said(&missing));
        }
        mode(&b, 0o755);
        mode(&a, 0o777);
        assert!(said(&b).contains("/a above it has mode 777"), "{}", said(&b));
    }

    #[test]
    fn the_own_group_is_nobody_else() {
        let (_home, file) = file();
        let folder = file.parent().expect("b");
        mode(folder, 0o775);
        mode(&file, 0o664);
        let (user, group) = unix::identity();
        match user == group {
            true => check(&file).expect("the group is the user's own"),
            false => refused(&file, &["its folder has mode 775"]),
        }
        if user == 0 {
            std::os::unix::fs::chown(folder, None, Some(12345)).expect("another group");
            refused(&file, &["its folder has mode 775"]);
            std::os::unix::fs::chown(folder, Some(12345), None).expect("another user");
            refused(&file, &["its folder belongs to user 12345", "you (user 0)"]);
        }
    }

    #[test]
    fn only_files_are_opened() {
        let (home, file) = file();
        refused(file.parent().expect("b"), &["no file"]);
        refused(&home.path().join("nothing"), &["can't be opened"]);
        let pipe = home.path().join("pipe");
        let name = std::ffi::CString::new(pipe.to_str().expect("UTF-8")).expect("no NUL");
        // SAFETY: the name is NUL-terminated.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        refused(&pipe, &["no file"]);
    }
}
