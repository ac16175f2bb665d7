//! HTTP, with a bound on everything: time without a byte, redirects, headers, and answers that are read whole.
//!
//! Redirects are followed here and not by ureq, since what the hub says of a file stands in the redirect to its storage, and
//! since the token goes to the hub alone.

use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ureq::http::{HeaderMap, Method, Request, Uri};
use ureq::{Agent, Body, Proxy};

use crate::error::Error;
use crate::settings::{Patience, Proxies, Settings, Token};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 10;

/// Bytes that an answer's headers may have.
const MAX_HEADERS: usize = 64 << 10;

/// Bytes that an answer may have which is read whole.
const MAX_ANSWER: u64 = 32 << 20;

/// Why a request has no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It may work a moment later, or after the time that the server asks for.
    Again(String, Option<Duration>),
    /// It won't.
    Final(Error),
}

impl Trouble {
    pub(crate) fn last(sentence: String) -> Self {
        Self::Final(Error::Failed(sentence))
    }
}

/// An answer, after redirects.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The headers of the hub's own answer, which may have been a redirect.
    pub(crate) first: HeaderMap,
    /// Whether it is of the host that was asked, and not of one that it redirected to.
    pub(crate) is_own: bool,
    pub(crate) body: Body,
}

impl Answer {
    /// A header's text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        text(&self.headers, name)
    }

    /// A header of the hub's own answer.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        text(&self.first, name)
    }

    /// The whole body.
    pub(crate) fn whole(self, url: &str) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(MAX_ANSWER + 1).read_to_end(&mut bytes);
        read.map_err(|error| {
            Trouble::Again(format!("{}: the answer was cut: {error}", without_secrets(url)), None)
        })?;
        if bytes.len() as u64 > MAX_ANSWER {
            return Err(Trouble::last(format!(
                "{}: the answer has more than {MAX_ANSWER} bytes, where fewer were expected",
                without_secrets(url)
            )));
        }
        Ok(bytes)
    }

    /// How long the server asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.trim().parse().ok().map(Duration::from_secs)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// A request: where, and from which byte on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) url: &'a str,
    /// Only what is said of it, not the thing itself. Redirects to other hosts aren't followed.
    pub(crate) head: bool,
    /// The first byte that is wanted.
    pub(crate) from: u64,
    /// What the file must still be for that, or else all of it is wanted.
    pub(crate) validator: Option<&'a str>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(url: &'a str) -> Self {
        Self { url, head: false, from: 0, validator: None }
    }
}

/// Asks.
#[derive(Debug)]
pub(crate) struct Client {
    endpoint: String,
    token: Option<Token>,
    proxies: Proxies,
    patience: Patience,
    /// Made when they are first needed: by the proxy that each goes through.
    agents: Mutex<Vec<(Option<String>, Agent)>>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
            proxies: settings.proxies.clone(),
            patience: settings.patience,
            agents: Mutex::default(),
        }
    }

    /// Whether the hub knows who asks.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks, and follows redirects.
    pub(crate) fn ask(&self, ask: Ask<'_>) -> Result<Answer, Trouble> {
        let mut url = ask.url.to_owned();
        let mut first: Option<HeaderMap> = None;
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.once(&url, ask)?;
            let (parts, body) = answer.into_parts();
            let status = parts.status.as_u16();
            let location = text(&parts.headers, "location").map(str::to_owned);
            let is_redirect = matches!(status, 301 | 302 | 303 | 307 | 308);
            let is_own = origin(&url) == origin(ask.url);
            // What stands in a later answer of the hub itself (of a renamed repository, say) is closer to the file.
            if first.is_none() || is_own {
                first = Some(parts.headers.clone());
            }
            let next = match location.filter(|_| is_redirect) {
                Some(location) => joined(&url, &location)?,
                None => {
                    return Ok(Answer {
                        status,
                        headers: parts.headers,
                        first: first.unwrap_or_default(),
                        is_own,
                        body,
                    });
                }
            };
            if ask.head && origin(&next) != origin(ask.url) {
                return Ok(Answer {
                    status,
                    headers: parts.headers,
                    first: first.unwrap_or_default(),
                    is_own,
                    body,
                });
            }
            url = next;
        }
        Err(Trouble::last(format!(
            "{}: it was redirected more than {MAX_REDIRECTS} times, where a file was expected",
            without_secrets(ask.url)
        )))
    }

    /// Asks once.
    fn once(&self, url: &str, ask: Ask<'_>) -> Result<ureq::http::Response<Body>, Trouble> {
        let shown = without_secrets(url);
        let Some((scheme, host, _)) = origin(url) else {
            return Err(Trouble::last(format!(
                "{shown}: it is no address, where one of http or https was expected"
            )));
        };
        if scheme == "https" && !cfg!(feature = "tls") {
            return Err(Trouble::last(format!(
                "{shown}: this build has no TLS (the feature `tls`), which https needs"
            )));
        }
        let agent = self.agent(self.proxies.of(scheme == "https", &host)).map_err(Trouble::Final)?;
        let method = if ask.head { Method::HEAD } else { Method::GET };
        let mut request = Request::builder().method(method).uri(url);
        // The endpoint may be a folder of its host; no other host, and no other port, gets the token.
        if let Some(token) = self.token.as_ref().filter(|_| origin(url) == origin(&self.endpoint)) {
            request = request.header("authorization", token.header());
        }
        if ask.from > 0 {
            request = request.header("range", format!("bytes={}-", ask.from));
            if let Some(validator) = ask.validator {
                request = request.header("if-range", validator);
            }
        }
        let request = request
            .body(())
            .map_err(|error| Trouble::last(format!("{shown}: it can't be asked for: {error}")))?;
        agent.run(request).map_err(|error| match error {
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => {
                Trouble::Again(format!("{shown}: it can't be reached: {error}"), None)
            }
            error => Trouble::last(format!("{shown}: it can't be reached: {error}")),
        })
    }

    /// The agent that goes through a proxy, or through none.
    fn agent(&self, proxy: Option<&str>) -> Result<Agent, Error> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, agent)) = agents.iter().find(|(through, _)| through.as_deref() == proxy) {
            return Ok(agent.clone());
        }
        let through = proxy.map(Proxy::new).transpose().map_err(|_| {
            let shown = without_secrets(proxy.unwrap_or_default());
            Error::Failed(format!(
                "the proxy {shown:?} is no address, where one such as http://proxy:3128 was expected"
            ))
        })?;
        let config = Agent::config_builder()
            .user_agent(concat!("herald/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADERS)
            .timeout_resolve(Some(self.patience.connect))
            .timeout_connect(Some(self.patience.connect))
            .timeout_recv_response(Some(self.patience.silence))
            .timeout_per_read(Some(self.patience.silence))
            .timeout_per_write(Some(self.patience.silence))
            .proxy(through);
        #[cfg(feature = "tls")]
        let config = config.tls_config(tls::config()?);
        let agent: Agent = config.build().into();
        agents.push((proxy.map(str::to_owned), agent.clone()));
        Ok(agent)
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use ureq::tls::{Certificate, RootCerts, TlsConfig};

    use crate::error::Error;

    /// TLS by the certificates that the system trusts, or those of `SSL_CERT_FILE`: a mirror's or a proxy's may be among them.
    pub(super) fn config() -> Result<TlsConfig, Error> {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            let why = found.errors.first().map_or("there are none".to_owned(), ToString::to_string);
            return Err(Error::Failed(format!(
                "the system's certificates can't be read ({why}), where those of ca-certificates or of SSL_CERT_FILE were \
                 expected"
            )));
        }
        let certs: Vec<_> = found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = RootCerts::new_with_certs(&certs);
        Ok(TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build())
    }
}

