//! What devices report, groups, and searches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{Answer, Device, accepted, error, manage, request, server};
use serde_json::{Value, json};
use server_core::Running;

const PATH: &str = "/api/devices/v1/inventory/device/attributes";
const V1: &str = "/api/management/v1/inventory";
const V2: &str = "/api/management/v2/inventory";

fn report(running: &Running, device: &Device, method: &str, body: &Value) -> Answer {
    device.ask(running, method, PATH, &(body.to_string() + "\n"))
}

#[test]
fn a_report_replaces_and_a_patch_adds() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let all =
        json!([{ "name": "hostname", "value": "box1" }, { "name": "ip", "value": ["10.0.0.1", "10.0.0.2"] }]);
    let answer = report(&running, &device, "PUT", &all);
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    let some = json!([{ "name": "hostname", "value": "box2" }, { "name": "cpus", "value": 4, "description": "number" }]);
    assert_eq!(report(&running, &device, "PATCH", &some).status, 200);
    let names = || {
        let known = management.inventory(&id).unwrap();
        let reported = known.iter().filter(|attribute| attribute["scope"] == "inventory");
        reported
            .map(|attribute| format!("{}={}", attribute["name"], attribute["value"]))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(names(), r#""cpus"=4 "hostname"="box2" "ip"=["10.0.0.1","10.0.0.2"]"#);
    assert_eq!(report(&running, &device, "PUT", &json!([{ "name": "x", "value": "1" }])).status, 200);
    assert_eq!(names(), r#""x"="1""#);
}

#[test]
fn reports_have_limits() {
    let (running, _, _folder) = server(|options| options);
    let (device, _) = accepted(&running, "a");
    let many = |count: usize| {
        Value::from((0..count).map(|n| json!({ "name": n.to_string(), "value": "x" })).collect::<Vec<_>>())
    };
    assert_eq!(report(&running, &device, "PUT", &many(100)).status, 200);
    assert_eq!(error(&report(&running, &device, "PUT", &many(101))), 400);
    let named = |name: &str, value: Value| json!([{ "name": name, "value": value }]);
    assert_eq!(report(&running, &device, "PUT", &named(&"x".repeat(1024), json!("a"))).status, 200);
    for bad in [
        named(&"x".repeat(1025), json!("a")),
        named("", json!("a")),
        named("a", json!(null)),
        named("a", json!({ "b": 1 })),
        named("a", json!(["a", 1])),
        named("a", json!([["a"]])),
        json!({ "name": "a", "value": "b" }),
        json!([{ "name": "a" }]),
        json!("a"),
    ] {
        assert_eq!(error(&report(&running, &device, "PUT", &bad)), 400, "{bad}");
    }
    assert_eq!(error(&report(&running, &device, "PUT", &named("a", json!("x".repeat(1024 * 1024))))), 413);
}

#[test]
fn groups_have_devices() {
    let (running, management, _folder) = server(|options| options);
    let (_, a) = accepted(&running, "a");
    let (_, b) = accepted(&running, "b");
    let ask = |method: &str, path: &str, body: Value| manage(&running, method, &format!("{V1}/{path}"), body);
    management.set_group(&a, "east").unwrap();
    assert_eq!(ask("GET", &format!("devices/{a}/group"), Value::Null).json(), json!({ "group": "east" }));
    assert_eq!(ask("GET", &format!("devices/{b}/group"), Value::Null).json(), json!({ "group": null }));
    let added = ask("PATCH", "groups/east/devices", json!([a, b, "none"]));
    assert_eq!(added.json(), json!({ "updated_count": 1, "matched_count": 2 }));
    assert_eq!(ask("GET", "groups", Value::Null).json(), json!(["east"]));
    assert_eq!(ask("GET", "groups/east/devices", Value::Null).json().as_array().unwrap().len(), 2);
    assert_eq!(ask("GET", "devices?group=east", Value::Null).json().as_array().unwrap().len(), 2);
    assert_eq!(ask("DELETE", &format!("devices/{a}/group/west"), Value::Null).status, 404);
    assert_eq!(ask("DELETE", &format!("devices/{a}/group/east"), Value::Null).status, 204);
    assert_eq!(ask("GET", "devices?has_group=false", Value::Null).json().as_array().unwrap().len(), 1);
    let removed = ask("DELETE", "groups/east/devices", json!([a, b]));
    assert_eq!(removed.json(), json!({ "updated_count": 1, "matched_count": 1 }));
    assert_eq!(ask("DELETE", "groups/east", Value::Null).status, 404);
    assert_eq!(error(&ask("PUT", &format!("devices/{a}/group"), json!({ "group": "no/slash" }))), 400);
    assert_eq!(error(&ask("PUT", "devices/none/group", json!({ "group": "east" }))), 404);
    assert_eq!(error(&ask("GET", "devices/none", Value::Null)), 404);
}

#[test]
fn devices_are_found_by_what_they_report() {
    let (running, _, _folder) = server(|options| options);
    for (mac, kernel, cpus) in [("a", "6.1", 2), ("b", "6.6", 4), ("c", "5.10", 8)] {
        let (device, _) = accepted(&running, mac);
        let body = json!([{ "name": "kernel", "value": kernel }, { "name": "cpus", "value": cpus }]);
        report(&running, &device, "PUT", &body);
    }
    let search = |filters: Value, sort: &str| {
        let body = json!({
            "filters": filters,
            "sort": [{ "scope": "inventory", "attribute": "cpus", "order": sort }],
            "attributes": [{ "scope": "identity", "attribute": "mac" }],
        });
        let answer = manage(&running, "POST", &format!("{V2}/filters/search"), body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let found = answer.json();
        let macs = found
            .as_array()
            .unwrap()
            .iter()
            .map(|device| device["attributes"][0]["value"].as_str().unwrap().to_owned());
        macs.collect::<String>()
    };
    let one = |kind: &str, attribute: &str, value: Value| json!([{ "scope": "inventory", "attribute": attribute, "type": kind, "value": value }]);
    assert_eq!(search(json!([]), "desc"), "cba");
    assert_eq!(search(one("$regex", "kernel", json!("6\\.")), "asc"), "ab");
    assert_eq!(search(one("$gt", "cpus", json!(2)), "asc"), "bc");
    assert_eq!(search(one("$nin", "kernel", json!(["6.1"])), "asc"), "bc");
    let mac = json!([{ "scope": "identity", "attribute": "mac", "type": "$eq", "value": "b" }]);
    assert_eq!(search(mac, "asc"), "b");
    let bad = json!({ "filters": one("$where", "kernel", json!("1")) });
    assert_eq!(error(&manage(&running, "POST", &format!("{V2}/filters/search"), bad)), 400);
    let known = manage(&running, "GET", &format!("{V2}/filters/attributes"), Value::Null).json();
    assert!(known.as_array().unwrap().iter().any(|attribute| attribute["name"] == "kernel"));
}

#[test]
fn a_device_does_not_give_itself_a_status() {
    let (running, management, _folder) = server(|options| options);
    let (_, accepted_id) = accepted(&running, "a");
    let mut liar = Device::new("b");
    for (name, status) in [("b", json!("accepted")), ("c", json!(["accepted"])), ("d", json!("rejected"))] {
        liar.identity = json!({ "mac": name, "status": status });
        assert_eq!(liar.authenticate(&running).status, 401);
    }
    let found = |kind: &str, value: Value| {
        let filter = json!({ "scope": "identity", "attribute": "status", "type": kind, "value": value });
        let answer =
            manage(&running, "POST", &format!("{V2}/filters/search"), json!({ "filters": [filter] })).json();
        answer.as_array().unwrap().iter().map(|device| device["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("$eq", json!("accepted")), [json!(accepted_id)]);
    assert_eq!(found("$in", json!(["accepted"])), [json!(accepted_id)]);
    assert_eq!(found("$regex", json!("acc")), [json!(accepted_id)]);
    assert_eq!(found("$eq", json!("pending")).len(), 3);
    assert_eq!(found("$eq", json!("rejected")).len(), 0);
    // Its identity is what it is.
    let devices = management.devices().unwrap();
    assert_eq!(devices.iter().filter(|device| device.identity_data.get("status").is_some()).count(), 3);
}

#[test]
fn long_answers_are_compressed_only_when_that_is_asked_for() {
    let (running, _, _folder) = server(|options| options);
    for number in 0..10 {
        accepted(&running, &number.to_string());
    }
    let token = format!("Bearer {}", running.management_token());
    let path = "/api/management/v2/devauth/devices";
    let plain = request(&running, "GET", path, &[("Authorization", &token)], b"");
    assert_eq!(plain.header("content-encoding"), None);
    let packed =
        request(&running, "GET", path, &[("Authorization", &token), ("Accept-Encoding", "gzip")], b"");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.body.as_slice()), &mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.body);
}

#[test]
fn a_kept_filter_that_is_taken_away_does_not_come_back_and_its_name_is_free() {
    let (running, _, _folder) = server(|options| options);
    let filters = format!("{V2}/filters");
    let term = json!({ "scope": "inventory", "attribute": "a", "type": "$eq", "value": "b" });
    let body = |name: &str| json!({ "name": name, "terms": [term] });
    for _ in 0..40 {
        let made = manage(&running, "POST", &filters, body("first"));
        assert_eq!(made.status, 201, "{}", made.text());
        let one = format!("{filters}/{}", made.header("location").unwrap().rsplit('/').next().unwrap());
        assert_eq!(manage(&running, "PUT", &one, body("second")).status, 204);
        std::thread::scope(|scope| {
            let changed = scope.spawn(|| manage(&running, "PUT", &one, body("third")).status);
            assert_eq!(manage(&running, "DELETE", &one, Value::Null).status, 204);
            let changed = changed.join().unwrap();
            assert!([204, 404].contains(&changed), "{changed}");
        });
        assert_eq!(manage(&running, "GET", &one, Value::Null).status, 404);
        assert_eq!(manage(&running, "PUT", &one, body("third")).status, 404);
    }
    assert_eq!(manage(&running, "GET", &filters, Value::Null).json(), json!([]));
}

#[test]
fn a_number_is_found_however_it_was_written() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let body = r#"[{ "name": "count", "value": 1e1 }, { "name": "rates", "value": [0.5, -0.0] }]"#;
    assert_eq!(device.ask(&running, "PUT", "/api/devices/v1/inventory/device/attributes", body).status, 200);
    for (name, kind, value) in [
        ("count", "$eq", json!(10)),
        ("count", "$eq", json!(10.0)),
        ("count", "$in", json!([9, 10.0])),
        ("rates", "$eq", json!(0)),
        ("rates", "$eq", json!(0.5)),
    ] {
        let filter = json!({ "scope": "inventory", "attribute": name, "type": kind, "value": value });
        let found = manage(&running, "POST", &format!("{V2}/filters/search"), json!({ "filters": [filter] }));
        assert_eq!(found.json()[0]["id"], id, "{name} {kind} {value}");
    }
}
