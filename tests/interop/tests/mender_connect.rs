//! The real `mender-connect` on a real message bus, through our daemon, to a server: a user opens a shell on
//! the device, fetches a file and asks for an update.

// Clippy's leave for tests does not reach the functions that tests share.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use interop::bus::{Bus, Policies};
use interop::terminal::{Frames, Session};
use interop::virtual_device::{VirtualDevice, client_program_for_add_ons};
use interop::{tool, wait_for};
use ring::digest;
use serde_json::json;

/// Long enough for anything that happens at all. `mender-connect` looks for a token every ten seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// The path of a WebSocket.
const CONNECT: &str = "/api/devices/v1/deviceconnect/connect";

/// The device API as far as it is needed, with a new token for each that is asked for.
struct TinyServer {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    sockets: mpsc::Receiver<WebSocket>,
}

impl TinyServer {
    fn start() -> TinyServer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (sender, sockets) = mpsc::channel();
        let requests = Arc::clone(&seen);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, sender) = (Arc::clone(&requests), sender.clone());
                thread::spawn(move || serve(&stream.unwrap(), &requests, &sender));
            }
        });
        TinyServer { port, seen, sockets }
    }

    /// The first lines of the requests so far that contain `word`, with their tokens.
    fn requests(&self, word: &str) -> Vec<String> {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(word)).cloned().collect()
    }

    /// Waits until there are more than `count` requests with `word`.
    #[track_caller]
    fn expect_more(&self, word: &str, count: usize) {
        let more = wait_for(PATIENCE, || (self.requests(word).len() > count).then_some(()));
        assert!(more.is_some(), "no more {word} in {:#?}", self.seen.lock().unwrap());
    }
}

/// Answers request after request on one connection, which may become a WebSocket.
fn serve(stream: &TcpStream, seen: &Mutex<Vec<String>>, sockets: &mpsc::Sender<WebSocket>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(reader.read_line(&mut head), Ok(count) if count > 0) {
                return;
            }
        }
        let header = |name: &str| {
            let named = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}: "));
            head.lines().find(named).map(|line| line[name.len() + 2..].to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().unwrap());
        reader.read_exact(&mut vec![0; length]).unwrap();
        let first = head.lines().next().unwrap();
        let line = format!("{first} {}", header("authorization").unwrap_or_default());
        let mut all = seen.lock().unwrap();
        all.push(line);
        let tokens = all.iter().filter(|line| line.contains("/auth_requests")).count();
        drop(all);
        if first.contains(CONNECT) {
            let accept = header("sec-websocket-key").unwrap() + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
            let accept = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, accept.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                STANDARD.encode(accept)
            );
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            let token = header("authorization").unwrap_or_default();
            let _ = sockets.send(WebSocket { reader, token });
            return;
        }
        let (status, body) = match first {
            _ if first.contains("/auth_requests") => ("200 OK", format!("token{tokens}.e30.sig")),
            _ if first.contains("/attributes") => ("200 OK", String::new()),
            _ => ("204 No Content", String::new()),
        };
        let length = if status.starts_with("204") {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let answer = format!("HTTP/1.1 {status}\r\n{length}\r\n{body}");
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The server's end of a WebSocket (RFC 6455).
struct WebSocket {
    reader: BufReader<TcpStream>,
    /// What the device showed.
    token: String,
}

impl WebSocket {
    fn write(&mut self, kind: u8, payload: &[u8]) {
        let mut frame = vec![0x80 | kind];
        match payload.len() {
            length @ 0..=125 => frame.push(length as u8),
            length => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        self.reader.get_mut().write_all(&frame).unwrap();
    }

    /// Kind and payload of the next frame, with the bit that says whether it is the last one of its message.
    fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        self.reader.read_exact(&mut head).ok()?;
        let mut length = u64::from(head[1] & 0x7f);
        if length >= 126 {
            let mut bytes = vec![0; if length == 126 { 2 } else { 8 }];
            self.reader.read_exact(&mut bytes).ok()?;
            length = bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        }
        assert!(head[1] & 0x80 != 0 && length <= 1 << 20, "{head:?} {length}");
        let mut mask = [0; 4];
        self.reader.read_exact(&mut mask).ok()?;
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.reader.read_exact(&mut payload).ok()?;
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
        Some((head[0], payload))
    }
}

impl Frames for WebSocket {
    fn send(&mut self, frame: &[u8]) {
        self.write(2, frame);
    }

    fn receive(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.reader.get_ref().set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let (kind, payload) = self.read()?;
            match kind & 0xf {
                0..=2 => {
                    message.extend_from_slice(&payload);
                    if kind & 0x80 != 0 {
                        return Some(message);
                    }
                }
                9 => self.write(10, &payload),
                8 => return None,
                _ => {}
            }
        }
    }
}

