//! `host backends`: which plugins there are, and which is chosen.

use clap::Args;
use herald::plugin::{Plugins, this_machine};
use serde_json::json;

use super::failure::Failure;
use super::options::EngineOptions;
use super::output;

/// List the plugins that were found, what they offer, and why any was refused
#[derive(Debug, Args)]
pub(super) struct Backends {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Backends {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let search = options.search();
        let machine = this_machine();
        let found = Plugins::discover(&search, &machine);
        let backend = options.load_options().backend;
        let ranked = found.ranked(backend.as_deref(), &search);
        let chosen = ranked
            .as_ref()
            .ok()
            .and_then(|ranked| ranked.first())
            .map(|loaded| loaded.plugin.name().to_owned());
        let reason = match (&chosen, backend.as_deref().filter(|name| *name != "auto")) {
            (None, _) => None,
            (Some(name), Some(_)) => {
                Some(format!("{name} is asked first for each layer, since it was named"))
            }
            (Some(name), None) => Some(format!(
                "{name} is asked first for each layer, since its score on this machine is the highest"
            )),
        };
        if self.json {
            let plugins: Vec<_> = found
                .usable
                .iter()
                .map(|loaded| {
                    let plugin = &loaded.plugin;
                    json!({
                        "name": plugin.name(),
                        "version": plugin.version(),
                        "description": plugin.description(),
                        "variant": loaded.probe.variant,
                        "score": loaded.probe.score,
                        "layers": plugin.layer_kinds().iter().map(|kind| kind.name()).collect::<Vec<_>>(),
                        "tokenizers": plugin.offers_tokenizers(),
                        "tiers": plugin.tier_kinds().iter().map(|kind| kind.name()).collect::<Vec<_>>(),
                        "path": loaded.path,
                        "chosen": Some(plugin.name()) == chosen.as_deref(),
                    })
                })
                .collect();
            let refused: Vec<_> = found
                .refused
                .iter()
                .map(|refused| json!({"path": refused.path, "reason": refused.reason}))
                .collect();
            output::json(&json!({
                "backends": plugins,
                "refused": refused,
                "chosen": chosen,
                "reason": reason,
                "searched": search.folders(),
                "cpus": machine.cpus,
            }))?;
        } else {
            let mut table = output::table(&["NAME", "VERSION", "VARIANT", "SCORE", "OFFERS", "FILE"]);
            for loaded in &found.usable {
                let plugin = &loaded.plugin;
                let mut offers: Vec<String> = Vec::new();
                let layers: Vec<&str> = plugin.layer_kinds().iter().map(|kind| kind.name()).collect();
                if !layers.is_empty() {
                    offers.push(format!("layers ({})", layers.join(", ")));
                }
                if plugin.offers_tokenizers() {
                    offers.push("tokenizers".to_owned());
                }
                let tiers: Vec<&str> = plugin.tier_kinds().iter().map(|kind| kind.name()).collect();
                if !tiers.is_empty() {
                    offers.push(format!("memory tiers ({})", tiers.join(", ")));
                }
                table.add_row(vec![
                    output::printable(plugin.name()).into(),
                    output::printable(plugin.version()).into(),
                    output::printable(&loaded.probe.variant).into(),
                    output::number(loaded.probe.score),
                    offers.join("; ").into(),
                    loaded.path.display().to_string().into(),
                ]);
            }
            if !found.usable.is_empty() {
                output::print_table(&table)?;
            }
            if let Some(reason) = &reason {
                output::line(format!("\n{reason}."))?;
            }
            if !found.refused.is_empty() {
                output::line("\nRefused:")?;
                for refused in &found.refused {
                    output::line(format_args!(
                        "  {}: {}",
                        refused.path.display(),
                        output::printable(&refused.reason)
                    ))?;
                }
            }
        }
        ranked.map(drop).map_err(|error| Failure::Failed(error.to_string()))
    }
}
