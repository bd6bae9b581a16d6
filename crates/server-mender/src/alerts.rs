//! What a device watches, and what it found there: `devicemonitor` of the device API.

use client_core::monitor::{Alert, Check, Excerpt, Line};
use serde_json::{Value, json};

/// Where alerts go.
pub(crate) const ALERTS_PATH: &str = "/api/devices/v1/devicemonitor/alert";
/// Where the list of what is watched goes.
pub(crate) const CHECKS_PATH: &str = "/api/devices/v1/devicemonitor/config";

/// The body that sends `alerts`.
pub(crate) fn alerts_body(alerts: &[Alert]) -> Vec<u8> {
    let list: Vec<Value> = alerts.iter().map(alert).collect();
    Value::Array(list).to_string().into_bytes()
}

/// The body that tells of `checks`.
pub(crate) fn checks_body(checks: &[Check]) -> Vec<u8> {
    let one =
        |check: &Check| json!({ "name": check.name, "type": check.watched.kind(), "status": "enabled" });
    Value::Array(checks.iter().map(one).collect()).to_string().into_bytes()
}

fn alert(alert: &Alert) -> Value {
    let description = match alert.dropped {
        0 => alert.description.clone(),
        dropped => format!("{} ({dropped} earlier changes of this check were dropped)", alert.description),
    };
    let mut details = json!({ "description": description });
    if let Some(Excerpt { before, line: matching, after }) = &alert.excerpt {
        details["lines_before"] = lines(before);
        details["line_matching"] = line(matching);
        details["lines_after"] = lines(after);
    }
    json!({
        "name": alert.name,
        "level": alert.level.name(),
        "subject": {
            "name": alert.subject,
            "type": alert.kind,
            "status": alert.status,
            "details": details,
        },
        "timestamp": alert.at,
    })
}

fn lines(lines: &[Line]) -> Value {
    Value::Array(lines.iter().map(line).collect())
}

fn line(line: &Line) -> Value {
    json!({ "line_number": line.number, "data": line.data })
}

#[cfg(test)]
mod tests {
    use client_core::monitor::{Level, Watched};

    use super::*;

    fn sent() -> Alert {
        let line = |number, data: &str| Line { number, data: data.to_owned() };
        Alert {
            name: "panics".to_owned(),
            level: Level::Critical,
            kind: "log".to_owned(),
            subject: "/log".to_owned(),
            status: "found".to_owned(),
            description: "it is there".to_owned(),
            excerpt: Some(Excerpt {
                before: vec![line(1, "a")],
                line: line(2, "b"),
                after: vec![line(3, "c")],
            }),
            at: "2026-11-28T10:00:00Z".to_owned(),
            dropped: 0,
        }
    }

    fn json_of(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap_or_default()
    }

    #[test]
    fn an_alert_has_the_fields_that_servers_know() {
        let line = |number: u64, data: &str| json!({ "line_number": number, "data": data });
        let expected = json!([{
            "name": "panics",
            "level": "CRITICAL",
            "timestamp": "2026-11-28T10:00:00Z",
            "subject": { "name": "/log", "type": "log", "status": "found", "details": {
                "description": "it is there",
                "lines_before": [line(1, "a")],
                "line_matching": line(2, "b"),
                "lines_after": [line(3, "c")],
            }},
        }]);
        assert_eq!(json_of(&alerts_body(&[sent()])), expected);
    }

    #[test]
    fn an_alert_without_lines_has_none_and_says_what_was_dropped_before_it() {
        let body = json_of(&alerts_body(&[Alert { excerpt: None, dropped: 7, level: Level::Ok, ..sent() }]));
        let expected = json!({ "description": "it is there (7 earlier changes of this check were dropped)" });
        assert_eq!(body[0]["subject"]["details"], expected);
        assert_eq!(body[0]["level"], "OK");
    }

    #[test]
    fn checks_are_told_by_name_and_type() {
        let checks = [Check { name: "a".to_owned(), looks: 1, watched: Watched::Updates { failed: 1 } }];
        let expected = json!([{ "name": "a", "type": "updates", "status": "enabled" }]);
        assert_eq!(json_of(&checks_body(&checks)), expected);
    }
}
