//! Each fault does what it says, as often as it says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common;

use crate::common::{Answer, accepted, artifact, parse, raw, request_bytes, test_server};
use serde_json::json;
use server_core::client::Management;
use testserver::{Action, Rule, TestServer};

/// A server with one artifact: the path of its link, and its bytes.
fn with_link() -> (TestServer, Management, tempfile::TempDir, String, Vec<u8>) {
    let (running, management, folder) = test_server();
    let file = artifact("release-2", "testdev");
    let id = management.upload_artifact(file.path()).unwrap();
    let path = format!("/api/management/v1/deployments/artifacts/{id}/download");
    let link: serde_json::Value =
        serde_json::from_str(&management.ask("GET", &path, None).unwrap().1).unwrap();
    let path = link["uri"].as_str().unwrap().strip_prefix(running.url()).unwrap().to_owned();
    (running, management, folder, path, std::fs::read(file.path()).unwrap())
}

/// What comes back: nothing, or an answer that may be cut.
fn get(running: &TestServer, path: &str, headers: &[(&str, &str)]) -> (Vec<u8>, Option<Answer>) {
    let bytes = raw(running, &request_bytes("GET", path, headers, b""));
    let answer = parse(&bytes);
    (bytes, answer)
}

fn set(running: &TestServer, action: Action) {
    running.faults().set(vec![Rule::new(action).path("/download/")]);
}

#[test]
fn an_answer_is_cut_behind_the_bytes_that_were_asked_for() {
    let (running, _, _folder, path, bytes) = with_link();
    for after in [1, 1000, 20_000] {
        set(&running, Action::Cut { after });
        let answer = get(&running, &path, &[]).1.unwrap();
        assert_eq!((answer.status, answer.body.len() as u64), (200, after));
        assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
        assert_eq!(get(&running, &path, &[]).1.unwrap().body, bytes, "once");
        assert_eq!(running.faults().hits(), [1]);
    }
    set(&running, Action::Cut { after: 0 });
    assert_eq!(get(&running, &path, &[]).0, b"");
    set(&running, Action::Cut { after: 100 });
    let rest = get(&running, &path, &[("Range", "bytes=50-")]).1.unwrap();
    assert_eq!((rest.status, rest.body.as_slice()), (206, &bytes[50..150]));
}

#[test]
fn a_stalled_answer_goes_on_later_or_never() {
    let (running, _, _folder, path, bytes) = with_link();
    set(&running, Action::Stall { after: 1000, seconds: Some(0.05) });
    assert_eq!(get(&running, &path, &[]).1.unwrap().body, bytes);

    set(&running, Action::Stall { after: 1000, seconds: None });
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    std::io::Write::write_all(&mut stream, &request_bytes("GET", &path, &[], b"")).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
    let mut got = Vec::new();
    let end = std::io::Read::read_to_end(&mut stream, &mut got).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::WouldBlock, "the connection is still there");
    assert_eq!(parse(&got).unwrap().body, bytes[..1000]);
    // Nobody waits for a connection that was told to stall for ever.
    running.stop();
}

#[test]
fn a_held_answer_goes_on_when_other_rules_are_set() {
    let (running, _, _folder, path, bytes) = with_link();
    set(&running, Action::Hold { after: 1000 });
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    std::io::Write::write_all(&mut stream, &request_bytes("GET", &path, &[], b"")).unwrap();
    let mut got = Vec::new();
    while parse(&got).is_none_or(|answer| answer.body.len() < 1000) {
        let mut part = [0; 4096];
        let count = std::io::Read::read(&mut stream, &mut part).unwrap();
        assert_ne!(count, 0, "the connection is still there");
        got.extend_from_slice(&part[..count]);
    }
    assert_eq!(parse(&got).unwrap().body, bytes[..1000]);
    running.faults().clear();
    while parse(&got).unwrap().body.len() < bytes.len() {
        let mut part = [0; 4096];
        let count = std::io::Read::read(&mut stream, &mut part).unwrap();
        assert_ne!(count, 0, "everything comes");
        got.extend_from_slice(&part[..count]);
    }
    assert_eq!(parse(&got).unwrap().body, bytes);
}

#[test]
fn another_status_is_given_and_nothing_is_done() {
    let (running, management, _folder) = test_server();
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", &[id]).unwrap();
    device.next(&running);
    let action = Action::Status {
        code: 503,
        headers: vec![("Retry-After".to_owned(), "7".to_owned())],
        body: "{\"error\":\"busy\"}".to_owned(),
    };
    running
        .faults()
        .set(vec![Rule::new(action).method("PUT").path("/status").body("success").skip(1).times(2)]);
    let statuses: Vec<u16> =
        (0..4).map(|_| device.report(&running, &deployment, "installing").status).collect();
    assert_eq!(statuses, [204; 4]);
    let status = || management.device_deployments(&deployment).unwrap()[0].status.clone();
    running.faults().set(vec![
        Rule::new(Action::Status {
            code: 503,
            headers: vec![("Retry-After".into(), "7".into())],
            body: "busy".into(),
        })
        .body("success")
        .times(2),
    ]);
    let answer = device.report(&running, &deployment, "success");
    assert_eq!(
        (answer.status, answer.header("retry-after"), answer.text().as_str()),
        (503, Some("7"), "busy")
    );
    assert_eq!(status(), "installing");
    assert_eq!(device.report(&running, &deployment, "success").status, 503);
    assert_eq!(device.report(&running, &deployment, "success").status, 204);
    assert_eq!(status(), "success");
}

