//! Hubs and storages that are wrong: each pull ends, with one sentence.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use herald_hub::{Hub, Patience, Settings};

use crate::{bytes, fails, hub, names, on, plan, pull, repo_folder, settings};
use herald_testing::hub::{FakeHub, sha256};

/// A hub with one model of so many bytes.
fn with_model(len: usize) -> (FakeHub, tempfile::TempDir, Hub) {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    fake.repo("u/r", &[("m-Q8_0.gguf", &bytes(1, len))]);
    let hub = hub(&fake, folder.path());
    (fake, folder, hub)
}

fn blobs(folder: &tempfile::TempDir) -> Vec<String> {
    names(&repo_folder(folder.path(), "u/r").join("blobs"))
}

#[test]
fn what_is_not_there_is_told() {
    let (fake, _folder, hub) = with_model(5000);
    fails(pull(&hub, "u/none"), &["no repository u/none", "private"]);
    fails(pull(&hub, "u/r:Q4_0"), &["u/r has no Q4_0", "Q8_0 (5000 bytes)"]);
    fails(pull(&hub, "hf.co/u/r/tree/dev"), &["no revision dev"]);
    fails(pull(&hub, "hf.co/u/r/blob/main/x.gguf"), &["no model x.gguf", "Q8_0"]);
    fake.repo("u/safetensors", &[("model.safetensors", b"x"), ("mmproj.gguf", b"GGUF")]);
    fails(pull(&hub, "u/safetensors"), &["no model as a GGUF file", "-GGUF"]);
    let plan = plan(&hub, "u/r").unwrap();
    fake.repo("u/r", &[]);
    fails(hub.fetch(&plan, &mut on), &["u/r has no file m-Q8_0.gguf"]);
    let gone = Settings { endpoint: "http://127.0.0.1:9".to_owned(), ..hub.settings().clone() };
    fails(pull(&Hub::new(gone), "u/r"), &["127.0.0.1:9", "can't be reached", "attempts"]);
}

#[test]
fn a_wrong_digest_leaves_nothing() {
    let (fake, folder, hub) = with_model(600_000);
    fake.faults(|faults| faults.flipped = Some(300_000));
    fails(pull(&hub, "u/r"), &["m-Q8_0.gguf", "SHA-256", &sha256(&bytes(1, 600_000))]);
    assert!(blobs(&folder).is_empty(), "{:?}", blobs(&folder));
    fake.faults(|faults| faults.flipped = None);
    assert!(pull(&hub, "u/r").unwrap().fetched);
}

#[test]
fn wrong_sizes_are_refused() {
    let (fake, folder, hub) = with_model(5000);
    fake.faults(|faults| faults.listed_more = 1);
    fails(pull(&hub, "u/r"), &["5000 bytes", "5001"]);
    fake.faults(|faults| (faults.listed_more, faults.sent_more) = (0, 1000));
    fails(pull(&hub, "u/r"), &["more than its 5000 bytes"]);
    assert!(blobs(&folder).is_empty());
    // It never ends, and is cut at what was promised.
    fake.faults(|faults| faults.sent_more = 20 << 20);
    fails(pull(&hub, "u/r"), &["more than its 5000 bytes"]);
    fake.faults(|faults| (faults.sent_more, faults.cut_after) = (0, Some(500)));
    fails(pull(&hub, "u/r"), &["connection", "3500", "attempts in a row failed"]);
}

#[test]
fn what_is_no_model_is_not_kept() {
    let (fake, folder, hub) = with_model(5000);
    let plan = plan(&hub, "u/r").unwrap();
    let mut page = b"<!DOCTYPE html>".to_vec();
    page.resize(5000, b' ');
    fake.state().plain.insert(sha256(&bytes(1, 5000)), Arc::new(page));
    fails(hub.fetch(&plan, &mut on), &["m-Q8_0.gguf", "GGUF"]);
    assert!(blobs(&folder).is_empty());
}

