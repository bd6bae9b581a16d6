//! Files of devices: a person asks over HTTP, and a device that is played here answers in the frames of `mender-connect`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use crate::common::{Answer, Device, PATIENCE, accepted, manage, parse, request_bytes, server};
use crate::users::{USERADM, token, user};
use serde_json::Value;
use server_core::Running;
use server_core::client::{FrameStream, Management};

const DEVICES: &str = "/api/management/v1/deviceconnect/devices";
const CONTROL: u16 = 0xffff;
const FILES: u16 = 2;
/// As a device sends it, and how many of them ahead of what is acknowledged.
const CHUNK: usize = 4096;
const WINDOW: usize = 20 * CHUNK;

/// One message.
#[derive(Debug, Clone, PartialEq)]
struct Message {
    kind: String,
    session: String,
    offset: Option<usize>,
    body: Vec<u8>,
}

fn after<'a>(frame: &'a [u8], part: &[u8]) -> Option<&'a [u8]> {
    frame.windows(part.len()).position(|window| window == part).map(|at| &frame[at + part.len()..])
}

/// As the server writes it.
fn read(frame: &[u8]) -> Message {
    let kind = after(frame, b"\xa3typ").unwrap();
    let kind = String::from_utf8(kind[1..=usize::from(kind[0] - 0xa0)].to_vec()).unwrap();
    let session = String::from_utf8(after(frame, b"\xa3sid\xd9\x24").unwrap()[..36].to_vec()).unwrap();
    let offset =
        after(frame, b"\xa6offset\xd3").map(|rest| u64::from_be_bytes(rest[..8].try_into().unwrap()));
    let body = after(frame, b"\xa4body").unwrap();
    let body = if body[0] == 0xc4 { &body[2..] } else { &body[5..] };
    Message { kind, session, offset: offset.map(|offset| offset as usize), body: body.to_vec() }
}

/// As a device writes it.
fn written(proto: u16, kind: &str, session: &str, offset: Option<usize>, body: &[u8]) -> Vec<u8> {
    let mut frame = b"\x82\xa3hdr\x84\xa5proto\xcd".to_vec();
    frame.extend(proto.to_be_bytes());
    frame.extend([b"\xa3typ", &[0xa0 | kind.len() as u8][..], kind.as_bytes()].concat());
    frame.extend([b"\xa3sid\xd9\x24", session.as_bytes()].concat());
    match offset {
        Some(offset) => {
            frame.extend(b"\xa5props\x81\xa6offset\xd3");
            frame.extend((offset as u64).to_be_bytes());
        }
        None => frame.extend(b"\xa5props\xc0"),
    }
    frame.extend([b"\xa4body\xc5", &(body.len() as u16).to_be_bytes()[..], body].concat());
    frame
}

/// A text in a body: of less than 256 bytes.
fn text(text: &str) -> Vec<u8> {
    [&[0xd9, text.len() as u8], text.as_bytes()].concat()
}

fn error(reason: &str, about: &str) -> Vec<u8> {
    [&b"\x82\xa3err"[..], &text(reason), b"\xa7msgtype", &text(about)].concat()
}

/// Size and mode of a file of user 1000 and group 100.
fn info(size: usize, mode: u32) -> Vec<u8> {
    let (size, mode) = ((size as u64).to_be_bytes(), mode.to_be_bytes());
    [&b"\x84\xa4size\xd3"[..], &size, b"\xa4mode\xce", &mode, b"\xa3uid\xcd\x03\xe8\xa3gid\x64"].concat()
}

/// The device of a test.
struct Played {
    stream: FrameStream,
    session: String,
}

impl Played {
    fn next(&mut self) -> Message {
        let message = read(&self.stream.receive(PATIENCE).unwrap().expect("a frame"));
        self.session.clone_from(&message.session);
        message
    }

    #[track_caller]
    fn expect(&mut self, kind: &str) -> Message {
        let message = self.next();
        assert_eq!(message.kind, kind, "{message:?}");
        message
    }

