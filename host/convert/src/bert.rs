//! BERT as it is published (safetensors, a configuration and a vocabulary of word pieces) to a GGUF file in F32, with the names and
//! keys that llama.cpp's converter writes.

use std::io::Write;

use herald::gguf::{ArrayBuf, GgufError, Writer};
use herald_api::DType;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use thiserror::Error;

/// Kinds of tokens: those of text, and those that steer.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The tokens that steer, with their names in GGUF.
const SPECIAL: [(&str, &str); 5] =
    [("[CLS]", "bos"), ("[SEP]", "eos"), ("[UNK]", "unknown"), ("[PAD]", "padding"), ("[MASK]", "mask")];

/// Names of tensors and parts of them, as published and in GGUF.
const WHOLE: [(&str, &str); 4] = [
    ("embeddings.word_embeddings", "token_embd"),
    ("embeddings.position_embeddings", "position_embd"),
    ("embeddings.token_type_embeddings", "token_types"),
    ("embeddings.LayerNorm", "token_embd_norm"),
];
const OF_BLOCK: [(&str, &str); 8] = [
    ("attention.self.query", "attn_q"),
    ("attention.self.key", "attn_k"),
    ("attention.self.value", "attn_v"),
    ("attention.output.dense", "attn_output"),
    ("attention.output.LayerNorm", "attn_output_norm"),
    ("intermediate.dense", "ffn_up"),
    ("output.dense", "ffn_down"),
    ("output.LayerNorm", "layer_output_norm"),
];

/// What a published BERT is made of.
#[derive(Clone, Copy, Debug)]
pub struct Bert<'a> {
    /// The model's name.
    pub name: &'a str,
    /// `model.safetensors`.
    pub weights: &'a [u8],
    /// `config.json`.
    pub config: &'a [u8],
    /// `vocab.txt`: a piece in each line.
    pub pieces: &'a str,
}

