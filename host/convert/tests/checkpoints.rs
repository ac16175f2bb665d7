//! Checkpoints against what llama.cpp's converter makes of them (`data/NAME/expected.json`), and damaged ones.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use herald::gguf::{Gguf, Value, ValueType};
use herald::threads::ThreadPool;
use herald_api::DType;
use herald_convert::checkpoint::{Checkpoint, CheckpointError, Conversion, ConvertOptions};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join("data").join(name)
}

fn convert(folder: &Path, options: &ConvertOptions) -> Result<Gguf, CheckpointError> {
    let checkpoint = Checkpoint::open(folder)?;
    let conversion = Conversion::new(&checkpoint, options)?;
    let pool = ThreadPool::new(NonZeroUsize::new(2).unwrap()).unwrap();
    let bytes = conversion.write(&pool, Vec::new(), &mut |_| true)?;
    Ok(Gguf::from_bytes(&bytes)?)
}

fn kind(kind: ValueType) -> &'static str {
    match kind {
        ValueType::U32 => "UINT32",
        ValueType::I32 => "INT32",
        ValueType::F32 => "FLOAT32",
        ValueType::Bool => "BOOL",
        ValueType::String => "STRING",
        ValueType::Array => "ARRAY",
        _ => "another",
    }
}

fn plain(value: Value<'_>) -> Json {
    match value {
        Value::U32(number) => number.into(),
        Value::I32(number) => number.into(),
        Value::F32(number) => f64::from(number).into(),
        Value::Bool(flag) => flag.into(),
        Value::String(text) => String::from_utf8_lossy(text).into(),
        Value::Array(array) => array.elements().map(plain).collect(),
        _ => Json::Null,
    }
}

/// A key's types and value, as `expected.json` has them.
fn described(value: Value<'_>) -> Json {
    let mut kinds = vec![kind(value.value_type())];
    if let Value::Array(array) = value {
        kinds.push(kind(array.element_type()));
    }
    json!([kinds, plain(value)])
}

fn same_as_theirs(name: &str) {
    let gguf =
        convert(&data(name), &ConvertOptions::default()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected: Json =
        serde_json::from_str(&fs::read_to_string(data(name).join("expected.json")).unwrap()).unwrap();
    let keys = expected["metadata"].as_object().unwrap();
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| *key != "general.name") {
        assert_eq!(&described(value), keys.get(key).unwrap_or(&Json::Null), "{name}: {key}");
    }
    assert_eq!(
        gguf.metadata().iter().count(),
        keys.len() + 1,
        "{name}: the name is ours, all other keys are theirs, too"
    );
    let tensors = expected["tensors"].as_object().unwrap();
    for info in gguf.tensors() {
        let digest: String =
            Sha256::digest(gguf.bytes(info)).iter().map(|byte| format!("{byte:02x}")).collect();
        let found = json!([info.dtype().name(), info.dims(), digest]);
        assert_eq!(&found, tensors.get(info.name()).unwrap_or(&Json::Null), "{name}: {}", info.name());
    }
    assert_eq!(gguf.tensors().count(), tensors.len(), "{name}");
}

#[test]
fn files_are_those_of_llama_cpps_converter() {
    let mut names: Vec<String> = fs::read_dir(data("."))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    names.sort();
    assert!(names.len() >= 9);
    for name in names {
        same_as_theirs(&name);
    }
}

