//! Whole conversations of each family against what `transformers` and `tokenizers` make of them
//! (`tools/make_chat_turns.py`): the text where a template gives it, and the ids, token by token.

use herald::NeuroEngine;
use herald::chat::{ChatTemplate, Message};
use herald_testing::{cpu_options, repository};
use serde::Deserialize;

const FAMILIES: [&str; 13] = [
    "deepseek_v3",
    "gemma3",
    "gemma4",
    "glm4",
    "gpt_oss",
    "kimi_k2",
    "llama2",
    "llama3",
    "mistral_tekken",
    "phi3",
    "qwen3",
    "qwen35",
    "smollm",
];

#[derive(Deserialize)]
struct Family {
    template: String,
    bos: String,
    eos: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    /// None where there is more to them than roles and contents.
    messages: Vec<Message>,
    text: String,
    ids: Vec<u32>,
}

#[test]
fn chat_turns_become_the_models_own_tokens() {
    let folder = repository().join("host/tests/data/turns");
    for name in FAMILIES {
        let json = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
        let Family { template, bos, eos, cases } = serde_json::from_str(&json).unwrap();
        let vocabulary = folder.join(format!("{name}.gguf"));
        let tokenizer = NeuroEngine::load_tokenizer(&vocabulary, &cpu_options()).unwrap();
        let template = ChatTemplate::new(&template, &bos, &eos).unwrap();
        assert!(cases.len() > 20, "{name}");
        for Case { messages, text, ids } in cases {
            if !messages.is_empty() {
                assert_eq!(template.render(&messages, true).unwrap(), text, "{name}");
            }
            let found = tokenizer.encode_prompt(&text, true).unwrap();
            assert_eq!(found, ids, "{name}: {text:?}");
        }
        let eos = tokenizer.eos().unwrap();
        assert!(tokenizer.ends_generation(eos), "{name}");
    }
}
