//! The program's arguments: which command takes which of the shared options.

use std::ffi::OsString;

use clap::builder::{PossibleValue, StyledStr, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches};

use super::{Cli, called, harmless, output};

/// Which model.
const MODEL: &[&str] = &["models", "config"];
/// Which plugins.
const PLUGINS: &[&str] = &["backend", "plugins", "allow_insecure_plugins", "config"];
/// What is set in place of the file's metadata.
const SET: &[&str] = &["set"];
/// Which adapters.
const LORAS: &[&str] = &["loras"];
/// Which chat template.
const TEMPLATE: &[&str] = &["chat_template"];
/// Which plugins may be loaded.
const TRUST: &[&str] = &["allow_insecure_plugins"];
/// How many threads.
const THREADS: &[&str] = &["threads", "config"];
/// How finely is computed.
const PRECISION: &[&str] = &["activations"];
/// How many tokens are drafted.
const DRAFTS: &[&str] = &["max_draft"];
/// Which model drafts.
const DRAFT_MODEL: &[&str] = &["draft"];
/// What sequences take.
const MEMORY: &[&str] = &[
    "context",
    "batch",
    "active_tokens",
    "compressed_tokens",
    "archive",
    "archive_lz4",
    "selected_pages",
    "memory_budget",
    "cache_bytes",
    "cache_dir",
    "cache_dir_bytes",
    "no_pack_cache",
];

/// The shared options that a command uses. `path` is its name, or its group's name and its own.
fn used(path: &str) -> &'static [&'static [&'static str]] {
    match path {
        "completions" | "ls" | "man" | "plugin new" | "pull" | "rm" | "synth" => &[],
        "gguf hash" | "gguf merge" | "gguf set" | "gguf split" => &[],
        "docs clear" | "docs list" | "docs remove" | "docs tidy" | "docs usage" => &[],
        "plugin check" | "plugin worker" => &[TRUST],
        "convert" | "quantize" => &[THREADS],
        "show" => &[MODEL],
        "self-check" => &[PLUGINS, THREADS],
        "tokenize" => &[MODEL, PLUGINS, SET],
        "backends" | "info" => &[MODEL, PLUGINS, THREADS],
        "embed" | "imatrix" | "logits" | "perplexity" | "rerank" => {
            &[MODEL, PLUGINS, THREADS, PRECISION, MEMORY, SET, TEMPLATE, LORAS]
        }
        "chat" | "generate" | "serve" => {
            &[MODEL, PLUGINS, THREADS, PRECISION, DRAFTS, DRAFT_MODEL, MEMORY, SET, TEMPLATE, LORAS]
        }
        _ => &[MODEL, PLUGINS, THREADS, PRECISION, DRAFTS, MEMORY, SET, TEMPLATE, LORAS],
    }
}

/// The program's commands, each with the shared options that it uses. They may also stand before the command's name (in
/// an alias, for example), where those that it doesn't use are ignored.
pub(super) fn command() -> Command {
    let command =
        Cli::command().mut_args(without_empty).mut_subcommands(|command| command.mut_args(without_empty));
    let shared: Vec<Arg> =
        command.get_arguments().filter(|argument| !argument.is_global_set()).cloned().collect();
    let hidden = |argument: Arg| if argument.is_global_set() { argument } else { argument.hide(true) };
    called::named_command(command.mut_args(hidden).mut_subcommands(|command| equipped(command, "", &shared)))
}

/// The argument, for which an empty environment variable counts as unset.
fn without_empty(argument: Arg) -> Arg {
    let name = argument.get_env().map(ToOwned::to_owned);
    match name.filter(|name| std::env::var_os(name).is_some_and(|value| value.is_empty())) {
        Some(_) => argument.env(None::<&'static str>),
        None => argument,
    }
}

/// The command with the shared options that it and its subcommands use.
fn equipped(command: Command, group: &str, shared: &[Arg]) -> Command {
    let path = [group, command.get_name()].join(" ");
    let path = path.trim_start();
    let command = command.mut_subcommands(|command| equipped(command, path, shared));
    let used = used(path);
    if command.is_subcommand_required_set() {
        // Options between a group's name and its command's.
        return command.args(shared.iter().map(|argument| argument.clone().hide(true)));
    }
    let uses = |argument: &&Arg| used.iter().any(|group| group.contains(&argument.get_id().as_str()));
    // What is global here gets the values that stand before the command, too.
    command.args(shared.iter().filter(uses).map(|argument| argument.clone().global(true)))
}

/// Parses the arguments; if they are wrong, or ask for help, prints that and ends the program.
pub(super) fn parse() -> Cli {
    let mut command = command();
    let parsed = command
        .try_get_matches_from_mut(std::env::args_os())
        .and_then(|matches| Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
    parsed.unwrap_or_else(|error| end(&hinted(error)))
}

/// Prints help, or what is wrong with the arguments, and ends the program. A file's name may be among the arguments, and may
/// command a terminal.
fn end(error: &clap::Error) -> ! {
    let harmful = std::env::args_os().any(|argument| {
        let argument = argument.to_string_lossy();
        harmless::line(&argument) != argument
    });
    if harmful {
        output::note(error.render());
    } else {
        // If it can't be written, there is nobody to tell.
        let _ = error.print();
    }
    std::process::exit(error.exit_code())
}

/// The error, with a hint if a command doesn't use one of the shared options, or was given a model without one.
fn hinted(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return error };
    let given = given.clone();
    let tip = |error: &mut clap::Error, tip: String| {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![StyledStr::from(tip)]));
    };
    if !given.starts_with('-') {
        if given.ends_with(".gguf") {
            tip(&mut error, format!("an option names the model: '--model {given}'"));
        }
        return error;
    }
    let long = given.strip_prefix("--");
    let short = given.strip_prefix('-').and_then(|name| name.chars().next());
    let is =
        |argument: &Arg| argument.get_long() == long || (long.is_none() && argument.get_short() == short);
    if error.kind() == ErrorKind::UnknownArgument
        && Cli::command().get_arguments().any(|argument| argument.get_long().is_some() && is(argument))
    {
        let hint =
            format!("this command doesn't use '{given}', which is for commands such as 'host generate'");
        tip(&mut error, called::named(hint));
    }
    error
}

