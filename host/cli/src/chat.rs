//! `host chat`: a conversation.

use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use etcetera::{BaseStrategy, choose_base_strategy};
use herald::chat::{ChatTemplate, Message};
use herald::sampler::SamplerState;
use herald::{Finish, GenerateOptions, NeuroEngine, Sequence};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use super::failure::Failure;
use super::generate::statistics;
use super::interrupt::Lookout;
use super::options::EngineOptions;
use super::output;
use super::sampling::Sampling;
use super::session::{self, Opened, Session, Transcript};

const HELP: &str = "\
Type a message and press Enter. A line that ends in \\ continues in the next; lines between two lines of \"\"\" are one message.
Ctrl-C stops an answer; Ctrl-D or /quit leaves. A line that begins with a slash is a command, unless a space is before it:
  /reset          start over, with the same system message
  /system TEXT    set the system message and start over; without a text, without one
  /undo           take back the last message and its answer
  /help           this text
  /quit           leave";

/// Talk with a chat model
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Chat {
    /// The system message
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Continue the conversation of this name, or start it; it is saved after each answer
    #[arg(long, value_name = "NAME", value_parser = session::name)]
    session: Option<String>,
    /// Where conversations are saved [default: herald/sessions in the user's data folder]
    #[arg(long, value_name = "FOLDER", requires = "session")]
    session_dir: Option<PathBuf>,
    /// Print the speed of each answer on stderr
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    sampling: Sampling,
}

