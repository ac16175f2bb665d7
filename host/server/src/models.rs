//! The models that a server answers with: loaded when they are asked for, and unloaded when another needs their memory or nobody
//! has asked for them in a while. One in use never is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::http::StatusCode;
use herald::LoraScale;
use herald::gguf::{Gguf, Metadata};
use herald::schedule::Scheduler;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::conversation::ChatModel;
use crate::error::ApiError;

/// Threads that load and unload.
pub(crate) const THREADS: usize = 2;

/// A model that is loaded. It is in use as long as anything beside [`Models`] holds it.
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) scheduler: Arc<Scheduler>,
    chat: OnceLock<Result<Arc<ChatModel>, ApiError>>,
}

impl Model {
    fn new(name: String, scheduler: Arc<Scheduler>) -> Self {
        Self { name, scheduler, chat: OnceLock::new() }
    }

    /// Whether it writes text. Told before an answer begins, since a stream's status can't be taken back.
    ///
    /// # Errors
    /// Where it makes embeddings, or scores.
    pub(crate) fn writes_text(&self) -> Result<(), ApiError> {
        let plan = self.scheduler.engine().plan();
        if plan.has_head() {
            return Ok(());
        }
        let (name, architecture) = (&self.name, &plan.architecture);
        let what = format!(
            "the model {name:?} ({architecture}) makes embeddings or scores, where one that writes text was expected"
        );
        Err(ApiError::invalid(what).at("model"))
    }

    /// The adapters of a request: those that it lists, or the one that it names as its model, at the scale that it was loaded with;
    /// `None`: as sequences begin.
    pub(crate) fn loras_for(
        &self,
        listed: Option<&[LoraScale]>,
        name: Option<&str>,
    ) -> Option<Vec<LoraScale>> {
        let engine = self.scheduler.engine();
        let named = || {
            let index =
                name.filter(|name| !answers_to(&self.name, name)).and_then(|name| engine.lora(name))?;
            // One that other requests go without was loaded to be named.
            let scale = Some(engine.loras()[index].scale()).filter(|scale| *scale != 0.0).unwrap_or(1.0);
            Some(vec![LoraScale { index, scale }])
        };
        listed.map(<[LoraScale]>::to_vec).or_else(named)
    }

    /// Its chat template, read when it is first asked for.
    ///
    /// # Errors
    /// Where it has none, or it is no template.
    pub(crate) fn chat(&self) -> Result<Arc<ChatModel>, ApiError> {
        let load = || ChatModel::load(self.scheduler.engine()).map(Arc::new);
        self.chat.get_or_init(load).clone()
    }
}

/// What is known of a model without loading it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) bytes: u64,
    /// Seconds since 1970.
    pub(crate) modified: u64,
    pub(crate) architecture: String,
    pub(crate) size_label: String,
    /// Tells its file from others and from what it was before, by its name, size and time: reading it all would take long.
    pub(crate) digest: String,
}

impl Facts {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        let file = std::fs::metadata(path).ok();
        let modified = file.as_ref().and_then(|file| file.modified().ok());
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let text = |key: &str| metadata.get::<&str>(key).ok().flatten().unwrap_or_default().to_owned();
        let bytes = file.map_or(0, |file| file.len());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let told = format!("{name}\0{bytes}\0{}", modified.map_or(0, |time| time.as_nanos()));
        Self {
            bytes,
            modified: modified.map_or(0, |time| time.as_secs()),
            architecture: text("general.architecture"),
            size_label: text("general.size_label"),
            digest: Sha256::digest(told).iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Loads a model, and starts its scheduler.
pub type Load = Box<dyn Fn() -> herald::Result<Scheduler> + Send + Sync>;

/// A model that is loaded when it is asked for.
pub struct ModelSource {
    name: String,
    facts: Facts,
    load: Load,
}

impl ModelSource {
    /// The model of a file, by this name. The file's header is read.
    ///
    /// # Errors
    /// Where it is no GGUF file.
    pub fn new(name: String, path: &Path, load: Load) -> herald::Result<Self> {
        let gguf = Gguf::open(path)?;
        Ok(Self { name, facts: Facts::of(path, gguf.metadata()), load })
    }
}

/// How long models stay loaded.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Bytes of all that are loaded, by their files' sizes; one alone may have more.
    pub bytes: u64,
    /// How long one stays that nobody asks for.
    pub idle: Option<Duration>,
}

/// The models of a server.
pub struct Models {
    entries: Vec<Entry>,
    keep: Keep,
    /// Held while one is loaded: they are loaded one after the other.
    turn: Arc<tokio::sync::Mutex<()>>,
}

struct Entry {
    name: String,
    facts: Facts,
    /// `None`: it stays loaded.
    load: Option<Load>,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    model: Option<Arc<Model>>,
    /// When it was last asked for.
    used: Instant,
}

impl Entry {
    fn new(name: String, facts: Facts, load: Option<Load>) -> Self {
        Self { name, facts, load, loaded: Mutex::new(Loaded { model: None, used: Instant::now() }) }
    }