/// A value's parser with values that help and completions list, whether or not it takes others too.
#[derive(Clone)]
pub(super) struct Listed<P> {
    parser: P,
    values: fn() -> Vec<PossibleValue>,
}

impl<P> Listed<P> {
    pub(super) fn new(parser: P, values: fn() -> Vec<PossibleValue>) -> Self {
        Self { parser, values }
    }
}

impl<P: TypedValueParser> TypedValueParser for Listed<P> {
    type Value = P::Value;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<Self::Value, clap::Error> {
        self.parser.parse_ref(command, argument, value)
    }

    fn parse(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: OsString,
    ) -> Result<Self::Value, clap::Error> {
        self.parser.parse(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.values)().into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::{Cli, command};

    fn parsed(arguments: &[&str]) -> Result<Cli, clap::Error> {
        let mut command = command();
        let arguments = ["host"].into_iter().chain(arguments.iter().copied());
        let matches = command.try_get_matches_from_mut(arguments)?;
        Cli::from_arg_matches(&matches)
    }

    #[test]
    fn the_arguments_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn shared_options_stand_before_or_after_the_command() {
        for arguments in [
            &["--threads", "3", "generate", "x"][..],
            &["generate", "x", "--threads", "3"],
            &["--threads", "2", "generate", "x", "--threads", "3"],
            &["bench", "speed", "--threads", "3"],
            &["--threads", "3", "bench", "speed"],
            &["--threads", "3", "bench", "memory"],
            &["serve", "--draft", "x", "--threads", "3"],
            &["docs", "add", "-", "--threads", "3"],
            &["docs", "--threads", "3", "add", "-"],
            &["--threads", "3", "docs", "list"],
        ] {
            let cli = parsed(arguments).unwrap_or_else(|error| panic!("{arguments:?}: {error}"));
            assert_eq!(cli.options.threads.map(|threads| threads.get()), Some(3), "{arguments:?}");
        }
    }

    #[test]
    fn an_option_that_a_command_does_not_use_is_refused() {
        for arguments in [
            &["synth", "--threads", "3"][..],
            &["pull", "-m", "x"],
            &["docs", "list", "--model=x"],
            &["embed", "x", "--draft", "y"],
            &["quantize", "a", "b", "--type", "q8_0", "--context", "5"],
        ] {
            let error = super::hinted(parsed(arguments).expect_err("it is not used")).to_string();
            assert!(error.contains("unexpected argument") && error.contains("doesn't use"), "{error}");
        }
        let error = super::hinted(parsed(&["synth", "--nonsense"]).expect_err("it is unknown")).to_string();
        assert!(!error.contains("doesn't use"), "{error}");
    }

    #[test]
    fn a_model_that_no_option_names_gets_a_tip() {
        let tip =
            |arguments: &[&str]| super::hinted(parsed(arguments).expect_err("it is too much")).to_string();
        let error = tip(&["chat", "some/model.gguf"]);
        assert!(error.contains("--model some/model.gguf") && !error.contains("doesn't use"), "{error}");
        let error = tip(&["chat", "hello"]);
        assert!(error.contains("unexpected argument") && !error.contains("tip"), "{error}");
    }

    /// Help shows what a command uses, and nothing else of the shared options.
    #[test]
    fn help_is_short() {
        fn leaves(command: &Command, path: &str, found: &mut Vec<(String, String)>) {
            if command.get_name() == "help" {
                return;
            }
            let path = format!("{path} {}", command.get_name());
            if !command.is_subcommand_required_set() {
                found.push((path.clone(), command.clone().render_long_help().to_string()));
            }
            for command in command.get_subcommands() {
                leaves(command, &path, found);
            }
        }
        let mut command = command();
        command.build();
        let mut found = Vec::new();
        for command in command.get_subcommands() {
            leaves(command, "", &mut found);
        }
        assert!(found.len() > 20, "{}", found.len());
        for (path, help) in &found {
            let uses =
                |option: &str| super::used(path.trim_start()).iter().any(|group| group.contains(&option));
            assert_eq!(help.contains("--active-tokens"), uses("active_tokens"), "{path}: {help}");
            assert_eq!(help.contains("--model <"), uses("models"), "{path}: {help}");
            assert!(help.contains("--quiet"), "{path}: {help}");
        }
        let top = command.render_long_help().to_string();
        assert!(!top.contains("--active-tokens") && top.contains("generate"), "{top}");
    }
}
