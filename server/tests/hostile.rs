//! What nobody with good intentions sends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common;

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::common::{Device, accepted, artifact, authenticate, error, manage, parse, raw, request, server};
use serde_json::{Value, json};
use server_core::Running;

/// The server is still there.
fn check_alive(running: &Running) {
    assert_eq!(manage(running, "GET", "/api/management/v2/devauth/devices/count", Value::Null).status, 200);
}

#[test]
fn unknown_routes_are_404_in_json() {
    let (running, _, _folder) = server(|options| options);
    let (device, _) = accepted(&running, "a");
    for (method, path) in [
        ("GET", "/none"),
        ("GET", "//"),
        ("GET", "/api"),
        ("PUT", "/api/devices/v3/deployments/device/deployments/next"),
        ("GET", "/api/internal/v1/faults"),
    ] {
        assert_eq!(error(&device.ask(&running, method, path, "")), 404, "{method} {path}");
    }
    for (method, path) in [
        ("DELETE", "/api/devices/v1/deployments/device/deployments/next"),
        ("BREW", "/api/devices/v1/authentication/auth_requests"),
    ] {
        assert_eq!(error(&device.ask(&running, method, path, "")), 405, "{method} {path}");
    }
    for path in [
        "/api/management/v1/none",
        "/api/management/v9/devauth/devices",
        "/api/management/v2/devauth/devices/a/b/c",
    ] {
        assert_eq!(error(&manage(&running, "GET", path, Value::Null)), 404, "{path}");
    }
}

#[test]
fn bodies_above_the_limit_are_413_before_they_are_read() {
    let (running, _, _folder) = server(|options| options);
    let (device, _) = accepted(&running, "a");
    let head = format!(
        "PUT /api/devices/v1/inventory/device/attributes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
         Authorization: Bearer {}\r\nContent-Length: 99999999999\r\n\r\n",
        device.token
    );
    assert_eq!(parse(&raw(&running, head.as_bytes())).unwrap().status, 413);
    check_alive(&running);
}

#[test]
fn an_answer_before_the_end_of_a_body_says_that_the_connection_ends() {
    let (running, _, _folder) = server(|options| options.read_timeout_seconds(1));
    let (device, _) = accepted(&running, "a");
    let attributes = "PUT /api/devices/v1/inventory/device/attributes";
    let upload = "POST /api/management/v1/deployments/artifacts";
    let form = "Content-Type: multipart/form-data; boundary=b";
    let (device, person) = (device.token.clone(), running.management_token().to_owned());
    for (line, token, headers, sent, status) in [
        (attributes, &*device, "Content-Length: 99999999", "", 413),
        (attributes, &*device, "Transfer-Encoding: chunked", "200000\r\n", 408),
        (attributes, &*device, "Content-Length: 10", "ab", 408),
        (attributes, "x", "Content-Length: 99999999", "", 401),
        (attributes, "x", "Content-Length: 10\r\nExpect: 100-continue", "", 401),
        (upload, &*person, "Content-Length: 99999999", "", 400),
        (upload, &*person, &*format!("Content-Length: 99999999\r\n{form}"), "no form at all\r\n--b--", 400),
    ] {
        let request =
            format!("{line} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{headers}\r\n\r\n{sent}");
        // There is nobody but the server to close it.
        let answer = parse(&raw(&running, request.as_bytes())).unwrap();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request}");
    }
    check_alive(&running);
}

