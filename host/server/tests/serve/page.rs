//! The web page's files: types, headers, versions, and that they need no key.

use std::io::Read;

use herald::schedule::SchedulerOptions;
use herald_server::{Access, Keys, Limits};
use herald_testing::tiny;

use super::{Served, parsed, serve, serve_with};

/// The status, the head in lower case, and the body's length.
fn ask(served: &Served, method: &str, path: &str, headers: &str) -> (u16, String, usize) {
    let mut answer = Vec::new();
    served.open(method, path, headers, "").read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head, answer.len() - end - 4)
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

const FILES: [(&str, &str); 6] = [
    ("/", "text/html"),
    ("/page/app.js", "text/javascript"),
    ("/page/theme.js", "text/javascript"),
    ("/page/app.css", "text/css"),
    ("/page/icon.svg", "image/svg+xml"),
    ("/page/licences.txt", "text/plain"),
];

#[test]
fn files_come_with_their_types_and_a_strict_policy() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    for (path, kind) in FILES {
        let (status, head, length) = ask(&served, "GET", path, "");
        assert_eq!(status, 200, "{path}: {head}");
        assert!(header(&head, "content-type").is_some_and(|given| given.starts_with(kind)), "{path}: {head}");
        assert_eq!(header(&head, "content-length"), Some(length.to_string().as_str()), "{path}: {head}");
        let policy = header(&head, "content-security-policy").expect("a policy");
        for rule in
            ["default-src 'none'", "script-src 'self';", "connect-src 'self'", "frame-ancestors 'none'"]
        {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{path}: {policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-cache"),
        ] {
            assert_eq!(header(&head, name), Some(value), "{path}: {head}");
        }
    }
}

#[test]
fn a_version_that_the_browser_has_is_not_sent_again() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    for (path, _) in FILES {
        let (_, head, length) = ask(&served, "GET", path, "");
        let tag = header(&head, "etag").expect("a tag").to_owned();
        // The head was made lower case, as the tag's W is not.
        let tag = tag.replace("w/", "W/");
        let (status, head, sent) = ask(&served, "GET", path, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((status, sent), (304, 0), "{path}: {head}");
        assert!(header(&head, "content-security-policy").is_some() && header(&head, "etag").is_some());
        let (status, _, sent) = ask(&served, "GET", path, "If-None-Match: \"another\"\r\n");
        assert_eq!((status, sent), (200, length), "{path}");
        let (status, head, sent) = ask(&served, "HEAD", path, "");
        assert_eq!((status, sent), (200, 0), "{path}: {head}");
        assert_eq!(header(&head, "content-length"), Some(length.to_string().as_str()), "{path}: {head}");
        assert_eq!(header(&head, "etag").map(|tag| tag.replace("w/", "W/")), Some(tag), "{path}");
    }
    let (status, head, sent) = ask(&served, "GET", "/page/app.js", "Accept-Encoding: gzip\r\n");
    assert_eq!((status, header(&head, "content-encoding")), (200, Some("gzip")), "{head}");
    assert!(sent < 120_000, "{sent}");
}

#[test]
fn what_the_page_does_not_have_gets_a_sentence() {
    let served = serve(&tiny("llama"), SchedulerOptions::default());
    for path in ["/page/app.js.map", "/page/", "/page", "/page/../v1/models", "/index.html", "/favicon.ico"] {
        let (status, body) = served.get(path);
        assert_eq!(status, 404, "{path}: {body}");
        assert!(parsed(&body)["error"]["message"].as_str().is_some_and(|text| text.contains("no such path")));
    }
    let (status, body) = served.request("POST", "/", "Content-Type: application/json\r\n", "{}");
    assert_eq!(status, 405, "{body}");
}

#[test]
fn the_page_needs_no_key_and_nothing_else_comes_with_it() {
    let mut keys = Keys::default();
    keys.add("a-secret").expect("a key");
    let access = Access { keys, ..Access::default() };
    let served = serve_with(&tiny("llama"), SchedulerOptions::default(), access, Limits::default());
    for (path, _) in FILES {
        assert_eq!(ask(&served, "GET", path, "").0, 200, "{path}");
        assert_eq!(ask(&served, "HEAD", path, "").0, 200, "{path}");
        assert_eq!(ask(&served, "POST", path, "").0, 401, "{path}");
    }
    for path in ["/v1/models", "/props", "/page/other.js", "/page/../v1/models", "//", "/page/app.js/"] {
        assert_eq!(ask(&served, "GET", path, "").0, 401, "{path}");
    }
    // Pages of other origins and foreign names stay out.
    assert_eq!(ask(&served, "GET", "/", "Origin: https://evil.example\r\n").0, 403);
}
