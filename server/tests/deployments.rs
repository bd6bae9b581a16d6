//! Who is offered what, and what reports do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{
    Device, accepted, artifact, artifact_of_files, artifact_with, deployed, error, manage, server,
};
use serde_json::{Value, json};
use server_core::Running;
use server_core::client::Management;

const V1: &str = "/api/devices/v1/deployments/device/deployments";
const V2: &str = "/api/devices/v2/deployments/device/deployments";

fn status_of(management: &Management, deployment: &str) -> String {
    management.device_deployments(deployment).unwrap()[0].status.clone()
}

fn put_status(running: &Running, device: &Device, deployment: &str, body: &Value) -> u16 {
    device.ask(running, "PUT", &format!("{V1}/{deployment}/status"), &body.to_string()).status
}

#[test]
fn every_form_of_the_question_gets_the_offer() {
    let (running, _, _folder, device, _, deployment) = deployed();
    let flat = json!({ "artifact_name": "release-1", "device_type": "testdev", "rootfs-image.version": "release-1" });
    let answers = [
        device.next(&running),
        device.ask(&running, "POST", &format!("{V1}/next"), &(flat.to_string() + "\n")),
        device.ask(&running, "GET", &format!("{V1}/next?device_type=testdev&artifact_name=release%2D1"), ""),
        device.ask(
            &running,
            "POST",
            &format!("{V2}/next"),
            &json!({ "device_provides": flat, "update_control_map": true }).to_string(),
        ),
    ];
    for answer in answers {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let offer = answer.json();
        assert_eq!(offer["id"], *deployment);
        assert_eq!(offer["artifact"]["artifact_name"], "release-2");
        assert_eq!(offer["artifact"]["device_types_compatible"], json!(["testdev"]));
        let source = &offer["artifact"]["source"];
        assert!(source["uri"].as_str().unwrap().starts_with(running.url()), "{source}");
        assert!(source["expire"].as_str().unwrap().ends_with('Z'));
    }
}

#[test]
fn without_the_second_version_clients_see_404() {
    let (running, _, _folder) = server(|options| options.v2(false));
    let (device, _) = accepted(&running, "a");
    assert_eq!(error(&device.next(&running)), 404);
    let flat = json!({ "artifact_name": "a", "device_type": "b" }).to_string();
    assert_eq!(device.ask(&running, "POST", &format!("{V1}/next"), &flat).status, 204);
}

#[test]
fn questions_that_are_not_valid_are_400() {
    let (running, _, _folder, device, _, _) = deployed();
    let long = json!({ "artifact_name": "a", "device_type": "x".repeat(5000) }).to_string();
    for body in [
        "",
        "garbage",
        "{}",
        "{\"artifact_name\":\"a\"}",
        "{\"artifact_name\":\"\",\"device_type\":\"b\"}",
        &long,
    ] {
        assert_eq!(error(&device.ask(&running, "POST", &format!("{V1}/next"), body)), 400, "{body}");
    }
    assert_eq!(error(&device.ask(&running, "POST", &format!("{V2}/next"), "{\"artifact_name\":\"a\"}")), 400);
    assert_eq!(error(&device.ask(&running, "GET", &format!("{V1}/next?artifact_name=a"), "")), 400);
}

#[test]
fn a_device_that_changes_in_the_middle_fails_with_409() {
    let (running, management, _folder, mut device, _, deployment) = deployed();
    assert_eq!(device.next(&running).status, 200);
    device.report(&running, &deployment, "downloading");
    device.artifact_name = "something-else".to_owned();
    assert_eq!(error(&device.next(&running)), 409);
    assert_eq!(status_of(&management, &deployment), "failure");
    assert_eq!(device.next(&running).status, 204);
}

