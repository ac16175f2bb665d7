//! GGUF files of other addresses: each in a folder of its own, which is named after the address and says it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use herald::files::{Readers, Unfinished};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache::lock;
use crate::download::{Job, download, hexadecimal};
use crate::error::{Error, Result};
use crate::http::{Answer, Trouble, without_secrets};
use crate::hub::{Fetched, Hub};
use crate::names::is_safe_path;
use crate::offers::part_of;
use crate::watch::Watch;

/// The file that says where a folder's model comes from.
const SOURCE: &str = "source.json";

/// Parts that a split model may have.
const MAX_PARTS: u32 = 999;

/// Bytes that [`SOURCE`] may have.
const MAX_SOURCE: u64 = 64 << 10;

/// Where a model comes from.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Origin {
    /// Its address, without what may be secret in it.
    pub(crate) url: String,
}

impl Origin {
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let path = folder.join(SOURCE);
        let is_small = path.metadata().is_ok_and(|facts| facts.is_file() && facts.len() <= MAX_SOURCE);
        serde_json::from_slice(&fs::read(path).ok().filter(|_| is_small)?).ok()
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(SOURCE);
        let failed = |error| Error::file(&path, "it can't be written", &error);
        let text = serde_json::to_vec(self).map_err(|error| failed(error.into()))?;
        let mut file = Unfinished::create(&path, Readers::Usual).map_err(failed)?;
        file.write_all(&text).map_err(failed)?;
        file.keep(&path).map_err(failed)
    }
}

/// The folder of an address's model, and the names and addresses of its files.
pub(crate) fn parts(downloads: &Path, url: &str) -> Result<(PathBuf, Vec<(String, String)>)> {
    let plain = url.split(['?', '#']).next().unwrap_or(url);
    let rest = &url[plain.len()..];
    let (before, name) = plain.rsplit_once('/').unwrap_or(("", plain));
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    let is_gguf = name.len() > ".gguf".len() && name.to_ascii_lowercase().ends_with(".gguf");
    if !is_safe_path(&name) || name.contains('/') || !is_gguf {
        let shown = without_secrets(url);
        return Err(Error::Failed(format!(
            "{shown}: its last part can't be a GGUF file's name, where one was expected"
        )));
    }
    let named = |name: &str| {
        format!("{before}/{}{rest}", percent_encoding::utf8_percent_encode(name, crate::api::PLAIN))
    };
    let stem = &name[..name.len() - ".gguf".len()];
    let names = match part_of(stem) {
        Some((stem, _, count)) if count <= MAX_PARTS => {
            (1..=count).map(|part| format!("{stem}-{part:05}-of-{count:05}.gguf")).collect()
        }
        Some((_, _, count)) => {
            let shown = without_secrets(url);
            return Err(Error::Failed(format!(
                "{shown}: it has {count} parts, where at most {MAX_PARTS} were expected"
            )));
        }
        None => vec![name.clone()],
    };
    let files: Vec<(String, String)> = match names.as_slice() {
        // As it was given: a server may take another spelling for another file.
        [only] => vec![(only.clone(), url.to_owned())],
        _ => names.into_iter().map(|name| (name.clone(), named(&name))).collect(),
    };
    let first = files.first().map_or(url, |(_, url)| url);
    let id = hexadecimal(&Sha256::digest(first.as_bytes()));
    Ok((downloads.join(&id[..16]), files))
}

impl Hub {
    /// Fetches the GGUF file of an address, and the other parts where it is a part of a split one. What is there already is taken as
    /// it is.
    ///
    /// # Errors
    /// Where it can't be had or written, or is no GGUF file. What has come is kept where the server names the file's state (an
    /// ETag or a date), so that the next call can go on from there.
    pub fn fetch_url(&self, url: &str, watch: &mut Watch<'_>) -> Result<Fetched> {
        let (folder, files) = parts(&self.settings.downloads, url)?;
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.join(name)).collect();
        let fetched = !paths.iter().all(|path| path.is_file());
        if fetched && self.settings.offline {
            return Err(Error::Failed(format!(
                "{} isn't on this machine, and nothing is fetched: HF_HUB_OFFLINE or --offline says so",
                without_secrets(url)
            )));
        }
        if fetched {
            fs::create_dir_all(&folder)
                .map_err(|error| Error::file(&folder, "the folder can't be created", &error))?;
            Origin { url: without_secrets(url) }.write(&folder)?;
        }
        for ((name, url), path) in files.iter().zip(&paths) {
            self.fetch_part(name, url, path, watch)?;
        }
        let bytes = paths.iter().filter_map(|path| path.metadata().ok()).map(|facts| facts.len()).sum();
        let path = paths.into_iter().next().unwrap_or(folder);
        Ok(Fetched { path, bytes, fetched })
    }

    fn fetch_part(&self, name: &str, url: &str, path: &Path, watch: &mut Watch<'_>) -> Result<()> {
        let beside = |ending: &str| {
            let mut path = path.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        if path.is_file() {
            return Ok(());
        }
        let (partial, state) = (beside(".incomplete"), beside(".state"));
        let _lock = lock(&beside(".lock"), &partial, self.settings.patience, watch)?;
        if path.is_file() {
            return Ok(());
        }
        let shown = without_secrets(url);
        let small = state.metadata().is_ok_and(|facts| facts.len() < MAX_SOURCE);
        let job = Job {
            name,
            url,
            partial: &partial,
            bytes: None,
            sha256: None,
            validator: fs::read_to_string(&state).ok().filter(|state| small && !state.is_empty()),
            patience: self.settings.patience,
            refusal: &|answer| refusal(&shown, answer),
            begins: &|validator| {
                let written = fs::write(&state, validator.unwrap_or_default());
                written.map_err(|error| Error::file(&state, "it can't be written", &error))
            },
        };
        download(&self.client, &job, watch)?;
        fs::rename(&partial, path).map_err(|error| Error::file(path, "it can't be written", &error))?;
        // Neither is needed any more, and neither does harm.
        let _ = fs::remove_file(&state);
        let _ = fs::remove_file(beside(".lock"));
        Ok(())
    }
}

fn refusal(url: &str, answer: &Answer) -> Trouble {
    match answer.status {
        status @ (408 | 429 | 500..=599) => {
            Trouble::Again(format!("{url}: it answers with status {status}"), answer.retry_after())
        }
        404 => Trouble::last(format!("{url}: there is no such file (status 404), where one was expected")),
        status => Trouble::last(format!("{url}: it answers with status {status}, where 200 was expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_address_share_a_folder() {
        let of = |url: &str| parts(Path::new("/d"), url);
        let (folder, files) = of("https://x.net/a/m-00002-of-00003.gguf?k=1").unwrap();
        let (same, _) = of("https://x.net/a/m-00001-of-00003.gguf?k=1").unwrap();
        assert_eq!((folder.parent(), &folder), (Some(Path::new("/d")), &same));
        let last =
            ("m-00003-of-00003.gguf".to_owned(), "https://x.net/a/m-00003-of-00003.gguf?k=1".to_owned());
        assert_eq!((files.len(), &files[2]), (3, &last));
        let (other, files) = of("https://x.net/b%20c.gguf").unwrap();
        assert_ne!(other, folder);
        assert_eq!(files, [("b c.gguf".to_owned(), "https://x.net/b%20c.gguf".to_owned())]);
        for bad in [
            "https://x.net/..%2Fm.gguf",
            "https://x.net/.gguf",
            "https://x.net/m-00001-of-09999.gguf",
            "https://x.net/modèl",
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
