//! A client among many hostile ones, in a process of their own, whose memory is looked at.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use common::{head, prompt, serve};
use herald_server::{Access, Limits};
use herald_testing::smollm2;
use serde_json::{Value, json};

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
    let next = Arc::new(AtomicUsize::new(0));
    let attackers: Vec<JoinHandle<()>> = (0..6)
        .map(|_| {
            let (served, next) = (Arc::clone(&served), Arc::clone(&next));
            std::thread::spawn(move || {
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
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
