//! Pulls from a hub on loopback, with the faults that the real one has at times.

mod faults;
mod pulls;
mod python;
mod store;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use herald_hub::{Error, Event, Fetched, Hub, HubModel, Patience, Plan, Proxies, Settings, Source, Token};

use herald_testing::hub::FakeHub;

/// A folder, and settings that keep everything in it and wait for nothing.
pub(crate) fn settings(fake: &FakeHub, folder: &Path) -> Settings {
    Settings {
        endpoint: fake.address.clone(),
        cache: folder.join("hub"),
        downloads: folder.join("urls"),
        token: None,
        offline: false,
        proxies: Proxies::default(),
        patience: Patience {
            pause: Duration::from_millis(1),
            silence: Duration::from_millis(5000),
            longest_pause: Duration::from_millis(20),
            ..Patience::default()
        },
    }
}

pub(crate) fn hub(fake: &FakeHub, folder: &Path) -> Hub {
    Hub::new(settings(fake, folder))
}

pub(crate) fn with_token(fake: &FakeHub, folder: &Path, token: &str) -> Hub {
    Hub::new(Settings { token: Some(Token::new(token)), ..settings(fake, folder) })
}

pub(crate) fn model(name: &str) -> HubModel {
    match Source::parse(name) {
        Ok(Source::Hub(model)) => model,
        other => panic!("{name}: {other:?}"),
    }
}

/// Goes on, whatever happens.
pub(crate) fn on(_: Event<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn plan(hub: &Hub, name: &str) -> Result<Plan, Error> {
    hub.plan(&model(name), 0, &mut on)
}

pub(crate) fn pull(hub: &Hub, name: &str) -> Result<Fetched, Error> {
    hub.fetch(&plan(hub, name)?, &mut on)
}

/// Asserts that it fails with these words.
#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T, Error>, words: &[&str]) {
    let sentence = result.expect_err("it fails").to_string();
    for word in words {
        assert!(sentence.contains(word), "{sentence:?} does not say {word:?}");
    }
    assert!(!sentence.contains('\n'), "{sentence:?}");
}

/// What passes for a model: it begins as one, and no two of its pieces are the same.
pub(crate) fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let mut bytes = b"GGUF".to_vec();
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend((state >> 16).to_le_bytes().iter().take(6));
    }
    bytes.truncate(len);
    bytes
}

/// The names in a folder, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// A repository's folder in a test's cache.
pub(crate) fn repo_folder(folder: &Path, repo: &str) -> PathBuf {
    folder.join("hub").join(format!("models--{}", repo.replace('/', "--")))
}
