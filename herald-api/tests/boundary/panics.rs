//! A plugin that panics: the message arrives as a sentence, and everything goes on.

use herald_api::import::{LayerSpec, Lent};
use herald_api::{EncodeOptions, MemoryTier, Parallel, Status, TierConfig, Tokenizer};

use crate::plugin::{PANICS_IN_CREATE, PANICS_IN_DROP, PANICS_IN_FORWARD, PANICS_IN_TASK};
use crate::support::*;
use crate::threads::Threads;
use crate::works::{Held, attend};

fn spec_of_block(index: usize) -> LayerSpec {
    let mut spec = attention_spec();
    spec.desc.block = index;
    spec
}

#[test]
fn in_create() {
    let plugin = loaded();
    let refused = plugin.create_layer(spec_of_block(PANICS_IN_CREATE), Parallel::serial());
    let error = refused.err().expect("it panicked");
    assert_eq!(error.status(), Status::Internal);
    assert_eq!(error.message(), "the plugin panicked: create was told to panic");
    // Where it was is for developers.
    let place = logged().into_iter().find(|line| line.ends_with("create was told to panic"));
    assert!(
        place.is_some_and(|line| line.starts_with("4 test: panicked at ") && line.contains("plugin.rs:"))
    );
    says(
        plugin.create_tokenizer(&vocabulary("panic")),
        "the plugin panicked: tokenizer_create was told to panic",
    );
    let config = TierConfig { path: Some("panic".into()), ..tier_config() };
    says(plugin.create_tier(&config), "the plugin panicked: tier_create was told to panic");
    plugin.create_layer(attention_spec(), Parallel::serial()).expect("the next one");
}

#[test]
fn in_forward_and_in_its_tasks() {
    let plugin = loaded();
    let (mut held, threads) = (Held::new(&plugin, 1), Threads(3));
    let layer = plugin.create_layer(spec_of_block(PANICS_IN_FORWARD), Parallel::serial()).expect("made");
    says(attend(&layer, &mut [(&mut held, 2)], Parallel::serial()), "panicked: forward was told to panic");
    let layer = plugin.create_layer(spec_of_block(PANICS_IN_TASK), Parallel::serial()).expect("made");
    says(attend(&layer, &mut [(&mut held, 4)], Parallel::serial()), "panicked: a task was told to panic");
    let lent = Lent::new(&threads);
    says(attend(&layer, &mut [(&mut held, 4)], lent.parallel()), "panicked: a task was told to panic");
}

#[test]
fn in_drop() {
    let plugin = loaded();
    let layer = plugin.create_layer(spec_of_block(PANICS_IN_DROP), Parallel::serial()).expect("made");
    drop(layer);
    assert!(logged().iter().any(|line| line == "1 test: a layer panicked while it was destroyed"));
}

#[test]
fn in_encode() {
    let tokenizer = loaded().create_tokenizer(&vocabulary("bytes")).expect("the tokenizer");
    let mut ids = vec![3];
    let options = EncodeOptions::default();
    says(tokenizer.encode("panic", options, &mut ids), "the plugin panicked: encode was told to panic");
    assert_eq!(ids, [3]);
    tokenizer.encode("calm", options, &mut ids).expect("the next one");
}

#[test]
fn in_search() {
    let tier = by_id(&loaded().create_tier(&tier_config()).expect("the tier"));
    says(tier.search(&[f32::NAN; 4], &[1], 1), "the plugin panicked: search was told to panic");
    assert_eq!(tier.search(&[1.0; 4], &[1], 1).map(|found| found.len()), Ok(1));
}

/// A task's panic is the caller's own, with its message, once the other tasks have ended.
#[test]
fn of_a_task_is_carried_to_the_caller() {
    let threads = Threads(3);
    let lent = Lent::new(&threads);
    for parallel in [Parallel::serial(), lent.parallel()] {
        let done = std::sync::atomic::AtomicUsize::new(0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            parallel.run(6, &|range, _| {
                assert!(!range.contains(&2), "item 2 was told to panic");
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
        }));
        let panic = caught.expect_err("the panic is carried");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"item 2 was told to panic"));
        let ended = if parallel.workers() == 1 { 0 } else { 5 };
        assert_eq!(done.into_inner(), ended, "the other items were done");
    }
    let none = std::sync::Mutex::new(Vec::new());
    lent.parallel().run(0, &|range, _| none.lock().expect("no panic").push(range));
    assert!(none.into_inner().expect("no panic").is_empty());
}