#[test]
fn a_lost_answer_has_been_done() {
    let (running, management, _folder) = test_server();
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", &[id]).unwrap();
    device.next(&running);
    running.faults().set(vec![Rule::new(Action::LoseAnswer).path("/status")]);
    let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/status");
    let token = format!("Bearer {}", device.token);
    let bytes = request_bytes("PUT", &path, &[("Authorization", &token)], b"{\"status\":\"success\"}");
    assert_eq!(raw(&running, &bytes), b"");
    assert_eq!(management.device_deployments(&deployment).unwrap()[0].status, "success");
    assert_eq!(device.report(&running, &deployment, "success").status, 204);
}

#[test]
fn ranges_can_be_wrong_or_ignored() {
    let (running, _, _folder, path, bytes) = with_link();
    let size = bytes.len();
    let range = [("Range", "bytes=100-")];
    set(&running, Action::WrongRange { shift: 10, header_only: false });
    let answer = get(&running, &path, &range).1.unwrap();
    assert_eq!(
        (answer.status, answer.header("content-range")),
        (206, Some(format!("bytes 110-{}/{size}", size - 1).as_str()))
    );
    assert_eq!(answer.body, bytes[110..]);
    set(&running, Action::WrongRange { shift: -10, header_only: true });
    let answer = get(&running, &path, &range).1.unwrap();
    assert_eq!(answer.header("content-range"), Some(format!("bytes 90-{}/{size}", size - 11).as_str()));
    assert_eq!(answer.body, bytes[100..]);
    set(&running, Action::IgnoreRange);
    let answer = get(&running, &path, &range).1.unwrap();
    assert_eq!((answer.status, answer.header("content-range"), answer.body.len()), (200, None, size));
}

#[test]
fn content_can_change_with_or_without_its_tag() {
    let (running, _, _folder, path, bytes) = with_link();
    let etag = get(&running, &path, &[]).1.unwrap().header("etag").unwrap().to_owned();
    for same_etag in [true, false] {
        set(&running, Action::ChangeContent { same_etag });
        let answer = get(&running, &path, &[]).1.unwrap();
        assert_eq!(answer.body.len(), bytes.len());
        assert_ne!(answer.body, bytes);
        assert_eq!(answer.header("etag") == Some(&etag), same_etag);
        assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
    }
}

#[test]
fn redirects_go_elsewhere_or_in_a_circle() {
    let (running, _, _folder, path, bytes) = with_link();
    set(&running, Action::Redirect { to: Some("http://127.0.0.1:1/x".to_owned()) });
    let answer = get(&running, &path, &[]).1.unwrap();
    assert_eq!((answer.status, answer.header("location")), (302, Some("http://127.0.0.1:1/x")));
    running.faults().set(vec![Rule::new(Action::Redirect { to: None }).path("/download/").times(3)]);
    let statuses: Vec<u16> = (0..4)
        .map(|_| {
            let answer = get(&running, &path, &[]).1.unwrap();
            assert!(answer.status == 200 || answer.header("location") == Some(&path));
            answer.status
        })
        .collect();
    assert_eq!(statuses, [302, 302, 302, 200]);
    assert_eq!(get(&running, &path, &[]).1.unwrap().body, bytes);
}

#[test]
fn slow_answers_are_whole() {
    let (running, _, _folder, path, bytes) = with_link();
    set(&running, Action::Throttle { bytes_per_second: 100_000 });
    assert_eq!(get(&running, &path, &[]).1.unwrap().body, bytes);
    set(&running, Action::SlowHead { seconds: 0.05 });
    assert_eq!(get(&running, &path, &[]).1.unwrap().body, bytes);
}

#[test]
fn garbage_is_no_http() {
    let (running, _, _folder, path, bytes) = with_link();
    set(&running, Action::Garbage { bytes: 300 });
    let (got, answer) = get(&running, &path, &[]);
    assert_eq!((got.len(), answer), (300, None));
    assert_eq!(get(&running, &path, &[]).1.unwrap().body, bytes);
}

#[test]
fn faults_are_set_from_outside_when_that_is_allowed() {
    let (running, _, _folder, path, _) = with_link();
    let put = |body: &[u8]| common::request(&running, "PUT", "/api/internal/v1/faults", &[], body).status;
    let rules =
        json!([{ "path": "/download/", "times": 0, "action": { "status": { "code": 500 } } }]).to_string();
    assert_eq!(put(rules.as_bytes()), 204);
    for _ in 0..3 {
        assert_eq!(get(&running, &path, &[]).1.unwrap().status, 500);
    }
    let known = common::request(&running, "GET", "/api/internal/v1/faults", &[], b"").json();
    assert_eq!(known["hits"], json!([3]));
    assert_eq!(put(b"[{\"action\":\"explode\"}]"), 400);
    assert_eq!(common::request(&running, "DELETE", "/api/internal/v1/faults", &[], b"").status, 204);
    assert_eq!(get(&running, &path, &[]).1.unwrap().status, 200);
}

#[test]
fn requests_are_recorded_with_what_was_answered() {
    let (running, _, _folder, path, bytes) = with_link();
    get(&running, &path, &[("Range", "bytes=10-")]);
    let recorded = running.requests().pop().unwrap();
    assert_eq!(
        (recorded.method.as_str(), recorded.path.as_str(), recorded.status),
        ("GET", path.as_str(), 206)
    );
    assert!(recorded.headers.contains(&("range".to_owned(), "bytes=10-".to_owned())));
    assert_eq!(recorded.response_bytes, bytes.len() as u64 - 10);
}
