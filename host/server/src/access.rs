//! Who may use the server: names that it answers to, web pages of other origins, and keys.
//!
//! A web page can have its own name point to 127.0.0.1 (DNS rebinding), and the browser then takes the server for a part of the
//! page. Such a request still carries the page's name as `Host`, so on a loopback address only loopback's own names are
//! answered. A request that a page of another origin makes carries its `Origin`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::error::ApiError;
use super::page;

/// Paths that need no key: whoever watches over the server asks for them.
const OPEN: [&str; 2] = ["/health", "/ready"];

/// Who may use the server.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The keys of which every request needs one; without any, none is needed.
    pub keys: Keys,
    /// Further names that the server answers to, as clients write them into `Host`, without a port.
    pub hosts: Vec<String>,
    /// Origins (`https://example.com`) whose web pages may use it; `*` is every one.
    pub origins: Vec<Origin>,
}

/// Where a web page comes from: `https://example.com`, or `*`, which is everywhere.
#[derive(Clone, Debug)]
pub struct Origin(HeaderValue);

impl Origin {
    fn is_any(&self) -> bool {
        self.0 == "*"
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(origin: &str) -> Result<Self, String> {
        let uri: Option<Uri> = origin.parse().ok();
        let is_whole = uri.is_some_and(|uri| uri.scheme().is_some() && origin.matches('/').count() == 2);
        let value = HeaderValue::from_str(origin).ok().filter(|_| origin == "*" || is_whole);
        value.map(Self).ok_or_else(|| "an origin such as https://example.com, or *, was expected".to_owned())
    }
}

/// Keys, of which only hashes are kept.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} keys", self.0.len())
    }
}

impl Keys {
    /// Adds a key.
    ///
    /// # Errors
    /// One sentence, without the key, where no header could carry it.
    pub fn add(&mut self, key: &str) -> Result<(), String> {
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "an API key has {} bytes, where visible ASCII characters without spaces were expected",
                key.len()
            ));
        }
        self.0.push(Sha256::digest(key).into());
        Ok(())
    }

    /// Adds the keys of a file's text: one a line; empty lines and those that begin with `#` don't count.
    ///
    /// # Errors
    /// As [`Keys::add`], with the line's number, and where there are none.
    pub fn add_lines(&mut self, text: &str) -> Result<(), String> {
        let lines = text.lines().map(str::trim).enumerate();
        let lines: Vec<_> = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
        if lines.is_empty() {
            return Err("it has no keys, where one a line was expected".to_owned());
        }
        lines.into_iter().try_for_each(|(index, line)| {
            self.add(line).map_err(|what| format!("line {}: {what}", index + 1))
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them. The time that it takes says nothing about a key.
    fn has(&self, key: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        self.0.iter().fold(subtle::Choice::from(0), |found, known| found | known.ct_eq(&hash)).into()
    }
}

/// The rules of one server.
pub(super) struct Rules {
    access: Access,
    /// Whether it can only be reached from this machine.
    loopback: bool,
}

impl Rules {
    pub(super) fn new(access: Access, address: IpAddr) -> Self {
        Self { access, loopback: address.is_loopback() }
    }

    /// What lets web pages of other origins read answers.
    pub(super) fn cors(&self) -> Option<CorsLayer> {
        let origins = &self.access.origins;
        if origins.is_empty() {
            return None;
        }
        let allowed = if origins.iter().any(Origin::is_any) {
            AllowOrigin::any()
        } else {
            AllowOrigin::list(origins.iter().map(|origin| origin.0.clone()))
        };
        let exposed = [HeaderName::from_static("x-request-id"), header::RETRY_AFTER];
        Some(
            CorsLayer::new()
                .allow_origin(allowed)
                .allow_methods([Method::GET, Method::POST])
                // By name: for browsers `*` is everything but `Authorization`.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(exposed),
        )
    }

    /// Whether a request came by a name that is this server's, and by a page that may use it.
    pub(super) fn check_names(&self, request: &Request) -> Result<(), ApiError> {
        let host = text(request.headers(), &header::HOST)?;
        for name in host.into_iter().chain(request.uri().authority().map(Authority::as_str)) {
            if !self.answers_to(name) {
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    format!(
                        "the request's Host is {name:?}, where localhost, 127.0.0.1, [::1] or a name given with --allow-host was \
                         expected"
                    ),
                ));
            }
        }
        match text(request.headers(), &header::ORIGIN)? {
            Some(origin) if !self.may_use(origin, host) => Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!(
                    "the request's Origin is {origin:?}, where the server's own or one given with --cors was expected"
                ),
            )),
            _ => Ok(()),
        }
    }

    fn answers_to(&self, host: &str) -> bool {
        let Ok(host) = host.parse::<Authority>() else { return false };
        let name = host.host().trim_end_matches('.').to_ascii_lowercase();
        if name == "localhost" || self.access.hosts.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return true;
        }
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            // Nobody can have an address point elsewhere.
            Ok(address) => !self.loopback || address.is_loopback(),
            Err(_) => !self.loopback && self.access.hosts.is_empty(),
        }
    }

    fn may_use(&self, origin: &str, host: Option<&str>) -> bool {
        if self
            .access
            .origins
            .iter()
            .any(|known| known.is_any() || known.0.as_bytes().eq_ignore_ascii_case(origin.as_bytes()))
        {
            return true;
        }
        let own = origin.parse::<Uri>().ok();
        let own = own.as_ref().and_then(Uri::authority).map(Authority::as_str);
        own.zip(host).is_some_and(|(own, host)| own.eq_ignore_ascii_case(host))
    }

    /// Whose request it is, by its key, where keys are needed: the same in every process, and no way back to the key.
    pub(super) fn owner(&self, headers: &HeaderMap) -> Option<String> {
        let key = key(headers).filter(|_| !self.access.keys.is_empty())?;
        let hash = Sha256::new().chain_update(b"herald: whose prompts\0").chain_update(key).finalize();
        Some(hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether a request has a key, where it needs one: as `Authorization: Bearer KEY` (OpenAI's API) or `x-api-key: KEY`
    /// (Anthropic's).
    pub(super) fn check_key(&self, request: &Request) -> Result<(), ApiError> {
        let keys = &self.access.keys;
        let path = request.uri().path();
        if keys.is_empty() || OPEN.contains(&path) || page::serves(request.method(), path) {
            return Ok(());
        }
        let key = key(request.headers());
        if key.is_some_and(|key| keys.has(key)) {
            return Ok(());
        }
        let found = if key.is_some() { "an API key that is not known" } else { "no API key" };
        Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            format!(
                "the request has {found}, where Authorization: Bearer KEY or x-api-key: KEY was expected"
            ),
        ))
    }
}

