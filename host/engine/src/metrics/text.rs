//! Metrics as Prometheus reads them.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};

use super::memory::TierBytes;
use super::process::process_memory;
use super::serving::ServingMetrics;
use crate::engine::NeuroEngine;
use crate::kv_cache::CacheReport;

type Labels = Vec<(&'static str, &'static str)>;
type Gauges = Family<Labels, Gauge>;
type Counters = Family<Labels, Counter>;

impl ServingMetrics {
    /// Everything in Prometheus's text format (OpenMetrics 1.0), the memory of the process and of the engine's tiers included.
    #[must_use]
    pub fn prometheus(&self, engine: &NeuroEngine) -> String {
        prometheus(engine, Some(self))
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("requests_waiting", "Requests that wait for a slot", self.waiting.clone());
        registry.register("requests_running", "Requests that run", self.running.clone());
        for (outcome, count) in [
            ("completed", &self.completed),
            ("cut", &self.cut),
            ("cancelled", &self.cancelled),
            ("failed", &self.failed),
            ("refused", &self.refused),
        ] {
            let name = format!("requests_{outcome}");
            registry.register(name, format!("Requests that were {outcome}"), count.clone());
        }
        registry.register("prompt_tokens", "Tokens of prompts that were run", self.prompt_tokens.clone());
        let shared = "Tokens of prompts that were shared with earlier ones";
        registry.register("shared_tokens", shared, self.shared_tokens.clone());
        let drafted = "Tokens that were drafted (speculative decoding)";
        registry.register("drafted_tokens", drafted, self.drafted_tokens.clone());
        registry.register("accepted_tokens", "Drafted tokens that came", self.accepted_tokens.clone());
        let guessed = "Drafted tokens that a draft model guessed";
        registry.register("guessed_tokens", guessed, self.guessed_tokens.clone());
        let came = "Drafted tokens that a draft model guessed, and that came";
        registry.register("accepted_guesses", came, self.accepted_guesses.clone());
        registry.register("generated_tokens", "Tokens that were generated", self.generated_tokens.clone());
        registry.register("steps", "Forward passes of the scheduler", self.steps.clone());
        for (name, help, times) in [
            ("queue", "From a request's arrival until it got a slot", &self.queue),
            ("first_token", "From a request's arrival to its first token", &self.first_token),
            ("between_tokens", "Between one token of a request and the next", &self.between),
            ("request", "From a request's arrival to its end", &self.request),
            ("step", "A forward pass of the scheduler", &self.step),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, times.buckets.clone());
        }
        for (name, help, counts) in [
            ("batch_sequences", "Sequences that shared a forward pass", &self.sequences),
            ("batch_tokens", "Tokens of a forward pass", &self.tokens),
        ] {
            registry.register(name, help, counts.buckets.clone());
        }
    }
}

/// The memory of the process and of an engine's tiers, and what its scheduler does, where it has one, in Prometheus's text format
/// (OpenMetrics 1.0).
#[must_use]
pub fn prometheus(engine: &NeuroEngine, serving: Option<&ServingMetrics>) -> String {
    let mut registry = Registry::with_prefix("herald");
    if let Some(serving) = serving {
        serving.register(&mut registry);
    }
    register_memory(&mut registry, engine);
    register_cache(&mut registry, &engine.cache_report());
    let mut text = String::new();
    // Writing to a String can't fail, and nothing here fails by itself.
    let _ = encode(&mut text, &registry);
    text
}

/// The same as JSON: an object with `process`, `tiers`, `tier_traffic`, `prefix_cache` and, with a scheduler, `serving`.
#[must_use]
pub fn json(engine: &NeuroEngine, serving: Option<&ServingMetrics>) -> Value {
    let mut all = json!({
        "process": process_memory(),
        "tiers": TierBytes::of(engine),
        "tier_traffic": engine.traffic().report(),
        "prefix_cache": engine.cache_report(),
    });
    if let Some(serving) = serving {
        all["serving"] = json!(serving.report());
    }
    all
}

fn register_memory(registry: &mut Registry, engine: &NeuroEngine) {
    if let Some(memory) = process_memory() {
        for (name, help, bytes) in [
            ("memory_resident", "Memory that the process has in RAM", memory.rss_bytes),
            ("memory_peak", "The most memory that the process has had in RAM", memory.peak_bytes),
            ("memory_file", "The part of resident memory that comes from files", memory.file_bytes),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, gauge(bytes));
        }
    }
    let (pages, bytes, hits, misses) =
        (Gauges::default(), Gauges::default(), Gauges::default(), Gauges::default());
    for tier in TierBytes::of(engine) {
        let labels = vec![("tier", tier.tier)];
        set(&pages, &labels, tier.pages);
        set(&bytes, &labels, tier.bytes);
        set(&hits, &labels, tier.hits);
        set(&misses, &labels, tier.misses);
    }
    registry.register("tier_pages", "Pages that a memory tier holds", pages);
    registry.register_with_unit("tier", "Bytes that a memory tier holds", Unit::Bytes, bytes);
    registry.register("tier_hits", "Look-ups that found their page in the tier", hits);
    registry.register("tier_misses", "Look-ups that did not", misses);
    let (pages, bytes) = (Gauges::default(), Gauges::default());
    for moved in engine.traffic().report() {
        let labels = vec![("from", moved.from.name()), ("to", moved.to.name())];
        set(&pages, &labels, moved.pages);
        set(&bytes, &labels, moved.bytes);
    }
    registry.register("tier_moved_pages", "Pages that have moved between memory tiers", pages);
    registry.register_with_unit("tier_moved", "Bytes that have moved between tiers", Unit::Bytes, bytes);
}

fn register_cache(registry: &mut Registry, cache: &CacheReport) {
    let (found, bytes) = (Counters::default(), Gauges::default());
    for (tier, tokens) in [
        ("active", cache.active_tokens),
        ("compressed", cache.compressed_tokens),
        ("archived", cache.archived_tokens),
    ] {
        found.get_or_create(&vec![("tier", tier)]).inc_by(tokens);
    }
    set(&bytes, &vec![("place", "memory")], cache.bytes);
    set(&bytes, &vec![("place", "files")], cache.file_bytes);
    registry.register(
        "cache_hit_tokens",
        "Tokens of prompts that were computed before, by where they were",
        found,
    );
    registry.register_with_unit("cache", "Bytes of what sequences computed before", Unit::Bytes, bytes);
    for (name, help, count) in [
        (
            "cache_asked_tokens",
            "Tokens of prompts that were looked up in the prefix cache",
            cache.asked_tokens,
        ),
        (
            "cache_evicted_parts",
            "Pages and states that left the prefix cache's memory for want of room",
            cache.evicted,
        ),
        ("cache_evicted_bytes", "Their bytes", cache.evicted_bytes),
        (
            "cache_evicted_files",
            "Files of the prefix cache that were removed for want of room",
            cache.evicted_files,
        ),
        ("cache_damaged_files", "Files of the prefix cache that were damaged", cache.damaged_files),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(count);
        registry.register(name, help, counter);
    }
    registry.register("cache_pages", "Pages that the prefix cache knows", gauge(cache.pages));
    registry.register("cache_states", "Recurrent states that the prefix cache knows", gauge(cache.states));
}

fn gauge(value: u64) -> Gauge {
    let gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

fn set(family: &Gauges, labels: &Labels, value: u64) {
    family.get_or_create(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
}
