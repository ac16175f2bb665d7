//! Writing results to stdout and notes to stderr. A reader that closes stdout early is no error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::failure::Failure;
use super::wrap::Wrap;

/// Writes a result, with a newline after it.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::of_output)
}

/// Writes a note for the user to stderr. If that fails, the work continues.
pub(super) fn note(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a result as JSON: indented on a terminal, in one line otherwise.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = match io::stdout().is_terminal() {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    };
    line(text.map_err(|error| Failure::Failed(format!("the result can't be written as JSON: {error}")))?)
}

/// Text that is written to stdout piece by piece. On a terminal, lines are broken between words.
pub(super) struct Stream {
    out: io::Stdout,
    wrap: Option<Wrap>,
    ended: bool,
}

impl Stream {
    pub(super) fn new() -> Self {
        let out = io::stdout();
        Self { wrap: out.is_terminal().then(Wrap::default), out, ended: true }
    }

    /// Writes a piece, and flushes.
    pub(super) fn push(&mut self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        self.ended = text.ends_with('\n');
        match &mut self.wrap {
            Some(wrap) => {
                let text = wrap.push(&printable(text), columns());
                self.write(&text)
            }
            None => self.write(text),
        }
    }

    fn write(&self, text: &str) -> Result<(), Failure> {
        let mut out = self.out.lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::of_output)
    }

    /// Ends the text's last line, if it isn't ended yet.
    pub(super) fn end_line(&mut self) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        self.push("\n")
    }
}

/// The terminal's width; without limit if it is unknown.
fn columns() -> usize {
    terminal_size::terminal_size_of(io::stdout()).map_or(usize::MAX, |(width, _)| usize::from(width.0.max(1)))
}

/// The text with U+FFFD for control characters, which could command a terminal.
pub(super) fn printable(text: &str) -> String {
    let harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
    text.chars().map(|c| if harmless(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// A table without rules: as wide as the terminal, or as wide as needed when a program reads it.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    table
}

/// A cell with a number.
pub(super) fn number(value: impl Display) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

/// Writes a table.
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    line(table.trim_fmt())
}

/// Bytes with a decimal unit, as downloads and files are usually counted: 1 MB is 1,000,000 bytes.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// `count` per second; 0 if nothing was counted or no time passed.
pub(super) fn per_second(count: usize, seconds: f64) -> f64 {
    if count == 0 || seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}
