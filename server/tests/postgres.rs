//! The server with its fleet in PostgreSQL: alone, two of them, and with a database that goes away.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server_core::client::Management;
use server_core::{DatabaseOptions, Running};
use tempfile::TempDir;

use crate::common::postgres::{Held, database, durable_cluster};
use crate::common::{
    Device, Process, accepted, artifact, error, manage, request, request_bytes, server_in, soon, until,
};
use crate::operations::{metric, on_any_port};

const NEXT: &str =
    "/api/devices/v1/deployments/device/deployments/next?artifact_name=release-1&device_type=testdev";

/// A data folder whose artifacts are those of another one.
fn beside(other: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(other.join("artifacts")).unwrap();
    std::os::unix::fs::symlink(other.join("artifacts"), folder.path().join("artifacts")).unwrap();
    folder
}

fn on(url: &str, folder: &Path) -> (Running, Management) {
    server_in(folder, |options| options.database(DatabaseOptions::new(url)))
}

/// The names of the devices that a search finds, in its order.
fn search(running: &Running, filters: &Value) -> String {
    let body = json!({
        "filters": filters,
        "sort": [{ "scope": "inventory", "attribute": "cpus", "order": "desc" }],
        "attributes": [{ "scope": "identity", "attribute": "mac" }],
    });
    let answer = manage(running, "POST", "/api/management/v2/inventory/filters/search", body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let found = answer.json();
    let name = |device: &Value| device["attributes"][0]["value"].as_str().unwrap().to_owned();
    found.as_array().unwrap().iter().map(name).collect()
}

#[test]
fn two_servers_on_one_database_are_one_server() {
    let Some(url) = database() else { return };
    let first = tempfile::tempdir().unwrap();
    let second = beside(first.path());
    let (one, at_one) = on(&url, first.path());
    let (two, at_two) = on(&url, second.path());
    assert_eq!(one.management_token(), two.management_token());
    // Accepted at one, it is served at the other, with the token of the first.
    let mut devices = Vec::new();
    for (mac, cpus) in [("a", 2), ("b", 4), ("c", 8)] {
        let (device, id) = accepted(&one, mac);
        assert_eq!(device.next(&two).status, 204);
        let attributes =
            json!([{ "name": "cpus", "value": cpus }, { "name": "kernel", "value": format!("6.{cpus}") }]);
        let path = "/api/devices/v1/inventory/device/attributes";
        let at = if mac == "b" { &one } else { &two };
        assert_eq!(device.ask(at, "PUT", path, &attributes.to_string()).status, 200);
        devices.push((device, id));
    }
    at_two.set_group(&devices[0].1, "east").unwrap();
    for running in [&one, &two] {
        let filter = |scope: &str, name: &str, kind: &str, value: Value| json!([{ "scope": scope, "attribute": name, "type": kind, "value": value }]);
        assert_eq!(search(running, &json!([])), "cba");
        assert_eq!(search(running, &filter("inventory", "cpus", "$gt", json!(2))), "cb");
        assert_eq!(search(running, &filter("inventory", "kernel", "$regex", json!("6\\.[28]"))), "ca");
        assert_eq!(search(running, &filter("system", "group", "$eq", json!("east"))), "a");
        assert_eq!(search(running, &filter("identity", "mac", "$in", json!(["b", "x"]))), "b");
    }
    // Deployed at one, it is offered at the other, and loaded and reported wherever the device comes to.
    let file = artifact("release-2", "testdev");
    at_one.upload_artifact(file.path()).unwrap();
    until(|| at_two.artifacts().unwrap().len() == 1);
    let ids: Vec<String> = devices[..2].iter().map(|(_, id)| id.clone()).collect();
    let deployment = at_one.deploy("first", "release-2", &ids).unwrap();
    let began = Instant::now();
    let offer = soon(|| Some(devices[0].0.next(&two)).filter(|offer| offer.status == 200));
    assert!(began.elapsed() < Duration::from_secs(5), "it takes {:?}", began.elapsed());
    assert_eq!(offer.json()["id"], *deployment);
    let link = offer.json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
    let path = format!("/download/{}", link.split_once("/download/").unwrap().1);
    for running in [&one, &two] {
        assert_eq!(request(running, "GET", &path, &[], b"").body, std::fs::read(file.path()).unwrap());
    }
    assert_eq!(devices[1].0.next(&one).status, 200);
    for (status, at, other) in [
        ("downloading", &one, &two),
        ("installing", &two, &one),
        ("rebooting", &one, &two),
        ("success", &two, &one),
    ] {
        assert_eq!(devices[0].0.report(at, &deployment, status).status, 204, "{status}");
        assert_eq!(devices[1].0.report(other, &deployment, status).status, 204, "{status}");
    }
    for management in [&at_one, &at_two] {
        assert_eq!(management.deployment(&deployment).unwrap()["status"], "finished");
        assert_eq!(management.statistics(&deployment).unwrap()["success"], 2);
    }
    // Aborted at one, it is aborted for the device at the other.
    let ordered = at_two.deploy("second", "release-2", &[devices[2].1.clone()]).unwrap();
    assert_eq!(
        soon(|| Some(devices[2].0.next(&one)).filter(|offer| offer.status == 200)).json()["id"],
        *ordered
    );
    at_two.abort(&ordered).unwrap();
    assert_eq!(devices[2].0.report(&one, &ordered, "downloading").status, 409);
    // Rejected at one, it is nobody at the other.
    at_one.reject(&devices[2].1).unwrap();
    assert_eq!(error(&devices[2].0.next(&two)), 401);
}

#[test]
fn a_place_that_becomes_free_at_one_server_is_given_to_who_asks_the_other() {
    let Some(url) = database() else { return };
    let first = tempfile::tempdir().unwrap();
    let second = beside(first.path());
    let (one, at_one) = on(&url, first.path());
    let (two, _) = on(&url, second.path());
    let devices = [accepted(&one, "a"), accepted(&one, "b")];
    at_one.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let limit = "/api/management/v1/deployments/limits/downloads";
    assert_eq!(manage(&one, "PUT", limit, json!({ "in_flight": 1 })).status, 204);
    let ids = devices.each_ref().map(|(_, id)| id.clone());
    let deployment = at_one.deploy("first", "release-2", &ids).unwrap();
    assert_eq!(devices[0].0.next(&one).status, 200);
    assert_eq!(devices[1].0.next(&one).status, 204, "the only place is taken");
    let loading = |running: &Running| manage(running, "GET", limit, Value::Null).json()["loading"].clone();
    until(|| loading(&two) == 1);
    for status in ["downloading", "installing", "success"] {
        assert_eq!(devices[0].0.report(&two, &deployment, status).status, 204);
    }
    soon(|| Some(devices[1].0.next(&one)).filter(|offer| offer.status == 200));
    until(|| loading(&one) == 1 && loading(&two) == 1);
}

#[test]
fn what_a_person_changes_is_done_to_its_end_when_the_person_goes_away() {
    let Some(url) = database() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (running, management) = server_in(folder.path(), |options| {
        options.database(DatabaseOptions::new(&url)).metrics(on_any_port())
    });
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let id = management.artifacts().unwrap()[0]["id"].as_str().unwrap().to_owned();
    let file = folder.path().join("artifacts").join(format!("{id}.mender"));
    assert!(file.is_file());

    let mut held = Held::table(&url, "event");
    let token = format!("Bearer {}", running.management_token());
    let path = format!("/api/management/v1/deployments/artifacts/{id}");
    let request = request_bytes("DELETE", &path, &[("Authorization", &token)], b"");
    // Those of others stay.
    let connections = || metric(&running, "rust_ota_server_connections");
    let before = connections();
    let mut person = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    person.write_all(&request).unwrap();
    soon(|| held.is_waited_for().then_some(()));
    assert_eq!(connections(), before.map(|before| before + 1.0));
    drop(person);
    until(|| connections() == before);
    assert!(file.is_file(), "nothing is stored yet");
    held.give_back();

    until(|| !file.exists());
    assert_eq!(management.artifacts().unwrap().len(), 0);
    let log = "/api/management/v1/auditlogs/logs";
    let log = soon(|| {
        Some(manage(&running, "GET", log, Value::Null).json()).filter(|log| log[0]["action"] == "delete")
    });
    assert_eq!((&log[0]["object"]["id"], &log[1]["object"]["id"]), (&json!(id), &json!(id)));
    assert_eq!((&log[1]["action"], log.as_array().unwrap().len()), (&json!("upload"), 2));
}

#[test]
fn a_database_that_is_served_is_not_moved_away() {
    let Some(settings) = database() else { return };
    // `move` tells a database from a folder by how its address begins.
    let setting = |name: &str| settings.split(' ').find_map(|word| word.strip_prefix(name)).unwrap();
    let (user, host) = (setting("user="), setting("host=").replace('/', "%2F"));
    let url = format!("postgres://{user}@{host}:{}/{}", setting("port="), setting("dbname="));
    let folders = tempfile::tempdir().unwrap();
    let (data, to) = (folders.path().join("data"), folders.path().join("new"));
    let moved = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        let output = command.args(["move", "--from", &url, "--to"]).arg(&to).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (running, _) = on(&url, &data);
    let (_, id) = accepted(&running, "a");
    let (code, error) = moved();
    assert!(code == 1 && error.contains("is used by 1 server(s): stop them first"), "{error}");
    assert!(!to.exists());
    running.stop();
    let (code, error) = moved();
    assert_eq!(code, 0, "{error}");
    let (_running, management) = server_in(&to, |options| options);
    assert_eq!(management.devices().unwrap()[0].id, id);
}

/// A server in a process of its own.
fn process(url: &str, folder: &Path) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args([
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--quiet",
        "--auto-accept",
        "--database",
        url,
        "--data",
    ]);
    command.arg(folder);
    Process::spawn(command, folder)
}