/// Why a BERT can't be converted.
#[derive(Debug, Error)]
pub enum BertError {
    /// The weights can't be read.
    #[error("the weights are no safetensors file: {0}")]
    Weights(#[from] safetensors::SafeTensorError),
    /// The configuration can't be read.
    #[error("the configuration is not that of a BERT: {0}")]
    Config(#[from] serde_json::Error),
    /// A tensor or a piece isn't as expected.
    #[error("{0}")]
    Unexpected(String),
    /// The GGUF file can't be written.
    #[error(transparent)]
    Gguf(#[from] GgufError),
}

/// The settings that GGUF has too.
#[derive(Deserialize)]
struct Config {
    hidden_size: u32,
    num_hidden_layers: u32,
    num_attention_heads: u32,
    intermediate_size: u32,
    max_position_embeddings: u32,
    type_vocab_size: u32,
    layer_norm_eps: f32,
    vocab_size: usize,
}

/// Writes a BERT whose tokens are pooled by their mean, and whose texts lose capitals.
///
/// # Errors
/// If what it is made of isn't a BERT, or writing to `out` fails.
pub fn convert<W: Write>(bert: &Bert<'_>, out: W) -> Result<W, BertError> {
    let config: Config = serde_json::from_slice(bert.config)?;
    let published = SafeTensors::deserialize(bert.weights)?;
    let mut tensors: Vec<_> = published.iter().filter(|(name, _)| !is_left_out(name)).collect();
    tensors.sort_by_key(|(name, _)| *name);
    let mut writer = Writer::new();
    model(&mut writer, bert.name, &config)?;
    tokenizer(&mut writer, bert.pieces, &config)?;
    for (name, tensor) in &tensors {
        let in_gguf = renamed(name)
            .ok_or_else(|| BertError::Unexpected(format!("there is a tensor {name}, which no BERT has")))?;
        if tensor.dtype() != Dtype::F32 {
            let dtype = tensor.dtype();
            return Err(BertError::Unexpected(format!(
                "{name} is of type {dtype:?}, where F32 was expected"
            )));
        }
        let dims: Vec<usize> = tensor.shape().iter().rev().copied().collect();
        writer.tensor(&in_gguf, DType::F32, &dims)?;
    }
    let mut data = writer.begin(out)?;
    for (_, tensor) in &tensors {
        data.tensor(tensor.data())?;
    }
    Ok(data.finish()?)
}

/// Positions are counted, and the pooler belongs to another task.
fn is_left_out(name: &str) -> bool {
    name == "embeddings.position_ids" || name.starts_with("pooler.")
}

/// A tensor's name in GGUF.
fn renamed(name: &str) -> Option<String> {
    let (stem, ending) = name.rsplit_once('.')?;
    let of = |names: &[(&str, &'static str)], stem: &str| {
        names.iter().find(|(published, _)| *published == stem).map(|(_, in_gguf)| *in_gguf)
    };
    if let Some(block) = stem.strip_prefix("encoder.layer.") {
        let (block, part) = block.split_once('.')?;
        return Some(format!("blk.{block}.{}.{ending}", of(&OF_BLOCK, part)?));
    }
    Some(format!("{}.{ending}", of(&WHOLE, stem)?))
}

fn model(writer: &mut Writer, name: &str, config: &Config) -> Result<(), GgufError> {
    writer.metadata("general.architecture", "bert")?;
    writer.metadata("general.type", "model")?;
    writer.metadata("general.name", name)?;
    writer.metadata("general.file_type", 0_u32)?;
    writer.metadata("bert.block_count", config.num_hidden_layers)?;
    writer.metadata("bert.context_length", config.max_position_embeddings)?;
    writer.metadata("bert.embedding_length", config.hidden_size)?;
    writer.metadata("bert.feed_forward_length", config.intermediate_size)?;
    writer.metadata("bert.attention.head_count", config.num_attention_heads)?;
    writer.metadata("bert.attention.layer_norm_epsilon", config.layer_norm_eps)?;
    writer.metadata("bert.attention.causal", false)?;
    // The mean.
    writer.metadata("bert.pooling_type", 1_u32)?;
    Ok(())
}

/// The word pieces: GGUF marks those that begin a word, where BERT marks those that don't.
fn tokenizer(writer: &mut Writer, pieces: &str, config: &Config) -> Result<(), BertError> {
    let pieces: Vec<&str> = pieces.lines().collect();
    if pieces.len() != config.vocab_size {
        let (found, expected) = (pieces.len(), config.vocab_size);
        return Err(BertError::Unexpected(format!(
            "the vocabulary has {found} pieces, where {expected} were expected"
        )));
    }
    let is_special = |piece: &str| SPECIAL.iter().any(|(special, _)| *special == piece);
    let tokens = ArrayBuf::strings(pieces.iter().map(|piece| match piece.strip_prefix("##") {
        _ if is_special(piece) => (*piece).to_owned(),
        Some(inner) => inner.to_owned(),
        None => format!("\u{2581}{piece}"),
    }));
    let kinds: Vec<i32> =
        pieces.iter().map(|piece| if is_special(piece) { CONTROL } else { NORMAL }).collect();
    writer.metadata("tokenizer.ggml.model", "bert")?;
    writer.metadata("tokenizer.ggml.pre", "jina-v2-en")?;
    writer.metadata("tokenizer.ggml.tokens", &tokens)?;
    writer.metadata("tokenizer.ggml.token_type", &ArrayBuf::from(&kinds[..]))?;
    writer.metadata("tokenizer.ggml.token_type_count", config.type_vocab_size)?;
    for (piece, name) in SPECIAL {
        let id = pieces.iter().position(|other| *other == piece);
        let id = id.ok_or_else(|| BertError::Unexpected(format!("the vocabulary has no piece {piece}")))?;
        writer.metadata(&format!("tokenizer.ggml.{name}_token_id"), id as u32)?;
        if name == "eos" {
            // So llama.cpp spells it.
            writer.metadata("tokenizer.ggml.seperator_token_id", id as u32)?;
        }
    }
    writer.metadata("tokenizer.ggml.add_bos_token", true)?;
    writer.metadata("tokenizer.ggml.add_eos_token", true)?;
    writer.metadata("tokenizer.ggml.add_sep_token", false)?;
    writer.metadata("tokenizer.ggml.normalizer.lowercase", true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use herald::gguf::Gguf;
    use safetensors::tensor::TensorView;

    use super::*;

    const CONFIG: &str = r#"{"hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 3,
        "max_position_embeddings": 4, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "vocab_size": 7}"#;
    const PIECES: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nword\n##s\n";

    fn converted(dtype: Dtype, name: &str, pieces: &str) -> Result<Gguf, BertError> {
        let bytes: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let view = TensorView::new(dtype, vec![3, 2], &bytes[..6 * dtype.bitsize() / 8]).unwrap();
        let weights = safetensors::serialize(BTreeMap::from([(name, view)]), None).unwrap();
        let bert = Bert { name: "small", weights: &weights, config: CONFIG.as_bytes(), pieces };
        Ok(Gguf::from_bytes(&convert(&bert, Vec::new())?)?)
    }

    #[test]
    fn names_shapes_and_pieces_are_ggufs() {
        let gguf = converted(Dtype::F32, "encoder.layer.0.intermediate.dense.weight", PIECES).unwrap();
        let tensor = gguf.tensor("blk.0.ffn_up.weight").unwrap();
        assert_eq!((tensor.dims(), tensor.dtype()), (&[2, 3][..], DType::F32));
        let metadata = gguf.metadata();
        assert_eq!(metadata.require::<u32>("tokenizer.ggml.bos_token_id").unwrap(), 2);
        assert_eq!(metadata.require::<u32>("bert.feed_forward_length").unwrap(), 3);
        let shown = metadata.iter().find(|(key, _)| *key == "tokenizer.ggml.tokens").unwrap().1;
        let expected = ArrayBuf::strings(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u{2581}word", "s"]);
        assert_eq!(shown, herald::gguf::Value::from(&expected));
        assert!(
            converted(Dtype::F32, "pooler.dense.weight", PIECES)
                .unwrap()
                .tensor("pooler.dense.weight")
                .is_none()
        );
    }

    #[test]
    fn what_is_no_bert_is_refused() {
        let name = "embeddings.word_embeddings.weight";
        for (dtype, name, pieces, expected) in [
            (Dtype::F32, "lm_head.weight", PIECES, "lm_head.weight, which no BERT has"),
            (Dtype::F16, name, PIECES, "of type F16, where F32"),
            (Dtype::F32, name, "[PAD]\n[CLS]", "has 2 pieces, where 7"),
            (Dtype::F32, name, "a\nb\nc\nd\ne\nf\ng", "no piece [CLS]"),
        ] {
            let error = converted(dtype, name, pieces).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
