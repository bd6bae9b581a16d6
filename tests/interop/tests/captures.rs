//! Our daemon says to the server what the Mender client 3.4 says: every request of whole deployments beside the
//! recorded request of that client.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use interop::backend::{Backend, PATIENCE};
use interop::virtual_device::VirtualDevice;
use interop::wait_for;
use serde_json::Value;
use testserver::{Action, RecordedRequest, Rule};

/// The recorded requests, which the tests of the device API use as well.
macro_rules! recorded {
    ($name:literal) => {
        parse(include_str!(concat!("../../../crates/server-mender/tests/fixtures/captures/", $name)))
    };
}

/// What the recorded client sends and ours does not, with the reason.
const LEFT_OUT: [(&str, &str, &str); 2] = [
    ("auth_requests", "tenant_token", "left out when it is empty, as by the client 5.x"),
    ("v2/deployments", "update_control_map", "control maps ended with the client 4.0"),
];

/// What ours sends and the recorded client does not, with the reason.
const ADDED: [(&str, &str, &str); 1] =
    [("/attributes", "mender_client_version_provider", "sent by the client 5.x")];

fn exceptions(table: &[(&str, &str, &str)], path: &str) -> Vec<String> {
    let rows = table.iter().filter(|(part, ..)| path.contains(part));
    rows.flat_map(|(_, names, _)| names.split(' ').map(str::to_owned)).collect()
}

/// A request of the other client.
struct Recorded {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

fn parse(text: &str) -> Recorded {
    let (head, body) = text.split_once("\n\n").unwrap();
    let (first, headers) = head.split_once('\n').unwrap();
    let mut words = first.split(' ').map(str::to_owned);
    let headers = headers.lines().map(|line| line.split_once(": ").unwrap());
    Recorded {
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: body.trim_start_matches("[CHUNKED]").trim().to_owned(),
    }
}

fn header<'r>(request: &'r RecordedRequest, name: &str) -> Option<&'r str> {
    request.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// The path with every id of a deployment and every value of the query replaced.
fn shape_of_path(path: &str) -> String {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let is_id = |part: &str| part.len() == 36 && part.matches('-').count() == 4;
    let parts = path.split('/').map(|part| if is_id(part) { "ID" } else { part });
    let names = query.split('&').map(|pair| pair.split('=').next().unwrap());
    format!("{}?{}", parts.collect::<Vec<_>>().join("/"), names.collect::<Vec<_>>().join("&"))
}

/// Names and types of everything in a JSON text. A list has the union of what its items have; an inventory is taken as a
/// map from its names.
fn shape(value: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect("", value, &mut found);
    found
}

fn collect(at: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    let mut note = |kind: &str| drop(found.insert(at.to_owned(), kind.to_owned()));
    match value {
        Value::Null => note("null"),
        Value::Bool(_) => note("bool"),
        Value::Number(_) => note("number"),
        Value::String(_) => note("text"),
        Value::Array(items) => {
            note("list");
            for item in items {
                match item["name"].as_str() {
                    Some(name) => collect(&format!("{at}/{name}"), &item["value"], found),
                    None => collect(&format!("{at}/*"), item, found),
                }
            }
        }
        Value::Object(members) => {
            note("object");
            members.iter().for_each(|(name, value)| collect(&format!("{at}/{name}"), value, found));
        }
    }
}

