//! Deployments: the question, the answer, the reports.

use std::collections::BTreeMap;

use client_core::deploy::gates::Gate;
use client_core::deploy::{DeploymentId, Report};
use client_core::server::exchange::Answer;
use client_core::server::{Method, Offer, ServerError, Source, url};
use serde_json::{Map, Value, json};

/// Longest artifact name or device type; the server's own limit is 4,096 characters.
const NAME_BYTES_MAX: usize = 4 * 4096;
/// Most device types of one artifact.
const DEVICE_TYPES_MAX: usize = 1000;
/// Deepest nesting of an answer. A deployment needs 4.
const DEPTH_MAX: usize = 32;
/// The longest log that is sent: servers take 1 MB, and the rest of the request needs some of it.
pub const LOG_BYTES_MAX: usize = 1_000_000 - 256;

/// What is reported about a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeploymentStatus {
    /// The artifact is being taken in.
    Downloading,
    /// It is being installed, or is about to be committed.
    Installing,
    /// The device restarts into it.
    Rebooting,
    /// Taken in; something on the device holds up the installation.
    PauseBeforeInstalling,
    /// Installed; something on the device holds up the restart.
    PauseBeforeRebooting,
    /// Running on trial; something on the device holds up the commit.
    PauseBeforeCommitting,
    /// It is installed for good.
    Success,
    /// It is not.
    Failure,
}

impl DeploymentStatus {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            DeploymentStatus::Downloading => "downloading",
            DeploymentStatus::Installing => "installing",
            DeploymentStatus::Rebooting => "rebooting",
            DeploymentStatus::PauseBeforeInstalling => "pause_before_installing",
            DeploymentStatus::PauseBeforeRebooting => "pause_before_rebooting",
            DeploymentStatus::PauseBeforeCommitting => "pause_before_committing",
            DeploymentStatus::Success => "success",
            DeploymentStatus::Failure => "failure",
        }
    }

    /// The word for `report`.
    pub(crate) fn of(report: Report) -> DeploymentStatus {
        match report {
            Report::Downloading | Report::Waiting(Gate::Download) => DeploymentStatus::Downloading,
            Report::Installing | Report::Committing => DeploymentStatus::Installing,
            Report::Rebooting => DeploymentStatus::Rebooting,
            Report::Waiting(Gate::Install) => DeploymentStatus::PauseBeforeInstalling,
            Report::Waiting(Gate::Reboot) => DeploymentStatus::PauseBeforeRebooting,
            Report::Waiting(Gate::Commit) => DeploymentStatus::PauseBeforeCommitting,
            Report::Succeeded => DeploymentStatus::Success,
            Report::Failed => DeploymentStatus::Failure,
        }
    }

    /// Whether the deployment is over for the server.
    pub(crate) fn is_final(self) -> bool {
        match self {
            DeploymentStatus::Success | DeploymentStatus::Failure => true,
            DeploymentStatus::Downloading
            | DeploymentStatus::Installing
            | DeploymentStatus::Rebooting
            | DeploymentStatus::PauseBeforeInstalling
            | DeploymentStatus::PauseBeforeRebooting
            | DeploymentStatus::PauseBeforeCommitting => false,
        }
    }
}

/// The ways to ask for a deployment, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    V2Post,
    V1Post,
    V1Get,
}

pub(crate) const VARIANTS: [Variant; 3] = [Variant::V2Post, Variant::V1Post, Variant::V1Get];

/// Method, path and body of the question. The same provides make the same bytes: a server may compare questions
/// during a deployment.
pub(crate) fn question(
    variant: Variant,
    provides: &BTreeMap<String, String>,
) -> (Method, String, Option<Vec<u8>>) {
    let path = |version: u8| format!("/api/devices/v{version}/deployments/device/deployments/next");
    match variant {
        Variant::V2Post => {
            let body = json!({ "device_provides": provides }).to_string();
            (Method::Post, path(2), Some(body.into_bytes()))
        }
        Variant::V1Post => (Method::Post, path(1), Some(json!(provides).to_string().into_bytes())),
        Variant::V1Get => {
            let known = ["artifact_name", "device_type"].into_iter();
            let query: Vec<String> = known
                .filter_map(|name| Some(format!("{name}={}", url::encode(provides.get(name)?))))
                .collect();
            (Method::Get, format!("{}?{}", path(1), query.join("&")), None)
        }
    }
}