impl Chat {
    pub(super) fn run(self, options: &EngineOptions) -> Result<(), Failure> {
        let session = self.session.as_ref().map(|name| Session::new(name, self.session_dir.as_deref()));
        let session = session.transpose()?;
        let engine = options.load_with_draft()?;
        let opened = session.as_ref().map(|session| session.open(&engine)).transpose()?.flatten();
        let (sequence, transcript, random) = match opened {
            Some(Opened { sequence, transcript, random }) => (sequence, transcript, random),
            None => (engine.sequence()?, Transcript::default(), None),
        };
        let mut talk = Talk {
            template: engine.chat_template()?,
            sequence,
            transcript,
            random,
            session,
            engine: &engine,
        };
        if self.system.is_some() {
            talk.transcript.system.clone_from(&self.system);
        }
        let mut reader = Reader::new()?;
        if reader.is_terminal() && !options.quiet {
            let backends: Vec<String> = engine.backends().into_iter().map(|(name, _)| name).collect();
            output::note(format_args!(
                "{} on {}. /help says more, Ctrl-D leaves.",
                engine.path().display(),
                backends.join(" and ")
            ));
            if !talk.transcript.messages.is_empty() {
                output::note(format_args!("(continuing after {} messages)", talk.transcript.messages.len()));
            }
        }
        while let Some(message) = reader.message()? {
            match Input::of(&message) {
                Input::Nothing => {}
                Input::Message => talk.answer(message, &self, options)?,
                Input::Quit => break,
                Input::Help => output::help(HELP),
                Input::Wrong(what) => output::note(what),
                Input::Change(change) => {
                    let done = talk.change(change)?;
                    if !options.quiet {
                        output::note(done);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What the user typed.
#[derive(Debug, PartialEq, Eq)]
enum Input<'m> {
    Nothing,
    Message,
    Quit,
    Help,
    Change(Change<'m>),
    /// A command that can't be obeyed: why.
    Wrong(String),
}

/// A command that changes the conversation.
#[derive(Debug, PartialEq, Eq)]
enum Change<'m> {
    Reset,
    System(&'m str),
    Undo,
}

impl<'m> Input<'m> {
    fn of(message: &'m str) -> Self {
        let text = message.trim_end();
        if text.trim_start().is_empty() {
            return Self::Nothing;
        }
        let (word, rest) =
            text.split_once(char::is_whitespace).map_or((text, ""), |(word, rest)| (word, rest.trim()));
        match (word, rest) {
            ("/help" | "/?", _) => Self::Help,
            ("/system", text) => Self::Change(Change::System(text)),
            ("/quit" | "/exit", "") => Self::Quit,
            ("/reset", "") => Self::Change(Change::Reset),
            ("/undo", "") => Self::Change(Change::Undo),
            ("/quit" | "/exit" | "/reset" | "/undo", rest) => {
                Self::Wrong(format!("{word} takes nothing after it, but {rest:?} is there; /help says more"))
            }
            // A path or a comment is no command.
            (word, _) if is_command(word) && !text.contains('\n') => Self::Wrong(format!(
                "there is no command {word}; /help lists the commands, and a space before the slash makes it a message"
            )),
            _ => Self::Message,
        }
    }
}

/// Whether a word is a slash and a name.
fn is_command(word: &str) -> bool {
    word.strip_prefix('/').is_some_and(|name| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    })
}

/// A conversation, and the sequence of the tokens that were run.
struct Talk<'e> {
    engine: &'e NeuroEngine,
    template: ChatTemplate,
    sequence: Sequence,
    transcript: Transcript,
    /// In a session, the sampler's state to continue with.
    random: Option<SamplerState>,
    session: Option<Session>,
}

impl Talk<'_> {
    /// Obeys a command. Returns a line that says what has become of the conversation.
    fn change(&mut self, change: Change<'_>) -> Result<String, Failure> {
        let messages = &mut self.transcript.messages;
        let done = match change {
            Change::Reset => {
                messages.clear();
                match &self.transcript.system {
                    Some(_) => "(started over; the system message stays)".to_owned(),
                    None => "(started over)".to_owned(),
                }
            }
            Change::System(text) => {
                messages.clear();
                self.transcript.system = (!text.is_empty()).then(|| text.to_owned());
                match &self.transcript.system {
                    Some(_) => "(the system message is set; started over)".to_owned(),
                    None => "(no system message; started over)".to_owned(),
                }
            }
            Change::Undo if messages.is_empty() => "(there is no message to take back)".to_owned(),
            Change::Undo => {
                messages.truncate(messages.len().saturating_sub(2));
                match messages.len() / 2 {
                    0 => "(took back the last message and its answer; none is left)".to_owned(),
                    1 => "(took back the last message and its answer; one is left)".to_owned(),
                    left => format!("(took back the last message and its answer; {left} are left)"),
                }
            }
        };
        // A session that nothing was said in has nothing to save.
        if let Some(session) = self.session.as_ref().filter(|_| !self.sequence.tokens().is_empty()) {
            session.save(self.engine, &self.sequence, &self.transcript, self.random)?;
        }
        Ok(done)
    }

    /// Lets the model answer a message. Tokens that the sequence already holds are not run again.
    fn answer(&mut self, message: String, chat: &Chat, options: &EngineOptions) -> Result<(), Failure> {
        self.transcript.messages.push(Message::new("user", message));
        let system = self.transcript.system.as_deref().map(|text| Message::new("system", text));
        let all: Vec<Message> = system.into_iter().chain(self.transcript.messages.iter().cloned()).collect();
        let rendered = self.template.render(&all, true).map_err(herald::Error::from)?;
        let ids = self.engine.tokenizer().encode_prompt(&rendered, true)?;
        let common = self.sequence.tokens().iter().zip(&ids).take_while(|(a, b)| a == b).count();
        // At least the last token must run, for its logits.
        let kept = common.min(ids.len().saturating_sub(1));
        if !self.sequence.truncate(kept) {
            self.sequence = self.engine.sequence()?;
        }
        let kept = self.sequence.tokens().len();
        let lookout = Lookout::begin_patiently();
        self.sequence.set_stop(Some(lookout.stop()));
        let mut stream = output::Stream::new();
        let mut unwritten = None;
        let mut generate = GenerateOptions { random: self.random, ..chat.sampling.options(0)? };
        if options.has_sampling {
            generate.sampler = chat.sampling.sampler(self.engine.recommended_sampling(), 0)?;
        }
        let generated = self.engine.generate(
            &mut self.sequence,
            &ids[kept..],
            &generate,
            &mut || lookout.go_on(),
            &mut |piece| {
                unwritten = stream.push(piece.text).err();
                unwritten.is_none() && lookout.go_on()
            },
        );
        drop(lookout);
        if let Some(failure) = unwritten {
            return Err(failure);
        }
        stream.end_line()?;
        match generated {
            Ok(generated) => {
                if chat.stats && !options.quiet {
                    output::note(statistics(self.engine, &generated));
                }
                match generated.finish {
                    Finish::ContextFull => output::note("(the context is full; /reset starts over)"),
                    Finish::Cancelled => output::note("(stopped)"),
                    _ => {}
                }
                self.transcript.messages.push(Message::new("assistant", generated.text));
                if let Some(session) = &self.session {
                    self.random = Some(generated.random);
                    session.save(self.engine, &self.sequence, &self.transcript, self.random)?;
                }
                Ok(())
            }
            // Stopped during the prompt, or no room: drop the message, and keep the conversation.
            Err(herald::Error::Cancelled) => {
                self.transcript.messages.pop();
                output::note("(stopped)");
                Ok(())
            }
            Err(error @ herald::Error::ContextFull { .. }) if io::stdin().is_terminal() => {
                self.transcript.messages.pop();
                output::note(format_args!("{error}; /reset starts over"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The source of messages: a line editor on a terminal, or stdin.
enum Reader {
    Terminal { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Lines(io::Lines<io::StdinLock<'static>>),
}

impl Reader {
    fn new() -> Result<Self, Failure> {
        if !io::stdin().is_terminal() {
            return Ok(Self::Lines(io::stdin().lock().lines()));
        }
        let failed = |error: ReadlineError| Failure::Failed(format!("the terminal can't be used: {error}"));
        let mut editor = DefaultEditor::new().map_err(failed)?;
        let base = choose_base_strategy().ok();
        let folder = base.map(|base| base.state_dir().unwrap_or_else(|| base.data_dir()).join("herald"));
        // No history is better than no conversation.
        let history = folder
            .filter(|folder| std::fs::create_dir_all(folder).is_ok())
            .map(|folder| folder.join("chat_history"));
        if let Some(history) = &history {
            let _ = editor.load_history(history);
        }
        Ok(Self::Terminal { editor: Box::new(editor), history })
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// The next line, or `None` at the end.
    fn line(&mut self, prompt: &str) -> Result<Option<String>, Failure> {
        match self {
            Self::Lines(lines) => lines
                .next()
                .transpose()
                .map_err(|error| Failure::Failed(format!("stdin: can't be read: {error}"))),
            Self::Terminal { editor, .. } => loop {
                match editor.readline(prompt) {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => output::note("(Ctrl-D or /quit leaves)"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => {
                        return Err(Failure::Failed(format!("the terminal can't be read: {error}")));
                    }
                }
            },
        }
    }

    /// The next message, which may have several lines.
    fn message(&mut self) -> Result<Option<String>, Failure> {
        const BLOCK: &str = "\"\"\"";
        let Some(mut line) = self.line("> ")? else { return Ok(None) };
        let mut message = String::new();
        if line.trim() == BLOCK {
            while let Some(line) = self.line(". ")?.filter(|line| line.trim() != BLOCK) {
                message.push_str(&line);
                message.push('\n');
            }
            message.pop();
        } else {
            while let Some(begun) = line.strip_suffix('\\') {
                message.push_str(begun);
                message.push('\n');
                line = self.line(". ")?.unwrap_or_default();
            }
            message.push_str(&line);
        }
        if let Self::Terminal { editor, history } = self
            && !message.trim().is_empty()
        {
            let _ = editor.add_history_entry(message.as_str());
            if let Some(history) = history {
                let _ = editor.save_history(history);
            }
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, Input};

    #[test]
    fn commands_are_told_from_messages() {
        for (text, input) in [
            ("", Input::Nothing),
            (" \n ", Input::Nothing),
            ("hello", Input::Message),
            ("/help", Input::Help),
            ("/help me", Input::Help),
            ("/quit ", Input::Quit),
            ("/reset", Input::Change(Change::Reset)),
            ("/undo", Input::Change(Change::Undo)),
            ("/system", Input::Change(Change::System(""))),
            ("/system  Be brief.\nAlways.", Input::Change(Change::System("Be brief.\nAlways."))),
            (" /help", Input::Message),
            ("/etc/passwd holds what?", Input::Message),
            ("// a comment", Input::Message),
            ("/ is a slash", Input::Message),
            ("/resets\nin two lines", Input::Message),
        ] {
            assert_eq!(Input::of(text), input, "{text:?}");
        }
        for (text, word) in [("/undo twice", "\"twice\""), ("/resets", "no command /resets"), ("/x y", "/x")]
        {
            let Input::Wrong(what) = Input::of(text) else { panic!("{text} is no command") };
            assert!(what.contains(word), "{what}");
        }
    }
}
