//! Many requests at once over one engine: continuous batching.
//!
//! Every step is one forward pass over a token of each sequence that decodes, and pieces of the prompts of those that don't yet.
//! A request that ends leaves at once, and one that waits gets its slot. So a layer's weights, which are most of a step's cost,
//! are read once for all sequences.
//!
//! - Slots are limited, and so is the queue for them; a request beyond that is refused with [`Error::Busy`].
//! - Slots go to the client that was served the fewest tokens, and a step's prompt tokens are divided equally, so neither a
//!   greedy client nor a long prompt starves anyone.
//! - A request may be cancelled at any time; its memory is free before the next step.
//! - A prompt that begins as an earlier one did shares its pages.
//! - An answer doesn't depend on who shares the batch, unless the backend's matmuls depend on the batch's size.

mod batch;
mod pace;
mod queue;
mod request;
mod share;

pub use request::{Answer, Event, Handle, Request, Sink, Ticket};

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use batch::{Batch, Waiting};
use queue::{ClientId, Queue};

use crate::engine::{Finish, Generation, NeuroEngine};
use crate::error::{Error, Result};
use crate::metrics::{RequestClock, ServingMetrics};
use crate::stop::Stop;
use crate::threads::locked;

/// How a scheduler shares an engine out.
#[derive(Clone, Debug)]
pub struct SchedulerOptions {
    /// Requests that run together at most; no more than the engine's batch has tokens.
    pub max_running: usize,
    /// Requests that wait at most.
    pub queue: usize,
    /// The most prompt tokens in a step while other sequences decode, which wait for them.
    pub prompt_piece: usize,
    /// About how long a step with prompts may take, whoever shares it: so long a request that comes waits at most for it to end, and
    /// sequences that decode for their next token.
    pub step_time: Duration,
}

impl Default for SchedulerOptions {
    fn default() -> Self {
        Self { max_running: 32, queue: 256, prompt_piece: 512, step_time: Duration::from_millis(200) }
    }
}

/// Serves many requests over one engine, on its own thread. When it is dropped, it cancels what is left.
pub struct Scheduler {
    engine: Arc<NeuroEngine>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the scheduler's thread and its callers share.
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    counts: Arc<ServingMetrics>,
}

struct State {
    queue: Queue<Waiting>,
    next_id: u64,
    running: usize,
    /// What tells each of those to stop.
    stops: Vec<Stop>,
    closing: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn cancel_waiting(&self, client: ClientId, id: u64) {
        // The sink may call back into the scheduler, so the lock is released first.
        let waiting = self.state().queue.remove(client, id);
        if let Some(waiting) = waiting {
            waiting.end(Ok(Finish::Cancelled), [0; 2], &self.counts);
        }
    }
}

impl Scheduler {
    /// Starts one.
    ///
    /// # Errors
    /// Where an option is 0 or more than the engine's batch has room for, or the system gives no thread.
    pub fn start(engine: Arc<NeuroEngine>, options: SchedulerOptions) -> Result<Self> {
        let most = engine.max_batch();
        if options.max_running == 0 || options.max_running > most || options.prompt_piece == 0 {
            return Err(Error::Invalid(format!(
                "a scheduler of {} running requests and prompt pieces of {} tokens was asked for, where 1 to {most} requests \
                 (the engine's batch) and at least 1 token were expected",
                options.max_running, options.prompt_piece
            )));
        }
        let queue = Queue::new(options.queue);
        let state = State { queue, next_id: 0, running: 0, stops: Vec::new(), closing: false };
        let counts = Arc::new(ServingMetrics::start());
        let batch = Batch::new(Arc::clone(&engine), options.clone(), Arc::clone(&counts));
        let shared = Arc::new(Shared { state: Mutex::new(state), wake: Condvar::new(), counts });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("herald-scheduler".to_owned())
            .spawn(move || serve(&worker, batch, options.max_running))
            .map_err(|error| Error::Invalid(format!("the system gave no thread for a scheduler: {error}")))?;
        Ok(Self { engine, shared, thread: Some(thread) })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<NeuroEngine> {
        &self.engine
    }

    /// What its requests have taken so far.
    #[must_use]
    pub fn metrics(&self) -> &Arc<ServingMetrics> {
        &self.shared.counts
    }

    /// Requests that wait, and that run.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let state = self.shared.state();
        (state.queue.len(), state.running)
    }

