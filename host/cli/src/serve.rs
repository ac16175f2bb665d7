//! `host serve`: the model behind OpenAI's HTTP API.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use herald::schedule::{Scheduler, SchedulerOptions};
use herald_server::{ServeOptions, Server, endpoints};

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::output;

/// Serve the model over HTTP, as OpenAI's API does
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
}

fn after_help() -> String {
    let endpoints: String = endpoints()
        .map(|endpoint| format!("  {:<4}  {:<22}{}\n", endpoint.method, endpoint.path, endpoint.about))
        .collect();
    format!(
        "Endpoints:
{endpoints}
Anyone who can reach the address may use it. Ctrl-C ends it after the running answers; a second Ctrl-C ends it at once.

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
        let scheduler = Arc::new(Scheduler::start(engine, scheduling)?);
        let serving = ServeOptions { model, max_body: 8 << 20, grace: Duration::from_secs(self.grace) };
        let wanted = SocketAddr::new(self.address, self.port);
        let failed = |error| Failure::Failed(format!("{wanted} can't be listened on: {error}"));
        let server = Server::bind(wanted, scheduler, serving).map_err(failed)?;
        let address = server.address().map_err(failed)?;
        if !self.address.is_loopback() && !options.quiet {
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
}
