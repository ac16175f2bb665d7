//! Checks of tokenizers.

use herald_api::import::Plugin;

use crate::Sink;

/// Checks a plugin's tokenizers, beside those of `reference`; nothing where it offers none.
pub fn check(_plugin: &Plugin, _reference: &Plugin, _sink: &mut Sink<'_>) {}
