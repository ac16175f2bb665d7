//! What a user calls a model, and what is meant.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::http::{origin, without_secrets};
use crate::short;

/// The hosts that are the hub.
const HOSTS: [&str; 3] = ["hf.co", "huggingface.co", "www.huggingface.co"];

/// Bytes that a name may have.
const MAX_NAME: usize = 4096;

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A repository of the hub.
    Hub(HubModel),
    /// A GGUF file at an address of its own.
    Url(String),
    /// A file of this machine.
    File(PathBuf),
}

/// A model in a repository of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    /// `USER/REPO`.
    pub repo: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// Which of the repository's files.
    pub wanted: Wanted,
}

/// Which of a repository's files is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one that fits the machine best.
    Any,
    /// The one of this quant, or of this name.
    Tag(String),
    /// The one at this path.
    Path(String),
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.wanted {
            Wanted::Any => f.write_str(&self.repo),
            Wanted::Tag(tag) => write!(f, "{}:{tag}", self.repo),
            Wanted::Path(path) => write!(f, "{}/{path}", self.repo),
        }
    }
}

impl Source {
    /// What a name means: `hf.co/USER/REPO[:QUANT]`, `USER/REPO[:QUANT]`, `hf:USER/REPO[:QUANT]`, a page or a file of the hub,
    /// the address of a GGUF file, a path, or a short name such as `qwen3:0.6b`. Nothing is looked up.
    ///
    /// # Errors
    /// Where it is none of these.
    pub fn parse(name: &str) -> Result<Self> {
        let name = name.trim();
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(unknown(name));
        }
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("http://") || lower.starts_with("https://") {
            return address(name);
        }
        if let Some(rest) = HOSTS.iter().find_map(|host| lower.strip_prefix(host)?.strip_prefix('/')) {
            return page(&name[name.len() - rest.len()..], name).map(Self::Hub);
        }
        if lower.starts_with("hf:") {
            return page(name[3..].trim_start_matches('/'), name).map(Self::Hub);
        }
        let is_path = ["/", "./", "../", "~"].iter().any(|start| name.starts_with(start))
            || name.contains('\\')
            || (lower.ends_with(".gguf") && !name.contains(':'));
        if is_path {
            return Ok(Self::File(PathBuf::from(name)));
        }
        match name.matches('/').count() {
            0 => short::model(name).map(Self::Hub).ok_or_else(|| unknown(name)),
            _ => page(name, name).map(Self::Hub),
        }
    }
}

/// What an address means.
fn address(url: &str) -> Result<Source> {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    let Some((_, host, port)) = origin(plain) else {
        return Err(Error::Failed(format!(
            "{}: it is no address of a file, where one such as https://example.com/model.gguf was expected",
            without_secrets(url)
        )));
    };
    if HOSTS.contains(&host.as_str()) && matches!(port, 80 | 443) {
        let path = plain.splitn(4, '/').nth(3).unwrap_or_default();
        return page(path, plain).map(Source::Hub);
    }
    if !plain.to_ascii_lowercase().ends_with(".gguf") {
        return Err(Error::Failed(format!(
            "{}: it doesn't end in .gguf, where a model's file was expected",
            without_secrets(url)
        )));
    }
    Ok(Source::Url(url.split('#').next().unwrap_or(url).to_owned()))
}

/// The model of a path on the hub: `USER/REPO[:TAG]`, `USER/REPO/tree/REVISION` or `USER/REPO/blob/REVISION/FILE`.
fn page(path: &str, given: &str) -> Result<HubModel> {
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_end_matches('/');
    let wrong = |what: &str| {
        Error::Failed(format!(
            "{given:?} names no model of the hub: {what}, where USER/REPO[:QUANT] was expected"
        ))
    };
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(|text| text.into_owned()).map_err(|_| wrong("it is no UTF-8"))
    };
    let mut parts = path.splitn(5, '/');
    let (Some(user), Some(repo)) = (parts.next(), parts.next()) else {
        return Err(wrong("it has one part"));
    };
    let (kind, revision, file) = (parts.next(), parts.next(), parts.next());
    let (repo, tag) = match repo.split_once(':') {
        Some((repo, tag)) => (repo, Some(tag)),
        None => (repo, None),
    };
    if !is_name(user) || !is_name(repo) {
        return Err(wrong("letters, digits, `-`, `_` and `.` are all that its parts may have"));
    }
    let repo = format!("{user}/{repo}");
    let main = || "main".to_owned();
    match (kind, revision, file, tag) {
        (None, _, _, None) => Ok(HubModel { repo, revision: main(), wanted: Wanted::Any }),
        (None, _, _, Some(tag)) => {
            let wanted = match tag {
                "" => return Err(wrong("nothing follows the colon")),
                tag if tag.eq_ignore_ascii_case("latest") => Wanted::Any,
                tag => Wanted::Tag(tag.to_owned()),
            };
            Ok(HubModel { repo, revision: main(), wanted })
        }
        (Some("tree"), Some(revision), None, None) => Ok(HubModel {
            repo,
            revision: checked_revision(decoded(revision)?, &wrong)?,
            wanted: Wanted::Any,
        }),
        (Some("blob" | "resolve" | "raw"), Some(revision), Some(file), None) => {
            let file = decoded(file)?;
            if !is_safe_path(&file) || !file.to_ascii_lowercase().ends_with(".gguf") {
                return Err(wrong("its file is no .gguf"));
            }
            let revision = checked_revision(decoded(revision)?, &wrong)?;
            Ok(HubModel { repo, revision, wanted: Wanted::Path(file) })
        }
        // A file without a revision, as other programs write it.
        (Some(kind), _, _, None) if !["blob", "raw", "resolve", "tree"].contains(&kind) => {
            let file = decoded(path.splitn(3, '/').nth(2).unwrap_or_default())?;
            match is_safe_path(&file) && file.to_ascii_lowercase().ends_with(".gguf") {
                true => Ok(HubModel { repo, revision: main(), wanted: Wanted::Path(file) }),
                false => Err(wrong("it has more parts")),
            }
        }
        _ => Err(wrong("it has more parts")),
    }
}

