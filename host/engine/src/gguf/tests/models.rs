//! Real (small) model files, which other software wrote.

use herald_api::DType;

use super::tiny;
use crate::gguf::{Gguf, GgufError, Value};

#[test]
fn a_model_reads_as_its_converter_wrote_it() -> Result<(), GgufError> {
    let path = tiny("llama_tied");
    let gguf = Gguf::open(&path)?;
    assert_eq!((gguf.version(), gguf.tensors().len(), gguf.metadata().len()), (3, 20, 27));
    let metadata = gguf.metadata();
    assert_eq!(metadata.require::<&str>("general.architecture")?, "llama");
    assert_eq!(metadata.require::<u32>("llama.embedding_length")?, 48);
    assert_eq!(metadata.require::<f32>("llama.rope.freq_base")?, 100_000.0);
    assert_eq!(metadata.require::<Vec<i32>>("tokenizer.ggml.token_type")?.len(), 512);
    let tokens: Vec<&[u8]> = metadata.require("tokenizer.ggml.tokens")?;
    assert_eq!((tokens.len(), tokens.first().copied()), (512, Some(b"<|endoftext|>".as_slice())));
    assert_eq!(gguf.paths().collect::<Vec<_>>(), [path.as_path()]);

    let info = gguf.tensor("token_embd.weight").expect("every model has embeddings");
    assert_eq!((info.dtype(), info.dims(), info.elements()), (DType::F32, [48, 512].as_slice(), 48 * 512));
    assert_eq!(info.bytes(), 48 * 512 * 4);
    assert_eq!(gguf.tensor("token_embd"), None);
    Ok(())
}

#[test]
fn every_small_model_opens_and_every_tensor_is_found_by_name() -> Result<(), GgufError> {
    for name in ["llama", "llama_tied", "qwen2", "qwen3", "gemma3"] {
        let gguf = Gguf::open(&tiny(name))?;
        for info in gguf.tensors() {
            assert_eq!(gguf.tensor(info.name()), Some(info));
            let values: &[f32] = bytemuck::cast_slice(gguf.bytes(info));
            assert!(values.iter().all(|value| value.is_finite()), "{name}: {}", info.name());
        }
        let arrays = gguf.metadata().iter().filter(|(_, value)| matches!(value, Value::Array(_))).count();
        assert_eq!(arrays, 3, "{name}");
    }
    Ok(())
}

#[test]
fn errors_name_the_file() -> Result<(), GgufError> {
    let path = tiny("llama");
    let gguf = Gguf::open(&path)?;
    let sentence = gguf
        .metadata()
        .require::<bool>("general.name")
        .map_or_else(|error| error.to_string(), |_| String::new());
    assert!(
        sentence.starts_with(&format!("{}: metadata \"general.name\" at byte", path.display())),
        "{sentence}"
    );
    Ok(())
}
