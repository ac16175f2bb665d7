//! Opening a plugin's file and checking its table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::threads::locked;
use herald_api::abi;
use herald_api::import::{Entry, Plugin};
use libloading::Library;

/// Plugins that are loaded already. A library is loaded once a process, and stays: code that has registered anything
/// (a thread-local's destructor, a log) must not vanish. In a tree, whose every part begins where
/// a pointer points: leak checkers see it as held, and a hash table as lost.
static LOADED: Mutex<BTreeMap<PathBuf, Plugin>> = Mutex::new(BTreeMap::new());

/// Loads the plugin at a canonical path, or says why it is none.
pub(super) fn load(path: &Path) -> Result<Plugin, String> {
    let mut loaded = locked(&LOADED);
    if let Some(plugin) = loaded.get(path) {
        return Ok(plugin.clone());
    }
    let plugin = open(path)?;
    loaded.insert(path.to_owned(), plugin.clone());
    Ok(plugin)
}

fn open(path: &Path) -> Result<Plugin, String> {
    if !path.is_file() {
        return Err("it is no file, where a plugin's library was expected".to_owned());
    }
    // SAFETY: loading runs the library's initialisers. That is what a plugin is: its file has been checked to be one
    // that only this user or the system may write, or the user insisted.
    let library = unsafe { Library::new(path) }
        .map_err(|error| format!("it is no library that this system can load: {}", reason(&error, path)))?;
    // SAFETY: the symbol, where there is one, is by its name a plugin's entry of this version of the ABI.
    let entry = unsafe { library.get::<Entry>(abi::ENTRY_SYMBOL) }.map(|symbol| *symbol).map_err(|_| {
        format!("it exports no {}, where a plugin for version 1 of the ABI has one", abi::ENTRY_SYMBOL)
    })?;
    // SAFETY: the entry is a plugin's own, and the library that it is in goes along.
    unsafe { Plugin::load(entry, Box::new(library), log) }.map_err(|error| error.to_string())
}

/// The loader's own words, without the path, which whoever reports this has said.
fn reason(error: &libloading::Error, path: &Path) -> String {
    let text = match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    };
    let text = text.replace(&format!("{}: ", path.display()), "");
    text.lines().next().unwrap_or("").to_owned()
}

fn log(level: u32, line: &str) {
    match level {
        abi::HERALD_LOG_ERROR => tracing::error!("{line}"),
        abi::HERALD_LOG_WARN => tracing::warn!("{line}"),
        abi::HERALD_LOG_INFO => tracing::info!("{line}"),
        _ => tracing::debug!("{line}"),
    }
}