/// A copy of a checkpoint, to be changed.
fn copy(name: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    copy_files(&data(name), folder.path());
    folder
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_files(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Changes a JSON file of a checkpoint.
fn edit(folder: &TempDir, file: &str, change: impl FnOnce(&mut Json)) {
    let path = folder.path().join(file);
    let mut value: Json = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

/// Asserts that a checkpoint is refused by one sentence that says this.
fn refused(folder: &TempDir, said: &[&str]) {
    let error = convert(folder.path(), &ConvertOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error}");
    for part in said {
        assert!(error.contains(part), "{error:?} doesn't say {part:?}");
    }
}

const FIRST: &str = "model-00001-of-00003.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn damaged_weights_are_refused() {
    let folder = copy("llama_llama3");
    let whole = fs::read(folder.path().join(FIRST)).unwrap();
    for cut in [0, 7, 8, 100, whole.len() - 1] {
        fs::write(folder.path().join(FIRST), &whole[..cut]).unwrap();
        refused(&folder, &[FIRST]);
    }
    for length in [u64::MAX, 1 << 40, whole.len() as u64] {
        let bytes = [&length.to_le_bytes()[..], &whole[8..]].concat();
        fs::write(folder.path().join(FIRST), bytes).unwrap();
        refused(&folder, &[FIRST, "no whole safetensors file"]);
    }
    fs::remove_file(folder.path().join(FIRST)).unwrap();
    refused(&folder, &[INDEX, "there is no model-00001-of-00003.safetensors"]);
}

#[test]
fn a_wrong_index_is_refused() {
    let name = "model.norm.weight";
    for (file, said) in [
        (json!("../model-00001-of-00003.safetensors"), "the name of a file beside it was expected"),
        (json!("/etc/passwd"), "the name of a file beside it was expected"),
        (json!(".."), "the name of a file beside it was expected"),
        (json!(7), "where a file's name was expected"),
        (json!("model-00004-of-00003.safetensors"), "there is no model-00004-of-00003.safetensors"),
    ] {
        let folder = copy("llama_llama3");
        edit(&folder, INDEX, |index| index["weight_map"][name] = file);
        refused(&folder, &[INDEX, said]);
    }
    let folder = copy("llama_llama3");
    edit(&folder, INDEX, |index| drop(index["weight_map"].as_object_mut().unwrap().remove(name)));
    refused(&folder, &["it doesn't list \"model.norm.weight\""]);
    edit(&folder, INDEX, |index| {
        let map = index["weight_map"].as_object_mut().unwrap();
        map.insert(name.to_owned(), FIRST.into());
        map.insert("model.more.weight".to_owned(), FIRST.into());
    });
    refused(
        &folder,
        &["\"model.more.weight\" is in model-00001-of-00003.safetensors, which has no such tensor"],
    );
    edit(&folder, INDEX, |index| index["weight_map"] = json!({}));
    refused(&folder, &["its weight_map is empty"]);
}

#[test]
fn wrong_settings_are_refused() {
    for (key, value, said) in [
        ("hidden_size", json!(64), "is of shape [304, 32], where [304, 64] was expected"),
        ("hidden_size", json!(0), "hidden_size is 0, where at least 1 was expected"),
        ("hidden_size", json!("NaN"), "hidden_size is \"NaN\", where an integer"),
        ("hidden_size", json!(-32), "hidden_size is -32, where an integer"),
        ("num_hidden_layers", json!(1), "is of block 1, where the last is 0"),
        ("num_hidden_layers", json!(3), "there is no tensor of block 2"),
        ("num_hidden_layers", json!(1 << 30), "at most 4096"),
        ("num_attention_heads", json!(3), "where [32, 48] was expected"),
        ("num_attention_heads", json!(1 << 30), "head_dim is 16, where a size of heads that fits"),
        ("num_key_value_heads", json!(3), "num_key_value_heads is 3, where a divisor"),
        ("head_dim", json!(1 << 30), "head_dim is 1073741824, where at most 65536"),
        ("rms_norm_eps", json!("NaN"), "rms_norm_eps is \"NaN\", where a number was expected"),
        ("rope_scaling", json!({"rope_type": "spiral", "factor": 2.0}), "rope_type is \"spiral\""),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0}), "original_max_position_embeddings"),
        ("rope_scaling", json!({"rope_type": "linear", "twist": 2.0}), "no setting twist"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}),
            "aren't positive and in order",
        ),
        ("hidden_act", json!("relu"), "hidden_act is \"relu\", where silu"),
        ("architectures", json!(["NoSuchForCausalLM"]), "the known ones are LlamaForCausalLM"),
        ("architectures", json!([]), "a list with a class was expected"),
        ("tie_word_embeddings", json!(false), "there is no tensor lm_head.weight"),
        ("vocab_size", json!(303), "where [303, 32] was expected"),
        ("residual_noise", json!(0.5), "residual_noise is no setting that is known for LlamaForCausalLM"),
        ("quantization_config", json!({"quant_method": "gptq"}), "a checkpoint in F32, F16 or BF16"),
    ] {
        let folder = copy("llama_llama3");
        edit(&folder, "config.json", |config| config[key] = value);
        refused(&folder, &[said]);
    }
    let folder = copy("llama_llama3");
    for text in ["", "[]", "{", "{\"a\": NaN"] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        refused(&folder, &["config.json"]);
    }
    fs::remove_file(folder.path().join("config.json")).unwrap();
    refused(&folder, &["config.json: there is no such file"]);
}

