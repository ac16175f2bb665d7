//! A deep stack for templates.

use std::thread;

use super::ChatError;

/// The template engine recurses over an expression's operators and over lists in lists, both as deep as a template
/// likes within the limits on its source and its steps: a megabyte's stack overflows. Only what is used gets memory.
const STACK: usize = 256 << 20;

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
        running.join().unwrap_or_else(|_| Err(ChatError::Internal("the template engine panicked".to_owned())))
    })
}
