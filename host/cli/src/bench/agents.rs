//! `host bench agents`: what growing conversations cost.

use clap::Args;
use herald_suites::{AgentScenario, Agents as Measured, Conversations};
use serde_json::json;

use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::output;

/// Measure conversations as agents send them, all of it again with every turn: computed tokens, and the time to the first token
#[derive(Debug, Args)]
pub(crate) struct Agents {
    /// Turns of a conversation
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(4..))]
    turns: u32,
    /// Tokens that a conversation has in the end
    #[arg(short = 'p', long, value_name = "N", default_value_t = 16_000, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Tokens of an answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    answer: u32,
    /// Conversations at once, in the memory that half of them need
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=32))]
    conversations: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Agents {
    pub(crate) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let folder = tempfile::tempdir()
            .map_err(|error| Failure::Failed(format!("there is no folder for the cache's files: {error}")))?;
        let measured = Measured {
            turns: self.turns as usize,
            tokens: self.tokens as usize,
            answer: self.answer as usize,
            conversations: self.conversations as usize,
            folder: folder.path().to_owned(),
        };
        let lookout = Lookout::begin();
        let model = options.model_path()?;
        let scenarios = measured.measure(&model, &options.load_options(), &mut |what| {
            if !options.quiet {
                output::note(what);
            }
            lookout.go_on()
        })?;
        if self.json {
            let all: Vec<_> = scenarios
                .iter()
                .map(|scenario| {
                    json!({
                        "name": scenario.name,
                        "requests": scenario.turns.len(),
                        "new_tokens": scenario.new_tokens(),
                        "computed_tokens": scenario.computed_tokens(),
                        "ratio": scenario.ratio(),
                        "median_first_token_s": scenario.median_first_token_s(),
                        "max_first_token_s": scenario.max_first_token_s(),
                        "turns": scenario.turns,
                        "cache": scenario.cache,
                    })
                })
                .collect();
            let (turns, tokens, answer) = (self.turns, self.tokens, self.answer);
            let model = model.to_string_lossy();
            return output::json(&json!({
                "model": model, "turns": turns, "tokens": tokens, "answer": answer,
                "conversations": self.conversations, "scenarios": all,
            }));
        }
        print(&scenarios.iter().map(AgentScenario::figures).collect::<Vec<_>>())
    }
}

/// Prints what conversations cost, a line for each way in which they were sent.
pub(super) fn print(all: &[Conversations]) -> Result<(), Failure> {
    let mut table = output::table(&["", "REQUESTS", "NEW", "COMPUTED", "RATIO", "FIRST TOKEN", "LONGEST"]);
    for one in all {
        table.add_row(vec![
            one.name.as_str().into(),
            output::number(one.requests as u64),
            output::number(one.new_tokens as u64),
            output::number(one.computed_tokens as u64),
            output::number(format!("{:.3}", one.ratio())),
            output::number(format!("{:.0} ms", 1e3 * one.median_first_token_s)),
            output::number(format!("{:.0} ms", 1e3 * one.max_first_token_s)),
        ]);
    }
    output::print_table(&table)
}
