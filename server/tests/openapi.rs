//! The OpenAPI description: that it is the one in `docs`, that every route in it is there, and that what the server answers is
//! what it says. About 2 s.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use server_core::Running;
use tempfile::TempDir;

use crate::common::{Answer, Device, accepted, artifact, last_of, manage, request, server};
use crate::users::{PASSWORD, token, user};

fn description() -> Value {
    serde_json::from_str(&server_core::openapi()).unwrap()
}

fn docs(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn the_description_in_the_documents_is_that_of_the_code() {
    assert!(
        docs("openapi.json") == server_core::openapi(),
        "docs/openapi.json is not what the code says: cargo run -p rust-ota-server -- openapi > docs/openapi.json"
    );
}

/// A fleet in which everything is there that a path can name.
struct Fleet {
    running: Running,
    _folder: TempDir,
    device: Device,
    token: String,
    names: Vec<(&'static str, String)>,
}

impl Fleet {
    fn new() -> Fleet {
        let (running, management, folder) = server(|options| options);
        let (mut device, id) = accepted(&running, "a");
        management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
        let ask = |method: &str, path: &str, body: Value| {
            let answer = manage(&running, method, &format!("/api/management/{path}"), body);
            assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
            answer
        };
        let attributes = json!([{ "name": "device_type", "value": "testdev", "description": "its type" }]);
        let path = "/api/devices/v1/inventory/device/attributes";
        assert_eq!(device.ask(&running, "PUT", path, &attributes.to_string()).status, 200);
        ask("PUT", &format!("v1/inventory/devices/{id}/group"), json!({ "group": "g" }));
        ask("PUT", &format!("v1/inventory/devices/{id}/tags"), json!([{ "name": "t", "value": "v" }]));
        ask("PUT", "v2/deployments/deployments/releases/release-2/tags", json!(["tag"]));
        let configuration = format!("v1/deviceconfig/configurations/device/{id}");
        ask("PUT", &configuration, json!({ "led": "on" }));
        let term = json!({ "scope": "tags", "attribute": "t", "type": "$eq", "value": "v" });
        let filter = json!({ "name": "f", "terms": [term] });
        let filter = last_of(&ask("POST", "v2/inventory/filters", filter));
        let http = json!({ "type": "http", "http": { "url": "https://host.invalid/" } });
        let hook = json!({ "provider": "webhook", "credentials": http, "scopes": ["inventory"] });
        let integration = last_of(&ask("POST", "v1/iot-manager/integrations", hook));
        let mails = json!({ "enabled": true, "receivers": ["ops@example.com"] });
        ask("PUT", "v1/devicemonitor/settings/global/channel/alerts/email", mails);
        ask("POST", "v2/useradm/roles", json!({ "name": "r" }));
        let other = user(&running, "bob@example.org", &[]);
        user(&running, "ada@example.org", &[]);
        let login = token(&running, "ada@example.org");
        let bearer = format!("Bearer {login}");
        let tokens = "/api/management/v1/useradm/settings/tokens";
        let headers = [("Authorization", bearer.as_str())];
        let made = request(&running, "POST", tokens, &headers, br#"{"name":"n"}"#);
        assert_eq!(made.status, 200, "{}", made.text());
        let personal = request(&running, "GET", tokens, &headers, b"").json()[0]["id"].clone();
        let direct = ask("POST", "v1/deployments/artifacts/directupload", Value::Null).json()["id"].clone();
        let known = ask("GET", &format!("v2/devauth/devices/{id}"), Value::Null).json();
        let artifacts = ask("GET", "v1/deployments/artifacts", Value::Null).json();
        let deployment = json!({
            "name": "first", "artifact_name": "release-2", "devices": [id], "phases": [{ "batch_size": 100 }],
            "update_control_map": { "priority": 1, "states": {} }, "retries": 1,
            "rust_ota": { "stop": [{ "failed_devices": 3, "action": "hold" }] },
        });
        let deployment = last_of(&ask("POST", "v1/deployments/deployments", deployment));
        assert_eq!(device.authenticate(&running).status, 200);
        let next = device.next(&running);
        let link = next.json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
        assert_eq!(device.report(&running, &deployment, "downloading").status, 204);
        let log =
            json!({ "messages": [{ "timestamp": "2026-01-01T00:00:00Z", "level": "info", "message": "m" }] });
        let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/log");
        assert_eq!(device.ask(&running, "PUT", &path, &log.to_string()).status, 204);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = vec![
            ("device", id),
            ("set", text(&known["auth_sets"][0]["id"])),
            ("artifact", text(&artifacts[0]["id"])),
            ("deployment", deployment),
            ("group", "g".to_owned()),
            ("release", "release-2".to_owned()),
            ("filter", filter),
            ("user", other),
            ("role", "r".to_owned()),
            ("integration", integration),
            ("token", text(&personal)),
            ("upload", text(&direct)),
            ("link", link),
            // There are none in this fleet: what is asked is not found.
            ("session", "00000000-0000-4000-8000-000000000001".to_owned()),
            ("job", "00000000-0000-4000-8000-000000000002".to_owned()),
        ];
        Fleet { running, _folder: folder, device, token: login, names }
    }

    fn name(&self, parameter: &str) -> &str {
        let known = self.names.iter().find(|(name, _)| *name == parameter);
        known.map(|(_, value)| value.as_str()).unwrap_or_else(|| {
            panic!("the path parameter {{{parameter}}} is new: put something of that name into Fleet::new")
        })
    }

    /// A path with what there is in place of its parameters.
    fn filled(&self, path: &str) -> String {
        if path.starts_with("/download/") {
            return self
                .name("link")
                .split_once("/download/")
                .map(|(_, rest)| format!("/download/{rest}"))
                .unwrap();
        }
        let piece = |piece: &str| match piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}')) {
            Some(parameter) => self.name(parameter).to_owned(),
            None => piece.to_owned(),
        };
        path.split('/').map(piece).collect::<Vec<_>>().join("/")
    }

    fn ask(&self, method: &str, path: &str, described: &Value, body: &str) -> Answer {
        let security = described["security"][0].as_object().and_then(|one| one.keys().next().cloned());
        let basic = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            format!("ada@example.org:{PASSWORD}"),
        );
        let authorization = match security.as_deref() {
            Some("device") => format!("Bearer {}", self.device.token),
            Some("person") => format!("Bearer {}", self.token),
            Some("password") => format!("Basic {basic}"),
            _ => String::new(),
        };
        let mut headers = vec![("Content-Type", "application/json")];
        // A link that opens itself is for the device that was given it.
        if !authorization.is_empty() {
            headers.push(("Authorization", &authorization));
        }
        let mut filled = self.filled(path);
        if (method, filled.ends_with("/device/deployments/next")) == ("GET", true) {
            filled += "?artifact_name=release-1&device_type=testdev";
        }
        request(&self.running, method, &filled, &headers, body.as_bytes())
    }
}

