//! A deep stack for templates.

use std::thread;

use super::ChatError;

/// The interpreter recurses over brackets, blocks, macros and lists in lists, within limits on their depth that need
/// more than the stack of a usual thread. Only what is used gets memory.
const STACK: usize = 32 << 20;

/// Runs `work` on a thread with a deep stack.
///
/// # Errors
/// Those of `work`; there is no thread; `work` panicked.
pub(super) fn with_deep_stack<T: Send>(
    work: impl FnOnce() -> Result<T, ChatError> + Send,
) -> Result<T, ChatError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("chat-template".to_owned()).stack_size(STACK);
        let running = thread
            .spawn_scoped(scope, work)
            .map_err(|error| ChatError::Internal(format!("no thread to work on: {error}")))?;
        running.join().unwrap_or_else(|_| Err(ChatError::Internal("the interpreter panicked".to_owned())))
    })
}
