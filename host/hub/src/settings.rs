//! Where things are and how to get at them: what Hugging Face's own clients read from the environment.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::{BaseStrategy, choose_base_strategy};

use crate::error::{Error, Result};
use crate::http::origin;

/// The hub, unless `HF_ENDPOINT` names a mirror.
const ENDPOINT: &str = "https://huggingface.co";

/// Bytes that a token's file may have.
const MAX_TOKEN: u64 = 4096;

/// Everything that a [`Hub`](crate::Hub) needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// The cache that is shared with the hub's other clients: folders `models--USER--REPO`.
    pub cache: PathBuf,
    /// Where files of other addresses are kept.
    pub downloads: PathBuf,
    /// Who asks, where somebody is logged in.
    pub token: Option<Token>,
    /// Nothing is asked of the network.
    pub offline: bool,
    /// What stands between this machine and others.
    pub proxies: Proxies,
    /// How long is waited, and how often tried again.
    pub patience: Patience,
}

impl Settings {
    /// What the environment says: `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`,
    /// `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`. An empty variable counts as unset.
    ///
    /// # Errors
    /// Where there is no home folder, or the endpoint is no address.
    pub fn from_env() -> Result<Self> {
        Self::from(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() {
            return Err(Error::Failed(format!(
                "HF_ENDPOINT is {endpoint:?}, where an address such as {ENDPOINT} was expected"
            )));
        }
        let home = home_of_hub(variable)?;
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let base = choose_base_strategy()
            .map_err(|error| Error::Failed(format!("the user's cache folder can't be found: {error}")))?;
        let token = variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")).map(Token);
        let token_file = variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), |path| expanded(&path));
        Ok(Self {
            endpoint,
            cache: cache.map_or_else(|| home.join("hub"), |path| expanded(&path)),
            downloads: base.cache_dir().join("herald").join("models").join("urls"),
            token: token.or_else(|| Token::read(&token_file)),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|value| is_true(&value)),
            proxies: Proxies::from(variable),
            patience: Patience::default(),
        })
    }
}

/// The folder that the hub's clients share.
fn home_of_hub(variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Ok(expanded(&home));
    }
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Ok(expanded(&cache).join("huggingface"));
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".cache").join("huggingface")).ok_or_else(|| {
        let what =
            "there is no home folder, where the hub's cache was expected; HF_HOME can name another one";
        Error::Failed(what.to_owned())
    })
}

/// A path whose `~` is the home folder.
fn expanded(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

/// What the hub's clients take for yes.
fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}

/// A user's token for the hub. It goes to the hub alone, and is never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        File::open(path).ok()?.take(MAX_TOKEN).read_to_string(&mut text).ok()?;
        Some(Self::new(&text)).filter(|token| !token.0.is_empty())
    }

    /// As a header's value.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0.trim())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// The proxies to go through: addresses such as `http://proxy:3128`.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `https`.
    pub https: Option<String>,
    /// For `http`.
    pub http: Option<String>,
    /// Hosts that are reached without: `localhost`, `example.com` with all below it, or `*`.
    pub without: Vec<String>,
}

impl Proxies {
    fn from(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| variable(&name.to_lowercase()).or_else(|| variable(name));
        let all = either("ALL_PROXY");
        let without = either("NO_PROXY").unwrap_or_default();
        Self {
            https: either("HTTPS_PROXY").or_else(|| all.clone()),
            http: either("HTTP_PROXY").or(all),
            without: without.split([',', ' ']).filter(|host| !host.is_empty()).map(str::to_owned).collect(),
        }
    }

    /// The proxy for a host.
    pub(crate) fn of(&self, is_https: bool, host: &str) -> Option<&str> {
        let proxy = if is_https { &self.https } else { &self.http };
        proxy.as_deref().filter(|_| !self.without.iter().any(|pattern| covers(pattern, host)))
    }
}

/// Whether a pattern of `NO_PROXY` means this host, as curl and Python have it: the host itself or one below it.
fn covers(pattern: &str, host: &str) -> bool {
    let pattern = pattern.rsplit_once(':').map_or(pattern, |(name, port)| {
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { pattern }
    });
    let pattern = pattern.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    pattern.is_empty()
        || host.strip_suffix(&pattern).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// How long is waited, and how often tried again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// Without a byte.
    pub silence: Duration,
    /// How often in a row what fails is tried again.
    pub retries: u32,
    /// Before the first of these; doubled from one to the next.
    pub pause: Duration,
    /// The longest of these, and the longest that a server may ask for (`Retry-After`).
    pub longest_pause: Duration,
    /// For another process that fetches the same file and doesn't get on.
    pub other_process: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            silence: Duration::from_secs(30),
            retries: 6,
            pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
            other_process: Duration::from_secs(300),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::from(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_environment_is_read_as_the_hubs_clients_do() {
        let plain = of(&[("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(
            (plain.endpoint.as_str(), plain.cache.as_path()),
            (ENDPOINT, Path::new("/c/huggingface/hub"))
        );
        assert!(!plain.offline && plain.token.is_none());
        let home = of(&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(home.cache, Path::new("/h/hub"));
        let cache = of(&[("HF_HUB_CACHE", "/x"), ("HF_HOME", "/h"), ("HF_HUB_OFFLINE", "YES")]).unwrap();
        assert_eq!((cache.cache.as_path(), cache.offline), (Path::new("/x"), true));
        let mirror = of(&[("HF_ENDPOINT", "http://mirror:81/hf/"), ("HF_TOKEN", "hf_secret\n")]).unwrap();
        assert_eq!(mirror.endpoint, "http://mirror:81/hf");
        assert_eq!(mirror.token.as_ref().unwrap().header(), "Bearer hf_secret");
        assert!(!format!("{mirror:?}").contains("secret"));
        assert!(of(&[("HF_ENDPOINT", "mirror")]).unwrap_err().to_string().contains("HF_ENDPOINT"));
    }

    #[test]
    fn a_token_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        assert!(of(&[("HF_HOME", home)]).unwrap().token.is_none());
        std::fs::write(folder.path().join("token"), " hf_file\n").unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).unwrap().token.unwrap().header(), "Bearer hf_file");
        assert_eq!(
            of(&[("HF_HOME", home), ("HF_TOKEN", "own")]).unwrap().token.unwrap().header(),
            "Bearer own"
        );
    }

    #[test]
    fn proxies_are_chosen_by_scheme_and_host() {
        let set = [
            ("HTTPS_PROXY", "http://s"),
            ("http_proxy", "http://p"),
            ("NO_PROXY", "local,.in.net,*.x.org:80"),
        ];
        let proxies = of(&set).unwrap().proxies;
        assert_eq!(
            (proxies.of(true, "hub.co"), proxies.of(false, "hub.co")),
            (Some("http://s"), Some("http://p"))
        );
        for host in ["local", "LOCAL", "a.local", "in.net", "b.in.net", "c.x.org"] {
            assert_eq!(proxies.of(true, host), None, "{host}");
        }
        assert!(proxies.of(true, "notlocal").is_some() && proxies.of(true, "in.net.co").is_some());
        assert_eq!(of(&[("ALL_PROXY", "http://a"), ("NO_PROXY", "*")]).unwrap().proxies.of(true, "x"), None);
        assert_eq!(of(&[("ALL_PROXY", "http://a")]).unwrap().proxies.of(false, "x"), Some("http://a"));
    }
}
