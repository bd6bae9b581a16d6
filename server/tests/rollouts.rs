//! Roll-outs over HTTP: phases, retries, dynamic groups, what stops them, and why a device has not got its update.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};
use server_core::Running;

use crate::common::{Device, accepted, artifact, error, manage, request, server};
use crate::monitor::{alert, send};

const DEPLOYMENTS: &str = "/api/management/v1/deployments/deployments";
const SECOND: &str = "/api/management/v2/deployments/deployments";

fn fleet(running: &Running, count: usize) -> Vec<(Device, String)> {
    (0..count).map(|number| accepted(running, &format!("device {number}"))).collect()
}

/// The id of a deployment for all devices, with these fields.
fn order(running: &Running, fields: Value) -> String {
    let mut body = json!({ "name": "n", "artifact_name": "release-2", "all_devices": true });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let made = manage(running, "POST", SECOND, body);
    assert_eq!(made.status, 201, "{}", made.text());
    made.header("location").unwrap().rsplit('/').next().unwrap().to_owned()
}

fn shown(running: &Running, id: &str) -> Value {
    manage(running, "GET", &format!("{SECOND}/{id}"), Value::Null).json()
}

fn report(running: &Running, device: &Device, deployment: &str, status: &str) -> u16 {
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/status");
    device.ask(running, "PUT", &path, &json!({ "status": status }).to_string()).status
}

fn why(running: &Running, device: &str) -> String {
    let answer = manage(running, "GET", &format!("{DEPLOYMENTS}/devices/{device}/why"), Value::Null).json();
    answer["deployments"][0]["code"].as_str().unwrap_or("nothing").to_owned()
}

#[test]
fn as_many_devices_begin_as_a_phase_has_room_for() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 4);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let later = "2099-01-01T00:00:00Z";
    let id = order(&running, json!({ "phases": [{ "batch_size": 50 }, { "start_ts": later }] }));
    let statuses: Vec<u16> = devices.iter().map(|(device, _)| device.next(&running).status).collect();
    assert_eq!(statuses, [200, 200, 204, 204]);
    // Who has begun goes on.
    assert_eq!(devices[0].0.next(&running).status, 200);
    let phases = shown(&running, &id)["phases"].clone();
    assert_eq!((&phases[0]["device_count"], &phases[1]["device_count"]), (&json!(2), &json!(0)));
    assert_eq!(why(&running, &devices[3].1), "phase");
    let record = manage(&running, "GET", &format!("{DEPLOYMENTS}/{id}/devices/list"), Value::Null).json();
    assert_eq!(record[0]["phase_id"], phases[0]["id"]);
}

#[test]
fn a_roll_out_that_begins_later_is_scheduled() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 1);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let id = order(&running, json!({ "phases": [{ "start_ts": "2099-01-01T00:00:00Z" }] }));
    assert_eq!(devices[0].0.next(&running).status, 204);
    assert_eq!(shown(&running, &id)["status"], "scheduled");
    let listed = |status: &str| {
        manage(&running, "GET", &format!("{SECOND}?status={status}"), Value::Null)
            .json()
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((listed("scheduled"), listed("pending"), listed("inprogress")), (1, 0, 0));
}

#[test]
fn phases_that_make_no_sense_are_refused() {
    let (running, management, _folder) = server(|options| options);
    fleet(&running, 2);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    for phases in [
        json!([{ "batch_size": 0 }]),
        json!([{ "batch_size": 101 }]),
        json!([{ "batch_size": 10, "batch_size_devices": 1 }]),
        json!([{ "batch_size": 10 }, { "start_ts": "2099-01-01T00:00:00Z", "batch_size_devices": 1 }]),
        json!([{ "batch_size": 10 }, {}]),
        json!([{}, { "start_ts": "2099-01-01T00:00:00Z" }]),
        json!([{ "batch_size_devices": 3 }]),
        json!([{ "start_ts": "tomorrow" }]),
        json!([{ "batch": 3 }]),
    ] {
        let body =
            json!({ "name": "n", "artifact_name": "release-2", "all_devices": true, "phases": phases });
        assert_eq!(error(&manage(&running, "POST", DEPLOYMENTS, body)), 400, "{phases}");
    }
    assert!(management.deployments().unwrap().is_empty());
}

