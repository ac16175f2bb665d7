//! The sequences that run together, and a step of all of them.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::SchedulerOptions;
use super::queue::ClientId;
use super::request::{Answer, Event, Sink};
use super::share::share;
use crate::engine::{BatchEntry, ChosenToken, Finish, Generation, NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::metrics::{RequestClock, ServingMetrics, Step};
use crate::stop::Stop;
use crate::threads::{into_value, locked};

/// A request that waits for a slot.
pub(super) struct Waiting {
    pub(super) client: ClientId,
    pub(super) prompt: Vec<u32>,
    pub(super) generation: Generation,
    pub(super) sink: Sink,
    pub(super) stop: Stop,
    pub(super) clock: RequestClock,
}

/// Why a request ends.
type Ending = Result<Finish>;

impl Waiting {
    /// Ends a request, whose memory is already freed, and tells its sink. `prompt_tokens` of its prompt were done, of which
    /// `shared_tokens` were shared with an earlier one.
    pub(super) fn end(
        mut self,
        ending: Ending,
        [prompt_tokens, shared_tokens]: [usize; 2],
        counts: &ServingMetrics,
    ) {
        let event = match ending {
            Err(error) => {
                counts.failed(&error);
                Event::Failed(error)
            }
            Ok(finish) => {
                let n_tokens = self.generation.len();
                let (mut generated, tail) = self.generation.end(finish);
                let metrics = self.clock.end(prompt_tokens, n_tokens);
                counts.ended(&generated.finish, &metrics);
                generated.prompt_tokens = prompt_tokens;
                generated.shared_tokens = shared_tokens;
                generated.prompt_time = std::time::Duration::from_secs_f64(metrics.prompt_s);
                generated.decode_time = std::time::Duration::from_secs_f64(metrics.decode_s);
                if let Some((sampled, text)) = tail {
                    (self.sink)(Event::Token { sampled, text, tail: true });
                }
                Event::Done(Box::new(Answer { generated, metrics }))
            }
        };
        (self.sink)(event);
    }
}

/// A request that has a slot.
struct Running {
    request: Waiting,
    sequence: Sequence,
    /// Tokens of the prompt that were shared with an earlier one.
    shared: usize,
    /// Tokens of the prompt that have been run or shared.
    done: usize,
    /// The token to run next, once the prompt is done.
    next: Option<u32>,
}

impl Running {
    fn left(&self) -> usize {
        self.request.prompt.len() - self.done
    }

    fn end(self, ending: Ending, counts: &ServingMetrics) -> ClientId {
        let client = self.request.client;
        // Its pages are free before anyone hears of its end.
        drop(self.sequence);
        self.request.end(ending, [self.done, self.shared], counts);
        client
    }
}

/// What a step did.
#[derive(Default)]
pub(super) struct Done {
    /// Tokens that were run, by client.
    pub(super) served: Vec<(ClientId, u64)>,
    /// Clients of requests that ended.
    pub(super) ended: Vec<ClientId>,
}

/// The sequences that run together.
pub(super) struct Batch {
    engine: Arc<NeuroEngine>,
    options: SchedulerOptions,
    counts: Arc<ServingMetrics>,
    running: Vec<Running>,
    /// Counts steps, so that each step begins with another prompt.
    turn: usize,
}

impl Batch {
    pub(super) fn new(
        engine: Arc<NeuroEngine>,
        options: SchedulerOptions,
        counts: Arc<ServingMetrics>,
    ) -> Self {
        Self { engine, options, counts, running: Vec::new(), turn: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    /// What tells each of them to stop.
    pub(super) fn stops(&self) -> impl Iterator<Item = Stop> {
        self.running.iter().map(|running| running.request.stop.clone())
    }

    /// Gives a request a slot. The client comes back where that fails.
    pub(super) fn admit(&mut self, mut request: Waiting) -> Result<(), ClientId> {
        match self.engine.sequence() {
            Ok(mut sequence) => {
                request.clock.placed(Instant::now());
                sequence.set_stop(Some(request.stop.clone()));
                sequence.set_cache_key(request.generation.cache_key());
                let shared = self.engine.begin_shared(&mut sequence, &request.prompt);
                self.counts.shared(shared);
                self.running.push(Running { request, sequence, shared, done: shared, next: None });
                Ok(())
            }
            Err(error) => {
                let client = request.client;
                request.end(Err(error), [0; 2], &self.counts);
                Err(client)
            }
        }
    }

    /// Ends everything.
    pub(super) fn clear(&mut self) {
        for running in self.running.drain(..) {
            running.end(Ok(Finish::Cancelled), &self.counts);
        }
    }

    /// Runs one token of each sequence that decodes, and pieces of the prompts.
    pub(super) fn step(&mut self) -> Done {
        let mut done = Done::default();
        let mut endings: Vec<Option<Ending>> = self.running.iter().map(|_| None).collect();
        for (running, ending) in self.running.iter().zip(&mut endings) {
            if running.request.stop.ends() {
                *ending = Some(Ok(Finish::Cancelled));
            }
        }
        let pieces = self.pieces(&endings);
        // A sequence without room fails alone, and not the whole step.
        let mut pieces: Vec<(usize, usize)> = pieces
            .into_iter()
            .filter(|(index, n)| match self.engine.reserve(&mut self.running[*index].sequence, *n) {
                Ok(()) => true,
                Err(error) => {
                    endings[*index] = Some(Err(error));
                    false
                }
            })
            .collect();
        pieces.sort_unstable();
        if !pieces.is_empty()
            && let Err(error) = self.run(&pieces, &mut endings, &mut done)
        {
            for (index, _) in pieces {
                endings[index] = Some(match &error {
                    // Nobody waits for any of them.
                    Error::Cancelled => Ok(Finish::Cancelled),
                    error => Err(copy(error)),
                });
            }
        }
        self.turn += 1;
        for index in (0..self.running.len()).rev() {
            if let Some(ending) = endings[index].take() {
                // Order is kept: who came first is first.
                let ended = self.running.remove(index);
                self.engine.keep_all(&ended.sequence);
                done.ended.push(ended.end(ending, &self.counts));
            }
        }
        done
    }

    /// Which sequences run how many tokens.
    fn pieces(&self, endings: &[Option<Ending>]) -> Vec<(usize, usize)> {
        let goes_on = |(index, _): &(usize, &Running)| endings[*index].is_none();
        let (decoding, prompts): (Vec<_>, Vec<_>) =
            self.running.iter().enumerate().filter(goes_on).partition(|(_, running)| running.left() == 0);
        let room = self.engine.max_batch() - decoding.len();
        // A long step would hold up the sequences that decode.
        let budget = if decoding.is_empty() { room } else { room.min(self.options.prompt_piece) };
        let left: Vec<usize> = prompts.iter().map(|(_, running)| running.left()).collect();
        let shares = share(budget, &left, self.turn % left.len().max(1));
        // A piece may end earlier, where the sequence's states are worth keeping.
        let piece = |running: &Running, n| self.engine.piece(&running.sequence, running.left(), n);
        let prompts = prompts.iter().zip(shares).map(|((index, running), n)| (*index, piece(running, n)));
        let prompts = prompts.filter(|(_, n)| *n > 0);
        decoding.iter().map(|(index, _)| (*index, 1)).chain(prompts).collect()
    }

    /// Runs these pieces, `(index, n_tokens)` in the order of the sequences, and gives each request its next token.
    fn run(
        &mut self,
        pieces: &[(usize, usize)],
        endings: &mut [Option<Ending>],
        done: &mut Done,
    ) -> Result<()> {
        let start = Instant::now();
        let mut chosen = self.pass(pieces)?.into_iter();
        let now = Instant::now();
        let is_prompt = |(index, _): &&(usize, usize)| self.running[*index].left() > 0;
        let prompt = pieces.iter().filter(is_prompt).map(|(_, n)| n).sum();
        let decoded = pieces.iter().filter(|piece| !is_prompt(piece)).count();
        self.counts.step(&Step { took: now - start, prompt, decoded, sequences: pieces.len() });
        for (index, n) in pieces {
            done.served.push((self.running[*index].request.client, *n as u64));
            endings[*index] = self.advance(*index, *n, &mut chosen, now);
        }
        Ok(())
    }

    /// One pass over these pieces. Returns a token for each sequence whose generation goes on from here, in order.
    fn pass(&mut self, pieces: &[(usize, usize)]) -> Result<Vec<Option<Result<ChosenToken>>>> {
        let engine = &*self.engine;
        let (context, vocabulary) = (engine.context(), engine.plan().vocabulary);
        let mut entries = Vec::with_capacity(pieces.len());
        let mut choices = Vec::new();
        let mut pieces = pieces.iter().peekable();
        for (index, running) in self.running.iter_mut().enumerate() {
            let Some((_, n)) = pieces.next_if(|(piece, _)| *piece == index) else { continue };
            let Running { request, sequence, done, next, .. } = running;
            let prompt = request.prompt.get(*done..).filter(|rest| !rest.is_empty());
            let (ids, ends) = match (prompt, next) {
                (Some(rest), _) => (&rest[..*n], *n == rest.len()),
                (None, next) => (next.as_slice(), true),
            };
            let logits = ends && !request.generation.is_long_enough();
            if logits {
                let room = context - sequence.tokens().len() - n;
                choices.push(Mutex::new((&mut request.generation, room, None)));
            }
            entries.push(BatchEntry { sequence, ids, logits });
        }
        let mut given = 0;
        engine.step(&mut entries, &mut |rows| {
            // Choosing takes about as long as a layer's work, so it is shared out too.
            engine.pool().run(rows.len() / vocabulary, &|range, _| {
                for row in range {
                    let mut choice = locked(&choices[given + row]);
                    let (generation, room, chosen) = &mut *choice;
                    let logits = &rows[row * vocabulary..(row + 1) * vocabulary];
                    *chosen = Some(generation.choose(engine.tokenizer(), logits, *room));
                }
            });
            given += rows.len() / vocabulary;
        })?;
        Ok(choices.into_iter().map(|choice| into_value(choice).2).collect())
    }

    /// Counts the `n` tokens that a sequence has run, and gives its request the next token, where its prompt is done. Returns how
    /// the request ends, where it does.
    fn advance(
        &mut self,
        index: usize,
        n: usize,
        chosen: &mut dyn Iterator<Item = Option<Result<ChosenToken>>>,
        now: Instant,
    ) -> Option<Ending> {
        let Running { request, sequence, done, next, .. } = &mut self.running[index];
        if *done < request.prompt.len() {
            *done += n;
            self.engine.keep_piece(sequence, request.prompt.len() - *done);
            if *done < request.prompt.len() {
                return None;
            }
            if request.generation.is_long_enough() && request.generation.len() == 0 {
                return Some(Ok(Finish::Length));
            }
        }
        let missing = || Err(Error::Invalid("a step gave fewer logits than were asked for".to_owned()));
        let chosen = match chosen.next().flatten().unwrap_or_else(missing) {
            Ok(chosen) => chosen,
            Err(error) => return Some(Err(error)),
        };
        self.counts.token(request.clock.token(now));
        *next = Some(chosen.sampled.token);
        let event = Event::Token { sampled: chosen.sampled, text: chosen.text, tail: false };
        let go_on = (request.sink)(event);
        match chosen.finish {
            Some(finish @ (Finish::StopText(_) | Finish::EndToken(_) | Finish::Complete)) => Some(Ok(finish)),
            _ if !go_on => Some(Ok(Finish::Cancelled)),
            finish => finish.map(Ok),
        }
    }
}

/// The same failure, for another of the requests that shared a pass.
fn copy(error: &Error) -> Error {
    match error {
        Error::Plugin { what, source } => Error::Plugin { what: what.clone(), source: source.clone() },
        other => Error::Invalid(other.to_string()),
    }
}
