//! Models in several files: found from the first, and every way in which the parts may not fit.

use std::fs;
use std::path::{Path, PathBuf};

use herald_api::DType;

use crate::gguf::{Gguf, GgufError, Writer};

/// Writes a part with one tensor, filled with the part's number.
fn write_part(path: &Path, (number, count, total): (u16, u16, i32), tensor: &str) {
    let write = || -> Result<Vec<u8>, GgufError> {
        let mut writer = Writer::new();
        writer.metadata("split.no", number)?.metadata("split.count", count)?;
        writer.metadata("split.tensors.count", total)?;
        if number == 0 {
            writer.metadata("general.architecture", "llama")?;
        }
        writer.tensor(tensor, DType::F32, &[4])?;
        let mut data = writer.begin(Vec::new())?;
        data.tensor(&[number as u8; 16])?;
        data.finish()
    };
    fs::write(path, write().expect("the part is valid")).expect("the folder can be written to");
}

fn part(folder: &tempfile::TempDir, ordinal: u16) -> PathBuf {
    folder.path().join(format!("m-{ordinal:05}-of-00003.gguf"))
}

/// A model of three parts, as it should be.
fn whole() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for number in 0..3 {
        write_part(&part(&folder, number + 1), (number, 3, 3), &format!("t{number}"));
    }
    folder
}

/// The sentence that opening gets, with the folder's path left out.
fn sentence(folder: &tempfile::TempDir, path: &Path) -> String {
    let folder = format!("{}/", folder.path().display());
    Gguf::open(path).map_or_else(|error| error.to_string().replace(&folder, ""), |_| "it opened".to_owned())
}

#[test]
fn the_first_part_finds_the_others() -> Result<(), GgufError> {
    let folder = whole();
    let gguf = Gguf::open(&part(&folder, 1))?;
    assert_eq!(gguf.metadata().require::<&str>("general.architecture")?, "llama");
    assert_eq!(
        gguf.tensors().map(|info| (info.name(), info.part())).collect::<Vec<_>>(),
        [("t0", 0), ("t1", 1), ("t2", 2)]
    );
    for number in 0..3_u8 {
        let info = gguf.tensor(&format!("t{number}")).expect("each part has its tensor");
        assert_eq!(gguf.bytes(info), [number; 16]);
        assert_eq!(*gguf.view(info), [number; 16]);
    }
    assert_eq!(gguf.paths().collect::<Vec<_>>(), [part(&folder, 1), part(&folder, 2), part(&folder, 3)]);
    let sizes: u64 = gguf.paths().map(|path| fs::metadata(path).map_or(0, |metadata| metadata.len())).sum();
    assert_eq!(gguf.file_bytes(), sizes);
    Ok(())
}

#[test]
fn another_part_names_the_first() {
    let folder = whole();
    let first = part(&folder, 1);
    let expected = format!(
        "m-00002-of-00003.gguf: this is part 2 of 3 of a split model; expected its first part, {}",
        first.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    );
    assert_eq!(sentence(&folder, &part(&folder, 2)), expected);

    let renamed = folder.path().join("second.gguf");
    fs::rename(part(&folder, 2), &renamed).expect("the file can be renamed");
    assert_eq!(
        sentence(&folder, &renamed),
        "second.gguf: this is part 2 of 3 of a split model; expected its first part, whose name ends in \
         -00001-of-00003.gguf"
    );
}

#[test]
fn a_missing_part_is_named() {
    let folder = whole();
    fs::remove_file(part(&folder, 3)).expect("the file can be removed");
    assert_eq!(
        sentence(&folder, &part(&folder, 1)),
        "m-00003-of-00003.gguf: part 3 of 3 is missing; expected it beside m-00001-of-00003.gguf"
    );
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let cases = [
        (
            2,
            (2, 3, 3),
            "t1",
            "m-00002-of-00003.gguf: metadata \"split.no\" at byte 44 is the u16 2; expected 1, as \
             the file's name says",
        ),
        (
            2,
            (1, 4, 3),
            "t1",
            "m-00002-of-00003.gguf: metadata \"split.count\" at byte 69 is the u16 4; expected 3, \
             as in part 1",
        ),
        (
            3,
            (2, 3, 3),
            "t0",
            "m-00003-of-00003.gguf: tensor \"t0\" is also in part 1; expected it in one part only",
        ),
        (
            1,
            (0, 3, 4),
            "t0",
            "m-00001-of-00003.gguf: metadata \"split.tensors.count\" at byte 102 is the i32 4; \
             expected 3, as many as the 3 parts hold",
        ),
        (
            1,
            (0, 3, -1),
            "t0",
            "m-00001-of-00003.gguf: metadata \"split.tensors.count\" at byte 102 is the i32 -1; \
             expected an integer from 0 to 18446744073709551615",
        ),
    ];
    for (ordinal, numbers, tensor, expected) in cases {
        let folder = whole();
        write_part(&part(&folder, ordinal), numbers, tensor);
        assert_eq!(sentence(&folder, &part(&folder, 1)), expected);
    }
}

#[test]
fn a_damaged_or_misnamed_part_is_named() {
    let folder = whole();
    fs::write(part(&folder, 2), "GGUX and more").expect("the file can be written");
    assert_eq!(
        sentence(&folder, &part(&folder, 1)),
        r#"m-00002-of-00003.gguf: the magic number at byte 0 is "GGUX"; expected "GGUF""#
    );
    let renamed = folder.path().join("model.gguf");
    fs::rename(part(&folder, 1), &renamed).expect("the file can be renamed");
    assert_eq!(
        sentence(&folder, &renamed),
        "model.gguf: part 1 of 3 is misnamed; expected a name that ends in -00001-of-00003.gguf"
    );
}

#[test]
fn a_part_in_memory_is_refused() {
    let folder = whole();
    let bytes = fs::read(part(&folder, 1)).expect("the file can be read");
    assert_eq!(
        Gguf::from_bytes(&bytes).map(drop).map_err(|error| error.to_string()),
        Err("metadata \"split.count\" at byte 69 is the u16 3; expected a whole model, since bytes in memory have no \
             other parts beside them"
            .to_owned())
    );
}

#[test]
fn what_is_no_file_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let absent = folder.path().join("absent.gguf");
    assert_eq!(
        sentence(&folder, &absent),
        "absent.gguf cannot be opened: No such file or directory (os error 2)"
    );
    let message = Gguf::open(folder.path()).map_or_else(|error| error.to_string(), |_| String::new());
    assert_eq!(message, format!("{} cannot be opened: it is not a regular file", folder.path().display()));
    let empty = folder.path().join("empty.gguf");
    fs::write(&empty, "").expect("the file can be written");
    assert_eq!(
        sentence(&folder, &empty),
        "empty.gguf: it is empty, where a GGUF file was expected: download it again, from the link to the file itself"
    );
}
