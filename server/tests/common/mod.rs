//! A server on the loopback, a device with a key, and plain HTTP without any library in between.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests may panic")]

pub(crate) mod postgres;
pub(crate) mod s3;
pub(crate) mod smtp;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use artifact::write::{self, ArtifactSpec, PayloadSource};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use server_core::client::Management;
use server_core::{Options, Running, Server};
use tempfile::{NamedTempFile, TempDir};
use testserver::TestServer;

/// How long a test waits for what has to come: on a busy machine everything takes long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);
/// Before it is asked again: whoever asks without a pause takes the processor from what it waits for.
const PAUSE: Duration = Duration::from_millis(5);

/// What another thread, process or server does is seen soon; nobody tells the test.
#[track_caller]
pub(crate) fn soon<T>(mut asked: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = asked() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not come");
        // Between two looks; what is waited for ends the loop, not the time.
        std::thread::sleep(PAUSE);
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    soon(|| is_so().then_some(()));
}

/// A server with its own folder.
pub(crate) fn server(change: impl FnOnce(Options) -> Options) -> (Running, Management, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (running, management) = server_in(folder.path(), change);
    (running, management, folder)
}

/// A server with its own folder, whose faults can be set, and that remembers requests.
pub(crate) fn test_server() -> (TestServer, Management, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(Options::new(folder.path())).unwrap();
    let management = Management::new(server.url(), server.management_token());
    (server, management, folder)
}

/// A server in this folder.
pub(crate) fn server_in(folder: &Path, change: impl FnOnce(Options) -> Options) -> (Running, Management) {
    let running = Server::start(change(Options::new(folder))).unwrap();
    let management = Management::new(running.url(), running.management_token());
    (running, management)
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends bytes and reads until the server closes.
pub(crate) fn raw(running: &Running, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", running.port())).unwrap();
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Reads an answer; `None` when there is none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let mut answer = Answer { status, head, body: bytes[end + 4..].to_vec() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunk(&answer.body);
    }
    Some(answer)
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}

/// The bytes of a request.
pub(crate) fn request_bytes(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "Host: HOST\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// Sends a request and reads the answer.
pub(crate) fn request(
    running: &Running,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let host = format!("127.0.0.1:{}", running.port());
    let bytes = request_bytes(method, path, headers, body);
    let bytes = String::from_utf8(bytes)
        .map(|text| text.replace("Host: HOST", &format!("Host: {host}")).into_bytes());
    parse(&raw(running, &bytes.unwrap())).expect("an answer")
}

/// Asks the management API.
pub(crate) fn manage(running: &Running, method: &str, path: &str, body: Value) -> Answer {
    let token = format!("Bearer {}", running.management_token());
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(running, method, path, &[("Authorization", &token)], body.as_bytes())
}

/// A device with an Ed25519 key.
pub(crate) struct Device {
    pub(crate) key: Ed25519KeyPair,
    pub(crate) identity: Value,
    pub(crate) artifact_name: String,
    pub(crate) device_type: String,
    pub(crate) token: String,
}

impl Device {
    pub(crate) fn new(mac: &str) -> Device {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Device {
            key: Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap(),
            identity: json!({ "mac": mac }),
            artifact_name: "release-1".to_owned(),
            device_type: "testdev".to_owned(),
            token: String::new(),
        }
    }

    /// The public key.
    pub(crate) fn pem(&self) -> String {
        let info =
            [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", self.key.public_key().as_ref()].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(info))
    }

    /// Body and signature of a request for a token.
    pub(crate) fn auth_request(&self) -> (String, String) {
        let body = json!({ "id_data": self.identity.to_string(), "pubkey": self.pem() }).to_string();
        let signature = STANDARD.encode(self.key.sign(body.as_bytes()));
        (body, signature)
    }

    /// Asks for a token and keeps it.
    pub(crate) fn authenticate(&mut self, running: &Running) -> Answer {
        let (body, signature) = self.auth_request();
        let answer = authenticate(running, body.as_bytes(), &signature);
        if answer.status == 200 {
            self.token = answer.text();
        }
        answer
    }

    pub(crate) fn ask(&self, running: &Running, method: &str, path: &str, body: &str) -> Answer {
        let token = format!("Bearer {}", self.token);
        request(running, method, path, &[("Authorization", &token)], body.as_bytes())
    }

    pub(crate) fn next(&self, running: &Running) -> Answer {
        let provides = json!({ "artifact_name": self.artifact_name, "device_type": self.device_type });
        let body = json!({ "device_provides": provides }).to_string();
        self.ask(running, "POST", "/api/devices/v2/deployments/device/deployments/next", &body)
    }

    pub(crate) fn report(&self, running: &Running, deployment: &str, status: &str) -> Answer {
        let path = format!("/api/devices/v1/deployments/device/deployments/{deployment}/status");
        self.ask(running, "PUT", &path, &json!({ "status": status }).to_string())
    }
}

/// Sends a request for a token.
pub(crate) fn authenticate(running: &Running, body: &[u8], signature: &str) -> Answer {
    let headers = [("X-MEN-Signature", signature), ("Content-Type", "application/json")];
    request(running, "POST", "/api/devices/v1/authentication/auth_requests", &headers, body)
}

/// A device that is accepted, and its id.
pub(crate) fn accepted(running: &Running, mac: &str) -> (Device, String) {
    let mut device = Device::new(mac);
    let body = json!({ "identity_data": device.identity, "pubkey": device.pem() });
    let answer = manage(running, "POST", "/api/management/v2/devauth/devices", body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(device.authenticate(running).status, 200);
    let id = answer.header("location").unwrap().rsplit('/').next().unwrap().to_owned();
    (device, id)
}

/// A server with `release-2` for `testdev`, one device, and a deployment of it.
pub(crate) fn deployed() -> (Running, Management, TempDir, Device, String, String) {
    let (running, management, folder) = server(|options| options);
    let (device, id) = accepted(&running, "a");
    management.upload_artifact(artifact("release-2", "testdev").path()).unwrap();
    let deployment = management.deploy("first", "release-2", std::slice::from_ref(&id)).unwrap();
    (running, management, folder, device, id, deployment)
}

/// The last piece of where something is that was made.
pub(crate) fn last_of(answer: &Answer) -> String {
    let location = answer.header("location").expect("something was made");
    location.rsplit('/').next().unwrap().to_owned()
}

/// The error of an answer: its status, with the words of the API around it.
pub(crate) fn error(answer: &Answer) -> u16 {
    let body = answer.json();
    assert!(body["error"].is_string() && body["request_id"].is_string(), "{body}");
    answer.status
}

pub(crate) struct OneFile(pub(crate) String, pub(crate) Vec<u8>);

impl PayloadSource for OneFile {
    fn name(&self) -> &str {
        &self.0
    }

    fn size(&self) -> u64 {
        self.1.len() as u64
    }

    fn open(&self) -> std::io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.1.as_slice()))
    }
}

/// An artifact with many small files, for `testdev`.
pub(crate) fn artifact_of_files(name: &str, count: usize) -> NamedTempFile {
    let files: Vec<OneFile> = (0..count).map(|n| OneFile(format!("file-{n}"), b"x".to_vec())).collect();
    let files: Vec<&dyn PayloadSource> = files.iter().map(|file| file as &dyn PayloadSource).collect();
    let spec = ArtifactSpec::module_image(
        name.parse().unwrap(),
        vec!["testdev".parse().unwrap()],
        "files".parse().unwrap(),
    );
    let mut scratch = tempfile::tempfile().unwrap();
    let mut file = NamedTempFile::new().unwrap();
    write::write(&spec, &files, None, &mut scratch, &mut file).unwrap();
    file
}

/// An artifact with 20,000 bytes that do not compress.
pub(crate) fn artifact(name: &str, device_type: &str) -> NamedTempFile {
    artifact_with(name, device_type, 20_000, |_| {})
}

/// An artifact as `change` wants it.
pub(crate) fn artifact_with(
    name: &str,
    device_type: &str,
    bytes: usize,
    change: impl FnOnce(&mut ArtifactSpec),
) -> NamedTempFile {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let payload = OneFile("rootfs.img".to_owned(), (0..bytes).map(|_| next()).collect());
    let mut spec = ArtifactSpec::rootfs_image(name.parse().unwrap(), vec![device_type.parse().unwrap()]);
    change(&mut spec);
    let mut scratch = tempfile::tempfile().unwrap();
    let mut file = NamedTempFile::new().unwrap();
    write::write(&spec, &[&payload], None, &mut scratch, &mut file).unwrap();
    file
}

/// A server in a process of its own.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) url: String,
    pub(crate) management: Management,
}

