//! Models whose parts contradict each other: each is refused with one sentence that names both sides.

use std::fs::File;
use std::path::Path;

use herald::NeuroEngine;
use herald::gguf::{Gguf, Value, Writer};
use herald_testing::{cpu_options, tiny};

/// What a rewritten model has in place of the original's.
#[derive(Default)]
struct Changes<'c> {
    /// Keys with other values; `None`: left out.
    keys: Vec<(&'c str, Option<Value<'c>>)>,
    /// Tensors that are left out.
    without: Vec<&'c str>,
    /// A copy of a tensor under another name.
    copy: Option<(&'c str, &'c str)>,
}

/// Writes a model anew with changes.
fn rewrite(from: &Path, to: &Path, changes: &Changes<'_>) {
    let gguf = Gguf::open(from).expect("the test data is there");
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        match changes.keys.iter().find(|(changed, _)| *changed == key) {
            Some((_, None)) => {}
            Some((_, Some(value))) => drop(writer.metadata(key, *value).expect("a value")),
            None => drop(writer.metadata(key, value).expect("a value")),
        }
    }
    for (key, value) in &changes.keys {
        if let (None, Some(value)) = (gguf.metadata().value(key), value) {
            writer.metadata(key, *value).expect("a value");
        }
    }
    let mut kept: Vec<_> =
        gguf.tensors().filter(|tensor| !changes.without.contains(&tensor.name())).collect();
    let mut names: Vec<String> = kept.iter().map(|tensor| tensor.name().to_owned()).collect();
    if let Some((original, copy)) = changes.copy {
        kept.push(gguf.tensor(original).expect("the tensor is there"));
        names.push(copy.to_owned());
    }
    for (tensor, name) in kept.iter().zip(&names) {
        writer.tensor(name, tensor.dtype(), tensor.dims()).expect("a tensor");
    }
    let mut data = writer.begin(File::create(to).expect("a file")).expect("a header");
    for tensor in kept {
        data.tensor(gguf.bytes(tensor)).expect("data");
    }
    data.finish().expect("an end");
}

/// The sentence with which a changed model is refused.
fn refusal(name: &str, changes: &Changes<'_>) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("changed.gguf");
    rewrite(&tiny(name), &path, changes);
    match NeuroEngine::load(&path, &cpu_options()) {
        Ok(_) => panic!("{name} was loaded in spite of its changes"),
        Err(error) => error.to_string(),
    }
}

fn with_key<'c>(key: &'c str, value: impl Into<Value<'c>>) -> Changes<'c> {
    Changes { keys: vec![(key, Some(value.into()))], ..Changes::default() }
}

#[track_caller]
fn says(sentence: &str, words: &[&str]) {
    for word in words {
        assert!(sentence.contains(word), "{sentence:?} does not say {word:?}");
    }
    assert!(!sentence.contains('\n'), "{sentence:?} has several lines");
}

#[test]
fn an_unchanged_copy_loads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("copy.gguf");
    rewrite(&tiny("gemma3"), &path, &Changes::default());
    NeuroEngine::load(&path, &cpu_options()).expect("the copy is as good as the original");
}

#[test]
fn an_unknown_architecture_is_named_beside_the_known_ones() {
    let sentence = refusal("llama", &with_key("general.architecture", "rwkv7"));
    says(&sentence, &["changed.gguf", "rwkv7", "gemma3", "llama", "nemotron_h", "qwen3"]);
}

#[test]
fn a_missing_size_is_named() {
    let without = Changes { keys: vec![("llama.block_count", None)], ..Changes::default() };
    says(&refusal("llama", &without), &["llama.block_count"]);
}

#[test]
fn a_size_of_another_kind_is_named() {
    says(
        &refusal("llama", &with_key("llama.block_count", "three")),
        &["llama.block_count", "three", "expected"],
    );
}

#[test]
fn head_counts_that_do_not_divide_are_named() {
    let sentence = refusal("llama", &with_key("llama.attention.head_count_kv", 3_u32));
    says(&sentence, &["llama.attention.head_count_kv", "3", "divisor of 4"]);
}

#[test]
fn a_size_that_contradicts_a_tensor_names_both_sides() {
    let sentence = refusal("llama", &with_key("llama.feed_forward_length", 96_u32));
    says(&sentence, &["blk.0.ffn_gate.weight", "128 rows of 64", "96 rows of 64"]);
}

#[test]
fn too_many_blocks_name_the_missing_tensor() {
    says(&refusal("llama", &with_key("llama.block_count", 4_u32)), &["blk.3.attn_norm.weight"]);
}

#[test]
fn too_few_blocks_name_the_tensor_that_is_left_over() {
    says(&refusal("llama", &with_key("llama.block_count", 2_u32)), &["blk.2.", "no place"]);
}

