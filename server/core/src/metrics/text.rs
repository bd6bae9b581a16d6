//! The text format of Prometheus, version 0.0.4: a family with its help and its type, then its series.

use std::fmt::Write;

/// What every name begins with.
const PREFIX: &str = "rust_ota_server_";

/// A text that grows.
#[derive(Debug, Default)]
pub(crate) struct Text {
    text: String,
    /// The family that is being written, with what its kind has behind its name.
    name: String,
}

impl Text {
    /// What follows is of this family. The name of a counter gets its `_total`.
    pub(crate) fn family(&mut self, name: &str, kind: &'static str, help: &str) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        self.of_name(format!("{PREFIX}{name}{suffix}"), kind, help);
    }

    /// As [`Text::family`], with a name that other programs have as well.
    pub(crate) fn common_family(&mut self, name: &str, kind: &'static str, help: &str) {
        self.of_name(name.to_owned(), kind, help);
    }

    fn of_name(&mut self, name: String, kind: &str, help: &str) {
        // Writing to a text does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        self.name = name;
    }

    /// One series of the family.
    pub(crate) fn number(&mut self, labels: &[(&str, &str)], value: u64) {
        self.series("", labels, None);
        let _ = writeln!(self.text, " {value}");
    }

    /// One series of the family, with a value that is not whole.
    pub(crate) fn fraction(&mut self, labels: &[(&str, &str)], value: f64) {
        self.series("", labels, None);
        let _ = writeln!(self.text, " {}", shown(value));
    }

    /// The series of a histogram: upper bounds with how many values there were up to each, how many in all, and their sum.
    pub(crate) fn histogram(&mut self, labels: &[(&str, &str)], up_to: &[(f64, u64)], count: u64, sum: f64) {
        for (bound, count) in up_to {
            self.series("_bucket", labels, Some(&shown(*bound)));
            let _ = writeln!(self.text, " {count}");
        }
        self.series("_bucket", labels, Some("+Inf"));
        let _ = writeln!(self.text, " {count}");
        self.series("_sum", labels, None);
        let _ = writeln!(self.text, " {}", shown(sum));
        self.series("_count", labels, None);
        let _ = writeln!(self.text, " {count}");
    }

    fn series(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        let bound = bound.map(|bound| ("le", bound));
        let mut before = '{';
        for (name, value) in labels.iter().copied().chain(bound) {
            let _ = write!(self.text, "{before}{name}=\"");
            for char in value.chars() {
                match char {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
    }

    /// All of it.
    pub(crate) fn finish(self) -> String {
        self.text
    }
}

/// Sums of many small numbers have digits that mean nothing: nine are left.
fn shown(value: f64) -> String {
    let text = format!("{value:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_written_as_it_is_read() {
        let mut text = Text::default();
        text.family("devices", "gauge", "Devices.");
        text.number(&[("status", "a\"b\\c\nd"), ("x", "")], 7);
        text.number(&[], 0);
        text.family("polls", "counter", "Polls.");
        text.fraction(&[], 0.1 + 0.2);
        text.common_family("process_open_fds", "gauge", "Files.");
        text.number(&[], 3);
        text.family("seconds", "histogram", "Times.");
        text.histogram(&[("class", "a")], &[(0.5, 1), (1.0, 2)], 3, 12.5);
        assert_eq!(
            text.finish(),
            "# HELP rust_ota_server_devices Devices.\n# TYPE rust_ota_server_devices gauge\n\
             rust_ota_server_devices{status=\"a\\\"b\\\\c\\nd\",x=\"\"} 7\n\
             rust_ota_server_devices 0\n\
             # HELP rust_ota_server_polls_total Polls.\n# TYPE rust_ota_server_polls_total counter\n\
             rust_ota_server_polls_total 0.3\n\
             # HELP process_open_fds Files.\n# TYPE process_open_fds gauge\nprocess_open_fds 3\n\
             # HELP rust_ota_server_seconds Times.\n# TYPE rust_ota_server_seconds histogram\n\
             rust_ota_server_seconds_bucket{class=\"a\",le=\"0.5\"} 1\n\
             rust_ota_server_seconds_bucket{class=\"a\",le=\"1\"} 2\n\
             rust_ota_server_seconds_bucket{class=\"a\",le=\"+Inf\"} 3\n\
             rust_ota_server_seconds_sum{class=\"a\"} 12.5\n\
             rust_ota_server_seconds_count{class=\"a\"} 3\n"
        );
    }
}
