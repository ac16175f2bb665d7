//! `host completions`: completion scripts for shells.

use std::io::{self, Write};

use clap::Args;
use clap_complete::Shell;

use super::failure::Failure;
use super::{arguments, called, store};

/// Print the completions for a shell
#[derive(Debug, Args)]
#[command(after_help = examples())]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

fn examples() -> String {
    let name = called::name();
    format!(
        "Examples:
  {name} completions bash > ~/.local/share/bash-completion/completions/{name}
  {name} completions zsh > ~/.zfunc/_{name}
  {name} completions fish > ~/.config/fish/completions/{name}.fish"
    )
}

impl Completions {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut arguments::command(), called::name(), &mut script);
        let script = with_files(self.shell, &String::from_utf8_lossy(&script));
        let mut out = io::stdout().lock();
        out.write_all(script.as_bytes()).and_then(|()| out.flush()).map_err(Failure::of_output)
    }
}

/// The script with files beside the names of models, where an option takes either. The generator knows only one or the other.
fn with_files(shell: Shell, script: &str) -> String {
    let names: Vec<String> = store::values().iter().map(|value| value.get_name().to_owned()).collect();
    let all = names.join(" ");
    match shell {
        Shell::Bash => script.replace(&format!("compgen -W \"{all}\""), &format!("compgen -f -W \"{all}\"")),
        Shell::Zsh => script.replace(
            &format!("PATH|NAME:({all})"),
            &format!("PATH|NAME:{{_alternative \"models:model:({all})\" \"files:file:_files\"}}"),
        ),
        Shell::Fish => {
            let first = store::KNOWN[0].name;
            script.replace(&format!(" -r -f -a \"{first}\\t"), &format!(" -r -F -a \"{first}\\t"))
        }
        _ => script.to_owned(),
    }
}
