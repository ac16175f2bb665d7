//! Every backend computes a small random model, in a process of its own: one that crashes or hangs is found like one that
//! computes wrongly.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use herald::agreement::{REFERENCE, Sample};
use herald::files::UnfinishedFolder;
use herald::plugin::Plugins;
use herald::{GenerateOptions, NeuroEngine};
use herald_convert::synth;
use serde::{Deserialize, Serialize};

use super::Finding;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::system;

/// Tokens that each backend generates.
const TOKENS: usize = 8;

/// How long a backend may take, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(120);

/// How often the process is looked after.
const PAUSE: Duration = Duration::from_millis(10);

/// What a backend computed.
#[derive(Serialize, Deserialize)]
struct Computed {
    /// The plugins of the model's layers.
    backends: Vec<String>,
    /// Tokens that it generated.
    tokens: Vec<u32>,
    vocabulary: usize,
    /// The bits of the logits, which JSON then keeps whatever they are.
    logits: Vec<u32>,
}

/// What the process of one backend does.
pub(super) fn work(options: &EngineOptions, to: &Path) -> Result<(), Failure> {
    let engine = options.load()?;
    let Some(sample) = Sample::of(&engine, Duration::MAX, &mut || true)? else { return Ok(()) };
    let prompt = engine.tokenizer().encode_prompt("HERALD", false)?;
    let generate =
        GenerateOptions { max_tokens: Some(TOKENS), ignore_eos: true, ..GenerateOptions::default() };
    let mut sequence = engine.sequence()?;
    let generated = engine.generate(&mut sequence, &prompt, &generate, &mut || true, &mut |_| true)?;
    let computed = Computed {
        backends: layers_of(&engine),
        tokens: generated.tokens,
        vocabulary: sample.vocabulary,
        logits: sample.logits.iter().map(|logit| logit.to_bits()).collect(),
    };
    let text = serde_json::to_vec(&computed).map_err(io::Error::from);
    text.and_then(|text| fs::write(to, text))
        .map_err(|error| Failure::file(to, "it can't be written", &error))
}

fn layers_of(engine: &NeuroEngine) -> Vec<String> {
    engine.backends().into_iter().map(|(name, _)| name).collect()
}

/// Has every plugin that offers layers compute, and compares it with the reference, where that is there and works.
pub(super) fn check(
    plugins: &Plugins,
    options: &EngineOptions,
    lookout: &Lookout,
    add: &mut dyn FnMut(Finding) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let place = std::env::temp_dir();
    let folder = match model(&place) {
        Ok(folder) => folder,
        Err(error) => {
            let wrong =
                format!("{}: a model for this check can't be written there: {error}", place.display());
            return add(Finding::wrong(
                "computing",
                wrong,
                "free some room there, or name another in TMPDIR",
            ));
        }
    };
    let mut names: Vec<&str> = plugins
        .usable
        .iter()
        .filter(|loaded| !loaded.plugin.layer_kinds().is_empty())
        .map(|loaded| loaded.plugin.name())
        .collect();
    // The reference goes first, so that the others can be compared with it.
    names.sort_by_key(|name| *name != REFERENCE);
    let mut reference = None;
    for name in names {
        let (finding, sample) = match compute(name, folder.path(), options, lookout)? {
            Ok(computed) => judge(name, computed, reference.as_ref()),
            Err(reason) => (wrong(name, &reason), None),
        };
        if name == REFERENCE {
            reference = sample;
        }
        add(finding)?;
    }
    Ok(())
}

/// A folder with the model in it.
fn model(place: &Path) -> io::Result<UnfinishedFolder> {
    let folder = UnfinishedFolder::create_in(place)?;
    let file = io::BufWriter::new(File::create(folder.path().join("model.gguf"))?);
    let file = synth::write_smallest(file).map_err(io::Error::other)?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(folder)
}

fn judge(name: &str, computed: Computed, reference: Option<&Sample>) -> (Finding, Option<Sample>) {
    if !computed.backends.iter().any(|backend| backend == name) {
        return (
            Finding::ok("computing", format!("{name}: it has no layers for the model of this check")),
            None,
        );
    }
    let logits = computed.logits.iter().map(|bits| f32::from_bits(*bits)).collect();
    let sample = Sample { vocabulary: computed.vocabulary, logits };
    let generated = computed.tokens.len();
    let finding = if generated != TOKENS {
        wrong(name, &format!("it generated {generated} tokens, where {TOKENS} were expected"))
    } else if !sample.logits.iter().all(|logit| logit.is_finite()) {
        wrong(name, "it computes wrongly: its logits aren't all finite numbers")
    } else {
        match reference.map(|reference| (sample.check(reference), sample.error(reference))) {
            None => Finding::ok("computing", format!("{name}: {generated} tokens generated")),
            Some((Err(reason), _)) => wrong(name, &reason),
            Some((Ok(()), error)) => Finding::ok(
                "computing",
                format!(
                    "{name}: {generated} tokens generated, logits agree with {REFERENCE}'s within {error:.1e}"
                ),
            ),
        }
    };
    (finding, Some(sample))
}

fn wrong(name: &str, reason: &str) -> Finding {
    Finding::wrong(
        "computing",
        format!("{name}: {reason}"),
        format!(
            "install HERALD again or remove the plugin {name}, and choose another backend (--backend) meanwhile"
        ),
    )
}

/// Runs one backend's process.
fn compute(
    name: &str,
    folder: &Path,
    options: &EngineOptions,
    lookout: &Lookout,
) -> Result<Result<Computed, String>, Failure> {
    let (results, said) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.txt")));
    let failed =
        |error: io::Error| Failure::Failed(format!("a process for {name} can't be started: {error}"));
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.args(options.arguments(&folder.join("model.gguf"), name)).args(["self-check", "--worker"]);
    command.arg(&results).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&said).map_err(failed)?);
    let mut child = command.spawn().map_err(failed)?;
    let ended = wait(&mut child, lookout);
    // Both fail where it has ended and been waited for.
    let _ = child.kill();
    let _ = child.wait();
    let Some(status) = ended? else {
        return Ok(Err(format!("it gave no result in {} s", LIMIT.as_secs())));
    };
    if !status.success() {
        let said = fs::read(&said).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let sentence = said.lines().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned);
        let cause = || system::cause(status).unwrap_or_else(|| status.to_string());
        return Ok(Err(sentence.unwrap_or_else(|| format!("its process was ended by {}", cause()))));
    }
    let computed = fs::read(&results).and_then(|text| Ok(serde_json::from_slice(&text)?));
    Ok(computed.map_err(|error| format!("its results can't be read: {error}")))
}

/// Waits for the end of a process; `None` where that takes too long.
fn wait(child: &mut std::process::Child, lookout: &Lookout) -> Result<Option<ExitStatus>, Failure> {
    let began = Instant::now();
    loop {
        if !lookout.go_on() {
            return Err(Failure::Interrupted);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Ok(Some(status));
        }
        if began.elapsed() >= LIMIT {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}
