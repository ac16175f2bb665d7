//! A server for tests, and clients over plain sockets.

// Each test program uses its own part of this.
#![allow(dead_code)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use herald::NeuroEngine;
use herald::schedule::{Scheduler, SchedulerOptions};
use herald_server::{Access, Limits, Models, ServeOptions, Server};
use herald_testing::options_for;
use serde_json::{Value, json};

/// Long enough for anything that is not stuck.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A server on its own thread, which ends when this is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) stop: Option<tokio::sync::oneshot::Sender<()>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

pub(crate) fn serve(model: &Path, access: Access, limits: Limits, max_body: usize) -> Served {
    serve_with(
        model,
        ServeOptions {
            max_body,
            grace: LONG,
            access,
            limits,
            #[cfg(feature = "tls")]
            tls: None,
            trust_content: false,
            slots: 4,
        },
    )
}

pub(crate) fn serve_with(model: &Path, options: ServeOptions) -> Served {
    let engine = Arc::new(NeuroEngine::load(model, &options_for(model)).expect("the model"));
    let scheduler = Arc::new(Scheduler::start(engine, SchedulerOptions::default()).expect("a scheduler"));
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server =
        Server::bind(any, Models::one("m".to_owned(), Arc::clone(&scheduler)), options).expect("a port");
    let address = server.address().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        server.run(async { drop(stopped.await) }).expect("the server runs");
    });
    Served { address, scheduler, stop: Some(stop), thread: Some(thread) }
}

impl Served {
    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(LONG)).expect("a time limit");
        socket
    }

    pub(crate) fn send(&self, text: &str) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(text.as_bytes()).expect("it is sent");
        socket
    }

    pub(crate) fn get(&self, path: &str, headers: &str) -> (u16, String) {
        answer(
            self.send(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
            )),
        )
    }

    pub(crate) fn open(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        self.send(&format!("{}{body}", head(path, body.len())))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, String) {
        answer(self.open(path, body))
    }

    pub(crate) fn wait_for_load(&self, load: (usize, usize)) {
        let end = Instant::now() + LONG;
        while self.scheduler.load() != load && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(self.scheduler.load(), load);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

pub(crate) fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// The status and the text of an answer; interim ones are passed over.
pub(crate) fn answer(mut socket: TcpStream) -> (u16, String) {
    let mut text = String::new();
    match socket.read_to_string(&mut text) {
        // The server may close a connection whose request it has not read whole.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        read => drop(read.expect("an answer")),
    }
    let mut rest = text.as_str();
    loop {
        let status: u16 = rest.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        if !(100..200).contains(&status) {
            return (status, rest.to_owned());
        }
        rest = rest.split_once("\r\n\r\n").map_or("", |(_, rest)| rest);
    }
}

pub(crate) fn prompt(max_tokens: usize) -> Value {
    json!({"prompt": "hello world", "temperature": 0, "max_tokens": max_tokens})
}

/// A request that takes long: no token ends it.
pub(crate) fn endless(served: &Served) -> Value {
    let tokenizer = served.scheduler.engine().tokenizer();
    let ends = (0..tokenizer.vocabulary() as u32).filter(|token| tokenizer.ends_generation(*token));
    let banned: Value = ends.map(|token| (token.to_string(), json!(-1e9))).collect();
    json!({"prompt": "hello", "temperature": 0, "max_tokens": 2000, "logit_bias": banned})
}
