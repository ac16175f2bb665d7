//! The table after criterion's output: each bench's speed, and its share of this machine's limit.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::SystemTime;

use criterion::Criterion;
use herald::threads::ThreadPool;
use herald_suites::{Machine, cache_bytes_per_s};
use serde_json::Value;

/// The limit that a bench is compared with.
#[allow(dead_code, reason = "each bench has a few of them")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Share {
    /// Bytes that one thread reads from memory.
    Memory,
    /// Bytes that all threads read from memory.
    MemoryOfAll,
    /// Bytes that one thread reads from the second-level cache.
    Cache,
    /// Float32 multiply-adds of one thread.
    Float,
    /// Int16 multiply-adds of one thread.
    Int,
    /// Int8 multiply-adds of one thread.
    Int8,
    /// Int16 multiply-adds of all threads.
    IntOfAll,
}

/// The benches of a run, each with its limit.
pub(crate) struct Summary {
    begun: SystemTime,
    folder: PathBuf,
    limits: Option<Limits>,
    shares: Vec<(String, Share)>,
}

/// This machine's limits: of one thread, of all threads, and of the second-level cache in bytes per second.
struct Limits {
    one: Machine,
    all: Machine,
    cache: f64,
}

impl Limits {
    /// Measures them, which takes a few seconds.
    fn measure() -> Self {
        let of = |threads| Machine::measure(&ThreadPool::new(threads).expect("threads to measure with"));
        let all = available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { one: of(NonZeroUsize::MIN), all: of(all), cache: cache_bytes_per_s() }
    }
}

/// One line of the table.
struct Line {
    seconds: f64,
    bytes: f64,
    multiply_adds: f64,
    share: f64,
    of: Share,
}

impl Summary {
    /// Begins a run. Measures the limits if criterion measures (`cargo bench`), not if it only tests (`cargo test`).
    pub(crate) fn begin() -> Self {
        let measuring = std::env::args().any(|argument| argument == "--bench");
        let limits = measuring.then(Limits::measure);
        if let Some(Limits { one, all, cache }) = &limits {
            println!(
                "limits of this machine, one thread and all {}: {:.1} and {:.1} GB/s from memory ({:.0} from the \
                 second-level cache); float32 {:.0} and {:.0}, int16 {:.0} and {:.0} GMAC/s",
                all.threads,
                one.read_bytes_per_s / 1e9,
                all.read_bytes_per_s / 1e9,
                cache / 1e9,
                one.float_macs_per_s / 1e9,
                all.float_macs_per_s / 1e9,
                one.int16_macs_per_s / 1e9,
                all.int16_macs_per_s / 1e9
            );
        }
        Self { begun: SystemTime::now(), folder: folder(), limits, shares: Vec::new() }
    }

    /// Criterion's configuration: short runs, since there are many benches and only the share of a limit matters.
    pub(crate) fn criterion(&self) -> Criterion {
        Criterion::default()
            .output_directory(&self.folder)
            .sample_size(10)
            .warm_up_time(std::time::Duration::from_millis(50))
            .measurement_time(std::time::Duration::from_millis(200))
            .configure_from_args()
    }

    /// Sets the limit that the bench `group/name` is compared with.
    pub(crate) fn compare_with(&mut self, group: &str, name: &str, share: Share) {
        self.shares.push((format!("{group}/{name}"), share));
    }

    /// Prints the table of the measured benches.
    pub(crate) fn print(&self) {
        let Some(limits) = &self.limits else { return };
        let mut measured = Vec::new();
        collect(&self.folder, &mut measured);
        println!("\n{:<44} {:>11} {:>8} {:>12}  share of", "bench", "time, us", "GB/s", "GMAC/s");
        for (name, share) in &self.shares {
            let line = measured.iter().find_map(|folder| self.line(folder, name, *share, limits));
            // Not part of this run.
            let Some(line) = line else { continue };
            let number = |value: f64| if value > 0.0 { format!("{:.1}", value / 1e9) } else { String::new() };
            println!(
                "{name:<44} {:>11.2} {:>8} {:>12}  {:>4.0}% {}",
                line.seconds * 1e6,
                number(line.bytes),
                number(line.multiply_adds),
                line.share * 100.0,
                line.of.name()
            );
        }
    }

    /// The line of a bench, if criterion's folder has its result of this run.
    fn line(&self, folder: &Path, name: &str, of: Share, limits: &Limits) -> Option<Line> {
        let json = |file: &str| -> Option<Value> {
            let path = folder.join(file);
            let fresh = path.metadata().ok()?.modified().ok()? >= self.begun;
            serde_json::from_slice(&fs::read(path).ok().filter(|_| fresh)?).ok()
        };
        let bench = json("benchmark.json")?;
        if bench["full_id"] != name {
            return None;
        }
        let seconds = json("estimates.json")?["median"]["point_estimate"].as_f64()? / 1e9;
        let throughput = &bench["throughput"];
        let of_both = |field: &str| throughput["ElementsAndBytes"][field].as_f64();
        let bytes = of_both("bytes").or(throughput["Bytes"].as_f64()).unwrap_or(0.0) / seconds;
        let multiply_adds = of_both("elements").or(throughput["Elements"].as_f64()).unwrap_or(0.0) / seconds;
        let share = match of {
            Share::Memory => bytes / limits.one.read_bytes_per_s,
            Share::MemoryOfAll => bytes / limits.all.read_bytes_per_s,
            Share::Cache => bytes / limits.cache,
            Share::Float => multiply_adds / limits.one.float_macs_per_s,
            Share::Int => multiply_adds / limits.one.int16_macs_per_s,
            Share::Int8 => multiply_adds / limits.one.int8_macs_per_s,
            Share::IntOfAll => multiply_adds / limits.all.int16_macs_per_s,
        };
        Some(Line { seconds, bytes, multiply_adds, share, of })
    }
}

impl Share {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory, one thread",
            Self::MemoryOfAll => "memory, all threads",
            Self::Cache => "cache",
            Self::Float => "float32, one thread",
            Self::Int => "int16, one thread",
            Self::Int8 => "int8, one thread",
            Self::IntOfAll => "int16, all threads",
        }
    }
}

/// Criterion's folder, next to the folder of the profile that this bench was built with.
fn folder() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().nth(3).unwrap_or(Path::new("target")).join("criterion")
}

/// Finds the folders of the latest results.
fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name() == "new" {
            found.push(path);
        } else if path.is_dir() {
            collect(&path, found);
        }
    }
}
