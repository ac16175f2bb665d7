//! Files of other addresses, and what is on this machine.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;

use herald_hub::{Event, From, Hub, Settings, Source};

use crate::{bytes, fails, hub, names, on, pull, repo_folder, settings, with_token};
use herald_testing::hub::{FakeHub, Host};

#[test]
fn an_addresss_file_is_fetched_and_found() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let (content, newer) = (bytes(1, 900_000), bytes(2, 800_000));
    fake.state().plain.insert("a/m-Q4_0.gguf".to_owned(), Arc::new(content.clone()));
    let url = format!("{}/a/m-Q4_0.gguf?key=secret", fake.storage);
    let hub = with_token(&fake, folder.path(), "hf_own");
    let stop = |limit: u64| {
        move |event: Event<'_>| match event {
            Event::Bytes(at) if at > limit => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    assert!(hub.fetch_url(&url, &mut stop(400_000)).is_err());
    let source = Source::parse(&url).unwrap();
    assert_eq!(hub.find(&source, 0), None);
    drop(fake.asked());
    let fetched = hub.fetch_url(&url, &mut on).unwrap();
    assert!(fs::read(&fetched.path).unwrap() == content && fetched.bytes == 900_000);
    let asked = fake.asked();
    assert!(asked[0].header("range").is_some() && asked[0].header("if-range").is_some());
    assert!(asked.iter().all(|asked| asked.host == Host::Storage && asked.header("authorization").is_none()));
    assert_eq!(hub.find(&source, 0).as_ref(), Some(&fetched.path));
    assert!(!hub.fetch_url(&url, &mut on).unwrap().fetched && fake.asked().is_empty());
    let models = hub.models();
    let name = format!("{}/a/m-Q4_0.gguf", fake.storage);
    assert_eq!((models.len(), &models[0].name, &models[0].from), (1, &name, &From::Url(name.clone())));
    let folder_of_it = fetched.path.parent().unwrap();
    assert_eq!(names(folder_of_it), ["m-Q4_0.gguf", "source.json"]);
    assert!(!fs::read_to_string(folder_of_it.join("source.json")).unwrap().contains("secret"));
    assert_eq!(hub.remove(&hub.to_remove(fetched.path.to_str().unwrap()).unwrap()).unwrap(), 900_000);
    assert!(hub.models().is_empty() && names(&folder.path().join("urls")).is_empty());
    // The file has changed since its beginning came: none of that is kept.
    assert!(hub.fetch_url(&url, &mut stop(400_000)).is_err());
    fake.state().plain.insert("a/m-Q4_0.gguf".to_owned(), Arc::new(newer.clone()));
    fake.faults(|faults| faults.etag = Some("\"newer\"".to_owned()));
    assert!(fs::read(hub.fetch_url(&url, &mut on).unwrap().path).unwrap() == newer);
}

#[test]
fn addresses_without_a_model_are_told() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = hub(&fake, folder.path());
    let url = format!("{}/m.gguf", fake.storage);
    fails(hub.fetch_url(&url, &mut on), &["m.gguf", "no such file"]);
    fake.state().plain.insert("m.gguf".to_owned(), Arc::new(b"<html>".repeat(1000)));
    fails(hub.fetch_url(&url, &mut on), &["m.gguf", "GGUF"]);
    fake.state().plain.insert("m.gguf".to_owned(), Arc::new(bytes(1, 5000)));
    fake.faults(|faults| faults.no_length = true);
    fails(hub.fetch_url(&url, &mut on), &["how long the file is", "Content-Length"]);
    // Nobody could go on from the beginning of a file whose state has no name.
    fake.faults(|faults| {
        (faults.no_length, faults.cut_after, faults.etag) = (false, Some(1000), Some("W/\"weak\"".to_owned()))
    });
    fails(hub.fetch_url(&url, &mut on), &["attempts"]);
    let left: Vec<String> = names(&folder.path().join("urls"))
        .iter()
        .flat_map(|id| names(&folder.path().join("urls").join(id)))
        .collect();
    assert!(!left.iter().any(|name| name.ends_with(".incomplete")), "{left:?}");
    let offline = Hub::new(Settings { offline: true, ..settings(&fake, folder.path()) });
    fails(offline.fetch_url(&url, &mut on), &["offline"]);
}

