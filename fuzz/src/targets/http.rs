//! A request's path in the first line, then its body.

use super::{DEFAULT, Target};

pub(super) const TARGET: Target = Target {
    name: "http",
    run,
    words: &[
        "\"prompt\":",
        "\"messages\":",
        "\"role\":",
        "\"content\":",
        "\"stream\":",
        "\"max_tokens\":",
        "\"stop\":",
        "\"temperature\":",
        "\"logit_bias\":",
        "\"response_format\":",
        "\"json_schema\":",
        "\"schema\":",
        "\"regex\":",
        "\"n\":",
        "\"seed\":",
        "\"stream_options\":",
        "true",
        "false",
        "null",
        "{",
        "}",
        "[",
        "]",
        ",",
        "\"",
        "\\u0000",
    ],
    max_len: 16 << 10,
    ..DEFAULT
};

fn run(input: &[u8]) -> String {
    let line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (path, body) = input.split_at(line);
    let path = String::from_utf8_lossy(path);
    super::told(herald_server::check_body(&path, body.get(1..).unwrap_or_default()), |()| {
        "a request".to_owned()
    })
}