    fn say(&mut self, proto: u16, kind: &str, offset: Option<usize>, body: &[u8]) {
        self.stream.send(&written(proto, kind, &self.session, offset, body)).unwrap();
    }

    /// Lets the server open a session.
    fn accept(&mut self, protocols: &[u8]) {
        self.expect("open");
        let count = [0x90 | protocols.len() as u8];
        let body = [&b"\x82\xa7version\x01\xa9protocols"[..], &count, protocols].concat();
        self.say(CONTROL, "accept", None, &body);
    }

    /// Says that the file is there.
    fn answer_stat(&mut self, path: &str, size: usize, mode: u32) {
        let asked = self.expect("stat");
        assert!(after(&asked.body, path.as_bytes()).is_some(), "{asked:?}");
        self.say(FILES, "file_info", None, &info(size, mode));
    }

    /// Sends a file as `mender-connect` does.
    fn send_file(&mut self, content: &[u8]) {
        self.expect("get_file");
        let (mut sent, mut acknowledged) = (0, 0);
        for chunk in content.chunks(CHUNK) {
            while sent + chunk.len() > acknowledged + WINDOW {
                acknowledged = self.expect("ack").offset.unwrap();
            }
            self.say(FILES, "file_chunk", Some(sent), chunk);
            sent += chunk.len();
        }
        self.say(FILES, "file_chunk", Some(sent), b"");
        while acknowledged < sent {
            acknowledged = self.expect("ack").offset.unwrap();
        }
    }

    /// Takes a file as `mender-connect` does: the acknowledgement has the offset of the last chunk.
    fn take_file(&mut self) -> Vec<u8> {
        self.say(FILES, "ack", Some(0), b"");
        let mut content = Vec::new();
        loop {
            let chunk = self.expect("file_chunk");
            assert_eq!(chunk.offset, Some(content.len()));
            content.extend(&chunk.body);
            let is_end = chunk.body.is_empty();
            self.say(FILES, "ack", chunk.offset, b"");
            if is_end {
                return content;
            }
        }
    }

    /// Answers an acknowledgement that nobody waits for.
    fn finish(&mut self, path: &str, size: usize) {
        self.expect("ack");
        self.say(FILES, "error", None, &error("no file transfer in progress", "ack"));
        self.answer_stat(path, size, 0o644);
    }
}

/// A server with one connected device.
struct Board {
    running: Running,
    management: Management,
    _folder: tempfile::TempDir,
    id: String,
    device: Device,
}

fn board(change: impl FnOnce(server_core::Options) -> server_core::Options) -> (Board, Played) {
    let (running, management, folder) = server(change);
    let (mut device, id) = accepted(&running, "a");
    assert_eq!(device.authenticate(&running).status, 200);
    let board = Board { running, management, _folder: folder, id, device };
    let played = board.connect();
    (board, played)
}

impl Board {
    fn connect(&self) -> Played {
        let path = "/api/devices/v1/deviceconnect/connect";
        let stream = FrameStream::open(self.running.url(), path, &self.device.token).unwrap();
        while self.management.connection(&self.id).unwrap() != "connected" {
            thread::yield_now();
        }
        Played { stream, session: String::new() }
    }

