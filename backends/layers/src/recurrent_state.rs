//! A sequence's recurrent state as float32.

use herald_api::Sequence;

use crate::disjoint_slice::DisjointSlice;

/// The first `len` elements of a sequence's state.
///
/// # Panics
/// Where the layer that was called asked for fewer.
///
/// # Safety
/// No other use of the state during the call overlaps the parts that
/// are taken of the result.
pub(crate) unsafe fn recurrent_state<'a>(sequence: &Sequence<'a>, len: usize) -> DisjointSlice<'a, f32> {
    let bytes = sequence.state_bytes();
    assert!(
        len.checked_mul(size_of::<f32>()).is_some_and(|asked| asked <= bytes),
        "{len} floats of {bytes} bytes"
    );
    // SAFETY: by the ABI's contract the host passes each state once, aligned to 64 bytes, of the size that the layer asked
    // for, zeroed or last written by this layer, and leaves it to the layer for the call.
    unsafe { DisjointSlice::from_raw(sequence.state().cast(), len) }
}
