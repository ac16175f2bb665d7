//! From the bytes of tokens to text that can be shown while it is being generated.
//!
//! A token may end inside a character, and a stop string may begin in one token and end in another. Text that was shown cannot
//! be taken back, so [`Utf8Stream`] and [`StopMatcher`] each hold back the little that is not yet decided, and their output
//! does not depend on where tokens end.

mod stop;
mod utf8;

pub use stop::{EmptyStop, StopMatcher};
pub use utf8::Utf8Stream;
