//! A hub on this machine's loopback, and the storage that it redirects to, with the faults that the real ones have at times.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The hub itself.
    Hub,
    /// What holds large files.
    Storage,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whom.
    pub host: Host,
    /// `GET` or `HEAD`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// By their names in small letters.
    headers: HashMap<String, String>,
}

impl Asked {
    /// A header's value, by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A repository.
#[derive(Clone, Debug)]
pub struct Repo {
    /// The commit that `main` is at.
    pub commit: String,
    /// Whether its files are for those with the [`TOKEN`].
    pub gated: bool,
    /// Its card's fields.
    pub card: Value,
    /// Its files by their paths.
    pub files: Vec<(String, Arc<Vec<u8>>)>,
}

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The storage closes a connection after so many bytes.
    pub cut_after: Option<usize>,
    /// The storage sends all of a file, whichever bytes are asked for.
    pub no_ranges: bool,
    /// The storage sends this byte inverted.
    pub flipped: Option<usize>,
    /// The list says so many bytes more.
    pub listed_more: u64,
    /// The storage sends so many bytes more, and doesn't say how many.
    pub sent_more: usize,
    /// The storage doesn't say how long a file is.
    pub no_length: bool,
    /// What is answered first, whatever is asked for: a status, headers and a body.
    pub first: VecDeque<(u16, String, String)>,
    /// Everything redirects to itself.
    pub in_circles: bool,
    /// The list never ends.
    pub endless: bool,
    /// Nothing is ever answered.
    pub silent: bool,
    /// So many requests of the storage are refused first.
    pub expired: u32,
    /// What the storage calls a file's state, in place of its digest.
    pub etag: Option<String>,
    /// Repositories that have another name now.
    pub renamed: HashMap<String, String>,
}

/// What it has, does wrong, and was asked.
#[derive(Debug, Default)]
pub struct State {
    /// Its repositories by `USER/REPO`.
    pub repos: HashMap<String, Repo>,
    /// What the storage has beside the repositories' files.
    pub plain: HashMap<String, Arc<Vec<u8>>>,
    /// What goes wrong.
    pub faults: Faults,
    asked: Vec<Asked>,
    storage: String,
}

/// The hub.
#[derive(Debug)]
pub struct FakeHub {
    /// Its address, for `HF_ENDPOINT`.
    pub address: String,
    /// The address of its storage.
    pub storage: String,
    state: Arc<Mutex<State>>,
}

/// The token that lets in.
pub const TOKEN: &str = "hf_right";

impl FakeHub {
    /// Starts one, which runs until the process ends.
    ///
    /// # Panics
    /// Where no port is free.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let [hub, storage] = [Host::Hub, Host::Storage].map(|host| listen(host, &state));
        state.lock().unwrap().storage.clone_from(&storage);
        Self { address: hub, storage, state }
    }

    /// What it has, to be changed.
    ///
    /// # Panics
    /// If a thread has panicked while it had this.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes what goes wrong.
    pub fn faults(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.state().faults);
    }

    /// Adds a repository at commit `111...`.
    pub fn repo(&self, name: &str, files: &[(&str, &[u8])]) {
        let files =
            files.iter().map(|(path, bytes)| ((*path).to_owned(), Arc::new(bytes.to_vec()))).collect();
        let card = json!({"license": "apache-2.0"});
        let repo = Repo { commit: "1".repeat(40), gated: false, card, files };
        self.state().repos.insert(name.to_owned(), repo);
    }

    /// What was asked since the last time.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state().asked)
    }

    /// The ranges of files that were asked for since the last time, of the storage.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let files =
            self.asked().into_iter().filter(|asked| asked.host == Host::Storage && asked.method == "GET");
        files.map(|asked| asked.header("range").map(str::to_owned)).collect()
    }
}

/// Accepts connections until the process ends.
fn listen(host: Host, state: &Arc<Mutex<State>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let state = Arc::clone(state);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            thread::spawn(move || drop(serve(host, stream, &state)));
        }
    });
    address
}