    fn bytes(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.running.management_token());
        let headers = [&[("Authorization", &*bearer), ("Host", "127.0.0.1")][..], headers].concat();
        request_bytes(method, &format!("{DEVICES}/{path}"), &headers, body)
    }

    fn send(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.running.port())).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// Asks for a file, lets the device answer, and gives the bytes of the answer.
    fn download_raw(&self, path: &str, device: impl FnOnce()) -> Vec<u8> {
        let mut stream =
            self.send(&self.bytes("GET", &format!("{}/download?path={path}", self.id), &[], b""));
        let reader = thread::spawn(move || {
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        });
        device();
        reader.join().unwrap()
    }

    fn download(&self, path: &str, device: impl FnOnce()) -> Answer {
        parse(&self.download_raw(path, device)).expect("an answer")
    }

    fn form(&self, fields: &[(&str, &str)], content: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in fields {
            let head = format!("--X\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            body.extend(head.into_bytes());
        }
        body.extend(b"--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n");
        body.extend(content);
        body.extend(b"\r\n--X--\r\n");
        let kind = [("Content-Type", "multipart/form-data; boundary=X")];
        self.bytes("PUT", &format!("{}/upload", self.id), &kind, &body)
    }

    fn upload(&self, fields: &[(&str, &str)], content: &[u8], device: impl FnOnce()) -> Answer {
        let bytes = self.form(fields, content);
        let port = self.running.port();
        let sender = thread::spawn(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let _ = stream.write_all(&bytes);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            parse(&answer).expect("an answer")
        });
        device();
        sender.join().unwrap()
    }

    /// What the log of what people did says of files.
    fn noted(&self) -> Vec<(String, String, String)> {
        let logs = manage(&self.running, "GET", "/api/management/v1/auditlogs/logs", Value::Null).json();
        let entries = logs.as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        entries
            .map(|entry| (text(&entry["action"]), text(&entry["object"]["id"]), text(&entry["change"])))
            .filter(|(action, _, _)| action.ends_with("_file"))
            .collect()
    }
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|number| (number % 251) as u8).collect()
}

#[test]
fn a_file_comes_from_a_device_and_goes_to_it() {
    let (board, mut device) = board(|options| options);
    // More than is sent ahead of the acknowledgements.
    let file = content(300_001);
    let answer = board.download("/etc/a%20file", || {
        device.accept(&[1, 2]);
        device.answer_stat("/etc/a file", file.len(), 0o640);
        device.send_file(&file);
        device.expect("close");
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.body == file);
    for (name, value) in [
        ("Content-Type", "application/octet-stream"),
        ("X-MEN-File-Path", "/etc/a file"),
        ("X-MEN-File-UID", "1000"),
        ("X-MEN-File-GID", "100"),
        ("X-MEN-File-Mode", "640"),
        ("X-MEN-File-Size", "300001"),
        ("Content-Disposition", "attachment; filename=\"a_file\""),
    ] {
        assert_eq!(answer.header(name), Some(value), "{}", answer.head);
    }

    for size in [300_001, 0] {
        let file = content(size);
        let fields = [("path", "/tmp/new"), ("uid", "7"), ("gid", ""), ("mode", "0755")];
        let mut asked = Vec::new();
        let mut taken = Vec::new();
        let answer = board.upload(&fields, &file, || {
            device.accept(&[2]);
            asked = device.expect("put_file").body;
            taken = device.take_file();
            device.finish("/tmp/new", size);
            device.expect("close");
        });
        assert_eq!((answer.status, answer.body.len()), (201, 0), "{}", answer.text());
        assert!(taken == file);
        let number = |name: &[u8], number: u64| [name, b"\xd3", &number.to_be_bytes()].concat();
        assert!(after(&asked, b"\xa4path\xa8/tmp/new").is_some(), "{asked:?}");
        assert!(after(&asked, &number(b"\xa3uid", 7)).is_some() && after(&asked, b"\xa3gid").is_none());
        assert!(after(&asked, &number(b"\xa4mode", 0o755)).is_some());
    }
    let entry = |action: &str, path: &str| (action.to_owned(), board.id.clone(), path.to_owned());
    let expected = [
        entry("upload_file", "/tmp/new"),
        entry("upload_file", "/tmp/new"),
        entry("download_file", "/etc/a file"),
    ];
    assert_eq!(board.noted(), expected);
}

#[test]
fn what_cannot_be_had_is_named() {
    let (board, mut device) = board(|options| options);
    let answer = board.download("/none", || {
        device.accept(&[2]);
        device.expect("stat");
        device.say(FILES, "error", None, &error("stat /none: no such file or directory", "stat"));
        device.expect("close");
    });
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("stat /none: no such file or directory"), "{}", answer.text());
    let answer = board.download("/etc", || {
        device.accept(&[2]);
        // A folder, as Go says it.
        device.answer_stat("/etc", 4096, 0x8000_01ed);
        device.expect("close");
    });
    assert_eq!((answer.status, answer.text().contains("not a regular file")), (400, true));
    let answer = board.download("/var/secret", || {
        device.accept(&[2]);
        device.answer_stat("/var/secret", 1, 0o600);
        device.expect("get_file");
        device.say(FILES, "error", None, &error("access denied", "get_file"));
        device.expect("close");
    });
    assert_eq!((answer.status, answer.text().contains("access denied")), (400, true));
    let answer = board.download("/etc/issue", || {
        device.accept(&[1, 3]);
        device.expect("close");
    });
    assert_eq!((answer.status, answer.text().contains("offers no file transfer")), (502, true));
    let answer = board.upload(&[("path", "/proc/x")], b"abc", || {
        device.accept(&[2]);
        device.expect("put_file");
        device.say(FILES, "error", None, &error("read-only file system", "put_file"));
        device.expect("close");
    });
    assert_eq!((answer.status, answer.text().contains("read-only file system")), (400, true));
    for path in ["", "relative", "/a%00b", &format!("/{}", "a".repeat(4096))] {
        let answer = board.download(path, || {});
        assert_eq!((answer.status, answer.text().contains("path: ")), (400, true), "{path}");
    }
    for (fields, named) in [
        (&[("path", "relative")][..], "path"),
        (&[][..], "path"),
        (&[("path", "/a"), ("mode", "689")][..], "mode"),
        (&[("path", "/a"), ("uid", "root")][..], "uid"),
    ] {
        let answer = board.upload(fields, b"abc", || {});
        assert_eq!((answer.status, answer.text().contains(named)), (400, true), "{}", answer.text());
    }
    drop(device);
    while board.management.connection(&board.id).unwrap() == "connected" {
        thread::yield_now();
    }
    assert_eq!(board.download("/etc/issue", || {}).status, 409);
    assert_eq!(board.upload(&[("path", "/a")], b"abc", || {}).status, 409);
    assert_eq!(board.noted(), []);
}

