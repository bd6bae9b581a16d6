//! Whoever has no token costs neither memory nor disk, and keeps nobody out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{
    Device, Process, accepted, authenticate, error, manage, parse, raw, request, request_bytes, server,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const AUTH: &str = "/api/devices/v1/authentication/auth_requests";
const INVENTORY: &str = "/api/devices/v1/inventory/device/attributes";
const UPLOAD: &str = "/api/management/v1/deployments/artifacts";

/// What the server has in memory, in MiB.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn bodies_without_a_token_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path());
    let before = resident(&process);
    let mut connections: Vec<TcpStream> = Vec::new();
    let body = vec![b'x'; 1_000_000];
    for (method, path) in [
        ("PUT", INVENTORY),
        ("PATCH", INVENTORY),
        ("POST", "/api/devices/v2/deployments/device/deployments/next"),
        ("PUT", "/api/management/v1/inventory/devices/a/group"),
        ("POST", "/api/management/v1/useradm/auth/login"),
        ("POST", UPLOAD),
        ("POST", "/nowhere"),
        ("PUT", "/health"),
    ] {
        for _ in 0..50 {
            let mut stream = process.connect();
            let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            // It is taken to its end: to be answered before would be an error of the connection.
            stream.write_all(&body).unwrap();
            connections.push(stream);
        }
    }
    let grown = resident(&process).saturating_sub(before);
    assert!(grown < 130, "{grown} MiB for {} connections", connections.len());
    process.kill();
}

#[test]
fn an_expired_token_is_said_to_be_one_when_the_body_has_come() {
    let (running, _, _folder) = server(|options| options.auto_accept(true).token_lifetime_seconds(0));
    let mut device = Device::new("a");
    device.authenticate(&running);
    let body = format!("[{{\"name\":\"a\",\"value\":\"{}\"}}]", "x".repeat(900_000));
    assert_eq!(error(&device.ask(&running, "PUT", INVENTORY, &body)), 401);
}

#[test]
fn who_waits_to_be_asked_for_a_body_is_refused_before_it_is_sent() {
    let (running, _, _folder) = server(|options| options);
    for header in ["Expect: 100-continue\r\nContent-Length: 1000", "Content-Length: 99999999"] {
        for (method, path) in [("PUT", INVENTORY), ("POST", UPLOAD), ("DELETE", "/api/management/v1/none")] {
            let head =
                format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{header}\r\n\r\n");
            assert_eq!(parse(&raw(&running, head.as_bytes())).unwrap().status, 401, "{method} {path}");
        }
    }
}

#[test]
fn a_request_for_a_token_is_small() {
    let (running, management, _folder) = server(|options| options.auto_accept(true));
    let device = Device::new("a");
    let ask = |identity: &Value| {
        let body = json!({ "id_data": identity.to_string(), "pubkey": device.pem() }).to_string();
        let signature = STANDARD.encode(device.key.sign(body.as_bytes()));
        error(&authenticate(&running, body.as_bytes(), &signature))
    };
    let many = |count: usize, bytes: usize| {
        let pairs = (0..count).map(|n| (format!("{n:03}"), Value::from("v".repeat(bytes))));
        Value::Object(pairs.collect())
    };
    // Each value alone would be taken, or each is short and there are many.
    assert_eq!(ask(&many(3, 4000)), 400);
    assert_eq!(ask(&many(100, 100)), 400);
    assert_eq!(ask(&many(100, 4000)), 413);
    assert_eq!(ask(&json!({ "a": { "b": "v".repeat(9000) } })), 400);
    let preauthorized = json!({ "identity_data": many(3, 4000), "pubkey": device.pem() });
    assert_eq!(manage(&running, "POST", "/api/management/v2/devauth/devices", preauthorized).status, 400);
    assert_eq!(management.devices().unwrap().len(), 0);
    let mut good = Device::new(&"v".repeat(3000));
    assert_eq!(good.authenticate(&running).status, 200);
}

#[test]
fn many_keys_of_a_stranger_do_not_keep_a_device_out() {
    let (running, management, _folder) = server(|options| options);
    let (mut device, id) = accepted(&running, "a");
    let mut own = Device::new("a");
    for _ in 0..110 {
        assert_eq!(Device::new("a").authenticate(&running).status, 401);
    }
    let sets = || {
        let device =
            manage(&running, "GET", &format!("/api/management/v2/devauth/devices/{id}"), Value::Null).json();
        device["auth_sets"].as_array().unwrap().clone()
    };
    assert_eq!(sets().len(), 100);
    // The key that was accepted is; a new one can be.
    assert_eq!(device.authenticate(&running).status, 200);
    assert_eq!(own.authenticate(&running).status, 401);
    let set = sets().last().unwrap()["id"].as_str().unwrap().to_owned();
    let path = format!("/api/management/v2/devauth/devices/{id}/auth/{set}/status");
    assert_eq!(manage(&running, "PUT", &path, json!({ "status": "accepted" })).status, 204);
    assert_eq!(own.authenticate(&running).status, 200);
    assert_eq!(sets().len(), 100);
    assert_eq!(management.devices().unwrap().len(), 1);
}

