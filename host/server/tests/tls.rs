//! Connections over TLS.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{LONG, Served, endless, prompt, serve_with};
use herald_server::{Access, Limits, ServeOptions, Tls};
use herald_testing::tiny;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Of `localhost`, for these tests: its key is public.
const CERTIFICATE: &str = include_str!("data/certificate.pem");
const KEY: &str = include_str!("data/key.pem");
/// The key of another.
const OTHER: &str = include_str!("data/other-key.pem");

/// A server with that certificate, and what clients know of it.
fn serve() -> (Served, Arc<ClientConfig>) {
    let tls = Tls::from_pem(CERTIFICATE.as_bytes(), KEY.as_bytes()).expect("both fit");
    let limits = Limits { idle: Duration::from_millis(500), ..Limits::default() };
    let options = ServeOptions {
        max_body: 10_000,
        grace: LONG,
        access: Access::default(),
        limits,
        tls: Some(tls),
        trust_content: false,
        slots: 4,
    };
    let served = serve_with(&tiny("llama"), options);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("PEM")).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().expect("versions");
    (served, Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn connect(served: &Served, config: &Arc<ClientConfig>) -> Secured {
    let name = ServerName::try_from("localhost").expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a client"), served.connect())
}

fn post(body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn ask(mut socket: Secured, request: &str) -> String {
    socket.write_all(request.as_bytes()).expect("it is sent");
    let mut text = String::new();
    // A server may end without TLS's own farewell.
    drop(socket.read_to_string(&mut text));
    text
}

#[test]
fn requests_are_answered_over_tls() {
    let (served, config) = serve();
    let health = ask(
        connect(&served, &config),
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"ok\""), "{health}");
    let said = ask(connect(&served, &config), &post(&prompt(4).to_string()));
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("completion_tokens"), "{said}");
}

#[test]
fn a_client_that_leaves_is_cancelled() {
    let (served, config) = serve();
    let mut socket = connect(&served, &config);
    socket.write_all(post(&endless(&served).to_string()).as_bytes()).expect("it is sent");
    served.wait_for_load((0, 1));
    drop(socket);
    served.wait_for_load((0, 0));
}

#[test]
fn whoever_speaks_no_tls_gets_nothing_and_holds_up_nobody() {
    let (served, config) = serve();
    let begun = Instant::now();
    let silent: Vec<TcpStream> = (0..8).map(|_| served.connect()).collect();
    let mut plain = served.send("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut said = Vec::new();
    drop(plain.read_to_end(&mut said));
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));
    let health = ask(
        connect(&served, &config),
        "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    for mut socket in silent {
        assert_eq!(socket.read(&mut [0; 16]).unwrap_or(0), 0, "it is closed");
    }
    assert!(begun.elapsed() < LONG);
}

#[test]
fn what_is_no_certificate_is_told() {
    for (cert, key, word) in [
        ("", KEY, "BEGIN CERTIFICATE"),
        ("-----BEGIN CERTIFICATE-----\nnone", KEY, "BEGIN CERTIFICATE"),
        (CERTIFICATE, "none", "BEGIN PRIVATE KEY"),
        (CERTIFICATE, CERTIFICATE, "BEGIN PRIVATE KEY"),
        (CERTIFICATE, OTHER, "together"),
    ] {
        let said = Tls::from_pem(cert.as_bytes(), key.as_bytes()).expect_err("it can't be used");
        assert!(said.contains(word), "{said}");
    }
}
