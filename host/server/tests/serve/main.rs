//! The HTTP server from a client's side, over plain sockets.

mod apis;
mod chat;
mod completions;
mod loras;
mod models;
mod page;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use herald::schedule::{Scheduler, SchedulerOptions};
use herald::{GenerateOptions, NeuroEngine};
use herald_server::{Access, Limits, Models, ServeOptions, Server, endpoints};
use herald_testing::{options_for, smollm2, tiny};
use serde_json::{Value, json};

/// A server on its own thread, which ends when this is dropped.
struct Listening {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A server of one model, with its scheduler.
struct Served {
    scheduler: Arc<Scheduler>,
    listening: Listening,
}

impl Deref for Served {
    type Target = Listening;

    fn deref(&self) -> &Listening {
        &self.listening
    }
}

fn serve(model: &Path, options: SchedulerOptions) -> Served {
    serve_with(model, options, Access::default(), Limits::default())
}

fn serve_with(model: &Path, options: SchedulerOptions, access: Access, limits: Limits) -> Served {
    let engine = Arc::new(NeuroEngine::load(model, &options_for(model)).expect("the model"));
    let scheduler = Arc::new(Scheduler::start(engine, options).expect("a scheduler"));
    let models = Models::one("the model".to_owned(), Arc::clone(&scheduler));
    Served { scheduler, listening: listen(models, access, limits) }
}

fn listen(models: Models, access: Access, limits: Limits) -> Listening {
    let serving = ServeOptions {
        max_body: 10_000,
        grace: Duration::from_secs(30),
        access,
        limits,
        #[cfg(feature = "tls")]
        tls: None,
        trust_content: false,
        slots: 4,
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::bind(any, models, serving).expect("a port");
    let address = server.address().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let stopped = async { drop(stopped.await) };
        server.run(stopped).expect("the server runs");
    });
    Listening { address, stop: Some(stop), thread: Some(thread) }
}

impl Listening {
    fn open(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).expect("a connection");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
        write!(socket, "{head}Content-Length: {length}\r\n\r\n{body}").expect("the request is sent");
        socket
    }

    /// The status and the body.
    fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        answer(self.open(method, path, headers, body))
    }

    fn post(&self, path: &str, body: &Value) -> (u16, String) {
        self.request("POST", path, "Content-Type: application/json\r\n", &body.to_string())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "", "")
    }
}

impl Served {
    /// Pages beside those of the prefix cache.
    fn pages(&self) -> u64 {
        self.scheduler.engine().forget_prefixes();
        self.scheduler.engine().memory_usage().tiers().iter().map(|(_, stats)| stats.pages).sum()
    }

    fn wait_until_idle(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.scheduler.load() != (0, 0) && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!((self.scheduler.load(), self.pages()), ((0, 0), 0));
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().map(JoinHandle::join);
    }
}

fn answer(mut socket: TcpStream) -> (u16, String) {
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return (status, body.to_owned());
    }
    let (mut rest, mut whole) = (body, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a chunk's length");
        whole.push_str(&after[..length]);
        rest = after.get(length + 2..).unwrap_or("");
    }
    (status, whole)
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

/// The events of a stream without the last, which must be `[DONE]`.
fn events(body: &str) -> Vec<Value> {
    let data: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (last, events) = data.split_last().expect("events");
    assert_eq!(*last, "[DONE]", "{body}");
    events.iter().map(|event| parsed(event)).collect()
}

fn alone(engine: &NeuroEngine, prompt: &str, max_tokens: usize) -> String {
    let options = GenerateOptions { max_tokens: Some(max_tokens), ..GenerateOptions::default() };
    let ids = engine.tokenizer().encode_prompt(prompt, false).expect("tokens");
    let mut sequence = engine.sequence().expect("a sequence");
    engine.generate(&mut sequence, &ids, &options, &mut || true, &mut |_| true).expect("an answer").text
}

fn prompt(max_tokens: usize) -> Value {
    json!({"prompt": "hello world", "temperature": 0, "max_tokens": max_tokens})
}

