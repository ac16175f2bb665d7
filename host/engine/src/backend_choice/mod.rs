//! Which plugin is asked first: for single tokens, and for prompts.
//!
//! Plugins are ordered by their own scores, unless they were measured on this machine ([`crate::calibrate`]) with this model
//! or a similar one: then the measurements decide. All plugins share one page format, so one may compute the prompt and
//! another decode, where the speed is worth keeping the weights twice.

mod fastest;
mod record;
mod store;

use herald_api::LayerKind;
use serde::Serialize;

use crate::options::LoadOptions;
use crate::plugin::{ChooseError, Loaded, Plugins, this_machine};

pub use crate::folders::calibrations as calibrations_folder;
pub use record::{Machine, Measured, PluginId, Record, Shapes, Speeds};
pub use store::{Records, keep, read};

use fastest::fastest;

/// What a choice is based on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The user named the plugin.
    Name,
    /// What the plugins say of themselves.
    Score,
    /// Measurements.
    Calibration,
}

/// Which plugins are asked first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// For the large batches of prompts.
    pub prefill: String,
    /// For small batches, and for everything else.
    pub decode: String,
    /// What it is based on.
    pub by: Reason,
    /// Why, as a sentence without its full stop.
    pub why: String,
}

/// A choice, and what it ignored.
#[derive(Clone, Debug)]
pub struct Picked {
    /// The choice.
    pub choice: Choice,
    /// Files that are no calibrations, a sentence each.
    pub ignored: Vec<String>,
}

impl Choice {
    /// The plugin that the user named.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::one(name, Reason::Name, format!("{name} is asked first for each layer, since it was named"))
    }

    fn one(name: &str, by: Reason, why: String) -> Self {
        Self { prefill: name.to_owned(), decode: name.to_owned(), by, why }
    }

    /// Whether prompts go to another plugin than single tokens.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.prefill != self.decode
    }

    /// Gives up the plugin for prompts, for this reason.
    pub(crate) fn unsplit(&mut self, reason: &str) {
        self.why = format!("{}; but {} computes no prompts, since {reason}", self.why, self.prefill);
        self.prefill.clone_from(&self.decode);
    }
}

/// Picks the plugins for a model (`None`: for any) that is computed with this many threads.
///
/// # Errors
/// Where there is no plugin at all, or none of the name in the options.
pub fn pick_backends(
    plugins: &Plugins,
    options: &LoadOptions,
    threads: usize,
    model: Option<&Shapes>,
) -> Result<Picked, ChooseError> {
    let ranked = plugins.ranked(options.backend.as_deref(), &options.search)?;
    let first = ranked[0].plugin.name();
    if options.backend.as_deref().is_some_and(|name| name != "auto") {
        let why = format!("{first} is asked first for {}, since it was named", asked_for(&ranked, first));
        return Ok(Picked { choice: Choice::one(first, Reason::Name, why), ignored: Vec::new() });
    }
    let Records { records, ignored } = options.calibrations.as_deref().map(read).unwrap_or_default();
    let machine = Machine::of(&this_machine(), threads);
    let choice = by_measurement(&ranked, &records, &machine, model).unwrap_or_else(|note| {
        let what = asked_for(&ranked, first);
        let why = format!(
            "{first} is asked first for {what}, since its score on this machine is the highest{note}"
        );
        Choice::one(first, Reason::Score, why)
    });
    Ok(Picked { choice, ignored })
}

/// What a plugin is asked for: every layer, those of the kinds that it offers, or whatever else it offers.
fn asked_for(ranked: &[Loaded], name: &str) -> String {
    let Some(loaded) = ranked.iter().find(|loaded| loaded.plugin.name() == name) else {
        return String::new();
    };
    let plugin = &loaded.plugin;
    let kinds: Vec<&str> = plugin.layer_kinds().iter().map(|kind| kind.name()).collect();
    match &kinds[..] {
        [] if plugin.offers_tokenizers() && plugin.tier_kinds().is_empty() => "the tokenizer".to_owned(),
        [] if !plugin.offers_tokenizers() => "memory tiers".to_owned(),
        [] => "the tokenizer and memory tiers".to_owned(),
        all if all.len() == LayerKind::ALL.len() => "each layer".to_owned(),
        [one] => format!("{one} layers"),
        [others @ .., last] => format!("{} and {last} layers", others.join(", ")),
    }
}

/// Picks by the measurements in a record, or says why none counts, as the end of a sentence.
fn by_measurement(
    ranked: &[Loaded],
    records: &[Record],
    machine: &Machine,
    model: Option<&Shapes>,
) -> Result<Choice, String> {
    let Some(model) = model else { return Err(String::new()) };
    let of_machine = || records.iter().filter(|record| record.machine == *machine);
    let current = of_machine().filter_map(|record| {
        let speeds = current_speeds(ranked, record)?;
        record.model.distance(model).map(|distance| (distance, record, speeds))
    });
    let Some((_, record, speeds)) = current.min_by(|a, b| a.0.total_cmp(&b.0)) else {
        let stale = of_machine().any(|record| record.model.same(model));
        return Err(if stale {
            "; its calibration is of other plugins than those that are here now, so it doesn't count"
                .to_owned()
        } else {
            String::new()
        });
    };
    let same = record.model.same(model);
    let measured = match same {
        true => format!("measured with {}", record.model.name),
        false => format!("measured with {}, the most similar model that was", record.model.name),
    };
    let Some(fastest) = fastest(&speeds, !model.keeps_states) else { return Err(String::new()) };
    let (prefill, decode) = (&speeds[fastest.prefill], &speeds[fastest.decode]);
    if fastest.prefill == fastest.decode {
        let why = format!(
            "{} is asked first for {}, since it is the fastest here: {:.0} tokens/s of a prompt and {:.0} decoded, \
             {measured}",
            decode.0,
            asked_for(ranked, decode.0),
            decode.1.prefill,
            decode.1.decode
        );
        return Ok(Choice::one(decode.0, Reason::Calibration, why));
    }
    Ok(Choice {
        prefill: prefill.0.to_owned(),
        decode: decode.0.to_owned(),
        by: Reason::Calibration,
        why: format!(
            "{} is asked first for prompts ({:.0} tokens/s) and {} for single tokens ({:.0} tokens/s), {measured}: both \
             keep weights of their own, for which the two are {:.2} times as fast as one alone",
            prefill.0, prefill.1.prefill, decode.0, decode.1.decode, fastest.gain
        ),
    })
}

/// The speeds of all plugins that offer layers, in order, except for those that could not run the model. `None` where the
/// record is of other files than these.
fn current_speeds<'r>(ranked: &'r [Loaded], record: &Record) -> Option<Vec<(&'r str, Speeds)>> {
    let mut speeds = Vec::new();
    for loaded in ranked.iter().filter(|loaded| !loaded.plugin.layer_kinds().is_empty()) {
        let id = PluginId::of(loaded)?;
        let measured = record.backends.iter().find(|measured| measured.plugin == id)?;
        speeds.extend(measured.speeds.map(|speeds| (loaded.plugin.name(), speeds)));
    }
    (!speeds.is_empty()).then_some(speeds)
}
