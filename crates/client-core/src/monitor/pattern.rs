//! What is looked for in a line: pieces of text, in their order, with anything between them.
//!
//! No regular expressions. A library for them is several times the rest of this module in the program that ships, and with
//! some a hostile line takes very long; this goes over a line once for each piece.

/// Pieces of text that are in a line one behind the other. The case counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<String>,
}

impl Pattern {
    /// Reads text with `*` between the pieces. `None` where nothing is left to look for: it would be in every line.
    pub fn parse(text: &str) -> Option<Pattern> {
        let pieces: Vec<String> =
            text.split('*').filter(|piece| !piece.is_empty()).map(str::to_owned).collect();
        (!pieces.is_empty()).then_some(Pattern { pieces })
    }

    /// Whether `line` has the pieces in it.
    pub fn is_in(&self, line: &[u8]) -> bool {
        let mut rest = line;
        self.pieces.iter().all(|piece| {
            let found = rest.windows(piece.len()).position(|part| part == piece.as_bytes());
            if let Some(at) = found {
                rest = &rest[at + piece.len()..];
            }
            found.is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_pieces_in_their_order() {
        let check = |pattern: &str, line: &str, expected| {
            assert_eq!(
                Pattern::parse(pattern).unwrap().is_in(line.as_bytes()),
                expected,
                "{pattern}: {line}"
            );
        };
        check("panic", "a panic here", true);
        check("panic", "a Panic here", false);
        check("panic*at ", "panic in task 3 at main.c", true);
        check("panic*at ", "at once: panic", false);
        check("*ab**ba*", "abba", true);
        check("ab*ba", "aba", false);
        check("[a-z]+.", "[a-z]+.", true);
        check("aab", "aaab", true);
        check("ö", "böse", true);
        check("x", "", false);
    }

    #[test]
    fn nothing_to_look_for_is_no_pattern() {
        assert_eq!(Pattern::parse(""), None);
        assert_eq!(Pattern::parse("***"), None);
    }
}
