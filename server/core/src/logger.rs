//! One line per event on the standard error stream: when, how bad, what.

use std::io::Write;

use artifact::text::printable;
use log::{Log, Metadata, Record};

use crate::domain::time::Timestamp;

/// Characters of one line: what strangers send is part of some.
const LINE_CHARS: usize = 2048;

/// The server, its program, and what tests put around it.
const CRATES: [&str; 3] = ["rust_ota_server", "server_core", "testserver"];

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        CRATES.iter().any(|name| metadata.target().starts_with(name))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = line(Timestamp::now(), record.level(), &record.args().to_string());
            // There is nowhere to report that there is nowhere to report to.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(now: Timestamp, level: log::Level, text: &str) -> String {
    let text = printable(text);
    let end = text.char_indices().nth(LINE_CHARS).map_or(text.len(), |(end, _)| end);
    format!("{now} {level:5} {}\n", &text[..end])
}

/// Logs what this server does to the standard error stream, if nothing else takes the program's log yet.
pub fn log_to_stderr(level: log::LevelFilter) {
    static LOGGER: Logger = Logger;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::domain::time::Timestamp;

    #[test]
    fn a_line_has_its_time_and_nothing_in_it_makes_another_line() {
        let text = line(Timestamp(0), log::Level::Info, "device \u{1b}[2J\n1970 ERROR forged");
        assert_eq!(text, "1970-01-01T00:00:00.000Z INFO  device \\u{1b}[2J\\n1970 ERROR forged\n");
        assert!(line(Timestamp(0), log::Level::Info, &"\u{1b}".repeat(5000)).len() < 2100);
    }
}