#[test]
fn a_deployment_that_is_refused_names_the_member_that_is_wrong() {
    let (running, management, _folder) = server(|options| options);
    let (_, device) = fleet(&running, 1).remove(0);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    for (field, members) in [
        ("artifact_name", json!({ "artifact_name": "no such release" })),
        ("name", json!({ "name": "" })),
        ("devices", json!({ "devices": ["nobody"] })),
        ("devices", json!({ "devices": [] })),
        ("devices", json!({ "all_devices": true })),
        ("filter_id", json!({ "devices": null, "filter_id": "none" })),
        ("max_devices", json!({ "max_devices": 1 })),
        ("retries", json!({ "retries": 101 })),
        ("update_control_map", json!({ "update_control_map": 1 })),
        ("phases", json!({ "phases": [{ "batch_size": 101 }] })),
        ("stop", json!({ "rust_ota": { "stop": [{ "action": "hold" }] } })),
        ("windows", json!({ "rust_ota": { "windows": { "open": [] } } })),
        ("budget", json!({ "rust_ota": { "budget": {} } })),
        ("canaries", json!({ "rust_ota": { "canaries": { "count": 0 } } })),
    ] {
        let mut body = json!({ "name": "n", "artifact_name": "release-2", "devices": [&device] });
        for (name, value) in members.as_object().unwrap() {
            body[name] = value.clone();
        }
        let refused = manage(&running, "POST", DEPLOYMENTS, body);
        assert!(matches!(refused.status, 400 | 422), "{field}: {}", refused.status);
        let said = refused.json();
        assert_eq!(said["field"], field, "{said}");
    }
}

#[test]
fn a_device_tries_again_as_often_as_it_may() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 1);
    let (device, id) = &devices[0];
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = order(&running, json!({ "retries": 1 }));
    assert_eq!(device.next(&running).status, 200);
    assert_eq!(report(&running, device, &deployment, "failure"), 204);
    assert_eq!(why(&running, id), "retry");
    assert_eq!(device.next(&running).status, 200);
    assert_eq!(report(&running, device, &deployment, "failure"), 204);
    assert_eq!(device.next(&running).status, 204);
    let record =
        manage(&running, "GET", &format!("{DEPLOYMENTS}/{deployment}/devices/list"), Value::Null).json();
    assert_eq!((&record[0]["status"], &record[0]["attempts"]), (&json!("failure"), &json!(1)));
    assert_eq!(shown(&running, &deployment)["status"], "finished");
}

#[test]
fn devices_that_a_filter_finds_get_it_whenever_they_come() {
    let (running, management, _folder) = server(|options| options);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let filters = "/api/management/v2/inventory/filters";
    let terms = json!([{ "scope": "inventory", "attribute": "place", "type": "$eq", "value": "east" }]);
    let made = manage(&running, "POST", filters, json!({ "name": "east", "terms": terms }));
    assert_eq!(made.status, 201, "{}", made.text());
    let filter = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let body = json!({
        "name": "n", "artifact_name": "release-2", "filter_id": filter, "max_devices": 2,
        "phases": [{ "batch_size_devices": 1 }, { "start_ts": "2026-01-01T00:00:00Z" }],
    });
    let made = manage(&running, "POST", SECOND, body);
    assert_eq!(made.status, 201, "{}", made.text());
    let id = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let devices = fleet(&running, 4);
    let inventory = "/api/devices/v1/inventory/device/attributes";
    for (at, (device, _)) in devices.iter().enumerate() {
        let place = if at == 0 { "west" } else { "east" };
        let body = json!([{ "name": "place", "value": place }]).to_string();
        assert_eq!(device.ask(&running, "PUT", inventory, &body).status, 200);
    }
    let statuses: Vec<u16> = devices.iter().map(|(device, _)| device.next(&running).status).collect();
    assert_eq!(statuses, [204, 200, 200, 204]);
    let deployment = shown(&running, &id);
    assert_eq!((&deployment["dynamic"], &deployment["device_count"]), (&json!(true), &json!(2)));
    for (device, _) in &devices[1..3] {
        assert_eq!(report(&running, device, &id, "success"), 204);
    }
    assert_eq!(shown(&running, &id)["status"], "finished");
}

