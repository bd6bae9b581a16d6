//! Looks for a pattern in lines that go by, and keeps the first one that has it with those around it: as much as an alert
//! holds, however long the log is.

use std::collections::VecDeque;

use super::{Around, Excerpt, Line, Pattern};

/// A line is compared up to here, in bytes. Whoever reads lines cuts longer ones into pieces of this length.
pub const MATCHED_BYTES: usize = 4096;

/// One pass over new lines.
#[derive(Debug)]
pub struct Scan<'p> {
    pattern: &'p Pattern,
    around: Around,
    before: VecDeque<Line>,
    found: Option<Excerpt>,
}

impl<'p> Scan<'p> {
    /// No line was seen yet.
    pub fn new(pattern: &'p Pattern, around: Around) -> Scan<'p> {
        Scan { pattern, around, before: VecDeque::new(), found: None }
    }

    /// The next line, without its end.
    pub fn line(&mut self, number: u64, text: &[u8]) {
        let text = &text[..text.len().min(MATCHED_BYTES)];
        if let Some(found) = &mut self.found {
            if found.after.len() < self.around.after {
                found.after.push(Line::new(number, text));
            }
        } else if self.pattern.is_in(text) {
            let before = std::mem::take(&mut self.before).into();
            self.found = Some(Excerpt { before, line: Line::new(number, text), after: Vec::new() });
        } else if self.around.before > 0 {
            if self.before.len() == self.around.before {
                self.before.pop_front();
            }
            self.before.push_back(Line::new(number, text));
        }
    }

    /// The first line that had the pattern in it, and those around it.
    pub fn finish(self) -> Option<Excerpt> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(around: Around, lines: &[&str], expected: Option<&str>) {
        let pattern = Pattern::parse("bad").unwrap();
        let mut scan = Scan::new(&pattern, around);
        lines.iter().zip(1..).for_each(|(line, number)| scan.line(number, line.as_bytes()));
        let shown = |lines: &[Line]| {
            let one = |line: &Line| format!("{}{}", line.number, line.data);
            lines.iter().map(one).collect::<Vec<_>>().join(",")
        };
        let found = scan.finish().map(|found| {
            format!("{}|{}|{}", shown(&found.before), shown(&[found.line]), shown(&found.after))
        });
        assert_eq!(found.as_deref(), expected);
    }

    #[test]
    fn the_first_match_is_kept_with_the_lines_around_it_and_no_more() {
        let around = Around { before: 2, after: 1 };
        check(around, &["a", "b", "c", "bad", "d", "bad"], Some("2b,3c|4bad|5d"));
        check(around, &["bad", "bad"], Some("|1bad|2bad"));
        check(around, &["a", "bad"], Some("1a|2bad|"));
        check(around, &["a", "b"], None);
        check(Around { before: 0, after: 0 }, &["a", "bad", "b"], Some("|2bad|"));
    }

    #[test]
    fn what_is_behind_the_limit_of_a_line_is_not_looked_at() {
        let long = format!("{}bad", "x".repeat(MATCHED_BYTES));
        check(Around { before: 0, after: 0 }, &[&long], None);
    }
}