#[test]
fn a_list_in_place_of_an_object_is_400() {
    let (running, _, _folder) = server(|options| options);
    let (device, _) = accepted(&running, "a");
    let status = "/api/devices/v1/deployments/device/deployments/x/status";
    assert_eq!(error(&device.ask(&running, "PUT", status, "[\"success\",null]")), 400);
    for (method, path, body) in [
        ("POST", "/api/management/v1/deployments/deployments", json!(["n", "release-2", ["x"]])),
        ("PUT", "/api/management/v1/deployments/limits/downloads", json!([1, 1])),
        ("POST", "/api/management/v2/useradm/roles", json!(["r", "d", []])),
        (
            "PUT",
            "/api/management/v2/useradm/roles/r",
            json!({ "permission_sets_with_scope": [["ReadDevices", null]] }),
        ),
        (
            "POST",
            "/api/management/v1/iot-manager/integrations",
            json!({ "provider": "webhook", "credentials": ["http", { "url": "https://a" }] }),
        ),
        (
            "POST",
            "/api/management/v2/inventory/filters/search",
            json!({ "filters": [["inventory", "a", "$eq", 1]] }),
        ),
    ] {
        let answer = manage(&running, method, path, body);
        let said = answer.text();
        assert_eq!((error(&answer), said.contains("invalid type: sequence")), (400, true), "{path}: {said}");
    }
}

#[test]
fn what_is_no_http_is_400_or_closed() {
    let (running, _, _folder) = server(|options| options.read_timeout_seconds(1));
    for bytes in [
        &b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let answer = raw(&running, bytes);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400") || answer.starts_with(b"HTTP/1.1 505")
        );
    }
    let smuggled = b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n";
    let answer = parse(&raw(&running, smuggled)).unwrap();
    assert!([400, 404].contains(&answer.status));
    check_alive(&running);
}

#[test]
fn a_head_above_the_limit_is_refused() {
    let (running, _, _folder) = server(|options| options);
    let long = "x".repeat(200_000);
    let answer = raw(&running, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n").as_bytes());
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    let many: String = (0..5000).map(|n| format!("X{n}: y\r\n")).collect();
    let answer = raw(&running, format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes());
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431") || answer.starts_with(b"HTTP/1.1 400"));
    check_alive(&running);
}

#[test]
fn clients_that_do_not_go_on_are_closed() {
    let (running, _, _folder) = server(|options| options.read_timeout_seconds(1));
    let ends = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // It ends, or this test does not.
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    ends(b"GET / HT");
    ends(b"");
    let answer = ends(b"PUT /api/devices/v1/inventory/device/attributes HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab");
    assert!(answer.starts_with(b"HTTP/1.1 408"));
    check_alive(&running);
}

#[test]
fn deep_and_strange_json_is_400() {
    let (running, _, _folder) = server(|options| options);
    let (device, _) = accepted(&running, "a");
    let deep = "[".repeat(100_000);
    let deep_enough = "[".repeat(20_000);
    for body in [deep.as_str(), "{\"status\":", "\u{feff}{}", "nul", "{\"status\":\"success\"}x"] {
        let path = "/api/devices/v1/deployments/device/deployments/x/status";
        assert_eq!(error(&device.ask(&running, "PUT", path, body)), 400);
    }
    let deep_identity = json!({ "id_data": deep_enough, "pubkey": device.pem() }).to_string();
    let signature = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        device.key.sign(deep_identity.as_bytes()),
    );
    assert_eq!(error(&common::authenticate(&running, deep_identity.as_bytes(), &signature)), 400);
    check_alive(&running);
}

