//! `host docs ask`: an answer from the kept texts.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use herald::chat::Message;
use herald::files;
use herald::{Finish, NeuroEngine};
use herald_documents::PROMPT_TEMPLATE;
use serde_json::json;

use super::Folder;
use crate::failure::Failure;
use crate::interrupt::Lookout;
use crate::options::EngineOptions;
use crate::output;
use crate::sampling::Sampling;

/// Tokens that the prompt leaves for the answer and the chat template if the user doesn't limit the answer.
const RESERVED_TOKENS: usize = 512;

/// Answer a question from the kept texts
#[derive(Debug, Args)]
#[command(
    after_help = "The chunks that fit best go into the prompt, as many as there is room for. Small models still make things up:
the texts that the answer should come from are named on stderr."
)]
pub(crate) struct Ask {
    /// The question
    question: String,
    /// Maximum number of chunks in the prompt
    #[arg(short = 'k', long, value_name = "N", default_value_t = 3)]
    count: usize,
    /// Maximum tokens of the prompt, without the model's chat template [default: 2048, or what the context has room for]
    #[arg(long, value_name = "TOKENS")]
    budget: Option<usize>,
    /// The prompt as a Jinja template of `notes` (each with `name` and `text`) and `question`
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Print the prompt instead of an answer
    #[arg(long)]
    prompt_only: bool,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    folder: Folder,
}

impl Ask {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let mut generate = self.sampling.options(0)?;
        let template = match &self.template {
            Some(path) => fs::read_to_string(path)
                .map_err(|error| Failure::file(path, "the prompt's template can't be read", &error))?,
            None => PROMPT_TEMPLATE.to_owned(),
        };
        let template = files::without_bom(&template);
        self.folder.must_be_there()?;
        let documents = self.folder.documents(options)?;
        let engine = documents.engine();
        let room = engine.context().saturating_sub(RESERVED_TOKENS).max(engine.context() / 2);
        let budget = self.budget.unwrap_or(room.min(2048));
        let recalled = documents.recall_as(template, &self.question, self.count, budget)?;
        if self.prompt_only {
            return if self.json { output::json(&recalled) } else { output::text(&recalled.prompt) };
        }
        if !options.quiet {
            for hit in &recalled.hits {
                output::note(format_args!("[{}, chunk {}]", hit.name, hit.chunk));
            }
        }
        let prompt = prompt(engine, &recalled.prompt)?;
        let room = engine.context().saturating_sub(prompt.len());
        generate.max_tokens = Some(generate.max_tokens.unwrap_or(RESERVED_TOKENS).min(room.max(1)));
        let lookout = Lookout::begin();
        let (mut stream, mut unwritten) = (output::Stream::new(), None);
        let mut sequence = engine.sequence()?;
        sequence.set_stop(Some(lookout.stop()));
        let generated =
            engine.generate(&mut sequence, &prompt, &generate, &mut || lookout.go_on(), &mut |piece| {
                if !self.json {
                    unwritten = stream.push(piece.text).err();
                }
                unwritten.is_none() && lookout.go_on()
            })?;
        if let Some(failure) = unwritten {
            return Err(failure);
        }
        if self.json {
            output::json(&json!({
                "answer": generated.text,
                "prompt_tokens": generated.prompt_tokens,
                "hits": recalled.hits,
            }))?;
        } else {
            stream.end_line()?;
        }
        if generated.finish == Finish::Cancelled { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

/// The prompt's tokens: a user's message for a chat model, otherwise a text that ends in "Answer:".
fn prompt(engine: &NeuroEngine, text: &str) -> Result<Vec<u32>, Failure> {
    let tokenizer = engine.tokenizer();
    Ok(match engine.chat_template() {
        Ok(template) => {
            let rendered =
                template.render(&[Message::new("user", text)], true).map_err(herald::Error::from)?;
            tokenizer.encode_prompt(&rendered, true)?
        }
        Err(_) => tokenizer.encode_prompt(&format!("{text}\nAnswer:"), false)?,
    })
}
