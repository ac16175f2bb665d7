//! Atomic writes: a file is written under a temporary name in the same folder, then renamed.

use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// Creates a temporary file in the folder of `path`. Persist it to `path` when it is complete; dropping it removes it.
pub(super) fn create(path: &Path) -> io::Result<NamedTempFile> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("it is a folder or a device, where a file was expected"));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Like any new file: the user's umask limits who may read it.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.prefix(".host-").tempfile_in(folder)
}
