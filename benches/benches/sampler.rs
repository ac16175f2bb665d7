//! Sampling a token from a large vocabulary's logits.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use herald::sampler::{Sampler, SamplerConfig};

/// Gemma 3's vocabulary.
const VOCABULARY: usize = 262_144;

fn samplers(criterion: &mut Criterion) {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 20.0
    };
    let logits: Vec<f32> = (0..VOCABULARY).map(|_| next()).collect();
    let usual = SamplerConfig { seed: Some(1), ..SamplerConfig::default() };
    for (name, config) in [
        ("greedy", SamplerConfig { temperature: 0.0, ..usual.clone() }),
        ("top-k 40", SamplerConfig { temperature: 0.8, top_k: 40, ..usual.clone() }),
        ("top-p 0.95", SamplerConfig { temperature: 0.8, top_p: 0.95, ..usual }),
    ] {
        let mut sampler = Sampler::new(config, VOCABULARY).unwrap_or_else(|error| panic!("{error}"));
        criterion.bench_function(&format!("{name} of {VOCABULARY}"), |bencher| {
            bencher.iter(|| sampler.sample(black_box(&logits)).map(|sampled| sampled.token))
        });
    }
}

criterion_group!(benches, samplers);
criterion_main!(benches);