/// Reports what comes next until the server is gone or everything is said; says what was acknowledged.
fn go_through(at: &Process, device: &Device, deployment: &str, said: &mut usize) -> bool {
    const STEPS: [&str; 3] = ["downloading", "installing", "success"];
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/status");
    for (number, status) in STEPS.iter().enumerate().skip(*said) {
        match at.try_ask(device, "PUT", &path, &json!({ "status": status }).to_string()) {
            Some(answer) if answer.status == 204 => *said = number + 1,
            Some(answer) => panic!("{status}: {}", answer.text()),
            None => return false,
        }
    }
    true
}

#[test]
fn a_server_that_is_killed_in_mid_deployment_loses_nothing_and_the_other_goes_on() {
    const DEVICES: usize = 24;
    let Some(cluster) = durable_cluster() else { return };
    let url = cluster.database();
    let first = tempfile::tempdir().unwrap();
    let second = beside(first.path());
    let (one, two) = (process(&url, first.path()), process(&url, second.path()));
    let mut devices: Vec<(Device, usize)> = (0..DEVICES)
        .map(|number| {
            let mut device = Device::new(&format!("device {number}"));
            assert_eq!(one.authenticate(&mut device), 200);
            (device, 0)
        })
        .collect();
    one.management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let ids: Vec<String> = one.management.devices().unwrap().into_iter().map(|device| device.id).collect();
    let deployment = one.management.deploy("first", "release-2", &ids).unwrap();
    for (device, _) in &devices {
        assert_eq!(one.ask(device, "GET", NEXT, "").status, 200);
    }
    // Two devices at a time, until a third of them has come to the end: the rest is between all steps.
    let (done, came_to_the_end) = channel();
    let pid = rustix::process::Pid::from_child(&one.child);
    std::thread::scope(|scope| {
        for part in devices.chunks_mut(DEVICES / 2) {
            let (done, deployment, one) = (done.clone(), &deployment, &one);
            scope.spawn(move || {
                for (device, said) in part {
                    if !go_through(one, device, deployment, said) {
                        return;
                    }
                    done.send(()).unwrap();
                }
            });
        }
        for _ in 0..DEVICES / 3 {
            came_to_the_end.recv().unwrap();
        }
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    });
    one.kill();
    assert!(devices.iter().any(|(_, said)| *said < 3), "it was killed in the middle");
    // What was answered is there at the other one.
    let known = two.management.device_deployments(&deployment).unwrap();
    for (device, said) in &devices {
        let status =
            |id: &str| known.iter().find(|record| record.id == id).map(|record| record.status.clone());
        let id =
            two.management.devices().unwrap().into_iter().find(|one| one.identity_data == device.identity);
        let step = match status(&id.unwrap().id).unwrap().as_str() {
            "pending" => 0,
            "downloading" => 1,
            "installing" => 2,
            "success" => 3,
            other => panic!("{other}"),
        };
        // What was not answered may have happened.
        assert!((*said..=*said + 1).contains(&step), "{said} was acknowledged, and {step} is there");
    }
    for (device, said) in &mut devices {
        assert!(go_through(&two, device, &deployment, said));
    }
    assert_eq!(two.management.deployment(&deployment).unwrap()["status"], "finished");
    assert_eq!(two.management.statistics(&deployment).unwrap()["success"], DEVICES);
    two.kill();
}

