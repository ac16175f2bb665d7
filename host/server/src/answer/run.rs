//! A job's answers while they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use herald::schedule::{Event, Handle};
use herald::{Error, Finish, Generated, Stop};

use super::Reason;
use super::prepare::{Ready, TokenInfo, bytes_of};
use crate::error::ApiError;
use crate::job::Job;
use crate::models::Model;
use crate::prepare::too_long;
use crate::tools::{Delta, Reader};

/// A call of a tool.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) name: String,
    /// JSON.
    pub(crate) arguments: String,
}

/// One answer, as far as it has come.
#[derive(Debug)]
pub(crate) struct Choice {
    pub(crate) index: usize,
    /// Which of the job's prompts it answers.
    pub(crate) prompt: usize,
    pub(crate) text: String,
    pub(crate) thoughts: String,
    pub(crate) calls: Vec<Call>,
    /// Where log-probabilities are wanted.
    pub(crate) tokens: Vec<TokenInfo>,
    pub(crate) generated: Option<Generated>,
    pub(crate) n_tokens: usize,
    /// Whether its form lets it be any text, among which tools may be called: what such a text ends with is never its form.
    is_free: bool,
    reader: Reader,
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) deltas: Vec<Delta>,
    pub(crate) tokens: Vec<TokenInfo>,
}

/// What happened to a job.
pub(crate) enum Happened {
    /// More of the answer with this index.
    Piece(usize, Piece),
    /// The answer with this index has ended.
    Ended(usize),
}

/// A job that runs. Dropping it cancels what is left, which happens when the client disconnects.
pub(crate) struct Run {
    pub(crate) job: Job,
    /// A name for the answer, without what an API puts before it.
    pub(crate) id: String,
    /// Seconds since 1970.
    pub(crate) created: u64,
    /// Which is in use until this ends.
    pub(crate) model: Arc<Model>,
    pub(crate) choices: Vec<Choice>,
    /// The prompts' texts, where they are given back, and their tokens with log-probabilities.
    pub(crate) prompts: Vec<(String, Vec<TokenInfo>)>,
    pub(crate) prompt_tokens: Vec<usize>,
    receiver: UnboundedReceiver<(usize, Event)>,
    handles: Vec<Handle>,
    running: usize,
}

impl Drop for Run {
    fn drop(&mut self) {
        self.handles.iter().for_each(Handle::cancel);
    }
}