    /// Whether it takes requests: it does until it is dropped, unless its thread has panicked.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.shared.state().closing
    }

    /// Takes a request; its events come to the ticket.
    ///
    /// # Errors
    /// [`Error::Busy`] where the queue is full; as [`NeuroEngine::generate`] where the request can't be served at all.
    pub fn submit(&self, request: Request) -> Result<Ticket> {
        let (sink, events) = Ticket::sink();
        Ok(Ticket::new(self.submit_to(request, sink)?, events))
    }

    /// Takes a request; its events go to the sink.
    ///
    /// # Errors
    /// As [`Scheduler::submit`]; the sink is then told nothing.
    pub fn submit_to(&self, request: Request, sink: Sink) -> Result<Handle> {
        self.submit_until(request, sink, &Stop::default())
    }

    /// Takes a request, unless `preparing` ends the work before it waits for its slot: the answer's form must be compiled first,
    /// which may take a while. The request has its place in the queue from the beginning.
    ///
    /// # Errors
    /// As [`Scheduler::submit_to`], and [`Error::Cancelled`].
    pub fn submit_until(&self, request: Request, sink: Sink, preparing: &Stop) -> Result<Handle> {
        let place = self.reserve()?;
        let Request { prompt, options, client } = request;
        self.engine.check_prompt(&prompt)?;
        let mut generation =
            Generation::new(&self.engine, &options, Some(&preparing.or_at(options.deadline)))?;
        generation.accept(&prompt)?;
        let (client, stop) = (ClientId::of(&client), Stop::default().until(options.deadline));
        let clock = RequestClock::start();
        let waiting = Waiting { client, prompt, generation, sink, stop: stop.clone(), clock };
        let mut state = self.shared.state();
        if state.closing {
            return Err(Error::SchedulerEnded);
        }
        let id = state.next_id;
        state.next_id += 1;
        state.queue.push(client, id, waiting);
        std::mem::forget(place);
        self.shared.counts.load(state.queue.len(), state.running);
        drop(state);
        self.shared.wake.notify_one();
        Ok(Handle { id, client, stop, shared: Arc::downgrade(&self.shared) })
    }

    /// A place in the queue for a request that is still to be prepared.
    fn reserve(&self) -> Result<Reserved<'_>> {
        let mut state = self.shared.state();
        if state.closing {
            return Err(Error::SchedulerEnded);
        }
        if !state.queue.reserve() {
            self.shared.counts.refused();
            return Err(Error::Busy { waiting: state.queue.len(), room: state.queue.room() });
        }
        Ok(Reserved(&self.shared))
    }
}

/// A place in the queue, which is given back unless the request takes it.
struct Reserved<'s>(&'s Shared);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.state().queue.release();
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if self.engine.in_its_process().is_err() {
            // A fork lacks the thread, and would wait for it for ever.
            std::mem::forget(self.thread.take());
            return;
        }
        {
            let mut state = self.shared.state();
            state.closing = true;
            state.stops.iter().for_each(Stop::set);
        }
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // Where it panicked, its requests' sinks are gone, and that is all there is to say.
            let _ = thread.join();
        }
    }
}

/// However the scheduler's thread ends, nobody waits for it afterwards.
struct Closing<'s>(&'s Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closing = true;
        state.running = 0;
        let waiting = state.queue.clear();
        drop(state);
        for waiting in waiting {
            waiting.end(Ok(Finish::Cancelled), [0; 2], &self.0.counts);
        }
    }
}

/// The life of the scheduler's thread.
fn serve(shared: &Shared, mut batch: Batch, most: usize) {
    let _closing = Closing(shared);
    let mut done = batch::Done::default();
    loop {
        let (mut admitted, over) =
            (Vec::new(), shared.state().queue.remove_where(|waiting| waiting.stop.ends()));
        over.into_iter().for_each(|waiting| waiting.end(Ok(Finish::Cancelled), [0; 2], &shared.counts));
        {
            let mut state = shared.state();
            done.served.iter().for_each(|(client, tokens)| state.queue.charge(*client, *tokens));
            done.ended.iter().for_each(|client| state.queue.ended(*client));
            state.running = batch.len();
            while !state.closing {
                while batch.len() + admitted.len() < most {
                    let Some(waiting) = state.queue.pop() else { break };
                    admitted.push(waiting);
                }
                state.running = batch.len() + admitted.len();
                shared.counts.load(state.queue.len(), state.running);
                // Who ended makes them fewer, who came is among the admitted: most steps change nothing.
                if !admitted.is_empty() || state.stops.len() != state.running {
                    let new = admitted.iter().map(|waiting: &Waiting| waiting.stop.clone());
                    state.stops = batch.stops().chain(new).collect();
                }
                if state.running > 0 {
                    break;
                }
                state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closing {
                break;
            }
        }
        let refused: Vec<ClientId> =
            admitted.into_iter().filter_map(|waiting| batch.admit(waiting).err()).collect();
        done = batch.step();
        done.ended.extend(refused);
    }
    batch.clear();
}