#[test]
fn behind_the_failure_that_crosses_the_line_nobody_begins() {
    for (action, after) in [("hold", "inprogress"), ("abort", "finished")] {
        let (running, management, _folder) = server(|options| options);
        let devices = fleet(&running, 4);
        management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
        let stop = json!([{ "failed_devices": 1, "action": action }]);
        let id = order(&running, json!({ "rust_ota": { "stop": stop } }));
        for (device, _) in &devices[..2] {
            assert_eq!(device.next(&running).status, 200);
            assert_eq!(report(&running, device, &id, "failure"), 204);
        }
        assert_eq!(devices[2].0.next(&running).status, 204, "{action}");
        let deployment = shown(&running, &id);
        assert_eq!(deployment["status"], after);
        assert_eq!(deployment["held"], "2 devices have failed, more than 1");
        if action == "hold" {
            assert_eq!(why(&running, &devices[2].1), "held");
            let go_on = manage(
                &running,
                "PUT",
                &format!("{DEPLOYMENTS}/{id}/status"),
                json!({ "status": "inprogress" }),
            );
            assert_eq!(go_on.status, 204);
            assert_eq!(devices[2].0.next(&running).status, 200);
        } else {
            assert_eq!(deployment["statistics"]["status"]["aborted"], 2);
        }
    }
}

#[test]
fn behind_the_alert_that_crosses_the_line_no_phase_begins() {
    let past = "2020-01-01T00:00:00Z";
    for (action, after) in [("hold", "inprogress"), ("abort", "finished")] {
        let (running, management, _folder) = server(|options| options);
        let devices = fleet(&running, 3);
        let (stranger, _) = accepted(&running, "stranger");
        let ids: Vec<&String> = devices.iter().map(|(_, id)| id).collect();
        management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
        let phases = json!([{ "batch_size_devices": 1, "start_ts": past }, { "start_ts": past }]);
        let stop = json!([{ "alerted_devices": 0, "within_seconds": 3600, "action": action }]);
        let id = order(
            &running,
            json!({ "all_devices": false, "devices": ids, "phases": phases, "rust_ota": { "stop": stop } }),
        );
        let device = &devices[0].0;
        assert_eq!(device.next(&running).status, 200);
        let raise = |device: &Device, level: &str| {
            assert_eq!(send(&running, device, &json!([alert("disk", level)])).status, 204);
        };
        // Before the device has got it, from another device, and that all is well: nothing stops it.
        raise(device, "CRITICAL");
        raise(&stranger, "CRITICAL");
        assert_eq!(report(&running, device, &id, "success"), 204);
        raise(device, "OK");
        assert_eq!(shown(&running, &id)["held"], Value::Null);
        raise(device, "CRITICAL");
        raise(device, "OK");
        assert_eq!(devices[1].0.next(&running).status, 204, "{action}");
        let deployment = shown(&running, &id);
        assert_eq!((&deployment["status"], &deployment["rust_ota"]["stop"]), (&json!(after), &stop));
        let reason = "1 device has raised a critical alert within 3600 seconds after the update, more than 0";
        assert_eq!(deployment["held"], reason);
        if action == "hold" {
            let path = format!("{DEPLOYMENTS}/devices/{}/why", devices[1].1);
            let answer = manage(&running, "GET", &path, Value::Null).json();
            let why = &answer["deployments"][0];
            let text = format!("the deployment is held: {reason}");
            assert_eq!((&why["code"], &why["reason"]), (&json!("held"), &json!(text)));
            let path = format!("{DEPLOYMENTS}/{id}/status");
            assert_eq!(manage(&running, "PUT", &path, json!({ "status": "inprogress" })).status, 204);
            raise(device, "CRITICAL");
            assert_eq!(devices[1].0.next(&running).status, 200, "that device has been counted");
        } else {
            assert_eq!(deployment["statistics"]["status"]["aborted"], 2);
        }
    }
}

