//! Short names, as Ollama's users type them, and the repositories of the hub that have these models as GGUF files.

use crate::names::{HubModel, Wanted};

/// A name, a size, and where the model is. A name's first size is the one that is meant without any.
const MODELS: &[(&str, &str, &str)] = &[
    ("deepseek-r1", "8b", "unsloth/DeepSeek-R1-0528-Qwen3-8B-GGUF"),
    ("deepseek-r1", "1.5b", "unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF"),
    ("embeddinggemma", "300m", "ggml-org/embeddinggemma-300M-GGUF"),
    ("gemma3", "4b", "unsloth/gemma-3-4b-it-GGUF"),
    ("gemma3", "270m", "unsloth/gemma-3-270m-it-GGUF"),
    ("gemma3", "1b", "unsloth/gemma-3-1b-it-GGUF"),
    ("gemma3", "12b", "unsloth/gemma-3-12b-it-GGUF"),
    ("gemma3", "27b", "unsloth/gemma-3-27b-it-GGUF"),
    ("gemma4", "e4b", "unsloth/gemma-4-E4B-it-GGUF"),
    ("gemma4", "e2b", "unsloth/gemma-4-E2B-it-GGUF"),
    ("gpt-oss", "20b", "ggml-org/gpt-oss-20b-GGUF"),
    ("gpt-oss", "120b", "ggml-org/gpt-oss-120b-GGUF"),
    ("llama3.1", "8b", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF"),
    ("llama3.2", "3b", "bartowski/Llama-3.2-3B-Instruct-GGUF"),
    ("llama3.2", "1b", "bartowski/Llama-3.2-1B-Instruct-GGUF"),
    ("mistral", "7b", "bartowski/Mistral-7B-Instruct-v0.3-GGUF"),
    ("nomic-embed-text", "v1.5", "nomic-ai/nomic-embed-text-v1.5-GGUF"),
    ("phi4", "14b", "unsloth/phi-4-GGUF"),
    ("phi4-mini", "3.8b", "unsloth/Phi-4-mini-instruct-GGUF"),
    ("qwen2.5", "7b", "bartowski/Qwen2.5-7B-Instruct-GGUF"),
    ("qwen2.5", "0.5b", "bartowski/Qwen2.5-0.5B-Instruct-GGUF"),
    ("qwen2.5", "1.5b", "bartowski/Qwen2.5-1.5B-Instruct-GGUF"),
    ("qwen2.5", "3b", "bartowski/Qwen2.5-3B-Instruct-GGUF"),
    ("qwen2.5", "14b", "bartowski/Qwen2.5-14B-Instruct-GGUF"),
    ("qwen2.5-coder", "7b", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF"),
    ("qwen2.5-coder", "0.5b", "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"),
    ("qwen2.5-coder", "1.5b", "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF"),
    ("qwen2.5-coder", "3b", "Qwen/Qwen2.5-Coder-3B-Instruct-GGUF"),
    ("qwen3", "8b", "unsloth/Qwen3-8B-GGUF"),
    ("qwen3", "0.6b", "unsloth/Qwen3-0.6B-GGUF"),
    ("qwen3", "1.7b", "unsloth/Qwen3-1.7B-GGUF"),
    ("qwen3", "4b", "unsloth/Qwen3-4B-GGUF"),
    ("qwen3", "14b", "unsloth/Qwen3-14B-GGUF"),
    ("qwen3", "30b", "unsloth/Qwen3-30B-A3B-GGUF"),
    ("qwen3", "32b", "unsloth/Qwen3-32B-GGUF"),
    ("qwen3-embedding", "0.6b", "Qwen/Qwen3-Embedding-0.6B-GGUF"),
    ("qwen3.5", "4b", "unsloth/Qwen3.5-4B-GGUF"),
    ("qwen3.5", "0.8b", "unsloth/Qwen3.5-0.8B-GGUF"),
    ("qwen3.5", "2b", "unsloth/Qwen3.5-2B-GGUF"),
    ("qwen3.5", "9b", "unsloth/Qwen3.5-9B-GGUF"),
    ("smollm2", "1.7b", "bartowski/SmolLM2-1.7B-Instruct-GGUF"),
    ("smollm2", "135m", "bartowski/SmolLM2-135M-Instruct-GGUF"),
    ("smollm2", "360m", "bartowski/SmolLM2-360M-Instruct-GGUF"),
    ("smollm3", "3b", "unsloth/SmolLM3-3B-GGUF"),
];

/// The model of a name such as `qwen3`, `qwen3:0.6b` or `qwen3:0.6b-q8_0`.
pub(crate) fn model(name: &str) -> Option<HubModel> {
    let lower = name.to_ascii_lowercase();
    let (family, tag) = lower.split_once(':').unwrap_or((&lower, "latest"));
    let mut sizes = MODELS.iter().filter(|(known, _, _)| *known == family);
    let found = |repo: &str, wanted| HubModel { repo: repo.to_owned(), revision: "main".to_owned(), wanted };
    if tag == "latest" {
        return sizes.next().map(|(_, _, repo)| found(repo, Wanted::Any));
    }
    sizes.find_map(|(_, size, repo)| match tag.strip_prefix(size)? {
        "" => Some(found(repo, Wanted::Any)),
        rest => rest.strip_prefix('-').map(|quant| found(repo, Wanted::Tag(quant.to_owned()))),
    })
}

/// All short names with their sizes, such as `qwen3:0.6b`, and the repository of each.
pub fn short_names() -> impl Iterator<Item = (String, &'static str)> {
    MODELS.iter().map(|(name, size, repo)| (format!("{name}:{size}"), *repo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::is_repo;

    #[test]
    fn sizes_and_quants_are_found() {
        let repo = |name: &str| model(name).map(|model| (model.repo, model.wanted));
        let small = "unsloth/Qwen3-0.6B-GGUF".to_owned();
        assert_eq!(repo("qwen3:0.6b"), Some((small.clone(), Wanted::Any)));
        assert_eq!(repo("Qwen3:0.6B-Q8_0"), Some((small, Wanted::Tag("q8_0".to_owned()))));
        assert_eq!(repo("qwen3").unwrap().0, "unsloth/Qwen3-8B-GGUF");
        assert_eq!(repo("qwen3:latest"), repo("qwen3"));
        for name in ["qwen3:", "qwen3:0.6", "qwen3:0.6bx", "qwen", "gpt-5", ":0.6b"] {
            assert_eq!(repo(name), None, "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        assert!(MODELS.is_sorted_by_key(|(name, _, _)| *name));
        let mut names: Vec<String> = short_names().map(|(name, _)| name).collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(MODELS.iter().all(|(_, _, repo)| is_repo(repo)));
    }
}
