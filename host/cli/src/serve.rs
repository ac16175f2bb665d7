//! `host serve`: the model behind an HTTP server that speaks the APIs of OpenAI, Anthropic, Ollama and llama.cpp.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use herald::gguf::Gguf;
use herald::plugin::this_machine;
use herald::schedule::{Scheduler, SchedulerOptions};
use herald::{LoadOptions, NeuroEngine, files};
#[cfg(feature = "tls")]
use herald_server::Tls;
use herald_server::{
    Access, Keep, Keys, Limits, ModelSource, Models, Origin, ServeOptions, Server, endpoints,
    models_of_folder,
};
use serde::Deserialize;

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::{self, EngineOptions};
use super::{output, system};

/// Serve the model over HTTP, as OpenAI's, Anthropic's, Ollama's and llama.cpp's APIs do
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(super) struct Serve {
    /// The address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS", env = "HERALD_ADDRESS")]
    address: Option<IpAddr>,
    /// The port to listen on; 0: any free one [default: 8080]
    #[arg(short, long, value_name = "PORT", env = "HERALD_PORT")]
    port: Option<u16>,
    /// Maximum number of requests that run at once [default: 32]
    #[arg(long, value_name = "N", env = "HERALD_PARALLEL")]
    parallel: Option<NonZeroU16>,
    /// Maximum number of requests that wait; more are refused with status 429 [default: 256]
    #[arg(long, value_name = "N", env = "HERALD_QUEUE")]
    queue: Option<usize>,
    /// Seconds that running answers may continue after Ctrl-C [default: 30]
    #[arg(long, value_name = "SECONDS", env = "HERALD_GRACE")]
    grace: Option<u64>,
    /// Answer only requests with this key (Authorization: Bearer KEY); may be given several times
    #[arg(long = "api-key", value_name = "KEY", env = "HERALD_API_KEY", hide_env_values = true)]
    keys: Vec<String>,
    /// The same with the keys of this file, one a line
    #[arg(long, value_name = "FILE", env = "HERALD_API_KEY_FILE")]
    api_key_file: Option<PathBuf>,
    /// Answer to this name in a request's Host too; may be given several times
    #[arg(long = "allow-host", value_name = "NAME", env = "HERALD_ALLOW_HOST")]
    hosts: Vec<String>,
    /// Let web pages of this origin (`https://example.com`, or `*` for all) use the server; may be given several times
    #[arg(long = "cors", value_name = "ORIGIN", env = "HERALD_CORS")]
    origins: Vec<Origin>,
    /// Maximum number of connections [default: 1024]
    #[arg(long, value_name = "N", env = "HERALD_CONNECTIONS")]
    connections: Option<NonZeroU32>,
    /// Serve over TLS with the certificate in this file (PEM), in which those between it and its root follow
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "HERALD_TLS_CERT")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "HERALD_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Take special tokens that messages spell for what they are: the texts of clients can then end turns and begin others
    #[arg(long, env = "HERALD_TRUST_CONTENT")]
    trust_content: bool,
    /// Of several models, keep so many bytes of files loaded, such as 12GiB; one alone may have more [default: three quarters of
    /// this machine's RAM]
    #[arg(long, value_name = "BYTES", value_parser = options::bytes, env = "HERALD_MODELS_MEMORY")]
    models_memory: Option<u64>,
    /// Of several models, unload one that nobody has asked for in so many seconds [default: only where another needs its memory]
    #[arg(long, value_name = "SECONDS", env = "HERALD_UNLOAD_AFTER")]
    unload_after: Option<NonZeroU64>,
}

/// The configuration's table `serve`: each key an option of the same name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ServeConfig {
    address: Option<IpAddr>,
    port: Option<u16>,
    parallel: Option<NonZeroU16>,
    queue: Option<usize>,
    grace: Option<u64>,
    api_key_file: Option<PathBuf>,
    #[serde(default)]
    allow_host: Vec<String>,
    #[serde(default)]
    cors: Vec<String>,
    connections: Option<NonZeroU32>,
    #[cfg(feature = "tls")]
    tls_cert: Option<PathBuf>,
    #[cfg(feature = "tls")]
    tls_key: Option<PathBuf>,
    trust_content: Option<bool>,
    models_memory: Option<String>,
    unload_after: Option<NonZeroU64>,
}

fn after_help() -> String {
    let endpoints: String = endpoints()
        .map(|endpoint| format!("  {:<4}  {:<27}{}\n", endpoint.method, endpoint.path, endpoint.about))
        .collect();
    format!(
        "Endpoints:
{endpoints}
In a browser, the address is a page to chat with the model.

Without --api-key, anyone who can reach the address may use it. Ctrl-C ends it after the running answers; a second Ctrl-C ends it at once.
Where systemd hands over a socket (LISTEN_FDS), that is listened on, and --address and --port have no effect.

Examples:
  host serve
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"What is gravity?\"}}], \"stream\": true}}'"
    )
}

