//! One line per event on the standard error stream: when, how bad, what, and for which request.

use std::io::Write;

use artifact::text::printable;
use log::kv::{self, Key, Value, VisitSource};
use log::{Log, Metadata, Record};
use serde_json::{Map, json};

use crate::model::time::Timestamp;
use crate::request_id;

/// Characters of one line: what strangers send is part of some.
const LINE_CHARS: usize = 2048;

/// The server, its program, and what tests put around it.
const CRATES: [&str; 3] = ["rust_ota_server", "server_core", "testserver"];

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    Text,
    /// A JSON object.
    Json,
}

struct Logger(LogFormat);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        CRATES.iter().any(|name| metadata.target().starts_with(name))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (now, id) = (Timestamp::now(), request_id::current());
            let line = match self.0 {
                LogFormat::Text => line(now, record.level(), &record.args().to_string(), id.as_deref()),
                LogFormat::Json => object(now, record, id),
            };
            // There is nowhere to report that there is nowhere to report to.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

fn line(now: Timestamp, level: log::Level, text: &str, request: Option<&str>) -> String {
    let text = printable(text);
    let text = cut(&text);
    match request {
        Some(id) => format!("{now} {level:5} {text} [{id}]\n"),
        None => format!("{now} {level:5} {text}\n"),
    }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(LINE_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// The same as JSON. The words of others are made harmless here too: people look at it with whatever shows a text.
fn object(now: Timestamp, record: &Record<'_>, request: Option<String>) -> String {
    let mut members = Map::new();
    let mut put = |name: &str, value| members.insert(name.to_owned(), value);
    put("time", json!(now));
    put("level", json!(record.level().as_str().to_ascii_lowercase()));
    put("message", json!(cut(&printable(&record.args().to_string()))));
    if let Some(id) = request {
        put("request_id", json!(id));
    }
    // A collector of members does not fail.
    let _ = record.key_values().visit(&mut Members(&mut members));
    format!("{}\n", serde_json::Value::Object(members))
}

struct Members<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Members<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let value = match (value.to_u64(), value.to_f64(), value.to_borrowed_str()) {
            (Some(number), _, _) => json!(number),
            (None, Some(number), _) => json!(number),
            (None, None, Some(text)) => json!(cut(&printable(text))),
            (None, None, None) => match value.to_string().as_str() {
                "None" => return Ok(()),
                text => json!(cut(&printable(text))),
            },
        };
        self.0.insert(key.as_str().to_owned(), value);
        Ok(())
    }
}

/// Logs what this server does to the standard error stream, if nothing else takes the program's log yet.
pub fn log_to_stderr(level: log::LevelFilter, format: LogFormat) {
    static TEXT: Logger = Logger(LogFormat::Text);
    static JSON: Logger = Logger(LogFormat::Json);
    let logger = match format {
        LogFormat::Text => &TEXT,
        LogFormat::Json => &JSON,
    };
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    #[test]
    fn a_line_has_its_time_and_nothing_in_it_makes_another_line() {
        let text = line(Timestamp(0), Level::Info, "device \u{1b}[2J\n1970 ERROR forged", None);
        assert_eq!(text, "1970-01-01T00:00:00.000Z INFO  device \\u{1b}[2J\\n1970 ERROR forged\n");
        assert!(line(Timestamp(0), Level::Info, &"\u{1b}".repeat(5000), Some("id")).len() < 2100);
        assert_eq!(
            line(Timestamp(0), Level::Warn, "a", Some("id")),
            "1970-01-01T00:00:00.000Z WARN  a [id]\n"
        );
    }

    #[test]
    fn an_object_has_the_same_and_what_is_known_beside_it() {
        let pairs = [
            ("status", Value::from(204_u16)),
            ("seconds", Value::from(0.5)),
            ("path", Value::from("/a\u{1b}[2J")),
            ("device", Value::from_debug(&None::<&str>)),
            ("person", Value::from_display(&"ada")),
        ];
        let args = format_args!("GET /a 204\n{}", "x".repeat(5000)).to_string();
        let text = object(
            Timestamp(0),
            &Record::builder()
                .level(Level::Info)
                .args(format_args!("{args}"))
                .key_values(&&pairs[..])
                .build(),
            Some("id".to_owned()),
        );
        assert!(text.ends_with("}\n") && text.lines().count() == 1);
        let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let message = value["message"].take();
        assert!(
            message.as_str().is_some_and(|text| text.starts_with("GET /a 204\\nxxx") && text.len() == 2048)
        );
        let expected = json!({
            "time": "1970-01-01T00:00:00.000Z", "level": "info", "message": null, "request_id": "id",
            "status": 204, "seconds": 0.5, "path": "/a\\u{1b}[2J", "person": "ada",
        });
        assert_eq!(value, expected);
    }
}
