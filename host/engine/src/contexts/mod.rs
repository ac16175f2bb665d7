//! `MultiTierMemoryManager`: many contexts by name over one engine, and what their memory takes, counted and kept tidy.
//!
//! Every method may be called from any thread. Work on one context waits for other work on it; different contexts don't
//! wait for each other, but share the threads that the engine computes with. Only
//! [`MultiTierMemoryManager::get_memory_leak_stats`] waits for all work, since it needs a moment in which nothing changes.

mod context;
mod leaks;
mod optimize;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::engine::{Finish, GenerateOptions, Generated, NeuroEngine, Sequence, TokenOutput};
use crate::error::{Error, Result};
use crate::kv_cache::{Capacity, MemoryOptions, MemoryUsage};
use crate::metrics::{MemoryProfiler, MemorySnapshot};
use crate::stop::Stop;
use crate::threads::locked;

use context::Context;
pub use leaks::MemoryLeakStats;
pub use optimize::Optimized;

/// What to add to a context.
#[derive(Clone, Copy, Debug)]
pub enum Input<'i> {
    /// A text. What begins a prompt (BOS) goes before it where the context is empty.
    Text(&'i str),
    /// Tokens, as they are.
    Tokens(&'i [u32]),
}

impl<'i> From<&'i str> for Input<'i> {
    fn from(text: &'i str) -> Self {
        Self::Text(text)
    }
}

impl<'i> From<&'i [u32]> for Input<'i> {
    fn from(tokens: &'i [u32]) -> Self {
        Self::Tokens(tokens)
    }
}

impl<'i> From<&'i Vec<u32>> for Input<'i> {
    fn from(tokens: &'i Vec<u32>) -> Self {
        Self::Tokens(tokens)
    }
}

/// How a manager keeps its contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagerOptions {
    /// The latest tokens that stay active in a cold context: one that nobody has used between two calls of
    /// [`MultiTierMemoryManager::optimize_memory`].
    pub cold_tokens: usize,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self { cold_tokens: 1024 }
    }
}

/// Pages that moved down a tier, or were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Demoted {
    /// Moves of pages from a tier to the one below.
    pub pages: u64,
    /// Bytes of RAM that the tiers gave up.
    pub bytes_freed: u64,
}

/// Owns contexts, by name, over an engine.
///
/// ```no_run
/// use std::sync::Arc;
/// use herald::{GenerateOptions, LoadOptions, MultiTierMemoryManager, NeuroEngine};
///
/// # fn main() -> herald::Result<()> {
/// let engine = Arc::new(NeuroEngine::load("model.gguf".as_ref(), &LoadOptions::default())?);
/// let memory = MultiTierMemoryManager::new(engine);
/// memory.add_to_active_memory("book", std::fs::read_to_string("book.txt").unwrap_or_default().as_str())?;
/// memory.compress_memory("book", 1024)?;
/// let answer = memory.generate("book", " The end of it all was", &GenerateOptions::default())?;
/// println!("{} {:?}", answer.text, memory.get_memory_usage());
/// # Ok(())
/// # }
/// ```
pub struct MultiTierMemoryManager {
    engine: Arc<NeuroEngine>,
    options: ManagerOptions,
    contexts: Mutex<BTreeMap<String, Arc<Context>>>,
    /// Whoever works on a context holds it for reading; for writing it means that nobody does.
    gate: RwLock<()>,
    profiler: MemoryProfiler,
    mark: Mutex<MemorySnapshot>,
    /// How often memory was optimised.
    epoch: Mutex<u64>,
}

impl MultiTierMemoryManager {
    /// A manager without contexts.
    #[must_use]
    pub fn new(engine: Arc<NeuroEngine>) -> Self {
        Self::with_options(engine, ManagerOptions::default())
    }

    /// As [`MultiTierMemoryManager::new`], with options.
    #[must_use]
    pub fn with_options(engine: Arc<NeuroEngine>, options: ManagerOptions) -> Self {
        let profiler = MemoryProfiler::start(Arc::clone(&engine));
        let mark = Mutex::new(profiler.now(""));
        let (contexts, gate, epoch) = Default::default();
        Self { engine, options, contexts, gate, profiler, mark, epoch }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<NeuroEngine> {
        &self.engine
    }

    /// Runs a text or tokens through the model's layers after what the context has seen. Their keys and values go to the active
    /// tier, and pages for which it no longer has room move down. Opens the context where there is none of that name. A
    /// beginning that an earlier prompt had too is taken from the prefix cache. Returns how many tokens were added.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`]; the context then holds the tokens of the passes that succeeded. Adding nothing is no error.
    pub fn add_to_active_memory<'i>(&self, context: &str, input: impl Into<Input<'i>>) -> Result<usize> {
        let input = input.into();
        self.work(context, true, |state| {
            let pending = state.pending.len();
            let ids = self.ids(&state.sequence, &state.pending, input)?;
            if !ids.is_empty() {
                let before = state.sequence.tokens().len();
                let done = self.engine.prefill_shared(&mut state.sequence, &ids, &mut |_| true);
                state.ran(before);
                done?;
            }
            Ok(ids.len() - pending)
        })
    }