/// Every route of the description: path, method, and what is said of it.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, described) in methods.as_object().unwrap() {
            all.push((path.clone(), method.to_uppercase(), described.clone()));
        }
    }
    all
}

/// What is needed of a schema, and no more.
fn least(document: &Value, schema: &Value) -> Value {
    if let Some(name) = schema["$ref"].as_str() {
        return least(document, document.pointer(name.trim_start_matches('#')).unwrap());
    }
    if let Some(first) = schema["anyOf"].get(0).or_else(|| schema["enum"].get(0)) {
        return if first.is_object() { least(document, first) } else { first.clone() };
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            required.map(|name| (name.to_owned(), least(document, &schema["properties"][name]))).collect()
        }
        Some("array") => json!([]),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(false),
        _ => json!("x"),
    }
}

/// How a value is not what a schema says. A member that is not described is a difference too.
fn differences(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let named = document.pointer(name.trim_start_matches('#'));
        return differences(document, named.expect("a schema that is there"), value, at);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        let mut found: Vec<_> =
            choices.iter().map(|choice| differences(document, choice, value, at)).collect();
        found.sort_by_key(Vec::len);
        return found.into_iter().next().unwrap_or_default();
    }
    if let Some(names) = schema["enum"].as_array() {
        return if names.contains(value) { Vec::new() } else { vec![format!("{at}: {value}")] };
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return Vec::new(),
    };
    let fits = kinds.iter().any(|kind| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("a kind of schema that this test does not know: {other}"),
    });
    if !fits {
        return vec![format!("{at} is {value}, and not {kinds:?}")];
    }
    let mut found = Vec::new();
    for item in value.as_array().into_iter().flatten() {
        found.extend(differences(document, &schema["items"], item, &format!("{at}[]")));
    }
    let Some(members) = value.as_object() else { return found };
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    found.extend(
        required.filter(|name| !members.contains_key(*name)).map(|name| format!("{at} lacks {name}")),
    );
    for (name, member) in members {
        let schema = match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(schema), _) | (None, Some(schema)) => schema,
            (None, None) => {
                found.push(format!("{at} has also {name}"));
                continue;
            }
        };
        found.extend(differences(document, schema, member, &format!("{at}.{name}")));
    }
    found
}