impl Serve {
    /// These options, with the configuration's values for those that were not given.
    fn configured(self, config: ServeConfig) -> Result<Self, Failure> {
        let wrong = |key: &str, what: String| {
            Failure::Failed(format!("the configuration is wrong: serve: {key}: {what}"))
        };
        let or = |given: Vec<String>, others: Vec<String>| if given.is_empty() { others } else { given };
        let origins = match self.origins.is_empty() {
            true => config.cors.iter().map(|text| text.parse()).collect::<Result<_, _>>(),
            false => Ok(self.origins),
        };
        let memory = config.models_memory.map(|text| options::bytes(&text)).transpose();
        Ok(Self {
            address: self.address.or(config.address),
            port: self.port.or(config.port),
            parallel: self.parallel.or(config.parallel),
            queue: self.queue.or(config.queue),
            grace: self.grace.or(config.grace),
            keys: self.keys,
            api_key_file: self.api_key_file.or(config.api_key_file),
            hosts: or(self.hosts, config.allow_host),
            origins: origins.map_err(|what| wrong("cors", what))?,
            connections: self.connections.or(config.connections),
            #[cfg(feature = "tls")]
            tls_cert: self.tls_cert.or(config.tls_cert),
            #[cfg(feature = "tls")]
            tls_key: self.tls_key.or(config.tls_key),
            trust_content: self.trust_content || config.trust_content.unwrap_or(false),
            models_memory: self.models_memory.or(memory.map_err(|what| wrong("models-memory", what))?),
            unload_after: self.unload_after.or(config.unload_after),
        })
    }

    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let this = self.configured(options.serve.clone())?;
        let scheduling = SchedulerOptions {
            max_running: usize::from(this.parallel.map_or(32, NonZeroU16::get)).min(options.max_batch()),
            queue: this.queue.unwrap_or(256),
            ..SchedulerOptions::default()
        };
        let limits = Limits {
            connections: this.connections.map_or(1024, NonZeroU32::get) as usize,
            requests: scheduling.max_running + scheduling.queue,
            ..Limits::default()
        };
        let slots = scheduling.max_running;
        let access = this.access()?;
        let inherited = system::inherited_socket().map_err(Failure::Failed)?;
        let has_keys = !access.keys.is_empty();
        #[cfg(feature = "tls")]
        let tls = this.tls()?;
        #[cfg(feature = "tls")]
        let scheme = if tls.is_some() { "https" } else { "http" };
        #[cfg(not(feature = "tls"))]
        let scheme = "http";
        let models = this.models(options, &scheduling)?;
        let grace = Duration::from_secs(this.grace.unwrap_or(30));
        let serving = ServeOptions {
            max_body: 8 << 20,
            grace,
            access,
            limits,
            #[cfg(feature = "tls")]
            tls,
            trust_content: this.trust_content,
            slots,
        };
        let address = this.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let wanted = SocketAddr::new(address, this.port.unwrap_or(8080));
        let failed = |error| Failure::Failed(format!("{wanted} can't be listened on: {error}"));
        let server = match inherited {
            Some(listener) => Server::on(listener, models, serving),
            None => Server::bind(wanted, models, serving),
        };
        let server = server.map_err(failed)?;
        let address = server.address().map_err(failed)?;
        if !address.ip().is_loopback() && !has_keys && !options.quiet {
            output::note("note: anyone who can reach this address may use the model");
        }
        output::line(format!("{scheme}://{address}"))?;
        let lookout = Lookout::begin();
        let stop = async move {
            while lookout.go_on() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Keep watching until the server ends, so that a second interruption ends the program at once.
            std::mem::forget(lookout);
        };
        server.run(stop).map_err(failed)
    }

    /// The models to serve: one, loaded, or several that are loaded when they are asked for.
    fn models(&self, options: &EngineOptions, scheduling: &SchedulerOptions) -> Result<Models, Failure> {
        let mut named: Vec<(String, PathBuf, EngineOptions)> = Vec::new();
        for (name, options) in &options.each {
            match Path::new(name).is_dir() {
                true => named.extend(of_folder(Path::new(name), options)?),
                false => {
                    let path = options.model_path()?;
                    named.push((name_of(name, &path), path, options.clone()));
                }
            }
        }
        if named.is_empty() {
            let path = options.model_path()?;
            named.push((stem(&path), path, options.clone()));
        }
        if let [(name, path, options)] = named.as_slice() {
            let scheduler = start(path, &options.load_options_with_draft()?, scheduling)?;
            return Ok(Models::one(name.clone(), Arc::new(scheduler)));
        }
        for (index, (name, path, _)) in named.iter().enumerate() {
            if let Some((_, other, _)) = named[..index].iter().find(|(known, _, _)| known == name) {
                return Err(Failure::Failed(format!(
                    "two models are called {name:?}, where each was expected to have a name of its own: {} and {}",
                    other.display(),
                    path.display()
                )));
            }
        }
        let sources = named.into_iter().map(|(name, path, options)| {
            let (scheduling, file) = (scheduling.clone(), path.clone());
            let load = options.load_options_with_draft()?;
            Ok(ModelSource::new(name, &path, Box::new(move || start(&file, &load, &scheduling)))?)
        });
        let sources = sources.collect::<Result<Vec<ModelSource>, Failure>>()?;
        let keep = Keep {
            bytes: self.models_memory.unwrap_or_else(usual_memory),
            idle: self.unload_after.map(|seconds| Duration::from_secs(seconds.get())),
        };
        Models::several(sources, keep).map_err(Failure::Failed)
    }

    /// The certificate and its key.
    #[cfg(feature = "tls")]
    fn tls(&self) -> Result<Option<Tls>, Failure> {
        let (cert, key) = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return Ok(None),
            _ => {
                let what = "tls-cert and tls-key: one is given, where both were expected";
                return Err(Failure::Failed(what.to_owned()));
            }
        };
        let read = |path: &Path, what: &str| {
            fs::read(path).map_err(|error| Failure::file(path, &format!("the {what} can't be read"), &error))
        };
        let tls = Tls::from_pem(&read(cert, "certificate")?, &read(key, "key")?);
        let wrong = |what| Failure::Failed(format!("{} and {}: {what}", cert.display(), key.display()));
        tls.map(Some).map_err(wrong)
    }

    fn access(&self) -> Result<Access, Failure> {
        let mut keys = Keys::default();
        // An empty environment variable counts as unset.
        for key in self.keys.iter().filter(|key| !key.is_empty()) {
            keys.add(key).map_err(Failure::Failed)?;
        }
        if let Some(path) = &self.api_key_file {
            let text = fs::read_to_string(path)
                .map_err(|error| Failure::file(path, "the keys can't be read", &error))?;
            let wrong = |what| Failure::Failed(format!("{}: the keys are wrong: {what}", path.display()));
            keys.add_lines(files::without_bom(&text)).map_err(wrong)?;
        }
        Ok(Access { keys, hosts: self.hosts.clone(), origins: self.origins.clone() })
    }
}

