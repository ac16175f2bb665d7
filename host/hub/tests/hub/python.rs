//! The cache beside huggingface_hub's own, where Python has that.

use std::fs;
use std::path::Path;
use std::process::Command;

use herald_hub::Source;

use crate::{bytes, hub, model, names, pull, repo_folder};
use herald_testing::hub::FakeHub;

const FETCH: &str =
    "import sys; from huggingface_hub import hf_hub_download; print(hf_hub_download('u/r', sys.argv[1]))";

const SCAN: &str = "
from huggingface_hub import scan_cache_dir
found = scan_cache_dir()
print(len(found.warnings), [(file.file_name, file.size_on_disk) for repo in found.repos for revision in repo.revisions
    for file in sorted(revision.files, key=lambda file: file.file_name)])";

/// Runs Python on this cache and hub. `None` where it has no huggingface_hub.
fn python(fake: &FakeHub, folder: &Path, script: &str, argument: &str, offline: bool) -> Option<String> {
    let program = std::env::var_os("HERALD_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let run = |script: &str| {
        let mut command = Command::new(&program);
        command
            .env("HF_ENDPOINT", &fake.address)
            .env("HF_HUB_CACHE", folder.join("hub"))
            .env("HF_HOME", folder);
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" }).env("HF_HUB_DISABLE_XET", "1");
        command
            .env("HF_HUB_DISABLE_TELEMETRY", "1")
            .env("NO_PROXY", "127.0.0.1")
            .args(["-c", script, argument]);
        command.output().ok()
    };
    run("import huggingface_hub").filter(|output| output.status.success())?;
    let output = run(script)?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned())
}

#[test]
fn what_either_fetched_the_other_finds() {
    let (fake, folder) = (FakeHub::start(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (bytes(1, 5000), bytes(2, 6000));
    fake.repo("u/r", &[("m-Q8_0.gguf", &ours), ("sub/m-Q4_0.gguf", &theirs)]);
    let hub = hub(&fake, folder.path());
    let fetched = pull(&hub, "u/r:Q8_0").unwrap().path;
    let Some(path) = python(&fake, folder.path(), FETCH, "m-Q8_0.gguf", true) else { return };
    assert_eq!(Path::new(&path), fetched);
    let path = python(&fake, folder.path(), FETCH, "sub/m-Q4_0.gguf", false).unwrap();
    assert_eq!(fs::read(&path).unwrap(), theirs);
    drop(fake.asked());
    assert_eq!(hub.find(&Source::Hub(model("u/r:Q4_0")), 0).as_deref(), Some(Path::new(&path)));
    assert!(!pull(&hub, "u/r:Q4_0").unwrap().fetched);
    assert_eq!(
        python(&fake, folder.path(), SCAN, "", true).unwrap(),
        "0 [('m-Q4_0.gguf', 6000), ('m-Q8_0.gguf', 5000)]"
    );
    // The same layout to the file, where each fetched the same.
    let other = tempfile::tempdir().unwrap();
    python(&fake, other.path(), FETCH, "m-Q8_0.gguf", false).unwrap();
    let alone = tempfile::tempdir().unwrap();
    pull(&crate::hub(&fake, alone.path()), "u/r:Q8_0").unwrap();
    for below in ["", "blobs", "refs", "snapshots", &format!("snapshots/{}", "1".repeat(40))] {
        let [a, b] = [&other, &alone].map(|folder| names(&repo_folder(folder.path(), "u/r").join(below)));
        assert_eq!(a, b, "{below}");
    }
}