/// Answers one request.
fn serve(host: Host, mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let Some(asked) = read(host, &stream)? else { return Ok(()) };
    let (faults, first, storage) = {
        let mut state = state.lock().unwrap();
        state.asked.push(asked.clone());
        let first = state.faults.first.pop_front();
        (state.faults.clone(), first, state.storage.clone())
    };
    if faults.silent {
        // Until the other side gives up.
        return stream.read(&mut [0; 64]).map(drop);
    }
    if let Some((status, headers, body)) = first {
        return answer(&mut stream, status, &headers, body.as_bytes(), asked.method == "HEAD");
    }
    if faults.in_circles {
        return answer(&mut stream, 302, &format!("Location: {}\r\n", asked.path), b"", true);
    }
    match host {
        Host::Hub if asked.path.starts_with("/api/") => list(&mut stream, &asked, state, &faults),
        Host::Hub => resolve(&mut stream, &asked, state, &faults, &storage),
        Host::Storage => store(&mut stream, &asked, state, &faults),
    }
}

fn read(host: Host, stream: &TcpStream) -> std::io::Result<Option<Asked>> {
    let mut lines = BufReader::new(stream).lines();
    let Some(start) = lines.next().transpose()? else { return Ok(None) };
    let mut words = start.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Asked { host, method, path, headers }))
}

fn answer(
    stream: &mut TcpStream,
    status: u16,
    headers: &str,
    body: &[u8],
    head: bool,
) -> std::io::Result<()> {
    let length = if headers.contains("Content-Length") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    write!(stream, "HTTP/1.1 {status} Fake\r\nConnection: close\r\n{length}{headers}\r\n")?;
    if head { Ok(()) } else { stream.write_all(body) }
}

fn refuse(stream: &mut TcpStream, status: u16, code: &str) -> std::io::Result<()> {
    answer(stream, status, &format!("X-Error-Code: {code}\r\n"), b"{\"error\": \"refused\"}", false)
}

