//! Clients that mean the server harm, and what becomes of the others.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use herald::NeuroEngine;
use herald::schedule::{Request, Scheduler, SchedulerOptions};
use herald_server::{Access, Keys, Limits, ServeOptions, Server};
use herald_testing::{cpu_options, smollm2, tiny};
use serde_json::{Value, json};

/// Long enough for anything that is not stuck.
const LONG: Duration = Duration::from_secs(60);

struct Served {
    address: SocketAddr,
    scheduler: Arc<Scheduler>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

fn serve(model: &Path, access: Access, limits: Limits, max_body: usize) -> Served {
    let engine = Arc::new(NeuroEngine::load(model, &cpu_options()).expect("the model"));
    let scheduler = Arc::new(Scheduler::start(engine, SchedulerOptions::default()).expect("a scheduler"));
    let (model, trust_content, slots) = ("m".to_owned(), false, 4);
    let options = ServeOptions { model, max_body, grace: LONG, access, limits, trust_content, slots };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::bind(any, Arc::clone(&scheduler), options).expect("a port");
    let address = server.address().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        server.run(async { drop(stopped.await) }).expect("the server runs");
    });
    Served { address, scheduler, stop: Some(stop), thread: Some(thread) }
}

fn plain(limits: Limits) -> Served {
    serve(&tiny("llama"), Access::default(), limits, 10_000)
}

