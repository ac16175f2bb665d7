//! `host bench choices`: the pages that layers select, to compare with full attention.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use clap::Args;
use herald::{Capacity, Error, LoadOptions, MemoryOptions, NeuroEngine};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::{input, output, written};
use herald::threads::locked;

/// Print which pages the layers select at some depth of a text, token by token, as one JSON object
#[derive(Debug, Args)]
pub(crate) struct Choices {
    /// Tokens before the first that selects; they attend to one another exactly
    #[arg(short = 'p', long, value_name = "N", default_value_t = 8192)]
    depth: u32,
    /// Tokens that select
    #[arg(short = 'n', long, value_name = "N", default_value_t = 64)]
    queries: u32,
    /// The text; `-` is stdin
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Save the sequence before these tokens, with every page as attention wrote it
    #[arg(long, value_name = "FILE")]
    save_state: Option<PathBuf>,
}

impl Choices {
    pub(crate) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let (depth, queries) = (self.depth as usize, self.queries as usize);
        let load = options.load_options();
        let requested = load.memory.clone();
        let everything = MemoryOptions { active: Capacity::Tokens(usize::MAX), ..load.memory };
        let context = load.context.unwrap_or(0).max(depth + queries);
        let load = LoadOptions { context: Some(context), memory: everything, ..load };
        let model = options.model_path()?;
        if let Some(path) = &self.save_state {
            written::check_state(path, [(&*model, written::MODEL), (&*self.file, written::TEXT)])?;
        }
        let engine = NeuroEngine::load(&model, &load)?;
        let ids = engine.tokenizer().encode_prompt(&input::read(&self.file)?, false)?;
        if ids.len() < depth + queries {
            return Err(Failure::Failed(format!(
                "{}: the text has {} tokens, where at least {} were expected",
                self.file.display(),
                ids.len(),
                depth + queries
            )));
        }
        let lookout = Lookout::begin();
        let mut sequence = engine.sequence()?;
        engine.prefill_while(&mut sequence, &ids[..depth], &mut |_| lookout.go_on())?;
        if let Some(path) = &self.save_state {
            engine.save(&sequence, &ids[depth..depth + queries], path)?;
        }
        engine.demote(&mut sequence, &requested)?;
        let choices: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = Arc::clone(&choices);
        engine.watch_selections(Some(Arc::new(move |selection| {
            let pages: Vec<usize> = selection.selected.iter().map(|page| selection.first + page).collect();
            let selectable = [selection.first, selection.first + selection.scores.len()];
            let choice = json!({"layer": selection.layer, "selectable": selectable, "selected": pages});
            locked(&heard).push(choice);
        })));
        let mut by_query = Vec::new();
        for id in &ids[depth..depth + queries] {
            if !lookout.go_on() {
                return Err(Error::Cancelled.into());
            }
            engine.decode(&mut [(&mut sequence, *id)])?;
            let choices = std::mem::take(&mut *locked(&choices));
            by_query.push(json!({"token": id, "choices": choices}));
        }
        output::json(&json!({"depth": depth, "page_tokens": load.page_tokens, "queries": by_query}))
    }
}
