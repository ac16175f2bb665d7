//! `host serve`: the model behind an HTTP server that speaks the APIs of OpenAI, Anthropic, Ollama and llama.cpp.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use herald::files;
use herald::schedule::{Scheduler, SchedulerOptions};
use herald_server::{Access, Keys, Limits, Origin, ServeOptions, Server, endpoints};

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::output;

/// Serve the model over HTTP, as OpenAI's, Anthropic's, Ollama's and llama.cpp's APIs do
#[derive(Debug, Args)]
#[command(after_help = after_help())]
pub(super) struct Serve {
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The port to listen on; 0: any free one
    #[arg(short, long, value_name = "PORT", default_value_t = 8080)]
    port: u16,
    /// Maximum number of requests that run at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Maximum number of requests that wait; more are refused with status 429
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// Seconds that running answers may continue after Ctrl-C
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// Answer only requests with this key (Authorization: Bearer KEY); may be given several times
    #[arg(long = "api-key", value_name = "KEY", env = "HERALD_API_KEY", hide_env_values = true)]
    keys: Vec<String>,
    /// The same with the keys of this file, one a line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Answer to this name in a request's Host too; may be given several times
    #[arg(long = "allow-host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Let web pages of this origin (`https://example.com`, or `*` for all) use the server; may be given several times
    #[arg(long = "cors", value_name = "ORIGIN")]
    origins: Vec<Origin>,
    /// Maximum number of connections
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// Take special tokens that messages spell for what they are: the texts of clients can then end turns and begin others
    #[arg(long)]
    trust_content: bool,
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

Examples:
  host serve
  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
      -d '{{\"messages\": [{{\"role\": \"user\", \"content\": \"What is gravity?\"}}], \"stream\": true}}'"
    )
}

impl Serve {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let engine = Arc::new(options.load()?);
        // The name that was pulled, or else the file's, however its path was written.
        let pulled = options.model.as_deref().filter(|name| !name.is_empty() && !Path::new(name).exists());
        let name = pulled.map(|name| name.to_string_lossy().into_owned());
        let stem = engine.path().file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let model = name.or(stem).unwrap_or_default();
        let scheduling = SchedulerOptions {
            max_running: usize::from(self.parallel).min(engine.max_batch()),
            queue: self.queue,
            ..SchedulerOptions::default()
        };
        let limits = Limits {
            connections: self.connections as usize,
            requests: scheduling.max_running + self.queue,
            ..Limits::default()
        };
        let slots = scheduling.max_running;
        let access = self.access()?;
        let is_open = !self.address.is_loopback() && access.keys.is_empty();
        let scheduler = Arc::new(Scheduler::start(engine, scheduling)?);
        let grace = Duration::from_secs(self.grace);
        let serving = ServeOptions {
            model,
            max_body: 8 << 20,
            grace,
            access,
            limits,
            trust_content: self.trust_content,
            slots,
        };
        let wanted = SocketAddr::new(self.address, self.port);
        let failed = |error| Failure::Failed(format!("{wanted} can't be listened on: {error}"));
        let server = Server::bind(wanted, scheduler, serving).map_err(failed)?;
        let address = server.address().map_err(failed)?;
        if is_open && !options.quiet {
            output::note("note: anyone who can reach this address may use the model");
        }
        output::line(format!("http://{address}"))?;
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
