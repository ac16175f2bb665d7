//! What an agent's conversation costs: a client sends all of it again each turn, and waits for the first token.
//!
//! It isn't one of the 33 benchmarks. Five ways in which clients send histories: each turn appended to the last; the same once the
//! program was started again; an earlier turn edited; two branches in turn; and several conversations at once, in half of the
//! memory that they need. Each compares the tokens that were computed with those that no earlier request had.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::corpus;
use super::measurement::quantile;
use super::report::Conversations;
use herald::schedule::{Request, Scheduler, SchedulerOptions, Ticket};
use herald::{CacheReport, Error, GenerateOptions, LoadOptions, NeuroEngine, Result};

/// How long the conversations are.
#[derive(Clone, Debug)]
pub struct Agents {
    /// Turns of a conversation.
    pub turns: usize,
    /// Tokens that it has in the end.
    pub tokens: usize,
    /// Tokens of an answer.
    pub answer: usize,
    /// Conversations at once.
    pub conversations: usize,
    /// A folder for the cache's files, which is taken as it is and left behind.
    pub folder: PathBuf,
}

/// One request of a conversation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct AgentTurn {
    /// Tokens of its prompt.
    pub prompt: usize,
    /// Those of them that no earlier request of this conversation had in its prompt or answer.
    pub new: usize,
    /// Those that were computed.
    pub computed: usize,
    /// Seconds until the first token came.
    pub first_token_s: f64,
}

/// One way in which clients send histories.
#[derive(Clone, Debug, Serialize)]
pub struct AgentScenario {
    /// What it is.
    pub name: &'static str,
    /// Its requests, in order.
    pub turns: Vec<AgentTurn>,
    /// What the cache held and had done in the end.
    pub cache: CacheReport,
}

impl AgentScenario {
    fn sum(&self, of: impl Fn(&AgentTurn) -> usize) -> usize {
        self.turns.iter().map(of).sum()
    }

    /// New tokens of all turns.
    #[must_use]
    pub fn new_tokens(&self) -> usize {
        self.sum(|turn| turn.new)
    }

    /// Computed tokens of all turns.
    #[must_use]
    pub fn computed_tokens(&self) -> usize {
        self.sum(|turn| turn.computed)
    }

    /// Computed tokens for each new one.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.figures().ratio()
    }

    /// The median time to the first token, in seconds.
    #[must_use]
    pub fn median_first_token_s(&self) -> f64 {
        quantile(&self.turns.iter().map(|turn| turn.first_token_s).collect::<Vec<_>>(), 0.5)
    }

    /// It in figures.
    #[must_use]
    pub fn figures(&self) -> Conversations {
        Conversations {
            name: self.name.to_owned(),
            requests: self.turns.len(),
            new_tokens: self.new_tokens(),
            computed_tokens: self.computed_tokens(),
            median_first_token_s: self.median_first_token_s(),
            max_first_token_s: self.max_first_token_s(),
        }
    }

    /// The longest time to the first token, in seconds.
    #[must_use]
    pub fn max_first_token_s(&self) -> f64 {
        self.turns.iter().map(|turn| turn.first_token_s).fold(0.0, f64::max)
    }
}

/// A conversation as its client knows it.
struct Conversation {
    history: Vec<u32>,
    /// Where each turn's message begins.
    starts: Vec<usize>,
    /// Tokens of the history that an earlier request had.
    known: usize,
    /// What its messages are taken from, and how much of it was.
    text: Arc<Vec<u32>>,
    used: usize,
}

impl Conversation {
    fn new(text: &Arc<Vec<u32>>, number: usize) -> Self {
        let (history, starts) = (Vec::new(), Vec::new());
        Self { history, starts, known: 0, text: Arc::clone(text), used: number * 7919 }
    }

    fn some_text(&mut self, tokens: usize) -> Vec<u32> {
        let start = self.used % self.text.len();
        self.used += tokens;
        self.text.iter().cycle().skip(start).take(tokens).copied().collect()
    }

    /// The user says something.
    fn say(&mut self, tokens: usize) {
        self.starts.push(self.history.len());
        let message = self.some_text(tokens);
        self.history.extend(message);
    }

    /// The user changes what was said in a turn, and leaves what follows.
    fn edit(&mut self, turn: usize) {
        let start = self.starts[turn];
        let changed = self.some_text(8);
        self.history[start..start + 8].copy_from_slice(&changed);
        self.known = start;
    }

    /// Begins another branch after some turns.
    fn branch(&self, turns: usize, used: usize) -> Self {
        let start = self.starts[turns];
        let (history, starts) = (self.history[..start].to_vec(), self.starts[..turns].to_vec());
        Self { history, starts, known: start, text: Arc::clone(&self.text), used }
    }
}

/// An engine and its scheduler.
struct Server {
    scheduler: Scheduler,
    answer: usize,
}

impl Server {
    fn start(model: &Path, options: &LoadOptions, answer: usize) -> Result<Self> {
        let engine = Arc::new(NeuroEngine::load(model, options)?);
        Ok(Self { scheduler: Scheduler::start(engine, SchedulerOptions::default())?, answer })
    }

    fn engine(&self) -> &NeuroEngine {
        self.scheduler.engine()
    }

