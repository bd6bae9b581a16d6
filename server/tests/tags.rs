//! What people say about devices, filters that are kept, and other questions about all devices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{Answer, accepted, error, manage, request, server};
use serde_json::{Value, json};
use server_core::Running;

const V1: &str = "/api/management/v1/inventory";
const V2: &str = "/api/management/v2/inventory";
const REPORT: &str = "/api/devices/v1/inventory/device/attributes";

fn tag(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// A change of tags, made only when the tag is that of the device.
fn change(running: &Running, method: &str, id: &str, if_match: Option<&str>, tags: &Value) -> Answer {
    let token = format!("Bearer {}", running.management_token());
    let mut headers = vec![("Authorization", token.as_str())];
    headers.extend(if_match.map(|tag| ("If-Match", tag)));
    request(running, method, &format!("{V1}/devices/{id}/tags"), &headers, tags.to_string().as_bytes())
}

fn tags(running: &Running, id: &str) -> (String, Vec<String>) {
    let answer = manage(running, "GET", &format!("{V1}/devices/{id}"), Value::Null);
    let device = answer.json();
    let attributes = device["attributes"].as_array().unwrap().iter();
    let tags = attributes.filter(|one| one["scope"] == "tags");
    let tags = tags.map(|one| format!("{}={}", one["name"], one["value"]).replace('"', "")).collect();
    (answer.header("ETag").unwrap().to_owned(), tags)
}

fn search(running: &Running, path: &str, body: Value) -> Vec<String> {
    let answer = manage(running, "POST", path, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let found: Vec<String> =
        answer.json().as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(answer.header("X-Total-Count"), Some(found.len().to_string().as_str()));
    found
}

#[test]
fn tags_are_replaced_merged_searched_and_not_overwritten_unseen() {
    let (running, _, _folder) = server(|options| options);
    let (device, a) = accepted(&running, "a");
    let (_, b) = accepted(&running, "b");
    let (none, found) = tags(&running, &a);
    assert!(found.is_empty());
    assert_eq!(
        change(&running, "PUT", &a, None, &json!([tag("site", "north"), tag("rack", "7")])).status,
        200
    );
    let (first, found) = tags(&running, &a);
    assert_eq!(found, ["rack=7", "site=north"]);
    assert_ne!(none, first);
    // What the device does is in nobody's way.
    let report = json!([{ "name": "x", "value": 1 }]).to_string();
    assert_eq!(device.ask(&running, "PUT", REPORT, &report).status, 200);
    assert_ne!(tags(&running, &a).0, first);
    assert_eq!(change(&running, "PATCH", &a, Some(&first), &json!([tag("rack", "8")])).status, 200);
    let late = change(&running, "PUT", &a, Some(&first), &json!([]));
    assert_eq!(error(&late), 412);
    assert_eq!(tags(&running, &a).1, ["rack=8", "site=north"]);

    let filter = json!({ "scope": "tags", "attribute": "rack", "type": "$eq", "value": "8" });
    assert_eq!(
        search(&running, &format!("{V2}/filters/search"), json!({ "filters": [filter] })),
        std::slice::from_ref(&a)
    );
    let order = json!({ "sort": [{ "scope": "tags", "attribute": "rack", "order": "desc" }] });
    assert_eq!(search(&running, &format!("{V2}/filters/search"), order), [a.clone(), b.clone()]);
    let attributes = manage(&running, "GET", &format!("{V2}/filters/attributes"), Value::Null).json();
    let counted = |scope: &str, name: &str| {
        let all = attributes.as_array().unwrap().iter();
        all.filter(|one| one["scope"] == scope && one["name"] == name).map(|one| one["count"].clone()).next()
    };
    assert_eq!(counted("tags", "rack"), Some(json!(1)));
    assert_eq!(counted("identity", "mac"), Some(json!(2)));

    let many: Vec<Value> = (0..21).map(|n| tag(&n.to_string(), "x")).collect();
    assert_eq!(error(&change(&running, "PUT", &a, None, &json!(many))), 400);
    assert_eq!(error(&change(&running, "PUT", &a, None, &json!([tag("", "x")]))), 400);
    assert_eq!(error(&change(&running, "PUT", "none", None, &json!([]))), 404);
    assert_eq!(change(&running, "PUT", &a, None, &json!([])).status, 200);
    assert!(tags(&running, &a).1.is_empty());
}

#[test]
fn a_filter_is_kept_and_is_about_whoever_it_holds_for() {
    let (running, _, _folder) = server(|options| options);
    let (device, a) = accepted(&running, "a");
    accepted(&running, "b");
    let path = format!("{V2}/filters");
    let term = json!({ "scope": "inventory", "attribute": "cpus", "type": "$gt", "value": 2 });
    let made = manage(&running, "POST", &path, json!({ "name": "large", "terms": [term] }));
    assert_eq!(made.status, 201);
    let one = made.header("Location").unwrap().to_owned();
    let id = one.rsplit('/').next().unwrap();
    let known = json!({ "id": id, "name": "large", "terms": [term] });
    assert_eq!(manage(&running, "GET", &one, Value::Null).json(), known);
    assert_eq!(manage(&running, "GET", &path, Value::Null).json(), json!([known]));
    let found = || {
        let found = manage(&running, "GET", &format!("{one}/search"), Value::Null).json();
        found.as_array().unwrap().iter().map(|one| one["id"].clone()).collect::<Vec<_>>()
    };
    assert!(found().is_empty());
    let report = json!([{ "name": "cpus", "value": 4 }]).to_string();
    assert_eq!(device.ask(&running, "PUT", REPORT, &report).status, 200);
    assert_eq!(found(), [json!(a)]);

    assert_eq!(error(&manage(&running, "POST", &path, json!({ "name": "large", "terms": [term] }))), 409);
    for bad in [
        json!({ "name": "", "terms": [term] }),
        json!({ "name": "x", "terms": [] }),
        json!({ "name": "x", "terms": [{ "attribute": "a", "type": "$where", "value": 1 }] }),
        json!({ "name": "x", "terms": [{ "scope": "y", "attribute": "a", "type": "$eq", "value": 1 }] }),
    ] {
        assert_eq!(error(&manage(&running, "POST", &path, bad)), 400);
    }
    let other = json!({ "attribute": "cpus", "type": "$exists", "value": false });
    assert_eq!(manage(&running, "PUT", &one, json!({ "name": "large", "terms": [other] })).status, 204);
    assert_ne!(found(), [json!(a)]);
    assert_eq!(manage(&running, "DELETE", &one, Value::Null).status, 204);
    for method in ["GET", "DELETE"] {
        assert_eq!(error(&manage(&running, method, &one, Value::Null)), 404);
    }
}

#[test]
fn devices_are_found_by_the_beginning_of_an_identity_or_a_tag() {
    let (running, _, _folder) = server(|options| options);
    let (_, a) = accepted(&running, "aa:01");
    let (_, b) = accepted(&running, "aa:02");
    let (_, c) = accepted(&running, "ab:01");
    assert_eq!(change(&running, "PUT", &c, None, &json!([tag("site", "northern")])).status, 200);
    let path = "/api/management/v2alpha1/inventory/identities/search";
    let found = |scope: &str, name: &str, prefix: &str| {
        search(&running, path, json!({ "scope": scope, "name": name, "value_prefix": prefix }))
    };
    let mut both = [a, b];
    both.sort();
    assert_eq!(found("identity", "mac", "aa:"), both);
    assert!(found("identity", "mac", ":0").is_empty());
    assert_eq!(found("tags", "site", "north"), [c]);
    for bad in [
        json!({ "scope": "inventory", "name": "mac", "value_prefix": "a" }),
        json!({ "scope": "identity", "name": "mac", "value_prefix": "" }),
        json!({ "scope": "identity", "name": "mac" }),
    ] {
        assert_eq!(error(&manage(&running, "POST", path, bad)), 400);
    }
}

#[test]
fn devices_are_counted_by_status_and_what_one_reported_can_be_forgotten() {
    let (running, _, _folder) = server(|options| options);
    let (device, a) = accepted(&running, "a");
    let report = json!([{ "name": "cpus", "value": 4 }]).to_string();
    assert_eq!(device.ask(&running, "PUT", REPORT, &report).status, 200);
    let statistics = manage(&running, "GET", &format!("{V2}/statistics"), Value::Null).json();
    let by_status = &statistics["devices_by_status"];
    assert_eq!(by_status["accepted"], json!({ "standard": 1, "micro": 0, "system": 0 }));
    assert_eq!(by_status.as_object().unwrap().len(), 4);
    let path = format!("{V1}/devices/{a}");
    let has_reported = || {
        let device = manage(&running, "GET", &path, Value::Null).json();
        device["attributes"].as_array().unwrap().iter().any(|one| one["scope"] == "inventory")
    };
    assert!(has_reported());
    assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
    assert!(!has_reported());
    assert_eq!(device.ask(&running, "PUT", REPORT, &report).status, 200);
    assert!(has_reported());
    assert_eq!(error(&manage(&running, "DELETE", &format!("{V1}/devices/none"), Value::Null)), 404);
}

#[test]
fn a_report_that_says_nothing_new_has_its_time_all_the_same() {
    let (running, _, _folder) = server(|options| options);
    let (device, a) = accepted(&running, "a");
    let report = json!([{ "name": "cpus", "value": 4 }]).to_string();
    let updated = || {
        assert_eq!(device.ask(&running, "PUT", REPORT, &report).status, 200);
        let device = manage(&running, "GET", &format!("{V1}/devices/{a}"), Value::Null).json();
        device["updated_ts"].as_str().unwrap().to_owned()
    };
    let first = updated();
    let began = std::time::Instant::now();
    while updated() <= first {
        assert!(began.elapsed().as_secs() < 10, "the time of a report stays what it was");
    }
}
