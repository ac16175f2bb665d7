//! The archived tier's file: what was put comes back, whatever happens to the process or to the file in between.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use herald_api::{AlignedBytes, MemoryTier, Page, Result, Status, TierConfig, TierFactory, TierKind, abi};
use herald_layers::Tiers;
use tempfile::TempDir;

const HEADS: usize = 2;
const DIM: usize = 32;
const PAGE_TOKENS: usize = 64;

/// Tells this program that it is a child of one of its tests, and which file it is to use.
const CHILD: &str = "HERALD_TEST_ARCHIVE";

fn config(path: &Path) -> TierConfig {
    TierConfig {
        kind: TierKind::Archived,
        n_kv_heads: HEADS,
        key_dim: DIM,
        value_dim: DIM,
        page_tokens: PAGE_TOKENS,
        state_bytes: 0,
        capacity_bytes: None,
        path: Some(path.to_owned()),
        lz4: false,
    }
}

fn open(path: &Path) -> Result<Box<dyn MemoryTier>> {
    Tiers::create(&config(path))
}

/// Numbers that look random (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The keys and values of a page, which its id tells.
fn contents(id: u64) -> [AlignedBytes; 2] {
    let (keys, values) = config(Path::new("")).q4_page_bytes().expect("a small page");
    let mut random = Random(id);
    [keys, values].map(|len| {
        let mut bytes = AlignedBytes::zeroed(len).expect("memory");
        bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
        bytes
    })
}

fn put(tier: &dyn MemoryTier, id: u64) -> Result<()> {
    let [keys, values] = contents(id);
    let page = Page::new(abi::HERALD_PAGE_Q4, PAGE_TOKENS, PAGE_TOKENS, &keys, &values);
    tier.put(id, Some(&page.expect("a sound page")))
}

/// The keys and values that the tier has of a page.
fn seen(tier: &dyn MemoryTier, id: u64) -> Result<[Vec<u8>; 2]> {
    let page = tier.view(id)?;
    // SAFETY: the tier holds so many bytes there until the page is released.
    let parts = [page.keys(), page.values()]
        .map(|(bytes, len)| unsafe { std::slice::from_raw_parts(bytes, len) }.to_vec());
    tier.release(id)?;
    Ok(parts)
}

fn is_whole(tier: &dyn MemoryTier, id: u64) -> bool {
    let seen = seen(tier, id).unwrap_or_else(|error| panic!("page {id}: {error}"));
    contents(id).iter().zip(&seen).all(|(expected, seen)| **expected == **seen)
}

fn file() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pages");
    (folder, path)
}

#[test]
fn pages_are_there_when_the_file_is_opened_again() {
    let (_folder, path) = file();
    let tier = open(&path).expect("a new file");
    for id in 0..100 {
        put(&*tier, id).expect("a page");
        assert!(is_whole(&*tier, id), "while it waits or right after");
    }
    for id in (0..100).step_by(3) {
        tier.drop_page(id).expect("its page");
    }
    assert!(open(&path).is_err_and(|error| error.status() == Status::Io), "a file in use");
    drop(tier);
    let tier = open(&path).expect("the same file");
    let mut ids = tier.list().expect("ids");
    ids.sort_unstable();
    assert_eq!(ids, (0..100).filter(|id| id % 3 != 0).collect::<Vec<_>>());
    assert!(ids.iter().all(|id| is_whole(&*tier, *id)));
    let stats = tier.stats();
    assert_eq!((stats.pages, stats.tokens, stats.damaged), (66, 66 * PAGE_TOKENS as u64, 0));
}

#[test]
fn a_closed_file_is_free_while_programs_are_being_started() {
    let (_folder, path) = file();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                // Any program will do: it has copies of this one's files until it runs.
                let _ = Command::new(env::current_exe().expect("this program")).arg("--list").output();
            }
        });
        let opened = (0..300).map(|_| open(&path).map(drop)).find(Result::is_err);
        done.store(true, Relaxed);
        assert!(opened.is_none(), "{opened:?}");
    });
}

#[test]
fn the_space_of_dropped_pages_is_used_again() {
    let (_folder, path) = file();
    let tier = open(&path).expect("a new file");
    let count = 2000;
    for id in 0..count {
        put(&*tier, id).expect("a page");
    }
    tier.flush().expect("written");
    let len = || fs::metadata(&path).expect("the file").len();
    let before = len();
    for round in 1..4 {
        for id in 0..count {
            tier.drop_page((round - 1) * count + id).expect("its page");
            put(&*tier, round * count + id).expect("a page");
        }
    }
    tier.flush().expect("written");
    assert_eq!(len(), before);
    assert!((3 * count..4 * count).all(|id| is_whole(&*tier, id)));
}

