//! Tables for people: aligned, with a head, and nothing in a cell that acts on a terminal.

use artifact::text::printable;

/// Rows under a head.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        // An empty cell would move the ones behind it in the eye of the reader, and of `awk`.
        let cell = |text: &&str| if text.is_empty() { "-".to_owned() } else { printable(text).into_owned() };
        self.rows.push(cells.iter().map(cell).collect());
    }

    pub(super) fn render(&self) -> String {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width = |at: usize| {
            self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text += line.join("  ").trim_end();
            text.push('\n');
        }
        text
    }
}

/// `3 devices: 2 accepted, 1 pending`, in the order of the first of each.
pub(super) fn counted<'a>(what: &str, kinds: impl Iterator<Item = &'a str>) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for kind in kinds {
        match counts.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, count)) => *count += 1,
            None => counts.push((kind, 1)),
        }
    }
    let all: usize = counts.iter().map(|(_, count)| count).sum();
    let each: Vec<String> =
        counts.iter().map(|(kind, count)| format!("{count} {}", printable(kind))).collect();
    let many = if all == 1 { "" } else { "s" };
    format!("{all} {what}{many}: {}\n", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Table, counted};

    #[test]
    fn a_table_is_aligned_and_a_cell_is_one_line() {
        let mut table = Table::new(&["A", "LONG", "LAST"]);
        table.row(&["für", "", "end"]);
        table.row(&["x\n\u{1b}[2J", "y", ""]);
        assert_eq!(
            table.render(),
            "A             LONG  LAST\nfür           -     end\nx\\n\\u{1b}[2J  y     -\n"
        );
    }

    #[test]
    fn counts_name_their_kinds() {
        assert_eq!(counted("device", ["b", "a", "b"].into_iter()), "3 devices: 2 b, 1 a\n");
        assert_eq!(counted("device", ["a"].into_iter()), "1 device: 1 a\n");
    }
}
