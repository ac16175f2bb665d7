//! Pulls that succeed.

use std::fs;
use std::ops::ControlFlow;
use std::sync::{Arc, Barrier};
use std::thread;

use herald_hub::{Event, Hub, Proxies, Settings, Source, Wanted};
use serde_json::json;

use crate::{bytes, fails, hub, model, names, on, plan, pull, repo_folder, settings, with_token};
use herald_testing::hub::{FakeHub, Host, TOKEN, proxy, sha256};

#[test]
fn a_model_lands_in_the_shared_cache_and_is_found_there() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let content = bytes(1, 300_000);
    fake.repo(
        "u/r",
        &[("README.md", b"text"), ("m-Q4_K_M.gguf", &content), ("mmproj-F16.gguf", &bytes(2, 99))],
    );
    let hub = with_token(&fake, folder.path(), TOKEN);
    let plan = plan(&hub, "u/r").unwrap();
    assert_eq!(
        (plan.licence.as_deref(), plan.offer.bytes(), plan.gated),
        (Some("apache-2.0"), 300_000, false)
    );
    assert!(hub.find(&Source::Hub(model("u/r")), 0).is_none());
    let fetched = hub.fetch(&plan, &mut on).unwrap();
    assert!(fetched.fetched && fs::read(&fetched.path).unwrap() == content);
    let (repo, commit) = (repo_folder(folder.path(), "u/r"), "1".repeat(40));
    assert_eq!(names(&repo.join("blobs")), [sha256(&content)]);
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), commit);
    assert_eq!(fetched.path, repo.join("snapshots").join(&commit).join("m-Q4_K_M.gguf"));
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(&fetched.path).unwrap(),
        std::path::Path::new("../../blobs").join(sha256(&content))
    );
    // The token goes to the hub, and to nobody else.
    let asked = fake.asked();
    assert!(asked.iter().any(|asked| asked.host == Host::Storage));
    for asked in asked {
        assert_eq!(asked.header("authorization").is_some(), asked.host == Host::Hub, "{asked:?}");
    }
    // The second time, only the list is asked for.
    let again = pull(&hub, "hf.co/u/r:q4_k_m").unwrap();
    assert_eq!((again.fetched, &again.path, again.bytes), (false, &fetched.path, 300_000));
    assert!(fake.asked().iter().all(|asked| asked.path.starts_with("/api/")));
    for name in ["u/r", "u/r:Q4_K_M", "u/r:m-q4_k_m.gguf", "https://hf.co/u/r/blob/main/m-Q4_K_M.gguf"] {
        assert_eq!(hub.find(&Source::Hub(model(name)), 0).as_ref(), Some(&fetched.path), "{name}");
    }
    for name in ["u/r:Q8_0", "u/other", "https://hf.co/u/r/blob/main/x.gguf"] {
        assert_eq!(hub.find(&Source::Hub(model(name)), 0), None, "{name}");
    }
    let offline = Hub::new(Settings { offline: true, ..settings(&fake, folder.path()) });
    assert_eq!(offline.find(&Source::Hub(model("u/r")), 0), Some(fetched.path));
    fails(pull(&offline, "u/r"), &["u/r", "offline"]);
    assert!(fake.asked().is_empty());
}

#[test]
fn all_parts_of_a_split_model_come_and_files_in_folders_too() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let (first, second, other) = (bytes(1, 1000), bytes(2, 2000), bytes(3, 500));
    fake.repo(
        "u/r",
        &[
            ("big dir/m-Q8_0-00002-of-00002.gguf", &second),
            ("big dir/m-Q8_0-00001-of-00002.gguf", &first),
            ("m-Q2_K.gguf", &other),
        ],
    );
    let hub = hub(&fake, folder.path());
    let fetched = pull(&hub, "u/r:q8_0").unwrap();
    assert_eq!((fetched.bytes, fs::read(&fetched.path).unwrap()), (3000, first));
    let beside = fetched.path.with_file_name("m-Q8_0-00002-of-00002.gguf");
    assert_eq!(fs::read(beside).unwrap(), second);
    // The machine has RAM for the small one only.
    let small = hub.plan(&model("u/r"), 1000, &mut on).unwrap();
    assert_eq!(small.offer.path(), "m-Q2_K.gguf");
    let path = "https://huggingface.co/u/r/blob/main/m-Q2_K.gguf";
    assert_eq!(model(path).wanted, Wanted::Path("m-Q2_K.gguf".to_owned()));
    assert_eq!(fs::read(pull(&hub, path).unwrap().path).unwrap(), other);
}

