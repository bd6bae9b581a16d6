//! People at work on devices: WebSockets of both, and what goes between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{Device, PATIENCE, accepted, login, manage, raw, request, server, soon, until};
use crate::users::{PASSWORD, USERADM, ask, token, user};
use serde_json::{Value, json};
use server_core::Running;
use server_core::client::{ClientError, FrameStream, Management};

const DEVICE: &str = "/api/devices/v1/deviceconnect/connect";
const DEVICES: &str = "/api/management/v1/deviceconnect/devices";

/// A frame: session and body are texts of less than 16 and 256 bytes.
fn frame(session: &str, body: &[u8]) -> Vec<u8> {
    let session = [&[0xa0 | session.len() as u8], session.as_bytes()].concat();
    let header = [b"\x83\xa5proto\x01\xa3typ\xa5shell\xa3sid", &*session].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [b"\x82\xa3hdr", &*header, b"\xa4body\xc5", &length, body].concat()
}

/// The session that the server has put into a frame.
fn session_in(frame: &[u8]) -> String {
    let at = frame.windows(6).position(|part| part == b"\xa3sid\xd9\x24").expect("a UUID as session");
    String::from_utf8(frame[at + 6..at + 42].to_vec()).unwrap()
}

/// A frame with a session of 36 bytes.
fn answer(session: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = frame("", body);
    let at = bytes.windows(5).position(|part| part == b"\xa3sid\xa0").unwrap() + 4;
    bytes.splice(at..=at, [0xd9, 36].into_iter().chain(session.bytes()));
    bytes
}

fn contains(frame: &[u8], part: &[u8]) -> bool {
    frame.windows(part.len()).any(|window| window == part)
}

fn connect_device(running: &Running, device: &Device) -> FrameStream {
    FrameStream::open(running.url(), DEVICE, &device.token).unwrap()
}

/// A handshake with the key of the example in RFC 6455, section 1.3.
fn handshake(device: &Device) -> Vec<u8> {
    let token = &device.token;
    let request = format!(
        "GET {DEVICE} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    request.into_bytes()
}

#[track_caller]
fn next(stream: &mut FrameStream) -> Vec<u8> {
    stream.receive(PATIENCE).unwrap().expect("a frame")
}

/// Reads until the server has closed, and gives the number of its reason.
#[track_caller]
pub(crate) fn closed(stream: &mut FrameStream) -> u16 {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match stream.receive(PATIENCE) {
            Ok(_) => {}
            Err(ClientError::Closed { code, .. }) => return code,
            Err(error) => panic!("not closed, but {error}"),
        }
    }
    panic!("not closed");
}

