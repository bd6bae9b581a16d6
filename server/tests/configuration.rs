//! Device configuration: kept, within limits, and deployed as an artifact that the server makes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::Cursor;

use crate::common::{Device, accepted, error, manage, request, server};
use artifact::{self, Limits, SignatureStatus, Signer, Trust, VerifyKeys};
use serde_json::{Value, json};
use server_core::{Options, Running, Server};

const PATH: &str = "/api/devices/v1/deviceconfig/configuration";
const MANAGEMENT: &str = "/api/management/v1/deviceconfig/configurations/device";

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A device that has said what it is.
fn known(running: &Running, mac: &str) -> (Device, String) {
    let (device, id) = accepted(running, mac);
    let body = json!([{ "name": "device_type", "value": device.device_type }]).to_string();
    let path = "/api/devices/v1/inventory/device/attributes";
    assert_eq!(device.ask(running, "PUT", path, &body).status, 200);
    (device, id)
}

/// The artifact behind an offer.
fn artifact_of(running: &Running, offer: &Value) -> Vec<u8> {
    let uri = offer["artifact"]["source"]["uri"].as_str().unwrap();
    let path = &uri[uri.find("/download").unwrap()..];
    let answer = request(running, "GET", path, &[], b"");
    assert_eq!(answer.status, 200);
    answer.body
}

#[test]
fn what_is_wanted_and_what_is_reported_are_kept_apart_and_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options::new(folder.path()).auto_accept(true);
    let running = Server::start(options()).unwrap();
    let (device, id) = accepted(&running, "a");
    assert_eq!(device.ask(&running, "GET", PATH, "").json(), json!({}));
    let wanted = json!({ "timezone": "UTC", "led": "on" });
    assert_eq!(manage(&running, "PUT", &format!("{MANAGEMENT}/{id}"), wanted.clone()).status, 204);
    assert_eq!(device.ask(&running, "GET", PATH, "").json(), wanted);
    assert_eq!(device.ask(&running, "PUT", PATH, r#"{"timezone":"CET"}"#).status, 204);
    running.stop();
    let running = Server::start(options()).unwrap();
    let shown = manage(&running, "GET", &format!("{MANAGEMENT}/{id}"), Value::Null).json();
    assert_eq!((&shown["configured"], &shown["reported"]), (&wanted, &json!({ "timezone": "CET" })));
    assert!(shown["updated_ts"].is_string() && shown["reported_ts"].is_string(), "{shown}");
    assert_eq!(shown["id"], *id);
    running.stop();
}

#[test]
fn nonsense_is_refused() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let many: BTreeMap<String, &str> = (0..257).map(|n| (n.to_string(), "")).collect();
    for bad in
        [json!(many), json!({ "": "x" }), json!({ "a": 1 }), json!(["a"]), json!({ "a": "x".repeat(4097) })]
    {
        assert_eq!(error(&manage(&running, "PUT", &format!("{MANAGEMENT}/{id}"), bad.clone())), 400);
        assert_eq!(error(&device.ask(&running, "PUT", PATH, &bad.to_string())), 400);
    }
    assert_eq!(error(&manage(&running, "PUT", &format!("{MANAGEMENT}/nobody"), json!({}))), 404);
    assert_eq!(error(&manage(&running, "POST", &format!("{MANAGEMENT}/nobody/deploy"), json!({}))), 404);
    assert_eq!(request(&running, "GET", PATH, &[], b"").status, 401);
}

#[test]
fn a_deployment_brings_the_configuration_to_its_device_and_to_no_other() {
    let keys = Signer::generate_ed25519(&[7; 32]);
    let private = keys.private.as_bytes().to_vec();
    let (running, management, _folder) = server(|options| options.configuration_key(private));
    let ((device, id), (other, _)) = (known(&running, "a"), known(&running, "b"));
    management.configure(&id, &settings(&[("timezone", "UTC")])).unwrap();
    let deployment = management.deploy_configuration(&id).unwrap();
    assert_eq!(other.next(&running).status, 204);
    let offer = device.next(&running);
    assert_eq!(offer.status, 200);
    let offer = offer.json();
    assert_eq!(offer["id"], *deployment);
    let bytes = artifact_of(&running, &offer);
    // The same bytes each time: a download goes on where it stopped.
    assert_eq!(artifact_of(&running, &offer), bytes);
    let mut trusted = VerifyKeys::default();
    trusted.add_pem("key", keys.public.as_bytes()).unwrap();
    let opened = artifact::open(Cursor::new(bytes), &Trust::Keys(trusted), &Limits::default()).unwrap();
    let artifact::Artifact { header, mut payload, .. } = opened;
    assert_ne!(header.signature, SignatureStatus::Unsigned);
    payload.drain().unwrap();
    let info = header.payload.unwrap();
    assert_eq!(info.payload_type, "mender-configure");
    assert_eq!(info.meta_data.as_deref(), Some(r#"{"timezone":"UTC"}"#));
    assert_eq!(header.depends.device_type.len(), 1);
    assert_eq!(header.depends.device_type[0].as_str(), device.device_type);
    let provides = header.provides.unwrap();
    assert_eq!(provides["data-partition.mender-configure.version"], header.artifact_name.as_str());
    assert_eq!(header.clears_provides.unwrap(), ["data-partition.mender-configure.*"]);
    assert_eq!(management.configuration(&id).unwrap()["deployment_id"], *deployment);
}

#[test]
fn without_a_key_the_artifact_is_not_signed() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = known(&running, "a");
    management.configure(&id, &settings(&[])).unwrap();
    management.deploy_configuration(&id).unwrap();
    let bytes = artifact_of(&running, &device.next(&running).json());
    let opened = artifact::open(Cursor::new(bytes), &Trust::DangerUnsigned, &Limits::default()).unwrap();
    assert_eq!(opened.header.signature, SignatureStatus::Unsigned);
}
