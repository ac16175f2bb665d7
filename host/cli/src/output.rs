//! Writing results to stdout and notes to stderr, harmless for a terminal. A reader that closes stdout early is no error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Row};
use serde::Serialize;

use super::failure::Failure;
use super::wrap::Wrap;
use super::{called, harmless};

/// Writes a result, with a newline after it.
pub(super) fn line(text: impl Display) -> Result<(), Failure> {
    write_line(&harmless::message(&text.to_string()))
}

/// Writes a text of many lines, with a newline after it: as it is, or harmless on a terminal.
pub(super) fn text(text: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() { write_line(&harmless::lines(text)) } else { write_line(text) }
}

/// Writes a word, in a colour (the number of a terminal's sequence) where there is one, and a text behind it.
pub(super) fn marked(color: Option<&str>, word: &str, text: &str) -> Result<(), Failure> {
    let (word, text) = (harmless::line(word), harmless::message(text));
    match color {
        Some(color) => write_line(&format!("\x1b[{color}m{word}\x1b[0m {text}")),
        None => write_line(&format!("{word} {text}")),
    }
}

/// Writes a result as JSON in one line, on a terminal too.
pub(super) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value)
        .map_err(|error| Failure::Failed(format!("the result can't be written as JSON: {error}")))?;
    write_line(&harmless::json(&text))
}

fn write_line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::of_output)
}

/// Writes a note for the user to stderr. If that fails, the work continues.
pub(super) fn note(text: impl Display) {
    let text = called::named(text.to_string());
    let _ = writeln!(io::stderr().lock(), "{}", harmless::message(&text));
}

/// Writes the program's own text to stderr, line by line as it is.
pub(super) fn help(text: &'static str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks the user something on stderr; the answer is typed behind it.
pub(super) fn question(text: impl Display) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{}", harmless::message(&text.to_string())).and_then(|()| stderr.flush());
}

/// Whether the answer at the terminal to a question is yes.
pub(super) fn says_yes(text: &str) -> bool {
    question(text);
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Whether somebody is at a terminal to answer questions.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Writes a result as JSON: indented on a terminal, in one line otherwise.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = match io::stdout().is_terminal() {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    };
    let text =
        text.map_err(|error| Failure::Failed(format!("the result can't be written as JSON: {error}")))?;
    write_line(&harmless::json(&text))
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
                let text = wrap.push(&harmless::lines(text), columns());
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

/// A table without rules, whose cells are harmless and of one line each.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn add_row(&mut self, row: impl Into<Row>) -> &mut Self {
        let mut safe = Row::new();
        for cell in row.into().cell_iter() {
            let content = cell.content();
            safe.add_cell(match harmless::line(&content) {
                safe if safe == content => cell.clone(),
                safe => Cell::new(safe),
            });
        }
        self.0.add_row(safe);
        self
    }
}

/// A table as wide as the terminal, or as wide as needed when a program reads it.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = comfy_table::Table::new();
    let header: Vec<_> = header.iter().map(|title| harmless::line(title)).collect();
    table.load_style(NOTHING).set_header(header);
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    Table(table)
}

/// A cell with a number.
pub(super) fn number(value: impl Display) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

/// Writes a table.
pub(super) fn print_table(table: &Table) -> Result<(), Failure> {
    write_line(&table.0.trim_fmt())
}

/// Bytes with a decimal unit, as downloads and files are usually counted: 1 MB is 1,000,000 bytes.
pub(super) fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// `count` per second; 0 if nothing was counted or no time passed.
pub(super) fn per_second(count: usize, seconds: f64) -> f64 {
    if count == 0 || seconds <= 0.0 { 0.0 } else { count as f64 / seconds }
}
