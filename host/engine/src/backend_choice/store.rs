//! Calibrations in the user's cache folder, a file each, which is written whole and then renamed.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Record;
use super::record::{FORMAT, VERSION};
use crate::files::{Readers, Unfinished};

/// Longer files are not read: no calibration is nearly as long.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The key of a file's checksum.
const CHECKSUM: &str = "sha256";

/// The calibrations of a folder.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The sound ones.
    pub records: Vec<Record>,
    /// A sentence for each file that is none.
    pub ignored: Vec<String>,
}

/// Reads the calibrations of a folder; none where there is no such folder.
#[must_use]
pub fn read(folder: &Path) -> Records {
    let mut found = Records::default();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    for path in paths {
        match read_one(&path) {
            Ok(record) => found.records.extend(record),
            Err(reason) => found.ignored.push(format!("{}: ignored, since {reason}", path.display())),
        }
    }
    found
}

/// A file's calibration; `None` where an earlier version of this program made it, whose figures count no more.
fn read_one(path: &Path) -> Result<Option<Record>, String> {
    let unread = |error: io::Error| format!("it can't be read: {error}");
    let len = path.metadata().map_err(unread)?.len();
    if len > MAX_FILE_BYTES {
        return Err(format!(
            "it has {len} bytes, where a calibration of at most {MAX_FILE_BYTES} was expected"
        ));
    }
    let text = fs::read(path).map_err(unread)?;
    let mut value: Value =
        serde_json::from_slice(&text).map_err(|error| format!("it is no JSON: {error}"))?;
    let earlier = value["version"].as_u64().is_some_and(|version| (1..u64::from(VERSION)).contains(&version));
    if value["format"] == FORMAT && earlier {
        return Ok(None);
    }
    if value["format"] != FORMAT || value["version"] != VERSION {
        return Err(format!("it is no {FORMAT} of version {VERSION}, which was expected"));
    }
    let said = value.as_object_mut().and_then(|facts| facts.remove(CHECKSUM));
    if said != Some(Value::String(checksum(&value))) {
        return Err("its checksum doesn't match: it is damaged, or of an earlier version".to_owned());
    }
    let record: Record =
        serde_json::from_value(value).map_err(|error| format!("it is no sound calibration: {error}"))?;
    match record.is_sound() {
        true => Ok(Some(record)),
        false => Err("it has speeds that can't be, where numbers above 0 were expected".to_owned()),
    }
}

/// Keeps a calibration in a folder and replaces an earlier one of the same model on the same machine. Returns its file.
///
/// # Errors
/// Where the folder can't be made or the file not be written; an earlier one then stays.
pub fn keep(record: &Record, folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.json", name(record)?));
    // As it will be read: a number may come back as its neighbour.
    let mut value: Value = serde_json::from_slice(&serde_json::to_vec(record)?)?;
    let sum = checksum(&value);
    if let Some(facts) = value.as_object_mut() {
        facts.insert(CHECKSUM.to_owned(), Value::String(sum));
    }
    let mut file = Unfinished::create(&path, Readers::Usual)?;
    file.write_all(&serde_json::to_vec_pretty(&value)?)?;
    file.write_all(b"\n")?;
    file.keep(&path)?;
    Ok(path)
}

/// Of what a calibration says, whatever the white space.
fn checksum(value: &Value) -> String {
    Sha256::digest(value.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A name that is the same for the same machine and model.
fn name(record: &Record) -> io::Result<String> {
    let of = serde_json::to_vec(&(&record.machine, &record.model))?;
    Ok(Sha256::digest(&of).iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::shapes;
    use super::*;
    use crate::backend_choice::{Machine, Measured, PluginId, Speeds};

    fn record(prefill: f64) -> Record {
        let machine = Machine { cpu: "a CPU".to_owned(), arch: 1, features: 7, threads: 2 };
        let plugin = PluginId {
            name: "cpu".to_owned(),
            version: "1".to_owned(),
            variant: "scalar".to_owned(),
            path: "/p.so".into(),
            bytes: 10,
            modified: u64::MAX,
        };
        let speeds = Some(Speeds { prefill, decode: 10.5, prompt_tokens: 128, spread: [0.1, 0.0] });
        Record::new(machine, shapes("llama", "F32", 1000), vec![Measured { plugin, speeds, refused: None }])
    }

    #[test]
    fn what_is_kept_is_read_and_a_later_one_takes_its_place() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("herald/calibrations");
        assert!(read(&folder).records.is_empty());
        let path = keep(&record(100.0), &folder).unwrap();
        assert_eq!(read(&folder).records, [record(100.0)]);
        assert_eq!(keep(&record(200.0), &folder).unwrap(), path);
        assert_eq!(read(&folder).records, [record(200.0)]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left there");
    }

    #[test]
    fn damaged_and_foreign_files_are_ignored_with_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let sum_of = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            let sum = checksum(&value);
            value[CHECKSUM] = sum.into();
            value.to_string()
        };
        let plain = serde_json::to_string(&record(100.0)).unwrap();
        let sound = sum_of(&plain);
        let wrong = sum_of(&plain.replace("100.0", "-1.0"));
        let changed = sound.replace("100.0", "101.0");
        let version = |version: u32| {
            sound.replace(&format!("\"version\":{VERSION}"), &format!("\"version\":{version}"))
        };
        let later = version(VERSION + 1);
        let more = sum_of(&plain.replace("\"threads\"", "\"cores\""));
        let long = format!("{sound}{}", " ".repeat(MAX_FILE_BYTES as usize));
        let no_record = format!("no herald-calibration of version {VERSION}");
        let cases = [
            ("a", &sound[..sound.len() / 2], "no JSON"),
            ("b", "[1, 2]", &no_record),
            ("c", "{\"format\": \"herald-calibration\"}", &no_record),
            ("d", &later, &no_record),
            ("e", &more, "no sound calibration"),
            ("f", &wrong, "speeds that can't be"),
            ("g", &long, "at most 1048576"),
            ("h", "", "no JSON"),
            ("j", &changed, "checksum doesn't match"),
            ("k", &plain, "checksum doesn't match"),
        ];
        for (name, text, _) in &cases {
            fs::write(folder.path().join(format!("{name}.json")), text).unwrap();
        }
        fs::write(folder.path().join("i.txt"), "no concern of ours").unwrap();
        // An earlier version's is no mistake of anybody's.
        let earlier = version(VERSION - 1).replace(",\"refused\":null", "");
        fs::write(folder.path().join("z.json"), earlier).unwrap();
        keep(&record(100.0), folder.path()).unwrap();
        let found = read(folder.path());
        assert_eq!(found.records.len(), 1);
        assert_eq!(found.ignored.len(), cases.len(), "{:?}", found.ignored);
        for ((name, _, words), said) in cases.iter().zip(&found.ignored) {
            assert!(said.contains(&format!("{name}.json: ignored")) && said.contains(words), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }
}