#[test]
fn idle_connections_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_after("ulimit -n 200", folder.path());
    let mut device = Device::new("a");
    assert_eq!(process.authenticate(&mut device), 200);
    let mut idle = Vec::new();
    for number in 0..300 {
        let mut stream = process.connect();
        // Some say nothing, some half of something, some everything and then nothing more.
        let said: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET / HT",
            _ => b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        };
        // It may be closed already: then it has made room.
        let _ = stream.write_all(said);
        idle.push(stream);
    }
    let began = Instant::now();
    let next = "/api/devices/v1/deployments/device/deployments/next?artifact_name=a&device_type=b";
    assert_eq!(process.ask(&device, "GET", next, "").status, 204);
    // The server gives a silent client half a minute.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    process.kill();
}

#[test]
fn a_download_is_not_what_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_after("ulimit -n 160", folder.path());
    let file = crate::common::artifact_with("release-2", "testdev", 8_000_000, |_| {});
    let id = process.management.upload_artifact(file.path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{id}/download");
    let link: Value = serde_json::from_str(&process.management.ask("GET", &path, None).unwrap().1).unwrap();
    let link = link["uri"].as_str().unwrap().strip_prefix(&process.url).unwrap().to_owned();
    let mut download = process.connect();
    download.write_all(&request_bytes("GET", &link, &[], b"")).unwrap();
    let mut first = [0; 1];
    download.read_exact(&mut first).unwrap();
    let others: Vec<TcpStream> = (0..200).map(|_| process.connect()).collect();
    let mut rest = Vec::new();
    download.read_to_end(&mut rest).unwrap();
    let answer = parse(&[&first[..], &rest].concat()).unwrap();
    assert!(answer.body == std::fs::read(file.path()).unwrap(), "{} bytes", answer.body.len());
    drop(others);
    process.kill();
}

#[test]
fn the_limit_of_descriptors_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start_after("ulimit -S -n 256; ulimit -H -n 3000", folder.path());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("3000"), "{line}");
    process.kill();
}

#[test]
fn requests_without_a_token_do_not_fill_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path()).stderr(Stdio::piped());
    let process = Process::spawn(command, folder.path());
    let long = "x".repeat(50_000);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("{long} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /?{long} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        "GET /\u{9b}31mERROR\u{202e}x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let mut stream = process.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let began = Instant::now();
    for _ in 0..300 {
        assert_eq!(process.get("/api/management/v2/devauth/devices").status, 401);
    }
    let seconds = began.elapsed().as_secs() as usize + 2;
    let log = process.killed_and_read();
    assert!(log.lines().all(|line| line.len() < 1000), "{}", log.len());
    assert!(!log.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{log:?}");
    let refused = log.lines().filter(|line| line.contains(" 401 ")).count();
    assert!(refused <= 10 * seconds, "{refused} lines in {seconds} s");
}

#[test]
fn a_report_of_changes_does_not_grow_without_an_end() {
    let (running, _, _folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    let patch = |first: usize, value: &str| {
        let some = (first..first + 100).map(|n| json!({ "name": n.to_string(), "value": value }));
        device.ask(&running, "PATCH", INVENTORY, &Value::from(some.collect::<Vec<_>>()).to_string())
    };
    for first in (0..500).step_by(100) {
        assert_eq!(patch(first, "x").status, 200);
    }
    let refused = patch(500, "x");
    assert_eq!(error(&refused), 400);
    assert!(
        refused.text().contains("600 attributes") && refused.text().contains("500"),
        "{}",
        refused.text()
    );
    // The same ones again are no more.
    assert_eq!(patch(400, "y").status, 200);
    let refused = patch(0, &"v".repeat(9_000));
    assert_eq!(refused.status, 200);
    let refused = patch(100, &"v".repeat(9_000));
    assert_eq!(error(&refused), 400);
    assert!(refused.text().contains("bytes"), "{}", refused.text());
    let path = format!("/api/management/v1/inventory/devices/{id}");
    let known = manage(&running, "GET", &path, Value::Null).json();
    let own = known["attributes"].as_array().unwrap().iter().filter(|one| one["scope"] == "inventory");
    assert_eq!(own.count(), 500);
    // A full report begins anew.
    assert_eq!(device.ask(&running, "PUT", INVENTORY, "[{\"name\":\"a\",\"value\":1}]").status, 200);
    assert_eq!(patch(0, &"v".repeat(9_000)).status, 200);
    assert_eq!(request(&running, "GET", AUTH, &[], b"").status, 405);
}