#[test]
fn stop_rules_that_make_no_sense_are_refused_and_a_dry_run_says_so_too() {
    let (running, management, _folder) = server(|options| options);
    fleet(&running, 1);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let order = |path: &str, rule: Value| {
        let body = json!({
            "name": "n", "artifact_name": "release-2", "all_devices": true, "rust_ota": { "stop": [rule] },
        });
        manage(&running, "POST", &format!("{DEPLOYMENTS}{path}"), body)
    };
    for rule in [
        json!({ "action": "hold" }),
        json!({ "alerted_devices": 1, "failed_devices": 1, "action": "hold" }),
        json!({ "alerted_percent": 100, "action": "hold" }),
        json!({ "alerted_devices": 1, "after_devices": 1, "action": "hold" }),
        json!({ "alerted_devices": 1, "within_seconds": 0, "action": "hold" }),
        json!({ "alerted": 1, "action": "hold" }),
        json!({ "alerted_devices": -1, "action": "hold" }),
        json!({ "alerted_devices": 1 }),
    ] {
        for path in ["", "/dry_run"] {
            assert_eq!(error(&order(path, rule.clone())), 400, "{path} {rule}");
        }
    }
    let rule = json!({ "alerted_percent": 5, "within_seconds": 60, "after_devices": 10, "action": "abort" });
    assert_eq!(order("/dry_run", rule.clone()).status, 200);
    assert_eq!(order("", rule).status, 201);
}

#[test]
fn a_device_that_understands_it_is_given_the_update_control_map() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 1);
    let device = &devices[0].0;
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let map = json!({ "priority": 1, "states": { "ArtifactReboot_Enter": { "action": "pause" } } });
    let id = order(&running, json!({ "update_control_map": map }));
    let body = json!({
        "device_provides": { "artifact_name": "release-1", "device_type": "testdev" },
        "update_control_map": true,
    });
    let next = "/api/devices/v2/deployments/device/deployments/next";
    let answer = device.ask(&running, "POST", next, &body.to_string()).json();
    assert_eq!(answer["update_control_map"]["states"], map["states"]);
    assert_eq!(answer["update_control_map"]["id"], json!(id));
    let changed =
        manage(&running, "PATCH", &format!("{DEPLOYMENTS}/{id}"), json!({ "update_control_map": {} }));
    assert_eq!(changed.status, 204, "{}", changed.text());
    let path = format!("/api/devices/v1/deployments/device/deployments/{id}/update_control_map");
    assert_eq!(device.ask(&running, "GET", &path, "").json()["update_control_map"], json!({ "id": id }));
}

#[test]
fn an_abort_reaches_devices_that_have_begun_and_those_that_have_not() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 3);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let id = order(&running, json!({}));
    assert_eq!(devices[0].0.next(&running).status, 200);
    assert_eq!(devices[1].0.next(&running).status, 200);
    assert_eq!(report(&running, &devices[1].0, &id, "success"), 204);
    let aborted =
        manage(&running, "PUT", &format!("{DEPLOYMENTS}/{id}/status"), json!({ "status": "aborted" }));
    assert_eq!(aborted.status, 204);
    assert_eq!(report(&running, &devices[0].0, &id, "installing"), 409);
    assert!(devices.iter().all(|(device, _)| device.next(&running).status == 204));
    let counts = shown(&running, &id)["statistics"]["status"].clone();
    assert_eq!(
        (&counts["aborted"], &counts["success"], &counts["pending"]),
        (&json!(2), &json!(1), &json!(0))
    );
    let listed = |status: &str| {
        let path = format!("{DEPLOYMENTS}/{id}/devices/list?status={status}");
        manage(&running, "GET", &path, Value::Null).json().as_array().unwrap().len()
    };
    assert_eq!((listed("aborted"), listed("success"), listed("pending")), (2, 1, 0));
}

