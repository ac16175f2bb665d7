//! What can go wrong in the library, each as one sentence.

use std::path::PathBuf;

use crate::chat::ChatError;
use crate::gguf::GgufError;
use crate::model::ModelError;
use crate::plugin::ChooseError;
use crate::sampler::SamplerError;
use crate::threads::ThreadPoolError;

/// Why a call of the library failed. Displays as one sentence: what, where, what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model file can't be read.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The model file was read, but is no model that HERALD can run.
    #[error("{}: {source}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<ModelError>,
    },
    /// No plugin will do.
    #[error(transparent)]
    Plugins(#[from] ChooseError),
    /// No plugin could make a part of the model.
    #[error("{part} can't be built: {reasons}")]
    Unbuilt {
        /// A layer, the tokenizer, a memory tier.
        part: String,
        /// What each plugin said.
        reasons: String,
    },
    /// A plugin failed while it computed.
    #[error("{what}: {source}")]
    Plugin {
        /// What it was doing.
        what: String,
        /// What it said.
        source: herald_api::Error,
    },
    /// A file or folder can't be read or written.
    #[error("{}: {what}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What can't be done with it.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that HERALD writes is damaged, or was never one.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The context is full.
    #[error("the sequence would have {wanted} tokens, where its context has room for {room}")]
    ContextFull {
        /// Tokens that it would have.
        wanted: usize,
        /// Tokens that there is room for.
        room: usize,
    },
    /// The memory budget is used up.
    #[error(
        "what sequences have seen would take {wanted} bytes of RAM, where the memory budget is {budget} and no page of this \
         sequence can move down"
    )]
    Budget {
        /// Bytes that would be held.
        wanted: u64,
        /// Bytes that may be held.
        budget: u64,
    },
    /// An argument of the caller's is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The sampler's parameters or logits are wrong.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// An answer's constraint can't be used or followed.
    #[error("{0}")]
    Constraint(String),
    /// The system gave no threads.
    #[error(transparent)]
    Threads(#[from] ThreadPoolError),
    /// The chat template failed.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// Too many requests wait already.
    #[error("{waiting} requests wait already, where the queue has room for {room}: try again later")]
    Busy {
        /// Requests that wait.
        waiting: usize,
        /// Requests that there is room for.
        room: usize,
    },
    /// The scheduler's thread has ended, and no request gets an answer any more.
    #[error("the scheduler has ended, and takes no requests")]
    SchedulerEnded,
    /// The engine's threads are in another process.
    #[error(
        "process {here} was forked from process {loaded}, which loaded the model and has its threads: use the model there, or load \
         it here"
    )]
    Forked {
        /// This process.
        here: u32,
        /// The one that loaded the model.
        loaded: u32,
    },
    /// The caller stopped the work.
    #[error("the work was cancelled")]
    Cancelled,
}

/// The result of a call of the library.
pub type Result<T, E = Error> = std::result::Result<T, E>;