    /// As [`MultiTierMemoryManager::add_to_active_memory`], and returns the logits `[vocabulary]` of the last token.
    ///
    /// # Errors
    /// As [`NeuroEngine::prefill`].
    pub fn prefill<'i>(&self, context: &str, input: impl Into<Input<'i>>) -> Result<Vec<f32>> {
        let input = input.into();
        self.work(context, true, |state| {
            let ids = self.ids(&state.sequence, &state.pending, input)?;
            let before = state.sequence.tokens().len();
            let done = self.engine.prefill_shared(&mut state.sequence, &ids, &mut |_| true);
            state.ran(before);
            Ok(done?.0)
        })
    }

    /// Adds an input and generates after it, as [`NeuroEngine::generate`] does. Afterwards the context holds both; the last
    /// token has not been run, and is run before the next input.
    ///
    /// # Errors
    /// As [`NeuroEngine::generate`].
    pub fn generate<'i>(
        &self,
        context: &str,
        input: impl Into<Input<'i>>,
        options: &GenerateOptions,
    ) -> Result<Generated> {
        self.generate_while(context, input, options, &mut || true, &mut |_| true)
    }

    /// As [`MultiTierMemoryManager::generate`], with the callbacks of [`NeuroEngine::generate`]. They must not work on a
    /// manager's contexts: such a call gets an error.
    ///
    /// # Errors
    /// As [`NeuroEngine::generate`].
    pub fn generate_while<'i>(
        &self,
        context: &str,
        input: impl Into<Input<'i>>,
        options: &GenerateOptions,
        proceed: &mut dyn FnMut() -> bool,
        each: &mut dyn FnMut(&TokenOutput<'_>) -> bool,
    ) -> Result<Generated> {
        let input = input.into();
        self.work(context, true, |state| {
            let ids = self.ids(&state.sequence, &state.pending, input)?;
            let before = state.sequence.tokens().len();
            let done = self.engine.generate(&mut state.sequence, &ids, options, proceed, each);
            state.ran(before);
            let done = done?;
            // The last token is chosen, and not run.
            state.pending.extend(done.tokens.last());
            if done.finish == Finish::Cancelled {
                state.sequence.stop().map(Stop::reset);
            }
            Ok(done)
        })
    }

    /// Ends work on a context soon, with [`Error::Cancelled`] or [`Finish::Cancelled`]: what runs now, or what begins next. Doesn't
    /// wait.
    ///
    /// # Errors
    /// Where there is no such context.
    pub fn cancel(&self, context: &str) -> Result<()> {
        let found = self.map().get(context).map(Arc::clone);
        found.ok_or_else(|| no_context(context))?.stop.set();
        Ok(())
    }

    /// Lends a context's sequence, for work that no other method does.
    ///
    /// # Errors
    /// Where there is no such context; those of `work`.
    pub fn with_sequence<R>(
        &self,
        context: &str,
        work: impl FnOnce(&NeuroEngine, &mut Sequence) -> Result<R>,
    ) -> Result<R> {
        self.work(context, false, |state| work(&self.engine, &mut state.sequence))
    }

    /// The tokens of a context, including the last of a generation, which has not been run yet.
    ///
    /// # Errors
    /// Where there is no such context.
    pub fn tokens(&self, context: &str) -> Result<Vec<u32>> {
        self.work(context, false, |state| Ok([state.sequence.tokens(), &state.pending].concat()))
    }

    /// Makes a sequence a context, with tokens that are run before the next input (as [`crate::LoadedState`] has both). Replaces
    /// an earlier context of that name.
    ///
    /// # Errors
    /// Where the sequence belongs to another engine.
    pub fn adopt(&self, context: &str, sequence: Sequence, pending: Vec<u32>) -> Result<()> {
        self.engine.owns(&sequence)?;
        self.close(context)?;
        self.work(context, true, |state| {
            state.sequence = sequence;
            state.pending = pending;
            Ok(())
        })
    }

    /// The names of the contexts, in alphabetical order.
    #[must_use]
    pub fn contexts(&self) -> Vec<String> {
        self.map().keys().cloned().collect()
    }

    /// Moves a context's pages to the compressed tier now, except for its latest `keep_tokens` tokens and the first page, which
    /// holds the attention sinks. Layers whose backend reads no compressed pages, and those with a sliding window, keep theirs.
    ///
    /// # Errors
    /// Where there is no such context, or a tier fails: no page is then lost.
    pub fn compress_memory(&self, context: &str, keep_tokens: usize) -> Result<Demoted> {
        let options =
            MemoryOptions { active: Capacity::Tokens(keep_tokens), ..self.engine.memory_options().clone() };
        self.work(context, false, |state| self.demote(&mut state.sequence, &options))
    }

    fn demote(&self, sequence: &mut Sequence, options: &MemoryOptions) -> Result<Demoted> {
        let before = sequence.memory_usage();
        let done = self.engine.demote(sequence, options);
        let after = sequence.memory_usage();
        done?;
        Ok(Demoted {
            pages: before.active.pages.saturating_sub(after.active.pages)
                + after.archived.pages.saturating_sub(before.archived.pages),
            bytes_freed: before.total().memory_bytes.saturating_sub(after.total().memory_bytes),
        })
    }

    /// Forgets all that a context has seen, in all tiers, since later tokens' keys and values mean nothing without the earlier
    /// ones. The context stays open, empty. Returns how many tokens it had.
    ///
    /// # Errors
    /// Where there is no such context.
    pub fn clear_active_memory(&self, context: &str) -> Result<usize> {
        self.work(context, false, |state| {
            let tokens = state.sequence.tokens().len();
            state.sequence.truncate(0);
            state.sequence.give_back_room();
            state.pending.clear();
            Ok(tokens)
        })
    }

    /// As [`MultiTierMemoryManager::clear_active_memory`] for every context, one after another.
    ///
    /// # Errors
    /// As [`MultiTierMemoryManager::clear_active_memory`].
    pub fn clear_all_active_memory(&self) -> Result<usize> {
        let mut tokens = 0;
        for context in self.contexts() {
            tokens += match self.clear_active_memory(&context) {
                // Closed by another thread meanwhile.
                Err(_) if !self.map().contains_key(&context) => 0,
                cleared => cleared?,
            };
        }
        Ok(tokens)
    }

    /// Closes a context once current work on it has ended; `false` where there is no such context.
    ///
    /// # Errors
    /// From within a callback of [`MultiTierMemoryManager::generate_while`].
    pub fn close(&self, context: &str) -> Result<bool> {
        let hold = context::Hold::begin()?;
        let _working = self.enter();
        let removed = self.map().remove(context);
        if let Some(removed) = &removed {
            removed.close(&hold);
        }
        Ok(removed.is_some())
    }

    /// What the tiers hold for all sequences of the engine. Pages that several share count once. Doesn't wait.
    #[must_use]
    pub fn get_memory_usage(&self) -> MemoryUsage {
        self.engine.memory_usage()
    }

    /// What the tiers held of one context when work on it last ended. Pages that it shares count whole. Doesn't wait.
    ///
    /// # Errors
    /// Where there is no such context.
    pub fn get_context_usage(&self, context: &str) -> Result<MemoryUsage> {
        let found = self.map().get(context).map(|context| context.usage());
        found.ok_or_else(|| no_context(context))
    }

    /// Works on one context while nobody else does. With `open`, a missing context is opened.
    fn work<R>(
        &self,
        name: &str,
        open: bool,
        work: impl FnOnce(&mut context::State) -> Result<R>,
    ) -> Result<R> {
        let hold = context::Hold::begin()?;
        let _working = self.enter();
        loop {
            let found = {
                let mut map = self.map();
                match map.get(name) {
                    Some(found) => Arc::clone(found),
                    None if open => {
                        let new = Arc::new(Context::new(self.engine.sequence()?));
                        map.insert(name.to_owned(), Arc::clone(&new));
                        new
                    }
                    None => return Err(no_context(name)),
                }
            };
            // It may have been closed while this thread waited; then there may be another by that name.
            if let Some(mut state) = found.lock(&hold) {
                state.used = self.epoch();
                state.sequence.set_stop(Some(found.stop.clone()));
                let done = work(&mut state);
                if matches!(done, Err(Error::Cancelled)) {
                    found.stop.reset();
                }
                return done;
            }
        }
    }

    /// Holds [`MultiTierMemoryManager::get_memory_leak_stats`] up while a context is worked on.
    fn enter(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody works on any context, and keeps it so.
    fn enter_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Context>>> {
        locked(&self.contexts)
    }

    fn epoch(&self) -> u64 {
        *locked(&self.epoch)
    }

    /// The tokens to run for an input, after those that are pending.
    fn ids(&self, sequence: &Sequence, pending: &[u32], input: Input<'_>) -> Result<Vec<u32>> {
        let mut ids = pending.to_vec();
        match input {
            Input::Tokens(tokens) => ids.extend_from_slice(tokens),
            Input::Text("") => {}
            Input::Text(text) if ids.is_empty() && sequence.tokens().is_empty() => {
                ids = self.engine.tokenizer().encode_prompt(text, false)?;
            }
            Input::Text(text) => ids.extend(self.engine.tokenizer().encode(text, false)?),
        }
        Ok(ids)
    }
}

fn no_context(name: &str) -> Error {
    Error::Invalid(format!("there is no context {name:?}, where the name of an open one was expected"))
}
