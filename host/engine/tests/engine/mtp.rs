//! Blocks for multi-token prediction: what they guess, and that the text is the same to the bit.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use herald::gguf::{Gguf, Value, Writer};
use herald::schedule::{Event, Request, Scheduler, SchedulerOptions};
use herald::{GenerateOptions, LoadOptions, NeuroEngine};
use herald_api::DType;
use herald_testing::{folder, tiny};

use super::drafts::{load, one, samplers, simd, turns};

/// Architectures whose files have such blocks: attention, gated attention beside delta nets, and latent attention; dense, and
/// experts.
const MODELS: [&str; 5] = ["qwen35", "qwen35moe", "qwen3next", "glm4moe", "deepseek_v3"];

const HIDDEN: usize = 64;
const VOCABULARY: usize = 512;

/// A tensor: its dimensions, and its elements row after row.
type Tensor = (Vec<usize>, Vec<f32>);

/// Numbers of ±1 that look random (SplitMix64).
fn signs(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        if (z ^ (z >> 31)) & 1 == 0 { 1.0 } else { -1.0 }
    };
    (0..count).map(|_| next()).collect()
}

/// A tiny model with one more block, which is its last one again and predicts further tokens; `change` has its tensors.
fn with_block(model: &str, folder: &Path, change: impl Fn(&mut BTreeMap<String, Tensor>, usize)) -> PathBuf {
    let gguf = Gguf::open(&tiny(model)).expect("the test data is there");
    let architecture: &str = gguf.metadata().require("general.architecture").expect("a name");
    let [blocks_key, heads_key] =
        ["block_count", "nextn_predict_layers"].map(|key| format!("{architecture}.{key}"));
    let blocks: u32 = gguf.metadata().require(&blocks_key).expect("a number");
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let (elements, _) = gguf.bytes(tensor).as_chunks();
        let all: Vec<f32> = elements.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if let Some(part) = tensor.name().strip_prefix(&format!("blk.{}.", blocks - 1)) {
            tensors.insert(format!("blk.{blocks}.{part}"), (tensor.dims().to_vec(), all.clone()));
        }
        tensors.insert(tensor.name().to_owned(), (tensor.dims().to_vec(), all));
    }
    for norm in ["enorm", "hnorm", "shared_head_norm"] {
        tensors.insert(format!("blk.{blocks}.nextn.{norm}.weight"), (vec![HIDDEN], vec![1.0; HIDDEN]));
    }
    let projection = signs(1, 2 * HIDDEN * HIDDEN).into_iter().map(|sign| sign * 0.08).collect();
    tensors.insert(format!("blk.{blocks}.nextn.eh_proj.weight"), (vec![2 * HIDDEN, HIDDEN], projection));
    change(&mut tensors, blocks as usize);
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| *key != blocks_key && *key != heads_key) {
        writer.metadata(key, value).expect("an entry");
    }
    writer.metadata(&blocks_key, Value::U32(blocks + 1)).expect("an entry");
    writer.metadata(&heads_key, Value::U32(1)).expect("an entry");
    for (name, (dims, _)) in &tensors {
        writer.tensor(name, DType::F32, dims).expect("a tensor");
    }
    let path = folder.join(format!("{model}.mtp.gguf"));
    let mut data = writer.begin(File::create(&path).expect("a file")).expect("a head");
    for (_, elements) in tensors.values() {
        let bytes: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
        data.tensor(&bytes).expect("data");
    }
    data.finish().expect("a file");
    path
}

/// Has a model count: after each token comes the next number. Its blocks add nothing to the embeddings, which are all of ±1, and its
/// head's norm turns the signs of some elements.
fn count(tensors: &mut BTreeMap<String, Tensor>, blocks: usize) {
    let embeddings = signs(2, VOCABULARY * HIDDEN);
    let turned = signs(3, HIDDEN);
    for (name, (_, elements)) in tensors.iter_mut() {
        let ends_a_branch = ["ssm_out", "attn_output", "ffn_down", "ffn_down_exps", "ffn_down_shexp"];
        if ends_a_branch.iter().any(|part| name.ends_with(&format!(".{part}.weight"))) {
            elements.fill(0.0);
        }
    }
    let rows = |after: usize| rows_that_follow(&embeddings, &turned, after);
    tensors.insert("output.weight".to_owned(), (vec![HIDDEN, VOCABULARY], rows(1)));
    tensors.insert("output_norm.weight".to_owned(), (vec![HIDDEN], turned.clone()));
    tensors.insert(format!("blk.{blocks}.nextn.shared_head_norm.weight"), (vec![HIDDEN], turned));
    tensors.insert("token_embd.weight".to_owned(), (vec![HIDDEN, VOCABULARY], embeddings));
}

/// The rows of a head that knows a token by its embedding and names the one `after` it.
fn rows_that_follow(embeddings: &[f32], turned: &[f32], after: usize) -> Vec<f32> {
    let row = |token: usize| {
        let of = (token + VOCABULARY - after) % VOCABULARY;
        embeddings[of * HIDDEN..(of + 1) * HIDDEN].iter().zip(turned).map(|(element, sign)| element * sign)
    };
    (0..VOCABULARY).flat_map(row).collect()
}

/// A projection that takes over the embedding (0) or the state (1).
fn takes_over(side: usize) -> Tensor {
    let mut elements = vec![0.0; 2 * HIDDEN * HIDDEN];
    for index in 0..HIDDEN {
        elements[index * 2 * HIDDEN + side * HIDDEN + index] = 1.0;
    }
    (vec![2 * HIDDEN, HIDDEN], elements)
}

fn exact(path: &Path, max_draft: usize) -> Option<NeuroEngine> {
    let options = simd(max_draft)?;
    Some(load(path, &LoadOptions { min_draft: max_draft.min(options.min_draft), ..options }))
}

