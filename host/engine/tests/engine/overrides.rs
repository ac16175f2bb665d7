//! What a run sets in place of its file's metadata, and what a vocabulary gets where its file says nothing.

use herald::chat::{Message, named_template};
use herald::{LoadOptions, NeuroEngine};
use herald_testing::{cpu_options, repository, tiny};

/// Options that set these keys.
fn setting(sets: &[&str]) -> LoadOptions {
    LoadOptions { overrides: sets.iter().map(|set| set.parse().unwrap()).collect(), ..cpu_options() }
}

/// The ids of a prompt by the vocabulary of SmolLM's family, with these keys set.
fn prompt(sets: &[&str]) -> Vec<u32> {
    let path = repository().join("host/tests/data/turns/smollm.gguf");
    NeuroEngine::load_tokenizer(&path, &setting(sets)).unwrap().encode_prompt("he", true).unwrap()
}

#[test]
fn bos_by_the_kind_of_tokenizer() {
    let bos = "tokenizer.ggml.bos_token_id=5";
    let plain = prompt(&[]);
    assert_eq!(prompt(&[bos]), plain, "this kind begins with none");
    for pre in ["llama-bpe", "falcon3", "falcon-h1", "lfm2", "midm-2.0", "pixtral", "tekken", "chameleon"] {
        let pre = format!("tokenizer.ggml.pre={pre}");
        assert_eq!(prompt(&[&pre, bos])[0], 5, "{pre}");
        assert_ne!(prompt(&[&pre, bos, "tokenizer.ggml.add_bos_token=false"])[0], 5, "{pre}");
    }
    assert_eq!(prompt(&[bos, "tokenizer.ggml.add_bos_token=bool:true"])[0], 5);
    let eos = prompt(&["tokenizer.ggml.add_eos_token=true", "tokenizer.ggml.eos_token_id=7"]);
    assert_eq!(eos, [&plain[..], &[7]].concat());
}

#[test]
fn what_can_not_be_set() {
    let path = repository().join("host/tests/data/turns/smollm.gguf");
    let refused = |set: &str| match NeuroEngine::load_tokenizer(&path, &setting(&[set])) {
        Ok(_) => panic!("{set} was taken"),
        Err(error) => error.to_string().replace(&path.display().to_string(), "FILE"),
    };
    assert_eq!(
        refused("tokenizer.ggml.tokens=a"),
        "FILE: tokenizer.ggml.tokens is an array, which can't be set from outside"
    );
    assert_eq!(
        refused("tokenizer.ggml.eos_token_id=x"),
        "FILE: tokenizer.ggml.eos_token_id is set to `x`, where an integer was expected"
    );
}

#[test]
fn another_chat_template() {
    let options = LoadOptions { chat_template: named_template("chatml").map(str::to_owned), ..cpu_options() };
    let engine = NeuroEngine::load(&tiny("llama"), &options).unwrap();
    let text = engine.chat_template().unwrap().render(&[Message::new("user", "Hi")], true).unwrap();
    assert_eq!(text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}
