//! The sequences that run together, and a step of all of them.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::SchedulerOptions;
use super::pace::PromptPace;
use super::queue::ClientId;
use super::request::{Answer, Event, Sink};
use super::share::share;
use crate::engine::{BatchEntry, ChosenToken, Finish, Generation, NeuroEngine, Sequence};
use crate::error::{Error, Result};
use crate::metrics::{RequestClock, ServingMetrics, Step};
use crate::speculation::Ahead;
use crate::stop::Stop;
use crate::threads::{into_value, locked};
use crate::tokenizer::AscTokenizer;

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
    /// What it runs next, once the prompt is done.
    ahead: Ahead,
}

impl Running {
    fn left(&self) -> usize {
        self.request.prompt.len() - self.done
    }

    /// How many tokens of it the next step runs.
    fn wants(&self) -> usize {
        if self.left() == 0 { self.ahead.len() } else { 0 }
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
    pace: PromptPace,
}

impl Batch {
    pub(super) fn new(
        engine: Arc<NeuroEngine>,
        options: SchedulerOptions,
        counts: Arc<ServingMetrics>,
    ) -> Self {
        Self { engine, options, counts, running: Vec::new(), turn: 0, pace: PromptPace::default() }
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
        match self.engine.sequence_for(&request.generation) {
            Ok(mut sequence) => {
                request.clock.placed(Instant::now());
                sequence.set_stop(Some(request.stop.clone()));
                let shared = self.engine.begin_shared(&mut sequence, &request.prompt);
                self.counts.shared(shared);
                self.running.push(Running {
                    request,
                    sequence,
                    shared,
                    done: shared,
                    ahead: Ahead::default(),
                });
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

    /// Runs the next token of each sequence that decodes, with what is drafted after it, and pieces of the prompts.
    pub(super) fn step(&mut self) -> Done {
        let mut done = Done::default();
        let mut endings: Vec<Option<Ending>> = self.running.iter().map(|_| None).collect();
        for (running, ending) in self.running.iter().zip(&mut endings) {
            if running.request.stop.ends() {
                *ending = Some(Ok(Finish::Cancelled));
            }
        }
        self.draft(&endings);
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
                let mut ended = self.running.remove(index);
                let Running { sequence, ahead, .. } = &mut ended;
                if let Err(error) = self.engine.catch_up(sequence, ahead) {
                    tracing::debug!("a sequence ends before its text: {error}");
                }
                self.engine.keep_all(sequence);
                done.ended.push(ended.end(ending, &self.counts));
            }
        }
        done
    }

    /// Drafts for the sequences that decode, where no prompt shares their pass.
    fn draft(&mut self, endings: &[Option<Ending>]) {
        let Self { engine, running, .. } = self;
        let goes_on = |(index, _): &(usize, &mut Running)| endings[*index].is_none();
        if running.iter().zip(endings).any(|(running, ending)| ending.is_none() && running.left() > 0) {
            return;
        }
        let sequences = endings.iter().filter(|ending| ending.is_none()).count();
        let chosen: usize = running.iter().map(Running::wants).sum();
        let most = engine.max_batch().min(engine.most_decoded());
        let mut spare = most.saturating_sub(chosen);
        for (_, running) in running.iter_mut().enumerate().filter(goes_on) {
            let Running { request, sequence, ahead, .. } = running;
            engine.draft(ahead, sequence, &mut request.generation, sequences, spare);
            spare -= ahead.draft.tokens.len();
        }
    }

    /// Which sequences run how many tokens.
    fn pieces(&self, endings: &[Option<Ending>]) -> Vec<(usize, usize)> {
        let goes_on = |(index, _): &(usize, &Running)| endings[*index].is_none();
        let (decoding, prompts): (Vec<_>, Vec<_>) =
            self.running.iter().enumerate().filter(goes_on).partition(|(_, running)| running.left() == 0);
        let decoded: usize = decoding.iter().map(|(_, running)| running.wants()).sum();
        let room =
            self.engine.max_batch().saturating_sub(decoded).min(self.pace.tokens_in(self.options.step_time));
        // A long step would hold up the sequences that decode.
        let budget = if decoding.is_empty() { room } else { room.min(self.options.prompt_piece) };
        let left: Vec<usize> = prompts.iter().map(|(_, running)| running.left()).collect();
        let shares = share(budget, &left, self.turn % left.len().max(1));
        // A piece may end earlier, where the sequence's states are worth keeping.
        let piece = |running: &Running, n| self.engine.piece(&running.sequence, running.left(), n);
        let prompts = prompts.iter().zip(shares).map(|((index, running), n)| (*index, piece(running, n)));
        let prompts = prompts.filter(|(_, n)| *n > 0);
        decoding.iter().map(|(index, running)| (*index, running.wants())).chain(prompts).collect()
    }

    /// Runs these pieces, `(index, n_tokens)` in the order of the sequences, and gives each request its next token.
    fn run(
        &mut self,
        pieces: &[(usize, usize)],
        endings: &mut [Option<Ending>],
        done: &mut Done,
    ) -> Result<()> {
        let start = Instant::now();
        let chosen = self.pass(pieces)?;
        let now = Instant::now();
        let is_prompt = |(index, _): &&(usize, usize)| self.running[*index].left() > 0;
        let prompt = pieces.iter().filter(is_prompt).map(|(_, n)| n).sum();
        let mut decoded = 0;
        self.pace.observe(prompt, now - start);
        if prompt == 0 {
            self.engine.observe_pass(pieces.iter().map(|(_, n)| n).sum(), now - start);
        }
        for ((index, n), chosen) in pieces.iter().zip(chosen) {
            done.served.push((self.running[*index].request.client, *n as u64));
            if self.running[*index].left() == 0 {
                decoded += chosen.len();
            }
            endings[*index] = self.advance(*index, *n, chosen, now);
        }
        self.counts.step(&Step { took: now - start, prompt, decoded, sequences: pieces.len() });
        Ok(())
    }

    /// One pass over these pieces. Returns the tokens that were chosen for each of them.
    fn pass(&mut self, pieces: &[(usize, usize)]) -> Result<Vec<Vec<Result<ChosenToken>>>> {
        let engine = &*self.engine;
        let (context, vocabulary) = (engine.context(), engine.plan().vocabulary);
        let ids: Vec<Vec<u32>> = pieces
            .iter()
            .map(|(index, n)| {
                let Running { request, done, ahead, .. } = &self.running[*index];
                match request.prompt.get(*done..).filter(|rest| !rest.is_empty()) {
                    Some(rest) => rest[..*n].to_vec(),
                    None => ahead.ids(),
                }
            })
            .collect();
        let mut entries = Vec::with_capacity(pieces.len());
        let mut choices = Vec::with_capacity(pieces.len());
        let mut parts = pieces.iter().zip(&ids).peekable();
        for (index, running) in self.running.iter_mut().enumerate() {
            let Some(((_, n), ids)) = parts.next_if(|((piece, _), _)| *piece == index) else { continue };
            let Running { request, sequence, done, ahead, .. } = running;
            let left = request.prompt.len() - *done;
            let logits = match left {
                0 => ahead.wanted(),
                left if left == *n && !request.generation.is_long_enough() => 1,
                _ => 0,
            };
            let room = context - (sequence.tokens().len() + n - logits.saturating_sub(1));
            let draft = if left == 0 { &ahead.draft.tokens[..] } else { &[] };
            choices.push(Mutex::new(Choosing {
                generation: &mut request.generation,
                room,
                draft,
                chosen: Vec::new(),
            }));
            entries.push(BatchEntry { sequence, ids, logits });
        }
        // Which sequence each row of logits belongs to.
        let of_row: Vec<usize> = entries
            .iter()
            .enumerate()
            .flat_map(|(index, entry)| std::iter::repeat_n(index, entry.logits))
            .collect();
        let mut given = 0;
        engine.step(&mut entries, &mut |rows| {
            let of_row = &of_row[given..given + rows.len() / vocabulary];
            let parts: Vec<_> = of_row.chunk_by(|a, b| a == b).collect();
            // Choosing takes about as long as a layer's work, so it is shared out too.
            engine.pool().run(parts.len(), &|range, _| {
                for part in range {
                    let first: usize = parts[..part].iter().map(|part| part.len()).sum();
                    let mut choosing = locked(&choices[parts[part][0]]);
                    for row in first..first + parts[part].len() {
                        choosing.take(engine.tokenizer(), &rows[row * vocabulary..(row + 1) * vocabulary]);
                    }
                }
            });
            given += of_row.len();
        })?;
        Ok(choices.into_iter().map(|choice| into_value(choice).chosen).collect())
    }

    /// Counts the `n` tokens that a sequence has run, and gives its request those that were chosen, where its prompt is done. Returns
    /// how the request ends, where it does.
    fn advance(
        &mut self,
        index: usize,
        n: usize,
        chosen: Vec<Result<ChosenToken>>,
        now: Instant,
    ) -> Option<Ending> {
        let Running { request, sequence, done, ahead, .. } = &mut self.running[index];
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
        let (tokens, failed) = split_failure(chosen);
        let ids: Vec<u32> = tokens.iter().map(|chosen| chosen.sampled.token).collect();
        let drafted = ahead.draft.tokens.len();
        let accepted = ids.len().saturating_sub(1).min(drafted);
        self.counts.drafted(drafted, accepted, ahead.draft.is_by_model());
        self.engine.settle(sequence, ahead, &mut request.generation, &ids);
        let mut tokens = tokens.into_iter();
        while let Some(chosen) = tokens.next() {
            self.counts.token(request.clock.token(now));
            let event = Event::Token { sampled: chosen.sampled, text: chosen.text, tail: false };
            let go_on = (request.sink)(event);
            match chosen.finish {
                Some(finish @ (Finish::StopText(_) | Finish::EndToken(_) | Finish::Complete)) => {
                    return Some(Ok(finish));
                }
                _ if !go_on => {
                    let unseen = tokens.len();
                    let taken = request.generation.take_back(self.engine.tokenizer(), unseen, chosen.random);
                    return Some(taken.map(|()| Finish::Cancelled));
                }
                Some(finish) => return Some(Ok(finish)),
                None => {}
            }
        }
        failed.map(Err)
    }
}

/// A request whose tokens are being chosen from a pass's logits.
struct Choosing<'r> {
    generation: &'r mut Generation,
    /// Tokens that its sequence has room for after the next row's.
    room: usize,
    draft: &'r [u32],
    chosen: Vec<Result<ChosenToken>>,
}

impl Choosing<'_> {
    /// Chooses from the next row of logits, unless the request has left its draft or ended before.
    fn take(&mut self, tokenizer: &AscTokenizer, row: &[f32]) {
        let goes_on = match self.chosen.last() {
            None => true,
            Some(Ok(last)) => {
                last.finish.is_none() && self.draft.get(self.chosen.len() - 1) == Some(&last.sampled.token)
            }
            Some(Err(_)) => false,
        };
        if goes_on {
            self.chosen.push(self.generation.choose(tokenizer, row, self.room));
            self.room = self.room.saturating_sub(1);
        }
    }
}

/// The tokens that were chosen, and why no other could be: where a row of logits gave none, or none came at all.
fn split_failure(chosen: Vec<Result<ChosenToken>>) -> (Vec<ChosenToken>, Option<Error>) {
    let (mut tokens, mut failed) = (Vec::with_capacity(chosen.len()), None);
    for chosen in chosen {
        match chosen {
            Ok(chosen) => tokens.push(chosen),
            Err(error) => failed = Some(error),
        }
    }
    if tokens.is_empty() && failed.is_none() {
        failed = Some(Error::Invalid("a step gave fewer logits than were asked for".to_owned()));
    }
    (tokens, failed)
}

/// The same failure, for another of the requests that shared a pass.
fn copy(error: &Error) -> Error {
    match error {
        Error::Plugin { what, source } => Error::Plugin { what: what.clone(), source: source.clone() },
        other => Error::Invalid(other.to_string()),
    }
}
