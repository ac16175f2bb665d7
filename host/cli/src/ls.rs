//! `host ls`: the models on this machine.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;
use comfy_table::Cell;
use herald::gguf::Gguf;
use herald_hub::{Hub, Settings};
use serde_json::json;

use super::failure::Failure;
use super::{facts, output, store};

/// List the models on this machine that were pulled, by `host pull` or by the hub's other clients
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A model of the list.
struct Row {
    name: String,
    quant: Option<String>,
    bytes: u64,
    used: Option<SystemTime>,
    path: PathBuf,
    /// `None` where the file can't be read.
    gguf: Option<Gguf>,
}

impl Ls {
    pub(super) fn run(self) -> Result<(), Failure> {
        let mut rows = rows()?;
        // What was used last comes first.
        rows.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.name.cmp(&b.name)));
        if self.json {
            let models = rows.iter().map(|row| {
                let since = row.used.and_then(|used| used.duration_since(SystemTime::UNIX_EPOCH).ok());
                json!({
                    "name": row.name,
                    "quant": row.quant(),
                    "bytes": row.bytes,
                    "architecture": row.gguf.as_ref().and_then(facts::architecture),
                    "path": row.path.to_string_lossy(),
                    "used": since.map(|since| since.as_secs()),
                })
            });
            return output::json(&json!({"models": models.collect::<Vec<_>>()}));
        }
        let mut table = output::table(&["NAME", "QUANT", "SIZE", "ARCHITECTURE", "USED", "WHERE"]);
        for row in &rows {
            let architecture = match &row.gguf {
                Some(gguf) => facts::architecture(gguf).unwrap_or("-"),
                None => "damaged",
            };
            table.add_row(vec![
                Cell::new(&row.name),
                Cell::new(row.quant().unwrap_or_else(|| "-".to_owned())),
                output::number(output::bytes(row.bytes)),
                Cell::new(architecture),
                Cell::new(row.used.map_or("-".to_owned(), |used| ago(used, SystemTime::now()))),
                Cell::new(row.path.display()),
            ]);
        }
        output::print_table(&table)
    }
}

impl Row {
    /// Its quant, by its name or else by what is in it.
    fn quant(&self) -> Option<String> {
        self.quant.clone().or_else(|| self.gguf.as_ref().map(facts::quant))
    }
}

/// All models: those of packages, and those of the hub and of other addresses.
fn rows() -> Result<Vec<Row>, Failure> {
    let known = store::KNOWN.iter().filter_map(|known| {
        let path = known.there()?;
        let used = path.metadata().and_then(|facts| facts.accessed()).ok();
        Some((known.name.to_owned(), None, known.bytes, used, path))
    });
    let pulled = Hub::new(Settings::from_env()?).models().into_iter().filter_map(|model| {
        Some((model.name, model.quant, model.bytes, model.used, model.paths.into_iter().next()?))
    });
    let row = |(name, quant, bytes, used, path): (_, _, _, _, PathBuf)| {
        let gguf = Gguf::open(&path).ok();
        Row { name, quant, bytes, used, path, gguf }
    };
    Ok(known.chain(pulled).map(row).collect())
}

/// How long ago that was.
fn ago(then: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(then).map_or(0, |passed| passed.as_secs());
    let (count, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rounded_down() {
        let then = SystemTime::UNIX_EPOCH;
        for (seconds, expected) in
            [(59, "just now"), (60, "1 minute ago"), (7199, "1 hour ago"), (86_400 * 3, "3 days ago")]
        {
            assert_eq!(ago(then, then + Duration::from_secs(seconds)), expected);
        }
        assert_eq!(ago(then + Duration::from_secs(5), then), "just now");
    }
}
