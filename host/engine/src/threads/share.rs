//! How a loop's items are divided.

use std::ops::Range;

/// The items of worker `worker` of `workers`, where `items` are divided into contiguous shares whose sizes differ by at
/// most one, the larger ones first. Empty for a worker at or above `workers`.
#[must_use]
pub fn share_of(items: usize, worker: usize, workers: usize) -> Range<usize> {
    if worker >= workers {
        return items..items;
    }
    let (size, larger) = (items / workers, items % workers);
    // At most `items`, so it cannot overflow.
    let start = worker * size + worker.min(larger);
    start..start + size + usize::from(worker < larger)
}
