//! Names the C library as systems expect it, and keeps functions of other crates out of it: only HERALD's own are its
//! interface.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The first number of the soname changes with the ABI; 0.x versions only add to it.
    let major = env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => {
            let name = format!("libherald.{major}.dylib");
            println!("cargo::rustc-link-arg-cdylib=-Wl,-install_name,@rpath/{name}");
            link(&name, "libherald.dylib");
        }
        // rustc's own version script exports the functions of this crate, and ends the C libraries' here. A second one,
        // which would give them a version, is refused by linkers beside it.
        Ok("linux") => {
            let name = format!("libherald.so.{major}");
            println!("cargo::rustc-link-arg-cdylib=-Wl,-soname,{name}");
            println!("cargo::rustc-link-arg-cdylib=-Wl,--exclude-libs,ALL");
            link(&name, "libherald.so");
        }
        _ => {}
    }
}

/// Puts a link beside the library in cargo's output folder, because programs that were linked with it look for its soname.
fn link(name: &str, library: &str) {
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    // OUT_DIR is target/PROFILE/build/PACKAGE/out.
    let Some(folder) = Path::new(&out).ancestors().nth(3) else { return };
    #[cfg(unix)]
    if let Err(error) = std::os::unix::fs::symlink(library, folder.join(name))
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        println!("cargo::warning={}: the link can't be made: {error}", folder.join(name).display());
    }
    #[cfg(not(unix))]
    let _ = (folder, name, library);
}