/// An address's scheme, host and port; `None` where it isn't one of http or https.
pub(crate) fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(usual);
    Some((scheme, host, port))
}

/// Where a redirect leads. One from https to http is refused: what comes, and the token, would be anybody's to read and change.
fn joined(url: &str, location: &str) -> Result<String, Trouble> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let next = if location.contains("://") {
        location.to_owned()
    } else if let Some(other) = location.strip_prefix("//") {
        format!("{scheme}://{other}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("{scheme}://{host}{folder}{location}")
    };
    let (from, to) = (origin(url), origin(&next));
    match (from, to) {
        (_, None) => Err(Trouble::last(format!(
            "{}: it redirects to {:?}, where an address of http or https was expected",
            without_secrets(url),
            without_secrets(&next)
        ))),
        (Some((from, ..)), Some((to, ..))) if from == "https" && to == "http" => Err(Trouble::last(format!(
            "{}: it redirects to {}, where an address of https was expected",
            without_secrets(url),
            without_secrets(&next)
        ))),
        _ => Ok(next),
    }
}

/// An address as it may be shown and kept: without a password, a query, or a fragment.
pub(crate) fn without_secrets(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    let (start, rest) = plain.split_once("://").map_or(("", plain), |(scheme, rest)| (scheme, rest));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or(host);
    if start.is_empty() { format!("{host}{path}") } else { format!("{start}://{host}{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_differ_by_scheme_host_and_port() {
        assert_eq!(origin("HTTPS://Hub.co/a"), Some(("https".to_owned(), "hub.co".to_owned(), 443)));
        assert_eq!(origin("https://hub.co:443/b"), origin("https://hub.co"));
        for other in
            ["http://hub.co", "https://hub.co:8443", "https://hub.co.evil.net", "https://hub.co@evil.net"]
        {
            assert_ne!(origin(other), origin("https://hub.co"), "{other}");
        }
        for none in ["ftp://hub.co", "hub.co", "", "https://", "/a"] {
            assert_eq!(origin(none), None, "{none}");
        }
    }

    #[test]
    fn redirects_are_joined_to_where_they_stand() {
        let base = "https://hub.co/a/b?c=/d";
        for (location, expected) in [
            ("https://cdn.net/x?y", "https://cdn.net/x?y"),
            ("//cdn.net/x", "https://cdn.net/x"),
            ("/x", "https://hub.co/x"),
            ("x", "https://hub.co/a/x"),
        ] {
            assert_eq!(joined(base, location).unwrap(), expected);
        }
        assert_eq!(joined("http://hub.co", "x").unwrap(), "http://hub.co/x");
        for location in ["http://hub.co/x", "file:///etc/passwd", "https://"] {
            assert!(joined(base, location).is_err(), "{location}");
        }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        assert_eq!(without_secrets("https://me:word@x.net:1/p/m.gguf?sig=1#f"), "https://x.net:1/p/m.gguf");
        assert_eq!(without_secrets("plain"), "plain");
    }
}
