//! The name by which the program was called. It is built as `host`, and installed as `herald`, since other systems' packages have
//! a `host` already; help and hints show the name that the user knows.

use std::path::Path;

use clap::{Arg, Command};

/// The name that help, hints and errors are written with.
const BUILT: &str = "host";

/// The name that an installation has.
const INSTALLED: &str = "herald";

/// The name by which the program was called: one of the two that it knows.
pub(super) fn name() -> &'static str {
    let called = std::env::args_os().next().unwrap_or_default();
    let stem = Path::new(&called).file_stem();
    if stem.is_some_and(|stem| stem == INSTALLED) { INSTALLED } else { BUILT }
}

/// A text of the program's with that name, where it shows how the program is called.
pub(super) fn named(text: String) -> String {
    if name() == BUILT { text } else { renamed(&text, name()) }
}

/// The text with another name in its commands: in backticks, quotes and parentheses, at a line's beginning, and behind a shell's
/// operators. Elsewhere the word is no command.
fn renamed(text: &str, name: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find("host ") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let begins =
            ["`", "'", "(", "\n  ", "| ", "&& "].iter().any(|mark| out.ends_with(mark)) || out.is_empty();
        out.push_str(if begins { name } else { BUILT });
        rest = &from[BUILT.len()..];
    }
    out.push_str(rest);
    out
}

/// The commands with that name in all of their help.
pub(super) fn named_command(command: Command) -> Command {
    if name() == BUILT {
        return command;
    }
    helped(command.name(INSTALLED))
}

fn helped(mut command: Command) -> Command {
    let name = name();
    let text = |text: Option<&clap::builder::StyledStr>| text.map(|text| renamed(&text.to_string(), name));
    if let Some(about) = text(command.get_about()) {
        command = command.about(about);
    }
    if let Some(about) = text(command.get_long_about()) {
        command = command.long_about(about);
    }
    if let Some(after) = text(command.get_after_help()) {
        command = command.after_help(after);
    }
    let argument = |argument: Arg| {
        let (short, long) = (text(argument.get_help()), text(argument.get_long_help()));
        let argument = match short {
            Some(short) => argument.help(short),
            None => argument,
        };
        match long {
            Some(long) => argument.long_help(long),
            None => argument,
        }
    };
    command.mut_args(argument).mut_subcommands(helped)
}

#[cfg(test)]
mod tests {
    use super::renamed;

    #[test]
    fn commands_are_renamed_and_words_are_not() {
        for (text, expected) in [
            ("`host pull` lists them", "`herald pull` lists them"),
            (
                "Examples:\n  host pull x\n  host chat | host ls",
                "Examples:\n  herald pull x\n  herald chat | herald ls",
            ),
            ("cd x && make && host plugin check", "cd x && make && herald plugin check"),
            (
                "the host takes --allow-host NAME, 'host serve' too",
                "the host takes --allow-host NAME, 'herald serve' too",
            ),
            ("ghost `ghost` host", "ghost `ghost` host"),
        ] {
            assert_eq!(renamed(text, "herald"), expected);
        }
    }
}