#[test]
fn a_busy_hub_is_asked_again_and_not_for_ever() {
    let (fake, _folder, hub) = with_model(5000);
    let busy = |status: u16, headers: &str| (status, headers.to_owned(), "busy".to_owned());
    fake.faults(|faults| {
        faults.first = [busy(429, "Retry-After: 0\r\n"), busy(503, ""), busy(500, "")].into()
    });
    assert!(pull(&hub, "u/r").unwrap().fetched);
    fake.faults(|faults| faults.first = [busy(429, "Retry-After: 3600\r\n")].into());
    fails(pull(&hub, "u/r"), &["429", "3600 s"]);
    fake.faults(|faults| faults.first = vec![busy(503, ""); 20].into());
    fails(pull(&hub, "u/r"), &["503", "4 attempts in a row failed"]);
    fake.faults(|faults| faults.first = [busy(418, "")].into());
    fails(pull(&hub, "u/r"), &["418"]);
}

/// The storage's addresses are good for a while only.
#[test]
fn an_address_that_has_expired_is_asked_for_anew() {
    let (fake, _folder, hub) = with_model(5000);
    fake.faults(|faults| faults.expired = 2);
    assert!(pull(&hub, "u/r").unwrap().fetched);
    assert_eq!(fake.ranges(), [None, None, None]);
    fake.repo("u/r", &[("m-Q8_0.gguf", &bytes(2, 5000))]);
    fake.state().repos.get_mut("u/r").unwrap().commit = "2".repeat(40);
    fake.faults(|faults| faults.expired = 100);
    fails(pull(&hub, "u/r"), &["storage", "403", "7 attempts"]);
}

#[test]
fn what_never_ends_ends() {
    let (fake, folder, hub) = with_model(5000);
    fake.faults(|faults| faults.in_circles = true);
    fails(pull(&hub, "u/r"), &["redirected more than 10 times"]);
    fake.faults(|faults| (faults.in_circles, faults.endless) = (false, true));
    fails(pull(&hub, "u/r"), &["more than 33554432 bytes"]);
    fake.faults(|faults| (faults.endless, faults.silent) = (false, true));
    let patience = Patience { silence: Duration::from_millis(50), retries: 1, ..hub.settings().patience };
    let hasty = Hub::new(Settings { patience, ..settings(&fake, folder.path()) });
    fails(pull(&hasty, "u/r"), &["can't be reached", "2 attempts"]);
}

#[test]
fn a_page_in_place_of_the_list_is_told_for_what_it_is() {
    let (fake, _folder, hub) = with_model(5000);
    for (body, word) in
        [("<html>Log in</html>", "a web page"), ("{\"sha\": 5}", "something else"), ("", "something else")]
    {
        let page = (200, "Content-Type: text/html\r\n".to_owned(), body.to_owned());
        fake.faults(|faults| faults.first = [page].into());
        fails(pull(&hub, "u/r"), &[word, "JSON of the hub's API", "HF_ENDPOINT"]);
    }
    let away = (302, format!("Location: {}/elsewhere\r\n", fake.storage), String::new());
    let none = (404, String::new(), String::new());
    fake.faults(|faults| faults.first = [&[away, none][..]; 4].concat().into());
    fails(pull(&hub, "u/r"), &["storage", "404"]);
    let odd = (302, "Location: file:///etc/passwd\r\n".to_owned(), String::new());
    fake.faults(|faults| faults.first = [odd].into());
    fails(pull(&hub, "u/r"), &["redirects to", "file:///etc/passwd"]);
}

#[test]
fn paths_that_leave_the_cache_are_none() {
    let (fake, folder, hub) = with_model(5000);
    let evil = bytes(3, 5000);
    fake.repo(
        "u/r",
        &[("../../../evil-Q8_0.gguf", &evil), ("a/../../evil-Q4_0.gguf", &evil), ("c:\\evil.gguf", &evil)],
    );
    fails(pull(&hub, "u/r"), &["no model as a GGUF file"]);
    fake.repo("u/r", &[("m-Q8_0.gguf", &evil)]);
    fake.state().repos.get_mut("u/r").unwrap().commit = "../../../../evil".to_owned();
    fails(pull(&hub, "u/r"), &["no commit"]);
    assert!(names(folder.path()).is_empty(), "{:?}", names(folder.path()));
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (fake, folder, _) = with_model(5000);
    fs::write(folder.path().join("file"), "").unwrap();
    let hub = Hub::new(Settings { cache: folder.path().join("file/hub"), ..settings(&fake, folder.path()) });
    fails(pull(&hub, "u/r"), &["file/hub", "can't be created"]);
}
