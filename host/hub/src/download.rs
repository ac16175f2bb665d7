//! Getting a file whole: from where it was cut, again and again, until its size and its digest are right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::http::{Answer, Ask, Client, Trouble, without_secrets};
use crate::settings::Patience;
use crate::watch::{Event, Retries, Watch, tell};

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Bytes that an attempt must bring, or it counts as failed. It bounds how many there can be.
const ENOUGH: u64 = 256 << 10;

/// How a GGUF file begins.
const MAGIC: &[u8] = b"GGUF";

/// A file to get.
pub(crate) struct Job<'a> {
    /// What it is called.
    pub(crate) name: &'a str,
    pub(crate) url: &'a str,
    /// Where it goes. What is there of it already is taken for its beginning.
    pub(crate) partial: &'a Path,
    /// Its size, where that is known before.
    pub(crate) bytes: Option<u64>,
    /// Its SHA-256 in hexadecimal, where that is known.
    pub(crate) sha256: Option<&'a str>,
    /// What the server called its state when its beginning came: an ETag or a date.
    pub(crate) validator: Option<String>,
    pub(crate) patience: Patience,
    /// Why a server doesn't give it.
    pub(crate) refusal: &'a dyn Fn(&Answer) -> Trouble,
    /// Told what the server calls its state when it begins anew, so that another time can go on from there.
    pub(crate) begins: &'a dyn Fn(Option<&str>) -> Result<()>,
}

/// A file on its way.
struct Way<'a> {
    job: &'a Job<'a>,
    file: File,
    digest: Sha256,
    at: u64,
    bytes: Option<u64>,
    validator: Option<String>,
    /// Whether its beginning is of an earlier time.
    resumed: bool,
}

/// Gets it. What has come stays at `partial` when it fails, where another time can go on from there. Returns its size.
pub(crate) fn download(client: &Client, job: &Job<'_>, watch: &mut Watch<'_>) -> Result<u64> {
    let mut way = Way::begin(job, watch)?;
    let done = way.finish(client, watch);
    if done.is_err() && (way.at == 0 || !way.is_resumable()) {
        let _ = fs::remove_file(job.partial);
    }
    done
}
impl<'a> Way<'a> {
    /// Opens what is there.
    fn begin(job: &'a Job<'a>, watch: &mut Watch<'_>) -> Result<Self> {
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(job.partial);
        let failed = |error: io::Error| Error::file(job.partial, "it can't be written", &error);
        let file = opened.map_err(failed)?;
        let there = file.metadata().map_err(failed)?.len();
        let mut way = Self {
            job,
            file,
            digest: Sha256::new(),
            at: 0,
            bytes: job.bytes,
            validator: job.validator.clone(),
            resumed: false,
        };
        // Without a digest or a name for its state, nobody knows whether it still is that file's beginning.
        let is_known = job.sha256.is_some() || job.validator.is_some();
        if there == 0 || !is_known || job.bytes.is_some_and(|bytes| there > bytes) {
            way.restart()?;
        } else {
            way.reread(there, watch)?;
        }
        tell(watch, Event::File { path: job.name, at: way.at, bytes: way.bytes.unwrap_or(0) })?;
        Ok(way)
    }