#[track_caller]
fn refused(result: Result<FrameStream, ClientError>) -> u16 {
    match result {
        Err(ClientError::Status { status, .. }) => status,
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn expect_status(management: &Management, id: &str, status: &str) {
    until(|| management.connection(id).unwrap() == status);
}

/// A server with one connected device.
fn connected() -> (Running, Management, tempfile::TempDir, Device, String, FrameStream) {
    connected_with(|options| options)
}

fn connected_with(
    change: impl FnOnce(server_core::Options) -> server_core::Options,
) -> (Running, Management, tempfile::TempDir, Device, String, FrameStream) {
    let (running, management, folder) = server(change);
    let (mut device, id) = accepted(&running, "a");
    assert_eq!(device.authenticate(&running).status, 200);
    let stream = connect_device(&running, &device);
    expect_status(&management, &id, "connected");
    (running, management, folder, device, id, stream)
}

/// What the program prints.
#[track_caller]
fn program(running: &Running, folder: &tempfile::TempDir, words: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
    command.args(words).args(["--server", running.url(), "--token-file"]);
    let output = command.arg(folder.path().join("management-token")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn frames_go_both_ways_between_a_person_and_a_device() {
    let (_running, management, _folder, _, id, mut device) = connected();
    let mut person = management.connect(&id).unwrap();
    person.send(&frame("mine", b"to the device")).unwrap();
    let arrived = next(&mut device);
    assert!(contains(&arrived, b"to the device") && contains(&arrived, b"\xa7user_id\xaamanagement"));
    assert!(!contains(&arrived, b"mine"), "a person chose a session");
    let session = session_in(&arrived);
    let back = answer(&session, b"to the person");
    device.send(&back).unwrap();
    assert_eq!(next(&mut person), back);
}

#[test]
fn every_session_hears_only_what_is_for_it() {
    let (_running, management, _folder, _, id, mut device) = connected();
    let mut sessions = Vec::new();
    for name in ["first", "second"] {
        let mut person = management.connect(&id).unwrap();
        person.send(&frame("", name.as_bytes())).unwrap();
        sessions.push((person, session_in(&next(&mut device))));
    }
    assert_ne!(sessions[0].1, sessions[1].1);
    // The first may not speak for the second either.
    let second = sessions[1].1.clone();
    sessions[0].0.send(&answer(&second, b"in another's name")).unwrap();
    assert_eq!(session_in(&next(&mut device)), sessions[0].1);
    device.send(&answer("00000000-0000-4000-8000-000000000000", b"for nobody")).unwrap();
    device.send(&answer(&second, b"2")).unwrap();
    device.send(&answer(&sessions[0].1, b"1")).unwrap();
    for ((mut person, session), body) in sessions.into_iter().zip([b"1", b"2"]) {
        assert_eq!(next(&mut person), answer(&session, body));
    }
}

#[test]
fn the_device_is_told_when_a_session_ends() {
    let (_running, management, _folder, _, id, mut device) = connected();
    let mut person = management.connect(&id).unwrap();
    person.send(&frame("", b"x")).unwrap();
    let session = session_in(&next(&mut device));
    drop(person);
    let stop = next(&mut device);
    assert!(contains(&stop, b"\xa5proto\x01\xa3typ\xa4stop"));
    assert_eq!(session_in(&stop), session);
}

#[test]
fn a_session_ends_with_its_device() {
    let (_running, management, _folder, _, id, device) = connected();
    let mut person = management.connect(&id).unwrap();
    drop(device);
    assert_eq!(closed(&mut person), 1001);
    expect_status(&management, &id, "disconnected");
    assert_eq!(refused(management.connect(&id)), 404);
}

#[test]
fn a_newer_connection_of_a_device_replaces_the_older() {
    let (running, management, _folder, device, id, mut older) = connected();
    let mut person = management.connect(&id).unwrap();
    let mut newer = connect_device(&running, &device);
    assert_eq!(closed(&mut older), 1000);
    assert_eq!(closed(&mut person), 1001);
    drop(older);
    assert_eq!(management.connection(&id).unwrap(), "connected");
    let mut person = management.connect(&id).unwrap();
    person.send(&frame("", b"to the newer")).unwrap();
    // Before it there may be the end of the older session; it was never there.
    assert!(contains(&next(&mut newer), b"to the newer"));
}

#[test]
fn who_is_not_connected_or_not_known_is_not_reached() {
    let (running, management, _folder) = server(|options| options);
    let (_, id) = accepted(&running, "a");
    let described = manage(&running, "GET", &format!("{DEVICES}/{id}"), Value::Null);
    assert_eq!(described.status, 200);
    let described = described.json();
    assert_eq!((&described["device_id"], &described["status"]), (&json!(id), &json!("unknown")));
    assert!(described["created_ts"].is_string() && described["updated_ts"].is_string());
    assert_eq!(refused(management.connect(&id)), 404);
    assert_eq!(refused(management.connect("nobody")), 404);
    for command in ["check-update", "send-inventory"] {
        let path = |id: &str| format!("{DEVICES}/{id}/{command}");
        assert_eq!(manage(&running, "POST", &path(&id), Value::Null).status, 409);
        assert_eq!(manage(&running, "POST", &path("nobody"), Value::Null).status, 404);
    }
    assert_eq!(manage(&running, "GET", &format!("{DEVICES}/nobody"), Value::Null).status, 404);
    assert_eq!(manage(&running, "POST", &format!("{DEVICES}/{id}/dance"), Value::Null).status, 404);
}

#[test]
fn a_wrong_token_opens_nothing() {
    let (running, management, _folder, device, id, _stream) = connected();
    let open = |path: &str, token: &str| refused(FrameStream::open(running.url(), path, token));
    let connect = format!("{DEVICES}/{id}/connect");
    assert_eq!(open(DEVICE, "nonsense"), 401);
    assert_eq!(open(DEVICE, running.management_token()), 401);
    assert_eq!(open(&connect, "nonsense"), 401);
    assert_eq!(open(&connect, &device.token), 401);
    let path = format!("{DEVICES}/{id}/check-update");
    assert_eq!(request(&running, "POST", &path, &[], b"").status, 401);
    assert_eq!(management.connection(&id).unwrap(), "connected");
}

#[test]
fn a_request_that_is_no_handshake_is_refused() {
    let (running, _, _folder, device, _, _stream) = connected();
    let bearer = format!("Bearer {}", device.token);
    let base = [("Authorization", &*bearer), ("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let key = ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    for headers in [
        base[..1].to_vec(),
        [&base[..], &[("Sec-WebSocket-Version", "13")]].concat(),
        [&base[..], &[key, ("Sec-WebSocket-Version", "8")]].concat(),
        [&base[..1], &[key, ("Sec-WebSocket-Version", "13")]].concat(),
    ] {
        assert_eq!(request(&running, "GET", DEVICE, &headers, b"").status, 400, "{headers:?}");
    }
}

#[test]
fn a_device_that_is_rejected_is_cut_off() {
    let (_running, management, _folder, _, id, mut device) = connected();
    let mut person = management.connect(&id).unwrap();
    management.reject(&id).unwrap();
    assert_eq!(closed(&mut device), 1008);
    assert_eq!(closed(&mut person), 1001);
    expect_status(&management, &id, "disconnected");
}

/// However a key loses its right, its connection ends and hears nothing more.
#[test]
fn a_key_that_may_not_speak_any_more_is_cut_off() {
    type End = fn(&Running, &Management, &str, &str);
    let ends: [(&str, End); 5] = [
        ("another key is accepted when its device comes", |running, _, _, _| {
            let mut newer = Device::new("a");
            let body = json!({ "identity_data": newer.identity, "pubkey": newer.pem(), "force": true });
            assert_eq!(manage(running, "POST", "/api/management/v2/devauth/devices", body).status, 201);
            assert_eq!(newer.authenticate(running).status, 200);
        }),
        ("another key is accepted by a person", |running, management, id, _| {
            let mut newer = Device::new("a");
            assert_eq!(newer.authenticate(running).status, 401);
            let sets = management.devices().unwrap().remove(0).auth_sets;
            let path = format!("/api/management/v2/devauth/devices/{id}/auth/{}/status", sets[1].id);
            assert_eq!(manage(running, "PUT", &path, json!({ "status": "accepted" })).status, 204);
        }),
        ("its tokens are revoked", |running, _, _, set| {
            let path = format!("/api/management/v2/devauth/tokens/{set}");
            assert_eq!(manage(running, "DELETE", &path, Value::Null).status, 204);
        }),
        ("the key is dismissed", |running, _, id, set| {
            let path = format!("/api/management/v2/devauth/devices/{id}/auth/{set}");
            assert_eq!(manage(running, "DELETE", &path, Value::Null).status, 204);
        }),
        ("the device is decommissioned", |_, management, id, _| management.decommission(id).unwrap()),
    ];
    for (how, end) in ends {
        let (running, management, _folder, device, id, mut stream) = connected();
        let mut person = management.connect(&id).unwrap();
        let set = management.devices().unwrap()[0].auth_sets[0].id.clone();
        end(&running, &management, &id, &set);
        // What a person types now is for nobody.
        let _ = person.send(&frame("", b"root-password"));
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            assert!(Instant::now() < deadline, "{how}: not closed");
            match stream.receive(PATIENCE) {
                Ok(Some(heard)) => assert!(!contains(&heard, b"root-password"), "{how}"),
                Ok(None) => {}
                Err(ClientError::Closed { code, .. }) => break code,
                Err(error) => panic!("{how}: {error}"),
            }
        };
        assert_eq!(code, 1008, "{how}");
        assert_eq!(refused(FrameStream::open(running.url(), DEVICE, &device.token)), 401, "{how}");
    }
}

#[test]
fn a_connection_ends_with_its_token() {
    let (running, management, _folder) =
        server(|options| options.auto_accept(true).token_lifetime_seconds(2));
    let mut device = Device::new("a");
    device.authenticate(&running);
    let mut stream = connect_device(&running, &device);
    let id = management.devices().unwrap()[0].id.clone();
    assert_eq!(closed(&mut stream), 1008);
    expect_status(&management, &id, "disconnected");
    assert_eq!(device.next(&running).status, 401);
}

#[test]
fn work_on_a_device_ends_with_the_logout() {
    let (running, management, _folder, _, id, mut device) =
        connected_with(|options| options.user("ada", "secret"));
    let token = login(&running, "ada:secret").text();
    let ada = Management::new(running.url(), &token);
    let (mut hers, mut other) = (ada.connect(&id).unwrap(), management.connect(&id).unwrap());
    let bearer = format!("Bearer {token}");
    let path = "/api/management/v1/useradm/auth/logout";
    assert_eq!(request(&running, "POST", path, &[("Authorization", &bearer)], b"").status, 202);
    assert_eq!(closed(&mut hers), 1008);
    assert_eq!(refused(ada.connect(&id)), 401);
    // Whoever else is at work goes on.
    other.send(&frame("", b"still here")).unwrap();
    loop {
        if contains(&next(&mut device), b"still here") {
            break;
        }
    }
}

/// However a person loses the right to it, what is open ends, and nothing else does.
#[test]
fn work_on_a_device_ends_with_the_right_to_it() {
    let (running, management, _folder, _, id, mut device) = connected();
    let into = |group: &str| {
        let path = format!("/api/management/v1/inventory/devices/{id}/group");
        assert_eq!(manage(&running, "PUT", &path, json!({ "group": group })).status, 204);
    };
    into("lab");
    let role = |scoped: Value| json!({ "name": "lab", "permission_sets_with_scope": scoped });
    let scope = json!({ "type": "DeviceGroups", "value": ["lab"] });
    let scoped = role(json!([{ "name": "ConnectToDevices", "scope": scope }]));
    const ROLES: &str = "/api/management/v2/useradm/roles";
    assert_eq!(manage(&running, "POST", ROLES, scoped).status, 201);
    let mut other = management.connect(&id).unwrap();
    let tokens = format!("{USERADM}/settings/tokens");
    let sessions = format!("{USERADM}/settings/sessions");
    for (number, how) in [
        "the personal token is removed",
        "the personal token expires",
        "the login is ended in the list",
        "there is another password",
        "the user is removed",
        "the user has another role",
        "the device is in another group",
        "the role does not allow it any more",
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("{number}@example.org");
        let user = user(&running, &email, &["lab"]);
        let login = token(&running, &email);
        let seconds = if how == "the personal token expires" { 3 } else { 0 };
        let made = ask(&running, &login, "POST", &tokens, json!({ "name": "a", "expires_in": seconds }));
        assert_eq!(made.status, 200, "{}", made.text());
        let used = if how.starts_with("the personal token") { made.text() } else { login.clone() };
        let mut person = Management::new(running.url(), &used).connect(&id).unwrap();
        let me = |method: &str, path: &str, body: Value| {
            let answer = ask(&running, &login, method, path, body);
            assert!((200..300).contains(&answer.status), "{how}: {}", answer.text());
            answer
        };
        let of_user = format!("{USERADM}/users/{user}");
        match how {
            "the personal token is removed" => {
                let listed = me("GET", &tokens, Value::Null).json();
                me("DELETE", &format!("{tokens}/{}", listed[0]["id"].as_str().unwrap()), Value::Null);
            }
            "the personal token expires" => {}
            "the login is ended in the list" => {
                let listed = me("GET", &sessions, Value::Null).json();
                me("DELETE", &format!("{sessions}/{}", listed[0]["id"].as_str().unwrap()), Value::Null);
            }
            "there is another password" => {
                let body = json!({ "password": "another one", "current_password": PASSWORD });
                me("PUT", &format!("{USERADM}/users/me"), body);
            }
            "the user is removed" => {
                assert_eq!(manage(&running, "DELETE", &of_user, Value::Null).status, 204);
            }
            "the user has another role" => {
                let body = json!({ "roles": ["RBAC_ROLE_OBSERVER"] });
                assert_eq!(manage(&running, "PUT", &of_user, body).status, 204);
            }
            "the device is in another group" => into("field"),
            _ => {
                assert_eq!(manage(&running, "PUT", &format!("{ROLES}/lab"), role(json!([]))).status, 204);
            }
        }
        assert_eq!(closed(&mut person), 1008, "{how}");
        into("lab");
    }
    other.send(&frame("", b"still here")).unwrap();
    while !contains(&next(&mut device), b"still here") {}
}

#[test]
fn garbage_and_too_much_are_refused() {
    let (running, management, _folder, device, id, mut stream) = connected();
    for (bytes, code) in [
        (b"garbage".to_vec(), 1002),
        (Vec::new(), 1002),
        (b"\x81\xa3hdr\x90".to_vec(), 1002),
        (vec![0x91; 60_000], 1002),
        (vec![0; 64 * 1024 + 1], 1009),
    ] {
        let mut person = management.connect(&id).unwrap();
        person.send(&bytes).unwrap();
        assert_eq!(closed(&mut person), code, "from a person: {} bytes", bytes.len());
        stream.send(&bytes).unwrap();
        assert_eq!(closed(&mut stream), code, "from a device: {} bytes", bytes.len());
        stream = connect_device(&running, &device);
        expect_status(&management, &id, "connected");
    }
    // The largest that is not too large.
    let mut person = management.connect(&id).unwrap();
    let largest = frame("", &vec![7; 64 * 1024 - frame("", b"").len()]);
    assert_eq!(largest.len(), 64 * 1024);
    person.send(&largest).unwrap();
    assert!(next(&mut stream).ends_with(&[7; 1000]));
}

#[test]
fn a_text_or_a_frame_that_breaks_the_protocol_ends_the_connection() {
    let (running, management, _folder, device, id, _stream) = connected();
    // A text; a frame without a mask; a bit that nobody has given a meaning.
    for bytes in [&b"\x81\x82\0\0\0\0hi"[..], b"\x82\x02hi", b"\xf2\x82\0\0\0\0hi"] {
        // It ends when the server closes.
        let answer = raw(&running, &[&handshake(&device), bytes].concat());
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
        expect_status(&management, &id, "disconnected");
    }
}

#[test]
fn a_device_that_never_reads_is_closed_and_others_are_not_held_up() {
    let (running, management, _folder, _, id, _never_read) =
        connected_with(|options| options.websocket_write_seconds(1));
    let (mut other, other_id) = accepted(&running, "b");
    other.authenticate(&running);
    let mut other = connect_device(&running, &other);
    expect_status(&management, &other_id, "connected");
    let mut person = management.connect(&id).unwrap();
    let large = frame("", &[0; 60_000]);
    // More than all buffers between here and there can take. How much that is until the server closes depends on the machine.
    let until = Instant::now() + PATIENCE;
    while person.send(&large).is_ok() {
        assert!(Instant::now() < until, "somebody takes it all");
    }
    expect_status(&management, &id, "disconnected");
    management.command(&other_id, "check-update").unwrap();
    assert!(contains(&next(&mut other), b"check-update"));
}

#[test]
fn a_person_who_never_reads_is_closed_and_the_device_goes_on() {
    let (_running, management, _folder, _, id, mut device) =
        connected_with(|options| options.websocket_write_seconds(1));
    let mut deaf = management.connect(&id).unwrap();
    deaf.send(&frame("", b"x")).unwrap();
    let session = session_in(&next(&mut device));
    let large = answer(&session, &[0; 60_000]);
    // Until the server says that the session has ended.
    let mut stopped = false;
    for _ in 0..20_000 {
        device.send(&large).unwrap();
        stopped = device.receive(Duration::from_millis(1)).unwrap().is_some();
        if stopped {
            break;
        }
    }
    assert!(stopped, "somebody has taken it all");
    let mut person = management.connect(&id).unwrap();
    person.send(&frame("", b"still there")).unwrap();
    assert!(contains(&next(&mut device), b"still there"));
}

#[test]
fn who_does_not_answer_a_ping_is_closed() {
    let (running, management, _folder, device, id, mut stream) =
        connected_with(|options| options.websocket_ping_seconds(1));
    // Whoever reads answers; this one is not read.
    let (mut silent, silent_id) = accepted(&running, "silent");
    silent.authenticate(&running);
    let _silent = connect_device(&running, &silent);
    let _ = device;
    let deadline = Instant::now() + PATIENCE;
    while management.connection(&silent_id).unwrap() != "disconnected" {
        assert!(Instant::now() < deadline, "the silent one is still there");
        assert_eq!(stream.receive(Duration::from_millis(50)).unwrap(), None);
    }
    assert_eq!(management.connection(&id).unwrap(), "connected");
}

#[test]
fn a_device_has_sixteen_sessions_and_not_more() {
    let (_running, management, _folder, _, id, mut device) = connected();
    let mut sessions: Vec<FrameStream> = (0..16).map(|_| management.connect(&id).unwrap()).collect();
    assert_eq!(refused(management.connect(&id)), 429);
    sessions.pop();
    // The end of one makes room.
    assert!(contains(&next(&mut device), b"stop"));
    soon(|| management.connect(&id).ok());
}

#[test]
fn a_connected_device_is_told_to_ask_and_to_report() {
    let (running, _, folder, _, id, mut device) = connected();
    assert_eq!(program(&running, &folder, &["connection", &id]), "connected\n");
    for command in ["check-update", "send-inventory"] {
        let answer = manage(&running, "POST", &format!("{DEVICES}/{id}/{command}"), Value::Null);
        assert_eq!((answer.status, answer.body.len()), (202, 0));
        let arrived = next(&mut device);
        assert!(contains(&arrived, b"\xa5proto\x04\xa3typ") && contains(&arrived, command.as_bytes()));
        assert_eq!(program(&running, &folder, &[command, &id]), format!("{id} told\n"));
        assert!(contains(&next(&mut device), command.as_bytes()));
    }
}

#[test]
fn a_server_that_stops_says_so() {
    let (running, management, _folder, _, id, mut device) = connected();
    let mut person = management.connect(&id).unwrap();
    let stopping = std::thread::spawn(move || running.stop());
    assert_eq!(closed(&mut device), 1001);
    assert_eq!(closed(&mut person), 1001);
    stopping.join().unwrap();
}

#[test]
fn many_connections_that_break_leave_nothing_behind() {
    let (running, management, _folder, device, id, stream) = connected();
    drop(stream);
    for _ in 0..50 {
        let mut half = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
        half.write_all(&handshake(&device)).unwrap();
        half.read_exact(&mut [0; 12]).unwrap();
    }
    expect_status(&management, &id, "disconnected");
    let _stream = connect_device(&running, &device);
    expect_status(&management, &id, "connected");
}