#[test]
fn a_device_of_another_type_has_no_artifact_and_goes_on_to_the_next_deployment() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("other", "otherdev").path()).unwrap();
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let first = management.deploy("first", "other", std::slice::from_ref(&id)).unwrap();
    let second = management.deploy("second", "release-2", &[id]).unwrap();
    assert_eq!(device.next(&running).status, 204);
    assert_eq!(status_of(&management, &first), "noartifact");
    assert_eq!(device.next(&running).json()["id"], *second);
}

#[test]
fn what_is_installed_is_not_offered_unless_it_is_forced() {
    let (running, management, _folder, mut device, id, deployment) = deployed();
    device.artifact_name = "release-2".to_owned();
    assert_eq!(device.next(&running).status, 204);
    assert_eq!(status_of(&management, &deployment), "already-installed");
    let body = json!({ "name": "forced", "artifact_name": "release-2", "devices": [id], "force_installation": true });
    assert_eq!(manage(&running, "POST", "/api/management/v1/deployments/deployments", body).status, 201);
    assert_eq!(device.next(&running).status, 200);
}

#[test]
fn the_smallest_artifact_that_fits_is_chosen() {
    let (running, management, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let full = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let delta = artifact_with("release-2", "testdev", 100, |spec| {
        spec.depends.insert("rootfs-image.checksum".to_owned(), "abc".to_owned());
    });
    let delta = management.upload_artifact(delta.path()).unwrap();
    management.deploy("first", "release-2", &[id]).unwrap();
    let ask = |provides: Value| {
        let answer = device.ask(&running, "POST", &format!("{V1}/next"), &provides.to_string());
        answer.json()["artifact"]["id"].as_str().unwrap().to_owned()
    };
    let with = |checksum: &str| json!({ "artifact_name": "release-1", "device_type": "testdev", "rootfs-image.checksum": checksum });
    assert_eq!(ask(with("abc")), delta);
    assert_eq!(ask(with("other")), full);
    let query =
        device.ask(&running, "GET", &format!("{V1}/next?artifact_name=release-1&device_type=testdev"), "");
    assert_eq!(query.json()["artifact"]["id"], *full, "what is not known does not fit better");
}

#[test]
fn deployments_from_before_the_last_finished_one_are_skipped() {
    let (running, management, _folder, device, id, first) = deployed();
    management.upload_artifact(artifact("release-3", "testdev").path()).unwrap();
    assert_eq!(device.next(&running).json()["id"], *first);
    let second = management.deploy("second", "release-3", &[id]).unwrap();
    assert_eq!(device.next(&running).json()["id"], *first, "the oldest first");
    device.report(&running, &first, "success");
    assert_eq!(device.next(&running).json()["id"], *second);
    device.report(&running, &second, "success");
    assert_eq!(device.next(&running).status, 204);
}

#[test]
fn statuses_of_devices_are_taken_and_all_others_refused() {
    let (running, management, _folder, device, _, deployment) = deployed();
    device.next(&running);
    for status in [
        "downloading",
        "downloading",
        "pause_before_installing",
        "installing",
        "pause_before_rebooting",
        "rebooting",
        "installing",
        "pause_before_committing",
        "success",
        "success",
    ] {
        assert_eq!(device.report(&running, &deployment, status).status, 204, "{status}");
        assert_eq!(status_of(&management, &deployment), status);
    }
    for status in ["pending", "noartifact", "aborted", "decommissioned", "done", ""] {
        assert_eq!(error(&device.report(&running, &deployment, status)), 400, "{status}");
    }
    assert_eq!(put_status(&running, &device, &deployment, &json!({})), 400);
    assert_eq!(error(&device.report(&running, "00000000-0000-4000-8000-000000000000", "success")), 404);
}

#[test]
fn a_late_repetition_does_not_open_what_has_ended() {
    let (running, management, _folder, device, _, deployment) = deployed();
    device.next(&running);
    device.report(&running, &deployment, "success");
    assert_eq!(device.report(&running, &deployment, "installing").status, 204);
    assert_eq!(status_of(&management, &deployment), "success");
    assert_eq!(device.report(&running, &deployment, "failure").status, 204);
    assert_eq!(status_of(&management, &deployment), "failure");
    let statistics = management.statistics(&deployment).unwrap();
    assert_eq!((&statistics["failure"], &statistics["success"]), (&json!(1), &json!(0)));
}

#[test]
fn substates_are_kept_up_to_their_limit() {
    let (running, management, _folder, device, _, deployment) = deployed();
    device.next(&running);
    let put = |text: &str| {
        put_status(&running, &device, &deployment, &json!({ "status": "downloading", "substate": text }))
    };
    assert_eq!(put("Executing script: Download_Enter_00"), 204);
    let known = management.device_deployments(&deployment).unwrap();
    assert_eq!(known[0].substate.as_deref(), Some("Executing script: Download_Enter_00"));
    assert_eq!(put(&"ä".repeat(200)), 204);
    assert_eq!(put(&"ä".repeat(201)), 400);
}

#[test]
fn an_aborted_deployment_is_409_for_its_devices() {
    let (running, management, _folder, device, _, deployment) = deployed();
    device.next(&running);
    device.report(&running, &deployment, "downloading");
    management.abort(&deployment).unwrap();
    for status in ["downloading", "installing", "failure", "success"] {
        assert_eq!(error(&device.report(&running, &deployment, status)), 409, "{status}");
    }
    assert_eq!(status_of(&management, &deployment), "aborted");
    assert_eq!(management.deployment(&deployment).unwrap()["status"], "finished");
    assert_eq!(device.next(&running).status, 204);
    let again = management.abort(&deployment).unwrap_err().to_string();
    assert!(again.contains("422"), "{again}");
}

#[test]
fn a_removed_device_ends_its_deployments() {
    let (running, management, _folder, device, id, deployment) = deployed();
    device.next(&running);
    management.decommission(&id).unwrap();
    assert_eq!(status_of(&management, &deployment), "decommissioned");
    assert_eq!(management.deployment(&deployment).unwrap()["status"], "finished");
    let again = accepted(&running, "a").0;
    assert_eq!(again.next(&running).status, 204);
}

#[test]
fn logs_are_checked_and_read_as_text() {
    let (running, management, _folder, device, id, deployment) = deployed();
    device.next(&running);
    device.report(&running, &deployment, "failure");
    let put = |deployment: &str, body: &str| {
        device.ask(&running, "PUT", &format!("{V1}/{deployment}/log"), body).status
    };
    assert!(management.log(&deployment, &id).is_err());
    let message = |timestamp: &str, level: &str, text: &str| {
        json!({ "messages": [{ "timestamp": timestamp, "level": level, "message": text }] }).to_string()
    };
    for bad in [
        "{}".to_owned(),
        "{\"messages\":[]}".to_owned(),
        message("yesterday", "info", "a"),
        message("2026-11-22T19:04:36Z", "", "a"),
        message("2026-11-22T19:04:36Z", "info", ""),
        message("2026-11-22T19:04:36Z", "info", "a").replace("message\"", "text\""),
    ] {
        assert_eq!(put(&deployment, &bad), 400, "{bad}");
    }
    assert_eq!(put(&deployment, &(message("2026-11-22T19:04:36Z", "error", "it broke") + "\n")), 204);
    assert_eq!(management.log(&deployment, &id).unwrap(), "2026-11-22T19:04:36Z error: it broke\n");
    assert!(management.device_deployments(&deployment).unwrap()[0].log);
    assert_eq!(put("none", &message("2026-11-22T19:04:36Z", "info", "a")), 404);
    let most = 1024 * 1024 - message("2026-11-22T19:04:36Z", "info", "").len();
    assert_eq!(put(&deployment, &message("2026-11-22T19:04:36Z", "info", &"x".repeat(most))), 204);
    assert_eq!(put(&deployment, &message("2026-11-22T19:04:36Z", "info", &"x".repeat(most + 1))), 413);
}

#[test]
fn deployments_are_made_for_devices_groups_or_all() {
    let (running, management, _folder) = server(|options| options);
    let (_, a) = accepted(&running, "a");
    let (_, b) = accepted(&running, "b");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    management.set_group(&a, "east").unwrap();
    let create = |path: &str, body: Value| {
        manage(&running, "POST", &format!("/api/management/v1/deployments/deployments{path}"), body)
    };
    let with = |more: Value| {
        let mut body = json!({ "name": "n", "artifact_name": "release-2" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(create("/group/east", with(json!({}))).status, 201);
    assert_eq!(create("", with(json!({ "all_devices": true }))).status, 201);
    assert_eq!(create("", with(json!({ "devices": [b] }))).status, 201);
    assert_eq!(error(&create("", with(json!({ "devices": [b] })))), 409);
    assert_eq!(error(&create("", with(json!({ "devices": ["none"] })))), 422);
    assert_eq!(error(&create("/group/west", with(json!({})))), 422);
    assert_eq!(error(&create("", json!({ "name": "n", "artifact_name": "none", "all_devices": true }))), 422);
    assert_eq!(error(&create("", with(json!({})))), 400);
    assert_eq!(error(&create("", with(json!({ "devices": [b], "all_devices": true })))), 400);
    assert_eq!(error(&create("", with(json!({ "name": "x".repeat(257), "all_devices": true })))), 400);
    let counts: Vec<Value> = management
        .deployments()
        .unwrap()
        .iter()
        .map(|deployment| deployment["device_count"].clone())
        .collect();
    assert_eq!(counts, [1, 2, 1]);
    let list = |query: &str| {
        let path = format!("/api/management/v1/deployments/deployments?{query}");
        manage(&running, "GET", &path, Value::Null).json().as_array().unwrap().len()
    };
    assert_eq!(
        (list("status=pending"), list("status=finished"), list("search=release"), list("name=m")),
        (3, 0, 3, 0)
    );
    let history = manage(
        &running,
        "GET",
        &format!("/api/management/v1/deployments/deployments/devices/{b}"),
        Value::Null,
    );
    assert_eq!(history.json().as_array().unwrap().len(), 2);
    let too_many = format!("/api/management/v1/deployments/deployments/devices/{b}?per_page=21");
    assert_eq!(error(&manage(&running, "GET", &too_many, Value::Null)), 400);
    let path = format!("/api/management/v1/deployments/deployments/devices/{b}");
    assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
    assert_eq!(list("status=finished"), 1);
}

#[test]
fn artifacts_are_described_and_guarded() {
    let (running, management, _folder, device, _, deployment) = deployed();
    let described = management.artifacts().unwrap().remove(0);
    assert_eq!(described["name"], "release-2");
    assert_eq!(described["signed"], false);
    assert_eq!(described["updates"][0]["type_info"]["type"], "rootfs-image");
    assert_eq!(described["updates"][0]["files"][0]["size"], 20_000);
    assert_eq!(described["artifact_provides"]["artifact_name"], "release-2");
    let id = described["id"].as_str().unwrap();
    let again = management.upload_artifact(artifact("release-2", "testdev").path()).unwrap_err().to_string();
    assert!(again.contains("409"), "{again}");
    management.upload_artifact(artifact("release-2", "otherdev").path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{id}");
    assert_eq!(error(&manage(&running, "DELETE", &path, Value::Null)), 409);
    assert_eq!(manage(&running, "PUT", &path, json!({ "description": "new" })).status, 204);
    assert_eq!(manage(&running, "GET", &path, Value::Null).json()["description"], "new");
    let link = manage(&running, "GET", &format!("{path}/download"), Value::Null).json();
    assert!(link["uri"].as_str().unwrap().contains(id));
    device.next(&running);
    device.report(&running, &deployment, "success");
    assert_eq!(manage(&running, "DELETE", &path, Value::Null).status, 204);
    assert_eq!(error(&manage(&running, "GET", &path, Value::Null)), 404);
}

#[test]
fn only_accepted_devices_are_given_a_deployment() {
    let (running, management, _folder) = server(|options| options);
    let (_, good) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let (_, rejected) = accepted(&running, "b");
    management.reject(&rejected).unwrap();
    Device::new("c").authenticate(&running);
    let others: Vec<String> = management.devices().unwrap().into_iter().map(|device| device.id).collect();
    let others = others.iter().filter(|id| **id != good);
    assert_eq!(others.clone().count(), 2);
    for other in others {
        let body = json!({ "name": "n", "artifact_name": "release-2", "devices": [good, other] });
        let answer = manage(&running, "POST", "/api/management/v1/deployments/deployments", body);
        assert_eq!(error(&answer), 422);
        assert!(answer.text().contains(other.as_str()), "{}", answer.text());
    }
    assert_eq!(management.deployments().unwrap().len(), 0);
    // Who is let in before it is heard of may be given something before that.
    let expected = Device::new("d");
    let expected = management.preauthorize(&expected.identity, &expected.pem()).unwrap();
    management.deploy("n", "release-2", &[good, expected]).unwrap();
}

#[test]
fn a_list_of_devices_does_not_repeat_the_files_of_the_artifact() {
    let (running, management, _folder) = server(|options| options);
    let file = artifact_of_files("release-2", 300);
    let artifact = management.upload_artifact(file.path()).unwrap();
    let devices: Vec<(Device, String)> = (0..5).map(|n| accepted(&running, &n.to_string())).collect();
    let ids: Vec<String> = devices.iter().map(|(_, id)| id.clone()).collect();
    let deployment = management.deploy("first", "release-2", &ids).unwrap();
    for (device, _) in &devices {
        assert_eq!(device.next(&running).status, 200);
    }
    let get =
        |path: &str| manage(&running, "GET", &format!("/api/management/v1/deployments/{path}"), Value::Null);
    let whole = get(&format!("artifacts/{artifact}"));
    assert_eq!(whole.json()["updates"][0]["files"].as_array().unwrap().len(), 300);
    for path in [
        format!("deployments/{deployment}/devices"),
        format!("deployments/{deployment}/devices/list"),
        format!("deployments/devices/{}", ids[0]),
    ] {
        let answer = get(&path);
        assert_eq!(answer.status, 200);
        assert!(answer.body.len() < whole.body.len() / 2, "{path}: {} bytes", answer.body.len());
    }
    assert_eq!(management.device_deployments(&deployment).unwrap().len(), 5);
}

#[test]
fn the_history_of_a_device_can_be_taken_away() {
    let (running, management, _folder, device, id, first) = deployed();
    assert_eq!(device.next(&running).status, 200);
    assert_eq!(device.report(&running, &first, "success").status, 204);
    management.upload_artifact(artifact("release-3", "testdev").path()).unwrap();
    let second = management.deploy("second", "release-3", std::slice::from_ref(&id)).unwrap();
    assert_eq!(device.next(&running).status, 200);
    let path = format!("/api/management/v1/deployments/deployments/devices/{id}");
    let history = || {
        let answer = manage(&running, "GET", &path, Value::Null);
        let ids =
            answer.json().as_array().unwrap().iter().map(|one| one["deployment"]["id"].clone()).collect();
        (ids, answer.header("X-Total-Count").unwrap().to_owned())
    };
    assert_eq!(history(), (json!([second, first]), "2".to_owned()));
    let forget = |id: &str| {
        let path = format!("/api/management/v1/deployments/deployments/devices/{id}/history");
        manage(&running, "DELETE", &path, Value::Null).status
    };
    assert_eq!((forget(&id), forget("nobody")), (204, 204));
    // What goes on is no history yet, and the deployment itself forgets nothing.
    assert_eq!(history(), (json!([second]), "1".to_owned()));
    assert_eq!(management.device_deployments(&first).unwrap()[0].status, "success");
    assert_eq!(device.report(&running, &second, "failure").status, 204);
    assert_eq!(history(), (json!([second]), "1".to_owned()));
}
