//! Packed weights in files: a model is packed once, and a file that isn't whole or isn't the model's is never believed.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use herald::packs::{list, remove};
use herald::{LoadOptions, NeuroEngine};
use herald_testing::{options_for, smollm2};
use tempfile::TempDir;

/// A folder for packs, and a model with a file of its own.
struct Place {
    folder: TempDir,
    model: PathBuf,
}

impl Place {
    /// `None` where no backend packs on this machine.
    fn new() -> Option<Self> {
        herald_testing::simd_plugin()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = folder.path().join("model.gguf");
        fs::copy(smollm2(), &model).expect("a copy");
        Some(Self { folder, model })
    }

    fn packs(&self) -> PathBuf {
        self.folder.path().join("packs")
    }

    /// What the model predicts after some tokens, with packs and without.
    fn logits(&self, packs: Option<PathBuf>) -> Vec<u32> {
        let options = LoadOptions { packs, ..options_for(&self.model) };
        let engine = NeuroEngine::load(&self.model, &options).unwrap_or_else(|error| panic!("{error}"));
        let mut sequence = engine.sequence().expect("a sequence");
        let logits = engine.prefill(&mut sequence, &[504, 2, 19, 2000]).expect("a pass");
        logits.iter().map(|logit| logit.to_bits()).collect()
    }

    /// The same with packs, whose one file is given.
    fn kept(&self) -> (Vec<u32>, PathBuf) {
        let logits = self.logits(Some(self.packs()));
        let found = list(&self.packs());
        assert_eq!(found.len(), 1, "{found:?}");
        (logits, found[0].path.clone())
    }
}

/// What tells that a file is still the same.
fn identity(path: &Path) -> (u64, SystemTime) {
    let facts = path.metadata().expect("the file is there");
    (facts.ino(), facts.modified().expect("a time"))
}

#[test]
fn a_model_is_packed_once() {
    let Some(place) = Place::new() else { return };
    let expected = place.logits(None);
    let (packed, pack) = place.kept();
    assert_eq!(packed, expected);
    let facts = pack.metadata().expect("the pack");
    assert_eq!(facts.permissions().mode() & 0o777, 0o600);
    // It has the weights alone, not the address space that it was made in.
    let model = place.model.metadata().expect("the model").len();
    assert!(facts.len() > model / 2 && facts.len() < model * 3 / 2, "{} bytes of {model}", facts.len());
    let before = identity(&pack);
    assert_eq!(place.kept(), (expected, pack.clone()));
    assert_eq!(identity(&pack), before, "the pack was made anew");
    let known = &list(&place.packs())[0];
    assert_eq!((&known.model, known.plugin.as_str()), (&vec![place.model.canonicalize().unwrap()], "simd"));
}

#[test]
fn several_at_once_make_one_pack() {
    let Some(place) = Place::new() else { return };
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| place.logits(Some(place.packs())))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it loads")).collect()
    });
    assert!(all.iter().all(|logits| *logits == all[0]));
    let (_, pack) = place.kept();
    let files = fs::read_dir(place.packs()).expect("the folder").flatten().map(|entry| entry.path());
    let others: Vec<PathBuf> = files
        .filter(|path| *path != pack && path.extension().is_none_or(|extension| extension != "lock"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Bytes of a pack that are damaged, each by itself: magic, version, where the index is, its checksum, data, the index.
#[test]
fn damaged_packs_are_made_anew() {
    let Some(place) = Place::new() else { return };
    let (expected, pack) = place.kept();
    let len = pack.metadata().expect("the pack").len();
    let flip = |at: u64| {
        let file = File::options().read(true).write(true).open(&pack).expect("the pack");
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("a byte");
        file.write_all_at(&[byte[0] ^ 0x10], at).expect("a byte");
        // Some as after a boot of the machine; others as by somebody else while it runs.
        if at.is_multiple_of(16) {
            file.write_all_at(b"another", 48).expect("the boot's name");
        }
    };
    for at in [0, 8, 16, 24, 32, 70_000, 70_008, len / 2, len - 2] {
        flip(at);
        let before = identity(&pack);
        assert_eq!(place.kept().0, expected, "byte {at}");
        assert_ne!(identity(&pack), before, "byte {at} went unnoticed");
    }
    for len in [0, 100, 4096, len / 2, len - 1] {
        File::options().write(true).open(&pack).and_then(|file| file.set_len(len)).expect("a shorter file");
        assert_eq!(place.kept().0, expected, "{len} bytes");
    }
    // A whole one stays, and says so for the boot that is running.
    let before = identity(&pack).0;
    File::options()
        .write(true)
        .open(&pack)
        .and_then(|file| file.write_all_at(b"another", 48))
        .expect("the boot's name");
    assert_eq!(place.kept().0, expected);
    assert_eq!(identity(&pack).0, before);
    let boot = fs::read("/proc/sys/kernel/random/boot_id").expect("Linux");
    assert_eq!(fs::read(&pack).expect("the pack")[48..84], boot[..36]);
}

#[test]
fn a_pack_is_of_one_model_and_goes_with_it() {
    let Some(place) = Place::new() else { return };
    let (expected, pack) = place.kept();
    let before = identity(&pack);
    // Another file in its place, even with the same bytes.
    let later = SystemTime::now() + Duration::from_secs(5);
    File::options().write(true).open(&place.model).and_then(|file| file.set_modified(later)).expect("a time");
    assert_eq!(place.kept(), (expected.clone(), pack.clone()));
    assert_ne!(identity(&pack), before);
    // One that others may write to could say anything.
    fs::set_permissions(&pack, fs::Permissions::from_mode(0o666)).expect("permissions");
    let before = identity(&pack);
    assert_eq!(place.kept().0, expected);
    assert_ne!(identity(&pack), before);

    let bytes = pack.metadata().expect("the pack").len();
    assert_eq!(remove(&place.packs(), |files| files.iter().any(|file| !file.exists())).expect("nothing"), 0);
    fs::remove_file(&place.model).expect("the model");
    assert_eq!(
        remove(&place.packs(), |files| files.iter().any(|file| !file.exists())).expect("the pack"),
        bytes
    );
    assert!(!pack.exists());
}

#[test]
fn without_a_folder_weights_are_packed_in_memory() {
    let Some(place) = Place::new() else { return };
    let expected = place.logits(None);
    let file = place.folder.path().join("file");
    fs::write(&file, "no folder").expect("a file");
    for packs in [file.clone(), file.join("below"), PathBuf::from("/proc/herald")] {
        assert_eq!(place.logits(Some(packs.clone())), expected, "{}", packs.display());
        assert!(list(&packs).is_empty());
    }
}

/// What is named as packs are and can't be read is of no use: it is listed, and goes when it is asked to or when another is made.
#[test]
fn what_is_no_pack_is_removed() {
    let Some(place) = Place::new() else { return };
    fs::create_dir(place.packs()).expect("a folder");
    let wrong = place.packs().join("wrong.pack");
    fs::write(&wrong, "no pack").expect("a file");
    assert!(list(&place.packs())[0].model.is_empty());
    assert_eq!(remove(&place.packs(), |_| true).expect("it goes"), 7);
    assert!(!wrong.exists());
    fs::write(&wrong, "no pack").expect("a file");
    place.kept();
    assert!(!wrong.exists());
}