#[test]
fn a_file_of_something_else_is_left_alone() {
    let (_folder, path) = file();
    fs::write(&path, "not pages").expect("a file");
    let error = open(&path).err().expect("no archive");
    assert_eq!(error.status(), Status::Corrupt);
    assert!(error.message().contains("pages"), "{error}");
    assert_eq!(fs::read(&path).expect("the file"), b"not pages");
    // Only an empty file is new: zeros are what a damaged disk leaves of a file, or somebody's room for something.
    for len in [1, 64, 4096, 4096 + (64 << 10), 5 << 20] {
        fs::write(&path, vec![0; len]).expect("a file of zeros");
        let error = open(&path).err().expect("no archive");
        assert_eq!(error.status(), Status::Corrupt);
        assert!(error.message().contains(&format!("begins with {} zeros", len.min(4096))), "{error}");
        assert!(fs::read(&path).expect("the file") == vec![0; len], "{len} zeros were written to");
    }
    fs::write(&path, "").expect("an empty file");
    drop(open(&path).expect("a new file"));
    let other = TierConfig { n_kv_heads: 1, ..config(&path) };
    let error = Tiers::create(&other).err().expect("another shape");
    assert!(error.message().contains("[2, 32, 32, 64]"), "{error}");
}

/// An archive whose header is gone still has pages.
#[test]
fn an_archive_without_its_header_is_left_alone() {
    let (_folder, path) = file();
    let tier = open(&path).expect("a new file");
    put(&*tier, 1).expect("a page");
    drop(tier);
    let mut bytes = fs::read(&path).expect("the file");
    let header = bytes[..4096].to_vec();
    bytes[..4096].fill(0);
    fs::write(&path, &bytes).expect("a damaged file");
    assert!(open(&path).is_err_and(|error| error.status() == Status::Corrupt));
    assert!(fs::read(&path).expect("the file") == bytes, "it was written to");
    bytes[..4096].copy_from_slice(&header);
    fs::write(&path, &bytes).expect("the sound file");
    assert!(is_whole(&*open(&path).expect("the same archive"), 1));
}

/// A process that ended right after it had made a file leaves an empty table and no room for pages.
#[test]
fn a_file_that_was_only_begun_is_gone_on_with() {
    let (_folder, path) = file();
    drop(open(&path).expect("a new file"));
    let sound = fs::read(&path).expect("the file");
    fs::write(&path, &sound[..4096 + (64 << 10)]).expect("its beginning");
    let tier = open(&path).expect("as good as new");
    put(&*tier, 1).expect("a page");
    drop(tier);
    assert!(is_whole(&*open(&path).expect("the same file"), 1));
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let (_folder, path) = file();
    let tier = open(&path).expect("a new file");
    let ids = 0..40;
    for id in ids.clone() {
        put(&*tier, id).expect("a page");
    }
    drop(tier);
    let sound = fs::read(&path).expect("the file");
    // What the file says and holds: the header, the first table, and each page, which is found by its contents.
    let mut used: Vec<_> = std::iter::once(0..4096 + (64 << 10)).collect();
    for id in ids.clone() {
        let [keys, values] = contents(id);
        let start = (0..sound.len()).step_by(64).find(|start| sound[*start..].starts_with(&keys));
        let start = start.expect("the page's keys");
        used.push(start..start + keys.len().next_multiple_of(64) + values.len());
    }
    let total: usize = used.iter().map(ExactSizeIterator::len).sum();
    let mut random = Random(7);
    let mut bits: Vec<(usize, u32)> =
        (0..50).map(|_| (random.below(total as u64) as usize, random.below(8) as u32)).collect();
    // Of header, link, an entry, an empty entry, a page.
    bits.extend([(9, 0), (4096 + 3, 1), (4096 + 64 + 20, 2), (4096 + 60000, 3), (4096 + (64 << 10) + 5, 4)]);
    for (mut place, bit) in bits {
        let range = used.iter().find(|range| {
            let within = place < range.len();
            place -= if within { 0 } else { range.len() };
            within
        });
        let at = range.expect("a place within").start + place;
        let mut file = OpenOptions::new().write(true).open(&path).expect("the file");
        file.seek(SeekFrom::Start(at as u64)).expect("the place");
        file.write_all(&[sound[at] ^ 1 << bit]).expect("a flip");
        drop(file);
        match open(&path) {
            Err(error) => {
                assert!(error.status() == Status::Corrupt && at < 4096, "bit {bit} of byte {at}: {error}");
                assert!(error.message().contains(path.to_str().expect("UTF-8")), "{error}");
            }
            Ok(tier) => {
                for id in tier.list().expect("ids") {
                    match seen(&*tier, id) {
                        Ok(seen) => {
                            let [keys, values] = contents(id);
                            assert!(*seen[0] == *keys && *seen[1] == *values, "byte {at} went unnoticed");
                        }
                        Err(error) => {
                            assert_eq!(error.status(), Status::Corrupt, "{error}");
                            assert!(error.message().contains(&format!("page {id} ")), "{error}");
                        }
                    }
                }
                assert_eq!(tier.stats().damaged, 1, "bit {bit} of byte {at}");
            }
        }
        fs::write(&path, &sound).expect("the sound file");
    }
}