#[test]
fn who_has_not_seen_the_last_change_of_a_deployment_is_refused() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 1);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let id = order(&running, json!({}));
    let tag = |version: &str| {
        let answer = manage(&running, "GET", &format!("{version}/{id}"), Value::Null);
        answer.header("etag").unwrap().to_owned()
    };
    let put = |method: &str, path: &str, body: Value, seen: &str| {
        let token = format!("Bearer {}", running.management_token());
        let headers = [("Authorization", token.as_str()), ("If-Match", seen)];
        let path = format!("{DEPLOYMENTS}/{id}{path}");
        request(&running, method, &path, &headers, body.to_string().as_bytes()).status
    };
    let map = |priority: u8| json!({ "update_control_map": { "priority": priority } });
    let (first, second) = (tag(DEPLOYMENTS), tag(SECOND));
    // What devices do in between is in nobody's way.
    assert_eq!(devices[0].0.next(&running).status, 200);
    assert_ne!(tag(DEPLOYMENTS), first);
    assert_eq!(put("PATCH", "", map(1), &first), 204);
    assert_eq!(put("PATCH", "", map(2), &first), 412);
    assert_eq!(put("PUT", "/status", json!({ "status": "held" }), &second), 412);
    assert_eq!(put("PUT", "/status", json!({ "status": "held" }), &tag(SECOND)), 204);
    assert_eq!(put("PUT", "/status", json!({ "status": "aborted" }), "\"x\", *"), 204);
    let deployment = shown(&running, &id);
    assert_eq!(
        (&deployment["update_control_map"]["priority"], &deployment["status"]),
        (&json!(1), &json!("finished"))
    );
}

#[test]
fn equal_deployments_that_are_made_at_once_are_one() {
    let (running, management, _folder) = server(|options| options);
    fleet(&running, 1);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let body = json!({ "name": "n", "artifact_name": "release-2", "all_devices": true });
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let make = || manage(&running, "POST", DEPLOYMENTS, body.clone()).status;
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    let made = management.deployments().unwrap();
    assert_eq!(made.len(), 1);
    let refused = manage(&running, "POST", DEPLOYMENTS, body.clone()).json();
    assert_eq!(refused["deployment_id"], made[0]["id"], "{refused}");
}

fn tell(running: &Running, device: &Device, attributes: &[(&str, &str)]) {
    let body: Vec<Value> =
        attributes.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
    let path = "/api/devices/v1/inventory/device/attributes";
    assert_eq!(device.ask(running, "PUT", path, &json!(body).to_string()).status, 200);
}