/// The key that a request has.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    bearer.or_else(|| headers.get("x-api-key").map(HeaderValue::as_bytes))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// The only header of this name.
fn text<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Result<Option<&'r str>, ApiError> {
    let mut all = headers.get_all(name).iter();
    let first = all.next().map(HeaderValue::to_str).transpose();
    match (first, all.next()) {
        (Ok(first), None) => Ok(first),
        _ => Err(ApiError::invalid(format!("the request's {name} was expected once, in ASCII"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(address: [u8; 4], hosts: &[&str], origins: &[&str]) -> Rules {
        let hosts = hosts.iter().map(|&host| host.to_owned()).collect();
        let origins = origins.iter().map(|origin| origin.parse().expect("an origin")).collect();
        Rules::new(Access { keys: Keys::default(), hosts, origins }, IpAddr::from(address))
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        let plain = rules([127, 0, 0, 1], &[], &[]);
        for host in ["localhost", "LOCALHOST:8080", "localhost.:80", "127.0.0.1:1", "127.9.9.9", "[::1]:8080"]
        {
            assert!(plain.answers_to(host), "{host}");
        }
        for host in [
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "a b",
            "::1",
        ] {
            assert!(!plain.answers_to(host), "{host}");
        }
        assert!(rules([127, 0, 0, 1], &["models.lan"], &[]).answers_to("Models.LAN:443"));
    }

    #[test]
    fn elsewhere_every_name_is_answered_unless_some_are_given() {
        assert!(rules([0, 0, 0, 0], &[], &[]).answers_to("models.lan"));
        let named = rules([0, 0, 0, 0], &["models.lan"], &[]);
        assert!(
            named.answers_to("models.lan")
                && named.answers_to("10.0.0.1")
                && !named.answers_to("evil.example")
        );
    }

    #[test]
    fn a_page_of_another_origin_needs_leave() {
        let plain = rules([127, 0, 0, 1], &[], &[]);
        assert!(plain.may_use("http://localhost:8080", Some("localhost:8080")));
        for origin in ["http://localhost:8081", "https://evil.example", "null", ""] {
            assert!(!plain.may_use(origin, Some("localhost:8080")), "{origin}");
        }
        assert!(
            rules([127, 0, 0, 1], &[], &["https://a.example"])
                .may_use("https://a.example", Some("localhost"))
        );
        assert!(rules([127, 0, 0, 1], &[], &["*"]).may_use("null", None));
    }

    #[test]
    fn keys_are_read_from_lines_and_never_shown() {
        let mut keys = Keys::default();
        keys.add_lines("# ours\n\n one-key \r\ntwo-key\n").unwrap();
        assert!(keys.has(b"one-key") && keys.has(b"two-key") && !keys.has(b"one-ke") && !keys.has(b""));
        assert_eq!(format!("{keys:?}"), "2 keys");
        assert!(keys.add_lines("# none\n").is_err_and(|what| what.contains("no keys")));
        assert!(
            keys.add_lines("good\nnot good\n")
                .is_err_and(|what| what.starts_with("line 2") && !what.contains("good"))
        );
    }
}
