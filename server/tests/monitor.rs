//! What the monitors of devices say: alerts and the list of monitors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use crate::common::{Answer, Device, accepted, manage, request, server};
use serde_json::{Value, json};
use server_core::Running;

const PEOPLE: &str = "/api/management/v1/devicemonitor/devices";

pub(crate) fn send(running: &Running, device: &Device, alerts: &Value) -> Answer {
    device.ask(running, "POST", "/api/devices/v1/devicemonitor/alert", &alerts.to_string())
}

pub(crate) fn alert(subject: &str, level: &str) -> Value {
    json!({
        "name": "watch", "level": level, "timestamp": "2026-01-02T03:04:05Z",
        "subject": {
            "name": subject, "type": "log", "status": "pattern-found",
            "details": { "description": "d", "lines_before": [{ "line_number": 1, "data": "x" }] },
        },
    })
}

/// What people see of alerts, without the two members that the server adds (`id` and `device_id`, as in mender-server at the tag
/// v4.1.0-saas.5): each has an id of its own.
fn raised(answer: &Answer, device: &str) -> Value {
    let mut ids = BTreeSet::new();
    let shown = answer.json();
    let own = |alert: &Value| {
        let mut alert = alert.clone();
        let alert_members = alert.as_object_mut().unwrap();
        assert_eq!(alert_members.remove("device_id"), Some(json!(device)));
        assert!(ids.insert(alert_members.remove("id").unwrap().as_str().unwrap().to_owned()), "{shown}");
        alert
    };
    shown.as_array().unwrap().iter().map(own).collect()
}

/// How many monitors of a device are not well, as its inventory says.
fn alert_count(running: &Running, device: &str) -> Value {
    let path = format!("/api/management/v1/inventory/devices/{device}");
    let shown = manage(running, "GET", &path, Value::Null).json();
    let attributes = shown["attributes"].as_array().unwrap().clone();
    let is_count = |one: &Value| one["scope"] == "monitor" && one["name"] == "alert_count";
    attributes.into_iter().find(is_count).unwrap()["value"].clone()
}

/// The devices that a filter finds for this value of the attribute `alerts`.
fn with_alerts(running: &Running, value: bool) -> Value {
    let body = json!({ "filters": [
        { "scope": "monitor", "attribute": "alerts", "type": "$eq", "value": value },
    ] });
    let found = manage(running, "POST", "/api/management/v2/inventory/filters/search", body);
    assert_eq!(found.status, 200, "{}", found.text());
    found.json().as_array().unwrap().iter().map(|device| device["id"].clone()).collect()
}

