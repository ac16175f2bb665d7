//! `host generate`: continue a text, or answer a message.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use herald::chat::Message;
use herald::{Finish, Generated, NeuroEngine, SavedExtras};
use serde_json::{Value, json};

use super::failure::Failure;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::sampling::Sampling;
use super::{input, output, progress, tokens, written};

/// Continue a text, or answer a message
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  host generate 'Once upon a time' -n 100 --temperature 0.8
  host generate --chat --system 'Answer in one word.' 'What is the capital of France?'
  echo 'def fibonacci(n):' | host generate --stop 'def '
  host generate --save-state s.herald -n 50 'Dear diary,' && host generate --load-state s.herald -n 50
  host generate --chat --json-schema answer.json 'Name a colour and its RGB value.'
  host generate --json --logprobs 3 -n 5 'The sky is'")]
pub(super) struct Generate {
    /// The text to continue, or the message [default: stdin]
    prompt: Option<String>,
    /// Take the prompt from a file; `-` is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "prompt")]
    file: Option<PathBuf>,
    /// Send the prompt to a chat model as a user's message, in the model's chat template
    #[arg(long)]
    chat: bool,
    /// The system message for the chat model
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Recognise special tokens that the prompt spells out
    #[arg(long)]
    parse_special: bool,
    /// Print the log-probability of each token and of the N likeliest alternatives (with --json)
    #[arg(long, value_name = "N", requires = "json")]
    logprobs: Option<u32>,
    /// Continue a saved sequence; the prompt, if any, comes after it
    #[arg(long, value_name = "FILE")]
    load_state: Option<PathBuf>,
    /// Save the sequence afterwards, to continue it later
    #[arg(long, value_name = "FILE")]
    save_state: Option<PathBuf>,
    /// Print one JSON object instead of the text
    #[arg(long)]
    json: bool,
    /// Print the speed on stderr, even if that is no terminal
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: Sampling,
}

impl Generate {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let mut generate = self.sampling.options(self.logprobs.unwrap_or(0))?;
        let continues = self.load_state.is_some();
        let text = match (continues, &self.prompt, &self.file) {
            (true, None, None) => String::new(),
            _ => input::text(self.prompt.as_deref(), self.file.as_deref())?,
        };
        self.check_state(options)?;
        let engine = options.load_with_draft()?;
        if options.has_sampling {
            generate.sampler =
                self.sampling.sampler(engine.recommended_sampling(), self.logprobs.unwrap_or(0))?;
        }
        let (mut sequence, mut before) = match &self.load_state {
            Some(path) => {
                let mut restored = engine.restore(path)?;
                engine.set_loras(&mut restored.sequence, &engine.usual_loras())?;
                if !self.sampling.has_seed() {
                    generate.random = restored.sampler;
                }
                (restored.sequence, restored.pending)
            }
            None => (engine.sequence()?, Vec::new()),
        };
        before.extend(self.prompt_ids(&engine, &text)?);
        let prompt = before;
        if prompt.is_empty() {
            return Err(Failure::Failed("the prompt is empty, where some text was expected".to_owned()));
        }
        let lookout = Lookout::begin();
        sequence.set_stop(Some(lookout.stop()));
        let mut stream = output::Stream::new();
        let (mut pieces, mut unwritten) = (Vec::new(), None);
        let bar = progress::bar(
            "prompt",
            prompt.len(),
            "tokens",
            options.quiet || prompt.len() <= options.max_batch(),
        );
        let generated = engine.generate(
            &mut sequence,
            &prompt,
            &generate,
            &mut || {
                bar.inc(options.max_batch() as u64);
                if bar.position() >= prompt.len() as u64 {
                    bar.finish_and_clear();
                }
                lookout.go_on()
            },
            &mut |piece| {
                if !self.json {
                    unwritten = stream.push(piece.text).err();
                } else if !piece.tail {
                    pieces.push(piece.sampled.clone());
                }
                unwritten.is_none() && lookout.go_on()
            },
        )?;
        if let Some(failure) = unwritten {
            return Err(failure);
        }
        if let Some(path) = &self.save_state {
            // The last token has been sampled, but not run.
            let last = generated.tokens.last().map_or(&[][..], std::slice::from_ref);
            let sampler = Some(generated.random);
            engine.save_with(
                &sequence,
                &SavedExtras { pending: last, sampler, ..SavedExtras::default() },
                path,
            )?;
        }
        if self.json {
            let logprobs = if self.logprobs.is_some() { logprobs(&engine, &pieces)? } else { Value::Null };
            output::json(&report(&engine, &generated, logprobs))?;
        } else {
            stream.end_line()?;
        }
        if self.stats || (io::stderr().is_terminal() && !options.quiet && !self.json) {
            output::note(statistics(&engine, &generated));
        }
        if generated.finish == Finish::Cancelled { Err(Failure::Interrupted) } else { Ok(()) }
    }

    /// That the sequence can be saved where that is wanted.
    fn check_state(&self, options: &EngineOptions) -> Result<(), Failure> {
        let Some(path) = &self.save_state else { return Ok(()) };
        let model = options.model_path()?;
        let prompt = self.file.as_deref().map(|file| (file, written::TEXT));
        written::check_state(path, prompt.into_iter().chain([(&*model, written::MODEL)]))
    }

    /// The prompt's ids: of the text as it is, or of a conversation that it begins.
    fn prompt_ids(&self, engine: &NeuroEngine, text: &str) -> Result<Vec<u32>, Failure> {
        if !self.chat {
            return self.encode(engine, text, self.parse_special);
        }
        let system = self.system.as_deref().map(|text| Message::new("system", text));
        let messages: Vec<Message> = system.into_iter().chain([Message::new("user", text)]).collect();
        let rendered = engine.chat_template()?.render(&messages, true).map_err(herald::Error::from)?;
        self.encode(engine, &rendered, true)
    }
}

