//! Today's date, which some templates tell the model.

use std::fmt::Write;

use jiff::fmt::StdFmtWrite;
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// Bytes of a formatted time; no template needs more, and a format may ask for any width.
const MAX_LENGTH: usize = 512;

/// The local time by a format of C's and Python's `strftime`.
pub(super) fn strftime_now(format: &str) -> Result<String, String> {
    strftime(format, Timestamp::now())
}

fn strftime(format: &str, time: Timestamp) -> Result<String, String> {
    let failed = |why: &str| {
        let begin: String = format.chars().take(60).collect();
        format!("strftime_now({begin:?}) {why}")
    };
    if format.contains('\0') {
        return Err(failed("has a NUL in its format"));
    }
    let local: Zoned = time.to_zoned(TimeZone::system());
    let mut written = Bounded(String::new());
    // The names of days and months, and the order of a date's parts, are those of C's own locale.
    let config = Config::new().custom(PosixCustom::new());
    let formatted =
        BrokenDownTime::from(&local).format_with_config(&config, format, &mut StdFmtWrite(&mut written));
    match formatted {
        Ok(()) => Ok(written.0),
        Err(_) if written.0.len() >= MAX_LENGTH => {
            Err(failed("gives too long a text, expected under 512 bytes"))
        }
        Err(error) => Err(failed(&format!("can't be formatted: {error}"))),
    }
}

/// A text that takes no more than it may hold.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.push_str(text);
        if self.0.len() < MAX_LENGTH { Ok(()) } else { Err(std::fmt::Error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_as_c_does() {
        // 15 July 2024, 12:00 UTC: the same day in nearly all time zones, the same month in all.
        let time = Timestamp::from_second(1_721_044_800).unwrap();
        assert_eq!(strftime("%b %Y, %m %B é%%", time).unwrap(), "Jul 2024, 07 July é%");
        assert_eq!(strftime("%c", time).unwrap().get(..7), Some("Mon Jul"));
        assert_eq!(strftime("", time).unwrap(), "");
        assert_eq!(strftime_now("%Y").unwrap().len(), 4);
    }

    #[test]
    fn refuses_what_cannot_be_formatted() {
        let refused = |format: &str| strftime(format, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(refused("%999999999d").contains("can't be formatted"), "{}", refused("%999999999d"));
        assert!(refused("a\0b").contains("has a NUL"));
        assert!(refused(&"x".repeat(1000)).contains("too long"));
        assert!(refused(&"%20d".repeat(30)).contains("too long"));
    }
}
