//! How a model's makers want its tokens chosen, for callers that don't say.

use super::SamplerConfig;
use crate::gguf::Metadata;

/// What a family's makers recommend: temperature, top-k, top-p, min-p.
type Recommended = (f32, u32, f32, f32);

/// Families by a part of the model's name or its architecture, the first that fits; by their model cards.
const FAMILIES: [(&str, Recommended); 16] = [
    ("smollm2", (0.2, 0, 0.9, 0.0)),
    ("smollm3", (0.6, 0, 0.95, 0.0)),
    ("qwen2.5", (0.7, 20, 0.8, 0.0)),
    ("qwen3-coder", (0.7, 20, 0.8, 0.0)),
    ("qwen3", (0.6, 20, 0.95, 0.0)),
    ("qwen", (0.7, 20, 0.8, 0.0)),
    ("gemma", (1.0, 64, 0.95, 0.0)),
    ("gpt-oss", (1.0, 0, 1.0, 0.0)),
    ("granite", (0.0, 0, 1.0, 0.0)),
    ("deepseek", (0.6, 0, 0.95, 0.0)),
    ("llama-3", (0.6, 0, 0.9, 0.0)),
    ("llama 3", (0.6, 0, 0.9, 0.0)),
    ("mistral-small", (0.15, 0, 1.0, 0.0)),
    ("lfm2", (0.3, 0, 1.0, 0.15)),
    ("glm", (0.6, 0, 0.95, 0.0)),
    ("phi-", (0.8, 50, 0.95, 0.0)),
];

/// Where nothing is known: what llama.cpp does.
const USUAL: Recommended = (0.8, 40, 0.95, 0.05);

/// How the model's makers want its tokens chosen: as its file says (`general.sampling.*`), else as its family's model cards do, else
/// as llama.cpp does by default. Keys of another type than expected are passed over.
#[must_use]
pub fn recommended(metadata: &Metadata) -> SamplerConfig {
    let (temperature, top_k, top_p, min_p) = family(metadata);
    let mut config = SamplerConfig { temperature, top_k, top_p, min_p, ..SamplerConfig::default() };
    let number = |name: &str| {
        let key = format!("general.sampling.{name}");
        let number = metadata.get::<f32>(&key).ok().flatten();
        number.or_else(|| metadata.get::<i32>(&key).ok().flatten().map(|whole| whole as f32))
    };
    let set = |field: &mut f32, name: &str| *field = number(name).unwrap_or(*field);
    let count = |name: &str| number(name).map(|number| number.max(0.0) as u32);
    set(&mut config.temperature, "temp");
    set(&mut config.top_p, "top_p");
    set(&mut config.min_p, "min_p");
    set(&mut config.xtc_probability, "xtc_probability");
    set(&mut config.xtc_threshold, "xtc_threshold");
    set(&mut config.repetition_penalty, "penalty_repeat");
    set(&mut config.mirostat_tau, "mirostat_tau");
    set(&mut config.mirostat_eta, "mirostat_eta");
    config.top_k = count("top_k").unwrap_or(config.top_k);
    config.mirostat = count("mirostat").unwrap_or(config.mirostat);
    if let Some(last) = number("penalty_last_n") {
        config.repeat_last_n = (last >= 0.0).then_some(last as u32);
    }
    // A file's wrong value is no reason to refuse requests that don't name it.
    if config.validate(u32::MAX as usize).is_err() {
        config = SamplerConfig { temperature, top_k, top_p, min_p, ..SamplerConfig::default() };
    }
    config
}

fn family(metadata: &Metadata) -> Recommended {
    let keys = ["general.basename", "general.name", "general.architecture"];
    let names: Vec<String> = keys
        .iter()
        .filter_map(|key| metadata.get::<&str>(key).ok().flatten())
        .map(str::to_lowercase)
        .collect();
    let fits = |(family, _): &&(&str, Recommended)| names.iter().any(|name| name.contains(family));
    FAMILIES.iter().find(fits).map_or(USUAL, |(_, recommended)| *recommended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{DataWriter, Gguf, Writer};

    /// What a file recommends that says these.
    fn of(keys: &[(&str, &str)]) -> SamplerConfig {
        let bytes =
            Writer::new().begin(Vec::new()).and_then(DataWriter::finish).expect("a file without tensors");
        let mut gguf = Gguf::from_bytes(&bytes).expect("the file");
        for (key, value) in keys {
            gguf.set(&format!("{key}={value}").parse().expect("a key")).expect("it is set");
        }
        recommended(gguf.metadata())
    }

    #[test]
    fn a_file_says_more_than_its_family() {
        let (temperature, top_k, top_p, min_p) = USUAL;
        let usual = SamplerConfig { temperature, top_k, top_p, min_p, ..SamplerConfig::default() };
        assert_eq!(of(&[]), usual);
        let smol = of(&[("general.name", "SmolLM2 135M")]);
        assert!(smol != usual);
        let said = of(&[
            ("general.name", "SmolLM2 135M"),
            ("general.sampling.temp", "float:0.25"),
            ("general.sampling.top_k", "int:7"),
            ("general.sampling.penalty_last_n", "int:-1"),
            ("general.sampling.min_p", "int:0"),
        ]);
        assert_eq!(
            said,
            SamplerConfig { temperature: 0.25, top_k: 7, repeat_last_n: None, min_p: 0.0, ..smol.clone() }
        );
    }

    #[test]
    fn what_no_sampler_can_do_is_passed_over() {
        assert_eq!(of(&[("general.sampling.temp", "float:-1")]), of(&[]));
        assert_eq!(of(&[("general.sampling.temp", "str:hot")]), of(&[]));
    }
}
