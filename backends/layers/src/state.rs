//! A sequence's recurrent state as float32.

use herald_api::Sequence;

use crate::shared::Shared;

/// The first `len` elements of a sequence's state, which the boundary has checked is there.
///
/// # Safety
/// The layer asked for a state of at least so many elements, and nobody else uses the state during the call: the ABI's
/// contract with a host that passes one state once.
pub(crate) unsafe fn state<'a>(sequence: &Sequence<'a>, len: usize) -> Shared<'a, f32> {
    // SAFETY: the host's contract: state_bytes as the layer asked, aligned to 64 bytes, zeroed or written by this layer
    // before, and the layer's alone for the call.
    unsafe { Shared::from_raw(sequence.state().cast(), len) }
}