/// Where reports about deployment `id` go: `status` or `log`.
pub(crate) fn report_path(id: &str, what: &str) -> String {
    format!("/api/devices/v1/deployments/device/deployments/{}/{what}", url::encode(id))
}

/// The deployment in a good answer, checked: what comes out can be used as it is.
pub(crate) fn offer(answer: &Answer) -> Result<Offer, ServerError> {
    let wrong = |reason: &str| answer.malformed(reason);
    if answer.is_web_page() {
        return Err(wrong("a web page instead of a deployment (a captive portal?)"));
    }
    if deeper_than(&answer.body, DEPTH_MAX) {
        return Err(wrong("JSON that is nested too deeply"));
    }
    let document: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| answer.malformed(format!("not a deployment: {error}")))?;
    let id = document.get("id").and_then(Value::as_str).ok_or_else(|| wrong("a deployment without an id"))?;
    let id = DeploymentId::parse(id).map_err(|_| wrong("a deployment whose id cannot be used"))?;
    let empty = Map::new();
    let artifact = document.get("artifact").and_then(Value::as_object).unwrap_or(&empty);
    let uri = artifact.get("source").and_then(|source| source.get("uri")?.as_str());
    let uri = uri.ok_or_else(|| wrong("a deployment without artifact.source.uri"))?;
    if !url::is_address(uri) {
        return Err(wrong("a deployment whose artifact.source.uri cannot be used"));
    }
    let name = match artifact.get("artifact_name") {
        None | Some(Value::Null) => None,
        Some(value) => Some(name(value).ok_or_else(|| wrong("an artifact_name that cannot be used"))?),
    };
    let types = match artifact.get("device_types_compatible") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(value) => value
            .as_array()
            .filter(|types| types.len() <= DEVICE_TYPES_MAX)
            .and_then(|types| types.iter().map(self::name).collect()),
    };
    Ok(Offer {
        id,
        source: Source::public(uri),
        artifact_name: name,
        device_types: types.ok_or_else(|| wrong("device_types_compatible that cannot be used"))?,
    })
}

fn name(value: &Value) -> Option<String> {
    let name = value.as_str()?;
    let usable = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control);
    usable.then(|| name.to_owned())
}

/// Whether JSON is nested deeper than `limit`, without building anything.
fn deeper_than(text: &[u8], limit: usize) -> bool {
    let mut nesting = Nesting::default();
    text.iter().any(|byte| {
        nesting.step(*byte);
        nesting.depth > limit
    })
}

/// Where in the structure of a JSON text one is.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

/// The body of a log upload, or `None` when there is nothing to upload. Of too much the newest is kept.
pub(crate) fn log_body(messages: &[u8]) -> Option<Vec<u8>> {
    let kept = newest(messages, LOG_BYTES_MAX).trim_ascii();
    (!kept.is_empty()).then(|| [b"{\"messages\":[", kept, b"]}"].concat())
}