#[track_caller]
fn compare(ours: &RecordedRequest, theirs: &Recorded) {
    assert_eq!(ours.method, theirs.method);
    assert_eq!(shape_of_path(&ours.path), shape_of_path(&theirs.path));
    assert_eq!(header(ours, "content-type"), theirs.headers.get("content-type").map(String::as_str));
    let scheme = |value: Option<&str>| value.map(|value| value.split(' ').next().unwrap().to_owned());
    let their_scheme = scheme(theirs.headers.get("authorization").map(String::as_str));
    // The client 5.x says API_KEY where there is no token yet; no server looks at it.
    if !ours.path.ends_with("/auth_requests") {
        assert_eq!(scheme(header(ours, "authorization")), their_scheme);
        if their_scheme.is_some() {
            assert!(header(ours, "authorization").unwrap().len() > "Bearer ".len());
        }
    }
    let signed = theirs.headers.contains_key("x-men-signature");
    assert_eq!(header(ours, "x-men-signature").is_some(), signed);
    if theirs.body.is_empty() {
        assert!(ours.body.is_empty());
        return;
    }
    let our_body: Value = serde_json::from_slice(&ours.body).unwrap();
    let (our_shape, their_shape) = (shape(&our_body), shape(&serde_json::from_str(&theirs.body).unwrap()));
    let differences = |one: &BTreeMap<String, String>, other: &BTreeMap<String, String>| {
        let missing = one.iter().filter(|(name, kind)| other.get(*name) != Some(*kind));
        missing.map(|(name, _)| name.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let (missing, added) = (differences(&their_shape, &our_shape), differences(&our_shape, &their_shape));
    assert_eq!(sorted(missing), sorted(exceptions(&LEFT_OUT, &ours.path)), "left out at {}", ours.path);
    assert_eq!(sorted(added), sorted(exceptions(&ADDED, &ours.path)), "added at {}", ours.path);
}

/// Every request of a deployment on our device, from the first one on.
struct Told {
    requests: Vec<RecordedRequest>,
    deployment: String,
    device: VirtualDevice,
}

impl Told {
    fn new(rules: Vec<Rule>, change: impl FnOnce(&mut Value), status: &str) -> Told {
        let backend = Backend::start(|options| options.auto_accept(true));
        backend.running.faults().set(rules);
        let mut device = VirtualDevice::new();
        device.configure(backend.running.url(), change);
        device.start();
        backend.the_device();
        let artifact = device.artifact("release-2", &[0x5a; 200_000]);
        let deployment = backend.deploy(&artifact, "release-2");
        let ended = wait_for(PATIENCE, || {
            if device.waits_for_restart() {
                device.restart();
            }
            backend.status(&deployment).filter(|now| now == status)
        });
        assert!(ended.is_some(), "{:?}\n{}", backend.reported(&deployment), device.log());
        let seen = backend.running.requests().len();
        let inventory = |request: &RecordedRequest| request.path.contains("/inventory/");
        let last = backend.request(seen, PATIENCE, |request| request.path.contains("/next"));
        assert!(last.is_some(), "our daemon does not ask again");
        // A token is new with the pre-commit report and a start, so the inventory is sent again.
        assert!(backend.request(0, PATIENCE, inventory).is_some());
        device.stop();
        Told { requests: backend.running.requests(), deployment, device }
    }

    #[track_caller]
    fn first(&self, method: &str, part: &str) -> &RecordedRequest {
        let found =
            self.requests.iter().find(|request| request.method == method && request.path.contains(part));
        found.unwrap_or_else(|| panic!("no {method} {part} in {:#?}", self.requests))
    }

    /// The kinds of requests of the device, without repetitions.
    fn sequence(&self) -> Vec<String> {
        let of_device = self.requests.iter().filter(|request| request.path.starts_with("/api/devices/"));
        let kind = |request: &RecordedRequest| {
            let name = request.path.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            body["status"].as_str().filter(|_| name == "status").map(str::to_owned).unwrap_or(name)
        };
        let mut kinds: Vec<String> = of_device.map(kind).collect();
        kinds.dedup();
        kinds
    }
}

/// The order of events in a recorded deployment, without repetitions and what `LEFT_OUT` explains.
fn recorded_sequence(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut kinds: Vec<String> = lines.map(str::to_owned).collect();
    kinds.dedup();
    kinds
}

/// From the first status on, up to the last inventory behind the final one.
fn of_the_deployment(sequence: &[String]) -> Vec<&str> {
    let from = sequence.iter().position(|kind| kind == "downloading").unwrap();
    let last = |kind: &String| kind == "success" || kind == "failure";
    let end = sequence.iter().position(last).unwrap();
    let behind = sequence[end..].iter().position(|kind| kind == "attributes").map(|at| end + at);
    sequence[from..=behind.unwrap_or(end)].iter().map(String::as_str).collect()
}

#[test]
fn our_daemon_says_what_the_recorded_client_says_in_a_deployment_that_succeeds() {
    let told = Told::new(Vec::new(), |_| {}, "success");
    let deployment = &told.deployment;
    compare(told.first("POST", "/auth_requests"), &recorded!("auth.http"));
    compare(told.first("PUT", "/inventory/"), &recorded!("inventory.http"));
    compare(told.first("POST", "/v2/deployments/device/deployments/next"), &recorded!("next-v2.http"));
    compare(told.first("PUT", &format!("{deployment}/status")), &recorded!("status.http"));
    let download = told.first("GET", "/download/");
    assert_eq!(header(download, "authorization"), None, "an artifact's address is its own authorization");
    // Ours asks for the head first: it decides with it what of the rest it needs.
    assert_eq!(header(download, "range"), Some("bytes=0-65535"));
    let expected = recorded_sequence(include_str!("fixtures/captures/sequence-success-with-restart.txt"));
    // Our daemon is a new process behind the restart, and brings its inventory when it starts.
    assert_eq!(of_the_deployment(&told.sequence()), of_the_deployment(&expected));
}

#[test]
fn our_daemon_says_what_the_recorded_client_says_in_a_deployment_that_fails() {
    // No boot environment: nothing can be installed.
    let told =
        Told::new(Vec::new(), |config| config["RustOta"]["FwEnvConfig"] = "/nowhere".into(), "failure");
    let log = told.first("PUT", &format!("{}/log", told.deployment));
    compare(log, &recorded!("log.http"));
    let body: Value = serde_json::from_slice(&log.body).unwrap();
    assert!(body["messages"].as_array().is_some_and(|messages| !messages.is_empty()));
    assert!(told.sequence().windows(2).any(|pair| pair == ["failure", "log"]), "{:?}", told.sequence());
}

#[test]
fn our_daemon_asks_an_old_server_as_the_recorded_client_does() {
    let next = "/deployments/device/deployments/next";
    let missing = |method: &str, version: &str| {
        let action = Action::Status { code: 404, headers: Vec::new(), body: String::new() };
        Rule::new(action).method(method).path(&format!("{version}{next}")).times(0)
    };
    let told = Told::new(vec![missing("POST", "v2"), missing("POST", "v1")], |_| {}, "success");
    compare(told.first("POST", &format!("/v2{next}")), &recorded!("next-v2.http"));
    compare(told.first("POST", &format!("/v1{next}")), &recorded!("next-v1-post.http"));
    compare(told.first("GET", &format!("/v1{next}")), &recorded!("next-v1-get.http"));
}

#[test]
fn our_daemon_goes_on_with_a_download_and_an_inventory_as_the_recorded_client_does() {
    let refused = Action::Status { code: 405, headers: Vec::new(), body: String::new() };
    let rules = vec![
        // The head, which is shorter, and the answer behind it.
        Rule::new(Action::Cut { after: 100_000 }).path("/download/").times(2),
        Rule::new(refused).method("PUT").path("/inventory/"),
    ];
    let told = Told::new(rules, |_| {}, "success");
    compare(told.first("PATCH", "/inventory/"), &recorded!("inventory-patch.http"));
    let rest = recorded!("download-rest.http");
    let downloads = told.requests.iter().filter(|request| request.path.contains("/download/"));
    let ranges: Vec<&str> = downloads.filter_map(|request| header(request, "range")).collect();
    assert_eq!(ranges, ["bytes=0-65535", "bytes=65536-", "bytes=165536-"]);
    let form = |range: &str| range.chars().filter(|char| !char.is_ascii_digit()).collect::<String>();
    assert_eq!(form(ranges[2]), form(&rest.headers["range"]));
}

#[test]
fn our_signature_verifies_with_openssl() {
    let Some(openssl) = interop::tool("openssl") else { return };
    let told = Told::new(Vec::new(), |_| {}, "success");
    let auth = told.first("POST", "/auth_requests");
    let body: Value = serde_json::from_slice(&auth.body).unwrap();
    let at = |name: &str| told.device.path(name);
    fs::write(at("device.pub"), body["pubkey"].as_str().unwrap()).unwrap();
    fs::write(at("auth.body"), &auth.body).unwrap();
    fs::write(at("auth.b64"), format!("{}\n", header(auth, "x-men-signature").unwrap())).unwrap();
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&openssl).current_dir(told.device.path("")).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(run(&["base64", "-d", "-A", "-in", "auth.b64", "-out", "auth.sig"]).0);
    let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", "device.pub", "-rawin", "-in", "auth.body"];
    let verified = run(&[&verify[..], &["-sigfile", "auth.sig"]].concat());
    assert!(verified.0, "{verified:?}");
    fs::write(at("auth.body"), [&auth.body[..], b" "].concat()).unwrap();
    assert!(!run(&[&verify[..], &["-sigfile", "auth.sig"]].concat()).0, "openssl verifies anything");
}