impl Generate {
    /// A text's tokens: with the prompt's beginning-of-text token, unless it continues a saved sequence.
    fn encode(&self, engine: &NeuroEngine, text: &str, special: bool) -> Result<Vec<u32>, Failure> {
        let tokenizer = engine.tokenizer();
        Ok(match (&self.load_state, text.is_empty()) {
            (Some(_), true) => Vec::new(),
            (Some(_), false) => tokenizer.encode(text, special)?,
            (None, _) => tokenizer.encode_prompt(text, special)?,
        })
    }
}

/// The speed of a generation, in one line.
pub(super) fn statistics(engine: &NeuroEngine, generated: &Generated) -> String {
    let backends: Vec<String> = engine.backends().into_iter().map(|(name, _)| name).collect();
    let cached = match generated.shared_tokens {
        0 => String::new(),
        cached => format!(" ({cached} of them cached)"),
    };
    let drafts = match generated.accepted_tokens {
        0 => String::new(),
        accepted => format!(" ({accepted} of them from drafts)"),
    };
    let computed = generated.prompt_tokens - generated.shared_tokens;
    format!(
        "[{} prompt tokens{cached} at {:.1}/s, {} generated{drafts} at {:.1}/s, {} on {} threads]",
        generated.prompt_tokens,
        output::per_second(computed, generated.prompt_time.as_secs_f64()),
        generated.tokens.len(),
        output::per_second(generated.tokens.len().saturating_sub(1), generated.decode_time.as_secs_f64()),
        backends.join(" and "),
        engine.threads()
    )
}

fn report(engine: &NeuroEngine, generated: &Generated, logprobs: Value) -> Value {
    let finish = match generated.finish {
        Finish::EndToken(_) => "end",
        Finish::StopText(_) => "stop",
        Finish::Complete => "complete",
        Finish::Length => "length",
        Finish::ContextFull => "context",
        Finish::Cancelled => "cancelled",
    };
    let mut report = json!({
        "text": generated.text,
        "tokens": generated.tokens,
        "finish": finish,
        "seed": generated.seed,
        "prompt_tokens": generated.prompt_tokens,
        "cached_tokens": generated.shared_tokens,
        "drafted_tokens": generated.drafted_tokens,
        "accepted_tokens": generated.accepted_tokens,
        "guessed_tokens": generated.guessed_tokens,
        "accepted_guesses": generated.accepted_guesses,
        "prompt_s": generated.prompt_time.as_secs_f64(),
        "decode_s": generated.decode_time.as_secs_f64(),
        "load_s": engine.load_time().as_secs_f64(),
        "backends": engine.backends().into_iter().map(|(name, layers)| json!({"name": name, "layers": layers})).collect::<Vec<_>>(),
        "threads": engine.threads(),
        "model": engine.path().to_string_lossy(),
    });
    if !logprobs.is_null() {
        report["logprobs"] = logprobs;
    }
    report
}

fn logprobs(engine: &NeuroEngine, pieces: &[herald::sampler::Sampled]) -> Result<Value, Failure> {
    let tokenizer = engine.tokenizer();
    let one = |token: u32, logprob: f32| -> Result<Value, Failure> {
        Ok(json!({"id": token, "text": tokens::text(tokenizer, token)?, "logprob": logprob}))
    };
    pieces
        .iter()
        .map(|sampled| {
            let mut entry = one(sampled.token, sampled.logprob)?;
            let top =
                sampled.top.iter().map(|(token, logprob)| one(*token, *logprob)).collect::<Result<_, _>>()?;
            entry["top"] = Value::Array(top);
            Ok(entry)
        })
        .collect()
}