#[test]
fn what_a_device_alerts_people_to_is_listed_and_found() {
    let (running, _management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let (_, other) = accepted(&running, "b");
    let ask = |path: &str| manage(&running, "GET", &format!("{PEOPLE}/{path}"), Value::Null);
    assert_eq!(ask(&format!("{id}/alerts")).json(), json!([]));
    assert_eq!(with_alerts(&running, true), json!([]));

    let answer = send(&running, &device, &json!([alert("a", "CRITICAL"), alert("b", "CRITICAL")]));
    assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
    assert_eq!(with_alerts(&running, true), json!([id]));
    assert_eq!(send(&running, &device, &json!([alert("a", "OK")])).status, 204);
    assert_eq!(with_alerts(&running, true), json!([id]), "b is not well yet");

    // The newest first, in pages.
    let page = ask(&format!("{id}/alerts?per_page=2"));
    assert_eq!(raised(&page, &id), json!([alert("a", "OK"), alert("b", "CRITICAL")]));
    assert_eq!(page.header("X-Total-Count"), Some("3"));
    let rest = ask(&format!("{id}/alerts?per_page=2&page=2"));
    assert_eq!(raised(&rest, &id), json!([alert("a", "CRITICAL")]));
    let oldest = ask(&format!("{id}/alerts?sort_ascending=true&per_page=1&issued_after=1000000000"));
    assert_eq!(raised(&oldest, &id), json!([alert("a", "CRITICAL")]));
    assert_eq!(ask(&format!("{id}/alerts?issued_before=2001-09-09T00:00:00Z")).json(), json!([]));
    // Of those that are known last, the oldest comes first.
    let latest = ask(&format!("{id}/alerts/latest"));
    assert_eq!(raised(&latest, &id), json!([alert("b", "CRITICAL"), alert("a", "OK")]));
    let latest = ask(&format!("{id}/alerts/latest?level_from=CRITICAL"));
    assert_eq!(raised(&latest, &id), json!([alert("b", "CRITICAL")]));
    for query in ["alerts?issued_after=x", "alerts?sort_ascending=1", "alerts/latest?level_from=BAD"] {
        assert_eq!(ask(&format!("{id}/{query}")).status, 400, "{query}");
    }
    assert_eq!(alert_count(&running, &id), json!(1));
    assert_eq!(send(&running, &device, &json!([alert("b", "OK")])).status, 204);
    assert_eq!((with_alerts(&running, true), with_alerts(&running, false)), (json!([]), json!([id])));

    let monitors = json!([{ "name": "sshd", "status": "enabled", "type": "service" }]);
    let path = "/api/devices/v1/devicemonitor/config";
    assert_eq!(device.ask(&running, "PUT", path, &monitors.to_string()).status, 204);
    assert_eq!(ask(&format!("{id}/config")).json(), monitors);
    // Nobody else's, and of nobody.
    assert_eq!(ask(&format!("{other}/alerts/latest")).json(), json!([]));
    assert_eq!(ask("nobody/alerts").status, 404);
    assert_eq!(ask(&format!("{id}/else")).status, 404);
    assert_eq!(request(&running, "GET", &format!("{PEOPLE}/{id}/alerts"), &[], b"").status, 401);
}

#[test]
fn alerts_that_are_none_are_refused_and_change_nothing() {
    let (running, _management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let with = |pointer: &str, value: Value| {
        let mut alert = alert("a", "CRITICAL");
        *alert.pointer_mut(pointer).unwrap() = value;
        json!([alert])
    };
    for (alerts, named) in [
        (json!({}), "not as expected"),
        (json!([{ "name": "x" }]), "level"),
        (with("/level", json!("BAD")), "BAD"),
        (with("/subject/name", json!("x".repeat(257))), "256 characters"),
        (with("/subject/details/description", json!("x".repeat(20_000))), "16384 bytes"),
        (Value::Array(vec![alert("a", "OK"); 101]), "100 alerts"),
    ] {
        let answer = send(&running, &device, &alerts);
        assert_eq!((answer.status, answer.text().contains(named)), (400, true), "{}", answer.text());
    }
    let monitors = Value::Array(vec![json!({ "name": "x", "status": "enabled", "type": "log" }); 51]);
    let path = "/api/devices/v1/devicemonitor/config";
    assert_eq!(device.ask(&running, "PUT", path, &monitors.to_string()).status, 400);
    let nobody = Device::new("b");
    assert_eq!(send(&running, &nobody, &json!([alert("a", "OK")])).status, 401);
    let listed = manage(&running, "GET", &format!("{PEOPLE}/{id}/alerts"), Value::Null);
    assert_eq!((listed.json(), with_alerts(&running, true)), (json!([]), json!([])));
}

#[test]
fn alerts_that_are_well_make_room_for_those_that_are_not() {
    let (running, _management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    assert_eq!(send(&running, &device, &json!([alert("critical", "CRITICAL")])).status, 204);
    for n in 0..60 {
        assert_eq!(send(&running, &device, &json!([alert(&n.to_string(), "OK")])).status, 204);
    }
    assert_eq!(with_alerts(&running, true), json!([id]));
    let latest = manage(&running, "GET", &format!("{PEOPLE}/{id}/alerts/latest?per_page=100"), Value::Null);
    let latest = latest.json();
    let latest = latest.as_array().unwrap();
    assert_eq!((latest.len(), &latest[0]["level"]), (50, &json!("CRITICAL")));
}
