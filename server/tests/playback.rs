//! Terminals of devices that are recorded, and seen again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Instant;

use crate::common::{PATIENCE, accepted, manage, server};
use crate::connect::closed;
use crate::users::{USERADM, token, user};
use serde_json::Value;
use server_core::client::{ClientError, FrameStream, Management};
use server_core::{Options, Running};

/// A message of a shell; the session has 36 letters, the body fewer than 256.
fn shell(session: &str, body: &[u8]) -> Vec<u8> {
    let session = [b"\xd9\x24", session.as_bytes()].concat();
    let header = [b"\x83\xa5proto\x01\xa3typ\xa5shell\xa3sid", &*session].concat();
    [b"\x82\xa3hdr", &*header, b"\xa4body\xc4", &[body.len() as u8], body].concat()
}

/// A session in which a person types and the shell prints: its id, when the device has heard of its end.
fn session(running: &Running, management: &Management) -> String {
    let (device, id) = accepted(running, "a");
    let path = "/api/devices/v1/deviceconnect/connect";
    let mut device = FrameStream::open(running.url(), path, &device.token).unwrap();
    while management.connection(&id).unwrap() != "connected" {
        std::thread::yield_now();
    }
    let mut person = management.connect(&id).unwrap();
    person.send(&shell(&"x".repeat(36), b"passwd")).unwrap();
    let heard = device.receive(PATIENCE).unwrap().unwrap();
    let at = heard.windows(6).position(|part| part == b"\xa3sid\xd9\x24").unwrap() + 6;
    let session = String::from_utf8(heard[at..at + 36].to_vec()).unwrap();
    for text in ["first", "second"] {
        device.send(&shell(&session, text.as_bytes())).unwrap();
        person.receive(PATIENCE).unwrap().unwrap();
    }
    drop(person);
    device.receive(PATIENCE).unwrap().unwrap();
    session
}

fn open(running: &Running, session: &str, query: &str) -> Result<FrameStream, u16> {
    let path = format!("/api/management/v1/deviceconnect/sessions/{session}/playback{query}");
    match FrameStream::open(running.url(), &path, running.management_token()) {
        Ok(stream) => Ok(stream),
        Err(ClientError::Status { status, .. }) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_recorded_terminal_is_seen_again_without_what_was_typed() {
    let (running, management, _folder) = server(|options: Options| options.record_terminals(true));
    let session = session(&running, &management);
    // It is stored behind the end of the session.
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match open(&running, &session, "?sleep_ms=1") {
            Ok(stream) => break stream,
            Err(status) => assert!(status == 404 && Instant::now() < deadline, "{status}"),
        }
    };
    for text in [&b"first"[..], b"second"] {
        let frame = stream.receive(PATIENCE).unwrap().unwrap();
        assert!(frame.ends_with(text) && frame.windows(6).any(|part| part == b"\xa5shell"), "{frame:x?}");
    }
    let ended = stream.receive(PATIENCE);
    assert!(matches!(ended, Err(ClientError::Closed { code: 1000, .. })), "{ended:?}");
    // Who may not any more does not see the rest.
    let email = "ada@example.org";
    let ada = user(&running, email, &[]);
    let path = format!("/api/management/v1/deviceconnect/sessions/{session}/playback?sleep_ms=1000");
    let mut stream = FrameStream::open(running.url(), &path, &token(&running, email)).unwrap();
    assert_eq!(manage(&running, "DELETE", &format!("{USERADM}/users/{ada}"), Value::Null).status, 204);
    assert_eq!(closed(&mut stream), 1008);
    for query in ["?sleep_ms=1001", "?sleep_ms=soon"] {
        assert_eq!(open(&running, &session, query).err(), Some(400));
    }
    let log = manage(&running, "GET", "/api/management/v1/auditlogs/logs", Value::Null).json();
    let actions: Vec<&str> = log
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["meta"]["session_id"][0] == *session)
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["play_terminal", "play_terminal", "open_terminal"]);
}
