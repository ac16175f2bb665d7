//! Products that layers show.

use std::sync::{Arc, Mutex};

use herald_api::{Parallel, Status};

use crate::plugin::observer;
use crate::support::*;

#[test]
fn products_are_shown_until_nobody_watches() {
    let plugin = loaded();
    let layer = plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let rows = [7_u8; 8];
    let watching = layer.observe({
        let seen = Arc::clone(&seen);
        Arc::new(move |product| {
            assert!(product.columns != 3, "an observer was told to panic");
            seen.lock().expect("it").push((product.data, product.columns, product.input.to_vec()));
        })
    });
    let shown = observer().expect("an observer");
    shown.show(&rows, 2, &[1.0, 2.0, 3.0, 4.0]);
    // A panic doesn't cross.
    shown.show(&rows, 3, &[1.0, 2.0, 3.0]);
    shown.show(&rows[4..], 1, &[5.0]);
    let at = rows.as_ptr() as usize;
    assert_eq!(*seen.lock().expect("it"), [(at, 2, vec![1.0, 2.0, 3.0, 4.0]), (at + 4, 1, vec![5.0])]);
    drop(watching.expect("it is watched"));
    assert!(observer().is_none());
    assert_eq!(Arc::strong_count(&seen), 1);
}

#[test]
fn a_plugin_need_not_show_them() {
    let mut tables = Tables::new();
    tables.layers.observe = None;
    let plugin = tables.load().expect("the plugin");
    let layer = plugin.create_layer(attention_spec(), Parallel::serial()).expect("the layer");
    let refusal = layer.observe(Arc::new(|_| {})).err().expect("a refusal");
    assert_eq!(refusal.status(), Status::Unsupported);
    assert_eq!(refusal.message(), "its layers don't show what they multiply");
}