#[test]
fn a_cut_at_every_megabyte_is_gone_on_from() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let content = bytes(1, (5 << 20) + 123);
    fake.repo("u/r", &[("m.gguf", &content)]);
    fake.faults(|faults| faults.cut_after = Some(1 << 20));
    let mut again = 0;
    let hub = hub(&fake, folder.path());
    let plan = plan(&hub, "u/r").unwrap();
    let fetched = hub.fetch(&plan, &mut |event| {
        again += u32::from(matches!(event, Event::Again { .. }));
        ControlFlow::Continue(())
    });
    assert!(fs::read(fetched.unwrap().path).unwrap() == content);
    let ranges: Vec<Option<String>> = fake.ranges();
    let expected = (0..=5).map(|mb| (mb > 0).then(|| format!("bytes={}-", mb << 20)));
    assert_eq!((ranges, again), (expected.collect(), 5));
}

#[test]
fn another_process_goes_on_from_what_one_left() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let content = bytes(1, 1_000_000);
    fake.repo("u/r", &[("m.gguf", &content)]);
    let hub = hub(&fake, folder.path());
    let plan = plan(&hub, "u/r").unwrap();
    let stopped = hub.fetch(&plan, &mut |event| match event {
        Event::Bytes(at) if at > 500_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    assert!(matches!(stopped, Err(herald_hub::Error::Interrupted)));
    let blobs = repo_folder(folder.path(), "u/r").join("blobs");
    let partial = blobs.join(format!("{}.incomplete", sha256(&content)));
    let there = fs::read(&partial).unwrap();
    assert!(there.len() > 500_000 && content.starts_with(&there));
    drop(fake.asked());
    assert!(fs::read(pull(&hub, "u/r").unwrap().path).unwrap() == content);
    assert_eq!(fake.ranges(), [Some(format!("bytes={}-", there.len()))]);
    // What was left is something else: it shows in the digest, and all of it comes again.
    fs::remove_dir_all(repo_folder(folder.path(), "u/r")).unwrap();
    fs::create_dir_all(&blobs).unwrap();
    fs::write(&partial, bytes(9, 700_000)).unwrap();
    assert!(fs::read(pull(&hub, "u/r").unwrap().path).unwrap() == content);
    assert_eq!(fake.ranges(), [Some("bytes=700000-".to_owned()), None]);
    // A server that knows no ranges, and one that has nothing beyond.
    for left in [content[..400_000].to_vec(), [content.as_slice(), b"x"].concat()] {
        fs::remove_dir_all(repo_folder(folder.path(), "u/r")).unwrap();
        fs::create_dir_all(&blobs).unwrap();
        fs::write(&partial, left).unwrap();
        fake.faults(|faults| faults.no_ranges = true);
        assert!(fs::read(pull(&hub, "u/r").unwrap().path).unwrap() == content);
    }
    assert_eq!(names(&blobs), [sha256(&content)]);
}

#[test]
fn two_pulls_at_once_fetch_it_once() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let content = bytes(1, 3 << 20);
    fake.repo("u/r", &[("m.gguf", &content)]);
    let barrier = Arc::new(Barrier::new(4));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (hub, barrier) = (hub(&fake, folder.path()), Arc::clone(&barrier));
            thread::spawn(move || {
                let plan = plan(&hub, "u/r").unwrap();
                barrier.wait();
                hub.fetch(&plan, &mut on).unwrap().path
            })
        })
        .collect();
    for thread in threads {
        assert!(fs::read(thread.join().unwrap()).unwrap() == content);
    }
    assert_eq!(fake.ranges(), [None]);
    assert_eq!(names(&repo_folder(folder.path(), "u/r").join("blobs")), [sha256(&content)]);
}

