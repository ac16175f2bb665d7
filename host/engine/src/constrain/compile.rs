//! Compiling a form within bounds, whoever wrote it.
//!
//! `llguidance` counts its own work and gives up where that exceeds its limits, but for one part: how the lexer begins. There, a
//! schema such as `{"multipleOf": 99999989}` searches through as many states as the number says. So that part is rehearsed
//! here, counted. What else may take long (thousands of alternatives that must hold together) runs on a thread of its own,
//! which may take [`MAX_TIME`], and for which nobody waits longer than the caller wants.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::earley::regexvec::RegexVec;
use llguidance::{Matcher, ParserFactory};

use super::way::Pathfinder;
use super::words::plainly;
use crate::error::{Error, Result};
use crate::stop::Stop;
use crate::threads::locked;

/// The CPU time that a form may take to compile.
const MAX_TIME: Duration = Duration::from_secs(10);

/// The longest that anybody waits for it, on a machine that has other things to do.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often a waiting caller looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// The most forms that are still being compiled after everybody has given up on them.
const MAX_ABANDONED: usize = 2;

/// How many times its limit for a lexer a form may take to find out how it may begin: forms of thousands of names do so too.
const BEGINNING: u64 = 4;

/// The compiler's stack: schemas nest.
const STACK_BYTES: usize = 16 << 20;

/// A form at its beginning.
pub(super) type Compiled = (Matcher, Option<Pathfinder>);

/// Compiles forms for one model.
pub(super) struct Compiler {
    factory: Arc<ParserFactory>,
    abandoned: Arc<AtomicUsize>,
}

impl Compiler {
    pub(super) fn new(factory: ParserFactory) -> Self {
        Self { factory: Arc::new(factory), abandoned: Arc::default() }
    }

    /// The state of a grammar at its beginning, and what knows the ways to its end; `what` names it in errors.
    pub(super) fn compile(
        &self,
        what: &'static str,
        grammar: TopLevelGrammar,
        stop: Option<&Stop>,
    ) -> Result<Compiled> {
        if self.abandoned.load(Ordering::Relaxed) >= MAX_ABANDONED {
            return Err(Error::Constraint(format!(
                "the {what} can't be compiled now: {MAX_ABANDONED} others that were given up on are still being compiled"
            )));
        }
        let (factory, over) = (Arc::clone(&self.factory), stop.cloned().unwrap_or_default());
        let give_up = Stop::default();
        let given_up = give_up.clone();
        // No channel: receiving with a time-out makes the standard library remember the thread, for ever where it is the
        // main thread of a C program.
        let outcome = Arc::new((Mutex::new(None), Condvar::new()));
        let to = Arc::clone(&outcome);
        let work = move || {
            crate::system::be_background();
            let compiled = within_bounds(&factory, grammar, &given_up);
            *locked(&to.0) = Some(compiled);
            to.1.notify_one();
        };
        let thread = std::thread::Builder::new().name("herald-form".to_owned()).stack_size(STACK_BYTES);
        let thread = thread.spawn(work).map_err(|error| {
            Error::Constraint(format!("the {what} can't be compiled: the system gave no thread: {error}"))
        })?;
        let start = Instant::now();
        let mut compiled = locked(&outcome.0);
        let mut has_ended = false;
        let ending = loop {
            if let Some(compiled) = compiled.take() {
                has_ended = true;
                break compiled.map_err(|reason| refused(what, &reason));
            }
            if thread.is_finished() {
                break Err(refused(what, "its compiler panicked"));
            }
            if over.ends() {
                break Err(Error::Cancelled);
            }
            let waited = start.elapsed();
            if waited >= MAX_WAIT || crate::system::cpu_time_of(&thread).unwrap_or(waited) >= MAX_TIME {
                let time = format!("it takes more than {} seconds to compile", MAX_TIME.as_secs());
                break Err(refused(what, &time));
            }
            let waited = outcome.1.wait_timeout(compiled, LOOK).unwrap_or_else(PoisonError::into_inner);
            compiled = waited.0;
        };
        drop(compiled);
        give_up.set();
        if has_ended {
            // It has nothing more to do, and a program that ends now should find it gone.
            let _ = thread.join();
        } else if !thread.is_finished() {
            self.watch(thread);
        }
        ending
    }

    /// Counts a compilation that was given up on until it ends.
    fn watch(&self, thread: std::thread::JoinHandle<()>) {
        self.abandoned.fetch_add(1, Ordering::Relaxed);
        let abandoned = Arc::clone(&self.abandoned);
        let wait = move || {
            // It catches its panics, and they are of no interest any more.
            let _ = thread.join();
            abandoned.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("herald-form".to_owned()).spawn(wait).is_err() {
            self.abandoned.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn refused(what: &str, reason: &str) -> Error {
    Error::Constraint(format!("the {what} can't be used: {}", plainly(reason)))
}

/// Compiles a grammar within the factory's limits.
fn within_bounds(factory: &ParserFactory, grammar: TopLevelGrammar, stop: &Stop) -> Result<Compiled, String> {
    let limits = factory.limits();
    let init = GrammarInit::Serialized(grammar);
    let compiled = init.to_internal(Some(factory.tok_env().clone()), limits.clone());
    let (grammar, spec) = compiled.map_err(|error| error.to_string())?;
    let automaton = rehearse(spec.clone(), factory, limits, stop)?;
    let parser = factory.create_parser_from_init_default(GrammarInit::Internal(grammar, spec));
    let parser = parser.map_err(|error| error.to_string())?;
    let pathfinder = Pathfinder::new(parser.parser.grammar(), automaton, factory.tok_env().tok_trie(), stop);
    let matcher = Matcher::new(Ok(parser));
    matcher.get_error().map_or(Ok((matcher, pathfinder)), Err)
}

/// Does what the parser's lexer does first, and without a limit: a transition from the start for each byte. Returns the automaton.
fn rehearse(
    mut spec: llguidance::earley::lexerspec::LexerSpec,
    factory: &ParserFactory,
    limits: &ParserLimits,
    stop: &Stop,
) -> Result<RegexVec, String> {
    spec.add_extra_lexemes(&factory.extra_lexemes());
    let mut lexer = spec.to_regex_vec(&mut limits.clone()).map_err(|error| error.to_string())?;
    let most = limits.initial_lexer_fuel.saturating_mul(BEGINNING);
    lexer.set_fuel(most);
    let start = lexer.initial_state(&spec.all_lexemes());
    for byte in 0..=u8::MAX {
        lexer.transition(start, byte);
        if lexer.has_error() {
            return Err(format!(
                "it needs more than {most} steps to find out how it may begin, as a large multipleOf does, or patterns and lengths \
                 that must hold together"
            ));
        }
        if stop.is_set() {
            return Err("it was given up on".to_owned());
        }
    }
    Ok(lexer)
}