#[test]
fn models_are_listed_and_removed_with_what_nobody_else_uses() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let (kept, changed) = (bytes(1, 1000), bytes(2, 2000));
    fake.repo("u/r", &[("m-Q8_0.gguf", &kept), ("sub/m-Q4_0.gguf", &changed)]);
    let hub = hub(&fake, folder.path());
    pull(&hub, "u/r:Q8_0").unwrap();
    pull(&hub, "u/r:Q4_0").unwrap();
    // A new commit: one file is the same, one has changed.
    fake.repo("u/r", &[("m-Q8_0.gguf", &kept), ("sub/m-Q4_0.gguf", &bytes(3, 3000))]);
    fake.state().repos.get_mut("u/r").unwrap().commit = "2".repeat(40);
    pull(&hub, "u/r:Q8_0").unwrap();
    pull(&hub, "u/r:Q4_0").unwrap();
    let listed: Vec<(String, u64)> =
        hub.models().into_iter().map(|model| (model.name, model.bytes)).collect();
    let old = format!("hf.co/u/r/blob/{}/sub/m-Q4_0.gguf", "1".repeat(40));
    let expected = [("u/r:Q8_0", 1000), ("u/r:Q4_0", 3000), (old.as_str(), 2000)];
    let mut listed: Vec<(&str, u64)> = listed.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    listed.sort_by_key(|(_, bytes)| *bytes);
    assert_eq!(listed, [expected[0], expected[2], expected[1]]);
    // The names mean what they list.
    for (name, bytes) in expected {
        let path = hub.find(&Source::parse(name).unwrap(), 0).unwrap();
        assert_eq!(path.metadata().unwrap().len(), bytes, "{name}");
    }
    // Another commit's file is no substitute.
    for name in ["hf.co/u/r/tree/dev", &format!("hf.co/u/r/blob/{}/m-Q8_0.gguf", "3".repeat(40))] {
        assert_eq!(hub.find(&Source::parse(name).unwrap(), 0), None, "{name}");
    }
    // Both commits' files go, and the one blob of theirs.
    assert_eq!(hub.remove(&hub.to_remove("u/r:q8_0").unwrap()).unwrap(), 1000);
    assert_eq!(hub.models().len(), 2);
    fails(hub.to_remove("u/r:q8_0"), &["u/r:q8_0", "host ls"]);
    // What another repository's snapshot leads to stays.
    #[cfg(unix)]
    {
        let other = folder.path().join("hub/models--v--s/snapshots").join("3".repeat(40));
        fs::create_dir_all(&other).unwrap();
        let blob = hub.find(&Source::parse("u/r:Q4_0").unwrap(), 0).unwrap().canonicalize().unwrap();
        std::os::unix::fs::symlink(&blob, other.join("m.gguf")).unwrap();
        assert_eq!((hub.remove(&hub.to_remove("u/r").unwrap()).unwrap(), blob.exists()), (2000, true));
        assert_eq!(names(&repo_folder(folder.path(), "u/r")), ["blobs"]);
    }
}

#[test]
fn of_a_repository_without_models_nothing_is_left() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fake.repo("u/r", &[("m-Q8_0.gguf", &bytes(1, 1000)), ("m-Q4_0.gguf", &bytes(2, 2000))]);
    let hub = hub(&fake, folder.path());
    pull(&hub, "u/r:Q8_0").unwrap();
    let repo = repo_folder(folder.path(), "u/r");
    fs::write(repo.join("blobs").join(format!("{}.incomplete", "ab".repeat(32))), "half").unwrap();
    // A file of another client keeps its place.
    let config = repo.join("snapshots").join("1".repeat(40)).join("config.json");
    fs::write(&config, "{}").unwrap();
    assert_eq!(hub.remove(&hub.to_remove("u/r").unwrap()).unwrap(), 1000);
    assert!(config.exists() && repo.join("refs/main").exists());
    pull(&hub, "u/r:Q8_0").unwrap();
    fs::remove_file(&config).unwrap();
    assert_eq!(hub.remove(&hub.to_remove("hf.co/u/r").unwrap()).unwrap(), 1000);
    assert!(!repo.exists(), "{:?}", names(&repo));
}

#[test]
fn nothing_outside_the_caches_is_removed() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let hub = hub(&fake, folder.path());
    let own = folder.path().join("own.gguf");
    fs::write(&own, bytes(1, 100)).unwrap();
    fails(hub.to_remove(own.to_str().unwrap()), &["own.gguf", "nothing else is removed"]);
    fails(hub.to_remove(folder.path().to_str().unwrap()), &["nothing else is removed"]);
    for name in ["u/r", "/none/m.gguf", "https://x.net/m.gguf", "qwen3:0.6b"] {
        fails(hub.to_remove(name), &[name, "host ls"]);
    }
    // A link in a snapshot that leads out of the cache goes; what it leads to stays.
    #[cfg(unix)]
    {
        let snapshot = repo_folder(folder.path(), "u/r").join("snapshots").join("1".repeat(40));
        fs::create_dir_all(&snapshot).unwrap();
        std::os::unix::fs::symlink(&own, snapshot.join("m-Q8_0.gguf")).unwrap();
        assert_eq!(hub.remove(&hub.to_remove("u/r").unwrap()).unwrap(), 0);
        assert!(own.exists() && !snapshot.exists());
    }
}