#[test]
fn gated_models_come_with_the_right_token() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fake.repo("u/r", &[("m.gguf", &bytes(1, 5000))]);
    fake.state().repos.get_mut("u/r").unwrap().gated = true;
    fake.state().repos.get_mut("u/r").unwrap().card =
        json!({"license": "other", "license_name": "own", "license_link": "https://x"});
    let stranger = hub(&fake, folder.path());
    let plan = plan(&stranger, "u/r").unwrap();
    assert_eq!(
        (plan.gated, plan.licence.as_deref(), plan.licence_link.as_deref()),
        (true, Some("own"), Some("https://x"))
    );
    fails(stranger.fetch(&plan, &mut on), &["u/r is gated", "accept its terms at", "HF_TOKEN"]);
    fails(pull(&with_token(&fake, folder.path(), "hf_wrong"), "u/r"), &["refuses the token", "HF_TOKEN"]);
    assert!(pull(&with_token(&fake, folder.path(), TOKEN), "u/r").unwrap().fetched);
}

#[test]
fn a_renamed_repository_is_followed() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fake.repo("u/new", &[("m.gguf", &bytes(1, 5000))]);
    let repo = fake.state().repos["u/new"].clone();
    fake.state().repos.insert("u/old".to_owned(), repo);
    fake.faults(|faults| {
        faults.renamed.insert("u/old".to_owned(), "u/new".to_owned());
    });
    let fetched = pull(&with_token(&fake, folder.path(), TOKEN), "u/old").unwrap();
    assert_eq!(fs::read(fetched.path).unwrap(), bytes(1, 5000));
    assert!(
        fake.asked()
            .iter()
            .any(|asked| asked.path.starts_with("/u/new/") && asked.header("authorization").is_some())
    );
}

#[test]
fn proxies_are_gone_through_where_they_are_wanted() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fake.repo("u/r", &[("m.gguf", &bytes(1, 5000))]);
    let (address, seen) = proxy();
    let through = |without: Vec<String>| {
        let proxies = Proxies { http: Some(address.clone()), https: None, without };
        Hub::new(Settings { proxies, ..settings(&fake, folder.path()) })
    };
    assert!(pull(&through(vec!["127.0.0.1".to_owned()]), "u/r").unwrap().fetched);
    assert!(seen.lock().unwrap().is_empty());
    fs::remove_dir_all(repo_folder(folder.path(), "u/r")).unwrap();
    assert!(pull(&through(Vec::new()), "u/r").unwrap().fetched);
    let seen = seen.lock().unwrap().clone();
    for host in [&fake.address, &fake.storage] {
        let line = format!("CONNECT {}", host.trim_start_matches("http://"));
        assert!(seen.contains(&line), "{seen:?}");
    }
}

/// The bytes of a real model, where it is on this machine.
#[test]
fn a_real_models_bytes_come_as_they_are() {
    let base = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from);
    let base = base.or_else(|| Some(std::env::home_dir()?.join(".cache")));
    let real = base.map(|base| base.join("herald/models/smollm2-135m-instruct.gguf"));
    let Some(content) = real.and_then(|real| fs::read(real).ok()) else { return };
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fake.repo("u/SmolLM2-GGUF", &[("SmolLM2-135M-Instruct.Q4_1.gguf", &content)]);
    fake.faults(|faults| faults.cut_after = Some(40 << 20));
    let fetched = pull(&hub(&fake, folder.path()), "u/SmolLM2-GGUF").unwrap();
    assert!(fs::read(&fetched.path).unwrap() == content);
    assert!(herald::gguf::Gguf::open(&fetched.path).is_ok());
}