#[test]
fn a_missing_tensor_is_named() {
    let without = Changes { without: vec!["blk.1.ffn_up.weight"], ..Changes::default() };
    says(&refusal("llama", &without), &["blk.1.ffn_up.weight"]);
}

#[test]
fn a_tensor_that_nobody_uses_is_named() {
    let copied =
        Changes { copy: Some(("blk.0.attn_norm.weight", "blk.0.attn_sinks.weight")), ..Changes::default() };
    says(&refusal("llama", &copied), &["blk.0.attn_sinks.weight", "llama"]);
}

#[test]
fn an_odd_rope_size_is_named() {
    says(
        &refusal("llama", &with_key("llama.rope.dimension_count", 7_u32)),
        &["rope.dimension_count", "7", "even"],
    );
}

#[test]
fn an_unknown_rope_scaling_is_named() {
    says(
        &refusal("qwen2", &with_key("qwen2.rope.scaling.type", "longrope")),
        &["longrope", "none, linear or yarn"],
    );
}

#[test]
fn an_unknown_pre_tokenizer_is_named() {
    says(&refusal("llama", &with_key("tokenizer.ggml.pre", "martian")), &["tokenizer", "martian"]);
}

#[test]
fn a_special_token_outside_the_vocabulary_is_named() {
    says(&refusal("llama", &with_key("tokenizer.ggml.eos_token_id", 512_u32)), &["eos_token_id", "512"]);
}

#[test]
fn sizes_of_recurrent_states_that_contradict_tensors_are_named_with_both() {
    let cases: [(&str, &str, u32, &[&str]); 9] = [
        (
            "mamba2",
            "mamba2.ssm.state_size",
            16,
            &["blk.0.ssm_in.weight", "328 rows", "296 rows", "ssm.state_size = 16"],
        ),
        (
            "mamba2",
            "mamba2.ssm.group_count",
            2,
            &["blk.0.ssm_in.weight", "328 rows", "392 rows", "ssm.group_count = 2"],
        ),
        ("mamba2", "mamba2.ssm.time_step_rank", 4, &["blk.0.ssm_in.weight", "ssm.time_step_rank = 4"]),
        ("mamba2", "mamba2.ssm.time_step_rank", 7, &["mamba2.ssm.time_step_rank is 7", "divisor of the 128"]),
        ("mamba2", "mamba2.ssm.group_count", 3, &["mamba2.ssm.group_count is 3", "divisor of the 8 heads"]),
        (
            "mamba",
            "mamba.ssm.state_size",
            8,
            &["blk.0.ssm_x.weight", "36 rows", "20 rows", "ssm.state_size = 8"],
        ),
        ("mamba", "mamba.ssm.conv_kernel", 3, &["blk.0.ssm_conv1d.weight", "128 rows of 4", "128 rows of 3"]),
        (
            "lfm2",
            "lfm2.shortconv.l_cache",
            4,
            &["blk.0.shortconv.conv.weight", "64 rows of 3", "64 rows of 4"],
        ),
        (
            "granite_hybrid",
            "granitehybrid.expert_count",
            8,
            &["blk.0.ffn_gate_inp.weight", "4 rows of 64", "8 rows of 64", "expert_count = 8"],
        ),
    ];
    for (model, key, value, words) in cases {
        says(&refusal(model, &with_key(key, value)), words);
    }
    let used = refusal("jamba", &with_key("jamba.expert_used_count", 5_u32));
    says(&used, &["jamba.expert_used_count is 5", "at most the 4 of jamba.expert_count"]);
    let without = Changes { without: vec!["blk.1.ssm_a"], ..Changes::default() };
    says(
        &refusal("nemotron_h", &with_key("nemotron_h.attention.head_count", 8_u32)),
        &["blk.3.attn_q.weight"],
    );
    says(&refusal("mamba", &without), &["no tensor blk.1.ssm_a"]);
}

/// Keys that change nothing in one of the models: what its own files have and HERALD doesn't compute with.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("", "vocab_size"),
    ("", "rope.scaling.finetuned"),
    ("", "tensor_data_layout"),
    ("mamba", "feed_forward_length"),
    ("mamba", "attention.head_count"),
    ("mamba2", "feed_forward_length"),
    ("mamba2", "attention.head_count"),
    ("falcon_mamba", "feed_forward_length"),
    ("falcon_mamba", "attention.head_count"),
    ("granite_hybrid_dense", "expert_used_count"),
    ("granite_hybrid_dense", "expert_shared_feed_forward_length"),
    // Every block has experts, whose width is another key.
    ("qwen2_moe", "feed_forward_length"),
    ("qwen3_moe", "feed_forward_length"),
    ("minimax_m2", "feed_forward_length"),
    ("qwen3next", "feed_forward_length"),
    ("gpt_oss", "feed_forward_length"),
    // The file says block by block which ones are recurrent.
    ("qwen35", "full_attention_interval"),
    ("qwen35moe", "full_attention_interval"),
    ("qwen3next", "full_attention_interval"),
    // What the converter computes of other keys.
    ("kimi_linear", "attention.value_length"),
    ("hunyuan_moe", "feed_forward_length"),
    // Their width together is another key.
    ("ernie4_5_moe", "expert_shared_count"),
    ("hunyuan_moe", "expert_shared_count"),
    // Its context is no longer than either.
    ("phi3", "rope.scaling.original_context_length"),
    // Images are for those.
    ("qwen3vl", "n_deepstack_layers"),
    // Its norms are of the other kind, and classifiers are another use of it.
    ("modernbert", "attention.layer_norm_rms_epsilon"),
    ("modernbert", "classifier.pooling_type"),
];