    fn send(&self, conversation: &Conversation) -> Result<Ticket> {
        let options =
            GenerateOptions { max_tokens: Some(self.answer), ignore_eos: true, ..GenerateOptions::default() };
        let prompt = conversation.history.clone();
        self.scheduler.submit(Request { prompt, options, client: String::new() })
    }

    fn receive(ticket: Ticket, conversation: &mut Conversation) -> Result<AgentTurn> {
        let answer = ticket.wait()?;
        let turn = AgentTurn {
            prompt: answer.generated.prompt_tokens,
            new: conversation.history.len() - conversation.known,
            computed: answer.generated.prompt_tokens - answer.generated.shared_tokens,
            first_token_s: answer.metrics.first_token_s,
        };
        conversation.history.extend(answer.generated.tokens);
        conversation.known = conversation.history.len();
        Ok(turn)
    }

    fn turn(&self, conversation: &mut Conversation) -> Result<AgentTurn> {
        Self::receive(self.send(conversation)?, conversation)
    }
}

impl Agents {
    /// Measures all. `go_on` is told what comes next, and returns `false` to stop.
    ///
    /// # Errors
    /// A model that can't be loaded; a context that has no room for the conversations; [`Error::Cancelled`].
    pub fn measure(
        &self,
        model: &Path,
        options: &LoadOptions,
        go_on: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Vec<AgentScenario>> {
        let message = self.tokens / self.turns.max(1);
        if self.turns < 4 || message < self.answer + 16 {
            return Err(Error::Invalid(format!(
                "{} turns of {message} tokens with answers of {} were asked for, where at least 4 turns of 16 tokens more than an \
                 answer were expected",
                self.turns, self.answer
            )));
        }
        let message = message - self.answer;
        let context = options.context.unwrap_or(0).max(self.tokens + 4 * (message + self.answer));
        let options =
            LoadOptions { context: Some(context), cache_dir: Some(self.folder.clone()), ..options.clone() };
        let mut go_on = |what: &str| if go_on(what) { Ok(()) } else { Err(Error::Cancelled) };
        let mut all = Vec::new();

        let server = Server::start(model, &options, self.answer)?;
        let text = Arc::new(server.engine().tokenizer().encode(&corpus::varied(8 * self.tokens), false)?);
        let mut conversation = Conversation::new(&text, 0);
        let mut turns = Vec::new();
        for turn in 0..self.turns {
            go_on(&format!("turn {} of {}", turn + 1, self.turns))?;
            conversation.say(message);
            turns.push(server.turn(&mut conversation)?);
        }
        let cache = server.engine().cache_report();
        all.push(AgentScenario { name: "each turn appended", turns, cache });
        drop(server);

        go_on("after a restart")?;
        let server = Server::start(model, &options, self.answer)?;
        conversation.say(message);
        let turns = vec![server.turn(&mut conversation)?];
        all.push(AgentScenario { name: "after a restart", turns, cache: server.engine().cache_report() });

        go_on("an earlier turn edited")?;
        let mut edited = conversation.branch(self.turns, conversation.used);
        edited.history.clone_from(&conversation.history);
        edited.starts.clone_from(&conversation.starts);
        edited.edit(self.turns / 2);
        let turns = vec![server.turn(&mut edited)?];
        all.push(AgentScenario {
            name: "an earlier turn edited",
            turns,
            cache: server.engine().cache_report(),
        });

        go_on("two branches in turn")?;
        let mut branches =
            [conversation.branch(self.turns / 2, 1_000_003), conversation.branch(self.turns / 2, 2_000_003)];
        let mut turns = Vec::new();
        for _ in 0..3 {
            for branch in &mut branches {
                branch.say(message);
                turns.push(server.turn(branch)?);
            }
        }
        all.push(AgentScenario {
            name: "two branches in turn",
            turns,
            cache: server.engine().cache_report(),
        });
        drop(server);

        // What one conversation takes in RAM, where there is room for it.
        let needed = all[0].cache.bytes as usize;
        let room = needed.saturating_mul(self.conversations / 2).max(1);
        let options = LoadOptions { prefix_bytes: room, ..options };
        all.push(self.at_once(model, &options, &text, message, &mut go_on)?);
        Ok(all)
    }

    /// Several conversations whose turns come together.
    fn at_once(
        &self,
        model: &Path,
        options: &LoadOptions,
        text: &Arc<Vec<u32>>,
        message: usize,
        go_on: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<AgentScenario> {
        let server = Server::start(model, options, self.answer)?;
        let mut conversations: Vec<_> =
            (1..=self.conversations).map(|number| Conversation::new(text, number)).collect();
        let mut turns = Vec::new();
        for turn in 0..self.turns {
            go_on(&format!("turn {} of {} of {} conversations", turn + 1, self.turns, self.conversations))?;
            let tickets: Result<Vec<Ticket>> = conversations
                .iter_mut()
                .map(|conversation| {
                    conversation.say(message);
                    server.send(conversation)
                })
                .collect();
            for (ticket, conversation) in tickets?.into_iter().zip(&mut conversations) {
                turns.push(Server::receive(ticket, conversation)?);
            }
        }
        let cache = server.engine().cache_report();
        Ok(AgentScenario { name: "conversations at once, in half of their memory", turns, cache })
    }
}
