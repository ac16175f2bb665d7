//! A command's input text: from an argument, a file or stdin.

use std::fs;
use std::io::{self, IsTerminal, Read};
use std::path::Path;

use herald::files;

use super::failure::Failure;
use super::output;

/// The name of a file that means stdin.
const STDIN: &str = "-";

/// Whether a path stands for stdin.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

/// The text of an argument, of a file, or else of stdin.
pub(super) fn text(argument: Option<&str>, file: Option<&Path>) -> Result<String, Failure> {
    match (argument, file) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Some(path)) => read(path),
        (None, None) => {
            if io::stdin().is_terminal() {
                output::note("(reading stdin; Ctrl-D ends the text)");
            }
            read(Path::new(STDIN))
        }
    }
}

/// The text of a file, which must be UTF-8. `-` is stdin.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    let (name, bytes) = if is_stdin(path) {
        let mut bytes = Vec::new();
        ("stdin".to_owned(), io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), fs::read(path).map_err(|error| files::explained(path, error)))
    };
    let bytes = bytes.map_err(|error| Failure::Failed(format!("{name}: can't be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes().get(at).copied().unwrap_or_default();
        Failure::Failed(format!("{name}: byte {at} is 0x{byte:02x}, where text in UTF-8 was expected"))
    })?;
    // A mark that some editors put before a text is no part of it.
    Ok(files::without_bom(&text).to_owned())
}
