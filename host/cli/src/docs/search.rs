//! `host docs search`: the chunks that fit a query.

use clap::Args;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::options::EngineOptions;
use crate::output;

/// How many characters of a chunk are shown.
const SHOWN: usize = 160;

/// Find the chunks that fit a query, by meaning and by words
#[derive(Debug, Args)]
pub(crate) struct Search {
    /// The query
    query: String,
    /// How many chunks to show
    #[arg(short = 'k', long, value_name = "N", default_value_t = 5)]
    count: usize,
    /// Print {"hits": [...]}, with the chunks' whole texts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    folder: Folder,
}

impl Search {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        self.folder.must_be_there()?;
        let hits = self.folder.documents(options)?.search(&self.query, self.count)?;
        if self.json {
            return output::json(&json!({ "hits": hits }));
        }
        let mut table = output::table(&["SCORE", "MEANING", "WORDS", "TEXT", "CHUNK", "BEGINS"]);
        for hit in hits {
            let begins: String =
                hit.text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(SHOWN).collect();
            let words =
                hit.word_rank.map_or_else(|| "-".to_owned(), |rank| format!("{rank} ({:.2})", hit.words));
            table.add_row(vec![
                output::number(format_args!("{:.4}", hit.score)),
                output::number(format_args!("{} ({:.2})", hit.meaning_rank, hit.meaning)),
                output::number(words),
                hit.name.as_str().into(),
                output::number(hit.chunk),
                begins.into(),
            ]);
        }
        output::print_table(&table)
    }
}