#[test]
fn an_identity_that_lies_in_lists_is_400_and_nothing_is_kept_of_it() {
    let (running, _, _folder) = server(|options| options);
    let devices = "/api/management/v2/devauth/devices";
    for depth in [2, 32, 33, 120, 126, 200] {
        let deep = format!("{{\"mac\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
        let device = Device::new("a");
        // The identity is a text inside of the body, so what is asked of the body says nothing of it.
        let body = json!({ "id_data": deep, "pubkey": device.pem() }).to_string();
        let signature = STANDARD.encode(device.key.sign(body.as_bytes()));
        assert_eq!(error(&authenticate(&running, body.as_bytes(), &signature)), 400, "{depth}");
        let body = format!("{{\"identity_data\":{deep},\"pubkey\":{}}}", json!(device.pem()));
        let token = format!("Bearer {}", running.management_token());
        let answer = request(&running, "POST", devices, &[("Authorization", &token)], body.as_bytes());
        assert_eq!(error(&answer), 400, "{depth}");
    }
    let listed = manage(&running, "GET", devices, Value::Null);
    assert_eq!((listed.status, listed.json()), (200, json!([])));
}

/// Uploads a form as it is.
fn upload(running: &Running, content_type: &str, body: &[u8]) -> u16 {
    let token = format!("Bearer {}", running.management_token());
    let headers = [("Authorization", token.as_str()), ("Content-Type", content_type)];
    let mut bytes = common::request_bytes("POST", "/api/management/v1/deployments/artifacts", &headers, b"");
    let text = String::from_utf8(bytes)
        .unwrap()
        .replace("Content-Length: 0", &format!("Content-Length: {}", body.len()));
    bytes = [text.as_bytes(), body].concat();
    error(&parse(&raw(running, &bytes)).unwrap())
}

#[test]
fn uploads_that_are_no_artifact_leave_nothing_behind() {
    let (running, management, folder) = server(|options| options.max_artifact_bytes(100_000));
    let form = |content: &[u8]| {
        let head = b"--b\r\nContent-Disposition: form-data; name=\"artifact\"; filename=\"../../x\"\r\n\r\n"
            .to_vec();
        [&head, content, b"\r\n--b--\r\n"].concat()
    };
    let kind = "multipart/form-data; boundary=b";
    let good = std::fs::read(artifact("release-2", "testdev").path()).unwrap();
    let mut changed = good.clone();
    let middle = changed.len() - 5000;
    changed[middle] ^= 1;
    assert_eq!(upload(&running, "application/json", b"{}"), 400);
    assert_eq!(upload(&running, kind, b"no form"), 400);
    assert_eq!(
        upload(
            &running,
            kind,
            b"--b\r\nContent-Disposition: form-data; name=\"description\"\r\n\r\nx\r\n--b--\r\n"
        ),
        400
    );
    assert_eq!(upload(&running, kind, &form(b"")), 400);
    assert_eq!(upload(&running, kind, &form(&[0; 10_000])), 400);
    assert_eq!(upload(&running, kind, &form(&good[..good.len() / 2])), 400);
    assert_eq!(upload(&running, kind, &form(&changed)), 400);
    assert_eq!(upload(&running, kind, &form(&[1; 200_000])), 413);
    assert_eq!(management.artifacts().unwrap(), Vec::<Value>::new());
    for name in ["artifacts", "incoming"] {
        assert_eq!(std::fs::read_dir(folder.path().join(name)).unwrap().count(), 0, "{name}");
    }
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
}

#[test]
fn an_upload_without_a_token_is_refused() {
    let (running, _, _folder) = server(|options| options);
    let path = "/api/management/v1/deployments/artifacts";
    let answer =
        request(&running, "POST", path, &[("Content-Type", "multipart/form-data; boundary=b")], b"--b--");
    assert_eq!(error(&answer), 401);
}

#[test]
fn one_device_cannot_speak_for_another() {
    let (running, management, _folder) = server(|options| options);
    let (_, first) = accepted(&running, "a");
    let (second, _) = accepted(&running, "b");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", std::slice::from_ref(&first)).unwrap();
    assert_eq!(second.next(&running).status, 204);
    assert_eq!(error(&second.report(&running, &deployment, "success")), 404);
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/log");
    let log = "{\"messages\":[{\"timestamp\":\"2026-11-22T19:04:36Z\",\"level\":\"i\",\"message\":\"m\"}]}";
    assert_eq!(error(&second.ask(&running, "PUT", &path, log)), 404);
    assert_eq!(management.device_deployments(&deployment).unwrap()[0].status, "pending");
    let mut stranger = Device::new("a");
    assert_eq!(stranger.authenticate(&running).status, 401);
}
