//! `host tokenize`: a text's tokens.

use std::path::PathBuf;

use clap::Args;
use herald::NeuroEngine;
use serde_json::json;

use super::failure::Failure;
use super::options::EngineOptions;
use super::{input, output, tokens};

/// Show the tokens of a text
#[derive(Debug, Args)]
#[command(after_help = "No token is put before or after the text.

Examples:
  host tokenize -- 'Hello, world!'
  host tokenize --special --json -- '<|im_start|>user'")]
pub(super) struct Tokenize {
    /// The text [default: stdin]
    text: Option<String>,
    /// Take the text from a file; `-` is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "text")]
    file: Option<PathBuf>,
    /// Recognise special tokens that the text spells out
    #[arg(long)]
    special: bool,
    /// Print {"ids": [...]}
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let text = input::text(self.text.as_deref(), self.file.as_deref())?;
        let tokenizer = NeuroEngine::load_tokenizer(&options.model_path()?, &options.load_options())?;
        let ids = tokenizer.encode(&text, self.special)?;
        if self.json {
            return output::json(&json!({ "ids": ids }));
        }
        let mut table = output::table(&["ID", "TEXT"]);
        for id in ids {
            table.add_row(vec![output::number(id), tokens::quoted(&tokenizer, id)?.into()]);
        }
        output::print_table(&table)
    }
}