/// As many of the last items of a comma-separated JSON list as fit into `limit` bytes.
fn newest(items: &[u8], limit: usize) -> &[u8] {
    if items.len() <= limit {
        return items;
    }
    let mut nesting = Nesting::default();
    for (at, byte) in items.iter().enumerate() {
        nesting.step(*byte);
        let between = *byte == b',' && nesting.depth == 0 && !nesting.in_string;
        if between && items.len() - at - 1 <= limit {
            return &items[at + 1..];
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<&str, &str>) {
        let answer = Answer::new("u".into(), 200, body.as_bytes().to_vec(), None);
        match (offer(&answer), expected) {
            (Ok(offer), Ok(id)) => assert_eq!(offer.id.as_str(), id),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{error}"),
            (found, expected) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }

    fn with_id(id: &str) -> String {
        json!({ "id": id, "artifact": { "source": { "uri": "https://h/a" } } }).to_string()
    }

    fn with_artifact(artifact: Value) -> String {
        json!({ "id": "d1", "artifact": artifact }).to_string()
    }

    #[test]
    fn a_deployment_needs_an_id_and_an_address() {
        check(&with_id("d1"), Ok("d1"));
        check("{}", Err("without an id"));
        check("[]", Err("without an id"));
        check("null", Err("without an id"));
        check(r#"{"id":1}"#, Err("without an id"));
        check(r#"{"id":"d1"}"#, Err("without artifact.source.uri"));
        check(r#"{"id":"d1","artifact":[]}"#, Err("without artifact.source.uri"));
        check(r#"{"id":"d1","artifact":{"source":{"uri":7}}}"#, Err("without artifact.source.uri"));
        check("{", Err("not a deployment"));
        check("", Err("not a deployment"));
        check("\u{0}", Err("not a deployment"));
        check(" <!DOCTYPE html><html>", Err("captive portal"));
    }

    #[test]
    fn an_id_that_is_none_is_refused() {
        check(&with_id("a:b"), Ok("a:b"));
        check(&with_id("../x"), Err("id cannot be used"));
    }

    #[test]
    fn an_address_is_one_of_the_web() {
        for uri in ["", "file:///etc/passwd", "ftp://h/a", "https://", "https://h/\r\nx: y", "//h/a", "h/a"] {
            check(&with_artifact(json!({ "source": { "uri": uri } })), Err("uri cannot be used"));
        }
        let long = format!("https://h/{}", "x".repeat(8 * 1024));
        check(&with_artifact(json!({ "source": { "uri": long } })), Err("uri cannot be used"));
    }

    #[test]
    fn names_are_text_within_bounds() {
        let source = json!({ "uri": "https://h/a" });
        let named = |name: Value| with_artifact(json!({ "source": source, "artifact_name": name }));
        check(&named(json!("release-2")), Ok("d1"));
        check(&named(Value::Null), Ok("d1"));
        check(&named(json!("")), Err("artifact_name"));
        check(&named(json!("a\u{1b}[2J")), Err("artifact_name"));
        check(&named(json!(2)), Err("artifact_name"));
        check(&named(json!("x".repeat(NAME_BYTES_MAX + 1))), Err("artifact_name"));
        let typed =
            |types: Value| with_artifact(json!({ "source": source, "device_types_compatible": types }));
        check(&typed(json!(["a", "b"])), Ok("d1"));
        check(&typed(json!([])), Ok("d1"));
        check(&typed(json!("a")), Err("device_types"));
        check(&typed(json!(["a", 1])), Err("device_types"));
        check(&typed(json!(vec!["a"; DEVICE_TYPES_MAX + 1])), Err("device_types"));
    }

    #[test]
    fn deep_nesting_is_refused_and_brackets_in_text_are_no_nesting() {
        let nested = |depth| {
            format!(r#"{{"id":"d1","x":{}{},{}"#, "[".repeat(depth), "]".repeat(depth), &with_id("d1")[1..])
        };
        check(&nested(31), Ok("d1"));
        check(&nested(32), Err("too deeply"));
        check(&nested(100_000), Err("too deeply"));
        check(
            &with_artifact(json!({ "x": "[\"{".repeat(50), "source": { "uri": "https://h/a" } })),
            Ok("d1"),
        );
    }

    #[test]
    fn of_a_log_that_is_too_long_the_newest_entries_are_kept() {
        assert_eq!(newest(br#"{"a":","},{"b":[1,2]},{"c":3}"#, 22), br#"{"b":[1,2]},{"c":3}"#);
        assert_eq!(newest(br#"{"a":","},{"b":[1,2]},{"c":3}"#, 18), br#"{"c":3}"#);
        assert_eq!(newest(br#"{"a":","}"#, 3), b"");
        assert_eq!(log_body(b"{}").unwrap(), br#"{"messages":[{}]}"#);
        assert_eq!(log_body(b" "), None);
    }
}
