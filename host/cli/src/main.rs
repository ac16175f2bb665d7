//! The program `host`: HERALD's engine from a terminal. One file for each command, and the code that they share.
//!
//! Results go to stdout and everything else to stderr, so that a script can read the results and a person the rest. The
//! exit code is 0, 1 (it failed or was interrupted) or 2 (wrong usage).

mod arguments;
mod backends;
mod bench;
mod cache;
mod called;
mod chat;
mod completions;
mod config;
mod convert;
mod docs;
mod dtypes;
mod embed;
mod facts;
mod failure;
mod generate;
mod gguf;
mod harmless;
mod ids;
mod imatrix;
mod info;
mod input;
mod interrupt;
mod limited;
mod log;
mod logits;
mod ls;
mod man;
mod options;
mod output;
mod perplexity;
mod plugin;
mod progress;
mod pull;
mod quantize;
mod rerank;
mod rm;
mod sampling;
mod self_check;
mod serve;
mod session;
mod show;
mod store;
mod synth;
mod system;
mod tokenize;
mod tokens;
mod wrap;
mod written;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use herald::plugin::{PROBE_COMMAND, probe_and_exit};

use failure::Failure;
use options::EngineOptions;

/// Language models on ordinary CPUs, computed by plugins.
#[derive(Debug, Parser)]
#[command(
    name = "host",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Examples:
  host pull smollm2-135m-instruct                  get a small model to begin with
  host pull unsloth/Qwen3-0.6B-GGUF:Q8_0           get any GGUF model of Hugging Face's hub
  host chat                                        talk to it
  host generate --chat 'What is a mutex?'          one answer
  host generate --model m.gguf 'Once upon a time'  continue a text with another model
  host backends                                    which plugins run here, and why
  host self-check                                  whether this installation works
  host bench                                       how fast and how good it is on this machine

`host COMMAND --help` lists a command's options. Those that say what runs where, such as --model
and --backend, may also stand before the command."
)]
struct Cli {
    #[command(flatten)]
    options: EngineOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::Generate),
    Chat(chat::Chat),
    Info(info::Info),
    Tokenize(tokenize::Tokenize),
    Embed(embed::Embed),
    Rerank(rerank::Rerank),
    Logits(logits::Logits),
    Perplexity(perplexity::Perplexity),
    Serve(serve::Serve),
    Backends(backends::Backends),
    SelfCheck(self_check::SelfCheck),
    #[command(subcommand)]
    Plugin(plugin::Plugin),
    Pull(pull::Pull),
    Convert(convert::Convert),
    Ls(ls::Ls),
    Show(show::Show),
    Rm(rm::Rm),
    Quantize(quantize::Quantize),
    Imatrix(imatrix::Imatrix),
    #[command(subcommand)]
    Gguf(gguf::Gguf),
    Synth(synth::Synth),
    #[command(subcommand)]
    Docs(docs::Docs),
    #[command(subcommand)]
    Cache(cache::Cache),
    Bench(bench::Bench),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(man::Man),
}

impl Command {
    fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        match self {
            Self::Generate(command) => command.run(options),
            Self::Chat(command) => command.run(options),
            Self::Info(command) => command.run(options),
            Self::Tokenize(command) => command.run(options),
            Self::Embed(command) => command.run(options),
            Self::Rerank(command) => command.run(options),
            Self::Logits(command) => command.run(options),
            Self::Perplexity(command) => command.run(options),
            Self::Serve(command) => command.run(options),
            Self::Backends(command) => command.run(options),
            Self::SelfCheck(command) => command.run(options),
            Self::Plugin(command) => command.run(options),
            Self::Pull(command) => command.run(options),
            Self::Convert(command) => command.run(options),
            Self::Ls(command) => command.run(),
            Self::Show(command) => command.run(options),
            Self::Rm(command) => command.run(options),
            Self::Quantize(command) => command.run(options),
            Self::Imatrix(command) => command.run(options),
            Self::Gguf(command) => command.run(options),
            Self::Synth(command) => command.run(options),
            Self::Docs(command) => command.run(options),
            Self::Cache(command) => command.run(options),
            Self::Bench(command) => command.run(options),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
        }
    }

    /// Whether it runs several models.
    fn takes_models(&self) -> bool {
        matches!(self, Self::Serve(_))
    }

    /// Whether the command itself reports refused plugins, so that warnings would repeat it.
    fn reports_plugins(&self) -> bool {
        matches!(self, Self::Backends(_) | Self::SelfCheck(_))
            || matches!(self, Self::Plugin(plugin) if plugin.reports_plugins())
            || matches!(self, Self::Bench(bench) if bench.reports_plugins())
    }
}

/// Runs the program.
fn main() -> ExitCode {
    system::prepare();
    try_plugin();
    limited::prepare();
    let Cli { options, command } = arguments::parse();
    log::start(&options, command.reports_plugins());
    let options = match options.configured() {
        Ok(options) => options,
        Err(failure) => return report(&failure),
    };
    if options.models.len() > 1 && !command.takes_models() {
        let several = format!("--model is given {} times, where one was expected", options.models.len());
        return report(&Failure::Usage(several));
    }
    let checked = if command.reports_plugins() { Ok(()) } else { options.check_plugins() };
    match checked.and_then(|()| command.run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

/// Where this process was started to try a plugin, does that, and ends. The command is hidden: no option and no
/// configuration must be able to spoil it.
fn try_plugin() {
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(command), Some(file), None) = (arguments.next(), arguments.next(), arguments.next())
        && command == PROBE_COMMAND
    {
        probe_and_exit(Path::new(&file));
    }
}

/// Prints why a command failed, and returns the program's exit code.
fn report(failure: &Failure) -> ExitCode {
    if let Failure::Failed(sentence) | Failure::Usage(sentence) = failure {
        output::note(format_args!("error: {sentence}"));
    }
    failure.exit_code()
}