#[test]
fn a_dry_run_says_who_would_get_what_and_makes_nothing() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 6);
    for (at, device_type, installed) in [
        (0, "testdev", "release-1"),
        (1, "testdev", "release-1"),
        (2, "other", "release-1"),
        (3, "strange", "release-1"),
        (4, "testdev", "release-2"),
    ] {
        tell(&running, &devices[at].0, &[("device_type", device_type), ("artifact_name", installed)]);
    }
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    management.upload_artifact(artifact("release-2", "other").path()).unwrap();
    order(&running, json!({ "name": "before", "devices": [devices[0].1], "all_devices": false }));
    let later = "2099-01-01T00:00:00.000Z";
    let ids: Vec<&String> = devices.iter().map(|(_, id)| id).chain([&devices[0].1]).collect();
    let mut named = json!(ids);
    named.as_array_mut().unwrap().push(json!("none"));
    let body = json!({
        "name": "n", "artifact_name": "release-2", "devices": named,
        "phases": [{ "batch_size": 50 }, { "start_ts": later }],
    });
    let path = format!("{DEPLOYMENTS}/dry_run");
    let answer = manage(&running, "POST", &path, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let kept: Vec<Value> = manage(&running, "GET", "/api/management/v1/deployments/artifacts", Value::Null)
        .json()
        .as_array()
        .unwrap()
        .clone();
    let size = |device_type: &str| {
        let of_type = |one: &&Value| one["device_types_compatible"][0] == device_type;
        kept.iter().find(of_type).unwrap()["size"].as_u64().unwrap()
    };
    assert_eq!((&answer["device_count"], &answer["devices"]), (&json!(6), &json!(3)));
    assert_eq!(answer["bytes"], 2 * size("testdev") + size("other"));
    let mut given: Vec<(u64, &str)> = answer["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["devices"].as_u64().unwrap(), one["kind"].as_str().unwrap()))
        .collect();
    given.sort_unstable();
    assert_eq!(given, [(1, "full"), (2, "full")]);
    let without: Vec<(&str, &Value)> = answer["without"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["code"].as_str().unwrap(), &one["examples"]))
        .collect();
    let example = |at: usize| json!([devices[at].1]);
    assert_eq!(
        without,
        [
            ("already-installed", &example(4)),
            ("not-reported", &example(5)),
            ("wrong-type", &example(3)),
            ("unknown", &json!(["none"])),
        ]
    );
    assert_eq!(answer["other_deployments"][0]["examples"], example(0));
    assert_eq!(answer["phases"], json!([{ "device_count": 3 }, { "device_count": 3, "start_ts": later }]));
    // Of a filter, those for which it holds now.
    let terms =
        json!([{ "scope": "inventory", "attribute": "device_type", "type": "$eq", "value": "testdev" }]);
    let filters = "/api/management/v2/inventory/filters";
    let made = manage(&running, "POST", filters, json!({ "name": "f", "terms": terms }));
    let filter = made.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    let body = json!({ "name": "n", "artifact_name": "release-2", "filter_id": filter, "max_devices": 2 });
    let answer = manage(&running, "POST", &path, body.clone()).json();
    assert_eq!((&answer["device_count"], &answer["devices"]), (&json!(2), &json!(2)), "{answer}");
    assert_eq!(answer["without"][0]["code"], "already-installed");
    assert_eq!(management.deployments().unwrap().len(), 1);
    // The first version makes it as well, and then it is there.
    let made = manage(&running, "POST", DEPLOYMENTS, body.clone());
    assert_eq!(made.status, 201, "{}", made.text());
    let answer = manage(&running, "POST", &path, body).json();
    assert!(made.header("location").unwrap().ends_with(answer["equal_deployment"].as_str().unwrap()));
    // What would not be made is no dry run either.
    for body in [
        json!({ "name": "n", "artifact_name": "none", "all_devices": true }),
        json!({ "name": "n", "artifact_name": "release-2", "devices": ["none"] }),
        json!({ "name": "n", "artifact_name": "release-2", "all_devices": true, "phases": [{ "batch_size": 0 }] }),
    ] {
        assert!(matches!(error(&manage(&running, "POST", &path, body.clone())), 400 | 422), "{body}");
    }
}

