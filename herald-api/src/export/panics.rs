//! Panics that the boundary catches become a sentence for the caller, so they are not printed as well: a program whose plugin
//! panics shows one line, as for any other failure.

use std::panic::{set_hook, take_hook};
use std::sync::Once;

use super::{Level, log};
use crate::marshal::is_caught;

/// From now on, panics that are caught go to the host's log, with the source line, at the level for developers. A plugin has its
/// own panic hook, so this is not the host's.
pub(super) fn log_what_is_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let other = take_hook();
        set_hook(Box::new(move |panic| {
            if is_caught() {
                log(Level::Debug, &panic.to_string());
            } else {
                other(panic);
            }
        }));
    });
}