    /// Computes the digest of what is there.
    fn reread(&mut self, there: u64, watch: &mut Watch<'_>) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        while self.at < there {
            let read = self.file.read(&mut buffer);
            let len = read.map_err(|error| Error::file(self.job.partial, "it can't be read", &error))?;
            if len == 0 {
                break;
            }
            self.digest.update(&buffer[..len]);
            self.at += len as u64;
            tell(watch, Event::Tick)?;
        }
        self.resumed = true;
        Ok(())
    }

    /// Begins anew.
    fn restart(&mut self) -> Result<()> {
        self.digest = Sha256::new();
        self.at = 0;
        self.resumed = false;
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map(drop).map_err(|error| self.unwritten(&error))
    }

    /// Gets all of it.
    fn finish(&mut self, client: &Client, watch: &mut Watch<'_>) -> Result<u64> {
        let mut retries = Retries::new(self.job.patience);
        loop {
            while self.bytes != Some(self.at) {
                let before = self.at;
                let Err(trouble) = self.attempt(client, watch) else { continue };
                if self.at >= before.saturating_add(ENOUGH) {
                    retries.reset();
                }
                retries.again(trouble, watch)?;
            }
            let Some(wanted) = self.job.sha256 else { break };
            let digest = hexadecimal(&std::mem::take(&mut self.digest).finalize());
            if digest == wanted {
                break;
            }
            // What another time left may not have been this file's beginning.
            let resumed = self.resumed;
            self.restart()?;
            if !resumed {
                return Err(Error::Failed(format!(
                    "{}: what came has the SHA-256 {digest}, where {wanted} was expected; it was thrown away",
                    self.job.name
                )));
            }
        }
        self.file.sync_all().map_err(|error| self.unwritten(&error))?;
        Ok(self.at)
    }

    /// Whether another time can go on from here.
    fn is_resumable(&self) -> bool {
        self.job.sha256.is_some() || self.validator.is_some()
    }

    fn unwritten(&self, error: &io::Error) -> Error {
        let kept = match self.is_resumable() {
            true => {
                format!("; the {} bytes that came are kept, and the next pull goes on from there", self.at)
            }
            false => String::new(),
        };
        Error::file(self.job.partial, &format!("it can't be written{kept}"), error)
    }

    /// One request, and what it brings.
    fn attempt(&mut self, client: &Client, watch: &mut Watch<'_>) -> std::result::Result<(), Trouble> {
        // Nobody knows whether what comes now belongs to what came before.
        let from = if self.is_resumable() { self.at } else { 0 };
        let ask = Ask { from, validator: self.validator.as_deref(), ..Ask::get(self.job.url) };
        let answer = client.ask(ask)?;
        let url = without_secrets(self.job.url);
        let name = self.job.name;
        let total = match answer.status {
            206 => {
                let range = answer.header("content-range").and_then(parsed_range);
                let Some((_, total)) = range.filter(|(from, _)| *from == self.at) else {
                    return Err(Trouble::last(format!(
                        "{url}: it answers with the range {:?}, where one from byte {} on was expected",
                        answer.header("content-range").unwrap_or_default(),
                        self.at
                    )));
                };
                total
            }
            200 => {
                if self.at > 0 {
                    self.restart().map_err(Trouble::Final)?;
                }
                let len = answer.header("content-length").and_then(|len| len.trim().parse().ok());
                len.or(self.bytes).ok_or_else(|| {
                    Trouble::last(format!(
                        "{url}: it doesn't say how long the file is, where Content-Length was expected"
                    ))
                })?
            }
            416 => {
                self.restart().map_err(Trouble::Final)?;
                return Err(Trouble::Again(
                    format!("{url}: it has no bytes beyond those that are there"),
                    None,
                ));
            }
            _ => return Err((self.job.refusal)(&answer)),
        };
        if let Some(bytes) = self.bytes.filter(|bytes| *bytes != total) {
            return Err(Trouble::last(format!("{name}: it has {total} bytes, where {bytes} were expected")));
        }
        self.bytes = Some(total);
        // A digest is better than any name.
        if self.at == 0 && self.job.sha256.is_none() {
            self.validator = validator_of(&answer);
            (self.job.begins)(self.validator.as_deref()).map_err(Trouble::Final)?;
        }
        tell(watch, Event::File { path: name, at: self.at, bytes: total }).map_err(Trouble::Final)?;
        self.take(answer, total, watch)
    }

    /// Writes down what an answer brings.
    fn take(
        &mut self,
        answer: Answer,
        total: u64,
        watch: &mut Watch<'_>,
    ) -> std::result::Result<(), Trouble> {
        let kind = answer.header("content-type").unwrap_or("something").to_owned();
        let mut body = answer.body.into_reader();
        let mut buffer = vec![0; CHUNK];
        while self.at <= total {
            let mut len = body.read(&mut buffer).map_err(|error| {
                let url = without_secrets(self.job.url);
                Trouble::Again(format!("{url}: the connection broke after {} bytes: {error}", self.at), None)
            })?;
            if len == 0 {
                break;
            }
            if self.at == 0 {
                // Few bytes may come at first.
                len += fill(&mut body, &mut buffer[len..], MAGIC.len().saturating_sub(len));
                if !buffer[..len].starts_with(MAGIC) {
                    return Err(Trouble::last(format!(
                        "{}: what came is {kind} that doesn't begin with GGUF, where a GGUF file was expected",
                        self.job.name
                    )));
                }
            }
            if len as u64 > total - self.at {
                self.restart().map_err(Trouble::Final)?;
                return Err(Trouble::last(format!(
                    "{}: more than its {total} bytes came; it was thrown away",
                    self.job.name
                )));
            }
            let chunk = &buffer[..len];
            self.write(chunk).map_err(Trouble::Final)?;
            tell(watch, Event::Bytes(self.at)).map_err(Trouble::Final)?;
        }
        if self.at < total {
            let url = without_secrets(self.job.url);
            return Err(Trouble::Again(
                format!("{url}: the connection ended after {} bytes of {total}", self.at),
                None,
            ));
        }
        Ok(())
    }

    fn write(&mut self, chunk: &[u8]) -> Result<()> {
        if let Err(error) = self.file.write_all(chunk) {
            // Part of the chunk may have been written: it comes again.
            let _ = self.file.set_len(self.at);
            return Err(self.unwritten(&error));
        }
        self.digest.update(chunk);
        self.at += chunk.len() as u64;
        Ok(())
    }
}

/// Reads at least `wanted` bytes, if they come.
fn fill(body: &mut impl Read, buffer: &mut [u8], wanted: usize) -> usize {
    let mut filled = 0;
    while filled < wanted {
        match body.read(&mut buffer[filled..]) {
            Ok(len) if len > 0 => filled += len,
            _ => break,
        }
    }
    filled
}

/// What a server calls a file's state: only a strong ETag or a date promises the same bytes.
fn validator_of(answer: &Answer) -> Option<String> {
    let etag = answer.header("etag").filter(|etag| etag.starts_with('"'));
    etag.or_else(|| answer.header("last-modified")).map(str::to_owned)
}

/// The first byte and the file's size of `bytes FIRST-LAST/SIZE`.
fn parsed_range(text: &str) -> Option<(u64, u64)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to, total): (u64, u64, u64) = (from.parse().ok()?, to.parse().ok()?, total.parse().ok()?);
    (from <= to && to < total).then_some((from, total))
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::parsed_range;

    #[test]
    fn ranges_are_read() {
        assert_eq!(parsed_range("bytes 5-9/10"), Some((5, 10)));
        for bad in ["bytes 5-9/*", "bytes 9-5/10", "bytes 5-10/10", "5-9/10", "bytes a-b/c", ""] {
            assert_eq!(parsed_range(bad), None, "{bad}");
        }
    }
}
