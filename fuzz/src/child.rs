//! The process that may die.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::MmapMut;

use super::memory;
use super::mutate::{self, Random};
use super::targets::Target;

/// Bytes of the file with the input in work: its length, then itself.
pub(crate) const SHARED_BYTES: usize = 8 + (1 << 20);
/// Inputs that are kept for further mutation.
const MAX_CORPUS: usize = 4000;
/// Wall-clock time that says that an input waits for something which never comes.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// CPU time when the input in work began, in nanoseconds.
static BEGAN: AtomicU64 = AtomicU64::new(0);
/// Inputs so far.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// Whether an input is in work.
static BUSY: AtomicBool = AtomicBool::new(false);

/// The input in the shared file's bytes.
pub(crate) fn shared_input(bytes: &[u8]) -> Vec<u8> {
    let Some((length, input)) = bytes.split_first_chunk() else { return Vec::new() };
    input[..input.len().min(u64::from_le_bytes(*length) as usize)].to_vec()
}

/// Mutates inputs until the time is over.
pub(crate) fn fuzz(target: &'static Target, seconds: u64, seed: u64, shared: &Path) -> ExitCode {
    let mut shared = match share(shared) {
        Ok(shared) => shared,
        Err(error) => {
            eprintln!("error: {}: {error}", shared.display());
            return ExitCode::FAILURE;
        }
    };
    let mut corpus = seeds(target);
    prepare(target);
    let mut kinds = HashSet::new();
    let mut random = Random(seed ^ mutate::hash(target.name.as_bytes()));
    let start = Instant::now();
    let mut run = |input: &[u8], kinds: &mut HashSet<u64>| {
        shared[..8].copy_from_slice(&(input.len() as u64).to_le_bytes());
        shared[8..8 + input.len()].copy_from_slice(input);
        kinds.insert(kind(&answer(target, input)))
    };
    for input in &corpus {
        run(input, &mut kinds);
    }
    let given = corpus.len();
    while start.elapsed() < Duration::from_secs(seconds) {
        let mut input = corpus.get(random.below(corpus.len())).cloned().unwrap_or_default();
        mutate::mutate(&mut random, &mut input, &corpus, target.words, target.max_len);
        if run(&input, &mut kinds) && corpus.len() < MAX_CORPUS {
            corpus.push(input);
        }
    }
    println!(
        "{}: {} inputs from {given}, {} kinds of answers",
        target.name,
        COUNT.load(Ordering::Relaxed),
        kinds.len()
    );
    ExitCode::SUCCESS
}

/// Runs inputs again and prints their answers.
pub(crate) fn replay(target: &'static Target, files: &[PathBuf]) -> ExitCode {
    prepare(target);
    for file in files {
        match std::fs::read(file) {
            Ok(input) => println!("{}: {}", file.display(), answer(target, &input)),
            Err(error) => {
                eprintln!("error: {}: {error}", file.display());
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn share(path: &Path) -> std::io::Result<MmapMut> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    // SAFETY: only the parent has this file too, and reads it after this process has ended.
    unsafe { MmapMut::map_mut(&file) }
}

/// The inputs to begin with.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let mut seeds = (target.seeds)();
    let folder = super::folder().join("seeds").join(target.name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|file| file.path()).collect();
    // In the same order on every machine.
    files.sort();
    seeds.extend(files.iter().filter_map(|file| std::fs::read(file).ok()));
    for seed in &mut seeds {
        seed.truncate(target.max_len);
    }
    seeds
}

/// Has every panic and every limit end the process.
fn prepare(target: &'static Target) {
    if !target.panics_within {
        std::panic::set_hook(Box::new(|panic| {
            memory::allow_all();
            eprintln!("{panic}");
            std::process::abort();
        }));
    } else {
        std::panic::set_hook(Box::new(|_| {}));
    }
    std::thread::spawn(move || {
        let mut seen = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let count = COUNT.load(Ordering::Acquire);
            if seen.0 != count || !BUSY.load(Ordering::Acquire) {
                seen = (count, Instant::now());
                continue;
            }
            let used = Duration::from_nanos(cpu_time().saturating_sub(BEGAN.load(Ordering::Acquire)));
            let limit = Duration::from_millis(target.cpu_ms);
            if used > limit || seen.1.elapsed() > MAX_WAIT {
                memory::allow_all();
                eprintln!("{}: the input took {used:?}, where at most {limit:?} were expected", target.name);
                std::process::abort();
            }
        }
    });
}

/// CPU time of this process, in nanoseconds.
fn cpu_time() -> u64 {
    let time = herald::metrics::cpu_time().unwrap_or_default();
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn answer(target: &Target, input: &[u8]) -> String {
    BEGAN.store(cpu_time(), Ordering::Release);
    COUNT.fetch_add(1, Ordering::AcqRel);
    BUSY.store(true, Ordering::Release);
    memory::allow(target.memory_mb << 20);
    let answer = (target.run)(input);
    memory::allow_all();
    BUSY.store(false, Ordering::Release);
    assert!(!answer.contains('\n'), "{}: not one sentence: {answer:?}", target.name);
    answer
}

/// What kind of answer it is: its sentence without what it quotes of the input, which depends on that.
fn kind(answer: &str) -> u64 {
    let own = answer.split(['"', '`', '\'']).step_by(2);
    let letters: String = own.flat_map(str::chars).filter(char::is_ascii_alphabetic).take(60).collect();
    mutate::hash(letters.as_bytes())
}
