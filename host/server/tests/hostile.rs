//! Clients that mean the server harm, and what becomes of the others.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::{LONG, Served, answer, endless, head, prompt, serve};
use herald::schedule::Request;
use herald_server::{Access, Keys, Limits};
use herald_testing::{smollm2, tiny};
use serde_json::{Value, json};

fn plain(limits: Limits) -> Served {
    serve(&tiny("llama"), Access::default(), limits, 10_000)
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
    let origins = vec!["https://app.example".parse().expect("an origin")];
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
    let access = Access {
        keys,
        origins: vec!["https://app.example".parse().expect("an origin")],
        ..Access::default()
    };
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

#[test]
fn what_a_request_says_is_quoted_on_one_line() {
    let names = ["a\nb", "a\r\nHTTP/1.1 200 OK", "a\u{1b}[2Jb", "a\u{85}b", "a\0b"];
    for path in ["/v1/completions", "/v1/messages", "/api/chat"] {
        for name in names {
            let body = json!({"model": "m", name: 1}).to_string();
            let said = herald_server::check_body(path, body.as_bytes()).expect_err("no such field");
            assert!(!said.contains(char::is_control), "{said:?}");
        }
    }
}

/// Whoever could see that a prompt costs nothing could guess another's, word by word.
#[test]
fn keys_and_salts_keep_prompts_apart() {
    let mut keys = Keys::default();
    keys.add("first-key").expect("a key");
    keys.add("second-key").expect("a key");
    let served = serve(&tiny("llama"), Access { keys, ..Access::default() }, Limits::default(), 10_000);
    let cached = |key: &str, salt: Option<&str>| {
        let body =
            json!({"prompt": "the secret is a long word ".repeat(20), "max_tokens": 2, "cache_salt": salt})
                .to_string();
        let head =
            head("/v1/completions", body.len()).replacen("\r\n", &format!("\r\nx-api-key: {key}\r\n"), 1);
        let (status, said) = answer(served.send(&format!("{head}{body}")));
        assert_eq!(status, 200, "{said}");
        let (_, body) = said.split_once("\r\n\r\n").expect("a body");
        let usage = serde_json::from_str::<Value>(body).expect("an answer")["usage"].clone();
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number")
    };
    assert_eq!(cached("first-key", None), 0);
    assert!(cached("first-key", None) > 0);
    assert_eq!(cached("second-key", None), 0);
    assert_eq!(cached("first-key", Some("one")), 0);
    assert_eq!(cached("first-key", Some("two")), 0);
    assert_eq!(cached("second-key", Some("one")), 0);
    assert!(cached("first-key", Some("one")) > 0);
}
