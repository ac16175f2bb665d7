//! What plugins log, as lines of the host's.

use std::ffi::{c_char, c_void};
use std::sync::Mutex;

use super::LogSink;
use crate::abi::{AbiStruct, HeraldHost};
use crate::marshal::{one_line, slice};

/// The longest line that is read, in bytes.
const LONGEST_LINE: usize = 1 << 16;

/// Where a plugin's lines go, and its name, which begins each.
struct Lines {
    sink: LogSink,
    plugin: String,
}

/// What one plugin was given at its start.
struct Given {
    host: &'static HeraldHost,
    lines: &'static Lines,
}

// SAFETY: its pointers are to what never changes and is never freed.
unsafe impl Send for Given {}

/// A plugin may log until the process ends, so what it is given is never freed; a plugin that is loaded again is given the
/// same.
static GIVEN: Mutex<Vec<Given>> = Mutex::new(Vec::new());

/// The host as the plugin of this name is to see it.
pub(super) fn host_for(plugin: &str, sink: LogSink) -> &'static HeraldHost {
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let same = |given: &&Given| given.lines.plugin == plugin && std::ptr::fn_addr_eq(given.lines.sink, sink);
    if let Some(found) = given.iter().find(same) {
        return found.host;
    }
    let lines: &'static Lines = Box::leak(Box::new(Lines { sink, plugin: plugin.to_owned() }));
    let host: &'static HeraldHost = Box::leak(Box::new(HeraldHost {
        context: std::ptr::from_ref(lines).cast_mut().cast(),
        log: Some(log_line),
        ..AbiStruct::empty()
    }));
    given.push(Given { host, lines });
    host
}

unsafe extern "C" fn log_line(context: *mut c_void, level: u32, line: *const c_char, len: usize) {
    // SAFETY: the context is what `host_for` gave.
    let Lines { sink, plugin } = unsafe { &*context.cast_const().cast::<Lines>() };
    // SAFETY: the ABI's contract for log.
    if let Ok(line) = unsafe { slice(line.cast::<u8>(), len.min(LONGEST_LINE), "a log line") } {
        let line = format!("{plugin}: {}", one_line(&String::from_utf8_lossy(line)));
        // A panic in the host's own log must not cross back into the plugin.
        let _ = std::panic::catch_unwind(|| sink(level, &line));
    }
}
