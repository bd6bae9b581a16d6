//! Text from outside made fit for a terminal and for a line of a log.
//!
//! Server answers, artifacts, scripts, modules and file names may hold anything. Whatever shows them goes through here:
//! nothing then moves the cursor, begins another line, or turns the order of what follows. It neither shortens nor
//! removes: what was there can still be read.

use std::borrow::Cow;

/// `text` on one line, with escapes such as `\n` or `\u{1b}` in place of whatever is not to be printed.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, acts_on_terminals, |c, shown| shown.extend(c.escape_default()))
}

/// The same for text of several lines, which keeps its line ends. For lines that were put together from printable parts.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c != '\n' && acts_on_terminals(c), |c, shown| shown.extend(c.escape_default()))
}

/// A JSON document with the same meaning, in which strings spell what is not to be printed as `\u001b`.
pub fn printable_json(document: &str) -> Cow<'_, str> {
    escaped(document, acts_on_terminals, |c, shown| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            shown.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn escaped(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    escape: impl Fn(char, &mut String),
) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            escape(c, &mut shown);
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

/// Whether `c` does something to a terminal or to the text around it in place of being a sign to read. Joiners are
/// not among them: several scripts are not written without them.
fn acts_on_terminals(c: char) -> bool {
    match c {
        // Marks, embeddings, overrides and isolates of the direction: what follows looks as if it were elsewhere.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        // Separators of lines and paragraphs, which some viewers obey.
        '\u{2028}' | '\u{2029}' => true,
        // Invisible: two names that look the same are not.
        '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}' => true,
        // C0, DEL and C1: U+009B alone begins an escape sequence.
        _ => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_acts_on_a_terminal_is_spelt_out() {
        let check = |text: &str, expected: &str| assert_eq!(printable(text), expected);
        check("\x1b[2J\x1b]0;x\x07", "\\u{1b}[2J\\u{1b}]0;x\\u{7}");
        check("a\r\nb\tc", "a\\r\\nb\\tc");
        check("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}");
        check("gpj.\u{202e}exe\u{2066}\u{200f}", "gpj.\\u{202e}exe\\u{2066}\\u{200f}");
        check("a\u{2028}b\u{feff}\u{e0041}", "a\\u{2028}b\\u{feff}\\u{e0041}");
    }

    #[test]
    fn what_people_write_stays_as_it_is_and_costs_nothing() {
        for text in ["", "release-2 \"x\" C:\\n", "für Größe", "می\u{200c}خواهم", "👩\u{200d}🔧", "日本"]
        {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn lines_of_ours_stay_lines() {
        assert_eq!(printable_lines("a\nb\x1bc\r\n"), "a\nb\\u{1b}c\\r\n");
    }

    #[test]
    fn json_means_the_same_as_before() {
        let value = serde_json::json!({ "a\u{7f}": "\u{9b}\u{202e}\u{e0041}\n\\u \u{1b}" });
        let shown = printable_json(&value.to_string()).into_owned();
        assert!(!shown.contains(acts_on_terminals), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
