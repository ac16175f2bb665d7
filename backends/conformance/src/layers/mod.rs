//! Checks of layers: what they compute, what they touch, and what they make of requests that they can't know.
//!
//! The plugin's functions are called through its C table, with buffers between pages that can't be touched (`guard`), and
//! results are compared with those of a reference (`compare` says how near they have to be). `cases` lists the layers,
//! `battery` what each is put through, `earlier` attention to pages that others made, `rules` and `costs` what is asked of one layer of each kind.

mod battery;
mod call;
mod cases;
mod compare;
mod costs;
mod earlier;
mod layer;
mod pages;
mod plan;
mod rules;
mod run;
mod structs;

use herald_api::LayerKind;
use herald_api::import::Plugin;

use crate::Sink;
use crate::hooks;
use crate::pool::Pool;
use layer::Maker;

/// Checks a plugin's layers, beside those of `reference`; nothing where it offers none.
pub fn check(plugin: &Plugin, reference: &Plugin, sink: &mut Sink<'_>) {
    let pool = Pool::new(2);
    let alone = sink.is_alone();
    let makers = [plugin, reference].map(|plugin| Maker::new(plugin, &pool, alone));
    let [Some(maker), Some(reference)] = makers else { return };
    hooks::install();
    for kind in plugin.layer_kinds() {
        check_kind(maker, reference, kind, sink);
    }
}

fn check_kind(maker: Maker<'_>, reference: Maker<'_>, kind: LayerKind, sink: &mut Sink<'_>) {
    let name = kind.name();
    sink.check(format!("{name}, whether it is offered"), || {
        battery::outcome(battery::check_offered(maker, kind))
    });
    for plan in cases::plans(kind) {
        sink.check(plan.subject(), || battery::outcome(battery::check(maker, reference, &plan)));
    }
    if kind == LayerKind::Attention {
        earlier::check(maker, reference, sink);
    }
    rules::check(maker, kind, sink);
    costs::check(maker, kind, sink);
}