/// The names of the small models.
fn tiny_names() -> Vec<String> {
    let folder = tiny("llama").parent().expect("a folder").read_dir().expect("the test data is there");
    let files = folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    files.filter_map(|file| Some(file.strip_suffix(".f32.gguf")?.to_owned())).collect()
}

/// Another value of the same kind.
fn another(value: Value<'_>) -> Option<Value<'static>> {
    Some(match value {
        Value::U32(number) => Value::U32(number + 2),
        Value::F32(number) => Value::F32(number * 1.5 + 0.25),
        Value::Bool(flag) => Value::Bool(!flag),
        Value::String(_) => Value::String(b"another"),
        _ => return None,
    })
}

/// What is computed from a changed copy of a model, or the sentence with which it is refused.
fn changed_plan(name: &str, changes: &Changes<'_>) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("changed.gguf");
    rewrite(&tiny(name), &path, changes);
    let gguf = Gguf::open(&path).map_err(|error| error.to_string())?;
    herald::model::plan(&gguf).map(|plan| format!("{plan:?}")).map_err(|error| error.to_string())
}

#[test]
fn every_key_of_the_architecture_counts() {
    let mut ineffective = Vec::new();
    for name in tiny_names() {
        let gguf = Gguf::open(&tiny(&name)).expect("the test data is there");
        let architecture = gguf.metadata().require::<&str>("general.architecture").expect("a name");
        let plan = changed_plan(&name, &Changes::default()).expect("a plan");
        for (key, value) in gguf.metadata().iter() {
            let Some(short) = key.strip_prefix(&format!("{architecture}.")) else { continue };
            let left_out = Changes { keys: vec![(key, None)], ..Changes::default() };
            if let Err(sentence) = changed_plan(&name, &left_out) {
                says(&sentence, &[]);
            }
            let exempt = WITHOUT_EFFECT
                .iter()
                .any(|(model, known)| *known == short && (model.is_empty() || *model == name));
            let Some(other) = another(value).filter(|_| !exempt) else { continue };
            if changed_plan(&name, &with_key(key, other)).is_ok_and(|changed| changed == plan) {
                ineffective.push(format!("{name}: {key} = {other} in place of {value} makes no difference"));
            }
        }
        let unknown = format!("{architecture}.attention.unheard_of");
        let sentence = changed_plan(&name, &with_key(&unknown, 0.5_f32)).expect_err("a refusal");
        says(&sentence, &[&unknown, "0.5"]);
    }
    assert!(ineffective.is_empty(), "{}", ineffective.join("\n"));
}

#[test]
fn attention_to_later_tokens_is_what_the_file_says() {
    let both = changed_plan("llama", &with_key("llama.attention.causal", false)).expect("a plan");
    assert!(both.contains("mask: Bidirectional") && !both.contains("mask: Causal"), "{both}");
    for (model, key) in [("gemma3", "gemma3.attention.causal"), ("mamba", "mamba.attention.causal")] {
        says(&refusal(model, &with_key(key, false)), &[key, "false", "earlier tokens"]);
    }
    let changed = changed_plan("llama", &with_key("llama.attention.causal", true));
    assert_eq!(changed, changed_plan("llama", &Changes::default()));
}

#[test]
fn blocks_that_predict_later_tokens_are_left_out() {
    let plan = changed_plan("qwen3", &with_key("qwen3.nextn_predict_layers", 1_u32)).expect("a plan");
    assert!(plan.contains("blocks: 1,"), "{plan}");
    let all = with_key("qwen3.nextn_predict_layers", 2_u32);
    says(&changed_plan("qwen3", &all).expect_err("a refusal"), &["nextn_predict_layers", "block_count"]);
}

#[test]
fn a_factor_without_a_type_is_linear_scaling() {
    let linear = with_key("llama.rope.scaling.type", Value::String(b"linear"));
    let changes = |mut changes: Changes<'static>| {
        changes.keys.push(("llama.rope.scaling.factor", Some(Value::F32(4.0))));
        changed_plan("llama", &changes).expect("a plan")
    };
    assert_eq!(changes(Changes::default()), changes(linear));
}
