//! Checks of layers.

use herald_api::import::Plugin;

use crate::Sink;

/// Checks a plugin's layers, beside those of `reference`; nothing where it offers none.
pub fn check(_plugin: &Plugin, _reference: &Plugin, _sink: &mut Sink<'_>) {}
