//! Who is shown the products that layers compute.

use std::sync::{PoisonError, RwLock};

use herald_api::Observer;

/// The observer of all layers of this backend. Whoever shows a product holds it, so that nothing is shown to an observer that
/// has been replaced.
static OBSERVER: RwLock<Option<Observer>> = RwLock::new(None);

/// Replaces the observer.
pub(crate) fn set(observer: Option<Observer>) {
    *OBSERVER.write().unwrap_or_else(PoisonError::into_inner) = observer;
}

/// Shows a product to the observer, where there is one; see [`Observer::show`].
pub(crate) fn show(rows: &[u8], columns: usize, input: &[f32]) {
    if let Some(observer) = *OBSERVER.read().unwrap_or_else(PoisonError::into_inner) {
        observer.show(rows, columns, input);
    }
}