impl Served {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(LONG)).expect("a time limit");
        socket
    }

    fn send(&self, text: &str) -> TcpStream {
        let mut socket = self.connect();
        socket.write_all(text.as_bytes()).expect("it is sent");
        socket
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        answer(
            self.send(&format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
            )),
        )
    }

    fn open(&self, path: &str, body: &Value) -> TcpStream {
        let body = body.to_string();
        self.send(&format!("{}{body}", head(path, body.len())))
    }

    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        answer(self.open(path, body))
    }

    fn wait_for_load(&self, load: (usize, usize)) {
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

fn head(path: &str, length: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

/// The status and the text of an answer; interim ones are passed over.
fn answer(mut socket: TcpStream) -> (u16, String) {
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

fn prompt(max_tokens: usize) -> Value {
    json!({"prompt": "hello world", "temperature": 0, "max_tokens": max_tokens})
}

/// A request that takes long: no token ends it.
fn endless(served: &Served) -> Value {
    let tokenizer = served.scheduler.engine().tokenizer();
    let ends = (0..tokenizer.vocabulary() as u32).filter(|token| tokenizer.ends_generation(*token));
    let banned: Value = ends.map(|token| (token.to_string(), json!(-1e9))).collect();
    json!({"prompt": "hello", "temperature": 0, "max_tokens": 2000, "logit_bias": banned})
}

#[test]
fn silent_connections_make_room_for_new_ones() {
    let served = plain(Limits { connections: 8, ..Limits::default() });
    let silent: Vec<TcpStream> = (0..40).map(|_| served.connect()).collect();
    for _ in 0..3 {
        assert_eq!(served.get("/health", "").0, 200);
        assert_eq!(served.post("/v1/completions", &prompt(2)).0, 200);
    }
    drop(silent);
}

#[test]
fn connections_beyond_those_at_work_are_status_503() {
    let served =
        serve(&smollm2(), Access::default(), Limits { connections: 2, ..Limits::default() }, 100_000);
    let body = endless(&served);
    let busy: Vec<TcpStream> = (0..2).map(|_| served.open("/v1/completions", &body)).collect();
    served.wait_for_load((0, 2));
    let (status, text) = served.get("/health", "");
    assert_eq!(status, 503, "{text}");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    assert!(serde_json::from_str::<Value>(body).is_ok(), "{body}");
    drop(busy);
    served.wait_for_load((0, 0));
    assert_eq!(served.get("/health", "").0, 200);
}

#[test]
fn heads_and_bodies_that_never_end_are_given_up_on() {
    let soon = Duration::from_millis(300);
    let served = plain(Limits { idle: soon, body: soon, ..Limits::default() });
    for begun in ["", "POST /v1/comp", "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"] {
        let mut rest = Vec::new();
        served.send(begun).read_to_end(&mut rest).expect("it is closed");
    }
    let mut socket = served.send(&head("/v1/completions", 100));
    socket.write_all(b"{\"prompt\"").expect("a part is sent");
    let (status, said) = answer(socket);
    assert_eq!(status, 408, "{said}");
    assert_eq!(served.post("/v1/completions", &prompt(2)).0, 200);
}

#[test]
fn bodies_share_a_bounded_memory() {
    let served = plain(Limits { bodies: 16 << 10, ..Limits::default() });
    let part = format!("{{\"prompt\": \"{}", "a".repeat(9_000));
    let mut halves: Vec<TcpStream> = (0..2).map(|_| served.send(&head("/v1/completions", 9_999))).collect();
    halves[0].write_all(part.as_bytes()).expect("a part is sent");
    // The first one's part has been read when a later request is answered.
    assert_eq!(served.post("/v1/completions", &prompt(2)).0, 200);
    halves[1].write_all(part.as_bytes()).expect("a part is sent");
    let (status, said) = answer(halves.remove(1));
    assert_eq!(status, 503, "{said}");
    drop(halves);
    assert_eq!(served.post("/v1/completions", &prompt(2)).0, 200);
}

#[test]
fn a_body_of_very_many_values_is_refused() {
    let served = serve(&tiny("llama"), Access::default(), Limits::default(), 8 << 20);
    let body = format!("{{\"prompt\": [{}0]}}", "0,".repeat(1 << 20));
    let (status, said) = answer(served.send(&format!("{}{body}", head("/v1/completions", body.len()))));
    assert_eq!(status, 413, "{said}");
    assert!(said.contains("values"), "{said}");
}

#[test]
fn a_text_that_no_context_holds_is_refused_before_it_is_tokenized() {
    let served = serve(&tiny("llama"), Access::default(), Limits::default(), 8 << 20);
    let engine = served.scheduler.engine();
    let most = engine.tokenizer().most_bytes(engine.context()).expect("a bound");
    let (status, said) =
        served.post("/v1/completions", &json!({"prompt": "a".repeat(most + 1), "max_tokens": 1}));
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("bytes, where at most"), "{said}");
}

#[test]
fn who_finds_no_place_is_told_before_the_body_is_read() {
    let limits = Limits { requests: 1, ..Limits::default() };
    let served = serve(&smollm2(), Access::default(), limits, 100_000);
    let busy = served.open("/v1/completions", &endless(&served));
    served.wait_for_load((0, 1));
    // Its body never comes.
    let (status, said) = answer(served.send(&head("/v1/completions", 1000)));
    assert_eq!(status, 429, "{said}");
    assert!(said.to_lowercase().contains("retry-after: 1"), "{said}");
    drop(busy);
    served.wait_for_load((0, 0));
}

#[test]
fn foreign_names_and_pages_are_refused() {
    let origins = vec!["https://app.example".to_owned()];
    let access = Access { hosts: vec!["models.lan".to_owned()], origins, ..Access::default() };
    let served = serve(&tiny("llama"), access, Limits::default(), 10_000);
    let ask = |host: &str, more: &str| {
        answer(
            served
                .send(&format!("GET /v1/models HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")),
        )
    };
    for host in ["localhost", "127.0.0.1:8080", "[::1]", "models.lan"] {
        assert_eq!(ask(host, "").0, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "192.168.0.1"] {
        assert_eq!(ask(host, "").0, 403, "{host}");
    }
    assert_eq!(ask("localhost", "Origin: http://localhost\r\n").0, 200);
    assert_eq!(ask("localhost", "Origin: https://evil.example\r\n").0, 403);
    assert_eq!(ask("localhost", "Origin: null\r\n").0, 403);
    let (status, said) = ask("localhost", "Origin: https://app.example\r\n");
    assert_eq!(status, 200);
    assert!(said.to_lowercase().contains("access-control-allow-origin: https://app.example"), "{said}");
    // DNS rebinding: the page's own name, which points here.
    assert_eq!(ask("evil.example", "Origin: http://evil.example\r\n").0, 403);
}

#[test]
fn with_keys_only_those_who_have_one_are_answered() {
    let mut keys = Keys::default();
    keys.add("first-key").expect("a key");
    keys.add("second-key").expect("a key");
    let access = Access { keys, origins: vec!["https://app.example".to_owned()], ..Access::default() };
    let served = serve(&tiny("llama"), access, Limits::default(), 10_000);
    for headers in
        ["", "Authorization: Bearer first-ke\r\n", "Authorization: first-key\r\n", "x-api-key: no\r\n"]
    {
        let (status, said) = served.get("/v1/models", headers);
        assert_eq!(status, 401, "{headers}: {said}");
    }
    for headers in [
        "Authorization: Bearer first-key\r\n",
        "authorization: bearer second-key\r\n",
        "X-Api-Key: first-key\r\n",
    ] {
        assert_eq!(served.get("/v1/models", headers).0, 200, "{headers}");
    }
    assert_eq!((served.get("/health", "").0, served.get("/ready", "").0), (200, 200));
    assert_eq!(served.get("/metrics", "").0, 401);
    // A browser asks without a key whether its page may.
    let (status, said) = answer(served.send(
        "OPTIONS /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: https://app.example\r\n\
         Access-Control-Request-Method: POST\r\n\r\n",
    ));
    assert_eq!(status, 200, "{said}");
}

#[test]
fn a_half_closed_client_gets_its_answer_and_one_that_left_is_cancelled() {
    let served = serve(&smollm2(), Access::default(), Limits::default(), 100_000);
    let socket = served.open("/v1/completions", &prompt(60));
    socket.shutdown(Shutdown::Write).expect("it is closed for writing");
    let (status, said) = answer(socket);
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("completion_tokens"), "{said}");
    for stream in [false, true] {
        let mut body = endless(&served);
        body["stream"] = stream.into();
        let socket = served.open("/v1/completions", &body);
        served.wait_for_load((0, 1));
        drop(socket);
        served.wait_for_load((0, 0));
    }
}

#[test]
fn while_it_drains_it_says_so() {
    let mut served = serve(&smollm2(), Access::default(), Limits::default(), 100_000);
    assert_eq!(served.get("/ready", "").0, 200);
    let busy = served.open("/v1/completions", &endless(&served));
    served.wait_for_load((0, 1));
    drop(served.stop.take());
    let end = Instant::now() + LONG;
    while served.get("/ready", "").0 != 503 && Instant::now() < end {}
    let (status, said) = served.post("/v1/completions", &prompt(2));
    assert_eq!(status, 503, "{said}");
    assert_eq!(served.get("/health", "").0, 200);
    drop(busy);
    served.thread.take().map(JoinHandle::join).expect("a thread").expect("it ended well");
}

#[test]
fn a_dead_scheduler_is_unhealthy_and_no_fault_of_the_clients() {
    let served = plain(Limits::default());
    let ids = served.scheduler.engine().tokenizer().encode_prompt("hello", false).expect("tokens");
    let request = Request { prompt: ids, ..Request::default() };
    served.scheduler.submit_to(request, Box::new(|_| panic!("on purpose"))).expect("a place");
    let end = Instant::now() + LONG;
    while served.scheduler.is_alive() && Instant::now() < end {
        std::thread::yield_now();
    }
    let (status, said) = served.get("/health", "");
    assert_eq!((status, served.get("/ready", "").0), (500, 503), "{said}");
    let (status, said) = served.post("/v1/completions", &prompt(2));
    assert_eq!(status, 500, "{said}");
    assert!(said.contains("scheduler has ended"), "{said}");
}

#[test]
fn forms_that_take_long_hold_up_nobody_else() {
    let served = plain(Limits::default());
    let costly = json!({"prompt": "a", "max_tokens": 5, "response_format": {"type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "integer", "multipleOf": 99_999_989}}}});
    let hostile: Vec<TcpStream> = (0..6).map(|_| served.open("/v1/completions", &costly)).collect();
    for _ in 0..3 {
        assert_eq!(served.post("/v1/completions", &prompt(2)).0, 200);
        assert_eq!(served.get("/health", "").0, 200);
    }
    for socket in hostile {
        let (status, said) = answer(socket);
        assert!(matches!(status, 400 | 503), "{said}");
        assert!(!said.contains("NoExtensionBias"), "{said}");
    }
}

/// Memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel's figures");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).expect("a number") << 10
}

/// The bodies that hostile clients send in a round.
fn hostile_bodies(round: usize) -> Vec<String> {
    let form = |schema: Value| json!({"prompt": "a", "max_tokens": 1, "response_format": {"type": "json_schema", "json_schema": {"schema": schema}}});
    let alternatives: Vec<String> = (0..20_000).map(|n| format!("w{n}x{round}")).collect();
    let mut nested = json!({"type": "string"});
    for _ in 0..60 {
        nested = json!({"anyOf": [nested, {"type": "array", "items": {"type": "integer"}}]});
    }
    vec![
        form(json!({"type": "integer", "multipleOf": 99_999_989 - round})).to_string(),
        form(nested).to_string(),
        json!({"prompt": "a", "max_tokens": 1, "regex": alternatives.join("|")}).to_string(),
        json!({"prompt": "a", "max_tokens": 1, "regex": "(a?){9999}{9999}"}).to_string(),
        json!({"prompt": "a", "max_tokens": 1, "user": format!("{round}{}", "u".repeat(1 << 20))})
            .to_string(),
        json!({"prompt": "a".repeat(2 << 20), "max_tokens": 1}).to_string(),
        format!("{{\"prompt\": {}{}", "[".repeat(100_000), round),
        "{\"prompt\"".to_owned(),
    ]
}

/// `rounds` times eight hostile requests, six at once, beside one client that must always be answered.
fn under_fire(rounds: usize) {
    let served = Arc::new(serve(&smollm2(), Access::default(), Limits::default(), 8 << 20));
    assert_eq!(served.post("/v1/completions", &prompt(4)).0, 200);
    let quiet = resident();
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let attackers: Vec<JoinHandle<()>> = (0..6)
        .map(|_| {
            let (served, next) = (Arc::clone(&served), Arc::clone(&next));
            std::thread::spawn(move || {
                loop {
                    let round = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if round >= rounds {
                        return;
                    }
                    for body in hostile_bodies(round) {
                        let mut socket = served.connect();
                        // The server may answer, and close, before it has read everything.
                        let _ = socket.write_all(head("/v1/completions", body.len()).as_bytes());
                        let _ = socket.write_all(body.as_bytes());
                        let _ = socket.read(&mut [0; 1024]);
                    }
                }
            })
        })
        .collect();
    let (mut most, mut answered) = (0, 0);
    while answered == 0 || !attackers.iter().all(JoinHandle::is_finished) {
        let (status, said) = served.post("/v1/completions", &prompt(4));
        assert_eq!(status, 200, "{said}");
        assert_eq!(served.get("/health", "").0, 200);
        answered += 1;
        most = most.max(resident());
    }
    attackers.into_iter().for_each(|attacker| attacker.join().expect("an attacker ends"));
    assert!(most.saturating_sub(quiet) < 512 << 20, "{} MiB more than before", (most - quiet) >> 20);
    served.wait_for_load((0, 0));
}

#[test]
fn others_are_answered_and_memory_stays_bounded() {
    under_fire(2);
}

#[test]
#[ignore = "takes minutes"]
fn others_are_answered_under_a_thousand_hostile_requests() {
    under_fire(125);
}