/// What is no whole file does not look like one.
#[test]
fn a_device_that_breaks_off_or_lies_ends_the_download() {
    type Wrong = fn(&mut Played);
    let wrong: [(&str, Wrong); 5] = [
        ("a wrong offset", |device| device.say(FILES, "file_chunk", Some(5000), b"more")),
        ("an early end", |device| device.say(FILES, "file_chunk", Some(CHUNK), b"")),
        ("an error", |device| device.say(FILES, "error", None, &error("input/output error", "get_file"))),
        ("another message", |device| device.say(FILES, "file_info", None, &info(1, 0o600))),
        ("the end of the session", |device| device.say(CONTROL, "close", None, b"")),
    ];
    let (board, mut device) = board(|options| options);
    for (what, wrong) in wrong {
        let answer = board.download_raw("/a", || {
            device.accept(&[2]);
            device.answer_stat("/a", 8192, 0o600);
            device.expect("get_file");
            device.say(FILES, "file_chunk", Some(0), &[7; CHUNK]);
            wrong(&mut device);
            device.expect("close");
        });
        let text = String::from_utf8_lossy(&answer);
        // What goes wrong at once comes behind a head all the same, and no last chunk comes.
        let is_begun =
            text.starts_with("HTTP/1.1 200 ") && text.contains("\r\nTransfer-Encoding: chunked\r\n");
        assert!(is_begun && !text.ends_with("0\r\n\r\n"), "{what}: {text}");
    }
    let answer = board.download("/a", || {
        device.accept(&[2]);
        device.answer_stat("/a", 8192, 0o600);
        device.expect("get_file");
        device.say(FILES, "file_chunk", Some(0), b"");
        device.expect("close");
    });
    assert_eq!(
        (answer.status, answer.text().contains("ends before its size")),
        (502, true),
        "{}",
        answer.text()
    );
    let answer = board.download_raw("/a", || {
        device.accept(&[2]);
        device.answer_stat("/a", 8192, 0o600);
        device.expect("get_file");
        device.say(FILES, "file_chunk", Some(0), &[7; CHUNK]);
        drop(device);
    });
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn a_device_that_breaks_off_or_lies_ends_the_upload() {
    type Wrong = fn(&mut Played);
    let wrong: [(u16, &str, Wrong); 4] = [
        (502, "more is acknowledged", |device| device.say(FILES, "ack", Some(1 << 40), b"")),
        (502, "acknowledges nothing", |device| device.say(FILES, "file_chunk", Some(0), b"x")),
        (400, "no space left", |device| {
            device.say(FILES, "error", None, &error("no space left on device", "put_file"));
        }),
        (502, "another length", |device| {
            device.take_file();
            device.finish("/a", 5);
        }),
    ];
    let (board, mut device) = board(|options| options);
    for (status, named, wrong) in wrong {
        let answer = board.upload(&[("path", "/a")], &content(100_000), || {
            device.accept(&[2]);
            device.expect("put_file");
            wrong(&mut device);
            while device.next().kind != "close" {}
        });
        assert_eq!((answer.status, answer.text().contains(named)), (status, true), "{}", answer.text());
    }
    let answer = board.upload(&[("path", "/a")], &content(100_000), || {
        device.accept(&[2]);
        device.expect("put_file");
        drop(device);
    });
    assert_eq!((answer.status, answer.text().contains("session with the device has ended")), (502, true));
    assert_eq!(board.noted(), []);
}

#[test]
fn a_device_that_says_nothing_is_not_waited_for_for_ever() {
    let (board, mut device) = board(|options| options.websocket_ping_seconds(2));
    let answer = board.download("/a", || {
        device.expect("open");
        device.expect("close");
    });
    assert_eq!(answer.status, 504, "{}", answer.text());
}

#[test]
fn a_transfer_ends_with_the_right_to_it() {
    let (board, mut device) = board(|options| options);
    let ada = user(&board.running, "ada@example.org", &[]);
    let bearer = format!("Bearer {}", token(&board.running, "ada@example.org"));
    let path = format!("{DEVICES}/{}/download?path=/a", board.id);
    let port = board.running.port();
    let reader = thread::spawn(move || {
        let headers = [("Authorization", &*bearer), ("Host", "127.0.0.1")];
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(&request_bytes("GET", &path, &headers, b"")).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        parse(&answer).expect("an answer")
    });
    device.accept(&[2]);
    device.expect("stat");
    assert_eq!(manage(&board.running, "DELETE", &format!("{USERADM}/users/{ada}"), Value::Null).status, 204);
    device.expect("close");
    let answer = reader.join().unwrap();
    assert_eq!((answer.status, answer.text().contains("login or token has ended")), (502, true));
}

#[test]
fn whoever_goes_in_the_middle_leaves_no_transfer_behind() {
    let (board, mut device) = board(|options| options);
    // The rest of the upload never comes.
    let bytes = board.form(&[("path", "/a")], &content(50_000));
    let stream = board.send(&bytes[..bytes.len() - 20_000]);
    device.accept(&[2]);
    device.expect("put_file");
    device.say(FILES, "ack", Some(0), b"");
    device.expect("file_chunk");
    stream.shutdown(Shutdown::Both).unwrap();
    while device.next().kind != "close" {}

    let stream = board.send(&board.bytes("GET", &format!("{}/download?path=/a", board.id), &[], b""));
    device.accept(&[2]);
    device.answer_stat("/a", 1 << 30, 0o600);
    device.expect("get_file");
    device.say(FILES, "file_chunk", Some(0), &[7; CHUNK]);
    stream.shutdown(Shutdown::Both).unwrap();
    device.expect("close");

    // The device has not answered yet: neither is waited for it as long as a device may take.
    for bytes in [
        board.bytes("GET", &format!("{}/download?path=/a", board.id), &[], b""),
        board.form(&[("path", "/a")], b"abc"),
        // The rest of the upload never comes.
        board.form(&[("path", "/a")], &content(50_000))[..40_000].to_vec(),
    ] {
        let stream = board.send(&bytes);
        device.expect("open");
        stream.shutdown(Shutdown::Both).unwrap();
        device.expect("close");
    }
}
