//! Log lines: one per event, with time and level, to standard error or a file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Logger {
    file: Option<Mutex<File>>,
}

/// Starts logging.
///
/// # Errors
/// When the log file cannot be opened.
pub fn start(level: LevelFilter, file: Option<&Path>) -> io::Result<()> {
    let file = match file {
        Some(path) => Some(Mutex::new(OpenOptions::new().append(true).create(true).open(path)?)),
        None => None,
    };
    // A second start keeps the first logger.
    let _ = log::set_boxed_logger(Box::new(Logger { file }));
    log::set_max_level(level);
    Ok(())
}

/// The level of this name, as the Mender client names them.
pub fn level(name: &str) -> Option<LevelFilter> {
    match name.to_ascii_lowercase().as_str() {
        "trace" => Some(LevelFilter::Trace),
        "debug" => Some(LevelFilter::Debug),
        "info" => Some(LevelFilter::Info),
        "warning" | "warn" => Some(LevelFilter::Warn),
        "error" | "fatal" => Some(LevelFilter::Error),
        _ => None,
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries may say what worries them; their chatter is not an event of this program.
        let ours = ["rust_ota", "client_core", "linux", "bootloader_uboot", "bootloader_grub"];
        metadata.level() <= Level::Warn || ours.iter().any(|name| metadata.target().starts_with(name))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let line = format!("{} {level}: {}\n", utc(now), record.args());
        // A log that cannot be written must not stop an update.
        let _ = match &self.file {
            Some(file) => file.lock().map_or(Ok(()), |mut file| file.write_all(line.as_bytes())),
            None => io::stderr().lock().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// Seconds since 1970 as `2026-11-22T19:01:54Z`. Days to date after Howard Hinnant's `civil_from_days`.
fn utc(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // days since 1 March of year 0
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_utc_dates() {
        let check = |seconds, expected| assert_eq!(utc(seconds), expected);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_795_374_114, "2026-11-22T19:01:54Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn levels_have_the_names_that_configurations_use() {
        assert_eq!(level("Warning"), Some(LevelFilter::Warn));
        assert_eq!(level("fatal"), Some(LevelFilter::Error));
        assert_eq!(level("loud"), None);
    }
}