/// A repository and what follows its name in a path, or why there is none.
fn repo_of(path: &str, asked: &Asked, state: &Mutex<State>) -> Result<(Repo, String), (u16, &'static str)> {
    let mut parts = path.splitn(3, '/');
    let name = format!("{}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let rest = parts.next().unwrap_or_default().to_owned();
    let token = asked.header("authorization");
    if token.is_some_and(|token| token != format!("Bearer {TOKEN}")) {
        return Err((401, "InvalidToken"));
    }
    // Strangers aren't told which repositories there are.
    let none = if token.is_some() { 404 } else { 401 };
    let repo = state.lock().unwrap().repos.get(&name).cloned().ok_or((none, "RepoNotFound"))?;
    Ok((repo, rest))
}

/// `/api/models/USER/REPO/revision/REVISION?blobs=true`, which is open for gated repositories too.
fn list(stream: &mut TcpStream, asked: &Asked, state: &Mutex<State>, faults: &Faults) -> std::io::Result<()> {
    if faults.endless {
        write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[")?;
        loop {
            stream.write_all(&[b' '; 1 << 16])?;
        }
    }
    let path = asked.path.trim_start_matches("/api/models/");
    let (repo, rest) = match repo_of(path, asked, state) {
        Ok(found) => found,
        Err((status, code)) => return refuse(stream, status, code),
    };
    let revision = rest.trim_start_matches("revision/").trim_end_matches("?blobs=true");
    if ![repo.commit.as_str(), "main"].contains(&revision) {
        return refuse(stream, 404, "RevisionNotFound");
    }
    let sibling = |(path, bytes): &(String, Arc<Vec<u8>>)| {
        let size = bytes.len() as u64 + faults.listed_more;
        let lfs = json!({"sha256": sha256(bytes), "size": size, "pointerSize": 134});
        json!({"rfilename": path, "size": size, "blobId": "2".repeat(40), "lfs": lfs})
    };
    let siblings: Vec<Value> = repo.files.iter().map(sibling).collect();
    let gated = if repo.gated { json!("manual") } else { json!(false) };
    let body = json!({
        "id": "x", "sha": repo.commit, "gated": gated, "cardData": repo.card, "tags": ["gguf"], "siblings": siblings,
    });
    answer(stream, 200, "Content-Type: application/json\r\n", body.to_string().as_bytes(), false)
}

/// `/USER/REPO/resolve/REVISION/FILE`.
fn resolve(
    stream: &mut TcpStream,
    asked: &Asked,
    state: &Mutex<State>,
    faults: &Faults,
    storage: &str,
) -> std::io::Result<()> {
    let path = asked.path.trim_start_matches('/');
    if let Some((old, new)) = faults.renamed.iter().find(|(old, _)| path.starts_with(old.as_str())) {
        let location = format!("Location: /{new}{}\r\n", &path[old.len()..]);
        return answer(stream, 307, &location, b"Temporary Redirect", asked.method == "HEAD");
    }
    let (repo, rest) = match repo_of(path, asked, state) {
        Ok(found) => found,
        Err((status, code)) => return refuse(stream, status, code),
    };
    if repo.gated && asked.header("authorization").is_none() {
        return refuse(stream, 401, "GatedRepo");
    }
    let file = rest.splitn(3, '/').nth(2).unwrap_or_default().replace("%20", " ");
    let Some((_, bytes)) = repo.files.iter().find(|(path, _)| *path == file) else {
        return refuse(stream, 404, "EntryNotFound");
    };
    let digest = sha256(bytes);
    let headers = format!(
        "X-Repo-Commit: {}\r\nX-Linked-Size: {}\r\nX-Linked-Etag: \"{digest}\"\r\nETag: \"git\"\r\nLocation: {storage}/{digest}?sig=1\r\n",
        repo.commit,
        bytes.len()
    );
    answer(stream, 302, &headers, b"Found", asked.method == "HEAD")
}

/// A file by its digest, or by its path.
fn store(
    stream: &mut TcpStream,
    asked: &Asked,
    state: &Mutex<State>,
    faults: &Faults,
) -> std::io::Result<()> {
    let id = asked.path.trim_start_matches('/').split('?').next().unwrap_or_default().to_owned();
    let found = {
        let state = state.lock().unwrap();
        let files = state.repos.values().flat_map(|repo| &repo.files).map(|(_, bytes)| bytes);
        let of_repos = || files.into_iter().find(|bytes| sha256(bytes) == id).cloned();
        state.plain.get(&id).cloned().or_else(of_repos)
    };
    let Some(bytes) = found else { return refuse(stream, 404, "") };
    if faults.expired > 0 {
        state.lock().unwrap().faults.expired -= 1;
        return refuse(stream, 403, "");
    }
    let etag = faults.etag.clone().unwrap_or_else(|| format!("\"{id}\""));
    let is_same = asked.header("if-range").is_none_or(|known| known == etag);
    let wanted = asked.header("range").filter(|_| is_same && !faults.no_ranges);
    let from: usize = wanted.map_or(0, |range| {
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().expect("a range from a byte on")
    });
    if from >= bytes.len() {
        return answer(stream, 416, &format!("Content-Range: bytes */{}\r\n", bytes.len()), b"", false);
    }
    let mut body = bytes[from..].to_vec();
    if let Some(flipped) = faults.flipped.and_then(|at| at.checked_sub(from)).and_then(|at| body.get_mut(at))
    {
        *flipped = !*flipped;
    }
    let status = if wanted.is_some() { 206 } else { 200 };
    let mut headers = format!("ETag: {etag}\r\n");
    if faults.sent_more > 0 || faults.no_length {
        body.extend(vec![7; faults.sent_more]);
        write!(stream, "HTTP/1.1 {status} Fake\r\nConnection: close\r\n{headers}\r\n")?;
        return stream.write_all(&body);
    }
    headers += &format!("Content-Length: {}\r\n", body.len());
    if wanted.is_some() {
        headers += &format!("Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
    }
    body.truncate(faults.cut_after.unwrap_or(usize::MAX));
    answer(stream, status, &headers, &body, asked.method == "HEAD")
}

/// A SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A proxy that knows CONNECT alone. Returns its address, and the hosts that were asked for.
///
/// # Panics
/// Where no port is free.
#[must_use]
pub fn proxy() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let through = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&through);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let seen = Arc::clone(&seen);
            thread::spawn(move || drop(tunnel(stream, &seen)));
        }
    });
    (address, through)
}

fn tunnel(mut near: TcpStream, seen: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let Some(asked) = read(Host::Hub, &near)? else { return Ok(()) };
    seen.lock().unwrap().push(format!("{} {}", asked.method, asked.path));
    let far = TcpStream::connect(&asked.path)?;
    near.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    let (mut up, mut down) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || drop(std::io::copy(&mut up, &mut &far)));
    std::io::copy(&mut down, &mut near).map(drop)
}
