//! What the hub says of a repository and of its files.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::http::{Answer, Ask, Client, Trouble};
use crate::names::{HubModel, is_safe_path};
use crate::offers::RepoFile;
use crate::settings::Settings;
use crate::watch::{Retries, Watch};

/// What stays as it is in a part of an address.
pub(crate) const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The same for a path.
const PATH: &AsciiSet = &PLAIN.remove(b'/');

/// A repository, as `/api/models/USER/REPO/revision/REVISION?blobs=true` has it.
#[derive(Debug, Deserialize)]
struct Repo {
    sha: Option<String>,
    #[serde(default)]
    gated: Value,
    #[serde(rename = "cardData")]
    card: Option<Value>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// What is known of a repository.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) commit: String,
    pub(crate) gated: bool,
    pub(crate) licence: Option<String>,
    pub(crate) licence_link: Option<String>,
    pub(crate) files: Vec<RepoFile>,
}

/// Asks what a repository has.
pub(crate) fn known(
    client: &Client,
    settings: &Settings,
    model: &HubModel,
    watch: &mut Watch<'_>,
) -> Result<Known> {
    let url = format!(
        "{}/api/models/{}/revision/{}?blobs=true",
        settings.endpoint,
        model.repo,
        utf8_percent_encode(&model.revision, PLAIN)
    );
    let repo = Retries::until(settings.patience, watch, || {
        let answer = client.ask(Ask::get(&url))?;
        match answer.status {
            200 => parsed(&settings.endpoint, &model.repo, &answer.whole(&url)?).map_err(Trouble::Final),
            _ => Err(refusal(client, &settings.endpoint, model, None, &answer)),
        }
    })?;
    let commit = repo.sha.filter(|sha| is_id(sha)).ok_or_else(|| {
        Error::Failed(format!("{}: {} has no commit, where one was expected", settings.endpoint, model.repo))
    })?;
    let licence = licence(repo.card.as_ref(), &repo.tags);
    let link = repo.card.as_ref().and_then(|card| card.get("license_link")?.as_str().map(str::to_owned));
    Ok(Known {
        commit,
        gated: !matches!(repo.gated, Value::Bool(false) | Value::Null),
        licence,
        licence_link: link.filter(|link| link.starts_with("http")),
        files: files_of(repo.siblings),
    })
}

/// The files that can be had.
fn files_of(siblings: Vec<Sibling>) -> Vec<RepoFile> {
    // One whose path leaves its folder on some system is none that anybody can have.
    let safe = siblings.into_iter().filter(|file| is_safe_path(&file.rfilename));
    let files = safe.map(|file| RepoFile {
        bytes: file.lfs.as_ref().and_then(|lfs| lfs.size).or(file.size).unwrap_or(0),
        sha256: file.lfs.and_then(|lfs| lfs.sha256).filter(|digest| is_sha256(digest)),
        path: file.rfilename,
    });
    files.collect()
}

/// The files of a repository, read from what the hub's API says of it (`/api/models/USER/REPO?blobs=true`).
///
/// # Errors
/// Where that is something else.
pub fn listed_files(answer: &[u8]) -> Result<Vec<RepoFile>> {
    Ok(files_of(parsed("the hub", "the repository", answer)?.siblings))
}

fn parsed(endpoint: &str, repo: &str, bytes: &[u8]) -> Result<Repo> {
    serde_json::from_slice(bytes).map_err(|error| {
        let begins = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).trim_start().starts_with('<');
        let found = if begins { "a web page".to_owned() } else { format!("something else ({error})") };
        Error::Failed(format!(
            "{endpoint}: what it says of {repo} is {found}, where JSON of the hub's API was expected: a proxy may have answered, \
             or HF_ENDPOINT names no hub"
        ))
    })
}

/// The licence that the model's card names.
fn licence(card: Option<&Value>, tags: &[String]) -> Option<String> {
    let of_card = |key: &str| match card?.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(texts) => {
            let texts: Vec<&str> = texts.iter().filter_map(Value::as_str).collect();
            Some(texts.join(", "))
        }
        _ => None,
    };
    let named = of_card("license").filter(|licence| licence != "other").or_else(|| of_card("license_name"));
    let tagged = || tags.iter().find_map(|tag| tag.strip_prefix("license:")).map(str::to_owned);
    named.or_else(|| of_card("license")).or_else(tagged).filter(|licence| !licence.is_empty())
}

/// What the hub says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Its name among the cache's blobs: the SHA-256 of a large file, Git's id of a small one.
    pub(crate) etag: String,
    pub(crate) bytes: u64,
}

impl Facts {
    /// Its SHA-256, where that is known.
    pub(crate) fn sha256(&self) -> Option<&str> {
        Some(self.etag.as_str()).filter(|etag| is_sha256(etag))
    }
}

/// Where a file is.
pub(crate) fn file_url(endpoint: &str, repo: &str, revision: &str, path: &str) -> String {
    let (revision, path) = (utf8_percent_encode(revision, PLAIN), utf8_percent_encode(path, PATH));
    format!("{endpoint}/{repo}/resolve/{revision}/{path}")
}