/// The next number of this process's answers and calls.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Digits that no other answer or call has. Those of two processes seldom meet.
fn unique_digits() -> String {
    let number = next_number() ^ now() << 20 ^ u64::from(std::process::id()) << 42;
    format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// A name for a call: letters and digits.
fn call_id(short: bool) -> String {
    let digits = unique_digits();
    if short { digits[..9].to_owned() } else { format!("call_{digits}") }
}

/// Gives a job, whose prompts are ready, to the scheduler, which compiles its form until then.
///
/// # Errors
/// Where it can't be served.
pub(crate) fn begin(
    model: &Arc<Model>,
    job: Job,
    mut ready: Vec<Ready>,
    until: &Stop,
) -> Result<Run, ApiError> {
    let (sender, receiver) = unbounded_channel();
    let (mut handles, mut choices) = (Vec::new(), Vec::new());
    let submitted = ready.iter_mut().enumerate().try_for_each(|(prompt, ready)| {
        for answer in 0..job.best_of {
            let index = choices.len();
            handles.push(submit(model, &job, ready, answer, (index, &sender), until)?);
            let reader = match job.reads_thoughts || job.reads_calls {
                true => Reader::new(
                    ready.form.clone(),
                    Arc::clone(&ready.tools),
                    ready.prompt.thinks && job.reads_thoughts,
                ),
                false => Reader::new(None, Arc::from([]), false),
            };
            choices.push(Choice {
                index,
                prompt,
                text: String::new(),
                thoughts: String::new(),
                calls: Vec::new(),
                tokens: Vec::new(),
                generated: None,
                n_tokens: 0,
                is_free: ready.is_form_optional && job.reads_calls,
                reader,
            });
        }
        Ok::<(), ApiError>(())
    });
    if let Err(error) = submitted {
        handles.iter().for_each(Handle::cancel);
        return Err(error);
    }
    Ok(Run {
        id: unique_digits(),
        created: now(),
        model: Arc::clone(model),
        running: choices.len(),
        choices,
        prompt_tokens: ready.iter().map(|ready| ready.prompt.ids.len()).collect(),
        prompts: ready.into_iter().map(|ready| (ready.prompt.text, ready.tokens)).collect(),
        job,
        receiver,
        handles,
    })
}

fn submit(
    model: &Model,
    job: &Job,
    ready: &mut Ready,
    answer: usize,
    (index, sender): (usize, &UnboundedSender<(usize, Event)>),
    until: &Stop,
) -> Result<Handle, ApiError> {
    let sink = || {
        let sender = sender.clone();
        Box::new(move |event| sender.send((index, event)).is_ok())
    };
    let has_tools = !ready.tools.is_empty() && job.constraint.is_none();
    let late = |error| match error {
        Error::Cancelled => too_long(),
        error @ Error::Constraint(_) if has_tools => ApiError::from(error).at("tools"),
        error => error.into(),
    };
    match model.scheduler.submit_until(ready.request(&job.client, answer), sink(), until) {
        // Schemas of tools may be beyond the engine, and an answer may do without.
        Err(Error::Constraint(_)) if ready.without_form().is_some() => {
            let request = ready.request(&job.client, answer);
            model.scheduler.submit_until(request, sink(), until).map_err(late)
        }
        submitted => submitted.map_err(late),
    }
}

impl Run {
    /// Waits for what happens next; `None` after the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Happened, ApiError>> {
        if self.running == 0 {
            return None;
        }
        let Some((index, event)) = self.receiver.recv().await else {
            self.running = 0;
            return Some(Err(ApiError::internal("the server is shutting down")));
        };
        let engine = self.model.scheduler.engine();
        let choice = &mut self.choices[index];
        let mut piece = Piece::default();
        match event {
            Event::Token { sampled, text, tail } => {
                if !tail {
                    choice.n_tokens += 1;
                    let ends = self.job.stop_tokens.contains(&sampled.token)
                        || (!self.job.ignore_eos && engine.tokenizer().ends_generation(sampled.token));
                    if self.job.logprobs.is_some() && !ends {
                        let top = sampled.top.into_iter();
                        piece.tokens.push(TokenInfo {
                            id: sampled.token,
                            bytes: bytes_of(engine, sampled.token),
                            logprob: Some(sampled.logprob),
                            top: top.map(|(id, logprob)| (id, bytes_of(engine, id), logprob)).collect(),
                        });
                    }
                }
                choice.reader.push(&text, &mut piece.deltas);
                choice.take(&mut piece);
                Some(Ok(Happened::Piece(index, piece)))
            }
            Event::Done(answer) => {
                choice.reader.finish(&mut piece.deltas);
                choice.generated = Some(answer.generated);
                if piece.deltas.is_empty() {
                    self.running -= 1;
                    return Some(Ok(Happened::Ended(index)));
                }
                choice.take(&mut piece);
                // Its end comes next.
                self.running -= 1;
                Some(Ok(Happened::Piece(index, piece)))
            }
            Event::Failed(error) => {
                self.running = 0;
                Some(Err(error.into()))
            }
        }
    }

    /// Of more answers than are given, keeps those whose tokens are likeliest on average.
    pub(super) fn keep_best(&mut self) {
        if self.job.best_of <= self.job.n {
            return;
        }
        let mean = |choice: &Choice| {
            let logprobs = choice.generated.as_ref().map(|generated| generated.logprobs.as_slice());
            let logprobs = logprobs.unwrap_or_default();
            logprobs.iter().sum::<f32>() / logprobs.len().max(1) as f32
        };
        self.choices.sort_by(|a, b| a.prompt.cmp(&b.prompt).then(mean(b).total_cmp(&mean(a))));
        let (best_of, n) = (self.job.best_of, self.job.n);
        let mut place = 0;
        self.choices.retain(|_| {
            place += 1;
            (place - 1) % best_of < n
        });
        self.choices.iter_mut().enumerate().for_each(|(index, choice)| choice.index = index);
    }

    /// Tokens of the prompts, those of them that were not computed anew, and those of the answers.
    pub(crate) fn tokens(&self) -> (usize, usize, usize) {
        let generated = || self.choices.iter().filter_map(|choice| choice.generated.as_ref());
        let cached = generated().map(|generated| generated.shared_tokens).max().unwrap_or(0);
        let cached = if self.prompt_tokens.len() > 1 {
            let of_prompt = |prompt: usize| {
                let of = self.choices.iter().filter(|choice| choice.prompt == prompt);
                of.filter_map(|choice| choice.generated.as_ref())
                    .map(|generated| generated.shared_tokens)
                    .max()
            };
            (0..self.prompt_tokens.len()).filter_map(of_prompt).sum()
        } else {
            cached
        };
        (self.prompt_tokens.iter().sum(), cached, self.choices.iter().map(|choice| choice.n_tokens).sum())
    }
}

impl Choice {
    /// Adds what has come.
    fn take(&mut self, piece: &mut Piece) {
        for delta in &piece.deltas {
            match delta {
                Delta::Text(text) => self.text.push_str(text),
                Delta::Thought(text) => self.thoughts.push_str(text),
                Delta::Call(_, name) => {
                    let call = Call { id: call_id(false), name: name.clone(), arguments: String::new() };
                    self.calls.push(call);
                }
                Delta::Arguments(index, json) => {
                    if let Some(call) = self.calls.get_mut(*index) {
                        call.arguments.push_str(json);
                    }
                }
            }
        }
        self.tokens.extend(piece.tokens.iter().cloned());
    }

    /// Why it ended.
    pub(crate) fn reason(&self) -> Reason {
        let has_calls = !self.calls.is_empty();
        match self.generated.as_ref().map(|generated| &generated.finish) {
            // More could have come: only the room for it was used up.
            Some(Finish::Complete) if self.is_free && !has_calls => Reason::Length,
            Some(finish) => Reason::new(finish, has_calls),
            None => Reason::Cancelled,
        }
    }

    /// Whether all of it is there.
    pub(crate) fn has_ended(&self) -> bool {
        self.generated.is_some()
    }
}