fn checked_revision(revision: String, wrong: &dyn Fn(&str) -> Error) -> Result<String> {
    if is_safe_path(&revision) { Ok(revision) } else { Err(wrong("its revision is none")) }
}

/// Whether it can be a user's or a repository's name, and so a part of a folder's.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty()
        && name.len() <= 96
        && name.bytes().all(allowed)
        && !name.starts_with('.')
        && !name.contains("..")
        && !name.contains("--")
}

/// Whether `text` can be `USER/REPO`.
pub(crate) fn is_repo(text: &str) -> bool {
    text.split_once('/').is_some_and(|(user, repo)| is_name(user) && is_name(repo))
}

/// Whether a path that somebody else wrote stays in the folder that it is put in, on every system.
pub(crate) fn is_safe_path(path: &str) -> bool {
    let is_safe = |part: &str| {
        !part.is_empty()
            && part.len() <= 255
            && part != "."
            && part != ".."
            && !part.contains(|c: char| c.is_control() || matches!(c, '\\' | ':'))
    };
    path.len() <= 1024 && path.split('/').all(is_safe)
}

fn unknown(name: &str) -> Error {
    let shown: String = name.chars().take(100).collect();
    Error::Failed(format!(
        "{shown:?} names no model that can be pulled, where USER/REPO[:QUANT] of the hub, the address of a .gguf file, or a \
         short name such as qwen3:0.6b was expected"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(repo: &str, revision: &str, wanted: Wanted) -> Source {
        Source::Hub(HubModel { repo: repo.to_owned(), revision: revision.to_owned(), wanted })
    }

    #[test]
    fn every_way_to_name_a_model_of_the_hub() {
        let any = hub("a/b-GGUF", "main", Wanted::Any);
        let quant = hub("a/b-GGUF", "main", Wanted::Tag("q4_k_m".to_owned()));
        for start in [
            "",
            "hf.co/",
            "HF.co/",
            "huggingface.co/",
            "https://huggingface.co/",
            "https://hf.co/",
            "hf:",
            "hf://",
        ] {
            assert_eq!(Source::parse(&format!("{start}a/b-GGUF")).unwrap(), any, "{start}");
            assert_eq!(Source::parse(&format!("{start}a/b-GGUF:latest")).unwrap(), any, "{start}");
            assert_eq!(Source::parse(&format!("{start}a/b-GGUF:q4_k_m")).unwrap(), quant, "{start}");
        }
        assert_eq!(Source::parse("https://huggingface.co/a/b-GGUF/").unwrap(), any);
        let file = hub("a/b", "v1/x", Wanted::Path("sub dir/m.gguf".to_owned()));
        for kind in ["blob", "resolve"] {
            let url = format!("https://huggingface.co/a/b/{kind}/v1%2Fx/sub%20dir/m.gguf?download=true");
            assert_eq!(Source::parse(&url).unwrap(), file);
        }
        let plain = hub("a/b", "main", Wanted::Path("sub/m.gguf".to_owned()));
        assert_eq!(Source::parse("hf:a/b/sub/m.gguf").unwrap(), plain);
        assert_eq!(Source::parse("hf.co/a/b/tree/dev").unwrap(), hub("a/b", "dev", Wanted::Any));
        assert_eq!(
            Source::parse("a/b:m-Q8_0.gguf").unwrap(),
            hub("a/b", "main", Wanted::Tag("m-Q8_0.gguf".to_owned()))
        );
    }

    #[test]
    fn addresses_paths_and_short_names() {
        let url = "https://example.com/x/m.gguf?key=1";
        assert_eq!(Source::parse(&format!("{url}#part")).unwrap(), Source::Url(url.to_owned()));
        for path in ["/a/m.gguf", "./m", "../m", "m.gguf", "a/m.gguf", "~/m"] {
            assert_eq!(Source::parse(path).unwrap(), Source::File(path.into()), "{path}");
        }
        assert!(matches!(Source::parse("qwen3:0.6b").unwrap(), Source::Hub(_)));
    }

    #[test]
    fn what_names_nothing_is_told() {
        for name in [
            "",
            "gpt-5",
            "a/b/c",
            "a/../b",
            "a/b:",
            "../a:b/c:d",
            "a b/c",
            "hf.co/a",
            "a/b/blob/main/m.bin",
            "a/b\nc",
            "https://huggingface.co/a/b/resolve/main/..%2F..%2Fm.gguf",
            "https://huggingface.co/datasets/a/b",
            "https://example.com/m.zip",
            "https:///m.gguf",
            "-/--",
            "a/b/resolve/../m.gguf",
            "a/.b",
            "a--b/c",
        ] {
            let found = Source::parse(name);
            assert!(matches!(&found, Err(_) | Ok(Source::File(_))), "{name}: {found:?}");
        }
        let secret = Source::parse("https://me:word@example.com/m.zip?key=1").unwrap_err().to_string();
        assert!(!secret.contains("word") && !secret.contains("key"), "{secret}");
    }

    #[test]
    fn paths_that_leave_their_folder_are_seen() {
        for path in ["a.gguf", "a/b c/d.gguf", ".hidden"] {
            assert!(is_safe_path(path), "{path}");
        }
        for path in ["", "/a", "a/", "a//b", "..", "a/../b", ".", "a\\b", "c:a", "a\0b", &"x".repeat(256)] {
            assert!(!is_safe_path(path), "{path:?}");
        }
    }
}