/// Three quarters of this machine's RAM, where the system says how much that is.
fn usual_memory() -> u64 {
    match this_machine().memory_bytes {
        0 => u64::MAX,
        bytes => bytes / 4 * 3,
    }
}

/// Loads a model for the server. No more requests run at once than its own batch has tokens.
fn start(path: &Path, load: &LoadOptions, scheduling: &SchedulerOptions) -> herald::Result<Scheduler> {
    let max_running = scheduling.max_running.min(load.max_batch);
    let scheduling = SchedulerOptions { max_running, ..scheduling.clone() };
    Scheduler::start(Arc::new(NeuroEngine::load(path, load)?), scheduling)
}

/// The models of a folder, each called as its file.
fn of_folder(
    folder: &Path,
    options: &EngineOptions,
) -> Result<Vec<(String, PathBuf, EngineOptions)>, Failure> {
    let failed = |error| Failure::file(folder, "the folder can't be read", &error);
    let paths = models_of_folder(folder).map_err(failed)?;
    if paths.is_empty() {
        let what =
            format!("{}: the folder has no GGUF file, where at least one was expected", folder.display());
        return Err(Failure::Failed(what));
    }
    // What was half downloaded keeps nobody from using the others.
    let mut whole = Vec::new();
    let mut first_damage = None;
    for path in paths {
        match Gguf::open(&path).map_err(herald::Error::from) {
            Ok(_) => whole.push(path),
            Err(error) => {
                output::note(format_args!("warning: {error}; it is left out"));
                first_damage.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first_damage.filter(|_| whole.is_empty()) {
        return Err(error.into());
    }
    let named = |path: PathBuf| {
        let options = EngineOptions { models: vec![path.clone().into()], ..options.clone() };
        (stem(&path), path, options)
    };
    Ok(whole.into_iter().map(named).collect())
}

/// What a model is called: as it was named, or as its file, however that file's path was written.
fn name_of(given: &OsStr, path: &Path) -> String {
    if Path::new(given).exists() { stem(path) } else { given.to_string_lossy().into_owned() }
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