    fn loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether its model may be unloaded, where [`Entry::loaded`] is locked: nobody can begin to use it then.
    fn may_unload(&self, model: &Arc<Model>) -> bool {
        self.load.is_some() && Arc::strong_count(model) == 1
    }

    /// Takes the model out if it may be unloaded.
    fn take_unused(&self) -> Option<Arc<Model>> {
        let mut loaded = self.loaded();
        let is_unused = loaded.model.as_ref().is_some_and(|model| self.may_unload(model));
        if is_unused { loaded.model.take() } else { None }
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.name)).finish()
    }
}

impl Models {
    /// One model, which is loaded and stays so. It answers to every name.
    #[must_use]
    pub fn one(name: String, scheduler: Arc<Scheduler>) -> Self {
        let engine = scheduler.engine();
        let entry = Entry::new(name.clone(), Facts::of(engine.path(), engine.gguf().metadata()), None);
        entry.loaded().model = Some(Arc::new(Model::new(name, scheduler)));
        let keep = Keep { bytes: u64::MAX, idle: None };
        Self { entries: vec![entry], keep, turn: Arc::default() }
    }

    /// Several, of which a request names one; the first is for those that name none.
    ///
    /// # Errors
    /// Where there is none, or two have one name.
    pub fn several(sources: Vec<ModelSource>, keep: Keep) -> Result<Self, String> {
        let mut entries: Vec<Entry> = Vec::with_capacity(sources.len());
        for source in sources {
            if entries.iter().any(|entry| entry.name == source.name) {
                return Err(format!(
                    "two models are called {:?}, where each was expected to have a name of its own",
                    source.name
                ));
            }
            entries.push(Entry::new(source.name, source.facts, Some(source.load)));
        }
        if entries.is_empty() {
            return Err("there is no model, where at least one was expected".to_owned());
        }
        Ok(Self { entries, keep, turn: Arc::default() })
    }

