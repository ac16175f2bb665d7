//! What must hold before a library is loaded: nobody else may have written it, and it must be able to get memory.
//!
//! A library is code, as a plugin is, so it is checked by the plugins' rule: the file and all folders above belong to root or to
//! this user, and nobody else may write to them. The system's loader searches for names without a folder, and loads what a
//! library needs. Of what it searches, only `LD_LIBRARY_PATH` (on Windows the program's folder) isn't the system's own, so that is
//! looked at before; what came in is looked at after, where the loader can be asked.

use std::path::{Path, PathBuf};

/// The variable that loads libraries which others may have written.
const INSIST: &str = "HERALD_BLAS_INSECURE";

fn insists() -> bool {
    std::env::var_os(INSIST).is_some_and(|value| value == "1")
}

/// Whether what the loader will find by a name may be loaded. The error is the predicate of a sentence.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if insists() {
        return Ok(());
    }
    if name.contains(std::path::is_separator) {
        // The loader says what is wrong with a file that isn't there.
        return if Path::new(name).exists() { check(Path::new(name)) } else { Ok(()) };
    }
    let first = searched().into_iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    first.map_or(Ok(()), |file| check(&file))
}

/// Folders that the loader searches first, and that aren't the system's own.
fn searched() -> Vec<PathBuf> {
    if cfg!(windows) {
        let program = std::env::current_exe().ok();
        return program.as_deref().and_then(Path::parent).map(Path::to_owned).into_iter().collect();
    }
    let path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

/// Checks the libraries that have been loaded since `before`.
pub(crate) fn check_loaded(before: &[PathBuf]) -> Result<(), String> {
    if insists() {
        return Ok(());
    }
    let new = loaded().into_iter().filter(|file| !before.contains(file) && file.is_absolute());
    new.filter(|file| file.exists()).try_for_each(|file| check(&file))
}

fn check(file: &Path) -> Result<(), String> {
    herald_trusted_files::check(file).map_err(|refusal| {
        format!("isn't to be trusted: {}: {refusal} ({INSIST}=1 loads it all the same)", file.display())
    })
}

/// The files of all loaded libraries.
#[cfg(target_os = "linux")]
pub(crate) fn loaded() -> Vec<PathBuf> {
    use std::ffi::{CStr, OsStr, c_int, c_void};
    use std::os::unix::ffi::OsStrExt;

    extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, found: *mut c_void) -> c_int {
        // SAFETY: dl_iterate_phdr gives a struct that is good for the call, and the pointer that was handed to it: the list below,
        // which nothing else uses meanwhile.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<PathBuf>>()) };
        if !info.dlpi_name.is_null() {
            // SAFETY: the loader's names end with a NUL.
            let name = unsafe { CStr::from_ptr(info.dlpi_name) };
            found.push(PathBuf::from(OsStr::from_bytes(name.to_bytes())));
        }
        0
    }

    let mut found: Vec<PathBuf> = Vec::new();
    // SAFETY: the function fits, and neither unwinds nor keeps what it is given.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut found).cast()) };
    found
}

/// Elsewhere the loader can't be asked.
#[cfg(not(target_os = "linux"))]
pub(crate) fn loaded() -> Vec<PathBuf> {
    Vec::new()
}

/// Refuses a process whose memory is limited. OpenBLAS takes 128 MiB of address space for each product that runs at once, when it
/// first runs, and asks again for ever where the system refuses: one who sets a limit would see a program that hangs.
pub(crate) fn check_limits() -> Result<(), String> {
    #[cfg(unix)]
    for (limit, what) in
        [(libc::RLIMIT_AS, "address space (ulimit -v)"), (libc::RLIMIT_DATA, "data (ulimit -d)")]
    {
        let mut value = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: it writes to the struct, which is ours.
        let known = unsafe { libc::getrlimit(limit, &raw mut value) } == 0;
        if known && value.rlim_cur != libc::RLIM_INFINITY {
            return Err(format!(
                "this process may have {} MiB of {what}, and a BLAS library waits for ever where it gets no memory: no limit \
                 was expected",
                value.rlim_cur >> 20
            ));
        }
    }
    Ok(())
}
