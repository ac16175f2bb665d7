//! `host embed`: texts as vectors.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use herald::model::Pooling;
use herald::{EmbedOptions, NeuroEngine};
use serde_json::json;

use super::failure::Failure;
use super::options::EngineOptions;
use super::{ids, input, output};

/// Turn texts into embeddings: vectors that are near each other where texts mean alike
#[derive(Debug, Args)]
#[command(after_help = "Without a text or a file, each line of stdin is a text.

Models that are made for this (MiniLM, BGE, EmbeddingGemma, Qwen3-Embedding) say how their vectors are
pooled. Some want a prefix before each text, such as 'query: ': their cards say so.

Examples:
  host embed --model minilm.gguf --json 'A cat sat on the mat' 'The feline rested'
  host embed --model minilm.gguf --file a.txt --file b.txt
  host embed --model minilm.gguf < sentences.txt > vectors.txt")]
pub(super) struct Embed {
    /// The texts
    texts: Vec<String>,
    /// Take a text from a file; several are several texts
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take one text's token ids from a file, with what the model puts before and after: with white space or commas between
    /// them, or as `host tokenize --json` prints them; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "files"])]
    ids: Option<PathBuf>,
    /// How the vectors of a text's tokens become one [default: as the model says, else mean]
    #[arg(long, value_enum)]
    pooling: Option<PoolingName>,
    /// Leave vectors as long as they are, not of length 1
    #[arg(long)]
    raw: bool,
    /// Print {"embeddings": [[...]], ...}
    #[arg(long)]
    json: bool,
}

/// How embeddings are pooled.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingName {
    /// The mean of all tokens
    Mean,
    /// The first token
    Cls,
    /// The last token
    Last,
}

impl Embed {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let texts = if self.ids.is_some() { Vec::new() } else { self.all_texts()? };
        let engine = NeuroEngine::load(&options.model_path()?, &options.load_options())?;
        let pooling = self.pooling.map(|name| match name {
            PoolingName::Mean => Pooling::Mean,
            PoolingName::Cls => Pooling::Cls,
            PoolingName::Last => Pooling::Last,
        });
        let how = EmbedOptions { pooling, normalize: !self.raw, stop: None };
        let embeddings = match &self.ids {
            Some(file) => engine.embed_ids(&[&ids::of_file(file, &engine)?], &how)?,
            None => engine.embed_texts(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &how)?,
        };
        if self.json {
            let pooling = match pooling.unwrap_or_else(|| engine.pooling()) {
                Pooling::Mean => "mean",
                Pooling::Cls => "cls",
                Pooling::Last => "last",
            };
            return output::json(&json!({
                "dimensions": engine.embedding_len(),
                "pooling": pooling,
                "normalized": !self.raw,
                "embeddings": embeddings,
            }));
        }
        for embedding in embeddings {
            let numbers: Vec<String> = embedding.iter().map(f32::to_string).collect();
            output::line(numbers.join(" "))?;
        }
        Ok(())
    }

    /// The texts of arguments and files, or the lines of stdin.
    fn all_texts(&self) -> Result<Vec<String>, Failure> {
        let mut texts = self.texts.clone();
        for file in &self.files {
            texts.push(input::read(file)?);
        }
        if texts.is_empty() {
            texts.extend(input::text(None, None)?.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
        Ok(texts)
    }
}