impl Process {
    pub(crate) fn start(folder: &Path) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rust-ota-server"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--quiet", "--data"]).arg(folder);
        Process::spawn(command, folder)
    }

    /// A server that accepts every device, below a shell that does `first`.
    pub(crate) fn start_after(first: &str, folder: &Path) -> Process {
        let mut command = Command::new("sh");
        let serve = "exec \"$0\" serve --auto-accept --listen 127.0.0.1:0 --data \"$1\"";
        command.arg("-c").arg(format!("{first}; {serve}"));
        command.arg(env!("CARGO_BIN_EXE_rust-ota-server")).arg(folder);
        Process::spawn(command, folder)
    }

    pub(crate) fn spawn(mut command: Command, folder: &Path) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url =
            line.trim().strip_prefix("listening on ").expect("the line that says it is ready").to_owned();
        let token = std::fs::read_to_string(folder.join("management-token")).unwrap();
        let management = Management::new(&url, &token);
        Process { child, url, management }
    }

    /// As if the power had gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it logged, if that goes to a pipe.
    pub(crate) fn killed_and_read(mut self) -> String {
        let mut log = self.child.stderr.take().unwrap();
        self.kill();
        let mut text = Vec::new();
        log.read_to_end(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap()
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Answer {
        self.try_send(bytes).expect("an answer")
    }

    /// `None` when there is no answer.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).ok()?;
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        parse(&answer)
    }

    pub(crate) fn ask(&self, device: &Device, method: &str, path: &str, body: &str) -> Answer {
        self.try_ask(device, method, path, body).expect("an answer")
    }

    pub(crate) fn try_ask(&self, device: &Device, method: &str, path: &str, body: &str) -> Option<Answer> {
        let address = self.url.strip_prefix("http://").unwrap();
        let token = format!("Bearer {}", device.token);
        let headers = [("Host", address), ("Authorization", token.as_str())];
        self.try_send(&request_bytes(method, path, &headers, body.as_bytes()))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&request_bytes("GET", path, &[], b""))
    }

    pub(crate) fn authenticate(&self, device: &mut Device) -> u16 {
        let (body, signature) = device.auth_request();
        let path = "/api/devices/v1/authentication/auth_requests";
        let bytes = request_bytes("POST", path, &[("X-MEN-Signature", &signature)], body.as_bytes());
        let answer = self.send(&bytes);
        if answer.status == 200 {
            device.token = answer.text();
        }
        answer.status
    }
}

/// The login of a person.
pub(crate) fn login(running: &Running, name_and_password: &str) -> Answer {
    let basic = format!("Basic {}", STANDARD.encode(name_and_password));
    request(running, "POST", "/api/management/v1/useradm/auth/login", &[("Authorization", &basic)], b"")
}