/// Asks for a file's facts, as the hub's other clients do: its name among the blobs must be theirs.
pub(crate) fn facts(
    client: &Client,
    settings: &Settings,
    model: &HubModel,
    commit: &str,
    file: &RepoFile,
    watch: &mut Watch<'_>,
) -> Result<Facts> {
    let url = file_url(&settings.endpoint, &model.repo, commit, &file.path);
    let answer = Retries::until(settings.patience, watch, || {
        let answer = client.ask(Ask { head: true, ..Ask::get(&url) })?;
        match answer.status {
            200..=399 => Ok(answer),
            _ => Err(refusal(client, &settings.endpoint, model, Some(&file.path), &answer)),
        }
    })?;
    let wrong = |what: String| {
        Error::Failed(format!(
            "{}: what it says of {} of {} is wrong: {what}",
            settings.endpoint, file.path, model.repo
        ))
    };
    let etag = answer.first("x-linked-etag").or_else(|| answer.first("etag"));
    let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
    let etag = etag.filter(|etag| is_id(etag)).or_else(|| file.sha256.clone());
    let etag = etag.ok_or_else(|| wrong("it has no ETag, where a file's digest was expected".to_owned()))?;
    let size = answer.first("x-linked-size").or_else(|| match answer.status {
        200 => answer.header("content-length"),
        _ => None,
    });
    let bytes = size.and_then(|size| size.trim().parse().ok()).unwrap_or(file.bytes);
    if file.bytes > 0 && bytes != file.bytes {
        return Err(wrong(format!(
            "it has {bytes} bytes, where the {} of its list were expected",
            file.bytes
        )));
    }
    if let Some(digest) = file.sha256.as_ref().filter(|digest| is_sha256(&etag) && **digest != etag) {
        return Err(wrong(format!("its SHA-256 is {etag}, where the {digest} of its list was expected")));
    }
    if bytes == 0 {
        return Err(wrong("it has no size, where X-Linked-Size was expected".to_owned()));
    }
    Ok(Facts { etag, bytes })
}

/// Why the hub doesn't give something.
pub(crate) fn refusal(
    client: &Client,
    endpoint: &str,
    model: &HubModel,
    path: Option<&str>,
    answer: &Answer,
) -> Trouble {
    let HubModel { repo, revision, .. } = model;
    let code = answer.header("x-error-code").unwrap_or_default();
    let gated = || {
        Trouble::last(match client.has_token() {
            false => format!(
                "{repo} is gated: accept its terms at {endpoint}/{repo}, then set HF_TOKEN to a token from \
                 {endpoint}/settings/tokens"
            ),
            true => format!(
                "{repo} is gated, and the owner of this token has no access: accept its terms at {endpoint}/{repo}"
            ),
        })
    };
    match (answer.status, code) {
        // Its addresses are good for a while only, and every attempt gets a new one.
        (status, _) if !answer.is_own => Trouble::Again(
            format!("the storage of {endpoint} answers with status {status}"),
            answer.retry_after(),
        ),
        (_, "GatedRepo") => gated(),
        (404, "RevisionNotFound") => Trouble::last(format!(
            "{repo} has no revision {revision}, where a branch, a tag or a commit was expected"
        )),
        (404, "EntryNotFound") => Trouble::last(format!(
            "{repo} has no file {} any more, where one was expected",
            path.unwrap_or_default()
        )),
        (401, code) if client.has_token() && code != "RepoNotFound" => Trouble::last(format!(
            "{endpoint} refuses the token, where one from {endpoint}/settings/tokens was expected, in HF_TOKEN or in the token's \
             file, or none"
        )),
        (401 | 404, _) => Trouble::last(format!(
            "there is no repository {repo} at {endpoint}, or it is private: one that isn't needs no token, and one that is needs \
             one in HF_TOKEN that may read it"
        )),
        (403, _) => gated(),
        (status @ (408 | 429 | 500..=599), _) => {
            Trouble::Again(format!("{endpoint} answers with status {status}"), answer.retry_after())
        }
        (status, _) => Trouble::last(format!(
            "{endpoint} answers with status {status} for {repo}, where 200 was expected"
        )),
    }
}

/// Whether it can be a commit's or a file's id, and so a file's name.
pub(crate) fn is_id(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (4..=128).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether it is a SHA-256 in hexadecimal.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn licences_are_read_from_cards_and_tags() {
        let of = |card: Value, tags: &[&str]| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            licence(Some(&card), &tags)
        };
        assert_eq!(of(json!({"license": "apache-2.0"}), &["license:mit"]).as_deref(), Some("apache-2.0"));
        let other = json!({"license": "other", "license_name": "lfm1.0"});
        assert_eq!(of(other, &[]).as_deref(), Some("lfm1.0"));
        assert_eq!(of(json!({"license": ["mit", "gemma"]}), &[]).as_deref(), Some("mit, gemma"));
        assert_eq!(of(json!({}), &["x", "license:mit"]).as_deref(), Some("mit"));
        assert_eq!(of(json!({"license": "other"}), &[]).as_deref(), Some("other"));
        assert_eq!(licence(None, &[]), None);
    }

    #[test]
    fn addresses_are_escaped() {
        let url = file_url("http://h", "a/b", "refs/pr/1", "x y/m#1%.gguf");
        assert_eq!(url, "http://h/a/b/resolve/refs%2Fpr%2F1/x%20y/m%231%25.gguf");
    }

    #[test]
    fn ids_are_names_of_files_and_nothing_else() {
        assert!(is_id("3f2a") && is_id("abc-1_") && is_sha256(&"0f".repeat(32)));
        for bad in ["", "..", "a/b", "../../x", "a.b", "abc\0", "ab", &"a".repeat(129)] {
            assert!(!is_id(bad), "{bad:?}");
        }
        assert!(!is_sha256(&"0F".repeat(32)) && !is_sha256("00"));
    }
}