/// Editors and shells on Windows put a byte order mark before a text.
#[test]
fn a_byte_order_mark_before_a_body_is_skipped() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let body = format!("\u{feff}{}", json!({"prompt": "once upon a time", "max_tokens": 2}));
    let (status, answer) =
        served.request("POST", "/v1/completions", "Content-Type: application/json\r\n", &body);
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn completions_are_the_engines_whole_and_streamed() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let expected = alone(served.scheduler.engine(), "hello world", 12);
    let (status, body) = served.post("/v1/completions", &prompt(12));
    let whole = parsed(&body);
    assert_eq!((status, whole["object"].as_str()), (200, Some("text_completion")));
    assert_eq!(whole["choices"][0]["text"], expected.as_str());
    let (usage, completion) = (&whole["usage"], whole["usage"]["completion_tokens"].as_u64());
    assert!(completion.is_some_and(|tokens| tokens <= 12), "{usage}");

    let mut body = prompt(12);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let (status, body) = served.post("/v1/completions", &body);
    let events = events(&body);
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!((status, text), (200, expected));
    let [.., last, usage] = &events[..] else { panic!("{body}") };
    assert_eq!(last["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(usage["usage"], whole["usage"]);
    served.wait_until_idle();
}

#[test]
fn chat_answers_match_a_schema() {
    let served = serve(&smollm2(), SchedulerOptions::default());
    let schema = json!({"type": "object", "properties": {"capital": {"type": "string", "maxLength": 20}},
        "required": ["capital"], "additionalProperties": false});
    let body = json!({
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the capital of France? Answer as JSON."}]}],
        "temperature": 0, "max_tokens": 40, "stream": true,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    });
    let (status, body) = served.post("/v1/chat/completions", &body);
    let events = events(&body);
    assert_eq!((status, &events[0]["choices"][0]["delta"]["role"]), (200, &json!("assistant")));
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(parsed(&text)["capital"], "Paris");
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3, "temperature": 0});
    let (status, body) = served.post("/v1/chat/completions", &body);
    let whole = parsed(&body);
    assert_eq!((status, &whole["choices"][0]["message"]["role"]), (200, &json!("assistant")));
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
}

#[test]
fn the_other_paths_answer() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    served.post("/v1/completions", &prompt(2));
    assert_eq!(parsed(&served.get("/v1/models").1)["data"][0]["id"], "the model");
    assert_eq!(parsed(&served.get("/health").1)["status"], "ok");
    let metrics = served.get("/metrics").1;
    assert!(metrics.contains("herald_requests_cut_total 1\n") && metrics.ends_with("# EOF\n"), "{metrics}");
    let json = parsed(&served.get("/metrics.json").1);
    assert_eq!(
        (&json["serving"]["requests"]["cut"], &json["tiers"][0]["tier"]),
        (&json!(1), &json!("active"))
    );
}

/// The tables of fields in docs/SERVER.md are those by which requests are read; `HERALD_BLESS=1` writes them.
#[test]
fn fields_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SERVER.md");
    let text = std::fs::read_to_string(&path).expect("the document");
    let (begin, end) = ("<!-- fields: begin -->\n\n", "<!-- fields: end -->");
    let (before, rest) = text.split_once(begin).expect("where the tables begin");
    let (tables, after) = rest.split_once(end).expect("where they end");
    let expected = herald_server::documented_fields();
    if std::env::var_os("HERALD_BLESS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).expect("written");
    } else {
        assert_eq!(tables, expected, "docs/SERVER.md is stale: HERALD_BLESS=1 writes its tables anew");
    }
}

/// docs/SERVER.md has a row for each endpoint, and an unknown path's sentence names each.
#[test]
fn endpoints_are_documented_and_named() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let docs = include_str!("../../../../docs/SERVER.md");
    let (_, said) = served.get("/nowhere");
    for endpoint in endpoints() {
        let row = format!("`{} {}`", endpoint.method, endpoint.path);
        assert!(docs.contains(&row), "docs/SERVER.md has no {row}");
        assert!(said.contains(&endpoint.path), "{said} has no {}", endpoint.path);
    }
}