    /// Their names, with what is known of each, and the model where it is loaded.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Facts, Option<Arc<Model>>)> {
        self.entries.iter().map(|entry| (entry.name.as_str(), &entry.facts, entry.loaded().model.clone()))
    }

    /// Those that are loaded.
    fn all_loaded(&self) -> impl Iterator<Item = Arc<Model>> {
        self.entries.iter().filter_map(|entry| entry.loaded().model.clone())
    }

    /// The model that is called this, as [`Models::all`] has it.
    ///
    /// # Errors
    /// The sentence that there is none.
    pub(crate) fn named(&self, name: &str) -> Result<(&str, &Facts, Option<Arc<Model>>), ApiError> {
        let found = self.all().find(|(known, _, _)| answers_to(known, name));
        found.ok_or_else(|| self.no_such(name))
    }

    /// Requests that wait and that run, of all.
    pub(crate) fn load(&self) -> (usize, usize) {
        let loads = self.all_loaded().map(|model| model.scheduler.load());
        loads.fold((0, 0), |(waiting, running), (more, also)| (waiting + more, running + also))
    }

    /// Whether those that are loaded can answer.
    pub(crate) fn are_alive(&self) -> bool {
        self.all_loaded().all(|model| model.scheduler.is_alive())
    }

    fn no_such(&self, name: &str) -> ApiError {
        let shown: String = name.chars().take(60).collect();
        let names: Vec<String> =
            self.entries.iter().take(20).map(|entry| format!("{:?}", entry.name)).collect();
        let more = if self.entries.len() > names.len() { ", and more" } else { "" };
        let expected = match names.as_slice() {
            [only] => format!("where {only} was expected"),
            several => format!("where one of these was expected: {}{more}", several.join(", ")),
        };
        let message = format!("there is no model {shown:?}, {expected}");
        ApiError::not_found(&message).at("model")
    }

    fn find(&self, name: Option<&str>) -> Result<usize, ApiError> {
        // Clients that know one server's models by another's names are answered by a server that has but one.
        let name = name.filter(|name| !name.is_empty() && self.entries.len() > 1);
        let Some(name) = name else { return Ok(0) };
        let found = self.entries.iter().position(|entry| answers_to(&entry.name, name));
        let has_lora = |entry: &Entry| {
            entry.loaded().model.as_ref().is_some_and(|model| model.scheduler.engine().lora(name).is_some())
        };
        let found = found.or_else(|| self.entries.iter().position(has_lora));
        found.ok_or_else(|| self.no_such(name))
    }

    /// The model that a request names, loaded.
    ///
    /// # Errors
    /// Where there is none of that name, it can't be loaded, or there is no room for it.
    pub(crate) async fn get(self: &Arc<Self>, name: Option<&str>) -> Result<Arc<Model>, ApiError> {
        let index = self.find(name)?;
        if let Some(model) = self.ask(index) {
            return Ok(model);
        }
        let turn = Arc::clone(&self.turn).lock_owned().await;
        // Whoever had the turn may have wanted the same.
        if let Some(model) = self.ask(index) {
            return Ok(model);
        }
        let freed = self.make_room(index)?;
        let models = Arc::clone(self);
        // It is loaded even when the client leaves: another will ask for it.
        let loading = tokio::task::spawn_blocking(move || {
            drop(freed);
            models.open(index, &turn)
        });
        loading.await.map_err(|error| ApiError::internal(format!("the model can't be loaded: {error}")))?
    }

    /// Unloads the model of a name, if nobody uses it and it may be.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub(crate) fn unload(&self, name: Option<&str>) -> Result<&str, ApiError> {
        let entry = &self.entries[self.find(name)?];
        if let Some(model) = entry.take_unused() {
            tracing::info!("{} unloaded as asked", entry.name);
            // Threads end with it, for which this one needn't wait.
            drop(tokio::task::spawn_blocking(move || drop(model)));
        }
        Ok(&entry.name)
    }

    /// The model of a name as far as it is loaded. This is no asking for it: whoever watches over a server keeps nothing loaded.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub(crate) fn watched(&self, name: Option<&str>) -> Result<Option<Arc<Model>>, ApiError> {
        Ok(self.entries[self.find(name)?].loaded().model.clone())
    }

    /// The model if it is loaded.
    fn ask(&self, index: usize) -> Option<Arc<Model>> {
        let mut loaded = self.entries[index].loaded();
        loaded.used = Instant::now();
        loaded.model.clone()
    }

    fn open(&self, index: usize, _turn: &OwnedMutexGuard<()>) -> Result<Arc<Model>, ApiError> {
        let entry = &self.entries[index];
        let Some(load) = &entry.load else {
            return Err(ApiError::internal(format!("the model {:?} is not loaded", entry.name)));
        };
        let failed =
            |error| ApiError::internal(format!("the model {:?} can't be loaded: {error}", entry.name));
        let start = Instant::now();
        let scheduler = Arc::new(load().map_err(failed)?);
        tracing::info!("{} loaded in {:.3} s", entry.name, start.elapsed().as_secs_f64());
        let model = Arc::new(Model::new(entry.name.clone(), scheduler));
        entry.loaded().model = Some(Arc::clone(&model));
        Ok(model)
    }

    /// Takes out the models that must make room for another, those that were asked for longest ago first.
    ///
    /// # Errors
    /// Where those that are in use leave no room.
    fn make_room(&self, index: usize) -> Result<Vec<Arc<Model>>, ApiError> {
        let wanted = &self.entries[index];
        let mut loaded: Vec<(Instant, bool, &Entry)> = Vec::new();
        for entry in &self.entries {
            let state = entry.loaded();
            if let Some(model) = &state.model {
                loaded.push((state.used, entry.may_unload(model), entry));
            }
        }
        let in_use = loaded.iter().filter(|(_, may_unload, _)| !may_unload);
        let in_use: Vec<u64> = in_use.map(|(_, _, entry)| entry.facts.bytes).collect();
        let fits = |others: u64| others.saturating_add(wanted.facts.bytes) <= self.keep.bytes;
        if !in_use.is_empty() && !fits(in_use.iter().sum()) {
            let message = format!(
                "there is no memory for the model {:?} beside those in use: try again later",
                wanted.name
            );
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        loaded.sort_by_key(|(used, _, _)| *used);
        let mut bytes: u64 = loaded.iter().map(|(_, _, entry)| entry.facts.bytes).sum();
        let mut freed = Vec::new();
        for (_, _, entry) in loaded {
            if fits(bytes) {
                break;
            }
            if let Some(model) = entry.take_unused() {
                tracing::info!("{} unloaded for {}", entry.name, wanted.name);
                bytes -= entry.facts.bytes;
                freed.push(model);
            }
        }
        Ok(freed)
    }

    /// Unloads models that nobody asks for. Never ends.
    pub(crate) async fn unload_idle(self: Arc<Self>) {
        let Some(idle) = self.keep.idle else { return std::future::pending().await };
        loop {
            tokio::time::sleep((idle / 4).clamp(Duration::from_millis(50), Duration::from_secs(10))).await;
            for entry in &self.entries {
                let is_idle = {
                    let mut loaded = entry.loaded();
                    // One in use is being asked for.
                    if loaded.model.as_ref().is_some_and(|model| Arc::strong_count(model) > 1) {
                        loaded.used = Instant::now();
                    }
                    loaded.used.elapsed() >= idle
                };
                if is_idle && let Some(model) = entry.take_unused() {
                    tracing::info!("{} unloaded after {} s without a request", entry.name, idle.as_secs());
                    // Threads end with it, for which this one needn't wait.
                    drop(tokio::task::spawn_blocking(move || drop(model)));
                }
            }
        }
    }
}