/// A running `mender-connect`. Ended when it is dropped.
struct MenderConnect {
    process: Child,
    log: std::path::PathBuf,
}

impl MenderConnect {
    /// Starts it on the bus. Where it looks for the client it finds ours.
    fn start(device: &VirtualDevice, bus: &Bus) -> Option<MenderConnect> {
        let (program, unshare, client) = (tool("mender-connect")?, tool("unshare")?, tool("mender")?);
        if !Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n") {
            println!("SKIPPED: mender-connect starts shells for root only");
            return None;
        }
        let mount = "mount --bind \"$0\" \"$1\" && shift && exec \"$@\"";
        let mounted = |words: &[&str]| {
            let mut command = Command::new(&unshare);
            command.args(["--mount", "sh", "-c", mount]).arg(client_program_for_add_ons()).arg(&client);
            command.args(words);
            command
        };
        let tried = mounted(&["true"]).output().unwrap();
        if !tried.status.success() {
            println!("SKIPPED: no file can be mounted: {}", String::from_utf8_lossy(&tried.stderr));
            return None;
        }
        let config =
            json!({ "ShellCommand": "/bin/bash", "User": "root", "Terminal": { "Height": 24, "Width": 80 } });
        std::fs::write(device.path("mender-connect.conf"), config.to_string()).unwrap();
        let log = device.path("mender-connect.log");
        let output = File::create(&log).unwrap();
        let mut command = mounted(&[program.to_str().unwrap(), "--trace"]);
        command.arg("--config").arg(device.path("mender-connect.conf"));
        command.arg("--fallback-config").arg(device.path("none.conf")).arg("daemon");
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        command.env("MENDER_CONF_DIR", device.path("conf")).env("MENDER_DATASTORE_DIR", device.path("data"));
        for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        Some(MenderConnect { process: command.spawn().unwrap(), log })
    }
}

impl Drop for MenderConnect {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("mender-connect said:\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_user_works_on_the_device_through_the_real_mender_connect() {
    let Some(bus) = Bus::start(Policies::None) else { return };
    let server = TinyServer::start();
    let mut device = VirtualDevice::new();
    device.use_bus(&bus.address());
    device.configure(&format!("http://127.0.0.1:{}/", server.port), |config| {
        // Nothing but what is asked for.
        config["UpdatePollIntervalSeconds"] = json!(3600);
        config["InventoryPollIntervalSeconds"] = json!(3600);
    });
    let Some(_mender_connect) = MenderConnect::start(&device, &bus) else { return };
    device.start();
    // By itself the daemon takes up to a minute before it talks to the server.
    let fetch = [
        "--dest=io.mender.AuthenticationManager",
        "/io/mender/AuthenticationManager",
        "io.mender.Authentication1.FetchJwtToken",
    ];
    let asked = wait_for(PATIENCE, || bus.call(&fetch).ok());
    assert!(asked.is_some(), "{}", device.log());
    let socket = server.sockets.recv_timeout(PATIENCE).unwrap();
    assert_eq!(socket.token, "Bearer token1.e30.sig");

    let (mut session, mut offered) = Session::open(socket);
    offered.sort_unstable();
    assert_eq!(offered, [1, 2, 3, 4]);
    session.start_shell();
    session.type_line("echo hi-$((1+1))", "hi-2");
    session.stop_shell();
    // More than one chunk, and more than may be on the way without being acknowledged.
    let content: Vec<u8> = (0..50_000_u32).flat_map(|number| number.to_le_bytes()).collect();
    std::fs::write(device.path("file"), &content).unwrap();
    assert!(session.fetch_file(device.path("file").to_str().unwrap()) == content);

    let polls = server.requests("/deployments/next").len();
    session.run_client("check-update").unwrap();
    server.expect_more("/deployments/next", polls);
    session.close();

    // A new token: the device comes again with it, through the new port.
    bus.call(&fetch).unwrap();
    let socket = server.sockets.recv_timeout(PATIENCE).unwrap();
    assert_eq!(socket.token, "Bearer token2.e30.sig");
    let (mut session, _) = Session::open(socket);
    session.start_shell();
    session.type_line("echo again-$((2+2))", "again-4");
    let sent = server.requests("/attributes").len();
    session.run_client("send-inventory").unwrap();
    server.expect_more("/attributes", sent);
    session.close();
}