/// Few tokens, of which none comes again as the model counts on.
const PROMPT: [u32; 3] = [480, 300, 10];

/// Has each model count, with a block that `change` makes of the last one, and requires that all guesses come: at least so many.
fn all_guesses_come(
    max_draft: usize,
    least: usize,
    change: impl Fn(&str, &mut BTreeMap<String, Tensor>, usize),
) {
    let folder = folder();
    for model in MODELS {
        let path = with_block(model, folder.path(), |tensors, blocks| {
            count(tensors, blocks);
            change(model, tensors, blocks);
        });
        let Some(engine) = exact(&path, max_draft) else { return };
        let (seen, [guessed, came]) = one(&engine, &PROMPT, 60, &samplers()[0]);
        assert_eq!(seen.tokens, (11..71).collect::<Vec<u32>>(), "{model}");
        assert!(guessed > least && came == guessed, "{model}: {came} of {guessed}");
    }
}

#[test]
fn guesses_follow_from_the_last_token() {
    all_guesses_come(31, 40, |_, tensors, blocks| {
        tensors.insert(format!("blk.{blocks}.nextn.eh_proj.weight"), takes_over(0));
    });
}

#[test]
fn guesses_follow_from_the_state_of_the_token_before() {
    all_guesses_come(1, 20, |model, tensors, blocks| {
        tensors.insert(format!("blk.{blocks}.nextn.eh_proj.weight"), takes_over(1));
        // Qwen's blocks read states as the model's head does.
        let (_, embeddings) = tensors["token_embd.weight"].clone();
        let (_, turned) = tensors["output_norm.weight"].clone();
        let plain = vec![1.0; HIDDEN];
        let read = if model.starts_with("qwen") { &turned } else { &plain };
        let rows = rows_that_follow(&embeddings, read, 2);
        tensors
            .insert(format!("blk.{blocks}.nextn.shared_head_head.weight"), (vec![HIDDEN, VOCABULARY], rows));
        tensors.insert(format!("blk.{blocks}.nextn.shared_head_norm.weight"), (vec![HIDDEN], plain));
    });
}

#[test]
fn a_block_of_its_own_changes_no_text() {
    let folder = folder();
    for model in MODELS {
        let path = with_block(model, folder.path(), |_, _| {});
        let (Some(with), Some(without)) = (exact(&path, 31), exact(&path, 0)) else { return };
        let prompt: Vec<u32> = (0..300).map(|position| 3 + position * 11 % 500).collect();
        let mut guesses = 0;
        for sampler in samplers() {
            let (found, [guessed, _]) = one(&with, &prompt, 60, &sampler);
            assert_eq!(found, one(&without, &prompt, 60, &sampler).0, "{model}");
            assert_eq!(turns(&with, &sampler).0, turns(&without, &sampler).0, "{model}");
            guesses += guessed;
        }
        assert!(guesses > 0, "{model}");
        // The model itself is the same as without the block.
        let plain = load(&tiny(model), &simd(0).expect("options"));
        let [found, expected] = [&with, &plain].map(|engine| one(engine, &prompt, 20, &samplers()[0]).0);
        assert_eq!(found, expected, "{model}");
    }
}

#[test]
fn requests_that_share_passes_are_guessed_for() {
    let folder = folder();
    let path = with_block("qwen35", folder.path(), |tensors, blocks| {
        count(tensors, blocks);
        tensors.insert(format!("blk.{blocks}.nextn.eh_proj.weight"), takes_over(0));
    });
    let Some(engine) = exact(&path, 31) else { return };
    let options = SchedulerOptions { max_running: 3, ..SchedulerOptions::default() };
    let scheduler = Scheduler::start(Arc::new(engine), options).expect("a scheduler");
    let tickets = [20, 120, 220, 320].map(|first: u32| {
        let options = GenerateOptions {
            max_tokens: Some(30),
            sampler: samplers()[0].clone(),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let request = Request { prompt: vec![500, first], options, client: first.to_string() };
        (first, scheduler.submit(request).expect("a slot"))
    });
    let mut guesses = [0; 2];
    for (first, ticket) in tickets {
        let generated = loop {
            match ticket.next().expect("an end") {
                Event::Done(answer) => break answer.generated,
                Event::Failed(error) => panic!("{error}"),
                Event::Token { .. } => {}
            }
        };
        assert_eq!(generated.tokens, (first + 1..first + 31).collect::<Vec<u32>>());
        guesses[0] += generated.guessed_tokens;
        guesses[1] += generated.accepted_guesses;
    }
    assert!(guesses[0] > 20 && guesses[1] == guesses[0], "{guesses:?}");
}

#[test]
fn a_block_that_is_not_whole_is_left_out() {
    let folder = folder();
    for missing in ["nextn.eh_proj.weight", "attn_k.weight"] {
        let path = with_block("qwen35", folder.path(), |tensors, blocks| {
            tensors.remove(&format!("blk.{blocks}.{missing}"));
        });
        let Some(engine) = exact(&path, 31) else { return };
        let (seen, [guessed, _]) = one(&engine, &PROMPT, 20, &samplers()[0]);
        assert_eq!((seen.tokens.len(), guessed), (20, 0), "{missing}");
    }
    // Of another shape.
    let path = with_block("qwen35", folder.path(), |tensors, blocks| {
        let (dims, elements) = (vec![HIDDEN, HIDDEN], vec![0.5; HIDDEN * HIDDEN]);
        tensors.insert(format!("blk.{blocks}.nextn.eh_proj.weight"), (dims, elements));
    });
    let Some(engine) = exact(&path, 31) else { return };
    assert_eq!(one(&engine, &PROMPT, 20, &samplers()[0]).1[0], 0);
}
