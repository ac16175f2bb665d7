//! Where the program is and what is around it: its library, the cache folder, memory, the CPU.

use std::fs;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use herald::plugin::this_machine;

use super::Finding;
use crate::{output, system};

/// This program's version, which the library beside it should have too.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// With less RAM than this, hardly any model runs.
const LEAST_MEMORY: u64 = 256 << 20;

/// With less room than this, the cache folder keeps neither a calibration nor an archive for long.
const LEAST_DISK: u64 = 256 << 20;

/// The program's file, without links.
fn executable() -> Option<PathBuf> {
    std::env::current_exe().ok().and_then(|path| dunce::canonicalize(path).ok())
}

pub(super) fn program() -> Finding {
    match executable() {
        Some(path) => Finding::ok("program", format!("HERALD {VERSION}, {}", path.display())),
        None => Finding::wrong(
            "program",
            format!("HERALD {VERSION}, but its own file can't be found"),
            "run it where /proc is there, and don't remove it while it runs",
        ),
    }
}

/// The library for C and its header, where the program lies in the `bin` of an installation that has them.
pub(super) fn library() -> Vec<Finding> {
    let executable = executable();
    let folder = executable.as_deref().and_then(Path::parent).filter(|folder| folder.ends_with("bin"));
    let Some(prefix) = folder.and_then(Path::parent) else { return Vec::new() };
    let mut findings = Vec::new();
    let name = if cfg!(target_vendor = "apple") { "libherald.0.dylib" } else { "libherald.so.0" };
    let file = prefix.join("lib").join(name);
    if let Ok(target) = fs::canonicalize(&file) {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        findings.push(of_version("library", &target, name.contains(&format!(".{VERSION}")), &name));
    }
    let header = prefix.join("include").join("herald.h");
    if let Ok(text) = fs::read_to_string(&header) {
        let version = text.lines().find_map(|line| line.strip_prefix("#define HERALD_VERSION "));
        let version = version.unwrap_or("none").trim_matches('"');
        findings.push(of_version("header", &header, version == VERSION, version));
    }
    findings
}

fn of_version(check: &'static str, file: &Path, same: bool, version: &str) -> Finding {
    let file = file.display();
    if same {
        return Finding::ok(check, format!("{file}: version {VERSION}"));
    }
    let wrong = format!("{file}: its version is {version}, where the program's {VERSION} was expected");
    Finding::wrong(check, wrong, "install program and library from the same release")
}

/// Whether models and what was measured can be kept.
pub(super) fn cache() -> Finding {
    let Ok(base) = choose_base_strategy() else {
        return Finding::wrong(
            "cache folder",
            "the user's home folder can't be found, so nothing is kept",
            "set HOME, or XDG_CACHE_HOME",
        );
    };
    let folder = base.cache_dir().join("herald");
    let written = fs::create_dir_all(&folder).and_then(|()| tempfile::tempfile_in(&folder));
    if let Err(error) = written {
        return Finding::wrong(
            "cache folder",
            format!("{}: it can't be written to: {error}", folder.display()),
            "make it this user's own, or name another cache folder in XDG_CACHE_HOME",
        );
    }
    let Some(free) = herald::free_bytes(&folder) else {
        return Finding::ok("cache folder", format!("{}: writable", folder.display()));
    };
    let found = format!("{}: writable, {} are free", folder.display(), output::bytes(free));
    match free < LEAST_DISK {
        true => Finding::wrong(
            "cache folder",
            found,
            format!("free {}, or name another cache folder in XDG_CACHE_HOME", output::bytes(LEAST_DISK)),
        ),
        false => Finding::ok("cache folder", found),
    }
}

pub(super) fn memory() -> Finding {
    let total = this_machine().memory_bytes;
    let Some(available) = system::available_memory() else {
        return Finding::ok("memory", format!("{} in all", output::bytes(total)));
    };
    let found = format!("{} of {} are available", output::bytes(available), output::bytes(total));
    match available < LEAST_MEMORY {
        true => Finding::wrong("memory", found, "end other programs: even small models need more"),
        false => Finding::ok("memory", found),
    }
}

/// The CPU's features, by which plugins choose their code.
pub(super) fn cpu() -> Finding {
    let machine = this_machine();
    let list = |names: Vec<&str>| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let (there, missing) = (machine.names_of(u64::MAX), machine.names_of_missing(u64::MAX));
    Finding::ok(
        "CPU",
        format!("{} threads; features: {}; missing: {}", machine.cpus, list(there), list(missing)),
    )
}
