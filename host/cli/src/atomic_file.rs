//! Files that are written whole or not at all: under another name first, beside their place.

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// A file beside the one that it is to become.
pub(super) fn beside(path: &Path) -> io::Result<NamedTempFile> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("it is a folder or a device, where a file was expected"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As for any new file, it is the user's umask that says who may not read it.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(".host-").tempfile_in(folder)
}
