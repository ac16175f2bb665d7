//! An archive that has no room any more: the sequence that needs some fails, and others go on. In a process of its own, since
//! the limit holds for all files of one, such as that to which a test run's output may go.

#![cfg(unix)]

use std::env;
use std::process::Command;

use herald::{Capacity, LoadOptions, MemoryOptions, NeuroEngine};
use herald_testing::{cpu_options, tiny};

const PAGE: usize = 16;

#[test]
fn one_sequence_fails_and_the_others_go_on() {
    let output = Command::new(env::current_exe().expect("this test's own file"))
        .args(["--exact", "child_with_a_full_disk", "--ignored", "--nocapture"])
        .output()
        .expect("the child runs");
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    assert!(output.status.success() && said[0].contains("1 passed"), "{} {}", said[0], said[1]);
}

#[test]
#[ignore = "a child of the test above"]
fn child_with_a_full_disk() {
    let limit = libc::rlimit { rlim_cur: 256 << 10, rlim_max: libc::RLIM_INFINITY };
    // The plugin is built before files are limited.
    let options = cpu_options();
    // SAFETY: calls that set this process's own limit and what becomes of a signal.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let memory = MemoryOptions {
        active: Capacity::Tokens(PAGE),
        compressed: Capacity::Tokens(PAGE),
        selected_pages: Some(4),
        archive: Some(folder.path().to_owned()),
        ..MemoryOptions::default()
    };
    let options = LoadOptions { page_tokens: PAGE, memory, max_batch: 40, context: Some(1 << 20), ..options };
    let engine = NeuroEngine::load(&tiny("llama"), &options).expect("the model loads");
    let mut small = engine.sequence().expect("a sequence");
    engine.prefill(&mut small, &[7; 10 * PAGE]).expect("there is room for a few pages");
    assert!(engine.memory_usage().archived.pages > 0);
    let mut large = engine.sequence().expect("a sequence");
    let failure = (0..500).find_map(|_| engine.prefill(&mut large, &[9; 40]).err()).expect("a full archive");
    let sentence = failure.to_string();
    assert!(sentence.contains("has no room for") && !sentence.contains('\n'), "{sentence}");
    // What needs no more of the archive goes on, and so does what does once there is room.
    for token in 1..5 {
        engine.decode(&mut [(&mut small, token)]).expect("a token");
    }
    drop(large);
    engine.prefill(&mut small, &[8; 10 * PAGE]).expect("there is room again");
}