/// How an answer is not what is described.
fn wrong(document: &Value, described: &Value, answer: &Answer) -> Vec<String> {
    let Some(said) = described["responses"].get(answer.status.to_string()) else {
        return vec![format!("status {} is not described: {}", answer.status, answer.text())];
    };
    let said = match said["$ref"].as_str() {
        Some(name) => document.pointer(name.trim_start_matches('#')).expect("an answer that is there"),
        None => said,
    };
    let kind = answer.header("content-type");
    let Some(contents) = said["content"].as_object() else {
        return match answer.body.is_empty() {
            true => Vec::new(),
            false => vec![format!("a body that is not described: {}", answer.text())],
        };
    };
    let Some(content) = kind.and_then(|kind| contents.get(kind)) else {
        return vec![format!("content of type {kind:?} is not described")];
    };
    match kind {
        Some("application/json") => {
            differences(document, &content["schema"], &answer.json(), &answer.status.to_string())
        }
        _ => Vec::new(),
    }
}

#[test]
fn every_route_of_the_description_is_there_and_answers_as_it_says() {
    let (document, fleet) = (description(), Fleet::new());
    let mut all = operations(&document);
    // What is read comes first, and what is taken away goes from the inside out; a device is the last of all.
    all.sort_by_key(|(path, method, _)| {
        let ends = path.ends_with("/logout") || path.ends_with("/devauth/devices/{device}");
        (method == "DELETE", ends, method != "GET", usize::MAX - path.matches('/').count())
    });
    let mut found = Vec::new();
    for (path, method, described) in &all {
        let schema = &described["requestBody"]["content"]["application/json"]["schema"];
        let bodies = match schema.is_null() {
            true => vec![String::new()],
            false => vec!["{".to_owned(), least(&document, schema).to_string()],
        };
        for body in bodies {
            let answer = fleet.ask(method, path, described, &body);
            let mut told = wrong(&document, described, &answer);
            if answer.status == 404 && answer.text().contains("no such route") {
                told.push(
                    "the description has it, and the server has not: its line in ROUTES is for no arm".into(),
                );
            }
            // What needs a WebSocket, a device that is connected, or a delta that was made.
            let cannot_be = match path.rsplit('/').next() {
                Some("connect") => answer.status == 400,
                Some("download") => path.contains("/deviceconnect/") && answer.status == 400,
                Some("playback") => answer.status == 400 || answer.status == 404,
                Some("{job}") => answer.status == 404,
                _ => false,
            };
            if method == "GET" && answer.status >= 300 && !cannot_be {
                told.push(format!("nothing was read: {} {}", answer.status, answer.text()));
            }
            found.extend(told.into_iter().map(|what| format!("{method} {path} {body}: {what}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert!(all.len() > 100, "{}", all.len());
}

#[test]
fn what_the_description_does_not_have_is_no_route_and_a_wrong_method_is_told_the_others() {
    let (running, _, _folder) = server(|options| options);
    let ask = |method: &str, path: &str| manage(&running, method, path, Value::Null);
    for path in [
        "/nothing",
        "/api/management/v1/useradm/nothing",
        "/api/management/v3/useradm/users",
        "/api/devices/v1/x",
    ] {
        let answer = ask("GET", path);
        assert_eq!((answer.status, answer.json()["error"].as_str()), (404, Some("no such route")), "{path}");
    }
    let answer = ask("PATCH", "/api/management/v1/useradm/users");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST")));
    // Who is unknown is not told what there is.
    let stranger = request(&running, "PATCH", "/api/management/v1/useradm/users", &[], b"");
    assert_eq!(stranger.status, 401);
    let served = request(&running, "GET", "/api/openapi.json", &[], b"");
    assert_eq!((served.status, served.json()), (200, description()));
}

/// A path with all its parameters called the same.
fn plain(path: &str) -> String {
    let piece = |piece: &str| if piece.starts_with('{') { "{}".to_owned() } else { piece.to_owned() };
    path.split('/').map(piece).collect::<Vec<_>>().join("/")
}

#[test]
fn the_table_of_the_reference_servers_endpoints_says_which_are_there() {
    let described: BTreeSet<(String, String)> =
        operations(&description()).into_iter().map(|(path, method, _)| (method, plain(&path))).collect();
    let text = docs("server-api.md");
    let mut rows = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, asked, answer, _] = cells.as_slice() else { continue };
        let Some((method, path)) = asked.trim_matches('`').split_once(" /api/") else { continue };
        let route = (method.to_owned(), plain(&format!("/api/{path}")));
        let is_there = described.contains(&route);
        match *answer {
            "yes" => assert!(is_there, "docs/server-api.md says that this is there: {asked}"),
            reason => {
                assert!(!is_there, "docs/server-api.md says that this is not there, and it is: {asked}");
                assert!(reason.starts_with("no: "), "{asked} is neither yes nor no: with a reason");
            }
        }
        assert!(rows.insert(route), "twice: {asked}");
    }
    assert_eq!(rows.len(), 114, "the endpoints of the reference server's descriptions");
}
