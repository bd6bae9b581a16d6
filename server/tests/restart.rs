//! What was acknowledged is there after the process was killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use crate::common::{Device, Process, artifact, server, server_in};
use serde_json::json;
use server_core::{Options, Server, StartError, StoreError};

const NEXT: &str =
    "/api/devices/v1/deployments/device/deployments/next?artifact_name=release-1&device_type=testdev";

#[test]
fn everything_acknowledged_survives_a_kill_at_every_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut device = Device::new("a");
    let again = |process: Process| {
        process.kill();
        Process::start(folder.path())
    };

    let server = Process::start(folder.path());
    assert_eq!(server.authenticate(&mut device), 401);
    let server = again(server);
    let id = server.management.devices().unwrap()[0].id.clone();
    server.management.accept(&id).unwrap();
    let server = again(server);
    assert_eq!(server.authenticate(&mut device), 200);
    let server = again(server);
    assert_eq!(server.ask(&device, "GET", NEXT, "").status, 204, "the token is valid still");

    let file = artifact("release-2", "testdev");
    server.management.upload_artifact(file.path()).unwrap();
    let server = again(server);
    let deployment = server.management.deploy("first", "release-2", std::slice::from_ref(&id)).unwrap();
    let server = again(server);
    let offer = server.ask(&device, "GET", NEXT, "");
    assert_eq!(offer.json()["id"], *deployment);
    let server = again(server);
    let link = offer.json()["artifact"]["source"]["uri"].as_str().unwrap().to_owned();
    let path = link.split_once("/download/").unwrap().1;
    let loaded = server.ask(&device, "GET", &format!("/download/{path}"), "");
    assert_eq!(loaded.body, std::fs::read(file.path()).unwrap());

    let base = format!("/api/devices/v1/deployments/device/deployments/{deployment}");
    assert_eq!(server.ask(&device, "PUT", &format!("{base}/status"), "{\"status\":\"failure\"}").status, 204);
    let server = again(server);
    let log = json!({ "messages": [{ "timestamp": "2026-11-22T19:04:36Z", "level": "e", "message": "m" }] });
    assert_eq!(server.ask(&device, "PUT", &format!("{base}/log"), &log.to_string()).status, 204);
    let inventory = "[{\"name\":\"a\",\"value\":\"b\"}]";
    let path = "/api/devices/v1/inventory/device/attributes";
    assert_eq!(server.ask(&device, "PUT", path, inventory).status, 200);
    server.management.set_group(&id, "east").unwrap();

    let server = again(server);
    let known = server.management.device_deployments(&deployment).unwrap();
    assert_eq!((known[0].status.as_str(), known[0].log), ("failure", true));
    assert_eq!(server.management.deployment(&deployment).unwrap()["status"], "finished");
    assert_eq!(server.management.log(&deployment, &id).unwrap(), "2026-11-22T19:04:36Z e: m\n");
    let attributes = server.management.inventory(&id).unwrap();
    assert!(attributes.iter().any(|attribute| attribute["name"] == "a" && attribute["value"] == "b"));
    assert!(attributes.iter().any(|attribute| attribute["name"] == "group" && attribute["value"] == "east"));
    assert_eq!(server.ask(&device, "GET", NEXT, "").status, 204);
    server.kill();
}

#[test]
fn a_stopped_server_starts_again_with_everything() {
    let folder = tempfile::tempdir().unwrap();
    let (running, management) = server_in(folder.path(), |options| options.auto_accept(true));
    let mut device = Device::new("a");
    assert_eq!(device.authenticate(&running).status, 200);
    let token = running.management_token().to_owned();
    let seen = management.devices().unwrap()[0].check_in_time.clone();
    assert!(seen.is_some());
    running.stop();
    let (running, management) = server_in(folder.path(), |options| options);
    assert_eq!(running.management_token(), token);
    assert_eq!(management.devices().unwrap()[0].check_in_time, seen);
    assert_eq!(device.next(&running).status, 204);
}

#[test]
fn two_servers_do_not_share_a_folder() {
    let (running, _, folder) = server(|options| options);
    let second = Server::start(Options::new(folder.path()));
    assert!(matches!(second, Err(StartError::Store(StoreError::InUse(_)))), "{second:?}");
    drop(running);
    Server::start(Options::new(folder.path())).unwrap();
}

#[test]
fn damaged_secrets_are_an_error_and_not_replaced() {
    let (running, _, folder) = server(|options| options);
    running.stop();
    for name in ["secrets/token-key.pk8", "secrets/link-key", "management-token"] {
        let path = folder.path().join(name);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        let started = Server::start(Options::new(folder.path()));
        assert!(matches!(started, Err(StartError::Store(StoreError::Damaged { .. }))), "{name}: {started:?}");
        // What never ends would be read for ever, a FIFO is waited for.
        for endless in ["FIFO", "/dev/zero"] {
            std::fs::remove_file(&path).unwrap();
            match endless {
                "FIFO" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                device => std::os::unix::fs::symlink(device, &path).unwrap(),
            }
            let started = Server::start(Options::new(folder.path()));
            let Err(StartError::Store(error)) = &started else { panic!("{name}: {started:?}") };
            assert!(error.to_string().contains("not a file"), "{name}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &before).unwrap();
        let mut permissions = std::fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o600);
        std::fs::set_permissions(&path, permissions).unwrap();
    }
    Server::start(Options::new(folder.path())).unwrap();
}