#[test]
fn a_database_that_is_gone_for_a_while_is_waited_for() {
    let Some(cluster) = durable_cluster() else { return };
    let folder = tempfile::tempdir().unwrap();
    let url = cluster.database();
    let (running, management) = on(&url, folder.path());
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", std::slice::from_ref(&id)).unwrap();
    assert_eq!(device.next(&running).status, 200);
    assert_eq!(device.report(&running, &deployment, "downloading").status, 204);
    let ready = || request(&running, "GET", "/health/ready", &[], b"");
    let attributes = |value: u32| {
        let body = json!([{ "name": "n", "value": value }]).to_string();
        device.ask(&running, "PUT", "/api/devices/v1/inventory/device/attributes", &body)
    };
    let list = || manage(&running, "GET", "/api/management/v2/devauth/devices", Value::Null);
    assert_eq!((ready().status, attributes(1).status, list().status), (200, 200, 200));

    cluster.stop();
    for _ in 0..2 {
        let mut stranger = Device::new("b");
        for (what, answer) in [
            ("a poll", device.next(&running)),
            ("a report", device.report(&running, &deployment, "installing")),
            ("an inventory", attributes(2)),
            ("a list", list()),
            ("a new device", stranger.authenticate(&running)),
            (
                "a deployment",
                manage(
                    &running,
                    "GET",
                    &format!("/api/management/v1/deployments/deployments/{deployment}"),
                    Value::Null,
                ),
            ),
        ] {
            assert_eq!(error(&answer), 503, "{what}: {}", answer.text());
            let seconds: u64 = answer.header("retry-after").expect(what).parse().unwrap();
            assert!((10..40).contains(&seconds), "{what}: {seconds}");
        }
    }
    let unready = soon(|| Some(ready()).filter(|ready| ready.status != 200));
    assert_eq!((unready.status, &unready.json()["reasons"][0]["part"]), (503, &json!("store")));
    assert_eq!(request(&running, "GET", "/health/live", &[], b"").status, 204);
    let _ =
        soon(|| Some(request(&running, "GET", "/health", &[], b"")).filter(|health| health.status == 503));

    cluster.run();
    until(|| ready().status == 200);
    // Nothing of what was refused has happened, and everything before it is there.
    let value =
        management.inventory(&id).unwrap().into_iter().find(|attribute| attribute["name"] == "n").unwrap();
    assert_eq!(value["value"], 1);
    assert_eq!(management.devices().unwrap().len(), 1);
    assert_eq!(management.device_deployments(&deployment).unwrap()[0].status, "downloading");
    // And it goes on, with what other processes do meanwhile.
    let other = beside(folder.path());
    let (two, at_two) = on(&url, other.path());
    assert_eq!(device.report(&running, &deployment, "installing").status, 204);
    assert_eq!(device.report(&two, &deployment, "success").status, 204);
    let second = at_two.deploy("second", "release-2", std::slice::from_ref(&id)).unwrap();
    assert_eq!(
        soon(|| Some(device.next(&running)).filter(|offer| offer.status == 200)).json()["id"],
        *second
    );
}