/// Whether a model of the first name is meant by the second: Ollama's clients put a tag behind.
fn answers_to(known: &str, name: &str) -> bool {
    known == name || Some(known) == name.strip_suffix(":latest")
}

/// The GGUF files of a folder, by their names: of a model in several files the first, and none that holds a projector alone.
///
/// # Errors
/// The system's.
pub fn models_of_folder(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_model = name.ends_with(".gguf") && !name.starts_with("mmproj") && !is_later_part(name);
        if is_model && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file's name ends in `-00002-of-00003.gguf` or another number but the first.
fn is_later_part(name: &str) -> bool {
    let stem = name.trim_end_matches(".gguf");
    let Some((rest, count)) = stem.rsplit_once("-of-") else { return false };
    let number = rest.rsplit_once('-').map_or("", |(_, number)| number);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    are_digits(count) && are_digits(number) && number.trim_start_matches('0') != "1"
}

#[cfg(test)]
mod tests {
    use super::is_later_part;

    #[test]
    fn of_a_model_in_several_files_the_first_counts() {
        assert!(is_later_part("a-00002-of-00003.gguf") && is_later_part("a-00010-of-00010.gguf"));
        assert!(
            !is_later_part("a-00001-of-00003.gguf")
                && !is_later_part("best-of-3.gguf")
                && !is_later_part("a.gguf")
        );
    }
}