#[test]
fn wrong_requests_get_a_sentence() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    let json = "Content-Type: application/json\r\n";
    let big = format!("{{\"prompt\": \"{}\"}}", "a".repeat(20_000));
    for (method, path, headers, body, status, says) in [
        ("POST", "/v1/completions", json, "{", 400, "not what was expected"),
        ("POST", "/v1/completions", json, "{}", 400, "prompt"),
        ("POST", "/v1/completions", json, "{\"prompt\": \"a\", \"n\": 0}", 400, "n is 0"),
        ("POST", "/v1/completions", json, "{\"prompt\": \"a\", \"max_token\": 1}", 400, "max_tokens is one"),
        ("POST", "/v1/completions", json, "{\"prompt\": \"a\", \"top_p\": 7}", 400, "top_p is 7"),
        (
            "POST",
            "/v1/completions",
            json,
            "{\"prompt\": \"a\", \"logit_bias\": {\"x\": 1}}",
            400,
            "logit_bias",
        ),
        ("POST", "/v1/completions", json, "{\"prompt\": [99999]}", 400, "99999"),
        ("POST", "/v1/completions", json, "{\"prompt\": []}", 400, "no tokens"),
        (
            "POST",
            "/v1/completions",
            json,
            "{\"prompt\": \"a\", \"regex\": \"a(b\"}",
            400,
            "regular expression",
        ),
        ("POST", "/v1/completions", json, &big, 413, "10000 bytes"),
        (
            "POST",
            "/v1/completions",
            "Content-Type: text/plain\r\n",
            "{\"prompt\": \"a\"}",
            415,
            "application/json",
        ),
        ("POST", "/v1/chat/completions", json, "{\"messages\": []}", 400, "messages is empty"),
        ("GET", "/v1/completions", "", "", 405, "POST"),
        ("GET", "/v1/models/other", "", "", 404, "the model"),
        ("GET", "/nowhere", "", "", 404, "/v1/completions"),
    ] {
        let (found, said) = served.request(method, path, headers, body);
        assert_eq!(found, status, "{method} {path} {body:.80}: {said}");
        let error = &parsed(&said)["error"];
        assert!(error["message"].as_str().is_some_and(|text| text.contains(says)), "{body:.80}: {said}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    served.wait_until_idle();
}

#[test]
fn templates_that_never_end_are_status_400() {
    let folder = herald_testing::folder();
    let source = "{% set ns = namespace(s=[],t=[]) %}{% for i in range(60) %}{% set ns.s = [ns.s,ns.s] %}\
                  {% set ns.t = [ns.t,ns.t] %}{% endfor %}{{ ns.s == ns.t }}";
    let model = herald_testing::tiny_with(folder.path(), &[("tokenizer.chat_template", source)]);
    let served = serve(&model, SchedulerOptions::default());
    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    // More than there are helper threads for such work on most machines.
    for _ in 0..20 {
        let (status, body) = served.post("/v1/chat/completions", &body);
        assert_eq!(status, 400, "{body}");
        assert!(body.contains("used more than"), "{body}");
    }
    assert_eq!(served.post("/v1/completions", &prompt(2)).0, 200, "others are answered");
}

#[test]
fn a_full_queue_is_status_429_and_a_client_that_leaves_frees_its_slot() {
    let options = SchedulerOptions { max_running: 1, queue: 1, ..SchedulerOptions::default() };
    // A slow model that may not end by itself.
    let served = serve(&smollm2(), options);
    let tokenizer = served.scheduler.engine().tokenizer();
    let ends = (0..tokenizer.vocabulary() as u32).filter(|token| tokenizer.ends_generation(*token));
    let banned: Value = ends.map(|token| (token.to_string(), json!(-1e9))).collect();
    let body = json!({"prompt": "hello", "temperature": 0, "max_tokens": 2000, "stream": true, "logit_bias": banned});
    let json = "Content-Type: application/json\r\n";
    let open = |load| {
        let socket = served.open("POST", "/v1/completions", json, &body.to_string());
        let end = Instant::now() + Duration::from_secs(30);
        while served.scheduler.load() != load && Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(served.scheduler.load(), load);
        socket
    };
    let running = open((0, 1));
    let waiting = open((1, 1));
    let (status, said) = served.post("/v1/completions", &body);
    assert_eq!((status, &parsed(&said)["error"]["type"]), (429, &json!("rate_limit_error")), "{said}");
    drop((running, waiting));
    served.wait_until_idle();
    assert_eq!(served.post("/v1/completions", &prompt(1)).0, 200);
}

#[test]
fn running_answers_finish_when_the_server_stops() {
    let mut served = serve(&tiny("llama"), SchedulerOptions::default());
    let mut body = prompt(200);
    body["stream"] = true.into();
    let mut socket =
        served.open("POST", "/v1/completions", "Content-Type: application/json\r\n", &body.to_string());
    let mut first = [0; 1];
    socket.read_exact(&mut first).expect("it has begun");
    drop(served.listening.stop.take());
    let mut rest = String::new();
    socket.read_to_string(&mut rest).expect("the rest");
    assert!(rest.contains("[DONE]"), "{rest}");
    served.listening.thread.take().map(JoinHandle::join).expect("a thread").expect("it ended well");
    assert!(TcpStream::connect(served.address).is_err(), "nobody listens any more");
}