#[test]
fn those_who_begin_first_differ_from_each_other() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 5);
    for (at, (device, _)) in devices.iter().enumerate() {
        let region = if at == 2 { "north" } else { "south" };
        tell(&running, device, &[("device_type", "testdev"), ("region", region)]);
    }
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let fields = json!({
        "phases": [{}, { "start_ts": "2099-01-01T00:00:00Z" }],
        "rust_ota": { "canaries": { "count": 2, "spread_by": ["inventory/region"] } },
    });
    let mut body = json!({ "name": "n", "artifact_name": "release-2", "all_devices": true });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let forecast = manage(&running, "POST", &format!("{DEPLOYMENTS}/dry_run"), body).json();
    let id = order(&running, fields);
    let canaries = shown(&running, &id)["rust_ota"]["canaries"].clone();
    assert_eq!(canaries["spread_by"], json!(["inventory/region"]));
    assert_eq!(forecast["canaries"], canaries["devices"]);
    let chosen: Vec<&str> =
        canaries["devices"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(chosen.len(), 2);
    assert!(chosen.contains(&devices[2].1.as_str()), "the only one of its region");
    for (device, own) in &devices {
        let is_chosen = chosen.contains(&own.as_str());
        assert_eq!(device.next(&running).status, if is_chosen { 200 } else { 204 });
        let expected = if is_chosen { "pending" } else { "canaries" };
        assert_eq!(why(&running, own), expected);
    }
    for canaries in [
        json!({ "count": 0 }),
        json!({ "count": 201 }),
        json!({ "count": 1, "spread_by": [] }),
        json!({ "count": 1, "spread_by": ["nowhere/region"] }),
        json!({ "count": 1, "by": "x" }),
    ] {
        let body = json!({
            "name": "n", "artifact_name": "release-2", "all_devices": true,
            "phases": [{}, { "start_ts": "2099-01-01T00:00:00Z" }], "rust_ota": { "canaries": canaries },
        });
        assert_eq!(error(&manage(&running, "POST", DEPLOYMENTS, body)), 400, "{canaries}");
    }
}

#[test]
fn all_deployments_share_what_the_fleet_may_load() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 3);
    for (device, _) in &devices {
        tell(&running, device, &[("device_type", "testdev"), ("artifact_name", "release-1")]);
    }
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let limit = "/api/management/v1/deployments/limits/downloads";
    let set = |budget: Value| manage(&running, "PUT", limit, budget).status;
    assert_eq!(set(json!({ "in_flight": 1 })), 204);
    for wrong in [json!({ "in_flight": 0 }), json!({ "bytes": 1 })] {
        assert_eq!(error(&manage(&running, "PUT", limit, wrong)), 400);
    }
    let orders: Vec<String> = devices
        .iter()
        .map(|(_, id)| order(&running, json!({ "devices": [id], "all_devices": false })))
        .collect();
    let next = |at: usize| devices[at].0.next(&running).status;
    assert_eq!([next(0), next(1), next(0)], [200, 204, 200]);
    assert_eq!(why(&running, &devices[0].1), "pending");
    let of_second =
        manage(&running, "GET", &format!("{DEPLOYMENTS}/devices/{}/why", devices[1].1), Value::Null);
    assert!(of_second.text().contains("fleet-in-flight"), "{}", of_second.text());
    assert_eq!(report(&running, &devices[0].0, &orders[0], "installing"), 204);
    assert_eq!(next(1), 200);
    assert_eq!(set(json!({ "bytes_per_hour": 1 })), 204);
    assert_eq!(next(2), 200, "what is larger than the budget goes alone");
    let shown = manage(&running, "GET", limit, Value::Null).json();
    assert!(shown["spent_bytes"].as_u64().unwrap() > 1, "{shown}");
    assert_eq!(shown["loading"], 2);
    assert_eq!(set(json!({})), 204);
    assert_eq!(manage(&running, "GET", limit, Value::Null).json(), json!({}));
}

#[test]
fn phases_in_the_past_begin_at_once() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 2);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let phases = json!([
        { "batch_size": 50, "start_ts": "2020-01-01T00:00:00Z" }, { "start_ts": "2021-01-01T00:00:00Z" }
    ]);
    let id = order(&running, json!({ "phases": phases }));
    assert_eq!(shown(&running, &id)["status"], "pending");
    assert!(devices.iter().all(|(device, _)| device.next(&running).status == 200));
}