#[test]
fn a_file_that_was_cut_is_named_or_keeps_what_is_whole() {
    let (_folder, path) = file();
    let tier = open(&path).expect("a new file");
    let ids = 0..40;
    for id in ids.clone() {
        put(&*tier, id).expect("a page");
    }
    drop(tier);
    let sound = fs::read(&path).expect("the file");
    for len in [1, 7, 4095, 4096, 5000, 4096 + (64 << 10) - 1, 4096 + (64 << 10), 128 << 10, 200_000] {
        fs::write(&path, &sound[..len]).expect("the cut file");
        match open(&path) {
            Err(error) => {
                assert_eq!(error.status(), Status::Corrupt, "{len} bytes: {error}");
                assert!(error.message().contains(path.to_str().expect("UTF-8")), "{error}");
            }
            Ok(tier) => {
                let held = tier.list().expect("ids");
                assert!(held.iter().all(|id| is_whole(&*tier, *id)), "{len} bytes");
                assert_eq!(tier.stats().damaged + held.len() as u64, ids.end, "{len} bytes");
            }
        }
    }
}

/// This program again, as a child that runs one of the tests below on a file.
fn child(test: &str, path: &Path) -> Child {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

fn path_of_child() -> Option<PathBuf> {
    env::var_os(CHILD).map(PathBuf::from)
}

#[test]
#[ignore = "a child of the test below"]
fn child_that_archives() {
    let Some(path) = path_of_child() else { return };
    let tier = open(&path).expect("the file");
    let first = tier.list().expect("ids").into_iter().max().map_or(0, |last| last + 1);
    for id in first.. {
        put(&*tier, id).expect("a page");
        if id >= 300 {
            tier.drop_page(id - 300).ok();
        }
        if id % 64 == 63 {
            tier.flush().expect("written");
            println!("flushed {id}");
        }
    }
}

#[test]
fn a_process_that_is_killed_while_it_archives_leaves_whole_pages() {
    let (_folder, path) = file();
    let mut random = Random(11);
    for kill in 0..50 {
        let mut child = child("child_that_archives", &path);
        thread::sleep(Duration::from_micros(3000 + random.below(30_000)));
        child.kill().expect("killed");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let flushed = said.lines().map_while(std::result::Result::ok);
        let flushed = flushed.filter_map(|line| line.rsplit_once("flushed ")?.1.parse::<u64>().ok()).last();
        child.wait().expect("its end");
        let tier = open(&path).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        let ids = tier.list().expect("ids");
        assert!(ids.iter().all(|id| is_whole(&*tier, *id)), "kill {kill}");
        assert_eq!(tier.stats().damaged, 0, "kill {kill}: what was half done is not there at all");
        if let Some(flushed) = flushed {
            // 64 more may have been put, and as many of the oldest dropped, before the child died.
            assert!((flushed.saturating_sub(235)..=flushed).all(|id| ids.contains(&id)), "kill {kill}");
        }
    }
    let tier = open(&path).expect("the file");
    assert!(tier.list().expect("ids").len() > 64, "the children came to nothing");
}

#[cfg(unix)]
#[test]
#[ignore = "a child of the test below"]
fn child_with_a_full_disk() {
    let Some(path) = path_of_child() else { return };
    let limit = libc::rlimit { rlim_cur: 6 << 20, rlim_max: 6 << 20 };
    // SAFETY: calls that set this process's own limit and what becomes of a signal.
    unsafe {
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
    let tier = open(&path).expect("a new file");
    let (full, error) = (0..).find_map(|id| put(&*tier, id).err().map(|error| (id, error))).expect("the end");
    assert_eq!(error.status(), Status::Io);
    let sentence = error.message();
    assert!(sentence.contains("has no room for") && !sentence.contains('\n'), "{sentence}");
    assert!(full > 500, "only {full} pages of 4 KiB in 6 MiB");
    assert!((0..full).all(|id| is_whole(&*tier, id)), "what is there stays");
    assert!(put(&*tier, full).is_err(), "it is still full");
    for id in 0..10 {
        tier.drop_page(id).expect("its page");
        put(&*tier, full + id).expect("there is room again");
    }
    tier.flush().expect("written");
    assert!((10..full + 10).all(|id| is_whole(&*tier, id)));
    println!("survived");
}

#[cfg(unix)]
#[test]
fn a_full_disk_fails_one_page_and_nothing_else() {
    let (_folder, path) = file();
    let output = child("child_with_a_full_disk", &path).wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("survived"), "{said}");
}