/// Writes a checkpoint's weights anew with one tensor more.
fn with_tensor(folder: &TempDir, name: &str, view: TensorView<'_>) {
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let others =
        tensors.iter().filter(|(other, _)| *other != name).map(|(name, view)| (name.to_owned(), view));
    let bytes = safetensors::serialize(others.chain([(name.to_owned(), view)]), None).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn tensors_that_no_engine_reads_are_left_out_or_refused() {
    let view = |dtype, dims: &[usize]| {
        TensorView::new(dtype, dims.to_vec(), &[1; 256][..dims[0] * dtype.bitsize() / 8]).unwrap()
    };
    let folder = copy("bert");
    with_tensor(&folder, "embeddings.position_ids", view(Dtype::I64, &[8]));
    convert(folder.path(), &ConvertOptions::default()).unwrap();
    for (dtype, name, said) in [
        (
            Dtype::F8_E4M3,
            "embeddings.LayerNorm.weight",
            "is of type F8_E4M3, where F32, F16 or BF16 was expected",
        ),
        (Dtype::U8, "embeddings.LayerNorm.weight", "is of type U8, where"),
        (Dtype::F32, "encoder.gate.weight", "\"encoder.gate.weight\" is none that BertModel has"),
    ] {
        let folder = copy("bert");
        with_tensor(&folder, name, view(dtype, &[16]));
        refused(&folder, &[said]);
    }
    let folder = copy("bert");
    with_tensor(&folder, "embeddings.LayerNorm.bias", TensorView::new(Dtype::F32, vec![0], &[]).unwrap());
    refused(&folder, &["\"embeddings.LayerNorm.bias\" is empty"]);
}

#[test]
fn an_unknown_setting_is_ignored_on_request() {
    let folder = copy("llama_llama3");
    edit(&folder, "config.json", |config| config["residual_noise"] = json!(0.5));
    let ignored = vec!["residual_noise".to_owned()];
    convert(folder.path(), &ConvertOptions { ignored, ..ConvertOptions::default() }).unwrap();
}

#[test]
fn wrong_tokenizers_are_refused() {
    let tokenizer = "tokenizer.json";
    for (change, said) in [
        (
            (|of| of["model"]["vocab"]["zz"] = json!(304)) as fn(&mut Json),
            "\"zz\" has the id 304, where the model has 304 tokens",
        ),
        (|of| of["model"]["vocab"]["zz"] = json!(-1), "the id of \"zz\" is -1"),
        (|of| of["model"]["type"] = json!("Unigram"), "its model is of type \"Unigram\", where \"BPE\""),
        (|of| of["model"]["merges"] = json!([]), "no merges"),
        (|of| of["model"]["merges"] = json!([["a"]]), "a merge is [\"a\"]"),
        (|of| of["model"] = json!(7), "no object vocab"),
        (|of| of["added_tokens"][0]["id"] = json!("x"), "an id and a content were expected"),
        (|of| of["pre_tokenizer"] = json!({"type": "Sieve"}), "--pre NAME"),
        (|of| of["normalizer"] = json!({"type": "NFKD"}), "the normalizer is"),
    ] {
        let folder = copy("llama_llama3");
        edit(&folder, tokenizer, change);
        refused(&folder, &[tokenizer, said]);
    }
    let folder = copy("llama_llama3");
    fs::remove_file(folder.path().join(tokenizer)).unwrap();
    refused(&folder, &["there is no tokenizer.json and no tokenizer.model"]);
    let folder = copy("mistral");
    fs::write(folder.path().join("tokenizer.model"), [255; 20]).unwrap();
    refused(&folder, &["tokenizer.model", "no model of SentencePiece"]);
}

#[test]
fn a_pre_tokenizer_is_named_on_request() {
    let folder = copy("llama_llama3");
    edit(&folder, "tokenizer.json", |of| of["pre_tokenizer"] = json!({"type": "Sieve"}));
    let pre_tokenizer = Some("tekken".to_owned());
    let gguf =
        convert(folder.path(), &ConvertOptions { pre_tokenizer, ..ConvertOptions::default() }).unwrap();
    assert_eq!(gguf.metadata().require::<&str>("tokenizer.ggml.pre").unwrap(), "tekken");
}

#[test]
fn matrices_get_the_requested_type() {
    let options = ConvertOptions { dtype: Some(DType::Q8_0), ..ConvertOptions::default() };
    let gguf = convert(&data("llama_llama3"), &options).unwrap();
    for info in gguf.tensors() {
        let expected = if info.dims().len() > 1 { DType::Q8_0 } else { DType::F32 };
        assert_eq!(info.dtype(), expected, "{}", info.name());
    }
    assert_eq!(gguf.metadata().require::<u32>("general.file_type").unwrap(), 7);
}

#[test]
fn models_within_others_and_the_cache_are_found() {
    // A model that sees, as in Hugging Face's cache: its language model's settings and tensors lie deeper.
    let cache = TempDir::new().unwrap();
    let folder = cache.path().join("models--own--small-gemma").join("snapshots").join("0a");
    fs::create_dir_all(&folder).unwrap();
    let plain = data("gemma2");
    for file in ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(plain.join(file), folder.join(file)).unwrap();
    }
    let mut inner: Json =
        serde_json::from_str(&fs::read_to_string(plain.join("config.json")).unwrap()).unwrap();
    let class = inner.as_object_mut().unwrap().remove("architectures");
    let outer = json!({"architectures": class, "text_config": inner, "vision_config": {"depth": 2}});
    fs::write(folder.join("config.json"), outer.to_string()).unwrap();
    let bytes = fs::read(plain.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let deeper = tensors
        .iter()
        .map(|(name, view)| (format!("model.language_model.{}", &name["model.".len()..]), view));
    let seeing = [("model.vision_tower.patch.weight".to_owned(), tensors.iter().next().unwrap().1)];
    let bytes = safetensors::serialize(deeper.chain(seeing), None).unwrap();
    fs::write(folder.join("model.safetensors"), bytes).unwrap();

    let root = cache.path().join("models--own--small-gemma");
    let checkpoint = Checkpoint::open(&root).unwrap();
    let conversion = Conversion::new(&checkpoint, &ConvertOptions::default()).unwrap();
    assert_eq!(conversion.left_out(), ["model.vision_tower.patch.weight"]);
    let found = convert(&root, &ConvertOptions::default()).unwrap();
    assert_eq!(found.metadata().require::<&str>("general.name").unwrap(), "Small Gemma");
    let expected = convert(&plain, &ConvertOptions::default()).unwrap();
    assert_eq!(found.tensors().count(), expected.tensors().count());
    for info in expected.tensors() {
        assert_eq!(found.bytes(found.tensor(info.name()).unwrap()), expected.bytes(info), "{}", info.name());
    }
}