#[test]
fn a_filter_may_find_nobody_or_everybody() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 3);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let filter = |name: &str, terms: Value| {
        manage(
            &running,
            "POST",
            "/api/management/v2/inventory/filters",
            json!({ "name": name, "terms": terms }),
        )
    };
    let deployed = |made: &crate::common::Answer| {
        assert_eq!(made.status, 201, "{}", made.text());
        let id = made.header("location").unwrap().rsplit('/').next().unwrap();
        let body = json!({ "name": "n", "artifact_name": "release-2", "filter_id": id });
        let made = manage(&running, "POST", SECOND, body);
        assert_eq!(made.status, 201, "{}", made.text());
        made.header("location").unwrap().rsplit('/').next().unwrap().to_owned()
    };
    let term = |kind: &str, value: Value| json!([{ "scope": "identity", "attribute": "status", "type": kind, "value": value }]);
    let nobody = deployed(&filter("nobody", term("$eq", json!("nothing"))));
    assert!(devices.iter().all(|(device, _)| device.next(&running).status == 204));
    let shown_now = shown(&running, &nobody);
    assert_eq!((&shown_now["device_count"], &shown_now["status"]), (&json!(0), &json!("pending")));
    let end = json!({ "status": "aborted" });
    assert_eq!(manage(&running, "PUT", &format!("{DEPLOYMENTS}/{nobody}/status"), end).status, 204);
    assert_eq!(shown(&running, &nobody)["status"], "finished");
    // Without a term nobody has said whom it is for.
    assert_eq!(error(&filter("empty", json!([]))), 400);
    let everybody = deployed(&filter("everybody", term("$eq", json!("accepted"))));
    assert!(devices.iter().all(|(device, _)| device.next(&running).status == 200));
    assert_eq!(shown(&running, &everybody)["device_count"], 3);
    // Also who comes later.
    let (late, _) = accepted(&running, "late");
    assert_eq!(late.next(&running).status, 200);
}

#[test]
fn a_device_does_not_report_for_what_it_was_not_given() {
    let (running, management, _folder) = server(|options| options);
    let devices = fleet(&running, 3);
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let ids = [devices[0].1.clone(), devices[1].1.clone()];
    let id = management.deploy("n", "release-2", &ids).unwrap();
    assert_eq!(devices[0].0.next(&running).status, 200);
    assert_eq!(report(&running, &devices[2].0, &id, "success"), 404, "it is not one of them");
    let log = json!({ "messages": [{ "timestamp": "2026-11-22T19:04:36Z", "level": "e", "message": "m" }] });
    let path = format!("/api/devices/v1/deployments/device/deployments/{id}/log");
    assert_eq!(devices[2].0.ask(&running, "PUT", &path, &log.to_string()).status, 404);
    let counts = shown(&running, &id)["statistics"]["status"].clone();
    assert_eq!(
        (&counts["success"], &counts["pending"]),
        (&json!(0), &json!(2)),
        "nothing was counted: {counts}"
    );
}

#[test]
fn an_artifact_that_a_roll_out_needs_is_not_deleted_and_a_file_that_is_gone_is_said() {
    let (running, management, folder) = server(|options| options);
    let devices = fleet(&running, 1);
    let artifact_id = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{artifact_id}");
    // Nobody has begun it, and nobody can before 2099.
    let later = order(&running, json!({ "phases": [{ "start_ts": "2099-01-01T00:00:00Z" }] }));
    assert_eq!(error(&manage(&running, "DELETE", &path, Value::Null)), 409);
    management.abort(&later).unwrap();
    let id = order(&running, json!({}));
    let offer = devices[0].0.next(&running).json();
    let link = offer["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
    let link = format!("/download/{}", link.split_once("/download/").unwrap().1);
    assert_eq!(request(&running, "GET", &link, &[], b"").status, 200);
    // Somebody has removed the file behind the server's back.
    std::fs::remove_file(folder.path().join(format!("artifacts/{artifact_id}.mender"))).unwrap();
    assert_eq!(error(&request(&running, "GET", &link, &[], b"")), 500);
    assert_eq!(report(&running, &devices[0].0, &id, "failure"), 204);
    assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
    assert_eq!(error(&request(&running, "GET", &link, &[], b"")), 404);
    assert_eq!(devices[0].0.next(&running).status, 204);
}
