//! One line per event on the standard error stream, whatever is in it.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

/// Characters of a line. Most of what is in one comes from outside.
const LINE_CHARS: usize = 2000;

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("rust_ota_server")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{:5} {}\n", record.level(), plain(&record.args().to_string()));
            // There is nowhere to report that there is nowhere to report to.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// One line that does nothing to a terminal: without what ends a line, moves a cursor, or turns the direction of text.
fn plain(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LINE_CHARS));
    for (count, character) in text.chars().enumerate() {
        if count == LINE_CHARS {
            line += "…";
            break;
        }
        let turns =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match character.is_control() || turns {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

/// Begins to log.
pub(crate) fn start(level: LevelFilter) {
    static LOGGER: Logger = Logger;
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_line_is_one_line_and_no_command_of_a_terminal() {
        for (text, line) in [
            ("GET /a 404", "GET /a 404"),
            ("GET /ä…", "GET /ä…"),
            ("a\nERROR b", "a\\nERROR b"),
            ("\u{1b}[2J\r\u{9b}1m\u{7f}\0", "\\u{1b}[2J\\r\\u{9b}1m\\u{7f}\\u{0}"),
            ("a\u{202e}b", "a\\u{202e}b"),
        ] {
            assert_eq!(plain(text), line);
        }
        assert_eq!(plain(&"x".repeat(100_000)).chars().count(), 2001);
    }
}
