//! What the server hears, and how it is stored until then. Every text has its bound when it is made, so that
//! [`ALERTS_MAX`](super::book::ALERTS_MAX) of them fit into the store.

use serde::{Deserialize, Serialize};

use crate::text::printable;

/// Longest line that is sent, in bytes.
const LINE_BYTES: usize = 200;
/// Longest description, in bytes.
const DESCRIPTION_BYTES: usize = 300;
/// Longest state in a word or two, in bytes.
const STATUS_BYTES: usize = 64;

/// How something is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// Well, or well again.
    #[default]
    #[serde(rename = "OK")]
    Ok,
    /// Not well.
    #[serde(rename = "CRITICAL")]
    Critical,
}

impl Level {
    /// The word of the server.
    pub fn name(self) -> &'static str {
        match self {
            Level::Ok => "OK",
            Level::Critical => "CRITICAL",
        }
    }
}

/// A check is in another state than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The name of the check.
    pub name: String,
    /// How it is now.
    pub level: Level,
    /// What kind of thing it is.
    pub kind: String,
    /// Which of its kind.
    pub subject: String,
    /// How that is, in a word or two.
    pub status: String,
    /// The same in a sentence.
    pub description: String,
    /// The lines of a log that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
    /// When that was seen (RFC 3339, UTC).
    pub at: String,
    /// Earlier changes of this check that were dropped, because too many waited.
    #[serde(default)]
    pub dropped: u32,
}

/// Lines of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Those before.
    pub before: Vec<Line>,
    /// The one that was looked for.
    pub line: Line,
    /// Those behind.
    pub after: Vec<Line>,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counted from where reading began, from 1.
    pub number: u64,
    /// What it says, cut and without what acts on terminals.
    pub data: String,
}

impl Line {
    /// From the bytes of a log.
    pub fn new(number: u64, bytes: &[u8]) -> Line {
        // Nothing behind this can be in the result: escapes only make text longer. A letter that is cut here is cut off below.
        let bytes = &bytes[..bytes.len().min(LINE_BYTES + 4)];
        Line { number, data: short(&String::from_utf8_lossy(bytes), LINE_BYTES) }
    }
}

/// How a check is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) status: String,
    pub(super) description: String,
    pub(super) excerpt: Option<Excerpt>,
}

impl Finding {
    pub(super) fn new(level: Level, status: &str, description: &str) -> Finding {
        Finding {
            level,
            status: short(status, STATUS_BYTES),
            description: short(description, DESCRIPTION_BYTES),
            excerpt: None,
        }
    }
}

/// `text` on one line of at most `limit` bytes.
fn short(text: &str, limit: usize) -> String {
    let mut text = printable(text).into_owned();
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_between_letters_and_acts_on_no_terminal() {
        assert_eq!(Line::new(1, b"a\x1b[31m\0b\xff").data, "a\\u{1b}[31m\\u{0}b\u{fffd}");
        let long = Line::new(2, "ä".repeat(3000).as_bytes()).data;
        assert_eq!(long, "ä".repeat(LINE_BYTES / 2));
        let escaped = Line::new(3, &[0x1b; 5000]).data;
        assert!(escaped.len() <= LINE_BYTES, "{escaped}");
    }
}
