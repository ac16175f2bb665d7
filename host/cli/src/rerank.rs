//! `host rerank`: documents by how well they answer a query.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use herald::NeuroEngine;
use serde::Deserialize;
use serde_json::json;

use super::failure::Failure;
use super::options::EngineOptions;
use super::{ids, input, output};

/// Sort documents by how well they answer a query
#[derive(Debug, Args)]
#[command(
    after_help = "Without a document or a file, each line of stdin is a document. The model is a reranker, whose file
says so (bge-reranker, Qwen3-Reranker). The best come first: a score, the document's number (from 0), and how
it begins. Scores compare documents of one query; Qwen3-Reranker's are probabilities.

Examples:
  host rerank --model reranker.gguf 'What do pandas eat?' 'Bamboo, mostly.' 'Paris is in France.'
  host rerank --model reranker.gguf 'What do pandas eat?' --lines pages.jsonl --top 3 --json"
)]
pub(super) struct Rerank {
    /// The query
    #[arg(value_parser = NonEmptyStringValueParser::new(), required_unless_present = "ids")]
    query: Option<String>,
    /// The documents
    documents: Vec<String>,
    /// Take a document from a file; several are several documents
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Take documents from the lines of a file: JSON strings, or objects with a "text"; `-` is stdin
    #[arg(long, value_name = "FILE")]
    lines: Option<PathBuf>,
    /// Take the token ids of one query with its document from a file, with what the model puts around them: with white space or
    /// commas between them, or as `host tokenize --json` prints them; `-` is stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["query", "documents", "files", "lines"])]
    ids: Option<PathBuf>,
    /// Print only the best, this many
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Print {"results": [{"index": ..., "score": ..., "document": ...}]}
    #[arg(long)]
    json: bool,
}

/// A line of JSON that holds a document.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Text(String),
    Object { text: String },
}

impl Rerank {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        // What can't be read is told before a model is loaded.
        let documents = if self.ids.is_some() { vec![String::new()] } else { self.all_documents()? };
        let engine = NeuroEngine::load(&options.model_path()?, &options.load_options())?;
        let scores = match &self.ids {
            Some(file) => engine.rank_pairs(&[&ids::of_file(file, &engine)?], None)?,
            None => {
                let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
                engine.rank(self.query.as_deref().unwrap_or_default(), &texts, None)?
            }
        };
        let mut ranked: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
        // Equal ones stay in their order.
        ranked.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        ranked.truncate(self.top.unwrap_or(usize::MAX));
        if self.json {
            let result = |&(index, score): &(usize, f32)| json!({"index": index, "score": score, "document": documents[index]});
            return output::json(&json!({"results": ranked.iter().map(result).collect::<Vec<_>>()}));
        }
        for (index, score) in ranked {
            output::line(format_args!("{score:.4}\t{index}\t{}", beginning(&documents[index])))?;
        }
        Ok(())
    }

    /// The documents of arguments and files, or the lines of stdin.
    fn all_documents(&self) -> Result<Vec<String>, Failure> {
        let mut documents = self.documents.clone();
        for file in &self.files {
            documents.push(input::read(file)?);
        }
        if let Some(file) = &self.lines {
            documents.extend(json_lines(file)?);
        }
        if documents.is_empty() && self.files.is_empty() && self.lines.is_none() {
            documents
                .extend(input::text(None, None)?.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
        if documents.is_empty() {
            return Err(Failure::Failed("there is no document, where at least one was expected".to_owned()));
        }
        Ok(documents)
    }
}

/// The documents in a file of JSON lines.
fn json_lines(file: &Path) -> Result<Vec<String>, Failure> {
    let text = input::read(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let document = |(number, line): (usize, &str)| match serde_json::from_str(line) {
        Ok(Line::Text(text) | Line::Object { text }) => Ok(text),
        Err(_) => Err(Failure::Failed(format!(
            "{}: line {} is no JSON string, and no object with a \"text\", where one of these was expected",
            file.display(),
            number + 1
        ))),
    };
    lines.map(document).collect()
}

/// How a document begins, in one line.
fn beginning(document: &str) -> String {
    const CHARS: usize = 72;
    let words: Vec<&str> = document.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(CHARS) {
        None => line,
        Some((end, _)) => format!("{}\u{2026}", &line[..end]),
    }
}
